"""Small data shared by the tests of the estimators."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """64 pixels of 1797 digits, 0 to 16, float64, read-only."""
    X = load_digits().data
    X.flags.writeable = False
    return X


@pytest.fixture(scope="session")
def X():
    """60 rows of 5 correlated features off their origin, float64, read-only."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5)) + 3
    X.flags.writeable = False
    return X

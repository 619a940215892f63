"""Pictures are drawn without a screen, and closed; callbacks are those of scikit-learn >= 1.9."""

import importlib.util
import os
import sys

import pytest

os.environ.setdefault("MPLBACKEND", "agg")  # read when matplotlib is first imported

collect_ignore = []
if importlib.util.find_spec("sklearn.callback") is None:
    collect_ignore.append("skae/callbacks")  # their examples


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Close what a test or an example has drawn."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

"""Data of the benchmarks: float32, centred, with a mean variance of 1.

skae trains in the units of the data. In these units its steps are the peers' steps, so that equal
epochs end at equal losses and times can be compared.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, load_breast_cancer
from sklearn.preprocessing import StandardScaler


def breast_cancer() -> np.ndarray:
    """569 rows of 30 features, standardised; it comes with scikit-learn."""
    X = load_breast_cancer(return_X_y=True)[0]
    return StandardScaler().fit_transform(X).astype(np.float32)


def mnist(n_rows: int = 10_000) -> np.ndarray:
    """The first training images, 784 pixels less their means, divided by one number for all."""
    pixels = _mnist("X_train", "data")[:n_rows].reshape(n_rows, -1) / 255
    pixels -= pixels.mean(0)
    return (pixels / np.sqrt(pixels.var(0).mean())).astype(np.float32)


def mnist_labels(n_rows: int = 10_000) -> np.ndarray:
    """The digits that these images show."""
    return _mnist("y_train", "target")[:n_rows].astype(int)


def _mnist(name: str, at_openml: str) -> np.ndarray:
    """An array of ``$SKAE_DATA/images/mnist.npz``, else what OpenML has."""
    folder = os.environ.get("SKAE_DATA")
    path = Path(folder or ".", "images", "mnist.npz")
    if folder and path.is_file():
        return np.load(path)[name]
    reason = f"there is no {path}" if folder else "SKAE_DATA is not set"
    print(f"MNIST: {reason}; asking OpenML, which scikit-learn keeps in its data folder.")
    found = fetch_openml("mnist_784", version=1, as_frame=False, parser="auto")
    return getattr(found, at_openml)

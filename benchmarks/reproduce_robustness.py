"""How far noise moves the codes and reconstructions of plain, denoising, contractive autoencoders.

python benchmarks/reproduce_robustness.py [--only plain] [--threads 1] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from _reproduce import Table, mnist, parser
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae

SIGMA = 0.3  # of the gaussian noise on test images, pixels in [0, 1]
SHARED: dict[str, Any] = {
    "n_components": 500, "hidden_layer_sizes": (), "activation": "logistic",
    "code_activation": "logistic", "loss": "binary_cross_entropy", "tied_weights": True,
    "batch_size": 100, "learning_rate_init": 1e-3, "tol": None, "random_state": 0,
}  # fmt: skip
# Noise as in Vincent et al. (2010), gaussian as in the test; contraction by the accuracy on noisy
# validation rows (0.003, 0.03 and 0.3 tried on 10,000 training rows).
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("Autoencoder", {}),
    "denoising, gaussian": (
        "DenoisingAutoencoder", {"corruption": "gaussian", "noise_level": 0.3}
    ),
    "denoising, masking": (
        "DenoisingAutoencoder", {"corruption": "masking", "noise_level": 0.25, "fill": 0.0}
    ),
    "contractive": ("ContractiveAutoencoder", {"contraction": 0.003}),
}  # fmt: skip


def spread(Z: np.ndarray) -> float:
    """Root mean squared distance of rows from their mean."""
    return float(np.sqrt(np.mean(np.sum((Z - Z.mean(0)) ** 2, axis=1))))


def movement(Z: np.ndarray, moved: np.ndarray) -> float:
    """Root mean squared distance between rows and what they became."""
    return float(np.sqrt(np.mean(np.sum((moved - Z) ** 2, axis=1))))


def run(name: str, epochs: int, data: Sequence[np.ndarray]) -> list[Any]:
    """One variant's row."""
    X, y, X_test, y_test = data
    cls, parameters = VARIANTS[name]
    model = getattr(skae, cls)(**(SHARED | parameters), max_iter=epochs).fit(X)
    noise = np.random.default_rng(1).normal(size=X_test.shape).astype(np.float32)
    noisy = X_test + np.float32(SIGMA) * noise
    Z, Z_noisy = model.transform(X_test), model.transform(noisy)
    R, R_noisy = model.reconstruct(X_test), model.reconstruct(noisy)
    rows = min(10_000, len(X))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    classifier.fit(model.transform(X[:rows]), y[:rows])
    return [
        movement(Z, Z_noisy) / spread(Z),
        movement(R, R_noisy) / spread(R),
        1000 * float(np.mean((R_noisy - X_test) ** 2)),
        100 * classifier.score(Z, y_test),
        100 * classifier.score(Z_noisy, y_test),
    ]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, y, X_test, y_test = mnist()
    epochs = 4 if options.quick else 15
    if options.quick:
        X, y, X_test, y_test = X[:6000], y[:6000], X_test[:2000], y_test[:2000]
    header = ["autoencoder", "movement of the code", "movement of the reconstruction",
              "error of noisy rows", "accuracy, clean", "accuracy, noisy"]  # fmt: skip
    notes = (
        f"MNIST, {len(X)} training and {len(X_test)} test rows, {epochs} epochs each, the same "
        f"network ({SHARED}). Noise N(0, {SIGMA}^2) on test pixels in [0, 1]. Movement: root mean "
        "squared distance between codes (reconstructions) of clean and noisy rows, divided by the "
        "spread of the clean ones, the same about their mean. Error: mean squared, times 1000, of "
        "reconstructed noisy rows against clean ones. Accuracy (%): logistic regression on the "
        "codes of 10,000 clean training rows, the same for all. " + "; ".join(
            f"{name}: {p}" for name, (_, p) in VARIANTS.items() if p) + "."
    )  # fmt: skip
    results = Table("robustness", header, options, notes)
    for name, (cls, _) in VARIANTS.items():
        if hasattr(skae, cls):
            results.add(name, lambda name=name: run(name, epochs, (X, y, X_test, y_test)))
        else:
            print(f"{name}: skae has no {cls}")


if __name__ == "__main__":
    main()

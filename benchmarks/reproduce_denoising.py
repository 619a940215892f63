"""Denoising on MNIST: reconstructions of corrupted test images, for every corruption.

python benchmarks/reproduce_denoising.py [--only masking] [--threads 1] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _reproduce import Table, mnist, parser
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from skae import DenoisingAutoencoder
from skae._engine.rng import Streams
from skae.estimators.denoising import DenoisingObjective

LEVELS = {"gaussian": 0.3, "masking": 0.25, "salt_and_pepper": 0.25, "swap": 0.25}
VALIDATION = 10_000  # the last training rows: PCA's k is chosen on them
SEED = 0


@dataclass(frozen=True, kw_only=True)
class WrongTarget(DenoisingObjective):
    """The loss against the corrupted row that the encoder saw."""

    def __call__(self, out, net=None):
        return self.data_loss(out.x_in, out.raw)


class Copying(DenoisingAutoencoder):
    """The same network, held to x~ in place of x."""

    def _objective(self):
        right = super()._objective()
        fields = {f.name: getattr(right, f.name) for f in dataclasses.fields(right)}
        return WrongTarget(**fields)


def corrupted(model: DenoisingAutoencoder, X: np.ndarray, seed: int) -> np.ndarray:
    """The noise that the model was trained on, drawn once for these rows."""
    draws = Streams([seed]).draws("corruption", torch.float32)
    return model.objective_.corrupt(torch.from_numpy(X), draws)[0].numpy()


def error(X_hat: np.ndarray, X: np.ndarray) -> float:
    """Mean squared error of a pixel, against the clean images."""
    return float(np.mean((X_hat - X) ** 2, dtype=np.float64))


class Linear:
    """What a linear method makes of the same noisy rows; everything is chosen on training rows."""

    def __init__(self, X: np.ndarray):
        self.X = X
        self.pca = PCA(300, random_state=SEED).fit(X)

    def by_pca(self, noisy: np.ndarray, k: int) -> np.ndarray:
        """Projection on k principal components of the clean rows."""
        V = self.pca.components_[:k]
        return (noisy - self.pca.mean_) @ V.T @ V + self.pca.mean_

    def best_k(self, noisy: np.ndarray, clean: np.ndarray) -> int:
        """The k with the lowest error on validation rows."""
        tried = range(10, 301, 10)
        return min(tried, key=lambda k: error(self.by_pca(noisy, k), clean))

    def by_regression(self, noisy_train: np.ndarray, noisy: np.ndarray) -> np.ndarray:
        """Least squares from one corrupted copy of the training rows to the clean ones."""
        mean = noisy_train.mean(0)
        A, B = noisy_train - mean, self.X - self.X.mean(0)
        W = np.linalg.solve(A.T @ A + 1.0 * np.eye(A.shape[1], dtype=A.dtype), A.T @ B)
        return (noisy - mean) @ W + self.X.mean(0)


def run(corruption: str, quick: bool, data: Sequence[np.ndarray]) -> list[Any]:
    """Errors of one corruption's row."""
    X, X_valid, X_test = data
    settings: dict[str, Any] = {
        "corruption": corruption, "noise_level": LEVELS[corruption], "fill": 0.0,
        "n_components": 500, "hidden_layer_sizes": (), "activation": "relu",
        "output_activation": "logistic", "batch_size": 100, "learning_rate_init": 1e-3,
        "learning_rate": "cosine", "max_iter": 4 if quick else 20, "tol": None,
        "random_state": SEED,
    }  # fmt: skip
    denoising = DenoisingAutoencoder(**settings).fit(X)
    copying = Copying(**settings).fit(X)
    noisy, noisy_valid = corrupted(denoising, X_test, 1), corrupted(denoising, X_valid, 2)
    linear = Linear(X)
    k = linear.best_k(noisy_valid, X_valid)
    found = {
        "noise": noisy,
        "pca": linear.by_pca(noisy, k),
        "regression": linear.by_regression(corrupted(denoising, X, 3), noisy),
        "wrong target": copying.reconstruct(noisy),
        "denoising": denoising.reconstruct(noisy),
    }
    errors = {name: error(X_hat, X_test) for name, X_hat in found.items()}
    others = ("noise", "pca", "wrong target")
    reached = all(errors["denoising"] < errors[name] for name in others)
    return [LEVELS[corruption], *(1000 * e for e in errors.values()), k, "yes" if reached else "NO"]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, _, X_test, _ = mnist()
    X, X_valid = X[:-VALIDATION], X[-VALIDATION:]
    if options.quick:
        X, X_valid, X_test = X[:10_000], X_valid[:2000], X_test[:2000]
    header = ["corruption", "level", "the noise itself", "PCA", "linear regression",
              "trained on x~", "denoising", "PCA's k", "below noise, PCA and x~"]  # fmt: skip
    notes = (
        "Mean squared error of a pixel in [0, 1], times 1000, of corrupted MNIST test images "
        f"against the clean ones; {len(X)} training rows, {len(X_test)} test rows. PCA of the "
        "clean training rows, its k chosen on corrupted validation rows. Linear regression from a "
        "corrupted copy of the training rows to the clean ones is only reported. The last two are "
        "the same network (784-500-784, relu code, logistic output, squared error), seed, noise "
        "and epochs; they differ in the target. One seed. Vincent et al. (2010) compare "
        "classifiers on the codes, not reconstructions: there is no table of theirs to put beside."
    )
    results = Table("denoising", header, options, notes)
    for corruption in LEVELS:
        results.add(corruption, lambda c=corruption: run(c, options.quick, (X, X_valid, X_test)))


if __name__ == "__main__":
    main()

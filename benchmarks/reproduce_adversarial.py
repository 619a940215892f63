"""Adversarial autoencoders on MNIST (Makhzani et al., 2015): the prior, clusters, few labels.

SKAE_DATA=FOLDER python benchmarks/reproduce_adversarial.py [--quick] [--only ROW] [--threads 1]

Three tables. *Prior*: how well a two-sample test tells the codes of the test images, all of them
together, from draws of N(0, I), for an adversarial and for a variational autoencoder of the same
layers. *Clusters*: categories found without labels, named after validation images. *Labels*: the
error of a category for each digit where a few of the images have a label.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from _reproduce import Table, mnist, parser
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from skae import AdversarialAutoencoder, VariationalAutoencoder

HELD_OUT = 10_000  # of the training images, for validation
SEED = 0
COMPARED, PERMUTATIONS = 2_000, 500  # codes and draws of the energy test, each
LAYERS: dict[str, Any] = {
    "hidden_layer_sizes": (500, 500),
    "batch_size": 100,
    "learning_rate": "linear",
    "tol": None,
    "random_state": SEED,
}
ADVERSARIAL: dict[str, Any] = {"loss": "binary_cross_entropy",
                               "discriminator_layer_sizes": (500, 500)}  # fmt: skip
NOTES = """\
MNIST, 50,000 training, 10,000 validation and the 10,000 test images, pixels in [0, 1], float32.
Encoder and decoder have two hidden layers of 500 ReLU units, discriminators too (the paper: 1000);
Adam, batches of 100, all rates falling linearly to zero; seed 0, one run a row. A row's budget is
about twelve minutes of one core; the paper trains for thousands of epochs. "CPU s" is training
alone. """
PRIOR_NOTES = """\
*Told apart*: accuracy, on 5,000 test codes and 5,000 draws, of a classifier (scikit-learn's
MLPClassifier with a hidden layer of 100) that has learned from the other 5,000 codes and as many
draws: 50 % is chance, with a standard error of 0.5. *Energy*: 2 E|z - z'| - E|z - z~| - E|z' - z~'|
between 2,000 codes and 2,000 draws, beside the value that 95 % of 500 permutations stay below, and
p. A variational autoencoder has two aggregated codes: drawn ones, z ~ q(z | x), which its bound
pushes to the prior, and means. *Squared error*: of reconstructed test pixels, mean."""
CLUSTER_NOTES = """\
Unsupervised, 5 style units beside the categories; the encoder is a module with batch normalisation
of every layer, the code's too, and a fifth of its inputs are dropped. *Test error*: each category
is named after the validation image that is most certainly in it (the paper: the test image); *by
majority*: after most of the validation images in it. No label was seen in training. *Used*: exp of
the entropy of the categories' shares. Settings: the best of seven by validation error, with 16
clusters, one run each of 8 epochs, layers of 200 and discriminators of 100. The dropped inputs won
by 33.8 to 41.8 % against none, but by majority by 27.1 to 27.7 % only; both players' rates three
times higher, Gaussian noise on style or pixels, and with the latter a third of the generator's rate
or 2 style units, were worse by majority. No setting was tried with a second seed, and how they rank
in runs of this length need not be how they rank in longer ones."""
LABEL_NOTES = """\
10 style units, a category for each digit; labels of as many rows of each digit, the first in the
order of seed 0. All 50,000 images are trained on, those without a label marked -1. *All*: every
label. The encoder is a module with batch normalisation of its hidden layers and, in training,
Gaussian noise with a standard deviation of 0.5 on its pixels. Settings: the best of seven by
validation error, with 1,000 labels, one run each of 8 epochs, layers of 200 and discriminators of
100: 5.2 %, against 5.4 with noise of 0.3, 5.7 without normalisation, 6.1 with dropped inputs
instead and 7.4 without either. 10,000 images leave a standard error of 0.2, and no setting was
tried with a second seed. The other numbers of labels take the same settings."""


class Split:
    """Training, validation and test images."""

    def __init__(self, quick: bool):
        X, y, self.X_test, self.y_test = mnist()
        order = np.random.default_rng(SEED).permutation(len(X))
        held, kept = order[:HELD_OUT], order[HELD_OUT:][: 5_000 if quick else None]
        self.X, self.y, self.X_held, self.y_held = X[kept], y[kept], X[held], y[held]


def timed(model: Any, *data: np.ndarray) -> tuple[Any, int]:
    """The fitted model, and the CPU seconds that it took."""
    began = time.process_time()  # of this process alone: other work on the machine does not count
    model.fit(*data)
    return model, round(time.process_time() - began)


# ---- the prior


@dataclass(frozen=True)
class OfPrior:
    """A line of the table of priors: an autoencoder, and which of its codes are compared."""

    name: str
    units: int
    epochs: int
    is_variational: bool = False


PRIOR_ROWS = [
    OfPrior("AAE, 2 units", 2, 45),
    OfPrior("VAE, 2 units", 2, 60, True),
    OfPrior("AAE, 8 units", 8, 45),
    OfPrior("VAE, 8 units", 8, 60, True),
]
PRIOR_HEADER = ["codes", "told apart %", "energy", "95 % below", "p", "squared error", "epochs",
                "CPU s", "means told apart %", "energy of means"]  # fmt: skip


def prior_cells(row: OfPrior, split: Split, quick: bool) -> list[Any]:
    """A row's figures."""
    own = {"n_components": row.units, "max_iter": 2 if quick else row.epochs, **LAYERS}
    if row.is_variational:
        model: Any = VariationalAutoencoder(likelihood="bernoulli", **own)
    else:
        model = AdversarialAutoencoder(**ADVERSARIAL, **own)
    model, seconds = timed(model, split.X)
    rng = np.random.default_rng(SEED)
    X = split.X_test[rng.permutation(len(split.X_test))]  # whose first half is the easier one
    codes = means = model.transform(X)
    if row.is_variational:
        mean, std = model.posterior(X)
        codes = mean + std * rng.standard_normal(mean.shape)
    draws = rng.standard_normal(codes.shape)
    energy, threshold, p = energy_test(codes, draws)
    error = float(((model.reconstruct(split.X_test) - split.X_test) ** 2).mean())
    of_means: list[Any] = ["", ""]
    if row.is_variational:
        of_means = [told_apart(means, draws), energy_test(means, draws)[0]]
    return [told_apart(codes, draws), energy, threshold, p, error, model.n_iter_, seconds,
            *of_means]  # fmt: skip


def told_apart(codes: np.ndarray, draws: np.ndarray) -> float:
    """Percent of held-out rows that a classifier assigns to codes or draws correctly."""
    half = len(codes) // 2
    parts = [
        np.concatenate([codes[part], draws[part]]) for part in (slice(half), slice(half, None))
    ]
    y = np.repeat([0, 1], half)
    model = MLPClassifier(max_iter=100, early_stopping=True, random_state=SEED).fit(parts[0], y)
    return 100 * float(model.score(parts[1], y))


def energy_test(codes: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    """The energy statistic, its 95 % quantile under permutations, and the p-value."""
    n = COMPARED
    pooled = np.concatenate([codes[:n], draws[:n]])
    D = cdist(pooled, pooled)
    rng = np.random.default_rng(SEED)
    first = np.arange(2 * n) < n
    S = np.stack([first, *(rng.permutation(first) for _ in range(PERMUTATIONS))], 1).astype(float)
    to_first = D @ S  # of every row, the summed distance to those that stand for codes
    to_others = D.sum(1, keepdims=True) - to_first
    within, across = (S * to_first).sum(0), (S * to_others).sum(0)
    values = (2 * across - within - ((1 - S) * to_others).sum(0)) / n**2
    p = (values >= values[0]).mean()
    return float(values[0]), float(np.quantile(values[1:], 0.95)), float(p)


# ---- clusters and labels


@dataclass(frozen=True)
class Categories:
    """A line of the tables of clusters and of labels."""

    name: str
    paper: str
    epochs: int
    n: int | None  # clusters, or labels; None for all of these
    options: dict[str, Any] = field(default_factory=dict)


STYLE = 5  # units beside clusters
CLUSTERED: dict[str, Any] = {"discriminator_noise": 0.2, "input_dropout": 0.2}
LABELLED: dict[str, Any] = {"n_clusters": "classes", "unlabeled": -1}
LABELLED_STYLE, PIXEL_NOISE = 10, 0.5
CLUSTER_ROWS = [
    Categories("16 clusters", "9.55 (2.05)", 40, 16),
    Categories("30 clusters", "4.10 (1.13)", 40, 30),
]
LABEL_ROWS = [
    Categories("100 labels", "1.90 (0.10)", 32, 100),
    Categories("1,000 labels", "1.60 (0.08)", 32, 1_000),
    Categories("all labels", "0.85 (0.02)", 32, None),
]
CLUSTER_HEADER = ["clusters", "test error %", "paper %", "by majority %", "validation error %",
                  "used", "epochs", "CPU s"]  # fmt: skip
LABEL_HEADER = ["labels", "test error %", "paper %", "validation error %", "squared error",
                "epochs", "CPU s"]  # fmt: skip


class Noise(nn.Module):
    """Gaussian noise on what a module is given, in training alone."""

    def __init__(self, std: float):
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x) if self.training else x


def normalised(k: int, *, noise: float = 0.0, code: bool = False) -> nn.Module:
    """An encoder of the other rows' widths with batch normalisation, of the code if asked.

    `noise` is the standard deviation of what is added to the pixels.
    """
    widths = (784, *LAYERS["hidden_layer_sizes"])
    torch.manual_seed(SEED)
    parts: list[nn.Module] = [Noise(noise)] if noise else []
    for a, b in pairwise(widths):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight)
        parts += [linear, nn.BatchNorm1d(b), nn.ReLU()]
    last = [nn.Linear(widths[-1], k), *([nn.BatchNorm1d(k)] if code else [])]
    return nn.Sequential(*parts, *last)


def made(row: Categories, shared: dict[str, Any], quick: bool) -> AdversarialAutoencoder:
    """The autoencoder of a row."""
    epochs = 2 if quick else row.epochs
    return AdversarialAutoencoder(
        max_iter=epochs, **LAYERS | ADVERSARIAL | shared | row.options
    )  # fmt: skip


def cluster_cells(row: Categories, split: Split, quick: bool) -> list[Any]:
    """A row's figures."""
    own = {"n_clusters": row.n, "encoder": normalised(STYLE + (row.n or 0), code=True)}
    model, seconds = timed(made(row, CLUSTERED | own, quick), split.X)
    p_held = model.predict_proba(split.X_held)
    surest = split.y_held[p_held.argmax(0)]
    found = p_held.argmax(1)
    most = np.array([_majority(split.y_held[found == c]) for c in range(row.n or 0)])
    test = model.predict(split.X_test)
    shares = model.predict_proba(split.X_test).mean(0)
    used = float(np.exp(-(shares * np.log(shares.clip(1e-12))).sum()))
    return [_error(surest[test], split.y_test), row.paper, _error(most[test], split.y_test),
            _error(surest[found], split.y_held), used, model.n_iter_, seconds]  # fmt: skip


def label_cells(row: Categories, split: Split, quick: bool) -> list[Any]:
    """A row's figures."""
    given = split.y
    if row.n is not None:
        order = np.random.default_rng(SEED).permutation(len(given))
        known = [order[split.y[order] == c][: row.n // 10] for c in range(10)]
        given = np.full(len(split.y), -1)
        for index in known:
            given[index] = split.y[index]
    own = {"encoder": normalised(LABELLED_STYLE + 10, noise=PIXEL_NOISE)}
    model, seconds = timed(made(row, LABELLED | own, quick), split.X, given)
    errors = [_error(model.predict(X), y) for X, y in (
        (split.X_test, split.y_test), (split.X_held, split.y_held))]  # fmt: skip
    squared = float(((model.reconstruct(split.X_test) - split.X_test) ** 2).mean())
    return [errors[0], row.paper, errors[1], squared, model.n_iter_, seconds]


def _majority(labels: np.ndarray) -> int:
    return int(np.bincount(labels, minlength=10).argmax())


def _error(found: np.ndarray, y: np.ndarray) -> float:
    return 100 * float((found != y).mean())


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    split = Split(options.quick)
    tables: Sequence[tuple[str, Sequence[Any], Sequence[str], str, Any]] = (
        ("adversarial_prior", PRIOR_ROWS, PRIOR_HEADER, PRIOR_NOTES, prior_cells),
        ("adversarial_clusters", CLUSTER_ROWS, CLUSTER_HEADER, CLUSTER_NOTES, cluster_cells),
        ("adversarial_labels", LABEL_ROWS, LABEL_HEADER, LABEL_NOTES, label_cells),
    )
    for name, rows, header, notes, cells in tables:
        order = [row.name for row in rows]
        table = Table(name, header, options, NOTES + notes, order=order)
        for row in rows:
            table.add(row.name, lambda row=row, cells=cells: cells(row, split, options.quick))


if __name__ == "__main__":
    main()

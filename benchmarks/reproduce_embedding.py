"""Embeddings of held-out rows, with and without reconstruction, beside scikit-learn's manifolds.

python benchmarks/reproduce_embedding.py [--quick] [--threads 1] [--only mnist] [--out FOLDER]

The source (Yu et al., "Embedding with autoencoder regularization", ECML PKDD 2013) claims that an
embedding trained with an autoencoder's reconstruction beats the embedding alone. Its tables were
not at hand, so no number of it is claimed here: the question is put to two data sets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _reproduce import Table, mnist, parser
from sklearn.base import clone
from sklearn.datasets import make_swiss_roll
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import MDS, Isomap, SpectralEmbedding, trustworthiness
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from skae import Autoencoder, EmbeddingAutoencoder

SEED, NEIGHBORS = 0, 7
GAMMAS = (0.1, 1.0, 10.0, 100.0)

NETWORK: dict[str, Any] = {
    "hidden_layer_sizes": (100, 50), "learning_rate_init": 3e-3, "learning_rate": "linear",
    "tol": None, "random_state": SEED,
}  # fmt: skip

NOTES = f"""Trustworthiness ({NEIGHBORS} neighbours, among the held-out rows) and the 1-NN error \
of held-out rows, whose neighbour is sought among the codes of the training rows: the share of \
wrong digits on MNIST (10 code units); on the swiss roll (2 units) the root mean square error of \
the position along it, in standard deviations. gamma is the one of {GAMMAS} with the lowest 1-NN \
error on a quarter of the training rows, then refitted on all of them. skae encodes held-out rows \
with its encoder (hidden layers of 100 and 50 units, Adam from 0.003 falling to 0, batches of \
200). scikit-learn's Isomap has a `transform`; its MDS and SpectralEmbedding (LE) have none, so \
held-out rows get the mean embedding of their {NEIGHBORS} nearest training rows, weighted by \
1 / distance (KNeighborsRegressor). "alone" is gamma = 0: the Laplacian then has nothing to keep \
it from collapsing. Seed {SEED}."""


@dataclass(frozen=True)
class Task:
    """Rows, what they are known by, and how the codes are judged."""

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    n_components: int
    epochs: int

    @property
    def is_classes(self) -> bool:
        return self.y.dtype.kind == "i"

    def error(self, Z: np.ndarray, y: np.ndarray, Z_test: np.ndarray, y_test: np.ndarray) -> float:
        """Of 1-NN: wrong classes, or the root mean square in standard deviations."""
        if self.is_classes:
            return float(np.mean(KNeighborsClassifier(1).fit(Z, y).predict(Z_test) != y_test))
        e = KNeighborsRegressor(1).fit(Z, y).predict(Z_test) - y_test
        return float(np.sqrt(np.mean(e**2)) / y.std())


def digits(quick: bool) -> Task:
    X, y, X_test, y_test = mnist()
    n, held = (400, 200) if quick else (2000, 1000)
    return Task("mnist", X[:n], y[:n], X_test[:held], y_test[:held], 10, 20 if quick else 200)


def roll(quick: bool) -> Task:
    n, held = (400, 200) if quick else (1500, 500)
    X, t = make_swiss_roll(n + held, random_state=SEED)
    X = (X / np.sqrt(X.var(0).mean())).astype(np.float32)
    return Task("roll", X[:n], t[:n], X[n:], t[n:], 2, 40 if quick else 300)


EMBEDDINGS = {
    "MDS": {"embedding": "mds"},
    "MDS of geodesics": {"embedding": "mds", "affinity": "geodesic"},
    "LE": {"embedding": "laplacian", "affinity": "knn"},
    "margin": {"embedding": "margin", "affinity": "knn"},
}
MANIFOLDS = {
    "scikit-learn MDS": lambda k: MDS(k, n_init=1, max_iter=100, random_state=SEED),
    "scikit-learn Isomap": lambda k: Isomap(n_neighbors=NEIGHBORS, n_components=k),
    "scikit-learn LE": lambda k: SpectralEmbedding(
        k, affinity="nearest_neighbors", n_neighbors=NEIGHBORS, random_state=SEED
    ),
}


def model(task: Task, gamma: float, **embedding: Any) -> EmbeddingAutoencoder:
    """An embedding with the settings that all share."""
    return EmbeddingAutoencoder(
        n_components=task.n_components, max_iter=task.epochs, n_neighbors=NEIGHBORS, gamma=gamma,
        **NETWORK, **embedding,
    )  # fmt: skip


def chosen_gamma(task: Task, **embedding: Any) -> float:
    """By a quarter of the training rows."""
    kept = len(task.X) * 3 // 4

    def error(gamma: float) -> float:
        fitted = model(task, gamma, **embedding).fit(task.X[:kept])
        Z = fitted.transform(task.X)
        return task.error(Z[:kept], task.y[:kept], Z[kept:], task.y[kept:])

    return min(GAMMAS, key=error)


def judged(task: Task, Z: np.ndarray, Z_test: np.ndarray) -> list[float]:
    trust = trustworthiness(task.X_test, Z_test, n_neighbors=NEIGHBORS)
    return [float(trust), task.error(Z, task.y, Z_test, task.y_test)]


def ours(task: Task, gamma: float | None, **embedding: Any) -> list[Any]:
    """One row; gamma is chosen where it is None."""
    if gamma is None:
        gamma = chosen_gamma(task, **embedding)
    fitted = model(task, gamma, **embedding).fit(task.X)
    return [gamma, *judged(task, fitted.transform(task.X), fitted.transform(task.X_test))]


def plain(task: Task) -> list[Any]:
    fitted = Autoencoder(n_components=task.n_components, max_iter=task.epochs, **NETWORK).fit(
        task.X
    )
    return ["-", *judged(task, fitted.transform(task.X), fitted.transform(task.X_test))]


def theirs(task: Task, make: Callable[[int], Any]) -> list[Any]:
    embedding = clone(make(task.n_components))
    Z = embedding.fit_transform(task.X)
    if hasattr(embedding, "transform"):
        return ["-", *judged(task, Z, embedding.transform(task.X_test))]
    extended = KNeighborsRegressor(NEIGHBORS, weights="distance").fit(task.X, Z)
    return ["-", *judged(task, Z, extended.predict(task.X_test))]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__ or "").parse_args(arguments)
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.simplefilter("ignore", FutureWarning)
    header = ["embedding", "gamma", "trustworthiness", "1-NN error"]
    table = Table("embedding", header, options, NOTES)
    for make in (digits, roll):
        task = make(options.quick)
        for name, embedding in EMBEDDINGS.items():
            alone, both = f"{task.name}: {name}, alone", f"{task.name}: {name} + reconstruction"
            table.add(alone, lambda e=embedding, t=task: ours(t, 0.0, **e))
            table.add(both, lambda e=embedding, t=task: ours(t, None, **e))
        table.add(f"{task.name}: plain autoencoder", lambda t=task: plain(t))
        for name, manifold in MANIFOLDS.items():
            table.add(f"{task.name}: {name}", lambda m=manifold, t=task: theirs(t, m))
        table.add(f"{task.name}: X itself", lambda t=task: ["-", *judged(t, t.X, t.X_test)])


if __name__ == "__main__":
    main()

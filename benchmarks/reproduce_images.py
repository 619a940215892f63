"""Image vectors: retrieval of held-out CIFAR-10 images in the code, against pixels and PCA.

python benchmarks/reproduce_images.py [--quick] [--threads 1] [--only NAME] [--out FOLDER]

The lecture asks that what is near in meaning be near in the code ("car" and "bicycle"). Nothing
here sees a label. The embedding is told one thing more than the others: that an image, cropped,
mirrored and recoloured, shows what it showed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from _pictures import write_png
from _reproduce import Table, data_path, parser
from sklearn.decomposition import PCA

from skae import Autoencoder, EmbeddingAutoencoder

SEED, WIDTH, NEAREST = 0, 64, 10
CAT, DOG, AUTOMOBILE, TRUCK = 3, 5, 1, 9
VIEWS = 4

NOTES = f"""CIFAR-10: the first 10,000 training images are searched, the first 1,000 test images \
ask. precision@10: the share of the {NEAREST} nearest training images that are of the query's \
class, by Euclidean distance and by cosine about the training mean; chance is 0.1. The last three \
columns are distances between class centroids of the training images, relative to the mean over \
all pairs of classes: cat-dog and automobile-truck should be below every cross pair (cat or dog \
with automobile or truck). All codes have {WIDTH} numbers, made of the middle 28 x 28 pixels \
averaged to 14 x 14, and so have the principal components; "pixels" are these 14 x 14 x 3 \
numbers, "all pixels" the 32 x 32 x 3. PCA is also given unit variance (whitened) and the root of \
it. The embedding is contrastive (margin 1, gamma 0.05): phi = 1 between the {VIEWS} views of an \
image (the middle, and three random crops, mirrored or not, with random colours), 0 between \
images. No label is seen in training; settings were chosen on the last 1,000 training images. \
Seed {SEED}."""


class Images(NamedTuple):
    """The images searched and those that ask, uint8 of shape (n, 32, 32, 3), with their classes."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def cifar(quick: bool) -> Images:
    data = np.load(data_path("images", "cifar10_small.npz"))
    n, held = (1500, 300) if quick else (10_000, 1_000)
    y, y_test = (data[name].astype(int).ravel() for name in ("y_train", "y_test"))
    return Images(data["X_train"][:n], y[:n], data["X_test"][:held], y_test[:held])


# ---- views of an image


def averaged(crops: np.ndarray) -> np.ndarray:
    """Rows of 14 x 14 x 3 numbers in [0, 1], from 28 x 28 crops."""
    small = crops.reshape(-1, 14, 2, 14, 2, 3).mean((2, 4), dtype=np.float32) / 255
    return small.reshape(len(crops), -1)


def middle(X: np.ndarray) -> np.ndarray:
    return averaged(X[:, 2:30, 2:30])


def another_view(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random crop of every image, mirrored or not, with another contrast and colour cast."""
    top, left = rng.integers(0, 5, (2, len(X)))
    crops = np.stack([x[a : a + 28, b : b + 28] for x, a, b in zip(X, top, left, strict=True)])
    mirrored = rng.random(len(X)) < 0.5
    crops[mirrored] = crops[mirrored, :, ::-1]
    rows = averaged(crops).reshape(len(X), -1, 3)
    mean = rows.mean(1, keepdims=True)
    contrast = rng.uniform(0.6, 1.4, (len(X), 1, 1))
    cast = rng.uniform(0.8, 1.2, (len(X), 1, 3))
    light = rng.uniform(-0.1, 0.1, (len(X), 1, 1))
    rows = (rows - mean) * contrast + mean * cast + light
    return rows.reshape(len(X), -1).astype(np.float32)


def views_of_one(n: int) -> sp.csr_matrix:
    """1 between rows that are views of the same of n images, stacked view by view."""
    others = np.ones((VIEWS, VIEWS)) - np.eye(VIEWS)
    return sp.kron(others, sp.eye(n), format="csr")


# ---- codes: from images to two sets of rows


def pixels(images: Images) -> tuple[np.ndarray, np.ndarray]:
    return middle(images.X), middle(images.X_test)


def all_pixels(images: Images) -> tuple[np.ndarray, np.ndarray]:
    rows = (X.reshape(len(X), -1).astype(np.float32) / 255 for X in (images.X, images.X_test))
    return tuple(rows)  # type: ignore[return-value]


def principal(images: Images, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Components divided by their standard deviation to a power."""
    X, X_test = pixels(images)
    pca = PCA(WIDTH, random_state=SEED).fit(X)
    scale = pca.explained_variance_ ** (power / 2)
    return pca.transform(X) / scale, pca.transform(X_test) / scale


def plain(images: Images, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    X, X_test = pixels(images)
    model = Autoencoder(n_components=WIDTH, hidden_layer_sizes=(256,), max_iter=epochs, tol=None,
                        random_state=SEED).fit(X)  # fmt: skip
    return model.transform(X), model.transform(X_test)


def embedded(images: Images, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    X, X_test = pixels(images)
    rng = np.random.default_rng(SEED)
    views = np.vstack([X, *(another_view(images.X, rng) for _ in range(VIEWS - 1))])
    model = EmbeddingAutoencoder(
        n_components=WIDTH, hidden_layer_sizes=(256,), code_activation="tanh", max_iter=epochs,
        embedding="contrastive", affinity="precomputed", gamma=0.05, tol=None, random_state=SEED,
    ).fit(views, affinity_matrix=views_of_one(len(X)))  # fmt: skip
    return model.transform(X), model.transform(X_test)


# ---- how they are judged


def nearest(Z: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Positions of the nearest rows of Z, nearest first, of shape (n_queries, 10)."""
    distances = (Z**2).sum(1) - 2 * queries @ Z.T
    return np.argsort(distances, axis=1)[:, :NEAREST]


def directions(Z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    Z = Z - mean
    return Z / np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-12)


def judged(images: Images, Z: np.ndarray, Z_test: np.ndarray) -> list[float]:
    """Precision by both distances; distances between centroids."""
    mean = Z.mean(0)
    sets = [(Z, Z_test), (directions(Z, mean), directions(Z_test, mean))]
    precision = [
        float((images.y[nearest(*both)] == images.y_test[:, None]).mean()) for both in sets
    ]
    centroids = np.array([Z[images.y == c].mean(0) for c in range(10)])
    apart = np.linalg.norm(centroids[:, None] - centroids, axis=2)
    apart /= apart[np.triu_indices(10, 1)].mean()
    cross = min(apart[a, b] for a in (CAT, DOG) for b in (AUTOMOBILE, TRUCK))
    return [*precision, float(apart[CAT, DOG]), float(apart[AUTOMOBILE, TRUCK]), float(cross)]


def contact_sheet(images: Images, Z: np.ndarray, Z_test: np.ndarray) -> np.ndarray:
    """A query a row, the first of every class, and beside it the ten it finds by cosine."""
    queries = np.array([np.flatnonzero(images.y_test == c)[0] for c in range(10)])
    mean = Z.mean(0)
    found = nearest(directions(Z, mean), directions(Z_test, mean)[queries])
    gap = np.full((len(queries), 32, 4, 3), 255, np.uint8)
    answers = images.X[found].transpose(0, 2, 1, 3, 4).reshape(len(queries), 32, -1, 3)
    rows = np.concatenate([images.X_test[queries], gap, answers], axis=2)
    return rows.reshape(-1, *rows.shape[2:])


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__ or "").parse_args(arguments)
    images = cifar(options.quick)
    epochs = 3 if options.quick else 10
    header = ["code", "precision@10", "by cosine", "cat-dog", "automobile-truck",
              "nearest cross pair"]  # fmt: skip
    table = Table("images", header, options, NOTES)
    codes: dict[str, Callable[[Images], tuple[np.ndarray, np.ndarray]]] = {
        "all pixels": all_pixels,
        "pixels": pixels,
        "PCA": partial(principal, power=0.0),
        "PCA, half whitened": partial(principal, power=0.5),
        "PCA, whitened": partial(principal, power=1.0),
        "Autoencoder": partial(plain, epochs=4 * epochs),
        "EmbeddingAutoencoder of views": partial(embedded, epochs=epochs),
    }
    for name, code in codes.items():

        def row(name: str = name, code: Any = code) -> list[float]:
            Z, Z_test = code(images)
            if name.startswith("Embedding"):
                write_png(options.out / f"images{'_quick' * options.quick}.png",
                          contact_sheet(images, Z, Z_test))  # fmt: skip
            return judged(images, Z, Z_test)

        table.add(name, row)


if __name__ == "__main__":
    main()

"""The UFLDL tutorial's sparse autoencoders: edge detectors of image patches, strokes of digits.

SKAE_DATA=FOLDER python benchmarks/reproduce_sparse.py [--quick] [--only patches] [--threads 1]

The tutorial's objective is ``1/n sum_i 1/2 |x_i - x^_i|^2 + lambda/2 |W|^2 + beta sum_j KL``, all
units logistic, trained by 400 iterations of L-BFGS. Its natural images are not at hand: the
patches come from CIFAR-10 in grey, whitened as the tutorial's images are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from _pictures import contact_sheet, write_png
from _reproduce import Table, data_path, mnist, parser
from sklearn.decomposition import PCA

from skae import SparseAutoencoder

NOTES = """The tutorial's settings: 400 iterations of L-BFGS on all rows, logistic units, squared \
error; its lambda and beta are alpha = 2 lambda / d and beta = 2 beta / d here. Filters: the \
encoder's weights, in the picture beside this file (grey is zero). *Localisation*: the share of a \
filter's energy in its best window, {windows}, median over the filters; PCA: the same of as many \
principal components. *Scattered*: the same pixels of every filter in a random order. The \
tutorial prints no numbers, only that the filters are edges at different places and orientations \
(patches) and pen strokes (digits). Patches: {n} of 8 x 8 from grey CIFAR-10 images, whitened by \
f exp(-(f / f0)^4); then, as in the tutorial, each without its mean, cut at 3 standard deviations \
and scaled to [0.1, 0.9]. Random state 0, {dtype}."""


@dataclass(frozen=True)
class Task:
    """One network of the tutorial, in its units."""

    name: str
    side: int  # pixels of an image's side
    window: int  # and of the window in which a filter's energy is looked for
    hidden: int
    rho: float
    lam: float
    beta: float
    iterations: int = 400


PATCHES = Task("patches", 8, 4, 25, 0.01, 1e-4, 3.0)
DIGITS = Task("digits", 28, 10, 196, 0.1, 3e-3, 3.0)


def whitened(images: np.ndarray) -> np.ndarray:
    """Grey images with the falling spectrum of natural ones levelled, but for the finest grain."""
    n = images.shape[-1]
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    levelled = np.fft.ifft2(np.fft.fft2(images) * f * np.exp(-((f / 0.4) ** 4))).real
    return levelled / levelled.std()


def patches(n: int) -> np.ndarray:
    """Random 8 x 8 patches away from the images' borders, as the tutorial normalises them."""
    with np.load(data_path("images", "cifar10_small.npz")) as data:
        images = whitened(data["X_train"].astype(float).mean(-1) / 255)
    rng = np.random.default_rng(0)
    side, border = PATCHES.side, 2
    index = rng.integers(len(images), size=n)
    corner = rng.integers(border, images.shape[-1] - border - side, size=(n, 2))
    X = np.stack([images[i, r : r + side, c : c + side].ravel()
                  for i, (r, c) in zip(index, corner, strict=True)])  # fmt: skip
    X -= X.mean(1, keepdims=True)
    limit = 3 * X.std()
    return (np.clip(X, -limit, limit) / limit + 1) * 0.4 + 0.1


def localisation(filters: np.ndarray, window: int) -> float:
    """The share of a filter's energy in its best square window, the median over the filters."""
    energy = filters**2 / (filters**2).sum((1, 2), keepdims=True)
    sums = np.pad(energy.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    w = window
    inside = sums[:, w:, w:] - sums[:, :-w, w:] - sums[:, w:, :-w] + sums[:, :-w, :-w]
    return float(np.median(inside.max((1, 2))))


def run(task: Task, X: np.ndarray, options: Any) -> list[Any]:
    """Fit, draw the filters, and measure them."""
    d, side = task.side**2, task.side
    model = SparseAutoencoder(
        n_components=task.hidden, rho=task.rho, beta=2 * task.beta / d, alpha=2 * task.lam / d,
        output_activation="logistic", solver="lbfgs", tol=None, random_state=0,
        max_iter=20 if options.quick else task.iterations,
    ).fit(X)  # fmt: skip
    filters = model.coefs_[0].T.reshape(-1, side, side)
    picture = f"sparse_{task.name}" + "_quick" * options.quick + ".png"
    write_png(options.out / picture, contact_sheet(filters, zoom=6 if side < 10 else 2))
    components = PCA(task.hidden, random_state=0).fit(X).components_.reshape(filters.shape)
    mixed = np.random.default_rng(0).permuted(filters.reshape(len(filters), -1), axis=1)
    mixed = mixed.reshape(filters.shape)
    away = np.abs(model.rho_hat_ - task.rho)
    error = model.reconstruction_error(X).mean() / X.var(0).mean()
    return [
        f"{d}-{task.hidden}-{d}", task.rho, float(model.rho_hat_.mean()), float(away.max()),
        float(error), *(localisation(f, task.window) for f in (filters, components, mixed)),
        model.n_iter_, picture,
    ]  # fmt: skip


HEADER = ["data", "network", "rho", "mean of rho^", "largest abs(rho^ - rho)", "error / variance",
          "localisation", "of PCA", "scattered", "iterations", "picture"]  # fmt: skip


def main() -> None:
    """Both networks."""
    options = parser(__doc__ or "").parse_args()
    n = 2000 if options.quick else 10_000
    windows = ", ".join(
        f"{t.window} x {t.window} of {t.side} x {t.side}" for t in (PATCHES, DIGITS)
    )
    notes = NOTES.format(windows=windows, n=n, dtype="float64 (patches), float32 (digits)")
    table = Table("sparse", HEADER, options, notes)
    table.add("patches", lambda: run(PATCHES, patches(n), options))
    table.add("digits", lambda: run(DIGITS, mnist()[0][:n], options))


if __name__ == "__main__":
    main()

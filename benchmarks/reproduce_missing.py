"""Imputation of California housing with cells hidden at random, against scikit-learn's imputers.

python benchmarks/reproduce_missing.py [--only skae] [--threads 1] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from _reproduce import Table, data_path, parser
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skae import DenoisingAutoencoder

HIDDEN, TUNING = 0.2, 0.1  # shares of cells: hidden from all, and of the others for tuning
SEEDS = (0, 1, 2)
FIXED: dict[str, Any] = {
    "hidden_layer_sizes": (256, 256), "activation": "silu", "corruption": "masking",
    "batch_size": 200, "learning_rate_init": 2e-3, "learning_rate": "cosine", "tol": None,
}  # fmt: skip
GRID = {"noise_level": (0.25, 0.4, 0.55), "n_components": (16, 64)}


def housing() -> np.ndarray:
    """The nine numeric columns, standardised; the 207 cells that miss in the file stay missing."""
    frame = pd.read_csv(data_path("tabular", "california_housing_missing.csv"))
    X = frame.select_dtypes("number").to_numpy(float)
    return StandardScaler().fit_transform(X)


def hide(X: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """X with a share of its observed cells set to NaN, and where."""
    chosen = (np.random.default_rng(seed).random(X.shape) < share) & ~np.isnan(X)
    return np.where(chosen, np.nan, X), chosen


def rmse(X_hat: np.ndarray, X: np.ndarray, chosen: np.ndarray) -> float:
    """Root mean squared error of the chosen cells, in standard deviations."""
    return float(np.sqrt(np.mean((X_hat - X)[chosen] ** 2)))


def model(seed: int, epochs: int, **settings: Any) -> DenoisingAutoencoder:
    return DenoisingAutoencoder(**FIXED, max_iter=epochs, random_state=seed, **settings)


def tuned(X: np.ndarray, epochs: int) -> dict[str, Any]:
    """The settings that best predict further hidden cells of the training data."""
    holed, chosen = hide(X, TUNING, seed=1000)
    grid = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    scores = [rmse(model(0, epochs, **s).fit(holed).impute(holed), X, chosen) for s in grid]
    return grid[int(np.argmin(scores))]


def run(impute: Callable[[np.ndarray, int], np.ndarray], X: np.ndarray) -> Sequence[Any]:
    """Errors under every seed's holes, and their mean."""
    errors = []
    for seed in SEEDS:
        holed, chosen = hide(X, HIDDEN, seed)
        errors.append(rmse(impute(holed, seed), X, chosen))
    return [*errors, float(np.mean(errors))]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    X = housing()
    if options.quick:
        X = X[np.random.default_rng(0).permutation(len(X))[:4000]]
    epochs, trial = (40, 20) if options.quick else (150, 20)
    settings: dict[str, Any] = {}

    def ours(holed: np.ndarray, seed: int) -> np.ndarray:
        if not settings:  # once, on the first seed's training cells
            settings.update(tuned(holed, trial))
        return model(seed, epochs, **settings).fit(holed).impute(holed)

    imputers: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        "SimpleImputer (mean)": lambda holed, seed: SimpleImputer().fit_transform(holed),
        "KNNImputer (defaults)": lambda holed, seed: KNNImputer().fit_transform(holed),
        "IterativeImputer (defaults)": lambda holed, seed: IterativeImputer(
            random_state=seed
        ).fit_transform(holed),
        "skae DenoisingAutoencoder": ours,
    }
    header = ["imputer", *(f"seed {seed}" for seed in SEEDS), "mean"]
    results = Table("missing", header, options)
    for name, impute in imputers.items():
        results.add(name, lambda impute=impute: run(impute, X))
    results.notes = (
        f"Root mean squared error of hidden cells, in standard deviations of their column. "
        f"California housing, {X.shape[0]} rows, {X.shape[1]} numeric columns (the target, "
        f"median_house_value, among them), {HIDDEN:.0%} of the cells hidden at random. Every "
        f"imputer is fitted on the rows it completes, without the hidden cells. "
        f"skae: {FIXED}, {epochs} epochs; {GRID} searched once, by {TUNING:.0%} of the first "
        f"seed's remaining cells and {trial} epochs each: {settings}."
    )
    results.write()


if __name__ == "__main__":
    main()

"""False alarms of a detector's thresholds on new normal rows, drawn and real.

python benchmarks/bench_conformal.py [--only drawn] [--threads 1] [--quick] [--out FOLDER]
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from _reproduce import Table, data_path, parser
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, AutoencoderOutlierDetector, ReconstructionOutlierDetector

LEVEL, N_TRAIN, N_NEW = 0.1, 199, 500
READY_MADE = "AutoencoderOutlierDetector"
DRAWS = {"PCA": 200, "Autoencoder": 40, READY_MADE: 200}
MIXING = np.random.default_rng(0).normal(size=(3, 10))
SETS = ("6_cardio", "14_glass", "38_thyroid", "39_vertebral", "40_vowels", "43_WDBC", "47_yeast",
        "4_breastw", "29_Pima", "44_Wilt")  # fmt: skip
MAX_ROWS = 1000
SPLITS = {"PCA": 5, "Autoencoder": 2, READY_MADE: 2}
MODELS: dict[str, Callable[[int], Any]] = {
    "PCA": lambda d: PCA(min(3, d)),
    # Wide enough to learn its training rows by heart, as defaults often are.
    "Autoencoder": lambda d: Autoencoder(
        n_components=3, hidden_layer_sizes=(64,), batch_size=32, learning_rate_init=5e-3,
        max_iter=60, tol=None,
    ),
    READY_MADE: lambda d: None,  # it makes its own, of any width
}  # fmt: skip
THRESHOLDS: dict[str, dict[str, Any]] = {
    "training": {"threshold": "training"},
    "held_out, 20 %": {"threshold": "held_out"},
    "held_out, 50 %": {"threshold": "held_out", "calibration_fraction": 0.5},
    "cross_fitted, 5 folds": {"threshold": "cross_fitted"},
    "out_of_bag": {"threshold": "out_of_bag"},
}
PLUS = "CV+, 5 folds (not in skae)"
FOR_ANY = [threshold for threshold in THRESHOLDS if threshold != "out_of_bag"]
COMPARED = [
    *itertools.product(("PCA", "Autoencoder"), [*FOR_ANY, PLUS]),
    *itertools.product([READY_MADE], ("training", "held_out, 20 %", "out_of_bag")),
]


class Task(NamedTuple):
    """Rows to fit to, and others: normal ones, and outliers."""

    train: np.ndarray
    normal: np.ndarray
    outliers: np.ndarray
    seed: int


def drawn(seed: int, n_train: int = N_TRAIN, n_new: int = N_NEW) -> Task:
    """Ten features from three factors and noise; outliers have twice the noise more."""
    rng = np.random.default_rng(seed)

    def clean(n: int) -> np.ndarray:
        return rng.normal(size=(n, 3)) @ MIXING + rng.normal(size=(n, 10))

    outliers = clean(n_new)
    outliers += 2 * rng.normal(size=outliers.shape)
    return Task(clean(n_train), clean(n_new), outliers, seed)


def real(name: str, seed: int) -> Task:
    """A random half of the normal rows, the other half, and all outliers."""
    data = np.load(data_path("adbench", f"{name}.npz"))
    X, y = data["X"].astype(float), data["y"]
    rng = np.random.default_rng(seed)
    normal = X[y == 0][rng.permutation((y == 0).sum())[: 2 * MAX_ROWS]]
    half = len(normal) // 2
    scaler = StandardScaler().fit(normal[:half])
    parts = (normal[:half], normal[half:], X[y == 1])
    return Task(*(scaler.transform(part) for part in parts), seed)


def detector(task: Task, model: str, **settings: Any) -> Any:
    settings = {"contamination": LEVEL, "random_state": task.seed} | settings
    if model == READY_MADE:
        return AutoencoderOutlierDetector(**settings)
    estimator = MODELS[model](task.train.shape[1])
    return ReconstructionOutlierDetector(estimator=estimator, **settings)


def flagged(task: Task, model: str, threshold: str) -> list[float]:
    """Percent of the new normal rows, and of the outliers."""
    if threshold == PLUS:
        decisions = [p <= LEVEL for p in p_values_plus(task, model)]
    else:
        fitted = detector(task, model, **THRESHOLDS[threshold]).fit(task.train)
        decisions = [fitted.predict(X) == -1 for X in (task.normal, task.outliers)]
    return [100 * float(np.mean(rows)) for rows in decisions]


def p_values_plus(task: Task, model: str) -> list[np.ndarray]:
    """Of the same rows: every fold's are compared with them by that fold's model."""
    ranks = [np.ones(len(task.normal)), np.ones(len(task.outliers))]
    folds = KFold(5, shuffle=True, random_state=task.seed)
    for kept, held in folds.split(task.train):
        fitted = detector(task, model).fit(task.train[kept])
        known = np.sort(fitted.score_samples(task.train[held]))
        for rank, X in zip(ranks, (task.normal, task.outliers), strict=True):
            rank += np.searchsorted(known, fitted.score_samples(X), side="right")
    return [rank / (1 + len(task.train)) for rank in ranks]


def false_alarms(tasks: Sequence[Task], model: str, threshold: str) -> Sequence[Any]:
    """Shares flagged of new normal rows and of outliers, over tasks."""
    alarms, found = zip(*(flagged(task, model, threshold) for task in tasks), strict=True)
    return [*summary(alarms), f"{np.mean(found):.1f}"]


def false_discoveries(draws: int, share: float, threshold: str) -> Sequence[Any]:
    """Of batches of 500 rows with a share of outliers, by `predict_fdr` at the level."""
    false, found, n = [], [], round(share * N_NEW)
    for seed in range(draws):
        task = drawn(seed, n_train=798)
        fitted = detector(task, "PCA", threshold=threshold, calibration_fraction=0.5)
        fitted.fit(task.train)
        is_found = fitted.predict_fdr(np.r_[task.outliers[:n], task.normal[n:]], LEVEL) == -1
        false.append(100 * is_found[n:].sum() / max(1, is_found.sum()))
        found.append(100 * is_found[:n].mean())
    return [*summary(false), f"{np.mean(found):.1f}"]


def tail(draws: int, n: int, level: float) -> Sequence[Any]:
    """False alarms of a tail at a level that n / 2 ranks may not have."""
    alarms = []
    for seed in range(draws):
        task = drawn(seed, n_train=n, n_new=10_000)
        settings = {"calibration_fraction": 0.5, "contamination": level}
        fitted = detector(task, "PCA", threshold="extreme_value", **settings).fit(task.train)
        alarms.append(100 * np.mean(fitted.predict(task.normal) == -1))
    return [*summary(alarms), ""]


def summary(percents: Sequence[float]) -> list[str]:
    """Mean with its standard error, and the ends of the middle nine tenths."""
    error = np.std(percents, ddof=1) / np.sqrt(len(percents))
    low, high = np.percentile(percents, [5, 95])
    return [f"{np.mean(percents):.2f} ± {error:.2f}", f"{low:.1f} .. {high:.1f}"]


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    draws, splits = DRAWS, SPLITS
    if options.quick:
        draws, splits = dict.fromkeys(MODELS, 5), dict.fromkeys(MODELS, 1)
    header = ["rows, model, threshold", "flagged, %", "5th .. 95th", "found, %"]
    results = Table("conformal", header, options, kind="bench")
    for model, threshold in COMPARED:
        results.add(
            f"drawn, {model}, {threshold}",
            lambda model=model, threshold=threshold: false_alarms(
                [drawn(seed) for seed in range(draws[model])], model, threshold
            ),
        )
    for model, threshold in COMPARED:
        results.add(
            f"real, {model}, {threshold}",
            lambda model=model, threshold=threshold: false_alarms(
                [real(name, seed) for name in SETS for seed in range(splits[model])],
                model,
                threshold,
            ),
        )
    for n, level in itertools.product((400, 2000), (0.01, 0.001)):
        results.add(
            f"drawn, PCA, extreme_value, {n} rows, level {100 * level:g} %",
            lambda n=n, level=level: tail(draws["PCA"], n, level),
        )
    for share, threshold in itertools.product((0.02, 0.1, 0.3), ("held_out", "extreme_value")):
        results.add(
            f"false discoveries, {threshold}, {100 * share:g} % outliers",
            lambda share=share, threshold=threshold: false_discoveries(
                draws["PCA"], share, threshold
            ),
        )
    counts = [" and ".join(f"{n} ({model})" for model, n in all_.items())
              for all_ in (draws, splits)]  # fmt: skip
    results.notes = (
        f"Share of new normal rows flagged at a level of {100 * LEVEL:g} % (the tail's own level "
        f"in its rows), mean over draws and its standard error; the 5th and 95th percentile over "
        f"draws; outliers flagged. Drawn: {counts[0]} times {N_TRAIN} training rows of ten "
        f"features from three factors and noise, {N_NEW} new ones, as many outliers with "
        f"twice the noise more; held out, 20 % are 40 ranks (9.76 % expected), 50 % are 100 "
        f"(9.90 %). Real: {', '.join(SETS)} of ADBench, a random half of at most "
        f"{2 * MAX_ROWS} normal rows against the other half and all outliers, "
        f"standardised by the training half, {counts[1]} splits. Autoencoder: "
        f"64-3-64 hidden units, 60 epochs of batches of 32; {READY_MADE}: its "
        f"defaults. False discoveries: the mean share of "
        f"normal rows among those that predict_fdr flags at a level of {100 * LEVEL:g} %, in "
        f"batches of {N_NEW}, with 399 calibration rows; the level "
        f"times the share of normal rows is what to expect. CV+ keeps the models of the folds and "
        f"scores every row by all."
    )
    results.write()


if __name__ == "__main__":
    main()

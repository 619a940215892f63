"""Which rows a detector's model is fitted to, and whose scores set its threshold."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from skae.estimators._progress import Subtasks


class Calibrated(NamedTuple):
    """A fitted model, and the scores of the rows to calibrate on."""

    model: Any
    scores: np.ndarray  # (n_calibration_samples,)
    weight: np.ndarray | None  # of the same rows
    source: str  # the threshold that the scores were made for


def source_of(detector: Any) -> str:
    """The threshold whose scores are used: "extreme_value" takes those of another one."""
    if detector.threshold != "extreme_value":
        return detector.threshold
    return "training" if detector.calibration_fraction is None else "held_out"


def calibrate(detector: Any, X: Any, weight: np.ndarray | None) -> Calibrated:
    """Fit the detector's model on validated rows, as its `threshold` asks."""
    source = source_of(detector)
    found = {"held_out": _held_out, "cross_fitted": _cross_fitted}.get(source, _training)
    return found(detector, X, weight)


def _training(detector: Any, X: Any, weight: np.ndarray | None) -> Calibrated:
    tasks = Subtasks(detector, X, 1)
    model = detector._fit_model(X, weight, detector._seeds(), tasks)
    tasks.finish()
    scores = detector._training_scores_by(model, X)
    return Calibrated(model, scores, weight, source_of(detector))


def _held_out(detector: Any, X: Any, weight: np.ndarray | None) -> Calibrated:
    """Split conformal: one part trains, the other calibrates."""
    seeds = detector._seeds()
    kept, held = _split(detector, X.shape[0], seeds)
    tasks = Subtasks(detector, X, 1)
    model = detector._fit_model(X[kept], _weight_of(kept, weight, "train on"), seeds, tasks)
    tasks.finish()
    scores = detector._scores_by(model, X[held])
    return Calibrated(model, scores, _weight_of(held, weight, "calibrate on"), "held_out")


def _split(detector: Any, n: int, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, each in their order in X."""
    fraction = detector.calibration_fraction
    if fraction is None:
        raise ValueError(
            "threshold='held_out' needs rows to calibrate on, but calibration_fraction is None. "
            "Give a share in (0, 1), or use threshold='training'."
        )
    n_held = max(1, round(fraction * n))
    if n_held >= n:
        raise ValueError(
            f"threshold={detector.threshold!r} with calibration_fraction={fraction} leaves no rows "
            f"to train on of n_samples={n}. Lower it, or use threshold='training'."
        )
    order = seeds.permutation(n)
    return np.sort(order[n_held:]), np.sort(order[:n_held])


def _cross_fitted(detector: Any, X: Any, weight: np.ndarray | None) -> Calibrated:
    """Every row is scored by a model of the other folds; new rows by a model of all rows.

    The cross-validation of Foygel Barber, Candes, Ramdas and Tibshirani, "Predictive inference
    with the jackknife+" (2021), without the plus, which would keep the folds' models and score
    every new row by all of them. Theirs is proven for twice the level, ours for models that change
    little with a fold; both are cautious where folds are small (benchmarks/bench_conformal.py).
    """
    seeds = detector._seeds()
    # By a copy: the model of all rows is then that of threshold="training".
    of_model = copy.deepcopy(seeds)
    folds = _folds(detector, X.shape[0], copy.deepcopy(seeds))
    of_folds = np.random.RandomState(seeds.randint(2**31 - 1))
    tasks = Subtasks(detector, X, 1 + len(folds))
    scores = []
    for kept, held in folds:
        fold_weight = _weight_of(kept, weight, "train a fold on")
        without = detector._fit_model(X[kept], fold_weight, of_folds, tasks)
        scores.append(detector._scores_by(without, X[held]))
    model = detector._fit_model(X, weight, of_model, tasks)  # last, as callbacks keep the last fit
    tasks.finish()
    tested = np.concatenate([held for _, held in folds])
    order = np.argsort(tested)
    held_weight = _weight_of(tested[order], weight, "calibrate on")
    return Calibrated(model, np.concatenate(scores)[order], held_weight, "cross_fitted")


def _folds(detector: Any, n: int, seeds: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to train on, rows to score) for every fold; no row is scored twice."""
    from sklearn.model_selection import KFold, check_cv

    cv = detector.cv
    if isinstance(cv, int | np.integer):
        cv = KFold(int(cv), shuffle=True, random_state=seeds)
    folds = list(check_cv(cv).split(np.empty((n, 0))))
    if np.bincount(np.concatenate([held for _, held in folds]), minlength=n).max() > 1:
        raise ValueError(
            f"cv={detector.cv!r} tests some rows more than once, so that they would count more "
            "than others. Use folds that do not overlap, as KFold makes them."
        )
    return folds


def _weight_of(rows: np.ndarray, weight: np.ndarray | None, what: str) -> np.ndarray | None:
    if weight is None:
        return None
    if not weight[rows].sum() > 0:
        raise ValueError(
            f"The sample weights leave no rows to {what}: all that were drawn for it have weight "
            "zero. Use threshold='training'."
        )
    return weight[rows]

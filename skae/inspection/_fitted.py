"""What the displays ask of fitted estimators, of the pipelines around them, and of X."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted


def holder(estimator: Any, attribute: str) -> Any:
    """The fitted estimator with this attribute: itself, or the last that it holds.

    Pipelines hold their steps, searches their `best_estimator_`, detectors their `estimator_`.
    """
    check_is_fitted(estimator)
    found = _holder(estimator, attribute)
    if found is None:
        raise ValueError(
            f"{type(estimator).__name__} has no {attribute}, nor has anything that it holds. "
            "Pass a fitted autoencoder of this package, or a pipeline with one."
        )
    return found


def _holder(estimator: Any, attribute: str) -> Any:
    if hasattr(estimator, attribute):
        return estimator
    steps = [step for _, step in getattr(estimator, "steps", ())]
    held = (getattr(estimator, name, None) for name in ("estimator_", "best_estimator_"))
    each = (_holder(inner, attribute) for inner in (*held, *steps[::-1]) if inner is not None)
    return next((found for found in each if found is not None), None)


def chosen_rows(X: Any, rows: int | Sequence[int]) -> np.ndarray:
    """Positions of rows: as given, or so many spread evenly over X, all where X has fewer."""
    if not isinstance(rows, Integral):
        return np.asarray(rows)
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    return np.linspace(0, n - 1, min(int(rows), n)).round().astype(int)


def dense(X: Any) -> np.ndarray:
    """X as an array of numbers, whatever its container."""
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    return X if X.dtype.kind == "f" else X.astype(np.float64)


def names_of(X: Any, given: Sequence[str] | None = None) -> list[str] | None:
    """The names of the features: those given, or the columns of a DataFrame."""
    names = getattr(X, "columns", None) if given is None else given
    return None if names is None else [str(name) for name in names]


def names_seen(estimator: Any, inner: Any) -> list[str] | None:
    """The names of the features of `inner`, which `estimator` is or has as a step; or None."""
    names = getattr(inner, "feature_names_in_", None)
    steps = [step for _, step in getattr(estimator, "steps", ())]
    if names is None and inner in steps[1:]:
        try:
            names = estimator[: steps.index(inner)].get_feature_names_out()
        except AttributeError:  # a step gives no names
            return None
    return None if names is None else [str(name) for name in names]


def checked_names(names: Sequence[str] | None, d: int) -> list[str]:
    """Names of d features; x0, x1, ... without any."""
    if names is None:
        return [f"x{j}" for j in range(d)]
    if len(names) != d:
        raise ValueError(f"feature_names has {len(names)} entries, but there are {d} features.")
    return list(names)

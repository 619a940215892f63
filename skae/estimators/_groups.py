"""Groups of columns as users name them, and bins learned from columns."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skae._engine.batches import Source
from skae.cross_prediction import Quantised

# Bins are learned from so many rows, evenly spaced, or fewer where X is wide (in cells).
_ROWS = 10_000
_CELLS = 2**24


def resolve_columns(columns: Sequence[Any], names: Sequence[str], what: str) -> list[int]:
    """The indices of columns that are given by index, slice of indices, or name."""
    if isinstance(columns, slice):
        columns = _within(columns, names, what)
    if isinstance(columns, str) or not hasattr(columns, "__iter__"):
        one = f" Write [{columns!r}] for one column." if isinstance(columns, str | Integral) else ""
        raise ValueError(
            f"{what} must be a list of column indices or names, or a slice of indices, got "
            f"{columns!r}.{one}"
        )
    return [_column(column, names, what) for column in columns]


def _within(columns: slice, names: Sequence[str], what: str) -> range:
    try:
        return range(len(names))[columns]
    except TypeError as error:
        raise ValueError(f"{what} must be a slice of column indices, got {columns!r}.") from error


def _column(column: Any, names: Sequence[str], what: str) -> int:
    if isinstance(column, str):
        found = [i for i, name in enumerate(names) if name == column]
        if not found:
            raise ValueError(
                f"{what} names {column!r}, but the features are {list(names)}. Columns can be "
                "given by name where X is a DataFrame, or by index."
            )
        return found[0]
    if not isinstance(column, Integral) or isinstance(column, bool | np.bool_):
        raise ValueError(f"{what} must hold column indices or names, got {column!r}.")
    if not 0 <= int(column) < len(names):
        raise ValueError(
            f"{what} holds {column}, but X has {len(names)} features: give indices from 0 to "
            f"{len(names) - 1}."
        )
    return int(column)


def resolve_groups(
    groups: Any, names: Sequence[str], estimator: str
) -> tuple[tuple[int, ...], ...]:
    """Two or more groups of columns that have every column once, each ascending."""
    d = len(names)
    if d < 2:
        raise ValueError(
            f"{estimator} predicts some features from others and needs two or more, but X has "
            f"n_features = {d}."
        )
    if isinstance(groups, str):  # "halves"
        groups = (range((d + 1) // 2), range((d + 1) // 2, d))
    elif callable(groups):
        groups = groups(np.array(names, dtype=object))
    if len(groups) < 2:
        raise ValueError(
            f"groups must be two or more groups of columns, each predicted from the others, got "
            f"{len(groups)}."
        )
    found = [
        tuple(sorted(resolve_columns(group, names, f"groups[{g}]")))
        for g, group in enumerate(groups)
    ]
    _check_partition(found, names)
    return tuple(found)


def _check_partition(groups: list[tuple[int, ...]], names: Sequence[str]) -> None:
    of_column: dict[int, int] = {}
    for g, group in enumerate(groups):
        if not group:
            raise ValueError(f"groups[{g}] is empty. Give every group at least one column.")
        for j in group:
            if j in of_column:
                raise ValueError(
                    f"groups must be disjoint, but column {j} ({names[j]!r}) is in groups "
                    f"{of_column[j]} and {g}: what a group sees it need not predict."
                )
            of_column[j] = g
    missing = [j for j in range(len(names)) if j not in of_column]
    if missing:
        raise ValueError(
            f"groups must cover all columns of X, but columns {missing[:10]} "
            f"({[names[j] for j in missing[:10]]}{' and more' * (len(missing) > 10)}) are in none. "
            "Add them to a group, or drop them from X."
        )


def per_group(value: Any, n_groups: int, what: str) -> tuple[Any, ...]:
    """A parameter that is one for all groups, or a list with one for each."""
    if isinstance(value, str | Integral):
        return (value,) * n_groups
    if len(value) != n_groups:
        raise ValueError(
            f"{what} must be one for all groups or have one for each of the {n_groups} groups, "
            f"got {len(value)}: {value!r}."
        )
    return tuple(value)


class Bins(NamedTuple):
    """Of one column."""

    edges: tuple[float, ...]  # inner ones, ascending
    values: tuple[float, ...]  # the mean of the training values in each
    shares: tuple[float, ...]  # of the rows


def learn_bins(
    source: Source,
    weight: Tensor | None,
    columns: Sequence[int],
    n_bins: Sequence[int],
    strategy: str,
) -> list[Bins]:
    """Bins of columns: with as many rows each ("quantile") or of equal width ("uniform")."""
    rows = min(source.n, _ROWS, max(1000, _CELLS // source.d))
    index = torch.linspace(0, source.n - 1, rows, dtype=torch.float64).round().long()
    index = index.to(source.device)
    x = source.take(index)[:, list(columns)].cpu().double().numpy()
    w = np.ones(rows) if weight is None else weight[index].cpu().double().numpy()
    cut = {"quantile": _equal_shares, "uniform": _equal_widths}[strategy]
    bins = []
    for j, count in enumerate(n_bins):
        values, mass = _distinct(x[:, j], w)
        bins.append(_bins(values, mass, cut(values, mass, count)))
    return bins


def learn_categories(source: Source, weight: Tensor | None, columns: Sequence[int]) -> list[Bins]:
    """The distinct values of columns, over all rows, as bins."""
    found: list[dict[float, float]] = [{} for _ in columns]
    for part, chunk in source.chunks():
        x = chunk[:, list(columns)].cpu().double().numpy()
        w = np.ones(len(x)) if weight is None else weight[part].cpu().double().numpy()
        for j, shares in enumerate(found):
            for value, mass in zip(*_distinct(x[:, j], w), strict=True):
                shares[float(value)] = shares.get(float(value), 0.0) + float(mass)
    bins = []
    for shares in found:
        values = np.array(sorted(shares))
        mass = np.array([shares[value] for value in values])
        bins.append(_bins(values, mass, (values[1:] + values[:-1]) / 2))
    return bins


def _distinct(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that have weight, ascending, and the weight of each."""
    values, inverse = np.unique(x[w > 0], return_inverse=True)
    return values, np.bincount(inverse, w[w > 0])


def _equal_shares(values: np.ndarray, mass: np.ndarray, count: int) -> np.ndarray:
    """Edges after the values at which a share 1 / count, 2 / count... of the rows is reached.

    They lie midway to the next value. Equal ones fall together, so that bins may be fewer.
    """
    below = np.cumsum(mass) / mass.sum()
    last = np.searchsorted(below, np.arange(1, count) / count - 1e-9)
    last = np.unique(last[last < len(values) - 1])
    return (values[last] + values[last + 1]) / 2


def _equal_widths(values: np.ndarray, mass: np.ndarray, count: int) -> np.ndarray:
    return np.unique(np.linspace(values[0], values[-1], count + 1))[1:-1]


def _bins(values: np.ndarray, mass: np.ndarray, edges: np.ndarray) -> Bins:
    of_value = np.searchsorted(edges, values, side="right")
    total = np.bincount(of_value, mass, len(edges) + 1)
    sums = np.bincount(of_value, mass * values, len(edges) + 1)
    ends = np.concatenate([values[:1], edges, values[-1:]])
    middle = (ends[1:] + ends[:-1]) / 2  # of a bin without rows
    mean = np.where(total > 0, sums / np.maximum(total, np.finfo(float).tiny), middle)
    return Bins(*(tuple(part.tolist()) for part in (edges, mean, total / total.sum())))


def as_loss(bins: Sequence[Bins], is_categorical: bool) -> Quantised:
    """The loss of columns with equally many bins."""
    edges, values, shares = (tuple(part) for part in zip(*bins, strict=True))
    return Quantised(edges, values, shares, is_categorical)

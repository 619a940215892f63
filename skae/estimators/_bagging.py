"""Which rows and features the members of an ensemble are made from, and their errors on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.random import sample_without_replacement
from torch import Tensor

from skae._engine.batches import ArraySource, Source, SparseSource
from skae.estimators._scaling import NormalScores, Scaling, normal_scores_of
from skae.objective import NO_ROWS, Rows

_RANKED = 10_000  # rows that ranks are among


class Sample(NamedTuple):
    """The rows of positive weight that have a value, float64, and what is known of them."""

    source: Source
    weight: Tensor | None  # (n,) of mean 1
    copies: Tensor | None  # (n,) how many rows each stands for; None: one
    places: np.ndarray  # (n,) in X
    standard: Scaling  # to variance 1
    scaling: Scaling  # what the members see: the same, or X as it is

    @property
    def unit(self) -> float:
        """What the members see of a deviation that is the features' usual one."""
        return 1.0 if self.scaling is self.standard else self.standard.usual_deviation

    def take(self, index: np.ndarray) -> Sample:
        """Some of these rows; the scalings stay."""
        rows = torch.from_numpy(index)
        weight, copies = (w if w is None else w[rows] for w in (self.weight, self.copies))
        return self._replace(
            source=self.source.subset(rows), weight=weight, copies=copies, places=self.places[index]
        )


def as_source(X: Any) -> Source:
    """Validated rows in float64: in float32 a score differs by 1e-7 between batch sizes."""
    return (SparseSource if hasattr(X, "toarray") else ArraySource)(X, torch.float64)


def copies_of(weight: np.ndarray) -> Tensor | None:
    """How many rows each one stands for, if all weights are multiples of the smallest."""
    multiples = weight / weight.min()
    copies = np.rint(multiples)
    if not np.allclose(multiples, copies, rtol=1e-6, atol=0):
        return None
    return torch.from_numpy(copies)


def has_value(source: Source) -> np.ndarray:
    """Which rows have any value, (n,)."""
    return np.concatenate([(~x.isnan()).any(1).numpy() for _, x in source.chunks()])


def in_turn(values: Any, n: int, name: str, least: float) -> list[float]:
    """A number for each of n members: one for all, or several in turn."""
    each = [float(value) for value in np.atleast_1d(values)]
    if not each or not all(least <= value < np.inf for value in each):
        sign = "positive" if least else "non-negative"
        raise ValueError(f"{name} must be a {sign} number or several, got {values!r}.")
    return [each[k % len(each)] for k in range(n)]


def draw_rows(n: int, most: int, seeds: Any) -> np.ndarray:
    """`most` of n rows in a random order, each once."""
    if most == n:
        return seeds.permutation(n)
    return sample_without_replacement(n, most, random_state=seeds).astype(np.int64)


def draw_columns(d: int, share: float, n_members: int, seeds: Any) -> Tensor:
    """Which features each member sees, (M, q); all features are seen equally often, but for one."""
    q = min(d, max(int(np.ceil(share * d - 1e-9)), -(-d // max(1, n_members))))
    count, chosen = np.zeros(d), []
    for _ in range(n_members):
        own = np.sort(np.lexsort((seeds.random_sample(d), count))[:q])
        count[own] += 1
        chosen.append(own)
    return torch.from_numpy(np.array(chosen, dtype=np.int64).reshape(n_members, q))


def ranked(sample: Sample, seeds: Any) -> NormalScores:
    """The view by ranks, of a bounded number of the rows."""
    n = sample.source.n
    rows = np.arange(n) if n <= _RANKED else np.sort(draw_rows(n, _RANKED, seeds))
    index = torch.from_numpy(rows)
    weight = None if sample.weight is None else sample.weight[index]
    return normal_scores_of(sample.standard, sample.source.take(index), weight)


def known_of(sample: Sample, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Rows:
    """Weights and observed cells of the members' rows, where there are any."""
    weight = sample.weight
    known = NO_ROWS if weight is None else Rows(weight=weight[rows].to(dtype)).normalised()
    if not sample.scaling.has_missing:
        return known
    observed = torch.cat([~x.isnan() for _, x in sample.source.chunks()])
    own = observed[rows].take_along_dim(columns.unsqueeze(1), -1)
    return Rows(weight=known.weight, observed=own)


def draw_all_but(n: int, most: int, n_members: int, seeds: Any) -> list[np.ndarray]:
    """Up to `most` of n rows for each of some members, so that every row is left out by one."""
    size = -(-n // n_members) if min(n, n_members) > 1 else 0  # of a part that a member leaves out
    order, most = draw_rows(n, n, seeds), min(most, n - size)
    parts = (order[np.arange(k * size, (k + 1) * size) % n] for k in range(n_members))
    others = (np.setdiff1d(order, part) for part in parts)
    return [own[draw_rows(len(own), most, seeds)] for own in others]


def left_out_of_last(rows: Sequence[np.ndarray], n: int) -> np.ndarray:
    """The last member's rows of n, less those that all see, while there are others to take."""
    seen = np.zeros((len(rows), n), dtype=bool)
    for k, own in enumerate(rows):
        seen[k, own] = True
    last, by_others = rows[-1].copy(), np.logical_and.reduce(seen[:-1])
    free = np.flatnonzero(~seen[-1] & ~by_others)
    wrong = np.flatnonzero(by_others[last])[: len(free)]
    last[wrong] = free[: len(wrong)]
    return last


def out_of_bag(errors: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Errors of shape (n, M), NaN where a member saw the row; all of a row that every one saw."""
    seen = np.zeros(errors.shape, dtype=bool)
    for k, own in enumerate(rows):
        seen[own, k] = True
    return np.where(seen & ~seen.all(1, keepdims=True), np.nan, errors)


def medians(errors: np.ndarray, weight: Tensor | None) -> np.ndarray:
    """Lower weighted medians of the columns over what is not NaN; 0 where all is."""
    w = np.ones(len(errors)) if weight is None else weight.numpy()
    out = np.zeros(errors.shape[1])
    for k, e in enumerate(errors.T):
        known = ~np.isnan(e)
        if known.any():
            order = np.argsort(e[known])
            below = np.cumsum(w[known][order])
            at = np.searchsorted(below, below[-1] / 2 * (1 - 1e-12))
            out[k] = e[known][order][at]
    return out

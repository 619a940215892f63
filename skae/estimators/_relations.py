"""What every row reconstructs under the generalized autoencoder's relations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from skae._engine.batches import Source
from skae._warnings import warn_caller
from skae.neighbors import (
    as_pairs,
    barycenter_weights,
    class_means,
    distinct,
    geodesic_pairs,
    heat,
    lle_pairs,
    margin_pairs,
    nearest,
    squared_distances,
    weighted_means,
)
from skae.objective import Rows

SUPERVISED = ("class", "margin")
_JOINT = ("isomap", "lle")  # their weights are defined for all rows at once
_NEIGHBORS = 10  # where none are asked for
_DENSE_ROWS = 5000  # of dense weights: 200 MB in float64, a few times at once


class Points(NamedTuple):
    """The distinct training rows of positive weight; with labels, distinct in row and label."""

    X: np.ndarray  # (u, d)
    w: np.ndarray  # (u,)  summed over equal rows
    labels: np.ndarray  # (u,)  of the classes; all alike where none are given
    of_row: np.ndarray  # (n,)  the point that each training row is; -1 for rows of weight 0
    share: np.ndarray  # (n,)  of its point's weight that is the row's


class Related(NamedTuple):
    """A target for every point: its pairs cost ``weight |x^ - target|^2`` plus a constant."""

    target: np.ndarray  # (u, d)  m_i
    weight: np.ndarray  # (u,)  w_i S_i
    constant: float  # summed over the points
    pairs: Any  # matrix of w_i w_j s_ij; None for "class", whose sets do not change
    t: float  # of the heat kernel; 1 without


class HeldOut(NamedTuple):
    """Rows that are no one's neighbours."""

    X: np.ndarray
    labels: np.ndarray
    codes: np.ndarray | None = None


def points_of(source: Source, rows: Rows) -> Points:
    """The distinct rows of a source."""
    X = source.take(slice(0, source.n)).cpu().numpy()
    w = np.ones(len(X)) if rows.weight is None else rows.weight.double().cpu().numpy()
    labels = labels_of(rows, len(X))
    seen = np.flatnonzero(w > 0)
    first, which = distinct(X[seen], labels[seen])
    total = np.bincount(which, w[seen])
    of_row, share = np.full(len(X), -1), np.zeros(len(X))
    of_row[seen], share[seen] = which, w[seen] / total[which]
    at = seen[first]
    return Points(X[at], total, labels[at], of_row, share)


def labels_of(rows: Rows, n: int) -> np.ndarray:
    """The classes of n rows, all alike where none are given."""
    return np.zeros(n, dtype=np.intp) if rows.y is None else rows.y.cpu().numpy()


@dataclass(frozen=True)
class Relation:
    """Omega_i and s_ij, from the estimator's parameters of the same names."""

    name: str
    n_neighbors: int | None
    t: float | None
    k1: int
    k2: int
    weight_space: str

    @property
    def is_fixed(self) -> bool:
        """Whether codes change neither sets nor weights."""
        return self.name == "class" or (self.name == "isomap" and self.weight_space == "input")

    def check(self, points: Points, holds_out: bool) -> None:
        """Refuse what the relation is not defined for; warn of counts that are clipped."""
        u = len(points.X)
        if self.name != "class" and u < 2:
            raise ValueError(
                f"relation={self.name!r} needs at least 2 distinct rows of positive weight, but X "
                f"has {u} distinct row of n_samples={len(points.of_row)}. Use relation='self'."
            )
        if self.name in _JOINT and holds_out:
            raise ValueError(
                f"relation={self.name!r} defines its weights for all rows at once, so that rows "
                "held out have none. Set early_stopping=False."
            )
        if self.name == "isomap" and u > _DENSE_ROWS:
            raise ValueError(
                f"relation='isomap' relates all rows to all, which is limited to {_DENSE_ROWS} "
                f"distinct rows, but X has {u}. Take a sample, or use relation='neighbors'."
            )
        if self.name == "margin":
            sizes = np.unique(points.labels, return_counts=True)[1]
            _warn_clipped("k1", self.k1, int(sizes.min()) - 1, "the smallest class has")
            _warn_clipped("k2", self.k2, u - int(sizes.max()), "the other classes have")
        elif self.name != "class" and self.n_neighbors is not None:
            _warn_clipped("n_neighbors", self.n_neighbors, u - 1, "X has")

    def relate(self, points: Points, codes: np.ndarray | None) -> Related:
        """By the points' codes; without codes, by the points themselves."""
        if self.name == "class":
            means, scatter = class_means(points.X, points.labels, points.w)
            constant = float(points.w @ scatter[points.labels])
            return Related(means[points.labels], points.w, constant, None, 1.0)
        pairs, t = getattr(self, f"_{self.name}")(points, codes)
        weight = pairs.sum(1)
        if self.name == "margin":
            _check_bounded(points, pairs, weight)
        target, scatter = weighted_means(pairs, points.X)
        return Related(target, weight, float(scatter.sum()), pairs, t)

    def _neighbors(self, points: Points, codes: np.ndarray | None) -> tuple[Any, float]:
        X, w, by_X = points.X, points.w, self.weight_space == "input"
        d2, index = nearest(X if codes is None else codes, self._k(len(points.X) - 1))
        of_X = d2
        if codes is not None and (by_X or self.t is not None):
            of_X = squared_distances(X, index)
        measured = of_X if by_X else d2
        each = w[:, None] * w[index]
        exponent = 1.0 if self.t is None else np.average(of_X, weights=each) / self.t
        t = np.average(measured, weights=each) / exponent
        t = float(t) if t > 0 else 1.0  # codes that all coincide are equally near
        return as_pairs(each * heat(measured, t), index, len(X)), t

    def _margin(self, points: Points, codes: np.ndarray | None) -> tuple[Any, float]:
        space = points.X if codes is None else codes
        pairs = margin_pairs(space, points.labels, points.w, self.k1, self.k2)
        return sp.diags_array(points.w) @ pairs, 1.0

    def _lle(self, points: Points, codes: np.ndarray | None) -> tuple[Any, float]:
        space = points.X if codes is None else codes
        _, index = nearest(space, self._k(len(points.X) - 1))
        M = barycenter_weights(points.X if self.weight_space == "input" else space, index)
        return lle_pairs(as_pairs(M, index, len(M)), points.w), 1.0

    def _isomap(self, points: Points, codes: np.ndarray | None) -> tuple[Any, float]:
        space = points.X if codes is None else codes
        return geodesic_pairs(space, self._k(len(points.X) - 1), points.w), 1.0

    def _k(self, most: int) -> int:
        return min(_NEIGHBORS if self.n_neighbors is None else self.n_neighbors, most)

    def relate_held_out(
        self, points: Points, codes: np.ndarray | None, related: Related, held: HeldOut
    ) -> tuple[np.ndarray, np.ndarray]:
        """Targets and S_i of rows held out, whose sets are of training rows."""
        if self.name == "class":
            known = np.isin(held.labels, points.labels)
            label = np.where(known, held.labels, 0)
            return class_means(points.X, points.labels, points.w)[0][label], known.astype(float)
        if self.name == "margin":
            space, queries = (points.X, held.X) if codes is None else (codes, held.codes)
            pairs = margin_pairs(
                space, points.labels, points.w, self.k1, self.k2, queries, held.labels
            )
        else:
            pairs = self._neighbors_held_out(points, codes, related.t, held)
        return weighted_means(pairs, points.X)[0], pairs.sum(1)

    def _neighbors_held_out(
        self, points: Points, codes: np.ndarray | None, t: float, held: HeldOut
    ) -> Any:
        space, queries = (points.X, held.X) if codes is None else (codes, held.codes)
        d2, index = nearest(space, self._k(len(space)), queries)
        if codes is not None and self.weight_space == "input":
            d2 = squared_distances(points.X, index, held.X)
        return as_pairs(points.w[index] * heat(d2, t), index, len(space))


def _warn_clipped(name: str, value: int, largest: int, there: str) -> None:
    if value > largest:
        warn_caller(
            f"{name}={value} is more than the {largest} other distinct rows that {there}: it is "
            "clipped to them."
        )


def _check_bounded(points: Points, pairs: Any, weight: np.ndarray) -> None:
    """Raise where what a row repels outweighs what it attracts: E then has no minimum."""
    worst = int(np.argmin(weight))
    if weight[worst] > 0:
        return
    row = pairs[[worst], :]
    size = int((points.labels == points.labels[worst]).sum())
    raise ValueError(
        f"relation='margin' has no minimum: a row of a class of {size} distinct rows attracts "
        f"{int((row > 0).sum())} of its own class and repels {int((row < 0).sum())} of others, "
        "which k2 has to be fewer than. Lower k2 below k1 and below the size of the smallest "
        "class less one."
    )

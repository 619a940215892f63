"""How a detector's members see the features: by their values or by their ranks, in a range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from skae._engine.batches import Source

# A feature that was constant in training has no scale, so that a row in which it moves says only
# that it did; others have one, and are only kept from overflow when squared.
_MOST_OF_CONSTANT = 10.0  # in standard deviations of the others
_MOST = 1e100  # in scaled units
_KNOTS = 1000  # of a feature's distribution


class Scaling(NamedTuple):
    """Location, scale and range of features, float64 of shape (d,) each."""

    center: Tensor
    scale: Tensor
    low: Tensor  # lowest and highest training values, in scaled units
    high: Tensor
    next_low: Tensor  # the lowest and highest without one of these rows
    next_high: Tensor
    most: Tensor  # beyond which scaled values count as this
    has_missing: bool

    def forward(self, X: Tensor) -> Tensor:
        """Rows in scaled units; NaN stay."""
        x = (X - self.center) / self.scale
        return x.clamp_(-self.most, self.most)

    def within(self, x: Tensor) -> Tensor:
        """Scaled rows as near as the training rows' range has them; missing values at the mean."""
        return x.nan_to_num(nan=0.0).clamp_(self.low, self.high)

    def inverse(self, x: Tensor) -> Tensor:
        """Rows in the units of X."""
        return x * self.scale + self.center

    @property
    def usual_deviation(self) -> float:
        """In the units of X: the root mean square of the deviations of features that have one."""
        varies = self.most == _MOST
        return float(self.scale[varies].square().mean().sqrt()) if varies.any() else 1.0

    def in_units_of_X(self) -> Scaling:
        """Without a scale."""
        one, usual = torch.ones_like(self.scale), self.usual_deviation
        most = self.most.where(self.most == _MOST, self.most * usual)
        names = ("low", "high", "next_low", "next_high")
        ends = {name: getattr(self, name) * self.scale for name in names}
        return self._replace(scale=one, most=most, **ends)

    def without_one_row(self) -> Scaling:
        """For a training row: the range that the others have, where it is an end of it itself."""
        return self._replace(low=self.next_low, high=self.next_high)


class NormalScores:
    """Scaled features by rank: the standard normal quantile of their share of training rows.

    Ties share the middle of their ranks (van der Waerden's scores with mid-ranks), so that a
    rare value of a feature of few values is no further out than it is rare. Between knots it is
    linear, and beyond the training rows' range it goes on with slope 1.
    """

    def __init__(self, scaling: Scaling, knots: Sequence[tuple[np.ndarray, np.ndarray]]):
        self.scaling, self.knots = scaling, list(knots)
        self.low = torch.tensor([scores[0] for _, scores in self.knots])
        self.high = torch.tensor([scores[-1] for _, scores in self.knots])

    def forward(self, X: Tensor) -> Tensor:
        """Scores of rows in the units of X; NaN stay."""
        x = self.scaling.forward(X).numpy()
        out = np.empty_like(x)
        for j, (values, scores) in enumerate(self.knots):
            inside = np.clip(x[:, j], values[0], values[-1])
            out[:, j] = np.interp(inside, values, scores) + (x[:, j] - inside)
        return torch.from_numpy(out)

    def within(self, x: Tensor) -> Tensor:
        """Scores as near as the training rows' range has them; missing values at the median."""
        return x.nan_to_num(nan=0.0).clamp_(self.low, self.high)

    def inverse(self, x: Tensor) -> Tensor:
        """Rows in the units of X, from scores within the range."""
        columns = [
            np.interp(own, scores, values)
            for own, (values, scores) in zip(x.numpy().T, self.knots, strict=True)
        ]
        return self.scaling.inverse(torch.from_numpy(np.stack(columns, 1)))


def normal_scores_of(scaling: Scaling, X: Tensor, weight: Tensor | None) -> NormalScores:
    """The scores of training rows, float64 of shape (n, d), NaN apart."""
    x = scaling.forward(X).numpy()
    w = np.ones(len(x)) if weight is None else weight.numpy()
    return NormalScores(scaling, [_knots(column, w) for column in x.T])


def _knots(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, and the normal quantiles of their mid-ranks."""
    known = ~np.isnan(x)
    if not known.any():
        return np.zeros(1), np.zeros(1)
    values, place = np.unique(x[known], return_inverse=True)
    count = np.bincount(place, weights=w[known])
    share = (np.cumsum(count) - count / 2) / count.sum()
    if len(values) > _KNOTS:
        kept = np.linspace(0, len(values) - 1, _KNOTS).round().astype(int)
        values, share = values[kept], share[kept]
    return values, ndtri(share)


View = Any  # Scaling or NormalScores


def scaling_of(source: Source, weight: Tensor | None) -> Scaling:
    """To mean 0 and variance 1, of float64 rows of positive weight, by scikit-learn's scaler.

    A feature without variance has scale 1, and one without any value center NaN.
    """
    scaler = StandardScaler()
    low = torch.full((2, source.d), torch.inf, dtype=torch.float64)  # the two lowest
    high, has_missing = -low, False
    for part, x in source.chunks():
        with np.errstate(invalid="ignore", over="ignore"):  # 0 / 0 of one without any value
            scaler.partial_fit(
                x.numpy(), sample_weight=None if weight is None else weight[part].numpy()
            )
        has_missing |= bool(x.isnan().any())
        low = torch.cat([low, x.nan_to_num(nan=torch.inf)]).topk(2, 0, largest=False).values
        high = torch.cat([high, x.nan_to_num(nan=-torch.inf)]).topk(2, 0).values
    center, scale = torch.from_numpy(scaler.mean_), torch.from_numpy(scaler.scale_)
    unbounded = ~np.isfinite(scaler.var_) & ~np.isnan(scaler.mean_)
    too_large = np.flatnonzero(unbounded | np.isinf(scaler.mean_))
    if len(too_large):
        raise ValueError(
            f"Feature {int(too_large[0])} is too large for its variance to be a number. Scale X."
        )
    varies = torch.from_numpy(np.sqrt(scaler.var_) == scaler.scale_)
    has_others = low[1] <= high[1]
    low, high = ((bound - center) / scale for bound in (low, high))
    low, high = (bound.where(varies, 0.0) for bound in (low, high))
    next_low, next_high = (bound[1].where(has_others, bound[0]) for bound in (low, high))
    most = torch.full_like(scale, _MOST).where(varies, _MOST_OF_CONSTANT)
    return Scaling(center, scale, low[0], high[0], next_low, next_high, most, has_missing)

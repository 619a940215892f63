"""What a detector learns of the features before anything else: location, scale and range."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from skae._engine.batches import Source

# In scaled units. A feature that was constant in training has no scale, so that a row in which it
# moves says only that it did; others have one, and are only kept from overflow when squared.
_MOST_OF_CONSTANT = 10.0
_MOST = 1e100


class Scaling(NamedTuple):
    """Location, scale and range of features, float64 of shape (d,) each."""

    center: Tensor
    scale: Tensor
    low: Tensor  # lowest and highest training values, in scaled units
    high: Tensor
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


def scaling_of(source: Source, weight: Tensor | None, standardises: bool) -> Scaling:
    """The scaling of float64 rows of positive weight, by scikit-learn's scaler.

    A feature without variance has scale 1, and one without any value center NaN.
    """
    scaler = StandardScaler()
    low = torch.full((source.d,), torch.inf, dtype=torch.float64)
    high, has_missing = -low, False
    for part, x in source.chunks():
        scaler.partial_fit(x.numpy(), sample_weight=None if weight is None else weight[part].numpy())
        has_missing |= bool(x.isnan().any())
        low = torch.minimum(low, x.nan_to_num(nan=torch.inf).amin(0))
        high = torch.maximum(high, x.nan_to_num(nan=-torch.inf).amax(0))
    center, scale = torch.from_numpy(scaler.mean_), torch.from_numpy(scaler.scale_)
    varies = torch.from_numpy(np.sqrt(scaler.var_) == scaler.scale_)
    if not standardises:
        scale = torch.ones_like(scale)
    low, high = ((bound - center) / scale for bound in (low, high))
    low, high = (bound.where(varies, 0.0) for bound in (low, high))
    most = torch.full_like(scale, _MOST).where(varies, _MOST_OF_CONSTANT)
    return Scaling(center, scale, low, high, most, has_missing)

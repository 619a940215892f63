"""Corruptions of a batch x of shape (..., n, d): which cells, and what takes their place.

Randomness comes from `rng`, whose draws models on a leading axis share. A share or a standard
deviation may hold one value per model, of shape (M, 1, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Fractions of a cell below this are rounding: 0.29 of 100 features are 29.
_ROUNDING = 1e-4


def gaussian(x: Tensor, sigma: float | Tensor, rng) -> Tensor:
    """x + sigma epsilon, epsilon ~ N(0, I)."""
    return x + sigma * rng.normal(x)


def choose_cells(share: float | Tensor, x: Tensor, rng, *, exact: bool) -> Tensor:
    """True at a random `share` of the cells, of the shape of x.

    If `exact`, every row has ``share d`` of its d cells chosen; where that is no whole number, the
    one below or above, with the probabilities that make it ``share d`` on average. Otherwise
    every cell is chosen on its own.
    """
    if not exact:
        return rng.bernoulli(share, x) > 0
    d = x.shape[-1]
    wanted = share * d + _ROUNDING
    most = min(d, int(wanted.max() if isinstance(wanted, Tensor) else wanted) + 1)
    order = rng.uniform(x).topk(most).indices  # the first of a random order of the cells
    whole = wanted // 1
    count = whole + (rng.uniform(x[..., :1]) < wanted - whole - _ROUNDING)
    first = torch.arange(most, device=x.device) < count
    chosen = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
    return chosen.scatter_(-1, order, first.expand_as(order))


def salt_and_pepper(low: float | Tensor, high: float | Tensor, x: Tensor, rng) -> Tensor:
    """`low` or `high` by the toss of a fair coin for every cell."""
    return torch.where(rng.bernoulli(0.5, x) > 0, high, low)


def swapped(x: Tensor, rng) -> Tensor:
    """For every cell the same feature's value in another row of the batch, at random."""
    n = x.shape[-2]
    own = torch.arange(n, device=x.device).unsqueeze(-1)
    row = own + 1 + (rng.uniform(x) * (n - 1)).long()
    return x.gather(-2, torch.where(row < n, row, row - n))

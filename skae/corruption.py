"""Corruptions of a batch x of shape (..., n, d): which cells, and what takes their place.

Randomness comes from `rng`, whose draws models on a leading axis share. A share or a standard
deviation may hold one value per model, of shape (M, 1, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Fractions of a cell below this are rounding: 0.29 of 100 features are 29.
_ROUNDING = 1e-4

# Numbers in [0, 1) are ordered as their bits are, which are compared in half the time.
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def gaussian(x: Tensor, sigma: float | Tensor, rng) -> Tensor:
    """x + sigma epsilon, epsilon ~ N(0, I)."""
    return x + sigma * rng.normal(x)


def choose_cells(share: float | Tensor, x: Tensor, rng, *, exact: bool) -> Tensor:
    """1 at a random `share` of the cells and 0 elsewhere, of the shape of x.

    If `exact`, every row has ``share d`` of its d cells chosen; where that is no whole number, the
    one below or above, with the probabilities that make it ``share d`` on average. Otherwise
    every cell is chosen on its own.
    """
    if not exact:
        return rng.bernoulli(share, x)
    d = x.shape[-1]
    wanted = share * d + _ROUNDING
    whole = wanted // 1
    rest = wanted - whole - _ROUNDING
    ranks = rng.uniform(x).view(_BITS[x.dtype])
    one_more = rng.uniform(x[..., :1]) < rest
    if not isinstance(share, Tensor) and rest < _ROUNDING:
        order = ranks.topk(int(whole), sorted=False).indices
        return torch.zeros_like(x).scatter_(-1, order, 1.0)
    most = int(whole.max() if isinstance(whole, Tensor) else whole) + 1
    order = ranks.topk(min(d, most)).indices  # sorted: each model takes the first of them
    first = torch.arange(order.shape[-1], device=x.device) < whole + one_more
    return torch.zeros_like(x).scatter_(-1, order, first.to(x.dtype).expand_as(order))


def replace_cells(x: Tensor, chosen: Tensor, value: Tensor) -> Tensor:
    """x with `value`, which is finite, where `chosen` is 1, and exactly x where it is 0."""
    return torch.lerp(x, value, chosen)  # a tenth of the time of torch.where


def salt_and_pepper(low: Tensor, high: Tensor, x: Tensor, rng) -> Tensor:
    """`low` or `high` by the toss of a fair coin for every cell."""
    return torch.lerp(low, high, rng.bernoulli(0.5, x))


def swapped(x: Tensor, rng) -> Tensor:
    """For every cell the same feature's value in another row of the batch, at random."""
    n = x.shape[-2]
    if n == 1:
        return x
    row = (rng.uniform(x) * (n - 1)).long()
    row += row >= torch.arange(n, device=x.device).unsqueeze(-1)  # its own row is skipped
    return x.gather(-2, row)

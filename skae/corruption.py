"""Corruptions of a batch x of shape (..., n, d): which cells, and what takes their place.

Gaussian noise draws from `rng`. The others share one draw, `bits` of the shape of x: 32 random bits
a cell, as int32, of which every use takes a part or a mixture of its own. A share or a standard
deviation may hold one value per model, of shape (M, 1, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Fractions of a cell below this are rounding: 0.29 of 100 features are 29.
_ROUNDING = 1e-4

_GOLDEN = -1640531535  # 2^32 over the golden ratio, an odd number, as int32


def gaussian(x: Tensor, sigma: float | Tensor, rng) -> Tensor:
    """x + sigma epsilon, epsilon ~ N(0, I)."""
    return x + sigma * rng.normal(x)


def _unit(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in [0, 1) from the highest 24 of the bits, which every dtype holds exactly."""
    return (bits >> 8).to(dtype).mul_(2.0**-24).add_(0.5)


def _mixed(bits: Tensor) -> Tensor:
    """Other bits, the highest of which depend on all: uniform among numbers of like rank, too."""
    return bits * _GOLDEN


def choose_cells(share: float | Tensor, x: Tensor, bits: Tensor, *, exact: bool) -> Tensor:
    """1 at a random `share` of the cells and 0 elsewhere, of the shape of x.

    If `exact`, every row has ``share d`` of its d cells chosen; where that is no whole number, the
    one below or above, with the probabilities that make it ``share d`` on average. Otherwise
    every cell is chosen on its own.
    """
    if not exact:
        # A mask by arithmetic: one of booleans takes three times as long.
        return (share - _unit(bits, x.dtype)).sign_().clamp_(min=0)
    d = x.shape[-1]
    wanted = share * d + _ROUNDING
    whole = wanted // 1
    rest = wanted - whole - _ROUNDING
    if not isinstance(share, Tensor) and rest < _ROUNDING:
        order = bits.topk(int(whole), sorted=False).indices
        return torch.zeros_like(x).scatter_(-1, order, x.new_ones(1, 1).expand_as(order))
    one_more = _unit(_mixed(bits[..., :1]), x.dtype) < rest
    most = int(whole.max() if isinstance(whole, Tensor) else whole) + 1
    order = bits.topk(min(d, most)).indices  # sorted: each model takes the first of them
    first = torch.arange(order.shape[-1], device=x.device) < whole + one_more
    return torch.zeros_like(x).scatter_(-1, order, first.to(x.dtype).expand_as(order))


def replace_cells(x: Tensor, chosen: Tensor, value: Tensor) -> Tensor:
    """x with `value`, which is finite, where `chosen` is 1, and exactly x where it is 0."""
    return torch.lerp(x, value, chosen)  # a tenth of the time of torch.where


def salt_and_pepper(low: Tensor, high: Tensor, bits: Tensor) -> Tensor:
    """`low` or `high` by the toss of a fair coin for every cell: its last bit."""
    return torch.lerp(low, high, (bits & 1).to(low.dtype))


def swapped(x: Tensor, bits: Tensor) -> Tensor:
    """For every cell the same feature's value in another row of the batch, at random."""
    n, d = x.shape[-2:]
    if n == 1:
        return x
    twice = torch.cat([x, x], -2)  # where every other row is among the n - 1 that follow
    whole = torch.int32 if twice.numel() < 2**31 else torch.int64
    place = (_unit(_mixed(bits), x.dtype) * (n - 1)).to(whole).clamp_(max=n - 2).mul_(d)
    first = torch.arange(twice.numel() // d, dtype=whole, device=x.device).mul_(d)
    place += first.view(*x.shape[:-2], 2 * n, 1)[..., 1 : n + 1, :]
    place += torch.arange(d, dtype=whole, device=x.device)
    return twice.view(-1).index_select(0, place.view(-1)).view_as(x)

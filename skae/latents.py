"""Functions of the code: which of its units stay.

Leading axes are models; ``k`` may be one number for all, or a tensor of shape (M, 1, 1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Products of whole numbers and decimals, as 1.1 * 10, may end this much above a whole number.
_ROUNDING = 1e-4


def whole(k: Any) -> Any:
    """The next whole number from `k` upwards."""
    return torch.ceil(k - _ROUNDING) if isinstance(k, Tensor) else math.ceil(k - _ROUNDING)


def largest(h: Tensor, k: float, *, of_batch: bool = False) -> Tensor | None:
    """Where the k largest values of every row of `h` are, of shape (n, width).

    Places in the flattened h, in ascending order of rows; of a batch, the n k largest of all. None
    with k >= width.
    """
    n, width = h.shape
    count = int(whole(k))
    if count >= width:
        return None
    if of_batch:
        return h.flatten().topk(n * count, sorted=False).indices.sort().values
    units = h.topk(count, dim=-1, sorted=False).indices
    return units.add_(torch.arange(0, n * width, width, device=h.device).unsqueeze(-1)).flatten()


def keep_largest(h: Tensor, k: float | Tensor) -> Tensor:
    """The k largest values of every row, zero elsewhere, of the shape of `h` (..., n, width).

    Largest with their sign, not in magnitude. Exactly k stay, also among equal ones; a fraction
    of a unit counts as one. With k >= width it is `h` itself.
    """
    count, width = whole(k), h.shape[-1]
    differs = isinstance(count, Tensor)
    least, most = (int(count.min()), int(count.max())) if differs else (count, count)
    if least >= width:
        return h
    most = min(most, width)
    values, index = h.topk(most, dim=-1, sorted=differs)
    if differs:
        values = values * (torch.arange(most, device=h.device) < count)
    return torch.zeros_like(h).scatter_(-1, index, values)


def keep_largest_of_batch(h: Tensor, k: float | Tensor) -> Tensor:
    """The n k largest values of a whole batch of n rows, zero elsewhere, of the shape of `h`."""
    count = whole(k)
    if isinstance(count, Tensor):
        count = count.squeeze(-1)
    return keep_largest(h.flatten(-2), h.shape[-2] * count).view_as(h)

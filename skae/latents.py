"""Functions of the code: which of its units stay.

Leading axes are models; ``k`` may be one number for all, or a tensor of shape (M, 1, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Products of whole numbers and decimals, as 1.1 * 10, may end this much above a whole number.
_ROUNDING = 1e-4


def whole(k: float | Tensor) -> int | Tensor:
    """The next whole number from `k` upwards."""
    return torch.ceil(k - _ROUNDING) if isinstance(k, Tensor) else math.ceil(k - _ROUNDING)


def keep_largest(h: Tensor, k: float | Tensor) -> Tensor:
    """The k largest values of every row, zero elsewhere, of the shape of `h` (..., n, width).

    Largest with their sign, not in magnitude. Exactly k stay, also among equal ones; a fraction
    of a unit counts as one. With k >= width it is `h` itself.
    """
    k, width = whole(k), h.shape[-1]
    differs = isinstance(k, Tensor)
    least, most = (int(k.min()), int(k.max())) if isinstance(k, Tensor) else (k, k)
    if least >= width:
        return h
    most = min(most, width)
    values, index = h.topk(most, dim=-1, sorted=differs)
    if differs:
        values = values * (torch.arange(most, device=h.device) < k)
    return torch.zeros_like(h).scatter_(-1, index, values)


def keep_largest_of_batch(h: Tensor, k: float | Tensor) -> Tensor:
    """The n k largest values of a whole batch of n rows, zero elsewhere, of the shape of `h`."""
    n, k = h.shape[-2], whole(k)
    if isinstance(k, Tensor):
        k = k.squeeze(-1)
    return keep_largest(h.flatten(-2), n * k).view_as(h)

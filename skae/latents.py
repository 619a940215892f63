"""Functions of the code: which of its units stay; Gaussian codes; categories.

Leading axes are models; ``k`` may be one number for all, or a tensor of shape (M, 1, 1).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Products of whole numbers and decimals, as 1.1 * 10, may end this much above a whole number.
_ROUNDING = 1e-4
_HALF = torch.tensor(0.5, dtype=torch.float32, device="cpu")  # kernels take floats more slowly


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


# ---- Gaussian codes: h holds means and log variances, (..., n, 2 k), side by side


def means(h: Tensor) -> Tensor:
    """Mean of q(z | x), of shape (..., n, k)."""
    return h.narrow(-1, 0, h.shape[-1] // 2)


def split(h: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q(z | x), of shape (..., n, k) each."""
    k = h.shape[-1] // 2
    return h.narrow(-1, 0, k), h.narrow(-1, k, k)  # half the time of a chunk


def joined(mean: Tensor, log_var: Tensor) -> Tensor:
    """The inverse of `split`."""
    return torch.cat([mean, log_var], -1)


def sample(h: Tensor, rng: Any) -> Tensor:
    """z = mu + sigma epsilon, of shape (..., n, k), epsilon standard normal."""
    return moved(h, rng.normal(means(h)))


def moved(h: Tensor, epsilon: Tensor) -> Tensor:
    """mu + sigma epsilon."""
    mean, log_var = split(h)
    return torch.addcmul(mean, torch.exp(_HALF * log_var), epsilon)


def samples(h: Tensor, S: int, rng: Any) -> Tensor:
    """S of them for every row, next to each other: (..., n S, k)."""
    mean, log_var = split(h.unsqueeze(-2))
    n, k = h.shape[-2], mean.shape[-1]
    epsilon = rng.normal(h.new_empty(*h.shape[:-2], n * S, k)).unflatten(-2, (n, S))
    return torch.addcmul(mean, torch.exp(_HALF * log_var), epsilon).flatten(-3, -2)


def sample_gradient(d_z: Tensor, h: Tensor, z: Tensor) -> Tensor:
    """`d_z` carried back through `sample`, of the shape of h; or of several, (..., n, S, 2 k).

    For several, z and d_z are (..., n, S, k) and h is (..., n, 1, 2 k).
    """
    return joined(d_z, (z - means(h)).mul_(d_z).mul_(_HALF))


def kl(h: Tensor) -> Tensor:
    """KL(q(z | x) || N(0, I)) of every unit, (mu^2 + sigma^2 - 1 - log sigma^2) / 2, in nats."""
    mean, log_var = split(h)
    return _kl(mean, log_var, torch.expm1(log_var))


def kl_and_gradient(h: Tensor) -> tuple[Tensor, Tensor]:
    """`kl`, and its derivative with respect to h: mu and (sigma^2 - 1) / 2."""
    mean, log_var = split(h)
    log_var = log_var.contiguous()  # a third of the time, where rows are short
    growth = torch.expm1(log_var)
    return _kl(mean, log_var, growth), joined(mean, _HALF * growth)


def _kl(mean: Tensor, log_var: Tensor, growth: Tensor) -> Tensor:
    return _HALF * torch.addcmul(growth - log_var, mean, mean)


def log_prior_ratio(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log p(z) - log q(z | x) of every unit, in nats; the constants cancel."""
    epsilon = (z - mean) * torch.exp(-_HALF * log_var)
    return _HALF * (epsilon.square() + log_var - z.square())


def log_density(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; mu, sigma^2) of every unit, in nats, without the constant -log(2 pi) / 2."""
    epsilon = (z - mean) * torch.exp(-_HALF * log_var)
    return -_HALF * (epsilon.square() + log_var)


def with_categories(h: Tensor, c: int) -> Tensor:
    """h with a softmax over its last c columns: probabilities of c categories beside the rest."""
    k = h.shape[-1] - c
    return torch.cat([h[..., :k], torch.softmax(h[..., k:], -1)], -1)


def categories_gradient(d_z: Tensor, z: Tensor, c: int) -> Tensor:
    """`d_z` carried back through `with_categories`, of the shape of z."""
    k = z.shape[-1] - c
    p, d_p = z[..., k:], d_z[..., k:]
    return torch.cat([d_z[..., :k], p * (d_p - (p * d_p).sum(-1, keepdim=True))], -1)

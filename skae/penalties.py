"""Penalties of a code: sparsity and contraction. Values, and the slopes that closed forms need.

Everything is elementwise or reduces over the last axes only, so leading axes may be models.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ---- sparsity


def row_shares(weight: Tensor | None, h: Tensor) -> Tensor | float:
    """What each row counts in a mean over rows, of shape (..., n, 1); one number without weights.

    Rows without any weight at all count nothing.
    """
    if weight is None:
        return 1.0 / h.shape[-2]
    total = weight.sum(-1, keepdim=True)
    return (weight / total.clamp(min=torch.finfo(weight.dtype).tiny)).unsqueeze(-1)


def any_weight(weight: Tensor | None) -> Tensor | float:
    """1 where any row has weight, else 0, of shape (..., 1); the mean over no rows says nothing."""
    return 1.0 if weight is None else (weight.sum(-1, keepdim=True) > 0).to(weight.dtype)


def mean_activation(h: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted mean over rows of h of shape (..., n, k), of shape (..., 1, k)."""
    if weight is None:
        return h.mean(-2, keepdim=True)
    return (row_shares(weight, h) * h).sum(-2, keepdim=True)


def _inside(rho_hat: Tensor) -> Tensor:
    """rho^ kept off 0 and 1, which units reach where floating-point numbers end."""
    info = torch.finfo(rho_hat.dtype)
    return rho_hat.clamp(info.tiny, 1 - info.eps)


def bernoulli_kl(rho: float | Tensor, rho_hat: Tensor) -> Tensor:
    """KL(rho || rho^) = rho log(rho / rho^) + (1 - rho) log((1 - rho) / (1 - rho^)), in nats."""
    q = _inside(rho_hat)
    return rho * torch.log(rho / q) + (1 - rho) * torch.log((1 - rho) / (1 - q))


def bernoulli_kl_slope(rho: float | Tensor, rho_hat: Tensor) -> Tensor:
    """d KL(rho || rho^) / d rho^ = -rho / rho^ + (1 - rho) / (1 - rho^)."""
    q = _inside(rho_hat)
    return (1 - rho) / (1 - q) - rho / q


# ---- contraction


def row_norms(W: Tensor) -> Tensor:
    """|W_j|^2 of the rows of W of shape (..., k, d), of shape (..., 1, k)."""
    return W.square().sum(-1).unsqueeze(-2)


def layer_jacobian(s: Tensor, W: Tensor) -> Tensor:
    """What every unit adds to |diag(s) W|_F^2, the Jacobian of a layer: s_j^2 |W_j|^2.

    Of shape (..., n, k), as is s, the slope f'(a) of the units.
    """
    return s.square() * row_norms(W)

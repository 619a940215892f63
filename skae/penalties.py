"""Penalties on the code: values and closed-form gradients, in the sources' letters."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_sparsity(rho: float | Tensor, rho_hat: Tensor) -> Tensor:
    """KL(rho, rho^) = rho log(rho / rho^) + (1 - rho) log((1 - rho) / (1 - rho^)), elementwise."""
    rho = torch.as_tensor(rho, dtype=rho_hat.dtype, device=rho_hat.device)
    return rho * (rho.log() - rho_hat.log()) + (1 - rho) * ((-rho).log1p() - (-rho_hat).log1p())


def kl_sparsity_gradient(rho: float | Tensor, rho_hat: Tensor) -> Tensor:
    """Its derivative in rho^: -rho / rho^ + (1 - rho) / (1 - rho^)."""
    return (1 - rho) / (1 - rho_hat) - rho / rho_hat

"""The kernel denoiser: training rows, weighed by their distance. Nothing in it is trained."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class KernelDenoiser(NamedTuple):
    """The mean of training rows p_j, weighed by how near they are to x:

        f(x) = sum_j softmax_j(-|x - p_j|^2 / (2 tau^2) + log w_j) p_j.

    It is the best reconstruction of a row of the empirical distribution from that row under
    N(0, tau^2 I) noise (Vincent, "A connection between score matching and denoising
    autoencoders", 2011, gives the other side of it). In form it is an autoencoder with attention to
    stored rows, in substance a method of neighbours.
    """

    prototypes: Tensor  # (k, d)
    tau: float
    log_weight: Tensor | None = None  # (k,)

    def __call__(self, x: Tensor) -> Tensor:
        """Reconstructions of rows of shape (n, d)."""
        p = self.prototypes
        prior = p.square().sum(-1).mul_(-0.5 / self.tau**2)  # |x|^2 is the same for all j
        if self.log_weight is not None:
            prior += self.log_weight
        logits = torch.addmm(prior, x, p.T, alpha=1 / self.tau**2)
        return torch.softmax(logits, -1) @ p

"""The kernel denoiser: training rows, weighed by their distance. Nothing in it is trained."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EXACT = 1e-12  # of a squared norm: a smaller squared distance is rounding


class KernelDenoiser(NamedTuple):
    """The mean of training rows p_j, weighed by how near they are to x:

        f(x) = sum_j softmax_j(-|x - p_j|^2 / (2 tau^2) + log w_j) p_j.

    That is the mean of p_j given x, where x is a p_j drawn with probability w_j and put under
    N(0, tau^2 I) noise: the function that a denoising network of any capacity would end at on these
    rows (Alain and Bengio, "What regularized auto-encoders learn from the data-generating
    distribution", JMLR 15, 2014). In form it is an autoencoder with attention to stored rows, in
    substance a method of neighbours.

    A row that is stored itself is left out, once, as a neighbour of itself would be: training rows
    are then no better off than new ones. Of one that stands for several, a copy is left out.
    """

    prototypes: Tensor  # (k, d)
    tau: float
    weight: Tensor | None = None  # (k,) what each counts, relative to others
    copies: Tensor | None = None  # (k,) how many rows each stands for; None: one

    def __call__(self, x: Tensor) -> Tensor:
        """Reconstructions of rows of shape (n, d)."""
        p, half_square = self.prototypes, 0.5 * x.square().sum(-1, keepdim=True)
        # -|x - p|^2 / 2 but for a term that all j share
        near = torch.addmm(p.square().sum(-1).mul_(-0.5), x, p.T)
        logits = near / self.tau**2
        if self.weight is not None:
            logits += self.weight.log()
        edge = half_square - _EXACT * (self.tau**2 + half_square)
        itself = near.amax(-1) >= edge.squeeze(-1)
        if itself.any():
            logits[itself] = self._left_out(logits[itself], near[itself] >= edge[itself])
        return torch.softmax(logits, -1) @ p

    def _left_out(self, logits: Tensor, same: Tensor) -> Tensor:
        """Without one of the rows that are the same as x, if that leaves any row."""
        count = (same if self.copies is None else same * self.copies).sum(-1, keepdim=True)
        others = torch.where(same, logits + (1 - 1 / count).clamp(min=0).log(), logits)
        return torch.where(others.amax(-1, keepdim=True) > -torch.inf, others, logits)

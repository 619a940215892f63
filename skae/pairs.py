"""Losses of pairs of rows, and what is known of pairs: the terms of embeddings.

``h`` of shape (..., n, k) are codes, ``d_ij = |h_i - h_j|`` their distances of shape (..., n, n),
and ``phi_ij`` says how near, or how far, rows i and j are. All of phi is symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

Margin = float | Tensor  # or one per model, of shape (M, 1, 1)


# Code units from which on products are quicker than differences: with 256 rows, 3 times at 64
# units and 6 times at 500; with 16 they are slower.
_WIDE = 32
_COINCIDENT = 1e-14  # of |h_i|^2 + |h_j|^2: a squared distance below is rounding
_ERROR = 1e-4  # of a squared distance, up to which float32 serves: twice that of a distance
_TELLING_ROWS = 32  # whose distances from themselves show the rounding of products


def code_distances(h: Tensor) -> Tensor:
    """d_ij, in h's dtype, exact enough for codes that nearly coincide."""
    if h.shape[-1] < _WIDE:
        return torch.cdist(h, h, compute_mode="donot_use_mm_for_euclid_dist")
    squared, both = squared_distances(h)
    # 1 or 0, by arithmetic: masks of booleans take ten times as long.
    apart = (squared.detach() - _COINCIDENT * both.detach()).sign_().clamp_(min=0)
    least = torch.finfo(squared.dtype).tiny  # the root's slope stays finite
    return (squared.clamp(min=least).sqrt() * apart).to(h.dtype)


def squared_distances(x: Tensor) -> tuple[Tensor, Tensor]:
    """|x_i - x_j|^2 by products, 0 at i = j, and the |x_i|^2 + |x_j|^2 about the mean behind it.

    For float32 in float32 if no pair is so near that its digits cancel, else in float64.
    """
    if x.dtype is torch.float32 and x.shape[-2] >= _TELLING_ROWS:
        squared, both = _products(x)
        if _keeps_digits(squared.detach(), both.detach()):
            squared.diagonal(dim1=-2, dim2=-1).zero_()
            return squared, both
    squared, both = _products(x.double())
    squared.diagonal(dim1=-2, dim2=-1).zero_()
    return squared, both


def _products(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x - x.mean(-2, keepdim=True)
    s = x.square().sum(-1)
    both = s.unsqueeze(-1) + s.unsqueeze(-2)
    return torch.sub(both, _gram(x), alpha=2), both


def _gram(x: Tensor) -> Tensor:
    """x x^T, of whose four blocks one is another's transpose."""
    half = x.shape[-2] // 2
    top = x[..., :half, :] @ x.mT
    below = x[..., half:, :] @ x[..., half:, :].mT
    return torch.cat([top, torch.cat([top[..., half:].mT, below], -1)], -2)


def _keeps_digits(squared: Tensor, both: Tensor) -> bool:
    """Whether the rounding of these products, of whatever precision, is small beside them all.

    It is what they leave on the diagonal, which should be 0.
    """
    relative = squared / both
    diagonal = relative.diagonal(dim1=-2, dim2=-1)
    rounding = diagonal.abs().amax().clamp(min=torch.finfo(squared.dtype).eps)
    diagonal.fill_(torch.inf)
    return bool(rounding < _ERROR * relative.amin())


def _over(a: Tensor, d: Tensor) -> Tensor:
    """a / d, and 0 between coincident codes, whose difference has no direction."""
    apart = d.sign()
    return a * apart / (d + (1 - apart))


class PairLoss(NamedTuple):
    """L(h_i, h_j, phi_ij) as a function of d_ij, and its derivative in d_ij^2."""

    elements: Callable[[Tensor, Tensor, Margin], Tensor]  # (d, phi, margin)
    pull: Callable[[Tensor, Tensor, Margin], Tensor]  # dL / d(d^2)
    accepts: frozenset[str]  # kinds of phi


PAIR_LOSSES: dict[str, PairLoss] = {
    "laplacian": PairLoss(
        lambda d, phi, margin: phi * d.square(),
        lambda d, phi, margin: phi,
        frozenset({"similarity", "binary"}),
    ),
    "mds": PairLoss(
        lambda d, phi, margin: (d - phi).square(),
        lambda d, phi, margin: _over(d - phi, d),
        frozenset({"dissimilarity"}),
    ),
    "margin": PairLoss(
        lambda d, phi, margin: phi * d.square() + (1 - phi) * (margin - d.square()).clamp(min=0),
        lambda d, phi, margin: phi - (1 - phi) * (d.square() < margin),
        frozenset({"binary"}),
    ),
    "contrastive": PairLoss(
        lambda d, phi, margin: phi * d.square() + (1 - phi) * (margin - d).clamp(min=0).square(),
        lambda d, phi, margin: phi - (1 - phi) * _over((margin - d).clamp(min=0), d),
        frozenset({"binary"}),
    ),
}


def pair_gradient(pull: Tensor, h: Tensor) -> Tensor:
    """Gradient of a sum over ordered pairs: 4 sum_j g_ij (h_i - h_j), for symmetric g = dL/dd^2."""
    pull = 4 * pull
    return pull.sum(-1, keepdim=True) * h - pull @ h


def mean_share(n: int, weight: Tensor | None, like: Tensor) -> Tensor:
    """What each ordered pair counts in the mean, w_i w_j / n^2; a row with itself counts zero."""
    share = like.new_full((n, n), 1 / n**2)
    if weight is not None:
        share = share * weight.unsqueeze(-1) * weight.unsqueeze(-2)
    share.diagonal(dim1=-2, dim2=-1).zero_()
    return share


class Pairs:
    """What is known of all pairs of n rows.

    Parameters
    ----------
    phi : Tensor of shape (n, n)
        Symmetric affinities.

    share : Tensor of shape (..., n, n), default=None
        What each ordered pair counts in the mean; None is `mean_share`.
    """

    #: Whether batches should bring along a neighbour of every row.
    brings_neighbours = False
    share: Tensor | None = None
    phi: Any

    def __init__(self, phi: Tensor, share: Tensor | None = None):
        self.phi, self.share = phi, share

    def take(self, index: Tensor | slice) -> Pairs:
        """The pairs of these rows."""
        share = None if self.share is None else self.share[..., index, :][..., index]
        return Pairs(self.phi[index][:, index], share)


class RowPairs(Pairs):
    """Pairs whose phi is computed from the rows of X when it is asked for, a batch at a time.

    Parameters
    ----------
    source : Source
        Rows of X.

    affinity : callable
        From rows of shape (n, d) to phi of shape (n, n).
    """

    def __init__(self, source: Any, affinity: Callable[[Tensor], Tensor]):
        self.source, self.affinity = source, affinity

    @cached_property
    def phi(self) -> Tensor:
        return self.affinity(self.source.take(slice(0, self.source.n)))

    def take(self, index):
        if isinstance(index, slice):
            index = torch.arange(self.source.n, device=self.source.device)[index]
        return RowPairs(self.source.subset(index), self.affinity)


class GraphPairs(Pairs):
    """Pairs of which most have phi = 0: a symmetric matrix in compressed rows.

    Parameters
    ----------
    start : Tensor of shape (n + 1,)
        Where each row's entries start.

    column, value : Tensor
        Column and phi of every entry other than zero, none on the diagonal.
    """

    def __init__(self, start: Tensor, column: Tensor, value: Tensor):
        self.start, self.column, self.value = start, column, value
        self.n, self.degree = len(start) - 1, start.diff()

    @property
    def brings_neighbours(self) -> bool:  # type: ignore[override]
        return len(self.column) > 0

    @cached_property
    def phi(self) -> Tensor:
        phi = self.value.new_zeros(self.n, self.n)
        row = torch.arange(self.n, device=phi.device).repeat_interleave(self.degree)
        phi[row, self.column] = self.value
        return phi

    def take(self, index):
        if isinstance(index, slice):
            if index == slice(0, self.n):
                return self  # with its phi, if that is known
            index = torch.arange(self.n, device=self.start.device)[index]
        here = torch.arange(len(index), device=self.start.device)
        place = torch.full_like(self.start[1:], -1)
        place[index] = here
        degree = self.degree[index]
        before = degree.cumsum(0) - degree
        entry = (self.start[index] - before).repeat_interleave(degree)
        entry = entry + torch.arange(len(entry), device=entry.device)
        column, row = place[self.column[entry]], here.repeat_interleave(degree)
        kept = column >= 0
        count = torch.bincount(row[kept], minlength=len(index))
        start = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return GraphPairs(start, column[kept], self.value[entry[kept]])

    def accompanied(
        self, index: Tensor, weight: Tensor | None, u: Tensor
    ) -> tuple[Tensor, GraphPairs | Pairs]:
        """A neighbour of each of these b rows, picked by `u` in [0, 1), and the 2 b rows' pairs.

        Row i's deg_i neighbours are equally likely, so the pair counts deg_i in their place. Pairs
        with phi = 0 are those among the b rows. The sum over the batch is thus expected to be
        the mean over all n^2 pairs, but for a factor (1 - 1/b) / (1 - 1/n) where phi = 0.
        """
        b, here = len(index), torch.arange(len(index), device=index.device)
        degree = self.degree[index]
        drawn = (u * degree).long().minimum(degree - 1)
        entry = (self.start[index] + drawn).clamp(0, len(self.column) - 1)
        partner = torch.where(degree > 0, self.column[entry], index)
        w, w_partner = (u.new_ones(b),) * 2
        if weight is not None:
            w, w_partner = weight[..., index], weight[..., partner]
        near = self.take(index).phi
        phi, share = near.new_zeros(2 * b, 2 * b), near.new_zeros(*w.shape[:-1], 2 * b, 2 * b)
        phi[:b, :b] = near
        phi[here, b + here] = phi[b + here, here] = self.value[entry]
        share[..., :b, :b] = mean_share(b, w, near) * (near == 0)
        once = w * w_partner * degree / (2 * b * self.n)
        share[..., here, b + here] = share[..., b + here, here] = once
        return partner, Pairs(phi, share)

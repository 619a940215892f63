"""What draws of a Gaussian code say of rows: bounds on their likelihood, and codes by importance.

Scores are functions of the row alone, so that the draws are the same for all rows and at every
call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from skae.latents import kl, log_prior_ratio, means, moved, split
from skae.modules import infer
from skae.objective import Objective

ENOUGH = 64  # draws for an expectation: the mean bound is then right to tenths of a nat or better
BLOCK = 64  # draws decoded at once
_TAIL = 1e-10  # probability beyond which no draw lies


class Weighed(NamedTuple):
    """Codes drawn for rows, and log p(x, z) / q(z | x) of each."""

    z: Tensor  # (n, S, k)
    log_p: Tensor  # (n, S)  log p(x | z)
    log_w: Tensor  # (n, S)


@dataclass(frozen=True)
class GaussianModel:
    """A trained z ~ N(0, I), x ~ p(x | z), with the q(z | x) that draws are from.

    Parameters
    ----------
    encoder, decoder : torch.nn.Module
        From x to means and log variances of the code, and from the code to raw.

    objective : Objective
        That of the likelihood.
    """

    encoder: nn.Module
    decoder: nn.Module
    objective: Objective

    def sample(self, n: int, k: int, rng: Any) -> Tensor:
        """Rows from p(z) p(x | z), of shape (n, d), with k code units."""
        return self.objective.loss.draw(infer(self.decoder, self.codes(n, k, rng)), rng)  # type: ignore[attr-defined]

    def codes(self, n: int, k: int, rng: Any) -> Tensor:
        """Codes from p(z), of shape (n, k)."""
        return rng.normal((n, k))

    def weighed(self, x: Tensor, h: Tensor, n: int) -> Iterator[Weighed]:
        """n codes of every row, a bounded number at a time."""
        for epsilon in fixed_draws(n, self.units(h)).to(h).split(BLOCK):
            yield self.at(x, h, epsilon)

    def units(self, h: Tensor) -> int:
        """How many numbers a draw takes."""
        return h.shape[-1] // 2

    def at(self, x: Tensor, h: Tensor, epsilon: Tensor) -> Weighed:
        """The codes z = mu + sigma epsilon of every row."""
        h = h.unsqueeze(-2)
        z = moved(h, epsilon)
        log_p = self.log_likelihood(x, z)
        return Weighed(z, log_p, log_p + log_prior_ratio(z, *split(h)).sum(-1))

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) of several codes of every row, of shape (n, S)."""
        return -self.objective.data_loss(x.unsqueeze(-2), each(self.decoder, z))

    def evidence(self, x: Tensor, h: Tensor) -> Tensor:
        """E_q log p(x | z) - KL(q(z | x) || p(z)), the divergence in closed form."""
        parts = [drawn.log_p for drawn in self.weighed(x, h, ENOUGH)]
        return torch.cat(parts, -1).mean(-1) - kl(h).sum(-1)

    def bound(self, x: Tensor, S: int) -> Tensor:
        """log (1 / S) sum_s w_s of every row, the lowest number there is where it has no value.

        For few samples it is the mean over sets of S.
        """
        h = infer(self.encoder, x)
        if S == 1:
            value = self.evidence(x, h)
        elif S < ENOUGH:
            sets = math.ceil(ENOUGH / S)
            log_w = torch.cat([drawn.log_w for drawn in self.weighed(x, h, sets * S)], -1)
            value = torch.logsumexp(log_w.unflatten(-1, (sets, S)), -1).mean(-1) - math.log(S)
        else:
            value = torch.full_like(h[..., 0], -math.inf)
            for drawn in self.weighed(x, h, S):
                value = torch.logaddexp(value, torch.logsumexp(drawn.log_w, -1))
            value = value - math.log(S)
        lowest = torch.finfo(value.dtype).min
        return value.nan_to_num(nan=lowest, neginf=lowest)

    def mean_code(self, x: Tensor, S: int) -> Tensor:
        """The mean of p(z | x) by self-normalised weights, sum_s w_s z_s / sum_s w_s.

        That of q(z | x) where no weight has a value.
        """
        h = infer(self.encoder, x)
        nothing = torch.finfo(h.dtype).min  # rather than -inf, which less itself is NaN
        z, total = torch.zeros_like(means(h)), torch.full_like(h[..., :1], nothing)
        for drawn in self.weighed(x, h, S):
            both = torch.logaddexp(total, torch.logsumexp(drawn.log_w, -1, keepdim=True))
            share = torch.exp(drawn.log_w - both).unsqueeze(-1)
            z = z * torch.exp(total - both) + (share * drawn.z).sum(-2)
            total = both
        return torch.where(total.isfinite() & (total > nothing), z, means(h))


def each(module: nn.Module, z: Tensor) -> Tensor:
    """The module's output for several codes of every row, of shape (n, S, width)."""
    return infer(module, z.flatten(0, 1)).unflatten(0, z.shape[:2])


def fixed_draws(n: int, k: int) -> Tensor:
    """Standard normal numbers of shape (n, k), always the same ones, in float64.

    What all rows share does not average out over them. So these come from a scrambled Sobol
    sequence, in a random order, and many have the moments of their distribution. (Torch's has a
    largest k, beyond which they are random.)
    """
    generator = torch.Generator().manual_seed(0)
    if k > SobolEngine.MAXDIM:
        return torch.randn(n, k, generator=generator, dtype=torch.float64)
    u = SobolEngine(k, scramble=True, seed=0).draw(n, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    epsilon = torch.special.ndtri(u[order].clamp(_TAIL, 1 - _TAIL))
    return whitened(epsilon) if n >= ENOUGH else epsilon


def whitened(epsilon: Tensor) -> Tensor:
    """n draws with mean 0 and covariance 1, or variances of 1 where n is too small for more."""
    n, k = epsilon.shape
    epsilon = epsilon - epsilon.mean(0)
    if n < 2 * k:
        return epsilon / epsilon.square().mean(0).sqrt()
    L = torch.linalg.cholesky(epsilon.mT @ epsilon / n)
    return torch.linalg.solve_triangular(L, epsilon.mT, upper=False).mT

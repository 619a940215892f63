"""A second layer of random codes: its network, its bound, and the trained model.

Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, arXiv:1509.00519,
section 3: p(z2) = N(0, I), p(z1 | z2) and q(z2 | z1) Gaussians whose means and log variances a
network of dense layers gives, p(x | z1) and q(z1 | x) as with one layer. `z` and `h` without a
number are those of the first layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skae.bounds import SampledBound
from skae.latents import log_density, log_prior_ratio, means, moved, sample, split
from skae.modules import Parameters, infer
from skae.monte_carlo import ENOUGH, GaussianModel, Weighed, each
from skae.networks import Network


class Top(NamedTuple):
    """A pass of z1 through the second layer, of shape (..., m, width) each."""

    h: Tensor  # mean and log variance of q(z2 | z1)
    z: Tensor  # z2
    prior: Tensor  # mean and log variance of p(z1 | z2)

    def log_ratio(self, z: Tensor, h: Tensor) -> Tensor:
        """log p(z1, z2) / q(z1, z2 | x), of shape (..., m); h is of q(z1 | x)."""
        first = log_density(z, *split(self.prior)) - log_density(z, *split(h))
        return first.sum(-1) + log_prior_ratio(self.z, *split(self.h)).sum(-1)


@dataclass(frozen=True)
class TwoLayers(Network):
    """Network whose code has a code of its own.

    Parameters
    ----------
    top : Network
        From z1 to q(z2 | z1), and from z2 to p(z1 | z2).

    samples : bool, default=True
        Whether z2 is drawn. Without, it is its mean.
    """

    top: Network
    samples: bool = True

    draws = True

    @property
    def stacks(self):
        return *super().stacks, *self.top.stacks

    def initial(self, draws):
        """Starting values under which p(z1 | z2) = N(0, I), as in one layer.

        With random ones units of z1 that say little at first are given up: of six linear models
        of two factors, trained with one sample, three ended below what one factor reaches.
        """
        last = self.top.decoder.layers[-1]  # type: ignore[union-attr]
        values = super().initial(draws)
        return values | {name: torch.zeros_like(values[name]) for name in (last.weight, last.bias)}

    def decoded(self, parameters, z, drop=None, rng=None):
        """The decoder's outputs, and what `Top` holds beside them."""
        raw = self.decoder.forward(parameters, z, drop)
        h2 = self.top.encoder.forward(parameters, z, drop)
        z2 = sample(h2, rng) if self.samples else means(h2)
        prior = self.top.decoder.forward(parameters, z2, drop)
        return torch.cat([raw, h2, z2, prior], -1)

    def top_means(self, parameters: Parameters, x: Tensor, epsilon: Tensor) -> Tensor:
        """E[z2 | x] of every row, of shape (n, k2), by these draws of z1."""
        h = self.encoder.forward(parameters, x)
        total: Any = 0.0
        for one in epsilon.to(h):
            total = total + means(self.top.encoder.forward(parameters, moved(h, one)))
        return total / len(epsilon)


@dataclass(frozen=True, kw_only=True)
class TwoLayerBound(SampledBound):
    """The bound of two layers of codes, of which every z1 has one z2.

    The doubly reparameterised gradient is that of q(z1 | x): the weights act on all paths through
    z1, those by way of z2 included. q(z2 | z1) has the plain one, which is as unbiased.

    Parameters
    ----------
    n_top_components : int, default=1
        Number of units of z2.
    """

    n_top_components: int = 1

    def raw_width(self, d, k):
        return self.output_width(d) + 3 * self.n_top_components + 2 * k

    def _split(self, raw: Tensor, d: int, k: int) -> tuple[Tensor, Top]:
        """The decoder's outputs, and the second layer's."""
        k2 = self.n_top_components
        first, *top = raw.split([self.output_width(d), 2 * k2, k2, 2 * k], -1)
        return first, Top(*top)

    def _elements(self, out):
        raw, _ = self._split(self._of_rows(out.raw), out.x.shape[-1], out.z.shape[-1])
        return self.loss.elements(out.x.unsqueeze(-2), raw)

    def _log_ratio(self, out, h):
        _, top = self._split(self._of_rows(out.raw), out.x.shape[-1], out.z.shape[-1])
        return top.log_ratio(self._of_rows(out.z), h.unsqueeze(-2))


@dataclass(frozen=True)
class TwoLayerModel(GaussianModel):
    """A trained model of two layers of codes.

    Parameters
    ----------
    top_encoder, top_decoder : torch.nn.Module
        From z1 to means and log variances of q(z2 | z1), and from z2 to those of p(z1 | z2).
    """

    top_encoder: nn.Module
    top_decoder: nn.Module

    @property
    def n_top_components(self) -> int:
        return self.objective.n_top_components  # type: ignore[attr-defined]

    def codes(self, n, k, rng):
        return sample(infer(self.top_decoder, rng.normal((n, self.n_top_components))), rng)

    def units(self, h):
        return super().units(h) + self.n_top_components

    def at(self, x, h, epsilon):
        first, second = epsilon.split([super().units(h), self.n_top_components], -1)
        h = h.unsqueeze(-2)
        z = moved(h, first)
        h2 = each(self.top_encoder, z)
        z2 = moved(h2, second)
        log_p = self.log_likelihood(x, z)
        ratio = Top(h2, z2, each(self.top_decoder, z2)).log_ratio(z, h)
        return Weighed(z, log_p, log_p + ratio)

    def evidence(self, x, h):
        """E_q log w: the divergence of both layers has no closed form."""
        return torch.cat([drawn.log_w for drawn in self.weighed(x, h, ENOUGH)], -1).mean(-1)

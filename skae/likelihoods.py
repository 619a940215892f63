"""Likelihoods of x given the decoder's output: losses in nats, summed over features.

Each is ``-log p(x | raw)`` of a row, constants included, so that values compare across models of
the same data. A scale that is learned is no field while it is: the loss then leaves out its part,
and the objective that learns it puts it back (`skae.bounds`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae.losses import BinaryCrossEntropy, Loss
from skae.modules import as_index

_LEAST_SHARE = 1e-4  # of a category, for its starting logit
# Kernels take these more quickly than floats; one without axes leaves others their dtype.
_HALF = torch.tensor(0.5, dtype=torch.float32, device="cpu")
_TWO_PI = torch.tensor(2 * math.pi, dtype=torch.float64, device="cpu")


class Likelihood(Loss):
    """-log p(x | raw), the sum over features of its elements."""

    own_link_only = True
    learns = False  # whether a scale is learned, which is then left out of the elements

    def share(self, d: int) -> float:
        """What an element counts in its row's loss: 1."""
        return 1.0

    def draw(self, raw: Tensor, rng: Any) -> Tensor:
        """Data drawn from p(x | raw), of shape (n, d)."""
        raise NotImplementedError

    # Of a scale for every feature, of shape (..., d), which is 1 where there is none:

    def normaliser(self, scale: Tensor) -> Tensor:
        """What the scales add to the elements."""
        return torch.zeros_like(scale)

    def known_scale(self, start: Tensor) -> Tensor:
        """The scale that is given, or where it starts if it is learned."""
        return start

    def start_scale(self, variance: Tensor, shared: bool) -> Tensor:
        """The scale of features that are predicted with this variance, where it is not zero."""
        return torch.ones_like(variance)

    def estimate(self, energy: Tensor, shared: bool) -> Tensor:
        """The most likely scale for this mean of the elements over rows."""
        return torch.ones_like(energy)

    def with_scale(self, scale: Tensor, shared: bool) -> Likelihood:
        """The likelihood with what was learned in its fields."""
        return self

    def variance(self, d: int) -> Any:
        """Variance of x given the code: one number or (d,); None where it depends on the code."""
        return None


@dataclass(frozen=True)
class Bernoulli(Likelihood, BinaryCrossEntropy):
    """-x log p - (1 - x) log(1 - p), p = 1 / (1 + exp(-raw)); needs x in [0, 1].

    A density only for x of 0 and 1. In between it is a cross-entropy.
    """

    def draw(self, raw, rng):
        return (rng.uniform(raw) < torch.sigmoid(raw)).to(raw.dtype)


@dataclass(frozen=True)
class Poisson(Likelihood):
    """mu - x log mu + log x!, mu = exp(raw); needs x >= 0."""

    link = "exp"
    domain = (0.0, float("inf"))

    def elements(self, x, raw):
        return torch.exp(raw) - x * raw + torch.lgamma(x + 1)

    def gradient(self, x, raw):
        return torch.exp(raw).sub_(x)

    def draw(self, raw, rng):
        return torch.poisson(torch.exp(raw), generator=rng.generators[0])


class LocationScale(Likelihood):
    """E(x^ - x) / s + log Z(s): an energy of the residual over a scale, and what normalises it.

    `scale` is one number, one for each feature (a tuple, or a tensor of shape (..., 1, d) for
    stacked models), or None while it is learned: the elements are then the energy alone.
    """

    link = "identity"
    scale: Any

    def energy(self, e: Tensor) -> Tensor:
        """Of a residual, elementwise."""
        raise NotImplementedError

    def slope(self, e: Tensor) -> Tensor:
        """Derivative of `energy`."""
        raise NotImplementedError

    @property
    def learns(self) -> bool:  # type: ignore[override]
        return self.scale is None

    def elements(self, x, raw):
        energy = self.energy(raw - x)
        if self.learns:
            return energy
        scale, normaliser = self._known(raw)
        return energy.div_(scale).add_(normaliser)

    def gradient(self, x, raw):
        slope = self.slope(raw - x)
        return slope if self.learns else slope.div_(self._scale(raw))

    def known_scale(self, start):
        if self.learns:
            return start
        return torch.as_tensor(self.scale, dtype=start.dtype).expand_as(start)

    def with_scale(self, scale, shared):
        if scale.ndim > 1:
            return type(self)(scale.unsqueeze(-2))  # type: ignore[call-arg]
        return type(self)(float(scale[0]) if shared else tuple(scale.tolist()))  # type: ignore[call-arg]

    @property
    def _usual_scale(self) -> float:
        return float(torch.as_tensor(self.scale, dtype=torch.float64).mean())

    def _scale(self, like: Tensor) -> Tensor:
        """Of shape (d,) or () or that of a stack, as `like` is."""
        return self._known(like)[0]

    def _known(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A scale that is given, and its normaliser."""
        if isinstance(self.scale, Tensor):
            scale = self.scale.to(like)
            return scale, self.normaliser(scale)
        return _constants(self, like.dtype, like.device)


@dataclass(frozen=True)
class Gaussian(LocationScale):
    """(x^ - x)^2 / (2 s) + log(2 pi s) / 2.

    Parameters
    ----------
    scale : float or tuple of float, default=1.0
        s, the variance of x given the code, in squared units of X; None where it is learned.
    """

    scale: Any = 1.0

    def energy(self, e):
        return _HALF * e.square()

    def slope(self, e):
        return e

    def normaliser(self, scale):
        return _HALF * torch.log(_TWO_PI * scale)

    def start_scale(self, variance, shared):
        return _usual(variance, shared)

    def estimate(self, energy, shared):
        return _pooled(energy + energy, shared)

    def variance(self, d):
        return self.scale

    def unit(self, s):
        return 1.0 if self.learns else s * s / self._usual_scale

    def accumulate(self, x, raw, scale, weight, total):
        e = raw.sub_(x)
        if self.learns:
            total.addcmul_(e, e if weight is None else e * weight, value=0.5)
        else:
            s, normaliser = self._known(raw)
            if weight is None:
                total.addcdiv_(e.square(), s, value=0.5).add_(normaliser)
            else:
                total.add_(e.square().div_(s + s).add_(normaliser).mul_(weight))
            scale = scale / s
        raw.mul_(scale)

    def draw(self, raw, rng):
        return raw + self._scale(raw).sqrt() * rng.normal(raw)


@dataclass(frozen=True)
class Laplace(LocationScale):
    """|x^ - x| / s + log(2 s); its gradient at zero is zero.

    Parameters
    ----------
    scale : float or tuple of float, default=1.0
        s, in the units of X: the variance of x given the code is 2 s^2. None where it is learned.
    """

    scale: Any = 1.0

    def energy(self, e):
        return e.abs()

    def slope(self, e):
        return e.sign()

    def normaliser(self, scale):
        return torch.log(2 * scale)

    def start_scale(self, variance, shared):
        return (0.5 * _usual(variance, shared)).sqrt()

    def estimate(self, energy, shared):
        return _pooled(energy, shared)

    def variance(self, d):
        s = self.scale
        if s is None:
            return None
        return tuple(2 * each**2 for each in s) if isinstance(s, tuple) else 2 * s**2

    def unit(self, s):
        return 1.0 if self.learns else s / self._usual_scale

    def draw(self, raw, rng):  # the difference of two exponential variables
        u, v = rng.uniform(raw), rng.uniform(raw)
        return raw + self._scale(raw) * (torch.log1p(-u) - torch.log1p(-v))


@lru_cache(maxsize=64)
def _constants(
    likelihood: LocationScale, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Its scale and normaliser, which every step would make anew."""
    with torch.inference_mode(False), torch.no_grad():  # autograd, too, may meet them
        scale = torch.as_tensor(likelihood.scale, dtype=dtype, device=device)
        return scale, likelihood.normaliser(scale)


def _pooled(scale: Tensor, shared: bool) -> Tensor:
    """One scale for each feature, or their mean for all."""
    return scale.mean(-1, keepdim=True).expand_as(scale) if shared else scale


def _usual(variance: Tensor, shared: bool) -> Tensor:
    """Variances, or their mean for all; the mean, and 1 after that, instead of zero."""
    mean = variance.mean()
    mean = mean if mean > 0 else torch.ones_like(mean)
    return mean.expand_as(variance) if shared else variance.where(variance > 0, mean)


class _Coupled(Likelihood):
    """Elements of a cell depend on the raw of others, so that their weights do not factor out."""

    def gradient(self, x, raw):
        return self.scaled_gradient(x, raw, 1.0)

    def accumulate(self, x, raw, scale, weight, total):
        elements = self.elements(x, raw)
        total.add_(elements if weight is None else elements * weight)
        raw.copy_(self.scaled_gradient(x, raw, scale))


@dataclass(frozen=True)
class Categorical(_Coupled):
    """-log p_c of the category c of a row, p = softmax(raw), with x in one-hot form."""

    link = "softmax"
    domain = (0.0, 1.0)

    def elements(self, x, raw):
        return -x * torch.log_softmax(raw, -1)

    def scaled_gradient(self, x, raw, scale):
        counted = x * scale
        return torch.softmax(raw, -1) * counted.sum(-1, keepdim=True) - counted

    def predict(self, raw):
        return torch.softmax(raw, -1)

    def start(self, mean):
        return mean.clamp(min=_LEAST_SHARE).log()

    def draw(self, raw, rng):
        gumbel = -torch.log(-torch.log(rng.uniform(raw).clamp_(min=torch.finfo(raw.dtype).tiny)))
        chosen = (raw + gumbel).argmax(-1, keepdim=True)
        return torch.zeros_like(raw).scatter_(-1, chosen, 1.0)


class Part(NamedTuple):
    """Columns of x with one likelihood."""

    columns: slice | Tensor
    likelihood: Likelihood

    def of(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Their columns of these tensors."""
        return tuple(each[..., self.columns] for each in given)


@dataclass(frozen=True)
class Mixed(_Coupled):
    """One-hot blocks of columns that are a category each, and other columns.

    Parameters
    ----------
    numeric : Likelihood
        Of the columns that are in no group.

    groups : tuple of tuple of int
        Columns of each category, disjoint.
    """

    numeric: Likelihood
    groups: tuple[tuple[int, ...], ...]
    link = "mixed"

    @property
    def learns(self) -> bool:  # type: ignore[override]
        return self.numeric.learns

    def parts(self, d: int) -> tuple[Part, ...]:
        """The columns of d features by their likelihoods: groups first, then the others."""
        groups, others, _ = _layout(self.groups, d)
        blocks = tuple(Part(columns, Categorical()) for columns in groups)
        return blocks if others is None else (*blocks, Part(others, self.numeric))

    def _joined(self, d: int, of: Callable[[Part], Tensor]) -> Tensor:
        """What `of` gives for the columns of each part, in the order of x."""
        pieces = [of(part) for part in self.parts(d)]
        order = _layout(self.groups, d)[2]
        return torch.cat(pieces, -1).index_select(-1, order.to(pieces[0].device))

    def elements(self, x, raw):
        d = raw.shape[-1]
        return self._joined(d, lambda part: part.likelihood.elements(*part.of(x, raw)))

    def scaled_gradient(self, x, raw, scale):
        scale = torch.as_tensor(scale, dtype=raw.dtype, device=raw.device)
        scale = scale.expand(*scale.shape[:-1], raw.shape[-1])
        return self._joined(
            raw.shape[-1], lambda part: part.likelihood.scaled_gradient(*part.of(x, raw, scale))
        )

    def predict(self, raw):
        d = raw.shape[-1]
        return self._joined(d, lambda part: part.likelihood.predict(raw[..., part.columns]))

    def start(self, mean):
        return self._joined(len(mean), lambda part: part.likelihood.start(mean[part.columns]))

    def draw(self, raw, rng):
        d = raw.shape[-1]
        return self._joined(d, lambda part: part.likelihood.draw(raw[..., part.columns], rng))

    def normaliser(self, scale):
        d = scale.shape[-1]
        return self._joined(d, lambda part: part.likelihood.normaliser(scale[..., part.columns]))

    def known_scale(self, start):
        return self._joined(
            len(start), lambda part: part.likelihood.known_scale(start[part.columns])
        )

    def start_scale(self, variance, shared):
        return self._joined(
            len(variance),
            lambda part: part.likelihood.start_scale(variance[part.columns], shared),
        )

    def estimate(self, energy, shared):
        return self._joined(
            energy.shape[-1],
            lambda part: part.likelihood.estimate(energy[..., part.columns], shared),
        )

    def with_scale(self, scale, shared):
        _, others, _ = _layout(self.groups, scale.shape[-1])
        if others is None:
            return self
        numeric = self.numeric.with_scale(scale[..., others], shared)
        return dataclasses.replace(self, numeric=numeric)

    def variance(self, d):
        found, (_, others, _) = self.numeric.variance(d), _layout(self.groups, d)
        each = torch.full((d,), math.nan, dtype=torch.float64)
        if others is None and isinstance(self.numeric, LocationScale):
            return tuple(each.tolist())
        if not isinstance(found, tuple):
            return found
        each[others] = torch.tensor(found, dtype=each.dtype)
        return tuple(each.tolist())


@lru_cache(maxsize=64)
def _layout(
    groups: tuple[tuple[int, ...], ...], d: int
) -> tuple[tuple[slice | Tensor, ...], slice | Tensor | None, Tensor]:
    """The columns of each group, the others, and where each of the d columns lies behind them."""
    grouped = [column for group in groups for column in group]
    others = sorted(set(range(d)) - set(grouped))
    with torch.inference_mode(False):  # where autograd, too, may meet them
        order = torch.tensor([*grouped, *others]).argsort()
        indices = tuple(as_index(group) for group in groups)
        return indices, as_index(others) if others else None, order

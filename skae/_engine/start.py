"""What training starts from: the data's moments, and parameters placed by them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skae._engine.batches import Source
from skae.losses import Loss
from skae.modules import Wrapped
from skae.networks import Dense, Network, Parallel
from skae.objective import Objective

# Data whose mean is within this fraction of its scale count as centred already.
_CENTRED = 1e-6

# Stands for a sum of weights that is zero, and is lost beside one that is not.
_TINY = 1e-30
_NOTHING = 1e-24


class Moments(NamedTuple):
    """Of every feature, over the rows: weighted mean, lowest and highest value; and one scale."""

    mean: Tensor  # (d,)  float64
    low: Tensor
    high: Tensor
    scale: float  # root of the mean variance of a feature; 1 where nothing varies
    variance: Tensor | None = None  # (d,)  float64; 0 where a feature varies by rounding alone

    def take(self, columns: Sequence[int]) -> Moments:
        """The moments of these features."""
        index = torch.tensor(columns, device=self.mean.device)
        variance = self.variance[index]  # type: ignore[index]
        scale = math.sqrt(float(variance.mean())) or 1.0
        return Moments(self.mean[index], self.low[index], self.high[index], scale, variance)


def moments(
    source: Source, weight: Tensor | None = None, bounds: bool = True, skip_nan: bool = False
) -> Moments:
    """One pass over the data: sums of a chunk in its dtype, joined in float64 (Chan et al.).

    Without `bounds` the lowest and highest values are left at their infinities, in half the time.
    With `skip_nan`, NaN are no values; a feature without any (of positive weight) has mean NaN.
    """
    total: float | Tensor = 0.0  # of the weights; one for each feature where some miss values
    mean = torch.zeros(source.d, dtype=torch.float64, device=source.device)
    squares, low, high = torch.zeros_like(mean), mean + math.inf, mean - math.inf
    for part, chunk in source.chunks():
        x = chunk.reshape(-1, source.d)
        w = None if weight is None else weight[..., part].reshape(-1, 1)
        lows = highs = x
        if skip_nan and x.sum().isnan():
            gone = x.isnan()
            lows, highs = x.masked_fill(gone, math.inf), x.masked_fill(gone, -math.inf)
            x, seen = x.masked_fill(gone, 0.0), (~gone).to(x.dtype)
            w = seen if w is None else seen * w
        if bounds:  # two passes, yet three times as quick as torch.aminmax
            low, high = torch.minimum(low, lows.amin(0)), torch.maximum(high, highs.amax(0))
        n = float(len(x)) if w is None else w.sum(0).clamp(min=_TINY)
        m = x.mean(0) if w is None else (x * w).sum(0) / n
        e = x - m
        n = n.double() if isinstance(n, Tensor) else n
        rest = (e.sum(0) if w is None else (e * w).sum(0)).double() / n  # m is rounded
        e = e.square_() if w is None else e.square_().mul_(w)
        shift = m.double() + rest - mean
        squares = squares + e.sum(0).double() - n * rest**2 + shift**2 * (total * n / (total + n))
        mean = mean + shift * (n / (total + n))
        total = total + n
    total = torch.as_tensor(total, dtype=mean.dtype, device=mean.device).expand_as(mean)
    known = total > _NOTHING
    variance = squares / total
    rounding = (8 * torch.finfo(source.dtype).eps * mean).square()
    varies = variance[known].mean() > rounding[known].mean()
    scale = math.sqrt(float(variance[known].mean())) if varies else 1.0
    variance = variance.where(known & (variance > rounding), 0.0)
    return Moments(torch.where(known, mean, math.nan), low, high, scale, variance)


def place(
    network: Network,
    loss: Loss,
    m: Moments,
    dtype: torch.dtype,
    device,
    target: Moments | None = None,
) -> Network:
    """The same network in the data's units: see `Dense` for center and gains.

    With them, training on X and on c + s X is the same computation, so that neither offset nor
    scale costs anything. `target` are the moments of what is reconstructed, where it is not X.
    """
    encoder, decoder = network.stacks
    tied = isinstance(decoder, Dense) and decoder.tied_to is not None
    if isinstance(encoder, Dense):
        centred = float(m.mean.abs().max()) <= _CENTRED * m.scale
        center = None if centred else m.mean.to(dtype=dtype, device=device)
        gain = 1.0 if tied else 1.0 / _unit(m)
        encoder = dataclasses.replace(encoder, center=center, gain_in=gain)
    if tied:
        decoder = dataclasses.replace(decoder, tied_to=encoder)  # type: ignore[arg-type]
    elif isinstance(decoder, Dense) and loss.link in ("identity", "relu"):
        decoder = dataclasses.replace(decoder, gain_out=_unit(target or m))
    return Network(encoder, decoder)


def _unit(m: Moments) -> float:
    """The scale of the data; 1 where they are standardised already."""
    return 1.0 if abs(m.scale - 1) < _CENTRED else m.scale


def starting_values(
    network: Network, objective: Objective, m: Moments, k: int, draws
) -> dict[str, Tensor]:
    """Random weights, output biases at the features' means, the objective's own parameters."""
    values = network.initial(draws)
    bias = objective.loss.start(m.mean)
    if not isinstance(network.decoder, Wrapped) and len(bias) == network.decoder.widths[-1]:
        for part, block in _outputs(network.decoder):
            last = part.layers[-1]
            values[last.bias] = bias[block] / last.bias_gain
    own = objective.parameters(len(m.mean), k)
    return values | {f"objective.{name}": value for name, value in own.items()}


def _outputs(decoder: Dense | Parallel) -> list[tuple[Dense, slice]]:
    """The dense stacks of a decoder, and which of its outputs each gives."""
    if isinstance(decoder, Dense):
        return [(decoder, slice(None))]
    return list(zip(decoder.parts, decoder.blocks, strict=True))


def fresh_values(stack: Dense, draws) -> dict[str, Tensor]:
    """Weights and biases of a stack that is to predict labels, as scikit-learn's MLP draws them.

    U(-r, r) with r^2 = 6 / (fan_in + fan_out), or 2 where the activation is logistic (Glorot and
    Bengio, 2010).
    """
    values = {}
    for layer in stack.layers:
        factor = 2.0 if layer.activation == "logistic" else 6.0
        r = math.sqrt(factor / sum(layer.shape))
        for name, shape in ((layer.weight, layer.shape), (layer.bias, layer.shape[:1])):
            values[name] = draws.uniform(shape).mul_(2 * r).sub_(r)
    return values

"""Bounds on the log-likelihood of models with a Gaussian code, as objectives in nats.

p(z) = N(0, I), q(z | x) = N(mu, diag(sigma^2)) with mu and log sigma^2 from the encoder, and
p(x | z) the likelihood that is the objective's loss.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skae.latents import (
    joined,
    kl,
    kl_and_gradient,
    log_prior_ratio,
    means,
    sample,
    sample_gradient,
    samples,
    split,
)
from skae.likelihoods import Likelihood
from skae.objective import Features, Forward, Objective, is_positive

_RATE = 0.05  # of a batch in a learned scale: about the last twenty count
_NOTHING = 1e-30  # for a sum of weights that is zero
_LEAST = 1e-6  # of the data's own, for a learned scale, so that no density is infinite


@dataclass(frozen=True, kw_only=True)
class GaussianCode(Objective):
    """A code with mean and log variance, and a likelihood whose scale may be learned.

    The most likely scale for what the decoder gives is the mean energy of its residuals: a running
    mean of it over batches is the objective's state, and no gradient is needed. (Adam, which
    moves everything by about its rate, takes thousands of steps to a scale a hundredth of the
    data's.)

    Parameters
    ----------
    samples : bool, default=True
        Whether codes are drawn in training. Without, the decoder sees their means.

    shared : bool, default=True
        Whether all features have one learned scale, rather than each its own.

    start : tuple of float, default=None
        The features' scales before training; None is 1.
    """

    samples: bool = True
    shared: bool = True
    start: tuple[float, ...] | None = None

    drops_code = False

    def code_width(self, k):
        return 2 * k

    def latent(self, h, rng):
        return sample(h, rng) if self.samples else means(h).clone()

    def latent_gradient(self, d_z, h, z):
        return sample_gradient(d_z, h, z)

    def encode(self, h):
        return means(h)

    @property
    def noise(self):
        return "samples" if self.samples else super().noise

    # ---- the scale

    @property
    def learns(self) -> bool:
        """Whether a scale of the likelihood is learned."""
        return isinstance(self.loss, Likelihood) and self.loss.learns

    def informed(self, features: Features) -> Objective:
        if not self.learns or features.variance is None:
            return self
        start = self.loss.start_scale(features.variance, self.shared)  # type: ignore[attr-defined]
        return dataclasses.replace(self, start=tuple(start.tolist()))

    def init_state(self, d, k):
        if not self.learns:
            return {}
        start = (1.0,) * d if self.start is None else self.start
        scale = torch.tensor(start, dtype=torch.float64)
        return {"scale": scale, "least_scale": _LEAST * scale}

    def update(self, state, out):
        if not self.learns:
            return dict(state)
        energy, share = self._energies(out)
        rate: Any = _RATE
        if share is None:
            mean = energy.mean(-2)
        else:  # which may be of no rows
            mean = (share.unsqueeze(-2) @ energy).squeeze(-2)
            rate = _RATE * share.sum(-1, keepdim=True).to(state["scale"]).expand(mean.shape)
        found = self.loss.estimate(mean.to(state["scale"]), self.shared)  # type: ignore[attr-defined]
        scale = torch.lerp(state["scale"], found, rate)
        return {**state, "scale": torch.maximum(scale, state["least_scale"])}

    def _energies(self, out: Forward) -> tuple[Tensor, Tensor | None]:
        """The elements of every reconstruction, (..., m, d), and what each of them counts."""
        return self.loss.elements(out.x, out.raw), self._row_share(out)

    def _row_share(self, out: Forward) -> Tensor | None:
        """What every row counts of a batch, (..., n), together 1; None for all alike."""
        w = out.rows.weight
        return None if w is None else w / w.sum(-1, keepdim=True).clamp(min=_NOTHING)

    def cell_weight(self, out):
        cells = super().cell_weight(out)
        if not self.learns:
            return cells
        precision = self._scale(out).reciprocal()
        return precision if cells is None else cells * precision

    def _scale(self, out: Forward) -> Tensor:
        """Of shape (..., 1, d)."""
        return out.once("scale", lambda: out.state["scale"].to(out.x).unsqueeze(-2))

    def _normaliser(self, out: Forward) -> Tensor | None:
        """What the learned scales add to every row's loss, of shape (..., 1)."""
        if not self.learns:
            return None
        return self.loss.normaliser(self._scale(out)).sum(-1)  # type: ignore[attr-defined]

    def origin(self, d):
        if not isinstance(self.loss, Likelihood):
            return 0.0
        start = (1.0,) * d if self.start is None else self.start
        scale = self.loss.known_scale(torch.tensor(start, dtype=torch.float64))
        return float(self.loss.normaliser(scale).sum())

    def shares_state(self, other):
        return isinstance(other, GaussianCode)

    def learned(self, state):
        if not self.learns or "scale" not in state:
            return self
        loss = self.loss.with_scale(state["scale"], self.shared)  # type: ignore[attr-defined]
        return dataclasses.replace(self, loss=loss)


@dataclass(frozen=True, kw_only=True)
class Evidence(GaussianCode):
    """The negative evidence lower bound, -E_q log p(x | z) + beta KL(q(z | x) || p(z)).

    The expectation is that of one draw; the divergence has its closed form.

    Parameters
    ----------
    beta : float, default=1.0
        Weight of the divergence.

    warm_up : float, default=0.0
        Fraction of the schedule over which the weight rises linearly from 0 to beta.

    free_bits : float, default=0.0
        Nats of the divergence that a unit has for nothing, on the mean of a batch.
    """

    beta: Any = 1.0
    warm_up: Any = 0.0
    free_bits: Any = 0.0

    @property
    def penalises_batch(self) -> bool:  # type: ignore[override]
        return is_positive(self.free_bits) and is_positive(self.beta)

    @property
    def mixes_rows(self) -> bool:  # type: ignore[override]
        return self.penalises_batch

    @property
    def settled(self) -> float:  # type: ignore[override]
        w = self.warm_up
        return float(w.max()) if isinstance(w, Tensor) else w

    def weight_at(self, progress: float) -> Any:
        """The divergence's weight when this fraction of the schedule has passed."""
        w = self.warm_up
        if isinstance(w, Tensor):  # 0 / 0 is no warm-up
            return self.beta * (progress / w).nan_to_num(1.0).clamp(max=1.0)
        return self.beta * min(1.0, progress / w) if w > 0 else self.beta

    def penalty(self, out, net):
        return self._terms(out, kl(out.h))[0] if is_positive(self.beta) else self._constant(out)

    def penalty_and_gradient(self, out, net, share):
        if not is_positive(self.beta):
            return self._constant(out), None, {}
        divergence, slope = kl_and_gradient(out.h)
        value, counts = self._terms(out, divergence)
        counts = times(share, counts)
        if counts.shape[-1] > 1:  # of every unit
            counts = joined(counts, counts)
        return value, slope.mul_(counts), {}

    def _constant(self, out: Forward) -> Tensor | None:
        """What is left without the divergence, of shape (..., n)."""
        normaliser = self._normaliser(out)
        return None if normaliser is None else normaliser.expand(out.h.shape[:-1])

    def _terms(self, out: Forward, divergence: Tensor) -> tuple[Tensor, Any]:
        """Of the divergence of every row and unit: the penalty, and what each counts in it."""
        weight, normaliser, counts = self.weight_at(out.progress), self._normaliser(out), 1.0
        if self.penalises_batch:
            divergence, counts = self._freed(out, divergence)
        value = times(divergence, weight).sum(-1)
        return value if normaliser is None else value + normaliser, weight * counts

    def _freed(self, out: Forward, divergence: Tensor) -> tuple[Tensor, Any]:
        """The mean over the batch beyond what is free, (..., 1, k), and what a row counts."""
        n, w = out.h.shape[-2], out.rows.weight
        rows = (divergence.new_ones(n) if w is None else w).unsqueeze(-1) / n
        mean = (rows * divergence).sum(-2, keepdim=True)
        free = torch.as_tensor(self.free_bits, dtype=mean.dtype, device=mean.device)
        return torch.maximum(mean, free), rows * (mean > free)


@dataclass(frozen=True, kw_only=True)
class SampledBound(GaussianCode, ABC):
    """The negative importance-weighted bound, -log (1 / S) sum_s p(x, z_s) / q(z_s | x).

    `latent` gives S rows for each one of h, next to each other. What the model has beside the
    likelihood is `_log_ratio`.

    Parameters
    ----------
    n_importance_samples : int, default=5
        S, the number of codes that are drawn for each row.

    gradient : {"plain", "doubly_reparameterized"}, default="plain"
        Estimator of the encoder's gradient.
    """

    n_importance_samples: int = 5
    gradient: str = "plain"

    def latent(self, h, rng):
        S = self.n_importance_samples
        return samples(h, S, rng) if self.samples else means(h).repeat_interleave(S, -2)

    def latent_gradient(self, d_z, h, z):
        d_z, z = self._of_rows(d_z), self._of_rows(z)
        return sample_gradient(d_z, h.unsqueeze(-2), z).sum(-2)

    def _of_rows(self, part: Tensor) -> Tensor:
        """What `latent` gave, by the row that it comes from: (..., n, S, width)."""
        return part.unflatten(-2, (-1, self.n_importance_samples))

    def __call__(self, out, net=None):
        log_w = self._log_weights(out, out.h.detach() if self._is_doubly else out.h)
        return math.log(self.n_importance_samples) - torch.logsumexp(log_w, -1)

    def path_weight(self, out):
        if not self._is_doubly:
            return None
        return self._importance(out).flatten(-2).unsqueeze(-1)

    @property
    def _is_doubly(self) -> bool:
        return self.gradient == "doubly_reparameterized"

    def _importance(self, out: Forward) -> Tensor:
        """The normalised weights of the samples, of shape (..., n, S)."""
        return torch.softmax(self._log_weights(out, out.h), -1)

    def _log_weights(self, out: Forward, h: Tensor) -> Tensor:
        """log p(x, z) / q(z | x) of every sample, of shape (..., n, S)."""
        elements = self._elements(out)
        cells, normaliser = self.cell_weight(out), self._normaliser(out)
        if cells is not None:
            elements = elements * cells.unsqueeze(-2)
        value = elements.sum(-1) * self.loss.share(out.x.shape[-1])
        value = value if normaliser is None else value + normaliser.unsqueeze(-1)
        return self._log_ratio(out, h) - value

    def _elements(self, out: Forward) -> Tensor:
        """The likelihood's elements for every sample, of shape (..., n, S, d)."""
        return out.once(
            "elements", lambda: self.loss.elements(out.x.unsqueeze(-2), self._of_rows(out.raw))
        )

    @abstractmethod
    def _log_ratio(self, out: Forward, h: Tensor) -> Tensor:
        """log p(z) / q(z | x) of every sample, of shape (..., n, S)."""

    def _energies(self, out):
        rows, share = self._row_share(out), self._importance(out)
        share = share / share.shape[-2] if rows is None else share * rows.unsqueeze(-1)
        return self._elements(out).flatten(-3, -2), share.flatten(-2)


@dataclass(frozen=True, kw_only=True)
class ImportanceWeighted(SampledBound):
    """The bound of one layer of codes, p(z) = N(0, I)."""

    def _log_ratio(self, out, h):
        mean, log_var = (part.unsqueeze(-2) for part in split(h))
        return log_prior_ratio(self._of_rows(out.z), mean, log_var).sum(-1)

    def value_and_gradient(self, out, net, share):
        log_w = self._log_weights(out, out.h)
        total = torch.logsumexp(log_w, -1, keepdim=True)
        value = math.log(self.n_importance_samples) - total.squeeze(-1)
        counts = torch.exp(log_w - total).mul_(share).unsqueeze(-1)  # (..., n, S, 1)
        x, raw, z = out.x.unsqueeze(-2), self._of_rows(out.raw), self._of_rows(out.z)
        mean, log_var = (part.unsqueeze(-2) for part in split(out.h))
        cells, scaled = self.cell_weight(out), counts * self.loss.share(out.x.shape[-1])
        scaled = scaled if cells is None else scaled * cells.unsqueeze(-2)
        d_raw = self.loss.scaled_gradient(x, raw, scaled)
        precision = torch.exp(-log_var)
        pull = (z - mean) * precision  # -d log q / d z, and d log q / d mu
        d = {"raw": d_raw.flatten(-3, -2), "z": (counts * (z - pull)).flatten(-3, -2)}
        if not self._is_doubly:
            d_log_var = 0.5 * (pull * (z - mean) - 1)
            d["h"] = joined(counts * pull, counts * d_log_var).sum(-2)
        return value, d, {}


def times(a: Tensor, c: Any) -> Tensor:
    """a c, which is a itself for the usual c."""
    return a if isinstance(c, float) and c == 1.0 else a * c

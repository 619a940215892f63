"""Reconstruction losses: value and gradient per element, in the space before the inverse link.

A loss compares the clean target ``x`` with ``raw``, the decoder's output before the inverse link
(the output activation), both of shape ``(..., n, d)``. Every loss is the mean over features of
its elements, so its value does not depend on the width of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from skae.activations import ACTIVATIONS

# Means are kept this far inside an open range before they are sent through its link.
_MARGIN = 1e-3


def _softplus_inverse(mean: Tensor) -> Tensor:
    """log(exp(mean) - 1), without its overflow."""
    return mean + torch.log(-torch.expm1(-mean))


INVERSE_LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda mean: mean,
    "logistic": lambda mean: torch.logit(mean.clamp(_MARGIN, 1 - _MARGIN)),
    "tanh": lambda mean: torch.atanh(mean.clamp(_MARGIN - 1, 1 - _MARGIN)),
    "relu": lambda mean: mean,
    "softplus": lambda mean: _softplus_inverse(mean.clamp(min=_MARGIN)),
    "exp": lambda mean: mean.clamp(min=_MARGIN).log(),
}


@dataclass(frozen=True)
class Loss:
    """What every loss has: elements, their gradient, and the output activation they go with.

    Subclasses give `elements` and `gradient`, elementwise in ``(x, raw)`` over any leading axes.
    """

    link: ClassVar[str]  # the output activation that turns raw into a reconstruction
    own_link_only: ClassVar[bool] = False
    domain: ClassVar[tuple[float, float]] = (-float("inf"), float("inf"))

    def elements(self, x: Tensor, raw: Tensor) -> Tensor:
        """Loss of every cell, of shape (..., n, d)."""
        raise NotImplementedError

    def gradient(self, x: Tensor, raw: Tensor) -> Tensor:
        """Derivative of `elements` with respect to `raw`, of shape (..., n, d)."""
        raise NotImplementedError

    def predict(self, raw: Tensor) -> Tensor:
        """Reconstruction x^ of shape (..., n, d) from the decoder's output."""
        return ACTIVATIONS[self.link].function(raw)

    def width(self, d: int) -> int:
        """Number of decoder outputs for d features."""
        return d

    def start(self, mean: Tensor) -> Tensor:
        """The decoder's output that predicts features with these means, where training starts."""
        return INVERSE_LINKS[self.link](mean)

    def share(self, d: int) -> float:
        """What an element counts in its row's loss: 1 / d, the mean over features."""
        return 1.0 / d

    def unit(self, s: float) -> float:
        """The factor by which the loss grows when the data are multiplied by `s`."""
        return 1.0

    def scaled_gradient(self, x: Tensor, raw: Tensor, scale: float | Tensor) -> Tensor:
        """Derivative of ``sum(scale * elements)`` with respect to `raw`, in its shape."""
        return self.gradient(x, raw).mul_(scale)

    def accumulate(
        self, x: Tensor, raw: Tensor, scale: float | Tensor, weight: Tensor | None, total: Tensor
    ) -> None:
        """Add ``weight * elements`` to `total`; overwrite `raw` with ``scale * gradient``."""
        elements = self.elements(x, raw)
        total.add_(elements if weight is None else elements * weight)
        torch.mul(self.gradient(x, raw), scale, out=raw)

    def kernels(self, x: Tensor, raw: Tensor, scale: float, total: Tensor) -> list[Callable]:
        """What `accumulate` without weights does, as calls bound to these tensors."""
        return [partial(self.accumulate, x, raw, scale, None, total)]


@dataclass(frozen=True)
class SquaredError(Loss):
    """(x^ - x)^2."""

    link = "identity"

    def elements(self, x, raw):
        return (raw - x).square_()

    def gradient(self, x, raw):
        return (raw - x).mul_(2)

    def unit(self, s):
        return s * s

    def accumulate(self, x, raw, scale, weight, total):
        raw.sub_(x)
        total.addcmul_(raw, raw if weight is None else raw * weight)
        raw.mul_(2 * scale)

    def kernels(self, x, raw, scale, total):
        factor = torch.tensor(2 * scale, dtype=raw.dtype, device=raw.device)  # quicker than a float
        return [
            partial(torch.sub, raw, x, out=raw),
            partial(total.addcmul_, raw, raw),
            partial(raw.mul_, factor),
        ]


@dataclass(frozen=True)
class AbsoluteError(Loss):
    """The loss ``|x^ - x|``; its gradient at zero is zero."""

    link = "identity"

    def elements(self, x, raw):
        return (raw - x).abs_()

    def gradient(self, x, raw):
        return (raw - x).sign_()

    def unit(self, s):
        return s


@dataclass(frozen=True)
class Huber(Loss):
    """Squared within `delta` of the target, linear beyond: ``e^2`` or ``delta (2 |e| - delta)``.

    Twice the textbook's form, so that it equals the squared error for small residuals.

    Parameters
    ----------
    delta : float, default=1.0
        Residual at which the loss turns linear, in the units of X.
    """

    delta: float = 1.0
    link = "identity"

    def elements(self, x, raw):
        e = raw - x
        inner = e.clamp(-self.delta, self.delta)
        return inner * (2 * e - inner)

    def gradient(self, x, raw):
        return (raw - x).clamp_(-self.delta, self.delta).mul_(2)

    def unit(self, s):
        return s * s


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """-x log x^ - (1 - x) log(1 - x^) with x^ = 1 / (1 + exp(-raw)); needs x in [0, 1]."""

    link = "logistic"
    own_link_only = True
    domain = (0.0, 1.0)

    def elements(self, x, raw):
        return F.softplus(raw) - x * raw

    def gradient(self, x, raw):
        return torch.sigmoid(raw).sub_(x)

    def accumulate(self, x, raw, scale, weight, total):
        if weight is None:
            total.add_(F.softplus(raw)).addcmul_(x, raw, value=-1)
        else:
            total.add_(self.elements(x, raw).mul_(weight))
        torch.sub(torch.sigmoid(raw), x, out=raw).mul_(scale)


@dataclass(frozen=True)
class Poisson(Loss):
    """Half the Poisson deviance, x^ - x log x^ + x log x - x with x^ = exp(raw); needs x >= 0."""

    link = "exp"
    own_link_only = True
    domain = (0.0, float("inf"))

    def elements(self, x, raw):
        return torch.exp(raw) - x * (raw + 1) + torch.xlogy(x, x)

    def gradient(self, x, raw):
        return torch.exp(raw).sub_(x)


@dataclass(frozen=True)
class Linked(Loss):
    """A loss of x and x^ behind an output activation that is not its own: l(x, g(raw))."""

    loss: Loss = SquaredError()
    output_activation: str = "logistic"
    own_link_only = True

    @property
    def link(self):  # type: ignore[override]
        return self.output_activation

    @property
    def domain(self):  # type: ignore[override]
        return ACTIVATIONS[self.output_activation].range

    def elements(self, x, raw):
        return self.loss.elements(x, self.predict(raw))

    def gradient(self, x, raw):
        g = ACTIVATIONS[self.output_activation]
        x_hat = g.function(raw)
        return g.backward_(self.loss.gradient(x, x_hat), x_hat, raw)

    def unit(self, s):
        return self.loss.unit(s)


LOSSES: dict[str, Loss] = {
    "squared_error": SquaredError(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "absolute_error": AbsoluteError(),
    "huber": Huber(),
    "poisson": Poisson(),
}


def resolve_loss(loss: str | Loss, output_activation: str = "auto") -> Loss:
    """The loss named `loss` behind `output_activation` ("auto": the loss's own link)."""
    name, found = (loss, LOSSES[loss]) if isinstance(loss, str) else (type(loss).__name__, loss)
    if found.link not in INVERSE_LINKS:
        raise ValueError(
            f"The link of loss {name!r} must be one of {sorted(INVERSE_LINKS)}, got {found.link!r}."
        )
    if output_activation in ("auto", found.link):
        return found
    if found.own_link_only:
        raise ValueError(
            f"loss={name!r} needs output_activation='auto' or {found.link!r}, got "
            f"{output_activation!r}. Use loss='squared_error', 'absolute_error' or 'huber' for "
            "another output activation."
        )
    return Linked(found, output_activation)

"""Losses of labels: what a network's outputs are held to where it is trained on y.

The "x" of these losses is a target: one column for each output. Values are summed over outputs, as
scikit-learn's are, so that a row's loss is its negative log-likelihood, or its hinge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skae.losses import BinaryCrossEntropy, Loss

_LEAST_SHARE = 1e-4  # of a class, for its starting logit


class _Summed(Loss):
    """A loss whose elements add up to that of a row."""

    def share(self, d: int) -> float:
        """What an element counts in its row's loss: 1."""
        return 1.0


@dataclass(frozen=True)
class SoftmaxCrossEntropy(_Summed):
    """-log p_c of the row's class c, p = softmax(raw), in nats; rows of targets add up to 1."""

    link = "softmax"

    def elements(self, x, raw):
        return -x * torch.log_softmax(raw, -1)

    def gradient(self, x, raw):
        return torch.softmax(raw, -1).sub_(x)

    def accumulate(self, x, raw, scale, weight, total):
        # For a few classes torch's softmax takes longer than its parts.
        raw.sub_(raw.amax(-1, keepdim=True))
        counted = x if weight is None else x * weight
        total.addcmul_(counted, raw, value=-1)
        mass = raw.exp_().sum(-1, keepdim=True)
        raw.div_(mass).sub_(x).mul_(scale)
        total.addcmul_(counted, mass.log_())

    def predict(self, raw):
        return torch.softmax(raw, -1)

    def start(self, mean):
        return mean.clamp(min=_LEAST_SHARE).log()


@dataclass(frozen=True)
class LogisticCrossEntropy(BinaryCrossEntropy, _Summed):
    """Binary cross-entropy of every output on its own, in nats; targets are 0 or 1."""


class _Margin(_Summed):
    """A loss of margins t f, with targets t of -1 or 1 and outputs f that have no link."""

    link = "margin"

    def predict(self, raw):
        return raw

    def start(self, mean):
        return mean


@dataclass(frozen=True)
class Hinge(_Margin):
    """max(0, 1 - t f); its gradient at the hinge is zero."""

    def elements(self, x, raw):
        return (1 - x * raw).clamp_(min=0)

    def gradient(self, x, raw):
        return -x * (x * raw < 1)


@dataclass(frozen=True)
class SquaredHinge(_Margin):
    """max(0, 1 - t f)^2."""

    def elements(self, x, raw):
        return (1 - x * raw).clamp_(min=0).square_()

    def gradient(self, x, raw):
        return (1 - x * raw).clamp_(min=0).mul_(x).mul_(-2)


@dataclass(frozen=True)
class SquaredMargin(_Margin):
    """(t - f)^2, as ridge classification has it."""

    def elements(self, x, raw):
        return (raw - x).square_()

    def gradient(self, x, raw):
        return (raw - x).mul_(2)


LABEL_LOSSES: dict[str, Loss] = {
    "softmax": SoftmaxCrossEntropy(),
    "logistic": LogisticCrossEntropy(),
    "hinge": Hinge(),
    "squared_hinge": SquaredHinge(),
    "squared_margin": SquaredMargin(),
}

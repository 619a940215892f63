"""All parameters in one flat tensor, named tensors as views of it, and the same for gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

_ALIGN = 64  # bytes: every view starts on a cache line, as matrix products like it


class Buffer:
    """Parameters of shape ``(*lead, shape)`` by name, as views of `flat` of shape ``(*lead, P)``.

    An optimiser steps `flat` along `grad` and sees one tensor; the padding between views has
    gradient zero.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        lead: tuple[int, ...] = (),
        dtype: torch.dtype = torch.float32,
        device="cpu",
    ):
        self.shapes, self.lead = dict(shapes), lead
        step = max(1, _ALIGN // dtype.itemsize)
        self.offsets, size = {}, 0
        for name, shape in shapes.items():
            self.offsets[name] = size
            size += -(-math.prod(shape) // step) * step
        self.flat = torch.zeros(*lead, size, dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.flat)
        self.parameters = self.view(self.flat)
        self.gradients = self.view(self.grad)

    def view(self, flat: Tensor) -> dict[str, Tensor]:
        """Named views of a tensor of `flat`'s layout (any leading axes)."""
        return {
            name: flat[..., start : start + math.prod(shape)].view((*flat.shape[:-1], *shape))
            for (name, shape), start in zip(self.shapes.items(), self.offsets.values(), strict=True)
        }

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Copy these values in."""
        for name, value in values.items():
            self.parameters[name].copy_(value)


def add_decay(
    buffer: Buffer, gains: Mapping[str, float], alpha: float | Tensor, share: float
) -> Tensor:
    """Add the gradient of ``share * alpha / 2 |W|^2`` and return ``alpha / 2 |W|^2`` per model.

    `gains` maps the weights' names to their gains: W is the stored tensor times its gain.
    """
    value = torch.zeros(buffer.lead, dtype=buffer.flat.dtype, device=buffer.flat.device)
    for name, gain in gains.items():
        W = buffer.parameters[name]
        lead = W.shape[: len(buffer.lead)]
        c = alpha * gain**2
        if isinstance(c, Tensor):
            c = c.view(*lead, *[1] * (W.ndim - len(lead)))
        cW = W * c
        value = value + 0.5 * (cW * W).flatten(len(lead)).sum(-1)
        buffer.gradients[name].add_(cW, alpha=share)
    return value

"""The kernels of a dense stack, forward and backward, as lists of calls on fixed tensors.

Tensors are allocated once per batch size and every call is bound to its own, so that a training
step is a loop over ready-made calls. One formula for any leading axes: a stack of M models passes
tensors of shape (M, n, width) to ``bmm`` where one model passes (n, width) to ``mm``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from skae._engine.buffer import Buffer
from skae._engine.sparse_code import SparseSides
from skae.activations import ACTIVATIONS
from skae.networks import Dense, Layer

Op = Callable[[], Any]

# Cells up to which a product with ones is the quicker sum over rows. Beyond, a sum also stays in
# full precision where products do not.
_SUMMED_BY_PRODUCT = 2**16


class Outputs:
    """Where a layer puts what it gives for a batch, and the gradients that come back.

    `a` is an empty tensor of shape (..., n, width).
    """

    gain = 1.0  # what the gradient of `a` counts for the weights

    def __init__(self, a: Tensor, activation: str, *, is_raw: bool, drops: bool, keeps_a: bool):
        # The derivative, or the objective, may need f's input. The decoder's last layer is linear,
        # and its output is overwritten by its gradient.
        keeps_a = activation != "identity" and (keeps_a or ACTIVATIONS[activation].needs_input)
        self.a = a  # before the activation
        self.h = torch.empty_like(a) if keeps_a else a
        self.delta = a if is_raw else torch.empty_like(a)  # gradient of a
        self.mask: Tensor | None = None
        self.seed: Tensor | None = None  # what the objective adds to the gradient of h
        self.seed_a: Tensor | None = None  # and to that of a
        self.y = torch.empty_like(self.h) if drops else self.h  # h under dropout's mask

    def block(self, columns: slice) -> dict[str, Tensor]:
        """Views of some columns, for a layer that gives only these."""
        a = self.a[..., columns]
        h = a if self.h is self.a else self.h[..., columns]
        delta = a if self.delta is self.a else self.delta[..., columns]
        return {"a": a, "h": h, "y": h, "delta": delta}


class Slot(Outputs):
    """One layer's tensors for batches of n rows: views of the parameters, and work space."""

    def __init__(
        self,
        layer: Layer,
        buffer: Buffer,
        n: int,
        *,
        is_raw: bool,
        drops: bool,
        keeps_a: bool,
        within: dict[str, Tensor] | None = None,
    ):
        width = buffer.shapes[layer.bias][0]
        a = buffer.flat.new_empty(*buffer.lead, n, width) if within is None else within["a"]
        super().__init__(a, layer.activation, is_raw=is_raw, drops=drops, keeps_a=keeps_a)
        if within is not None:
            self.__dict__ |= within
        self.layer, self.activation = layer, ACTIVATIONS[layer.activation]
        self.gain = layer.gain
        W, dW = buffer.parameters[layer.weight], buffer.gradients[layer.weight]
        self.W, self.dW = (W.mT, dW.mT) if layer.tied else (W, dW)  # (..., out, in)
        self.W_t = self.W.mT
        self.b = buffer.parameters[layer.bias].unsqueeze(-2)  # (..., 1, out)
        self.db = buffer.gradients[layer.bias].unsqueeze(-2)


class DenseOps:
    """A dense stack's layers for batches of n rows."""

    def __init__(
        self,
        stack: Dense,
        buffer: Buffer,
        n: int,
        *,
        is_decoder: bool,
        draw_mask: Callable[[Tensor], Tensor] | None,
        drops_last: bool,
        adds_to_tied: bool,
        receives: bool,
        keeps_input: bool = False,
        within: dict[str, Tensor] | None = None,
    ):
        last = len(stack.layers) - 1
        self.slots = [
            Slot(layer, buffer, n, is_raw=is_decoder and i == last,
                 drops=draw_mask is not None and (i < last or drops_last),
                 keeps_a=keeps_input and i == last, within=within if i == last else None)
            for i, layer in enumerate(stack.layers)
        ]  # fmt: skip
        self.frozen = stack.frozen
        self.draw_mask, self.is_decoder = draw_mask, is_decoder
        self.adds, self.receives = adds_to_tied, receives
        self.mm = torch.bmm if buffer.lead else torch.mm
        self.addmm = torch.baddbmm if buffer.lead else torch.addmm
        self.ones = buffer.flat.new_ones(*buffer.lead, 1, n)

    def forward(self, x: Tensor, sides: SparseSides | None = None) -> list[Op]:
        """From x of shape (..., n, in) to ``slots[-1].y``; a decoder may read a sparse code."""
        ops: list[Op] = []
        for slot in self.slots:
            gain, bias_gain = slot.layer.gain, slot.layer.bias_gain
            if sides is not None and self._is_beside_code(slot) and self.is_decoder:
                ops.append(partial(sides.forward, slot))
            elif gain == bias_gain == 1:
                ops += [partial(self.mm, x, slot.W_t, out=slot.a), partial(slot.a.add_, slot.b)]
            else:
                ops.append(partial(self.addmm, slot.b, x, slot.W_t, beta=bias_gain, alpha=gain,
                                   out=slot.a))  # fmt: skip
            if slot.layer.activation != "identity":
                ops.append(partial(slot.activation.into, slot.a, out=slot.h))
            if slot.y is not slot.h:
                ops.append(partial(self._drop, slot))
            x = slot.y
        return ops

    def backward(
        self, x: Tensor, below: Tensor | None, sides: SparseSides | None = None
    ) -> list[Op]:
        """Parameters' gradients from ``slots[-1].delta``, that of y; the one of x into `below`.

        The decoder's delta already counts the gain of its last layer. With `sides` the gradient
        of the code is sparse, and it is there instead of in `below` and in the encoder's delta.
        """
        ops: list[Op] = []
        for i in range(len(self.slots) - 1, self.frozen - 1, -1):
            slot = self.slots[i]
            delta, delta_t = slot.delta, slot.delta.mT
            seen = self.slots[i - 1].y if i else x
            down = self.slots[i - 1].delta if i else below
            if i == self.frozen > 0:
                down = None
            beside = sides is not None and self._is_beside_code(slot)
            if beside and not self.is_decoder:
                ops.append(partial(sides.back_encoder, slot, seen, down, self.adds))  # type: ignore[union-attr]
                continue
            if slot.y is not slot.h:
                ops.append(partial(self._undrop, slot))
            if self.receives and slot is self.slots[-1]:
                ops.append(partial(self._receive, slot))
            if slot.layer.activation != "identity":
                ops.append(partial(slot.activation.backward_, delta, slot.h, slot.a))
            if self.receives and slot is self.slots[-1]:
                ops.append(partial(self._receive_input, slot))
            gain = 1.0 if self.is_decoder else slot.layer.gain
            if beside:
                ops.append(partial(sides.back_decoder, slot))  # type: ignore[union-attr]
            elif self.adds or gain != 1:
                ops.append(partial(self.addmm, slot.dW, delta_t, seen, beta=float(self.adds),
                                   alpha=gain, out=slot.dW))  # fmt: skip
            else:
                ops.append(partial(self.mm, delta_t, seen, out=slot.dW))
            if delta.numel() < _SUMMED_BY_PRODUCT:
                ops.append(partial(self.mm, self.ones, delta, out=slot.db))
            else:
                ops.append(partial(torch.sum, delta, -2, keepdim=True, out=slot.db))
            if down is not None and not beside:
                ops.append(partial(self.mm, delta, slot.W, out=down))
        return ops

    def _is_beside_code(self, slot: Slot) -> bool:
        return slot is self.slots[0 if self.is_decoder else -1]

    def _drop(self, slot: Slot) -> None:
        slot.mask = self.draw_mask(slot.h)  # type: ignore[misc]
        torch.mul(slot.h, slot.mask, out=slot.y)

    def _undrop(self, slot: Slot) -> None:
        slot.delta.mul_(slot.mask)  # type: ignore[arg-type]

    def _receive(self, slot: Slot) -> None:
        if slot.seed is not None:
            slot.delta.add_(slot.seed)

    def _receive_input(self, slot: Slot) -> None:
        if slot.seed_a is not None:
            slot.delta.add_(slot.seed_a)

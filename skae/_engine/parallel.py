"""The kernel calls of dense stacks side by side.

Every part is a dense stack with calls of its own. They meet in one tensor for the joined outputs,
of which each writes its columns, so that an objective sees one code and one reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from skae._engine.buffer import Buffer
from skae._engine.dense import DenseOps, Op, Outputs
from skae.networks import Dense, Parallel


class ParallelOps:
    """The layers of stacks side by side, for batches of n rows."""

    def __init__(
        self,
        stack: Parallel,
        buffer: Buffer,
        n: int,
        *,
        is_decoder: bool,
        draw_mask: Callable[[Tensor], Tensor] | None,
        drops_last: bool,
        adds_to_tied: bool,
        receives: bool,
        keeps_input: bool = False,
    ):
        joined = Outputs(
            buffer.flat.new_empty(*buffer.lead, n, stack.widths[-1]),
            stack.parts[0].last_activation,
            is_raw=is_decoder,
            drops=draw_mask is not None and drops_last,
            keeps_a=keeps_input,
        )
        self.stack, self.joined, self.slots = stack, joined, [joined]
        self.draw_mask, self.receives, self.is_decoder = draw_mask, receives, is_decoder
        self.parts = [
            DenseOps(part, buffer, n, is_decoder=is_decoder, draw_mask=draw_mask,
                     drops_last=False, adds_to_tied=adds_to_tied, receives=receives,
                     keeps_input=keeps_input, within=joined.block(block))
            for part, block in zip(stack.parts, stack.blocks, strict=True)
        ]  # fmt: skip
        # Columns that do not follow each other are gathered here.
        self.gathered = [
            None if isinstance(c, slice) else buffer.flat.new_empty(*buffer.lead, n, len(c))
            for c in stack.columns
        ]

    def forward(self, x: Tensor) -> list[Op]:
        """From x of shape (..., n, in) to ``slots[-1].y``."""
        ops: list[Op] = []
        for part, columns, seen in zip(self.parts, self.stack.columns, self._seen(x), strict=True):
            if isinstance(columns, Tensor):
                index = columns.to(x.device)
                ops.append(partial(torch.index_select, x, -1, index, out=seen))
            ops += part.forward(seen)
        if self.joined.y is not self.joined.h:
            ops.append(self._drop)
        return ops

    def backward(self, x: Tensor, below: Tensor | None) -> list[Op]:
        """Parameters' gradients from ``slots[-1].delta``; the gradient of x into `below`.

        `below` is for decoders, whose parts read neighbouring columns.
        """
        ops: list[Op] = []
        if self.joined.y is not self.joined.h:
            ops.append(self._undrop)
        if self.receives:
            ops.append(self._receive)
        for part, columns, seen in zip(self.parts, self.stack.columns, self._seen(x), strict=True):
            last = part.slots[-1]
            if self.is_decoder and last.gain != 1:
                ops.append(partial(last.delta.mul_, last.gain))
            ops += part.backward(seen, None if below is None else below[..., columns])
        return ops

    def _seen(self, x: Tensor) -> list[Tensor]:
        """What each part reads of x."""
        both = zip(self.stack.columns, self.gathered, strict=True)
        return [x[..., columns] if here is None else here for columns, here in both]

    def _drop(self) -> None:
        self.joined.mask = self.draw_mask(self.joined.h)  # type: ignore[misc]
        torch.mul(self.joined.h, self.joined.mask, out=self.joined.y)

    def _undrop(self) -> None:
        self.joined.delta.mul_(self.joined.mask)  # type: ignore[arg-type]

    def _receive(self) -> None:
        """Take in what the objective adds to the gradients of h and of a."""
        if self.joined.seed is not None:
            self.joined.delta.add_(self.joined.seed)
        seed_a = self.joined.seed_a
        for part, block in zip(self.parts, self.stack.blocks, strict=True):
            part.slots[-1].seed_a = None if seed_a is None else seed_a[..., block]


def stack_ops(stack: Dense | Parallel, *args, **kwargs) -> DenseOps | ParallelOps:
    """The calls of a stack of either kind."""
    kind = ParallelOps if isinstance(stack, Parallel) else DenseOps
    return kind(stack, *args, **kwargs)  # type: ignore[arg-type]

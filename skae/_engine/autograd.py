"""The general path: any stack, any objective, differentiated by torch.

Parameters are leaves that share the flat buffer's memory, and their gradients are copied to its
gradient, so the optimisers see the same two tensors as on the fused path.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from skae._engine.buffer import Buffer, add_decay
from skae._engine.rng import Draws, Streams, module_draws
from skae.networks import Network
from skae.objective import Forward, Objective, Rows, is_positive, overrides


def drop_mask(p: float | Tensor, like: Tensor, draws: Draws) -> Tensor:
    """Dropout's mask: 0 with probability p, else 1 / (1 - p); every row its own."""
    keep = 1.0 - p
    return draws.bernoulli(keep, like) / keep


def drop_input(p: float | Tensor, x: Tensor, center: Tensor | None, draws: Draws) -> Tensor:
    """x under dropout's mask, about the center of the data where the network has one."""
    mask = drop_mask(p, x, draws)
    return x * mask if center is None else torch.addcmul(center, x - center, mask)


def corrupted(
    objective: Objective, x: Tensor, rows: Rows, draws: Draws
) -> tuple[Tensor, Tensor | None]:
    """What the encoder sees, and where that is not x; a missing cell has nothing to corrupt."""
    x_in, changed = objective.corrupt(x, draws)
    if rows.observed is not None and x_in is not x:
        x_in = torch.where(rows.observed > 0, x_in, x)
    return x_in, changed


def weighted_sum(
    objective: Objective, out: Forward, net: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Sum over rows of the weighted value, per model, and the batch terms times the rows.

    Both of shape (...). Terms of shape (..., 1) belong to the batch and are not weighted.
    """
    w = out.rows.weight
    n = out.x.shape[-2]
    if overrides(objective, "__call__"):
        value, penalty = objective(out, net), None
    else:
        value = objective.data_loss(out.x, out.raw, objective.cell_weight(out))
        penalty = objective.penalty(out, net)
    batch = value.new_zeros(())
    if penalty is not None and objective.penalises_batch:
        batch = penalty.squeeze(-1) * n
    elif penalty is not None:
        value = value + penalty
    return (value if w is None else value * w).sum(-1), batch


def weigh_path(objective: Objective, out: Forward) -> None:
    """Let the gradient of z count for the encoder what the objective says."""
    with torch.no_grad():
        weight = objective.path_weight(out)
    if weight is not None and out.z.requires_grad:
        out.z.register_hook(lambda d_z: d_z * weight)


class Autograd:
    """Values and gradients by torch's autograd."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        buffer: Buffer,
        streams: Streams,
        epoch_rows: int | None = None,
    ):
        self.epoch_rows = epoch_rows  # None: a batch is an epoch
        self.network, self.objective, self.buffer, self.streams = (
            network,
            objective,
            buffer,
            streams,
        )
        dtype = buffer.flat.dtype
        purposes = ("corruption", "dropout", "latent", "input_dropout", "penalty")
        self.draws = {purpose: streams.draws(purpose, dtype) for purpose in purposes}
        frozen = network.frozen_names()
        self.leaves = {
            name: view.detach().requires_grad_(name not in frozen)
            for name, view in buffer.parameters.items()
        }
        self.trained = {name: leaf for name, leaf in self.leaves.items() if leaf.requires_grad}
        gains = network.weight_gains()
        self.gains = {name: gains.get(name, 1.0) for name in network.weight_shapes()}
        self.value = torch.zeros(buffer.lead, dtype=dtype, device=buffer.flat.device)

    def add_gradient(
        self, x: Tensor, rows: Rows, n: int, progress: float = 0.0, state: Mapping = {}
    ) -> Mapping[str, Tensor]:
        """Write the gradient of a batch's part of the mean over n rows to ``buffer.grad``.

        The value is kept until `take_value`. Returns the objective's new state.
        """
        if self.buffer.lead and x.ndim == 2:
            x = x.expand(*self.buffer.lead, *x.shape)
        isolated = nullcontext() if self.network.is_dense else module_draws(self.streams)
        with torch.enable_grad(), isolated:
            out = self._forward(x, rows, progress, state)
            value, batch = weighted_sum(self.objective, out, self._net())
            weigh_path(self.objective, out)
            gradients = torch.autograd.grad(
                (value + batch).sum() / n, list(self.trained.values()), allow_unused=True
            )
        for name, gradient in zip(self.trained, gradients, strict=True):
            view = self.buffer.gradients[name]
            view.zero_() if gradient is None else view.copy_(gradient)
        value = (value + batch).detach()
        if is_positive(self.objective.alpha):
            rows_here = x.shape[-2]
            decayed = {name: g for name, g in self.gains.items() if name in self.trained}
            decay = add_decay(self.buffer, decayed, self.objective.alpha, rows_here / n)
            value = value + decay * rows_here
        self.value.add_(value)
        detached = {name: getattr(out, name).detach() for name in ("h", "z", "raw")}
        return self.objective.update(state, out._replace(**detached, a=None))

    def _forward(self, x: Tensor, rows: Rows, progress: float, state: Mapping) -> Forward:
        o = self.objective
        self.draws["corruption"].progress = self.draws["latent"].progress = progress
        x_in, changed = corrupted(o, x, rows, self.draws["corruption"])
        if o.needs_graph:
            x_in = x_in.detach().requires_grad_()
        if is_positive(o.input_dropout):
            center = getattr(self.network.encoder, "center", None)
            x_in = drop_input(o.input_dropout, x_in, center, self.draws["input_dropout"])
        drop = None
        if is_positive(o.dropout):
            drop = lambda h: h * drop_mask(o.dropout, h, self.draws["dropout"])  # noqa: E731
        a = None
        if o.needs_input:
            a, h = self.network.encoder.both_sides(self.leaves, x_in, drop)  # type: ignore[union-attr]
        else:
            h = self.network.encoder.forward(self.leaves, x_in, drop)
        z = o.latent(drop(h) if drop and o.drops_code else h, self.draws["latent"])
        raw = self.network.decoded(self.leaves, z, drop, self.draws["latent"])
        target = x if rows.target is None else rows.target
        share = x.shape[-2] / (self.epoch_rows or x.shape[-2])
        encoder = partial(self.network.encoder.forward, self.leaves) if o.needs_graph else None
        return Forward(target, x_in, h, z, raw, rows, changed, progress, state, a,
                       self.draws["penalty"], encoder, share)  # fmt: skip

    def _net(self) -> dict[str, Tensor]:
        """Weights in the units of X and the objective's own parameters."""
        own = {k: v for k, v in self.leaves.items() if k.startswith("objective.")}
        gains = self.gains.items()
        return {k: self.leaves[k] if g == 1 else self.leaves[k] * g for k, g in gains} | own

    def take_value(self) -> Tensor:
        """The weighted values added since the last call, per model."""
        value = self.value.clone()
        self.value.zero_()
        return value

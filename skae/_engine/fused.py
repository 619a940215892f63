"""The hand-derived path: forward and backward of dense stacks in preallocated buffers.

One formula for any leading axes: a stack of M models passes tensors of shape (M, n, width) to
``bmm`` where one model passes (n, width) to ``mm``. Autograd is entered only where an objective
gives a value without its gradient, on detached leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae._engine.autograd import drop_mask, weighted_sum
from skae._engine.buffer import Buffer, add_decay
from skae._engine.rng import Streams
from skae.networks import ACTIVATIONS, Layer, Network
from skae.objective import Forward, Objective, Rows, is_positive, observed_weight, overrides


class Slot:
    """One layer's tensors for batches of n rows: views of the parameters, and work space."""

    def __init__(
        self, layer: Layer, buffer: Buffer, n: int, keeps: float, first: bool, is_raw: bool
    ):
        width = buffer.shapes[layer.bias][0]
        self.activation = ACTIVATIONS[layer.activation]
        self.gain, self.bias_gain = layer.gain, layer.bias_gain
        W, dW = buffer.parameters[layer.weight], buffer.gradients[layer.weight]
        self.W, self.dW = (W.mT, dW.mT) if layer.tied else (W, dW)  # (..., out, in)
        self.W_t = self.W.mT
        self.b = buffer.parameters[layer.bias].unsqueeze(-2)  # (..., 1, out)
        self.db = buffer.gradients[layer.bias].unsqueeze(-2)
        self.a = buffer.flat.new_empty(*buffer.lead, n, width)
        # The derivative may need f's input; the decoder's last layer is linear and its output is
        # overwritten by its gradient.
        self.h = torch.empty_like(self.a) if self.activation.needs_input else self.a
        self.delta = self.a if is_raw else torch.empty_like(self.a)
        self.delta_t = self.delta.mT
        self.mask: Tensor | None = None
        self.y = self.h  # what the next layer sees: h, or h under dropout's mask
        self.delta_gain = self.gain if first else 1.0  # the last layer's is in the loss's scale
        self.keeps = keeps  # 1 where dW already holds the tied decoder's part, else 0


class Pass(NamedTuple):
    """What the backward pass needs of the forward pass."""

    out: Forward
    encoder: list[Slot]
    decoder: list[Slot]
    a_in: Tensor  # (..., n, d)  x_in centred
    y: Tensor  # (..., n, code_width(k))  h under dropout's mask; a leaf at a seam
    mask: Tensor | None  # of the code
    taped: Tensor | None  # z with its graph, at a seam


class Seeds(NamedTuple):
    """Gradients that come from the objective beside the loss's."""

    h: Tensor | None = None
    net: Mapping[str, Tensor] = {}
    z: Tensor | None = None


class Fused:
    """Values and gradients of a dense network under an objective."""

    def __init__(self, network: Network, objective: Objective, buffer: Buffer, streams: Streams):
        self.network, self.objective, self.buffer = network, objective, buffer
        dtype = buffer.flat.dtype
        self.corruption = streams.draws("corruption", dtype)
        self.dropping = streams.draws("dropout", dtype)
        self.latent = streams.draws("latent", dtype)
        self.mm = torch.bmm if buffer.lead else torch.mm
        self.addmm = torch.baddbmm if buffer.lead else torch.addmm
        gains = network.weight_gains()
        self.gains = {name: gains.get(name, 1.0) for name in network.weight_shapes()}
        self.own = [name for name in buffer.shapes if name.startswith("objective.")]
        self.drops = is_positive(objective.dropout)
        self.drops_input = is_positive(objective.input_dropout)
        self.decays = is_positive(objective.alpha)
        self.has_latent = overrides(objective, "latent")
        self.latent_seam = self.has_latent and not overrides(objective, "latent_gradient")
        self.penalised = overrides(objective, "penalty")
        self.seam = (
            overrides(objective, "__call__")
            or overrides(objective, "data_loss")
            or (self.penalised and not overrides(objective, "penalty_gradient"))
        )
        self.rest = torch.zeros(buffer.lead, dtype=dtype, device=buffer.flat.device)
        self.slots: dict[tuple[str, int], list[Slot]] = {}
        self.totals: dict[int, Tensor] = {}  # weighted loss of every cell, by batch size
        self.ones: dict[int, Tensor] = {}

    def add_gradient(
        self, x: Tensor, rows: Rows, n: int, progress: float = 0.0, state: Mapping = {}
    ) -> Mapping[str, Tensor]:
        """Write the gradient of a batch's part of the mean over n rows to ``buffer.grad``.

        The value is kept until `take_value`. Returns the objective's new state.
        """
        if self.buffer.lead and x.ndim == 2:
            x = x.expand(*self.buffer.lead, *x.shape)
        pass_ = self._pass(x, rows, progress, state)
        new_state = self.objective.update(state, pass_.out)
        seeds = self._seam_end(pass_, n) if self.seam else self._closed_end(pass_, n)
        self._back(pass_, seeds)
        self._add_net(seeds.net)
        if self.decays:
            here = x.shape[-2]
            value = add_decay(self.buffer, self.gains, self.objective.alpha, here / n)
            self.rest.add_(value, alpha=here)
        return new_state

    def _pass(self, x: Tensor, rows: Rows, progress: float, state: Mapping) -> Pass:
        """Through the network."""
        objective = self.objective
        x_in, changed = objective.corrupt(x, self.corruption)
        if self.drops_input:
            x_in = x_in * drop_mask(objective.input_dropout, x_in, self.dropping)
        center = self.network.encoder.center  # type: ignore[union-attr]
        a_in = x_in if center is None else x_in - center
        encoder = self._slots(self.network.encoder, x.shape[-2])
        h = self._forward(encoder, a_in)
        mask = None
        if self.drops and objective.drops_code:
            mask = drop_mask(objective.dropout, h, self.dropping)
        y, z, taped = self._latent(h if mask is None else h * mask)
        decoder = self._slots(self.network.decoder, z.shape[-2])
        raw = self._forward(decoder, z)
        target = x if rows.target is None else rows.target
        out = Forward(target, x_in, h, z, raw, rows, changed, progress, state)
        return Pass(out, encoder, decoder, a_in, y, mask, taped)

    def _back(self, pass_: Pass, seeds: Seeds) -> None:
        """The gradients of all parameters of the network, from that of raw."""
        z, delta = pass_.out.z, pass_.encoder[-1].delta
        d_z = delta if z.shape == delta.shape else torch.empty_like(z)
        self._backward(pass_.decoder, z, d_z)
        if seeds.z is not None:
            d_z.add_(seeds.z)
        d_h = d_z
        if pass_.taped is not None:
            d_h = torch.autograd.grad(pass_.taped, pass_.y, d_z)[0]
        elif self.has_latent:
            d_h = self.objective.latent_gradient(d_z, pass_.y, z)
        if pass_.mask is not None:
            d_h = d_h * pass_.mask
        if seeds.h is not None:
            d_h = d_h + seeds.h
        if d_h is not delta:
            delta.copy_(d_h)
        self._backward(pass_.encoder, pass_.a_in, None)

    def _slots(self, stack: Any, n: int) -> list[Slot]:
        if (stack.name, n) not in self.slots:
            last = len(stack.layers) - 1
            is_decoder = stack is self.network.decoder
            keeps = 1.0 if stack is self.network.decoder.tied_to else 0.0  # type: ignore[union-attr]
            self.slots[stack.name, n] = [
                Slot(layer, self.buffer, n, keeps=keeps, first=i == 0 and not is_decoder,
                     is_raw=i == last and is_decoder)
                for i, layer in enumerate(stack.layers)
            ]  # fmt: skip
            self.ones[n] = self.buffer.flat.new_ones(*self.buffer.lead, 1, n)
        return self.slots[stack.name, n]

    def _forward(self, slots: list[Slot], x: Tensor) -> Tensor:
        last = slots[-1]
        for slot in slots:
            self.addmm(slot.b, x, slot.W_t, beta=slot.bias_gain, alpha=slot.gain, out=slot.a)
            slot.activation.into(slot.a, out=slot.h)
            if self.drops and slot is not last:
                slot.mask = drop_mask(self.objective.dropout, slot.h, self.dropping)
                slot.y = slot.h * slot.mask
            x = slot.y
        return x

    def _latent(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the latent function saw, the code, and the code with its graph at a seam."""
        if not self.has_latent:
            return y, y, None
        if not self.latent_seam:
            return y, self.objective.latent(y, self.latent), None
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            z = self.objective.latent(leaf, self.latent)
        return leaf, z.detach(), z

    def _closed_end(self, pass_: Pass, n: int) -> Seeds:
        """Loss and penalty by their closed forms; the gradient of raw takes raw's place."""
        out = pass_.out
        seeds = self._penalty(out, n) if self.penalised else Seeds()
        weight = None if out.rows.weight is None else out.rows.weight.unsqueeze(-1)
        if out.rows.observed is not None:
            seen = observed_weight(out.rows.observed)
            weight = seen if weight is None else weight * seen
        share = self.objective.loss.share(out.x.shape[-1]) * pass_.decoder[-1].gain / n
        scale = share if weight is None else weight * share
        self.objective.loss.accumulate(out.x, out.raw, scale, weight, self._total(out.raw))
        return seeds

    def _penalty(self, out: Forward, n: int) -> Seeds:
        net = self._net()
        penalty = self.objective.penalty(out, net)
        if penalty is None:
            return Seeds()
        here, w = out.x.shape[-2], out.rows.weight
        if penalty.shape[-1] == here > 1:
            count = penalty.new_ones(here) if w is None else w
        else:
            count = penalty.new_full((1,), here)
        self.rest.add_((count * penalty).sum(-1))
        return Seeds(*self.objective.penalty_gradient(out, net, count.unsqueeze(-1) / n))

    def _seam_end(self, pass_: Pass, n: int) -> Seeds:
        """The same by autograd on detached leaves."""
        out, last = pass_.out, pass_.decoder[-1]
        with torch.enable_grad():
            leaves = {k: getattr(out, k).detach().requires_grad_() for k in ("raw", "z", "h")}
            net = {k: v.detach().requires_grad_() for k, v in self._net().items()}
            value, batch = weighted_sum(self.objective, out._replace(**leaves), net)
            value = value + batch
            inputs = [*leaves.values(), *net.values()]
            d_raw, d_z, d_h, *d_net = torch.autograd.grad(
                value.sum() / n, inputs, allow_unused=True
            )
        self.rest.add_(value.detach())
        torch.mul(d_raw, last.gain, out=last.delta) if d_raw is not None else last.delta.zero_()
        return Seeds(d_h, {k: d for k, d in zip(net, d_net, strict=True) if d is not None}, d_z)

    def _net(self) -> dict[str, Tensor]:
        """Weights in the units of X and the objective's own parameters."""
        p = self.buffer.parameters
        weights = {k: p[k] if g == 1 else p[k] * g for k, g in self.gains.items()}
        return weights | {k: p[k] for k in self.own}

    def _add_net(self, d_net: Mapping[str, Tensor]) -> None:
        """Add what the objective asks of the weights and of its own parameters."""
        for name in self.own:
            self.buffer.gradients[name].zero_()
        for name, d in d_net.items():
            self.buffer.gradients[name].add_(d, alpha=self.gains.get(name, 1.0))

    def _backward(self, slots: list[Slot], x: Tensor, below: Tensor | None) -> None:
        """Gradients of the parameters from ``slots[-1].delta``, and of x into `below`."""
        ones = self.ones[x.shape[-2]]
        for i in range(len(slots) - 1, -1, -1):
            slot = slots[i]
            if slot.mask is not None:
                slot.delta.mul_(slot.mask)
            slot.activation.backward_(slot.delta, slot.h, slot.a)
            a_in = slots[i - 1].y if i else x
            if slot.keeps or slot.delta_gain != 1:
                self.addmm(slot.dW, slot.delta_t, a_in, beta=slot.keeps, alpha=slot.delta_gain,
                           out=slot.dW)  # fmt: skip
            else:
                self.mm(slot.delta_t, a_in, out=slot.dW)
            self.mm(ones, slot.delta, out=slot.db)
            d_in = slots[i - 1].delta if i else below
            if d_in is not None:
                self.mm(slot.delta, slot.W, out=d_in)

    def _total(self, raw: Tensor) -> Tensor:
        n = raw.shape[-2]
        if n not in self.totals:
            self.totals[n] = torch.zeros_like(raw)
        return self.totals[n]

    def take_value(self) -> Tensor:
        """The weighted values added since the last call, per model."""
        value = self.rest.clone()
        self.rest.zero_()
        for total in self.totals.values():
            cells = total.sum((-2, -1), dtype=torch.float64)
            value += (cells * self.objective.loss.share(total.shape[-1])).to(value.dtype)
            total.zero_()
        return value

"""The hand-derived path: values and gradients of dense networks without autograd.

Autograd is entered only where an objective gives a value without its gradient, on detached
leaves: the seams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae._engine.autograd import corrupted, drop_input, drop_mask, weighted_sum
from skae._engine.batches import Staged
from skae._engine.buffer import Buffer, add_decay
from skae._engine.dense import DenseOps, Op
from skae._engine.parallel import ParallelOps, stack_ops
from skae._engine.rng import Streams
from skae._engine.sparse_code import SparseCode, SparseSides, is_worth_it
from skae.networks import Dense, Network
from skae.objective import (
    NO_ROWS,
    Forward,
    Objective,
    Rows,
    has_closed_penalty,
    is_positive,
    overrides,
)

_MOST_PROGRAMS = 10_000  # batches that are worth a list of calls of their own


class Program(NamedTuple):
    """The calls of one batch size, in the order of a step, and the tensors they meet at."""

    encoder: DenseOps | ParallelOps
    decoder: DenseOps | ParallelOps
    a_in: Tensor  # (..., n, d)  what the first layer reads
    z_in: Tensor  # (..., n, k)  what the decoder reads
    d_z: Tensor  # (..., n, k)  gradient of z_in
    encode: list[Op]
    decode: list[Op]
    back_decoder: list[Op]
    back_encoder: list[Op]
    sides: SparseSides | None = None  # of a sparse code, which the lists then read


class Seeds(NamedTuple):
    """Gradients that come from the objective beside the loss's."""

    h: Tensor | None = None
    net: Mapping[str, Tensor] = {}
    z: Tensor | None = None
    a: Tensor | None = None
    path: Tensor | None = None  # what the gradient of z counts for the encoder


Gradients = Mapping[str, Tensor | None]  # by the part of `Forward`


class Scaled(Mapping[str, Tensor]):
    """Tensors times their gains, multiplied when they are asked for: most penalties read none."""

    def __init__(self, parameters: Mapping[str, Tensor], gains: Mapping[str, float]):
        self.parameters, self.gains = parameters, gains

    def __getitem__(self, name: str) -> Tensor:
        gain, value = self.gains[name], self.parameters[name]
        return value if gain == 1 else value * gain

    def __iter__(self) -> Iterator[str]:
        return iter(self.gains)

    def __len__(self) -> int:
        return len(self.gains)


class Fused:
    """Values and gradients of a dense network under an objective."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        buffer: Buffer,
        streams: Streams,
        epoch_rows: int | None = None,
    ):
        self.network: Any = network
        self.epoch_rows = epoch_rows  # None: a batch is an epoch
        self.objective, self.buffer = objective, buffer
        dtype = buffer.flat.dtype
        self.corruption = streams.draws("corruption", dtype)
        self.dropping = streams.draws("dropout", dtype)
        self.input_dropping = streams.draws("input_dropout", dtype)
        self.latent = streams.draws("latent", dtype)
        self.penalty_draws = streams.draws("penalty", dtype)
        gains = network.weight_gains()
        self.gains = {name: gains.get(name, 1.0) for name in network.weight_shapes()}
        self.frozen = network.frozen_names()
        self.decayed = {name: g for name, g in self.gains.items() if name not in self.frozen}
        self.own = [name for name in buffer.shapes if name.startswith("objective.")]
        # Weights in the units of X and the objective's own parameters.
        self.net = Scaled(buffer.parameters, self.gains | dict.fromkeys(self.own, 1.0))
        self.drops = is_positive(objective.dropout)
        self.drops_input = is_positive(objective.input_dropout)
        self.decays = is_positive(objective.alpha)
        self.has_latent = overrides(objective, "latent")
        self.latent_seam = self.has_latent and not overrides(objective, "latent_gradient")
        self.penalised = overrides(objective, "penalty")
        own_value = overrides(objective, "__call__") or overrides(objective, "data_loss")
        self.seam = own_value or (self.penalised and not has_closed_penalty(objective))
        self.closed_value = overrides(objective, "value_and_gradient")
        self.enters_autograd = self.latent_seam or (self.seam and not self.closed_value)
        self.sums = self._may_sum()
        # Without hooks and noise a step is nothing but its kernels.
        self.is_plain = not (
            self.drops or self.drops_input or self.has_latent or self.penalised or own_value
            or self.own
            or any(overrides(objective, hook) for hook in ("corrupt", "cell_weight", "update"))
        )  # fmt: skip
        self.rest = torch.zeros(buffer.lead, dtype=dtype, device=buffer.flat.device)
        self.programs: dict[tuple[int, int], Program] = {}
        self.sparse_programs: dict[int, Program] = {}
        self.steps: dict[tuple[int, int, int], tuple[Tensor, Rows, list[Op]]] = {}
        self.counts: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.totals: list[Tensor] = []  # weighted loss of every cell of the widest batches

    def add_gradient(
        self, x: Tensor, rows: Rows, n: int, progress: float = 0.0, state: Mapping = {}
    ) -> Mapping[str, Tensor]:
        """Write the gradient of a batch's part of the mean over n rows to ``buffer.grad``.

        The value is kept until `take_value`. Returns the objective's new state.
        """
        is_known = rows is NO_ROWS or (isinstance(rows, Staged) and not self.buffer.lead)
        if self.is_plain and is_known:
            for op in self._step(x, rows, n):
                op()
            return state
        if self.buffer.lead and x.ndim == 2:
            x = x.expand(*self.buffer.lead, *x.shape)
        program, out, taped = self._pass(x, rows, progress, state)
        new_state = self.objective.update(state, out)
        path = self.objective.path_weight(out)  # before its gradient takes raw's place
        seeds = self._seam_end(program, out, n) if self.seam else self._closed_end(program, out, n)
        self._back(program, out, seeds._replace(path=path), taped)
        self._add_net(seeds.net)
        if self.decays:
            self._decay(x.shape[-2], n)
        return new_state

    def _step(self, x: Tensor, rows: Rows, n: int) -> list[Op]:
        """The calls of a plain step on this batch; batches come again every epoch."""
        key = (id(x), id(rows), n)
        if key not in self.steps:
            if len(self.steps) > _MOST_PROGRAMS:
                self.steps.clear()
            self.steps[key] = (x, rows, self._plain_step(x, rows, n))
        return self.steps[key][2]

    def _plain_step(self, x: Tensor, side: Rows, n: int) -> list[Op]:
        if self.buffer.lead and x.ndim == 2:
            x = x.expand(*self.buffer.lead, *x.shape)
        rows, center = x.shape[-2], self.network.encoder.center
        p = self._program(rows, rows)
        start, encode, back_encoder = [], p.encode, p.back_encoder
        if center is not None:
            start = [partial(torch.sub, x, center, out=p.a_in)]
        else:  # read the batch where it is
            encode = p.encoder.forward(x)
            back_encoder = p.encoder.backward(x, None)
        raw = p.decoder.slots[-1].a
        target = x if side.target is None else side.target
        scale = self._share(target.shape[-1], p) / n
        total = self._total(raw, target)
        end = self.objective.loss.kernels(target, raw, scale, total)
        if side.weight is not None:
            end = [partial(self._weighted_end, target, raw, scale, side.weight, total)]
        if self.decays:
            back_encoder = [*back_encoder, partial(self._decay, rows, n)]
        return [*start, *encode, *p.decode, *end, *p.back_decoder, *back_encoder]

    def _weighted_end(
        self, x: Tensor, raw: Tensor, scale: float, weight: Tensor, total: Tensor
    ) -> None:
        weight = weight.unsqueeze(-1)
        self.objective.loss.accumulate(x, raw, weight * scale, weight, total)

    def _program(self, n: int, n_z: int) -> Program:
        """The calls for batches of n rows, and n_z rows of codes."""
        if (n, n_z) not in self.programs:
            net, buffer = self.network, self.buffer
            draw = self._mask if self.drops else None
            tied = net.decoder.tied_to is not None
            drops_code = self.objective.drops_code
            encoder = stack_ops(net.encoder, buffer, n, is_decoder=False, draw_mask=draw,
                               drops_last=drops_code, adds_to_tied=tied,
                               receives=self.penalised or self.seam,
                               keeps_input=self.objective.needs_input)  # fmt: skip
            decoder = stack_ops(net.decoder, buffer, n_z, is_decoder=True, draw_mask=draw,
                               drops_last=False, adds_to_tied=False, receives=False)  # fmt: skip
            last = encoder.slots[-1]
            a_in = buffer.flat.new_empty(*buffer.lead, n, net.encoder.widths[0])
            z_in, d_z = last.y, last.delta
            if self.has_latent:
                z_in = buffer.flat.new_empty(*buffer.lead, n_z, net.decoder.widths[0])
                d_z = torch.empty_like(z_in)
            self.programs[n, n_z] = Program(
                encoder, decoder, a_in, z_in, d_z, encoder.forward(a_in), decoder.forward(z_in),
                decoder.backward(z_in, d_z), encoder.backward(a_in, None),
            )  # fmt: skip
        return self.programs[n, n_z]

    def _may_sum(self) -> bool:
        """Whether products with the code may be sums over the units that its objective keeps."""
        stacks = self.network.stacks
        return (
            overrides(self.objective, "support")
            and all(isinstance(stack, Dense) for stack in stacks)
            and stacks[0].last_activation == "identity"
            and not (self.buffer.lead or self.drops or self.latent_seam or self.seam)
            and not self.objective.needs_input
            and not overrides(self.objective, "path_weight")
        )

    def _sparse_program(self, p: Program) -> Program:
        """The same program for a code that is given by its entries."""
        n = p.a_in.shape[-2]
        if n not in self.sparse_programs:
            sides = SparseSides()
            self.sparse_programs[n] = p._replace(
                sides=sides,
                decode=p.decoder.forward(p.z_in, sides),  # type: ignore[call-arg]
                back_decoder=p.decoder.backward(p.z_in, p.d_z, sides),  # type: ignore[call-arg]
                back_encoder=p.encoder.backward(p.a_in, None, sides),  # type: ignore[call-arg]
            )
        return self.sparse_programs[n]

    def _put(self, p: Program, h: Tensor, places: Tensor) -> Program:
        """Put these entries of h into the code; the program that goes on from there."""
        values, (n, width) = h.flatten()[places], h.shape
        p.z_in.zero_().view(-1)[places] = values
        if not is_worth_it(len(places), n, width, h.device):
            return p
        p = self._sparse_program(p)
        p.sides.code, p.sides.values = SparseCode(places, n, width), values  # type: ignore[union-attr]
        return p

    def _mask(self, h: Tensor) -> Tensor:
        return drop_mask(self.objective.dropout, h, self.dropping)

    def _pass(
        self, x: Tensor, rows: Rows, progress: float, state: Mapping
    ) -> tuple[Program, Forward, tuple[Tensor, Tensor] | None]:
        """Through the network; at a seam also the latent function's input and output."""
        objective, center = self.objective, self.network.encoder.center
        self.corruption.progress = self.latent.progress = progress
        x_in, changed = corrupted(objective, x, rows, self.corruption)
        if self.drops_input:
            x_in = drop_input(objective.input_dropout, x_in, center, self.input_dropping)
        p = self._program(x.shape[-2], x.shape[-2])
        p.a_in.copy_(x_in) if center is None else torch.sub(x_in, center, out=p.a_in)
        for op in p.encode:
            op()
        last, taped = p.encoder.slots[-1], None
        places = objective.support(last.y, self.latent) if self.sums else None
        if places is not None:
            p = self._put(p, last.y, places)
        elif self.has_latent:
            z, taped = self._latent(last.y)
            if z.shape[-2] != x.shape[-2]:
                p = self._widened(p, z.shape[-2])
            p.z_in.copy_(z)
        for op in p.decode:
            op()
        target = x if rows.target is None else rows.target
        raw = p.decoder.slots[-1].a
        a = last.a if objective.needs_input else None
        share = x.shape[-2] / (self.epoch_rows or x.shape[-2])
        out = Forward(target, x_in, last.h, p.z_in, raw, rows, changed, progress, state, a,
                      self.penalty_draws, share=share, kept={})  # fmt: skip
        return p, out, taped

    def _widened(self, p: Program, n_z: int) -> Program:
        """The same encoder with a decoder for more rows."""
        wide = self._program(p.a_in.shape[-2], n_z)
        return wide._replace(encoder=p.encoder, a_in=p.a_in, back_encoder=p.back_encoder)

    def _latent(self, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        if not self.latent_seam:
            return self.objective.latent(y, self.latent), None
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            z = self.objective.latent(leaf, self.latent)
        return z.detach(), (leaf, z)

    def _back(
        self, p: Program, out: Forward, seeds: Seeds, taped: tuple[Tensor, Tensor] | None
    ) -> None:
        """The gradients of all parameters of the network, from that of raw."""
        last = p.encoder.slots[-1]
        for op in p.back_decoder:
            op()
        if seeds.z is not None:
            p.d_z.add_(seeds.z)
        if seeds.path is not None:
            p.d_z.mul_(seeds.path)
        if taped is not None:
            last.delta.copy_(torch.autograd.grad(taped[1], taped[0], p.d_z)[0])
        elif self.has_latent and p.sides is None:
            last.delta.copy_(self.objective.latent_gradient(p.d_z, last.y, out.z))
        last.seed, last.seed_a = seeds.h, seeds.a
        for op in p.back_encoder:
            op()

    def _closed_end(self, p: Program, out: Forward, n: int) -> Seeds:
        """Loss and penalty by their closed forms; the gradient of raw takes raw's place."""
        seeds = self._penalty(out, n) if self.penalised else Seeds()
        weight = None if out.rows.weight is None else out.rows.weight.unsqueeze(-1)
        cells = self.objective.cell_weight(out)
        if cells is not None:
            weight = cells if weight is None else weight * cells
        share = self._share(out.x.shape[-1], p) / n
        scale = share if weight is None else weight * share
        self.objective.loss.accumulate(out.x, out.raw, scale, weight, self._total(out.raw, out.x))
        return seeds

    def _share(self, d: int, p: Program) -> float:
        """What an element's gradient counts for the decoder's last layer."""
        return self.objective.loss.share(d) * p.decoder.slots[-1].gain

    def _penalty(self, out: Forward, n: int) -> Seeds:
        count, share = self._count(out, n, self.objective.penalises_batch)
        penalty, d_h, d_net = self.objective.penalty_and_gradient(out, self.net, share)
        if penalty is None:
            return Seeds()
        self.rest.add_((count * penalty).sum(-1))
        return Seeds(d_h, d_net)

    def _count(self, out: Forward, n: int, is_of_batch: bool) -> tuple[Tensor, Tensor]:
        """What a term of each row, or of the batch, counts in the value, and in the gradient."""
        here, w = out.x.shape[-2], out.rows.weight
        if w is not None and not is_of_batch:
            return w, w.unsqueeze(-1) / n
        if (here, n) not in self.counts:
            count = out.h.new_full((1,), here) if is_of_batch else out.h.new_ones(here)
            self.counts[here, n] = count, count.unsqueeze(-1) / n
        return self.counts[here, n]

    def _seam_end(self, p: Program, out: Forward, n: int) -> Seeds:
        """The same where the value is the objective's own, or has no closed form."""
        last = p.decoder.slots[-1]
        d, d_net = self._own_gradient(out, n) if self.closed_value else self._differentiated(out, n)
        d_raw = d.get("raw")
        if d_raw is None:
            last.delta.zero_()
        else:
            torch.mul(d_raw, last.gain, out=last.delta)
        return Seeds(d.get("h"), d_net, d.get("z"), d.get("a"))

    def _own_gradient(self, out: Forward, n: int) -> tuple[Gradients, dict[str, Tensor]]:
        """What the objective gives."""
        count, share = self._count(out, n, False)
        value, d, d_net = self.objective.value_and_gradient(out, self.net, share)
        self.rest.add_((count * value).sum(-1))
        return d, d_net

    def _differentiated(self, out: Forward, n: int) -> tuple[Gradients, dict[str, Tensor]]:
        """What autograd finds on detached leaves."""
        with torch.enable_grad():
            parts = {k: getattr(out, k) for k in ("raw", "z", "h", "a")}
            leaves = {k: p.detach().requires_grad_() for k, p in parts.items() if p is not None}
            net = {k: v.detach().requires_grad_() for k, v in self.net.items()}
            value, batch = weighted_sum(self.objective, out._replace(**leaves, kept=None), net)
            value = value + batch
            inputs = [*leaves.values(), *net.values()]
            found = torch.autograd.grad(value.sum() / n, inputs, allow_unused=True)
        self.rest.add_(value.detach())
        d = dict(zip([*leaves, *net], found, strict=True))
        d_net = {k: d[k] for k in net if d[k] is not None}
        return {k: d[k] for k in leaves}, d_net

    def _add_net(self, d_net: Mapping[str, Tensor]) -> None:
        """Add what the objective asks of the weights and of its own parameters."""
        for name in self.own:
            self.buffer.gradients[name].zero_()
        for name, d in d_net.items():
            if name in self.frozen:
                continue
            self.buffer.gradients[name].add_(d, alpha=self.gains.get(name, 1.0))

    def _decay(self, rows: int, n: int) -> None:
        value = add_decay(self.buffer, self.decayed, self.objective.alpha, rows / n)
        self.rest.add_(value, alpha=rows)

    def _total(self, raw: Tensor, x: Tensor) -> Tensor:
        """Where the loss of these cells is added up; a shorter batch shares a longer one's."""
        for total in self.totals:
            if total.shape[-2] >= raw.shape[-2]:
                return total[..., : raw.shape[-2], :]
        self.totals.append(raw.new_zeros(*raw.shape[:-1], x.shape[-1]))
        return self.totals[-1]

    def take_value(self) -> Tensor:
        """The weighted values added since the last call, per model."""
        parts = []
        for total in self.totals:
            parts.append(total.sum((-2, -1)) * self.objective.loss.share(total.shape[-1]))
            total.zero_()
        if self.decays or self.penalised or self.seam:
            parts.append(self.rest.clone())
            self.rest.zero_()
        return sum(parts[1:], parts[0])

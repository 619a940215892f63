"""Adversarial regularisation: the steps that follow the reconstruction step of every batch.

A discriminator learns to tell draws of a prior from codes, then the encoder, here the generator,
learns to pass its codes off as draws (Makhzani et al., 2015, section 2); where some rows have
labels, a third step holds their categories to them (section 5). Every step has an optimiser of its
own. The reconstruction step, stopping, resuming and callbacks are `train`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from skae._engine.autograd import drop_input, drop_mask
from skae._engine.batches import Batches, Source
from skae._engine.buffer import Buffer
from skae._engine.rng import Draws, module_draws
from skae._engine.solvers import SGD, Adam
from skae._engine.start import fresh_values
from skae._engine.train import Run, refuse_single_rows
from skae.label_losses import SoftmaxCrossEntropy
from skae.modules import Parameters
from skae.networks import Dense
from skae.objective import Rows, is_positive
from skae.priors import Prior


class Part(NamedTuple):
    """Columns of the code, the prior they are to follow, and the network that tells both apart."""

    columns: slice
    prior: Prior
    discriminator: Dense
    noise: float = 0.0  # standard deviation, on all that the network sees


class Labelled(NamedTuple):
    """Rows whose category is known: `rows` has their weights, and one-hot targets."""

    source: Source
    rows: Rows


@dataclass(frozen=True, kw_only=True)
class Game:
    """What the two players play for, and how: called with a run, it gives the steps."""

    parts: tuple[Part, ...]
    labelled: Labelled | None = None
    discriminator_rate: float = 1e-3
    generator_rate: float = 1e-3  # 0: codes are left to the reconstruction
    momentum: float = 0.5  # beta_1 under adam
    smoothing: float = 0.0

    def __call__(self, run: Run) -> Regularisation:
        """The steps of one call of `train`."""
        return Regularisation(self, run)


def discriminator_loss(
    prior: Tensor, code: Tensor, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """-E (1 - s) log D(z') + s log(1 - D(z')) - E log(1 - D(z)), of logits of shape (n, 1) each.

    z' are draws of the prior and z codes, whose rows may have weights; s smooths one side. Where D
    cannot tell them apart it is log 4.
    """
    return (F.softplus(-prior) + smoothing * prior).mean() + _mean(F.softplus(code), weight)


def generator_loss(code: Tensor, weight: Tensor | None = None) -> Tensor:
    """-E log D(z), of logits of shape (n, 1): log 2 where D cannot tell codes from draws."""
    return _mean(F.softplus(-code), weight)


def _mean(each: Tensor, weight: Tensor | None) -> Tensor:
    return (each if weight is None else each * weight.unsqueeze(-1)).mean()


class Discriminator:
    """One discriminator at work, with its parameters and its optimiser."""

    def __init__(self, part: Part, game: Game, run: Run, draws: Draws):
        self.part, self.game, self.draws = part, game, draws
        self.prior_draws = run.streams.draws("prior", run.source.dtype)
        stack = part.discriminator
        shapes = stack.weight_shapes() | stack.bias_shapes()
        self.buffer = Buffer(shapes, (), run.source.dtype, run.source.device)
        self.buffer.fill(fresh_values(stack, draws))
        self.leaves = _leaves(self.buffer.parameters)
        self.solver = _solver(run, self.buffer.flat, game.momentum)

    def logit(self, z: Tensor, parameters: Parameters) -> Tensor:
        """log D / (1 - D) of codes or draws, of shape (n, 1)."""
        if self.part.noise > 0:
            z = z + self.part.noise * self.draws.normal(z)
        return self.part.discriminator.forward(parameters, z)

    def step(self, z: Tensor, weight: Tensor | None, factor: float) -> Tensor:
        """Learn to tell these codes, which are constants here, from as many draws; the loss."""
        n, k = z.shape
        drawn = self.part.prior.draw(n, k, self.prior_draws)
        of_prior, of_code = self.logit(torch.cat([drawn, z]), self.leaves).split(n)
        loss = discriminator_loss(of_prior, of_code, weight, self.game.smoothing)
        gradients = torch.autograd.grad(loss, list(self.leaves.values()))
        _copy(zip(self.leaves, gradients, strict=True), self.buffer.gradients)
        self.solver.step(self.buffer.flat, self.buffer.grad, self.game.discriminator_rate * factor)
        return loss.detach()

    def generator_loss(self, z: Tensor, weight: Tensor | None) -> Tensor:
        """What the generator minimises on these codes."""
        return generator_loss(self.logit(z, self.buffer.parameters), weight)


class Regularisation:
    """The steps after the reconstruction step of every batch, within a run of `train`."""

    def __init__(self, game: Game, run: Run):
        self.game, self.run = game, run
        self.draws = run.streams.draws("adversary", run.source.dtype)
        self.discriminators = [Discriminator(part, game, run, self.draws) for part in game.parts]
        encoder, self.buffer = run.network.encoder, run.buffer
        names = encoder.weight_shapes() | encoder.bias_shapes()
        self.leaves = _leaves({name: self.buffer.parameters[name] for name in names})
        # Of the whole network's layout: zero beyond the encoder, where a step then changes nothing.
        self.grad = torch.zeros_like(self.buffer.flat)
        self.gradients = self.buffer.view(self.grad)
        self.generator = _solver(run, self.buffer.flat, game.momentum)
        self.classifier = _solver(run, self.buffer.flat)
        # Losses of discriminators and generators, (2, parts): sums over the rows, then means of
        # every epoch.
        self.total = self.grad.new_zeros(2, len(game.parts))
        self.curves: list[Tensor] = []
        if game.labelled is not None:
            source, rows = game.labelled
            size = min(run.training.batch_size, source.n)
            refuse_single_rows(run.network, source.n, size)
            self.batches = Batches(source, rows, size, run.training.shuffle)
            self.order = run.streams.draws("labels", source.dtype)
            self.cycle = self._labelled()

    def step(self, x: Tensor, rows: Rows, factor: float) -> None:
        """Regularise on a batch; `factor` is what the schedule leaves of the learning rates."""
        network = self.run.network
        isolated = nullcontext() if network.is_dense else module_draws(self.run.streams)
        with torch.enable_grad(), isolated:
            self._play(x, rows.weight, factor)
            if self.game.labelled is not None:
                self._classify(factor)

    def _play(self, x: Tensor, weight: Tensor | None, factor: float) -> None:
        """The discriminators' step, then the generator's against what they have become."""
        z = self.run.objective.encode(self._encode(x))
        parts = [z[:, d.part.columns] for d in self.discriminators]
        both = list(zip(self.discriminators, parts, strict=True))
        told = [d.step(part.detach(), weight, factor) for d, part in both]
        passed = [d.generator_loss(part, weight) for d, part in both]
        if self.game.generator_rate > 0:
            self._descend(sum(passed), self.generator, self.game.generator_rate * factor)  # type: ignore[arg-type]
        losses = torch.stack([torch.stack(told), torch.stack(passed).detach()])
        self.total.add_(losses, alpha=len(x))

    def _classify(self, factor: float) -> None:
        """A step on the categories of rows that have a label."""
        x, rows = next(self.cycle)
        target: Any = rows.target
        logits = self._encode(x)[:, -target.shape[-1] :]
        each = SoftmaxCrossEntropy().elements(target, logits).sum(-1, keepdim=True)
        rate = self.run.training.learning_rate_init * factor  # type: ignore[operator]
        self._descend(_mean(each, rows.weight), self.classifier, rate)

    def _labelled(self) -> Iterator[tuple[Tensor, Rows]]:
        while True:
            yield from self.batches.epoch(self.order)

    def _encode(self, x: Tensor) -> Tensor:
        """The encoder's output, under dropout if there is any."""
        o, encoder = self.run.objective, self.run.network.encoder
        if is_positive(o.input_dropout):
            x = drop_input(o.input_dropout, x, getattr(encoder, "center", None), self.draws)
        drop = None
        if is_positive(o.dropout):
            drop = lambda h: h * drop_mask(o.dropout, h, self.draws)  # noqa: E731
        return encoder.forward(self.leaves, x, drop)

    def _descend(self, loss: Tensor, solver: Adam | SGD, rate: float) -> None:
        """A step of the encoder down a loss."""
        gradients = torch.autograd.grad(loss, list(self.leaves.values()), allow_unused=True)
        _copy(zip(self.leaves, gradients, strict=True), self.gradients)
        solver.step(self.buffer.flat, self.grad, rate)

    def end_epoch(self) -> None:
        """Record the players' mean losses; labelled rows begin a new cycle with every epoch."""
        self.curves.append(self.total.cpu() / self.run.source.n)
        self.total.zero_()
        if self.game.labelled is not None:
            self.cycle = self._labelled()

    def report(self) -> dict[str, Tensor]:
        """Both players' losses, of shape (epochs, parts) each."""
        curves = torch.stack(self.curves) if self.curves else self.total.cpu().unsqueeze(0)[:0]
        return {"discriminator_curve": curves[:, 0], "generator_curve": curves[:, 1]}

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        return {
            "discriminators": [d.buffer.flat.clone() for d in self.discriminators],
            "solvers": [d.solver.state() for d in self.discriminators],
            "generator": self.generator.state(),
            "classifier": self.classifier.state(),
            "curves": list(self.curves),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        saved = zip(state["discriminators"], state["solvers"], strict=True)
        for d, (flat, solver) in zip(self.discriminators, saved, strict=True):
            d.buffer.flat.copy_(flat)
            d.solver.restore(solver)
        self.generator.restore(state["generator"])
        self.classifier.restore(state["classifier"])
        self.curves = list(state["curves"])


def _leaves(parameters: Parameters) -> dict[str, Tensor]:
    """Tensors to differentiate by, which share the parameters' memory."""
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def _copy(gradients: Any, to: Parameters) -> None:
    for name, gradient in gradients:
        to[name].zero_() if gradient is None else to[name].copy_(gradient)


def _solver(run: Run, flat: Tensor, momentum: float | None = None) -> Adam | SGD:
    """The optimiser of a further step, by default as in other training.

    Adam's epsilon needs no unit: these losses do not grow with X.
    """
    t = run.training
    if t.solver == "adam":
        return Adam(flat) if momentum is None else Adam(flat, beta_1=momentum)
    if momentum is None:
        return SGD(flat, t.momentum, t.nesterov)
    return SGD(flat, momentum, nesterov=False)

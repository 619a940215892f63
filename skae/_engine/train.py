"""The training loop: one model, or a stack of models with each its own stopping.

`train` interprets (network, objective, data). It returns the parameters, the curves, why each
model stopped, and a state from which the same run continues bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from skae._engine.batches import Batches, Source, side_data
from skae._engine.buffer import Buffer
from skae._engine.fused import Fused
from skae._engine.monitor import Monitor
from skae._engine.plan import Plan, computing, make_plan
from skae._engine.rng import Streams
from skae._engine.solvers import SGD, Adam, limit_norms, minimise_full_batch
from skae.modules import Parameters, Wrapped
from skae.networks import Network
from skae.objective import NO_ROWS, Objective, Rows, observed_weight

FULL_BATCH = ("lbfgs", "cg")
_CELLS = 2**22  # of the widest layer, held at once
_KEEPS_NOTHING = {"skae.losses", "skae.label_losses", "skae.likelihoods"}  # of a step's tensors


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to optimise: the solver's numbers and the stopping rule."""

    solver: str = "adam"
    learning_rate_init: float | tuple[float, ...] = 1e-3  # one, or one per model
    learning_rate: str = "constant"
    horizon: int | None = None  # epochs over which a schedule runs
    momentum: float = 0.9
    nesterov: bool = True
    batch_size: int = 200
    shuffle: bool = True
    max_iter: int = 200
    tol: float | None = 1e-4  # None: exactly max_iter epochs
    n_iter_no_change: int = 10
    gradient_tol: float | None = None  # of the full batch's gradient, in units of `unit`
    max_norm: float | None = None  # of the weights into a hidden unit, in the units of X
    precision: str | None = None
    unit: float = 1.0  # what the loss is measured in: the data's scale, squared for squares


class Epoch(NamedTuple):
    """What a callback sees after an epoch."""

    number: int
    loss: list[float]  # per model
    validation: list[float] | None
    monitor: Monitor
    parameters: Callable[[], dict[str, Tensor]]  # a copy, made when called
    state: Callable[[], dict[str, Tensor]]  # the objective's, the same
    resumable: Callable[[], dict[str, Any]]  # `Result.state` as if training ended here


class Result(NamedTuple):
    """What training returns; lists have one entry per model."""

    parameters: dict[str, Tensor]
    monitor: Monitor
    plan: Plan
    state: dict[str, Any]
    learned: dict[str, Tensor]  # the objective's state that belongs to `parameters`


class Further(Protocol):
    """Steps of other kinds, which follow that of every batch in adam and sgd."""

    def step(self, x: Tensor, rows: Rows, factor: float) -> None:
        """On a batch; `factor` is what the schedule leaves of the learning rate."""

    def end_epoch(self) -> None:
        """After the last batch of an epoch."""

    def report(self) -> dict[str, Tensor]:
        """What there is to tell of them, beside the objective's state."""

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""


class Run:
    """The pieces of one call of `train`."""

    def __init__(
        self,
        network: Network,
        objective: Objective,
        source: Source,
        rows: Rows,
        training: Training,
        streams: Streams,
        initial: Parameters,
        validation: tuple[Source, Rows] | None = None,
        models: int | None = None,
        on_epoch: Callable[[Epoch], bool] | None = None,
    ):
        self.network, self.objective, self.training = network, objective, training
        self.source, self.rows, self.validation = source, rows, validation
        self.streams, self.on_epoch = streams, on_epoch
        own = {name: tuple(v.shape) for name, v in initial.items() if name.startswith("objective.")}
        lead = () if models is None else (models,)
        own = {name: shape[len(lead) :] for name, shape in own.items()}
        shapes = network.weight_shapes() | network.bias_shapes() | own
        self.buffer = Buffer(shapes, lead, source.dtype, source.device)
        self.buffer.fill(initial)
        self.plan = make_plan(network, objective)
        self.engine = self.plan.engine(network, objective, self.buffer, streams, source.n)
        self.models = models or 1
        self.monitor = Monitor(
            self.models, training.tol, training.n_iter_no_change, training.gradient_tol,
            objective.origin(source.d),
        )  # fmt: skip
        width = network.encoder_outputs(self.buffer.flat.new_zeros(2, source.d))
        k = next(k for k in range(1, width + 1) if objective.code_width(k) == width)
        state = objective.init_state(source.d, k)
        self.objective_state: Mapping[str, Tensor] = {
            name: v.to(source.device).expand((*lead, *v.shape)).clone() for name, v in state.items()
        }
        self.epoch = 0
        self.solver: Adam | SGD | None = None
        widest = max([source.d, *(shape[-1] for shape in network.bias_shapes().values() if shape)])
        self.chunk = max(1, _CELLS // widest)  # rows of a pass over everything, at a time
        self.further: Further | None = None
        # Of a single model, under validation:
        self.best_buffers: dict[str, Tensor] = {}
        self.best_state: Mapping[str, Tensor] = {}

    def end_epoch(
        self, loss: list[float], gradient: Tensor | None = None, progress: float = 1.0
    ) -> bool:
        """Record an epoch, which ends at this progress; True when training should stop.

        `gradient` is the full batch's, where an epoch is one step.
        """
        self.epoch += 1
        norms = None
        if gradient is not None and self.training.gradient_tol is not None:
            each = gradient.reshape(self.models, -1).norm(dim=-1)
            norms = (each / self.training.unit).tolist()
        checked = self.evaluate() if self.validation else None
        settled = progress > self.objective.settled or progress >= 1.0
        self.monitor.record(loss, checked, self.buffer.flat, settled, norms)
        if checked is not None and self.monitor.improved[0]:
            self.best_buffers, self.best_state = self.network.buffers(), self.objective_state
        stop = False
        if self.on_epoch is not None:
            epoch = Epoch(
                self.epoch, loss, checked, self.monitor, self.copy_parameters, self.copy_state,
                self.resumable,
            )  # fmt: skip
            with torch.inference_mode(False), torch.no_grad():  # what it is given may outlive us
                stop = self.on_epoch(epoch)
            if stop:
                self.monitor.stop_all("callback", self.buffer.flat)
        return stop or not self.monitor.active

    def evaluate(self) -> list[float]:
        """The data loss of every model on the validation rows, without noise."""
        source, rows = self.validation  # type: ignore[misc]
        total = torch.zeros(self.models, dtype=torch.float64, device=source.device)
        self.network.train(False)
        objective = self.objective.learned(self.objective_state)
        with torch.no_grad():
            for part, x in source.chunks(self.chunk):
                index = torch.arange(part.start, part.stop, device=source.device)
                here = side_data(rows, index, source.dtype)
                h = self.network.encoder.forward(self.buffer.parameters, x)
                raw = self.network.decoder.forward(self.buffer.parameters, objective.encode(h))
                target = x if here.target is None else here.target
                value = objective.data_loss(target, raw, observed_weight(here.observed))
                if here.weight is not None:
                    value = value * here.weight
                total += value.sum(-1).double()
        self.network.train(True)
        count = float(source.n if rows.weight is None else rows.weight.sum())
        return (total / count).tolist()

    def copy_state(self) -> dict[str, Tensor]:
        """The objective's present state with its own storage, and what further steps report."""
        return {name: value.clone() for name, value in self.objective_state.items()} | self.told()

    def told(self) -> dict[str, Tensor]:
        """What further steps report, if there are any."""
        return {} if self.further is None else self.further.report()

    def copy_parameters(self) -> dict[str, Tensor]:
        """The present parameters with their own storage."""
        return {name: p.clone() for name, p in self.buffer.parameters.items()}

    def resumable(self) -> dict[str, Any]:
        """What the same run needs to go on from here, with its own storage."""
        return {
            "flat": self.buffer.flat.clone(),
            "solver": None if self.solver is None else self.solver.state(),
            "streams": self.streams.state(),
            "monitor": self.monitor.state(),
            "epoch": self.epoch,
            "objective": self.copy_state(),
            "buffers": self.network.buffers(),
            "best_buffers": self.best_buffers,
            "best_state": {name: value.clone() for name, value in self.best_state.items()},
            "further": None if self.further is None else self.further.state(),
        }


def train(
    network: Network,
    objective: Objective,
    source: Source,
    training: Training,
    streams: Streams,
    initial: Parameters,
    *,
    rows: Rows = NO_ROWS,
    validation: tuple[Source, Rows] | None = None,
    models: int | None = None,
    state: Mapping[str, Any] | None = None,
    on_epoch: Callable[[Epoch], bool] | None = None,
    further: Callable[[Run], Further] | None = None,
) -> Result:
    """Train one model (`models` None) or a stack of them from `initial`, or on from `state`.

    `further` makes the steps that follow that of every batch, for a single model.
    """
    if training.solver in FULL_BATCH:
        refuse_noise(objective, network, training.solver)
        if models is not None:
            raise ValueError(f"solver={training.solver!r} trains one model at a time.")
        refuse_constraints(training.max_norm, training.solver)
    if training.max_norm is not None and not network.is_dense:
        raise ValueError(
            "max_norm limits the weights of built-in dense layers, but a module of another kind is "
            "part of this network. Set max_norm=None."
        )
    if training.solver not in FULL_BATCH:
        refuse_single_rows(network, source.n, min(training.batch_size, source.n))
    run = Run(
        network, objective, source, rows, training, streams, initial, validation, models, on_epoch
    )
    if further is not None:
        run.further = further(run)
    if state:
        _restore(run, state)
    batch = source.n if training.solver in FULL_BATCH else min(training.batch_size, source.n)
    flops = 6.0 * batch * run.buffer.flat.numel()
    network.train(True)
    with computing(flops, training.precision), _without_autograd(run):
        try:
            if training.solver in FULL_BATCH:
                _minimise(run)
            else:
                run.solver = _solver(run, state)
                _descend(run, run.solver)
        except KeyboardInterrupt:
            run.monitor.stop_all("interrupted", run.buffer.flat)
    run.monitor.stop_all("max_iter", run.buffer.flat)
    return _result(run)


def _without_autograd(run: Run) -> AbstractContextManager:
    """Inference mode, which spares small steps an eighth of their time, or else `no_grad`.

    Its tensors can never meet autograd, so that it is for steps of nothing but our own kernels,
    without a seam and without losses that keep tensors for later.
    """
    loss: Any = run.objective.loss
    parts = (loss, getattr(loss, "loss", loss), getattr(loss, "numeric", loss))
    is_ours = {type(part).__module__ for part in parts} <= _KEEPS_NOTHING
    is_ours &= type(run.objective).__module__.startswith("skae.")
    enters = not isinstance(run.engine, Fused) or run.engine.enters_autograd
    enters |= run.further is not None
    return torch.inference_mode() if is_ours and not enters else torch.no_grad()


def refuse_constraints(max_norm: float | None, solver: str) -> None:
    """Raise when a full-batch solver is asked to hold norms."""
    if solver in FULL_BATCH and max_norm is not None:
        raise ValueError(
            f"solver={solver!r} minimises without constraints, but max_norm={max_norm} is one. Use "
            "solver='adam' or 'sgd', or max_norm=None."
        )


def refuse_noise(objective: Objective, network: Network | None, solver: str) -> None:
    """Raise when a full-batch solver meets an objective or a module that draws noise."""
    noise = None if network is None else network.noise
    if objective.noise is not None:
        noise = f"{objective.noise}={getattr(objective, objective.noise, 'on')}"
    if noise is not None:
        raise ValueError(
            f"solver={solver!r} needs a deterministic objective, but {noise} draws noise at every "
            "evaluation. Use solver='adam' or 'sgd', or do without the noise."
        )


def refuse_single_rows(network: Network, n: int, batch_size: int) -> None:
    """Raise when a batch of one row would meet a module that normalises by the batch."""
    needs_rows = any(isinstance(s, Wrapped) and s.needs_rows for s in network.stacks)
    if needs_rows and (n % batch_size == 1 or batch_size == 1):
        raise ValueError(
            f"batch_size={batch_size} leaves a batch of one row of the {n} training rows, whose "
            "mean and variance batch normalisation cannot take. Choose another batch_size."
        )


def _solver(run: Run, state: Mapping[str, Any] | None) -> Adam | SGD:
    t, flat = run.training, run.buffer.flat
    solver: Adam | SGD
    if t.solver == "adam":
        solver = Adam(flat, epsilon=1e-8 * t.unit)
    else:
        solver = SGD(flat, t.momentum, t.nesterov)
    if state:
        solver.restore(state["solver"])
    return solver


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def _descend(run: Run, solver: Adam | SGD) -> None:
    """Adam and SGD: a step a batch."""
    t, engine, buffer, further = run.training, run.engine, run.buffer, run.further
    batches = Batches(run.source, run.rows, t.batch_size, t.shuffle)
    shuffle = run.streams.draws("shuffle", run.source.dtype)
    rate: Any = t.learning_rate_init
    if isinstance(rate, tuple):
        rate = torch.tensor(rate, dtype=buffer.flat.dtype, device=buffer.flat.device).view(-1, 1)
    schedule = SCHEDULES[t.learning_rate]
    first, horizon = run.epoch, t.horizon or run.epoch + t.max_iter
    state = run.objective_state
    n = batches.handed
    limited = [] if t.max_norm is None else _hidden_weights(run)
    flat, grad, is_constant = buffer.flat, buffer.grad, t.learning_rate == "constant"
    for epoch in range(first, first + t.max_iter):
        for i, (x, rows) in enumerate(batches.epoch(shuffle)):
            progress = min(1.0, (epoch + i / batches.count) / horizon)
            state = engine.add_gradient(x, rows, x.shape[-2], progress, state)
            solver.step(flat, grad, rate if is_constant else rate * schedule(progress))
            if further is not None:
                further.step(x, rows, schedule(progress))
            if limited:
                limit_norms(limited, t.max_norm)  # type: ignore[arg-type]
        run.objective_state = state
        if further is not None:
            further.end_epoch()
        loss = [value / n for value in engine.take_value().view(-1).tolist()]
        ended = min(1.0, (epoch + 1) / horizon)
        if run.end_epoch(loss, grad if batches.count == 1 else None, ended):
            return


def _hidden_weights(run: Run) -> list[tuple[Tensor, float]]:
    """The trained weights into hidden units, (..., out, in), each with its gain."""
    layers = [layer for stack in run.network.stacks for layer in stack.layers]  # type: ignore[union-attr]
    frozen, parameters = run.network.frozen_names(), run.buffer.parameters
    return [
        (parameters[layer.weight].mT if layer.tied else parameters[layer.weight], layer.gain)
        for layer in layers[:-1]
        if layer.weight not in frozen
    ]


def _minimise(run: Run) -> None:
    """L-BFGS and CG: every evaluation reads all rows, in chunks unless the objective mixes them."""
    engine, buffer, n = run.engine, run.buffer, run.source.n
    total = torch.zeros_like(buffer.grad)
    t, trial = run.training, {"state": run.objective_state}
    horizon = t.horizon or run.epoch + t.max_iter
    at_once = n if run.objective.mixes_rows else run.chunk
    batches = Batches(run.source, run.rows, at_once, shuffle=False)

    def value_and_gradient() -> tuple[float, Tensor]:
        total.zero_()
        trial["state"], progress = run.objective_state, min(1.0, run.epoch / horizon)
        for x, rows in batches.epoch(None):
            trial["state"] = engine.add_gradient(x, rows, n, progress, trial["state"])
            total.add_(buffer.grad)
        return float(engine.take_value()) / n, total

    def each_iteration(loss: float) -> bool:
        run.objective_state = trial["state"]  # which stays as it is during a line search
        return run.end_epoch([loss], total)

    first = run.epoch
    status, _ = minimise_full_batch(
        t.solver, buffer.flat, value_and_gradient, t.max_iter, each_iteration, t.unit
    )
    if run.epoch == first:
        value, _ = value_and_gradient()
        each_iteration(value)
    if status != 1:
        reason = "converged" if status in (0, 99) else "no_progress"
        run.monitor.stop_all(reason, buffer.flat)


def _restore(run: Run, state: Mapping[str, Any]) -> None:
    run.buffer.flat.copy_(state["flat"])
    run.streams.restore(state["streams"])
    run.monitor.restore(state["monitor"])
    run.network.load_buffers(state["buffers"])
    run.best_buffers, run.best_state = state["best_buffers"], state["best_state"]
    run.epoch = state["epoch"]
    if run.further is not None:
        run.further.restore(state["further"])
    # The objective may have been told to keep other things than it did.
    kept, fresh = state["objective"], run.objective_state
    run.objective_state = {name: kept.get(name, value) for name, value in fresh.items()}


def _result(run: Run) -> Result:
    state = run.resumable()
    run.network.load_buffers(run.best_buffers or run.network.buffers())
    best = run.monitor.chosen(run.buffer.flat)
    parameters = {name: p.clone() for name, p in run.buffer.view(best).items()}
    learned = {k: v.clone() for k, v in (run.best_state or run.objective_state).items()}
    return Result(parameters, run.monitor, run.plan, state, learned | run.told())


def stacked_parameters(each: Sequence[Parameters]) -> dict[str, Tensor]:
    """The parameters of several models on one leading axis."""
    return {name: torch.stack([p[name] for p in each]) for name in each[0]}

"""Both engines, and stacks of models, give the same value and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae._engine.autograd import Autograd
from skae._engine.buffer import Buffer
from skae._engine.fused import Fused
from skae._engine.rng import Streams
from skae.networks import Network
from skae.objective import Objective, Rows, stack
from skae.testing._trial import Trial


class _Step(NamedTuple):
    """What an engine gives in two batches of the same rows."""

    value: Tensor
    gradients: dict[str, Tensor]
    state: Mapping[str, Tensor]


class _Setting(NamedTuple):
    """Where an engine is tried."""

    network: Network
    lead: tuple[int, ...]
    rows: Rows
    words: str = "training"


def _step(trial: Trial, engine: str, objective: Objective, setting: _Setting) -> _Step:
    network, lead, rows, words = setting
    parameters = trial.parameters(network, *lead)
    shapes = {name: tuple(p.shape[len(lead) :]) for name, p in parameters.items()}
    buffer = Buffer(shapes, lead, torch.float64)
    buffer.fill(parameters)
    kind = Fused if engine == "fused" else Autograd
    x, state = trial.data(), trial.state()
    gradients: dict[str, Tensor] = {}
    with trial.calling(f"{words} by the {engine} engine", x, rows), torch.no_grad():
        run: Any = kind(network, objective, buffer, Streams([trial.seed]))
        for batch in (1, 2):
            state = run.add_gradient(x, rows, trial.n, 0.5, state)
            named = buffer.gradients.items()
            gradients |= {f"{name}, batch {batch}": g.clone() for name, g in named}
        return _Step(run.take_value(), gradients, state)


def check_engines(trial: Trial) -> None:
    """The fused engine gives what the autograd engine gives."""
    o, center = trial.objective, trial.data().mean(0)
    noisy = dataclasses.replace(o, dropout=0.3, input_dropout=0.2, alpha=0.1)
    can_tie = o.code_width(trial.k) == trial.k and o.output_width(trial.d) == trial.d
    for tied in (False, True)[: 1 + can_tie]:
        for hidden in (False, True):
            network = trial.network(hidden, tied, center if hidden else None)
            words = "training" + " tied weights" * tied
            for lead in ((), (trial.models,)):
                plain = trial.rows(weight=None, target=None, observed=None)
                _compare(trial, o, _Setting(network, lead, plain, words))
                everything = f"{words} with sample weights, targets and missing cells"
                _compare(trial, o, _Setting(network, lead, trial.rows(), everything))
                dropping = f"{words} with dropout, weight decay and sample weights"
                rows = trial.rows(observed=None)
                _compare(trial, noisy, _Setting(network, lead, rows, dropping))


def _compare(trial: Trial, objective: Objective, setting: _Setting) -> None:
    expected = _step(trial, "autograd", objective, setting)
    if not all(g.isfinite().all() for g in expected.gradients.values()):
        trial.fail(f"{setting.words} gives gradients that are not finite")
    if objective.needs_graph:
        return
    got = _step(trial, "fused", objective, setting)
    for name in _Step._fields:
        what = f"{setting.words} by the fused engine gives another {name} than by autograd"
        trial.equal(what, getattr(got, name), getattr(expected, name))


def check_stack(trial: Trial) -> None:
    """A stack of two objectives that differ in every float field."""
    first = trial.objective
    values = {field.name: getattr(first, field.name) for field in dataclasses.fields(first)}
    changed: dict[str, Any] = {
        k: 0.5 * v if v else 0.1 for k, v in values.items() if isinstance(v, float)
    }
    both = [first, dataclasses.replace(first, **changed)]
    with trial.calling("stack"):
        stacked = stack(both)
    setting = _Setting(trial.network(), (2,), trial.rows(observed=None), "training a stack")
    for engine in ("autograd", "fused")[: 1 + (not first.needs_graph)]:
        together = _step(trial, engine, stacked, setting)
        for m, objective in enumerate(both):
            alone = _step(trial, engine, objective, setting)
            what = "a stacked objective's {} is not the single one's: multiply before you reduce"
            trial.equal(what.format("value"), together.value[m], alone.value[m])
            for name, expected in alone.gradients.items():
                got = together.gradients[name][m]
                trial.equal(what.format(f"gradient for {name}"), got, expected[m])

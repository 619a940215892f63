"""`check_objective`: the contract of `Objective`, held against an objective of your own."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skae._engine.autograd import Autograd
from skae._engine.buffer import Buffer
from skae._engine.fused import Fused
from skae._engine.plan import computing
from skae._engine.rng import Draws, Streams
from skae.activations import ACTIVATIONS
from skae.networks import Dense, Network
from skae.objective import Forward, Objective, Rows, has_closed_penalty, overrides, stack
from skae.pairs import Pairs

__all__ = ["check_objective"]

_TOLERANCE = 1e-12  # relative to the largest entry
_FLOOR = 1e-3  # what that entry counts at least: rounding around an exact zero is no error


def check_objective(
    objective: Objective,
    *,
    n_samples: int = 7,
    n_features: int = 5,
    n_components: int = 3,
    models: int = 2,
    code_activation: str = "logistic",
    random_state: int = 0,
) -> None:
    """Check that an objective keeps the contract that both engines rely on.

    Everything is computed in float64 on small random dense networks with logistic codes, and
    compared to a relative difference of 1e-12. The rules:

    - it is data: a frozen dataclass of floats and static values, which pickles and equals its
      copy; no hook changes it, its arguments, or a global random generator;
    - ``corrupt`` and ``latent`` give the same for the same seed, in the dtype they are given; if
      another seed gives something else, ``noise`` names the parameter; ``encode`` draws nothing;
    - the value has shape (..., n), and ``penalty`` the same, or (..., 1) if ``penalises_batch``;
      with a leading model axis it is each model's own; where ``mixes_rows`` is False a row's
      value does not depend on the other rows or their order;
    - every closed form equals autograd: ``loss.gradient``, ``loss.accumulate``, and
      ``latent_gradient`` and ``penalty_gradient`` (or ``penalty_and_gradient``, with the same
      value as ``penalty``) where they are overridden (``value_and_gradient`` by the engines);
    - ``support``, where it is overridden, says where ``latent`` keeps h, in order of rows;
    - ``update`` returns a new state with the same names, with its own storage;
    - the fused engine's values, gradients and states equal the autograd engine's, with and
      without hidden layers, tied weights, sample weights, missing cells and dropout (not where
      ``needs_graph``);
    - ``stack`` of two objectives that differ in every float field equals the two.

    Parameters
    ----------
    objective : Objective
        A single objective, not a stack.

    n_samples, n_features, n_components : int, default=7, 5, 3
        Sizes of the data and the code; at least 2 samples.

    models : int, default=2
        Length of the leading axis.

    code_activation : str, default="logistic"
        Activation of the networks' code layer, for objectives that are made for another.

    random_state : int, default=0
        Seeds data, parameters and noise.

    Raises
    ------
    AssertionError
        If a rule is broken; the message says which and how.

    Examples
    --------
    >>> from skae.losses import SquaredError
    >>> from skae.objective import Objective
    >>> from skae.testing import check_objective
    >>> check_objective(Objective(loss=SquaredError(), alpha=0.01))
    """
    _check_is_data(objective)
    before = pickle.dumps(objective)
    trial = _Trial(
        objective, n_samples, n_features, n_components, models, random_state, code_activation
    )
    with computing(0.0, None):  # everything here is too small for a second thread
        for check in _CHECKS:
            check(trial)
    if pickle.loads(before) != objective:
        trial.fail("hooks change the objective: keep what they learn in `update`'s state")


@dataclass(frozen=True)
class _Trial:
    """An objective, and the sizes and the seed it is tried with."""

    objective: Objective
    n: int
    d: int
    k: int
    models: int
    seed: int
    code_activation: str

    def fail(self, how: str) -> None:
        raise AssertionError(f"{type(self.objective).__name__}: {how}.")

    def equal(self, what: str, got: Any, expected: Any) -> None:
        """Fail with `what` unless two tensors, or two mappings of tensors, are equal."""
        if isinstance(expected, Tensor):
            got, expected = {"": got}, {"": expected}
        scale = max([_FLOOR, *(_largest(value) for value in expected.values())])
        for name, value in expected.items():
            where = f"{what} ({name!r})" if name else what
            if got[name].shape != value.shape:
                self.fail(f"{where}: shape {tuple(got[name].shape)}, not {tuple(value.shape)}")
            difference = _largest(got[name] - value) / scale
            if not difference <= _TOLERANCE:
                self.fail(f"{where}: the largest relative difference is {difference:.1e}")

    @contextmanager
    def calling(self, hook: str, *inputs: Any) -> Iterator[None]:
        """Around the call of a hook, which may not raise, draw elsewhere or change its inputs."""
        given = list(_tensors(inputs))
        copies, generators = [t.detach().clone() for t in given], _global_generators()
        try:
            yield
        except Exception as error:
            name = type(self.objective).__name__
            raise AssertionError(
                f"{name}: {hook} raised {type(error).__name__}: {error}"
            ) from error
        for name, state in _global_generators().items():
            if state != generators[name]:
                self.fail(f"{hook} draws from {name}'s global generator: use the rng it is given")
        if not all(torch.equal(t, copy) for t, copy in zip(given, copies, strict=True)):
            self.fail(f"{hook} changes one of its arguments in place: work on a copy")

    def draws(self, purpose: str, seed: int | None = None) -> Draws:
        return Streams([self.seed if seed is None else seed]).draws(purpose, torch.float64)

    def normal(self, *shape: int, shift: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + shift)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def data(self, *lead: int, shift: int = 0) -> Tensor:
        """Rows inside the loss's domain."""
        low, high = self.objective.loss.domain
        x = self.normal(*lead, self.n, self.d, shift=shift)
        if math.isfinite(low) and math.isfinite(high):
            return low + (high - low) * (0.05 + 0.9 * x.sigmoid())
        if math.isfinite(low):
            return low + x.abs() + 0.05
        return high - x.abs() - 0.05 if math.isfinite(high) else x

    def rows(self, **without: None) -> Rows:
        """Everything that may be known of rows, but for the parts set to None."""
        weight = self.normal(self.n, shift=1).sigmoid() + 0.5
        observed = (self.normal(self.n, self.d, shift=2) < 0.5).double()
        index = torch.arange(self.n)
        phi = self.normal(self.n, self.n, shift=2).sigmoid()
        pairs = Pairs((phi + phi.mT).fill_diagonal_(0) / 2)
        rows = Rows(weight / weight.mean(), self.data(shift=3), observed, index, index % 2, pairs)
        return dataclasses.replace(rows, **without)

    def network(self, hidden: bool = True, tied: bool = False, center=None) -> Network:
        """A small network; hidden layers are as wide as h, so that the first W fits it."""
        o, width = self.objective, self.objective.code_width(self.k)
        inner = (width,) if hidden else ()
        code = self.code_activation
        gain_in, gain_out = (1.0, 1.0) if tied or center is None else (0.8, 1.3)
        widths = (self.d, *inner, width), (self.k, *inner, o.raw_width(self.d, self.k))
        encoder = Dense("encoder", widths[0], "tanh", code, None, center, gain_in)
        tied_to = encoder if tied else None
        decoder = Dense("decoder", widths[1], "tanh", "identity", tied_to, gain_out=gain_out)
        return Network(encoder, decoder)

    def parameters(self, network: Network, *lead: int) -> dict[str, Tensor]:
        """Random parameters of the network and of the objective."""
        with self.calling("parameters"):
            own = self.objective.parameters(self.d, self.k)
        start = {f"objective.{name}": value.double() for name, value in own.items()}
        for name, shape in (network.weight_shapes() | network.bias_shapes()).items():
            start[name] = torch.zeros(shape, dtype=torch.float64)
        return {
            name: value + 0.3 * self.normal(*lead, *value.shape, shift=4 + i)
            for i, (name, value) in enumerate(start.items())
        }

    def state(self) -> dict[str, Tensor]:
        with self.calling("init_state"):
            return self.objective.init_state(self.d, self.k)

    def corrupt(self, x: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor | None]:
        with self.calling("corrupt", x):
            found = self.objective.corrupt(x, self.draws("corruption", seed))
        if not (isinstance(found, tuple) and len(found) == 2):
            self.fail("corrupt must return (x_in, changed), changed None where it is not known")
        return found

    def latent(self, h: Tensor, seed: int | None = None) -> Tensor:
        with self.calling("latent", h):
            return self.objective.latent(h, self.draws("latent", seed))

    def value(self, out: Forward, net: Mapping[str, Tensor]) -> Tensor:
        out = out._replace(rng=self.draws("penalty"))  # the same draws at every call
        with self.calling("__call__", out, net):
            return self.objective(out, net)

    def forward(
        self, network: Network, parameters: Mapping[str, Tensor], x: Tensor
    ) -> tuple[Forward, dict[str, Tensor]]:
        """Through the network as the engines go; also the weights, as hooks see them."""
        graph = self.objective.needs_graph
        parameters = {k: v.detach().requires_grad_(graph) for k, v in parameters.items()}
        with torch.set_grad_enabled(graph):
            x_in, changed = self.corrupt(x)
            x_in = x_in.detach().requires_grad_(graph)
            a, h = network.encoder.both_sides(parameters, x_in)  # type: ignore[union-attr]
            z = self.latent(h)
            raw = network.decoder.forward(parameters, z)
        rows = self.rows(target=None, observed=None)
        encoder = partial(network.encoder.forward, parameters)
        out = Forward(x, x_in, h, z, raw, rows, changed, 0.5, self.state(), a,
                      self.draws("penalty"), encoder)  # fmt: skip
        biases = network.bias_shapes()
        return out, {name: v for name, v in parameters.items() if name not in biases}


def _check_is_data(objective: Any) -> None:
    name = type(objective).__name__
    if not isinstance(objective, Objective):
        raise AssertionError(f"{name}: an objective must inherit from skae.objective.Objective.")
    fields = {field.name for field in dataclasses.fields(objective)}
    for cls in type(objective).__mro__:
        for key, annotation in inspect.get_annotations(cls).items():
            if key not in fields and "ClassVar" not in str(annotation):
                raise AssertionError(
                    f"{name}: {key!r} is annotated but is no field: decorate {cls.__name__} with "
                    "@dataclass(frozen=True, kw_only=True)."
                )
    for key, value in vars(objective).items():
        if isinstance(value, Tensor | nn.Module | torch.Generator | np.ndarray | list | dict | set):
            raise AssertionError(
                f"{name}: {key!r} is a {type(value).__name__}, but fields are floats (stacked) or "
                "static values: an objective holds no parameters, no modules and no state."
            )
    try:
        copy = pickle.loads(pickle.dumps(objective))
    except Exception as error:
        raise AssertionError(f"{name}: an objective must pickle, but: {error}") from error
    if copy != objective:
        raise AssertionError(f"{name}: an objective must be equal to its pickled copy.")


def _check_draws(trial: _Trial) -> None:
    """Of `corrupt`, `latent` and `encode`: shapes, dtypes, seeds and the name of the noise."""
    o, x = trial.objective, trial.data()
    h = trial.normal(trial.n, o.code_width(trial.k)).sigmoid()
    for name, part in zip(("x_in", "changed"), trial.corrupt(x), strict=True):
        if part is not None and part.shape != x.shape:
            trial.fail(f"corrupt's {name} has shape {tuple(part.shape)} for x {tuple(x.shape)}")
    z = trial.latent(h)
    if z.ndim != 2 or z.shape[-1] != trial.k or z.shape[-2] % trial.n:
        trial.fail(f"latent's z has shape {tuple(z.shape)}, not (a multiple of n, k)")
    hooks: dict[str, Callable[..., Tensor]] = {
        "corrupt": lambda seed, dtype=torch.float64: trial.corrupt(x.to(dtype), seed)[0],
        "latent": lambda seed, dtype=torch.float64: trial.latent(h.to(dtype), seed),
    }
    for name, hook in hooks.items():
        if not torch.equal(hook(1), hook(1)):
            trial.fail(f"{name} gives two results for one seed: draw from rng only")
        if o.noise is None and not torch.equal(hook(1), hook(2)):
            trial.fail(f"{name} draws noise, but `noise` is None: return the parameter's name")
        dtype = hook(1, torch.float32).dtype
        if dtype is not torch.float32:
            trial.fail(f"{name} turns float32 into {dtype}")
    with trial.calling("encode", h):
        codes, again = o.encode(h), o.encode(h)
    if codes.shape != (trial.n, trial.k) or not torch.equal(codes, again):
        trial.fail(f"encode must give one code of width {trial.k} for each row, without noise")


def _check_support(trial: _Trial) -> None:
    """`support` says where `latent` keeps h, and in order."""
    if not overrides(trial.objective, "support"):
        return
    h = trial.normal(trial.n, trial.objective.code_width(trial.k)).sigmoid()
    with trial.calling("support", h):
        places = trial.objective.support(h, trial.draws("latent"))
    if places is None:
        return
    kept = torch.zeros_like(h).view(-1)
    kept[places] = h.flatten()[places]
    trial.equal("support is not where latent keeps h", trial.latent(h), kept.view_as(h))
    if ((places // h.shape[-1]).diff() < 0).any():
        trial.fail("support's places are not in ascending order of rows")


def _check_value(trial: _Trial) -> None:
    """Shape (..., n), and with a leading axis each model's own value."""
    network, x = trial.network(), trial.data(trial.models)
    parameters = trial.parameters(network, trial.models)
    alone = []
    for m in range(trial.models):
        own = {name: value[m] for name, value in parameters.items()}
        out, net = trial.forward(network, own, x[m])
        with trial.calling("penalty", out, net):
            penalty = trial.objective.penalty(out, net)
        batch = trial.objective.penalises_batch
        if penalty is not None and penalty.shape != ((1,) if batch else (trial.n,)):
            expected = f"{'(1,)' if batch else '(n,)'}, as penalises_batch is {batch}"
            trial.fail(f"penalty has shape {tuple(penalty.shape)}, not {expected}")
        alone.append(trial.value(out, net))
        if alone[m].shape != (trial.n,):
            trial.fail(f"the value has shape {tuple(alone[m].shape)}, not (n,)")
    together = trial.value(*trial.forward(network, parameters, x))
    what = "with a leading axis the value is not each model's own (reduce over the last axes only)"
    trial.equal(what, together, torch.stack(alone))


def _check_rows(trial: _Trial) -> None:
    """The value of rows does not depend on which rows come with them, and in which order."""
    if trial.objective.mixes_rows or trial.objective.needs_graph:
        return
    network = trial.network()
    out, net = trial.forward(network, trial.parameters(network), trial.data())
    value = trial.value(out, net)
    drawn = trial.objective(out._replace(rng=trial.draws("penalty", trial.seed + 1)), net)
    if not torch.equal(drawn, value):
        return  # rows have other draws in another place
    for index in (trial.normal(trial.n).argsort(), torch.arange(trial.n // 2)):
        parts = [trial.value(_take(out, index, inner), net) for inner in (False, True)]
        if not any(torch.allclose(part, value[index], rtol=1e-10, atol=1e-13) for part in parts):
            trial.fail("the value of a row depends on the other rows: set `mixes_rows = True`")


def _take(out: Forward, index: Tensor, inner: bool) -> Forward:
    """These rows; where `latent` added rows, the copies of a row lie together (inner) or not."""
    n = out.x.shape[-2]

    def rows(part: Tensor | None) -> Tensor | None:
        if part is None:
            return None
        copies = torch.arange(part.shape[-2] // n)
        if inner:
            return part[..., (index[:, None] * len(copies) + copies).flatten(), :]
        return part[..., (index + n * copies[:, None]).flatten(), :]

    parts: dict[str, Any] = {
        name: rows(getattr(out, name)) for name in ("x", "x_in", "h", "z", "raw", "changed", "a")
    }
    return out._replace(**parts, rows=out.rows.take(index))


def _check_loss(trial: _Trial) -> None:
    loss, x = trial.objective.loss, trial.data()
    raw = trial.normal(trial.n, trial.objective.output_width(trial.d), shift=3)
    leaf = raw.clone().requires_grad_()
    with torch.enable_grad():
        elements = loss.elements(x, leaf)
    (expected,) = torch.autograd.grad(elements.sum(), leaf, retain_graph=True)
    with trial.calling("loss.gradient", x, raw):
        gradient = loss.gradient(x, raw)
    trial.equal("loss.gradient is not the derivative of loss.elements", gradient, expected)
    of_rows, of_cells = (trial.normal(trial.n, w, shift=1).sigmoid() for w in (1, trial.d))
    for weight in (None, of_rows, of_cells):
        scale = 0.5 if weight is None else 0.5 * weight
        total, overwritten = torch.ones_like(x), raw.clone()
        with trial.calling("loss.accumulate", x):
            loss.accumulate(x, overwritten, scale, weight, total)
        summed = elements.detach() * (1 if weight is None else weight) + 1
        trial.equal("loss.accumulate does not add weight * elements to total", total, summed)
        (expected,) = torch.autograd.grad((scale * elements).sum(), leaf, retain_graph=True)
        what = "loss.accumulate does not leave the gradient of scale * elements in raw"
        trial.equal(what, overwritten, expected)


def _check_closed_forms(trial: _Trial) -> None:
    """`latent_gradient` and the penalty's gradient, with and without a leading axis."""
    for lead in ((), (trial.models,)):
        network = trial.network()
        parameters = trial.parameters(network, *lead)
        out, net = trial.forward(network, parameters, trial.data(*lead))
        if overrides(trial.objective, "latent_gradient"):
            _check_latent_gradient(trial, out.h.detach())
        if has_closed_penalty(trial.objective):
            _check_penalty_gradient(trial, out, net)


def _check_latent_gradient(trial: _Trial, h: Tensor) -> None:
    leaf = h.clone().requires_grad_()
    with torch.enable_grad():
        z = trial.latent(leaf)
    d_z = trial.normal(*z.shape, shift=5)
    (expected,) = torch.autograd.grad(z, leaf, d_z)
    with trial.calling("latent_gradient", h, z.detach()):
        got = trial.objective.latent_gradient(d_z.clone(), h, z.detach())
    trial.equal("latent_gradient is not the derivative of latent", got, expected)


def _check_penalty_gradient(trial: _Trial, out: Forward, net: Mapping[str, Tensor]) -> None:
    parts = (*_TRACED, "a") if trial.objective.needs_input else _TRACED
    leaves = {
        name: value.detach().clone().requires_grad_()
        for name, value in {**{k: getattr(out, k) for k in parts}, **net}.items()
    }
    traced = out._replace(**{name: leaves[name] for name in parts})
    with torch.enable_grad():
        penalty = trial.objective.penalty(traced, {name: leaves[name] for name in net})
        if penalty is None:
            return
        share = trial.normal(*penalty.shape, 1, shift=5)
        total = (share.squeeze(-1) * penalty).sum()
    found: Sequence[Tensor | None] = [None] * len(leaves)  # where the penalty is a constant
    if total.requires_grad:
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    expected = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
    if "a" in expected:  # the engine multiplies what it gets for h by f'(a)
        f = ACTIVATIONS[trial.code_activation]
        expected["h"] = expected["h"] + expected.pop("a") / f.derivative(out.h, out.a)  # type: ignore[arg-type]
    for name in _TRACED[1:]:
        if expected.pop(name).any():
            trial.fail(f"penalty_gradient covers h and weights, but penalty depends on {name} too")
    with trial.calling("penalty_gradient", out, net):
        value, d_h, d_net = trial.objective.penalty_and_gradient(out, net, share)
    trial.equal("penalty_and_gradient gives another value than penalty", value, penalty.detach())
    got = {name: torch.zeros_like(value) for name, value in expected.items()} | d_net
    what = "penalty_gradient is not the derivative of penalty"
    trial.equal(what, got if d_h is None else got | {"h": d_h}, expected)


_TRACED = ("h", "z", "raw", "x_in")


def _check_update(trial: _Trial) -> None:
    network, state = trial.network(), trial.state()
    out, _ = trial.forward(network, trial.parameters(network), trial.data())
    with trial.calling("update", state, out), torch.no_grad():
        new = trial.objective.update(state, out)
    if set(new) != set(state):
        trial.fail(f"update returns the state {sorted(new)}, but init_state gives {sorted(state)}")
    kept = {name: value.clone() for name, value in new.items()}
    for name in ("x", *_TRACED):
        getattr(out, name).detach().add_(1)  # as the engine does with the next batch
    if not all(torch.equal(new[name], kept[name]) for name in kept):
        trial.fail("update keeps a view of the batch, which the engine overwrites: clone it")


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


def _step(trial: _Trial, engine: str, objective: Objective, setting: _Setting) -> _Step:
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


def _check_engines(trial: _Trial) -> None:
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


def _compare(trial: _Trial, objective: Objective, setting: _Setting) -> None:
    expected = _step(trial, "autograd", objective, setting)
    if not all(g.isfinite().all() for g in expected.gradients.values()):
        trial.fail(f"{setting.words} gives gradients that are not finite")
    if objective.needs_graph:
        return
    got = _step(trial, "fused", objective, setting)
    for name in _Step._fields:
        what = f"{setting.words} by the fused engine gives another {name} than by autograd"
        trial.equal(what, getattr(got, name), getattr(expected, name))


def _check_stack(trial: _Trial) -> None:
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


def _largest(t: Tensor) -> float:
    return float(t.detach().abs().max()) if t.numel() else 0.0


def _tensors(given: Any) -> Iterator[Tensor]:
    """All tensors in nested containers."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Rows | Pairs | Mapping):
        yield from _tensors(tuple((given if isinstance(given, Mapping) else vars(given)).values()))
    elif isinstance(given, tuple):
        for part in given:
            yield from _tensors(part)


def _global_generators() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (only looked at)
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": (name, np.asarray(keys).tobytes(), *rest),
        "Python": random.getstate(),
    }


_CHECKS: tuple[Callable[[_Trial], None], ...] = (
    _check_draws,
    _check_support,
    _check_value,
    _check_rows,
    _check_loss,
    _check_closed_forms,
    _check_update,
    _check_engines,
    _check_stack,
)

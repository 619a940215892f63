"""Every hook by itself: what it is given, what it gives, and that closed forms are right."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skae.activations import ACTIVATIONS
from skae.objective import Forward, Objective, has_closed_penalty, overrides
from skae.testing._trial import Trial


def check_is_data(objective: Any) -> None:
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


def check_draws(trial: Trial) -> None:
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


def check_support(trial: Trial) -> None:
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


def check_value(trial: Trial) -> None:
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


def check_rows(trial: Trial) -> None:
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


def check_loss(trial: Trial) -> None:
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


def check_closed_forms(trial: Trial) -> None:
    """`latent_gradient` and the penalty's gradient, with and without a leading axis."""
    for lead in ((), (trial.models,)):
        network = trial.network()
        parameters = trial.parameters(network, *lead)
        out, net = trial.forward(network, parameters, trial.data(*lead))
        if overrides(trial.objective, "latent_gradient"):
            check_latent_gradient(trial, out.h.detach())
        if has_closed_penalty(trial.objective):
            check_penalty_gradient(trial, out, net)


def check_latent_gradient(trial: Trial, h: Tensor) -> None:
    leaf = h.clone().requires_grad_()
    with torch.enable_grad():
        z = trial.latent(leaf)
    d_z = trial.normal(*z.shape, shift=5)
    (expected,) = torch.autograd.grad(z, leaf, d_z)
    with trial.calling("latent_gradient", h, z.detach()):
        got = trial.objective.latent_gradient(d_z.clone(), h, z.detach())
    trial.equal("latent_gradient is not the derivative of latent", got, expected)


def check_penalty_gradient(trial: Trial, out: Forward, net: Mapping[str, Tensor]) -> None:
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


def check_update(trial: Trial) -> None:
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

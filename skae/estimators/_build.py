"""From parameters to a network, and from a trained network to fitted attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._engine.batches import Source
from skae._engine.monitor import Monitor
from skae._engine.plan import Plan, make_plan
from skae._engine.start import Moments, place
from skae.estimators._input import feature_label
from skae.losses import Linked, Loss, Poisson
from skae.modules import DenseModule, Wrapped, wrap
from skae.networks import Dense, Network, Parallel, Stack, dense_of
from skae.objective import Features, Objective

_ROUNDING = 1e-6  # how far beyond a loss's domain X may lie


class Start(NamedTuple):
    """Where a fit begins; with a state, where it continues."""

    network: Network
    n_components: int
    scale: float
    initial: dict[str, Tensor]
    seed: int
    settings: dict[str, Any]
    features: Features  # as the first data had them
    state: Mapping[str, Any] | None = None
    seen: tuple[Objective, Moments, Any] | None = None  # what the losses in `state` are of

    def state_for(self, objective: Objective, m: Moments, task: Any) -> Mapping[str, Any] | None:
        """The state to go on from; losses of other data or another objective are no measure."""
        if self.state is None or self.seen is None:
            return None
        was, before, then = self.seen
        if not objective.shares_state(was):
            return without_records(self.state) | {"objective": {}}
        same_data = before.scale == m.scale and torch.equal(before.mean, m.mean)
        if was == objective and same_data and then == task:
            return self.state
        return without_records(self.state)

    def continues(self, settings: Mapping[str, Any], source: Source) -> bool:
        """Whether training can go on, optimiser and all, with these settings.

        Raises ValueError when X is not of the kind that training began with.
        """
        width = self.network.encoder.in_features(source.d)
        dtype = next(iter(self.initial.values())).dtype
        if width != source.d or dtype != source.dtype:
            raise ValueError(
                f"warm_start continues training on {width} features in {dtype}, but X has "
                f"{source.d} features in {source.dtype}. Pass data of the same kind, or set "
                "warm_start=False to start anew."
            )
        return all(same_setting(value, settings[name]) for name, value in self.settings.items())


def without_records(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state to train on from where losses so far are no measure of those to come."""
    fresh = {"best": [math.inf], "waited": [0], "best_flat": [None]}
    monitor = state["monitor"] | fresh
    return {**state, "monitor": monitor, "best_buffers": {}, "best_state": {}}


# What a network and its optimiser are built from.
SETTINGS = (
    "n_components", "hidden_layer_sizes", "activation", "code_activation", "output_activation",
    "tied_weights", "encoder", "decoder", "solver", "loss",
)  # fmt: skip


def same_setting(a: Any, b: Any) -> bool:
    """Whether two values of a parameter are the same; modules are what they are."""
    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return a is b
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):  # it may be ragged
        return len(a) == len(b) and all(map(same_setting, a, b))
    return a is b or bool(np.array_equal(a, b))


def build_network(
    estimator: Any, objective: Objective, source: Source, m: Moments
) -> tuple[Network, int]:
    """The network of the estimator's parameters, and the number of code units."""
    if estimator.tied_weights and not (estimator.encoder is None and estimator.decoder is None):
        raise ValueError(
            "tied_weights=True needs the built-in dense layers: leave encoder and decoder None, "
            "or set tied_weights=False."
        )
    d, hidden = source.d, layer_sizes(estimator.hidden_layer_sizes)
    k = estimator.n_components or math.ceil(math.sqrt(d))
    encoder: Stack
    if estimator.encoder is None:
        widths = (d, *hidden, objective.code_width(k))
        code_activation = resolved_code_activation(estimator)
        encoder = Dense("encoder", widths, estimator.activation, code_activation)
    else:
        encoder = wrap("encoder", estimator.encoder, source.dtype, source.device)
        width = _probed_width("encoder", encoder.working, d, source)
        k = _code_units(objective, width)
        if estimator.n_components not in (None, k):
            raise ValueError(
                f"n_components={estimator.n_components}, but encoder gives codes of width {k}. "
                "Leave n_components=None, or change the encoder."
            )
        encoder = unwrapped(encoder)
    decoder: Stack
    if estimator.decoder is None:
        widths = (k, *hidden[::-1], objective.output_width(d))
        tied_to = encoder if estimator.tied_weights else None
        decoder = Dense("decoder", widths, estimator.activation, "identity", tied_to)  # type: ignore[arg-type]
    else:
        decoder = wrap("decoder", estimator.decoder, source.dtype, source.device)
        width = _probed_width("decoder", decoder.working, k, source)
        if width != objective.output_width(d):
            raise ValueError(
                f"decoder gives {width} columns, but X has {objective.output_width(d)} features. "
                "Its last layer must be as wide as X."
            )
        decoder = unwrapped(decoder)
    network = Network(encoder, decoder)
    if not (network.weight_shapes() or network.bias_shapes()):
        raise ValueError("encoder and decoder have no parameters to train.")
    if estimator.solver != "sgd":
        network = place(network, objective.loss, m, source.dtype, source.device)
    return network, k


def _code_units(objective: Objective, width: int) -> int:
    """The number of code units for which an encoder has this many outputs."""
    k = next((k for k in range(1, width + 1) if objective.code_width(k) >= width), width)
    if objective.code_width(k) != width:
        raise ValueError(
            f"encoder gives {width} outputs, but a code of {k} units needs "
            f"{objective.code_width(k)}. Change the width of its last layer."
        )
    return k


def unwrapped(stack: Wrapped) -> Stack:
    """The stack of a module of dense layers, as fitted estimators hold it: it counts as built in.

    Unless some of its parameters are not to be trained.
    """
    module = stack.working
    is_dense = isinstance(module, DenseModule) and all(p.requires_grad for p in module.parameters())
    return dense_of(stack.name, module) if is_dense else stack  # type: ignore[arg-type]


def given_weights(network: Network, estimator: Any, source: Source) -> dict[str, Tensor]:
    """Starting values of the dense stacks that were given as modules."""
    values: dict[str, Tensor] = {}
    given = (network.encoder, estimator.encoder), (network.decoder, estimator.decoder)
    for stack, module in given:
        if isinstance(stack, Dense) and module is not None:
            values |= module_values(stack, module, source)
    return values


def module_values(stack: Dense, module: nn.Module, source: Source) -> dict[str, Tensor]:
    """A stack's parameters from a module like those that it makes, ready for this source."""
    read = stack.read(module).items()
    return stack.imported({k: v.to(dtype=source.dtype, device=source.device) for k, v in read})


def resolved_code_activation(estimator: Any) -> str:
    """The activation of the code layer, by name."""
    if estimator.code_activation != "auto":
        return estimator.code_activation
    return "identity" if layer_sizes(estimator.hidden_layer_sizes) else estimator.activation


def layer_sizes(sizes: Any, name: str = "hidden_layer_sizes") -> tuple[int, ...]:
    """Widths of hidden layers, given as one or several."""
    hidden = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
    if not all(isinstance(size, Integral) and int(size) >= 1 for size in hidden):
        raise ValueError(f"{name} must be positive integers, got {sizes!r}.")
    return tuple(int(size) for size in hidden)


def _probed_width(name: str, module: nn.Module, width_in: int, source: Source) -> int:
    """The width of what a user's module returns for rows of this width."""
    rows = torch.zeros(2, width_in, dtype=source.dtype, device=source.device)
    module.eval()
    try:
        with torch.no_grad():
            out = module(rows)
    except Exception as error:
        raise ValueError(
            f"{name} failed on an input of shape (2, {width_in}): {error}. It must take rows of "
            f"width {width_in}."
        ) from error
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{name} must return a tensor of shape (n, width), got {shape}.")
    return out.shape[1]


class OutOfRange(ValueError):
    """X leaves what can be represented: what is wrong, and what to do if X is to stay."""

    def __init__(self, fault: str, otherwise: str):
        super().__init__(fault, otherwise)

    def __str__(self) -> str:
        return self.advising("Scale X, for example with MinMaxScaler")

    def advising(self, remedy: str) -> str:
        """The message with this remedy."""
        fault, otherwise = self.args
        return f"{fault} {remedy}, or {otherwise}"


def check_range(
    estimator: Any,
    loss: Loss,
    m: Moments,
    columns: Sequence[int] | None = None,
    said: tuple[str, str] | None = None,
) -> None:
    """Raise OutOfRange when X leaves what the loss or the output activation can represent.

    `m` are the moments of X, or of these columns of it. `said` are the parameter that was given
    and what to use instead, where it is not the loss.
    """
    low, high = loss.domain
    for bound, values, beyond in ((low, m.low, low - m.low), (high, m.high, m.high - high)):
        if math.isinf(bound) or float(beyond.max()) <= _ROUNDING:
            continue
        i = int(beyond.argmax())
        if said is not None:
            given, other = said
        elif isinstance(loss, Linked):
            given = f"output_activation={loss.output_activation!r}"
            other = "output_activation='identity'"
        else:
            given, other = f"loss={estimator.loss!r}", "loss='squared_error'"
        interval = f"[{low:g}, {high:g}]" if math.isfinite(high) else f"[{low:g}, inf)"
        label = feature_label(estimator, i if columns is None else columns[i])
        raise OutOfRange(
            f"{given} needs X in {interval}, but {label} reaches {float(values[i]):g}.",
            f"use {other}."
            + (" Negative values in data are no counts." if isinstance(loss, Poisson) else ""),
        )


def copied_weights(network: Network, given: Any) -> dict[str, Tensor]:
    """Starting values from a fitted estimator of the same shape."""
    check_is_fitted(
        given,
        msg="initialize_from is not fitted. Fit it first; inside a search, pass the fitted "
        "estimator itself, which clone() then keeps.",
    )
    if not hasattr(given, "encoder_"):
        given = getattr(given, "estimator", given)  # a FrozenEstimator
    modules = [getattr(given, f"{stack.name}_", None) for stack in network.stacks]
    for stack, module in zip(network.stacks, modules, strict=True):
        if not isinstance(module, nn.Module):
            raise _no_weights(stack, given)
        for part, own in _dense_parts(stack, module):
            _check_shapes(part, own)
    return network.imported(network.read(*modules))  # type: ignore[arg-type]


def _no_weights(stack: Stack, given: Any) -> ValueError:
    """What to say where there is nothing to take a stack's weights from."""
    if isinstance(getattr(given, "encoder_", None), nn.Module):
        return ValueError(
            f"initialize_from (or warm_start) has no {stack.name}_, this estimator has one. Give "
            "both the same kind of network."
        )
    return ValueError(
        f"initialize_from must be an autoencoder of this package, got {type(given).__name__}."
    )


def _dense_parts(stack: Stack, module: nn.Module) -> list[tuple[Dense, nn.Module]]:
    """The dense stacks in a stack, each with the module that its parameters are to come from."""
    if not isinstance(stack, Parallel):
        return [(stack, module)] if isinstance(stack, Dense) else []
    parts = getattr(module, "parts", ())
    if len(parts) != len(stack.parts):
        raise ValueError(
            f"initialize_from (or warm_start) has {len(parts)} {stack.name}s side by side, this "
            f"estimator has {len(stack.parts)}. Give both the same number of groups."
        )
    return list(zip(stack.parts, parts, strict=True))


def _check_shapes(stack: Dense, module: nn.Module) -> None:
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not linears:
        raise ValueError(
            f"initialize_from (or warm_start) has no dense layers in its {stack.name}, this "
            "estimator has. Give both the same kind of network."
        )
    theirs = [linears[0].in_features, *(linear.out_features for linear in linears)]
    if len(theirs) != len(stack.widths):
        raise ValueError(
            f"initialize_from (or warm_start) has {len(theirs) - 1} {stack.name} layers, this "
            f"estimator {len(stack.widths) - 1}. Give both the same hidden_layer_sizes."
        )
    for i, (a, b) in enumerate(zip(zip(theirs, theirs[1:]), zip(stack.widths, stack.widths[1:]))):  # noqa: B905, RUF007
        if a != b:
            raise ValueError(
                f"initialize_from (or warm_start) does not fit at {stack.name} layer {i}: it has "
                f"{a[0]} inputs and {a[1]} outputs, this estimator {b[0]} and {b[1]}."
            )


def fitted_attributes(
    start: Start,
    objective: Objective,
    parameters: Mapping[str, Tensor],
    monitor: Monitor,
    state: Mapping[str, Tensor],
) -> dict[str, Any]:
    """What a fitted estimator holds; modules have their own storage."""
    network = start.network
    modules = network.modules(network.exported(parameters))
    loss_curve = list(monitor.loss_curves[0])
    validation = list(monitor.validation_curves[0])
    plan: Plan = make_plan(network, objective)
    return {
        **{f"{stack.name}_": m for stack, m in zip(network.stacks, modules, strict=True)},
        "objective_": objective.learned(state),
        "engine_": plan,
        "n_components_": start.n_components,
        "n_iter_": len(loss_curve),
        "loss_curve_": loss_curve,
        "validation_loss_curve_": validation or None,
        "loss_": loss_curve[-1] if loss_curve else math.nan,
        "best_loss_": monitor.best[0] if math.isfinite(monitor.best[0]) else math.nan,
        "stop_reason_": monitor.reasons[0] or "running",
    }

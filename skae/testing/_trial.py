"""An objective on trial: data, networks and parameters that fit it, and how it fails."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skae._engine.rng import Draws, Streams
from skae.networks import Dense, Network
from skae.objective import Forward, Objective, Rows
from skae.pairs import Pairs

_TOLERANCE = 1e-12  # relative to the largest entry
_FLOOR = 1e-3  # what that entry counts at least: rounding around an exact zero is no error


@dataclass(frozen=True)
class Trial:
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

"""Networks as data: stacks of dense layers, and encoder with decoder.

A stack knows the names and shapes of its parameters and is a pure function of them. Parameters
are a dictionary of tensors whose leading axes, if any, are models trained together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise, zip_longest
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae.activations import ACTIVATIONS, NAME_OF
from skae.modules import DenseModule, Linear, ParallelModule, Parameters, Wrapped, as_index


class Layer(NamedTuple):
    """One dense layer, h = f(gain (x W^T) + b): the names of its parameters and its constants."""

    weight: str
    bias: str
    shape: tuple[int, int]  # of the stored weight: (out, in), or its transpose when tied
    tied: bool  # the stored weight belongs to the encoder and is used transposed
    activation: str
    gain: float  # of the weight
    bias_gain: float


def matmul_layer(layer: Layer, parameters: Parameters, x: Tensor) -> Tensor:
    """The layer before its activation, of shape (..., n, out)."""
    W, b = parameters[layer.weight], parameters[layer.bias].unsqueeze(-2)
    a = torch.matmul(x, W if layer.tied else W.mT)
    if layer.gain != 1:
        a = a * layer.gain
    return a + (b if layer.bias_gain == 1 else b * layer.bias_gain)


def _uniform(draws, shape: tuple[int, ...], r_squared: float) -> Tensor:
    r = math.sqrt(r_squared)
    return draws.uniform(shape).mul_(2 * r).sub_(r)


@dataclass(frozen=True)
class Dense:
    """A stack of dense layers, widths[0] -> ... -> widths[-1].

    `center`, `gain_in` and `gain_out` put the parameters in the units of the data: the first
    layer sees (x - center) * gain_in, the last one's weights and bias count gain_out. They change
    the optimiser's coordinates, not the set of functions (`exported` multiplies them out). Tied
    weights serve both ends, so they have no gains. Parameters of the first `frozen` layers are not
    trained.
    """

    name: str
    widths: tuple[int, ...]
    activation: str | tuple[str, ...]  # of the layers before the last: of all, or of each
    last_activation: str
    tied_to: Dense | None = None
    center: Tensor | None = field(default=None, compare=False)
    gain_in: float = 1.0
    gain_out: float = 1.0
    frozen: int = 0

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(self._layer(i) for i in range(len(self.widths) - 1))

    def _layer(self, i: int) -> Layer:
        last = len(self.widths) - 2
        fan_in, fan_out = self.widths[i : i + 2]
        hidden = self.activation if isinstance(self.activation, str) else (*self.activation, "")[i]
        gain = (self.gain_in if i == 0 else 1.0) * (self.gain_out if i == last else 1.0)
        return Layer(
            weight=self.tied_to.layers[last - i].weight if self.tied_to else self._key(i, "W"),
            bias=self._key(i, "b"),
            shape=(fan_in, fan_out) if self.tied_to else (fan_out, fan_in),
            tied=self.tied_to is not None,
            activation=self.last_activation if i == last else hidden,
            gain=gain,
            bias_gain=self.gain_out if i == last else 1.0,
        )

    def _key(self, i: int, kind: str) -> str:
        return f"{self.name}.{i}.{kind}"

    def frozen_names(self) -> set[str]:
        """The parameters that are not trained."""
        return {name for layer in self.layers[: self.frozen] for name in (layer.weight, layer.bias)}

    def in_features(self, default: int) -> int:
        """Width of the input; `default` where the stack takes any."""
        return self.widths[0]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {} if self.tied_to else {layer.weight: layer.shape for layer in self.layers}

    def bias_shapes(self) -> dict[str, tuple[int, ...]]:
        return {self._key(i, "b"): (w,) for i, w in enumerate(self.widths[1:])}

    def initial(self, draws) -> Iterator[tuple[str, Tensor]]:
        """Uniform weights and biases; the output's bias, placed by the data, is left out.

        Weights in U(-r, r) with r^2 = 2 / fan_in, 1 / fan_in into the output, and biases with
        r^2 = 1 / fan_in: of nine rules tried on three data sets the lowest losses overall.
        """
        for i, layer in enumerate(self.layers):
            fan_in = self.widths[i]
            is_output = self.name.startswith("decoder") and i == len(self.widths) - 2
            if not layer.tied:
                yield layer.weight, _uniform(draws, layer.shape, (1 if is_output else 2) / fan_in)
            if not is_output:
                yield layer.bias, _uniform(draws, self.widths[i + 1 : i + 2], 1 / fan_in)

    def forward(self, parameters: Parameters, x: Tensor, drop=None) -> Tensor:
        """Output of shape (..., n, widths[-1]); `drop`, if any, masks the layers before it."""
        return self.both_sides(parameters, x, drop)[1]

    def both_sides(self, parameters: Parameters, x: Tensor, drop=None) -> tuple[Tensor, Tensor]:
        """The last layer before and after its activation."""
        a = h = x if self.center is None else x - self.center
        for i, layer in enumerate(self.layers):
            if drop is not None and i > 0:
                h = drop(h)
            a = matmul_layer(layer, parameters, h)
            h = ACTIVATIONS[layer.activation].function(a)
        return a, h

    def exported(self, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters of the same function without center and gains."""
        out = {}
        for i, layer in enumerate(self.layers):
            W, b = parameters[layer.weight], parameters[layer.bias]
            b = b * layer.bias_gain
            if not layer.tied:
                W = W * layer.gain
                out[layer.weight] = W
            if i == 0 and self.center is not None:
                b = b - (W.mT if layer.tied else W) @ self.center.to(W)
            out[layer.bias] = b
        return out

    def imported(self, exported: Parameters) -> dict[str, Tensor]:
        """The inverse of `exported`."""
        out = {}
        for i, layer in enumerate(self.layers):
            W, b = exported[layer.weight], exported[layer.bias]
            if i == 0 and self.center is not None:
                b = b + (W.mT if layer.tied else W) @ self.center.to(W)
            out[layer.bias] = b / layer.bias_gain
            if not layer.tied:
                out[layer.weight] = W / layer.gain
        return out

    def module(self, exported: Parameters) -> DenseModule:
        """A torch module with its own copy of the parameters."""
        parts: list[nn.Module] = []
        for layer in self.layers:
            W = exported[layer.weight].mT if layer.tied else exported[layer.weight]
            linear = Linear(W.shape[1], W.shape[0], device="meta")
            linear.weight = nn.Parameter(W.detach().clone(memory_format=torch.contiguous_format))
            linear.bias = nn.Parameter(exported[layer.bias].detach().clone())
            parts.append(linear)
            if layer.activation != "identity":
                parts.append(ACTIVATIONS[layer.activation].module())  # type: ignore[misc]
        return DenseModule(*parts).eval()

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        """The parameters of a module made by `module`."""
        linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
        out = {}
        for layer, linear in zip(self.layers, linears, strict=True):
            out[layer.bias] = linear.bias.detach()
            if not layer.tied:
                out[layer.weight] = linear.weight.detach()
        return out


@dataclass(frozen=True)
class Parallel:
    """Dense stacks side by side: each reads columns of its own, and their outputs are joined.

    `reads` holds, for every part, the columns of the input that it sees; together they have
    each column once. The parts' parameters are disjoint, so that training the whole is training
    each.
    """

    name: str
    parts: tuple[Dense, ...]
    reads: tuple[tuple[int, ...], ...]

    tied_to = None  # parts have no weights in common

    @property
    def widths(self) -> tuple[int, int]:
        """Of the input and of the joined output."""
        ends = [(part.widths[0], part.widths[-1]) for part in self.parts]
        return sum(first for first, _ in ends), sum(last for _, last in ends)

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for part in self.parts for layer in part.layers)

    @cached_property
    def columns(self) -> tuple[slice | Tensor, ...]:
        """What picks each part's columns of the input."""
        return tuple(as_index(columns) for columns in self.reads)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """Where each part's output lies in the joined one."""
        ends = accumulate((part.widths[-1] for part in self.parts), initial=0)
        return tuple(slice(start, end) for start, end in pairwise(ends))

    @cached_property
    def center(self) -> Tensor | None:
        """The parts' centers, joined in the order of the input."""
        centers = [part.center for part in self.parts]
        like = next((center for center in centers if center is not None), None)
        if like is None:
            return None
        joined = like.new_zeros(self.widths[0])
        for columns, center in zip(self.columns, centers, strict=True):
            if center is not None:
                joined[columns] = center
        return joined

    def in_features(self, default: int) -> int:
        """Width of the input."""
        return self.widths[0]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: v for part in self.parts for k, v in part.weight_shapes().items()}

    def bias_shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: v for part in self.parts for k, v in part.bias_shapes().items()}

    def initial(self, draws) -> Iterator[tuple[str, Tensor]]:
        """Starting values of one part after the other."""
        for part in self.parts:
            yield from part.initial(draws)

    def forward(self, parameters: Parameters, x: Tensor, drop=None) -> Tensor:
        """Joined output of shape (..., n, widths[-1])."""
        return self.both_sides(parameters, x, drop)[1]

    def both_sides(self, parameters: Parameters, x: Tensor, drop=None) -> tuple[Tensor, Tensor]:
        """The parts' last layers before and after their activation."""
        both = zip(self.parts, self.columns, strict=True)
        sides = [part.both_sides(parameters, x[..., columns], drop) for part, columns in both]
        return torch.cat([a for a, _ in sides], -1), torch.cat([h for _, h in sides], -1)

    def exported(self, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters of the same function without center and gains."""
        return {k: v for part in self.parts for k, v in part.exported(parameters).items()}

    def imported(self, exported: Parameters) -> dict[str, Tensor]:
        """The inverse of `exported`."""
        return {k: v for part in self.parts for k, v in part.imported(exported).items()}

    def module(self, exported: Parameters) -> ParallelModule:
        """A torch module with its own copy of the parameters."""
        return ParallelModule([part.module(exported) for part in self.parts], self.reads)

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        """The parameters of a module made by `module`."""
        both = zip(self.parts, module.parts, strict=True)  # type: ignore[arg-type]
        return {k: v for part, own in both for k, v in part.read(own).items()}


def dense_of(name: str, module: DenseModule) -> Dense:
    """The stack that made a dense module, in the units of X."""
    parts = list(module)
    linears = [part for part in parts if isinstance(part, nn.Linear)]
    names = []
    for part, after in zip_longest(parts, parts[1:]):
        if isinstance(part, nn.Linear):
            is_linear = after is None or isinstance(after, nn.Linear)
            names.append("identity" if is_linear else NAME_OF[type(after)])
    widths = (linears[0].in_features, *(linear.out_features for linear in linears))
    return Dense(name, widths, tuple(names[:-1]), names[-1])


Stack = Dense | Parallel | Wrapped


@dataclass(frozen=True)
class Network:
    """An encoder and a decoder."""

    encoder: Stack
    decoder: Stack

    #: Whether `decoded` draws codes of the network's own.
    draws = False

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """All that has parameters; encoder and decoder come first."""
        return self.encoder, self.decoder

    def decoded(self, parameters: Parameters, z: Tensor, drop=None, rng=None) -> Tensor:
        """What the objective sees of the network above z, as ``Forward.raw``."""
        return self.decoder.forward(parameters, z, drop)

    @property
    def is_dense(self) -> bool:
        return not any(isinstance(stack, Wrapped) for stack in self.stacks)

    def encoder_outputs(self, rows: Tensor) -> int:
        """Number of encoder outputs, for rows of the data's width."""
        if not isinstance(self.encoder, Wrapped):
            return self.encoder.widths[-1]
        self.encoder.working.eval()
        with torch.no_grad():
            return self.encoder.working(rows).shape[-1]

    def buffers(self) -> dict[str, Tensor]:
        """Copies of what users' modules keep beside parameters, as running statistics."""
        return {
            f"{stack.name}.{k}": b.clone()
            for stack in self.stacks
            if isinstance(stack, Wrapped)
            for k, b in stack.working.named_buffers()
        }

    def load_buffers(self, saved: Mapping[str, Tensor]) -> None:
        """Put back what `buffers` copied."""
        for stack in self.stacks:
            if isinstance(stack, Wrapped):
                for k, b in stack.working.named_buffers():
                    b.copy_(saved[f"{stack.name}.{k}"])

    @property
    def noise(self) -> str | None:
        """The kind of a user's layer that draws noise in training; None without."""
        for stack in self.stacks:
            if isinstance(stack, Wrapped) and (kind := stack.noise) is not None:
                return kind
        return None

    def train(self, mode: bool) -> None:
        """Put users' modules into training or inference mode."""
        for stack in self.stacks:
            if isinstance(stack, Wrapped):
                stack.train(mode)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters that weight decay covers."""
        return {k: v for stack in self.stacks for k, v in stack.weight_shapes().items()}

    def bias_shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: v for stack in self.stacks for k, v in stack.bias_shapes().items()}

    def frozen_names(self) -> set[str]:
        """The parameters of built-in layers that are not trained."""
        return set().union(*(s.frozen_names() for s in self.stacks if isinstance(s, Dense)))

    def weight_gains(self) -> dict[str, float]:
        """What each stored weight is multiplied with before it is used, where that is not 1."""
        layers = (layer for s in self.stacks if not isinstance(s, Wrapped) for layer in s.layers)
        return {layer.weight: layer.gain for layer in layers if layer.gain != 1}

    def initial(self, draws) -> dict[str, Tensor]:
        """Starting values; parameters left out start at zero."""
        return {k: v for stack in self.stacks for k, v in stack.initial(draws)}

    def exported(self, parameters: Parameters) -> dict[str, Tensor]:
        """The parameters in the units of X, as users see them."""
        return {k: v for stack in self.stacks for k, v in stack.exported(parameters).items()}

    def imported(self, exported: Parameters) -> dict[str, Tensor]:
        """The inverse of `exported`."""
        return {k: v for stack in self.stacks for k, v in stack.imported(exported).items()}

    def modules(self, exported: Parameters) -> tuple[nn.Module, ...]:
        """The stacks as torch modules with their own storage."""
        return tuple(stack.module(exported) for stack in self.stacks)

    def read(self, *modules: nn.Module) -> dict[str, Tensor]:
        """The exported parameters of the modules made by `modules`."""
        both = zip(self.stacks, modules, strict=True)
        return {k: v for stack, module in both for k, v in stack.read(module).items()}


def side_by_side(networks: Sequence[Network], reads: Sequence[Sequence[int]]) -> Network:
    """One network of several dense ones, each with its own columns of x and of the code."""
    encoders, decoders = zip(*(network.stacks for network in networks), strict=True)
    encoder = Parallel("encoder", encoders, tuple(tuple(columns) for columns in reads))
    codes = tuple(tuple(range(block.start, block.stop)) for block in encoder.blocks)
    return Network(encoder, Parallel("decoder", decoders, codes))

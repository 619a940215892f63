"""Torch modules: what a fitted estimator holds, and modules of the user's own as stacks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from skae.activations import ACTIVATIONS, NAME_OF

Parameters = Mapping[str, Tensor]
_NOISY = (nn.modules.dropout._DropoutNd, nn.RReLU)


class Linear(nn.Linear):
    """torch's linear layer without random weights, which it is about to be given."""

    def reset_parameters(self) -> None:
        """Draw nothing."""


class DenseModule(nn.Sequential):
    """Linear layers and activations: an ordinary torch module with a quicker inference."""

    def infer(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The output without a graph, in x's dtype: activations work in place.

        The last layer writes to `out`, if given.
        """
        linears = [part for part in self if isinstance(part, nn.Linear)]
        if out is not None and out.shape[-1] != linears[-1].out_features:
            out = None  # what the layers give is not yet the result
        for part in self:
            if isinstance(part, nn.Linear):
                b, W = part.bias.to(x.dtype), part.weight.to(x.dtype)
                x = torch.addmm(b, x, W.t(), out=out if part is linears[-1] else None)
            else:
                ACTIVATION_OF[type(part)].into(x, out=x)
        return x


class ParallelModule(nn.Module):
    """Dense modules side by side: each reads columns of its own, and their outputs are joined."""

    def __init__(self, parts: Sequence[DenseModule], reads: Sequence[Sequence[int]]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.columns = [as_index(columns) for columns in reads]

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of all parts, side by side."""
        both = zip(self.parts, self.columns, strict=True)
        return torch.cat([part(x[..., columns]) for part, columns in both], -1)

    def infer(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The output without a graph, in x's dtype; a tensor of its own."""
        both = zip(self.parts, self.columns, strict=True)
        return torch.cat([part.infer(x[..., columns]) for part, columns in both], -1)  # type: ignore[operator]


class Applied(nn.Module):
    """A hook of an objective, or a loss's `predict`, as a step between modules.

    Parameters
    ----------
    owner : Objective or Loss
        Numbers with pure functions of tensors.

    method : str
        Which of them: "encode" of an objective, or "predict" of a loss.
    """

    def __init__(self, owner: Any, method: str):
        super().__init__()
        self.owner, self.method = owner, method

    def forward(self, x: Tensor) -> Tensor:
        """What the function gives for x."""
        return getattr(self.owner, self.method)(x)

    def extra_repr(self) -> str:
        """The function, by name."""
        return f"{type(self.owner).__name__}.{self.method}"


def as_index(columns: Sequence[int]) -> slice | Tensor:
    """What picks these columns: a slice, which copies nothing, where they follow each other."""
    if list(columns) == list(range(columns[0], columns[0] + len(columns))):
        return slice(columns[0], columns[0] + len(columns))
    return torch.tensor(columns)


ACTIVATION_OF = {kind: ACTIVATIONS[name] for kind, name in NAME_OF.items()}


def infer(module: nn.Module, x: Tensor, out: Tensor | None = None) -> Tensor:
    """The module's output for inference, in x's dtype whatever the module's.

    A plain dense module writes it to `out`, if given; others return a tensor of their own.
    """
    if isinstance(module, DenseModule | ParallelModule):
        return module.infer(x, out)
    parameter = next(module.parameters(), x)
    if parameter.dtype != x.dtype:
        module = copy.deepcopy(module).to(x.dtype)
    return module(x)


@dataclass(frozen=True)
class Wrapped:
    """A torch module as a stack. `working` is a private copy (`wrap` makes it)."""

    name: str
    working: nn.Module
    in_training: frozenset[str] = frozenset()  # parts that the user left in training mode

    @property
    def noise(self) -> str | None:
        """The kind of a layer that draws noise in training; None without."""
        for name, part in self.working.named_modules():
            draws = isinstance(part, _NOISY) and getattr(part, "p", 1) > 0
            if draws and name in self.in_training:
                return type(part).__name__
        return None

    @property
    def needs_rows(self) -> bool:
        """Whether a layer normalises by the batch's statistics, which one row does not have."""
        kind = nn.modules.batchnorm._BatchNorm
        return any(isinstance(part, kind) and name in self.in_training
                   for name, part in self.working.named_modules())  # fmt: skip

    def train(self, mode: bool) -> None:
        """Put the module in training or inference mode; what the user put in the latter stays."""
        for name, part in self.working.named_modules():
            part.training = mode and name in self.in_training

    def in_features(self, default: int) -> int:
        """Not known of a module."""
        return default

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: tuple(p.shape) for k, p in self._named() if p.ndim > 1}

    def bias_shapes(self) -> dict[str, tuple[int, ...]]:
        return {k: tuple(p.shape) for k, p in self._named() if p.ndim <= 1}

    def _named(self) -> list[tuple[str, Tensor]]:
        """What is trained: frozen parameters stay in the module as they are."""
        named = self.working.named_parameters()
        return [(f"{self.name}.{k}", p) for k, p in named if p.requires_grad]

    def initial(self, draws) -> Iterator[tuple[str, Tensor]]:
        """The module's own weights."""
        yield from ((k, p.detach()) for k, p in self._named())

    def forward(self, parameters: Parameters, x: Tensor, drop=None) -> Tensor:
        """Output of shape (..., n, k); leading axes of the parameters are mapped over."""
        named = self._named()
        own = {k.removeprefix(self.name + "."): parameters[k] for k, _ in named}
        if not own:
            return self.working(x)
        lead = parameters[named[0][0]].shape[: -named[0][1].ndim or None]

        def call(p, rows):
            return functional_call(self.working, p, (rows,))

        for _ in lead:
            call = vmap(call, randomness="different")
        return call(own, x.expand(*lead, *x.shape[-2:]) if lead else x)

    def exported(self, parameters: Parameters) -> dict[str, Tensor]:
        return {k: parameters[k] for k, _ in self._named()}

    imported = exported

    def module(self, exported: Parameters) -> nn.Module:
        """A copy of the module that holds these parameters, ready for inference."""
        copied = copy.deepcopy(self.working)
        with torch.no_grad():
            for k, p in copied.named_parameters():
                if p.requires_grad:
                    p.copy_(exported[f"{self.name}.{k}"])
        return copied.eval()

    def read(self, module: nn.Module) -> dict[str, Tensor]:
        """The parameters of a module made by `module`, whose buffers are taken over too."""
        self.working.load_state_dict(module.state_dict())
        named = module.named_parameters()
        return {f"{self.name}.{k}": p.detach() for k, p in named if p.requires_grad}


def wrap(name: str, module: nn.Module, dtype: torch.dtype, device) -> Wrapped:
    """A stack that trains a copy of `module` in this dtype and on this device."""
    in_training = frozenset(part for part, m in module.named_modules() if m.training)
    return Wrapped(name, copy.deepcopy(module).to(dtype=dtype, device=device), in_training)

"""Activations: an elementwise function, its in-place form and its derivatives, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

aten = torch.ops.aten
INF = float("inf")


class Activation(NamedTuple):
    """An elementwise function, its in-place form and its derivative, as torch's own kernels."""

    function: Callable[[Tensor], Tensor]
    into: Callable[..., Any]  # into(a, out=h)
    backward_: Callable[[Tensor, Tensor, Tensor], Tensor]  # (delta, h, a) -> delta * f'(a)
    derivative: Callable[[Tensor, Tensor], Tensor]  # (h, a) -> f'(a), which autograd can follow
    second: Callable[[Tensor, Tensor], Tensor]  # (h, a) -> f''(a)
    range: tuple[float, float] = (-INF, INF)
    needs_input: bool = False  # the derivatives are functions of a, not of h = f(a)
    module: Callable[[], nn.Module] | None = None


class Exp(nn.Module):
    """exp, elementwise."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


def _identity_into(a: Tensor, *, out: Tensor) -> Tensor:
    return a if out is a else out.copy_(a)


def _bell(s: Tensor) -> Tensor:
    return s * (1 - s)


def _silu_first(a: Tensor, s: Tensor) -> Tensor:
    return s * (1 + a * (1 - s))


def _silu_second(a: Tensor, s: Tensor) -> Tensor:
    return _bell(s) * (2 + a * (1 - 2 * s))


def _normal_density(a: Tensor) -> Tensor:
    return torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)


# name -> activation. Derivatives take torch's backward kernels: one pass, in place.
ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(
        lambda a: a,
        _identity_into,
        lambda delta, h, a: delta,
        lambda h, a: torch.ones_like(h),
        lambda h, a: torch.zeros_like(h),
        module=nn.Identity,
    ),
    "logistic": Activation(
        torch.sigmoid,
        torch.sigmoid,
        lambda delta, h, a: aten.sigmoid_backward.grad_input(delta, h, grad_input=delta),
        lambda h, a: _bell(h),
        lambda h, a: _bell(h) * (1 - 2 * h),
        (0.0, 1.0),
        module=nn.Sigmoid,
    ),
    "tanh": Activation(
        torch.tanh,
        torch.tanh,
        lambda delta, h, a: aten.tanh_backward.grad_input(delta, h, grad_input=delta),
        lambda h, a: 1 - h * h,
        lambda h, a: -2 * h * (1 - h * h),
        (-1.0, 1.0),
        module=nn.Tanh,
    ),
    "relu": Activation(
        torch.relu,
        lambda a, *, out: torch.relu_(a) if out is a else aten.relu.out(a, out=out),
        lambda delta, h, a: aten.threshold_backward.grad_input(delta, h, 0.0, grad_input=delta),
        lambda h, a: (h > 0).to(h.dtype),
        lambda h, a: torch.zeros_like(h),
        (0.0, INF),
        module=nn.ReLU,
    ),
    "softplus": Activation(
        nn.functional.softplus,
        lambda a, *, out: aten.softplus.out(a, out=out),
        lambda delta, h, a: aten.softplus_backward.grad_input(delta, a, 1, 20, grad_input=delta),
        lambda h, a: torch.sigmoid(a),
        lambda h, a: _bell(torch.sigmoid(a)),
        (0.0, INF),
        needs_input=True,
        module=nn.Softplus,
    ),
    "elu": Activation(
        nn.functional.elu,
        lambda a, *, out: aten.elu.out(a, out=out),
        lambda delta, h, a: aten.elu_backward.grad_input(delta, 1, 1, 1, True, h, grad_input=delta),
        lambda h, a: torch.where(h > 0, 1.0, h + 1),
        lambda h, a: torch.where(h > 0, 0.0, h + 1),
        (-1.0, INF),
        module=nn.ELU,
    ),
    "silu": Activation(
        nn.functional.silu,
        lambda a, *, out: aten.silu.out(a, out=out),
        lambda delta, h, a: aten.silu_backward.grad_input(delta, a, grad_input=delta),
        lambda h, a: _silu_first(a, torch.sigmoid(a)),
        lambda h, a: _silu_second(a, torch.sigmoid(a)),
        (-0.2785, INF),
        needs_input=True,
        module=nn.SiLU,
    ),
    "gelu": Activation(
        nn.functional.gelu,
        lambda a, *, out: aten.gelu.out(a, out=out),
        lambda delta, h, a: aten.gelu_backward.grad_input(delta, a, grad_input=delta),
        lambda h, a: torch.special.ndtr(a) + a * _normal_density(a),
        lambda h, a: (2 - a * a) * _normal_density(a),
        (-0.17, INF),
        needs_input=True,
        module=nn.GELU,
    ),
    "exp": Activation(
        torch.exp,
        torch.exp,
        lambda delta, h, a: delta.mul_(h),
        lambda h, a: h.clone(),
        lambda h, a: h.clone(),
        (0.0, INF),
        module=Exp,
    ),
}

#: The activation of a torch module's class.
NAME_OF = {activation.module: name for name, activation in ACTIVATIONS.items()}

"""Optimisers: one formula over a flat tensor, whatever its leading axes.

Adam (Kingma and Ba, 2015, algorithm 1, with bias correction) and SGD with momentum step once a
batch; L-BFGS and conjugate gradient are SciPy's, over the full batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

Rate = float | Tensor  # a learning rate, or one per model of shape (M, 1)


class Adam:
    """m and v are decayed means of g and g^2; a step is rate * m^ / (sqrt(v^) + epsilon)."""

    def __init__(
        self, flat: Tensor, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8
    ):
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.m, self.v = torch.zeros_like(flat), torch.zeros_like(flat)
        self.t = 0
        # torch's kernel does the same in one pass over memory, for one rate.
        self._kernel = getattr(torch, "_fused_adam_", None)
        self._t, self._one = torch.zeros((), device=flat.device), torch.ones((), device=flat.device)

    def step(self, flat: Tensor, grad: Tensor, rate: Rate) -> None:
        """Move `flat` one step down."""
        self.t += 1
        if self._kernel is not None and isinstance(rate, float):
            self._t.add_(self._one)
            self._kernel(
                [flat], [grad], [self.m], [self.v], [], [self._t], lr=rate, beta1=self.beta_1,
                beta2=self.beta_2, weight_decay=0.0, eps=self.epsilon, amsgrad=False,
                maximize=False,
            )  # fmt: skip
            return
        self.m.lerp_(grad, 1 - self.beta_1)
        self.v.mul_(self.beta_2).addcmul_(grad, grad, value=1 - self.beta_2)
        denominator = (self.v / (1 - self.beta_2**self.t)).sqrt_().add_(self.epsilon)
        flat.sub_(self.m / denominator * (rate / (1 - self.beta_1**self.t)))

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        return {"m": self.m.clone(), "v": self.v.clone(), "t": self.t}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.t = state["t"]
        self._t.fill_(self.t)


class SGD:
    """u = momentum u + g; a step is rate * u, or rate * (g + momentum u) by Nesterov."""

    def __init__(self, flat: Tensor, momentum: float = 0.9, nesterov: bool = True):
        self.momentum, self.nesterov = momentum, nesterov
        self.u = torch.zeros_like(flat)

    def step(self, flat: Tensor, grad: Tensor, rate: Rate) -> None:
        """Move `flat` one step down."""
        direction = grad
        if self.momentum:
            self.u.mul_(self.momentum).add_(grad)
            direction = grad.add(self.u, alpha=self.momentum) if self.nesterov else self.u
        if isinstance(rate, Tensor):
            flat.addcmul_(direction, rate, value=-1)
        else:
            flat.add_(direction, alpha=-rate)

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        return {"u": self.u.clone()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.u.copy_(state["u"])


def limit_norms(weights: Sequence[tuple[Tensor, float]], most: float) -> None:
    """Scale rows of W, of shape (..., out, in), down to this norm; W is the tensor times its gain.

    A row holds the weights into a unit: the max-norm constraint of Srivastava et al. (2014).
    """
    for stored, gain in weights:
        norm = torch.linalg.vector_norm(stored, dim=-1, keepdim=True).mul_(gain)
        stored.mul_(most / norm.clamp_(min=most))


def minimise_full_batch(
    method: str,
    flat: Tensor,
    value_and_gradient: Callable[[], tuple[float, Tensor]],
    max_iter: int,
    each_iteration: Callable[[float], bool],
    unit: float,
) -> tuple[int, str]:
    """Minimise over `flat` in place with SciPy's "lbfgs" or "cg".

    Returns SciPy's status (0: a minimum, 1: out of iterations, 99: stopped from outside, else
    no further descent) and its message.

    `value_and_gradient` evaluates at the present `flat`. `each_iteration` is told the value after
    every iteration and stops by returning True. Values are divided by `unit` for SciPy, whose
    stopping tests are absolute; ours come first.
    """
    from scipy.optimize import minimize  # a twentieth of the package's import time

    shape, iterate = flat.shape, flat.clone()

    def fun(p: np.ndarray) -> tuple[float, np.ndarray]:
        flat.copy_(torch.from_numpy(p).view(shape))
        value, grad = value_and_gradient()
        gradient = np.nan_to_num(grad.reshape(-1).cpu().double().numpy() / unit)
        return float(np.nan_to_num(value / unit, nan=np.finfo(float).max)), gradient

    def callback(intermediate_result) -> None:
        flat.copy_(torch.from_numpy(np.asarray(intermediate_result.x)).view(shape))
        iterate.copy_(flat)
        if each_iteration(float(intermediate_result.fun) * unit):
            raise StopIteration

    options = {"maxiter": max_iter, "gtol": 1e-12}
    if method == "lbfgs":
        options |= {"ftol": 0.0, "maxfun": 20 * max_iter + 20, "maxcor": 20}
    try:
        # SciPy's own linear algebra is a few vectors: its threads would only wait for torch's,
        # which made an iteration 15 times slower.
        with threadpool_limits(1, user_api="blas"):
            found = minimize(
                fun,
                flat.reshape(-1).cpu().double().numpy().copy(),
                jac=True,
                method={"lbfgs": "L-BFGS-B", "cg": "CG"}[method],
                callback=callback,
                options=options,
            )
    except KeyboardInterrupt:
        flat.copy_(iterate)  # not a point that the line search was trying
        raise
    flat.copy_(torch.from_numpy(np.asarray(found.x)).view(shape))
    return int(found.status), str(found.message)

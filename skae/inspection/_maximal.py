"""The inputs to which code units respond the most."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params
from torch import Tensor, nn

from skae._engine.plan import computing
from skae.inspection._fitted import holder
from skae.modules import ACTIVATION_OF, Applied, ParallelModule

_LONGEST = 16.0  # steps in units of the norm: from there on the projection keeps the direction


@validate_params(
    {
        "estimator": "no_validation",
        "units": ["array-like", None],
        "norm": [Interval(Real, 0, None, closed="neither")],
        "center": ["array-like", None],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def maximally_activating_inputs(
    estimator, *, units=None, norm=1.0, center=None, n_starts=8, max_iter=200, tol=1e-6,
    random_state=None,
):  # fmt: skip
    r"""Find the inputs of bounded norm that activate code units the most.

    .. math::
        x^*_i = \arg\max_{|x - c| \le r} a_i(x)

    with :math:`a_i` what unit i of the code is before its activation, which grows with it, c the
    center and r the norm. An encoder of one layer has :math:`a_i(x) = W_i x + b_i`, hence [1]_

    .. math::
        x^*_i = c + r \frac{W_i}{\sqrt{\sum_j W_{ij}^2}}

    Deeper ones are climbed by projected gradient ascent from several starts, the center and
    random ones. Every start has a step of its own, that grows while the activation does. It ends
    in a local maximum; the best of a unit's is returned.

    Parameters
    ----------
    estimator : object
        A fitted autoencoder or network of this package, or a pipeline, a search or a detector
        with one. The inputs are in the units that it sees, behind the steps in front of it.

    units : array-like of shape (n_units,), default=None
        The code units; None is all of them.

    norm : float, default=1.0
        Largest distance of an input from the center, in units of X.

    center : array-like of shape (n_features,), default=None
        The middle of the ball, for example the mean of X; None is the origin. It makes a
        difference to deep encoders only, beside being added.

    n_starts : int, default=8
        Starts of the ascent for every unit.

    max_iter : int, default=200
        Largest number of steps of the ascent.

    tol : float, default=1e-6
        The ascent ends when no step longer than this, in units of the norm, leads upwards.

    random_state : int, RandomState instance, default=None
        Draws the starts. Encoders of one layer need none.

    Returns
    -------
    inputs : ndarray of shape (n_units, n_features)
        One for every unit; the center for a unit that does not depend on its input there.

    References
    ----------
    .. [1] A. Ng, "Sparse autoencoder", CS294A lecture notes, section 4, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae.inspection import maximally_activating_inputs
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = Autoencoder(n_components=9, hidden_layer_sizes=(), max_iter=5, tol=None).fit(X)
    >>> inputs = maximally_activating_inputs(ae)
    >>> inputs.shape
    (9, 64)
    >>> bool(np.allclose(np.linalg.norm(inputs, axis=1), 1))
    True
    """
    network = holder(estimator, "encoder_")
    d = width_in(network)
    a, k = _preactivations(network, d)
    units = np.arange(k) if units is None else _checked_units(units, k)
    parameter = next(network.encoder_.parameters(), torch.zeros(0))
    kind: dict[str, Any] = {"dtype": parameter.dtype, "device": parameter.device}
    c = torch.zeros(d, **kind) if center is None else torch.tensor(np.asarray(center), **kind)
    if c.shape != (d,):
        raise ValueError(f"center must have shape ({d},), as the features, got {tuple(c.shape)}.")
    if isinstance(a, nn.Linear):
        x = c + norm * _directions(a.weight.detach()[torch.as_tensor(units)])
    else:
        draws = check_random_state(random_state).normal(size=(n_starts, len(units), d))
        draws[0] = 0  # the center
        start = c + norm * _directions(torch.tensor(draws, **kind)).reshape(-1, d)
        unit = torch.as_tensor(units, device=kind["device"]).repeat(n_starts)
        weights = sum(p.numel() for p in network.encoder_.parameters())
        with computing(6.0 * len(start) * weights, None):  # small steps want one thread
            x, value = _climb(a, unit, start, c, norm, max_iter, tol)
        best = value.view(n_starts, -1).argmax(0)
        x = x.view(n_starts, -1, d)[best, torch.arange(len(units))]
    return x.cpu().numpy()


def _checked_units(units: Any, k: int) -> np.ndarray:
    units = np.asarray(units)
    if units.ndim != 1 or units.dtype.kind not in "iu" or ((units < 0) | (units >= k)).any():
        raise ValueError(f"units must be integers from 0 to {k - 1}, got {units.tolist()}.")
    return units


def width_in(network: Any) -> int:
    """The width of what the encoder sees: of X, unless other steps stand in front of it."""
    first = next(network.encoder_.children(), None)
    return first.in_features if isinstance(first, nn.Linear) else network.n_features_in_


def _preactivations(network: Any, d: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """What the code units are before their activation, as a function of rows, and their number."""
    row = next(network.encoder_.parameters(), torch.zeros(0)).new_zeros(1, d)
    with torch.no_grad():
        whole = network.encoder_(row).shape[-1]
        bare = _without_activation(network.encoder_)
        width = bare(row).shape[-1]
    k = getattr(network, "n_components_", whole)
    if width == k:
        return bare, k
    # A Gaussian code: the objective picks the means from what the encoder gives.
    encode = network.objective_.encode if whole != k else nn.Identity()
    return (lambda x: encode(network.encoder_(x))), k


def _without_activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module up to the last layer's activation, or to what an objective makes of the code."""
    if isinstance(module, ParallelModule):
        both = [
            (_without_activation(p), own)
            for p, own in zip(module.parts, module.columns, strict=True)
        ]
        return lambda x: torch.cat([part(x[..., columns]) for part, columns in both], -1)
    if not isinstance(module, nn.Sequential):
        return module
    steps = list(module)
    while len(steps) > 1 and (type(steps[-1]) in ACTIVATION_OF or isinstance(steps[-1], Applied)):
        steps.pop()
    return steps[0] if len(steps) == 1 else nn.Sequential(*steps)


def _directions(rows: Tensor) -> Tensor:
    """Rows of length 1, and rows of zeros as they are."""
    return torch.nn.functional.normalize(rows, dim=-1, eps=torch.finfo(rows.dtype).tiny)


def _climb(
    a: Callable[[Tensor], Tensor], unit: Tensor, x: Tensor, c: Tensor, norm: float, max_iter: int,
    tol: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Projected gradient ascent of a_unit from every row, and the values reached."""
    value, slope = _value_and_direction(a, unit, x)
    step = torch.ones_like(x[:, :1])
    for _ in range(max_iter):
        moved = x + step * norm * slope - c
        moved = c + moved * (norm / moved.norm(dim=-1, keepdim=True).clamp_min(norm))
        higher, there = _value_and_direction(a, unit, moved)
        rose = (higher > value)[:, None]
        x, slope = torch.where(rose, moved, x), torch.where(rose, there, slope)
        value = torch.where(rose[:, 0], higher, value)
        step = torch.where(rose, 2 * step, step / 4).clamp_max(_LONGEST)
        if step.max() < tol:
            break
    return x, value


def _value_and_direction(
    a: Callable[[Tensor], Tensor], unit: Tensor, x: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = a(x).gather(-1, unit[:, None])[:, 0]
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), _directions(slope)

"""What estimators that draw data share: seeded draws, a bounded number of rows at a time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from skae._engine.rng import Draws

_CELLS = 2**21  # of the widest layer, drawn at once


def sampling_draws(estimator: Any, n_samples: Any, random_state: Any) -> Draws:
    """Draws for `sample`, where the network is and in its dtype; both arguments are validated."""
    validate_parameter_constraints(
        {"n_samples": [Interval(Integral, 1, None, closed="left")],
         "random_state": ["random_state"]},
        {"n_samples": n_samples, "random_state": random_state}, type(estimator).__name__,
    )  # fmt: skip
    seed = secrets.randbits(31)
    if random_state is not None:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    # A decoder of one's own may have no parameters: the encoder then has.
    parameter = next(p for held in estimator._held_modules for p in held.parameters())
    generator = torch.Generator(parameter.device).manual_seed(seed)
    return Draws([generator], parameter.dtype, parameter.device)


def portions(n: int, widest: int) -> Iterator[int]:
    """Numbers of rows that add up to n, each few enough for layers of this width."""
    most = max(1, _CELLS // widest)
    for start in range(0, n, most):
        yield min(most, n - start)

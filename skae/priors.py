"""Priors: distributions that the code of an adversarial autoencoder is to have over all rows.

Each is data with one method, `draw`, whose random numbers come from `rng` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prior:
    """What every prior has.

    `least` is the lowest value of each number that is one of its parameters; those of `positive`
    exclude it.
    """

    least: ClassVar[dict[str, float]] = {}
    positive: ClassVar[frozenset[str]] = frozenset()
    n_components: ClassVar[int | None] = None  # code units that it is for; None: any number

    def __post_init__(self) -> None:
        for name, low in self.least.items():
            value, is_open = getattr(self, name), name in self.positive
            is_number = isinstance(value, Real) and math.isfinite(value)
            if not is_number or value < low or (is_open and value == low):
                raise ValueError(
                    f"{name} of the prior {type(self).__name__} must be a finite number "
                    f"{'above' if is_open else 'of at least'} {low:g}, got {value!r}."
                )

    def draw(self, n: int, k: int, rng: Any) -> Tensor:
        """n draws of k units, of shape (n, k)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Gaussian(Prior):
    """N(0, scale^2 I).

    Parameters
    ----------
    scale : float, default=1.0
        Standard deviation of every unit.
    """

    scale: float = 1.0
    least = {"scale": 0}
    positive = frozenset({"scale"})

    def draw(self, n, k, rng):
        return rng.normal((n, k)) * self.scale


@dataclass(frozen=True)
class GaussianMixture(Prior):
    """Gaussians in the plane like petals: round a circle, and longer towards its centre.

    Parameters
    ----------
    n_modes : int, default=10
        Number of petals, equally frequent.

    radius : float, default=1.4
        Distance of their means from the origin. With the other defaults a unit's variance is 1.1.

    along, across : float, default=0.5, 0.1
        Standard deviations of a petal in the direction of the origin and across it.
    """

    n_modes: int = 10
    radius: float = 1.4
    along: float = 0.5
    across: float = 0.1
    n_components = 2
    least = {"n_modes": 1, "radius": 0, "along": 0, "across": 0}
    positive = frozenset({"along", "across"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.n_modes, Integral):
            raise ValueError(
                f"n_modes of the prior GaussianMixture must be an integer, got {self.n_modes!r}."
            )

    def draw(self, n, k, rng):
        mode = (rng.uniform((n, 1)) * self.n_modes).floor()
        angle = mode * (2 * math.pi / self.n_modes)
        e = rng.normal((n, 2))
        r, s = self.radius + self.along * e[:, :1], self.across * e[:, 1:]
        cos, sin = torch.cos(angle), torch.sin(angle)
        return torch.cat([r * cos - s * sin, r * sin + s * cos], -1)


@dataclass(frozen=True)
class SwissRoll(Prior):
    """A spiral in the plane, equally dense per turn of its angle squared, with some noise.

    Parameters
    ----------
    turns : float, default=2.0
        Turns about the origin.

    radius : float, default=2.0
        Distance of the outer end from the origin: a unit's variance is then 1.

    noise : float, default=0.05
        Standard deviation of a Gaussian about the curve.
    """

    turns: float = 2.0
    radius: float = 2.0
    noise: float = 0.05
    n_components = 2
    least = {"turns": 0, "radius": 0, "noise": 0}
    positive = frozenset({"turns", "radius"})

    def draw(self, n, k, rng):
        t = rng.uniform((n, 1)).sqrt()  # so that the curve's length is covered evenly
        angle = t * (2 * math.pi * self.turns)
        curve = torch.cat([torch.cos(angle), torch.sin(angle)], -1) * (self.radius * t)
        return curve + self.noise * rng.normal((n, 2))


@dataclass(frozen=True)
class Drawn(Prior):
    """What a function of the user's draws.

    Parameters
    ----------
    function : callable
        ``function(n, random_state)`` gives an array of shape (n, k); `random_state` is an int.
    """

    function: Callable[[int, int], Any]

    def draw(self, n, k, rng):
        generator = rng.generators[0]
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        drawn = self.function(n, seed)
        if hasattr(drawn, "to_numpy"):  # a DataFrame
            drawn = drawn.to_numpy()
        drawn = drawn if isinstance(drawn, Tensor) else torch.tensor(drawn)
        if drawn.shape != (n, k):
            raise ValueError(
                f"prior must return an array of shape (n, n_components), here ({n}, {k}), but it "
                f"returned {tuple(drawn.shape)}. Change it, or n_components."
            )
        drawn = drawn.to(dtype=rng.dtype, device=rng.device)
        if not drawn.isfinite().all():
            raise ValueError("prior returned values that are not finite. Change it.")
        return drawn


@dataclass(frozen=True)
class Category(Prior):
    """One of k categories, in one-hot form.

    Parameters
    ----------
    weights : tuple of float, default=None
        How often each comes, adding up to 1; None is equally often.
    """

    weights: tuple[float, ...] | None = None

    def draw(self, n, k, rng):
        u = rng.uniform((n, 1))
        weights = self.weights or (1 / k,) * k
        upper = torch.tensor(weights[:-1], dtype=rng.dtype, device=rng.device).cumsum(0)
        drawn = torch.zeros(n, k, dtype=rng.dtype, device=rng.device)
        return drawn.scatter_(-1, torch.searchsorted(upper, u, right=True), 1.0)


PRIORS: dict[str, Prior] = {
    "gaussian": Gaussian(),
    "gaussian_mixture": GaussianMixture(),
    "swiss_roll": SwissRoll(),
}


def resolve_prior(prior: str | Prior | Callable) -> Prior:
    """The prior of this name, the instance, or what a function draws."""
    if isinstance(prior, str):
        return PRIORS[prior]
    return prior if isinstance(prior, Prior) else Drawn(prior)

"""Codes of bounded activations, whose means are proportions that KL(rho, rho^) can compare."""

from __future__ import annotations

from typing import Any

import torch

from skae._engine.batches import Source
from skae.activations import ACTIVATIONS
from skae.estimators._build import resolved_code_activation
from skae.networks import Dense, Network

_BOUNDED = ("logistic", "tanh")
_ROUNDING = 1e-6  # how far beyond its range a user's module may take a code
_PROBED_ROWS = 1000  # whose codes are looked at


def bounded_activation(estimator: Any, term: str, otherwise: str) -> str:
    """The estimator's code activation, by name.

    Raises ValueError when it has no bounds: `term` is the parameter that asks for some,
    `otherwise` the one that would do without.
    """
    name = resolved_code_activation(estimator)
    if name not in _BOUNDED:
        given = repr(estimator.code_activation) + f" ({name!r})" * (
            name != estimator.code_activation
        )
        own = "" if estimator.encoder is None else ", whichever your encoder ends with"
        raise ValueError(
            f"{term} compares the mean activation of a unit with rho in (0, 1), but with "
            f"code_activation={given} activations have no bounds, and their mean is no "
            f"proportion. Use code_activation='logistic' or 'tanh'{own}, or {otherwise}."
        )
    return name


def check_codes(
    network: Network, source: Source, activation: str, term: str, otherwise: str
) -> None:
    """Raise when an encoder that was given leaves the bounds of this activation."""
    encoder: Any = network.encoder
    if isinstance(encoder, Dense):
        if encoder.last_activation != activation:
            raise ValueError(
                f"{term} compares activations by code_activation={activation!r}, but encoder ends "
                f"with {encoder.last_activation!r}. Give one that ends with 'logistic' or 'tanh', "
                f"and set code_activation to it, or use {otherwise}."
            )
        return
    encoder.working.eval()
    with torch.no_grad():
        h = encoder.working(source.take(slice(0, min(source.n, _PROBED_ROWS))))
    low, high = ACTIVATIONS[activation].range
    if float(h.min()) < low - _ROUNDING or float(h.max()) > high + _ROUNDING:
        raise ValueError(
            f"{term} with code_activation={activation!r} needs codes in [{low:g}, {high:g}], but "
            f"encoder gives {float(h.min()):.3g} to {float(h.max()):.3g}. End it with that "
            f"activation, or use {otherwise}."
        )

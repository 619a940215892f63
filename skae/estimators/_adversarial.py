"""What an adversarial autoencoder reads from its parameters, and the guard against collapse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skae._engine.adversarial import Labelled
from skae._engine.batches import Source
from skae._engine.rng import Draws
from skae._engine.start import Moments, moments
from skae.latents import categories_gradient, with_categories
from skae.networks import Network
from skae.objective import Objective, Rows, is_positive
from skae.priors import Prior

_CELLS = 2**21  # of the widest layer, held at once
_DRAWS = 10_000  # of the prior, to which the codes' spread is compared
_FAR = 2.0  # times the spread of the prior, or that part of it: codes that have not come to it
_BEATEN = 0.25  # of log 4: a discriminator with this loss tells most codes from draws
_FEW = 0.5  # of the clusters that the prior has


@dataclass(frozen=True, kw_only=True)
class Adversarial(Objective):
    """The reconstruction step of an adversarial autoencoder: the plain objective.

    The other steps are the game's (`skae._engine.adversarial`), but that there is noise in
    training is told here.
    """

    generator_learning_rate_init: Any = 1e-3

    drops_code = False  # whose distribution is the prior's

    @property
    def noise(self) -> str | None:
        name = "generator_learning_rate_init"
        return name if is_positive(self.generator_learning_rate_init) else super().noise


@dataclass(frozen=True, kw_only=True)
class AdversarialCategories(Adversarial):
    """The same with a softmax over the last `n_clusters` columns of the code."""

    n_clusters: int = 2

    def latent(self, h, rng):
        return with_categories(h, self.n_clusters)

    def latent_gradient(self, d_z, h, z):
        return categories_gradient(d_z, z, self.n_clusters)

    def encode(self, h):
        return with_categories(h, self.n_clusters)


# ---- labels


def labelled_rows(source: Source, rows: Rows, n_classes: int) -> Labelled:
    """The rows of which ``rows.y`` gives a class, with one-hot targets."""
    y: Any = rows.y
    known = (y >= 0).nonzero().squeeze(-1)
    if not len(known):
        raise ValueError(
            "No labelled row is left to train on: early_stopping=True holds all of them out. Set "
            "early_stopping=False, or give more labels."
        )
    weight = rows.take(known).weight
    if weight is not None and not weight.sum() > 0:
        raise ValueError("All labelled rows have weight zero. Give some of them another weight.")
    target = torch.eye(n_classes, dtype=source.dtype, device=source.device)[y[known]]
    return Labelled(source.subset(known), Rows(weight=weight, target=target).normalised())


# ---- what has become of the code


class Codes(Source):
    """The codes of another source's rows, under these parameters."""

    def __init__(
        self, network: Network, objective: Objective, parameters: Mapping[str, Tensor],
        source: Source, width: int,
    ):  # fmt: skip
        self.network, self.objective, self.parameters = network, objective, parameters
        self.source, self.dtype, self.device = source, source.dtype, source.device
        self.n, self.d = source.n, width

    def take(self, index):
        with torch.no_grad():
            h = self.network.encoder.forward(self.parameters, self.source.take(index))
            return self.objective.encode(h)

    def chunks(self, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """All rows in order, as many at a time as the widest layer allows."""
        widths = [p.shape[0] for p in self.parameters.values() if p.ndim]
        yield from super().chunks(rows or max(1, _CELLS // max([self.source.d, *widths])))


def code_moments(
    network: Network, objective: Objective, parameters: Mapping[str, Tensor], source: Source,
    rows: Rows, width: int,
) -> Moments:  # fmt: skip
    """Weighted mean and variance of every column of the code over the rows."""
    network.train(False)
    codes = Codes(network, objective, parameters, source, width)
    found = moments(codes, rows.weight, bounds=False)
    network.train(True)
    return found


def prior_spread(prior: Prior, k: int, n: int) -> Tensor:
    """Standard deviation of every unit under the prior, of shape (k,), from many times n draws."""
    rng = Draws([torch.Generator().manual_seed(0)], torch.float64, "cpu")
    drawn = [prior.draw(n, k, rng) for _ in range(math.ceil(_DRAWS / n))]
    spread = torch.cat(drawn).std(0)
    if not (spread > 0).all():
        unit = int((spread <= 0).nonzero()[0])
        raise ValueError(
            f"prior is constant in unit {unit}, so that no code could follow it. Change it."
        )
    return spread


def fault_of_spread(spread: Tensor) -> str | None:
    """What is wrong with codes whose spread is this part of the prior's; None if nothing is."""
    low, high = float(spread.min()), float(spread.max())
    if low >= 1 / _FAR and high <= _FAR:
        return None
    worst, what = (low, "collapsed") if low * high < 1 or high <= _FAR else (high, "escaped")
    unit = int(spread.argmin() if what == "collapsed" else spread.argmax())
    return (
        f"The code has {what}: over the training rows unit {unit} spreads {worst:.2g} times as "
        "much as under the prior"
    )


def fault_of_clusters(shares: Tensor, weights: tuple[float, ...] | None) -> str | None:
    """What is wrong with clusters of these shares of the rows; None if nothing is."""
    c = len(shares)
    wanted = _effective_number(torch.tensor(weights or (1 / c,) * c))
    used = _effective_number(shares)
    if used >= _FEW * wanted:
        return None
    return f"The clusters have collapsed: of {wanted:.1f} that the prior has, {used:.1f} are used"


def _effective_number(shares: Tensor) -> float:
    """exp of the entropy: c for c equal shares."""
    return math.exp(float(torch.special.entr(shares.double()).sum()))


def fault_of_discriminator(loss: float, smoothing: float) -> str | None:
    """What is wrong with a discriminator of this loss; None if nothing is."""
    s = torch.tensor([smoothing, 1 - smoothing], dtype=torch.float64)
    least = float(torch.special.entr(s).sum())  # that labels so smoothed allow
    if loss - least >= _BEATEN * (math.log(4) - least):
        return None
    return (
        f"A discriminator tells most codes from draws of the prior (its loss is {loss:.2g} "
        f"nats, at equality {math.log(4):.2f})"
    )

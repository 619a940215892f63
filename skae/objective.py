"""What an autoencoder optimises, as data: an `Objective` of numbers with a few pure hooks.

Shapes: ``n`` samples, ``d`` features, ``k`` code units; leading axes ``...`` are models trained
together. Hooks compute per sample over the last axes and never reduce over rows or models: the
engine weights, averages and sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae.losses import Loss
from skae.pairs import Pairs


@dataclass(frozen=True)
class Rows:
    """What is known of the rows of a batch beside x; each part is optional."""

    weight: Tensor | None = None  # (..., n)     sample weights of mean 1 over the training rows
    target: Tensor | None = None  # (..., n, d)  what to reconstruct, where it is not x
    observed: Tensor | None = None  # (..., n, d)  1 where a value was seen, 0 where it is missing;
    #                                 kept in bytes, seen by hooks in x's dtype
    index: Tensor | None = None  # (n,)        position in the training data
    y: Tensor | None = None  # (n, ...)    the target passed to fit
    pairs: Pairs | None = None  # what is known of pairs of rows

    def take(self, index: Tensor | slice) -> Rows:
        """The side data of these rows."""

        def cells(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[..., index, :]

        return Rows(
            weight=None if self.weight is None else self.weight[..., index],
            target=cells(self.target),
            observed=cells(self.observed),
            index=None if self.index is None else self.index[index],
            y=None if self.y is None else self.y[index],
            pairs=None if self.pairs is None else self.pairs.take(index),
        )

    def accompanied(self, index: Tensor, rng) -> tuple[Tensor, Rows]:
        """These b rows, each with a neighbour that counts in pairs alone: 2 b rows, and where.

        The weights of the b rows are doubled, so that means over the 2 b rows are theirs.
        """
        u = rng.uniform(index.shape)
        partner, pairs = self.pairs.accompanied(index, self.weight, u)  # type: ignore[union-attr]
        both = torch.cat([index, partner])
        rows = dataclasses.replace(self, pairs=None).take(both)
        weight = u.new_ones(2 * len(u)) if rows.weight is None else rows.weight.clone()
        weight[..., : len(u)] *= 2
        weight[..., len(u) :] = 0
        return both, dataclasses.replace(rows, weight=weight, pairs=pairs)

    def normalised(self) -> Rows:
        """The same with weights of mean 1."""
        w = self.weight
        return self if w is None else dataclasses.replace(self, weight=w / w.mean())


NO_ROWS = Rows()


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of the features, from the training data; float64, of shape (d,) each."""

    mean: Tensor  # NaN where no value was ever seen
    low: Tensor
    high: Tensor
    variance: Tensor | None = None

    def __eq__(self, other: object) -> bool:
        pairs = zip(vars(self).values(), vars(other).values(), strict=False)
        return type(other) is type(self) and all(_equal(a, b) for a, b in pairs)


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and torch.allclose(a, b, 0.0, 0.0, equal_nan=True)


class Forward(NamedTuple):
    """One pass through the network."""

    x: Tensor  # (..., n, d)  the clean target
    x_in: Tensor  # (..., n, d)  what the encoder saw
    h: Tensor  # (..., n, code_width(k))  encoder output
    z: Tensor  # (..., n, k)  code
    raw: Tensor  # (..., n, raw_width(d, k))  decoder output, before the inverse link
    rows: Rows = NO_ROWS
    changed: Tensor | None = None  # (..., n, d)  where corruption changed x, if it says
    progress: float = 0.0  # fraction of the schedule's horizon that has passed, in [0, 1]
    state: Mapping[str, Tensor] = {}  # what `update` returned last
    a: Tensor | None = None  # (..., n, code_width(k))  h before its activation, if `needs_input`
    rng: Any = None  # draws for `penalty`
    encoder: Callable[[Tensor], Tensor] | None = None  # x -> h without dropout, if `needs_graph`
    share: float = 1.0  # of an epoch's rows that this batch is
    kept: dict[str, Tensor] | None = None  # see `once`; None where autograd looks on

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` gives, which hooks of one pass share under this name; not to be changed."""
        if self.kept is None:
            return make()
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The plain autoencoder's objective, and the hooks that variants override.

    Per sample ``loss(x, raw)``, the mean over features, plus ``penalty``; over everything
    ``alpha / 2 |W|^2``, weights only.

    Parameters
    ----------
    loss : Loss
        Reconstruction loss.

    alpha : float, default=0.0
        Weight decay. A textbook's lambda is ``n d alpha / 2`` beside a loss summed over n rows
        and d features, as in ``lambda (|W1|^2 + |W2|^2)``.

    dropout, input_dropout : float, default=0.0
        Probability of dropping a hidden or code unit, or an input.
    """

    loss: Loss
    alpha: Any = 0.0
    dropout: Any = 0.0
    input_dropout: Any = 0.0

    def informed(self, features: Features) -> Objective:
        """The objective for these data, with what it needs to know of them in its fields."""
        return self

    def corrupt(self, x: Tensor, rng) -> tuple[Tensor, Tensor | None]:
        """What the encoder sees, and where it differs from x. Never differentiated.

        `rng` draws (see `skae._engine.rng.Draws`) and knows the ``progress`` of the schedule.
        Missing cells stay as they are in x, whatever this returns for them.
        """
        return x, None

    def latent(self, h: Tensor, rng) -> Tensor:
        """The code that the decoder sees, of shape (..., n, k); may draw and may add rows."""
        return h

    def latent_gradient(self, d_z: Tensor, h: Tensor, z: Tensor) -> Tensor:
        """`d_z` carried back through `latent`; without it autograd does so."""
        return d_z

    def support(self, h: Tensor, rng) -> Tensor | None:
        """Where `latent` keeps h, in the flattened h of one model, if it is zero elsewhere.

        Places in ascending order of rows; None where it is something else. With it, products with
        wide codes become sums over the units that stay.
        """
        return None

    def encode(self, h: Tensor) -> Tensor:
        """What `transform` returns: the code without noise."""
        return h

    def penalty(self, out: Forward, net: Mapping[str, Tensor]) -> Tensor | None:
        """Added to the loss: (..., n) per sample, or (..., 1) for the batch; None for nothing.

        `net` holds the weights by name, in the units of X. It may draw from ``out.rng``, but has
        then no closed-form gradient.
        """
        return None

    def penalty_gradient(
        self, out: Forward, net: Mapping[str, Tensor], share: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradient of ``sum(share * penalty)`` with respect to h and to weights by name.

        `share`, of shape (..., n or 1, 1), is what each entry of the penalty counts. Without
        this method autograd differentiates `penalty`.
        """
        raise NotImplementedError

    def penalty_and_gradient(
        self, out: Forward, net: Mapping[str, Tensor], share: Tensor
    ) -> tuple[Tensor | None, Tensor | None, dict[str, Tensor]]:
        """`penalty` and its `penalty_gradient`, for closed forms in which both share work.

        A class gives this or `penalty_gradient`. It does not draw.
        """
        value = self.penalty(out, net)
        if value is None:
            return None, None, {}
        return value, *self.penalty_gradient(out, net, share)

    def __call__(self, out: Forward, net: Mapping[str, Tensor] | None = None) -> Tensor:
        """Loss plus penalty of every sample, of shape (..., n)."""
        value = self.data_loss(out.x, out.raw, self.cell_weight(out))
        penalty = self.penalty(out, net or {})
        return value if penalty is None else value + penalty

    def value_and_gradient(
        self, out: Forward, net: Mapping[str, Tensor], share: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """A value of the class's own, as `__call__` gives it, with its closed-form gradient.

        That is the gradient of ``sum(share * value)``, share of shape (..., n, 1), with respect
        to "raw", "z" and "h" where they matter, and to weights by name. Without this method
        autograd differentiates `__call__`, or `data_loss`, where a class overrides them.
        """
        raise NotImplementedError

    def path_weight(self, out: Forward) -> Tensor | None:
        """What the gradient of z counts for the encoder, (..., n, 1) of the code; None for 1.

        For estimators of a gradient that is not the value's own, sample by sample, but has its
        expectation; with a `latent` of the class's own. Never differentiated.
        """
        return None

    def cell_weight(self, out: Forward) -> Tensor | None:
        """What each cell counts in training, broadcast to (..., n, d); None where all count 1.

        Never differentiated.
        """
        return observed_weight(out.rows.observed)

    def data_loss(self, x: Tensor, raw: Tensor, weight: Tensor | None = None) -> Tensor:
        """Reconstruction loss of every sample, without penalty, of shape (..., n).

        `weight` is what each cell counts, as `cell_weight` and `observed_weight` give it.
        """
        elements = self.loss.elements(x, raw)
        if weight is not None:
            elements = elements * weight
        return elements.sum(-1) * self.loss.share(x.shape[-1])

    # What the network has to provide for this objective, and what the engine keeps for it.

    def code_width(self, k: int) -> int:
        """Number of encoder outputs for k code units."""
        return k

    def output_width(self, d: int) -> int:
        """Number of decoder outputs for d features."""
        return self.loss.width(d)

    def raw_width(self, d: int, k: int) -> int:
        """Width of what the network gives above k code units: the decoder's outputs, or more."""
        return self.output_width(d)

    def parameters(self, d: int, k: int) -> dict[str, Tensor]:
        """Starting values of parameters of the objective's own, trained with the network's."""
        return {}

    def init_state(self, d: int, k: int) -> dict[str, Tensor]:
        """Tensors that `update` maintains; the engine owns them and saves them for resuming."""
        return {}

    def update(self, state: Mapping[str, Tensor], out: Forward) -> dict[str, Tensor]:
        """The state after a batch, without gradients."""
        return dict(state)

    def shares_state(self, other: Objective) -> bool:
        """Whether the state of `other` means here what it means there, to go on from."""
        return type(self) is type(other)

    def learned(self, state: Mapping[str, Tensor]) -> Objective:
        """The objective for inference, with what its state has learned in its fields."""
        return self

    def origin(self, d: int) -> float:
        """The loss of d features that its relative changes are measured from.

        Zero, but for a density, whose logarithm has no zero of its own: it depends on X's units.
        """
        return 0.0

    @property
    def noise(self) -> str | None:
        """The parameter that makes a training step random, for messages; None if none does."""
        for name in ("dropout", "input_dropout"):
            if is_positive(getattr(self, name)):
                return name
        return None

    #: Whether `penalty` is a term of the batch, (..., 1), rather than one per sample: it is added
    #: to the mean, and sample weights leave it alone.
    penalises_batch = False

    #: Whether `latent` or `penalty` mixes rows: then a full batch is never evaluated in chunks.
    mixes_rows = False

    #: Whether a hook differentiates through the network itself, with respect to x_in or twice,
    #: which only autograd can.
    needs_graph = False

    #: Whether `penalty` reads ``out.a``, the code layer before its activation.
    needs_input = False

    #: Fraction of the schedule's horizon before which the losses of epochs do not compare, since
    #: what is optimised still changes: until then training does not stop by them, and no epoch is
    #: the best.
    settled = 0.0

    #: Whether `dropout` covers the code (it does not where the code is a Gaussian's parameters).
    drops_code = True


def overrides(objective: Objective, hook: str) -> bool:
    """Whether the objective's class gives this hook itself."""
    return getattr(type(objective), hook) is not getattr(Objective, hook)


def has_closed_penalty(objective: Objective) -> bool:
    """Whether the penalty's gradient comes in closed form, by either of its two hooks."""
    return any(overrides(objective, h) for h in ("penalty_gradient", "penalty_and_gradient"))


def is_positive(value: float | Tensor) -> bool:
    """Whether a field, stacked or not, is positive for any model."""
    return bool((value > 0).any()) if isinstance(value, Tensor) else value > 0


def observed_weight(observed: Tensor | None) -> Tensor | None:
    """What each cell counts when only some are observed, d / count: a row's mean stays a mean."""
    if observed is None:
        return None
    count = observed.sum(-1, keepdim=True).clamp(min=1)
    return observed * (observed.shape[-1] / count)


def stack(objectives: Sequence[Objective], dtype=torch.float64, device="cpu") -> Objective:
    """One objective for M models: the fields that differ become tensors of shape (M, 1, 1).

    Raises ValueError when the classes or the static fields (anything but floats) differ.
    """
    first = objectives[0]
    if any(type(o) is not type(first) for o in objectives):
        raise ValueError("Objectives of different classes cannot be stacked: group them by class.")
    merged: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        values = [getattr(o, field.name) for o in objectives]
        if all(v == values[0] for v in values):
            continue
        if not all(isinstance(v, float) for v in values):
            raise ValueError(
                f"Objectives can be stacked only when {field.name!r} is the same in all, got "
                f"{values}. Group them by it."
            )
        merged[field.name] = torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
    return dataclasses.replace(first, **merged)

"""How the members of the ready-made outlier detector are made, and from which rows."""

from __future__ import annotations

import functools
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skae._engine.batches import Scaled, Source
from skae._warnings import warn_caller
from skae.estimators._bagging import (
    Sample,
    as_source,
    copies_of,
    draw_all_but,
    draw_columns,
    draw_rows,
    has_value,
    in_turn,
    known_of,
    left_out_of_last,
    medians,
    out_of_bag,
    ranked,
)
from skae.estimators._build import layer_sizes
from skae.estimators._input import feature_label
from skae.estimators._kernel_denoiser import KernelDenoiser
from skae.estimators._members import Design, Ensemble, Member, in_parts, train_networks
from skae.estimators._scaling import View, scaling_of
from skae.estimators.denoising import DenoisingObjective
from skae.losses import SquaredError

# Under novelty=False: rows of a member, so few that most of them hold no outlier; and of the first
# pass, whose members are for ranking alone.
_FEW_ROWS, _FEWEST_ROWS, _FIRST_MEMBERS = 64, 32, 32


class MakesMembers:
    """The making of an `AutoencoderOutlierDetector`, whose parameters these are."""

    noise_level: Any
    n_estimators: int
    hidden_layer_sizes: Any
    activation: str
    n_steps: int
    batch_size: int
    learning_rate_init: float
    n_kernel_denoisers: int
    bandwidth: Any
    n_prototypes: int
    max_features: float
    max_samples: Any
    novelty: bool
    trim_fraction: float
    scale: str | None
    precision: str
    threshold: str
    _training_scores_by: Any

    def _objective(self, level: float | None = None) -> DenoisingObjective:
        """What a network optimises, under the noise of the first one unless told."""
        if level is None:
            level = in_turn(self.noise_level, 1, "noise_level", 0.0)[0]
        return DenoisingObjective(loss=SquaredError(), corruption="gaussian", noise_level=level)

    def _bandwidths(self, n: int) -> list[float]:
        """Those of n kernel denoisers: a pair, of one for each view, has one in common."""
        of_pairs = in_turn(self.bandwidth, -(-n // 2), "bandwidth", np.nextafter(0, 1))
        return [tau for tau in of_pairs for _ in range(2)][:n]

    def _fit_model(self, X: Any, weight: np.ndarray | None, seeds: Any, tasks: Any) -> Ensemble:
        levels = in_turn(self.noise_level, self.n_estimators, "noise_level", 0.0)
        taus = self._bandwidths(self.n_kernel_denoisers)
        if not levels and not taus:
            raise ValueError(
                "n_estimators=0 and n_kernel_denoisers=0 leave no member. Raise either."
            )
        if self._leaves_out and len(levels) == 1:
            raise ValueError(
                "threshold='out_of_bag' judges a row by networks that were trained without it, but "
                "n_estimators=1. Have two at least, or use threshold='held_out'."
            )
        sample = self._read(X, weight)
        if self.novelty:
            return self._ensemble(sample, levels, taus, self._n_rows(len(sample.places)), seeds)
        sample = self._trimmed(sample, X, seeds)
        few = self._n_rows(len(sample.places), _FEW_ROWS)
        model = self._ensemble(sample, levels, taus, few, seeds)
        known = functools.reduce(np.intersect1d, [member.rows for member in model.members])
        if len(known):
            warn_caller(
                f"All members were made from {len(known)} of the rows, which are scored by members "
                "that know them and so look more normal than others. Lower max_samples, or have "
                "more members (n_estimators, n_kernel_denoisers)."
            )
        return model

    def _trimmed(self, sample: Sample, X: Any, seeds: Any) -> Sample:
        """The rows without those that kernel denoisers of a few others reconstruct worst."""
        few = self._n_rows(len(sample.places), _FEWEST_ROWS)
        first = self._ensemble(sample, [], self._bandwidths(_FIRST_MEMBERS), few, seeds)
        scores = self._training_scores_by(first, X)[sample.places]
        n_left_out = int(self.trim_fraction * len(scores))
        return sample.take(np.sort(np.argsort(scores, kind="stable")[n_left_out:]))

    def _ensemble(
        self, sample: Sample, levels: list[float], taus: list[float], n_rows: int, seeds: Any
    ) -> Ensemble:
        # Rows are drawn last: all else is then the same for repeated rows and for weights.
        own = [int(seed) for seed in seeds.randint(2**31 - 1, size=len(levels))]
        of_networks, of_kernels = (
            draw_columns(sample.source.d, self.max_features, len(each), seeds)
            for each in (levels, taus)
        )
        members = []
        if levels:
            members += self._networks(sample, levels, of_networks, n_rows, own, seeds, not taus)
        views = [sample.scaling, ranked(sample, seeds)] if len(taus) > 1 else [sample.scaling]
        before = [member.rows for member in members]
        members += self._kernels(sample, taus, of_kernels, views, n_rows, seeds, before)
        model = Ensemble(views, members, (sample.unit, 1.0))
        errors = self._unseen(self._known_errors(model, sample.source), members)
        model.log_medians = torch.from_numpy(medians(errors, sample.weight))
        model.members = [
            member._replace(rows=sample.places[member.rows]) for member in model.members
        ]
        return model

    def _read(self, X: Any, weight: np.ndarray | None) -> Sample:
        source = as_source(X)
        used = has_value(source) if weight is None else has_value(source) & (weight > 0)
        places = np.flatnonzero(used)
        if not len(places):
            raise ValueError("No row of positive weight has a value: all that X holds is missing.")
        if len(places) < source.n:
            source = source.subset(torch.from_numpy(places))
        w = copies = None
        if weight is not None:
            own = weight[places]
            w, copies = torch.from_numpy(own / own.mean()), copies_of(own)
        standard = scaling_of(source, w)
        scaling = standard.in_units_of_X() if self.scale is None else standard
        empty = scaling.center.isnan().nonzero()
        if len(empty):
            names = ", ".join(feature_label(self, int(i)) for i in empty)
            raise ValueError(
                f"There is nothing to learn from {names}: no row (of positive weight) has a value. "
                "Drop such columns."
            )
        return Sample(source, w, copies, places, standard, scaling)

    def _networks(
        self, sample: Sample, levels: list[float], columns: Tensor, n_rows: int,
        own: list[int], seeds: Any, are_all: bool,
    ) -> list[Member]:  # fmt: skip
        most = min(n_rows, self.n_steps * self.batch_size)  # no step would see more
        if self._leaves_out or (are_all and not self.novelty):
            each = draw_all_but(sample.source.n, most, len(own), seeds)
        else:
            each = [draw_rows(sample.source.n, most, seeds) for _ in own]
        rows = torch.from_numpy(np.stack(each))
        design = Design(
            layer_sizes(self.hidden_layer_sizes), self.activation, int(self.n_steps),
            min(int(self.batch_size), len(each[0])), float(self.learning_rate_init),
            getattr(torch, self.precision),
        )  # fmt: skip
        scaling = sample.scaling
        scaled = Scaled(sample.source, scaling.center, scaling.scale, design.dtype)
        known = known_of(sample, rows, columns, design.dtype)
        objectives = [self._objective(level) for level in levels]
        networks = train_networks(design, objectives, scaled, rows, columns, known, own)
        parts = zip(networks, columns, rows.numpy(), strict=True)
        return [Member(network, 0, *own_parts) for network, *own_parts in parts]

    def _kernels(
        self, sample: Sample, taus: list[float], columns: Tensor, views: list[View],
        n_rows: int, seeds: Any, before: list[np.ndarray],
    ) -> list[Member]:  # fmt: skip
        """Kernel denoisers, which take the views in turn; `before`, other members' rows."""
        source, members = sample.source, []
        most = min(n_rows, int(self.n_prototypes))
        each = [draw_rows(source.n, most, seeds) for _ in taus]
        if each and not self.novelty:
            each[-1] = left_out_of_last([*before, *each], source.n)
        for k, (tau, own) in enumerate(zip(taus, columns, strict=True)):
            at, view = k % len(views), views[k % len(views)]
            rows = np.sort(each[k])
            index = torch.from_numpy(rows)
            prototypes = view.within(view.forward(source.take(index)))[:, own]
            weight, copies = (w if w is None else w[index] for w in (sample.weight, sample.copies))
            own_tau = tau / sample.unit if at else tau
            denoiser = KernelDenoiser(prototypes, own_tau, weight, copies)
            members.append(Member(denoiser, at, own, rows))
        return members

    def _n_rows(self, n: int, few: int | None = None) -> int:
        """How many of n rows a member may see; without `max_samples` all, or few of them."""
        if self.max_samples is None:
            return n if few is None else min(few, -(-n // 2))
        if isinstance(self.max_samples, Integral):
            return min(n, int(self.max_samples))
        return max(1, round(self.max_samples * n))

    @property
    def _leaves_out(self) -> bool:
        """Whether every row is left out by a network, by which it is then judged."""
        return self.novelty and self.threshold == "out_of_bag"

    def _known_errors(self, model: Ensemble, source: Source) -> np.ndarray:
        """Log errors of training rows, (n, K)."""
        each = functools.partial(model.log_errors, are_known=self._leaves_out)
        return in_parts(source, each, model.widest)

    def _unseen(self, errors: np.ndarray, members: list[Member]) -> np.ndarray:
        """Errors of the training rows, (n, K), NaN where a member knows the row too well.

        A kernel denoiser leaves a row out of its own reconstruction, but is made from few others.
        """
        if not self.novelty:
            return out_of_bag(errors, [member.rows for member in members])
        networks = [member.rows for member in members if member.is_network]
        if self._leaves_out and networks:
            errors[:, : len(networks)] = out_of_bag(errors[:, : len(networks)], networks)
        return errors

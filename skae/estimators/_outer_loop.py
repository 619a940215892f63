"""What the generalized autoencoder's outer loop trains on: sets of rows, found from codes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.train import Result
from skae.estimators._relations import HeldOut, Related, Relation, labels_of, points_of
from skae.losses import BinaryCrossEntropy
from skae.modules import infer
from skae.neighbors import share_changed
from skae.networks import Network
from skae.objective import Objective, Rows

_ROUNDING = 1e-6  # how far targets may leave [0, 1] under cross-entropy
_EQUAL = 1e-12  # weights that differ by rounding alone are none
_CHUNK = 4096  # rows that are encoded at once


class Pass(NamedTuple):
    """One pass of the outer loop: training towards one choice of sets and weights."""

    n_iter: int  #: epochs
    loss: float  #: training loss of its last epoch
    energy: float  #: the same in the source's units: E, of these sets and weights
    changed: float  #: share of the pairs that the pass before did not have; 1 for the first


class Task:
    """What the outer loop trains on: points, their relation, and the codes it was last given."""

    related: Related  # of the last call of `relate`

    def __init__(
        self,
        relation: Relation,
        network: Network,
        objective: Objective,
        source: Source,
        rows: Rows,
        validation: tuple[Source, Rows] | None,
    ):
        self.relation, self.network, self.objective = relation, network, objective
        self.source, self.rows, self.validation = source, rows, validation
        self.points = points_of(source, rows)
        relation.check(self.points, validation is not None)
        self.held = None if validation is None else _held_out(*validation)
        self.codes: np.ndarray | None = None
        self.changed = 1.0

    def encode(self, parameters: Mapping[str, Tensor]) -> None:
        """Find the codes by which `relate` goes from now on."""
        encoder, _ = self.network.modules(self.network.exported(parameters))

        def codes(X: np.ndarray) -> np.ndarray:
            parts = torch.from_numpy(X).split(_CHUNK)
            with torch.no_grad():
                given = (infer(encoder, x.to(self.source.device)) for x in parts)
                return torch.cat([self.objective.encode(h) for h in given]).cpu().numpy()

        self.codes = codes(self.points.X)
        if self.held is not None:
            self.held = self.held._replace(codes=codes(self.held.X))

    def relate(self) -> dict[str, Any]:
        """The side data of training and held-out rows, for `train`."""
        before = getattr(self, "related", None)
        self.related = self.relation.relate(self.points, self.codes)
        if before is not None:
            self.changed = share_changed(before.pairs, self.related.pairs)
        of_row, share = self.points.of_row, self.points.share
        rows = self._side(self.rows, self.source, self.related.target[of_row],
                          self.related.weight[of_row] * share)  # fmt: skip
        return {"rows": rows, "validation": self._validation()}

    def _validation(self) -> tuple[Source, Rows] | None:
        if self.validation is None or self.held is None:
            return None
        source, rows = self.validation
        target, S = self.relation.relate_held_out(self.points, self.codes, self.related, self.held)
        weight = np.maximum(S, 0.0)
        if rows.weight is not None:
            weight *= rows.weight.double().cpu().numpy()
        if not weight.sum() > 0:
            raise ValueError(
                f"No row to validate by has neighbours under relation={self.relation.name!r}. Set "
                "early_stopping=False."
            )
        return source, self._side(rows, source, target, weight)

    def _side(self, rows: Rows, source: Source, target: np.ndarray, weight: np.ndarray) -> Rows:
        """Targets, and weights of mean 1; rows that do not count have any target."""
        if not (weight > 0).all():
            target = np.where(weight[:, None] > 0, target, self.points.X.mean(0))
        if isinstance(self.objective.loss, BinaryCrossEntropy):
            target = _in_unit_interval(target, self.relation.name)
        weight = weight / weight.mean()

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(dtype=source.dtype, device=source.device)

        w = None if np.ptp(weight) <= _EQUAL else tensor(weight)
        return dataclasses.replace(rows, y=None, target=tensor(target), weight=w)

    def summary(self, result: Result, first: int) -> Pass:
        """What a pass that began at epoch `first` came to."""
        is_entropy = isinstance(self.objective.loss, BinaryCrossEntropy)
        constant = 0.0 if is_entropy else self.related.constant
        factor = float(self.related.weight.sum()) * self.source.d
        return pass_summary(result, first, factor, constant, self.changed)


def pass_summary(
    result: Result, first: int, factor: float, constant: float = 0.0, changed: float = 1.0
) -> Pass:
    """A pass of training that began at epoch `first`; E is `factor` times its loss, and more."""
    curve = result.monitor.loss_curves[0]
    loss = curve[-1] if curve else math.nan  # interrupted in the first epoch
    return Pass(result.state["epoch"] - first, loss, factor * loss + constant, changed)


def _held_out(source: Source, rows: Rows) -> HeldOut:
    X = source.take(slice(0, source.n)).cpu().numpy()
    return HeldOut(X, labels_of(rows, len(X)))


def _in_unit_interval(target: np.ndarray, relation: str) -> np.ndarray:
    """Targets under cross-entropy, rounding taken off."""
    beyond = max(float(-target.min()), float(target.max()) - 1.0)
    if beyond > _ROUNDING:
        raise ValueError(
            f"loss='binary_cross_entropy' needs targets in [0, 1], but those of relation="
            f"{relation!r}, whose weights have two signs, leave it by {beyond:.3g}. Use "
            "loss='squared_error' with output_activation='logistic'."
        )
    return target.clip(0.0, 1.0)

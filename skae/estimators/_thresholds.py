"""From the scores of calibration rows to a threshold and to p-values; NumPy and SciPy.

Scores are higher for more normal rows. A rule gives `offset(level)`, below which rows are
outliers, and `p_values(scores)`, small for outliers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST_IN_TAIL = 10  # rows that a tail of two parameters is fitted to
EXACT = 1e-9  # relative; sums of weights and levels that agree to this are equal


@dataclass(frozen=True)
class Conformal:
    """The rank of a score among those of n rows that the model has not seen.

    With calibration scores s_i of weight w_i, and a new row of weight 1,

        p(s) = (1 + sum_i w_i [s_i <= s]) / (1 + sum_i w_i).

    If the new row is exchangeable with the others, P(p <= level) <= level (Vovk, Gammerman and
    Shafer, "Algorithmic learning in a random world", 2005, proposition 2.4; with weights,
    Tibshirani, Foygel Barber, Candes and Ramdas, 2019, lemma 3). The offset flags p <= level.
    """

    scores: np.ndarray  # (n,), ascending
    below: np.ndarray  # (n,), the weight of a row and of all before it

    @classmethod
    def of(cls, scores: np.ndarray, weight: np.ndarray | None, **numbers: Any) -> Any:
        """The rule of n scores in any order, and their weights, which are scaled to mean 1.

        Scores of NaN, those of rows without any value, do not count.
        """
        known = ~np.isnan(scores)
        scores, weight = scores[known], None if weight is None else weight[known]
        if weight is None:
            return cls(np.sort(scores), np.arange(1.0, len(scores) + 1), **numbers)
        order = np.argsort(scores)
        order = order[weight[order] > 0]
        below = np.cumsum(weight[order])
        if len(below):
            below *= len(below) / below[-1]
        return cls(scores[order], below, **numbers)

    @property
    def total(self) -> float:
        """The weight of all rows: their number, but for rounding."""
        return float(self.below[-1]) if len(self.below) else 0.0

    @property
    def smallest(self) -> float:
        """The level below which no row is flagged."""
        return 1 / (1 + self.total)

    def weight_below(self, scores: np.ndarray) -> np.ndarray:
        """The weight of the rows at or below each score."""
        return np.r_[0.0, self.below][np.searchsorted(self.scores, scores, side="right")]

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """In (0, 1]; 1 for a score of NaN, which says nothing against its row."""
        return (1 + self.weight_below(scores)) / (1 + self.total)

    def offset(self, level: float) -> float:
        """The score from which on p exceeds the level; minus infinity where it always does."""
        if level * (1 + EXACT) < self.smallest:
            return -np.inf
        room = level * (1 + self.total) * (1 + EXACT) - 1
        return float(self.scores[np.searchsorted(self.below, room, side="right")])


class TrainingQuantile(Conformal):
    """The quantile of scores of the rows that the model was fitted to, as IsolationForest's.

    Of scores by a model that knows the rows, its p-values are too small on new ones; of scores by
    the part of it that does not, they are nearly right.
    """

    smallest = 0.0

    def offset(self, level: float) -> float:
        """The score with a share `level` of the rows below it, rounded down.

        Halfway to the next score where the share is met exactly, so that integer weights equal
        repetitions.
        """
        if not len(self.scores):
            return -np.inf
        target = level * self.total
        flagged = int(np.searchsorted(self.below, target * (1 + EXACT), side="right"))
        if flagged and np.isclose(self.below[flagged - 1], target, rtol=EXACT):
            return float((self.scores[flagged - 1] + self.scores[flagged]) / 2)
        return float(self.scores[flagged])


@dataclass(frozen=True)
class ParetoTail(Conformal):
    """A generalized Pareto tail beyond the lowest scores, which reaches levels below 1 / n.

    Of a score u - y, for y > 0 and u the edge of the tail, it says

        p = zeta (1 + xi y / sigma)^(-1 / xi),

    zeta the conformal p-value of the lowest row above it, and xi >= 0, sigma those of greatest
    likelihood for the rows below; above the edge p is conformal. A negative xi, which would end the
    tail near the lowest row there is, is taken for 0: of few rows it is noise mostly, and p = 0 a
    claim of certainty. Siffer, Fouque, Termier and Largouet, "Anomaly
    detection in streams with extreme value theory", KDD (2017), equation 1, has it for errors.
    Rows in the tail count alike, whatever they weigh.
    """

    tail_fraction: float
    edge: float = -np.inf  # u
    share: float = 0.0  # zeta
    shape: float = 0.0  # xi
    scale: float = 1.0  # sigma

    @property
    def smallest(self) -> float:
        return 0.0 if self.share else super().smallest

    @classmethod
    def of(cls, scores: np.ndarray, weight: np.ndarray | None, **numbers: Any) -> ParetoTail:
        """The rule with its tail fitted; without a tail where too few rows are in it."""
        rule = super().of(scores, weight, **numbers)
        n_in = rule.n_in_tail
        if n_in < FEWEST_IN_TAIL:
            return rule
        edge = rule.scores[n_in]
        shape, scale = _pareto_of(edge - rule.scores[:n_in])
        share = (1 + rule.below[n_in - 1]) / (1 + rule.total)
        return dataclasses.replace(
            rule, edge=float(edge), share=float(share), shape=shape, scale=scale
        )

    @property
    def n_in_tail(self) -> int:
        """How many rows lie below the edge: none that ties with it."""
        edge = self.scores[: self.n_in_share + 1][-1:]
        return int(np.searchsorted(self.scores, edge, side="left").sum())

    @property
    def n_in_share(self) -> int:
        """How many rows have a share `tail_fraction` of the weight at most."""
        room = self.tail_fraction * self.total * (1 + EXACT)
        return int(np.searchsorted(self.below, room, side="right"))

    def _distribution(self) -> Any:
        from scipy.stats import genpareto

        return genpareto(self.shape, scale=self.scale)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        p, beyond = super().p_values(scores), scores < self.edge
        # Far enough out a tail is 0 in floats, which would be a claim of certainty.
        tail = self.share * self._distribution().sf(self.edge - scores[beyond])
        p[beyond] = np.maximum(tail, np.finfo(float).tiny)
        return p

    def offset(self, level: float) -> float:
        if level >= self.share:
            return super().offset(level)
        return float(self.edge - self._distribution().isf(level / self.share))


def _pareto_of(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of the generalized Pareto distribution of greatest likelihood."""
    from scipy.stats import genpareto

    unit = excess.mean()  # the fit starts at a scale near 1
    shape, _, scale = genpareto.fit(excess / unit, floc=0)
    return (float(shape), float(scale * unit)) if shape > 0 else (0.0, float(unit))


RULES: dict[str, type[Conformal]] = {
    "training": TrainingQuantile,
    "out_of_bag": TrainingQuantile,
    "held_out": Conformal,
    "cross_fitted": Conformal,
    "extreme_value": ParetoTail,
}


def rule_of(
    threshold: str, scores: np.ndarray, weight: np.ndarray | None, tail_fraction: float
) -> Conformal:
    """The rule that `threshold` names, of calibration scores of shape (n,)."""
    numbers = {"tail_fraction": tail_fraction} if threshold == "extreme_value" else {}
    return RULES[threshold].of(scores, weight, **numbers)


def check_reach(rule: Conformal, threshold: str, level: float) -> None:
    """Raise where the rule could flag no row at all at this level."""
    n = len(rule.scores)
    if isinstance(rule, ParetoTail) and rule.n_in_share < FEWEST_IN_TAIL:
        raise ValueError(
            f"threshold={threshold!r} fits a tail to the {rule.n_in_share} lowest of {n} "
            f"calibration scores (tail_fraction={rule.tail_fraction}), but needs "
            f"{FEWEST_IN_TAIL} at least. Raise tail_fraction, or calibrate on more rows."
        )
    if level * (1 + EXACT) < rule.smallest:
        other = "" if isinstance(rule, ParetoTail) else ", or use threshold='extreme_value'"
        raise ValueError(
            f"threshold={threshold!r} with contamination={level} could flag no row: the smallest "
            f"p-value of {n} calibration rows is 1 / {n + 1}. Calibrate on "
            f"{int(np.ceil(1 / level)) - 1} rows or more, or raise contamination{other}."
        )

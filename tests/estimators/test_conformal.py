"""Over many draws of clean data, thresholds flag what they promise; a fixed set of 200 draws."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin

from skae import ReconstructionOutlierDetector

DRAWS, NEW = 200, 100
MIXING = np.random.default_rng(0).normal(size=(3, 10))


class Plane(TransformerMixin, BaseEstimator):
    """Three principal components, without the validation that takes PCA most of its time."""

    def fit(self, X, y=None):
        self.mean_ = X.mean(0)
        self.axes_ = np.linalg.svd(X - self.mean_, full_matrices=False)[2][:3]
        return self

    def transform(self, X):
        return (X - self.mean_) @ self.axes_.T

    def inverse_transform(self, Z):
        return Z @ self.axes_ + self.mean_


def clean(rng, n):
    return rng.normal(size=(n, 3)) @ MIXING + rng.normal(size=(n, 10))


def fitted(threshold, seed, n=198, **changed):
    detector = ReconstructionOutlierDetector(
        estimator=Plane(), threshold=threshold, random_state=seed,
        **{"calibration_fraction": 0.5} | changed,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    return detector.fit(clean(rng, n)), rng


def false_alarms(threshold, level, n=198, **changed):
    """The share of new rows flagged, by draw."""
    shares = []
    for seed in range(DRAWS):
        detector, rng = fitted(threshold, seed, n, contamination=level, **changed)
        shares.append((detector.predict(clean(rng, NEW)) == -1).mean())
    return np.array(shares)


def standard_error(shares):
    return shares.std(ddof=1) / np.sqrt(len(shares))


@pytest.mark.parametrize("level", [0.1, 0.3])
def test_held_out_thresholds_flag_their_level_of_new_rows(level):
    """99 rows calibrate: level (n + 1) is whole, so that the rate is the level, not below it."""
    shares = false_alarms("held_out", level)
    assert abs(shares.mean() - level) < 3 * standard_error(shares)
    assert standard_error(shares) < 0.005


def test_cross_fitted_thresholds_flag_their_level_of_new_rows():
    shares = false_alarms("cross_fitted", 0.1, n=199, cv=3)
    assert abs(shares.mean() - 0.1) < 3 * standard_error(shares)
    assert standard_error(shares) < 0.005


def test_the_quantile_of_training_scores_flags_more():
    shares = false_alarms("training", 0.1, n=99)
    assert shares.mean() > 0.1 + 10 * standard_error(shares)


def test_a_rate_that_ranks_cannot_have_is_met_from_below():
    """Of 50 p-values that 49 rows allow, 4 are at most 0.09: a rate of 0.08."""
    shares = false_alarms("held_out", 0.09, n=98)
    assert abs(shares.mean() - 0.08) < 3 * standard_error(shares)


def test_a_tail_reaches_below_the_smallest_rank():
    """200 rows calibrate; ranks could not flag one row in a thousand."""
    flagged = total = 0
    for seed in range(25):
        detector, rng = fitted("extreme_value", seed, 400, contamination=0.001)
        flagged += (detector.predict(clean(rng, 5000)) == -1).sum()
        total += 5000
    assert 0.0002 < flagged / total < 0.004


def test_p_values_of_new_rows_are_uniform():
    """Their distribution over draws is that of ranks."""
    p = []
    for seed in range(DRAWS):
        detector, rng = fitted("held_out", seed)
        p.append(detector.p_values(clean(rng, 1))[0])
    steps = np.sort(p)
    gap = np.abs(steps - (np.arange(DRAWS) + 0.5) / DRAWS).max()
    assert gap < 1.36 / np.sqrt(DRAWS) + 0.01  # Kolmogorov's 5 %, and steps of a hundredth


# ---- batches


def batch(rng, n_outliers, n=100):
    X = clean(rng, n)
    X[:n_outliers] += 8 * rng.normal(size=(n_outliers, 10))
    return X


def test_the_share_of_false_discoveries_is_the_level_on_average():
    false, found = [], []
    for seed in range(DRAWS):
        detector, rng = fitted("held_out", seed, 598)
        flagged = detector.predict_fdr(batch(rng, 20), level=0.2) == -1
        false.append(flagged[20:].sum() / max(1, flagged.sum()))
        found.append(flagged[:20].mean())
    false = np.array(false)
    assert false.mean() < 0.2 + 3 * standard_error(false)
    assert abs(false.mean() - 0.2 * 0.8) < 0.03  # the level times the share of normal rows
    assert np.mean(found) > 0.95


def test_a_label_depends_on_the_batch():
    detector, rng = fitted("held_out", 0, 398)
    rows = clean(rng, 1000)
    p = detector.p_values(rows)
    row = rows[(p > 0.02) & (p < 0.03)][:1]
    crowd = batch(rng, 60)  # of clear outliers, which let it through
    assert detector.predict_fdr(np.r_[row, crowd])[0] == -1
    assert detector.predict_fdr(np.r_[row, crowd[60:]])[0] == 1
    assert detector.predict_fdr(row)[0] == -1  # alone: p is less than the level


def test_batches_are_judged_by_the_procedure_of_benjamini_and_hochberg():
    detector, rng = fitted("held_out", 1, 398)
    X = batch(rng, 10)
    p = np.sort(detector.p_values(X))
    for level in (0.05, 0.2):
        k = np.flatnonzero(p <= level * np.arange(1, 101) / 100).max(initial=-1) + 1
        assert (detector.predict_fdr(X, level=level) == -1).sum() == k
    with pytest.raises(ValueError, match="level == 0"):
        detector.predict_fdr(X, level=0)


def test_a_batch_that_meets_the_level_exactly_is_flagged(monkeypatch):
    """17 of 50 rows with p = 34 / 1000: 0.034 * 50 / 17 is 0.1, but not in floating point."""
    detector, _ = fitted("held_out", 0)
    p = np.r_[np.full(17, 34 / 1000), np.ones(33)]
    monkeypatch.setattr(detector, "p_values", lambda X: p)
    np.testing.assert_array_equal(detector.predict_fdr(None, level=0.1) == -1, p < 1)
    assert (detector.predict_fdr(None, level=0.0999) == 1).all()

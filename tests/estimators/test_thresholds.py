"""Where a detector's threshold comes from, and how it moves without another fit."""

import pickle

import numpy as np
import pytest
import scipy.stats
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, PredefinedSplit, ShuffleSplit, TimeSeriesSplit
from sklearn.utils.validation import check_is_fitted

from skae import Autoencoder, ReconstructionOutlierDetector
from skae.estimators._thresholds import ParetoTail, rule_of

THRESHOLDS = ["training", "held_out", "cross_fitted", "extreme_value"]
ON_NEW_ROWS = THRESHOLDS[1:]


def detector(estimator=None, **changed):
    estimator = PCA(2) if estimator is None else estimator
    return ReconstructionOutlierDetector(**{"estimator": estimator, "random_state": 0} | changed)


@pytest.fixture(scope="module")
def rows():
    """300 rows of 5 correlated features."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(300, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(300, 5))


@pytest.fixture(scope="module")
def new(rows):
    """As many others, a few of them far off."""
    rng = np.random.default_rng(2)
    return rows[rng.permutation(300)] + rng.normal(size=(300, 5)) * rng.choice([0.1, 3], (300, 1))


class Memory(TransformerMixin, BaseEstimator):
    """Reconstructs the rows it was fitted to, and nothing else."""

    def fit(self, X, y=None, sample_weight=None):
        self.rows_ = np.asarray(X)
        self.weight_ = sample_weight
        return self

    def transform(self, X):
        return np.where(np.isin(X[:, :1], self.rows_[:, 0]), X, X + 1)

    def inverse_transform(self, X):
        return X


# ---- the rules


def brute_force(calibration, weight, scores):
    w = weight / weight[weight > 0].mean()
    return [(1 + w[calibration <= s].sum()) / (1 + w.sum()) for s in scores]


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_are_ranks_among_the_calibration_scores(weighted):
    rng = np.random.default_rng(0)
    calibration = rng.integers(0, 30, 80).astype(float)  # with ties
    weight = rng.integers(0, 4, 80).astype(float) if weighted else np.ones(80)
    scores = np.r_[-5.0, calibration[:20], 3.5, 99]
    rule = rule_of("held_out", calibration, weight if weighted else None, 0.1)
    p = rule.p_values(scores)
    np.testing.assert_allclose(p, brute_force(calibration, weight, scores), rtol=1e-12)
    assert p.min() == pytest.approx(1 / 81 if not weighted else 1 / (1 + (weight > 0).sum()))
    assert p.max() == pytest.approx(1)


@pytest.mark.parametrize("kind", ON_NEW_ROWS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 1 / 3, 0.5])
def test_what_lies_below_the_offset_has_p_values_of_at_most_the_level(kind, weighted, level):
    rng = np.random.default_rng(0)
    calibration, scores = -rng.exponential(size=200), -rng.exponential(size=1000)
    weight = rng.integers(0, 4, 200).astype(float) if weighted else None
    rule = rule_of(kind, calibration, weight, 0.1)
    np.testing.assert_array_equal(scores < rule.offset(level), rule.p_values(scores) <= level)


def test_the_offset_of_ranks_is_an_order_statistic():
    scores = np.random.default_rng(0).permutation(99).astype(float)
    for kind in ("held_out", "cross_fitted"):
        assert rule_of(kind, scores, None, 0.1).offset(0.1) == 9  # floor(0.1 * 100) = 10th
    assert rule_of("training", scores, None, 0.1).offset(0.1) == 9
    assert rule_of("held_out", scores, None, 0.1).offset(0.009) == -np.inf


def test_scores_of_nan_are_no_evidence():
    for kind in THRESHOLDS:
        rule = rule_of(kind, np.arange(50.0), None, 0.3)
        assert rule.p_values(np.array([np.nan, -9.0]))[0] == 1


@pytest.mark.parametrize("kind", THRESHOLDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_scores_of_nan_do_not_count(kind, weighted):
    scores = np.random.default_rng(0).normal(size=200)
    weight = np.arange(1.0, 201) if weighted else None
    holed = np.insert(scores, slice(0, 200), np.nan)
    heavy = np.insert(weight, slice(0, 200), 50.0) if weighted else None
    a, b = rule_of(kind, scores, weight, 0.1), rule_of(kind, holed, heavy, 0.1)
    for level in (0.02, 0.1, 0.5):
        assert a.offset(level) == pytest.approx(b.offset(level))
    np.testing.assert_allclose(a.p_values(scores), b.p_values(scores))


def test_without_any_score_nothing_is_below_the_offset():
    assert rule_of("training", np.full(3, np.nan), None, 0.1).offset(0.1) == -np.inf


@pytest.mark.parametrize("kind", ["training", "held_out"])
@pytest.mark.parametrize("weight", [0.3, 1e-3])
def test_equal_weights_of_many_rows_flag_as_no_weights_do(kind, weight):
    """Their running sums are rounded: by 1e-12 of the sum for 100,000 rows."""
    scores = np.random.default_rng(0).normal(size=100_000)
    plain, weighted = (rule_of(kind, scores, w, 0.1) for w in (None, np.full(len(scores), weight)))
    for level in (0.01, 0.1, 0.2):
        assert weighted.offset(level) == plain.offset(level)


# ---- the tail


def pareto_scores(shape, scale, n, seed=0):
    return 3 - scipy.stats.genpareto.rvs(shape, scale=scale, size=n, random_state=seed)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.4])
def test_the_tail_of_a_pareto_sample_is_found(shape):
    """Beyond an edge a generalized Pareto tail is one of the same shape: u - y | y > t."""
    rule = rule_of("extreme_value", pareto_scores(shape, 2.0, 50_000), None, 0.1)
    assert rule.shape == pytest.approx(shape, abs=0.05)
    assert rule.share == pytest.approx(0.1, abs=1e-3)
    exact = scipy.stats.genpareto(shape, scale=2.0)
    for level in (1e-2, 1e-4):
        true = 3 - exact.isf(level)
        assert rule.offset(level) == pytest.approx(true, rel=0.1)
        assert rule.p_values(np.array([true]))[0] == pytest.approx(level, rel=0.4)


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_go_on_at_the_edge_of_the_tail(weighted):
    weight = np.random.default_rng(0).integers(0, 3, 500) * 1.0 if weighted else None
    rule = rule_of("extreme_value", pareto_scores(0.1, 1.0, 500), weight, 0.1)
    scores = np.linspace(-9, 3, 2000)
    p = rule.p_values(scores)
    assert (np.diff(p) >= 0).all()
    at_edge = rule.p_values(np.array([rule.edge - 1e-9, rule.edge]))
    assert at_edge[0] == pytest.approx(rule.share)
    assert at_edge[1] - at_edge[0] < 3 / 500 * (3 if weighted else 1)


def test_a_tail_that_ends_gives_no_p_value_of_zero():
    rule = rule_of("extreme_value", -np.random.default_rng(0).random(1000), None, 0.2)
    assert rule.shape < 0
    p = rule.p_values(np.array([-1e300, -100.0, -np.inf]))
    assert (p > 0).all()
    assert (p < 1e-9).all()


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e12])
def test_the_tail_has_the_units_of_the_scores(unit):
    scores = pareto_scores(0.2, 1.0, 400)
    one, other = (rule_of("extreme_value", c * scores, None, 0.1) for c in (1.0, unit))
    assert other.offset(1e-3) == pytest.approx(unit * one.offset(1e-3), rel=1e-6)


def test_equal_scores_have_a_tail_without_length():
    rule = rule_of("extreme_value", np.full(200, -2.0), None, 0.1)
    assert rule.offset(1e-3) == pytest.approx(-2.0)
    assert np.isfinite(rule.p_values(np.array([-2.0, -2.1, -1.0]))).all()


def test_too_few_rows_make_no_tail():
    rule = rule_of("extreme_value", -np.arange(50.0), None, 0.1)
    assert isinstance(rule, ParetoTail)
    ranks = rule_of("held_out", -np.arange(50.0), None, 0.1)
    assert rule.offset(0.1) == ranks.offset(0.1)
    np.testing.assert_array_equal(rule.p_values(rule.scores), ranks.p_values(rule.scores))


# ---- rows that calibrate


@pytest.mark.parametrize(("fraction", "n_held"), [(0.2, 60), (0.5, 150), (0.001, 1), (0.333, 100)])
def test_held_out_rows_are_not_trained_on(rows, fraction, n_held):
    fitted = detector(
        Memory(), threshold="held_out", calibration_fraction=fraction,
        contamination=0.5,
    ).fit(rows)  # fmt: skip
    np.testing.assert_allclose(fitted.calibration_scores_, -np.ones(n_held))
    assert fitted.estimator_.rows_.shape == (300 - n_held, 5)


@pytest.mark.parametrize("cv", [2, 5, KFold(3)])
def test_cross_fitted_scores_are_of_models_that_have_not_seen_the_row(rows, cv):
    fitted = detector(Memory(), threshold="cross_fitted", cv=cv).fit(rows)
    np.testing.assert_allclose(fitted.calibration_scores_, -np.ones(300))
    np.testing.assert_array_equal(fitted.estimator_.rows_, rows)
    np.testing.assert_array_equal(fitted.score_samples(rows), 0)


def test_cross_fitted_scores_are_those_of_the_folds_in_the_order_of_the_rows(rows):
    fitted = detector(threshold="cross_fitted", cv=KFold(4)).fit(rows)
    for kept, held in KFold(4).split(rows):
        pca = PCA(2, random_state=0).fit(rows[kept])
        expected = -((pca.inverse_transform(pca.transform(rows[held])) - rows[held]) ** 2).mean(1)
        np.testing.assert_allclose(fitted.calibration_scores_[held], expected, rtol=1e-9)


def test_folds_of_a_number_are_shuffled(rows):
    by_number = detector(threshold="cross_fitted", cv=4).fit(rows)
    in_order = detector(threshold="cross_fitted", cv=KFold(4)).fit(rows)
    assert not np.allclose(by_number.calibration_scores_, in_order.calibration_scores_)


def test_a_splitter_may_leave_rows_out_but_test_none_twice(rows):
    fitted = detector(threshold="cross_fitted", cv=TimeSeriesSplit(4)).fit(rows)
    assert fitted.calibration_scores_.shape == (240,)
    fitted = detector(
        threshold="cross_fitted", cv=PredefinedSplit(np.r_[np.full(200, -1), np.zeros(100)])
    ).fit(rows)
    assert fitted.calibration_scores_.shape == (100,)
    with pytest.raises(ValueError, match=r"cv=ShuffleSplit.* more than once"):
        detector(threshold="cross_fitted", cv=ShuffleSplit(5, random_state=0)).fit(rows)


def test_the_model_of_cross_fitting_is_the_model_of_all_rows(rows):
    network = Autoencoder(n_components=2, hidden_layer_sizes=(4,), max_iter=3, tol=None)
    plain, crossed = (
        detector(network, threshold=threshold).fit(rows)
        for threshold in ("training", "cross_fitted")
    )
    np.testing.assert_array_equal(plain.score_samples(rows), crossed.score_samples(rows))


def test_a_tail_may_be_that_of_training_scores(rows):
    tail = detector(threshold="extreme_value", calibration_fraction=None).fit(rows)
    plain = detector().fit(rows)
    np.testing.assert_array_equal(tail.calibration_scores_, plain.calibration_scores_)
    held = detector(threshold="extreme_value", tail_fraction=0.3).fit(rows)
    assert held.calibration_scores_.shape == (60,)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_two_fits_of_one_seed_are_the_same(rows, threshold):
    a, b, c = (
        detector(threshold=threshold, contamination=0.2, tail_fraction=0.3, random_state=seed)
        .fit(rows).offset_ for seed in (0, 0, 1)
    )  # fmt: skip
    assert a == b
    assert (a == c) == (threshold == "training")  # PCA itself draws nothing


def test_without_a_seed_the_global_generator_is_left_alone(rows):
    key = np.random.get_state()[1].copy()  # noqa: NPY002
    for threshold in ON_NEW_ROWS:
        detector(
            threshold=threshold, random_state=None, tail_fraction=0.3, contamination=0.2
        ).fit(rows)  # fmt: skip
    np.testing.assert_array_equal(np.random.get_state()[1], key)  # noqa: NPY002


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_conventions_hold_under_every_threshold(rows, new, threshold):
    fitted = detector(threshold=threshold, contamination=0.2, tail_fraction=0.3).fit(rows)
    check_is_fitted(fitted)
    scores, p = fitted.score_samples(new), fitted.p_values(new)
    np.testing.assert_array_equal(fitted.decision_function(new), scores - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(new) == -1, scores < fitted.offset_)
    assert ((p > 0) & (p <= 1)).all()
    order = np.argsort(scores)
    assert (np.diff(p[order]) >= 0).all()
    if threshold != "training":
        np.testing.assert_array_equal(fitted.predict(new) == -1, p <= 0.2)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.p_values(new), p)


# ---- weights


def test_weights_go_to_training_and_to_calibration(rows):
    w = np.arange(300) % 3 * 1.0
    fitted = detector(Memory(), threshold="held_out", contamination=0.3).fit(rows, sample_weight=w)
    rows_ = {tuple(row): weight for row, weight in zip(rows, w, strict=True)}
    np.testing.assert_array_equal(
        fitted.estimator_.weight_, [rows_[tuple(row)] for row in fitted.estimator_.rows_]
    )
    crossed = detector(threshold="cross_fitted", cv=KFold(5)).fit(rows, sample_weight=w)
    plain = detector(threshold="cross_fitted", cv=KFold(5)).fit(rows)
    np.testing.assert_array_equal(crossed.calibration_scores_, plain.calibration_scores_)
    new = rows[:50] + 1
    expected = brute_force(plain.calibration_scores_, w, plain.score_samples(new))
    np.testing.assert_allclose(crossed.p_values(new), expected, rtol=1e-12)


def test_weights_of_float32_rows_are_summed_in_float64():
    X = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    w = np.full(len(X), 0.1, dtype=np.float32)
    fitted = detector(PCA(1)).fit(X, sample_weight=w)
    assert (fitted.predict(X) == -1).sum() == 2000
    fitted.set_threshold(contamination=0.01)
    assert (fitted.predict(X) == -1).sum() == 200


@pytest.mark.parametrize("threshold", ["held_out", "cross_fitted"])
def test_weights_that_leave_no_rows_are_refused(rows, threshold):
    for row in (0, 150):
        w = np.zeros(300)
        w[row] = 1
        with pytest.raises(ValueError, match="sample weights leave no rows to"):
            detector(Memory(), threshold=threshold).fit(rows, sample_weight=w)


# ---- what cannot be


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": "held_out", "contamination": 0.01},
         r"contamination=0.01 could flag no row.* 60 .* 1 / 61.*Calibrate on 99 rows"),
        ({"threshold": "cross_fitted", "contamination": 0.003}, "1 / 301"),
        ({"threshold": "held_out", "calibration_fraction": None}, "calibration_fraction is None"),
        ({"threshold": "extreme_value"}, r"6 lowest of 60 .*tail_fraction=0.1.* needs 10"),
        ({"threshold": "median"}, "threshold"),
        ({"threshold": "held_out", "calibration_fraction": 1.0}, "calibration_fraction"),
        ({"cv": 1}, "cv"),
        ({"tail_fraction": 0}, "tail_fraction"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_refused_and_changes_nothing(rows, changed, message):
    fitted = detector().fit(rows)
    offset = fitted.offset_
    fitted.set_params(**changed)
    with pytest.raises(ValueError, match=message):
        fitted.fit(rows)
    assert fitted.offset_ == offset


@pytest.mark.parametrize("threshold", ["held_out", "cross_fitted"])
def test_one_row_cannot_be_split(rows, threshold):
    with pytest.raises(ValueError, match="n_samples=1"):
        detector(threshold=threshold).fit(rows[:1])


# ---- moving it


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_moved_threshold_is_that_of_another_fit(rows, new, threshold):
    numbers = {"threshold": threshold, "tail_fraction": 0.3}
    fitted = detector(contamination=0.3, **numbers).fit(rows)
    scores = fitted.score_samples(new)
    assert fitted.set_threshold(contamination=0.1) is fitted
    again = detector(contamination=0.1, **numbers).fit(rows)
    assert fitted.offset_ == again.offset_
    assert fitted.contamination == 0.1
    np.testing.assert_array_equal(fitted.predict(new), again.predict(new))
    np.testing.assert_array_equal(fitted.score_samples(new), scores)
    assert clone(fitted).fit(rows).offset_ == again.offset_


def test_ranks_and_tail_may_be_exchanged(rows, new):
    fitted = detector(threshold="held_out", calibration_fraction=0.5).fit(rows)
    ranks = fitted.p_values(new)
    fitted.set_threshold(threshold="extreme_value", contamination=0.001)
    assert fitted.p_values(new).min() < ranks.min()
    assert (fitted.predict(new) == -1).sum() > 0
    fitted.set_threshold(threshold="held_out", contamination=0.1)
    np.testing.assert_array_equal(fitted.p_values(new), ranks)


def test_set_params_waits_for_set_threshold(rows):
    fitted = detector(contamination=0.3).fit(rows)
    before = fitted.offset_
    fitted.set_params(contamination=0.1)
    assert fitted.offset_ == before
    assert (fitted.predict(rows) == -1).sum() == 90
    fitted.set_threshold()
    assert (fitted.predict(rows) == -1).sum() == 30


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"contamination": 0.7}, ValueError, "contamination"),
        ({"threshold": "cross_fitted"}, ValueError, "'held_out'.* Call fit"),
        ({"threshold": "training"}, ValueError, "Call fit"),
        ({"contamination": 0.01}, ValueError, "could flag no row"),
        ({"cv": 3}, TypeError, "cv, which only fit"),
        ({"contaminaton": 0.1}, TypeError, "contaminaton"),
    ],
)
def test_a_refused_threshold_leaves_the_old_one(rows, parameters, error, message):
    fitted = detector(threshold="held_out").fit(rows)
    before = {**vars(fitted)}
    with pytest.raises(error, match=message):
        fitted.set_threshold(**parameters)
    assert vars(fitted) == before


def test_only_a_fitted_detector_has_a_threshold_to_move(rows):
    from sklearn.exceptions import NotFittedError

    for call in (
        lambda d: d.set_threshold(contamination=0.2),
        lambda d: d.p_values(rows),
        lambda d: d.predict_fdr(rows),
        lambda d: d.feature_scores(rows),
        lambda d: d.explain(rows),
    ):
        with pytest.raises(NotFittedError):
            call(detector())

"""Detectors of streams: models that go on, thresholds that follow."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, IncrementalPCA

from skae import Autoencoder, ReconstructionOutlierDetector


class Mean(TransformerMixin, BaseEstimator):
    """Reconstructs the mean of all rows seen."""

    def fit(self, X, y=None):
        self.n_, self.mean_ = 0, np.zeros(X.shape[1])
        return self.partial_fit(X)

    def partial_fit(self, X, y=None):
        self.n_, before = getattr(self, "n_", 0) + len(X), getattr(self, "n_", 0)
        self.mean_ = (before * getattr(self, "mean_", 0) + X.sum(0)) / self.n_
        return self

    def transform(self, X):
        return np.zeros((len(X), 1))

    def inverse_transform(self, Z):
        return np.tile(self.mean_, (len(Z), 1))


def detector(estimator=None, **changed):
    estimator = Mean() if estimator is None else estimator
    return ReconstructionOutlierDetector(**{"estimator": estimator, "random_state": 0} | changed)


def error(mean, X):
    return ((X - mean) ** 2).mean(1)


@pytest.fixture(scope="module")
def stream():
    return np.random.default_rng(0).normal(size=(20, 50, 4))


def test_only_where_the_estimator_goes_on_does_the_detector(stream):
    assert hasattr(detector(IncrementalPCA(2)), "partial_fit")
    assert hasattr(ReconstructionOutlierDetector(), "partial_fit")
    assert not hasattr(detector(Autoencoder(solver="lbfgs")), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        detector(PCA(2)).partial_fit(stream[0])


def test_batches_are_scored_before_they_are_learnt_from(stream):
    fitted = detector(threshold="held_out").partial_fit(stream[0])
    assert fitted.calibration_scores_.shape == (0,)
    for i in (1, 2):
        fitted.partial_fit(stream[i])
        expected = -error(stream[:i].reshape(-1, 4).mean(0), stream[i])
        np.testing.assert_allclose(fitted.calibration_scores_[-50:], expected, rtol=1e-12)
    assert fitted.calibration_scores_.shape == (100,)


def test_under_training_they_are_scored_after(stream):
    fitted = detector(threshold="training").partial_fit(stream[0])
    np.testing.assert_array_equal(fitted.calibration_scores_, fitted.score_samples(stream[0]))
    assert (fitted.predict(stream[0]) == -1).sum() == 5


@pytest.mark.parametrize("size", [1, 30, 120, 1000])
def test_the_threshold_is_that_of_the_latest_rows(stream, size):
    narrow = detector(threshold="held_out", window_size=size, contamination=0.5)
    wide = detector(threshold="held_out", window_size=10**6, contamination=0.5)
    for X in stream[:4]:
        narrow.partial_fit(X), wide.partial_fit(X)
    np.testing.assert_array_equal(narrow.calibration_scores_, wide.calibration_scores_[-size:])
    n = min(size, 150)
    rank = int(0.5 * (n + 1))
    assert narrow.offset_ == np.sort(narrow.calibration_scores_)[rank - 1]


def test_the_threshold_follows_a_drift(stream):
    fitted = detector(threshold="held_out", window_size=200)
    for X in stream[:8]:
        fitted.partial_fit(X)
    wider = 3 * stream[8:]
    first = (fitted.predict(wider[0]) == -1).mean()
    for X in wider[:8]:
        fitted.partial_fit(X)
    last = (fitted.predict(wider[8:].reshape(-1, 4)) == -1).mean()
    assert first > 0.5
    assert last < 0.25


def test_rows_of_a_steady_stream_are_flagged_at_the_rate():
    rng = np.random.default_rng(1)
    fitted, flagged = detector(threshold="held_out", window_size=499), []
    for i in range(100):
        X = rng.normal(size=(50, 4))
        if i > 20:
            flagged.append((fitted.predict(X) == -1).mean())
        fitted.partial_fit(X)
    assert abs(np.mean(flagged) - 0.1) < 3 * np.std(flagged) / np.sqrt(len(flagged)) + 0.01


@pytest.mark.parametrize("threshold", ["held_out", "cross_fitted", "extreme_value"])
def test_nothing_is_flagged_before_there_is_something_to_compare_with(stream, threshold):
    fitted = detector(threshold=threshold, contamination=0.01).partial_fit(stream[0])
    far = np.full((1, 4), 100.0)
    assert fitted.predict(far) == [1]
    assert fitted.p_values(far) == [1]
    for X in stream[1:4]:  # 150 rows
        fitted.partial_fit(X)
    assert fitted.predict(far) == [-1]
    assert fitted.p_values(far) < 0.01


def test_fit_begins_anew_and_partial_fit_goes_on_from_it(stream):
    fitted = detector(threshold="held_out", contamination=0.2).partial_fit(stream[0])
    fitted.fit(stream[1])
    assert fitted.calibration_scores_.shape == (10,)
    before = fitted.calibration_scores_
    fitted.partial_fit(stream[2])
    np.testing.assert_array_equal(fitted.calibration_scores_[:10], before)
    assert fitted.calibration_scores_.shape == (60,)


def test_scores_of_another_kind_are_forgotten(stream):
    fitted = detector(threshold="training").partial_fit(stream[0])
    fitted.set_params(threshold="held_out").partial_fit(stream[1])
    assert fitted.calibration_scores_.shape == (50,)


def test_weights_are_those_of_the_window(stream):
    w = np.arange(50.0)
    fitted = detector(threshold="held_out", window_size=70).partial_fit(stream[0])
    fitted.partial_fit(stream[1]).partial_fit(stream[2], sample_weight=w)
    scores, both = fitted.calibration_scores_, np.r_[np.ones(21), w[1:]]
    both /= both.mean()
    s = fitted.score_samples(stream[3])
    expected = [(1 + both[scores <= x].sum()) / (1 + both.sum()) for x in s]
    np.testing.assert_allclose(fitted.p_values(stream[3]), expected, rtol=1e-12)


@pytest.mark.parametrize(("threshold", "size"), [("training", 30), ("held_out", 20)])
def test_rows_of_weight_zero_take_no_place_in_the_window(stream, threshold, size):
    fitted = detector(threshold=threshold, window_size=30)
    w = np.repeat([1.0, 0.0], [10, 40])  # more zeros than the window has places
    for X in stream[:3]:
        own = fitted.score_samples(X[:10]) if hasattr(fitted, "estimator_") else []
        fitted.partial_fit(X, sample_weight=w)
        own = fitted.score_samples(X[:10]) if threshold == "training" else own
        np.testing.assert_array_equal(fitted.calibration_scores_[-10:], own)
    assert fitted.calibration_scores_.shape == (size,)
    assert np.isfinite(fitted.offset_)


def test_an_autoencoder_learns_a_stream_as_it_does_alone(stream):
    network = Autoencoder(n_components=2, hidden_layer_sizes=(), random_state=0)
    fitted = detector(network, random_state=None)
    for X in stream[:3]:
        fitted.partial_fit(X)
        network.partial_fit(X)
    np.testing.assert_array_equal(fitted.score_samples(X), network.score_samples(X))
    assert fitted.set_threshold(contamination=0.3) is fitted


def test_a_stream_goes_on_with_the_estimator_that_it_began_with(stream):
    fitted = detector(IncrementalPCA(2)).partial_fit(stream[0])
    fitted.set_params(estimator=PCA(2)).partial_fit(stream[1])
    assert fitted.estimator_.n_samples_seen_ == 100
    assert not hasattr(detector(PCA(2)).fit(stream[0]).set_params(estimator=Mean()), "partial_fit")


def test_a_refused_batch_changes_nothing(stream):
    fitted = detector().partial_fit(stream[0])
    before = vars(fitted).copy()
    with pytest.raises(ValueError, match="4 features"):
        fitted.partial_fit(stream[1][:, :3])
    with pytest.raises(ValueError, match="NaN"):
        fitted.partial_fit(np.full((2, 4), np.nan))
    assert vars(fitted) == before

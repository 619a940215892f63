"""docs/migration_pyod.md: where the models are equal, so are the decisions."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skae import Autoencoder, ReconstructionOutlierDetector
from skae.estimators._thresholds import rule_of


class InPyODsArithmetic:
    """What PyOD's base class makes of scores, of which the largest are outliers."""

    def __init__(self, decision_scores, contamination):
        self.decision_scores_ = decision_scores
        self.threshold_ = np.percentile(decision_scores, 100 * (1 - contamination))
        self.labels_ = self.predict(decision_scores)

    def predict(self, scores):
        return (scores > self.threshold_).astype(int)


@pytest.fixture(scope="module")
def both():
    """600 training rows and as many others, a tenth of them off."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 3)) @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(1200, 6))
    X[::10] += rng.normal(size=(120, 6))
    return X[:600], X[600:]


def ours(X, estimator, contamination, n=600):
    detector = ReconstructionOutlierDetector(
        estimator=estimator, contamination=contamination, random_state=0
    )
    return detector.fit(X[:n])


def labels(detector, X):
    return (detector.predict(X) == -1).astype(int)


def distances(detector, X):
    return np.sqrt(X.shape[1] * -detector.score_samples(X))


NETWORK = Autoencoder(
    n_components=2, hidden_layer_sizes=(8,), code_activation="relu", max_iter=3, tol=None
)


@pytest.mark.parametrize("estimator", [PCA(3), NETWORK], ids=["PCA", "Autoencoder"])
@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.25, 1 / 3, 0.5])
def test_decisions_on_training_rows_are_equal(both, estimator, contamination):
    X, _ = both
    detector = ours(X, estimator, contamination)
    theirs = InPyODsArithmetic(distances(detector, X), contamination)
    np.testing.assert_array_equal(labels(detector, X), theirs.labels_)
    np.testing.assert_allclose(
        np.sqrt(6 * -detector.calibration_scores_), theirs.decision_scores_, rtol=1e-12
    )


@pytest.mark.parametrize(("n", "contamination"), [(57, 0.1), (599, 0.05), (11, 0.25)])
def test_where_the_share_is_no_whole_number_pyod_flags_one_more(both, n, contamination):
    X, _ = both
    detector = ours(X, PCA(3), contamination, n)
    theirs = InPyODsArithmetic(distances(detector, X[:n]), contamination)
    assert theirs.labels_.sum() == labels(detector, X[:n]).sum() + 1
    assert (theirs.labels_ >= labels(detector, X[:n])).all()


@pytest.mark.parametrize(("n", "contamination"), [(101, 0.1), (196, 0.2)])
def test_where_the_fraction_is_small_pyod_rounds_down_too(both, n, contamination):
    X, _ = both
    detector = ours(X, PCA(3), contamination, n)
    theirs = InPyODsArithmetic(distances(detector, X[:n]), contamination)
    np.testing.assert_array_equal(theirs.labels_, labels(detector, X[:n]))


@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.333])
def test_decisions_on_new_rows_differ_only_between_two_training_scores(both, contamination):
    X, new = both
    detector = ours(X, PCA(3), contamination)
    theirs = InPyODsArithmetic(distances(detector, X), contamination)
    differ = labels(detector, new) != theirs.predict(distances(detector, new))
    s, n_flagged = np.sort(detector.calibration_scores_), theirs.labels_.sum()
    between = (detector.score_samples(new) >= s[n_flagged - 1]) & (
        detector.score_samples(new) <= s[n_flagged]
    )
    assert not (differ & ~between).any()
    detector.offset_ = -(theirs.threshold_**2) / 6
    np.testing.assert_array_equal(labels(detector, new), theirs.predict(distances(detector, new)))


def test_one_extreme_score_moves_all_linear_probabilities_and_hardly_a_p_value(both):
    X, new = both
    detector = ours(X, PCA(3), 0.1)
    known, errors = -detector.calibration_scores_, -detector.score_samples(new)
    with_one = np.r_[known, 100 * known.max()]
    linear, moved = ((errors - e.min()) / np.ptp(e) for e in (known, with_one))
    assert np.median(linear / moved) > 90
    p, p_moved = (rule_of("training", -e, None, 0.1).p_values(-errors) for e in (known, with_one))
    np.testing.assert_array_equal(p, detector.p_values(new))
    assert np.abs(p - p_moved).max() < 2 / 601


# ---- PyOD itself, which `pip install -e .[bench]` brings


def test_kernel_pca_of_a_linear_kernel_is_our_detector_with_pca(both):
    pyod = pytest.importorskip("pyod.models.kpca")
    X, new = (rows[:200] for rows in both)
    theirs = pyod.KPCA(n_components=3, kernel="linear", eigen_solver="dense").fit(X)
    detector = ours(X, PCA(3), 0.1, 200)
    np.testing.assert_allclose(
        -6 * detector.calibration_scores_, theirs.decision_scores_, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        -6 * detector.score_samples(new), theirs.decision_function(new), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_array_equal(labels(detector, X), theirs.labels_)
    arithmetic = InPyODsArithmetic(theirs.decision_scores_, 0.1)
    assert arithmetic.threshold_ == theirs.threshold_
    np.testing.assert_array_equal(arithmetic.labels_, theirs.labels_)
    detector.offset_ = -theirs.threshold_ / 6
    np.testing.assert_array_equal(labels(detector, new), theirs.predict(new))

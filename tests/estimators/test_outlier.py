"""The detector of badly reconstructed rows."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import NMF, PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skae import Autoencoder, ReconstructionOutlierDetector


def quick(**changed):
    """An autoencoder that trains in a few milliseconds."""
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 5, "tol": None,
           "batch_size": 16} | changed
    )  # fmt: skip


def detector(estimator=None, **changed):
    estimator = quick() if estimator is None else estimator
    return ReconstructionOutlierDetector(**{"estimator": estimator, "random_state": 0} | changed)


ESTIMATORS = [PCA(2), quick(), quick(loss="huber"), make_pipeline(StandardScaler(), PCA(2))]


def label(value):
    return type(value).__name__ if isinstance(value, BaseEstimator) else None


# ---- conventions


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=label)
def test_conventions_are_those_of_isolation_forest(X, estimator):
    ours = detector(estimator, contamination=0.2).fit(X)
    theirs = IsolationForest(contamination=0.2, random_state=0).fit(X)
    for model in (ours, theirs):
        scores = model.score_samples(X)
        assert scores.shape == (60,)
        assert (scores <= 0).all()
        np.testing.assert_array_equal(model.decision_function(X), scores - model.offset_)
        np.testing.assert_array_equal(model.predict(X) == -1, model.decision_function(X) < 0)
        assert (model.predict(X) == -1).sum() == 12
    scores = ours.score_samples(X)
    assert ours.offset_ == pytest.approx(
        np.percentile(scores, 20), abs=np.ptp(np.sort(scores)[11:13])
    )
    assert set(ours.predict(X)) == {-1, 1}
    np.testing.assert_array_equal(clone(ours).fit_predict(X), ours.predict(X))


def test_labels_are_ignored(X):
    a, b = detector().fit(X), detector().fit(X, y=np.ones(60))
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


def test_far_rows_score_lower(X):
    fitted = detector(PCA(2)).fit(X)
    off = np.linalg.svd(X - X.mean(0))[2][-1]  # away from the principal plane
    scores = [fitted.score_samples(X[:1] + step * off)[0] for step in (0, 1, 10, 100)]
    assert scores[1] > scores[2] > scores[3]
    assert fitted.predict(X[:1] + 100 * off) == [-1]


# ---- scores


def test_score_of_any_estimator_is_the_negative_mean_square(X):
    fitted = detector(PCA(2)).fit(X)
    pca = PCA(2, random_state=0).fit(X)
    expected = -((pca.inverse_transform(pca.transform(X)) - X) ** 2).mean(1)
    np.testing.assert_allclose(fitted.score_samples(X), expected)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
def test_score_of_an_autoencoder_is_its_own_loss(X, loss):
    fitted = detector(quick(loss=loss)).fit(X)
    np.testing.assert_array_equal(fitted.score_samples(X), fitted.estimator_.score_samples(X))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=label)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_scores_are_float64_and_alike_in_batches_of_any_size(X, estimator, dtype):
    X = (20 * X).astype(dtype)
    fitted = detector(estimator).fit(X)
    scores = fitted.score_samples(X)
    assert scores.dtype == fitted.decision_function(X).dtype == np.float64
    for size in (1, 7, 59):
        parts = [fitted.score_samples(X[i : i + size]) for i in range(0, 60, size)]
        np.testing.assert_allclose(np.concatenate(parts), scores, rtol=1e-10)


def test_the_estimator_is_fitted_in_the_dtype_of_X(X):
    single = X.astype(np.float32)
    fitted = detector().fit(single)
    assert fitted.estimator_.coefs_[0].dtype == np.float32
    assert detector().fit(X).estimator_.coefs_[0].dtype == np.float64


def test_a_decomposition_that_takes_one_dtype_alone_is_scored_in_it(X):
    single = np.abs(X).astype(np.float32)
    fitted = detector(NMF(2, init="nndsvda")).fit(single)
    double = detector(NMF(2, init="nndsvda")).fit(single.astype(np.float64))
    np.testing.assert_allclose(
        fitted.score_samples(single), double.score_samples(single), rtol=0.05, atol=1e-3
    )


@pytest.mark.parametrize("estimator", [PCA(2), quick()], ids=label)
@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, pd.DataFrame])
def test_sparse_matrices_and_frames_are_their_arrays(X, estimator, make):
    if isinstance(estimator, PCA):
        estimator = PCA(2, svd_solver="arpack")  # the solver that takes sparse X
    other = make(X)
    if isinstance(other, pd.DataFrame):
        other.columns = list("abcde")
    fitted, reference = detector(estimator).fit(other), detector(estimator).fit(X)
    np.testing.assert_allclose(fitted.score_samples(other), reference.score_samples(X), rtol=1e-8)
    assert hasattr(fitted, "feature_names_in_") == isinstance(other, pd.DataFrame)


# ---- the threshold


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # PCA of one row
@pytest.mark.parametrize("contamination", [0.001, 0.05, 0.1, 0.15, 1 / 3, 0.3, 0.35, 0.5])
@pytest.mark.parametrize("n", [1, 2, 7, 10, 20, 57, 60])
def test_contamination_is_the_share_of_training_rows_flagged(X, contamination, n):
    fitted = detector(PCA(1), contamination=contamination).fit(X[:n])
    flagged = (fitted.predict(X[:n]) == -1).sum()
    if n > 2:  # one component holds two rows exactly: their scores are rounding
        assert flagged == np.floor(contamination * n + 1e-9)
    assert flagged <= contamination * n + 1e-9


@pytest.mark.parametrize("contamination", [0.1, 0.3])
def test_contamination_is_met_by_autoencoders(X, contamination):
    for dtype in (np.float32, np.float64):
        data = X.astype(dtype)
        fitted = detector(contamination=contamination).fit(data)
        assert (fitted.predict(data) == -1).sum() == contamination * 60


def test_the_lowest_scores_are_flagged(X):
    fitted = detector(contamination=0.2).fit(X)
    order = np.argsort(fitted.score_samples(X))
    assert set(np.flatnonzero(fitted.predict(X) == -1)) == set(order[:12])


def test_equal_scores_are_flagged_together_or_not_at_all(X):
    data = np.repeat(X[:6], 10, axis=0)
    for contamination in (0.1, 0.25, 0.5):
        flagged = detector(PCA(1), contamination=contamination).fit(data).predict(data) == -1
        assert flagged.sum() <= contamination * 60
        assert all(len(set(flagged[i : i + 10])) == 1 for i in range(0, 60, 10))


def test_constant_data_are_normal():
    assert (detector().fit_predict(np.full((20, 3), 2.0)) == 1).all()


def test_offset_set_by_hand_changes_predict_without_a_refit(X):
    fitted = detector(contamination=0.1).fit(X)
    scores = fitted.score_samples(X)
    fitted.offset_ = np.sort(scores)[30]
    assert (fitted.predict(X) == -1).sum() == 30
    np.testing.assert_array_equal(fitted.score_samples(X), scores)
    np.testing.assert_array_equal(fitted.decision_function(X), scores - fitted.offset_)


def test_on_new_rows_more_than_the_share_may_be_flagged_but_not_all():
    X, y = load_breast_cancer(return_X_y=True)
    normal = X[y == 1]
    model = make_pipeline(StandardScaler(), detector(PCA(5), contamination=0.1)).fit(normal[::2])
    share = (model.predict(normal[1::2]) == -1).mean()
    assert 0 < share < 0.3
    assert roc_auc_score(y, model.decision_function(X)) > 0.9


# ---- weights


@pytest.mark.parametrize("estimator", [quick(batch_size=1000), quick(solver="lbfgs")], ids=label)
def test_integer_weights_are_repeated_rows(X, estimator):
    w = np.arange(60) % 4
    repeated = np.repeat(X, w, axis=0)
    weighted = detector(estimator, contamination=0.13).fit(X, sample_weight=w)
    reference = detector(estimator, contamination=0.13).fit(repeated)
    np.testing.assert_allclose(weighted.score_samples(X), reference.score_samples(X), rtol=1e-5)
    assert weighted.offset_ == pytest.approx(reference.offset_, rel=1e-5)
    np.testing.assert_array_equal(weighted.predict(X), reference.predict(X))


def test_weights_reach_the_threshold_of_an_estimator_that_takes_none(X):
    w = np.arange(1.0, 61.0)
    plain = detector(PCA(2), contamination=0.25).fit(X)
    fitted = detector(PCA(2), contamination=0.25).fit(X, sample_weight=w)
    np.testing.assert_array_equal(fitted.score_samples(X), plain.score_samples(X))
    flagged = fitted.predict(X) == -1
    assert w[flagged].sum() <= 0.25 * w.sum()
    following = np.argsort(fitted.score_samples(X))[flagged.sum()]
    assert w[flagged].sum() + w[following] > 0.25 * w.sum()
    assert fitted.offset_ != plain.offset_


def test_rows_of_weight_zero_do_not_move_the_threshold(X):
    w = np.r_[np.ones(40), np.zeros(20)]
    fitted = detector(PCA(2), contamination=0.25).fit(X, sample_weight=w)
    assert (fitted.predict(X[:40]) == -1).sum() == 10


def test_weights_count_relative_to_each_other(X):
    w = np.linspace(1, 2, 60)
    a, b = detector().fit(X, sample_weight=w), detector().fit(X, sample_weight=4 * w)
    assert a.offset_ == b.offset_


def test_equal_weights_are_no_weights(X):
    a, b = detector(PCA(2)).fit(X), detector(PCA(2)).fit(X, sample_weight=np.full(60, 0.1))
    assert a.offset_ == b.offset_


def test_all_zero_weights_are_refused(X):
    for estimator in (PCA(2), quick()):
        with pytest.raises(ValueError, match="zero"):
            detector(estimator).fit(X, sample_weight=np.zeros(60))


# ---- the estimator inside


def test_default_is_an_autoencoder(X):
    fitted = ReconstructionOutlierDetector(random_state=0).fit(X)
    assert isinstance(fitted.estimator_, Autoencoder)
    assert fitted.estimator is None
    assert (fitted.predict(X) == -1).sum() == 6


def test_the_estimator_given_is_cloned(X):
    inner = quick()
    fitted = detector(inner).fit(X)
    assert fitted.estimator is inner
    assert fitted.estimator_ is not inner
    assert not hasattr(inner, "encoder_")


@pytest.mark.parametrize("estimator", [NMF(2, max_iter=500), make_pipeline(MinMaxScaler(), PCA(2))],
                         ids=label)  # fmt: skip
def test_anything_that_reconstructs_may_be_inside(X, estimator):
    data = X - X.min()
    fitted = detector(estimator, contamination=0.1).fit(data)
    assert (fitted.predict(data) == -1).sum() == 6


class Halves(TransformerMixin, BaseEstimator):
    """A transformer without a random_state and without validation of its own."""

    def fit(self, X, y=None):
        self.mean_ = X.mean(0)
        return self

    def transform(self, X):
        return (X - self.mean_) / 2

    def inverse_transform(self, X):
        return X + self.mean_


def test_an_estimator_of_ones_own_may_be_inside(X):
    fitted = detector(Halves()).fit(X)
    np.testing.assert_allclose(fitted.score_samples(X), -(((X - X.mean(0)) / 2) ** 2).mean(1))


def test_random_state_makes_two_fits_the_same(X):
    a, b = detector(random_state=3).fit(X), detector(random_state=3).fit(X)
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    assert a.offset_ == b.offset_
    assert a.offset_ != detector(random_state=4).fit(X).offset_


def test_without_random_state_the_estimators_own_counts(X):
    inner = quick(random_state=3)
    fitted = detector(inner, random_state=None).fit(X)
    np.testing.assert_array_equal(fitted.score_samples(X), inner.fit(X).score_samples(X))
    a, b = (detector(quick(), random_state=None).fit(X) for _ in range(2))
    assert a.offset_ != b.offset_


@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_are_left_alone(X, random_state):
    import torch

    key = np.random.get_state()[1].copy()  # noqa: NPY002
    state = torch.get_rng_state()
    detector(random_state=random_state).fit(X).predict(X)
    np.testing.assert_array_equal(np.random.get_state()[1], key)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state)


def test_random_state_of_a_step_in_a_pipeline_may_be_set(X):
    """A detector's seed makes a pipeline inside as repeatable as an estimator inside."""
    a, b = (detector(make_pipeline(StandardScaler(), quick())).fit(X) for _ in range(2))
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))


def test_scoring_changes_no_attribute(X):
    fitted = detector().fit(X)
    before = vars(fitted).copy()
    fitted.predict(X), fitted.score_samples(X), fitted.decision_function(X)
    assert vars(fitted) == before


def test_pickle_predicts_the_same(X):
    fitted = detector().fit(X)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.decision_function(X), fitted.decision_function(X))


def test_nested_parameters_can_be_searched(X):
    model = detector().set_params(estimator__n_components=3, estimator__alpha=0.1)
    assert model.fit(X).estimator_.n_components_ == 3


def test_html_and_text_representations_work_fitted_or_not(X):
    for model in (detector(), ReconstructionOutlierDetector(), detector().fit(X)):
        assert "ReconstructionOutlierDetector" in model._repr_html_()
    assert (
        repr(ReconstructionOutlierDetector(contamination=0.1)) == "ReconstructionOutlierDetector()"
    )


@pytest.mark.parametrize("read_by_batch", [False, True])
def test_a_memory_map_is_its_array(X, tmp_path, monkeypatch, read_by_batch):
    from skae._engine import batches

    np.save(tmp_path / "X.npy", X)
    reference = detector().fit(X)
    if read_by_batch:
        monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    fitted = detector().fit(mapped)
    np.testing.assert_array_equal(fitted.score_samples(mapped), reference.score_samples(X))

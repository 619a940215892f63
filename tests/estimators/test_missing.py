"""Missing values: NaN that count nowhere, whatever X is."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.utils import get_tags

from skae import Autoencoder, DenoisingAutoencoder, ReconstructionOutlierDetector
from skae._engine import batches


def quick(**changed):
    """One that trains in a few milliseconds, and adds no noise of its own."""
    return DenoisingAutoencoder(
        **{"noise_level": 0, "n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3,
           "tol": None, "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


def assert_same_fit(a, b):
    for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(p, q)
    assert a.loss_curve_ == b.loss_curve_
    assert a.validation_loss_curve_ == b.validation_loss_curve_


@pytest.fixture(scope="module")
def hidden(X):
    gone = np.random.default_rng(1).random(X.shape) < 0.2
    gone[7] = True  # a row without any value
    return gone


@pytest.fixture(scope="module")
def holed(X, hidden):
    holed = np.where(hidden, np.nan, X)
    holed.flags.writeable = False
    return holed


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5)) + 3


# ---- what a missing value is


def test_tags_say_who_takes_missing_values(holed):
    assert get_tags(quick()).input_tags.allow_nan
    assert not get_tags(Autoencoder()).input_tags.allow_nan
    with pytest.raises(ValueError, match="NaN"):
        Autoencoder().fit(holed)
    for name in ("impute", "statistics_"):
        assert not hasattr(Autoencoder().fit(np.eye(3)), name)
    assert not hasattr(quick(), "statistics_")


def test_who_takes_no_missing_values_says_who_does():
    with pytest.raises(AttributeError) as error:
        Autoencoder().fit(np.eye(3)).impute(np.eye(3))
    assert "Use DenoisingAutoencoder" in str(error.value.__cause__)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_still_an_error(holed, value):
    bad = holed.copy()
    bad[3, 1] = value
    for make in (lambda X: X, pd.DataFrame, sp.csr_array, torch.tensor):
        with pytest.raises(ValueError, match="infinity"):
            quick().fit(make(bad))
        fitted = quick().fit(holed)
        with pytest.raises(ValueError, match="infinity"):
            fitted.impute(make(bad))


def test_without_missing_values_it_is_the_plain_autoencoder(X):
    plain = Autoencoder(n_components=2, hidden_layer_sizes=(4,), max_iter=3, tol=None,
                        batch_size=16, random_state=0).fit(X)  # fmt: skip
    ae = quick().fit(X)
    assert_same_fit(ae, plain)
    np.testing.assert_array_equal(ae.reconstruction_error(X), plain.reconstruction_error(X))
    np.testing.assert_array_equal(ae.impute(X), X)


def test_statistics_are_the_simple_imputers(holed):
    np.testing.assert_allclose(
        quick().fit(holed).statistics_, SimpleImputer().fit(holed).statistics_, rtol=1e-12
    )


def test_statistics_use_the_weights(holed, X, hidden):
    w = np.random.default_rng(3).integers(0, 3, size=60)
    found = quick().fit(holed, sample_weight=w).statistics_
    w = w[:, None] * ~hidden
    np.testing.assert_allclose(found, np.average(X, axis=0, weights=w), rtol=1e-12)


# ---- a hidden cell never influences anything


@pytest.mark.parametrize("options", [
    {}, {"noise_level": 0.4}, {"noise_level": 0.4, "corruption": "swap", "untouched_weight": 0.5},
    {"noise_level": 0.4, "corruption": "gaussian"},
    {"noise_level": 0.4, "corruption": "salt_and_pepper"}, {"early_stopping": True},
    {"solver": "lbfgs"}, {"solver": "sgd", "learning_rate_init": 1e-4}, {"tied_weights": True},
])  # fmt: skip
def test_what_is_hidden_does_not_matter(X, hidden, options):
    """Another value under the same holes is another copy of the same data."""
    w = np.linspace(0.5, 1.5, 60)
    fits = []
    for other in (X, 1e6 * np.sin(X), X[::-1]):
        holed = np.where(hidden, np.nan, np.where(hidden, other, X))
        fits.append(quick(**options).fit(holed, sample_weight=w))
    assert_same_fit(fits[0], fits[1])
    assert_same_fit(fits[0], fits[2])


def test_the_engine_never_reads_a_hidden_cell(X, hidden, monkeypatch):
    """The same one level down: what the fill is changes inputs, but no target."""
    fill = batches.complete

    def other(x, means, gone):
        return torch.where(gone, fill(x, means, gone) + 100.0, x)

    one = quick(max_iter=1, learning_rate_init=1e-12, n_components=1, hidden_layer_sizes=())
    one.set_params(activation="identity")
    holed = np.where(hidden, np.nan, X)
    a = one.fit(holed)
    start = clone(one).set_params(initialize_from=a)
    for linear in a._linears()[:1]:
        linear.weight.data.zero_()  # blind to its inputs
    expected = start.fit(holed).loss_curve_
    monkeypatch.setattr(batches, "complete", other)
    assert start.fit(holed).loss_curve_ == pytest.approx(expected, rel=1e-9)


def test_loss_of_a_row_is_the_mean_over_its_observed_cells(X, hidden, holed):
    ae = quick().fit(holed)
    e = (ae.reconstruct(holed) - X) ** 2
    rows = [e[i, ~hidden[i]].mean() if (~hidden[i]).any() else np.nan for i in range(60)]
    np.testing.assert_allclose(ae.reconstruction_error(holed), rows, rtol=1e-9)
    cells = ae.reconstruction_error(holed, per_feature=True)
    np.testing.assert_allclose(cells, np.where(hidden, np.nan, e), rtol=1e-9)
    w = np.random.default_rng(2).random(60)
    known = np.delete(np.arange(60), 7)
    assert ae.score(holed) == pytest.approx(-np.nanmean(rows))
    expected = -np.average(np.array(rows)[known], weights=w[known])
    assert ae.score(holed, sample_weight=w) == pytest.approx(expected)


def test_a_rows_training_loss_is_that_mean_too(X, hidden, holed):
    ae = quick(max_iter=1, learning_rate_init=1e-12, batch_size=60).fit(holed)
    assert ae.loss_curve_[0] == pytest.approx(-ae.score(holed), rel=1e-6)


def test_rows_without_values_weigh_nothing(holed):
    rest = np.delete(holed, 7, axis=0)
    a, b = quick(solver="lbfgs").fit(holed), quick(solver="lbfgs").fit(rest)
    for p, q in zip(a.coefs_, b.coefs_, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-6, atol=1e-9)
    assert a.loss_ == pytest.approx(b.loss_)
    with pytest.raises(ValueError, match="No row of positive weight has a value"):
        quick(keep_empty_features=False).fit(holed, sample_weight=np.arange(60) == 7)


def test_missing_values_enter_as_the_training_means(holed):
    ae = quick().fit(holed)
    filled = np.where(np.isnan(holed), ae.statistics_, holed)
    np.testing.assert_allclose(ae.transform(holed), ae.transform(filled), rtol=1e-12)
    np.testing.assert_allclose(ae.reconstruct(holed), ae.reconstruct(filled), rtol=1e-12)


def test_impute_gives_an_array_whatever_set_output_says_of_transform(holed):
    ae = quick().set_output(transform="pandas").fit(holed)
    assert isinstance(ae.transform(holed), pd.DataFrame)
    assert isinstance(ae.impute(pd.DataFrame(holed)), np.ndarray)
    assert "an array also for a DataFrame and under `set_output`" in ae.impute.__doc__


def test_impute_keeps_what_is_there_and_reconstructs_the_rest(holed, hidden):
    ae = quick().fit(holed)
    found = ae.impute(holed)
    np.testing.assert_array_equal(found[~hidden], holed[~hidden])
    np.testing.assert_array_equal(found[hidden], ae.reconstruct(holed)[hidden])
    assert np.isnan(holed).any()


def test_corruption_leaves_missing_cells_at_the_mean(holed, monkeypatch):
    from skae._engine import fused

    seen, forward = [], fused.Forward

    def recorded(*args, **named):
        out = forward(*args, **named)
        seen.append((out.x_in.clone(), out.rows.observed.clone(), out.changed.clone()))
        return out

    monkeypatch.setattr(fused, "Forward", recorded)
    for corruption, level in (("gaussian", 3.0), ("masking", 0.6), ("swap", 0.6),
                              ("salt_and_pepper", 0.6)):  # fmt: skip
        ae = quick(corruption=corruption, noise_level=level, fill=100.0).fit(holed)
        means = torch.from_numpy(ae.statistics_)
        for x_in, observed, changed in seen:
            gone = observed == 0
            torch.testing.assert_close(x_in[gone], means.expand_as(x_in)[gone])
            assert (changed > 0).any()
        seen.clear()


def test_masking_helps_to_impute(digits):
    X = digits / 16
    hidden = np.random.default_rng(0).random(X.shape) < 0.3
    holed = np.where(hidden, np.nan, X)
    options = {"n_components": 24, "hidden_layer_sizes": (64,), "max_iter": 40,
               "learning_rate_init": 3e-3}  # fmt: skip
    errors = [np.mean((quick(**options, noise_level=level).fit(holed).impute(holed) - X)[hidden]**2)
              for level in (0.0, 0.3)]  # fmt: skip
    means = np.mean((np.nanmean(holed, 0) - X)[hidden] ** 2)
    assert errors[1] < errors[0]
    assert errors[1] < 0.6 * means


# ---- every kind of X


def memory_map(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


KINDS = {
    "frame": lambda X, tmp_path: pd.DataFrame(X),
    "nullable frame": lambda X, tmp_path: pd.DataFrame(X).convert_dtypes(),
    "sparse matrix": lambda X, tmp_path: sp.csr_matrix(X),
    "sparse array": lambda X, tmp_path: sp.csc_array(X),
    "tensor": lambda X, tmp_path: torch.from_numpy(X.copy()),
    "small memory map": memory_map,
    "Fortran order": lambda X, tmp_path: np.asfortranarray(X),
    "list": lambda X, tmp_path: X.tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_every_kind_of_data_gives_the_same_fit(holed, kind, early_stopping, tmp_path):
    options = {"early_stopping": early_stopping, "noise_level": 0.3}
    reference = quick(**options).fit(holed)
    X = KINDS[kind](holed, tmp_path)
    ae = quick(**options).fit(X)
    assert_same_fit(ae, reference)
    for method in ("transform", "reconstruct", "impute", "reconstruction_error", "score_samples"):
        found, expected = getattr(ae, method)(X), getattr(reference, method)(holed)
        np.testing.assert_array_equal(np.asarray(found), expected)


def test_a_large_memory_map_stays_on_disk(holed, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 8)
    monkeypatch.setattr(batches, "_CHUNK_BYTES", 7 * 5 * 8)
    X = memory_map(holed, tmp_path)
    a, b = quick(early_stopping=True).fit(X), quick(early_stopping=True).fit(holed)
    for p, q in zip(a.coefs_, b.coefs_, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(a.impute(X), a.impute(holed))


def test_what_is_observed_takes_a_byte_a_cell(holed):
    source = batches.make_source(holed, torch.float64)
    observed = batches.observed_cells(source, torch.zeros(5, dtype=torch.float64))
    assert observed.dtype is torch.bool
    assert np.array_equal(observed, ~np.isnan(holed))
    full = batches.make_source(np.ones((4, 5)), torch.float64)
    assert batches.observed_cells(full, torch.zeros(5, dtype=torch.float64)) is None


def test_the_users_data_stay_as_they_are(holed):
    for X in (holed.copy(), torch.from_numpy(holed.copy())):
        ae = quick().fit(X)
        ae.impute(X)
        np.testing.assert_array_equal(np.asarray(X), holed)


def test_single_precision_stays_single(holed):
    ae = quick(noise_level=0.3).fit(holed.astype(np.float32))
    assert ae.impute(holed.astype(np.float32)).dtype == np.float32
    assert ae.coefs_[0].dtype == np.float32


@pytest.mark.parametrize("many", [False, True])
def test_rows_score_alone_as_they_do_together(holed, many):
    ae = quick().fit(holed)
    X = np.tile(holed, (3, 1)) if many else holed[:20]
    alone = np.concatenate([ae.score_samples(row[None]) for row in X])
    np.testing.assert_allclose(ae.score_samples(X), alone, rtol=1e-9)


def test_a_detector_takes_what_its_estimator_takes(holed, X):
    detector = ReconstructionOutlierDetector(estimator=quick(), random_state=0).fit(holed)
    assert get_tags(detector).input_tags.allow_nan
    scores = detector.score_samples(holed)
    assert np.isnan(scores).tolist() == [i == 7 for i in range(60)]
    np.testing.assert_allclose(scores, detector.estimator_.score_samples(holed), rtol=1e-9)
    assert (detector.predict(holed) == -1).sum() in (5, 6)
    plain = ReconstructionOutlierDetector(estimator=Autoencoder(max_iter=2))
    assert not get_tags(plain).input_tags.allow_nan
    with pytest.raises(ValueError, match="NaN"):
        plain.fit(holed)


# ---- streams


def test_partial_fit_keeps_the_first_means(holed):
    ae = quick().partial_fit(holed[:30])
    first = ae.statistics_
    ae.partial_fit(holed[30:])
    np.testing.assert_array_equal(ae.statistics_, first)
    np.testing.assert_allclose(first, np.nanmean(holed[:30], 0), rtol=1e-12)


def test_partial_fit_takes_rows_that_lack_a_feature(holed):
    ae = quick().partial_fit(holed[:30])
    rest = holed[30:].copy()
    rest[:, 2] = np.nan
    ae.partial_fit(rest)
    assert all(np.isfinite(W).all() for W in ae.coefs_)


def test_two_fits_of_k_epochs_are_one_of_2k(holed):
    options = {"noise_level": 0.3, "early_stopping": True}
    twice = quick(warm_start=True, **options).fit(holed).fit(holed)
    assert_same_fit(twice, quick(max_iter=6, **options).fit(holed))


# ---- features without any value


@pytest.fixture
def empty(holed):
    X = holed.copy()
    X[:, 1] = np.nan
    return X


def test_a_feature_without_values_is_named(empty):
    with pytest.raises(ValueError, match=r"nothing to learn from feature 1: .*keep_empty_features"):
        quick().fit(empty)
    frame = pd.DataFrame(empty, columns=list("abcde"))
    frame["d"] = np.nan
    with pytest.raises(ValueError, match=r"from feature 1 \('b'\), feature 3 \('d'\): no row"):
        quick().fit(frame)


def test_values_in_rows_of_weight_zero_are_none(holed):
    X = holed.copy()
    X[1:, 1] = np.nan
    w = np.ones(60)
    w[0] = 0
    with pytest.raises(ValueError, match="nothing to learn from feature 1"):
        quick().fit(X, sample_weight=w)
    assert np.isnan(quick(keep_empty_features=False).fit(X, sample_weight=w).statistics_[1])


@pytest.mark.parametrize("options", [{}, {"corruption": "salt_and_pepper", "noise_level": 0.5},
                                     {"corruption": "gaussian", "noise_level": 0.5},
                                     {"early_stopping": True}])  # fmt: skip
def test_a_feature_that_is_left_out_is_nowhere(empty, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        ae = quick(keep_empty_features=False, **options).fit(empty)
    assert np.isnan(ae.statistics_).tolist() == [False, True, False, False, False]
    assert np.isfinite(ae.loss_curve_).all()
    X = empty.copy()
    X[:, 1] = np.linspace(-100, 100, 60)  # values that were never seen in training
    for method in (ae.transform, ae.score_samples, ae.reconstruct):
        np.testing.assert_array_equal(method(X), method(empty))
    for found in (ae.reconstruct(X), ae.inverse_transform(ae.transform(X))):
        assert found.shape == X.shape
        assert np.isnan(found).all(0).tolist() == [False, True, False, False, False]
    np.testing.assert_array_equal(ae.impute(X)[:, 1], X[:, 1])
    assert np.isnan(ae.impute(empty)[:, 1]).all()
    assert np.isnan(ae.reconstruction_error(X, per_feature=True)[:, 1]).all()
    assert ae.get_feature_names_out().shape == (2,)


def test_later_values_of_a_feature_that_is_left_out_are_not_learned(empty, holed):
    a = quick(keep_empty_features=False).partial_fit(empty).partial_fit(holed)
    b = quick(keep_empty_features=False).partial_fit(empty).partial_fit(empty)
    assert_same_fit(a, b)

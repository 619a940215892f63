"""The ready-made detector: its members, what they see, and the score they make together."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.stats import norm, rankdata
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import AutoencoderOutlierDetector
from skae.estimators._kernel_denoiser import KernelDenoiser
from skae.estimators._scaling import normal_scores_of, scaling_of


def detector(**changed):
    """A detector that fits in some milliseconds."""
    return AutoencoderOutlierDetector(
        **{"n_estimators": 3, "hidden_layer_sizes": (8,), "n_steps": 30, "n_kernel_denoisers": 2,
           "threshold": "training", "random_state": 0} | changed
    )  # fmt: skip


NETWORKS = {"n_kernel_denoisers": 0}
KERNELS = {"n_estimators": 0}


def source(X):
    from skae._engine.batches import ArraySource

    return ArraySource(np.asarray(X, dtype=float), torch.float64)


def curve(n, seed=0):
    """Rows on a circle, with two columns of its angle's sine and cosine again, scaled."""
    t = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    return np.c_[np.sin(t), np.cos(t), 3 * np.sin(t) + 1, np.cos(t) - 2]


# ---- what it finds


@pytest.mark.parametrize("parts", [{}, NETWORKS, KERNELS], ids=["all", "networks", "kernels"])
def test_rows_off_the_manifold_score_lower(parts):
    normal, new = curve(200), curve(100, seed=1)
    odd = np.random.default_rng(2).permuted(new, axis=0)  # every column as it was, on its own
    fitted = detector(n_steps=300, hidden_layer_sizes=(32,), **parts).fit(normal)
    scores = fitted.score_samples(np.r_[new, odd])
    assert roc_auc_score(np.repeat([1, 0], 100), scores) > 0.9


def test_training_makes_the_networks_better_than_their_start():
    normal, new = curve(200), curve(100, seed=1)
    parts = NETWORKS | {"hidden_layer_sizes": (32,)}

    def error(n_steps, rate):
        fitted = detector(n_steps=n_steps, learning_rate_init=rate, **parts).fit(normal)
        x = torch.from_numpy(new)
        return float(torch.stack([s.mean() for s in fitted.estimator_.squares(x)]).mean())

    assert error(300, 2e-3) < 0.2 * error(1, 1e-12)


def test_contamination_is_the_share_of_training_rows_flagged(X):
    fitted = detector(contamination=0.2).fit(X)
    assert (fitted.predict(X) == -1).sum() == 12
    np.testing.assert_array_equal(clone(fitted).fit_predict(X), fitted.predict(X))


# ---- the score


def test_score_is_the_mean_of_logarithms_of_errors_over_their_medians(X):
    fitted = detector().fit(X)
    errors = [s.mean(-1).numpy() for s in fitted.estimator_.squares(torch.tensor(X))]
    assert len(errors) == 5
    medians = [np.sort(e)[(len(e) - 1) // 2] for e in errors]
    logs = [np.log(e + 1e-12) - np.log(m + 1e-12) for e, m in zip(errors, medians, strict=True)]
    np.testing.assert_allclose(fitted.score_samples(X), -np.mean(logs, axis=0), rtol=1e-10)


@pytest.mark.parametrize("holed", [False, True])
def test_feature_scores_add_up_to_the_exponential_of_the_score(X, holed):
    data = X.copy()
    if holed:
        data[::3, 1] = np.nan
    fitted = detector().fit(X)
    scores = fitted.feature_scores(data)
    assert scores.shape == data.shape
    assert (scores >= 0).all()
    np.testing.assert_allclose(scores.sum(1), np.exp(-fitted.score_samples(data)), rtol=1e-10)
    assert (scores[np.isnan(data)] == 0).all()


def test_a_row_that_all_reconstruct_exactly_has_finite_scores():
    fitted = detector().fit(np.full((20, 3), 2.0))
    assert np.isfinite(fitted.score_samples([[2.0, 2.0, 2.0]])).all()
    assert np.isfinite(fitted.feature_scores([[2.0, 2.0, 2.0]])).all()


def test_the_feature_that_moved_explains_the_row(X):
    row = X[:1].copy()
    row[0, 3] += 50
    fitted = detector(max_features=1.0).fit(pd.DataFrame(X, columns=list("abcde")))
    why = fitted.explain(pd.DataFrame(row, columns=list("abcde")), n_features=1)
    assert list(why["feature"]) == ["d"]
    assert why["share"][0] > 0.95
    assert abs(why["reconstruction"][0]) < np.abs(X[:, 3]).max()


# ---- members


def test_members_differ_in_start_noise_rows_and_features(X):
    fitted = detector(n_estimators=4, max_features=0.6, max_samples=0.5).fit(X)
    networks = fitted.estimator_.members[:4]
    for part in ("rows", "columns"):
        assert len({tuple(np.sort(getattr(m, part))) for m in networks}) == 4
    assert all(len(set(m.rows)) == 30 for m in networks)
    alike = detector(n_estimators=4, max_features=1.0).fit(X).estimator_
    errors = torch.stack([s.mean(-1) for s in alike.squares(torch.tensor(X))][:4])
    assert all(
        not torch.allclose(errors[i], errors[j], rtol=0.01) for i in range(4) for j in range(i)
    )


def test_members_of_one_pass_are_those_trained_alone():
    """Each has its own start, rows, order and noise: none is a copy of another."""
    X = curve(40)
    options = {"precision": "float64", "max_features": 1.0, "n_kernel_denoisers": 0}
    together = detector(n_estimators=3, noise_level=(0.1, 0.2, 0.3), **options).fit(X).estimator_

    class Alone(AutoencoderOutlierDetector):
        """The third of three."""

        def _networks(self, *args):
            last = super()._networks(*args)
            assert len(last) == 3
            return last[2:]

    alone = Alone(**detector(n_estimators=3, noise_level=(0.1, 0.2, 0.3), **options).get_params())
    ours = alone.fit(X).estimator_
    x = torch.tensor(X)
    third = list(together.squares(x))[2]
    torch.testing.assert_close(next(iter(ours.squares(x))), third, rtol=0, atol=0)


def test_every_feature_is_seen_equally_often_but_for_one(X):
    for share, n in ((0.6, 5), (0.3, 7), (0.01, 3), (0.01, 8)):
        fitted = detector(n_estimators=n, max_features=share, **NETWORKS).fit(X)
        count = np.zeros(5)
        for member in fitted.estimator_.members:
            count[member.columns] += 1
        assert count.min() >= 1
        assert np.ptp(count) <= 1


def test_noise_levels_are_given_in_turn(X):
    made = []

    class Spied(AutoencoderOutlierDetector):
        def _objective(self, level=None):
            made.append(level)
            return super()._objective(level)

    options = detector(n_estimators=5, noise_level=(0.1, 0.4)).get_params()
    Spied(**options).fit(X)
    assert made == [0.1, 0.4, 0.1, 0.4, 0.1]


def test_noise_level_matters(X):
    a, b = (detector(noise_level=s, **NETWORKS).fit(X).score_samples(X) for s in (0.0, 1.0))
    assert not np.allclose(a, b, rtol=0.01)


# ---- kernel denoisers


def test_kernel_denoiser_is_the_weighted_mean_of_its_rows():
    rng = np.random.default_rng(0)
    p, x, w = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), rng.uniform(1, 2, 7)
    weight = w * np.exp(-((x[:, None] - p) ** 2).sum(-1) / (2 * 0.7**2))
    expected = weight @ p / weight.sum(1, keepdims=True)
    made = KernelDenoiser(torch.from_numpy(p), 0.7, torch.from_numpy(w))
    np.testing.assert_allclose(made(torch.from_numpy(x)).numpy(), expected, rtol=1e-12)


def test_a_stored_row_is_left_out_of_its_own_reconstruction_once():
    p = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    made, without = KernelDenoiser(p, 0.9), KernelDenoiser(p[1:], 0.9)
    torch.testing.assert_close(made(p[:1]), without(p[:1]))
    beside = KernelDenoiser(p[[0, 1, 3]], 0.9)(p[1:2] + 1e-5)  # which is no stored row
    torch.testing.assert_close(made(p[1:2]), beside, rtol=0, atol=1e-4)
    counts = torch.tensor([1.0, 2.0, 1.0]).double()
    weighted = KernelDenoiser(p[[0, 1, 3]], 0.9, counts, counts)
    torch.testing.assert_close(weighted(p), made(p))
    alone = KernelDenoiser(p[:1], 0.9)
    torch.testing.assert_close(alone(p[:1]), p[:1])  # where nothing would be left


def test_training_threshold_does_not_flag_most_of_new_normal_rows():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(6, 6))
    train, new = rng.normal(size=(200, 6)) @ A, rng.normal(size=(500, 6)) @ A
    fitted = detector(n_kernel_denoisers=8, **KERNELS).fit(train)
    assert 0.05 < (fitted.predict(new) == -1).mean() < 0.2


def test_kernel_denoisers_are_as_many_as_asked_and_store_as_many_rows(X):
    for n in (0, 1, 2, 5):
        fitted = detector(n_kernel_denoisers=n, n_prototypes=10, bandwidth=(0.5, 1.0)).fit(X)
        kernels = fitted.estimator_.members[3:]
        assert [m.denoiser.tau for m in kernels] == [0.5, 0.5, 1.0, 1.0, 0.5][:n]
        assert [m.view for m in kernels] == [k % 2 for k in range(n)]
        assert all(len(m.denoiser.prototypes) == 10 for m in kernels)


def test_normal_scores_are_those_of_mid_ranks_and_go_on_beyond_the_range():
    X = np.random.default_rng(0).integers(0, 6, size=(50, 2)).astype(float)
    X[:, 1] = np.random.default_rng(1).normal(size=50)
    scaling = scaling_of(source(X), None)
    view = normal_scores_of(scaling, torch.tensor(X), None)
    scores = view.forward(torch.tensor(X)).numpy()
    np.testing.assert_allclose(scores, norm.ppf((rankdata(X, axis=0) - 0.5) / 50), rtol=1e-8)
    np.testing.assert_allclose(view.inverse(torch.from_numpy(scores)), X, atol=1e-10)
    ends = X.max(0, keepdims=True)
    beyond = view.forward(torch.from_numpy(ends + X.std(0)))
    np.testing.assert_allclose(beyond - view.forward(torch.from_numpy(ends)), [[1, 1]], rtol=1e-8)


# ---- rows that networks leave out

OUT_OF_BAG = {"threshold": "out_of_bag"}


@pytest.mark.parametrize("n", [2, 3, 10, 59, 60])
@pytest.mark.parametrize("n_estimators", [2, 3, 5])
def test_networks_leave_every_row_out_once_at_least(X, n, n_estimators):
    fitted = detector(n_estimators=n_estimators, **OUT_OF_BAG).fit(X[:n])
    seen = [member.rows for member in fitted.estimator_.members if member.is_network]
    assert len({len(own) for own in seen}) == 1
    assert len(seen[0]) == n - -(-n // n_estimators)
    assert not functools.reduce(np.intersect1d, seen).size


@pytest.mark.parametrize("max_samples", [1, 20, 38, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_rows_of_a_network_leave_every_row_out_too(X, max_samples, seed):
    fitted = detector(max_samples=max_samples, random_state=seed, **OUT_OF_BAG).fit(X)
    assert {len(member.rows) for member in fitted.estimator_.members} == {max_samples}
    seen = [member.rows for member in fitted.estimator_.members if member.is_network]
    assert not functools.reduce(np.intersect1d, seen).size


def test_a_row_left_out_is_judged_by_the_networks_that_do_not_know_it(X):
    fitted = detector(**OUT_OF_BAG).fit(X)
    errors = fitted.estimator_.log_errors(torch.tensor(X)).numpy()
    members = fitted.estimator_.members
    for i in range(0, 60, 7):
        unseen = [errors[i, k] for k in range(3) if i not in members[k].rows]
        expected = (3 * np.mean(unseen) + errors[i, 3:].sum()) / 5
        assert fitted.calibration_scores_[i] == pytest.approx(-expected)


def test_the_range_without_a_row_is_that_of_the_others():
    data = np.array([[1.0, 5.0, 2.0], [4.0, 5.0, np.nan], [2.0, 7.0, 3.0], [9.0, 7.0, np.nan]])
    found = scaling_of(source(data), None).in_units_of_X()
    low, high = ((bound + found.center).numpy() for bound in (found.next_low, found.next_high))
    np.testing.assert_allclose(low[:2], [2, 5])  # 5 is there twice
    np.testing.assert_allclose(high[:2], [4, 7])
    assert (found.next_low[2], found.next_high[2]) == (found.low[2], found.high[2])  # of two rows


def test_a_row_that_ends_the_range_is_judged_as_if_it_were_beyond(X):
    far = X.copy()
    far[7, 2] = X[:, 2].max() + 3 * X[:, 2].std()
    fitted = detector(max_features=1.0, **NETWORKS, **OUT_OF_BAG).fit(far)
    model, row = fitted.estimator_, torch.tensor(far[7:8])
    inside = torch.stack(list(model.squares(row)))[:, 0, 2]
    judged = torch.stack(list(model.squares(row, are_known=True)))[:, 0, 2]
    beyond = model.views[0].high[2] - model.views[0].next_high[2]
    assert judged.mean() > inside.mean()
    assert judged.mean() > beyond**2 / 4
    others = torch.tensor(np.median(far, axis=0, keepdims=True))
    for a, b in zip(model.squares(others), model.squares(others, are_known=True), strict=True):
        assert torch.equal(a, b)


def test_networks_that_know_all_rows_flag_more_than_those_that_leave_some_out():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 8))
    train, new = (rng.normal(size=(n, 3)) @ A + rng.normal(size=(n, 8)) for n in (100, 1000))
    options = {"n_estimators": 4, "hidden_layer_sizes": (64, 64), "n_steps": 400,
               "learning_rate_init": 5e-3, "n_kernel_denoisers": 0}  # fmt: skip
    known, unknown = (
        (detector(threshold=threshold, **options).fit(train).predict(new) == -1).mean()
        for threshold in ("training", "out_of_bag")
    )
    assert known > 0.3
    assert unknown < 0.2


def test_the_share_of_rows_is_flagged_by_their_scores_of_rows_left_out(X):
    for novelty in (True, False):
        fitted = detector(contamination=0.2, novelty=novelty, **OUT_OF_BAG).fit(X)
        assert (fitted.calibration_scores_ < fitted.offset_).sum() == 12
    assert (fitted.fit_predict(X) == -1).sum() == 12


def test_rows_that_are_taken_for_normal_are_not_judged(X):
    assert not hasattr(detector(**OUT_OF_BAG), "fit_predict")
    with pytest.raises(AttributeError, match=r"has no attribute .fit_predict"):
        detector(**OUT_OF_BAG).fit_predict(X)
    assert hasattr(detector(novelty=False, **OUT_OF_BAG), "fit_predict")
    assert (detector(contamination=0.2).fit_predict(X) == -1).sum() == 12


def test_one_network_leaves_out_nothing_to_judge_by(X):
    with pytest.raises(ValueError, match="Have two at least"):
        detector(n_estimators=1, **OUT_OF_BAG).fit(X)
    detector(n_estimators=0, **OUT_OF_BAG).fit(X)


def test_the_default_threshold_is_of_rows_left_out():
    assert AutoencoderOutlierDetector().threshold == "out_of_bag"


# ---- what it is given


def test_scale_standard_is_a_scaler_in_front(X):
    data = 1000 + X * [1, 10, 100, 0.01, 5]
    scaled = StandardScaler().fit_transform(data)
    inside = detector().fit(data).score_samples(data)
    before = detector(scale=None).fit(scaled).score_samples(scaled)
    np.testing.assert_allclose(inside, before, rtol=1e-3, atol=1e-3)  # trained in float32


def test_without_scaling_noise_is_in_the_units_of_X(X):
    data = 1000 * X
    ours = detector(scale=None, noise_level=150.0, **NETWORKS).fit(data)
    reference = detector(scale=None, noise_level=0.15, **NETWORKS).fit(X)
    np.testing.assert_allclose(
        ours.score_samples(data), reference.score_samples(X), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e6, 1e300])
def test_a_constant_column_that_moves_is_one_finite_finding(X, step):
    data = np.c_[X, np.full(60, 3.0)]
    fitted = detector(max_features=1.0).fit(data)
    row = data[:1].copy()
    row[0, 5] += step
    before, after = fitted.feature_scores(data[:1])[0], fitted.feature_scores(row)[0]
    assert np.isfinite(after).all()
    assert fitted.score_samples(row)[0] > fitted.score_samples(data[:1])[0] - np.log(1e6)
    if step == 1e-3:
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)
    else:
        assert after.argmax() == 5


def test_values_whose_variance_is_no_number_are_refused(X):
    with pytest.raises(ValueError, match="Feature 0 is too large"):
        detector().fit(X * 1e200)


def test_a_huge_value_is_finite_and_lowest(X):
    fitted = detector().fit(X)
    row = X[:3].copy()
    row[1, 2], row[2, 2] = 1e5, 1e300
    scores = fitted.score_samples(row)
    assert np.isfinite(scores).all()
    assert scores[0] > scores[1] > scores[2]


def test_missing_values_do_not_count_and_enter_as_the_mean(X):
    holed = X.copy()
    holed[::4, 0] = np.nan
    fitted = detector(max_features=1.0, **NETWORKS).fit(holed)
    filled = np.where(np.isnan(holed), np.nanmean(holed, axis=0), holed)
    model = fitted.estimator_
    for a, b in zip(model.squares(torch.from_numpy(holed)),
                    model.squares(torch.from_numpy(filled)), strict=True):  # fmt: skip
        known = ~np.isnan(holed)
        np.testing.assert_array_equal(a.numpy()[known], b.numpy()[known])
        assert a.isnan().numpy()[~known].all()
    assert np.isfinite(fitted.score_samples(holed)).all()
    assert np.isnan(fitted.score_samples(np.full((1, 5), np.nan))).all()


@pytest.mark.parametrize("novelty", [True, False])
def test_rows_without_values_leave_the_threshold_alone(X, novelty):
    holed = np.concatenate([X, np.full((2 * len(X), 5), np.nan)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = detector(novelty=novelty, contamination=0.1).fit_predict(holed)
    assert (found[: len(X)] == -1).sum() == 6
    assert (found[len(X) :] == 1).all()


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_without_scaling_a_constant_that_moves_has_the_others_deviation(X, unit):
    row = np.r_[X[0], 1e6]
    options = {"scale": None, "n_kernel_denoisers": 1}  # of values, not of ranks
    a, b = (
        detector(noise_level=0.15 * u, bandwidth=0.4 * u, **options)
        .fit(u * np.c_[X, np.full(60, 3.0)]).score_samples(u * row[None])[0]
        for u in (1.0, unit)
    )  # fmt: skip
    assert a == pytest.approx(b, abs=0.1)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_without_scaling_units_are_all_that_a_bandwidth_depends_on(X, unit):
    options = {"scale": None, "n_estimators": 0, "n_kernel_denoisers": 4}
    a, b = (
        detector(bandwidth=(0.4 * u, 0.7 * u), **options).fit(u * X).score_samples(u * X[:9])
        for u in (1.0, unit)
    )
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_column_without_values_is_named(X):
    frame = pd.DataFrame(X, columns=list("abcde"))
    frame["c"] = np.nan
    with pytest.raises(ValueError, match=r"nothing to learn from feature 2 \('c'\)"):
        detector().fit(frame)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, pd.DataFrame])
def test_sparse_matrices_and_frames_are_their_arrays(X, make):
    other = make(X)
    if isinstance(other, pd.DataFrame):
        other.columns = list("abcde")
    scores = detector().fit(other).score_samples(other)
    np.testing.assert_allclose(scores, detector().fit(X).score_samples(X), rtol=1e-8)


def test_mixed_tables_go_through_a_column_transformer(X):
    table = pd.DataFrame(X[:, :3], columns=list("abc"))
    table["kind"] = np.where(X[:, 3] > 0, "high", "low")
    prepared = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    fitted = detector(n_steps=300, hidden_layer_sizes=(32,), contamination=0.1, **NETWORKS)
    model = make_pipeline(prepared, fitted).fit(table)
    assert (model.predict(table) == -1).sum() == 6
    before, changed = model.score_samples(table), table["kind"] == "low"
    table["kind"] = "high"  # which contradicts the numbers
    assert model.score_samples(table)[changed].mean() < before[changed].mean() - 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_scores_are_float64_and_alike_in_batches_of_any_size(X, dtype, monkeypatch):
    from skae.estimators import _members

    X = (20 * X).astype(dtype)
    fitted = detector().fit(X)
    scores = fitted.score_samples(X)
    assert scores.dtype == np.float64
    for size in (1, 7):
        parts = [fitted.score_samples(X[i : i + size]) for i in range(0, 60, size)]
        np.testing.assert_allclose(np.concatenate(parts), scores, rtol=1e-10, atol=1e-12)
    monkeypatch.setattr(_members, "_CELLS", 1)
    np.testing.assert_allclose(fitted.score_samples(X), scores, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17])
def test_any_number_of_rows_fits(X, n):
    fitted = detector(batch_size=16).fit(X[:n])
    assert np.isfinite(fitted.score_samples(X)).all()


def test_one_feature_fits(X):
    assert np.isfinite(detector().fit(X[:, :1]).score_samples(X[:, :1])).all()


# ---- weights and seeds


def test_integer_weights_are_repeated_rows(X):
    w = np.arange(60) % 4
    options = {"noise_level": 0.0, "precision": "float64", "batch_size": 200}
    weighted = detector(**options).fit(X, sample_weight=w)
    repeated = detector(**options).fit(np.repeat(X, w, axis=0))
    np.testing.assert_allclose(weighted.score_samples(X), repeated.score_samples(X), atol=1e-6)


@pytest.mark.parametrize("factor", [3.0, 0.37, 1000.0])
@pytest.mark.parametrize("weight", ["equal", "whole", "any"])
def test_weights_count_relative_to_each_other(X, factor, weight):
    w = {"equal": np.ones(60), "whole": 1.0 + np.arange(60) % 4,
         "any": np.random.default_rng(0).uniform(0.1, 3, 60)}[weight]  # fmt: skip
    a, b = (detector().fit(X, sample_weight=c * w) for c in (1.0, factor))
    np.testing.assert_allclose(a.calibration_scores_, b.calibration_scores_, atol=1e-4)
    if weight == "equal":
        without = detector().fit(X)
        np.testing.assert_allclose(a.calibration_scores_, without.calibration_scores_, atol=1e-4)


def test_rows_of_any_weight_are_left_out_of_their_own_reconstruction(X):
    w = np.random.default_rng(0).uniform(0.1, 100, 60)
    options = {"n_estimators": 0, "n_kernel_denoisers": 1, "bandwidth": 0.1}
    plain = detector(**options).fit(X).calibration_scores_
    weighted = detector(**options).fit(X, sample_weight=w)
    scores = weighted.calibration_scores_ + weighted.estimator_.log_medians.numpy()
    assert np.ptp(scores) < 3 * np.ptp(plain)


@pytest.mark.parametrize("options", [NETWORKS, KERNELS | {"n_kernel_denoisers": 4}, {}])
def test_every_row_is_left_out_by_a_member(X, options):
    fitted = detector(novelty=False, trim_fraction=0.0, **options).fit(X)
    seen = [set(member.rows.tolist()) for member in fitted.estimator_.members]
    assert not set.intersection(*seen)
    assert len({len(own) for own in seen}) == 1


def test_rows_that_all_members_know_are_told(X):
    with pytest.warns(UserWarning, match="made from 60 of the rows"):
        detector(novelty=False, trim_fraction=0.0, max_samples=1.0).fit(X)


def test_random_state_makes_two_fits_the_same_and_another_differs(X):
    a, b, c = (detector(random_state=seed).fit(X).score_samples(X) for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c, rtol=0.01)


def test_global_generators_are_left_alone(X):
    key = np.random.get_state()[1].copy()  # noqa: NPY002
    state = torch.get_rng_state()
    detector(random_state=None).fit(X).predict(X)
    np.testing.assert_array_equal(np.random.get_state()[1], key)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state)


def test_pickle_scores_the_same_and_scoring_changes_nothing(X):
    fitted = detector().fit(X)
    before = pickle.dumps(fitted)
    scores = fitted.score_samples(X)
    fitted.explain(X[:2])
    assert pickle.dumps(fitted) == before
    np.testing.assert_array_equal(pickle.loads(before).score_samples(X), scores)


# ---- outliers among the training rows


def test_without_novelty_rows_are_scored_by_members_that_have_not_seen_them(X):
    fitted = detector(novelty=False, max_samples=20, n_estimators=6).fit(X)
    model = fitted.estimator_
    errors = model.log_errors(torch.tensor(X)).numpy()
    for i in range(60):
        unseen = [i not in member.rows for member in model.members]
        chosen = errors[i, unseen] if any(unseen) else errors[i]
        assert fitted.calibration_scores_[i] == pytest.approx(-chosen.mean(), rel=1e-10)


def test_without_novelty_fit_predict_is_by_these_scores(X):
    fitted = detector(novelty=False, max_samples=20, contamination=0.2)
    label = fitted.fit_predict(X)
    np.testing.assert_array_equal(label == -1, fitted.calibration_scores_ < fitted.offset_)
    assert (label == -1).sum() == 12


def test_outliers_among_the_training_rows_are_found_by_members_of_few_rows():
    rng = np.random.default_rng(0)
    X = np.r_[curve(190), rng.uniform(-3, 3, size=(10, 4))]
    y = np.repeat([1, 0], [190, 10])
    few = detector(novelty=False, max_samples=40, n_estimators=8, **NETWORKS).fit(X)
    assert roc_auc_score(y, few.calibration_scores_) > 0.9


def test_without_novelty_no_member_is_made_from_the_oddest_rows():
    rng = np.random.default_rng(0)
    X = np.r_[curve(90), rng.uniform(20, 30, size=(10, 4))]
    for share in (0.0, 0.3):
        fitted = detector(novelty=False, trim_fraction=share, n_estimators=8).fit(X)
        used = np.unique(np.concatenate([m.rows for m in fitted.estimator_.members]))
        assert (used >= 90).any() == (share == 0)
        assert len(used) <= 100 - share * 100
        assert all(len(m.rows) <= (100 - share * 100) / 2 for m in fitted.estimator_.members)


# ---- refusals


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_level": (0.1, -1)}, "noise_level must be a non-negative"),
        ({"bandwidth": (0.0,)}, "bandwidth must be a positive"),
        ({"noise_level": ()}, "noise_level must be"),
        ({"n_estimators": 0, "n_kernel_denoisers": 0}, "leave no member"),
        ({"hidden_layer_sizes": (8, 0)}, "hidden_layer_sizes must be positive"),
        ({"hidden_layer_sizes": ()}, "hidden_layer_sizes"),
        ({"learning_rate_init": 1e30}, "Lower learning_rate_init"),
    ],
)
def test_what_cannot_be_is_refused(X, changed, message):
    with pytest.raises(ValueError, match=message):
        detector(**changed).fit(X)


def test_weights_that_leave_no_row_are_refused(X):
    with pytest.raises(ValueError, match="zero"):
        detector().fit(X, sample_weight=np.zeros(60))

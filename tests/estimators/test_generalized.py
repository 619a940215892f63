"""Rows that reconstruct weighted sets: the sets, the equal regression, the outer loop."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_swiss_roll
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import Isomap
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import skae
from skae import Autoencoder, GeneralizedAutoencoder
from skae.estimators.generalized import Pass
from skae.testing import check_objective

ALL = ["class", "neighbors", "margin", "isomap", "lle"]
SEARCHING = ["neighbors", "margin", "isomap", "lle"]


def quick(relation="neighbors", **changed):
    """A small one that trains in a few milliseconds."""
    return GeneralizedAutoencoder(
        **{"relation": relation, "n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 6,
           "n_neighbors": 4, "k1": 4, "k2": 2, "tol": None, "random_state": 0} | changed
    )  # fmt: skip


def exact(relation, **changed):
    """Its last loss is that of the final weights, since L-BFGS reports values at its iterates."""
    return quick(relation, **{"solver": "lbfgs", "max_outer": 1} | changed)


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture
def y(X):
    return np.where(X[:, 0] > np.median(X[:, 0]), "high", "low")


def trained_towards(model, monkeypatch, *data, **weights):
    """The rows that the first pass is trained with, and the fitted model."""
    seen = []
    real = skae.estimators.generalized.train

    def spy(*args, **options):
        seen.append(options["rows"])
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(skae.estimators.generalized, "train", spy)
        model.fit(*data, **weights)
    return seen, model


def same_weights(a, b):
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


# ---- self


@pytest.mark.parametrize("changed", [
    {}, {"solver": "lbfgs"}, {"solver": "sgd", "learning_rate": "cosine"}, {"dropout": 0.2},
    {"loss": "huber"}, {"tol": 1e-2, "n_iter_no_change": 2, "max_iter": 100},
    {"early_stopping": True}, {"tied_weights": True},
])  # fmt: skip
def test_self_is_the_plain_autoencoder_bit_for_bit(X, changed):
    w = np.linspace(1, 2, len(X))
    own = {"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 6, "tol": None,
           "random_state": 0}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain = Autoencoder(**own | changed).fit(X, sample_weight=w)
        general = GeneralizedAutoencoder(relation="self", **own | changed)
        general.fit(X, sample_weight=w)
    assert same_weights(plain, general)
    assert plain.loss_curve_ == general.loss_curve_
    assert plain.stop_reason_ == general.stop_reason_


def test_self_takes_streams_and_keeps_its_history(X):
    model = quick("self").partial_fit(X).partial_fit(X)
    assert same_weights(model, Autoencoder(**_shared(model)).partial_fit(X).partial_fit(X))
    assert [p.n_iter for p in model.outer_history_] == [1, 1]


def _shared(model):
    names = Autoencoder().get_params(deep=False)
    return {k: v for k, v in model.get_params(deep=False).items() if k in names}


def test_self_has_the_lectures_energy(X):
    model = exact("self").fit(X)
    energy = np.square(X - model.reconstruct(X)).sum()
    assert model.outer_history_[0].energy == pytest.approx(energy)


# ---- the double sum and the regression


def sets(relation, X, y):
    """s_ij of every pair, spelt out: {(i, j): s_ij}."""
    n, d2 = len(X), np.square(X[:, None] - X).sum(-1)
    nearest = [[j for j in np.argsort(d2[i]) if j != i] for i in range(n)]
    if relation == "class":
        return {(i, j): 1 / np.sum(y == y[i]) for i in range(n) for j in range(n) if y[i] == y[j]}
    if relation == "neighbors":
        t = np.mean([d2[i, j] for i in range(n) for j in nearest[i][:4]])
        return {(i, j): np.exp(-d2[i, j] / t) for i in range(n) for j in nearest[i][:4]}
    own = {(i, j): 1.0 for i in range(n)
           for j in [j for j in nearest[i] if y[j] == y[i]][:4]}  # fmt: skip
    return own | {(i, j): -1.0 for i in range(n)
                  for j in [j for j in nearest[i] if y[j] != y[i]][:2]}  # fmt: skip


@pytest.mark.parametrize("relation", ["class", "neighbors", "margin"])
def test_the_loss_is_the_sources_double_sum_on_ten_rows(X, relation):
    X, y = X[:10], np.array([0, 1] * 5)
    model = exact(relation).fit(X, y)
    x_hat, s = model.reconstruct(X), sets(relation, X, y)
    double_sum = sum(s[i, j] * np.sum((X[j] - x_hat[i]) ** 2) for i, j in s)
    assert model.outer_history_[0].energy == pytest.approx(double_sum)
    S = np.array([sum(v for (i, _), v in s.items() if i == row) for row in range(10)])
    m = np.array([sum(v * X[j] for (i, j), v in s.items() if i == row) / S[row]
                  for row in range(10)])  # fmt: skip
    regression = np.sum(S * np.square(m - x_hat).sum(1))
    constant = sum(s[i, j] * np.sum((X[j] - m[i]) ** 2) for i, j in s)
    assert regression + constant == pytest.approx(double_sum)
    assert S.sum() * X.shape[1] * model.loss_ == pytest.approx(regression)


def test_cross_entropy_has_no_constant(X):
    X, y = 1 / (1 + np.exp(3 - X[:10])), np.array([0, 1] * 5)
    model = exact("neighbors", loss="binary_cross_entropy").fit(X)
    x_hat, s = model.reconstruct(X), sets("neighbors", X, y)
    entropy = -sum(v * np.sum(X[j] * np.log(x_hat[i]) + (1 - X[j]) * np.log(1 - x_hat[i]))
                   for (i, j), v in s.items())  # fmt: skip
    assert model.outer_history_[0].energy == pytest.approx(entropy)


def test_an_output_activation_changes_nothing_of_it(X):
    X, y = 1 / (1 + np.exp(3 - X[:10])), np.array([0, 1] * 5)
    model = exact("margin", output_activation="logistic").fit(X, y)
    x_hat, s = model.reconstruct(X), sets("margin", X, y)
    double_sum = sum(v * np.sum((X[j] - x_hat[i]) ** 2) for (i, j), v in s.items())
    assert model.outer_history_[0].energy == pytest.approx(double_sum)


def test_the_objective_with_targets_and_weights_keeps_the_contract():
    check_objective(quick()._objective())
    check_objective(quick(loss="binary_cross_entropy", alpha=0.1)._objective())


# ---- targets


def test_the_target_of_class_is_the_class_mean(X, y, monkeypatch):
    seen, model = trained_towards(quick("class"), monkeypatch, X, y)
    expected = pd.DataFrame(X).groupby(y).transform("mean").to_numpy()
    np.testing.assert_allclose(seen[0].target, expected)
    assert len(seen) == 1
    assert seen[0].weight is None
    assert model.engine_.path == "fused"
    assert [p.changed for p in model.outer_history_] == [1.0]


def test_the_target_of_neighbors_is_the_heat_weighted_mean(X, monkeypatch):
    seen, _ = trained_towards(quick(t=0.5), monkeypatch, X)
    distance, index = NearestNeighbors(n_neighbors=4).fit(X).kneighbors()
    s = np.exp(-(distance**2) / 0.5)
    expected = (s[..., None] * X[index]).sum(1) / s.sum(1, keepdims=True)
    np.testing.assert_allclose(seen[0].target, expected)
    np.testing.assert_allclose(seen[0].weight, s.sum(1) / s.sum(1).mean())


def test_the_target_of_lle_is_the_row_less_its_residual(X, monkeypatch):
    seen, _ = trained_towards(quick("lle"), monkeypatch, X)
    _, index = NearestNeighbors(n_neighbors=4).fit(X).kneighbors()
    M = np.zeros((60, 60))
    np.put_along_axis(M, index, skae.neighbors.barycenter_weights(X, index), 1)
    residual = (np.eye(60) - M).T @ (np.eye(60) - M) @ X
    S = 1 + (M**2).sum(0)
    np.testing.assert_allclose(seen[0].target, X - residual / S[:, None])
    np.testing.assert_allclose(seen[0].weight, S / S.mean())


def test_the_target_of_isomap_is_linear_in_its_embedding(X, monkeypatch):
    seen, _ = trained_towards(quick("isomap", n_neighbors=8), monkeypatch, X)
    embedding = Isomap(n_neighbors=8, n_components=4).fit_transform(X)
    target = seen[0].target.numpy() - X.mean(0)
    rest = target - embedding @ np.linalg.lstsq(embedding, target, rcond=None)[0]
    assert np.square(rest).sum() < 0.01 * np.square(target).sum()
    assert np.square(target).sum() <= np.square(X - X.mean(0)).sum()
    assert seen[0].weight is None


def test_isomap_of_flat_rows_is_their_principal_directions_in_order(monkeypatch):
    """With geodesics equal to distances S is X X^T, and the target X X^T X / c."""
    X = np.random.default_rng(0).normal(size=(40, 3)) * [3, 2, 1]
    X -= X.mean(0)
    seen, _ = trained_towards(quick("isomap", n_neighbors=39), monkeypatch, X)
    expected = X @ X.T @ X / np.linalg.eigvalsh(X.T @ X)[-1]
    np.testing.assert_allclose(seen[0].target, expected, atol=1e-9)


def test_the_second_pass_goes_by_codes(X, monkeypatch):
    model = quick(max_iter=4, max_outer=2)
    first = clone(model).set_params(max_iter=2, max_outer=1).fit(X)
    seen, model = trained_towards(model, monkeypatch, X)
    distance, index = NearestNeighbors(n_neighbors=4).fit(first.transform(X)).kneighbors()
    s = np.exp(-(distance**2) / np.mean(distance**2))
    expected = (s[..., None] * X[index]).sum(1) / s.sum(1, keepdims=True)
    np.testing.assert_allclose(seen[1].target, expected)
    _, before = NearestNeighbors(n_neighbors=4).fit(X).kneighbors()
    new = np.mean([len(set(a) - set(b)) / 4 for a, b in zip(index, before, strict=True)])
    assert model.outer_history_[1].changed == pytest.approx(new)
    assert new > 0


def test_input_weights_keep_the_width(X, monkeypatch):
    model = quick(max_iter=4, max_outer=2, weight_space="input", t=0.5)
    first = clone(model).set_params(max_iter=2, max_outer=1).fit(X)
    seen, _ = trained_towards(model, monkeypatch, X)
    _, index = NearestNeighbors(n_neighbors=4).fit(first.transform(X)).kneighbors()
    s = np.exp(-np.square(X[:, None] - X[index]).sum(-1) / 0.5)
    expected = (s[..., None] * X[index]).sum(1) / s.sum(1, keepdims=True)
    np.testing.assert_allclose(seen[1].target, expected)


def test_in_code_the_mean_exponent_is_that_of_the_input(X, monkeypatch):
    model = quick(max_iter=4, max_outer=2, t=0.5)
    first = clone(model).set_params(max_iter=2, max_outer=1).fit(X)
    seen, _ = trained_towards(model, monkeypatch, X)
    distance, index = NearestNeighbors(n_neighbors=4).fit(first.transform(X)).kneighbors()
    of_X = np.square(X[:, None] - X[index]).sum(-1)
    s = np.exp(-(distance**2) / np.mean(distance**2) * np.mean(of_X) / 0.5)
    np.testing.assert_allclose(seen[1].weight, s.sum(1) / s.sum(1).mean())


@pytest.mark.parametrize("relation", ["lle", "isomap"])
def test_weight_space_matters_from_the_second_pass(X, relation, monkeypatch):
    by_code, _ = trained_towards(quick(relation, max_outer=2), monkeypatch, X)
    by_input, _ = trained_towards(quick(relation, max_outer=2, weight_space="input"),
                                  monkeypatch, X)  # fmt: skip
    np.testing.assert_array_equal(by_code[0].target, by_input[0].target)
    if relation == "isomap":
        assert (len(by_code), len(by_input)) == (2, 1)
    else:
        assert not np.allclose(by_code[1].target, by_input[1].target)


@pytest.mark.parametrize("relation", SEARCHING)
def test_codes_that_all_coincide_are_equally_near(X, y, relation, monkeypatch):
    dead = Autoencoder(n_components=2, hidden_layer_sizes=(), max_iter=1, tol=None).fit(X)
    with torch.no_grad():
        for p in dead.encoder_.parameters():
            p.zero_()
    model = quick(relation, hidden_layer_sizes=(), learning_rate_init=1e-300, max_outer=2)
    seen, model = trained_towards(model.set_params(initialize_from=dead), monkeypatch, X, y)
    assert np.ptp(model.transform(X)) == 0
    assert seen[1].target.isfinite().all()


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("relation", ["neighbors", "isomap", "lle"])
def test_few_rows_are_enough(X, relation, n):
    model = quick(relation, n_neighbors=1, max_outer=2).fit(X[:n])
    assert np.isfinite(model.loss_curve_).all()


def test_isomap_joins_what_is_far_apart(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, that it does so
        model = quick("isomap").fit(np.concatenate([X, X + 100]))
    assert np.isfinite(model.transform(X)).all()


def test_an_interrupted_pass_ends_the_loop(X, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(skae._engine.train.Run, "end_epoch", interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        model = quick().fit(X)
    assert model.stop_reason_ == "interrupted"
    assert len(model.outer_history_) == 1


# ---- sample weights


@pytest.mark.parametrize("relation", ALL)
def test_an_integer_weight_is_repetition(X, y, relation):
    w = np.arange(60) % 3
    model = quick(relation, batch_size=200)
    weighted = clone(model).fit(X, y, sample_weight=w)
    repeated = clone(model).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), rtol=1e-6, atol=1e-8)
    energies = [[p.energy for p in m.outer_history_] for m in (weighted, repeated)]
    scale = w.sum() / 60  # weights are scaled to mean 1; an energy is of pairs, or of rows
    assert np.ptp(np.divide(*energies)) < 1e-6
    assert energies[1][0] == pytest.approx(
        energies[0][0] * scale ** (2 if relation in ("neighbors", "isomap") else 1)
    )


@pytest.mark.parametrize("relation", ALL)
def test_rows_of_weight_zero_are_in_no_set(X, y, relation):
    w = np.r_[np.ones(50), np.zeros(10)]
    moved = X.copy()
    moved[50:] += 0.5
    model = quick(relation)
    a, b = (clone(model).fit(each, y, sample_weight=w) for each in (X, moved))
    np.testing.assert_allclose(a.transform(X), b.transform(X), rtol=1e-7, atol=1e-9)


def test_only_ratios_of_weights_matter(X, y):
    w = np.linspace(1, 2, 60)
    for relation in ALL:
        a, b = (quick(relation).fit(X, y, sample_weight=each) for each in (w, 3 * w))
        np.testing.assert_allclose(a.transform(X), b.transform(X), rtol=1e-6)


# ---- the outer loop


@pytest.mark.parametrize("relation", SEARCHING)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_passes_share_the_epochs(X, y, relation, solver):
    model = quick(relation, max_iter=11, max_outer=3, solver=solver).fit(X, y)
    assert [p.n_iter for p in model.outer_history_] == [4, 4, 3]
    assert model.n_iter_ == len(model.loss_curve_) == 11
    ends = np.cumsum([p.n_iter for p in model.outer_history_]) - 1
    assert [p.loss for p in model.outer_history_] == [model.loss_curve_[i] for i in ends]
    assert model.outer_history_[0].changed == 1


def test_there_are_no_more_passes_than_epochs(X):
    assert [p.n_iter for p in quick(max_iter=2, max_outer=9).fit(X).outer_history_] == [1, 1]


def test_a_pass_goes_on_with_the_optimiser(X):
    """With sets that hold all rows and input weights, every pass has the same targets."""
    same = {"n_neighbors": 59, "weight_space": "input", "max_iter": 12, "learning_rate": "cosine"}
    one, three = (quick(max_outer=passes, **same).fit(X) for passes in (1, 3))
    np.testing.assert_allclose(three.loss_curve_, one.loss_curve_, rtol=1e-9)
    assert [p.changed for p in three.outer_history_] == [1, 0, 0]


def test_the_outer_loop_stops_when_nothing_changes(X):
    model = quick(n_neighbors=59, weight_space="input", max_iter=3000, max_outer=50, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(X)
    assert model.stop_reason_ == "converged"
    assert len(model.outer_history_) < 50
    assert model.n_iter_ < 3000


def test_the_outer_loop_goes_on_while_sets_change(X):
    model = quick(max_iter=3000, max_outer=3, outer_tol=0.0, tol=1e-1, n_iter_no_change=2)
    with pytest.warns(ConvergenceWarning, match=r"max_outer=3 passes.*pairs were new"):
        model.fit(X)
    assert model.stop_reason_ == "max_outer"
    assert len(model.outer_history_) == 3


def test_a_loose_outer_tolerance_ends_after_two_passes(X):
    model = quick(max_iter=3000, outer_tol=1e9, tol=1e-1, n_iter_no_change=2).fit(X)
    assert len(model.outer_history_) == 2
    assert model.stop_reason_ == "converged"


def test_warm_start_continues_with_codes(X, monkeypatch):
    model = quick(max_outer=1, warm_start=True).fit(X)
    codes = model.transform(X)
    seen, model = trained_towards(model, monkeypatch, X)
    _, index = NearestNeighbors(n_neighbors=4).fit(codes).kneighbors()
    distance = np.linalg.norm(codes[:, None] - codes[index], axis=-1)
    s = np.exp(-(distance**2) / np.mean(distance**2))
    expected = (s[..., None] * X[index]).sum(1) / s.sum(1, keepdims=True)
    np.testing.assert_allclose(seen[0].target, expected)
    assert [p.n_iter for p in model.outer_history_] == [6, 6]
    assert model.n_iter_ == 12


def test_two_fits_to_class_means_are_one(X, y):
    whole = quick("class", max_iter=12, warm_start=True).fit(X, y)
    halves = quick("class", max_iter=6, warm_start=True).fit(X, y).fit(X, y)
    assert same_weights(whole, halves)


def test_without_warm_start_the_history_begins_anew(X):
    model = quick().fit(X)
    history = model.outer_history_
    assert model.fit(X).outer_history_ == history


@pytest.mark.parametrize("relation", ["class", "neighbors", "margin"])
def test_held_out_rows_are_in_no_set_and_have_sets_of_training_rows(X, y, relation, monkeypatch):
    seen = []
    real = skae.estimators.generalized.train

    def spy(network, objective, source, *, rows, validation, **options):
        seen.append((source, rows, *validation))
        return real(network, objective, source, rows=rows, validation=validation, **options)

    monkeypatch.setattr(skae.estimators.generalized, "train", spy)
    model = quick(relation, early_stopping=True, max_iter=20, max_outer=2).fit(X, y)
    source, rows, held, held_rows = seen[0]
    of = {tuple(row): label for row, label in zip(X, y, strict=True)}
    kept, out = source.X.numpy(), held.X.numpy()
    labels = np.array([of[tuple(row)] for row in kept])
    for i in range(len(out)):
        d2 = np.square(kept - out[i]).sum(1)
        own = labels == of[tuple(out[i])]
        s = np.zeros(len(kept))
        if relation == "class":
            s[own] = 1
        elif relation == "neighbors":
            distance, _ = NearestNeighbors(n_neighbors=4).fit(kept).kneighbors()
            at = np.argsort(d2)[:4]
            s[at] = np.exp(-d2[at] / np.mean(distance**2))
        else:
            s[np.argsort(np.where(own, d2, np.inf))[:4]] = 1
            s[np.argsort(np.where(own, np.inf, d2))[:2]] = -1
        np.testing.assert_allclose(held_rows.target[i], s @ kept / s.sum())
    assert len(model.validation_loss_curve_) == model.n_iter_
    assert model.best_loss_ >= min(model.validation_loss_curve_)
    assert rows.target.shape == kept.shape


def test_held_out_rows_by_codes_with_weights(X):
    w = np.linspace(1, 2, 60)
    for space in ("code", "input"):
        model = quick(early_stopping=True, weight_space=space, max_iter=10).fit(X, sample_weight=w)
        assert np.isfinite(model.validation_loss_curve_).all()


def test_a_held_out_row_of_an_unknown_class_does_not_count(X):
    y = np.zeros(60, int)
    y[7] = 1
    curves = [quick("class", early_stopping=True, random_state=seed).fit(X, y)
              .validation_loss_curve_ for seed in range(12)]  # fmt: skip
    assert np.isfinite(curves).all()


def test_callbacks_see_every_epoch_and_stop_all_passes(X):
    pytest.importorskip("sklearn.callback")

    class Stop:
        seen = 0

        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context):
            self.seen += context.task_name == "epoch"
            return self.seen == 5

    model = quick(max_iter=12, max_outer=4).set_callbacks(Stop()).fit(X)
    assert model.n_iter_ == 5
    assert model.stop_reason_ == "callback"
    assert [p.n_iter for p in model.outer_history_] == [3, 2]


# ---- what it is for


def test_class_codes_separate_classes_better_than_plain_ones(iris):
    X, y = iris
    own = {"n_components": 2, "max_iter": 100, "tol": None, "random_state": 0}

    def spread(relation):
        Z = GeneralizedAutoencoder(relation=relation, **own).fit_transform(X, y)
        means = np.array([Z[y == c].mean(0) for c in range(3)])
        within = sum(np.square(Z[y == c] - means[c]).sum() for c in range(3))
        return within / np.square(Z - Z.mean(0)).sum()

    assert spread("class") < 0.5 * spread("self")


def test_supervised_codes_classify_new_rows_better_than_plain_ones(digits):
    X, y = digits / 16, load_digits().target
    error = {}
    for relation in ("self", "class", "margin"):
        model = GeneralizedAutoencoder(relation=relation, n_components=4, max_iter=60, tol=None,
                                       random_state=0).fit(X[:600], y[:600])  # fmt: skip
        knn = KNeighborsClassifier(5).fit(model.transform(X[:600]), y[:600])
        error[relation] = 1 - knn.score(model.transform(X[600:]), y[600:])
    assert max(error["class"], error["margin"]) < 0.8 * error["self"]


def test_isomap_codes_follow_geodesics_better_than_plain_ones():
    X, _ = make_swiss_roll(500, random_state=0)
    X = (X - X.mean(0)) / X.std()
    geodesic = Isomap(n_neighbors=10).fit(X).dist_matrix_[np.triu_indices(500, 1)]

    def correlation(relation):
        model = GeneralizedAutoencoder(
            relation=relation, n_components=2, hidden_layer_sizes=(64, 32), activation="tanh",
            solver="lbfgs", max_iter=200, tol=None, max_outer=1, random_state=0,
        )  # fmt: skip
        Z = model.fit_transform(X)
        return np.corrcoef(pairwise_distances(Z)[np.triu_indices(500, 1)], geodesic)[0, 1]

    assert correlation("isomap") > correlation("self") + 0.1


# ---- kinds of data


@pytest.mark.parametrize("relation", ALL)
def test_arrays_of_all_kinds_give_the_same_model(X, y, relation):
    model = quick(relation).fit(X, y)
    sparse = clone(model).fit(csr_array(X), y)
    frame = clone(model).fit(pd.DataFrame(X, columns=list("abcde")), pd.Series(y))
    np.testing.assert_allclose(model.transform(X), sparse.transform(X))
    assert same_weights(model, frame)
    single = clone(model).fit(X.astype(np.float32), y)
    assert single.transform(X.astype(np.float32)).dtype == np.float32


def test_labels_may_be_of_any_kind(X):
    y = (X[:, 0] > np.median(X[:, 0])).astype(int)
    model = quick("margin").fit(X, y)
    for other in (y.astype(float), y * 7 - 3, np.array(["b", "a"])[1 - y], y[:, None].tolist()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert same_weights(clone(model).fit(X, other), model)


def test_a_module_of_ones_own_finds_its_neighbours_in_its_codes(X):
    encoder = torch.nn.Sequential(torch.nn.Linear(5, 2), torch.nn.BatchNorm1d(2))
    model = quick(encoder=encoder, n_components=None, max_outer=2).fit(X)
    assert len(model.outer_history_) == 2


def test_y_is_ignored_by_unsupervised_relations(X, y):
    assert same_weights(quick().fit(X, y), quick().fit(X))


@parametrize_with_checks([quick("class", max_iter=3), quick("lle", max_iter=3),
                          quick("self", max_iter=3)])  # fmt: skip
def test_check_estimator(estimator, check):
    check(estimator)


# ---- errors


@pytest.mark.parametrize("relation", ["class", "margin"])
def test_supervised_relations_need_y(X, relation):
    with pytest.raises(ValueError, match=f"requires y to be passed.*relation='{relation}'"):
        quick(relation).fit(X)


def test_continuous_y_is_refused(X):
    with pytest.raises(ValueError, match="Unknown label type"):
        quick("class").fit(X, X[:, 0])


def test_y_of_another_length_is_refused(X, y):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick("class").fit(X, y[:-1])


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "poisson"])
def test_other_losses_are_refused(X, loss):
    with pytest.raises(ValueError, match=f"relation='neighbors' needs loss=.*got '{loss}'"):
        quick(loss=loss).fit(X)


@pytest.mark.parametrize("relation", SEARCHING)
def test_one_distinct_row_is_refused(relation):
    with pytest.raises(ValueError, match=r"2 distinct rows .* 1 distinct row of n_samples=5\."):
        quick(relation).fit(np.ones((5, 3)), np.zeros(5, int))
    with pytest.raises(ValueError, match=r"n_samples=1\."):
        quick(relation).fit(np.ones((1, 3)), [0])


def test_one_row_is_its_class():
    assert quick("class").fit(np.ones((1, 3)), [0]).n_iter_ == 6


@pytest.mark.parametrize("relation", ["isomap", "lle"])
def test_joint_weights_hold_out_no_rows(X, relation):
    with pytest.raises(ValueError, match=f"relation='{relation}'.*early_stopping=False"):
        quick(relation, early_stopping=True).fit(X)


def test_isomap_of_many_rows_is_refused():
    X = np.random.default_rng(0).normal(size=(5001, 2))
    with pytest.raises(ValueError, match="limited to 5000 distinct rows, but X has 5001"):
        quick("isomap").fit(X)


def test_margin_without_a_minimum_is_refused(X):
    y = np.r_[np.zeros(57, int), np.ones(3, int)]
    with pytest.raises(
        ValueError, match=r"no minimum: a row of a class of 3 .* attracts 2 .* 2 of"
    ):
        quick("margin").fit(X, y)
    with pytest.raises(ValueError, match="no minimum"):
        quick("margin", k1=2).fit(X, np.arange(60) % 2)


def test_cross_entropy_needs_targets_in_its_range(X, y):
    X = (X - X.min(0)) / np.ptp(X, axis=0)
    with pytest.raises(ValueError, match=r"targets in \[0, 1\].*relation='margin'"):
        quick("margin", loss="binary_cross_entropy", k1=3, k2=2).fit(X, y)


@pytest.mark.parametrize("relation", ["neighbors", "lle", "isomap"])
def test_too_many_neighbours_are_clipped(X, relation):
    with pytest.warns(UserWarning, match="n_neighbors=12 is more than the 9"):
        clipped = quick(relation, n_neighbors=12).fit(X[:10])
    assert same_weights(clipped, quick(relation, n_neighbors=9).fit(X[:10]))


@pytest.mark.parametrize("relation", ["neighbors", "lle", "isomap"])
def test_no_number_of_neighbours_is_ten_or_all_there_are(X, relation):
    assert GeneralizedAutoencoder().n_neighbors is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = quick(relation, n_neighbors=None).fit(X[:8])
    assert same_weights(few, quick(relation, n_neighbors=7).fit(X[:8]))
    many = quick(relation, n_neighbors=None).fit(X)
    assert same_weights(many, quick(relation, n_neighbors=10).fit(X))


def test_held_out_rows_have_as_many_neighbours_by_default(X):
    default, ten = (quick(n_neighbors=k, early_stopping=True).fit(X) for k in (None, 10))
    assert default.validation_loss_curve_ == ten.validation_loss_curve_


@pytest.mark.parametrize("changed", [
    {"relation": "neighbors", "n_neighbors": 99}, {"relation": "margin", "k1": 29},
    {"max_outer": 2, "max_iter": 2000, "tol": 0.01, "n_iter_no_change": 2, "outer_tol": 0.0},
])  # fmt: skip
def test_warnings_point_to_the_line_that_called(X, y, changed):
    with pytest.warns(UserWarning, match="clipped|outer loop") as caught:
        quick(**changed | {"k1": changed.get("k1", 4) + 1}).fit(X, y)
    assert {warning.filename for warning in caught} == {__file__}


def test_fewer_epochs_than_passes_are_named_as_what_ended_the_loop():
    passes = [Pass(1, 0.5, 0.5, 0.4)] * 3
    result = SimpleNamespace(monitor=SimpleNamespace(reasons=["converged"]))
    with pytest.warns(ConvergenceWarning, match=r"stopped at max_iter=3 passes.* Raise max_iter"):
        quick(max_iter=3, max_outer=5)._warn_unsettled(result, passes)
    assert result.monitor.reasons == ["max_outer"]


def test_losses_of_another_relation_are_no_record(X, y):
    """Targets that are means are nearer: the loss of rows themselves never falls as low."""
    model = quick(warm_start=True, max_iter=200, tol=1e-4, n_iter_no_change=3).fit(X)
    model.set_params(relation="self", max_iter=30, tol=1e-9).fit(X)
    own = model.loss_curve_[-model.outer_history_[-1].n_iter :]
    assert model.outer_history_[-1].n_iter > 3
    assert model.best_loss_ == min(own)


@pytest.mark.parametrize("relation", ["class", "margin"])
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_labels_are_refused(X, relation, missing):
    y = np.array(["a", "b"] * 30, dtype=object)
    y[[4, 7]] = missing
    for given in (y, pd.Series(y)):
        with pytest.raises(ValueError, match="missing labels, 2 of 60, the first in row 4"):
            quick(relation).fit(X, given)


def test_too_many_of_a_class_are_clipped(X):
    y = np.arange(10) % 2
    with pytest.warns(UserWarning, match=r"k1=15 is more than the 4 .* smallest class has"):
        clipped = quick("margin", k1=15, k2=3).fit(X[:10], y)
    assert same_weights(clipped, quick("margin", k1=4, k2=3).fit(X[:10], y))
    with pytest.warns(UserWarning, match=r"k2=3 is more than the 0 .* other classes have"):
        quick("margin", k2=3).fit(X[:10], np.zeros(10))


def test_streams_are_refused_with_the_reason(X):
    assert not hasattr(quick(), "partial_fit")
    with pytest.raises(AttributeError) as error:
        quick().partial_fit(X)
    assert "relates every row to others of the whole sample" in str(error.value.__cause__)


@pytest.mark.parametrize("bad", [
    {"relation": "cousins"}, {"n_neighbors": 0}, {"t": 0.0}, {"k1": 0}, {"k2": -1},
    {"weight_space": "pixels"}, {"max_outer": 0}, {"outer_tol": -0.1},
])  # fmt: skip
def test_parameters_are_validated(X, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        quick(**bad).fit(X)

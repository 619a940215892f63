"""Groups of columns that predict each other."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skae import Autoencoder, SplitBrainAutoencoder
from skae._engine.batches import make_source
from skae._engine.rng import Streams
from skae._engine.start import moments, place
from skae._engine.train import Training, train
from skae.networks import Dense, Network
from skae.objective import Objective, Rows

GROUPS = [[0, 3], [4, 1, 2]]
THREE = [[0, 3], [1], [4, 2]]
KINDS = {"targets": ["regression", "classification"], "n_bins": 4, "categorical_features": [2]}


def quick(**changed):
    """One that trains in a few milliseconds."""
    return SplitBrainAutoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "random_state": 0} | changed
    )  # fmt: skip


@pytest.fixture
def mixed(X):
    """The same rows with column 2 made of three categories that do not follow each other."""
    X = X.copy()
    X[:, 2] = np.array([1.0, 2.0, 7.0])[np.digitize(X[:, 2], np.quantile(X[:, 2], [0.3, 0.6]))]
    return X


def same_weights(a, b):
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


# ---- the networks are separate


@pytest.mark.parametrize("groups", ["halves", GROUPS, THREE])
def test_code_of_a_group_depends_on_its_own_columns_only(X, groups):
    model = quick(groups=groups).fit(X)
    Z = model.transform(X)
    assert Z.shape == (60, 2 * len(model.groups_))
    for g, group in enumerate(model.groups_):
        moved = X + 100
        moved[:, group] = X[:, group]
        own = slice(2 * g, 2 * g + 2)
        changed = model.transform(moved)
        np.testing.assert_array_equal(changed[:, own], Z[:, own])
        assert (np.delete(changed, own, axis=1) != np.delete(Z, own, axis=1)).any()
        predicted = model.predict_by_group(moved, g)
        np.testing.assert_array_equal(predicted, model.predict_by_group(X, g))


@pytest.mark.parametrize("groups", [GROUPS, THREE])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_training_together_is_training_each_network_alone(X, groups, solver):
    """Of the joint loss a network has d_g / (d (G - 1)), for d_g columns that it predicts."""
    rate = 1e-2
    model = quick(groups=groups, solver=solver, max_iter=20, batch_size=60, activation="tanh",
                  learning_rate_init=rate)  # fmt: skip
    untrained = clone(model).set_params(learning_rate_init=1e-300, max_iter=1).fit(X)
    model.fit(X)
    unit = moments(make_source(X, torch.float64)).scale ** 2
    for g, seen in enumerate(model.groups_):
        rest = np.setdiff1d(np.arange(5), seen)
        share = len(rest) / (5 * (len(groups) - 1))
        source, target = (make_source(X[:, c], torch.float64) for c in (seen, rest))
        network = Network(Dense(f"encoder.{g}", (len(seen), 4, 2), "tanh", "identity"),
                          Dense(f"decoder.{g}", (2, 4, len(rest)), "tanh", "identity"))  # fmt: skip
        objective = Objective(loss=model.objective_.loss.heads[0].loss)
        numbers = Training(solver=solver, batch_size=60, max_iter=20, tol=None, unit=unit / share,
                           learning_rate_init=rate)  # fmt: skip
        if solver == "adam":
            network = place(network, objective.loss, moments(source), torch.float64, "cpu",
                            moments(target))  # fmt: skip
        else:
            numbers = Training(**vars(numbers) | {"learning_rate_init": rate * share})
        initial = network.imported(
            network.read(untrained.encoder_.parts[g], untrained.decoder_.parts[g])
        )
        rows = Rows(target=torch.tensor(X[:, rest]))
        result = train(network, objective, source, numbers, Streams([0]), initial, rows=rows)
        got = network.read(model.encoder_.parts[g], model.decoder_.parts[g])
        for name, value in network.exported(result.parameters).items():
            torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-9)


def test_linear_networks_reach_reduced_rank_regression(digits):
    """The best prediction of rank k is the regression's, on its k principal components."""
    X = digits[:400, 8:40]
    k = 3
    model = SplitBrainAutoencoder(n_components=k, hidden_layer_sizes=(), activation="identity",
                                  solver="lbfgs", max_iter=2000, tol=None)  # fmt: skip
    model.fit(X)
    for g, group in enumerate(model.groups_):
        seen, rest = X[:, group], np.delete(X, group, axis=1)
        fitted = LinearRegression().fit(seen, rest).predict(seen)
        mean = fitted.mean(0)
        _, _, Vt = np.linalg.svd(fitted - mean, full_matrices=False)
        best = mean + (fitted - mean) @ Vt[:k].T @ Vt[:k]
        got = np.delete(model.predict_by_group(X, g), group, axis=1)
        assert np.isnan(model.predict_by_group(X, g)[:, group]).all()
        assert ((got - rest) ** 2).sum() == pytest.approx(((best - rest) ** 2).sum(), rel=1e-5)
        assert np.linalg.norm(got - best) < 1e-2 * np.linalg.norm(best - mean)


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "cg"])
@pytest.mark.parametrize("groups", [GROUPS, THREE])
def test_offset_and_scale_of_the_data_do_not_change_the_training(X, groups, solver):
    c, s = 1000.0, 50.0
    model = quick(groups=groups, solver=solver, activation="tanh", max_iter=15, batch_size=16)
    plain, moved = clone(model).fit(X), clone(model).fit(c + s * X)
    np.testing.assert_allclose(moved.loss_curve_, np.array(plain.loss_curve_) * s**2, rtol=1e-6)
    np.testing.assert_allclose(moved.transform(c + s * X), plain.transform(X), atol=1e-5)


@pytest.mark.parametrize("changed", [{}, KINDS, {"groups": THREE}, {"dropout": 0.3}])
def test_the_path_is_fused(X, changed):
    assert quick(**{"groups": GROUPS} | changed).fit(X).engine_.path == "fused"


# ---- what is predicted


@pytest.mark.parametrize("changed", [{}, KINDS, {"groups": THREE}, {"groups": THREE, "targets":
                                     "classification"}])  # fmt: skip
def test_reconstruct_is_inverse_transform_of_transform(mixed, changed):
    model = quick(**{"groups": GROUPS} | changed).fit(mixed)
    expected = model.inverse_transform(model.transform(mixed))
    np.testing.assert_allclose(model.reconstruct(mixed), expected)


@pytest.mark.parametrize("targets", ["regression", "classification"])
@pytest.mark.parametrize("groups", ["halves", GROUPS, THREE])
def test_reconstruction_is_the_mean_over_the_groups_that_predict_a_column(X, groups, targets):
    model = quick(groups=groups, targets=targets, n_bins=4).fit(X)
    each = [model.predict_by_group(X, g) for g in range(len(model.groups_))]
    for group, predicted in zip(model.groups_, each, strict=True):
        assert set(np.flatnonzero(np.isnan(predicted).all(0))) == set(group)
    np.testing.assert_allclose(model.reconstruct(X), np.nanmean(each, 0))


def test_error_is_the_mean_loss_of_the_predictions(X):
    model = quick(groups=THREE).fit(X)
    each = np.stack([model.predict_by_group(X, g) for g in range(3)])
    expected = np.nanmean((each - X) ** 2, 0)
    error = model.reconstruction_error(X, per_feature=True)
    np.testing.assert_allclose(error, expected)
    np.testing.assert_allclose(model.reconstruction_error(X), expected.mean(1))
    assert model.score(X) == pytest.approx(-expected.mean())


@pytest.mark.parametrize("changed", [{"groups": GROUPS}, {"groups": THREE} | KINDS |
                                     {"targets": "classification"}])  # fmt: skip
def test_loss_is_the_error_before_the_first_step(mixed, changed):
    model = quick(max_iter=1, batch_size=60, **changed)
    untrained = clone(model).set_params(learning_rate_init=1e-300).fit(mixed)
    assert model.fit(mixed).loss_curve_[0] == pytest.approx(-untrained.score(mixed))


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "squared_error"])
def test_every_elementwise_loss_falls(X, loss):
    curve = quick(groups=THREE, loss=loss, max_iter=50, learning_rate_init=1e-2).fit(X).loss_curve_
    assert curve[-1] < 0.7 * curve[0]


# ---- classification


def by_hand(model, X, g, j):
    """Probabilities of the bins of column j, of which g has one head only."""
    loss = model.objective_.loss
    start = sum(loss.group_width(before) for before in range(g))
    position = list(loss.predicted(g)).index(j)
    n_bins = len(model.bin_edges_[j]) + 1
    with torch.no_grad():
        raw = model.decoder_(model.encoder_(torch.tensor(X)))
    block = raw[:, start + position * n_bins :][:, :n_bins]
    return block.softmax(-1).numpy()


@pytest.mark.parametrize("bin_strategy", ["quantile", "uniform"])
def test_classification_predicts_the_expected_bin(X, bin_strategy):
    model = quick(targets="classification", n_bins=4, bin_strategy=bin_strategy).fit(X)
    predicted = model.predict_by_group(X, 0)
    for j in model.groups_[1]:
        edges = model.bin_edges_[j]
        bins = np.digitize(X[:, j], edges)
        values = [X[bins == b, j].mean() for b in range(len(edges) + 1)]
        p = by_hand(model, X, 0, j)
        np.testing.assert_allclose(predicted[:, j], p @ values)
        error = -np.log(p[np.arange(60), bins])
        np.testing.assert_allclose(model.reconstruction_error(X, per_feature=True)[:, j], error)


def test_bins_have_equally_many_rows_or_equal_widths(X):
    model = quick(targets="classification", n_bins=4).fit(X)
    for j, edges in enumerate(model.bin_edges_):
        assert np.bincount(np.digitize(X[:, j], edges)).tolist() == [15] * 4
    model.set_params(bin_strategy="uniform").fit(X)
    for j, edges in enumerate(model.bin_edges_):
        expected = np.linspace(X[:, j].min(), X[:, j].max(), 5)[1:-1]
        np.testing.assert_allclose(edges, expected)


def test_training_starts_at_the_shares_of_the_bins(X):
    """So that the loss starts near the entropy, log 5 for bins of equally many rows."""
    model = quick(targets="classification", n_bins=5, max_iter=1, learning_rate_init=1e-300)
    assert abs(model.fit(X).loss_ - np.log(5)) < 1
    model = model.set_params(max_iter=200, learning_rate_init=1e-2).fit(X)
    assert model.loss_ < 0.7 * np.log(5)


def test_bins_of_few_distinct_values_are_those_values():
    X = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 5.0], [0.0, 3.0, 5.0], [0.0, 3.0, 5.0]])
    model = quick(targets="classification", groups=[[0], [1, 2]]).fit(X)
    assert [edges.tolist() for edges in model.bin_edges_] == [[], [2.0], [2.5]]
    assert (model.reconstruct(X)[:, 0] == 0).all()  # a constant is one bin


def test_targets_and_bins_are_of_the_columns_of_a_group(X):
    model = quick(groups=GROUPS, targets=["regression", "classification"], n_bins=[9, 3]).fit(X)
    sizes = [None if edges is None else len(edges) for edges in model.bin_edges_]
    assert sizes == [None, 2, 2, None, 2]


def test_integer_weights_are_repeated_rows_for_bins_too(X):
    rng = np.random.default_rng(0)
    w = rng.integers(0, 4, 60)
    model = quick(groups=THREE, targets="classification", n_bins=4, max_iter=5)
    weighted = clone(model).set_params(batch_size=60).fit(X, sample_weight=w)
    repeated = clone(model).set_params(batch_size=int(w.sum())).fit(np.repeat(X, w, axis=0))
    for a, b in zip(weighted.bin_edges_, repeated.bin_edges_, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), rtol=1e-6)


def test_categories_are_predicted_as_categories(mixed):
    model = quick(groups=THREE, categorical_features=[2], max_iter=300, learning_rate_init=1e-2)
    model.fit(mixed)
    assert model.bin_edges_[2].tolist() == [1.5, 4.5]
    assert model.bin_edges_[0] is None
    predicted = model.reconstruct(mixed)[:, 2]
    assert set(predicted) <= {1.0, 2.0, 7.0}
    assert (predicted == mixed[:, 2]).mean() > 0.6
    # Column 2 is predicted by groups 0 and 1; its three logits come after the numbers.
    with torch.no_grad():
        raw = model.decoder_(model.encoder_(torch.from_numpy(mixed)))
    p = (raw[:, 2:5].softmax(-1) + raw[:, 8:11].softmax(-1)) / 2
    np.testing.assert_array_equal(predicted, np.array([1.0, 2.0, 7.0])[p.argmax(-1)])


def test_rare_categories_are_found_beyond_the_rows_that_bins_are_learned_from(X, monkeypatch):
    monkeypatch.setattr("skae.estimators._groups._ROWS", 10)
    X = X.copy()
    X[:, 2] = 0
    X[33, 2] = 5
    model = quick(categorical_features=[2]).fit(X)
    assert model.bin_edges_[2].tolist() == [2.5]


def test_bins_are_learned_from_rows_all_over_the_data(X, monkeypatch):
    monkeypatch.setattr("skae.estimators._groups._ROWS", 15)
    order = np.argsort(X[:, 0])
    model = quick(targets="classification", n_bins=3).fit(X[order])
    shares = np.bincount(np.digitize(X[:, 0], model.bin_edges_[0])) / 60
    assert shares.min() > 0.25


def test_range_of_a_loss_is_asked_of_regression_columns_only(X):
    X = X - X.min(0)
    X[:, :3] /= X[:, :3].max()
    X[:, 3:] *= 100
    model = quick(loss="binary_cross_entropy", targets=["regression", "classification"])
    model.fit(X)
    with pytest.raises(ValueError, match=r"needs X in \[0, 1\], but feature 4 reaches"):
        model.set_params(groups=[[0, 1, 2, 4], [3]]).fit(X)
    frame = pd.DataFrame(X, columns=list("abcde"))
    with pytest.raises(ValueError, match=r"feature 4 \('e'\) reaches"):
        model.fit(frame)


# ---- groups


def test_columns_by_name_and_by_index_agree(mixed):
    frame = pd.DataFrame(mixed, columns=list("abcde"))
    by_index = quick(groups=[[0, 3], [4, 1, 2]], categorical_features=[2]).fit(frame)
    by_name = quick(groups=[["a", "d"], ["e", "b", "c"]], categorical_features=["c"]).fit(frame)
    both = quick(groups=[np.array([0, 3]), ("b", 2, "e")], categorical_features=["c"]).fit(frame)
    order = quick(groups=[[3, 0], [1, 2, 4]], categorical_features=[2]).fit(frame)
    for model in (by_name, both, order):
        assert same_weights(model, by_index)
        assert [g.tolist() for g in model.groups_] == [[0, 3], [1, 2, 4]]


def test_groups_may_be_made_from_the_feature_names(X):
    def even_and_odd(names):
        assert isinstance(names, np.ndarray)
        return [names[::2], list(range(1, len(names), 2))]

    for given in (X, pd.DataFrame(X, columns=list("abcde"))):
        model = quick(groups=even_and_odd).fit(given)
        assert [g.tolist() for g in model.groups_] == [[0, 2, 4], [1, 3]]


def test_groups_may_be_slices(X):
    model = quick(groups=[slice(0, 2), slice(2, None)]).fit(X)
    assert [group.tolist() for group in model.groups_] == [[0, 1], [2, 3, 4]]
    assert same_weights(model, quick(groups=[[0, 1], [2, 3, 4]]).fit(X))
    evens = quick(groups=lambda names: [slice(None, None, 2), [1, 3]]).fit(X)
    assert [group.tolist() for group in evens.groups_] == [[0, 2, 4], [1, 3]]


def test_halves_are_the_first_columns_and_the_rest(X):
    assert [g.tolist() for g in quick().fit(X).groups_] == [[0, 1, 2], [3, 4]]
    assert [g.tolist() for g in quick().fit(X[:, :2]).groups_] == [[0], [1]]


def test_default_width_is_the_root_of_the_columns_of_each_group(digits):
    model = quick(n_components=None, groups=[range(10), range(10, 64)], max_iter=1).fit(digits)
    assert model.n_components_ == 4 + 8
    assert model.transform(digits).shape[1] == len(model.get_feature_names_out()) == 12


BAD_GROUPS = {
    "one": ([[0, 1, 2, 3, 4]], "two or more groups"),
    "overlap": ([[0, 1, 2], [2, 3, 4]], r"disjoint, but column 2 \('x2'\) is in groups 0 and 1"),
    "twice": ([[0, 1, 1], [2, 3, 4]], "disjoint, but column 1"),
    "missing": ([[0, 1], [4]], r"cover all columns of X, but columns \[2, 3\]"),
    "empty": ([[0, 1, 2, 3, 4], []], r"groups\[1\] is empty"),
    "beyond": ([[0, 1, 2], [3, 4, 5]], r"groups\[1\] holds 5, but X has 5 features"),
    "negative": ([[0, 1, 2], [3, -1]], r"groups\[1\] holds -1"),
    "unknown": ([[0, 1, 2], ["age", 4]], r"groups\[1\] names 'age', but the features are"),
    "flat": ([0, 1, 2, 3, 4], r"groups\[0\] must be a list .* Write \[0\]"),
    "a word": ([[0, 1, 2], "x4"], r"groups\[1\] must be a list"),
    "a slice of names": ([slice("a", "c"), [3, 4]], r"groups\[0\] must be a slice of column indic"),
    "slices that overlap": ([slice(0, 3), slice(2, 5)], "2"),
    "no column": ([[0, 1, 2, 3, 4], 1.5], r"or a slice of indices, got 1.5\.$"),
    "a float": ([[0, 1, 2], [3, 4.0]], "must hold column indices or names, got 4.0"),
    "a mask": ([[True, False], [3, 4]], "must hold column indices or names, got True"),
}


@pytest.mark.parametrize("name", BAD_GROUPS)
def test_groups_that_are_no_partition_are_refused_with_the_reason(X, name):
    groups, reason = BAD_GROUPS[name]
    for given in (groups, lambda names: groups):
        model = quick(groups=given)
        with pytest.raises(ValueError, match=reason):
            model.fit(X)
        assert not hasattr(model, "groups_")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"targets": ["regression"]}, "targets must be one for all groups or have one for each"),
        ({"targets": ["regression", "ranking"]}, r"targets\[1\] is 'ranking'"),
        ({"n_bins": [3, 4, 5]}, "n_bins must be one for all groups or have one for each"),
        ({"n_bins": [3, 1]}, r"n_bins must be integers from 2, but n_bins\[1\] is 1"),
        ({"n_bins": [3, 2.5]}, r"n_bins\[1\] is 2.5"),
        ({"categorical_features": [5]}, "categorical_features holds 5"),
        ({"categorical_features": ["z"]}, "categorical_features names 'z'"),
        ({"tied_weights": True}, "tied_weights=True needs .* Set tied_weights=False"),
        ({"encoder": nn.Linear(5, 2)}, "encoder and decoder must be None"),
        ({"decoder": nn.Linear(2, 5)}, "encoder and decoder must be None"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused_with_the_reason(X, changed, reason):
    with pytest.raises(ValueError, match=reason):
        quick(**changed).fit(X)


def test_one_feature_is_refused():
    with pytest.raises(ValueError, match="n_features = 1"):
        quick().fit(np.ones((5, 1)))


@pytest.mark.parametrize("group", [-1, 2, "a", 0.0])
def test_there_is_no_such_group(X, group):
    with pytest.raises(ValueError, match="group must be an integer from 0 to 1"):
        quick().fit(X).predict_by_group(X, group)
    with pytest.raises(NotFittedError):
        quick().predict_by_group(X, 0)


# ---- weights


def test_coefs_and_intercepts_are_the_networks_one_after_the_other(X):
    X = X + 100
    model = quick(groups=GROUPS, activation="tanh").fit(X)
    W, b = model.coefs_, model.intercepts_
    assert [w.shape for w in W] == [(2, 4), (4, 2), (3, 4), (4, 2), (2, 4), (4, 3), (2, 4), (4, 2)]
    Z, X_hat = model.transform(X), model.reconstruct(X)
    for g, group in enumerate(model.groups_):
        i, rest = 2 * g, np.setdiff1d(np.arange(5), group)
        code = np.tanh(X[:, group] @ W[i] + b[i]) @ W[i + 1] + b[i + 1]
        np.testing.assert_allclose(code, Z[:, 2 * g : 2 * g + 2], atol=1e-9)
        predicted = np.tanh(code @ W[4 + i] + b[4 + i]) @ W[5 + i] + b[5 + i]
        np.testing.assert_allclose(predicted, X_hat[:, rest], atol=1e-9)


def test_components_are_zero_where_a_unit_does_not_see(X):
    model = quick(groups=THREE, hidden_layer_sizes=(), activation="identity").fit(X)
    intercept = np.concatenate(model.intercepts_[:3])
    np.testing.assert_allclose(X @ model.components_.T + intercept, model.transform(X))
    for g, group in enumerate(model.groups_):
        rest = np.setdiff1d(np.arange(5), group)
        assert (model.components_[2 * g : 2 * g + 2][:, rest] == 0).all()
    assert not hasattr(quick().fit(X), "components_")


def test_alpha_adds_half_the_squared_weights_to_the_loss(X):
    given = quick(groups=THREE).fit(X)
    start = {"groups": THREE, "initialize_from": given, "max_iter": 1, "batch_size": 60}
    plain, decayed = quick(**start).fit(X), quick(alpha=0.3, **start).fit(X)
    squares = sum((W**2).sum() for W in given.coefs_)
    assert decayed.loss_curve_[0] == pytest.approx(plain.loss_curve_[0] + 0.15 * squares)


def test_initialize_from_starts_where_the_other_ended(X):
    given = quick(groups=GROUPS).fit(X)
    after = quick(groups=GROUPS, initialize_from=given, learning_rate_init=1e-300).fit(X)
    np.testing.assert_allclose(after.reconstruct(X), given.reconstruct(X), rtol=1e-12)


def test_initialize_from_another_kind_of_network_is_refused(X):
    plain = Autoencoder(n_components=2, hidden_layer_sizes=(4,), max_iter=1, tol=None).fit(X)
    for given, reason in ((plain, "0 encoders side by side, this estimator has 2"),
                          (quick(groups=THREE).fit(X), "has 3 encoders side by side"),
                          (quick(groups=[[0], [1, 2, 3, 4]]).fit(X), "does not fit at encoder.0"),
                          (quick(hidden_layer_sizes=()).fit(X), "encoder.0 layers")):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            quick(initialize_from=given).fit(X)
    with pytest.raises(ValueError, match="encoder layers"):
        plain.set_params(initialize_from=quick().fit(X)).fit(X)


# ---- continuing, inputs, and scikit-learn


@pytest.mark.parametrize("changed", [{}, KINDS, {"groups": lambda names: [[0], [1, 2, 3, 4]]},
                                     {"groups": THREE, "early_stopping": True},
                                     {"dropout": 0.2, "input_dropout": 0.1}])  # fmt: skip
def test_two_fits_of_k_epochs_are_one_of_2k(mixed, changed):
    model = quick(batch_size=16, warm_start=True, **changed)
    whole = clone(model).set_params(max_iter=6).fit(mixed)
    halves = clone(model).fit(mixed).fit(mixed)
    assert halves.n_iter_ == 6
    assert halves.loss_curve_ == whole.loss_curve_
    assert same_weights(halves, whole)


def test_partial_fit_keeps_the_first_rows_bins_and_goes_on(X):
    model = quick(groups=GROUPS, targets="classification", n_bins=4)
    model.partial_fit(X[:30])
    edges = model.bin_edges_
    losses = [model.loss_]
    for _ in range(30):
        losses.append(model.partial_fit(X[30:]).loss_)
    for a, b in zip(edges, model.bin_edges_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(model.loss_curve_) == 31
    assert losses[-1] < losses[1]


@pytest.mark.parametrize("changed", [{"groups": THREE}, {"targets": "classification"},
                                     {"categorical_features": [2]}])  # fmt: skip
def test_other_groups_or_targets_start_a_new_network(mixed, changed):
    model = quick(groups=GROUPS, warm_start=True).fit(mixed)
    if changed.get("groups") == THREE:
        with pytest.raises(ValueError, match="Give both the same number of groups"):
            model.set_params(**changed).fit(mixed)
        return
    with pytest.raises(ValueError, match="does not fit at decoder"):
        model.set_params(**changed).fit(mixed)


@pytest.mark.parametrize("changed", [{"groups": GROUPS}, {"groups": THREE} | KINDS |
                                     {"targets": "classification"}])  # fmt: skip
def test_every_kind_of_input_gives_the_same(mixed, changed, tmp_path):
    model = quick(**changed)
    expected = clone(model).fit(mixed)
    mapped = np.memmap(tmp_path / "X", dtype=float, mode="w+", shape=mixed.shape)
    mapped[:] = mixed
    for given in (mapped, sp.csr_array(mixed), pd.DataFrame(mixed)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert same_weights(clone(model).fit(given), expected)


def test_a_mapped_file_is_read_a_batch_at_a_time(X, tmp_path, monkeypatch):
    monkeypatch.setattr("skae._engine.batches._MAPPED_BYTES", 1)
    mapped = np.memmap(tmp_path / "X", dtype=float, mode="w+", shape=X.shape)
    mapped[:] = X
    model = quick(groups=THREE, targets="classification", batch_size=16)
    assert same_weights(clone(model).fit(mapped), clone(model).fit(X))


def test_float32_gives_float32(X):
    model = quick(groups=THREE, targets=["regression", "classification", "regression"])
    X = X.astype(np.float32)
    model.fit(X)
    for result in (model.transform(X), model.reconstruct(X), model.predict_by_group(X, 1)):
        assert result.dtype == np.float32
        assert result.shape[0] == 60


@pytest.mark.parametrize("solver", ["sgd", "lbfgs", "cg"])
def test_every_solver_lowers_the_loss(mixed, solver):
    model = quick(solver=solver, groups=THREE, max_iter=40, learning_rate_init=1e-2, **KINDS |
                  {"targets": ["regression", "classification", "regression"]})  # fmt: skip
    model.fit(mixed)
    assert model.loss_ < 0.9 * model.loss_curve_[0]


def test_many_rows_are_encoded_in_chunks_as_they_are_at_once(X, monkeypatch):
    model = quick(groups=THREE).fit(X)
    at_once = [model.transform(X), model.reconstruct(X), model.predict_by_group(X, 1)]
    monkeypatch.setattr("skae.estimators._inference._CELLS", 1)
    many = np.tile(X, (5, 1))
    chunked = [model.transform(many), model.reconstruct(many), model.predict_by_group(many, 1)]
    for a, b in zip(at_once, chunked, strict=True):
        np.testing.assert_allclose(b, np.tile(a, (5, 1)), rtol=1e-12)


def test_pickles_and_clones(mixed):
    model = quick(groups=THREE, **KINDS | {"targets": "classification"}).fit(mixed)
    model.reconstruct(mixed)
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.reconstruct(mixed), model.reconstruct(mixed))
    assert same_weights(clone(model).fit(mixed), model)


def test_search_and_pipeline(X):
    pipeline = make_pipeline(
        make_column_transformer((StandardScaler(), [0, 1, 2]), remainder="passthrough"),
        quick(groups=GROUPS),
    )
    search = GridSearchCV(pipeline, {"splitbrainautoencoder__groups": [GROUPS, THREE]}, cv=2)
    assert search.fit(X).best_estimator_.transform(X).shape[0] == 60

"""Fitted networks as plain torch modules, and as scikit-learn's multi-layer perceptrons."""

import copy
import inspect
import pickle
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from torch import nn

from skae import (
    Autoencoder,
    DenoisingAutoencoder,
    KSparseAutoencoder,
    SparseAutoencoder,
    SplitBrainAutoencoder,
)
from skae.estimators._mlp import mlp_classifier, mlp_regressor
from skae.losses import SquaredError
from skae.modules import Applied

HAS_POISSON = "loss" in inspect.signature(MLPRegressor).parameters
TANH = {"activation": "tanh", "code_activation": "tanh"}


def fitted(X, cls=Autoencoder, **params):
    given = {"n_components": 3, "hidden_layer_sizes": (6,), "max_iter": 5, "tol": None}
    return cls(**given | {"random_state": 0} | params).fit(X)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture
def unit(X):
    """The same rows, from 0 to 1."""
    return (X - X.min()) / np.ptp(X)


def assert_same(mine, theirs, tol=1e-12):
    np.testing.assert_allclose(mine, theirs, rtol=tol, atol=tol)


def run(module, X):
    with torch.no_grad():
        return module(torch.tensor(X)).numpy()


# ---- to_torch


@dataclass(frozen=True)
class Doubled(SquaredError):
    """A loss whose reconstruction is more than an activation."""

    def elements(self, x, raw):
        return (2 * raw - x) ** 2

    def gradient(self, x, raw):
        return 4 * (2 * raw - x)

    def predict(self, raw):
        return 2 * raw


MODELS = {
    "plain": (Autoencoder, {}),
    "one layer": (Autoencoder, {"hidden_layer_sizes": ()}),
    "tied": (Autoencoder, {"tied_weights": True}),
    "elu, gelu": (Autoencoder, {"activation": "elu", "code_activation": "gelu"}),
    "logistic output": (Autoencoder, {"output_activation": "logistic"}),
    "softplus output": (Autoencoder, {"output_activation": "softplus"}),
    "cross-entropy": (Autoencoder, {"loss": "binary_cross_entropy"}),
    "poisson": (Autoencoder, {"loss": "poisson"}),
    "a loss of one's own": (Autoencoder, {"loss": Doubled()}),
    "sparse": (SparseAutoencoder, {"code_activation": "logistic"}),
    "denoising": (DenoisingAutoencoder, {}),
    "k-sparse": (KSparseAutoencoder, {"k": 2}),
    "k-sparse of a batch": (KSparseAutoencoder, {"k": 2, "selection": "batch"}),
    "split-brain": (SplitBrainAutoencoder, {"n_components": 2}),
    "split-brain bins": (SplitBrainAutoencoder, {"targets": "classification", "n_bins": 3}),
    "modules of one's own": (
        Autoencoder,
        {"encoder": nn.Linear(5, 4), "decoder": nn.Sequential(nn.Linear(4, 5)), "n_components": 4},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_torch_module_is_the_estimator(name, unit):
    cls, params = MODELS[name]
    model = fitted(unit, cls, **params)
    codes = model.transform(unit)
    assert_same(run(model.to_torch(), unit), model.reconstruct(unit))
    assert_same(run(model.to_torch("encoder"), unit), codes)
    assert_same(run(model.to_torch("decoder"), codes), model.inverse_transform(codes))


@pytest.mark.parametrize("name", MODELS)
def test_torch_module_pickles_and_gradients_reach_its_first_layer(name, unit):
    cls, params = MODELS[name]
    module = fitted(unit, cls, **params).to_torch()
    x = torch.tensor(unit)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), module(x))
    module(x).square().sum().backward()
    assert next(module.parameters()).grad.abs().sum() > 0


def test_torch_module_of_dense_layers_is_torchs_own(unit):
    module = fitted(unit, loss="binary_cross_entropy", **TANH).to_torch()
    kinds = [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear, nn.Sigmoid]
    assert type(module) is nn.Sequential
    assert [type(part) for part in module] == kinds
    assert not module.training
    assert all(p.requires_grad for p in module.parameters())


def test_torch_module_keeps_modules_of_ones_own_as_they_are(X):
    shared = nn.Linear(5, 5)
    encoder = nn.Sequential(shared, nn.Tanh(), shared, nn.LayerNorm(5))
    module = fitted(X, encoder=encoder, n_components=5).to_torch("encoder")
    assert [type(part) for part in module] == [nn.Linear, nn.Tanh, nn.Linear, nn.LayerNorm]
    assert module[0] is module[2]
    assert module[0] is not shared


def test_torch_module_keeps_the_dtype_of_the_fit(X):
    model = fitted(X.astype(np.float32))
    assert {p.dtype for p in model.to_torch().parameters()} == {torch.float32}
    assert_same(
        run(model.to_torch(), X.astype(np.float32)), model.reconstruct(X.astype("f4")), 1e-6
    )


@pytest.mark.parametrize("name", ["plain", "k-sparse", "split-brain", "modules of one's own"])
def test_training_a_torch_module_leaves_the_estimator_alone(name, unit):
    cls, params = MODELS[name]
    model = fitted(unit, cls, **params)
    before = model.reconstruct(unit)
    module = model.to_torch().train()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    assert np.array_equal(model.reconstruct(unit), before)


def test_torch_module_takes_no_draw_of_the_global_generator(X):
    model = fitted(X)
    before = torch.get_rng_state()
    model.to_torch()
    assert torch.equal(torch.get_rng_state(), before)


def test_torch_module_keeps_as_many_units_as_set_after_training(X):
    model = fitted(X, KSparseAutoencoder, k=1, n_components=4, hidden_layer_sizes=())
    encoder = model.set_params(alpha_k=2).to_torch("encoder")
    assert isinstance(encoder[-1], Applied)
    assert "KSparse.encode" in repr(encoder)
    assert ((run(encoder, X) != 0).sum(1) == 2).all()
    assert_same(run(encoder, X), model.transform(X))


def test_unknown_part_is_refused(X):
    with pytest.raises(ValueError, match=r"part must be one of .*'decoder', got 'code'"):
        fitted(X).to_torch("code")


@pytest.mark.parametrize("method", ["to_torch", "to_mlp"])
def test_export_needs_a_fit(method):
    with pytest.raises(NotFittedError):
        getattr(Autoencoder(), method)("autoencoder")


# ---- to_mlp: an autoencoder


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("tied", [False, True])
def test_mlp_predicts_reconstructions(activation, tied, X):
    model = fitted(X, activation=activation, code_activation=activation, tied_weights=tied)
    mlp = model.to_mlp("autoencoder")
    assert type(mlp) is MLPRegressor
    assert mlp.hidden_layer_sizes == (6, 3, 6)
    assert_same(mlp.predict(X), model.reconstruct(X))
    for mine, theirs in zip(mlp.coefs_, model.coefs_, strict=True):
        assert np.array_equal(mine, theirs)
    for mine, theirs in zip(mlp.intercepts_, model.intercepts_, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("cls", [DenoisingAutoencoder, SparseAutoencoder])
def test_mlp_of_a_variant_predicts_reconstructions(cls, X):
    model = fitted(X, cls, activation="logistic", code_activation="logistic")
    assert_same(model.to_mlp("autoencoder").predict(X), model.reconstruct(X))


def test_mlp_of_modules_of_ones_own(X):
    encoder = nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 3, bias=False))
    decoder = nn.Sequential(nn.Identity(), nn.Linear(3, 5))
    encoder.extend([nn.Tanh(), nn.Identity()])
    model = fitted(X, encoder=encoder, decoder=decoder, n_components=3)
    assert_same(model.to_mlp("autoencoder").predict(X), model.reconstruct(X))


def test_mlp_keeps_the_dtype_of_the_fit(X):
    mlp = fitted(X.astype(np.float32), **TANH).to_mlp("autoencoder")
    assert {W.dtype for W in mlp.coefs_ + mlp.intercepts_} == {np.dtype("f4")}
    assert mlp.fit(X.astype("f4"), X.astype("f4")).coefs_[0].dtype == np.float32


SGD = {
    "solver": "sgd", "learning_rate_init": 0.3, "shuffle": False, "batch_size": 20, "alpha": 0.01,
    **TANH,
}  # fmt: skip


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"momentum": 0.5, "nesterovs_momentum": False},
        {"batch_size": "auto"},
        pytest.param(
            {"loss": "poisson", "learning_rate_init": 0.05},
            marks=pytest.mark.skipif(not HAS_POISSON, reason="scikit-learn < 1.7"),
        ),
    ],
)
def test_mlp_takes_the_same_steps_of_sgd(params, unit):
    start = fitted(unit, **SGD | params)
    ours = fitted(unit, **SGD | params, initialize_from=start, max_iter=7)
    mlp = start.to_mlp("autoencoder", max_iter=7).fit(unit, unit)
    assert np.abs(ours.coefs_[0] - start.coefs_[0]).max() > 1e-4
    for mine, theirs in zip(ours.coefs_ + ours.intercepts_, mlp.coefs_ + mlp.intercepts_,
                            strict=True):  # fmt: skip
        assert_same(mine, theirs, 1e-10)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_mlp_has_the_same_minimum(solver, unit):
    """There lbfgs stops where it is; with another alpha it does not."""
    params = {"solver": solver, "alpha": 0.01, "max_iter": 2000, "tol": 1e-10, **TANH}
    model = fitted(unit, hidden_layer_sizes=(), **params)

    def moved(**given):
        mlp = model.to_mlp("autoencoder", tol=1e-3, **given).fit(unit, unit)
        return max(np.abs(a - b).max() for a, b in zip(mlp.coefs_, model.coefs_, strict=True))

    assert model.to_mlp("autoencoder").solver == "lbfgs"
    assert moved() < 1e-3
    assert moved(alpha=0.0) > 0.1


def test_fit_goes_on_from_the_weights(wine):
    model = fitted(wine[0], **TANH, max_iter=20)
    mlp = model.to_mlp("autoencoder", max_iter=1, learning_rate_init=1e-6).fit(wine[0], wine[0])
    for mine, theirs in zip(mlp.coefs_, model.coefs_, strict=True):
        assert 0 < np.abs(mine - theirs).max() < 1e-5


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_more_epochs_fall_below_the_error(solver, wine):
    X = wine[0]
    model = fitted(X, **TANH, max_iter=20)
    mlp = model.to_mlp("autoencoder", max_iter=50, solver=solver).fit(X, X)
    assert np.mean((mlp.predict(X) - X) ** 2) < -model.score(X)


def test_fit_again_goes_on(wine):
    mlp = fitted(wine[0], **TANH).to_mlp("autoencoder", max_iter=3)
    first = list(mlp.fit(wine[0], wine[0]).loss_curve_)
    second = mlp.fit(wine[0], wine[0]).loss_curve_[len(first) :]
    assert max(second) < min(first)


def test_partial_fit_goes_on_from_the_weights(wine):
    model = fitted(wine[0], **TANH)
    mlp = model.to_mlp("autoencoder", learning_rate_init=1e-6)
    mlp.partial_fit(wine[0], wine[0]).partial_fit(wine[0], wine[0])
    assert len(mlp.loss_curve_) == 2
    assert 0 < np.abs(mlp.coefs_[0] - model.coefs_[0]).max() < 1e-5


def test_early_stopping_starts_with_the_weights(wine):
    model = fitted(wine[0], **TANH, early_stopping=True)
    mlp = model.to_mlp("autoencoder", learning_rate_init=1e-6).fit(wine[0], wine[0])
    assert len(mlp.validation_scores_) == 5
    assert np.abs(mlp.coefs_[0] - model.coefs_[0]).max() < 1e-4


def test_mlp_is_a_copy(X):
    model = fitted(X, **TANH)
    before = copy.deepcopy(model.coefs_)
    model.to_mlp("autoencoder", max_iter=5).fit(X, X)
    assert all(np.array_equal(a, b) for a, b in zip(model.coefs_, before, strict=True))


def test_mlp_pickles_and_clones(X):
    mlp = fitted(X, **TANH).to_mlp("autoencoder")
    assert np.array_equal(pickle.loads(pickle.dumps(mlp)).predict(X), mlp.predict(X))
    assert clone(mlp).get_params() == mlp.get_params()
    assert not hasattr(clone(mlp), "coefs_")


def test_mlp_knows_the_names_of_the_features(X):
    frame = pd.DataFrame(X, columns=list("abcde"))
    mlp = fitted(frame, **TANH).to_mlp("classifier", [0, 1])
    assert mlp.feature_names_in_.tolist() == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        mlp.predict(frame[list("edcba")])


# ---- to_mlp: with a new last layer


@pytest.mark.parametrize(
    ("y", "outputs", "activation"),
    [
        ([0, 1, 1, 0], 1, "logistic"),
        (["no", "yes"], 1, "logistic"),
        (["a", "b", "c"], 3, "softmax"),
        (pd.Series([2, 1, 0, 1]), 3, "softmax"),
        (np.array([[0, 1, 0], [1, 1, 0]]), 3, "logistic"),
        (np.array([[0], [1]]), 1, "logistic"),
    ],
)
def test_classifier_has_the_outputs_of_its_classes(y, outputs, activation, X):
    model = fitted(X, **TANH)
    mlp = model.to_mlp("classifier", y)
    assert type(mlp) is MLPClassifier
    assert mlp.hidden_layer_sizes == (6, 3)
    assert (mlp.n_outputs_, mlp.out_activation_) == (outputs, activation)
    assert mlp.coefs_[-1].shape == (3, outputs)
    assert np.array_equal(mlp.coefs_[1], model.coefs_[1])
    assert mlp.predict_proba(X).shape == (60, max(2, outputs))
    assert set(np.unique(mlp.predict(X))) <= set(np.unique(y))


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_new_layer_is_the_one_that_an_mlp_draws(kind, wine):
    X, y = wine
    model = fitted(X, **TANH)
    mlp = model.to_mlp(kind, y, random_state=7)
    params = mlp.get_params() | {"max_iter": 1, "learning_rate_init": 1e-12, "solver": "sgd"}
    fresh = type(mlp)(**params).fit(X, y)
    assert_same(mlp.coefs_[-1], fresh.coefs_[-1], 1e-6)
    assert_same(mlp.intercepts_[-1], fresh.intercepts_[-1], 1e-6)
    assert not np.array_equal(model.to_mlp(kind, y, random_state=8).coefs_[-1], mlp.coefs_[-1])


def test_new_layer_follows_the_estimators_random_state(wine):
    X, y = wine
    one, two = (fitted(X, **TANH).to_mlp("classifier", y) for _ in range(2))
    assert one.random_state == 0
    assert np.array_equal(one.coefs_[-1], two.coefs_[-1])


@pytest.mark.parametrize("y", [load_wine().target, load_wine().target > 0])
def test_classifier_trains_from_the_encoder(y, wine):
    X, _ = wine
    model = fitted(X, **TANH, max_iter=50)
    mlp = model.to_mlp("classifier", y, max_iter=1, learning_rate_init=1e-6).fit(X, y)
    assert 0 < np.abs(mlp.coefs_[0] - model.coefs_[0]).max() < 1e-5
    mlp = model.to_mlp("classifier", y, max_iter=200, learning_rate_init=0.01).fit(X, y)
    assert mlp.score(X, y) > 0.9
    assert mlp.partial_fit(X[::9], y[::9]).score(X, y) > 0.9


def test_chunks_without_some_class_need_warm_start_false(wine):
    X, y = wine
    mlp = fitted(X, **TANH).to_mlp("classifier", y, warm_start=False, learning_rate_init=1e-6)
    before = mlp.coefs_[0].copy()
    mlp.partial_fit(X[:9], y[:9])
    assert np.abs(mlp.coefs_[0] - before).max() < 1e-5
    assert mlp.classes_.tolist() == [0, 1, 2]


def test_classifier_of_several_labels_trains(wine):
    X, y = wine
    Y = np.stack([y == 0, y > 0, X[:, 0] > 0], axis=1).astype(int)
    mlp = fitted(X, **TANH).to_mlp("classifier", Y, learning_rate_init=0.02, max_iter=200).fit(X, Y)
    assert mlp.score(X, Y) > 0.8
    assert mlp.predict(X).shape == Y.shape


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("columns", [None, 1, 2])
def test_regressor_trains_from_the_encoder(columns, wine):
    X, _ = wine
    y = X[:, 0] if columns is None else X[:, :columns]
    mlp = fitted(X, **TANH).to_mlp("regressor", y, learning_rate_init=0.02, max_iter=200)
    assert mlp.coefs_[-1].shape == (3, columns or 1)
    assert mlp.predict(X).shape == (y[:, 0] if columns == 1 else y).shape
    assert mlp.fit(X, y).score(X, y) > 0.5


def losses(kind, encoder, head, X, y):
    """Mean loss of a sample, and the weights."""
    out = head(encoder(torch.tensor(X)))
    if kind == "classifier":
        return nn.functional.cross_entropy(out, torch.tensor(y))
    return (out - torch.tensor(y)).square().mean()


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_weight_decay_stands_beside_the_mean_loss_of_a_sample(kind, wine):
    """A step of sgd is along the gradient of loss + alpha / 2 |W|^2."""
    X, y = wine
    y = y if kind == "classifier" else X[:, :4]
    alpha, n = 0.3, len(X)
    model = fitted(X, **SGD | {"alpha": alpha, "batch_size": n}, momentum=0.0)
    mlp = model.to_mlp(kind, y, max_iter=1, learning_rate_init=0.1)
    encoder, head = model.to_torch("encoder"), nn.Linear(3, mlp.n_outputs_).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor(mlp.coefs_[-1].T))
        head.bias.copy_(torch.tensor(mlp.intercepts_[-1]))
    loss = losses(kind, encoder, head, X, y)
    linears = [part for part in (*encoder, head) if isinstance(part, nn.Linear)]
    (loss + alpha / 2 * sum(part.weight.square().sum() for part in linears)).backward()
    before = copy.deepcopy(mlp.coefs_)
    ratio = 1.0 if kind == "classifier" else 2 / 4
    for W, after, part in zip(before, mlp.fit(X, y).coefs_, linears, strict=True):
        assert_same((W - after) / 0.1 * ratio, part.weight.grad.numpy().T, 1e-9)


# ---- parameters


def test_parameters_of_both_are_taken_over(X):
    same = {
        "solver": "adam", "learning_rate_init": 0.02, "batch_size": 7, "max_iter": 11,
        "shuffle": False, "n_iter_no_change": 4, "momentum": 0.3, "nesterovs_momentum": False,
        "early_stopping": True, "validation_fraction": 0.2, "tol": 0.03,
    }  # fmt: skip
    mlp = fitted(X, **same, **TANH).to_mlp("classifier", [0, 1])
    params = mlp.get_params()
    assert {name: params[name] for name in same} == same
    assert params["warm_start"]
    assert params["alpha"] == 0


def test_parameters_given_win(X):
    given = {
        "alpha": 5.0, "solver": "sgd", "learning_rate_init": 0.5, "tol": 0.1, "max_iter": 3,
        "warm_start": False, "learning_rate": "adaptive", "n_iter_no_change": 6,
    }  # fmt: skip
    mlp = fitted(X, **TANH).to_mlp("autoencoder", random_state=4, **given)
    assert mlp.get_params().items() >= (given | {"random_state": 4}).items()


@pytest.mark.parametrize(
    ("params", "rows"),
    [({}, 60), ({"batch_size": 12}, 12), ({"batch_size": 999}, 60), ({"solver": "lbfgs"}, 60),
     ({"batch_size": 12, "solver": "lbfgs"}, 60)],
)  # fmt: skip
def test_alpha_counts_the_rows_of_a_step(params, rows, X):
    model = fitted(X, alpha=0.1, **params, **TANH)
    assert model.to_mlp("classifier", [0, 1]).alpha == pytest.approx(0.1 * rows)
    assert model.to_mlp("regressor", X[:, :2]).alpha == pytest.approx(0.1 * rows)
    assert model.to_mlp("regressor", X).alpha == pytest.approx(0.1 * rows * 5 / 2)
    assert model.to_mlp("autoencoder").alpha == pytest.approx(0.1 * rows * 5 / 2)
    assert model.to_mlp("autoencoder", batch_size=3, solver="adam").alpha == pytest.approx(0.75)


def test_tol_is_a_fraction_of_the_loss(X):
    model = fitted(X, tol=0.01, **TANH)
    mlp = model.to_mlp("autoencoder")
    assert mlp.tol == pytest.approx(0.01 * model.loss_ / 2)
    assert mlp.fit(X, X).loss_curve_[0] == pytest.approx(model.loss_ / 2, rel=0.2)
    assert model.to_mlp("autoencoder", solver="lbfgs").tol == 0.01
    assert model.to_mlp("autoencoder", early_stopping=True).tol == 0.01


def test_without_tol_training_takes_all_epochs(X):
    mlp = fitted(X, **TANH, n_iter_no_change=1).to_mlp(
        "autoencoder", max_iter=30, learning_rate_init=5.0
    )
    assert mlp.fit(X, X).n_iter_ == 30


@pytest.mark.skipif(not HAS_POISSON, reason="scikit-learn < 1.7")
def test_poisson_autoencoder_is_a_poisson_mlp(unit):
    model = fitted(unit, loss="poisson", tol=0.01, **TANH)
    mlp = model.to_mlp("autoencoder")
    assert (mlp.loss, mlp.out_activation_) == ("poisson", "exp")
    assert_same(mlp.predict(unit), model.reconstruct(unit))
    assert mlp.tol == pytest.approx(0.01 * model.loss_ * 5)
    assert mlp.fit(unit, unit).loss_curve_[0] == pytest.approx(5 * model.loss_, rel=0.2)
    assert model.to_mlp("regressor", unit[:, 0], loss="poisson").out_activation_ == "exp"


@pytest.mark.skipif(HAS_POISSON, reason="scikit-learn >= 1.7")
def test_poisson_needs_a_newer_scikit_learn(unit):
    with pytest.raises(ValueError, match=r"only from scikit-learn 1\.7"):
        fitted(unit, loss="poisson", **TANH).to_mlp("autoencoder")


class Made(Autoencoder):
    """An estimator without training parameters of its own, as those that hold others."""

    def get_params(self, deep=True):
        return {"random_state": self.random_state}


def test_estimator_without_training_parameters_leaves_those_of_an_mlp(X):
    model = fitted(X, **TANH)
    model.__class__ = Made
    for kind, cls in (("autoencoder", MLPRegressor), ("classifier", MLPClassifier)):
        params = model.to_mlp(kind, [0, 1], max_iter=4).get_params()
        own = {"hidden_layer_sizes", "activation", "warm_start", "random_state", "max_iter"}
        rest = {name: value for name, value in params.items() if name not in own}
        assert rest.items() <= cls().get_params().items()
        assert (params["random_state"], params["max_iter"]) == (0, 4)


# ---- what an MLP cannot be


def refused(message, model, kind="autoencoder", y=None, **given):
    with pytest.raises(ValueError, match=message):
        model.to_mlp(kind, y, **given)


def test_unknown_kind_is_refused(X):
    refused("kind must be one of 'classifier', .*, got 'svc'", fitted(X), "svc")


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_outputs_need_y(kind, X):
    refused(f"kind='{kind}' needs y", fitted(X, **TANH), kind)


def test_continuous_labels_are_refused(X):
    refused("Unknown label type", fitted(X, **TANH), "classifier", X[:, 0])


def test_several_activations_are_refused_by_layer(X):
    model = fitted(X)
    message = "hidden layer 1 has 'identity'.*activation='relu' everywhere .code_activation too"
    refused(message, model)
    refused(message, model, "classifier", [0, 1])


def test_activation_that_an_mlp_lacks_is_refused(X):
    model = fitted(X, activation="gelu", hidden_layer_sizes=())
    refused("hidden layer 0 has 'gelu'. Use activation='tanh'", model)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"output_activation": "logistic"}, "Linked behind 'logistic'"),
        ({"loss": "binary_cross_entropy"}, "BinaryCrossEntropy behind 'logistic'"),
        ({"loss": "huber"}, "Huber behind 'identity'"),
    ],
)
def test_loss_that_an_mlp_lacks_is_refused_for_an_autoencoder_only(params, named, unit):
    model = fitted(unit, **params, **TANH)
    refused(f"{named}.*loss='squared_error'", model)
    assert model.to_mlp("classifier", [0, 1]).predict(unit).shape == (60,)


def test_code_that_is_more_than_a_layer_is_refused(X):
    model = fitted(X, KSparseAutoencoder, hidden_layer_sizes=())
    refused("after 1 of them .* Applied.KSparse.encode.. Use to_torch", model)
    refused("after 1 of them .* Applied.KSparse.encode.. Use to_torch", model, "classifier", [0, 1])


def test_networks_side_by_side_are_refused(X):
    refused("after 0 of them .* ParallelModule", fitted(X, SplitBrainAutoencoder))


def test_modules_that_are_not_dense_are_refused(X):
    encoder = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.LayerNorm(3))
    refused("after 1 of them .* LayerNorm", fitted(X, encoder=encoder, n_components=3))


def test_output_within_a_decoder_of_ones_own_is_refused(X):
    decoder = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
    refused("must be linear with 5 outputs", fitted(X, decoder=decoder, **TANH))


@pytest.mark.parametrize(
    "given", [{"activation": "relu"}, {"hidden_layer_sizes": (3,)}, {"loss": "squared_error"}]
)
def test_parameters_of_the_network_are_its_own(given, X):
    refused(f"{next(iter(given))}=.*eave .* out", fitted(X, **TANH), **given)


# ---- from modules


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"], np.eye(3, dtype=int)])
def test_module_with_logits_is_a_classifier(classes, wine):
    X, _ = wine
    outputs = 1 if len(classes) == 2 else 3
    module = nn.Sequential(nn.Linear(13, 4), nn.ReLU(), nn.Linear(4, outputs)).double()
    mlp = mlp_classifier(module, classes, max_iter=7)
    logits = module(torch.tensor(X)).detach()
    p = mlp.predict_proba(X)
    if outputs == 1:
        assert_same(p[:, 1], logits.sigmoid().numpy()[:, 0])
    else:
        both = logits.sigmoid() if isinstance(classes, np.ndarray) else logits.softmax(-1)
        assert_same(p, both.numpy())
    assert mlp.max_iter == 7


def test_logistic_regression_is_an_mlp_without_hidden_layers():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(X, y)
    linear = nn.Linear(4, 3).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(model.coef_))
        linear.bias.copy_(torch.tensor(model.intercept_))
    mlp = mlp_classifier(nn.Sequential(linear), y, random_state=0)
    assert mlp.hidden_layer_sizes == ()
    assert_same(mlp.predict_proba(X), model.predict_proba(X))
    assert mlp.fit(X, y).score(X, y) > 0.9


def test_module_is_a_regressor(wine):
    module = nn.Sequential(nn.Linear(13, 4), nn.Sigmoid(), nn.Linear(4, 2)).double()
    assert_same(mlp_regressor(module).predict(wine[0]), run(module, wine[0]))


def test_head_of_another_width_is_refused():
    with pytest.raises(ValueError, match="linear with 1 outputs for these targets, but it has 2"):
        mlp_classifier(nn.Sequential(nn.Linear(4, 2)), [0, 1])

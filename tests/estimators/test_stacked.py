"""Stacks: greedy layers, their network, its parts, joint training, and nested parameters."""

import copy
import pickle
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import get_tags
from torch import nn

from skae import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    GeneralizedAutoencoder,
    KSparseAutoencoder,
    SparseAutoencoder,
    SplitBrainAutoencoder,
    StackedAutoencoder,
    StackedAutoencoderClassifier,
)
from skae._engine.solvers import Adam
from skae._engine.sparse_code import SparseCode
from skae.losses import Huber
from skae.modules import DenseModule

FAST = {"max_iter": 3, "tol": None, "batch_size": 16}


def one(kind=Autoencoder, **changed):
    """A single layer that trains in a few milliseconds."""
    return kind(**{"n_components": 3, "hidden_layer_sizes": (), "activation": "tanh"}
                | FAST | changed)  # fmt: skip


def stack(*layers, **changed):
    layers = layers or (4, 2)
    return StackedAutoencoder(**{"layers": layers, "estimator": one(), "random_state": 0} | changed)


def weights(*models):
    return [w for model in models for w in (*model.coefs_, *model.intercepts_)]


def assert_same(these, those):
    assert len(these) == len(those)
    for a, b in zip(these, those, strict=True):
        np.testing.assert_array_equal(a, b)


VARIANTS = [
    (4, 2),
    (one(DenoisingAutoencoder), one(SparseAutoencoder, n_components=2)),
    (one(KSparseAutoencoder, n_components=8, k=3), 2),
    (4, one(KSparseAutoencoder, n_components=6, k=2)),
    (one(KSparseAutoencoder, n_components=8, selection="batch"), one(KSparseAutoencoder, k=1)),
    (one(ContractiveAutoencoder), one(tied_weights=True, n_components=2)),
    (one(SplitBrainAutoencoder, n_components=2), 2),
    (4, one(SplitBrainAutoencoder, n_components=2, targets="classification", n_bins=3)),
    (one(loss="huber", hidden_layer_sizes=(6,)), one(loss=Huber(delta=0.5), activation="softplus")),
    (one(encoder=nn.Sequential(nn.Linear(5, 4), nn.Tanh()), n_components=None), 2),
    (one(loss="poisson"), 3, 2),
]


def label(layers):
    return "-".join(str(x) if isinstance(x, int) else type(x).__name__[:8] for x in layers)


# ---- the chain


@pytest.mark.parametrize("layers", VARIANTS, ids=label)
def test_codes_and_reconstructions_are_those_of_the_layers_one_after_the_other(X, layers):
    X = np.maximum(X, 0)
    fitted = stack(*layers).fit(X)
    Z = X
    for layer in fitted.layers_:
        Z = layer.transform(Z)
    np.testing.assert_allclose(fitted.transform(X), Z, rtol=1e-13)
    assert Z.shape == (60, fitted.n_components_)
    X_hat = Z
    for layer in fitted.layers_[::-1]:
        X_hat = layer.inverse_transform(X_hat)
    np.testing.assert_allclose(fitted.inverse_transform(Z), X_hat, rtol=1e-12)
    np.testing.assert_allclose(fitted.reconstruct(X), X_hat, rtol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(fitted.encoder_(torch.tensor(X)), Z, rtol=1e-12)


@pytest.mark.parametrize("layers", VARIANTS, ids=label)
def test_the_network_survives_pickle_and_deepcopy_and_has_gradients(X, layers):
    X = np.maximum(X, 0)
    fitted = stack(*layers).fit(X)
    for copied in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(copied.reconstruct(X), fitted.reconstruct(X))
    x = torch.tensor(X, requires_grad=True)
    fitted.decoder_(fitted.encoder_(x)).sum().backward()
    assert (x.grad != 0).any(1).all()


def test_a_stack_of_one_layer_is_that_layer_bit_for_bit(X):
    alone = one(DenoisingAutoencoder, random_state=3).fit(X)
    fitted = StackedAutoencoder(layers=(one(DenoisingAutoencoder, random_state=3),)).fit(X)
    assert_same(weights(fitted), weights(alone))
    for method in ("transform", "reconstruct", "reconstruction_error", "score_samples", "score"):
        np.testing.assert_array_equal(getattr(fitted, method)(X), getattr(alone, method)(X))
    assert fitted.loss_curves_ == [alone.loss_curve_]


def test_layers_are_those_trained_by_hand_on_the_codes_below(X):
    low = one(n_components=4, random_state=1).fit(X)
    high = one(DenoisingAutoencoder, random_state=2).fit(low.transform(X))
    fitted = stack(one(n_components=4, random_state=1), one(DenoisingAutoencoder, random_state=2),
                   random_state=None).fit(X)  # fmt: skip
    assert_same(weights(*fitted.layers_), weights(low, high))
    assert fitted.loss_curves_ == [low.loss_curve_, high.loss_curve_]
    assert fitted.n_iter_ == 6


def test_training_a_layer_leaves_the_lower_ones_bit_identical(X):
    lower = stack(4, 3).fit(X)
    higher = stack(4, 3, 2).fit(X)
    assert_same(weights(*higher.layers_[:2]), weights(*lower.layers_))


def test_weights_are_encoders_bottom_up_then_decoders_top_down(X):
    fitted = stack(4, 2).fit(X)
    low, high = fitted.layers_
    assert isinstance(fitted.encoder_, DenseModule)
    assert isinstance(fitted.decoder_, DenseModule)
    expected = [low.coefs_[0], high.coefs_[0], high.coefs_[1], low.coefs_[1]]
    assert_same(fitted.coefs_, expected)
    assert [b.shape for b in fitted.intercepts_] == [(4,), (2,), (4,), (5,)]


def test_weights_are_not_shown_where_a_layer_is_not_dense(X):
    fitted = stack(one(KSparseAutoencoder, k=2), 2).fit(X)
    assert not hasattr(fitted, "coefs_")


def test_errors_are_those_of_the_first_layers_loss(X):
    fitted = stack(one(loss="huber", n_components=4), 2).fit(X)
    residual = np.abs(X - fitted.reconstruct(X))
    expected = np.where(residual < 1, residual**2, 2 * residual - 1).mean(1)
    np.testing.assert_allclose(fitted.reconstruction_error(X), expected, rtol=1e-12)


def test_a_layers_alpha_k_may_change_after_training(X):
    fitted = stack(4, one(KSparseAutoencoder, n_components=6, k=2)).fit(X)
    assert set((fitted.transform(X) != 0).sum(1)) == {2}
    fitted[1].set_params(alpha_k=2)
    assert set((fitted.transform(X) != 0).sum(1)) == {4}


def test_a_deep_autoencoder_may_start_from_a_stack(X):
    fitted = stack(4, 2).fit(X)
    deep = Autoencoder(
        hidden_layer_sizes=(4,), n_components=2, activation="tanh", code_activation="tanh",
        initialize_from=fitted, learning_rate_init=1e-12, **FAST,
    )  # fmt: skip
    assert_allclose = np.testing.assert_allclose
    assert_allclose(deep.fit(X).reconstruct(X), fitted.reconstruct(X), rtol=1e-7)


@pytest.mark.parametrize("layers", VARIANTS, ids=label)
def test_inference_goes_through_the_layers_and_makes_no_network(X, layers, monkeypatch):
    X = np.maximum(X, 0)
    fitted = stack(*layers).fit(X)
    for name in ("encoder_of", "decoder_of"):
        monkeypatch.setattr(f"skae.estimators.stacked.{name}", lambda _: pytest.fail("made"))
    monkeypatch.setattr("skae.estimators._inference._FEW_ROWS", 7)
    codes = fitted.transform(X)
    np.testing.assert_allclose(fitted.inverse_transform(codes), fitted.reconstruct(X), rtol=1e-12)
    assert np.isfinite(fitted.score(X))


def test_chunks_are_bounded_by_the_widest_layer(X):
    fitted = stack(4, one(hidden_layer_sizes=(50,)), 2).fit(X)
    assert fitted._widest == 50


@pytest.mark.parametrize("bottom", [4, one(decoder=nn.Linear(4, 5), n_components=4)])
def test_sparse_codes_are_decoded_as_sums_at_any_height(X, bottom, monkeypatch):
    wide = one(KSparseAutoencoder, n_components=300, k=3)
    fitted = stack(bottom, wide).fit(X)
    Z = fitted.transform(X)
    with torch.no_grad():
        expected = fitted.decoder_(torch.tensor(Z)).numpy()
    counted, times = [], SparseCode.times
    monkeypatch.setattr(
        SparseCode, "times", lambda *args: counted.append(len(args[1])) or times(*args)
    )
    np.testing.assert_allclose(fitted.inverse_transform(Z), expected, rtol=1e-9)
    assert counted == [60 * 3]


# ---- what layers are made from


def test_layers_by_size_mirror_the_activation_below(X):
    for name in ("tanh", "logistic", "relu", "softplus"):
        fitted = stack(4, 3, 2, estimator=one(activation=name)).fit(X)
        assert [layer.objective_.loss.link for layer in fitted.layers_] == ["identity", name, name]
    logistic = stack(4, 2, estimator=one(activation="logistic")).fit(X)
    codes = logistic[1].inverse_transform(logistic.transform(X) * 100)
    assert codes.min() >= 0
    assert codes.max() <= 1


@pytest.mark.parametrize(
    ("estimator", "layers"),
    [
        (one(activation="elu"), (4, 2)),
        (one(output_activation="identity"), (4, 2)),
        (one(), (4, one())),
        (one(), (one(encoder=nn.Linear(5, 3)), 2)),
    ],
)
def test_what_cannot_or_should_not_be_mirrored_keeps_its_own_output(X, estimator, layers):
    fitted = stack(*layers, estimator=estimator).fit(X)
    assert fitted[1].objective_.loss.link == "identity"


def test_the_default_is_layers_of_tanh_and_a_code_of_the_root_of_the_width_of_X(X):
    fitted = StackedAutoencoder(random_state=0).fit(X[:20])
    assert [layer.n_components_ for layer in fitted.layers_] == [100, 3]
    assert all(type(layer) is Autoencoder for layer in fitted.layers_)
    assert [type(part) for part in fitted.encoder_][1::2] == [nn.Tanh, nn.Tanh]


@pytest.mark.parametrize("kind", [list, sp.csr_matrix, pd.DataFrame, torch.tensor])
def test_none_is_the_root_of_the_width_of_X_at_any_height(X, kind):
    X = kind(X.tolist() if kind is list else X)
    fitted = stack(8, None, None).set_params(estimator__n_components=None).fit(X)
    assert [layer.n_components_ for layer in fitted.layers_] == [8, 3, 3]
    assert stack(None, 8, None, estimator=one(n_components=None)).fit(X).n_components_ == 3


def test_none_keeps_layers_under_warm_start(X):
    model = StackedAutoencoder(layers=(4, None), estimator=one(n_components=None), warm_start=True)
    before = model.fit(X).layers_
    assert [a is b for a, b in zip(model.fit(X).layers_, before, strict=True)] == [True, True]


def test_none_takes_the_width_of_the_templates_encoder(X):
    template = one(encoder=nn.Linear(5, 5), n_components=None)
    assert stack(None, None, estimator=template).fit(X).n_components_ == 5


@pytest.mark.parametrize("X", [[], {}, "a", 1.0, np.ones(3), np.ones((3, 0)), [[]]])
def test_what_is_no_data_is_refused_as_a_layer_refuses_it(X):
    with pytest.raises((ValueError, TypeError)) as alone:
        one().fit(X)
    with pytest.raises(type(alone.value)) as stacked:
        StackedAutoencoder(estimator=one(n_components=None)).fit(X)
    assert str(stacked.value) == str(alone.value)


def test_none_takes_the_templates_own_size(X):
    fitted = stack(None, None, estimator=one(n_components=4)).fit(X)
    assert [layer.n_components_ for layer in fitted.layers_] == [4, 4]


def test_the_users_estimators_stay_as_they_are(X):
    layer, template, joint = one(DenoisingAutoencoder), one(), one()
    before = [dict(vars(part)) for part in (layer, template, joint)]
    stack(layer, 2, estimator=template, joint=joint).fit(X)
    assert [vars(part) for part in (layer, template, joint)] == before


def test_random_state_seeds_all_layers_and_joint(X):
    a, b = (stack(4, one(DenoisingAutoencoder), joint=one()).fit(X) for _ in range(2))
    assert_same(weights(a), weights(b))
    c = stack(4, one(DenoisingAutoencoder), joint=one(), random_state=1).fit(X)
    assert not np.array_equal(a.coefs_[0], c.coefs_[0])
    same = StackedAutoencoder(layers=(one(random_state=5),) * 2).fit(X)
    assert_same(weights(same), weights(clone(same).fit(X)))


def test_weights_of_rows_reach_every_layer(X):
    full = {"batch_size": 60, "max_iter": 5}
    template, w = one(**full), np.arange(60) % 3
    repeated = stack(4, 2, estimator=template).fit(np.repeat(X, w, axis=0))
    weighted = stack(4, 2, estimator=template).fit(X, sample_weight=w)
    for a, b in zip(weights(repeated), weights(weighted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"Sample weights .*zero"):
        stack().fit(X, sample_weight=np.zeros(60))


def test_layers_that_use_labels_get_them(X):
    y = np.arange(60) % 2
    supervised = one(GeneralizedAutoencoder, relation="class")
    for layers, joint in (((4, supervised), None), ((4, 2), supervised)):
        model = stack(*layers, joint=joint)
        assert get_tags(model).target_tags.required
        assert model.fit(X, y).transform(X).shape[0] == 60
        with pytest.raises(ValueError, match="requires y to be passed"):
            model.fit(X)
    assert not get_tags(stack()).target_tags.required


# ---- data


def test_missing_values_are_the_first_layers_affair(X):
    holes = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    model = stack(one(DenoisingAutoencoder, n_components=4), 2)
    assert get_tags(model).input_tags.allow_nan
    fitted = model.fit(holes)
    assert np.isfinite(fitted.transform(holes)).all()
    imputed = fitted.impute(holes)
    np.testing.assert_array_equal(imputed[~np.isnan(holes)], holes[~np.isnan(holes)])
    assert np.isfinite(imputed).all()
    assert not get_tags(stack(4, one(DenoisingAutoencoder))).input_tags.allow_nan
    assert not hasattr(stack(), "impute")


def test_joint_training_that_takes_no_missing_values_says_so_first(X, monkeypatch):
    holes = np.array(X)
    holes[0, 0] = np.nan
    model = stack(one(DenoisingAutoencoder), 2, joint=one())
    assert not get_tags(model).input_tags.allow_nan
    monkeypatch.setattr(Autoencoder, "fit", lambda *_: pytest.fail("trained in vain"))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(holes)
    monkeypatch.undo()
    assert np.isfinite(
        stack(one(DenoisingAutoencoder), 2, joint=one(DenoisingAutoencoder))
        .fit(holes).transform(holes)
    ).all()  # fmt: skip


@pytest.mark.parametrize("kind", [sp.csr_matrix, torch.tensor, pd.DataFrame, list])
def test_any_kind_of_X_gives_what_an_array_gives(X, kind):
    model = stack(4, 2, joint=one())
    expected = clone(model).fit(X).transform(X)
    got = model.fit(kind(X.tolist() if kind is list else X)).transform(X)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_memory_maps_are_read_in_chunks(X, tmp_path, monkeypatch):
    path = tmp_path / "X.npy"
    np.save(path, (X * 10).astype(np.uint8))
    mapped = np.load(path, mmap_mode="r")
    expected = stack(4, 2).fit(np.array(mapped))
    monkeypatch.setattr("skae.estimators._inference._CELLS", 1)
    monkeypatch.setattr("skae.estimators._inference._FEW_ROWS", 7)
    fitted = stack(4, 2).fit(mapped)
    assert fitted.transform(mapped).dtype == np.float32
    np.testing.assert_allclose(fitted.transform(mapped), expected.transform(mapped), atol=1e-4)


def test_set_output_of_a_layer_does_not_reach_the_codes_between(X):
    frame = pd.DataFrame(X, columns=list("abcde"))
    template = one().set_output(transform="pandas")
    fitted = stack(4, 2, estimator=template).fit(frame)
    assert list(fitted.feature_names_in_) == list("abcde")
    assert not hasattr(fitted[1], "feature_names_in_")
    assert isinstance(fitted.transform(frame), np.ndarray)
    out = fitted.set_output(transform="pandas").transform(frame)
    assert list(out.columns) == ["stackedautoencoder0", "stackedautoencoder1"]


# ---- parts


def test_parts_give_codes_at_their_depth_and_share_the_layers(X):
    fitted = stack(4, 3, 2).fit(X)
    assert len(fitted) == fitted.n_layers_ == 3
    assert list(fitted) == fitted.layers_
    part = fitted[:2]
    assert type(part) is StackedAutoencoder
    assert part.layers == (4, 3)
    assert [a is b for a, b in zip(part.layers_, fitted.layers_, strict=False)] == [True, True]
    codes = fitted[1].transform(fitted[0].transform(X))
    np.testing.assert_allclose(part.transform(X), codes, rtol=1e-13)
    np.testing.assert_allclose(
        part.inverse_transform(codes),
        fitted[0].inverse_transform(fitted[1].inverse_transform(codes)), rtol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(fitted[2:].transform(codes), fitted.transform(X), rtol=1e-13)
    assert fitted[-1] is fitted.layers_[2]
    assert stack(4, 3)[:1].layers == (4,)


def test_what_is_no_part_is_refused(X):
    fitted = stack(4, 2).fit(X)
    for index in (slice(0, 0), slice(None, None, -1)):
        with pytest.raises(ValueError, match="one or more layers in a row"):
            fitted[index]
    with pytest.raises(IndexError):
        fitted[2]
    with pytest.raises(NotFittedError):
        stack()[0]


def test_parts_have_the_epochs_of_their_layers_alone(X):
    fitted = stack(4, 2, joint=one()).fit(X)
    for part in (fitted[:1], fitted[1:]):
        assert part.n_iter_ == 3
        assert part.joint_loss_curve_ is None
    assert fitted[:].n_iter_ == fitted.n_iter_ == 9
    assert fitted[:].joint_loss_curve_ == fitted.joint_loss_curve_


def test_parts_are_of_the_fitted_layers_whatever_layers_has_become(X):
    fitted = stack(4, 2).fit(X)
    low, high = fitted.layers_
    fitted.set_params(layers=(4, 2, 2))
    assert len(fitted) == len(list(fitted)) == 2
    assert fitted[-1:].layers_ == fitted[1:3].layers_ == [high]
    assert fitted[-1:].layers == (2,)
    with pytest.raises(ValueError, match=r"in a row, got slice\(2, 3, None\) of 2"):
        fitted[2:3]
    fitted.set_params(layers=(4,))
    assert fitted[:1].layers_ == [low]
    assert fitted[1:].transform(low.transform(X)).shape == (60, 2)
    assert len(fitted[1:].layers) == 1


# ---- joint training


def greedy_and_joint(X, joint, *layers, **changed):
    return [stack(*layers, joint=j, **changed).fit(X) for j in (None, joint)]


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize("layers", [(4, 2), (one(KSparseAutoencoder, n_components=8, k=3), 2)])
def test_full_batch_joint_training_never_ends_above_its_start(X, solver, layers):
    greedy, joint = greedy_and_joint(X, one(solver=solver, max_iter=20), *layers)
    assert joint.score(X) > greedy.score(X)


def test_joint_training_starts_from_the_layers_weights_and_takes_the_fused_path(X):
    tiny = one(learning_rate_init=1e-12)
    greedy, joint = greedy_and_joint(X, tiny, 4, 3, 2)
    np.testing.assert_allclose(joint.reconstruct(X), greedy.reconstruct(X), rtol=1e-7)
    assert joint.joint_loss_curve_[0] == pytest.approx(-greedy.score(X), rel=1e-7)
    assert greedy.joint_loss_curve_ is None
    assert joint.n_iter_ == greedy.n_iter_ + 3


def test_joint_weights_are_those_of_training_the_same_deep_network(X):
    greedy, joint = greedy_and_joint(X, one(activation="tanh"), 4, 2)
    seed = 7
    by_hand = one(n_components=None, encoder=greedy.encoder_, decoder=greedy.decoder_,
                  random_state=seed, code_activation="tanh").fit(X)  # fmt: skip
    assert by_hand.engine_.path == "fused"
    model = StackedAutoencoder(
        layers=tuple(map(clone, greedy.layers_)), joint=one(random_state=seed)
    ).fit(X)
    assert_same(weights(model), weights(by_hand))
    assert not np.array_equal(joint.coefs_[0], greedy.coefs_[0])


def test_parts_have_the_jointly_trained_weights(X):
    greedy, joint = greedy_and_joint(X, one(max_iter=10, learning_rate_init=0.01), 4, 2)
    Z = joint[1].transform(joint[0].transform(X))
    np.testing.assert_allclose(joint.transform(X), Z, rtol=1e-13)
    assert not np.allclose(joint[:1].transform(X), greedy[:1].transform(X), rtol=1e-3)
    assert_same(joint[:1].coefs_[:1], joint.coefs_[:1])
    assert_same(joint[:1].coefs_[1:], joint.coefs_[-1:])


@pytest.mark.parametrize("joint", [
    one(DenoisingAutoencoder), one(SparseAutoencoder), one(ContractiveAutoencoder),
    one(GeneralizedAutoencoder), one(loss="absolute_error"), one(alpha=0.1, precision="float32"),
    one(n_components=99, tied_weights=True, hidden_layer_sizes=(7,)),
], ids=lambda joint: type(joint).__name__)  # fmt: skip
@pytest.mark.parametrize("layers", [(4, 2), (4, one(tied_weights=True, n_components=2)),
                                    (one(n_components=4, encoder=nn.Linear(5, 4)), 2)])  # fmt: skip
def test_any_variant_whose_code_is_the_encoders_output_trains_jointly(X, joint, layers):
    greedy, fitted = greedy_and_joint(X, joint, *layers)
    assert not np.array_equal(fitted.reconstruct(X), greedy.reconstruct(X))
    assert len(fitted.joint_loss_curve_) >= 3
    assert fitted.objective_ == greedy.objective_
    assert [p.dtype for p in fitted.encoder_.parameters()] == [torch.float64] * 4


def test_joint_may_use_any_loss_with_the_same_output_activation(X):
    X = MinMaxScaler().fit_transform(X)
    first = one(loss="binary_cross_entropy", n_components=4)
    fitted = stack(first, 2, joint=one(output_activation="logistic")).fit(X)
    assert fitted.objective_.loss.link == "logistic"
    with pytest.raises(ValueError, match=r"output activation 'identity', but .* 'logistic'"):
        stack(first, 2, joint=one()).fit(X)


@pytest.mark.parametrize(("joint", "layers", "message"), [
    (one(KSparseAutoencoder), (4, 2), "joint=KSparseAutoencoder makes codes of its own kind"),
    (one(SplitBrainAutoencoder), (4, 2), "joint=SplitBrainAutoencoder makes codes of its own"),
    (one(), (one(SplitBrainAutoencoder), 2), "SplitBrainAutoencoder, the first layer, gives"),
    (one(SparseAutoencoder, code_activation="tanh"), (4, one(activation="relu")), "no bounds"),
    (one(max_iter=0), (4, 2), "'max_iter' parameter"),
])  # fmt: skip
def test_joint_training_that_cannot_be_is_refused_before_the_layers_train(
    X, joint, layers, message, monkeypatch
):
    monkeypatch.setattr(Autoencoder, "fit", lambda *_, **__: pytest.fail("trained in vain"))
    with pytest.raises(ValueError, match=message):
        stack(*layers, joint=joint).fit(X)


# ---- growing


def test_warm_start_adds_layers_without_training_the_lower_ones(X):
    grown = stack(4, 3, warm_start=True).fit(X)
    lower = grown.layers_
    grown.set_params(layers=(4, 3, 2)).fit(X)
    assert grown.layers_[0] is lower[0]
    assert grown.layers_[1] is lower[1]
    assert_same(weights(grown), weights(stack(4, 3, 2).fit(X)))


@pytest.mark.parametrize(("changed", "n_kept"), [
    ({}, 3),
    ({"layers": (4, 3)}, 1),
        ({"layers": [4]}, 1),
    ({"layer_2": 1}, 2),
    ({"layer_1__noise_level": 0.5}, 1),
    ({"layer_1": one(DenoisingAutoencoder)}, 3),
    ({"layer_1": one(n_components=3)}, 1),
    ({"estimator__alpha": 0.5}, 0),
    ({"random_state": 5}, 3),
    ({"warm_start": False}, 0),
])  # fmt: skip
def test_warm_start_trains_from_the_first_change_on(X, changed, n_kept):
    model = stack(4, one(DenoisingAutoencoder), 2, warm_start=True).fit(X)
    before = model.layers_
    model.set_params(**changed).fit(X)
    assert [a is b for a, b in zip(model.layers_, before, strict=False)] == [
        i < n_kept for i in range(len(model.layers_))
    ]


def test_warm_start_knows_modules_by_their_weights(X):
    torch.manual_seed(0)
    layer = one(encoder=nn.Linear(5, 4), n_components=4)
    model = stack(layer, 2, warm_start=True).fit(X)
    bottom = model[0]
    assert model.fit(X)[0] is bottom
    assert model.set_params(layer_0__encoder=nn.Linear(5, 4)).fit(X)[0] is not bottom


def test_warm_start_compares_parameters_that_are_lists_of_arrays(X):
    groups = [np.array([0, 1]), np.array([2, 3, 4])]
    model = stack(one(SplitBrainAutoencoder, groups=groups, n_components=2), 2, warm_start=True)
    bottom = model.fit(X)[0]
    assert model.fit(X)[0] is bottom
    model.set_params(layer_0__groups=[np.array([0, 2]), np.array([1, 3, 4])])
    assert model.fit(X)[0] is not bottom


def test_joint_training_goes_on_under_warm_start_and_leaves_older_parts_alone(X):
    model = stack(4, 2, joint=one(max_iter=10), warm_start=True).fit(X)
    part, before = model[:1], model.score(X)
    codes = part.transform(X)
    assert model.fit(X).score(X) > before
    np.testing.assert_array_equal(part.transform(X), codes)


def test_a_warm_start_on_other_features_is_refused(X):
    model = stack(4, warm_start=True).fit(X)
    with pytest.raises(ValueError, match="X has 4 features"):
        model.fit(X[:, :4])


def test_partial_fit_is_one_pass_in_every_layer_bottom_up(X):
    model = stack(4, 2)
    low, high = (clone(one(n_components=k, output_activation=o)) for k, o in
                 ((4, "auto"), (2, "tanh")))  # fmt: skip
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=2)
    low.set_params(random_state=int(seeds[0]))
    high.set_params(random_state=int(seeds[1]))
    for rows in (X[:40], X[40:], X):
        model.partial_fit(rows)
        high.partial_fit(low.partial_fit(rows).transform(rows))
    assert_same(weights(*model.layers_), weights(low, high))
    assert [len(curve) for curve in model.loss_curves_] == [3, 3]


def test_partial_fit_after_joint_training_goes_on_from_its_weights(X):
    fitted = stack(4, 2, joint=one(max_iter=20)).fit(X)
    before = fitted.reconstruct(X)
    slow = {"layers": tuple(layer.set_params(learning_rate_init=1e-12)
                            for layer in map(clone, fitted.layers_))}  # fmt: skip
    for layer in fitted.layers_:
        layer.set_params(learning_rate_init=1e-12)
    fitted.set_params(joint=None, **slow).partial_fit(X)
    np.testing.assert_allclose(fitted.reconstruct(X), before, rtol=1e-6)


def test_partial_fit_is_there_where_all_layers_have_it(X):
    assert not hasattr(stack(4, one(solver="lbfgs")), "partial_fit")
    assert not hasattr(stack("a"), "partial_fit")
    with pytest.raises(ValueError, match="partial_fit takes one pass in every layer, but joint"):
        stack(joint=one()).partial_fit(X)


# ---- failures


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_failure_names_the_layer_and_changes_nothing(X, method):
    good = stack(4, 2)
    getattr(good, method)(X)
    before, codes = dict(vars(good)), good.transform(X)
    good.layers = (4, one(loss="binary_cross_entropy", activation="logistic"))
    with pytest.raises(ValueError, match=r"^layer_1: loss='binary_cross_entropy' needs X in"):
        getattr(good, method)(X)
    assert good.layers_ is before["layers_"]
    np.testing.assert_array_equal(good.transform(X), codes)


@pytest.mark.parametrize(("layers", "error", "message"), [
    ((), ValueError, "layers is empty"),
    ((4, "a"), TypeError, "layer_1 must be a number of code units, None or an auto.* got 'a'"),
    ((True,), TypeError, "layer_0 must be a number of code units"),
    ((4, 2.0), TypeError, "layer_1 must be a number of code units"),
    ((PCA(2),), TypeError, "layer_0 must be a number of code units"),
    ((Autoencoder,), TypeError, "layer_0 must be a number of code units"),
    ((4, 0), ValueError, "layer_1: The 'n_components' parameter"),
    ((4, one(max_iter=0)), ValueError, "layer_1: The 'max_iter' parameter"),
    ((4, one(DenoisingAutoencoder, noise_level=2)), ValueError, "layer_1: noise_level=2"),
    (5, ValueError, "'layers' parameter of StackedAutoencoder"),
])  # fmt: skip
def test_bad_layers_are_refused_before_anything_trains(X, layers, error, message, monkeypatch):
    monkeypatch.setattr(Autoencoder, "fit", lambda *_, **__: pytest.fail("trained in vain"))
    with pytest.raises(error, match=message):
        StackedAutoencoder(layers=layers).fit(X)
    assert dir(StackedAutoencoder(layers=layers))
    assert repr(StackedAutoencoder(layers=layers))


@pytest.mark.parametrize("model", [
    stack(3, 2, estimator=PCA()), stack(PCA(), 2), stack("a", None), stack(joint=PCA()),
])  # fmt: skip
def test_what_cannot_be_trained_can_still_be_asked_for_its_tags(X, model):
    assert get_tags(model).input_tags.sparse
    assert isinstance(hasattr(model, "partial_fit"), bool)
    with pytest.raises((ValueError, TypeError), match="must be"):
        model.fit(X)


def test_tags_of_X_are_those_of_the_first_layer():
    counts = one(loss="poisson")
    assert get_tags(stack(counts, 2)).input_tags.positive_only
    assert get_tags(stack(3, 2, estimator=counts)).input_tags.positive_only
    assert not get_tags(stack(3, counts, estimator=None)).input_tags.positive_only


@pytest.mark.parametrize("name", ["estimator", "joint"])
def test_only_autoencoders_are_templates(X, name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of StackedAutoencoder"):
        StackedAutoencoder(**{name: PCA()}).fit(X)


def test_an_unfitted_stack_says_so(X):
    for call in (stack().transform, stack().reconstruct, stack().score):
        with pytest.raises(NotFittedError):
            call(X)


@pytest.mark.parametrize(("model", "message"), [
    (stack(one(loss="binary_cross_entropy"), 2),
     r"^layer_0: loss='binary_cross_entropy' needs X in .* Scale X, for example with MinMax"),
    (stack(4, one(loss="poisson")),
     r"^layer_1: loss='poisson' needs X in .* X is the code of layer_0 here: give it a code_acti"
     r"vation of that range, or use loss='squared_error'\. Negative values"),
    (stack(one(solver="sgd", learning_rate_init=1e30), 2), "^layer_0: Training diverged at epoch"),
    (stack(one(n_components=0), 2), "^layer_0: The 'n_components' parameter"),
    (stack(4, 2, joint=one(solver="sgd", learning_rate_init=1e30)), "^joint: Training diverged"),
    (stack(4, 2, joint=one(max_iter=0)), "^joint: The 'max_iter' parameter"),
    (stack(4, 2, joint=one(early_stopping=True, validation_fraction=0.999)), "^joint: early_stop"),
    (stack(4, 2, joint=one(SparseAutoencoder, code_activation="tanh", rho=2)), "^joint: .*rho"),
])  # fmt: skip
def test_an_error_names_the_part_that_it_is_about(X, model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("model", [stack(4, 2), stack(4, 2, warm_start=True)])
def test_what_is_wrong_with_X_is_nobodys_fault(X, model, method):
    for wrong in (X[0], X[:0], np.where(X > 3, np.nan, X), [["a", "b"]], X * 1j):
        with pytest.raises((ValueError, TypeError)) as raised:
            getattr(clone(model), method)(wrong)
        assert not str(raised.value).startswith("layer_0")
    getattr(model, method)(X)
    for wrong in (X[:, :4], X[:0]):
        if model.warm_start:
            with pytest.raises(ValueError, match=r"^(X has 4|Found array with 0)"):
                getattr(model, method)(wrong)
    with pytest.raises(ValueError, match=r"^Sample weights .*zero"):
        getattr(model, method)(X, sample_weight=np.zeros(60))


def test_joints_own_complaints_about_X_are_its_own(X):
    holes = np.where(X > 3, np.nan, X)
    with pytest.raises(ValueError, match=r"^joint: Input X contains NaN"):
        stack(one(DenoisingAutoencoder), 2, joint=one()).fit(holes)
    with pytest.raises(ValueError, match=r"^Input X contains NaN"):
        stack(one(), 2, joint=one()).fit(holes)


def test_warnings_name_the_part_and_point_at_the_caller(X):
    model = stack(4, 2, estimator=one(tol=1e-9), joint=one(tol=1e-9))
    with pytest.warns(ConvergenceWarning) as caught:
        model.fit(X)
    starts = [str(warning.message).partition(" ")[0] for warning in caught]
    assert starts == ["layer_0:", "layer_1:", "joint:"]
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(ConvergenceWarning, match=r"^Training stopped"):
        one(tol=1e-9).fit(X)


def test_errors_that_tell_of_a_range_survive_pickle(X):
    with pytest.raises(ValueError, match="needs X in") as raised:
        one(loss="binary_cross_entropy").fit(X)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


# ---- interruption


def interrupted(monkeypatch, after):
    """Ctrl-C at a step of Adam, of which a layer takes twelve."""
    step, left = Adam.step, iter([None] * after)

    def interrupting(*args):
        if next(left, "none") == "none":
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(Adam, "step", interrupting)


@pytest.mark.parametrize("model", [stack(4, 3, 2), stack(4, 2, 2, joint=one(), warm_start=True)])
@pytest.mark.parametrize("after", [0, 9, 21])
@pytest.mark.parametrize("was_fitted", [False, True])
def test_an_interrupted_lower_layer_ends_all_and_nothing_changes(
    X, model, after, was_fitted, monkeypatch
):
    model = clone(model)
    if was_fitted:
        model.fit(X).set_params(layer_0=3)
    before = dict(vars(model))
    interrupted(monkeypatch, after)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt, match="nothing is kept"):
            model.fit(X)
    assert not said  # that something is
    assert vars(model) == before


@pytest.mark.parametrize(("after", "joint", "named"), [
    (21, None, "layer_1"), (21, one(), "layer_1"), (33, one(), "joint"),
])  # fmt: skip
def test_an_interrupted_top_layer_or_joint_is_kept(X, after, joint, named, monkeypatch):
    model = stack(4, 2, joint=joint)
    with monkeypatch.context() as patched:
        interrupted(patched, after)
        with pytest.warns(ConvergenceWarning) as caught:
            model.fit(X)
    said = [str(warning.message) for warning in caught]
    assert said[0].startswith(f"{named}: Training was interrupted after 2 epochs.")
    assert said[1:] == ["joint: Not trained, since Ctrl-C ended the top layer."] * (
        named == "layer_1" and joint is not None
    )
    assert model.stop_reason_ == "interrupted"
    assert model[:1].stop_reason_ == "max_iter"
    assert (model.joint_loss_curve_ is None) == (named == "layer_1")
    assert model.n_iter_ == 3 + 2 + 3 * (named == "joint")
    assert np.isfinite(model.score(X))


def test_an_interrupted_top_layer_is_trained_again_under_warm_start(X, monkeypatch):
    model = stack(4, 2, warm_start=True)
    with monkeypatch.context() as patched:
        interrupted(patched, 21)
        with pytest.warns(ConvergenceWarning, match="interrupted"):
            model.fit(X)
    low, high = model.layers_
    assert model.fit(X)[0] is low
    assert model[1] is not high
    assert model.stop_reason_ == "max_iter"
    assert_same(weights(model), weights(stack(4, 2).fit(X)))


@pytest.mark.parametrize(("after", "is_kept"), [(2, False), (6, True)])
def test_an_interrupted_pass_is_kept_if_it_is_the_top_layers(X, after, is_kept, monkeypatch):
    model = stack(4, 2).partial_fit(X)
    before = dict(vars(model))
    interrupted(monkeypatch, after)
    if is_kept:
        with pytest.warns(ConvergenceWarning, match="layer_1: Training was interrupted"):
            model.partial_fit(X)
        assert model.loss_curves_[1] == before["layers_"][1].loss_curve_
    else:
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(X)
        assert vars(model) == before


def test_an_interrupted_stack_ends_the_fit_that_holds_it(X, monkeypatch):
    y = np.arange(60) % 2
    model = StackedAutoencoderClassifier(layers=(4, 2), estimator=one(), **FAST)
    interrupted(monkeypatch, 21)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt, match="nothing is kept"):
            model.fit(X, y)
    assert not said
    assert not hasattr(model, "encoder_")


# ---- parameters


def test_parameters_of_layers_are_reached_by_name():
    model = stack(one(DenoisingAutoencoder), 2, joint=one())
    params = model.get_params()
    assert params["layer_0__noise_level"] == 0.25
    assert params["layer_1"] == 2
    assert {"estimator__max_iter", "joint__max_iter"} <= set(params)
    assert "layer_0" not in model.get_params(deep=False)
    model.set_params(layer_0__noise_level=0.5, layer_1=3, joint__alpha=0.1)
    assert (model.layers[0].noise_level, model.layers[1], model.joint.alpha) == (0.5, 3, 0.1)
    model.set_params(layers=[4, one()], layer_1__alpha=1.0, layer_0=one(DenoisingAutoencoder),
                     layer_0__noise_level=0.1)  # fmt: skip
    assert type(model.layers) is list
    assert (model.layers[1].alpha, model.layers[0].noise_level) == (1.0, 0.1)
    with pytest.raises(ValueError, match="Cannot set layer_1__alpha: layer_1 is 2, a size"):
        stack(4, 2).set_params(layer_1__alpha=1)
    with pytest.raises(ValueError, match="Invalid parameter 'layer_2'"):
        stack(4, 2).set_params(layer_2=1)


def test_a_clone_has_layers_of_its_own():
    model = stack(one(DenoisingAutoencoder), 2)
    cloned = clone(model).set_params(layer_0__noise_level=0.5)
    assert model.layers[0].noise_level == 0.25
    assert "noise_level=0.5" in repr(cloned)


def test_searches_reach_layers(X):
    model = stack(one(DenoisingAutoencoder), 2)
    grid = {"layer_0__noise_level": [0.0, 0.5], "layer_1": [1, 2]}
    search = GridSearchCV(model, grid, cv=2).fit(X)
    assert len(set(search.cv_results_["mean_test_score"])) == 4
    assert search.best_estimator_.get_params()["layer_1"] == search.best_params_["layer_1"]


def test_stage_two_is_a_pipeline(digits):
    y = np.arange(len(digits)) % 2
    layer = one(max_iter=1, batch_size=200)
    model = make_pipeline(
        StandardScaler(), stack(16, 8, estimator=layer), LogisticRegression()
    ).fit(digits, y)
    assert model[:-1].transform(digits).shape == (1797, 8)


# ---- callbacks


class Tasks:
    """Counts tasks by estimator and name; it reaches nested estimators, as ProgressBar does."""

    max_propagation_depth = None

    def __init__(self):
        self.ended = Counter()

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        self.ended[type(estimator).__name__, context.task_name] += 1


def test_epochs_of_every_layer_and_of_joint_reach_callbacks(X):
    pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")
    tasks = Tasks()
    layers = one(SparseAutoencoder), one(ContractiveAutoencoder)
    stack(*layers, joint=one(DenoisingAutoencoder)).set_callbacks(tasks).fit(X)
    names = "SparseAutoencoder", "ContractiveAutoencoder", "DenoisingAutoencoder"
    assert {name: n for (name, task), n in tasks.ended.items() if task == "epoch"} == dict.fromkeys(
        names, 3
    )


def test_layers_that_stay_are_no_tasks(X):
    pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")
    tasks = Tasks()
    model = stack(4, 2, warm_start=True).fit(X).set_params(layer_1=3).set_callbacks(tasks)
    assert tasks.ended == Counter()
    assert model.fit(X).n_components_ == 3
    assert tasks.ended["Autoencoder", "epoch"] == 3
    assert model.fit(X).n_components_ == 3
    assert tasks.ended["Autoencoder", "epoch"] == 3
    assert "_parent_callback_ctx" not in vars(model[1])


def test_progress_bars_show_what_trains(X, capsys):
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")
    pytest.importorskip("rich")
    model = stack(4, 2, joint=one(DenoisingAutoencoder))
    model.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X)
    shown = capsys.readouterr().out
    assert all(task in shown for task in ("fit-layer_0", "fit-layer_1", "fit-joint"))

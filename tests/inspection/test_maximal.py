"""The inputs that activate code units the most."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skae import (
    Autoencoder,
    FineTunedClassifier,
    KSparseAutoencoder,
    ReconstructionOutlierDetector,
    SplitBrainAutoencoder,
    StackedAutoencoder,
    VariationalAutoencoder,
)
from skae.inspection import maximally_activating_inputs
from skae.inspection._maximal import _climb

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(60, 6))
Y = (X[:, 0] > 0).astype(int)
QUICK = {"max_iter": 5, "tol": None, "batch_size": 16, "random_state": 0}


def one_layer(**changed):
    return Autoencoder(
        **{"n_components": 4, "hidden_layer_sizes": (), "activation": "logistic"} | QUICK | changed
    ).fit(X)


def deep(**changed):
    return Autoencoder(
        **{"n_components": 4, "hidden_layer_sizes": (12, 8), "activation": "tanh"} | QUICK | changed
    ).fit(X)


def in_the_ball(n, d=6):
    """Points spread over the unit ball."""
    points = rng.normal(size=(n, d))
    lengths = rng.uniform(size=(n, 1)) ** (1 / d)
    return points / np.linalg.norm(points, axis=1, keepdims=True) * lengths


def unit_rows(W):
    return W / np.linalg.norm(W, axis=1, keepdims=True)


# ---- one layer


def test_of_one_layer_it_has_norm_one_and_no_other_unit_vector_gets_a_larger_activation():
    ae = one_layer()
    inputs = maximally_activating_inputs(ae)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1)
    others = ae.transform(unit_rows(rng.normal(size=(2000, 6))))
    best = ae.transform(inputs).diagonal()
    assert (others.max(axis=0) <= best).all()
    assert (others.max(axis=0) > best - 0.2).all()  # some came near it


def test_of_one_layer_it_is_the_row_of_weights_scaled():
    ae = one_layer()
    np.testing.assert_allclose(maximally_activating_inputs(ae), unit_rows(ae.coefs_[0].T))


@pytest.mark.parametrize("n_starts", [1, 4])
def test_ascent_agrees_with_the_closed_form_on_one_layer(n_starts):
    ae = one_layer()
    linear = next(iter(ae.encoder_))
    unit = torch.arange(4).repeat(n_starts)
    start = torch.tensor(in_the_ball(4 * n_starts))
    found, value = _climb(linear, unit, start, torch.zeros(6), 1.0, 200, 1e-9)
    expected = np.tile(maximally_activating_inputs(ae), (n_starts, 1))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    np.testing.assert_allclose(
        value, linear(torch.tensor(expected)).detach()[range(len(unit)), unit]
    )


def test_center_and_norm_shift_and_scale_it():
    ae, c = one_layer(), X.mean(axis=0)
    moved = maximally_activating_inputs(ae, center=c, norm=2.5, units=[3, 1])
    np.testing.assert_allclose(moved, c + 2.5 * unit_rows(ae.coefs_[0].T)[[3, 1]])


def test_of_a_unit_that_hears_nothing_it_is_the_center():
    ae = one_layer()
    with torch.no_grad():
        ae.encoder_[0].weight[2] = 0
    assert (maximally_activating_inputs(ae)[2] == 0).all()


# ---- deep encoders


def preactivations(ae, x):
    return ae.transform(x)  # the code of a deep encoder is linear


def test_of_a_deep_encoder_no_point_of_the_ball_gets_a_larger_activation():
    ae = deep()
    inputs = maximally_activating_inputs(ae, random_state=0)
    assert (np.linalg.norm(inputs, axis=1) <= 1 + 1e-12).all()
    best = preactivations(ae, inputs).diagonal()
    assert (preactivations(ae, in_the_ball(5000)).max(axis=0) < best).all()
    near = inputs[:, None] + 1e-3 * in_the_ball(400).reshape(1, 400, 6)
    near /= np.maximum(1, np.linalg.norm(near, axis=-1, keepdims=True))
    values = preactivations(ae, near.reshape(-1, 6)).reshape(4, 400, 4)
    assert all((values[i, :, i] <= best[i] + 1e-12).all() for i in range(4))


class Peak(nn.Module):
    """Units whose activation is highest at a point of their own, within the ball or beyond."""

    def __init__(self):
        super().__init__()
        places = torch.zeros(2, 6)
        places[0, 0], places[1, 1] = 0.3, 4.0
        self.places = nn.Parameter(places, requires_grad=False)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return -self.scale * (x[:, None] - self.places).square().sum(-1)


def test_a_maximum_within_the_ball_is_found_and_one_beyond_it_is_held_to_the_border():
    ae = Autoencoder(encoder=Peak(), **QUICK | {"learning_rate_init": 1e-6}).fit(X)
    inputs = maximally_activating_inputs(ae, random_state=0)
    np.testing.assert_allclose(
        inputs, np.array([[0.3, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]), atol=1e-5
    )


def test_the_activation_of_a_code_that_saturates_does_not_stop_the_ascent():
    """Where float32 rounds tanh to one there is no slope."""
    ae = deep(code_activation="tanh")
    plain = maximally_activating_inputs(ae, random_state=0)
    with torch.no_grad():
        ae.encoder_[-2].weight *= 1e4
        ae.encoder_[-2].bias *= 1e4
    np.testing.assert_allclose(maximally_activating_inputs(ae, random_state=0), plain, atol=1e-5)


def test_the_same_seed_gives_the_same_inputs_and_nothing_else_changes():
    ae = deep()
    before, numpy_state, torch_state = (
        ae.transform(X),
        np.random.get_state()[1].copy(),  # noqa: NPY002
        torch.random.get_rng_state(),
    )
    attributes = set(vars(ae))
    first, second = (maximally_activating_inputs(ae, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(ae.transform(X), before)
    assert set(vars(ae)) == attributes
    assert all(p.grad is None for p in ae.encoder_.parameters())
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_state)


# ---- the variants' codes


def test_of_a_gaussian_code_it_is_that_of_the_means():
    ae = VariationalAutoencoder(n_components=2, hidden_layer_sizes=(), **QUICK).fit(X)
    inputs = maximally_activating_inputs(ae, random_state=0)
    np.testing.assert_allclose(
        inputs, unit_rows(ae.encoder_[0].weight.detach().numpy()[:2]), atol=1e-5
    )


def test_of_a_k_sparse_code_the_units_that_are_not_kept_have_one_too():
    ae = KSparseAutoencoder(n_components=8, k=1, **QUICK).fit(X)
    np.testing.assert_allclose(maximally_activating_inputs(ae), unit_rows(ae.coefs_[0].T))


def test_of_a_split_brain_every_unit_hears_its_own_group_only():
    groups = [[0, 1, 2], [3, 4, 5]]
    ae = SplitBrainAutoencoder(groups=groups, n_components=2, hidden_layer_sizes=(5,), **QUICK).fit(
        X
    )
    inputs = maximally_activating_inputs(ae, random_state=0)
    assert inputs.shape == (4, 6)
    np.testing.assert_allclose(inputs[:2, 3:], 0, atol=1e-6)
    np.testing.assert_allclose(inputs[2:, :3], 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1)


def test_of_a_stack_of_k_sparse_layers_all_units_are_climbed():
    layers = (4, KSparseAutoencoder(n_components=8, k=1, **QUICK))
    stack = StackedAutoencoder(
        layers=layers, estimator=Autoencoder(hidden_layer_sizes=(), activation="tanh", **QUICK)
    )
    stack.fit(X)
    inputs = maximally_activating_inputs(stack, random_state=0)
    assert inputs.shape == (8, 6)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1)


# ---- what it takes


@pytest.mark.parametrize("wrapped", ["pipeline", "search", "detector", "before a classifier"])
def test_the_autoencoder_is_found_in_what_holds_it(wrapped):
    ae = Autoencoder(n_components=4, hidden_layer_sizes=(), **QUICK)
    if wrapped == "pipeline":
        held = make_pipeline(StandardScaler(), ae).fit(X)
        inner = held[-1]
    elif wrapped == "search":
        held = GridSearchCV(
            make_pipeline(StandardScaler(), ae), {"autoencoder__alpha": [0.0]}, cv=2
        ).fit(X)
        inner = held.best_estimator_[-1]
    elif wrapped == "detector":
        held = ReconstructionOutlierDetector(estimator=ae).fit(X)
        inner = held.estimator_
    else:
        held = make_pipeline(StandardScaler(), ae, LogisticRegression()).fit(X, Y)
        inner = held[1]
    np.testing.assert_array_equal(
        maximally_activating_inputs(held), maximally_activating_inputs(inner)
    )


def test_networks_that_labels_train_have_code_units_too():
    pipeline = make_pipeline(
        Autoencoder(n_components=4, hidden_layer_sizes=(), **QUICK), LogisticRegression()
    )
    tuned = FineTunedClassifier(estimator=pipeline, max_iter=2, random_state=0)
    assert maximally_activating_inputs(tuned.fit(X, Y), random_state=0).shape == (4, 6)


def test_of_a_network_behind_other_steps_inputs_are_what_it_sees():
    pipeline = make_pipeline(
        PCA(3), Autoencoder(n_components=2, hidden_layer_sizes=(), **QUICK), LogisticRegression()
    )
    tuned = FineTunedClassifier(estimator=pipeline, max_iter=2, random_state=0).fit(X, Y)
    assert maximally_activating_inputs(tuned).shape == (2, 3)


def test_float32_models_give_float32():
    ae = one_layer()
    ae.fit(X.astype(np.float32))
    assert maximally_activating_inputs(ae).dtype == np.float32


def test_what_has_no_network_is_refused():
    with pytest.raises(ValueError, match="PCA has no encoder_, nor has anything that it holds"):
        maximally_activating_inputs(PCA(2).fit(X))


@pytest.mark.parametrize("units", [[4], [-1], [0.5], [[0]]])
def test_units_that_there_are_not_are_refused(units):
    with pytest.raises(ValueError, match="units must be integers from 0 to 3"):
        maximally_activating_inputs(one_layer(), units=units)


def test_a_center_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"center must have shape \(6,\)"):
        maximally_activating_inputs(one_layer(), center=[0.0, 1.0])


@pytest.mark.parametrize("changed", [{"norm": 0}, {"n_starts": 0}, {"max_iter": 0}, {"tol": 0}])
def test_numbers_out_of_range_are_refused(changed):
    with pytest.raises(ValueError, match=f"The '{next(iter(changed))}' parameter"):
        maximally_activating_inputs(one_layer(), **changed)

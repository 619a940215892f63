"""ImportanceWeightedAutoencoder with a second stochastic layer."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skae import ImportanceWeightedAutoencoder, monte_carlo
from skae.estimators import _inference
from skae.two_layers import TwoLayerBound


def quick(**changed):
    """One that trains in a few milliseconds."""
    return ImportanceWeightedAutoencoder(
        **{"n_components": 3, "hidden_layer_sizes": (8,), "n_top_components": 2,
           "top_hidden_layer_sizes": (6,), "max_iter": 3, "tol": None, "batch_size": 32,
           "random_state": 0, "likelihood": "bernoulli"} | changed
    )  # fmt: skip


@pytest.fixture(scope="module")
def pixels(digits):
    return digits[:200] / 16


@pytest.fixture(scope="module")
def fitted(pixels):
    return quick(max_iter=40, learning_rate_init=0.01).fit(pixels)


@pytest.fixture(scope="module")
def factors():
    """500 rows of 6 features: two factors and one noise."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(500, 6)) + 2


def linear(**changed):
    """One that fits a linear-Gaussian model well."""
    return quick(**{"n_components": 2, "hidden_layer_sizes": (), "top_hidden_layer_sizes": (),
                    "likelihood": "gaussian", "learning_rate_init": 0.03, "batch_size": 250,
                    "learning_rate": "cosine", "max_iter": 120} | changed)  # fmt: skip


def copy(fitted, **changed):
    return pickle.loads(pickle.dumps(fitted)).set_params(**changed)


def same(a, b):
    for one, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- the model


def test_it_has_a_network_of_its_own(fitted):
    assert isinstance(fitted.objective_, TwoLayerBound)
    assert fitted.engine_.path == "autograd"
    assert "second layer" in fitted.engine_.reason
    shapes = [(64, 8), (8, 6), (3, 8), (8, 64), (3, 6), (6, 4), (2, 6), (6, 6)]
    assert [W.shape for W in fitted.coefs_] == shapes


@pytest.mark.parametrize(("S", "epochs"), [(1, 200), (5, 100)])
def test_a_linear_model_reaches_the_likelihood_of_principal_components(factors, S, epochs):
    """With one sample, too, where random starts lose a factor from this seed."""
    model = linear(n_importance_samples=S, max_iter=epochs, random_state=1).fit(factors)
    many = model.set_params(n_importance_samples=500).score(factors)
    assert many == pytest.approx(PCA(2).fit(factors).score(factors), rel=0.01)
    assert model.noise_variance_ == pytest.approx(0.09, rel=0.2)


def test_it_starts_as_one_layer(pixels):
    start = quick(max_iter=1, learning_rate_init=1e-12).fit(pixels)
    np.testing.assert_allclose(start.coefs_[-1], 0, atol=1e-9)
    np.testing.assert_allclose(start.intercepts_[-1], 0, atol=1e-9)


@pytest.mark.parametrize("S", [1, 5])
def test_the_training_loss_is_the_bound_that_is_scored(pixels, S):
    model = quick(max_iter=60, learning_rate_init=0.01, learning_rate="cosine",
                  n_importance_samples=S).fit(pixels)  # fmt: skip
    assert model.score(pixels) == pytest.approx(-np.mean(model.loss_curve_[-10:]), rel=0.02)


def test_more_samples_give_a_tighter_bound(fitted, pixels):
    scores = [copy(fitted, n_importance_samples=S).score(pixels) for S in (1, 5, 500)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1] - 0.1


def test_doubly_reparameterised_gradients_train(pixels):
    fits = [quick(max_iter=15, gradient=g, learning_rate_init=0.01).fit(pixels)
            for g in ("plain", "doubly_reparameterized")]  # fmt: skip
    assert not np.array_equal(fits[0].coefs_[0], fits[1].coefs_[0])
    assert all(fit.loss_ < fit.loss_curve_[0] - 1 for fit in fits)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "poisson"])
def test_every_likelihood_trains(pixels, likelihood):
    model = quick(likelihood=likelihood, max_iter=10, learning_rate_init=0.01).fit(pixels)
    assert model.loss_ < model.loss_curve_[0]
    assert np.isfinite(model.score(pixels))


# ---- codes are those of the first layer


def test_codes_are_the_means_of_the_first_layer(fitted, pixels):
    mean, std = fitted.posterior(pixels)
    assert mean.shape == std.shape == (200, 3)
    np.testing.assert_array_equal(fitted.transform(pixels), mean)
    with torch.no_grad():
        h = fitted.encoder_(torch.from_numpy(np.array(pixels))).numpy()
    np.testing.assert_allclose(mean, h[:, :3])
    assert len(fitted.get_feature_names_out()) == 3


def test_reconstruction_is_the_decoded_code(fitted, pixels):
    codes = fitted.transform(pixels)
    np.testing.assert_array_equal(fitted.reconstruct(pixels), fitted.inverse_transform(codes))
    x_hat = fitted.to_torch()(torch.from_numpy(np.array(pixels))).detach().numpy()
    np.testing.assert_allclose(x_hat, fitted.reconstruct(pixels))


def test_weighted_codes_are_of_both_layers_weights(fitted, pixels):
    model = copy(fitted, code="importance_weighted", n_importance_samples=100)
    codes = model.transform(pixels)
    assert not np.allclose(codes, fitted.transform(pixels))
    np.testing.assert_allclose(model.transform(pixels[3:4]), codes[3:4])
    np.testing.assert_allclose(model.reconstruct(pixels), model.inverse_transform(codes))


# ---- scores and samples


def test_scores_are_a_pure_function_of_the_row(fitted, pixels, monkeypatch):
    for S in (1, 3, 100):
        model = copy(fitted, n_importance_samples=S)
        score = model.score_samples(pixels)
        np.testing.assert_array_equal(model.score_samples(pixels), score)
        np.testing.assert_allclose(model.score_samples(pixels[7:8]), score[7:8])
        with monkeypatch.context() as patch:
            patch.setattr(_inference, "_CELLS", 1)  # 64 rows at a time
            patch.setattr(monte_carlo, "BLOCK", 7)  # draws at a time
            np.testing.assert_allclose(model.score_samples(pixels), score)


def test_scores_of_rows_out_of_reach_are_finite(factors):
    model = linear(max_iter=3, precision="float32").fit(factors)
    far = np.full((2, 6), 1e30, dtype=np.float32)
    for S in (1, 2, 100):
        assert np.isfinite(model.set_params(n_importance_samples=S).score_samples(far)).all()


def test_samples_have_the_mean_and_covariance_of_the_data(factors):
    model = linear(max_iter=100).fit(factors)
    X = model.sample(5000, random_state=0)
    scale = factors.std(0)
    np.testing.assert_allclose(X.mean(0) / scale, factors.mean(0) / scale, atol=0.1)
    covariance = np.cov(factors.T) / np.outer(scale, scale)
    np.testing.assert_allclose(np.cov(X.T) / np.outer(scale, scale), covariance, atol=0.15)
    np.testing.assert_array_equal(X[:4], model.sample(5000, random_state=0)[:4])


# ---- active units


def test_units_of_both_layers_are_reported(fitted, pixels):
    assert fitted.active_units_.shape == (3,)
    assert fitted.top_active_units_.tolist() == (fitted.top_activity_ > 0.01).tolist()
    rng = torch.Generator().manual_seed(0)
    mean, std = (torch.from_numpy(part) for part in fitted.posterior(pixels))
    with torch.no_grad():
        drawn = [fitted.top_encoder_(mean + std * torch.randn(mean.shape, generator=rng,
                 dtype=mean.dtype))[:, :2] for _ in range(500)]  # fmt: skip
    expected = torch.stack(drawn).mean(0).var(0, correction=0)
    np.testing.assert_allclose(fitted.top_activity_, expected, rtol=0.1)


def test_collapse_is_told_by_layer(pixels):
    with pytest.warns(ConvergenceWarning, match="none of the 3 units of the first layer"):
        quick(max_iter=1, learning_rate_init=1e-9, random_state=3).fit(np.full((50, 64), 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(max_iter=20, learning_rate_init=0.01).fit(pixels)


# ---- going on


def test_a_warm_start_goes_on_bit_for_bit(pixels):
    twice = quick(warm_start=True, max_iter=2).fit(pixels).fit(pixels)
    same(twice, quick(max_iter=4).fit(pixels))


def test_partial_fit_is_an_epoch(pixels):
    a = quick(shuffle=False).partial_fit(pixels).partial_fit(pixels)
    same(a, quick(shuffle=False, max_iter=2).fit(pixels))


def test_initialize_from_copies_both_layers(fitted, pixels):
    start = quick(initialize_from=fitted, max_iter=1, learning_rate_init=1e-12).fit(pixels)
    for a, b in zip(start.coefs_, fitted.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    assert start.score(pixels) == pytest.approx(fitted.score(pixels))


def test_initialize_from_needs_the_same_layers(fitted, pixels):
    one = quick(n_top_components=None, max_iter=1).fit(pixels)
    with pytest.raises(ValueError, match=r"initialize_from .* has no top_encoder_"):
        quick(initialize_from=one).fit(pixels)
    with pytest.raises(ValueError, match="does not fit at top_encoder layer 1"):
        quick(initialize_from=fitted, n_top_components=4).fit(pixels)


def test_a_refit_with_one_layer_forgets_the_second(pixels):
    model = quick().fit(pixels).set_params(n_top_components=None).fit(pixels)
    same(model, quick(n_top_components=None).fit(pixels))
    assert model.top_encoder_ is model.top_decoder_ is model.top_activity_ is None
    with pytest.raises(AttributeError, match="top_active_units_ exists only with n_top_components"):
        _ = model.top_active_units_
    assert model.to("cpu").sample(2, random_state=0).shape == (2, 64)


# ---- data, modules, early stopping


def test_early_stopping_and_weights(pixels):
    model = quick(early_stopping=True, max_iter=6, dropout=0.2)
    model.fit(pixels, sample_weight=np.arange(200) % 3)
    assert len(model.validation_loss_curve_) == 6


def test_results_have_the_precision_of_X(pixels):
    X = pixels.astype(np.float32)
    model = quick(max_iter=1).fit(X)
    results = [model.transform(X), *model.posterior(X), model.score_samples(X), model.sample(2)]
    assert {result.dtype for result in results} == {np.dtype(np.float32)}
    assert model.top_encoder_[0].weight.dtype == torch.float32


def test_modules_of_ones_own_have_a_second_layer_too(pixels):
    encoder, decoder = nn.Linear(64, 6), nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 64))
    model = quick(n_components=None, encoder=encoder, decoder=decoder, max_iter=10)
    model.set_params(learning_rate_init=0.01).fit(pixels)
    assert model.loss_ < model.loss_curve_[0]
    assert model.sample(3).shape == (3, 64)


def test_a_clone_fits_the_same(fitted, pixels):
    same(clone(fitted).fit(pixels), fitted)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"n_top_components": 0}, "n_top_components"),
        ({"top_hidden_layer_sizes": (0,)}, "top_hidden_layer_sizes must be positive integers"),
        ({"solver": "lbfgs"}, "draws codes anew at every step"),
    ],
)
def test_what_cannot_be_is_refused(pixels, given, match):
    with pytest.raises(ValueError, match=match):
        quick(**given).fit(pixels)

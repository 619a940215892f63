"""ImportanceWeightedAutoencoder: what it has beside the variational one (test_variational.py)."""

import pickle

import numpy as np
import pytest
import torch

from skae import ImportanceWeightedAutoencoder, VariationalAutoencoder
from skae.bounds import ImportanceWeighted
from skae.estimators import _inference
from skae.monte_carlo import GaussianModel, Weighed


def quick(cls=ImportanceWeightedAutoencoder, **changed):
    """One that trains in a few milliseconds."""
    return cls(
        **{"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3, "tol": None,
           "batch_size": 32, "random_state": 0, "likelihood": "bernoulli"} | changed
    )  # fmt: skip


@pytest.fixture(scope="module")
def pixels(digits):
    return digits[:200] / 16


@pytest.fixture(scope="module")
def fitted(pixels):
    return quick(max_iter=40, learning_rate_init=0.01).fit(pixels)


@pytest.mark.parametrize("gradient", ["plain", "doubly_reparameterized"])
def test_one_sample_is_the_variational_autoencoder(pixels, gradient):
    one = quick(n_importance_samples=1, gradient=gradient).fit(pixels)
    other = quick(VariationalAutoencoder).fit(pixels)
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.loss_curve_ == other.loss_curve_
    assert one.score(pixels) == other.score(pixels)


def test_the_training_loss_is_the_bound_that_is_scored(pixels):
    model = quick(max_iter=150, learning_rate_init=0.01, learning_rate="cosine").fit(pixels)
    assert isinstance(model.objective_, ImportanceWeighted)
    assert model.score(pixels) == pytest.approx(-np.mean(model.loss_curve_[-20:]), rel=0.02)


def test_more_samples_train_to_a_tighter_bound(pixels):
    loss = [quick(max_iter=60, learning_rate_init=0.01, n_importance_samples=S).fit(pixels).loss_
            for S in (1, 20)]  # fmt: skip
    assert loss[1] < loss[0] - 0.1


def test_gradients_differ_and_both_train(pixels):
    fits = [quick(max_iter=20, gradient=g, learning_rate_init=0.01).fit(pixels)
            for g in ("plain", "doubly_reparameterized")]  # fmt: skip
    assert not np.array_equal(fits[0].coefs_[0], fits[1].coefs_[0])
    first = quick(max_iter=1).fit(pixels).loss_
    assert all(fit.loss_ < first - 1 for fit in fits)


# ---- codes by importance


def weighted(fitted, S):
    model = pickle.loads(pickle.dumps(fitted))
    return model.set_params(code="importance_weighted", n_importance_samples=S)


def test_weighted_codes_approach_the_mean_of_the_posterior(fitted, pixels):
    """By a grid over the plane of codes."""
    x = torch.from_numpy(np.array(pixels[:10]))
    line = torch.linspace(-5, 5, 201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        raw = fitted.decoder_(grid)
        log_p = -fitted.objective_.data_loss(x.unsqueeze(-2), raw) - 0.5 * grid.square().sum(-1)
    mean = (torch.softmax(log_p, -1) @ grid).numpy()
    error = [np.abs(model.transform(pixels[:10]) - mean).mean()
             for model in (fitted, weighted(fitted, 2000))]  # fmt: skip
    assert error[1] < 0.05
    assert error[1] < 0.5 * error[0]


def test_weighted_codes_are_a_pure_function_of_the_row(fitted, pixels, monkeypatch):
    for S in (5, 100):
        model = weighted(fitted, S)
        codes = model.transform(pixels)
        np.testing.assert_array_equal(model.transform(pixels), codes)
        np.testing.assert_allclose(model.transform(pixels[3:4]), codes[3:4])
        monkeypatch.setattr(_inference, "_CELLS", 1)
        np.testing.assert_allclose(model.transform(pixels), codes)
        x_hat = model.reconstruct(pixels)
        np.testing.assert_allclose(x_hat, model.inverse_transform(codes))


def test_a_weighted_code_of_one_sample_is_the_mean(fitted, pixels):
    np.testing.assert_array_equal(weighted(fitted, 1).transform(pixels), fitted.transform(pixels))


def test_codes_of_rows_out_of_reach_are_finite(digits):
    """Where no code explains a row, there is nothing to weigh: its code is the encoder's mean."""
    X = digits[:200].astype(np.float32)
    model = quick(likelihood="gaussian").fit(X)
    rows = np.concatenate([X[:2], np.full((1, 64), 1e30, dtype=np.float32)])
    mean = model.transform(rows)
    codes = weighted(model, 100).transform(rows)
    np.testing.assert_array_equal(codes[2], mean[2])
    assert np.isfinite(codes).all()
    assert not np.allclose(codes[:2], mean[:2])


def test_draws_without_weight_leave_the_others_alone():
    class Given(GaussianModel):
        def weighed(self, x, h, n):
            z = torch.ones(1, 1, 2)
            yield Weighed(z, z[..., 0], torch.full((1, 1), -torch.inf))
            yield Weighed(2 * z, z[..., 0], torch.zeros(1, 1))

    model = Given(torch.nn.Identity(), None, None)
    assert model.mean_code(torch.zeros(1, 4), 2).tolist() == [[2.0, 2.0]]


def test_how_rows_are_coded_has_no_say_in_samples(fitted, monkeypatch):
    monkeypatch.setattr("skae.estimators._sampling._CELLS", 64 * 100)  # rows at a time
    expected = fitted.sample(300, random_state=0)
    np.testing.assert_array_equal(weighted(fitted, 100).sample(300, random_state=0), expected)


def test_weighted_codes_cannot_be_given_away(fitted):
    with pytest.raises(ValueError, match="code='importance_weighted' needs the decoder, too"):
        weighted(fitted, 5).to_torch()
    assert fitted.to_torch() is not None


@pytest.mark.parametrize(("first", "then"), [(1, 3), (3, 1)])
def test_other_numbers_of_samples_go_on_from_the_learned_variance(digits, first, then):
    X = digits[:200]
    model = quick(likelihood="gaussian", warm_start=True, n_importance_samples=first,
                  max_iter=60, learning_rate_init=0.01).fit(X)  # fmt: skip
    learned, start = model.noise_variance_, X.var(0).mean()
    assert learned < 0.8 * start
    model.set_params(n_importance_samples=then, max_iter=1, learning_rate_init=1e-9).fit(X)
    assert model.noise_variance_ == pytest.approx(learned, rel=0.1)

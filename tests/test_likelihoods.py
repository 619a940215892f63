"""Likelihoods: torch.distributions' values, their gradients, what they draw, scales that fit."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import Normal, OneHotCategorical
from torch.distributions import Poisson as TorchPoisson
from toys import DOUBLE, assert_close, normal

from skae._engine.rng import Streams
from skae.likelihoods import Bernoulli, Categorical, Gaussian, Laplace, Mixed, Poisson

D = 5
GROUPS = ((3, 0), (1, 4))
EACH = (0.3, 1.0, 2.0, 0.1, 5.0)


def scale(value):
    return torch.tensor(value, dtype=DOUBLE)


# A likelihood, x from raw, and the same distribution from raw.
CASES = {
    "gaussian": (Gaussian(0.7), lambda r: r, lambda r: Normal(r, math.sqrt(0.7))),
    "gaussian, each": (Gaussian(EACH), lambda r: r, lambda r: Normal(r, scale(EACH).sqrt())),
    "laplace": (Laplace(0.7), lambda r: r, lambda r: TorchLaplace(r, 0.7)),
    "laplace, each": (Laplace(EACH), lambda r: r, lambda r: TorchLaplace(r, scale(EACH))),
    "bernoulli": (Bernoulli(), torch.sigmoid, lambda r: TorchBernoulli(logits=r)),
    "poisson": (Poisson(), torch.exp, lambda r: TorchPoisson(r.exp())),
    "categorical": (Categorical(), lambda r: torch.softmax(r, -1),
                    lambda r: OneHotCategorical(logits=r)),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def draws(seed=0):
    return Streams([seed]).draws("latent", DOUBLE)


def test_a_row_is_minus_the_log_probability(case):
    likelihood, _, distribution = case
    raw = normal(7, D)
    x = distribution(raw).sample()
    found = likelihood.elements(x, raw).sum(-1) * likelihood.share(D)
    log_prob = distribution(raw).log_prob(x)
    assert_close(found, -(log_prob if log_prob.ndim == 1 else log_prob.sum(-1)))


def test_prediction_is_the_mean(case):
    likelihood, mean, _ = case
    raw = normal(7, D)
    assert_close(likelihood.predict(raw), mean(raw))


def test_draws_have_mean_and_variance_of_the_distribution(case):
    likelihood, _, distribution = case
    raw = 0.5 * normal(1, D)
    x = likelihood.draw(raw.expand(20_000, D), draws())
    assert x.shape == (20_000, D)
    expected = distribution(raw)
    spread = expected.variance.sqrt()
    assert ((x.mean(0) - expected.mean) / spread).abs().max() < 5 / math.sqrt(20_000)
    assert (x.var(0) / expected.variance - 1).abs().max() < 0.15


def test_draws_are_of_the_generator_alone(case):
    likelihood, state = case[0], torch.get_rng_state()
    raw = normal(7, D)
    assert torch.equal(likelihood.draw(raw, draws(1)), likelihood.draw(raw, draws(1)))
    assert not torch.equal(likelihood.draw(raw, draws(1)), likelihood.draw(raw, draws(2)))
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_of_categories_are_one_hot():
    x = Categorical().draw(normal(200, D), draws())
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert (x.sum(-1) == 1).all()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("weight", [None, "rows", "cells"])
@pytest.mark.parametrize(
    "likelihood",
    [c[0] for c in CASES.values()] + [Gaussian(None), Laplace(None), Mixed(Gaussian(2.0), GROUPS)],
    ids=str,
)
def test_accumulate_leaves_the_gradient_of_the_scaled_elements(likelihood, weight, lead):
    x, raw = normal(*lead, 6, D).abs(), normal(*lead, 6, D, seed=1).requires_grad_()
    w = None if weight is None else normal(6, 1 if weight == "rows" else D, seed=2).exp()
    c = 0.3 if w is None else 0.3 * w
    elements = likelihood.elements(x, raw)
    (expected,) = torch.autograd.grad((c * elements).sum(), raw)
    total, overwritten = torch.ones_like(x), raw.detach().clone()
    assert_close(likelihood.scaled_gradient(x, raw.detach(), c), expected)
    likelihood.accumulate(x, overwritten, c, w, total)
    assert_close(total, 1 + elements.detach() * (1 if w is None else w))
    assert_close(overwritten, expected)


def test_what_steps_in_inference_mode_leave_behind_does_not_stop_autograd():
    """Constants and columns are kept between calls."""
    raw = normal(7, D).requires_grad_()
    for likelihood in (Gaussian(0.123), Laplace(0.123), Mixed(Gaussian(0.123), ((1, 4), (0, 2)))):
        x = torch.ones(7, D, dtype=DOUBLE)
        with torch.inference_mode():
            likelihood.elements(x, raw.detach())
        (gradient,) = torch.autograd.grad(likelihood.elements(x, raw).sum(), raw)
        assert_close(gradient, likelihood.scaled_gradient(x, raw.detach(), 1.0))


# ---- scales that are learned


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
@pytest.mark.parametrize("shared", [True, False])
def test_the_estimated_scale_is_the_most_likely_one(kind, shared):
    x, raw = normal(40, D) * scale(EACH), normal(40, D, seed=1)
    best = kind(None).estimate(kind(None).elements(x, raw).mean(0), shared)
    assert (best == best[0]).all() == shared

    def loss(s):
        return kind(None).with_scale(s, shared).elements(x, raw).sum()

    assert all(loss(best) < loss(best * factor) for factor in (0.99, 1.01))


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_energy_over_scale_plus_normaliser_is_the_likelihood(kind):
    x, raw, s = normal(6, D), normal(6, D, seed=1), scale(EACH)
    parts = kind(None).elements(x, raw) / s + kind(None).normaliser(s)
    assert_close(parts, kind(None).with_scale(s, shared=False).elements(x, raw))


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_variance_is_that_of_the_draws(kind):
    variance = scale(EACH)
    likelihood = kind(None).with_scale(kind(None).start_scale(variance, False), shared=False)
    assert_close(scale(likelihood.variance(D)), variance)
    x = likelihood.draw(torch.zeros(20_000, D, dtype=DOUBLE), draws())
    assert (x.var(0) / variance - 1).abs().max() < 0.15


# ---- mixed tables


def test_mixed_columns_have_each_their_own_likelihood():
    raw = normal(7, D)
    x = normal(7, D, seed=1)
    for group in GROUPS:
        x[:, group] = OneHotCategorical(logits=raw[:, group]).sample()
    mixed = Mixed(Gaussian(0.7), GROUPS)
    expected = sum(OneHotCategorical(logits=raw[:, g]).log_prob(x[:, g]) for g in GROUPS)
    expected = expected + Normal(raw[:, 2], math.sqrt(0.7)).log_prob(x[:, 2])
    assert_close(mixed.elements(x, raw).sum(-1), -expected)
    predicted = mixed.predict(raw)
    assert_close(predicted[:, 2], raw[:, 2])
    for group in GROUPS:
        assert_close(predicted[:, group].sum(-1), torch.ones(7, dtype=DOUBLE))
    drawn = mixed.draw(raw, draws())
    assert all((drawn[:, group].sum(-1) == 1).all() for group in GROUPS)


def test_only_numeric_columns_of_a_mixed_table_have_a_scale():
    energy = scale(EACH)
    for likelihood in (Mixed(Gaussian(None), GROUPS), Mixed(Laplace(None), GROUPS)):
        found = likelihood.estimate(energy, True)
        assert_close(found[[0, 1, 3, 4]], torch.ones(4, dtype=DOUBLE))
        assert found[2] != 1
        assert_close(likelihood.normaliser(found)[[0, 1, 3, 4]], torch.zeros(4, dtype=DOUBLE))
        assert not likelihood.with_scale(found, True).learns
    variance = Mixed(Gaussian(None), GROUPS).with_scale(energy, False).variance(D)
    np.testing.assert_array_equal(variance, [math.nan, math.nan, EACH[2], math.nan, math.nan])


def test_only_numeric_columns_tell_where_a_shared_scale_starts():
    variance = scale((0.25, 0.25, 100.0, 0.2, 0.2))
    found = Mixed(Gaussian(None), GROUPS).start_scale(variance, True)
    assert_close(found, scale((1.0, 1.0, 100.0, 1.0, 1.0)))


@pytest.mark.parametrize("shared", [True, False])
def test_features_without_variance_start_with_the_usual_scale(shared):
    found = Gaussian(None).start_scale(scale((0.0, 4.0)), shared)
    assert_close(found, scale((2.0, 2.0) if shared else (2.0, 4.0)))
    assert_close(Gaussian(None).start_scale(scale((0.0, 0.0)), shared), scale((1.0, 1.0)))


def test_a_table_of_categories_alone_learns_no_scale():
    mixed = Mixed(Gaussian(None), (*GROUPS[:1], (1, 2, 4)))
    assert mixed.with_scale(scale(EACH), True) == mixed
    assert_close(mixed.estimate(scale(EACH), True), torch.ones(D, dtype=DOUBLE))

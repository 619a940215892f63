"""Priors draw what they say, from the generator that they are given."""

import math
import pickle

import numpy as np
import pytest
import torch

from skae._engine.rng import Draws
from skae.priors import (
    PRIORS,
    Category,
    Drawn,
    Gaussian,
    GaussianMixture,
    SwissRoll,
    resolve_prior,
)


def rng(seed=0, dtype=torch.float64):
    return Draws([torch.Generator().manual_seed(seed)], dtype, "cpu")


def uniform(n, random_state):
    return np.random.default_rng(random_state).uniform(-1, 1, size=(n, 3))


ALL = [*PRIORS.values(), Gaussian(5.0), Category(), Category((0.2, 0.8)), Drawn(uniform)]


def units(prior):
    return {Drawn: 3, Category: 2}.get(type(prior), prior.n_components or 4)


@pytest.mark.parametrize("prior", ALL, ids=lambda prior: type(prior).__name__)
def test_draws_are_those_of_the_seed(prior):
    k = units(prior)
    a, b, c = (prior.draw(50, k, rng(seed)) for seed in (0, 0, 1))
    assert a.shape == (50, k)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert prior.draw(3, k, rng(dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("prior", ALL, ids=lambda prior: type(prior).__name__)
def test_global_generators_are_left_alone(prior):
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    prior.draw(5, units(prior), rng())
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


@pytest.mark.parametrize("prior", ALL, ids=lambda prior: type(prior).__name__)
def test_priors_are_data(prior):
    assert pickle.loads(pickle.dumps(prior)) == prior


@pytest.mark.parametrize(
    ("make", "wrong", "said"),
    [
        (Gaussian, {"scale": 0.0}, r"scale of the prior Gaussian must be .* above 0, got 0\.0"),
        (Gaussian, {"scale": "wide"}, "finite number above 0, got 'wide'"),
        (GaussianMixture, {"n_modes": 0}, "at least 1, got 0"),
        (GaussianMixture, {"n_modes": 2.5}, "integer, got 2.5"),
        (GaussianMixture, {"across": -0.1}, "above 0, got -0.1"),
        (SwissRoll, {"noise": float("nan")}, "at least 0, got nan"),
        (SwissRoll, {"turns": float("inf")}, "above 0, got inf"),
    ],
)
def test_numbers_that_make_no_prior_are_refused(make, wrong, said):
    with pytest.raises(ValueError, match=said):
        make(**wrong)


def test_a_gaussian_has_its_scale():
    z = Gaussian(5.0).draw(20_000, 3, rng())
    assert z.std(0).tolist() == pytest.approx([5.0] * 3, rel=0.03)
    assert z.mean(0).abs().max() < 0.15


@pytest.mark.parametrize(
    "prior",
    [PRIORS["gaussian_mixture"], PRIORS["swiss_roll"]],
    ids=lambda prior: type(prior).__name__,
)
def test_shapes_in_the_plane_have_about_unit_variance_about_the_origin(prior):
    z = prior.draw(20_000, 2, rng())
    assert z.var(0).tolist() == pytest.approx([1.0, 1.0], rel=0.2)
    assert z.mean(0).abs().max() < 0.35


def test_a_mixture_has_its_petals():
    prior = GaussianMixture(n_modes=5, radius=2.0, along=0.3, across=0.05)
    z = prior.draw(20_000, 2, rng())
    turn = torch.atan2(z[:, 1], z[:, 0]) / (2 * math.pi) * 5
    mode = turn.round()
    assert torch.bincount((mode % 5).long()).tolist() == pytest.approx([4000] * 5, rel=0.1)
    first = z[mode == 0]
    assert first.mean(0).tolist() == pytest.approx([2.0, 0.0], abs=0.02)
    assert first.std(0).tolist() == pytest.approx([0.3, 0.05], rel=0.05)


def test_a_roll_without_noise_is_its_curve():
    z = SwissRoll(turns=1.5, radius=3.0, noise=0.0).draw(5000, 2, rng())
    r = z.norm(dim=1)
    assert r.max() <= 3.0
    angle = 1.5 * 2 * math.pi * r / 3.0
    curve = torch.stack([r * angle.cos(), r * angle.sin()], 1)
    torch.testing.assert_close(z, curve)


def test_categories_come_as_often_as_told():
    z = Category((0.1, 0.2, 0.7)).draw(20_000, 3, rng())
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert (z.sum(1) == 1).all()
    assert z.mean(0).tolist() == pytest.approx([0.1, 0.2, 0.7], rel=0.05)
    assert Category().draw(20_000, 4, rng()).mean(0).tolist() == pytest.approx([0.25] * 4, rel=0.05)
    assert Category().draw(5, 1, rng()).tolist() == [[1.0]] * 5


def test_a_function_is_given_other_seeds_at_every_call():
    seeds = []
    prior = Drawn(lambda n, random_state: seeds.append(random_state) or np.zeros((n, 2)))
    draws = rng()
    prior.draw(4, 2, draws), prior.draw(4, 2, draws)
    assert len(set(seeds)) == 2
    assert all(isinstance(seed, int) for seed in seeds)


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (np.zeros((3, 2)), r"shape \(n, n_components\), here \(4, 2\), but it returned \(3, 2\)"),
        (np.full((4, 2), np.nan), "not finite"),
    ],
)
def test_what_a_function_returns_is_checked(drawn, said):
    with pytest.raises(ValueError, match=said):
        Drawn(lambda n, random_state: drawn).draw(4, 2, rng())


def test_priors_are_found_by_name_instance_and_function():
    assert resolve_prior("swiss_roll") == SwissRoll()
    assert resolve_prior(Gaussian(2.0)) == Gaussian(2.0)
    assert resolve_prior(uniform) == Drawn(uniform)

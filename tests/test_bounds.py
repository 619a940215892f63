"""Bounds on the likelihood: their values, gradients, and what relates one to the other."""

import dataclasses
import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from toys import DOUBLE, D, K, assert_close, network, normal, starting, step

from skae._engine.autograd import Autograd
from skae._engine.fused import Fused
from skae._engine.rng import Streams
from skae.bounds import Evidence, ImportanceWeighted
from skae.latents import (
    joined,
    kl,
    kl_and_gradient,
    log_prior_ratio,
    sample,
    sample_gradient,
    samples,
    split,
)
from skae.likelihoods import Bernoulli, Gaussian, Laplace, Mixed, Poisson
from skae.objective import Features, Forward, Rows
from skae.testing import check_objective

GROUPS = ((0, 2), (3, 4))
LIKELIHOODS = {
    "gaussian": Gaussian(0.5), "learned": Gaussian(None),
    "each": Gaussian((0.5, 1.0, 2.0, 3.0, 4.0)),
    "laplace": Laplace(None), "bernoulli": Bernoulli(), "poisson": Poisson(),
    "mixed": Mixed(Gaussian(None), GROUPS),
}  # fmt: skip


def draws(seed=0):
    return Streams([seed]).draws("latent", DOUBLE)


def features():
    return Features(*(torch.full((D,), v, dtype=DOUBLE) for v in (0.0, -1.0, 1.0, 0.25)))


def forward(objective, x, h, seed=0, **parts):
    """A pass whose decoder is linear."""
    z = objective.latent(h, draws(seed))
    state = objective.init_state(D, K)
    return Forward(x, x, h, z, z @ normal(K, D, seed=9), state=state, **parts)


# ---- the contract


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize(
    "fields",
    [{}, {"beta": 0.0}, {"beta": 0.5, "warm_up": 0.9}, {"free_bits": 0.1, "shared": False}],
    ids=str,
)
def test_evidence_keeps_the_contract(name, fields):
    check_objective(Evidence(loss=LIKELIHOODS[name], **fields), code_activation="identity")


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("gradient", ["plain", "doubly_reparameterized"])
def test_importance_weighted_keeps_the_contract(name, gradient):
    objective = ImportanceWeighted(
        loss=LIKELIHOODS[name], gradient=gradient, n_importance_samples=3
    )
    check_objective(objective, code_activation="identity")
    check_objective(dataclasses.replace(objective, n_importance_samples=1, samples=False))


# ---- Gaussian codes


def distributions(h):
    mean, log_var = split(h)
    return Normal(mean, (0.5 * log_var).exp()), Normal(torch.zeros_like(mean), 1.0)


def test_kl_is_that_of_torch_distributions():
    h = 2 * normal(7, 2 * K)
    q, p = distributions(h)
    assert_close(kl(h), kl_divergence(q, p))
    assert_close(kl(torch.zeros(2, 2 * K, dtype=DOUBLE)), torch.zeros(2, K, dtype=DOUBLE))


def test_log_prior_ratio_is_that_of_torch_distributions():
    h, z = 2 * normal(7, 2 * K), normal(7, K, seed=1)
    q, p = distributions(h)
    assert_close(log_prior_ratio(z, *split(h)), p.log_prob(z) - q.log_prob(z))


@pytest.mark.parametrize("lead", [(), (2,)])
def test_gradients_of_gaussian_codes_are_autograds(lead):
    h = normal(*lead, 7, 2 * K).requires_grad_()
    share = normal(*lead, 7, 1, seed=1)
    z = sample(h, draws())
    d_z = normal(*lead, 7, K, seed=3)
    (expected,) = torch.autograd.grad(z, h, d_z)
    assert_close(sample_gradient(d_z, h.detach(), z.detach()), expected)
    (expected,) = torch.autograd.grad((share * kl(h)).sum(), h)
    value, slope = kl_and_gradient(h.detach())
    assert torch.equal(value, kl(h.detach()))
    assert_close(share * slope, expected)
    assert torch.equal(joined(*split(h)), h)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_samples_are_those_of_repeated_rows(lead):
    h, S = normal(*lead, 7, 2 * K), 3
    wide = h.repeat_interleave(S, -2)
    z = samples(h, S, draws())
    assert torch.equal(z, sample(wide, draws()))
    d_z = normal(*lead, 7 * S, K, seed=1)
    expected = sample_gradient(d_z, wide, z).unflatten(-2, (7, S))
    each = d_z.unflatten(-2, (7, S)), h.unsqueeze(-2), z.unflatten(-2, (7, S))
    assert torch.equal(sample_gradient(*each), expected)


# ---- the evidence lower bound


def test_evidence_is_likelihood_and_divergence():
    x, h = normal(7, D), normal(7, 2 * K, seed=1)
    objective = Evidence(loss=Gaussian(0.5), beta=0.7)
    out = forward(objective, x, h)
    q, p = distributions(h)
    log_p = Independent(Normal(out.raw, math.sqrt(0.5)), 1).log_prob(x)
    assert_close(objective(out), 0.7 * kl_divergence(q, p).sum(-1) - log_p)


def test_beta_zero_drops_the_divergence():
    x, h = normal(7, D), normal(7, 2 * K, seed=1)
    objective = Evidence(loss=Gaussian(0.5), beta=0.0)
    out = forward(objective, x, h)
    assert objective.penalty(out, {}) is None
    assert objective.penalty_and_gradient(out, {}, torch.ones(7, 1)) == (None, None, {})
    assert torch.equal(objective(out), objective.data_loss(x, out.raw))


@pytest.mark.parametrize("name", ["learned", "laplace", "mixed"])
def test_a_learned_scale_enters_the_value_as_a_known_one_does(name):
    x, h = normal(7, D), normal(7, 2 * K, seed=1)
    learning = Evidence(loss=LIKELIHOODS[name]).informed(features())
    known = learning.learned(learning.init_state(D, K))
    assert learning.learns
    assert not known.learns
    assert_close(learning(forward(learning, x, h)), known(forward(known, x, h)))


@pytest.mark.parametrize("shared", [True, False])
def test_the_scale_starts_at_the_variance_of_the_data(shared):
    f = dataclasses.replace(features(), variance=torch.tensor([1.0, 2, 3, 0, 4], dtype=DOUBLE))
    start = Evidence(loss=Gaussian(None), shared=shared).informed(f).init_state(D, K)["scale"]
    assert start.tolist() == ([2.0] * D if shared else [1.0, 2.0, 3.0, 2.0, 4.0])


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_scale_tends_to_the_most_likely_one(kind):
    x, h = normal(7, D), normal(7, 2 * K, seed=1)
    weight = normal(7, seed=2).exp()
    objective = Evidence(loss=kind(None), shared=False)
    out = forward(objective, x, h, rows=Rows(weight=weight / weight.mean()))
    energies = objective.loss.elements(x, out.raw)
    state = objective.init_state(D, K)
    for _ in range(800):
        state = objective.update(state, out)
    mean = (weight[:, None] * energies).sum(0) / weight.sum()
    assert_close(state["scale"], objective.loss.estimate(mean, False), 1e-10)


def test_the_scale_has_a_floor():
    x = normal(7, D)
    objective = Evidence(loss=Gaussian(None)).informed(features())
    state, out = objective.init_state(D, K), Forward(x, x, x, x, x)
    for _ in range(1000):
        state = objective.update(state, out)
    assert_close(state["scale"], torch.full((D,), 0.25e-6, dtype=DOUBLE))


def test_rows_without_weight_leave_the_scale_alone():
    objective = Evidence(loss=Gaussian(None))
    rows = Rows(weight=torch.zeros(7, dtype=DOUBLE))
    out = forward(objective, normal(7, D), normal(7, 2 * K), rows=rows)
    state = objective.init_state(D, K)
    assert torch.equal(objective.update(state, out)["scale"], state["scale"])


def test_the_divergences_weight_rises_over_the_warm_up():
    objective = Evidence(loss=Gaussian(), beta=2.0, warm_up=0.4)
    assert [objective.weight_at(p) for p in (0.0, 0.1, 0.4, 1.0)] == [0.0, 0.5, 2.0, 2.0]
    assert objective.settled == 0.4
    stacked = dataclasses.replace(objective, warm_up=torch.tensor([0.0, 0.4]).view(2, 1, 1))
    assert stacked.weight_at(0.1).flatten().tolist() == pytest.approx([2.0, 0.5])
    assert stacked.weight_at(0.0).flatten().tolist() == pytest.approx([2.0, 0.0])


def test_units_have_their_free_bits_for_nothing():
    x, h = normal(7, D), normal(7, 2 * K, seed=1)
    h[:, :K] *= torch.tensor([0.1, 1.0, 3.0])
    h[:, K:] *= 0.1
    mean = kl(h).mean(0)
    free = float(mean.sort().values[:2].mean())  # between the first and the second
    objective = Evidence(loss=Gaussian(), free_bits=free)
    out = forward(objective, x, h)
    assert_close(objective.penalty(out, {}), mean.clamp(min=free).sum(-1, keepdim=True))
    _, slope, _ = objective.penalty_and_gradient(out, {}, torch.ones(1, 1, dtype=DOUBLE))
    moved = slope.reshape(7, 2, K).abs().sum((0, 1)) > 0
    assert moved.tolist() == (mean > free).tolist()


# ---- the importance-weighted bound


def test_one_importance_sample_is_the_evidence_in_expectation():
    n = 20_000
    x, h = normal(1, D).expand(n, D), (0.5 * normal(1, 2 * K, seed=1)).expand(n, 2 * K)
    one = ImportanceWeighted(loss=Gaussian(0.5), n_importance_samples=1)
    out = forward(one, x, h)
    drawn = one(out)
    log_w = Independent(Normal(out.raw, math.sqrt(0.5)), 1).log_prob(x)
    log_w = log_w + log_prior_ratio(out.z, *split(h)).sum(-1)
    assert_close(drawn, -log_w)
    evidence = Evidence(loss=Gaussian(0.5))
    difference = drawn - evidence(forward(evidence, x, h))
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(n)


def test_the_bound_grows_with_the_samples():
    """The mean of the bounds of parts of the same draws, by Jensen's inequality."""
    x, h = normal(50, D), normal(50, 2 * K, seed=1)
    whole = ImportanceWeighted(loss=Gaussian(0.5), n_importance_samples=12)
    out, before = forward(whole, x, h), math.inf
    for S in (1, 2, 4, 12):
        part = dataclasses.replace(whole, n_importance_samples=S)
        log_w = whole._log_weights(out, h).unflatten(-1, (-1, S))
        mean = (math.log(S) - torch.logsumexp(log_w, -1)).mean(-1)
        assert (mean <= before + 1e-12).all()
        before = mean
        assert S < 12 or torch.equal(mean, part(out))


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    """x = b + z w + e with orthogonal w has a diagonal posterior, under which weights are equal."""
    w = torch.linalg.qr(normal(D, K))[0].mT * torch.tensor([[2.0], [1.0], [0.5]], dtype=DOUBLE)
    s, x = 0.3, normal(6, D)
    precision = 1 + w.square().sum(-1) / s
    mean = x @ w.mT / s / precision
    h = joined(mean, -precision.log().expand_as(mean))
    cov = w.mT @ w + s * torch.eye(D, dtype=DOUBLE)
    exact = torch.distributions.MultivariateNormal(torch.zeros(D, dtype=DOUBLE), cov).log_prob(x)
    objective = ImportanceWeighted(loss=Gaussian(s), n_importance_samples=4)
    z = objective.latent(h, draws())
    assert_close(-objective(Forward(x, x, h, z, z @ w)), exact)


def gradients(objective, seeds, **given):
    """The gradient of the encoder's weights, of the decoder's, for every seed."""
    net = network((4,), code="identity", code_width=2 * K)
    parameters = starting(net, seed=1)
    found = {"encoder": [], "decoder": []}
    for seed in seeds:
        got = step(Fused, net, objective, normal(5, D), parameters=parameters,
                   streams=Streams([seed]), **given).gradients  # fmt: skip
        for name, each in found.items():
            parts = [g.flatten() for key, g in got.items() if key.startswith(name)]
            each.append(torch.cat(parts))
    return {name: torch.stack(each) for name, each in found.items()}


def test_doubly_reparameterised_gradients_have_the_same_expectation_and_less_variance():
    plain = ImportanceWeighted(loss=Gaussian(0.5), n_importance_samples=8)
    doubly = dataclasses.replace(plain, gradient="doubly_reparameterized")
    a, b = gradients(plain, range(600)), gradients(doubly, range(600, 1200))
    a, b = a["encoder"], b["encoder"]
    error = ((a.var(0) + b.var(0)) / 600).sqrt()
    z = ((a.mean(0) - b.mean(0)) / error)[error > 0]
    assert z.square().mean() < 2  # 1 in expectation; of a wrong gradient, tens
    assert b.var(0).sum() < 0.7 * a.var(0).sum()


def test_doubly_reparameterised_gradients_of_the_decoder_are_the_plain_ones():
    plain = ImportanceWeighted(loss=Bernoulli(), n_importance_samples=8)
    doubly = dataclasses.replace(plain, gradient="doubly_reparameterized")
    a, b = gradients(plain, range(2)), gradients(doubly, range(2))
    assert_close(b["decoder"], a["decoder"])
    assert not torch.allclose(b["encoder"], a["encoder"])


def test_doubly_reparameterised_gradients_are_those_of_equation_8():
    objective = ImportanceWeighted(
        loss=Gaussian(0.5), n_importance_samples=4, gradient="doubly_reparameterized"
    )
    net = network((), code="identity", code_width=2 * K)
    parameters, x = starting(net, seed=1), normal(5, D)
    for kind in (Fused, Autograd):
        got = step(kind, net, objective, x, parameters=parameters, streams=Streams([0])).gradients
        W = parameters["encoder.0.W"].clone().requires_grad_()
        h = x @ W.mT + parameters["encoder.0.b"]
        z = objective.latent(h, draws())
        held = z.detach().requires_grad_()
        out = Forward(
            x, x, h, held, held @ parameters["decoder.0.W"].mT + parameters["decoder.0.b"]
        )
        log_w = objective._log_weights(out, h.detach())
        (d_z,) = torch.autograd.grad(log_w.sum(), held)
        counts = torch.softmax(log_w.detach(), -1).square().flatten().unsqueeze(-1)
        (expected,) = torch.autograd.grad(z, W, -counts * d_z / 5)
        assert_close(got["encoder.0.W"], expected)

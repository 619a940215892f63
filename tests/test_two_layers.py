"""Two layers of codes: the bound, its gradients, and the trained model against exact densities."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal
from toys import DOUBLE, D, K, assert_close, network, normal, starting, step

from skae._engine.autograd import Autograd
from skae._engine.plan import make_plan
from skae._engine.rng import Streams
from skae.bounds import ImportanceWeighted
from skae.latents import joined, log_density, split
from skae.likelihoods import Bernoulli, Gaussian, Mixed
from skae.monte_carlo import GaussianModel
from skae.networks import Dense, Network
from skae.objective import Forward
from skae.testing import check_objective
from skae.two_layers import TwoLayerBound, TwoLayerModel, TwoLayers

K2 = 2
LIKELIHOODS = {
    "gaussian": Gaussian(0.5), "learned": Gaussian(None), "bernoulli": Bernoulli(),
    "mixed": Mixed(Gaussian(None), ((0, 2), (3, 4))),
}  # fmt: skip


def bound(**fields):
    return TwoLayerBound(**{"loss": Gaussian(0.5), "n_top_components": K2} | fields)


def layered(hidden=(4,), samples=True, k2=K2):
    """d -> hidden -> z1 -> hidden -> z2, and back."""
    plain = network(hidden, code="identity", code_width=2 * K)
    encoder = Dense("top_encoder", (K, *hidden, 2 * k2), "tanh", "identity")
    decoder = Dense("top_decoder", (k2, *hidden[::-1], 2 * K), "tanh", "identity")
    return TwoLayers(*plain.stacks, Network(encoder, decoder), samples)


def gaussian(h):
    mean, log_var = split(h)
    return Independent(Normal(mean, (0.5 * log_var).exp()), 1)


# ---- the contract


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("gradient", ["plain", "doubly_reparameterized"])
def test_the_bound_keeps_the_contract(name, gradient):
    objective = bound(loss=LIKELIHOODS[name], gradient=gradient, n_importance_samples=3)
    check_objective(objective, code_activation="identity")
    check_objective(dataclasses.replace(objective, n_importance_samples=1, samples=False))


def test_the_plan_says_why_it_is_autograds():
    plan = make_plan(layered(), bound())
    assert plan.path == "autograd"
    assert "second layer" in plan.reason


def test_a_stack_of_networks_is_each_of_them():
    net, x, objective = layered(), normal(5, D), bound(n_importance_samples=3)
    both = starting(net, None, 2)
    together = step(Autograd, net, objective, x, lead=(2,), parameters=both)
    for m in range(2):
        own = {name: value[m] for name, value in both.items()}
        alone = step(Autograd, net, objective, x, parameters=own)
        assert_close(together.value[m], alone.value)
        assert_close({k: g[m] for k, g in together.gradients.items()}, alone.gradients)


# ---- the value


def passed(net, parameters, objective, x, seed=0):
    draws = Streams([seed]).draws("latent", DOUBLE)
    h = net.encoder.forward(parameters, x)
    z = objective.latent(h, draws)
    return Forward(x, x, h, z, net.decoded(parameters, z, rng=draws))


def test_log_density_is_that_of_torch_distributions():
    h, z = 2 * normal(7, 2 * K), normal(7, K, seed=1)
    constant = 0.5 * K * math.log(2 * math.pi)
    assert_close(log_density(z, *split(h)).sum(-1) - constant, gaussian(h).log_prob(z))


def test_the_value_is_the_bound_of_both_layers():
    net, x, S = layered(), normal(6, D), 4
    p, objective = starting(net), bound(n_importance_samples=S)
    out = passed(net, p, objective, x)
    raw, h2, z2, prior = out.raw.split([D, 2 * K2, K2, 2 * K], -1)
    assert_close(h2, net.top.encoder.forward(p, out.z))
    assert_close(prior, net.top.decoder.forward(p, z2))
    assert_close(raw, net.decoder.forward(p, out.z))
    wide_x, wide_h = (t.repeat_interleave(S, 0) for t in (x, out.h))
    log_w = (
        Independent(Normal(raw, math.sqrt(0.5)), 1).log_prob(wide_x)
        + gaussian(prior).log_prob(out.z) + gaussian(torch.zeros_like(h2)).log_prob(z2)
        - gaussian(wide_h).log_prob(out.z) - gaussian(h2).log_prob(z2)
    )  # fmt: skip
    expected = math.log(S) - torch.logsumexp(log_w.view(6, S), -1)
    assert_close(objective(out), expected)


def test_one_sample_is_the_evidence_of_both_layers():
    """-E log w, and KL(q(z2 | z1) || p(z2)) may stand in its closed form."""
    n = 20_000
    net, x, objective = layered(), normal(1, D).expand(n, D), bound(n_importance_samples=1)
    p = {name: 0.5 * value for name, value in starting(net).items()}
    out = passed(net, p, objective, x)
    raw, h2, _, prior = out.raw.split([D, 2 * K2, K2, 2 * K], -1)
    log_p = Independent(Normal(raw, math.sqrt(0.5)), 1).log_prob(x)
    mean, log_var = split(h2)
    divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)
    evidence = log_p + gaussian(prior).log_prob(out.z) - gaussian(out.h).log_prob(out.z)
    difference = objective(out) + evidence - divergence
    assert difference.std() > 0.01
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(n)


def test_the_bound_grows_with_the_samples():
    net, x = layered(), normal(30, D)
    whole = bound(n_importance_samples=12)
    out, before = passed(net, starting(net), whole, x), math.inf
    log_w = whole._log_weights(out, out.h)
    for S in (1, 2, 4, 12):
        mean = (math.log(S) - torch.logsumexp(log_w.unflatten(-1, (-1, S)), -1)).mean(-1)
        assert (mean <= before + 1e-12).all()
        before = mean
    assert torch.equal(before, whole(out))


def test_a_second_layer_that_says_nothing_is_one_layer():
    """Where p(z1 | z2) = N(0, I) and q(z2 | z1) = p(z2)."""
    net, x, objective = layered(), normal(6, D), bound(n_importance_samples=3)
    p = {n: torch.zeros_like(v) if n.startswith("top") else v for n, v in starting(net).items()}
    out = passed(net, p, objective, x)
    one = ImportanceWeighted(loss=objective.loss, n_importance_samples=3)
    assert_close(objective(out), one(out._replace(raw=out.raw[..., :D])))


def test_without_samples_both_codes_are_their_means():
    net, x = layered(samples=False), normal(6, D)
    p, objective = starting(net), bound(samples=False, n_importance_samples=1)
    out = passed(net, p, objective, x)
    _, h2, z2, _ = out.raw.split([D, 2 * K2, K2, 2 * K], -1)
    assert torch.equal(out.z, split(out.h)[0])
    assert torch.equal(z2, split(h2)[0])


# ---- gradients


def gradients(objective, seeds, net, copies=1):
    parameters, x = starting(net, seed=1), normal(5, D).repeat(copies, 1)
    found = {name: [] for name in ("encoder", "decoder", "top_encoder", "top_decoder")}
    for seed in seeds:
        got = step(Autograd, net, objective, x, parameters=parameters, streams=Streams([seed]))
        for name, each in found.items():
            each.append(torch.cat([g.flatten() for k, g in got.gradients.items()
                                   if k.startswith(f"{name}.")]))  # fmt: skip
    return {name: torch.stack(each) for name, each in found.items()}


def test_gradients_are_those_of_the_value():
    net, x, objective = layered(), normal(5, D), bound(n_importance_samples=3)
    parameters = starting(net, seed=1)
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    value = objective(passed(net, leaves, objective, x)).mean()
    expected = torch.autograd.grad(value, list(leaves.values()))
    got = step(Autograd, net, objective, x, parameters=parameters, streams=Streams([0]))
    assert_close(got.value, value.detach())
    assert_close(got.gradients, dict(zip(leaves, expected, strict=True)))
    assert all(bool(g.any()) for g in expected)


def test_doubly_reparameterised_gradients_have_the_same_expectation():
    plain, net, n = bound(n_importance_samples=8), layered(), 25
    doubly = dataclasses.replace(plain, gradient="doubly_reparameterized")
    a, b = (gradients(o, s, net, copies=80)["encoder"]
            for o, s in ((plain, range(n)), (doubly, range(n, 2 * n))))  # fmt: skip
    error = ((a.var(0) + b.var(0)) / n).sqrt()
    z = ((a.mean(0) - b.mean(0)) / error)[error > 0]
    assert z.square().mean() < 2  # 1 in expectation; of a wrong gradient, tens


def test_doubly_reparameterised_gradients_are_the_encoders_alone():
    plain, net = bound(n_importance_samples=8), layered()
    doubly = dataclasses.replace(plain, gradient="doubly_reparameterized")
    a, b = gradients(plain, range(2), net), gradients(doubly, range(2), net)
    for name in ("decoder", "top_encoder", "top_decoder"):
        assert_close(b[name], a[name])
    assert not torch.allclose(b["encoder"], a["encoder"])


# ---- a linear-Gaussian model, whose likelihood is known


def linear(W, b):
    """W z + b as a module."""
    made = nn.Linear(W.shape[1], W.shape[0], dtype=DOUBLE)
    made.weight, made.bias = nn.Parameter(W), nn.Parameter(b)
    return made


def constant_spread(A, c, log_var):
    """A Gaussian of mean A z + c, and variances that do not depend on z."""
    W = torch.cat([A, torch.zeros(len(log_var), A.shape[1], dtype=DOUBLE)])
    return linear(W, torch.cat([c, log_var]))


@pytest.fixture(scope="module")
def exact():
    """A linear model, and log p(x) of rows.

    x = W z1 + b + e, z1 = A z2 + c + e1: then x ~ N(b + W c, W (A A' + S) W' + s I).
    """
    s, W, b = 0.3, normal(D, K), normal(D, seed=1)
    A, c, log_var = normal(K, K2, seed=2), normal(K, seed=3), 0.3 * normal(K, seed=4)
    cov = W @ (A @ A.mT + torch.diag(log_var.exp())) @ W.mT + s * torch.eye(D, dtype=DOUBLE)
    marginal = MultivariateNormal(b + W @ c, cov)
    # q(z1 | x) has the right mean and the posterior's variances; q(z2 | z1) the same.
    prior = torch.linalg.inv(A @ A.mT + torch.diag(log_var.exp()))
    precision = prior + W.mT @ W / s
    B = torch.linalg.solve(precision, W.mT / s)
    shift = torch.linalg.solve(precision, prior @ c) - B @ b
    top_precision = torch.eye(K2, dtype=DOUBLE) + A.mT @ torch.diag((-log_var).exp()) @ A
    T = torch.linalg.solve(top_precision, A.mT @ torch.diag((-log_var).exp()))
    model = TwoLayerModel(
        constant_spread(B, shift, torch.linalg.inv(precision).diag().log()), linear(W, b),
        bound(loss=Gaussian(s)),
        constant_spread(T, -T @ c, torch.linalg.inv(top_precision).diag().log()),
        constant_spread(A, c, log_var),
    )  # fmt: skip
    x = marginal.mean + normal(8, D, seed=5) @ torch.linalg.cholesky(cov).mT
    return model, x, marginal


@torch.no_grad()
def test_many_samples_reach_the_exact_likelihood(exact):
    model, x, marginal = exact
    log_p = marginal.log_prob(x)
    assert (model.bound(x, 20_000) - log_p).abs().max() < 0.02
    scores = [float(model.bound(x, S).mean()) for S in (1, 5, 20_000)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1] - 0.1


@pytest.fixture(scope="module")
def matched():
    """The same where W has orthogonal columns and A is diagonal, so that q is the posterior."""
    s, x = 0.3, normal(6, D)
    scale = torch.tensor([2.0, 1.0, 0.5], dtype=DOUBLE)
    W = torch.linalg.qr(normal(D, K))[0] * scale
    a, v = torch.tensor([0.5, 1.0, 2.0], dtype=DOUBLE), torch.tensor([1.0, 0.3, 0.5], dtype=DOUBLE)
    nothing = torch.zeros(K, dtype=DOUBLE)
    precision = 1 / (a**2 + v) + scale**2 / s
    top = 1 + a**2 / v
    model = TwoLayerModel(
        constant_spread(W.mT / s / precision[:, None], nothing, -precision.log()),
        linear(W, torch.zeros(D, dtype=DOUBLE)),
        bound(loss=Gaussian(s), n_top_components=K),
        constant_spread(torch.diag(a / v / top), nothing, -top.log()),
        constant_spread(torch.diag(a), nothing, v.log()),
    )
    cov = W @ torch.diag(a**2 + v) @ W.mT + s * torch.eye(D, dtype=DOUBLE)
    return model, x, MultivariateNormal(torch.zeros(D, dtype=DOUBLE), cov)


@torch.no_grad()
def test_the_bound_is_the_likelihood_where_the_posterior_is_exact(matched):
    model, x, marginal = matched
    for S in (1, 3, 100):
        assert_close(model.bound(x, S), marginal.log_prob(x), 1e-10)


def test_doubly_reparameterised_gradients_have_no_noise_where_the_posterior_is_exact(matched):
    model, x, _ = matched
    net = layered((), k2=K)
    modules = (model.encoder, model.decoder, model.top_encoder, model.top_decoder)
    parameters = net.read(*modules)
    norms = {}
    for gradient in ("plain", "doubly_reparameterized"):
        objective = dataclasses.replace(model.objective, gradient=gradient)
        got = step(Autograd, net, objective, x, parameters=parameters).gradients
        norms[gradient] = float(got["encoder.0.W"].norm())
    assert norms["doubly_reparameterized"] < 1e-12
    assert norms["plain"] > 0.1


@torch.no_grad()
def test_samples_have_the_exact_moments(exact):
    model, _, marginal = exact
    rows = model.sample(20_000, K, Streams([0]).draws("latent", DOUBLE))
    scale = marginal.variance.sqrt()
    assert ((rows.mean(0) - marginal.mean) / scale).abs().max() < 0.05
    cov = torch.cov(rows.mT) - marginal.covariance_matrix
    assert (cov / scale / scale[:, None]).abs().max() < 0.05


@torch.no_grad()
def test_weighted_codes_are_the_posteriors_mean(exact):
    """Whatever q(z1 | x): here one that is shifted and too wide."""
    model, x, _ = exact
    right = split(model.encoder(x))[0]
    h = model.encoder(x) + joined(torch.full_like(right, 0.1), torch.full_like(right, 0.3))
    found = GaussianModel.mean_code(dataclasses.replace(model, encoder=Held(h)), x, 20_000)
    assert (found - right).abs().max() < 0.05


class Held(nn.Module):
    """Gives the same h for every x."""

    def __init__(self, h):
        super().__init__()
        self.h = h

    def forward(self, x):
        return self.h


@torch.no_grad()
def test_training_and_scoring_weigh_alike(exact):
    """The objective's weights, from the network's pass, are the trained model's at its draws."""
    model, x, _ = exact
    objective = bound(loss=model.objective.loss, n_importance_samples=4)
    h, epsilon = model.encoder(x), normal(4, K + K2, seed=6)
    drawn = model.at(x, h, epsilon)
    z = drawn.z.flatten(0, 1)
    h2 = model.top_encoder(z)
    z2 = split(h2)[0] + (0.5 * split(h2)[1]).exp() * epsilon[:, K:].repeat(len(x), 1)
    raw = torch.cat([model.decoder(z), h2, z2, model.top_decoder(z2)], -1)
    assert_close(objective._log_weights(Forward(x, x, h, z, raw), h), drawn.log_w)

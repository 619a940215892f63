"""The steps of the two players, against the formulas and torch's autograd."""

import math

import pytest
import torch
import torch.nn.functional as F

from skae._engine.adversarial import Game, Labelled, Part, discriminator_loss, generator_loss
from skae._engine.batches import make_source
from skae._engine.rng import Streams
from skae._engine.train import Run, Training
from skae.estimators._adversarial import Adversarial, AdversarialCategories
from skae.losses import SquaredError
from skae.networks import Dense, Network
from skae.objective import Objective, Rows
from skae.priors import Category, Gaussian
from skae.testing import check_objective

N, D, K = 12, 5, 2
DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


X = normal(N, D)
WEIGHT = torch.linspace(0.5, 1.5, N, dtype=DOUBLE)


def style():
    return Part(slice(0, K), Gaussian(), Dense("discriminator", (K, 4, 1), "tanh", "identity"))


def category(c=3):
    stack = Dense("discriminator", (c, 4, 1), "tanh", "identity")
    return Part(slice(K, K + c), Category(), stack)


def playing(game, width=K, rows=Rows(), objective=None, **numbers):  # noqa: B008
    """A run, and the game's steps in it."""
    objective = objective or Adversarial(loss=SquaredError())
    encoder = Dense("encoder", (D, 4, width), "tanh", "identity")
    network = Network(encoder, Dense("decoder", (width, 4, D), "tanh", "identity"))
    streams = Streams([0])
    initial = network.initial(streams.draws("init", DOUBLE))
    training = Training(batch_size=N, **numbers)
    run = Run(network, objective, make_source(X, DOUBLE), rows, training, streams, initial)
    return run, game(run)


def copied(parameters):
    return {name: p.clone().requires_grad_() for name, p in parameters.items()}


def logits(discriminator, z, parameters=None):
    parameters = discriminator.buffer.parameters if parameters is None else parameters
    return discriminator.part.discriminator.forward(parameters, z)


# ---- the losses


def test_losses_are_log_4_and_log_2_where_nothing_can_be_told():
    undecided = torch.zeros(7, 1, dtype=DOUBLE)
    assert float(discriminator_loss(undecided, undecided)) == pytest.approx(math.log(4))
    assert float(generator_loss(undecided)) == pytest.approx(math.log(2))


def test_losses_are_the_cross_entropies_of_the_paper():
    a, b = normal(9, 1), normal(9, 1, seed=1)
    D_a, D_b = torch.sigmoid(a), torch.sigmoid(b)
    expected = -(D_a.log()).mean() - ((1 - D_b).log()).mean()
    torch.testing.assert_close(discriminator_loss(a, b), expected)
    torch.testing.assert_close(generator_loss(b), -D_b.log().mean())


def test_smoothing_is_that_of_the_draws_alone():
    a, b = normal(9, 1), normal(9, 1, seed=1)
    entropy = F.binary_cross_entropy_with_logits
    expected = entropy(a, torch.full_like(a, 0.9)) + entropy(b, torch.zeros_like(b))
    torch.testing.assert_close(discriminator_loss(a, b, smoothing=0.1), expected)


def test_weights_count_for_codes():
    a, b = normal(4, 1), normal(4, 1, seed=1)
    weight = torch.tensor([2.0, 0.0, 1.0, 1.0], dtype=DOUBLE)
    again = b[[0, 0, 2, 3]]
    torch.testing.assert_close(discriminator_loss(a, b, weight), discriminator_loss(a, again))
    torch.testing.assert_close(generator_loss(b, weight), generator_loss(again))


def test_the_best_discriminator_tells_the_divergence():
    """Its loss is log 4 less twice the Jensen-Shannon divergence, at log p / q."""
    p, q = torch.tensor([4.0, 3.0, 1.0], dtype=DOUBLE), torch.tensor([1.0, 3.0, 4.0], dtype=DOUBLE)
    optimum = (p / q).log().requires_grad_()
    prior, code = (optimum.repeat_interleave(n.long()).unsqueeze(-1) for n in (p, q))
    loss = discriminator_loss(prior, code)
    m = (p + q) / 2
    divergence = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 16
    assert loss.item() == pytest.approx(math.log(4) - 2 * divergence.item())
    (gradient,) = torch.autograd.grad(loss, optimum)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


# ---- the steps


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_generators_gradient_is_that_of_the_formula(weight):
    run, steps = playing(Game(parts=(style(),)), rows=Rows(weight=weight))
    before = copied(run.buffer.parameters)
    steps.step(X, run.rows, 1.0)
    D_z = torch.sigmoid(logits(steps.discriminators[0], run.network.encoder.forward(before, X)))
    each = -D_z.log().squeeze(-1)
    loss = each.mean() if weight is None else (weight * each).mean()
    encoder = [name for name in before if name.startswith("encoder.")]
    expected = torch.autograd.grad(loss, [before[name] for name in encoder])
    for name, gradient in zip(encoder, expected, strict=True):
        torch.testing.assert_close(steps.gradients[name], gradient)
    assert all(not g.any() for name, g in steps.gradients.items() if name not in encoder)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_the_discriminators_gradient_is_that_of_the_formula(weight):
    run, steps = playing(Game(parts=(style(),)), rows=Rows(weight=weight))
    discriminator = steps.discriminators[0]
    before = copied(discriminator.buffer.parameters)
    z = run.network.encoder.forward(run.buffer.parameters, X)
    drawn = Gaussian().draw(N, K, Streams([0]).draws("prior", DOUBLE))
    steps.step(X, run.rows, 1.0)
    of_prior = torch.sigmoid(logits(discriminator, drawn, before)).log().mean()
    of_code = (1 - torch.sigmoid(logits(discriminator, z, before))).log().squeeze(-1)
    of_code = of_code.mean() if weight is None else (weight * of_code).mean()
    expected = torch.autograd.grad(-of_prior - of_code, list(before.values()))
    for name, gradient in zip(before, expected, strict=True):
        torch.testing.assert_close(discriminator.buffer.gradients[name], gradient)


def test_a_step_moves_the_encoder_and_the_discriminator_but_not_the_decoder():
    run, steps = playing(Game(parts=(style(),)))
    before = {name: p.clone() for name, p in run.buffer.parameters.items()}
    told = steps.discriminators[0].buffer.flat.clone()
    steps.step(X, Rows(), 1.0)
    moved = {name for name, p in run.buffer.parameters.items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith("encoder.")}
    assert not torch.equal(steps.discriminators[0].buffer.flat, told)


def test_rate_zero_leaves_codes_alone_and_still_tells_them_apart():
    game = Game(parts=(style(),), generator_rate=0.0, discriminator_rate=0.02)
    run, steps = playing(game)
    before = run.buffer.flat.clone()
    for _ in range(200):
        steps.step(X, Rows(), 1.0)
    steps.end_epoch()
    assert torch.equal(run.buffer.flat, before)
    assert 0 < float(steps.report()["discriminator_curve"]) / 200 < math.log(4)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_steps_are_those_of_torchs_optimisers(solver):
    game = Game(parts=(style(),), generator_rate=0.01, momentum=0.5)
    run, steps = playing(game, solver=solver)
    twin = run.buffer.flat.clone().requires_grad_()
    made = {"adam": lambda: torch.optim.Adam([twin], lr=0.01, betas=(0.5, 0.999)),
            "sgd": lambda: torch.optim.SGD([twin], lr=0.01, momentum=0.5)}[solver]()  # fmt: skip
    for factor in (1.0, 0.5):
        steps.step(X, Rows(), factor)
        made.param_groups[0]["lr"] = 0.01 * factor
        twin.grad = steps.grad.clone()
        made.step()
    torch.testing.assert_close(run.buffer.flat, twin.detach())


def test_labelled_rows_are_held_to_their_categories():
    c = 3
    y = torch.arange(6) % c
    target = torch.eye(c, dtype=DOUBLE)[y]
    weight = torch.tensor([0.5, 1.5, 1.0, 1.0, 0.5, 1.5], dtype=DOUBLE)
    labelled = Labelled(make_source(X[:6], DOUBLE), Rows(weight=weight, target=target))
    game = Game(parts=(style(), category(c)), labelled=labelled, generator_rate=0.0)
    objective = AdversarialCategories(loss=SquaredError(), n_clusters=c)
    run, steps = playing(game, K + c, objective=objective, shuffle=False)
    before = copied(run.buffer.parameters)
    steps.step(X, Rows(), 1.0)
    h = run.network.encoder.forward(before, X[:6])
    loss = (weight * F.cross_entropy(h[:, K:], y, reduction="none")).mean()
    encoder = [name for name in before if name.startswith("encoder.")]
    for name, gradient in zip(
        encoder, torch.autograd.grad(loss, [before[name] for name in encoder]), strict=True
    ):
        torch.testing.assert_close(steps.gradients[name], gradient)


def test_curves_are_means_over_the_rows():
    _, steps = playing(Game(parts=(style(),)))
    discriminator, told = steps.discriminators[0], []
    take, pass_off = discriminator.step, discriminator.generator_loss
    discriminator.step = lambda *given: told.append(take(*given)) or told[-1]
    discriminator.generator_loss = lambda *given: told.append(pass_off(*given)) or told[-1]
    for x in (X[:8], X[8:]):
        steps.step(x, Rows(), 1.0)
    steps.end_epoch()
    first, second = torch.stack(told).detach().view(2, 2, 1)
    expected = (8 * first + 4 * second) / N
    torch.testing.assert_close(steps.curves[0], expected)
    assert not steps.total.any()
    report = steps.report()
    assert report["generator_curve"].shape == (1, 1)
    torch.testing.assert_close(report["generator_curve"][0], expected[1])


def test_noise_is_on_all_that_a_discriminator_sees():
    _, steps = playing(Game(parts=(style()._replace(noise=0.3),)))
    discriminator = steps.discriminators[0]
    z = torch.zeros(4, K, dtype=DOUBLE)
    a, b = (discriminator.logit(z, discriminator.buffer.parameters) for _ in range(2))
    assert not torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


# ---- the objective


@pytest.mark.parametrize(
    "objective",
    [
        Adversarial(loss=SquaredError(), generator_learning_rate_init=0.1),
        AdversarialCategories(loss=SquaredError(), generator_learning_rate_init=0.1, n_clusters=2),
    ],
)
def test_objective_keeps_the_contract(objective):
    check_objective(objective)


def test_noise_is_named_after_the_rate_that_brings_it():
    assert Adversarial(loss=SquaredError()).noise == "generator_learning_rate_init"
    assert Adversarial(loss=SquaredError(), generator_learning_rate_init=0.0).noise is None
    assert Objective(loss=SquaredError()).noise is None

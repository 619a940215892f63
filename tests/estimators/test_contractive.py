"""Facts about the contractive autoencoder."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler
from torch import nn
from toys import D, K, assert_close, assert_engines_agree, network, normal, starting, step

from skae import Autoencoder, ContractiveAutoencoder
from skae._engine.autograd import Autograd
from skae._engine.fused import Fused
from skae._engine.rng import Streams
from skae.activations import ACTIVATIONS
from skae.estimators.contractive import (
    DeepContraction,
    HigherOrderDeepContraction,
    HigherOrderLayerContraction,
    LayerContraction,
)
from skae.losses import BinaryCrossEntropy, SquaredError
from skae.objective import Forward
from skae.testing import check_objective

NAMES = sorted(set(ACTIVATIONS) - {"exp"})


def quick(**changed):
    """One that trains in a few milliseconds."""
    fixed = {"n_components": 4, "max_iter": 5, "tol": None, "random_state": 0}
    return ContractiveAutoencoder(**fixed | changed)


def full_batch(**changed):
    return quick(**{"solver": "lbfgs", "max_iter": 60} | changed)


def same_weights(a, b):
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


@pytest.fixture(scope="module")
def pixels(digits):
    return digits[:200] / 16


# ---- the objectives


@pytest.mark.parametrize("name", NAMES)
def test_layer_keeps_the_contract_for_every_activation(name):
    objective = LayerContraction(loss=SquaredError(), contraction=0.3, activation=name)
    check_objective(objective, code_activation=name)


@pytest.mark.parametrize("name", NAMES)
def test_second_order_layer_keeps_the_contract_for_every_activation(name):
    objective = HigherOrderLayerContraction(
        loss=SquaredError(), contraction=0.3, activation=name, hessian=0.4, hessian_noise=0.5
    )
    check_objective(objective, code_activation=name)


@pytest.mark.parametrize("changed", [{}, {"jacobian": "estimate", "n_probes": 2}])
@pytest.mark.parametrize("kind", [DeepContraction, HigherOrderDeepContraction])
@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy()])
def test_deep_form_keeps_the_contract(loss, kind, changed):
    check_objective(kind(loss=loss, contraction=0.3, **changed))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("hessian", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_closed_form_is_what_differentiating_through_the_layer_gives(name, hessian, tied):
    net = network((), code=name, tied=tied, center=normal(D, seed=2))
    shared = {"loss": SquaredError(), "contraction": 0.3}
    second = {"hessian": hessian, "hessian_noise": 0.5}
    layer = (
        HigherOrderLayerContraction(activation=name, **second, **shared)
        if hessian
        else LayerContraction(activation=name, **shared)
    )
    x = normal(7, D)
    deep = HigherOrderDeepContraction(**second, **shared) if hessian else DeepContraction(**shared)
    expected = step(Autograd, net, deep, x)
    for engine in (Fused, Autograd):
        got = step(engine, net, layer, x)
        assert_close(got.value, expected.value)
        assert_close(got.gradients, expected.gradients)


def test_layer_in_the_units_of_the_data_is_the_layer():
    """Gains stand between the stored weights and those of X."""
    net = network((), center=normal(D, seed=2), gains=(0.7, 1.3))
    for objective in (
        LayerContraction(loss=SquaredError()),
        HigherOrderLayerContraction(loss=SquaredError(), hessian=0.4),
    ):
        assert_engines_agree(net, objective, normal(7, D))
    deep = step(Autograd, net, DeepContraction(loss=SquaredError()), normal(7, D))
    assert_close(step(Fused, net, LayerContraction(loss=SquaredError()), normal(7, D)).value,
                 deep.value)  # fmt: skip


def encoder_pass(hidden=(4,), n=6):
    """A forward pass of a random encoder, and its Jacobians of shape (n, k, d)."""
    net = network(hidden)
    parameters = starting(net)
    x = normal(n, D).requires_grad_()
    h = net.encoder.forward(parameters, x)
    rows = [torch.autograd.grad(unit.sum(), x, retain_graph=True)[0] for unit in h.unbind(-1)]

    def encoder(x):
        return net.encoder.forward(parameters, x)

    return Forward(x, x, h, h, x, encoder=encoder), torch.stack(rows, -2)


class Signs:
    """Draws the given rows of signs, one a call."""

    def __init__(self, rows):
        self.rows = iter(rows)

    def bernoulli(self, p, like):
        return torch.tensor(next(self.rows)).to(like).expand_as(like)


def test_exact_penalty_is_the_squared_norm_of_the_jacobian():
    out, J = encoder_pass()
    penalty = DeepContraction(loss=SquaredError(), contraction=0.3).penalty(out, {})
    assert_close(penalty.detach(), 0.3 * J.square().sum((-2, -1)))


def test_estimate_over_all_signs_is_the_exact_norm():
    out, J = encoder_pass()
    signs = list(itertools.product([0.0, 1.0], repeat=K))
    estimate = DeepContraction(
        loss=SquaredError(), contraction=1.0, jacobian="estimate", n_probes=len(signs)
    )
    penalty = estimate.penalty(out._replace(rng=Signs(signs)), {})
    assert_close(penalty.detach(), J.square().sum((-2, -1)))


def test_estimate_by_draws_lies_within_four_standard_errors():
    out, J = encoder_pass(n=3)
    probe = DeepContraction(loss=SquaredError(), contraction=1.0, jacobian="estimate", n_probes=1)
    out = out._replace(rng=Streams([0]).draws("penalty", J.dtype))
    draws = torch.stack([probe.penalty(out, {}).detach() for _ in range(1000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - J.square().sum((-2, -1))).abs() < 4 * error).all()
    several = DeepContraction(loss=SquaredError(), contraction=1.0, jacobian="estimate",
                              n_probes=10)  # fmt: skip
    fewer = torch.stack([several.penalty(out, {}).detach() for _ in range(100)])
    assert (fewer.std(0) < 0.5 * draws.std(0)).all()


def test_second_order_penalty_compares_jacobians_nearby():
    out, J = encoder_pass()
    objective = HigherOrderDeepContraction(
        loss=SquaredError(), contraction=0.0, hessian=1.0, hessian_noise=0.2
    )
    penalty = objective.penalty(out._replace(rng=Streams([0]).draws("penalty", J.dtype)), {})
    e = Streams([0]).draws("penalty", J.dtype).normal(out.x)
    near = (out.x + 0.2 * e).detach().requires_grad_()
    h = out.encoder(near)
    rows = [torch.autograd.grad(unit.sum(), near, retain_graph=True)[0] for unit in h.unbind(-1)]
    assert_close(penalty.detach(), (J - torch.stack(rows, -2)).square().sum((-2, -1)))


def test_a_linear_encoder_has_no_second_order():
    x, a = normal(6, D), normal(6, K)
    out = Forward(x, x, a, a, x, a=a, rng=Streams([0]).draws("penalty", x.dtype))
    objective = HigherOrderLayerContraction(
        loss=SquaredError(), contraction=0.0, activation="identity", hessian=1.0
    )
    assert not objective.penalty(out, {"encoder.0.W": normal(K, D)}).any()


def test_dropout_does_not_change_which_jacobian_is_penalised():
    out, J = encoder_pass()
    dropped = out._replace(h=out.h * (normal(6, K) > 0))  # what a pass under masks gives
    objective = DeepContraction(loss=SquaredError(), contraction=1.0, dropout=0.5)
    assert_close(objective.penalty(dropped, {}).detach(), J.square().sum((-2, -1)))


# ---- the paper's units


def test_ten_rows_give_the_papers_j_cae(pixels):
    X = pixels[:10]
    n, d = X.shape
    lam = 0.1
    model = full_batch(contraction=lam / d, loss="binary_cross_entropy").fit(X)
    W, c, b = model.coefs_[0].T, model.intercepts_[1], model.intercepts_[0]
    H = 1 / (1 + np.exp(-(X @ W.T + b)))
    X_hat = 1 / (1 + np.exp(-(H @ W + c)))
    L = -(X * np.log(X_hat) + (1 - X) * np.log(1 - X_hat)).sum(1)
    J = [np.diag(h * (1 - h)) @ W for h in H]
    J_CAE = (L + lam * np.array([np.linalg.norm(j, "fro") ** 2 for j in J])).sum()
    assert n * d * model.loss_ == pytest.approx(J_CAE, rel=1e-10)


def by_differences(model, X, step=1e-5):
    """|J_f(x)|_F from central differences of `transform`."""
    squares = 0.0
    for i in range(X.shape[1]):
        e = step * np.eye(X.shape[1])[i]
        squares += (((model.transform(X + e) - model.transform(X - e)) / (2 * step)) ** 2).sum(1)
    return np.sqrt(squares)


@pytest.mark.parametrize("name", ["logistic", "tanh", "identity", "softplus", "gelu"])
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_jacobian_norm_is_that_of_transform(X, hidden, name):
    model = quick(hidden_layer_sizes=hidden, code_activation=name, activation="tanh").fit(X)
    np.testing.assert_allclose(model.jacobian_norm(X), by_differences(model, X), rtol=1e-6)


def test_jacobian_norm_of_a_module_of_ones_own(X):
    encoder = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    model = quick(n_components=None, encoder=encoder, tied_weights=False).fit(X)
    np.testing.assert_allclose(model.jacobian_norm(X), by_differences(model, X), rtol=1e-6)
    assert model.jacobian_norm(X.astype(np.float32)).dtype == np.float32


def test_jacobian_norm_leaves_no_gradients_behind(X):
    model = quick(hidden_layer_sizes=(5,)).fit(X)
    model.jacobian_norm(X)
    assert all(p.grad is None for p in model.encoder_.parameters())


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_loss_is_the_error_plus_the_jacobian_norm(X, hidden):
    model = full_batch(hidden_layer_sizes=hidden, activation="tanh", contraction=0.3).fit(X)
    penalised = model.reconstruction_error(X) + 0.3 * model.jacobian_norm(X) ** 2
    assert model.loss_ == pytest.approx(penalised.mean(), rel=1e-10)


# ---- what the penalty does


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_zero_contraction_is_the_plain_autoencoder(X, solver, hidden):
    shared = {"n_components": 4, "max_iter": 10, "tol": None, "random_state": 0, "batch_size": 16,
              "solver": solver, "hidden_layer_sizes": hidden, "code_activation": "logistic",
              "tied_weights": True, "learning_rate_init": 1e-4}  # fmt: skip
    plain = Autoencoder(**shared).fit(X)
    assert same_weights(ContractiveAutoencoder(contraction=0.0, **shared).fit(X), plain)


def test_contraction_of_zero_strength_changes_no_gradient():
    x, net = normal(7, D), network((), tied=True)
    zero = step(Fused, net, LayerContraction(loss=SquaredError(), contraction=0.0), x)
    plain = step(Fused, net, Autoencoder()._objective(), x)
    assert torch.equal(zero.value, plain.value)
    for name, gradient in plain.gradients.items():
        assert torch.equal(zero.gradients[name], gradient)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_jacobian_norm_falls_as_the_weight_grows(pixels, hidden):
    fixed = {"hidden_layer_sizes": hidden, "activation": "tanh", "max_iter": 40}
    norms = [
        full_batch(contraction=c, **fixed).fit(pixels).jacobian_norm(pixels).mean()
        for c in (0.0, 1e-3, 1e-2, 1e-1)
    ]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 0.5 * norms[0]


def test_second_order_penalty_bends_the_encoder_less(pixels):
    def bend(model):
        e = 0.3 * np.random.default_rng(0).normal(size=pixels.shape)
        W = model.coefs_[0]
        s, s_near = (h * (1 - h) for h in (model.transform(pixels), model.transform(pixels + e)))
        return (((s - s_near) ** 2) * (W**2).sum(0)).sum(1).mean()

    fixed = {"contraction": 1e-3, "hessian_noise": 0.3, "max_iter": 100, "batch_size": 50,
             "learning_rate_init": 1e-2}  # fmt: skip
    with_it, without = (quick(hessian=g, **fixed).fit(pixels) for g in (1.0, 0.0))
    assert bend(with_it) < 0.5 * bend(without)


def test_untied_weights_lower_the_penalty_by_scale_alone(pixels):
    tied = full_batch(contraction=0.01).fit(pixels)
    untied = full_batch(contraction=0.01, tied_weights=False).fit(pixels)
    encoder, decoder = map(np.linalg.norm, untied.coefs_)
    assert encoder < 0.5 * decoder
    assert untied.jacobian_norm(pixels).mean() < tied.jacobian_norm(pixels).mean()


def test_contraction_makes_codes_robust_relative_to_their_spread(digits):
    X = StandardScaler().fit_transform(digits)[:400]
    noisy = X + 0.3 * np.random.default_rng(0).normal(size=X.shape)

    def movement(model):
        Z = model.transform(X)
        return ((model.transform(noisy) - Z) ** 2).sum() / ((Z - Z.mean(0)) ** 2).sum()

    fixed = {"n_components": 16, "max_iter": 100}
    moved = [movement(full_batch(contraction=c, **fixed).fit(X)) for c in (0.0, 0.1)]
    assert moved[1] < 0.8 * moved[0]


def test_ten_noise_seeds_end_alike_where_a_noisy_objective_scatters(pixels):
    fixed = {"n_components": 4, "tied_weights": True, "hidden_layer_sizes": (),
             "code_activation": "logistic", "tol": None}  # fmt: skip
    start = Autoencoder(max_iter=1, random_state=0, **fixed).fit(pixels)

    def ends(kind, **changed):
        models = [
            kind(initialize_from=start, random_state=seed, **fixed | changed).fit(pixels)
            for seed in range(10)
        ]
        return np.array([model.coefs_[0] for model in models])

    contractive = ends(ContractiveAutoencoder, contraction=0.01, solver="lbfgs", max_iter=20)
    noisy = ends(Autoencoder, input_dropout=0.3, shuffle=False, max_iter=20)
    assert np.ptp(contractive, axis=0).max() == 0.0
    assert np.ptp(noisy, axis=0).max() > 1e-3


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_second_order_solvers_lower_the_objective(X, solver, hidden):
    model = quick(solver=solver, hidden_layer_sizes=hidden, max_iter=30).fit(X)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert (np.diff(model.loss_curve_) <= 1e-12).all()


# ---- which form, and what is refused


@pytest.mark.parametrize(
    ("changed", "kind", "path"),
    [
        ({}, LayerContraction, "fused"),
        ({"hessian": 0.1}, HigherOrderLayerContraction, "fused"),
        ({"hidden_layer_sizes": (5,)}, DeepContraction, "autograd"),
        ({"jacobian": "estimate"}, DeepContraction, "autograd"),
        ({"hidden_layer_sizes": 5, "hessian": 0.1}, HigherOrderDeepContraction, "autograd"),
        ({"encoder": nn.Linear(5, 4), "tied_weights": False}, DeepContraction, "autograd"),
        ({"decoder": nn.Linear(4, 5), "tied_weights": False}, LayerContraction, "autograd"),
    ],
)
def test_one_dense_layer_takes_the_closed_form(X, changed, kind, path):
    model = quick(**changed).fit(X)
    assert type(model.objective_) is kind
    assert model.engine_.path == path


def test_number_of_probes_changes_the_draws_only(X):
    fixed = {"jacobian": "estimate", "hidden_layer_sizes": (5,), "activation": "tanh"}
    one, eight = (quick(n_probes=n, **fixed).fit(X) for n in (1, 8))
    assert not same_weights(one, eight)
    np.testing.assert_allclose(one.loss_curve_, eight.loss_curve_, rtol=0.2)


@pytest.mark.parametrize(
    ("changed", "given"),
    [({"hessian": 0.1}, "hessian=0.1"), ({"jacobian": "estimate"}, "jacobian=estimate")],
)
@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_refuse_what_draws_noise(X, solver, changed, given):
    with pytest.raises(ValueError, match=f"deterministic objective, but {given} draws noise"):
        quick(solver=solver, **changed).fit(X)


@pytest.mark.parametrize("changed", [{"contraction": -1.0}, {"hessian": -1.0},
                                     {"hessian_noise": 0.0}, {"jacobian": "forward"},
                                     {"n_probes": 0}])  # fmt: skip
def test_parameters_out_of_range_are_refused(X, changed):
    with pytest.raises(ValueError, match=f"The '{next(iter(changed))}' parameter"):
        quick(**changed).fit(X)


def test_an_encoder_of_ones_own_needs_untied_weights(X):
    with pytest.raises(ValueError, match="or set tied_weights=False"):
        quick(encoder=nn.Linear(5, 4)).fit(X)


@pytest.mark.parametrize("changed", [{}, {"contraction": 0.0, "hessian": 0.1}])
def test_an_encoder_that_normalises_by_the_batch_is_refused(X, changed):
    def layers():
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Sigmoid())

    own = {"encoder": layers(), "tied_weights": False, "n_components": None}
    with pytest.raises(ValueError, match=r"encoder normalises by the batch.*set both to 0"):
        quick(**own | changed).fit(X)
    quick(**own | {"contraction": 0.0}).fit(X)
    quick(**own | {"encoder": layers().eval()} | changed).fit(X)
    decoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    quick(decoder=decoder, tied_weights=False, **changed).fit(X)


@pytest.mark.parametrize("changed", [{"hessian": 0.1}, {"jacobian": "estimate"},
                                     {"hidden_layer_sizes": (5,), "dropout": 0.3}])  # fmt: skip
def test_one_seed_gives_one_result(X, changed):
    model = quick(batch_size=16, **changed).fit(X)
    again = clone(model).fit(X)
    other = clone(model).set_params(random_state=1).fit(X)
    assert same_weights(model, again)
    assert not same_weights(model, other)

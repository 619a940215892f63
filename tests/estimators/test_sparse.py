"""Facts about the sparse autoencoder."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from toys import assert_close, normal

from skae import Autoencoder, SparseAutoencoder
from skae.estimators.sparse import KLSparsity, L1Sparsity, RunningKLSparsity
from skae.losses import BinaryCrossEntropy, SquaredError
from skae.objective import Forward, Rows
from skae.penalties import bernoulli_kl
from skae.testing import check_objective

OBJECTIVES = [
    KLSparsity(loss=SquaredError(), rho=0.2, beta=0.7),
    KLSparsity(loss=BinaryCrossEntropy(), rho=0.2, beta=0.7),
    RunningKLSparsity(loss=SquaredError(), rho=0.2, beta=0.7, decay=0.8),
    L1Sparsity(loss=SquaredError(), beta=0.3),
]


def quick(**changed):
    """One that trains in a few milliseconds."""
    fixed = {"n_components": 4, "max_iter": 5, "tol": None, "random_state": 0}
    return SparseAutoencoder(**fixed | changed)


def full_batch(**changed):
    return quick(**{"solver": "lbfgs", "max_iter": 60} | changed)


def same_weights(a, b):
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


def kl(rho, rho_hat):
    return rho * np.log(rho / rho_hat) + (1 - rho) * np.log((1 - rho) / (1 - rho_hat))


@pytest.fixture(scope="module")
def pixels(digits):
    return digits[:300] / 16


# ---- the objective


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{type(o).__name__}, {o.loss}")
def test_objective_keeps_the_contract(objective):
    check_objective(objective)


@pytest.mark.parametrize("kind", [KLSparsity, RunningKLSparsity])
def test_objective_keeps_the_contract_with_tanh_codes(kind):
    objective = kind(loss=SquaredError(), rho=0.3, beta=0.7, code_activation="tanh")
    check_objective(objective, code_activation="tanh")


@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy()])
def test_absolute_activations_of_any_sign_have_the_closed_form(loss):
    check_objective(L1Sparsity(loss=loss, beta=0.3), code_activation="tanh")


@pytest.mark.parametrize("changed", [{"beta": 0.0}, {"beta": 0.0, "penalty": "l1"},
                                     {"beta": 0.0, "rho_estimate": "running"}])  # fmt: skip
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_zero_beta_is_the_plain_autoencoder(X, solver, changed):
    shared = {
        "n_components": 4,
        "max_iter": 10,
        "tol": None,
        "random_state": 0,
        "solver": solver,
        "batch_size": 16,
        "hidden_layer_sizes": (),
        "code_activation": "logistic",
    }
    assert same_weights(SparseAutoencoder(**shared | changed).fit(X), Autoencoder(**shared).fit(X))


# ---- the sources' units, ten rows in NumPy


def forward(model, X):
    """Codes and reconstructions of a network with logistic codes and outputs."""
    (W1, W2), (b1, b2) = model.coefs_, model.intercepts_
    H = 1 / (1 + np.exp(-(X @ W1 + b1)))
    return H, 1 / (1 + np.exp(-(H @ W2 + b2))), (W1, W2)


def test_ten_rows_give_the_lectures_r_sparse(pixels):
    X = pixels[:10]
    n, d = X.shape
    lam, beta, rho = 0.3, 3.0, 0.1
    model = full_batch(
        rho=rho, beta=beta / (n * d), alpha=2 * lam / (n * d), output_activation="logistic"
    ).fit(X)
    H, X_hat, (W1, W2) = forward(model, X)
    R_sparse = (
        ((X - X_hat) ** 2).sum()
        + lam * ((W1**2).sum() + (W2**2).sum())
        + beta * kl(rho, H.mean(0)).sum()
    )
    assert n * d * model.loss_ == pytest.approx(R_sparse, rel=1e-10)


def test_ten_rows_give_the_tutorials_objective(pixels):
    X = pixels[:10]
    d = X.shape[1]
    lam, beta, rho = 3e-3, 3.0, 0.1
    model = full_batch(
        rho=rho, beta=2 * beta / d, alpha=2 * lam / d, output_activation="logistic"
    ).fit(X)
    H, X_hat, (W1, W2) = forward(model, X)
    J_sparse = (
        0.5 * ((X - X_hat) ** 2).sum(1).mean()
        + lam / 2 * ((W1**2).sum() + (W2**2).sum())
        + beta * kl(rho, H.mean(0)).sum()
    )
    assert d / 2 * model.loss_ == pytest.approx(J_sparse, rel=1e-10)


def test_l1_is_the_sum_of_absolute_codes(pixels):
    model = full_batch(penalty="l1", code_activation="identity", beta=0.02).fit(pixels)
    error = model.reconstruction_error(pixels) + 0.02 * np.abs(model.transform(pixels)).sum(1)
    assert model.loss_ == pytest.approx(error.mean(), rel=1e-10)


# ---- what the penalty does


def test_mean_activation_approaches_rho_as_beta_grows(pixels):
    away = [
        np.abs(full_batch(rho=0.05, beta=beta).fit(pixels).rho_hat_ - 0.05).max()
        for beta in (0.0, 1e-3, 1e-1, 10.0)
    ]
    assert away == sorted(away, reverse=True)
    assert away[0] > 0.1
    assert away[-1] < 1e-3


def test_absolute_codes_shrink_as_beta_grows(pixels):
    means = [
        full_batch(penalty="l1", code_activation="relu", beta=beta).fit(pixels).rho_hat_.mean()
        for beta in (0.0, 1e-3, 1e-2)
    ]
    assert means == sorted(means, reverse=True)


def test_code_may_be_wider_than_the_data(pixels):
    wide = {"n_components": 100, "rho": 0.1, "max_iter": 100}
    sparse = full_batch(beta=0.1, **wide).fit(pixels)
    assert sparse.transform(pixels).shape == (len(pixels), 100)
    assert np.abs(sparse.rho_hat_ - 0.1).max() < 0.05
    assert sparse.score(pixels) > -0.5 * pixels.var(0).mean()


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_reported_mean_activation_is_that_of_transform(pixels, solver, hidden):
    w = np.arange(len(pixels)) % 3
    model = quick(solver=solver, hidden_layer_sizes=hidden).fit(pixels, sample_weight=w)
    expected = np.average(model.transform(pixels), axis=0, weights=w)
    np.testing.assert_allclose(model.rho_hat_, expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reported_mean_activation_has_the_dtype_of_x(pixels, dtype):
    assert quick().fit(pixels.astype(dtype)).rho_hat_.dtype == dtype


def test_mean_activation_of_tanh_is_measured_from_its_lower_end(pixels):
    model = full_batch(code_activation="tanh", rho=0.1, beta=10.0).fit(pixels)
    np.testing.assert_allclose(model.rho_hat_, (1 + model.transform(pixels).mean(0)) / 2)
    assert np.abs(model.rho_hat_ - 0.1).max() < 0.01


def test_units_driven_to_their_ends_train_on(pixels):
    X = pixels.astype(np.float32)
    extreme = np.where(np.arange(len(X)) % 2, 1e6, -1e6).astype(np.float32)
    model = quick(beta=10.0).fit(X + extreme[:, None])
    assert np.isfinite(model.loss_curve_).all()
    assert np.isfinite(model.rho_hat_).all()


# ---- batches and weights


def test_penalty_of_batches_exceeds_that_of_all_rows_as_documented():
    rho, b = 0.2, 50
    h = normal(5000, 3).mul(0.3).sub(1.4).sigmoid()
    whole = bernoulli_kl(rho, h.mean(0)).sum()
    parts = torch.stack([bernoulli_kl(rho, part.mean(0)).sum() for part in h.split(b)])
    excess = float(parts.mean() - whole)
    stated = float(h.var(0).sum()) / (2 * b * rho * (1 - rho))
    assert excess == pytest.approx(stated, rel=0.3)


def test_integer_weights_are_repeated_rows(pixels):
    w = np.arange(len(pixels)) % 3
    weighted = full_batch(max_iter=5).fit(pixels, sample_weight=w)
    repeated = full_batch(max_iter=5).fit(np.repeat(pixels, w, axis=0))
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(weighted.rho_hat_, repeated.rho_hat_, rtol=1e-6)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_see_all_rows_whatever_the_estimate(pixels, solver):
    models = [
        quick(solver=solver, rho_estimate=e, batch_size=10).fit(pixels)
        for e in ("batch", "running")
    ]
    assert same_weights(*models)
    model = models[0]
    penalty = model.beta * kl(model.rho, model.transform(pixels).mean(0)).sum()
    expected = model.reconstruction_error(pixels).mean() + penalty
    assert model.loss_ == pytest.approx(expected, rel=1e-10)


def test_running_average_weighs_the_batches_by_their_age():
    objective = RunningKLSparsity(loss=SquaredError(), decay=0.75)
    batches = [normal(6, 2, seed=seed).sigmoid() for seed in range(3)]
    state = objective.init_state(5, 2)
    for h in batches:
        out = Forward(h, h, h, h, h, state=state)
        seen = objective.rho_hat(out)
        state = objective.update(state, out)
    means = [h.mean(0) for h in batches]
    expected = (0.75**2 * means[0] + 0.75 * means[1] + means[2]) / (0.75**2 + 0.75 + 1)
    assert_close(seen.squeeze(0), expected)
    assert_close(state["rho_hat"], expected)


def test_gradient_under_a_running_average_counts_the_batch_in_full():
    """Where average and batch agree it is the batch's, whatever the decay."""
    h, share = normal(6, 2).sigmoid(), torch.ones(1, 1).double()
    mean = h.mean(0)
    state = {"rho_hat": mean, "sum": mean, "mass": torch.ones(1).double()}
    out = Forward(h, h, h, h, h, state=state)
    running = RunningKLSparsity(loss=SquaredError(), decay=0.99)
    batch = KLSparsity(loss=SquaredError())
    assert_close(
        running.penalty_and_gradient(out, {}, share)[1],
        batch.penalty_and_gradient(out, {}, share)[1],
    )


def test_running_average_without_memory_is_the_batch(pixels):
    shared = {"batch_size": 32, "max_iter": 3}
    running = quick(rho_estimate="running", rho_decay=0.0, **shared).fit(pixels)
    batch = quick(**shared).fit(pixels)
    for a, b in zip(running.coefs_, batch.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    remembering = quick(rho_estimate="running", rho_decay=0.9, **shared).fit(pixels)
    assert not np.allclose(remembering.coefs_[0], batch.coefs_[0], atol=1e-6)


@pytest.mark.parametrize("estimate", ["batch", "running"])
def test_two_fits_of_k_epochs_are_one_of_2k(pixels, estimate):
    shared = {"rho_estimate": estimate, "batch_size": 32}
    once = quick(max_iter=6, **shared).fit(pixels)
    twice = quick(max_iter=3, warm_start=True, **shared).fit(pixels).fit(pixels)
    assert same_weights(once, twice)
    np.testing.assert_array_equal(once.rho_hat_, twice.rho_hat_)


KINDS = {"kl": {}, "running": {"rho_estimate": "running"}, "l1": {"penalty": "l1"}}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("then", KINDS)
def test_another_penalty_under_warm_start_trains_on(pixels, first, then):
    model = quick(warm_start=True, max_iter=2, batch_size=32, **KINDS[first]).fit(pixels)
    model.set_params(**{"penalty": "kl", "rho_estimate": "batch"} | KINDS[then]).fit(pixels)
    assert model.n_iter_ == 4
    np.testing.assert_allclose(model.rho_hat_, abs(model.transform(pixels)).mean(0), rtol=1e-9)


def test_another_penalty_under_warm_start_begins_its_average_anew(pixels):
    model = quick(warm_start=True, max_iter=2, penalty="l1", batch_size=32).fit(pixels)
    start = model._training.state_for(KLSparsity(loss=SquaredError()), None, None)
    assert start["objective"] == {}


def test_after_partial_fit_the_mean_activation_is_that_of_the_last_rows(pixels):
    model = quick().partial_fit(pixels[:30]).partial_fit(pixels[30:])
    expected = model.transform(pixels[30:]).mean(0)
    np.testing.assert_allclose(model.rho_hat_, expected, rtol=1e-10)
    assert "of the last call alone" in " ".join(SparseAutoencoder.__doc__.split())


def test_rows_of_a_stack_have_their_own_statistics():
    h, w = normal(2, 6, 3).sigmoid(), normal(2, 6, seed=1).sigmoid()
    objective = KLSparsity(loss=SquaredError())
    together = objective.penalty(Forward(h, h, h, h, h, Rows(weight=w)), {})
    alone = [objective.penalty(Forward(*[h[m]] * 5, Rows(weight=w[m])), {}) for m in (0, 1)]
    assert_close(together, torch.stack(alone))


@pytest.mark.parametrize("activation", ["logistic", "tanh"])
@pytest.mark.parametrize("kind", [KLSparsity, RunningKLSparsity])
def test_a_batch_without_weight_adds_no_penalty_and_leaves_the_average(kind, activation):
    objective = kind(loss=SquaredError(), code_activation=activation)
    h, none = normal(6, 2).sigmoid(), Rows(weight=torch.zeros(6).double())
    empty = objective.init_state(5, 2)
    seen = objective.update(empty, Forward(h, h, h, h, h, state=empty))
    for state in (empty, seen):
        out = Forward(h, h, h, h, h, none, state=state)
        assert_close(objective.penalty(out, {}), torch.zeros(1).double())
        assert_close(objective.penalty_and_gradient(out, {}, torch.ones(1, 1).double())[1], 0 * h)
        for name, value in objective.update(state, out).items():
            assert_close(value.double(), state[name].double())


@pytest.mark.parametrize("estimate", ["batch", "running"])
def test_rows_without_weight_do_not_change_the_penalty(pixels, estimate):
    """Batches of them alone: the loss curve is the mean over batches, penalised where rows count.

    (Weights are scaled to mean 1 over all batches, which evens their number out in the data loss.)
    """
    model = quick(rho_estimate=estimate, batch_size=100, shuffle=False, max_iter=1, solver="sgd",
                  learning_rate_init=1e-300, rho_decay=0.0)  # fmt: skip
    w = np.repeat([1.0, 0.0, 0.0], 100)
    some = clone(model).fit(pixels, sample_weight=w)
    error = some.reconstruction_error(pixels[:100]).mean()
    penalty = some.beta * kl(some.rho, some.transform(pixels[:100]).mean(0)).sum()
    assert some.loss_ == pytest.approx(error + penalty / 3, rel=1e-9)


# ---- what is refused


UNBOUNDED = ["identity", "relu", "softplus", "elu", "silu", "gelu"]


@pytest.mark.parametrize("name", UNBOUNDED)
def test_kl_refuses_unbounded_activations_and_l1_takes_them(X, name):
    with pytest.raises(ValueError, match=f"'{name}' activations have no bounds.*penalty='l1'"):
        quick(code_activation=name).fit(X)
    quick(code_activation=name, penalty="l1").fit(X)


def test_kl_refuses_what_auto_resolves_to(X):
    with pytest.raises(ValueError, match=r"code_activation='auto' \('relu'\)"):
        quick(code_activation="auto").fit(X)
    with pytest.raises(ValueError, match=r"code_activation='auto' \('identity'\)"):
        quick(code_activation="auto", activation="tanh", hidden_layer_sizes=(4,)).fit(X)
    quick(code_activation="auto", activation="tanh").fit(X)


def test_a_module_of_ones_own_has_to_keep_codes_in_bounds(X):
    linear = nn.Linear(5, 3).double()
    with pytest.raises(ValueError, match=r"needs codes in \[0, 1\], but encoder gives"):
        quick(n_components=None, encoder=linear).fit(X)
    quick(n_components=None, encoder=linear, penalty="l1").fit(X)
    model = quick(n_components=None, encoder=nn.Sequential(linear, nn.Sigmoid())).fit(X)
    np.testing.assert_allclose(model.rho_hat_, model.transform(X).mean(0), rtol=1e-10)


@pytest.mark.parametrize("changed", [{"rho": 0.0}, {"rho": 1.0}, {"beta": -0.1}, {"penalty": "l2"},
                                     {"rho_decay": 1.0}, {"rho_estimate": "all"}])  # fmt: skip
def test_parameters_out_of_range_are_refused(X, changed):
    with pytest.raises(ValueError, match=f"The '{next(iter(changed))}' parameter"):
        quick(**changed).fit(X)


def test_clone_and_refit_give_the_same(pixels):
    model = quick(rho_estimate="running", batch_size=32).fit(pixels)
    again = clone(model).fit(pixels)
    assert same_weights(model, again)
    assert same_weights(model.fit(pixels), again)


def test_kl_is_refused_for_the_encoder_of_an_estimator_without_bounds(X):
    plain = Autoencoder(n_components=3, hidden_layer_sizes=(), max_iter=2, tol=None).fit(X)
    with pytest.raises(ValueError, match="encoder ends with 'relu'"):
        SparseAutoencoder(encoder=plain.encoder_, max_iter=2, tol=None).fit(X)
    bounded = SparseAutoencoder(n_components=3, max_iter=2, tol=None).fit(X)
    SparseAutoencoder(encoder=bounded.encoder_, max_iter=2, tol=None).fit(X)

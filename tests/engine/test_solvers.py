"""Adam and SGD against torch's, L-BFGS and conjugate gradient on a quadratic."""

import numpy as np
import pytest
import torch
from toys import DOUBLE, assert_close, normal

from skae._engine.solvers import SGD, Adam, minimise_full_batch

RATES = [0.1, 0.03, 0.03, 0.5, 0.01] * 6


def gradient(flat):
    """Of a function without symmetry."""
    return torch.sin(3 * flat) + flat.pow(3) * 0.1 + 0.2


def descend(solver, flat, rates=RATES):
    for rate in rates:
        solver.step(flat, gradient(flat), rate)
    return flat


def torch_descends(make, flat):
    """The same by one of torch's optimisers."""
    flat = flat.clone().requires_grad_()
    optimiser = make([flat])
    for rate in RATES:
        optimiser.param_groups[0]["lr"] = rate
        flat.grad = gradient(flat.detach())
        optimiser.step()
    return flat.detach()


def plain_adam(flat, **numbers):
    """Adam without torch's kernel, as on a device or in a version without it."""
    solver = Adam(flat, **numbers)
    solver._kernel = None
    return solver


@pytest.mark.parametrize("make", [Adam, plain_adam], ids=["kernel", "plain"])
@pytest.mark.parametrize("numbers", [{}, {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-2}])
def test_adam_is_torchs(make, numbers):
    start = normal(50)
    betas = numbers.get("beta_1", 0.9), numbers.get("beta_2", 0.999)
    expected = torch_descends(
        lambda p: torch.optim.Adam(p, betas=betas, eps=numbers.get("epsilon", 1e-8)), start
    )
    flat = start.clone()
    assert_close(descend(make(flat, **numbers), flat), expected, 1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(momentum, nesterov):
    start = normal(50)
    expected = torch_descends(
        lambda p: torch.optim.SGD(p, lr=1.0, momentum=momentum, nesterov=nesterov and momentum > 0),
        start,
    )
    flat = start.clone()
    assert_close(descend(SGD(flat, momentum, nesterov), flat), expected, 1e-12)


@pytest.mark.parametrize("make", [Adam, plain_adam, SGD], ids=["kernel", "plain", "sgd"])
def test_a_rate_for_every_model_is_every_models_own_run(make):
    start, each = normal(3, 20), torch.tensor([[0.3], [0.01], [0.0]], dtype=DOUBLE)
    together = start.clone()
    descend(make(together), together, [each * r for r in RATES])
    for m, factor in enumerate((0.3, 0.01, 0.0)):
        alone = start[m].clone()
        descend(make(alone), alone, [factor * r for r in RATES])
        assert_close(together[m], alone, 1e-11)


@pytest.mark.parametrize("make", [Adam, plain_adam, SGD], ids=["kernel", "plain", "sgd"])
@pytest.mark.parametrize("rate", [0.1, torch.tensor([[0.1], [0.2]], dtype=DOUBLE)])
def test_restored_solver_goes_on_bit_for_bit(make, rate):
    start = normal(2, 20)
    whole, half = start.clone(), start.clone()
    descend(make(whole), whole, [rate] * 20)
    first = make(half)
    descend(first, half, [rate] * 10)
    state = first.state()
    descend(first, half.clone(), [rate] * 10)  # what was saved is a copy
    second = make(half)
    second.restore(state)
    descend(second, half, [rate] * 10)
    assert torch.equal(half, whole)


@pytest.mark.parametrize("make", [Adam, SGD])
def test_step_leaves_the_gradient_alone(make):
    flat, grad = normal(20), normal(20, seed=1)
    solver = make(flat)
    for _ in range(3):
        solver.step(flat, grad, 0.1)
    assert torch.equal(grad, normal(20, seed=1))


def test_adam_does_not_see_the_units_of_the_gradient():
    """A gradient 1000 times as large, with an epsilon as many times as large, is the same run."""
    small, large = torch.zeros(20, dtype=DOUBLE), torch.zeros(20, dtype=DOUBLE)
    a, b = Adam(small, epsilon=1e-8), Adam(large, epsilon=1e-5)
    for seed in range(10):
        grad = normal(20, seed=seed)
        a.step(small, grad, 0.1)
        b.step(large, 1000 * grad, 0.1)
    assert_close(large, small, 1e-11)


# The full batch.


def quadratic(d=12, seed=0):
    """A, b of 1/2 p'Ap - b'p, and its minimum."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    A = torch.from_numpy(Q @ np.diag(np.geomspace(0.1, 10, d)) @ Q.T)
    b = torch.from_numpy(rng.normal(size=d))
    return A, b, torch.linalg.solve(A, b)


def minimise(method, flat, max_iter=200, each=lambda value: False, unit=1.0, scale=1.0):
    A, b, _ = quadratic()

    def value_and_gradient():
        p = flat.reshape(-1).to(A)
        return scale * float(0.5 * p @ A @ p - b @ p), (scale * (A @ p - b)).view_as(flat)

    return minimise_full_batch(method, flat, value_and_gradient, max_iter, each, unit)


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_full_batch_solvers_reach_the_minimum_of_a_quadratic(method, shape):
    flat = torch.zeros(shape, dtype=DOUBLE)
    status, message = minimise(method, flat)
    assert_close(flat.reshape(-1), quadratic()[2], 1e-6)
    assert message
    assert status != 1


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_full_batch_solvers_do_not_stop_by_the_units_of_the_loss(method, scale):
    flat = torch.zeros(12, dtype=DOUBLE)
    minimise(method, flat, unit=scale, scale=scale)
    assert_close(flat, quadratic()[2], 1e-6)


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
def test_every_iteration_is_told_the_value_at_the_parameters_of_the_moment(method):
    A, b, _ = quadratic()
    flat, told = torch.zeros(12, dtype=DOUBLE), []

    def each(value):
        assert value == pytest.approx(float(0.5 * flat @ A @ flat - b @ flat))
        told.append(value)
        return False

    minimise(method, flat, max_iter=5, each=each)
    assert len(told) == 5
    assert told == sorted(told, reverse=True)


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
def test_full_batch_solver_says_when_it_ran_out_of_iterations(method):
    told = []
    status, _ = minimise(method, torch.zeros(12, dtype=DOUBLE), 3, lambda v: told.append(v))
    assert status == 1
    assert len(told) == 3


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
def test_full_batch_solver_stops_when_told(method):
    flat, kept = torch.zeros(12, dtype=DOUBLE), []

    def each(value):
        kept.append(flat.clone())
        return len(kept) == 3

    minimise(method, flat, each=each)
    assert len(kept) == 3
    assert torch.equal(flat, kept[-1])


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
def test_interrupt_leaves_the_last_iterate(method):
    """Not a point that the line search was trying when the interrupt came."""
    A, b, _ = quadratic()
    flat, iterates = torch.zeros(12, dtype=DOUBLE), []

    def value_and_gradient():
        if len(iterates) == 3 and not torch.equal(flat, iterates[-1]):
            raise KeyboardInterrupt
        return float(0.5 * flat @ A @ flat - b @ flat), A @ flat - b

    def each(value):
        iterates.append(flat.clone())
        return False

    with pytest.raises(KeyboardInterrupt):
        minimise_full_batch(method, flat, value_and_gradient, 100, each, 1.0)
    assert torch.equal(flat, iterates[-1])


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
def test_full_batch_solver_survives_values_that_are_not_finite(method):
    """p - log p leaves its domain when the line search steps too far."""
    flat = torch.full((3,), 5.0, dtype=DOUBLE)
    before = float((flat - torch.log(flat)).sum())

    def value_and_gradient():
        return float((flat - torch.log(flat)).sum()), 1 - 1 / flat

    minimise_full_batch(method, flat, value_and_gradient, 100, lambda value: False, 1.0)
    assert float((flat - torch.log(flat)).sum()) < before - 1


@pytest.mark.parametrize("method", ["lbfgs", "cg"])
def test_single_precision_parameters_are_minimised_too(method):
    flat = torch.zeros(12, dtype=torch.float32)
    minimise(method, flat)
    assert_close(flat.double(), quadratic()[2], 1e-3)

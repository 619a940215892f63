"""Many models trained in one pass are the models trained one by one."""

import math

import pytest
import torch
from toys import (
    DOUBLE,
    OBJECTIVES,
    D,
    Gaussian,
    K,
    assert_close,
    float_fields,
    network,
    network_for,
    normal,
    objective,
    starting,
)

from skae._engine.batches import make_source
from skae._engine.rng import Streams
from skae._engine.train import Training, stacked_parameters, train
from skae.losses import SquaredError
from skae.modules import wrap
from skae.networks import Network
from skae.objective import NO_ROWS, Rows, stack

N, M = 23, 3
X = normal(N, 2, seed=1) @ normal(2, D, seed=2) + 0.1 * normal(N, D, seed=3)
NUMBERS = {"batch_size": 5, "max_iter": 8, "tol": None, "learning_rate_init": 0.01}


def fit(o, initial, *, net, x=X, seeds=(3,), models=None, rows=NO_ROWS, validation=None, **numbers):
    return train(
        net, o, make_source(x, DOUBLE), Training(**NUMBERS | numbers), Streams(seeds), initial,
        rows=rows, validation=validation, models=models,
    )  # fmt: skip


def assert_stack_is_its_models(each, *, net=None, x=X, own_seeds=False, rates=None, rows=NO_ROWS,
                               tolerance=1e-10, **options):  # fmt: skip
    """Train together and one by one; x and rows may have a leading axis of models."""
    net = network_for(each[0]) if net is None else net
    starts = [starting(net, o, seed=m) for m, o in enumerate(each)]
    o = each[0] if all(o == each[0] for o in each) else stack(each)
    rate = options.pop("learning_rate_init", 0.01)
    together = fit(
        o, stacked_parameters(starts), net=net, x=x, models=len(each), rows=rows,
        seeds=range(5, 5 + len(each)) if own_seeds else (5,),
        learning_rate_init=tuple(rates) if rates else rate, **options,
    )  # fmt: skip
    for m, start in enumerate(starts):
        own_rows = Rows(**{
            name: part[m] if name == "weight" and part is not None and part.ndim == 2 else part
            for name, part in vars(rows).items()
        })  # fmt: skip
        alone = fit(
            each[m], start, net=net, x=x[m] if x.ndim == 3 else x, rows=own_rows,
            seeds=(5 + m * own_seeds,), learning_rate_init=rates[m] if rates else rate, **options,
        )  # fmt: skip
        monitor = together.monitor
        assert monitor.reasons[m] == alone.monitor.reasons[0]
        curve = alone.monitor.loss_curves[0]
        assert monitor.loss_curves[m] == pytest.approx(curve, rel=tolerance, nan_ok=True)
        if alone.monitor.reasons[0] != "diverged":
            own = {name: value[m] for name, value in together.parameters.items()}
            assert_close(own, alone.parameters, tolerance)
    return together


SOLVERS = {
    "adam": {"solver": "adam"},
    "momentum": {"solver": "sgd", "nesterov": False},
    "nesterov": {"solver": "sgd"},
}
NETWORKS = {
    "plain": {},
    "one layer": {"hidden": ()},
    "placed": {"center": X.mean(0), "gains": (0.5, 2.0)},
    "tied": {"tied": True, "center": X.mean(0)},
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_models_from_different_starts_are_the_single_runs(name, solver):
    assert_stack_is_its_models([objective()] * M, net=network(**NETWORKS[name]), **SOLVERS[solver])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "fields",
    [
        [{"alpha": 0.0}, {"alpha": 0.01}, {"alpha": 1.0}],
        [{"dropout": 0.1}, {"dropout": 0.5}, {"dropout": 0.7}],
        [{"dropout": 0.0}, {"dropout": 0.5}, {"dropout": 0.0}],
        [{"input_dropout": 0.0, "dropout": 0.4}, {"input_dropout": 0.3, "dropout": 0.4}],
        [{"alpha": 0.0, "dropout": 0.2}, {"alpha": 0.3, "dropout": 0.0}],
    ],
    ids=lambda fields: " ".join(sorted(fields[0])),
)
def test_models_of_different_numbers_are_the_single_runs(fields, solver):
    assert_stack_is_its_models([objective(**f) for f in fields], **SOLVERS[solver])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_models_of_every_objective_are_the_single_runs(name):
    first = OBJECTIVES[name]
    others = {k: 0.5 * v if v else 0.1 for k, v in float_fields(first).items()}
    each = [first, type(first)(loss=first.loss, **others)]
    rows = Rows(y=torch.arange(N) % 2) if name == "Labelled" else NO_ROWS
    assert_stack_is_its_models(each, net=network_for(first, hidden=(K,)), rows=rows)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_model_may_have_its_own_learning_rate(solver):
    assert_stack_is_its_models([objective()] * M, rates=(0.001, 0.01, 0.1), **SOLVERS[solver])


def test_learning_rates_follow_the_schedule_together():
    assert_stack_is_its_models(
        [objective()] * M, rates=(0.001, 0.01, 0.1), learning_rate="cosine", horizon=10
    )


@pytest.mark.parametrize("own_seeds", [False, True], ids=["shared draws", "own draws"])
@pytest.mark.parametrize("field", ["sigma", "dropout", "input_dropout"])
def test_searches_share_their_draws_and_ensembles_do_not(field, own_seeds):
    o = Gaussian(loss=SquaredError(), **{"sigma": 0.0, field: 0.3})
    together = assert_stack_is_its_models([o] * M, own_seeds=own_seeds, shuffle=not own_seeds)
    assert together.monitor.reasons == ["max_iter"] * M


@pytest.mark.parametrize("weighted", [False, True])
def test_every_model_may_have_its_own_rows(weighted):
    x = torch.stack([X, 2 * X, X.flip(-1)])
    w = normal(M, N, seed=9).exp()
    rows = Rows(weight=w / w.mean(-1, keepdim=True)) if weighted else NO_ROWS
    assert_stack_is_its_models([objective(alpha=0.1)] * M, x=x, rows=rows)


def test_every_model_stops_on_its_own():
    rates = (1e-14, 0.01, 1e-3)
    together = assert_stack_is_its_models(
        [objective()] * M, rates=rates, tol=0.05, n_iter_no_change=2, max_iter=30
    )
    lengths = [len(curve) for curve in together.monitor.loss_curves]
    assert together.monitor.reasons[0] == "converged"
    assert lengths[0] == 3
    assert len(set(lengths)) > 1


@pytest.mark.parametrize("solver", ["adam", "nesterov"])
def test_a_model_that_diverges_leaves_the_others_alone(solver):
    rates = (0.01, 1e200, 0.02)
    together = assert_stack_is_its_models([objective()] * M, rates=rates, **SOLVERS[solver])
    assert together.monitor.reasons == ["max_iter", "diverged", "max_iter"]
    assert not math.isfinite(together.monitor.loss_curves[1][-1])


@pytest.mark.parametrize("name", ["Activity", "Sparse", "Bent", "Sampled", "Running"])
def test_a_model_that_diverges_leaves_the_others_alone_at_a_seam(name):
    o = OBJECTIVES[name]
    together = assert_stack_is_its_models(
        [o] * M, net=network_for(o, code="tanh" if name != "Sparse" else "logistic"),
        rates=(0.01, 1e200, 0.02), solver="sgd",
    )  # fmt: skip
    assert together.monitor.reasons == ["max_iter", "diverged", "max_iter"]


def test_every_model_keeps_its_own_best_weights():
    held = normal(9, D, seed=5)
    together = assert_stack_is_its_models(
        [objective()] * M,
        rates=(0.001, 0.05, 0.3),
        validation=(make_source(held, DOUBLE), NO_ROWS),
        tol=0.0,
        n_iter_no_change=3,
        max_iter=30,
    )
    net = network()
    raw = net.decoder.forward(together.parameters, net.encoder.forward(together.parameters, held))
    errors = (raw - held).square().mean((-2, -1)).tolist()
    assert errors == pytest.approx([min(c) for c in together.monitor.validation_curves])


def test_users_modules_are_stacked_too():
    encoder = wrap("encoder", torch.nn.Linear(D, K), DOUBLE, "cpu")
    net = Network(encoder, network().decoder)
    assert_stack_is_its_models([objective(alpha=0.1)] * M, net=net)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_train_one_model_at_a_time(solver):
    net = network()
    with pytest.raises(ValueError, match=f"solver='{solver}' trains one model at a time"):
        fit(objective(), starting(net, None, M), net=net, models=M, solver=solver)


def test_a_stack_goes_on_bit_for_bit():
    net, o = network(), stack([objective(dropout=p) for p in (0.1, 0.3)])
    start, source = starting(net, None, 2), make_source(X, DOUBLE)
    rates = Training(**NUMBERS | {"max_iter": 4, "learning_rate_init": (0.01, 0.05)})
    whole = fit(o, start, net=net, models=2, learning_rate_init=(0.01, 0.05), max_iter=8)
    half = train(net, o, source, rates, Streams([3]), start, models=2)
    both = train(net, o, source, rates, Streams([8]), start, models=2, state=half.state)
    assert all(torch.equal(p, both.parameters[k]) for k, p in whole.parameters.items())
    assert both.monitor.loss_curves == whole.monitor.loss_curves


def test_single_precision_stacks_train_in_single_precision():
    net = network()
    each = [objective(alpha=0.0), objective(alpha=0.3)]
    start = {name: value.float() for name, value in starting(net, None, 2).items()}
    result = train(net, stack(each, torch.float32), make_source(X, torch.float32),
                   Training(**NUMBERS), Streams([3]), start, models=2)  # fmt: skip
    assert all(p.dtype is torch.float32 for p in result.parameters.values())
    assert all(curve[-1] < curve[0] for curve in result.monitor.loss_curves)

"""The training loop: what it minimises, when it stops, and that it goes on where it stopped."""

import dataclasses
import math
import pickle

import pytest
import torch
from torch import nn
from toys import (
    DOUBLE,
    OBJECTIVES,
    D,
    Gaussian,
    K,
    Running,
    assert_close,
    network,
    network_for,
    normal,
    objective,
    starting,
)

import skae._engine.train as train_module
from skae._engine.batches import make_source
from skae._engine.rng import Streams
from skae._engine.start import moments, place, starting_values
from skae._engine.train import Training, train
from skae.losses import Loss, SquaredError
from skae.modules import wrap
from skae.networks import Network
from skae.objective import NO_ROWS, Objective, Rows

N = 23
X = normal(N, 2, seed=1) @ normal(2, D, seed=2) + 0.1 * normal(N, D, seed=3)


def fit(o=None, *, net=None, x=X, seed=3, initial=None, rows=NO_ROWS, validation=None, state=None,
        on_epoch=None, **numbers):  # fmt: skip
    """Train a small network in float64."""
    o = objective() if o is None else o
    net = network_for(o) if net is None else net
    defaults = {"batch_size": 5, "max_iter": 10, "tol": None, "learning_rate_init": 0.01}
    return train(
        net, o, make_source(x, DOUBLE), Training(**defaults | numbers), Streams([seed]),
        starting(net, o) if initial is None else initial,
        rows=rows, validation=validation, state=state, on_epoch=on_epoch,
    )  # fmt: skip


def reconstruct(net, parameters, x=X):
    return net.decoder.forward(parameters, net.encoder.forward(parameters, x))


def value(net, parameters, x=X):
    return float((reconstruct(net, parameters, x) - x).square().mean())


SOLVERS = {
    "adam": {"solver": "adam"},
    "sgd": {"solver": "sgd", "nesterov": False},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.05},
    "lbfgs": {"solver": "lbfgs"},
    "cg": {"solver": "cg"},
}
STEPPING = ["adam", "sgd", "nesterov"]


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_beats_the_untrained_network(name):
    net = network()
    result = fit(net=net, max_iter=40, **SOLVERS[name])
    assert result.monitor.reasons == ["max_iter"]
    assert value(net, result.parameters) < 0.7 * value(net, starting(net))
    for key, start in starting(net).items():
        assert not torch.equal(result.parameters[key], start), key


@pytest.mark.parametrize("name", SOLVERS)
def test_same_seed_is_the_same_run_bit_for_bit(name):
    first, second = (fit(**SOLVERS[name]) for _ in range(2))
    assert all(torch.equal(p, second.parameters[k]) for k, p in first.parameters.items())
    assert first.monitor.loss_curves == second.monitor.loss_curves


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_reach_the_closed_form_of_a_linear_autoencoder(solver):
    """The least squared error of a code of width k is what the other principal components hold."""
    net = network(hidden=(), k=2, code="identity")
    centered = X - X.mean(0)
    result = fit(net=net, x=centered, solver=solver, max_iter=500)
    rest = float(torch.linalg.svdvals(centered)[2:].square().sum() / centered.numel())
    assert rest * (1 - 1e-12) <= result.monitor.loss_curves[0][-1] <= rest * (1 + 1e-3)


def test_loss_curve_is_the_mean_over_rows_of_the_batches_as_they_came():
    """With steps too small to matter it is the value of the whole."""
    net = network()
    result = fit(objective(alpha=0.1), net=net, learning_rate_init=1e-14, max_iter=2)
    W = (starting(net)[name] for name in net.weight_shapes())
    expected = value(net, starting(net)) + 0.05 * sum(float(w.square().sum()) for w in W)
    assert result.monitor.loss_curves[0] == pytest.approx([expected] * 2, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 16])
def test_any_number_of_rows_trains_and_all_of_them_count(n):
    x = normal(n, D)
    result = fit(x=x, max_iter=3)
    assert all(not torch.equal(result.parameters[k], p) for k, p in starting(network()).items())
    nan = x.clone()
    nan[-1, 0] = math.nan
    assert math.isnan(fit(x=nan, max_iter=1, shuffle=False).monitor.loss_curves[0][0])


def test_integer_weights_are_repeated_rows():
    w = torch.tensor([0, 1, 2, 3] * 5 + [1, 1, 1])
    weighted = fit(rows=Rows(weight=w / w.double().mean()), batch_size=N, max_iter=20)
    repeated = fit(x=X.repeat_interleave(w, dim=0), batch_size=1000, max_iter=20)
    assert_close(weighted.parameters, repeated.parameters, 1e-9)


@pytest.mark.parametrize("name", ["Activity", "ActivityClosed", "Whole"])
def test_row_of_weight_zero_counts_nothing_even_alone_in_its_batch(name):
    """Of 6 rows in batches of 5; a penalty per sample of one row looks like one of the batch."""
    w = torch.tensor([1.0] * 5 + [0.0], dtype=DOUBLE)
    numbers = {"batch_size": 5, "shuffle": False, "max_iter": 1, "solver": "sgd", "momentum": 0.0}
    with_it = fit(OBJECTIVES[name], x=X[:6], rows=Rows(weight=w), **numbers)
    without = fit(OBJECTIVES[name], x=X[:5], rows=Rows(weight=w[:5]), **numbers)
    assert_close(with_it.parameters, without.parameters)


def test_batch_penalty_is_not_weighted_and_its_batch_counts_by_its_rows():
    """Of the weights alone, the penalty's gradient is the same whatever the weights."""
    o, w = OBJECTIVES["SmoothWeights"], torch.linspace(0, 2, N, dtype=DOUBLE)
    still = {"learning_rate_init": 1e-14, "max_iter": 1}
    plain = fit(o, **still).monitor.loss_curves[0][0] - fit(**still).monitor.loss_curves[0][0]
    rows = Rows(weight=w)
    weighted = (
        fit(o, rows=rows, **still).monitor.loss_curves[0][0]
        - fit(rows=rows, **still).monitor.loss_curves[0][0]
    )
    assert weighted == pytest.approx(plain, rel=1e-9)


def test_target_is_what_is_reconstructed():
    target = X.flip(-1)
    result = fit(rows=Rows(target=target), max_iter=400, learning_rate_init=0.02)
    found = reconstruct(network(), result.parameters)
    assert (found - target).square().mean() < (found - X).square().mean()


def test_missing_cells_do_not_train():
    seen = (normal(N, D, seed=9) > -0.5).double()
    other = X + (1 - seen) * 100
    first, second = (
        fit(rows=Rows(target=t, observed=seen), batch_size=N, max_iter=5) for t in (X, other)
    )
    assert_close(second.parameters, first.parameters, 1e-11)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "Labelled"])
def test_every_objective_trains_on_both_paths_alike(name, monkeypatch):
    o = OBJECTIVES[name]
    fused = fit(o, net=network_for(o, hidden=(K,)), max_iter=4)
    plan = train_module.make_plan
    monkeypatch.setattr(
        train_module, "make_plan", lambda *given: plan(*given)._replace(path="autograd")
    )
    general = fit(o, net=network_for(o, hidden=(K,)), max_iter=4)
    assert_close(fused.parameters, general.parameters, 1e-8)
    assert fused.monitor.loss_curves[0] == pytest.approx(general.monitor.loss_curves[0], rel=1e-9)


def test_state_starts_where_the_objective_says_and_follows_the_batches():
    o = Running(loss=SquaredError(), beta=0.0, momentum=0.5)
    result = fit(o, max_iter=1, batch_size=N, learning_rate_init=1e-14)
    h = network().encoder.forward(starting(network()), X)
    expected = 0.5 * torch.ones(K, dtype=DOUBLE) + 0.5 * h.mean(0)
    assert_close(dict(result.state["objective"]), {"mean": expected}, 1e-9)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_state_reaches_the_hooks_of_full_batch_solvers(solver):
    o = Running(loss=SquaredError())
    result = fit(o, solver=solver, max_iter=3)
    assert set(result.state["objective"]) == {"mean"}
    assert not torch.equal(result.state["objective"]["mean"], torch.ones(K, dtype=DOUBLE))


class Told(type(OBJECTIVES["Sampled"])):
    """Keeps the number of code units that it is told; h is twice as wide."""

    def init_state(self, d, k):
        return {"k": torch.tensor(float(k))}


@pytest.mark.parametrize("users", [(), ("encoder",), ("decoder",), ("encoder", "decoder")])
def test_state_is_told_the_width_of_the_code_whosever_the_network(users):
    o = Told(loss=SquaredError())
    net = network_for(o)
    encoder = wrap("encoder", nn.Linear(D, 2 * K), DOUBLE, "cpu")
    decoder = wrap("decoder", nn.Linear(K, D), DOUBLE, "cpu")
    net = Network(
        encoder if "encoder" in users else net.encoder,
        decoder if "decoder" in users else net.decoder,
    )
    initial = net.initial(Streams([0]).draws("init", DOUBLE))
    assert fit(o, net=net, initial=initial, max_iter=1).state["objective"]["k"] == K


def test_objectives_own_parameters_are_trained():
    o = OBJECTIVES["LearnedVariance"]
    result = fit(o, max_iter=30)
    assert result.parameters["objective.log_var"] != starting(network(), o)["objective.log_var"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress(Objective):
    """Hands out the progress that its hooks see."""

    def init_state(self, d, k):
        return {"seen": torch.zeros(0, dtype=DOUBLE)}

    def update(self, state, out):
        return {"seen": torch.cat([state["seen"], torch.tensor([out.progress], dtype=DOUBLE)])}


def test_progress_is_the_fraction_of_the_horizon_that_has_passed():
    o = Progress(loss=SquaredError())
    seen = fit(o, max_iter=4, batch_size=12, horizon=8).state["objective"]["seen"]
    assert seen.tolist() == [0, 1 / 16, 2 / 16, 3 / 16, 4 / 16, 5 / 16, 6 / 16, 7 / 16]
    seen = fit(o, max_iter=4, batch_size=12).state["objective"]["seen"]
    assert seen.tolist() == [i / 8 for i in range(8)]
    seen = fit(o, max_iter=3, batch_size=N, horizon=2).state["objective"]["seen"]
    assert seen.tolist() == [0.0, 0.5, 1.0]


class Shares(Objective):
    """Hands out the batches' shares that its hooks see."""

    def init_state(self, d, k):
        return {"seen": torch.zeros(0, dtype=DOUBLE)}

    def update(self, state, out):
        return {"seen": torch.cat([state["seen"], torch.tensor([out.share], dtype=DOUBLE)])}


class SharesByAutograd(Shares):
    needs_graph = True


@pytest.mark.parametrize("kind", [Shares, SharesByAutograd])
def test_share_is_the_part_of_an_epochs_rows_that_a_batch_is(kind):
    seen = fit(kind(loss=SquaredError()), max_iter=2, batch_size=9).state["objective"]["seen"]
    assert seen.tolist() == 2 * [9 / N, 9 / N, (N - 18) / N]


class Settling(Objective):
    settled = 0.5


def test_training_stops_only_after_the_objective_has_settled():
    changed = {"learning_rate_init": 1e-14, "tol": 1e-4, "n_iter_no_change": 3}
    for horizon, epochs in ((None, 10), (4, 2)):
        result = fit(Settling(loss=SquaredError()), max_iter=20, horizon=horizon, **changed)
        assert result.monitor.reasons == ["converged"]
        assert len(result.monitor.loss_curves[0]) == epochs + 4


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25]),
     ("cosine", [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)])],
)  # fmt: skip
def test_schedule_scales_the_rate_over_the_horizon(schedule, factors):
    """Plain SGD on one batch: every step is the rate times the gradient before it."""
    at, grads = [], []
    numbers = {"solver": "sgd", "momentum": 0.0, "nesterov": False, "batch_size": N, "max_iter": 4}
    fit(learning_rate=schedule, on_epoch=lambda e: at.append(e.parameters()), **numbers)
    at.insert(0, starting(network()))
    for before, after, factor in zip(at, at[1:], factors, strict=False):
        p = {name: v.clone().requires_grad_() for name, v in before.items()}
        loss = (reconstruct(network(), p) - X).square().mean()
        grads = dict(zip(p, torch.autograd.grad(loss, list(p.values())), strict=True))
        expected = {name: v - 0.01 * factor * grads[name] for name, v in before.items()}
        assert_close(after, expected, 1e-11)


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "cg"])
def test_offset_and_scale_of_the_data_change_nothing(solver):
    """Of c + s X the run is the one of X: placed parameters are in the data's units."""
    noise = {"dropout": 0.2, "input_dropout": 0.3} if solver == "adam" else {}
    o, found = objective(**noise), []
    for x in (X, 1000 + 50 * X):
        m = moments(make_source(x, DOUBLE))
        net = place(network(), o.loss, m, DOUBLE, "cpu")
        initial = starting_values(net, o, m, K, Streams([0]).draws("init", DOUBLE))
        unit = o.loss.unit(m.scale)
        result = fit(o, net=net, x=x, initial=initial, unit=unit, solver=solver, max_iter=5)
        found.append((reconstruct(net, result.parameters, x), result.monitor.loss_curves[0]))
    (near, curve), (far, far_curve) = found
    assert_close((far - 1000) / 50, near, 1e-6)
    assert far_curve == pytest.approx([2500 * loss for loss in curve], rel=1e-6)


# Going on.

NOISY = objective(dropout=0.3, input_dropout=0.2, alpha=0.01)
SETTINGS = {
    "dropout": (NOISY, {}),
    "corruption": (Gaussian(loss=SquaredError(), sigma=0.3), {}),
    "drawn codes": (OBJECTIVES["Sampled"], {}),
    "state": (Running(loss=SquaredError()), {}),
    "linear schedule": (NOISY, {"learning_rate": "linear", "horizon": 6}),
    "cosine schedule": (NOISY, {"learning_rate": "cosine", "horizon": 20}),
    "annealing": (OBJECTIVES["Whole"], {"horizon": 6}),
    "in order": (NOISY, {"shuffle": False}),
    "stopping": (objective(), {"tol": 1e-4, "n_iter_no_change": 2}),
}


@pytest.mark.parametrize("solver", STEPPING)
@pytest.mark.parametrize("setting", SETTINGS)
def test_going_on_is_the_longer_run_bit_for_bit(setting, solver):
    o, numbers = SETTINGS[setting]
    numbers = SOLVERS[solver] | numbers
    whole = fit(o, max_iter=6, **numbers)
    half = fit(o, max_iter=3, **numbers)
    state = pickle.loads(pickle.dumps(half.state))
    # Another seed and other starting values: all that counts is in the state.
    nothing = {k: torch.zeros_like(v) for k, v in half.parameters.items()}
    both = fit(o, max_iter=3, seed=99, initial=nothing, state=state, **numbers)
    assert all(torch.equal(p, both.parameters[k]) for k, p in whole.parameters.items())
    assert both.monitor.loss_curves == whole.monitor.loss_curves
    assert both.monitor.reasons == whole.monitor.reasons


def test_going_on_under_validation_keeps_the_best_of_both_parts():
    held = make_source(normal(9, D, seed=5), DOUBLE), NO_ROWS
    numbers = {"validation": held, "learning_rate_init": 0.1}
    whole, half = fit(max_iter=8, **numbers), fit(max_iter=4, **numbers)
    both = fit(max_iter=4, state=half.state, **numbers)
    assert both.monitor.validation_curves == whole.monitor.validation_curves
    assert all(torch.equal(p, both.parameters[k]) for k, p in whole.parameters.items())


def test_state_is_not_changed_by_going_on_from_it():
    half = fit(NOISY, max_iter=3)
    before = pickle.dumps(half.state)
    fit(NOISY, max_iter=3, state=half.state)
    assert pickle.dumps(half.state) == before


# Stopping.


def test_training_stops_when_the_loss_settles_and_says_so():
    result = fit(learning_rate_init=1e-14, tol=1e-4, n_iter_no_change=3, max_iter=50)
    assert result.monitor.reasons == ["converged"]
    assert len(result.monitor.loss_curves[0]) == 4


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_stop_by_the_same_rule(solver):
    rule = {"tol": 1e-2, "n_iter_no_change": 2, "max_iter": 500}
    curve = fit(solver=solver, **rule).monitor.loss_curves[0]
    assert len(curve) < 100
    assert all(b > a * (1 - 1e-2) for a, b in zip(curve[-3:], curve[-2:], strict=False))


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solver_at_its_minimum_has_converged_and_not_run_out(solver):
    net, x = network(hidden=(), code="identity"), torch.zeros(6, D, dtype=DOUBLE)
    initial = {name: torch.zeros_like(v) for name, v in starting(net).items()}
    result = fit(net=net, x=x, solver=solver, initial=initial)
    assert result.monitor.reasons[0].startswith("converged")
    assert result.monitor.loss_curves == [[0.0]]
    again = fit(net=net, x=x, solver=solver, initial=initial, state=result.state, max_iter=1)
    assert again.monitor.reasons[0].startswith("converged")


def test_callback_sees_every_epoch_and_stops_training():
    seen = []

    def on_epoch(epoch):
        seen.append((epoch.number, epoch.loss[0], epoch.parameters()))
        return epoch.number == 3

    result = fit(on_epoch=on_epoch)
    assert [number for number, _, _ in seen] == [1, 2, 3]
    assert [loss for _, loss, _ in seen] == result.monitor.loss_curves[0]
    assert result.monitor.reasons == ["callback"]
    assert_close(result.parameters, seen[-1][2], 0)
    assert not torch.equal(seen[0][2]["encoder.0.W"], seen[1][2]["encoder.0.W"])


@pytest.mark.parametrize("solver", SOLVERS)
def test_interrupted_training_keeps_the_model_so_far(solver):
    at = []

    def on_epoch(epoch):
        at.append(epoch.parameters())
        if epoch.number == 3:
            raise KeyboardInterrupt
        return False

    result = fit(on_epoch=on_epoch, **SOLVERS[solver])
    assert result.monitor.reasons == ["interrupted"]
    assert len(result.monitor.loss_curves[0]) == 3
    assert_close(result.parameters, at[-1], 0)


def test_divergence_is_seen():
    result = fit(solver="sgd", learning_rate_init=1e6, max_iter=50)
    assert result.monitor.reasons == ["diverged"]
    assert len(result.monitor.loss_curves[0]) < 50


def test_thread_count_is_put_back_after_training_and_after_an_error():
    threads = torch.get_num_threads()
    counts = []

    def on_epoch(epoch):
        counts.append(torch.get_num_threads())
        raise KeyError

    with pytest.raises(KeyError):
        fit(on_epoch=on_epoch)
    assert counts == [1]
    assert torch.get_num_threads() == threads


def test_gradients_are_enabled_again_after_training():
    fit(max_iter=1)
    assert torch.is_grad_enabled()


# Validation.


def test_best_weights_give_the_best_logged_validation_loss():
    held = normal(9, D, seed=5)
    net = network()
    result = fit(net=net, validation=(make_source(held, DOUBLE), NO_ROWS), learning_rate_init=0.3)
    curve = result.monitor.validation_curves[0]
    assert min(curve) < curve[-1]
    assert value(net, result.parameters, held) == pytest.approx(min(curve), rel=1e-12)


def test_validation_is_without_noise_and_penalty_and_draws_nothing():
    held = normal(9, D, seed=5)
    noisy = Gaussian(loss=SquaredError(), sigma=5.0, dropout=0.5, input_dropout=0.5, alpha=3.0)
    still = {"learning_rate_init": 1e-14, "max_iter": 2}
    checked = fit(noisy, validation=(make_source(held, DOUBLE), NO_ROWS), **still)
    net = network()
    expected = value(net, starting(net), held)
    assert checked.monitor.validation_curves[0] == pytest.approx([expected] * 2, rel=1e-9)
    assert checked.monitor.loss_curves == fit(noisy, **still).monitor.loss_curves


def test_validation_takes_the_rows_side_data(monkeypatch):
    held, target = normal(9, D, seed=5), normal(9, D, seed=6)
    w, seen = normal(9, seed=7).exp(), (normal(9, D, seed=8) > -0.5).double()
    rows = Rows(weight=w, target=target, observed=seen)
    monkeypatch.setattr("skae._engine.batches._CHUNK_BYTES", 4 * D * 8)
    result = fit(validation=(make_source(held, DOUBLE), rows), learning_rate_init=1e-14, max_iter=1)
    error = (reconstruct(network(), starting(network()), held) - target).square() * seen
    expected = float((w * error.sum(-1) / seen.sum(-1)).sum() / w.sum())
    assert result.monitor.validation_curves[0] == pytest.approx([expected], rel=1e-9)


# Refusals.


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize(
    ("o", "words"),
    [
        (objective(dropout=0.2), "dropout=0.2 draws noise"),
        (objective(input_dropout=0.3), "input_dropout=0.3 draws noise"),
        (Gaussian(loss=SquaredError(), sigma=0.4), "sigma=0.4 draws noise"),
        (OBJECTIVES["Sampled"], "code=on draws noise"),
    ],
    ids=["dropout", "input_dropout", "sigma", "code"],
)
def test_full_batch_solvers_refuse_noise_and_name_it(solver, o, words):
    with pytest.raises(ValueError, match=f"solver='{solver}' needs a deterministic.*{words}"):
        fit(o, solver=solver)
    fit(Gaussian(loss=SquaredError(), sigma=0.0), solver=solver, max_iter=1)


@pytest.mark.parametrize(("name", "chunks"), [("Activity", [2097, 3]), ("Sparse", [2100])])
def test_large_full_batch_comes_in_chunks_unless_the_objective_mixes_rows(name, chunks):
    sizes = []

    class Counting(type(OBJECTIVES[name])):
        def corrupt(self, x, rng):
            sizes.append(len(x))
            return x, None

    net, o = network(hidden=(), d=2000), Counting(loss=SquaredError())
    fit(o, net=net, x=0.1 * normal(2100, 2000), solver="lbfgs", max_iter=1, initial=starting(net))
    assert sizes[: len(chunks)] == chunks


# Modules of the user's own.


class Noisy(nn.Module):
    """A module with a batch norm and dropout."""

    def __init__(self, d_in, d_out):
        super().__init__()
        self.inner = nn.Linear(d_in, d_out)
        self.norm = nn.BatchNorm1d(d_out)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.norm(nn.functional.dropout(self.inner(x), 0.3, self.training))


def users_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = Noisy(D, K), nn.Linear(K, D)
    return Network(wrap("encoder", encoder, DOUBLE, "cpu"), wrap("decoder", decoder, DOUBLE, "cpu"))


def test_users_modules_train_and_draw_from_our_streams():
    def run():
        net = users_network()
        return fit(net=net, initial=net.initial(None), max_iter=20)

    before = torch.get_rng_state()
    first = run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = run()
    torch.set_rng_state(before)
    assert all(torch.equal(p, second.parameters[k]) for k, p in first.parameters.items())
    assert first.monitor.loss_curves[0][-1] < first.monitor.loss_curves[0][0]
    assert first.plan.path == "autograd"
    for key, start in users_network().initial(None).items():
        assert not torch.equal(first.parameters[key], start), key


def test_users_module_validates_in_inference_mode():
    net = users_network()
    held = make_source(normal(9, D, seed=5), DOUBLE), NO_ROWS
    still = {"learning_rate_init": 1e-14, "max_iter": 1}
    result = fit(net=net, initial=net.initial(None), validation=held, **still)
    net.train(False)
    expected = value(net, result.parameters, normal(9, D, seed=5))
    assert result.monitor.validation_curves[0] == pytest.approx([expected], rel=1e-9)


def test_best_weights_come_with_the_running_statistics_of_their_epoch():
    net, held = users_network(), normal(9, D, seed=5)
    result = fit(net=net, initial=net.initial(None), learning_rate_init=0.3, max_iter=20,
                 validation=(make_source(held, DOUBLE), NO_ROWS))  # fmt: skip
    curve = result.monitor.validation_curves[0]
    assert min(curve) < curve[-1]
    net.train(False)
    assert value(net, result.parameters, held) == pytest.approx(min(curve), rel=1e-9)


def test_best_weights_come_with_the_state_of_their_epoch():
    """A callback sees both epoch by epoch; going on, the best of both parts counts."""
    o, held, seen = Running(loss=SquaredError()), (make_source(normal(9, D, seed=5), DOUBLE),), []
    numbers = {"validation": (*held, NO_ROWS), "learning_rate_init": 0.3}

    def note(epoch):
        seen.append(epoch.state()["mean"])
        return False

    whole = fit(o, max_iter=8, on_epoch=note, **numbers)
    curve = whole.monitor.validation_curves[0]
    assert min(curve) < curve[-1]
    assert_close(whole.learned["mean"], seen[curve.index(min(curve))], 0)
    assert_close(dict(whole.state["objective"]), {"mean": seen[-1]}, 0)
    half = fit(o, max_iter=4, **numbers)
    both = fit(o, max_iter=4, state=pickle.loads(pickle.dumps(half.state)), **numbers)
    assert_close(both.learned, whole.learned, 0)
    assert_close(fit(o, max_iter=8, learning_rate_init=0.3).learned, {"mean": seen[-1]}, 0)


def test_users_modules_go_on_with_their_running_statistics():
    net, held = users_network(), (make_source(normal(9, D, seed=5), DOUBLE), NO_ROWS)
    initial = net.initial(None)
    whole = fit(net=net, initial=initial, validation=held, max_iter=8)
    half = fit(net=users_network(), initial=initial, validation=held, max_iter=4)
    state = pickle.loads(pickle.dumps(half.state))
    both = fit(net=users_network(), initial=initial, validation=held, max_iter=4, state=state)
    assert both.monitor.validation_curves == whole.monitor.validation_curves
    assert all(torch.equal(p, both.parameters[k]) for k, p in whole.parameters.items())


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_refuse_a_users_layer_that_draws_and_name_it(solver):
    parts = nn.Sequential(nn.Linear(D, K), nn.Dropout(0.3))
    net = Network(wrap("encoder", parts, DOUBLE, "cpu"), network().decoder)
    initial = net.initial(Streams([0]).draws("init", DOUBLE))
    with pytest.raises(ValueError, match=f"solver='{solver}' needs a deterministic.*Dropout draws"):
        fit(net=net, initial=initial, solver=solver)


def test_users_encoder_may_have_no_parameters():
    decoder = wrap("decoder", nn.Linear(D, D), DOUBLE, "cpu")
    net = Network(wrap("encoder", nn.Flatten(), DOUBLE, "cpu"), decoder)
    curve = fit(net=net, initial=net.initial(None), max_iter=20).monitor.loss_curves[0]
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("name", ["Activity", "Bent", "Gaussian", "Sampled", "LearnedVariance"])
def test_users_modules_take_every_hook(name):
    o = OBJECTIVES[name]
    encoder = wrap("encoder", nn.Linear(D, o.code_width(K)), DOUBLE, "cpu")
    net = Network(encoder, network().decoder)
    own = {f"objective.{k}": v.double() for k, v in o.parameters(D, K).items()}
    initial = net.initial(Streams([0]).draws("init", DOUBLE)) | own
    result = fit(o, net=net, initial=initial, max_iter=20)
    assert result.monitor.loss_curves[0][-1] < result.monitor.loss_curves[0][0]


# ---- max-norm


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.3, 2.0)], ids=str)
def test_weights_into_hidden_units_stay_within_max_norm(solver, gains):
    net, most = network((6, 4), gains=gains), 0.4
    free = fit(net=net, solver=solver, learning_rate_init=0.05)
    held = fit(net=net, solver=solver, learning_rate_init=0.05, max_norm=most)
    layers = [*net.encoder.layers, *net.decoder.layers]
    for result, beyond in ((free, True), (held, False)):
        norms = [result.parameters[layer.weight].norm(dim=-1) * layer.gain for layer in layers]
        assert any((norm > most + 1e-12).any() for norm in norms[:-1]) == beyond
    assert (norms[-1] > most).any()  # outputs are no hidden units


class Growing:
    """A further step that doubles every parameter."""

    def __init__(self, run):
        self.flat = run.buffer.flat

    def step(self, x, rows, factor):
        self.flat.mul_(2)

    def end_epoch(self): ...

    def report(self):
        return {}

    state = report


def test_max_norm_holds_after_further_steps_too():
    net, o, most = network((6, 4)), objective(), 0.4
    result = train(
        net, o, make_source(X, DOUBLE), Training(max_iter=2, tol=None, max_norm=most), Streams([0]),
        starting(net, o), further=Growing,
    )  # fmt: skip
    for layer in [*net.encoder.layers, *net.decoder.layers][:-1]:
        assert (result.parameters[layer.weight].norm(dim=-1) <= most + 1e-12).all()


def test_max_norm_that_is_never_reached_changes_nothing():
    free, held = fit(), fit(max_norm=1e6)
    assert_close(held.parameters, free.parameters)


def test_max_norm_is_refused_where_it_cannot_hold():
    with pytest.raises(ValueError, match="minimises without constraints"):
        fit(solver="lbfgs", max_norm=1.0)
    net = Network(wrap("encoder", nn.Linear(D, K), DOUBLE, "cpu"), network().decoder)
    with pytest.raises(ValueError, match="built-in dense layers"):
        fit(net=net, max_norm=1.0)


# ---- inference mode, which plain steps run in


def test_nothing_that_outlives_training_is_an_inference_tensor():
    epochs = []

    def look(epoch):
        epochs.append(epoch.parameters())
        assert not torch.is_inference_mode_enabled()
        return False

    held = make_source(normal(9, D, seed=7), DOUBLE)
    result = fit(on_epoch=look, validation=(held, NO_ROWS), max_iter=3)
    state = result.state
    tensors = [*result.parameters.values(), *epochs[-1].values(), state["flat"]]
    tensors += [state["solver"]["m"], state["solver"]["v"]]
    assert not any(tensor.is_inference() for tensor in tensors)
    copied = pickle.loads(pickle.dumps(state))
    assert_close(copied["monitor"]["best_flat"][0], state["monitor"]["best_flat"][0])
    weight = result.parameters["encoder.0.W"].requires_grad_()
    (weight.square().sum()).backward()
    assert weight.grad is not None


def test_loss_of_ones_own_may_use_autograd():
    @dataclasses.dataclass(frozen=True)
    class Differentiated(SquaredError):
        def gradient(self, x, raw):
            with torch.enable_grad():
                leaf = raw.detach().requires_grad_()
                value = (leaf - x).square().sum()
            return torch.autograd.grad(value, leaf)[0]

        accumulate = Loss.accumulate
        kernels = Loss.kernels

    expected, got = fit(max_iter=3), fit(Objective(loss=Differentiated()), max_iter=3)
    assert_close(got.parameters, expected.parameters)

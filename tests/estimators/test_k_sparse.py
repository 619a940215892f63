"""The k-sparse autoencoder: what it keeps, how k falls, and how dead units come back."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from toys import DOUBLE, Fused, network, normal, starting, step

from skae import Autoencoder, KSparseAutoencoder
from skae.estimators.k_sparse import KSparse
from skae.losses import LOSSES, SquaredError
from skae.objective import Forward, Rows
from skae.testing import check_objective


def quick(**changed):
    """One that trains in a few milliseconds."""
    return KSparseAutoencoder(
        **{"n_components": 8, "k": 2, "max_iter": 6, "tol": None, "random_state": 0} | changed
    )


def objective(**fields):
    return KSparse(**{"loss": SquaredError(), "k": 2.0} | fields)


def forward(x, h, z, raw, state):
    return Forward(x, x, h, z, raw, state=state)


def same_weights(a, b):
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


def active(codes):
    return (codes != 0).sum(1)


# ---- the objective


OBJECTIVES = {
    "one unit": objective(k=1.0),
    "its own k": objective(k=None),
    "falling": objective(k_start=5.0, alpha_k=1.5),
    "batch": objective(selection="batch", alpha_k=1.5),
    "alpha of a batch": objective(selection="batch", k_start=3.0, alpha_k=1.5),
    "dead": objective(auxiliary=0.5, dead_after=0.0),
    "dead, batch": objective(auxiliary=0.5, dead_after=0.0, selection="batch"),
} | {f"dead, {name}": objective(loss=loss, auxiliary=0.5, dead_after=0.0)
     for name, loss in LOSSES.items()}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_keeps_the_contract(name):
    check_objective(OBJECTIVES[name], n_components=6, n_features=6)


def test_a_unit_that_is_not_kept_gets_no_gradient():
    o, net = objective(k=1.0, falls=False), network((), code="identity")
    p = starting(net, o)
    p["encoder.0.b"][2] = -100.0
    gradients = step(Fused, net, o, normal(9, 5), parameters=p).gradients
    assert gradients["encoder.0.W"][:2].any(-1).all()
    for name, axis in (("encoder.0.W", 0), ("encoder.0.b", 0), ("decoder.0.W", 1)):
        assert not gradients[name].movedim(axis, 0)[2].any(), name


# ---- k


@pytest.mark.parametrize("k", [1, 2, 5, 8])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (6,)])
def test_k_units_are_active_exactly(X, k, hidden_layer_sizes):
    ae = quick(k=k, hidden_layer_sizes=hidden_layer_sizes).fit(X)
    assert (active(ae.transform(X)) == k).all()


@pytest.mark.parametrize(("width", "k"), [(1, 1), (2, 2), (8, 3), (100, 10)])
def test_default_k_is_the_root_of_the_width(X, width, k):
    ae = quick(k=None, n_components=width).fit(X)
    assert (active(ae.transform(X)) == k).all()


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_k_of_the_whole_width_is_the_plain_linear_tied_autoencoder(X, solver):
    plain = Autoencoder(n_components=4, hidden_layer_sizes=(), activation="identity", max_iter=6,
                        tied_weights=True, tol=None, random_state=0, solver=solver)  # fmt: skip
    ae = quick(k=4, n_components=4, solver=solver, auxiliary=0.0)
    assert same_weights(plain.fit(X), ae.fit(X))
    assert plain.loss_curve_ == ae.loss_curve_
    np.testing.assert_array_equal(plain.transform(X), ae.transform(X))


def test_k_falls_linearly_over_the_first_half_of_the_schedule():
    o = objective(k=20.0, k_start=100.0)
    progress = [0.0, 0.125, 0.25, 0.4, 0.5, 0.75, 1.0]
    assert [o.k_at(p, 1000) for p in progress] == pytest.approx([100, 80, 60, 36, 20, 20, 20])


def test_training_keeps_as_many_units_as_the_schedule_says(X):
    """The state of the objective tells of every batch's code."""
    seen = []

    class Counting(KSparse):
        def update(self, state, out):
            seen.append(int((out.z != 0).sum(-1).max()))
            return super().update(state, out)

    class Counted(KSparseAutoencoder):
        def _objective(self):
            return Counting(**vars(super()._objective()))

    Counted(n_components=9, k=1, k_start=9, max_iter=16, tol=None, random_state=0).fit(X)
    assert seen == [9, 8, 7, 6, 5, 4, 3, 2] + [1] * 8


@pytest.mark.parametrize(("k", "width", "start"), [(2, 100, 8), (2, 5, 5), (None, 100, 40)])
def test_default_k_start_is_four_times_k_or_the_width(k, width, start):
    assert objective(k=k and float(k)).k_at(0.0, width) == start


def test_stopping_waits_until_k_has_fallen(X):
    """Losses of a larger k are lower, and no measure."""
    ae = quick(tol=0.99, n_iter_no_change=1, max_iter=20)
    assert clone(ae).set_params(k_start=2).fit(X).n_iter_ == 2
    waiting = ae.fit(X)
    assert (waiting.n_iter_, waiting.stop_reason_) == (12, "converged")
    assert waiting.best_loss_ == min(waiting.loss_curve_[10:])


@pytest.mark.parametrize(("alpha_k", "kept"), [(0.5, 1), (1.0, 2), (1.2, 3), (3.0, 6), (9.0, 8)])
def test_alpha_k_units_serve_transform_and_reconstruct(X, alpha_k, kept):
    ae = quick(alpha_k=alpha_k).fit(X)
    assert same_weights(ae, quick().fit(X))
    codes = ae.transform(X)
    assert (active(codes) == kept).all()
    np.testing.assert_array_equal(ae.reconstruct(X), ae.inverse_transform(codes))


@pytest.mark.parametrize("bad", [-1.0, 0, "3", None])
def test_alpha_k_chosen_after_training_is_validated(X, bad):
    ae = quick().fit(X).set_params(alpha_k=bad)
    for method in (ae.transform, ae.reconstruct, ae.score):
        with pytest.raises(ValueError, match="The 'alpha_k' parameter of KSparseAutoencoder"):
            method(X)


def test_alpha_k_of_a_learned_threshold_cannot_be_chosen_after_training(X):
    ae = quick(selection="batch").fit(X)
    codes = ae.transform(X)
    with pytest.raises(ValueError, match=r"alpha_k=4.0, but the threshold .* alpha_k=1.0"):
        ae.set_params(alpha_k=4.0).transform(X)
    np.testing.assert_array_equal(ae.set_params(alpha_k=1.0).transform(X), codes)


def test_k_falls_over_the_calls_of_partial_fit(X, monkeypatch):
    """Over half of `max_iter` of them, not within the first."""
    seen, update = [], KSparse.update

    def spy(self, state, out):
        seen.append(int((out.z != 0).sum(-1).max()))
        return update(self, state, out)

    monkeypatch.setattr(KSparse, "update", spy)
    ae = quick(k=2, k_start=6, max_iter=8)
    for _ in range(6):
        ae.partial_fit(X)
    assert seen == [6, 5, 4, 3, 2, 2]


def test_alpha_k_may_be_chosen_after_training(X):
    ae, other = quick().fit(X), quick(alpha_k=3.0).fit(X)
    np.testing.assert_array_equal(ae.set_params(alpha_k=3.0).transform(X), other.transform(X))


@pytest.mark.parametrize("k", [1, 2])
def test_three_units_divide_the_plane_into_three_affine_regions(k):
    X = np.random.default_rng(0).normal(size=(200, 2))
    ae = quick(n_components=3, k=k, max_iter=50, learning_rate_init=0.01).fit(X)
    grid = np.stack(np.meshgrid(*[np.linspace(-3, 3, 61)] * 2), -1).reshape(-1, 2)
    supports, region = np.unique(ae.transform(grid) != 0, axis=0, return_inverse=True)
    assert 1 < len(supports) <= math.comb(3, k)
    for i in range(len(supports)):
        inside = grid[region == i]
        affine = np.c_[inside, np.ones(len(inside))]
        found = ae.reconstruct(inside)
        best = affine @ np.linalg.lstsq(affine, found, rcond=None)[0]
        np.testing.assert_allclose(found, best, atol=1e-10)


# ---- dead units


def half_dead(X, **changed):
    """A fit from weights of which half the units are far below the others."""
    start = quick(n_components=8, max_iter=1).fit(X)
    with torch.no_grad():
        next(start.encoder_.children()).bias[4:] -= 8.0
    return quick(
        initialize_from=start, k_start=2, max_iter=60, learning_rate_init=0.1, **changed
    ).fit(X)


def eight_clusters(**changed):
    """Eight orthogonal clusters, one unit each, but half of the units start below the others."""
    X = np.kron(np.eye(8), np.ones((10, 1)))
    X *= np.random.default_rng(0).uniform(1, 2, size=(80, 1))
    ae = quick(k=1, k_start=1, random_state=3, learning_rate_init=0.02, max_iter=100)
    start = clone(ae).set_params(max_iter=1, learning_rate_init=1e-9).fit(X)
    with torch.no_grad():
        next(start.encoder_.children()).bias[4:] -= 0.5
    ae = ae.set_params(initialize_from=start, **changed).fit(X)
    return ae.dead_fraction_, ae.reconstruction_error(X).mean()


def test_units_that_die_without_the_auxiliary_loss_are_revived_by_it():
    dead, error = eight_clusters(auxiliary=0.0)
    assert dead == 0.5
    revived, lower = eight_clusters()
    assert revived == 0.0
    assert lower < error / 5


def test_without_dead_units_the_auxiliary_loss_is_nothing(X):
    plain = quick(auxiliary=0.0).fit(X)
    ae = quick(auxiliary=1.0, dead_after=100).fit(X)
    assert same_weights(plain, ae)
    assert plain.loss_curve_ == ae.loss_curve_


def test_for_the_squared_error_the_auxiliary_loss_is_the_mean_squared_residual():
    """c mean((e - W^T u)^2) with u the d / 2 largest dead values, by hand."""
    o, net = objective(auxiliary=0.25, dead_after=3.0, k_start=2.0), network((), k=7, tied=True)
    p, x = starting(net, o), normal(6, 5)
    h, z = normal(6, 7, seed=1), normal(6, 7, seed=2)
    raw = net.decoder.forward(p, z)
    W = p["encoder.0.W"]
    idle = torch.tensor([0.0, 3.0, 2.9, 4.0, 3.0, 9.0, 1.0], dtype=DOUBLE)
    dead = [1, 3, 4, 5]
    u = torch.zeros(6, 7, dtype=DOUBLE)
    for row in range(6):
        for j in sorted(dead, key=lambda j: -h[row, j])[: 5 // 2]:
            u[row, j] = h[row, j]
    out = forward(x, h, z, raw, {"idle": idle})
    expected = 0.25 * (x - raw - u @ W).square().mean(-1)
    torch.testing.assert_close(o.penalty(out, {"encoder.0.W": W}), expected)


def test_a_perfect_reconstruction_has_no_auxiliary_loss():
    o = objective(auxiliary=1.0, dead_after=0.0)
    x, h = normal(4, 5), normal(4, 3)
    out = forward(x, h, h, x.clone(), o.init_state(5, 3))
    net = {"decoder.0.W": normal(5, 3)}
    assert not o.penalty(out, net).any()
    assert not o.penalty_gradient(out, net, torch.ones(4, 1, dtype=DOUBLE))[0].any()


@pytest.mark.parametrize("batch_size", [7, 60])
def test_idle_time_is_counted_in_epochs(X, batch_size):
    """Whatever the batches: an epoch without activity is one epoch."""
    dead = {
        after: half_dead(X, auxiliary=0.0, dead_after=after, batch_size=batch_size).dead_fraction_
        for after in (60, 61)
    }
    assert dead == {60: 0.5, 61: 0.0}


def test_passes_of_partial_fit_count_as_epochs(X):
    ae = quick(k=1, k_start=1, auxiliary=0.0, dead_after=3, learning_rate_init=1e-9)
    ae.partial_fit(X[:40]).partial_fit(X)
    assert ae.dead_fraction_ == 0.0
    ae.partial_fit(X[10:30])
    never = ~(ae.transform(X) != 0).any(0)
    assert ae.dead_fraction_ == never.mean() > 0


def test_rows_of_weight_zero_keep_no_unit_alive():
    o, h = objective(), torch.eye(3, dtype=DOUBLE)
    out = forward(h, h, h, h, {})._replace(rows=Rows(weight=torch.tensor([1.5, 0.0, 1.5])))
    assert o.update(o.init_state(3, 3), out)["idle"].tolist() == [0, 1, 0]


# ---- the choice of a batch


def test_a_code_of_batch_selection_is_a_function_of_its_row(X):
    ae = quick(selection="batch", max_iter=40).fit(X)
    codes = ae.transform(X)
    alone = np.concatenate([ae.transform(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(codes, alone, atol=1e-12)
    np.testing.assert_array_equal(ae.reconstruct(X), ae.inverse_transform(codes))
    threshold = ae.objective_.threshold
    assert threshold > 0
    assert (codes[codes != 0] >= threshold).all()
    assert len(set(active(codes))) > 1
    assert 0.5 < active(codes).mean() / 2 < 2


def test_threshold_is_the_running_mean_of_the_smallest_positive_value_kept():
    o = objective(selection="batch", k=1.0, falls=False)
    state, seen = o.init_state(5, 4), []
    for i in range(30):
        h = normal(6, 4, seed=i)
        out = forward(
            normal(6, 5), h, o.latent(h, SimpleNamespace(progress=1.0)), normal(6, 5), state
        )
        state = o.update(state, out)
        kept = h.flatten().sort().values[-6:]
        seen.append(float(kept[kept > 0].min()))
        if i < 20:  # the mean so far, then an exponential one
            assert float(state["threshold"]) == pytest.approx(np.mean(seen))
    last = float(state["threshold"])
    assert min(seen) < last < max(seen)
    assert o.learned(state).threshold == last


def test_threshold_is_that_of_the_final_k_while_k_falls():
    h, x = normal(6, 4), normal(6, 5)
    falling, fallen = (objective(selection="batch", k=1.0, k_start=k) for k in (4.0, 1.0))
    thresholds = [
        float(o.update(o.init_state(5, 4), forward(x, h, o._keep(h, 4.0), x, {})
                       ._replace(state=o.init_state(5, 4), progress=0.0))["threshold"])
        for o in (falling, fallen)
    ]  # fmt: skip
    assert thresholds[0] == thresholds[1] > 0


def test_rows_of_weight_zero_have_no_say_on_the_threshold():
    o, w = objective(selection="batch", k=1.0, falls=False), torch.ones(9, dtype=DOUBLE)
    w[6:] = 0
    h, x = normal(9, 4), normal(9, 5)
    h[6:] += 100
    all_rows = forward(x, h, h, x, {})._replace(rows=Rows(weight=w), progress=1.0)
    counted = forward(x[:6], h[:6], h[:6], x[:6], {})._replace(progress=1.0)
    state = o.init_state(5, 4)
    assert o.update(state, all_rows)["threshold"] == o.update(state, counted)["threshold"]
    nothing = all_rows._replace(rows=Rows(weight=0 * w))
    assert o.update(state, nothing)["threshold"] == state["threshold"]


def test_models_of_a_stack_have_thresholds_of_their_own_rows():
    k = torch.tensor([1.0, 2.0], dtype=DOUBLE).view(2, 1, 1)
    o, h, w = objective(selection="batch", k=k, falls=False), normal(2, 6, 4), torch.ones(2, 6)
    w[0, :2] = 0
    x = normal(2, 6, 5)
    start = {name: value.expand(2, *value.shape)
             for name, value in objective(selection="batch").init_state(5, 4).items()}  # fmt: skip
    out = forward(x, h, h, x, start)._replace(rows=Rows(weight=w), progress=1.0)
    together = o.update(start, out)["threshold"]
    for m in (0, 1):
        one = objective(selection="batch", k=float(k[m]), falls=False)
        alone = forward(x[m], h[m], h[m], x[m], {})._replace(rows=Rows(weight=w[m]), progress=1.0)
        assert together[m] == one.update(one.init_state(5, 4), alone)["threshold"]


@pytest.mark.parametrize("k_start", [None, 2])
def test_best_weights_come_with_the_threshold_of_their_epoch(digits, k_start):
    X = digits[:300] / 16
    held = []

    class Spy(KSparseAutoencoder):
        def _hold_out(self, *args):
            found = super()._hold_out(*args)
            held.append(found[2][0].take(slice(0, found[2][0].n)).numpy())
            return found

    ae = Spy(
        n_components=16, k=2, k_start=k_start, selection="batch", early_stopping=True, tol=None,
        max_iter=40, learning_rate_init=0.03, random_state=0,
    ).fit(X)  # fmt: skip
    curve = ae.validation_loss_curve_
    assert np.argmin(curve) < len(curve) - 1
    assert -ae.score(held[0]) == pytest.approx(min(curve), rel=1e-9)
    assert ae.best_loss_ == min(curve)


def test_alpha_k_lowers_the_threshold(X):
    few, many = (quick(selection="batch", alpha_k=a).fit(X) for a in (1.0, 2.0))
    assert same_weights(few, many)
    assert many.objective_.threshold < few.objective_.threshold


# ---- the rest of the contract


@pytest.mark.parametrize("selection", ["row", "batch"])
def test_two_fits_are_one(X, selection):
    ae = quick(warm_start=True, learning_rate_horizon=12, selection=selection, batch_size=16)
    whole = clone(ae).set_params(max_iter=12).fit(X)
    halves = ae.fit(X).fit(X)
    assert same_weights(whole, halves)
    assert whole.dead_fraction_ == halves.dead_fraction_
    np.testing.assert_array_equal(whole.transform(X), halves.transform(X))


def test_another_selection_under_warm_start_trains_on(X):
    ae = quick(warm_start=True).fit(X).set_params(selection="batch").fit(X)
    assert ae.n_iter_ == 12
    assert ae.objective_.threshold > 0
    assert ae.set_params(selection="row").fit(X).n_iter_ == 18


@pytest.mark.parametrize("selection", ["row", "batch"])
@pytest.mark.parametrize("changed", [
    {"hidden_layer_sizes": (6,)},
    {"hidden_layer_sizes": (6,), "tied_weights": False, "dropout": 0.2},
    {"early_stopping": True},
    {"loss": "binary_cross_entropy"},
    {"solver": "lbfgs"},
    {"encoder": nn.Linear(5, 8), "tied_weights": False, "n_components": None},
])  # fmt: skip
def test_it_learns_in_every_setting(X, changed, selection):
    X = (X - X.min(0)) / np.ptp(X, axis=0)
    start = {} if "solver" in changed else {"max_iter": 1, "learning_rate_init": 1e-9}
    ae = quick(max_iter=60, learning_rate_init=0.01, selection=selection, **changed).fit(X)
    untrained = quick(**{"max_iter": 1, "selection": selection} | changed | start).fit(X)
    assert ae.score(X) > untrained.score(X)


def test_the_path_is_fused(X):
    assert quick().fit(X).engine_.path == "fused"


# ---- what is refused


@pytest.mark.parametrize(("changed", "words"), [
    ({"code_activation": "relu"}, "k-sparse code is linear"),
    ({"code_activation": "auto"}, "Leave code_activation='identity'"),
    ({"k": 9}, "k=9 is larger than the code, which has 8 units"),
    ({"k": 3, "n_components": None}, None),
    ({"k": 4, "n_components": None}, "k=4 is larger than the code, which has 3 units"),
    ({"k_start": 9}, "k_start=9 is larger than the code, which has 8 units"),
    ({"k_start": 1}, "k_start=1 is smaller than k=2"),
    ({"k_start": 4, "solver": "lbfgs"}, "k_start=4 changes it as training goes on"),
    ({"k_start": 2, "solver": "cg"}, None),
    ({"auxiliary": 0.1, "solver": "cg"}, "set auxiliary=0"),
    ({"auxiliary": 0.1, "hidden_layer_sizes": (4,)}, "needs a decoder of one layer"),
    ({"auxiliary": 0.1, "hidden_layer_sizes": 4}, "needs a decoder of one layer"),
    ({"auxiliary": 0.0, "hidden_layer_sizes": (4,)}, None),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(X, changed, words):
    ae = quick(**changed)
    if words is None:
        ae.fit(X)
        return
    with pytest.raises(ValueError, match=words):
        ae.fit(X)
    assert not hasattr(ae, "encoder_")


def test_an_auxiliary_loss_with_a_decoder_of_ones_own_is_refused(X):
    with pytest.raises(ValueError, match="needs a decoder of one layer"):
        quick(auxiliary=0.1, decoder=nn.Linear(8, 5), tied_weights=False).fit(X)

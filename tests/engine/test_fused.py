"""The fused engine against autograd, and both against the definition."""

import dataclasses
import itertools

import pytest
import torch
from toys import (
    DOUBLE,
    LINKED,
    OBJECTIVES,
    Activity,
    Autograd,
    D,
    Fused,
    K,
    SparseClosed,
    assert_close,
    assert_engines_agree,
    inside,
    network,
    network_for,
    normal,
    objective,
    starting,
    step,
)

from skae._engine.autograd import drop_mask
from skae._engine.batches import Staged
from skae._engine.buffer import Buffer
from skae._engine.fused import Scaled
from skae._engine.rng import Streams
from skae.activations import ACTIVATIONS
from skae.bounds import Evidence, ImportanceWeighted
from skae.label_losses import LABEL_LOSSES
from skae.likelihoods import Bernoulli
from skae.likelihoods import Gaussian as NormalLikelihood
from skae.losses import LOSSES, Huber, SquaredError
from skae.networks import Network
from skae.objective import Objective, Rows, stack

CENTER = normal(D, seed=11)
N = 6


def rows(*lead, n=N, observed=True, target=True) -> Rows:
    """Side data of rows, weights of mean 1."""
    weight = normal(*lead, n, seed=21).exp()
    index = torch.arange(n)
    return Rows(
        weight=weight / weight.mean(-1, keepdim=True),
        target=normal(*lead, n, D, seed=22) if target else None,
        observed=(normal(*lead, n, D, seed=23) > -0.3).double() if observed else None,
        index=index,
        y=index % 2,
    )


@pytest.mark.parametrize("lead", [(), (3,)], ids=["one", "three"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_autograds_for_every_activation(activation, lead):
    x = 0.3 * normal(N, D)
    for hidden in ((), (4,), (6, 4)):
        net = network(hidden, activation=activation, code=activation)
        p = {name: 0.6 * value for name, value in starting(net, None, *lead).items()}
        assert_engines_agree(net, objective(), x, lead=lead, parameters=p)


@pytest.mark.parametrize("lead", [(), (3,)], ids=["one", "three"])
@pytest.mark.parametrize("name", [*LOSSES, *LINKED, "huber 0.3"])
def test_gradients_are_autograds_for_every_loss(name, lead):
    loss = Huber(delta=0.3) if name == "huber 0.3" else (LOSSES | LINKED)[name]
    x, o = inside(loss, N, D), objective(loss=loss, alpha=0.1)
    side = rows(target=False)
    assert_engines_agree(network(), o, x, lead=lead)
    assert_engines_agree(network(), o, x, side, lead=lead)


NETWORKS = {
    "one layer": {"hidden": ()},
    "deep": {"hidden": (6, 4), "activation": "softplus"},
    "placed": {"center": CENTER, "gains": (0.3, 2.0)},
    "placed one layer": {"hidden": (), "center": CENTER, "gains": (0.3, 2.0)},
    "tied": {"tied": True, "center": CENTER},
    "tied one layer": {"tied": True, "hidden": ()},
    "wide code": {"k": 9},
}
SIDES = {"alone": Rows(), "weighted": rows(observed=False, target=False), "everything": rows()}
NOISE = {
    "plain": {},
    "decayed": {"alpha": 0.3},
    "dropped": {"dropout": 0.4},
    "inputs dropped": {"input_dropout": 0.4, "alpha": 0.3},
    "both dropped": {"dropout": 0.4, "input_dropout": 0.3},
}


@pytest.mark.parametrize("kind", ["one", "shared x", "own x"])
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_autograds_in_every_setting(name, noise, kind):
    net, o = network(**NETWORKS[name]), objective(**NOISE[noise])
    lead = () if kind == "one" else (3,)
    x = normal(3, N, D) if kind == "own x" else normal(N, D)
    for side in SIDES.values():
        assert_engines_agree(net, o, x, side, lead=lead)


def test_every_model_may_have_its_own_side_data():
    assert_engines_agree(network(), objective(), normal(3, N, D), rows(3), lead=(3,))


@pytest.mark.parametrize("kind", ["one", "shared x", "own x"])
@pytest.mark.parametrize("name", [name for name, o in OBJECTIVES.items() if not o.needs_graph])
def test_gradients_are_autograds_at_every_seam(name, kind):
    o = OBJECTIVES[name]
    lead = () if kind == "one" else (3,)
    x = normal(3, N, D) if kind == "own x" else normal(N, D)
    known = Rows(index=torch.arange(N), y=torch.arange(N) % 2)
    hidden = (K,) if "Contractive" in name else (4,)
    for options in ({"hidden": hidden}, {"hidden": (), "center": CENTER, "gains": (0.3, 2.0)}):
        net = network_for(o, **options)
        assert_engines_agree(net, o, x, known, lead=lead)
        assert_engines_agree(net, o, x, rows(), lead=lead)


@pytest.mark.parametrize("name", ["Bent", "BentClosed", "ActivityClosed", "Sparse", "Whole"])
def test_gradients_are_autograds_at_a_seam_under_dropout_and_tied_weights(name):
    o = OBJECTIVES[name]
    for fields in ({"dropout": 0.4}, {"input_dropout": 0.4, "dropout": 0.2, "alpha": 0.1}):
        noisy = type(o)(loss=SquaredError(), **fields)
        assert_engines_agree(network(tied=True), noisy, normal(N, D), rows())
        assert_engines_agree(network(tied=True), noisy, normal(N, D), rows(), lead=(3,))


@pytest.mark.parametrize("name", ["Bent", "Activity", "Sparse", "Contractive"])
@pytest.mark.parametrize("lead", [(), (2,)], ids=["one", "two"])
def test_closed_form_trains_like_the_seam_that_it_spares(name, lead):
    seam, closed = OBJECTIVES[name], OBJECTIVES[f"{name}Closed"]
    net, x = network(hidden=()), normal(N, D)
    expected = step(Fused, net, seam, x, rows(), lead=lead)
    got = step(Fused, net, closed, x, rows(), lead=lead)
    assert_close(got.value, expected.value)
    assert_close(got.gradients, expected.gradients)


def test_stacked_fields_reach_every_seam():
    names = ["Gaussian", "Bent", "BentClosed", "Activity", "SparseClosed", "Contractive", "Running"]
    for name in names:
        first = OBJECTIVES[name]
        other = type(first)(loss=SquaredError(), alpha=0.2, dropout=0.1)
        o = stack([first, other, type(first)(loss=SquaredError(), alpha=0.4)])
        assert_engines_agree(network(hidden=()), o, normal(N, D), rows(), lead=(3,))


@pytest.mark.parametrize("engine", [Fused, Autograd])
@pytest.mark.parametrize("name", NETWORKS)
def test_value_and_gradient_are_those_of_the_definition(engine, name):
    """mean_i w_i mean_j l(x_ij, raw_ij) + alpha / 2 |W|^2, written out."""
    net, x, w = network(**NETWORKS[name]), normal(N, D), rows().weight
    p = {name: value.requires_grad_() for name, value in starting(net).items()}
    raw = net.decoder.forward(p, net.encoder.forward(p, x))
    W = [v for k, v in net.exported(p).items() if k in net.weight_shapes()]
    value = (w * ((raw - x) ** 2).mean(-1)).mean() + 0.15 * sum(v.square().sum() for v in W)
    expected = dict(zip(p, torch.autograd.grad(value, list(p.values())), strict=True))
    start = {name: v.detach() for name, v in p.items()}
    got = step(engine, net, objective(alpha=0.3), x, Rows(weight=w), parameters=start)
    assert_close(got.value, value.detach())
    assert_close(got.gradients, expected)


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_gradient_of_a_stack_is_every_models_own(engine):
    net, x = network(center=CENTER, gains=(0.3, 2.0)), normal(3, N, D)
    p = starting(net, None, 3)
    together = step(engine, net, objective(alpha=0.1), x, lead=(3,), parameters=p)
    for m in range(3):
        own = {name: value[m] for name, value in p.items()}
        alone = step(engine, net, objective(alpha=0.1), x[m], parameters=own)
        assert_close(together.value[m], alone.value)
        assert_close({k: g[m] for k, g in together.gradients.items()}, alone.gradients)


def make(engine, net, o, streams=None, dtype=DOUBLE):
    buffer = Buffer(net.weight_shapes() | net.bias_shapes(), (), dtype)
    buffer.fill(starting(net))
    return engine(net, o, buffer, streams or Streams([3])), buffer


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_chunks_of_a_full_batch_add_up_to_it(engine):
    net, o, x, side = network(center=CENTER), objective(alpha=0.2), normal(10, D), rows(n=10)
    whole = step(engine, net, o, x, side)
    run, buffer = make(engine, net, o)
    total = torch.zeros_like(buffer.flat)
    with torch.no_grad():
        for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
            run.add_gradient(x[part], side.take(part), 10)
            total += buffer.grad
    assert_close(run.take_value() / 10, whole.value)
    assert_close(buffer.view(total), whole.gradients)


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_value_is_taken_once(engine):
    run, _ = make(engine, network(), objective(alpha=0.1))
    x = normal(N, D)
    with torch.no_grad():
        run.add_gradient(x, Rows(), N)
        first = run.take_value()
        assert run.take_value() == 0
        run.add_gradient(x, Rows(), N)
        run.add_gradient(x, Rows(), N)
    assert_close(run.take_value(), 2 * first)


def test_batches_of_different_sizes_do_not_disturb_each_other():
    run, buffer = make(Fused, network(hidden=(6, 4)), objective())
    for n in (5, 1, 3, 5, 1):
        x = normal(n, D, seed=n)
        expected = step(Autograd, network(hidden=(6, 4)), objective(), x)
        run.add_gradient(x, Rows(), n)
        assert_close(dict(buffer.gradients), expected.gradients)


def test_new_data_in_a_tensor_used_again_is_read():
    run, buffer = make(Fused, network(), objective())
    x = normal(N, D)
    for seed in (0, 1):
        x.copy_(normal(N, D, seed=seed))
        run.add_gradient(x, Rows(), N)
    run.add_gradient(x, Rows(), N)
    expected = step(Autograd, network(), objective(), normal(N, D, seed=1))
    assert_close(dict(buffer.gradients), expected.gradients)


def test_data_are_never_written_to():
    x = normal(N, D)
    before = x.clone()
    for name, o in OBJECTIVES.items():
        if not OBJECTIVES[name].needs_graph:
            step(Fused, network_for(o, hidden=(K,)), o, x, rows())
            assert torch.equal(x, before), name


def test_gradient_between_the_views_stays_zero():
    run, buffer = make(Fused, network(), objective(alpha=0.3))
    run.add_gradient(normal(N, D), Rows(), N)
    inside_views = torch.zeros_like(buffer.flat)
    for view in buffer.view(inside_views).values():
        view.fill_(1)
    assert not buffer.grad[inside_views == 0].any()


def test_no_graph_is_built_at_the_closed_forms():
    """In inference mode autograd cannot record, so a hidden use of it would raise."""
    with torch.inference_mode():
        for o in (objective(alpha=0.1, dropout=0.2), SparseClosed(loss=SquaredError())):
            run, _ = make(Fused, network(), o)
            run.add_gradient(normal(N, D), rows(), N)
        run, _ = make(Fused, network(), Activity(loss=SquaredError()))
        with pytest.raises(RuntimeError, match="grad"):
            run.add_gradient(normal(N, D), rows(), N)


@pytest.mark.parametrize("likelihood", [Bernoulli(), NormalLikelihood(None), NormalLikelihood(0.5)])
def test_bounds_in_closed_form_build_no_graph_either(likelihood):
    for o in (Evidence(loss=likelihood), ImportanceWeighted(loss=likelihood)):
        net = network_for(o, code="identity")
        with torch.inference_mode():
            run, _ = make(Fused, net, o)
            run.add_gradient(inside(likelihood, N, D), rows(), N, state=o.init_state(D, K))
        assert not run.enters_autograd
        got = step(Fused, net, o, inside(likelihood, N, D))  # nothing of that is kept
        assert all(torch.isfinite(g).all() for g in got.gradients.values())
    assert make(Fused, network(), Activity(loss=SquaredError()))[0].enters_autograd


def test_hooks_of_a_pass_share_what_they_work_out_once():
    calls = []

    @dataclasses.dataclass(frozen=True)
    class Counted(NormalLikelihood):
        def elements(self, x, raw):
            calls.append(x)
            return super().elements(x, raw)

    o = ImportanceWeighted(loss=Counted(None), gradient="doubly_reparameterized")
    net = network_for(o, code="identity")
    got = step(Fused, net, o, normal(N, D), batches=2)
    assert len(calls) == 2  # the scale, the bound and the weights of the path
    expected = step(Autograd, net, o, normal(N, D), batches=2)
    assert_close(got.gradients, expected.gradients)
    assert_close(got.state, expected.state)


def test_single_precision_agrees_with_double():
    for o in (objective(alpha=0.1), Activity(loss=SquaredError())):
        expected = step(Fused, network(), o, normal(N, D))
        run, buffer = make(Fused, network(), o, dtype=torch.float32)
        run.add_gradient(normal(N, D).float(), Rows(), N)
        assert_close({k: g.double() for k, g in buffer.gradients.items()}, expected.gradients, 1e-5)


# Dropout.


class Fixed:
    """Streams whose bernoulli draws for dropout are given, layer after layer."""

    def __init__(self, masks):
        self.masks = masks

    def draws(self, purpose, dtype):
        return FixedDraws(self.masks if purpose == "dropout" else [])


class FixedDraws:
    progress = 0.0

    def __init__(self, masks):
        self.masks = itertools.cycle(masks)

    def bernoulli(self, p, like):
        return next(self.masks).expand_as(like)


class Recording(Objective):
    """Hands the network's output out as state."""

    def update(self, state, out):
        return {"raw": out.raw.clone()}


def raw_under(mask, p, x, net, parameters):
    o, streams = Recording(loss=SquaredError(), dropout=p), Fixed([mask])
    got = step(Fused, net, o, x, parameters=parameters, streams=streams)
    expected = step(Autograd, net, o, x, parameters=parameters, streams=Fixed([mask]))
    assert_close(got.state["raw"], expected.state["raw"])
    return got.state["raw"]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.7])
def test_output_without_dropout_is_the_exact_mean_over_all_masks(p):
    """Of a linear output after the masked layer, weighted by each mask's probability."""
    net, x = network(hidden=(), k=4), normal(3, D)
    parameters = starting(net)
    mean = torch.zeros(3, D, dtype=DOUBLE)
    for bits in itertools.product((0.0, 1.0), repeat=4):
        mask = torch.tensor(bits, dtype=DOUBLE)
        probability = (1 - p) ** mask.sum() * p ** (4 - mask.sum())
        mean += probability * raw_under(mask, p, x, net, parameters)
    without = step(Fused, net, Recording(loss=SquaredError()), x, parameters=parameters)
    assert_close(mean, without.state["raw"])


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_dropped_unit_has_no_gradient_and_the_mean_is_over_all_rows(engine):
    net, p, n = network(hidden=(), k=4), 0.5, 6
    x, parameters = normal(n, D), starting(net)
    mask = (normal(n, 4, seed=5) > 0).double()
    assert len({tuple(row.tolist()) for row in mask}) > 3
    o = objective(dropout=p)
    whole = step(engine, net, o, x, parameters=parameters, streams=Fixed([mask]))
    total = {name: torch.zeros_like(g) for name, g in whole.gradients.items()}
    for i in range(n):
        streams = Fixed([mask[i : i + 1]])
        row = step(engine, net, o, x[i : i + 1], parameters=parameters, streams=streams)
        dropped = mask[i] == 0
        assert not row.gradients["encoder.0.W"][dropped].any()
        assert not row.gradients["encoder.0.b"][dropped].any()
        assert not row.gradients["decoder.0.W"][:, dropped].any()
        assert row.gradients["encoder.0.W"][~dropped].any(-1).all()
        for name, g in row.gradients.items():
            total[name] += g / n
    assert_close(whole.gradients, total)


def test_unit_that_every_row_drops_has_no_gradient_at_all():
    mask = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=DOUBLE)
    got = step(Fused, network(hidden=(), k=4), objective(dropout=0.5), normal(N, D),
               streams=Fixed([mask]))  # fmt: skip
    assert not got.gradients["encoder.0.W"][1].any()


def test_every_row_has_its_own_mask_and_every_batch_another():
    draws, h = Streams([0]).draws("dropout", DOUBLE), torch.ones(40, 30, dtype=DOUBLE)
    masks = [drop_mask(0.5, h, draws) for _ in range(3)]
    assert len({tuple(row.tolist()) for mask in masks for row in mask}) == 120


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_mask_drops_with_its_probability_and_scales_what_is_kept(p):
    h = torch.ones(400, 100, dtype=DOUBLE)
    mask = drop_mask(p, h, Streams([0]).draws("dropout", DOUBLE))
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - p)}
    assert (mask == 0).double().mean() == pytest.approx(p, abs=0.01)  # 40,000 draws


@pytest.mark.parametrize("engine", [Fused, Autograd])
@pytest.mark.parametrize("center", [None, CENTER], ids=["", "centered"])
def test_input_dropout_is_about_the_center_and_leaves_the_target_whole(engine, center):
    class Sees(Objective):
        def update(self, state, out):
            return {"x": out.x.clone(), "x_in": out.x_in.clone()}

    x, o = normal(N, D), Sees(loss=SquaredError(), input_dropout=0.5)
    state = step(engine, network(center=center), o, x).state
    assert torch.equal(state["x"], x)
    c = (torch.zeros(D, dtype=DOUBLE) if center is None else center).expand_as(x)
    dropped = state["x_in"] == c
    assert dropped.any()
    assert_close(state["x_in"][~dropped], (2 * x - c)[~dropped])


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_dropout_spares_the_code_where_the_objective_says_so(engine):
    """A Gaussian code's parameters are not dropped: only the hidden layer's masks are drawn."""
    o = OBJECTIVES["Sampled"]
    spared = type(o)(loss=SquaredError(), dropout=0.5)
    streams = Streams([3])
    step(engine, network_for(o, hidden=()), spared, normal(N, D), streams=streams)
    assert_close(streams.draws("dropout", DOUBLE).normal((2,)),
                 Streams([3]).draws("dropout", DOUBLE).normal((2,)))  # fmt: skip


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_zero_dropout_draws_nothing(engine):
    streams = Streams([3])
    before = streams.state()
    step(engine, network(), objective(), normal(N, D), streams=streams)
    after = streams.state()
    assert all(torch.equal(a, b) for p in before for a, b in zip(before[p], after[p], strict=True))


@pytest.mark.parametrize("fields", [("input_dropout", "dropout"), ("dropout", "input_dropout")])
def test_model_without_one_noise_draws_the_other_as_it_would_alone(fields):
    """Input and unit dropout have streams of their own, so a stack is its models."""
    shared, varied = fields
    each = [objective(**{shared: 0.4, varied: v}) for v in (0.0, 0.3)]
    net, x = network(), normal(N, D)
    p = starting(net, None, 2)
    together = step(Fused, net, stack(each), x, lead=(2,), parameters=p)
    for m, o in enumerate(each):
        own = {name: value[m] for name, value in p.items()}
        alone = step(Fused, net, o, x, parameters=own)
        assert_close({k: g[m] for k, g in together.gradients.items()}, alone.gradients)


@pytest.mark.parametrize("engine", [Fused, Autograd])
@pytest.mark.parametrize("field", ["dropout", "input_dropout", "sigma"])
def test_members_with_seeds_of_their_own_are_the_single_models(engine, field):
    cls = type(OBJECTIVES["Gaussian"])
    o = cls(loss=SquaredError(), **{"sigma": 0.0, field: 0.4})
    net, x = network(), normal(N, D)
    p = starting(net, None, 3)
    streams = Streams([5, 6, 7])
    together = step(engine, net, o, x, lead=(3,), parameters=p, streams=streams)
    for m, seed in enumerate((5, 6, 7)):
        own = {name: value[m] for name, value in p.items()}
        alone = step(engine, net, o, x, parameters=own, streams=Streams([seed]))
        assert_close({k: g[m] for k, g in together.gradients.items()}, alone.gradients)


def test_objective_that_differentiates_the_network_trains_stacks_too():
    o, net, x = OBJECTIVES["DeepJacobian"], network(), normal(N, D)
    p = starting(net, None, 2)
    together = step(Autograd, net, o, x, lead=(2,), parameters=p)
    for m in range(2):
        own = {name: value[m] for name, value in p.items()}
        alone = step(Autograd, net, o, x, parameters=own)
        assert_close({k: g[m] for k, g in together.gradients.items()}, alone.gradients)


def test_deep_jacobian_of_one_logistic_layer_is_the_closed_form():
    net, x = network(hidden=()), normal(N, D)
    expected = step(Fused, net, OBJECTIVES["ContractiveClosed"], x)
    got = step(Autograd, net, OBJECTIVES["DeepJacobian"], x)
    assert_close(got.value, expected.value)
    assert_close(got.gradients, expected.gradients)


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_training_a_stack_warns_of_nothing(engine, recwarn):
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else torch warns once a process
    step(engine, network(), objective(), normal(N, D), lead=(3,))
    torch.set_warn_always(before)
    assert [str(warning.message) for warning in recwarn] == []


def test_weights_in_the_units_of_x_are_multiplied_when_they_are_asked_for():
    W, b = torch.ones(2, 2), torch.ones(2)
    net = Scaled({"W": W, "b": b, "bias": b}, {"W": 3.0, "b": 1.0})
    assert list(net) == ["W", "b"]
    assert len(net) == 2
    assert torch.equal(net["W"], 3 * W)
    assert net["b"] is b
    assert "bias" not in net


# ---- frozen layers


@pytest.mark.parametrize("frozen", [1, 2, 3])
@pytest.mark.parametrize("engine", [Fused, Autograd])
@pytest.mark.parametrize("options", [{}, {"alpha": 0.1}, {"dropout": 0.3}], ids=str)
def test_frozen_layers_have_no_gradient_and_the_others_keep_theirs(engine, frozen, options):
    net = network((6, 4))
    lower = dataclasses.replace(net.encoder, frozen=frozen)
    held = Network(lower, net.decoder)
    names = lower.frozen_names()
    assert len(names) == 2 * frozen
    o = objective(**options)
    whole, part = (step(engine, each, o, normal(N, D)) for each in (net, held))
    for name, gradient in part.gradients.items():
        if name in names:
            assert not gradient.any()
        else:
            assert_close(gradient, whole.gradients[name])


@pytest.mark.parametrize("engine", [Fused, Autograd])
def test_penalty_on_weights_leaves_frozen_ones_alone(engine):
    net = network()
    held = Network(dataclasses.replace(net.encoder, frozen=1), net.decoder)
    got = step(engine, held, OBJECTIVES["SmoothWeights"], normal(N, D))
    assert not any(got.gradients[name].any() for name in held.frozen_names())


# ---- steps that know weights and targets


@pytest.mark.parametrize("names", [("weight",), ("target",), ("weight", "target")], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_prepared_step_with_weights_and_targets_is_the_general_one(name, names):
    loss = LOSSES[name]
    o = objective(loss=loss)
    x, known = inside(loss, N, D), {"target": inside(loss, N, D, seed=5), "weight": rows().weight}
    given = {key: known[key] for key in names}
    net = network()
    expected = step(Fused, net, o, x, Rows(**given), batches=2)
    got = step(Fused, net, o, x, Staged(**given), batches=2)
    assert_close(got.value, expected.value)
    assert_close(got.gradients, expected.gradients)
    assert_close(step(Autograd, net, o, x, Staged(**given), batches=2).value, expected.value)


@pytest.mark.parametrize("name", LABEL_LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_prepared_step_on_labels_is_autograds(name, weighted):
    loss = LABEL_LOSSES[name]
    on = torch.eye(4, dtype=DOUBLE)[torch.arange(N) % 4]
    side = {"target": 2 * on - 1 if loss.link == "margin" else on}
    if weighted:
        side["weight"] = rows().weight
    net = network(output_width=4, center=CENTER, gains=(0.5, 1.0))
    assert_engines_agree(net, objective(loss=loss), normal(N, D), Staged(**side))
    assert_engines_agree(net, objective(loss=loss, alpha=0.1), normal(N, D), Staged(**side))
    assert_engines_agree(net, objective(loss=loss, dropout=0.3), normal(N, D), Staged(**side))

"""Stacks side by side: the fused engine against autograd, and against each network alone."""

import dataclasses

import pytest
import torch

from skae._engine.autograd import Autograd
from skae._engine.buffer import Buffer
from skae._engine.fused import Fused
from skae._engine.parallel import ParallelOps, stack_ops
from skae.networks import Dense, Network, Parallel, side_by_side
from skae.objective import Rows, stack
from tests.toys import (
    DOUBLE,
    OBJECTIVES,
    D,
    K,
    assert_close,
    assert_engines_agree,
    normal,
    objective,
    starting,
    step,
)

GROUPS = ((0, 3), (1,), (2, 4))
NEIGHBOURS = ((0, 1), (2,), (3, 4))
# Those that ask for a layer by name, or for a decoder of another width, do not fit.
UNFIT = {
    "Contractive", "ContractiveClosed", "SmoothWeights", "TwoOutputs", "Sampled", "Importance",
}  # fmt: skip
GENERAL = [name for name in OBJECTIVES if name not in UNFIT]


def parts(groups=GROUPS, hidden=(4,), activation="tanh", code="logistic", placed=True):
    """A network for each group, of one code unit; its outputs are as many as its inputs."""
    for g, group in enumerate(groups):
        d = len(group)
        center = normal(d, seed=g) if placed else None
        gains = (0.8 + 0.1 * g, 1.3 - 0.1 * g) if placed else (1.0, 1.0)
        yield Network(
            Dense(f"encoder.{g}", (d, *hidden, 1), activation, code, None, center, gains[0]),
            Dense(f"decoder.{g}", (1, *hidden, d), activation, "identity", gain_out=gains[1]),
        )


def split(groups=GROUPS, **options):
    return side_by_side(list(parts(groups, **options)), groups)


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("name", GENERAL)
def test_fused_is_autograd_for_every_objective(name, lead):
    if OBJECTIVES[name].needs_graph:
        pytest.skip("autograd only")
    rows = Rows(y=torch.arange(7) % 2)
    assert_engines_agree(split(), OBJECTIVES[name], normal(7, D), rows, lead=lead)


@pytest.mark.parametrize("name", ["DeepJacobian", "Probed"])
def test_objectives_that_need_the_graph_reach_every_part(name):
    found = step(Autograd, split(), OBJECTIVES[name], normal(7, D))
    assert all(found.gradients[f"encoder.{g}.0.W"].any() for g in range(3))


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("groups", [GROUPS, NEIGHBOURS])
@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
@pytest.mark.parametrize("activation", ["relu", "gelu", "identity"])
@pytest.mark.parametrize("placed", [False, True])
def test_fused_is_autograd_for_every_network(groups, hidden, activation, placed, lead):
    net = split(groups, hidden=hidden, activation=activation, code=activation, placed=placed)
    rows = Rows(weight=normal(7, seed=1).sigmoid())
    for o, known in ((objective(), Rows()), (objective(alpha=0.1, dropout=0.3), rows),
                     (objective(input_dropout=0.2), rows)):  # fmt: skip
        assert_engines_agree(net, o, normal(7, D), known, lead=lead)


def test_joined_network_is_the_networks():
    net, alone = split(), list(parts())
    parameters, x = starting(net), normal(7, D)
    codes = net.encoder.forward(parameters, x)
    assert_close(net.encoder.center[list(GROUPS[2])], alone[2].encoder.center)
    for g, group in enumerate(GROUPS):
        code = alone[g].encoder.forward(parameters, x[:, group])
        assert torch.equal(codes[:, g : g + 1], code)
        raw = alone[g].decoder.forward(parameters, code)
        block = net.decoder.blocks[g]
        assert torch.equal(net.decoder.forward(parameters, codes)[:, block], raw)


def test_stack_of_models_is_each_model():
    net, x = split(), normal(7, D)
    both = [objective(alpha=0.1, dropout=0.2), objective(alpha=0.3, dropout=0.1)]
    parameters = starting(net, None, 2)
    for kind in (Fused, Autograd):
        together = step(kind, net, stack(both), x, lead=(2,), parameters=parameters)
        for m, o in enumerate(both):
            own = {name: value[m] for name, value in parameters.items()}
            alone = step(kind, net, o, x, parameters=own)
            assert_close(together.value[m], alone.value)
            got = {name: value[m] for name, value in together.gradients.items()}
            assert_close(got, alone.gradients)


def test_exported_parameters_are_the_same_function_and_imported_their_inverse():
    net, x = split(), normal(7, D)
    parameters = starting(net)
    exported = net.exported(parameters)
    assert_close(net.imported(exported), parameters)
    encoder, decoder = net.modules(exported)
    code = net.encoder.forward(parameters, x)
    with torch.no_grad():
        for infer in (encoder, encoder.infer):
            assert_close(infer(x), code)
        for infer in (decoder, decoder.infer):
            assert_close(infer(code), net.decoder.forward(parameters, code))
    assert_close(net.read(encoder, decoder), exported)


def test_centers_are_joined_where_only_some_parts_have_one():
    some = [net if g else Network(dataclasses.replace(net.encoder, center=None), net.decoder)
            for g, net in enumerate(parts())]  # fmt: skip
    net = side_by_side(some, GROUPS)
    assert not net.encoder.center[list(GROUPS[0])].any()
    assert_engines_agree(net, objective(), normal(7, D))
    assert split(placed=False).encoder.center is None


def test_neighbouring_columns_are_read_in_place():
    ops = stack_ops(split(NEIGHBOURS).decoder, *_buffer_and_rows(), is_decoder=True, draw_mask=None,
                    drops_last=False, adds_to_tied=False, receives=False)  # fmt: skip
    assert isinstance(ops, ParallelOps)
    assert ops.gathered == [None, None, None]


def _buffer_and_rows():
    net = split(NEIGHBOURS)
    return Buffer(net.weight_shapes() | net.bias_shapes(), (), DOUBLE), 7


def test_widths_and_layers_are_of_all_parts():
    net = split()
    assert isinstance(net.encoder, Parallel)
    assert net.encoder.widths == (D, K)
    assert net.decoder.widths == (K, D)
    assert len(net.encoder.layers) == 6
    assert net.is_dense
    assert net.encoder_outputs(normal(2, D)) == K
    assert net.weight_gains()["encoder.1.0.W"] == pytest.approx(0.9)
    assert net.weight_gains()["decoder.1.1.W"] == pytest.approx(1.2)

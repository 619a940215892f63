"""Dense stacks: center and gains, tied weights, starting values, exported modules."""

import pytest
import torch
from torch import nn
from toys import DOUBLE, D, K, assert_close, network, normal, starting

from skae._engine.rng import Streams
from skae.activations import ACTIVATIONS
from skae.modules import Wrapped, infer, wrap
from skae.networks import Dense, Network, dense_of

NAMES = list(ACTIVATIONS)
CENTER = normal(D, seed=11)
PLACED = {
    "plain": {},
    "centered": {"center": CENTER},
    "scaled": {"center": CENTER, "gains": (0.3, 2.0)},
    "tied": {"tied": True},
    "tied and centered": {"tied": True, "center": CENTER},
    "one layer": {"hidden": (), "center": CENTER, "gains": (0.3, 2.0)},
    "deep": {"hidden": (6, 4), "gains": (0.3, 2.0)},
}


def written_out(stack, exported, x):
    """The stack by its definition, in the units of X."""
    layers = stack.layers
    h = x
    for layer in layers:
        W = exported[layer.weight].T if layer.tied else exported[layer.weight]
        h = ACTIVATIONS[layer.activation].function(h @ W.T + exported[layer.bias])
    return h


@pytest.mark.parametrize("options", PLACED.values(), ids=PLACED)
def test_exported_parameters_give_the_same_function_without_center_and_gains(options):
    net = network(**options)
    p, x = starting(net), normal(9, D)
    exported = net.exported(p)
    z = net.encoder.forward(p, x)
    assert_close(z, written_out(net.encoder, exported, x))
    assert_close(net.decoder.forward(p, z), written_out(net.decoder, exported, z))


@pytest.mark.parametrize("options", PLACED.values(), ids=PLACED)
def test_imported_undoes_exported(options):
    net = network(**options)
    p = starting(net)
    assert_close(net.imported(net.exported(p)), p)


@pytest.mark.parametrize("options", PLACED.values(), ids=PLACED)
@pytest.mark.parametrize("activation", NAMES)
def test_module_infers_what_the_stack_computes(options, activation):
    net = network(activation=activation, code=activation, **options)
    p = {name: 0.3 * value for name, value in starting(net).items()}  # exp(exp(.)) is in reach
    x = 0.1 * normal(9, D)
    encoder, decoder = net.modules(net.exported(p))
    z = net.encoder.forward(p, x)
    before = x.clone()
    with torch.no_grad():
        assert_close(infer(encoder, x), z, 1e-11)
        assert_close(encoder(x), z, 1e-11)
        assert_close(infer(decoder, z), net.decoder.forward(p, z), 1e-11)
    assert torch.equal(x, before)


@pytest.mark.parametrize("options", PLACED.values(), ids=PLACED)
def test_modules_give_their_parameters_back(options):
    net = network(**options)
    exported = net.exported(starting(net))
    assert_close(net.read(*net.modules(exported)), exported)


def test_modules_own_their_storage():
    net = network()
    flat = {name: p.clone() for name, p in starting(net).items()}
    encoder, _ = net.modules(flat)
    before = encoder[0].weight.clone()
    flat["encoder.0.W"].zero_()
    assert torch.equal(encoder[0].weight, before)
    assert encoder[0].weight.untyped_storage().nbytes() == encoder[0].weight.nbytes


@pytest.mark.parametrize("options", PLACED.values(), ids=PLACED)
def test_leading_axes_are_models(options):
    net = network(**options)
    p, x = starting(net, None, 3), normal(9, D)
    z = net.encoder.forward(p, x)
    raw = net.decoder.forward(p, z)
    assert z.shape == (3, 9, K)
    for m in range(3):
        own = {name: value[m] for name, value in p.items()}
        assert_close(z[m], net.encoder.forward(own, x))
        assert_close(raw[m], net.decoder.forward(own, z[m]))
        assert_close({name: value[m] for name, value in net.exported(p).items()}, net.exported(own))


def test_tied_decoder_has_no_weights_of_its_own():
    net = network(tied=True)
    assert list(net.weight_shapes()) == ["encoder.0.W", "encoder.1.W"]
    assert [layer.weight for layer in net.decoder.layers] == ["encoder.1.W", "encoder.0.W"]


def test_weight_decay_covers_weights_and_no_biases():
    net = network(hidden=(4,))
    assert net.weight_shapes() == {
        "encoder.0.W": (4, D),
        "encoder.1.W": (K, 4),
        "decoder.0.W": (4, K),
        "decoder.1.W": (D, 4),
    }
    assert all("b" in name for name in net.bias_shapes())


def test_initial_weights_have_the_stated_spread_and_leave_the_output_bias_out():
    net = network(hidden=(400,), d=300, k=200)
    values = net.initial(Streams([0]).draws("init", DOUBLE))
    assert set(values) == set(net.weight_shapes() | net.bias_shapes()) - {"decoder.1.b"}
    for layer, fan_in, r_squared in (
        ("encoder.0.W", 300, 2),
        ("decoder.0.W", 200, 2),
        ("decoder.1.W", 400, 1),
        ("encoder.0.b", 300, 1),
    ):
        r = (r_squared / fan_in) ** 0.5
        assert values[layer].abs().max() <= r
        assert values[layer].abs().max() > 0.95 * r
        assert abs(float(values[layer].mean())) < 0.2 * r


def test_initial_weights_are_the_seeds():
    net = network()
    first, again, other = (net.initial(Streams([s]).draws("init", DOUBLE)) for s in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_drop_masks_the_layers_before_all_but_the_first():
    net, seen = network(hidden=(4, 6)), []

    def drop(h):
        seen.append(h.shape[-1])
        return h

    p = starting(net)
    net.encoder.forward(p, normal(2, D), drop)
    assert seen == [4, 6]


def test_center_is_part_of_the_function_and_not_of_the_comparison():
    assert network(center=CENTER).encoder == network().encoder
    assert isinstance(wrap("encoder", nn.Identity(), DOUBLE, "cpu"), Wrapped)


@pytest.mark.parametrize("last", ["identity", "tanh"])
def test_stack_of_a_dense_module_is_the_one_that_made_it(last):
    made = Dense("encoder", (D, 6, 4, 3, 2), ("identity", "relu", "logistic"), last)
    p = starting(Network(made, Dense("decoder", (2, D), "tanh", "identity")))
    module = made.module(p)
    read = dense_of("encoder", module)
    assert read == made
    x = normal(9, D)
    assert_close(read.forward(read.read(module), x), module(x).detach())


def test_layers_may_have_activations_of_their_own():
    stack = Dense("encoder", (D, 6, 4, 3), ("relu", "logistic"), "tanh")
    assert [layer.activation for layer in stack.layers] == ["relu", "logistic", "tanh"]

"""Activations and stacks: derivatives, center and gains, tied weights, modules."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from toys import DOUBLE, D, K, assert_close, network, normal, starting

from skae._engine.rng import Streams
from skae.networks import ACTIVATIONS, Dense, DenseModule, Network, Wrapped, infer, wrap

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


@pytest.mark.parametrize("name", NAMES)
def test_derivative_is_autograds(name):
    f = ACTIVATIONS[name]
    a = normal(40, 3).mul(3).requires_grad_()
    h = f.function(a)
    delta = normal(40, 3, seed=1)
    (expected,) = torch.autograd.grad(h, a, delta)
    got = f.backward_(delta.clone(), h.detach(), a.detach())
    assert_close(got, expected)
    assert_close(delta * f.derivative(h.detach(), a.detach()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_derivative_is_written_over_delta(name):
    f, a, delta = ACTIVATIONS[name], normal(5, 3), normal(5, 3, seed=1)
    assert f.backward_(delta, f.function(a), a) is delta


@pytest.mark.parametrize("name", NAMES)
def test_derivative_needs_no_input_unless_it_says_so(name):
    f, a = ACTIVATIONS[name], normal(5, 3)
    h = f.function(a).clone()
    expected = f.backward_(torch.ones_like(h), h, a)
    overwritten = a if f.needs_input else torch.full_like(a, torch.nan)
    assert torch.equal(f.backward_(torch.ones_like(h), h, overwritten), expected)


@pytest.mark.parametrize("name", NAMES)
def test_into_is_the_function_beside_its_argument_and_over_it(name):
    f, a = ACTIVATIONS[name], normal(4, 3)
    expected, out, over = f.function(a).clone(), torch.empty_like(a), a.clone()
    f.into(a, out=out)
    f.into(over, out=over)
    assert torch.equal(out, expected)
    assert torch.equal(over, expected)


@pytest.mark.parametrize("name", NAMES)
def test_values_lie_in_the_stated_range_and_reach_its_ends(name):
    f = ACTIVATIONS[name]
    h = f.function(torch.linspace(-30, 30, 60_001, dtype=DOUBLE))
    low, high = f.range
    assert h.min() >= low - 1e-12
    assert h.max() <= high + 1e-12
    for end, reached in ((low, h.min()), (high, h.max())):
        assert not np.isfinite(end) or abs(float(reached) - end) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_module_is_the_function(name):
    a = normal(4, 3)
    assert torch.equal(ACTIVATIONS[name].module()(a), ACTIVATIONS[name].function(a))


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


class Users(nn.Module):
    """A module with a branch, a shared input and a buffer."""

    def __init__(self, d_in, d_out):
        super().__init__()
        self.one, self.two = nn.Linear(d_in, d_out), nn.Linear(d_in, d_out)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("shift", torch.ones(d_out))

    def forward(self, x):
        return self.scale * torch.tanh(self.one(x)) + self.two(x) + self.shift


def users_network() -> Network:
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    encoder, decoder = Users(D, K), Users(K, D)
    torch.set_rng_state(torch_state)
    return Network(wrap("encoder", encoder, DOUBLE, "cpu"), wrap("decoder", decoder, DOUBLE, "cpu"))


def test_wrapped_module_computes_what_the_module_computes():
    net, x = users_network(), normal(9, D)
    p = net.initial(None)
    with torch.no_grad():
        assert torch.equal(net.encoder.forward(p, x), net.encoder.working(x))


def test_wrapped_module_is_a_copy():
    module = nn.Linear(D, K)
    stack = wrap("encoder", module, DOUBLE, "cpu")
    assert stack.working is not module
    assert module.weight.dtype is torch.float32
    assert stack.working.weight.dtype is DOUBLE


def test_wrapped_modules_parameters_have_leading_axes():
    net, x = users_network(), normal(9, D)
    p = {name: torch.stack([value, 2 * value, -value]) for name, value in net.initial(None).items()}
    z = net.encoder.forward(p, x)
    assert z.shape == (3, 9, K)
    for m in range(3):
        own = {name: value[m] for name, value in p.items()}
        assert_close(z[m], net.encoder.forward(own, x).detach())
    assert_close(net.encoder.forward(p, torch.stack([x, x, x])), z)


def test_wrapped_modules_weights_decay_and_their_vectors_do_not():
    net = users_network()
    assert set(net.encoder.weight_shapes()) == {"encoder.one.weight", "encoder.two.weight"}
    assert set(net.encoder.bias_shapes()) == {
        "encoder.one.bias",
        "encoder.two.bias",
        "encoder.scale",
    }


def test_frozen_parameters_are_not_trained_and_stay_as_they_are():
    module = Users(D, K)
    module.one.requires_grad_(False)
    stack = wrap("encoder", module, DOUBLE, "cpu")
    assert set(stack.weight_shapes()) == {"encoder.two.weight"}
    p = {name: 2 * value for name, value in stack.initial(None)}
    made = stack.module(p)
    assert torch.equal(made.one.weight, module.one.weight.double())
    assert torch.equal(made.two.weight, 2 * module.two.weight.double())
    assert set(stack.read(made)) == set(p)
    with torch.no_grad():
        assert_close(stack.forward(p, normal(4, D)), made(normal(4, D)))


def test_wrapped_module_without_parameters_is_itself():
    stack = wrap("encoder", nn.Flatten(), DOUBLE, "cpu")
    x = normal(4, D)
    assert torch.equal(stack.forward({}, x), x)


def test_module_of_a_wrapped_stack_is_a_copy_with_these_parameters():
    net = users_network()
    p = {name: 2 * value for name, value in net.initial(None).items()}
    encoder, _ = net.modules(p)
    assert encoder is not net.encoder.working
    assert not encoder.training
    assert_close(encoder.one.weight.detach(), p["encoder.one.weight"])
    assert not torch.equal(net.encoder.working.one.weight, encoder.one.weight)


def test_reading_a_module_takes_its_buffers_over():
    net = users_network()
    encoder, decoder = net.modules(net.initial(None))
    encoder.shift.fill_(5.0)
    net.read(encoder, decoder)
    assert_close(net.encoder.working.shift, torch.full((K,), 5.0, dtype=DOUBLE))


def test_training_mode_reaches_users_modules_and_dense_stacks_ignore_it():
    net = Network(
        wrap("encoder", nn.Linear(D, K), DOUBLE, "cpu"), Dense("decoder", (K, D), "tanh", "tanh")
    )
    for mode in (True, False):
        net.train(mode)
        assert net.encoder.working.training is mode
    assert not net.is_dense
    assert network().is_dense


def test_infer_works_in_the_datas_dtype_and_leaves_the_module_as_it_is():
    module, x = nn.Sequential(nn.Linear(D, K), nn.Tanh()).eval(), normal(4, D)
    before = copy.deepcopy(module)
    with torch.no_grad():
        assert_close(infer(module, x), copy.deepcopy(module).double()(x))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before.parameters()))  # noqa: B905


def test_dense_module_infers_in_the_datas_dtype():
    net = network()
    p, x = starting(net), normal(4, D)
    encoder, _ = net.modules({name: value.float() for name, value in net.exported(p).items()})
    assert isinstance(encoder, DenseModule)
    with torch.no_grad():
        assert infer(encoder, x).dtype is DOUBLE
        assert_close(infer(encoder, x), net.encoder.forward(p, x), 1e-5)


def test_center_is_part_of_the_function_and_not_of_the_comparison():
    assert network(center=CENTER).encoder == network().encoder
    assert isinstance(wrap("encoder", nn.Identity(), DOUBLE, "cpu"), Wrapped)

"""Users' modules as stacks, and inference by modules."""

import copy
import pickle

import torch
from torch import nn
from toys import DOUBLE, D, K, assert_close, network, normal, starting

from skae.latents import keep_largest
from skae.losses import BinaryCrossEntropy, SquaredError
from skae.modules import Applied, DenseModule, chained, infer, wrap
from skae.networks import Dense, Network, dense_of
from skae.objective import Objective


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


def test_dense_modules_and_activations_are_one_dense_module_of_the_same_parameters():
    net = Network(Dense("a", (D, 4), "relu", "tanh"), Dense("b", (4, 3, K), "elu", "identity"))
    a, b = net.modules(starting(net))
    both = chained([a, nn.Sigmoid(), b])
    assert isinstance(both, DenseModule)
    assert [id(p) for p in both.parameters()] == [id(p) for m in (a, b) for p in m.parameters()]
    assert not both.training
    x = normal(9, D)
    with torch.no_grad():
        assert_close(infer(both, x), b(torch.sigmoid(a(x))))
    assert chained([a]) is a
    whole = dense_of("encoder", chained([a, b]))
    assert (whole.widths, whole.activation) == ((D, 4, 3, K), ("tanh", "elu"))


def test_other_modules_are_chained_as_they_are():
    users = nn.Linear(D, K, bias=False).double()
    both = chained([users, nn.Tanh()])
    assert type(both) is nn.Sequential
    x = normal(9, D)
    with torch.no_grad():
        assert_close(infer(both, x), torch.tanh(users(x)))


class Largest(Objective):
    """Keeps two units."""

    def encode(self, h):
        return keep_largest(h, 2.0)


def test_a_hook_as_a_module_has_gradients_and_can_be_copied():
    step, h = Applied(Largest(loss=SquaredError()), "encode"), normal(9, K).requires_grad_()
    for module in (step, copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        assert torch.equal(module(h), keep_largest(h, 2.0))
    step(h).sum().backward()
    assert torch.equal(h.grad != 0, step(h) != 0)
    assert "Largest.encode" in repr(step)
    x_hat = Applied(BinaryCrossEntropy(), "predict")(h)
    assert torch.equal(x_hat, torch.sigmoid(h))

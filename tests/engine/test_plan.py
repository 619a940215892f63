"""Which path trains what, and the global settings around a run."""

import pytest
import torch
from toys import DOUBLE, OBJECTIVES, Autograd, D, Fused, K, network, objective

import skae._engine.plan as plan_module
from skae._engine.buffer import Buffer
from skae._engine.plan import computing, make_plan
from skae._engine.rng import Streams
from skae.modules import wrap
from skae.networks import Network


def wrapped(name, *widths):
    return wrap(name, torch.nn.Linear(*widths), DOUBLE, "cpu")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_dense_networks_take_the_fused_path_unless_the_objective_needs_the_graph(name):
    plan = make_plan(network(), OBJECTIVES[name])
    assert plan.path == ("autograd" if OBJECTIVES[name].needs_graph else "fused")


def test_reason_is_readable():
    assert make_plan(network(), objective()).reason == "all layers are dense"
    dense, encoder, decoder = network(), wrapped("encoder", D, K), wrapped("decoder", K, D)
    cases = {
        "the encoder is more than": Network(encoder, dense.decoder),
        "the decoder is more than": Network(dense.encoder, decoder),
        "the encoder and the decoder is more than": Network(encoder, decoder),
    }
    for words, net in cases.items():
        plan = make_plan(net, objective())
        assert plan.path == "autograd"
        assert words in plan.reason
    assert "DeepJacobian" in make_plan(dense, OBJECTIVES["DeepJacobian"]).reason


def test_engine_is_the_plans():
    net = network()
    buffer = Buffer(net.weight_shapes() | net.bias_shapes(), (), DOUBLE)
    for name, kind in (("Bent", Fused), ("DeepJacobian", Autograd)):
        plan = make_plan(net, OBJECTIVES[name])
        assert type(plan.engine(net, OBJECTIVES[name], buffer, Streams([0]))) is kind


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def products():
    return plan_module._get_products()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("flops", "threads"), [(0.0, 1), (1e12, 2)])
def test_small_networks_take_one_thread_and_large_ones_all(flops, threads):
    with computing(flops, None):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("precision", [None, "float32", "float64", "bfloat16"])
def test_settings_are_put_back_also_after_an_error(precision):
    before = products()

    def raises():
        with computing(0.0, precision):
            raise KeyError

    with pytest.raises(KeyError):
        raises()
    assert products() == before
    assert torch.get_num_threads() == 2


def test_only_bfloat16_changes_the_products_precision():
    before = products()
    for precision in (None, "float32", "float64"):
        with computing(0.0, precision):
            assert products() == before
    with computing(0.0, "bfloat16"):
        assert products() != before
    assert products() == before


def test_without_torchs_scoped_setting_the_global_one_serves(monkeypatch):
    monkeypatch.setattr(plan_module, "_SCOPED", False)
    before = torch.get_float32_matmul_precision()
    with computing(0.0, "bfloat16"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before

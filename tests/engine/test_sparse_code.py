"""Sums over the entries of a sparse code give what dense products give."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from toys import DOUBLE, Autograd, D, Fused, assert_close, network, normal, objective, step

import skae._engine.fused as fused_module
import skae._engine.sparse_code as sparse_module
from skae._engine.sparse_code import SparseCode, infer_from_sparse, is_worth_it
from skae.latents import keep_largest, keep_largest_of_batch, largest
from skae.losses import SquaredError
from skae.modules import DenseModule
from skae.objective import Objective, Rows

CENTER = normal(D, seed=11)


def places_of(z):
    return z.flatten().nonzero().squeeze(-1)


CODES = {
    "k of a row": keep_largest(normal(6, 9), 2),
    "of a batch": keep_largest_of_batch(normal(6, 9), 1),
    "rows and units without any": normal(6, 9) * (normal(6, 1) > 0) * (normal(9) > 0),
    "nothing": torch.zeros(6, 9, dtype=DOUBLE),
    "everything": normal(6, 9),
}


@pytest.mark.parametrize("name", CODES)
def test_sums_are_products(name):
    z, W, G = CODES[name], normal(9, 4, seed=1), normal(6, 4, seed=2)
    places = places_of(z)
    code, values = SparseCode(places, *z.shape), z.flatten()[places]
    assert_close(code.times(values, W), z @ W)
    assert_close(code.transposed_times(values, G), z.T @ G)
    assert_close(code.products(G, W), (G @ W.T).flatten()[places])


@pytest.mark.parametrize("of_batch", [False, True])
def test_places_are_those_of_the_largest_row_after_row(of_batch):
    h = normal(7, 9)
    places = largest(h, 2, of_batch=of_batch)
    z = keep_largest_of_batch(h, 2) if of_batch else keep_largest(h, 2)
    assert (places // 9).diff().min() >= 0
    assert torch.equal(places.sort().values, places_of(z))
    assert largest(h, 9, of_batch=of_batch) is None


@dataclass(frozen=True, kw_only=True)
class TwoLargest(Objective):
    """Keeps two units of every row, or of all rows as many, and penalises one unit."""

    of_batch: bool = False
    beta: float = 0.0

    def latent(self, h, rng):
        return keep_largest_of_batch(h, 2) if self.of_batch else keep_largest(h, 2)

    def latent_gradient(self, d_z, h, z):
        return d_z * (z != 0)

    def support(self, h, rng):
        return largest(h, 2, of_batch=self.of_batch)

    def penalty(self, out, net):
        return self.beta * out.h[..., 1] ** 2 if self.beta else None

    def penalty_gradient(self, out, net, share):
        d_h = torch.zeros_like(out.h)
        d_h[..., 1] = 2 * self.beta * out.h[..., 1] * share.squeeze(-1)
        return d_h, {}


NETWORKS = {
    "one layer": {"hidden": ()},
    "tied": {"hidden": (), "tied": True, "center": CENTER},
    "placed": {"hidden": (), "center": CENTER, "gains": (0.3, 2.0)},
    "deep": {"hidden": (6, 4), "center": CENTER, "gains": (0.3, 2.0)},
    "tied deep": {"hidden": (6, 4), "tied": True, "activation": "softplus"},
}


@pytest.fixture
def sums(monkeypatch):
    """Counts the batches, all of which take sums."""
    taken = []

    def always(*sizes):
        taken.append(sizes)
        return True

    monkeypatch.setattr(fused_module, "is_worth_it", always)
    return taken


@pytest.mark.parametrize("of_batch", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.4])
@pytest.mark.parametrize("name", NETWORKS)
def test_value_and_gradients_are_autograds(name, beta, of_batch, sums):
    net = network(k=9, code="identity", **NETWORKS[name])
    o, x = TwoLargest(loss=SquaredError(), beta=beta, of_batch=of_batch, alpha=0.1), normal(6, D)
    for rows in (Rows(), Rows(weight=normal(6).exp())):
        expected = step(Autograd, net, o, x, rows, batches=2)
        got = step(Fused, net, o, x, rows, batches=2)
        assert_close(got.value, expected.value)
        assert_close(got.gradients, expected.gradients)
    assert sums == 4 * [(12, 6, 9, torch.device("cpu"))]


def test_dense_products_serve_what_sums_do_not(sums):
    """Stacks of models, dropout, and a code with an activation."""
    o, x = TwoLargest(loss=SquaredError()), normal(6, D)
    net = network((), k=9, code="identity")
    step(Fused, net, o, x, lead=(2,))
    step(Fused, net, replace(o, dropout=0.3), x)
    step(Fused, network((), k=9, code="tanh"), o, x)
    step(Fused, net, objective(), x)
    assert sums == []


def test_sums_are_for_wide_codes_with_few_entries():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert is_worth_it(256 * 32, 256, 1024, cpu)
    assert not is_worth_it(256 * 256, 256, 1024, cpu)
    assert not is_worth_it(256 * 2, 256, 64, cpu)
    assert not is_worth_it(256 * 32, 256, 1024, gpu)


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_inference_from_sparse_codes_is_that_from_dense_ones(hidden):
    widths = (512, *hidden, 5)
    parts = []
    with torch.random.fork_rng():
        for i, o in pairwise(widths):
            parts += [nn.Linear(i, o, dtype=DOUBLE), nn.Tanh()]
    module = DenseModule(*parts[: -1 if hidden else None])
    z = keep_largest(normal(40, 512), 3)
    with torch.no_grad():
        assert_close(infer_from_sparse(module, z), module.infer(z.clone()))
        assert infer_from_sparse(module, normal(40, 512)) is None
        assert infer_from_sparse(module, z[:2]) is None
        assert infer_from_sparse(nn.Sequential(*parts), z) is None


def test_narrow_codes_are_not_searched_for_zeros(monkeypatch):
    monkeypatch.setattr(sparse_module, "is_worth_it", None)
    assert infer_from_sparse(DenseModule(nn.Linear(8, 5)), torch.zeros(9, 8)) is None

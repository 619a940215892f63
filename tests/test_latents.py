"""Which units of a code stay."""

import math

import pytest
import torch
from scipy.linalg import hadamard
from toys import DOUBLE, normal

from skae.latents import keep_largest, keep_largest_of_batch, whole


def per_model(*k):
    return torch.tensor(k, dtype=DOUBLE).view(-1, 1, 1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_exactly_k_stay_also_among_equal_ones(k):
    for h in (normal(20, 6), torch.ones(20, 6, dtype=DOUBLE)):
        z = keep_largest(h, k)
        assert ((z != 0).sum(-1) == k).all()
        assert torch.equal(z[z != 0], h[z != 0])


def test_largest_are_taken_with_their_sign():
    h = torch.tensor([[-5.0, 1.0, -0.1, 0.5], [-4.0, -3.0, -2.0, -1.0]])
    kept = torch.tensor([[0.0, 1.0, 0.0, 0.5], [0.0, 0.0, -2.0, -1.0]])
    assert torch.equal(keep_largest(h, 2), kept)


@pytest.mark.parametrize("k", [6, 7.0, per_model(6, 9)])
def test_a_k_of_the_whole_width_is_the_identity(k):
    h = normal(2, 4, 6)
    assert keep_largest(h, k) is h


def test_every_model_may_keep_its_own_number():
    h = normal(3, 5, 6)
    for keep in (keep_largest, keep_largest_of_batch):
        expected = torch.stack([keep(part, k) for part, k in zip(h, (1, 2.5, 9), strict=True)])
        assert torch.equal(keep(h, per_model(1, 2.5, 9)), expected)


def test_a_batch_keeps_n_k_of_all_its_values():
    h = normal(8, 6)
    z = keep_largest_of_batch(h, 2)
    assert int((z != 0).sum()) == 16
    assert z[z != 0].min() > h[z == 0].max()
    assert len(set((z != 0).sum(-1).tolist())) > 1


def test_fractions_of_a_unit_count_as_one_but_rounding_does_not():
    assert 0.07 * 100 > 7
    assert whole(0.07 * 100) == 7
    assert whole(2.5) == 3
    assert whole(per_model(2.5, 0.07 * 100)).flatten().tolist() == [3, 7]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_largest_of_W_T_x_are_the_support_where_the_theorem_says_so(k):
    """Theorem 3.1: if k mu <= z_k / (2 z_1) then supp_k(W^T x) is the support of z, x = W z."""
    d = 64
    H = torch.tensor(hadamard(d), dtype=DOUBLE) / math.sqrt(d)
    W = torch.cat([torch.eye(d, dtype=DOUBLE), H], 1)  # unit columns
    mu = float((W.T @ W - torch.eye(2 * d)).abs().max())
    assert mu == pytest.approx(1 / math.sqrt(d))
    generator = torch.Generator().manual_seed(k)
    lowest = 2 * k * mu
    for _ in range(50):
        support = torch.randperm(2 * d, generator=generator)[:k]
        z = torch.zeros(2 * d, dtype=DOUBLE)
        z[support] = lowest + (1 - lowest) * torch.rand(k, generator=generator, dtype=DOUBLE)
        z[support[0]] = 1.0
        found = keep_largest((W @ z)[None] @ W, k)[0]
        assert torch.equal(found != 0, z != 0)

"""Penalties of a code: values against NumPy, slopes against autograd."""

import numpy as np
import torch
from toys import DOUBLE, assert_close, normal

from skae.penalties import (
    any_weight,
    bernoulli_kl,
    bernoulli_kl_slope,
    layer_jacobian,
    mean_activation,
    row_shares,
)


def test_divergence_is_zero_only_at_rho():
    rho_hat = torch.tensor([0.05, 0.2, 0.21, 0.9], dtype=DOUBLE)
    kl = bernoulli_kl(0.2, rho_hat)
    assert abs(float(kl[1])) < 1e-15
    assert (kl[[0, 2, 3]] > 0).all()


def test_divergence_is_that_of_two_coins():
    rho, q = 0.3, np.array([0.1, 0.6])
    expected = rho * np.log(rho / q) + (1 - rho) * np.log((1 - rho) / (1 - q))
    np.testing.assert_allclose(bernoulli_kl(rho, torch.tensor(q)), expected, rtol=1e-14)


def test_slope_is_the_derivative_of_the_divergence():
    rho_hat = normal(20).sigmoid().requires_grad_()
    (expected,) = torch.autograd.grad(bernoulli_kl(0.05, rho_hat).sum(), rho_hat)
    assert_close(bernoulli_kl_slope(0.05, rho_hat.detach()), expected)


def test_dead_and_saturated_units_have_finite_values_and_slopes():
    for dtype in (torch.float32, DOUBLE):
        ends = torch.tensor([0.0, 1.0], dtype=dtype)
        assert bernoulli_kl(0.05, ends).isfinite().all()
        slope = bernoulli_kl_slope(0.05, ends)
        assert slope.isfinite().all()
        assert slope[0] < 0 < slope[1]


def test_mean_activation_of_integer_weights_is_that_of_repeated_rows():
    h, w = normal(4, 3), torch.tensor([2, 0, 1, 3])
    assert_close(mean_activation(h, w.double()), h.repeat_interleave(w, 0).mean(0, keepdim=True))


def test_rows_without_any_weight_count_nothing():
    shares = row_shares(torch.zeros(4, dtype=DOUBLE), normal(4, 3))
    assert torch.equal(shares, torch.zeros(4, 1, dtype=DOUBLE))


def test_any_weight_tells_models_whose_rows_all_weigh_nothing():
    w = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert any_weight(w).tolist() == [[0.0], [1.0]]
    assert any_weight(None) == 1.0


def test_jacobian_of_a_layer_is_the_product_written_out():
    s, W = normal(6, 3), normal(3, 5, seed=1)
    expected = [np.linalg.norm(np.diag(row) @ W.numpy()) ** 2 for row in s.numpy()]
    np.testing.assert_allclose(layer_jacobian(s, W).sum(-1), expected, rtol=1e-13)

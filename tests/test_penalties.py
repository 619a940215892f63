"""Penalties equal their definitions, and their closed forms the derivatives."""

import math

import torch
from toys import DOUBLE, assert_close

from skae.penalties import kl_sparsity, kl_sparsity_gradient


def test_kl_is_zero_where_the_activation_is_rho_and_positive_elsewhere():
    rho_hat = torch.tensor([0.01, 0.05, 0.5, 0.99], dtype=DOUBLE)
    kl = kl_sparsity(0.05, rho_hat)
    assert_close(kl[1], torch.zeros((), dtype=DOUBLE))
    assert (kl[[0, 2, 3]] > 0).all()
    by_hand = 0.05 * math.log(0.05 / 0.5) + 0.95 * math.log(0.95 / 0.5)
    assert_close(kl[2], torch.tensor(by_hand, dtype=DOUBLE))


def test_kl_gradient_is_its_derivative():
    rho_hat = torch.tensor([0.01, 0.05, 0.5, 0.99], dtype=DOUBLE, requires_grad=True)
    for rho in (0.05, torch.tensor([[[0.05]], [[0.2]]], dtype=DOUBLE)):
        (expected,) = torch.autograd.grad(kl_sparsity(rho, rho_hat).sum(), rho_hat)
        gradient = kl_sparsity_gradient(rho, rho_hat.detach())
        assert_close(gradient if gradient.ndim == 1 else gradient.sum((0, 1)), expected)

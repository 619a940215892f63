"""Activations: functions in place, ranges, and derivatives held to autograd."""

import numpy as np
import pytest
import torch
from toys import DOUBLE, assert_close, normal

from skae.activations import ACTIVATIONS

NAMES = list(ACTIVATIONS)


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


@pytest.mark.parametrize("name", NAMES)
def test_second_derivative_is_autograds(name):
    f = ACTIVATIONS[name]
    a = normal(40, 3).mul(3).requires_grad_()
    (first,) = torch.autograd.grad(f.function(a).sum(), a, create_graph=True)
    expected = torch.zeros_like(a)
    if first.requires_grad:
        (expected,) = torch.autograd.grad(first.sum(), a)
    assert_close(f.second(f.function(a).detach(), a.detach()), expected)

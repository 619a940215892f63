"""Every loss, found by discovery: value, gradient, inverse link, domain."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy
from toys import DOUBLE, LINKED, assert_close, inside, normal

import skae.losses
from skae.activations import ACTIVATIONS
from skae.losses import INVERSE_LINKS, LOSSES, Huber, Linked, Loss, resolve_loss

LEADS = [(), (3,), (2, 3)]
ALL = LOSSES | LINKED | {"huber 0.3": Huber(delta=0.3), "huber 2.5": Huber(delta=2.5)}


@pytest.fixture(params=ALL, ids=str)
def loss(request):
    return ALL[request.param]


def test_every_loss_of_the_module_is_registered():
    classes = {
        cls
        for _, cls in inspect.getmembers(skae.losses, inspect.isclass)
        if issubclass(cls, Loss) and cls not in (Loss, Linked)
    }
    assert classes == {type(loss) for loss in LOSSES.values()}


def test_every_allowed_output_activation_is_tried():
    free = {name for name, loss in LOSSES.items() if not loss.own_link_only}
    allowed = {(name, link) for name in free for link in INVERSE_LINKS if link != LOSSES[name].link}
    assert allowed == {tuple(name.split(" behind ")) for name in LINKED}
    for name, link in allowed:
        assert resolve_loss(name, link) == LINKED[f"{name} behind {link}"]


@pytest.mark.parametrize("lead", LEADS)
def test_gradient_is_the_derivative_of_elements(loss, lead):
    x, raw = inside(loss, *lead, 6, 4), normal(*lead, 6, 4, seed=1).requires_grad_()
    elements = loss.elements(x, raw)
    assert elements.shape == x.shape
    (expected,) = torch.autograd.grad(elements.sum(), raw)
    assert_close(loss.gradient(x, raw.detach()), expected)


@pytest.mark.parametrize("weight", [None, "rows", "cells"])
@pytest.mark.parametrize("lead", LEADS)
def test_accumulate_adds_the_weighted_value_and_leaves_the_scaled_gradient(loss, weight, lead):
    x, raw = inside(loss, *lead, 6, 4), normal(*lead, 6, 4, seed=1)
    shapes = {"rows": (6, 1), "cells": (*lead, 6, 4)}
    w = None if weight is None else normal(*shapes[weight], seed=2).exp()
    scale = 0.3 if w is None else 0.3 * w
    total, overwritten = torch.ones_like(x), raw.clone()
    loss.accumulate(x, overwritten, scale, w, total)
    assert_close(total, 1 + loss.elements(x, raw) * (1 if w is None else w))
    assert_close(overwritten, loss.gradient(x, raw) * scale)


def test_value_and_gradient_leave_their_arguments_alone(loss):
    x, raw = inside(loss, 6, 4), normal(6, 4, seed=1)
    before = x.clone(), raw.clone()
    loss.elements(x, raw)
    loss.gradient(x, raw)
    loss.predict(raw)
    assert torch.equal(x, before[0])
    assert torch.equal(raw, before[1])


def test_no_reconstruction_of_a_value_beats_the_value_itself(loss):
    x = inside(loss, 50)
    best = INVERSE_LINKS[loss.link](x)
    at_best = loss.elements(x, best)
    for shift in (-0.5, 0.01, 0.5):
        assert (loss.elements(x, best + shift) >= at_best - 1e-9).all()


def test_a_row_of_its_own_mean_has_the_least_loss_at_the_inverse_link_of_it(loss):
    mean = inside(loss, 1).clamp(max=0.9)
    assert_close(loss.predict(INVERSE_LINKS[loss.link](mean)), mean, 1e-9)


def test_pickles_and_equals_its_copy(loss):
    assert dataclasses.replace(loss) == loss


@pytest.mark.parametrize("link", INVERSE_LINKS)
def test_inverse_link_inverts_the_activation(link):
    low, high = ACTIVATIONS[link].range
    mean = torch.linspace(max(low, -5.0) + 1e-3, min(high, 5.0) - 1e-3, 41, dtype=DOUBLE)
    assert_close(ACTIVATIONS[link].function(INVERSE_LINKS[link](mean)), mean, 1e-11)


@pytest.mark.parametrize("link", INVERSE_LINKS)
@pytest.mark.parametrize("mean", [-1e5, -1.0, 0.0, 1.0, 60.0, 1e3, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_link_of_any_mean_is_finite(link, mean, dtype):
    raw = INVERSE_LINKS[link](torch.tensor([mean], dtype=dtype))
    assert raw.isfinite().all()
    low, high = ACTIVATIONS[link].range
    if low < mean < high and link != "logistic":
        found = ACTIVATIONS[link].function(raw.double())
        assert found.item() == pytest.approx(mean, rel=1e-4)


E_ = np.array([[0.5, -2.0, 0.0], [3.0, -0.2, 1.5]])
X_ = np.array([[0.0, 0.3, 1.0], [0.7, 0.2, 0.5]])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (LOSSES["squared_error"], E_**2),
        (LOSSES["absolute_error"], np.abs(E_)),
        (Huber(delta=1.0), np.where(np.abs(E_) < 1, E_**2, 2 * np.abs(E_) - 1)),
        (Huber(delta=0.3), np.where(np.abs(E_) < 0.3, E_**2, 0.3 * (2 * np.abs(E_) - 0.3))),
        (
            LOSSES["binary_cross_entropy"],
            -X_ * np.log(expit(X_ + E_)) - (1 - X_) * np.log(1 - expit(X_ + E_)),
        ),
        (LOSSES["poisson"], np.exp(X_ + E_) - X_ * (X_ + E_) + xlogy(X_, X_) - X_),
        (LINKED["squared_error behind logistic"], (expit(X_ + E_) - X_) ** 2),
        (LINKED["absolute_error behind tanh"], np.abs(np.tanh(X_ + E_) - X_)),
    ],
    ids=str,
)
def test_value_is_the_formula_of_the_docstring(loss, expected):
    x, raw = torch.from_numpy(X_), torch.from_numpy(X_ + E_)
    assert_close(loss.elements(x, raw), torch.from_numpy(expected))


def test_poisson_is_half_the_deviance():
    from sklearn.metrics import mean_poisson_deviance

    x, raw = torch.tensor([[0.0, 1.0, 4.0]], dtype=DOUBLE), normal(1, 3)
    deviance = mean_poisson_deviance(x[0].numpy(), raw.exp()[0].numpy())
    assert LOSSES["poisson"].elements(x, raw).mean().item() == pytest.approx(deviance / 2)


def test_cross_entropy_stays_finite_for_sure_predictions():
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0]], dtype=torch.float32)
    raw = torch.tensor([[500.0, -500.0, -500.0, 500.0]])
    loss = LOSSES["binary_cross_entropy"]
    assert_close(loss.elements(x, raw), torch.tensor([[500.0, 500.0, 0.0, 0.0]]))


@pytest.mark.parametrize("name", ["squared_error", "absolute_error", "huber"])
def test_loss_grows_with_the_data_by_its_unit(name):
    s, x, raw = 4.0, normal(6, 4), normal(6, 4, seed=1)
    loss = LOSSES[name]
    grown = Huber(delta=s) if name == "huber" else loss
    assert_close(grown.elements(s * x, s * raw), loss.unit(s) * loss.elements(x, raw))


def test_share_makes_the_mean_over_features(loss):
    assert loss.share(8) * 8 == pytest.approx(1)


def test_domain_of_a_linked_loss_is_the_range_of_its_output_activation():
    for name, loss in LINKED.items():
        assert loss.domain == ACTIVATIONS[name.split(" behind ")[1]].range


@pytest.mark.parametrize("name", ["binary_cross_entropy", "poisson"])
def test_loss_with_its_own_link_refuses_another(name):
    with pytest.raises(ValueError, match=f"loss='{name}' needs output_activation='auto' or"):
        resolve_loss(name, "tanh")


def test_loss_instance_is_refused_by_its_class_name():
    with pytest.raises(ValueError, match="loss='Poisson' needs output_activation"):
        resolve_loss(LOSSES["poisson"], "identity")


@pytest.mark.parametrize("name", LOSSES)
def test_own_link_is_the_loss_itself(name):
    loss = LOSSES[name]
    assert resolve_loss(name) is loss
    assert resolve_loss(name, loss.link) is loss
    assert resolve_loss(loss) is loss

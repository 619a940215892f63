"""Losses of labels: values, gradients, what they predict."""

import inspect

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import hinge_loss, log_loss
from toys import DOUBLE, assert_close, normal

import skae.label_losses
from skae.label_losses import LABEL_LOSSES
from skae.losses import Loss

N, WIDTH = 8, 4
CODES = torch.arange(N) % WIDTH


def targets(loss, *lead):
    on = torch.nn.functional.one_hot(CODES, WIDTH).to(DOUBLE).expand(*lead, N, WIDTH)
    return 2 * on - 1 if loss.link == "margin" else on


@pytest.fixture(params=LABEL_LOSSES, ids=str)
def loss(request):
    return LABEL_LOSSES[request.param]


def test_every_loss_of_the_module_is_registered():
    classes = {
        cls
        for _, cls in inspect.getmembers(skae.label_losses, inspect.isclass)
        if issubclass(cls, Loss)
        and cls.__module__ == "skae.label_losses"
        and cls.__name__[0] != "_"
    }
    assert classes == {type(loss) for loss in LABEL_LOSSES.values()}


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_gradient_is_the_derivative_of_elements(loss, lead):
    x, raw = targets(loss, *lead), normal(*lead, N, WIDTH, seed=1).requires_grad_()
    (expected,) = torch.autograd.grad(loss.elements(x, raw).sum(), raw)
    assert_close(loss.gradient(x, raw.detach()), expected)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_accumulate_adds_the_weighted_value_and_leaves_the_scaled_gradient(loss, lead):
    x, raw, w = targets(loss, *lead), normal(*lead, N, WIDTH), normal(N, 1, seed=2).exp()
    total, overwritten = torch.ones_like(x), raw.clone()
    loss.accumulate(x, overwritten, 0.3 * w, w, total)
    assert_close(total, 1 + w * loss.elements(x, raw))
    assert_close(overwritten, 0.3 * w * loss.gradient(x, raw))


def row_values(loss, x, raw):
    return loss.elements(x, raw).sum(-1) * loss.share(WIDTH)


def test_softmax_is_the_log_likelihood_of_the_class():
    loss, raw = LABEL_LOSSES["softmax"], normal(N, WIDTH)
    expected = -log_softmax(raw.numpy(), axis=1)[np.arange(N), CODES]
    np.testing.assert_allclose(row_values(loss, targets(loss), raw), expected)
    assert_close(loss.predict(raw).log(), torch.log_softmax(raw, -1))


def test_logistic_of_one_output_is_the_log_loss_of_two_classes():
    loss, raw = LABEL_LOSSES["logistic"], normal(N, 1)
    y = (CODES % 2).to(DOUBLE).unsqueeze(-1)
    expected = log_loss(y.squeeze(-1), loss.predict(raw).squeeze(-1))
    assert float(loss.elements(y, raw).mean()) == pytest.approx(expected)


def test_hinge_of_one_output_is_scikit_learns():
    loss, raw = LABEL_LOSSES["hinge"], 2 * normal(N, 1)
    t = 2 * (CODES % 2).to(DOUBLE).unsqueeze(-1) - 1
    expected = hinge_loss(t.squeeze(-1), raw.squeeze(-1))
    assert float(loss.elements(t, raw).mean()) == pytest.approx(expected)
    squared = LABEL_LOSSES["squared_hinge"]
    assert_close(squared.elements(t, raw), loss.elements(t, raw).square())


def test_values_are_summed_over_outputs(loss):
    x, raw = targets(loss), normal(N, WIDTH)
    assert_close(row_values(loss, x, raw), loss.elements(x, raw).sum(-1))


def test_outputs_start_at_the_shares_of_the_classes():
    shares = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE)
    for name in ("softmax", "logistic"):
        loss = LABEL_LOSSES[name]
        assert_close(loss.predict(loss.start(shares)), shares)

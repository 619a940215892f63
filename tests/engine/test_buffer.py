"""One flat tensor and its views; weight decay on it."""

import pytest
import torch
from toys import DOUBLE, assert_close, normal

from skae._engine.buffer import Buffer, add_decay

SHAPES = {"one.W": (3, 5), "one.b": (3,), "two": (), "three": (2, 3, 4), "empty": (0,)}


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_views_share_the_flat_tensors_memory_and_do_not_overlap(lead):
    buffer = Buffer(SHAPES, lead, DOUBLE)
    for i, (name, view) in enumerate(buffer.parameters.items()):
        assert view.shape == (*lead, *SHAPES[name])
        view.fill_(i + 1)
    for i, (name, view) in enumerate(buffer.parameters.items()):
        assert (view == i + 1).all(), name
        assert (buffer.flat == i + 1).sum() == view.numel()
    assert not buffer.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_view_starts_on_a_cache_line(dtype):
    buffer = Buffer(SHAPES, (), dtype)
    start = buffer.flat.data_ptr()
    for view in buffer.parameters.values():
        assert not view.numel() or (view.data_ptr() - start) % 64 == 0


def test_gradients_are_views_of_grad():
    buffer = Buffer(SHAPES, (2,), DOUBLE)
    buffer.gradients["one.b"].fill_(3.0)
    assert buffer.grad.sum() == 18
    assert not buffer.flat.any()


def test_another_tensor_of_the_layout_is_viewed_by_name():
    buffer = Buffer(SHAPES, (2,), DOUBLE)
    buffer.fill({name: normal(2, *shape) for name, shape in SHAPES.items()})
    copied = buffer.view(buffer.flat.clone())
    for name, view in buffer.parameters.items():
        assert torch.equal(copied[name], view)
        assert not view.numel() or copied[name].data_ptr() != view.data_ptr()
    one = buffer.view(buffer.flat[1])
    assert torch.equal(one["three"], buffer.parameters["three"][1])


def test_fill_copies_and_leaves_the_rest():
    buffer, values = Buffer(SHAPES, (), DOUBLE), {"one.b": torch.ones(3)}
    buffer.fill(values)
    values["one.b"].zero_()
    assert buffer.parameters["one.b"].tolist() == [1, 1, 1]
    assert not buffer.parameters["one.W"].any()


@pytest.mark.parametrize("lead", [(), (3,)])
def test_decay_is_half_alpha_times_the_squared_weights_in_use(lead):
    buffer = Buffer(SHAPES, lead, DOUBLE)
    buffer.fill({name: normal(*lead, *shape) for name, shape in SHAPES.items()})
    gains, share = {"one.W": 2.0, "three": 1.0}, 0.25
    alpha = 0.3 if not lead else torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE).view(3, 1, 1)
    value = add_decay(buffer, gains, alpha, share)
    a = torch.as_tensor(alpha, dtype=DOUBLE).reshape(lead)
    W, V = buffer.parameters["one.W"], buffer.parameters["three"]
    squared = 4 * W.square().sum((-2, -1)) + V.square().sum((-3, -2, -1))
    assert_close(value, 0.5 * a * squared)
    assert_close(buffer.gradients["one.W"], share * 4 * a[..., None, None] * W)
    assert_close(buffer.gradients["three"], share * a[..., None, None, None] * V)
    assert not buffer.gradients["one.b"].any()


def test_decay_is_added_to_the_gradient_that_is_there():
    buffer = Buffer(SHAPES, (), DOUBLE)
    buffer.grad.fill_(1.0)
    add_decay(buffer, {"one.W": 1.0}, 0.5, 1.0)
    assert (buffer.grad == 1).all()

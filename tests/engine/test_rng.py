"""Streams of draws: independent, shared or not across models, continued, never global."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from toys import DOUBLE

from skae._engine.rng import PURPOSES, Draws, Streams, module_draws

DRAWS = {
    "normal": lambda draws, like: draws.normal(like),
    "uniform": lambda draws, like: draws.uniform(like),
    "bernoulli": lambda draws, like: draws.bernoulli(0.4, like),
}


def global_states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002


@pytest.mark.parametrize("used", PURPOSES)
def test_drawing_from_one_stream_leaves_the_others(used):
    streams, untouched = Streams([0]), Streams([0])
    streams.draws(used, DOUBLE).normal((100,))
    for purpose in PURPOSES:
        a = streams.draws(purpose, DOUBLE).normal((3,))
        b = untouched.draws(purpose, DOUBLE).normal((3,))
        assert torch.equal(a, b) is (purpose != used)


def test_every_purpose_and_every_seed_draws_something_else():
    drawn = [
        tuple(Streams([seed]).draws(purpose, DOUBLE).normal((4,)).tolist())
        for seed in (0, 1, 2)
        for purpose in PURPOSES
    ]
    assert len(set(drawn)) == len(drawn)


def test_an_older_purposes_stream_does_not_depend_on_newer_ones():
    """A purpose added at the end of the list changes no earlier one's draws."""
    parent = torch.Generator().manual_seed(5)
    for purpose in PURPOSES:
        child = int(torch.randint(2**62, (), generator=parent))
        expected = torch.randn(3, generator=torch.Generator().manual_seed(child), dtype=DOUBLE)
        assert torch.equal(Streams([5]).draws(purpose, DOUBLE).normal((3,)), expected)


@pytest.mark.parametrize("kind", DRAWS)
def test_draws_are_the_seeds_and_go_on(kind):
    draw = DRAWS[kind]
    draws, again = (Streams([3]).draws("latent", DOUBLE) for _ in range(2))
    first, second = draw(draws, (20, 4)), draw(draws, (20, 4))
    assert torch.equal(first, draw(again, (20, 4)))
    assert torch.equal(second, draw(again, (20, 4)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_shaped_and_typed_like_what_they_are_asked_about(kind, dtype):
    draws = Streams([0]).draws("latent", DOUBLE)
    drawn = DRAWS[kind](draws, torch.zeros(2, 5, 3, dtype=dtype))
    assert drawn.shape == (2, 5, 3)
    assert drawn.dtype is dtype
    assert DRAWS[kind](draws, (5, 3)).dtype is DOUBLE


@pytest.mark.parametrize("kind", DRAWS)
def test_models_share_one_generators_draws(kind):
    alone = DRAWS[kind](Streams([3]).draws("latent", DOUBLE), (5, 3))
    together = DRAWS[kind](Streams([3]).draws("latent", DOUBLE), (4, 5, 3))
    assert together.shape == (4, 5, 3)
    assert all(torch.equal(model, alone) for model in together)


@pytest.mark.parametrize("kind", DRAWS)
def test_models_with_generators_of_their_own_draw_as_they_would_alone(kind):
    together = DRAWS[kind](Streams([3, 4, 5]).draws("latent", DOUBLE), (3, 5, 3))
    for model, seed in zip(together, (3, 4, 5), strict=True):
        assert torch.equal(model, DRAWS[kind](Streams([seed]).draws("latent", DOUBLE), (5, 3)))
    assert not torch.equal(together[0], together[1])


def test_a_probability_for_every_model_thresholds_the_same_numbers():
    p = torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE).view(3, 1, 1)
    drawn = Streams([3]).draws("dropout", DOUBLE).bernoulli(p, torch.empty(3, 50, 4, dtype=DOUBLE))
    u = Streams([3]).draws("dropout", DOUBLE).uniform((50, 4))
    assert torch.equal(drawn, (u < p).double())
    assert (drawn[0] <= drawn[1]).all()
    assert (drawn[1] <= drawn[2]).all()


def test_probability_one_keeps_everything_and_zero_nothing():
    draws = Streams([0]).draws("dropout", torch.float32)
    assert draws.bernoulli(1.0, (1000, 10)).all()
    assert not draws.bernoulli(0.0, (1000, 10)).any()


def test_permutation_holds_every_row_once():
    draws = Streams([0]).draws("shuffle", DOUBLE)
    first, second = draws.permutation(50), draws.permutation(50)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert not torch.equal(first, second)


def test_restored_streams_draw_what_the_saved_ones_would_have():
    streams = Streams([0, 1])
    for purpose in PURPOSES:
        streams.draws(purpose, DOUBLE).normal((2, 3))
    state = streams.state()
    expected = {p: streams.draws(p, DOUBLE).normal((2, 3)) for p in PURPOSES}
    other = Streams([7, 8])
    other.restore(pickle.loads(pickle.dumps(state)))
    for purpose in PURPOSES:
        assert torch.equal(other.draws(purpose, DOUBLE).normal((2, 3)), expected[purpose])


def test_draws_are_not_saved():
    draws = Streams([0]).draws("init", DOUBLE)
    for save in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="save the Streams"):
            save(draws)


def test_global_generators_are_neither_read_nor_moved():
    torch_state = torch.get_rng_state()
    first = Streams([0]).draws("latent", DOUBLE).normal((3,))
    torch.rand(5)
    before = global_states()
    streams = Streams([0])
    assert torch.equal(streams.draws("latent", DOUBLE).normal((3,)), first)
    streams.draws("shuffle", DOUBLE).permutation(9)
    streams.draws("dropout", DOUBLE).bernoulli(0.5, (2, 2))
    assert global_states() == before
    torch.set_rng_state(torch_state)


def test_users_modules_draw_from_their_stream_through_the_global_generator():
    def drawn():
        streams, out = Streams([0]), []
        for _ in range(2):
            with module_draws(streams):
                out.append(torch.rand(3))
        return out

    before = global_states()
    first, second = drawn()
    assert global_states() == before
    assert not torch.equal(first, second)
    torch_state = torch.get_rng_state()
    torch.rand(7)
    assert torch.equal(drawn()[1], second)
    torch.set_rng_state(torch_state)


def test_global_generator_is_put_back_when_a_users_module_raises():
    before = global_states()

    def raises():
        with module_draws(Streams([0])):
            torch.rand(3)
            raise KeyError

    with pytest.raises(KeyError):
        raises()
    assert global_states() == before


def test_draws_know_the_schedules_progress():
    assert Draws([torch.Generator()], DOUBLE, "cpu").progress == 0.0


@pytest.mark.parametrize("shape", [(3, 5), (400, 101)])
def test_bits_are_fair_and_those_of_the_seed(shape):
    like = torch.empty(shape)
    bits = Streams([3]).draws("corruption", torch.float32).bits(like)
    assert bits.dtype is torch.int32
    assert bits.shape == shape
    assert torch.equal(bits, Streams([3]).draws("corruption", torch.float32).bits(like))
    if bits.numel() > 1000:
        each = torch.stack([(bits >> i) & 1 for i in range(32)]).flatten(1).double()
        assert (each.mean(1) - 0.5).abs().max() < 0.02


def test_models_of_a_stack_have_bits_of_their_own_or_share_them():
    like = torch.empty(2, 4, 3)
    own = Streams([0, 1]).draws("corruption", torch.float32).bits(like)
    assert torch.equal(own[0], Streams([0]).draws("corruption", torch.float32).bits(like[0]))
    assert not torch.equal(own[0], own[1])
    shared = Streams([0]).draws("corruption", torch.float32).bits(like)
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared[0], own[0])

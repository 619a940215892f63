"""Corruptions: what they change, how much of it, and what takes its place."""

import pytest
import torch
from toys import DOUBLE, normal

from skae._engine.rng import Streams
from skae.corruption import choose_cells, gaussian, replace_cells, salt_and_pepper, swapped

N, D = 400, 20


def draws(seed=0):
    return Streams([seed]).draws("corruption", DOUBLE)


def bits(x, seed=0):
    return draws(seed).bits(x)


def test_gaussian_noise_has_the_standard_deviation_asked_for():
    x = normal(N, D)
    noise = gaussian(x, 0.3, draws()) - x
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize(
    ("d", "share"), [(20, 0.25), (100, 0.29), (784, 0.25), (3, 1.0), (10, 0.3)]
)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_every_row_has_exactly_the_share_asked_for(d, share, dtype):
    chosen = choose_cells(share, normal(N, d).to(dtype), bits(normal(N, d).to(dtype)), exact=True)
    assert set(chosen.sum(-1).tolist()) == {round(share * d)}


@pytest.mark.parametrize(("d", "share"), [(1, 0.25), (2, 0.25), (13, 0.1), (7, 0.5), (5, 0.01)])
def test_a_fraction_of_a_cell_is_rounded_so_that_its_mean_is_the_share(d, share):
    counts = choose_cells(share, normal(20_000, d), bits(normal(20_000, d)), exact=True).sum(-1)
    below = int(share * d)
    assert set(counts.tolist()) == {below, below + 1}
    assert counts.double().mean() == pytest.approx(share * d, abs=0.02)


def test_chosen_cells_are_anywhere_in_a_row_alike():
    chosen = choose_cells(0.25, normal(20_000, D), bits(normal(20_000, D)), exact=True)
    assert (chosen.double().mean(0) - 0.25).abs().max() < 0.02
    pairs = chosen.double().T.cov()  # without replacement: slightly negative, all alike
    off = pairs[~torch.eye(D, dtype=torch.bool)]
    assert off.mean() == pytest.approx(-0.25 * 0.75 / (D - 1), abs=1e-3)


def test_cells_drawn_one_by_one_hold_the_share_on_average():
    chosen = choose_cells(0.25, normal(N, D), bits(normal(N, D)), exact=False)
    assert chosen.double().mean() == pytest.approx(0.25, abs=0.02)
    assert len(set(chosen.sum(-1).tolist())) > 3


@pytest.mark.parametrize("exact", [True, False])
def test_models_with_a_share_each_draw_as_they_would_alone(exact):
    shares = torch.tensor([0.0, 0.1, 0.33, 1.0], dtype=DOUBLE).view(-1, 1, 1)
    x = normal(4, N, D)
    together = choose_cells(shares, x, bits(x), exact=exact)
    for m, share in enumerate(shares.flatten().tolist()):
        alone = choose_cells(share, x[m], bits(x[m]), exact=exact)
        assert torch.equal(together[m], alone)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_replacing_leaves_the_other_cells_as_they_are_to_the_bit(dtype):
    x, value = (1e6 * normal(N, D, seed=i).to(dtype) for i in (0, 1))
    chosen = choose_cells(0.4, x, bits(x), exact=False)
    found = replace_cells(x, chosen, value)
    assert torch.equal(found, torch.where(chosen > 0, value, x))


def test_salt_and_pepper_is_a_fair_coin():
    low, high = normal(D) - 5, normal(D) + 5
    replaced = salt_and_pepper(low, high, bits(normal(N, D)))
    is_high = replaced == high
    assert (is_high | (replaced == low)).all()
    assert is_high.double().mean() == pytest.approx(0.5, abs=0.02)
    assert set(
        salt_and_pepper(
            torch.zeros(D, dtype=DOUBLE), torch.ones(D, dtype=DOUBLE), bits(normal(N, D))
        )
        .unique()
        .tolist()
    ) == {0.0, 1.0}


def test_a_swapped_cell_comes_from_the_same_feature_of_another_row():
    x = torch.arange(30.0, dtype=DOUBLE).view(10, 3)  # all different
    froms = set()
    for seed in range(200):
        y = swapped(x, bits(x, seed))
        source = (y - torch.arange(3)) / 3  # the row that a cell comes from
        assert torch.equal(source, source.round())
        assert (source != torch.arange(10).unsqueeze(-1)).all()
        froms |= set(source[0].tolist())
    assert froms == set(range(1, 10))


def test_a_single_row_has_nothing_to_swap_with():
    x = normal(1, 3)
    assert torch.equal(swapped(x, bits(x)), x)


def test_models_swap_within_their_own_rows():
    x = torch.stack([normal(10, 3), 100 + normal(10, 3)])
    y = swapped(x, bits(x))
    assert (y[0] < 50).all()
    assert (y[1] > 50).all()
    assert torch.equal(y[0], swapped(x[0], bits(x[0])))


def test_what_replaces_a_cell_does_not_depend_on_how_it_was_chosen():
    x = torch.arange(400.0, dtype=DOUBLE).unsqueeze(-1).expand(400, 100)
    for exact in (True, False):
        drawn = bits(x)
        chosen = choose_cells(0.2, x, drawn, exact=exact) > 0
        high = salt_and_pepper(torch.zeros(100, dtype=DOUBLE), torch.ones(100, dtype=DOUBLE), drawn)
        ahead = (swapped(x, drawn) - x) % 400  # rows to where its value comes from
        assert high[chosen].mean() == pytest.approx(0.5, abs=0.03)
        assert ahead[chosen].mean() == pytest.approx(200, abs=7)
        assert ahead[chosen].std() == pytest.approx(399 / 12**0.5, rel=0.03)

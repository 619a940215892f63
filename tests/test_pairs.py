"""Pair losses equal the lecture's formulas; pairs of batches are parts of those of all rows."""

import itertools

import pytest
import torch
from toys import DOUBLE, assert_close, normal

from skae._engine.batches import make_source
from skae.pairs import (
    PAIR_LOSSES,
    GraphPairs,
    Pairs,
    RowPairs,
    code_distances,
    mean_share,
    pair_gradient,
    squared_distances,
)

L = 1.0


def by_hand(embedding, h_i, h_j, phi):
    """L(h_i, h_j, phi) as the lecture prints it."""
    squared = float(((h_i - h_j) ** 2).sum())
    if embedding == "laplacian":
        return squared * phi
    if embedding == "mds":
        return (squared**0.5 - phi) ** 2
    if phi == 1:
        return squared
    return max(0.0, L - squared) if embedding == "margin" else max(0.0, L - squared**0.5) ** 2


def symmetric(n, *, binary=False, seed=0):
    phi = torch.triu(normal(n, n, seed=seed).sigmoid(), 1)
    phi = phi + phi.mT
    return (phi > 0.5).to(DOUBLE) if binary else phi


@pytest.mark.parametrize("embedding", PAIR_LOSSES)
def test_losses_are_the_lectures(embedding):
    loss, h = PAIR_LOSSES[embedding], 0.5 * normal(6, 2, seed=1)
    phi = symmetric(6, binary=loss.accepts == {"binary"})
    got = loss.elements(code_distances(h), phi, L)
    for i, j in itertools.combinations(range(6), 2):
        assert float(got[i, j]) == pytest.approx(by_hand(embedding, h[i], h[j], float(phi[i, j])))


@pytest.mark.parametrize("embedding", PAIR_LOSSES)
@pytest.mark.parametrize("lead", [(), (2,)])
def test_gradient_is_the_derivative_of_the_sum(embedding, lead):
    loss, h = PAIR_LOSSES[embedding], 0.5 * normal(*lead, 6, 2, seed=1)
    phi, leaf = symmetric(6), h.clone().requires_grad_()
    share = mean_share(6, normal(6, seed=2).sigmoid(), h)
    value = (share * loss.elements(code_distances(leaf), phi, L)).sum()
    (expected,) = torch.autograd.grad(value, leaf)
    assert_close(pair_gradient(share * loss.pull(code_distances(h), phi, L), h), expected)


@pytest.mark.parametrize("embedding", PAIR_LOSSES)
def test_coincident_codes_give_finite_gradients_and_the_hinge_none(embedding):
    h = torch.zeros(3, 2, dtype=DOUBLE)
    pull = PAIR_LOSSES[embedding].pull(code_distances(h), symmetric(3, binary=True), L)
    assert (pair_gradient(pull, h) == 0).all()


def test_close_codes_keep_the_digits_of_their_distance():
    h = torch.tensor([[1e4, 0.0], [1e4, 1e-2]])
    assert float(code_distances(h)[0, 1]) == pytest.approx(1e-2)


def test_mean_share_sums_to_the_weight_of_distinct_pairs():
    w = torch.tensor([2.0, 1.0, 0.0], dtype=DOUBLE)
    share = mean_share(3, w, w)
    expected = torch.tensor([[0, 2, 0], [2, 0, 0], [0, 0, 0]], dtype=DOUBLE) / 9
    assert_close(share, expected)


# ---- parts of pairs


def graph(phi):
    row, column = phi.nonzero(as_tuple=True)
    count = torch.bincount(row, minlength=len(phi))
    return GraphPairs(torch.cat([count.new_zeros(1), count.cumsum(0)]), column, phi[row, column])


def of_rows(x):
    return RowPairs(make_source(x, DOUBLE), lambda rows: torch.cdist(rows, rows))


def kinds():
    x = normal(9, 3)
    far = torch.cdist(x, x)
    near = symmetric(9, binary=True)
    return {"matrix": (Pairs(far), far), "rows": (of_rows(x), far), "graph": (graph(near), near)}


@pytest.mark.parametrize("kind", ["matrix", "rows", "graph"])
def test_pairs_of_some_rows_are_a_part_of_all(kind):
    pairs, phi = kinds()[kind]
    assert_close(pairs.phi, phi)
    for index in (slice(0, 9), slice(2, 7), torch.tensor([3, 0, 8]), torch.tensor([5])):
        assert_close(pairs.take(index).phi, phi[index][:, index])
    order = torch.tensor([7, 1, 4, 0])
    assert_close(pairs.take(order).take(slice(1, 3)).phi, phi[order][:, order][1:3, 1:3])


def test_shares_are_taken_with_their_rows():
    share = normal(2, 4, 4)
    taken = Pairs(symmetric(4), share).take(torch.tensor([2, 0]))
    assert_close(taken.share, share[:, [2, 0]][..., [2, 0]])


# ---- a neighbour of every row


PHI = torch.tensor(
    [[0, 1, 0.5, 0, 0], [1, 0, 0, 0, 0], [0.5, 0, 0, 2, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]],
    dtype=DOUBLE,
)


def all_batches(b, weight):
    """Every batch of b of the 5 rows, with every choice of neighbours."""
    for index in itertools.permutations(range(5), b):
        for u in itertools.product((0.25, 0.75), repeat=b):  # rows have 0, 1 or 2 neighbours
            index_ = torch.tensor(index)
            partner, pairs = graph(PHI).accompanied(index_, weight, torch.tensor(u, dtype=DOUBLE))
            yield torch.cat([index_, partner]), pairs


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("b", [1, 2, 3])
def test_rows_with_a_neighbour_along_give_the_mean_over_all_pairs(weighted, b):
    """Exactly where phi is not 0, and but for the stated factor where it is."""
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 1.5], dtype=DOUBLE) if weighted else None
    loss = symmetric(5, seed=3) + 0.1
    near = torch.zeros_like(loss)
    far = torch.zeros_like(loss)
    count = 0
    for rows, pairs in all_batches(b, weight):
        part = pairs.share
        assert_close(part, part.mT)
        here = torch.zeros_like(loss).index_put(
            (rows[:, None].expand_as(part), rows.expand_as(part)), part, accumulate=True
        )
        counted = pairs.phi[part > 0]
        assert_close(counted, PHI[rows][:, rows][part > 0])
        near += here * (PHI > 0)
        far += here * (PHI == 0)
        count += 1
    share = mean_share(5, weight, loss)
    factor = (1 - 1 / b) / (1 - 1 / 5)
    assert_close(near / count, share * (PHI > 0))
    assert_close(far / count, factor * share * (PHI == 0))


def test_a_graph_without_edges_brings_nobody():
    assert not graph(torch.zeros(3, 3, dtype=DOUBLE)).brings_neighbours
    assert graph(PHI).brings_neighbours
    assert not Pairs(PHI).brings_neighbours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_of_wide_codes_are_those_of_differences(dtype):
    h = normal(2, 7, 100).to(dtype) + 50
    h[:, 1] = h[:, 0]
    h[:, 3] = h[:, 2] + 1e-4
    leaf, other = (h.clone().requires_grad_() for _ in range(2))
    got, weight = code_distances(leaf), normal(2, 7, 7, seed=1).to(dtype)
    expected = torch.cdist(other, other, compute_mode="donot_use_mm_for_euclid_dist")
    assert got.dtype is dtype
    assert not got[:, 0, 1].any()
    assert not got.diagonal(dim1=-2, dim2=-1).any()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    for distances in (got, expected):
        (weight * distances).sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-5)


def exact_distances(h):
    return torch.cdist(h.double(), h.double(), compute_mode="donot_use_mm_for_euclid_dist")


def test_distances_of_many_rows_in_float32_are_those_in_float64():
    h = normal(2, 64, 100).float() + 50
    squared, both = squared_distances(h)
    assert squared.dtype is both.dtype is torch.float32
    assert not squared.diagonal(dim1=-2, dim2=-1).any()
    torch.testing.assert_close(code_distances(h).double(), exact_distances(h), rtol=1e-5, atol=0)


@pytest.mark.parametrize("apart", [0.0, 1e-3, 1e-1])
def test_a_pair_that_nearly_coincides_is_told_in_float64(apart):
    h = normal(64, 100).float()
    h[3], h[5] = h[2], h[4]
    h[5, 0] += apart
    assert squared_distances(h)[0].dtype is DOUBLE
    torch.testing.assert_close(code_distances(h).double(), exact_distances(h), rtol=1e-6, atol=0)


def test_products_of_less_precision_are_not_taken_for_distances(monkeypatch):
    """As under precision="bfloat16", whose rounding is a thousandth of the squares."""
    product = torch.Tensor.__matmul__
    rounded = lambda a, b: (  # noqa: E731
        product(a.bfloat16(), b.bfloat16()).float() if a.dtype is torch.float32 else product(a, b)
    )
    h = normal(64, 100).float()
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert squared_distances(h)[0].dtype is DOUBLE


def test_rows_that_all_coincide_are_at_no_distance():
    assert not code_distances(torch.ones(40, 50)).any()

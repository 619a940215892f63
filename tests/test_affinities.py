"""Affinities equal their formulas, their estimates the stated ones; nonsense is refused."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist
from sklearn.manifold import Isomap

import skae.affinities as module
from skae._engine.batches import make_source
from skae.affinities import KINDS, Numbers, given_pairs, make_pairs
from skae.pairs import GraphPairs, RowPairs


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(30, 3)) + 100


def pairs_of(affinity, X, whole=False, **numbers):
    found = Numbers(**numbers).estimated(affinity, X)
    return make_pairs(affinity, X, make_source(X, torch.float64), found, whole=whole)


def given(matrix, kind="similarity", n=3, whole=False):
    source = make_source(np.zeros((n, 2)), torch.float64)
    return given_pairs(matrix, "affinity_matrix", kind, source, whole=whole)


def test_formulas(X):
    d = cdist(X, X)
    nearest = np.argsort(d, axis=1)[:, 1:4]
    knn = np.zeros_like(d)
    np.put_along_axis(knn, nearest, 1, axis=1)
    knn = np.maximum(knn, knn.T)
    paths = shortest_path(np.where(knn > 0, d, 0), directed=False)
    expected = {
        "distance": d, "squared_distance": d**2, "heat": np.exp(-(d**2) / 2),
        "epsilon": d**2 <= 2.5, "knn": knn, "geodesic": paths,
    }  # fmt: skip
    assert set(expected) == set(KINDS)
    for affinity, phi in expected.items():
        numbers = {"r": 2.0, "eps": 2.5, "n_neighbors": 3}
        got = pairs_of(affinity, X, **numbers).phi
        assert got.dtype is torch.float64
        np.testing.assert_allclose(got, phi, atol=1e-9, err_msg=affinity)


def test_geodesics_are_isomaps(X):
    ours = pairs_of("geodesic", X, n_neighbors=8).phi
    np.testing.assert_allclose(ours, Isomap(n_neighbors=8).fit(X).dist_matrix_, atol=1e-9)


def test_duplicate_rows_are_a_path_of_length_zero():
    X = np.array([[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]])
    phi = pairs_of("geodesic", X, n_neighbors=3).phi
    np.testing.assert_allclose(phi, cdist(X, X))


def test_estimates(X):
    d2 = cdist(X, X, "sqeuclidean")
    assert Numbers().estimated("heat", X)["r"] == pytest.approx(
        np.median(np.sqrt(d2[np.triu_indices(30, 1)])) ** 2
    )
    reach = np.median(np.sort(np.sqrt(d2), axis=1)[:, 4]) ** 2
    assert Numbers(n_neighbors=4).estimated("epsilon", X)["eps"] == pytest.approx(reach)
    assert Numbers().estimated("knn", X) == {"n_neighbors": 10}
    assert Numbers(r=3.0).estimated("heat", X) == {"r": 3.0}
    assert Numbers(eps=0.0).estimated("epsilon", X) == {"eps": 0.0}
    assert Numbers(n_neighbors=4).estimated("distance", X) == {}


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, np.float32])
def test_the_scale_of_heat_takes_integer_weights_as_repeated_rows(X, form):
    w = np.arange(30) % 4
    repeated = form(np.repeat(X, w, axis=0))
    weighted = Numbers().estimated("heat", form(X), w / w.mean())["r"]
    assert weighted == pytest.approx(Numbers().estimated("heat", repeated)["r"], rel=1e-6)
    assert weighted != pytest.approx(Numbers().estimated("heat", X)["r"], rel=1e-3)


@pytest.mark.parametrize("affinity", ["heat", "epsilon", "knn", "geodesic"])
def test_rows_of_weight_zero_have_no_say(X, affinity):
    far = np.vstack([X, X[:6] + 50, X[:3]])
    w = np.repeat([1.0, 0.0], [30, 9]) * 39 / 30
    source = make_source(far, torch.float64)
    numbers = Numbers().estimated(affinity, far, w)
    assert numbers == Numbers().estimated(affinity, X)
    phi = make_pairs(affinity, far, source, numbers, w, whole=False).phi
    np.testing.assert_allclose(phi[:30, :30], pairs_of(affinity, X).phi, atol=1e-12)
    if affinity in ("knn", "geodesic"):
        assert not phi[30:].any()


def test_the_reach_of_epsilon_is_a_median_by_weight(X):
    """Of each row's distance to its neighbour, whatever that one weighs."""
    reach = np.sort(cdist(X, X), axis=1)[:, 1]
    w = np.where(reach == reach.max(), 100.0, 1.0)
    eps = Numbers(n_neighbors=1).estimated("epsilon", X, w)["eps"]
    assert eps == pytest.approx(reach.max() ** 2)


def test_rows_that_coincide_are_within_any_reach():
    X = np.repeat(np.random.default_rng(0).normal(size=(200, 64)) + 10, 2, axis=0)
    phi = pairs_of("epsilon", X, eps=0.0).phi
    np.testing.assert_array_equal(phi, np.kron(np.eye(200), np.ones((2, 2))))


def test_distances_equal_to_the_reach_are_within_it():
    X = np.arange(40.0)[:, None] * [0.6, 0.8] + 7
    phi = pairs_of("epsilon", X, eps=1.0).phi
    np.testing.assert_array_equal(phi, np.abs(np.subtract.outer(*[np.arange(40)] * 2)) <= 1)


def test_estimates_of_many_rows_take_a_sample(monkeypatch, X):
    monkeypatch.setattr(module, "_SAMPLED_ROWS", 10)
    part = X[np.linspace(0, 29, 10).round().astype(int)]
    assert Numbers().estimated("heat", X) == Numbers().estimated("heat", part)


def test_neighbours_are_at_most_the_other_rows(X):
    assert Numbers().estimated("knn", X[:5]) == {"n_neighbors": 4}
    with pytest.warns(UserWarning, match="n_neighbors=7 is more than the 4 other rows") as caught:
        assert Numbers(n_neighbors=7).estimated("knn", X[:5]) == {"n_neighbors": 4}
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("affinity", "numbers"),
    [("knn", {}), ("geodesic", {}), ("epsilon", {}), ("epsilon", {"eps": 1.0, "n_neighbors": 7})],
)
def test_only_a_number_of_neighbours_that_was_asked_for_and_is_used_is_warned_of(
    X, affinity, numbers, recwarn
):
    Numbers(**numbers).estimated(affinity, X[:5])
    assert not recwarn.list


@pytest.mark.parametrize("affinity", KINDS)
@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_rows_have_affinities(X, affinity, n):
    assert pairs_of(affinity, X[:n]).phi.shape == (n, n)


@pytest.mark.parametrize("affinity", ["heat", "epsilon"])
def test_equal_rows_have_estimates(affinity):
    phi = pairs_of(affinity, np.ones((4, 2))).phi
    assert torch.equal(phi, torch.ones(4, 4, dtype=torch.float64))


def test_many_rows_are_compared_batch_by_batch_and_all_at_once_in_a_full_batch(monkeypatch, X):
    monkeypatch.setattr(module, "_DENSE_ROWS", 10)
    lazy, dense = pairs_of("distance", X), pairs_of("distance", X, whole=True)
    assert isinstance(lazy, RowPairs)
    assert not isinstance(dense, RowPairs)
    np.testing.assert_allclose(lazy.take(slice(3, 9)).phi, dense.take(slice(3, 9)).phi)


def test_a_dense_matrix_of_too_many_rows_is_refused(monkeypatch, X):
    monkeypatch.setattr(module, "_MOST_ROWS", 10)
    with pytest.raises(ValueError, match="'geodesic' needs the distances of all pairs, 30 x 30"):
        pairs_of("geodesic", X)
    with pytest.raises(ValueError, match="at most 10 rows"):
        pairs_of("distance", X, whole=True)
    with pytest.raises(ValueError, match="at most 10 rows"):
        given(np.eye(30), n=30, whole=True)


def test_a_disconnected_graph_has_no_geodesics(X):
    apart = np.vstack([X, X + 1e3])
    with pytest.raises(ValueError, match=r"n_neighbors=3 it falls into \d parts"):
        pairs_of("geodesic", apart, n_neighbors=3)


# ---- matrices given


NEAR = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])


@pytest.mark.parametrize("kind", ["similarity", "dissimilarity", "binary"])
def test_a_dense_matrix_is_phi(kind):
    np.testing.assert_array_equal(given(NEAR, kind).phi, NEAR)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_a_matrix_may_be_of_any_kind_of_number(form, dtype):
    matrix = form(NEAR.astype(dtype))
    phi = given(matrix, "binary").phi
    np.testing.assert_array_equal(phi, NEAR - np.eye(3) * (form is sp.csr_matrix))
    lower = form(np.triu(NEAR).astype(dtype))
    with pytest.raises(ValueError, match=r"by 1\. Pass"):
        given(lower, "binary")


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.coo_array])
def test_a_sparse_matrix_is_a_graph_without_its_diagonal(form):
    pairs = given(form(NEAR), "binary")
    assert isinstance(pairs, GraphPairs)
    np.testing.assert_array_equal(pairs.phi, NEAR - np.eye(3))


@pytest.mark.parametrize(
    ("matrix", "kind", "message"),
    [
        (np.eye(2), "similarity", r"shape \(3, 3\), .* got \(2, 2\)"),
        (np.eye(3)[:, :2], "similarity", r"got \(3, 2\)"),
        (np.ones((3, 5)), "similarity", r"got \(3, 5\)\. A search .* by rows alone.* a callable"),
        (-NEAR, "similarity", "must not be negative, but it reaches -1"),
        (np.triu(NEAR), "similarity", r"symmetric, but it differs .* by 1\. Pass"),
        (sp.csr_matrix(np.triu(NEAR)), "similarity", "symmetric"),
        (0.5 * NEAR, "binary", "0 and 1 only for a margin"),
        (sp.csr_matrix(NEAR), "dissimilarity", "all rows it does not store coincide"),
        (np.full((3, 3), np.nan), "similarity", "NaN"),
    ],
)
def test_other_matrices_are_refused(matrix, kind, message):
    with pytest.raises(ValueError, match=message):
        given(matrix, kind)

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


def test_estimates_of_many_rows_take_a_sample(monkeypatch, X):
    monkeypatch.setattr(module, "_SAMPLED_ROWS", 10)
    part = X[np.linspace(0, 29, 10).round().astype(int)]
    assert Numbers().estimated("heat", X) == Numbers().estimated("heat", part)


def test_neighbours_are_at_most_the_other_rows(X):
    assert Numbers().estimated("knn", X[:5]) == {"n_neighbors": 4}
    with pytest.warns(UserWarning, match=r"n_neighbors=7 .* n_samples=5: 4 are used") as caught:
        assert Numbers(n_neighbors=7).estimated("knn", X[:5]) == {"n_neighbors": 4}
    assert caught[0].filename == __file__


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

"""Neighbour sets and weights, against scikit-learn and against formulas spelt out in NumPy."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import shortest_path
from sklearn.manifold._locally_linear import barycenter_weights as sklearn_weights
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from skae import neighbors


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(30, 3)) + 100


@pytest.fixture
def w():
    return np.random.default_rng(1).uniform(0.5, 2, 30)


def dense_pairs(index, values, n):
    out = np.zeros((len(index), n))
    for i, j in np.ndindex(index.shape):
        out[i, index[i, j]] = values[i, j]
    return out


# ---- sets


def test_distinct_rows_are_found(rows):
    repeated = np.concatenate([rows, rows[:10], rows[:5]])
    first, which = neighbors.distinct(repeated, np.zeros(45, dtype=int))
    np.testing.assert_array_equal(first, np.arange(30))
    np.testing.assert_array_equal(which, np.r_[:30, :10, :5])


def test_equal_rows_of_two_labels_are_two():
    X = np.array([[0.0, 1], [-0.0, 1], [0, 1], [2, 1]])
    first, which = neighbors.distinct(X, np.array([0, 0, 1, 1]))
    assert len(first) == 3
    assert which[0] == which[1] != which[2]


def test_nearest_rows_are_scikit_learns_without_the_row_itself(rows):
    d2, index = neighbors.nearest(rows, 4)
    distance, expected = NearestNeighbors(n_neighbors=4).fit(rows).kneighbors()
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(d2, distance**2)
    assert not (index == np.arange(30)[:, None]).any()
    np.testing.assert_allclose(neighbors.squared_distances(rows, index), d2)


def test_nearest_rows_of_queries_may_be_equal_to_them(rows):
    d2, index = neighbors.nearest(rows, 2, rows[3:5])
    np.testing.assert_array_equal(index[:, 0], [3, 4])
    np.testing.assert_allclose(d2[:, 0], 0, atol=1e-20)
    again = neighbors.squared_distances(rows, index, rows[3:5])
    np.testing.assert_allclose(again, d2, atol=1e-20)


def test_chunks_of_differences_are_all_of_them(rows, monkeypatch):
    _, index = neighbors.nearest(rows, 4)
    whole = neighbors.squared_distances(rows, index)
    monkeypatch.setattr(neighbors, "_CELLS", 50)
    np.testing.assert_array_equal(neighbors.squared_distances(rows, index), whole)


def test_share_changed_counts_new_pairs():
    old = sp.csr_array(np.array([[0, 1.0, 2], [3, 0, 0]]))
    new = sp.csr_array(np.array([[0, 5.0, 0], [0, 1, 1]]))
    assert neighbors.share_changed(old, new) == pytest.approx(2 / 3)
    assert neighbors.share_changed(new, new) == 0
    assert neighbors.share_changed(np.ones((2, 2)), np.zeros((2, 2))) == 0


# ---- weights


def test_pairs_lie_where_the_index_says(rows):
    d2, index = neighbors.nearest(rows, 4)
    values = neighbors.heat(d2, 0.7)
    pairs = neighbors.as_pairs(values, index, 30)
    expected = dense_pairs(index, np.exp(-d2 / 0.7), 30)
    np.testing.assert_allclose(pairs.toarray(), expected)


def test_no_pairs_are_an_empty_matrix():
    d2, index = neighbors.nearest(np.ones((4, 2)), 0)
    assert neighbors.as_pairs(d2, index, 4).shape == (4, 4)


def test_far_neighbours_keep_a_weight():
    assert neighbors.heat(np.array([1e9]), 1e-3)[0] > 0


def test_margin_counts_own_and_other_classes(rows):
    labels = np.arange(30) % 3
    pairs = neighbors.margin_pairs(rows, labels, np.ones(30), 4, 2).toarray()
    for i in range(30):
        order = [j for j in np.argsort(np.square(rows - rows[i]).sum(1)) if j != i]
        own = [j for j in order if labels[j] == labels[i]][:4]
        other = [j for j in order if labels[j] != labels[i]][:2]
        expected = np.zeros(30)
        expected[own], expected[other] = 1, -1
        np.testing.assert_array_equal(pairs[i], expected)


def test_margin_counts_are_clipped_to_the_rows_there_are(rows):
    labels = np.r_[np.zeros(27, int), np.ones(3, int)]
    pairs = neighbors.margin_pairs(rows, labels, np.ones(30), 5, 4)
    np.testing.assert_array_equal((pairs > 0).sum(1), labels * -3 + 5)
    np.testing.assert_array_equal((pairs < 0).sum(1), 3 + labels)


def test_margin_weights_are_relative_within_each_kind(rows, w):
    labels = np.arange(30) % 3
    plain = neighbors.margin_pairs(rows, labels, np.ones(30), 4, 2).toarray()
    pairs = neighbors.margin_pairs(rows, labels, w, 4, 2).toarray()
    for sign in (1, -1):
        kind = (plain == sign) * w
        expected = sign * kind / kind.sum(1, keepdims=True) * (4 if sign == 1 else 2)
        np.testing.assert_allclose(pairs * (plain == sign), expected)


def test_margin_of_queries_includes_rows_equal_to_them(rows):
    labels = np.arange(30) % 3
    pairs = neighbors.margin_pairs(rows, labels, np.ones(30), 1, 1, rows[:6], labels[:6]).toarray()
    np.testing.assert_array_equal(np.argmax(pairs, 1), np.arange(6))
    assert (pairs.sum(1) == 0).all()


def test_barycenter_weights_are_scikit_learns(rows):
    _, index = neighbors.nearest(rows, 5)
    expected = sklearn_weights(rows, rows, index, reg=1e-3)
    np.testing.assert_allclose(neighbors.barycenter_weights(rows, index), expected, rtol=1e-6)


def test_barycenter_weights_of_coinciding_rows_are_equal():
    index = np.array([[1, 2], [0, 2], [0, 1]])
    np.testing.assert_allclose(neighbors.barycenter_weights(np.ones((3, 2)), index), 0.5)


def test_lle_pairs_are_the_sources_matrix_without_its_diagonal(rows):
    _, index = neighbors.nearest(rows, 5)
    M = neighbors.as_pairs(neighbors.barycenter_weights(rows, index), index, 30)
    dense = M.toarray()
    expected = dense + dense.T - dense.T @ dense
    np.fill_diagonal(expected, 0)
    got = neighbors.lle_pairs(M, np.ones(30))
    np.testing.assert_allclose(got.toarray(), expected, atol=1e-12)
    np.testing.assert_allclose(got.sum(1), 1 + (dense**2).sum(0))


def test_weighted_lle_pairs_sum_to_more_than_the_weight(rows, w):
    _, index = neighbors.nearest(rows, 5)
    M = neighbors.as_pairs(neighbors.barycenter_weights(rows, index), index, 30)
    total = neighbors.lle_pairs(M, w).sum(1)
    np.testing.assert_allclose(total, w + w @ M.toarray() ** 2)


def test_geodesic_pairs_are_the_centred_squares_plus_one_number(rows):
    got = neighbors.geodesic_pairs(rows, 6, np.ones(30))
    graph = kneighbors_graph(rows, 6, mode="distance")
    H = np.eye(30) - 1 / 30
    S = -0.5 * H @ shortest_path(graph, directed=False) ** 2 @ H
    c = np.linalg.eigvalsh(S)[-1]
    np.testing.assert_allclose(got, S + c / 30, atol=1e-8 * c)
    np.testing.assert_allclose(got.sum(1), c)


def test_repeated_rows_are_their_weight_in_geodesic_pairs(rows):
    counts = np.arange(30) % 3 + 1.0
    got = neighbors.geodesic_pairs(rows, 6, counts)
    graph = kneighbors_graph(rows, 6, mode="distance")
    which = np.repeat(np.arange(30), counts.astype(int))
    n = len(which)
    H = np.eye(n) - 1 / n
    S = -0.5 * H @ (shortest_path(graph, directed=False) ** 2)[which][:, which] @ H
    c = np.linalg.eigvalsh(S)[-1]
    together = np.zeros((30, 30))
    np.add.at(together, (which[:, None], which), S + c / n)
    np.testing.assert_allclose(got, together, atol=1e-8 * c)


# ---- means


def test_weighted_means_and_scatter_are_the_double_sum(rows):
    pairs = np.random.default_rng(3).normal(size=(5, 30)) + 1
    m, scatter = neighbors.weighted_means(pairs, rows)
    for i in range(5):
        mean = sum(pairs[i, j] * rows[j] for j in range(30)) / pairs[i].sum()
        np.testing.assert_allclose(m[i], mean)
        around = sum(pairs[i, j] * np.sum((rows[j] - mean) ** 2) for j in range(30))
        np.testing.assert_allclose(scatter[i], around)


def test_class_means_are_weighted(rows, w):
    labels = np.arange(30) % 4
    means, scatter = neighbors.class_means(rows, labels, w)
    for c in range(4):
        here = labels == c
        mean = np.average(rows[here], axis=0, weights=w[here])
        np.testing.assert_allclose(means[c], mean)
        spread = np.average(np.square(rows[here] - mean).sum(1), weights=w[here])
        np.testing.assert_allclose(scatter[c], spread)

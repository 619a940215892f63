"""Neighbour sets Omega_i and the weights s_ij of their pairs, as NumPy and SciPy arrays.

Pairs are matrices whose row i holds s_ij for all j in Omega_i: sparse, or dense where all rows
are related. Weights of rows, w, are part of them: a pair counts w_i w_j times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

_CELLS = 2**22  # of the differences between rows and their neighbours, held at once
_FARTHEST = 700.0  # exponents beyond it would underflow, and a set of weight 0 has no mean


def distinct(X: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct row of X and label is first found, and which of them each row is."""
    X = np.ascontiguousarray(X + 0.0)  # -0.0 equals 0.0, but not byte for byte
    seen: dict[tuple[bytes, int], int] = {}
    keys = ((row.tobytes(), label) for row, label in zip(X, labels.tolist(), strict=True))
    which = np.array([seen.setdefault(key, len(seen)) for key in keys])
    return np.unique(which, return_index=True)[1], which


def nearest(
    X: np.ndarray, k: int, queries: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances to the k nearest rows of X, and their positions, each of shape (n, k).

    Of every query; without queries of every row of X, itself left out.
    """
    from sklearn.neighbors import NearestNeighbors

    if k == 0:
        n = len(X if queries is None else queries)
        return np.empty((n, 0)), np.empty((n, 0), dtype=np.intp)
    distance, index = NearestNeighbors(n_neighbors=k).fit(X).kneighbors(queries)
    return distance.astype(np.float64) ** 2, index


def squared_distances(
    X: np.ndarray, index: np.ndarray, queries: np.ndarray | None = None
) -> np.ndarray:
    """Squared distances between every query (row of X) and the rows of X at `index`, (n, k)."""
    parts = [np.square(e).sum(-1) for _, e in _differences(X, index, queries)]
    return np.concatenate(parts) if parts else np.empty(index.shape)


def _differences(
    X: np.ndarray, index: np.ndarray, queries: np.ndarray | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """x_j - x_i for all j in Omega_i, of shape (some rows, k, d), in float64."""
    queries = X if queries is None else queries
    step = max(1, _CELLS // max(1, index.shape[1] * X.shape[1]))
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        yield part, X[index[part]].astype(np.float64) - queries[part, None]


def as_pairs(values: np.ndarray, index: np.ndarray, n: int) -> sp.csr_array:
    """Values of shape (n_rows, k) at columns `index`, as a matrix of shape (n_rows, n)."""
    rows, k = index.shape
    starts = np.arange(0, rows * k + 1, k) if k else np.zeros(rows + 1, dtype=np.intp)
    return sp.csr_array((values.ravel(), index.ravel(), starts), shape=(rows, n))


def heat(d2: np.ndarray, t: float) -> np.ndarray:
    """exp(-d^2 / t)."""
    return np.exp(-np.minimum(d2 / t, _FARTHEST))


def margin_pairs(
    X: np.ndarray,
    labels: np.ndarray,
    w: np.ndarray,
    k1: int,
    k2: int,
    queries: np.ndarray | None = None,
    query_labels: np.ndarray | None = None,
) -> sp.csr_array:
    """+1 for the k1 nearest rows of the own class, -1 for the k2 nearest of all others pooled.

    Of every query; without queries of every row of X, itself left out. Counts are clipped to the
    rows there are. Within each kind pairs count by w_j, relative to their mean.
    """
    wanted = labels if query_labels is None else query_labels
    asked = X if queries is None else queries
    rows, columns, values = [], [], []
    for c in np.unique(wanted):
        here = np.flatnonzero(wanted == c)
        own, others = np.flatnonzero(labels == c), np.flatnonzero(labels != c)
        k = min(k1, len(own) - (queries is None))
        same = nearest(X[own], k, None if queries is None else asked[here])[1]
        other = nearest(X[others], min(k2, len(others)), asked[here])[1]
        for found, sign in ((own[same], 1.0), (others[other], -1.0)):
            mean = w[found].mean(1, keepdims=True) if found.size else 1.0
            rows.append(np.repeat(here, found.shape[1]))
            columns.append(found.ravel())
            values.append((sign * w[found] / mean).ravel())
    place = np.concatenate(rows), np.concatenate(columns)
    return sp.csr_array((np.concatenate(values), place), shape=(len(wanted), len(X)))


def barycenter_weights(
    X: np.ndarray, index: np.ndarray, regularization: float = 1e-3
) -> np.ndarray:
    """Weights of sum 1 with which the rows at `index` reconstruct each row best, (n, k).

    `regularization` times the trace is added to the diagonal of the local Gram matrix, as in
    scikit-learn's LocallyLinearEmbedding: it decides where k exceeds the dimension.
    """
    out, k = np.empty(index.shape), index.shape[1]
    for part, e in _differences(X, index):
        gram = e @ e.transpose(0, 2, 1)
        trace = np.trace(gram, axis1=1, axis2=2)
        ridge = regularization * np.where(trace > 0, trace, 1.0)
        gram[:, np.arange(k), np.arange(k)] += ridge[:, None]
        w = np.linalg.solve(gram, np.ones((len(gram), k, 1)))[..., 0]
        out[part] = w / w.sum(1, keepdims=True)
    return out


def lle_pairs(M: sp.csr_array, w: np.ndarray) -> sp.csr_array:
    """(D M + M^T D - M^T D M)_ij for j != i with D = diag(w): M + M^T - M^T M at equal weights.

    With row sums 1 in M, the rows sum to w_i + sum_m w_m M_mi^2, which is positive.
    """
    scaled = sp.diags_array(w) @ M
    pairs = sp.coo_array(scaled + scaled.T - M.T @ scaled)
    off = pairs.row != pairs.col
    place = pairs.row[off], pairs.col[off]
    return sp.csr_array((pairs.data[off], place), shape=pairs.shape)


def geodesic_pairs(X: np.ndarray, k: int, w: np.ndarray) -> np.ndarray:
    """w_i w_j (S_ij + c / sum(w)), dense: S is Isomap's Gram matrix, c its largest eigenvalue.

    S = -H Lambda H^T / 2 with the squared geodesic distances Lambda along the graph of k nearest
    neighbours and H = I - 1 w^T / sum(w). Rows of S sum to 0 under w, those of the result to w_i c.
    """
    from scipy.sparse.linalg import eigsh
    from sklearn.manifold import Isomap

    geodesic = Isomap(n_neighbors=k, n_components=1).fit(X).dist_matrix_
    squared = np.square(geodesic, dtype=np.float64)
    p = w / w.sum()
    means = squared @ p
    S = -0.5 * (squared - means[:, None] - means + p @ means)
    root = np.sqrt(w)
    gram = root[:, None] * S * root
    start = gram[np.argmax(gram.diagonal())]
    c = 1.0  # of rows that all coincide, whose targets are then the mean
    if start.any():
        c = float(eigsh(gram, k=1, which="LA", v0=start, return_eigenvectors=False)[0])
    return w[:, None] * (S + c / w.sum()) * w


def weighted_means(pairs: Any, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m_i = sum_j s_ij x_j / S_i of shape (n, d), and sum_j s_ij |x_j - m_i|^2 of shape (n,).

    S_i = sum_j s_ij should be positive; where it is 0, m_i is the mean of X.
    """
    center = X.mean(0, dtype=np.float64)  # the squares then lose no digits to an offset
    X = X - center
    total = pairs.sum(1)
    m = (pairs @ X) / np.where(total == 0, 1.0, total)[:, None]
    scatter = pairs @ np.square(X).sum(1) - total * np.square(m).sum(1)
    return m + center, scatter


def class_means(X: np.ndarray, labels: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean of every class, (n_classes, d), and the mean squared distance to it."""
    shares = w / np.bincount(labels, w)[labels]
    place = labels, np.arange(len(X))
    return weighted_means(sp.csr_array((shares, place), (labels.max() + 1, len(X))), X)


def share_changed(old: Any, new: Any) -> float:
    """The share of the pairs in `new` that `old` does not have."""
    if sp.issparse(new):
        return 1.0 - float(((old != 0) * (new != 0)).sum() / max(1, new.nnz))
    return 0.0

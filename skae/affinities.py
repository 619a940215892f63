"""Affinities phi_ij of rows of X: their names, their numbers estimated from X, their matrices.

scikit-learn's neighbours and metrics are imported where they are used: `import skae` would take a
quarter longer with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import check_array
from torch import Tensor

from skae._engine.batches import Source
from skae._warnings import warn_caller
from skae.pairs import GraphPairs, Pairs, RowPairs, squared_distances

_DENSE_ROWS = 4096  # up to which all of phi is computed at once: 128 MB of float64
_MOST_ROWS = 20_000  # of a dense phi: 3.2 GB of float64, and as much again at every step
_SAMPLED_ROWS = 1000  # from which `r` and `eps` are estimated
_NEIGHBORS = 10
_ROUNDING = 1e-12  # of squared distances, relative to the squares that they come from

#: What each affinity is: the larger the farther, the larger the nearer, or 0 and 1.
KINDS = {
    "distance": "dissimilarity",
    "squared_distance": "dissimilarity",
    "geodesic": "dissimilarity",
    "heat": "similarity",
    "epsilon": "binary",
    "knn": "binary",
}


class Numbers(NamedTuple):
    """What the affinities depend on; None where it is estimated from X."""

    r: float | None = None
    eps: float | None = None
    n_neighbors: int | None = None

    def estimated(self, affinity: str, X: Any, weight: np.ndarray | None = None) -> dict[str, Any]:
        """Those that `affinity` uses, by name, from the rows of positive weight."""
        X, weight = _counted(X, weight)
        if affinity == "heat":
            return {"r": _median_squared_distance(X, weight) if self.r is None else float(self.r)}
        if affinity == "epsilon":
            return {"eps": self._reach(X, weight) if self.eps is None else float(self.eps)}
        if affinity in ("knn", "geodesic"):
            return {"n_neighbors": _neighbors(self.n_neighbors, X.shape[0])}
        return {}

    def _reach(self, X: Any, weight: np.ndarray) -> float:
        return _reach(X, weight, _neighbors(self.n_neighbors, X.shape[0]))


def _counted(X: Any, weight: np.ndarray | None) -> tuple[Any, np.ndarray]:
    """The rows of positive weight, and their weights."""
    if weight is None:
        return X, np.ones(X.shape[0])
    return (X, weight) if weight.all() else (X[weight > 0], weight[weight > 0])


def _neighbors(given: int | None, n: int) -> int:
    if given is not None and given > n - 1:
        warn_caller(
            f"n_neighbors={given} is more than the {n - 1} other rows of positive weight: it is "
            "clipped to them."
        )
    return min(_NEIGHBORS if given is None else int(given), n - 1)


def _sampled(n: int) -> np.ndarray:
    """At most a thousand rows, evenly spaced, so that an estimate is no matter of chance."""
    return np.unique(np.linspace(0, n - 1, _SAMPLED_ROWS).round().astype(int))


def _median_squared_distance(X: Any, weight: np.ndarray) -> float:
    """Between two rows that are not equal."""
    from sklearn.metrics import pairwise_distances
    from sklearn.utils.extmath import row_norms

    rows = _sampled(X.shape[0])
    sample, w = X[rows], weight[rows]
    if not sp.issparse(sample):
        sample = sample - sample.mean(0, dtype=np.float64)  # whose rounding grows with an offset
    i, j = np.triu_indices(len(w), 1)
    apart, s = pairwise_distances(sample)[i, j], row_norms(sample, squared=True)
    far = apart**2 > _ROUNDING * (s[i] + s[j])
    return _median(apart[far], (w[i] * w[j])[far]) ** 2 if far.any() else 1.0


def _reach(X: Any, weight: np.ndarray, n_neighbors: int) -> float:
    """Squared distance within which half of the rows have `n_neighbors` others."""
    if n_neighbors == 0:
        return 0.0
    from sklearn.neighbors import NearestNeighbors

    rows = _sampled(X.shape[0])
    finder = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(X)  # a row is its own nearest
    return _median(finder.kneighbors(X[rows])[0][:, -1], weight[rows]) ** 2


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    """That of every value repeated as often as its weight says, in whatever unit."""
    order = np.argsort(values)
    total = weight[order].cumsum()
    half = 0.5 * total[-1]  # the sums are rounded, ties are meant
    low, high = np.searchsorted(total, [half * (1 - 1e-9), half * (1 + 1e-9)])
    return float(values[order[[low, high]]].mean())


def _squared_distances(x: Tensor) -> Tensor:
    return squared_distances(x)[0].clamp_(min=0)


def _within(x: Tensor, eps: float) -> Tensor:
    """|x_i - x_j|^2 <= eps, but for the rounding of the left side: equal rows are at 0."""
    squared, both = squared_distances(x.double())
    return squared <= eps + _ROUNDING * both


_OF_ROWS: dict[str, Callable[..., Tensor]] = {
    "distance": lambda x: _squared_distances(x).sqrt_(),
    "squared_distance": _squared_distances,
    "heat": lambda x, r: torch.exp(-_squared_distances(x) / r),
    "epsilon": _within,
}


def make_pairs(
    affinity: str,
    X: Any,
    source: Source,
    numbers: dict[str, Any],
    weight: np.ndarray | None = None,
    *,
    whole: bool,
) -> Pairs:
    """phi of all pairs of rows: as a matrix, as a graph, or computed batch by batch.

    `whole` says that every step reads all pairs. Rows of weight 0 are no one's neighbours.
    """
    n = source.n
    if affinity == "knn":
        graph = _among(_neighbor_graph(_counted(X, weight)[0], numbers["n_neighbors"]), weight)
        return _graph_pairs(graph.maximum(graph.T), source)
    if affinity == "geodesic":
        _refuse_dense("affinity='geodesic' needs the distances of all pairs", n)
        paths = _geodesics(_counted(X, weight)[0], numbers["n_neighbors"])
        return _matrix_pairs(_among(paths, weight), source)
    of_rows = _OF_ROWS[affinity]
    pairs = RowPairs(source, lambda x: of_rows(x, **numbers).to(source.dtype))
    if whole:
        _refuse_dense("A full batch needs all pairs", n)
    return Pairs(pairs.phi) if whole or n <= _DENSE_ROWS else pairs


def given_pairs(matrix: Any, name: str, kind: str, source: Source, *, whole: bool) -> Pairs:
    """phi from a matrix of the user's own, dense or sparse.

    Raises ValueError when it is no symmetric matrix of the kind that the loss needs.
    """
    n = source.n
    matrix = check_array(
        matrix, accept_sparse="csr", dtype=[np.float64, np.float32], input_name=name,
        ensure_min_samples=0,
    )  # fmt: skip
    if matrix.shape != (n, n):
        raise ValueError(
            f"{name} must be of shape ({n}, {n}), one row and one column for every row of X, got "
            f"{matrix.shape}." + _OF_SPLITS * (matrix.shape[0] == n)
        )
    if whole:
        _refuse_dense("A full batch needs all pairs", n)
    values = matrix.data if sp.issparse(matrix) else matrix
    if (values < 0).any():
        raise ValueError(f"{name} must not be negative, but it reaches {values.min():g}.")
    asymmetry = abs(matrix - matrix.T).max() if n else 0.0
    if asymmetry > 1e-6 * max(values.max(initial=0.0), 1e-300):
        raise ValueError(
            f"{name} must be symmetric, but it differs from its transpose by {asymmetry:g}. Pass "
            "(A + A.T) / 2, or the maximum of both."
        )
    if kind == "binary" and not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{name} must hold 0 and 1 only for a margin, which attracts where phi = 1 and repels "
            "where phi = 0. Threshold it, or use embedding='laplacian'."
        )
    if not sp.issparse(matrix):
        return _matrix_pairs(matrix, source)
    if kind == "dissimilarity":
        raise ValueError(
            f"{name} is sparse, which would say that all rows it does not store coincide. Pass a "
            "dense matrix of dissimilarities for embedding='mds'."
        )
    return _graph_pairs(matrix, source)


_OF_SPLITS = (
    " A search or cross-validation splits what `fit` is given by rows alone: there, let affinity "
    "be a callable that gives the matrix of the rows at hand."
)


def _refuse_dense(what: str, n: int) -> None:
    if n > _MOST_ROWS:
        raise ValueError(
            f"{what}, {n} x {n} numbers; at most {_MOST_ROWS} rows are accepted. Fit on a sample "
            "of the rows (transform takes the others), or use solver='adam' with a batch_size and "
            "affinity='distance', 'heat', 'epsilon' or 'knn'."
        )


def _matrix_pairs(matrix: np.ndarray, source: Source) -> Pairs:
    phi = torch.from_numpy(np.array(matrix)).to(dtype=source.dtype, device=source.device)
    return Pairs(phi)


def _among(part: Any, weight: np.ndarray | None) -> Any:
    """What is known of pairs of the rows of positive weight, with zeros for all others."""
    if weight is None or weight.all():
        return part
    place, n = np.flatnonzero(weight), len(weight)
    if sp.issparse(part):
        part = sp.coo_matrix(part)
        return sp.csr_matrix((part.data, (place[part.row], place[part.col])), shape=(n, n))
    whole = np.zeros((n, n))
    whole[np.ix_(place, place)] = part
    return whole


def _graph_pairs(graph: Any, source: Source) -> GraphPairs:
    graph = sp.csr_matrix(graph, copy=True)
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.sum_duplicates()

    def tensor(part: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(part).to(dtype=dtype, device=source.device)

    return GraphPairs(
        tensor(graph.indptr, torch.int64),
        tensor(graph.indices, torch.int64),
        tensor(graph.data, source.dtype),
    )


def _neighbor_graph(X: Any, n_neighbors: int, mode: str = "connectivity") -> sp.csr_matrix:
    """Who is among whose nearest."""
    if n_neighbors == 0:
        return sp.csr_matrix((X.shape[0], X.shape[0]))
    from sklearn.neighbors import kneighbors_graph

    return kneighbors_graph(X, n_neighbors, mode=mode)


def _geodesics(X: Any, n_neighbors: int) -> np.ndarray:
    """Lengths of the shortest paths over the graph of nearest neighbours, as in Isomap."""
    from scipy.sparse.csgraph import connected_components, shortest_path

    graph = _neighbor_graph(X, n_neighbors, "distance")
    parts, _ = connected_components(graph, directed=False)
    if parts > 1:
        raise ValueError(
            f"affinity='geodesic' needs a connected graph, but with n_neighbors={n_neighbors} it "
            f"falls into {parts} parts, between which there is no path. Raise n_neighbors."
        )
    return shortest_path(graph, directed=False)

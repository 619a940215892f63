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
from skae.pairs import GraphPairs, Pairs, RowPairs

_DENSE_ROWS = 4096  # up to which all of phi is computed at once: 128 MB of float64
_MOST_ROWS = 20_000  # of a dense phi: 3.2 GB of float64, and as much again at every step
_SAMPLED_ROWS = 1000  # from which `r` and `eps` are estimated
_NEIGHBORS = 10

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

    def estimated(self, affinity: Any, X: Any) -> dict[str, Any]:
        """Those that `affinity` uses, by name."""
        if affinity == "heat":
            return {"r": _median_squared_distance(X) if self.r is None else float(self.r)}
        if affinity == "epsilon":
            near = _neighbors(self.n_neighbors, X.shape[0])
            return {"eps": _reach(X, near) if self.eps is None else float(self.eps)}
        if affinity in ("knn", "geodesic"):
            return {"n_neighbors": _neighbors(self.n_neighbors, X.shape[0])}
        return {}


def _neighbors(given: int | None, n: int) -> int:
    if given is not None and given > n - 1:
        warn_caller(
            f"n_neighbors={given} is more than the other rows of n_samples={n}: {n - 1} are used."
        )
    return min(_NEIGHBORS if given is None else int(given), n - 1)


def _sample(X: Any) -> Any:
    """At most a thousand rows, evenly spaced, so that the estimate is no matter of chance."""
    return X[np.unique(np.linspace(0, X.shape[0] - 1, _SAMPLED_ROWS).round().astype(int))]


def _median_squared_distance(X: Any) -> float:
    from sklearn.metrics import pairwise_distances

    sample = _sample(X)
    apart = pairwise_distances(sample)[np.triu_indices(sample.shape[0], 1)]
    apart = apart[apart > 0]
    return float(np.median(apart) ** 2) if len(apart) else 1.0


def _reach(X: Any, n_neighbors: int) -> float:
    """Squared distance within which half of the rows have `n_neighbors` others."""
    if n_neighbors == 0:
        return 0.0
    from sklearn.neighbors import NearestNeighbors

    sample = _sample(X)
    finder = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(X)  # a row is its own nearest
    return float(np.median(finder.kneighbors(sample)[0][:, -1]) ** 2)


def squared_distances(x: Tensor) -> Tensor:
    """|x_i - x_j|^2 of all pairs, in float64."""
    x = x.double()
    x = x - x.mean(0)
    s = x.square().sum(1)
    return (s[:, None] + s - 2 * x @ x.T).clamp_(min=0).fill_diagonal_(0)


_OF_ROWS: dict[str, Callable[..., Tensor]] = {
    "distance": lambda s: s.sqrt(),
    "squared_distance": lambda s: s,
    "heat": lambda s, r: torch.exp(-s / r),
    "epsilon": lambda s, eps: s <= eps,
}


def make_pairs(
    affinity: Any, X: Any, source: Source, numbers: dict[str, Any], *, whole: bool
) -> Pairs:
    """phi of all pairs of rows: as a matrix, as a graph, or computed batch by batch.

    `whole` says that every step reads all pairs.
    """
    n = source.n
    if affinity == "knn":
        graph = _neighbor_graph(X, numbers["n_neighbors"])
        return _graph_pairs(graph.maximum(graph.T), source)
    if affinity == "geodesic":
        _refuse_dense("affinity='geodesic' needs the distances of all pairs", n)
        return _matrix_pairs(_geodesics(X, numbers["n_neighbors"]), source)
    of_rows = _OF_ROWS[affinity]
    pairs = RowPairs(source, lambda x: of_rows(squared_distances(x), **numbers).to(source.dtype))
    if whole:
        _refuse_dense("A full batch needs all pairs", n)
    return Pairs(pairs.phi) if whole or n <= _DENSE_ROWS else pairs


def given_pairs(matrix: Any, name: str, kind: str, source: Source, *, whole: bool) -> Pairs:
    """phi from a matrix of the user's own, dense or sparse.

    Raises ValueError when it is no symmetric matrix of the kind that the loss needs.
    """
    n = source.n
    matrix = check_array(matrix, accept_sparse="csr", input_name=name, ensure_min_samples=0)
    if matrix.shape != (n, n):
        raise ValueError(
            f"{name} must be of shape ({n}, {n}), one row and one column for every row of X, got "
            f"{matrix.shape}."
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

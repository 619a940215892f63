"""The autoencoder whose codes keep the geometry of the rows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import joblib
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.train import FULL_BATCH, Result, Training
from skae.activations import ACTIVATIONS
from skae.affinities import KINDS, Numbers, given_pairs, make_pairs
from skae.estimators._base import BaseAutoencoder, all_or_nothing
from skae.estimators._bounded import bounded_activation, check_codes
from skae.estimators._build import resolved_code_activation
from skae.estimators._compat import with_callbacks
from skae.estimators._estimator import estimator
from skae.networks import Network
from skae.objective import Forward, Objective, Rows, is_positive
from skae.pairs import PAIR_LOSSES, Pairs, code_distances, mean_share, pair_gradient
from skae.penalties import (
    any_weight,
    bernoulli_kl,
    bernoulli_kl_slope,
    mean_activation,
    row_shares,
)

#: phi for each loss, where none is named.
_OWN_AFFINITY = {
    "mds": "distance", "laplacian": "heat", "margin": "epsilon", "contrastive": "epsilon",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EmbeddingObjective(Objective):
    """``gamma`` reconstruction + mean over pairs of L + ``beta`` KL(rho, rho^).

    Parameters
    ----------
    embedding : {"laplacian", "mds", "margin", "contrastive"}
        L, from `skae.pairs.PAIR_LOSSES`.

    margin, gamma, beta, rho : float
        See `EmbeddingAutoencoder`.

    code_activation : str
        Its range is mapped to [0, 1] for rho^.
    """

    embedding: str = "mds"
    margin: Any = 1.0
    gamma: Any = 1.0
    beta: Any = 0.0
    rho: Any = 0.05
    code_activation: str = "logistic"

    penalises_batch = True
    mixes_rows = True

    def cell_weight(self, out):
        observed = super().cell_weight(out)
        if not isinstance(self.gamma, Tensor) and self.gamma == 1:
            return observed
        if observed is None:
            return self.gamma if isinstance(self.gamma, Tensor) else out.raw.new_tensor(self.gamma)
        return observed * self.gamma

    def penalty(self, out, net):
        terms = []
        if out.rows.pairs is not None:
            terms.append(self._mean(*self._pairs(out, out.rows.pairs)))
        if is_positive(self.beta):
            terms.append(self._sparsity(self._rho_hat(out), out.rows.weight))
        return sum(terms[1:], terms[0]) if terms else None

    def penalty_and_gradient(self, out, net, share):
        terms, parts, weight = [], [], out.rows.weight
        if out.rows.pairs is not None:
            d, phi, counts = self._pairs(out, out.rows.pairs)
            terms.append(self._mean(d, phi, counts))
            pull = PAIR_LOSSES[self.embedding].pull(d, phi, self.margin)
            parts.append(pair_gradient(share * counts * pull, out.h))
        if is_positive(self.beta):
            rho_hat, (low, high) = self._rho_hat(out), self._code_range
            terms.append(self._sparsity(rho_hat, weight))
            slope = self.beta * bernoulli_kl_slope(self.rho, rho_hat)
            parts.append(share * slope * row_shares(weight, out.h) / (high - low))
        if not terms:
            return None, None, {}
        return sum(terms[1:], terms[0]), sum(parts[1:], parts[0]).expand_as(out.h), {}

    def _pairs(self, out: Forward, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """Distances of codes, phi, and what each pair counts."""
        counts = pairs.share
        if counts is None:
            counts = mean_share(out.h.shape[-2], out.rows.weight, out.h)
        return code_distances(out.h), pairs.phi, counts

    def _mean(self, d: Tensor, phi: Tensor, counts: Tensor) -> Tensor:
        """L over all pairs, of shape (..., 1)."""
        elements = PAIR_LOSSES[self.embedding].elements(d, phi, self.margin)
        return (counts * elements).sum((-2, -1)).unsqueeze(-1)

    def _sparsity(self, rho_hat: Tensor, weight: Tensor | None) -> Tensor:
        return (self.beta * bernoulli_kl(self.rho, rho_hat)).sum(-1) * any_weight(weight)

    @property
    def _code_range(self) -> tuple[float, float]:
        return ACTIVATIONS[self.code_activation].range

    def _rho_hat(self, out: Forward) -> Tensor:
        """Mean activation of every unit in the batch, mapped to [0, 1], of shape (..., 1, k)."""
        low, high = self._code_range
        return (mean_activation(out.h, out.rows.weight) - low) / (high - low)


@estimator
class EmbeddingAutoencoder(BaseAutoencoder):
    r"""Autoencoder whose codes keep the geometry of the rows: an embedding with a decoder.

    It minimises

    .. math::
        J = \gamma R + \frac{1}{n^2} \sum_{i=1}^n \sum_{j=1}^n w_i w_j L(h_i, h_j, \varphi_{ij})
        + \beta \sum_{u=1}^k \mathrm{KL}(\rho, \hat\rho_u) + \frac{\alpha}{2} \lVert W \rVert^2

    with :math:`h_i` the code of row i, :math:`R` the mean reconstruction loss of a cell,
    :math:`w_i` the sample weights, of mean 1, :math:`\hat\rho_u` the mean activation of code unit
    u, and with :math:`d_{ij} = \lVert h_i - h_j \rVert` one of

    - "mds": :math:`(d_{ij} - \varphi_{ij})^2`, distances as they are between rows;
    - "laplacian": :math:`\varphi_{ij} d_{ij}^2`, near where rows are near. Without
      reconstruction (`gamma` = 0) its minimum is one point for all rows;
    - "margin": :math:`d_{ij}^2` where :math:`\varphi_{ij} = 1`, :math:`\max(0, l - d_{ij}^2)`
      where it is 0, with :math:`l` the `margin`. Between coincident codes the second has no
      gradient, as :math:`h_i - h_j` has no direction;
    - "contrastive": the same with :math:`\max(0, l - d_{ij})^2`, whose push does not fade as
      codes approach [2]_.

    Adapting an embedding so gives codes of new rows, by `transform` [1]_.

    Parameters
    ----------
    embedding : {"laplacian", "mds", "margin", "contrastive"}, default="mds"
        The loss L of a pair of codes.

    affinity : str or callable, default="auto"
        What :math:`\varphi_{ij}` is, from distances d between rows of X as it is given: a
        dissimilarity for "mds" ("distance", "squared_distance", or "geodesic", the length of the
        shortest path between neighbours), a similarity for "laplacian" ("heat", which is
        ``exp(-d^2 / r)``, or one of the following), 0 or 1 for the others ("epsilon", 1 where
        ``d^2 <= eps``, or "knn", 1 where one row is among the other's nearest). "precomputed"
        takes ``affinity_matrix`` of `fit`. A callable gets the rows of X and returns a matrix.
        "auto" is "distance", "heat" or "epsilon".

    n_neighbors : int, default=None
        Neighbours of a row under "knn" and "geodesic", itself not counted, and for the estimate
        of `eps`. None is 10, or all other rows if they are fewer; a larger number than those is
        clipped with a warning.

    r : float, default=None
        Scale of "heat", in squared units of X. None is the median squared distance between two
        rows that are not equal, weighted, estimated from at most 1000.

    eps : float, default=None
        Squared reach of "epsilon", in squared units of X. None is the squared distance within
        which half of the rows, by weight, have `n_neighbors` others.

    margin : float, default=1.0
        The l of "margin", a squared distance between codes, and of "contrastive", a distance.

    gamma : float, default=1.0
        Weight of the reconstruction. With 0 the decoder is not trained, scores and
        reconstructions mean nothing, and `early_stopping` is refused.

    beta : float, default=0.0
        Weight of the sparsity penalty, in units of J. The code then has to be bounded:
        `code_activation` "logistic", or "tanh", which is mapped to [0, 1] for it. A module given
        as `encoder` has to keep its codes within the range of this activation.

    rho : float, default=0.05
        The mean activation that it asks of every code unit, in (0, 1).

    tol : float, default=1e-4
        Training stops when the loss has not fallen by this fraction of the best one for
        `n_iter_no_change` epochs in a row, or, where every step reads all rows, when the norm of
        the gradient falls to `tol` times the mean variance of a feature. `stop_reason_` says
        which. None trains for exactly `max_iter` epochs.

    Attributes
    ----------
    affinity_ : str
        The affinity in use, "callable" for one of the user's own.

    affinity_numbers_ : dict
        What it depends on: ``r``, ``eps`` or ``n_neighbors``, given or estimated from X.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of a linear encoder of one layer.

    loss_curve_ : list of float
        J after every epoch.

    validation_loss_curve_ : list of float or None
        Reconstruction loss of the held-out rows after every epoch, under `early_stopping`.

    stop_reason_ : str
        "converged" (the loss no longer falls), "gradient" (its gradient vanishes), "max_iter",
        "callback", "interrupted", or "no_progress": lbfgs or cg found no further descent.

    Notes
    -----
    With sums where we average, ``sum_{i<=j} L + gamma' |X - X^|^2 + beta' KL + lambda/2 |W|^2``
    is n^2 / 2 times J at ``gamma = 2 d gamma' / n``, ``beta = 2 beta' / n^2`` and
    ``alpha = 2 lambda / n^2``, a row with itself counting zero.

    Integer weights are repeated rows where `r`, `eps` or the matrix is given, and for `r` estimated
    from up to 1000 rows. "knn", "geodesic" and the estimate of `eps` count neighbours by rows,
    whatever their weights; rows of weight zero are left out.

    The sum is exact when `batch_size` is n_samples or more, and for "lbfgs" and "cg". Smaller
    batches of b rows take the pairs within the batch: on average ``(1 - 1/b) / (1 - 1/n)`` of the
    whole, 0.5 % less at b = 200. The penalty of the batch's mean activation is, on average, more
    than that of all rows'. In a graph ("knn", or a sparse matrix) such pairs hardly ever are
    neighbours: there, every row of a batch brings one of its neighbours along, drawn at random,
    which counts for all of them in L and for nothing elsewhere. The part of L where phi is not 0
    is then unbiased.

    "distance", "squared_distance", "heat" and "epsilon" are computed batch by batch for more than
    4096 rows; "geodesic" and full batches hold all n^2 numbers and accept 20,000 rows. Estimates
    from X are made anew for the rows of every call of `fit` and `partial_fit`.

    References
    ----------
    .. [1] Yu, Zeng, Luo, Zhuang, He and Shi, "Embedding with autoencoder regularization", ECML
       PKDD (2013). After its abstract; the losses are those above.

    .. [2] Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping",
       CVPR (2006), equation 4.

    Examples
    --------
    >>> from sklearn.datasets import make_swiss_roll
    >>> from skae import EmbeddingAutoencoder
    >>> X, t = make_swiss_roll(100, random_state=0)
    >>> model = EmbeddingAutoencoder(
    ...     n_components=2, affinity="geodesic", max_iter=20, tol=None, random_state=0
    ... ).fit(X)
    >>> model.transform(X).shape
    (100, 2)
    """

    embedding: str = "mds"
    affinity: Any = "auto"
    n_neighbors: int | None = None
    r: float | None = None
    eps: float | None = None
    margin: float = 1.0
    gamma: float = 1.0
    beta: float = 0.0
    rho: float = 0.05

    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "embedding": [StrOptions(set(PAIR_LOSSES))],
        "affinity": [StrOptions({"auto", "precomputed", *KINDS}), callable],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "r": [Interval(Real, 0, None, closed="neither"), None],
        "eps": [Interval(Real, 0, None, closed="left"), None],
        "margin": [Interval(Real, 0, None, closed="neither")],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "rho": [Interval(Real, 0, 1, closed="neither")],
    }

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, *, affinity_matrix=None):
        """Train the autoencoder.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data: an array, a DataFrame, a CSR matrix, a torch tensor, or a memory map.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, scaled to mean 1. A pair of rows counts the product of theirs.

        affinity_matrix : {array-like, sparse matrix} of shape (n_samples, n_samples), default=None
            Symmetric affinities of the rows, not negative, for ``affinity="precomputed"``. In a
            search or cross-validation, which splits it by rows alone, use a callable as `affinity`
            instead.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or the affinities do not fit the parameters, or training diverges. The estimator
            is then as it was before the call.
        """
        return self._fit(
            X, y, sample_weight, self.max_iter, keep=self.warm_start,
            affinity_matrix=affinity_matrix,
        )  # fmt: skip

    def _objective(self) -> EmbeddingObjective:
        if self.gamma == 0 and self.early_stopping:
            raise ValueError(
                "gamma=0 trains no decoder, by whose error early_stopping=True would stop. Set "
                "gamma > 0 or early_stopping=False."
            )
        named = bounded_activation(self, *self._asks()) if self.beta > 0 else None
        return EmbeddingObjective(
            **self._shared_terms(),
            embedding=self.embedding,
            margin=float(self.margin),
            gamma=float(self.gamma),
            beta=float(self.beta),
            rho=float(self.rho),
            code_activation=named or resolved_code_activation(self),
        )

    def _asks(self) -> tuple[str, str]:
        """What asks for bounded codes, and what does not."""
        return f"beta={self.beta}", "beta=0"

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        if isinstance(objective, EmbeddingObjective) and is_positive(objective.beta):
            check_codes(network, source, objective.code_activation, *self._asks())
        return super()._train(network, objective, source, rows, **options)

    def _rows(self, data, y, weight, *, affinity_matrix=None, **known) -> Rows:
        affinity = _OWN_AFFINITY[self.embedding] if self.affinity == "auto" else self.affinity
        if affinity_matrix is not None and affinity != "precomputed":
            raise ValueError(
                f"affinity_matrix is given, but affinity={affinity!r}. Set affinity='precomputed', "
                "or leave affinity_matrix=None."
            )
        accepts = PAIR_LOSSES[self.embedding].accepts
        whole = self.solver in FULL_BATCH or self._batch_rows(data.source.n) >= data.source.n
        X = data.X.detach().cpu().numpy() if isinstance(data.X, Tensor) else data.X
        if isinstance(affinity, str) and affinity != "precomputed":
            _check_kind(self.embedding, affinity)
            w = None if weight is None else weight.double().cpu().numpy()
            numbers = Numbers(self.r, self.eps, self.n_neighbors).estimated(affinity, X, w)
            pairs = make_pairs(affinity, X, data.source, numbers, w, whole=whole)
        else:
            matrix, name, numbers = affinity_matrix, "affinity_matrix", {}
            if callable(affinity):
                matrix, name, affinity = affinity(X), "The matrix of affinity", "callable"
            elif matrix is None:
                raise ValueError(
                    "affinity='precomputed' needs fit(X, affinity_matrix=phi), a symmetric matrix "
                    "of shape (n_samples, n_samples), but there is none. partial_fit takes none."
                )
            kind = "binary" if accepts == {"binary"} else min(accepts - {"binary"})
            pairs = given_pairs(matrix, name, kind, data.source, whole=whole)
        self.affinity_, self.affinity_numbers_ = affinity, numbers
        return dataclasses.replace(super()._rows(data, y, weight), pairs=pairs)

    def _task(self, rows: Rows) -> Any:
        is_named = self.affinity_ in KINDS
        return self.affinity_, self.affinity_numbers_, None if is_named else _digest(rows.pairs)

    def _batch_rows(self, n: int) -> int:
        return min(200, n) if self.batch_size == "auto" else int(self.batch_size)

    def _training_numbers(self, n, unit, epochs, partial=False) -> Training:
        training = super()._training_numbers(n, unit, epochs, partial)
        return dataclasses.replace(training, gradient_tol=training.tol)


_REASONS = {
    "laplacian": "draws rows together by their similarity: with a dissimilarity far rows would be "
    "drawn together most. Use 'heat', 'epsilon' or 'knn'",
    "mds": "compares distances with dissimilarities, not with a similarity. Use 'distance', "
    "'squared_distance' or 'geodesic'",
    "margin": "attracts where phi is 1 and repels where it is 0. Use 'epsilon' or 'knn'",
}
_REASONS["contrastive"] = _REASONS["margin"]


def _digest(pairs: Any) -> str:
    """What tells one matrix of pairs from another."""
    tensors = (part for part in vars(pairs).values() if isinstance(part, Tensor))
    return joblib.hash([part.cpu().numpy() for part in tensors])


def _check_kind(embedding: str, affinity: str) -> None:
    """Raise when the loss makes no sense of this affinity."""
    if KINDS[affinity] not in PAIR_LOSSES[embedding].accepts:
        raise ValueError(
            f"embedding={embedding!r} cannot use affinity={affinity!r}: it {_REASONS[embedding]}."
        )

"""The generalized autoencoder: every row reconstructs a weighted set of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils._array_api import _convert_to_numpy, get_namespace
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.train import Result, Training, train
from skae._warnings import warn_caller
from skae.estimators._base import BaseAutoencoder, steps_by_batch
from skae.estimators._build import without_records
from skae.estimators._estimator import estimator
from skae.estimators._input import Data
from skae.estimators._outer_loop import Pass, Task, pass_summary
from skae.estimators._relations import SUPERVISED, Relation
from skae.losses import BinaryCrossEntropy, Linked, Loss, SquaredError
from skae.networks import Network
from skae.objective import Objective, Rows

_ENDS = ("callback", "interrupted", "diverged")  # reasons that end the outer loop too
_SETTLED = ("converged", "no_progress")


def _takes_streams(self) -> bool:
    if self.relation != "self":
        raise AttributeError(
            f"relation={self.relation!r} relates every row to others of the whole sample, which a "
            "stream does not show. Use fit, or relation='self'."
        )
    return steps_by_batch(self)


@estimator
class GeneralizedAutoencoder(BaseAutoencoder):
    r"""Generalized autoencoder: every row reconstructs a weighted set of rows.

    Row i is encoded, and its reconstruction :math:`\hat x_i` is held against all
    :math:`x_j` of its set :math:`\Omega_i` [1]_:

    .. math::
        E = \sum_i \sum_{j \in \Omega_i} s_{ij} \lVert x_j - \hat x_i \rVert^2
          = \sum_i S_i \lVert \hat x_i - m_i \rVert^2
          + \sum_i \sum_{j \in \Omega_i} s_{ij} \lVert x_j - m_i \rVert^2

    with :math:`S_i = \sum_j s_{ij}` and the weighted mean :math:`m_i = \sum_j s_{ij} x_j / S_i`.
    The last sum does not depend on the network. What is left is a weighted regression to
    :math:`m_i`, at the cost of a plain autoencoder, and that is what is minimised:

    .. math::
        \frac{1}{n} \sum_i \frac{S_i}{\bar S} \frac{1}{d} \lVert \hat x_i - m_i \rVert^2
        + \frac{\alpha}{2} \lVert W \rVert^2

    over n rows of d features, :math:`\bar S` the mean of :math:`S_i`. So E is
    ``d sum(S_i)`` times the loss plus the constant, and its weight decay is ``d sum(S_i)`` times
    ours; `outer_history_` has E. The same holds for the binary cross-entropy, without a constant.

    The relations are the rows of the source's table:

    ============ ============================ ============================================
    relation     :math:`\Omega_i`             :math:`s_{ij}`
    ============ ============================ ============================================
    "self"       i alone                      1: the plain autoencoder, bit for bit
    "class"      all of i's class, i too      1 / (rows in the class): LDA
    "neighbors"  `n_neighbors` nearest,       ``exp(-|x_i - x_j|^2 / t)``: Laplacian
                 i not                        eigenmaps
    "margin"     `k1` nearest of i's class, i +1 and -1: marginal Fisher analysis
                 not; `k2` of all others
    "lle"        i's neighbours, and those    ``(M + M^T - M^T M)_ij``, M the weights that
                 that share a row with it as  reconstruct a row from its `n_neighbors`
                 neighbours, i not
    "isomap"     all rows, i too              ``S_ij + c / n``, S the Gram matrix of
                                              geodesics
    ============ ============================ ============================================

    *Outer loop.* The first pass takes sets and weights from X. After it, and after every further
    pass, they are found anew from the codes, and training goes on from where it was, optimiser
    included. Targets are always rows of X. "self" and "class" have nothing to find anew: one
    pass. The epochs of `max_iter` are shared equally among the passes, what one leaves over goes
    to the next. `tol` and `n_iter_no_change` end a pass, early stopping too: losses of different
    targets are not compared, so that the weights kept are the best of the last pass.

    *Margin.* A row repels `k2` others, so :math:`S_i = k_1 - k_2` once neighbours are counted. As
    long as it is positive E is bounded, though the target lies outside the hull of the rows. Where
    a small class leaves it 0 or negative, E has no minimum, and `fit` says so.

    *LLE.* Weights may be negative, but :math:`S_i = 1 + \sum_m M_{mi}^2` is positive always. The
    target is the row less its residual in LLE's cost, divided by :math:`S_i`: the row moved onto
    the plane of its neighbours.

    *Isomap.* The source's weights :math:`S = -H \Lambda H / 2` (:math:`\Lambda` squared geodesic
    distances along the graph of `n_neighbors`, H the centring matrix) have row sums of zero: E is
    then linear in :math:`\hat x_i` and has no minimum but at the bounds of an output activation.
    Centring has taken one number from all weights, of which geodesics say nothing; we put back
    c / n, with c the largest eigenvalue of S. Then :math:`S_i = c` and :math:`m_i = \bar x +
    \frac{1}{c} \sum_j S_{ij} (x_j - \bar x)`, a linear image of the row's position in Isomap's
    embedding: its first direction counts in full, others in the order of their eigenvalues. (c
    only scales the targets about their mean.) Every pass by codes does that again, so that the
    first direction takes over, as in a power iteration: for the geodesics of X itself take
    ``max_outer=1`` or ``weight_space="input"``.

    *Sample weights* count rows: a pair counts :math:`w_i w_j` times, row i enters the loss with
    :math:`w_i S_i`, means, geodesic centring and the default `t` are weighted, and rows of weight
    0 are in no set. (Under "margin" :math:`w_j` counts relative to the mean of its kind of
    neighbours, so that :math:`S_i` stays; M of "lle" has no weights, its cost has.) Equal rows
    (of one class, in supervised relations) are one row with their summed weight, and so are not
    each other's neighbours. An integer weight thus equals repetition.

    X is held in memory, dense, together with the targets.

    Parameters
    ----------
    relation : {"self", "class", "neighbors", "margin", "isomap", "lle"}, default="neighbors"
        What a row reconstructs, see above. "class" and "margin" need y. All but "self" need
        ``loss="squared_error"``, behind any output activation, or "binary_cross_entropy": for
        others the set cannot be replaced by its mean.

    n_neighbors : int, default=None
        Size of the neighbourhoods of "neighbors", "isomap" and "lle"; at most the number of
        distinct rows less one, to which it is clipped with a warning. None is 10, or as many as
        there are.

    t : float, default=None
        Width of the heat kernel of "neighbors", in squared units of X. None is the mean squared
        distance between neighbours. For distances between codes it is scaled by the ratio of the
        mean squared distances in code and in X between the same neighbours, so that the mean
        exponent stays.

    k1 : int, default=15
        Neighbours of the own class under "margin"; clipped to the other distinct rows of the
        class, with a warning.

    k2 : int, default=5
        Neighbours of all other classes, pooled, under "margin"; clipped to the rows there are.

    weight_space : {"code", "input"}, default="code"
        Where distances for the weights :math:`s_{ij}` are measured from the second pass on, in
        "neighbors" (`t` then stays as it is), "isomap" (one pass is then enough) and "lle". The
        sets come from the codes in either case.

    max_outer : int, default=5
        Largest number of passes, the first included.

    outer_tol : float, default=0.05
        The outer loop ends when, in a pass that ended by `tol`, at most this share of the pairs
        is new and the loss is within this fraction of that of the pass before. Not used when `tol`
        is None.

    Attributes
    ----------
    outer_history_ : list of Pass
        Of every pass: ``n_iter``, its epochs; ``loss``, the last training loss; ``energy``, E in
        the source's units (with penalties, if any, in the same proportion); ``changed``, the
        share of its pairs that the pass before did not have, 1 for the first of a fit. Under
        `warm_start` further passes, all from codes, are appended.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of a linear encoder of one layer.

    loss_curve_ : list of float
        Mean training loss of every epoch of all passes, penalties included. It is measured
        against the targets of its pass, so that it may jump between passes.

    validation_loss_curve_ : list of float or None
        Loss of the held-out rows after every epoch, under `early_stopping`: against the sets that
        they have among the training rows.

    loss_, best_loss_ : float
        The last training loss; the lowest of the last pass, of the curve that stopping watched.

    n_iter_ : int
        Number of epochs of all passes.

    stop_reason_ : str
        "converged", "max_iter", "callback", "interrupted", "no_progress" (lbfgs or cg found no
        further descent), all of the last pass; or "max_outer": it converged, but its sets or its
        loss were still other than those of the pass before.

    Notes
    -----
    ``reconstruct``, ``score`` and the errors are about a row and its own reconstruction, whatever
    the relation.

    Table 1 of the source was not available to us: the relations follow accounts of it.

    References
    ----------
    .. [1] Wang, Huang, Wang and Wang, "Generalized autoencoder: a neural network framework for
       dimensionality reduction", CVPR Workshops (2014), equation 4 and table 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import GeneralizedAutoencoder
    >>> X, y = load_iris(return_X_y=True)
    >>> X = StandardScaler().fit_transform(X)
    >>> model = GeneralizedAutoencoder(
    ...     relation="class", n_components=2, max_iter=50, tol=None, random_state=0
    ... )
    >>> model.fit_transform(X, y).shape
    (150, 2)
    """

    relation: str = "neighbors"
    n_neighbors: int | None = None
    t: float | None = None
    k1: int = 15
    k2: int = 5
    weight_space: str = "code"
    max_outer: int = 5
    outer_tol: float = 0.05

    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "relation": [StrOptions({"self", "class", "neighbors", "margin", "isomap", "lle"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "t": [Interval(Real, 0, None, closed="neither"), None],
        "k1": [Interval(Integral, 1, None, closed="left")],
        "k2": [Interval(Integral, 0, None, closed="left")],
        "weight_space": [StrOptions({"code", "input"})],
        "max_outer": [Interval(Integral, 1, None, closed="left")],
        "outer_tol": [Interval(Real, 0, None, closed="left")],
    }

    @available_if(_takes_streams)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one pass over X, with ``relation="self"`` only: the others need all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The next rows of a stream. The first call's rows set the units of the data.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, scaled to mean 1.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        return super().partial_fit(X, y, sample_weight)

    def _objective(self) -> Objective:
        shared = self._shared_terms()
        if self.relation != "self" and not _is_of_means(shared["loss"]):
            raise ValueError(
                f"relation={self.relation!r} needs loss='squared_error' or 'binary_cross_entropy', "
                f"got {self.loss!r}: under those a weighted set is one target, its mean. Use one "
                "of them, or relation='self'."
            )
        return Objective(**shared)

    def _rows(self, data: Data, y: Any, weight: Tensor | None, **known: Any) -> Rows:
        rows = super()._rows(data, y, weight)
        if self.relation not in SUPERVISED:
            return rows
        return dataclasses.replace(rows, y=self._read_labels(data, y))

    def _task(self, rows: Rows) -> Any:
        return self.relation  # only "self" takes its records along, see `_outer_loop`

    def _read_labels(self, data: Data, y: Any) -> Tensor:
        """Classes as integers from 0, of shape (n_samples,)."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                f"is None: relation={self.relation!r} goes by classes. Pass y, or use another "
                "relation."
            )
        xp, is_array_api = get_namespace(y)
        y = column_or_1d(_convert_to_numpy(y, xp) if is_array_api else y, warn=True)
        check_consistent_length(data.X, y)
        self._refuse_missing(y)
        check_classification_targets(y)
        labels = np.unique(y, return_inverse=True)[1]
        return torch.from_numpy(labels).to(data.source.device)

    def _refuse_missing(self, y: np.ndarray) -> None:
        missing = [i for i, label in enumerate(y.tolist()) if _is_missing(label)]
        if missing:
            raise ValueError(
                f"y has missing labels, {len(missing)} of {len(y)}, the first in row {missing[0]}, "
                f"but relation={self.relation!r} goes by classes. Leave these rows out, or use "
                "another relation."
            )

    # ---- the outer loop

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        before = [] if options["state"] is None else list(getattr(self, "outer_history_", []))
        if self.relation == "self":
            result = train(network, objective, source, rows=rows, **options)
            first = 0 if options["state"] is None else options["state"]["epoch"]
            passes = [pass_summary(result, first, float(source.n * source.d))]
        else:
            result, passes = self._outer_loop(network, objective, source, rows, **options)
        self.outer_history_ = [*before, *passes]
        return result

    def _outer_loop(
        self,
        network: Network,
        objective: Objective,
        source: Source,
        rows: Rows,
        *,
        training: Training,
        state: Mapping[str, Any] | None,
        initial: Mapping[str, Tensor],
        validation: tuple[Source, Rows] | None,
        **options: Any,
    ) -> tuple[Result, list[Pass]]:
        """A call of `train` for every choice of sets and weights."""
        task = Task(self._relation(), network, objective, source, rows, validation)
        first = 0 if state is None else state["epoch"]
        if state is not None:
            task.encode(initial)  # as the last fit left them
        passes: list[Pass] = []
        left = training.max_iter
        training = dataclasses.replace(training, horizon=training.horizon or first + left)
        for more in range(1 if task.relation.is_fixed else min(self.max_outer, left), 0, -1):
            result = train(
                network, objective, source, initial=initial, **task.relate(), **options,
                training=dataclasses.replace(training, max_iter=-(-left // more)),
                state=None if state is None else without_records(state),
            )  # fmt: skip
            passes.append(task.summary(result, first))
            left, first, state = left - passes[-1].n_iter, result.state["epoch"], result.state
            reason = result.monitor.reasons[0]
            if reason in _ENDS or (reason in _SETTLED and self._is_settled(passes)):
                return result, passes
            if more > 1:
                task.encode(result.parameters)
        if reason in _SETTLED and not task.relation.is_fixed and self.tol is not None:
            self._warn_unsettled(result, passes)
        return result, passes

    def _relation(self) -> Relation:
        names = ("n_neighbors", "t", "k1", "k2", "weight_space")
        return Relation(self.relation, **{name: getattr(self, name) for name in names})

    def _is_settled(self, passes: list[Pass]) -> bool:
        """Whether sets and loss are those of the pass before."""
        if self.tol is None or len(passes) < 2:
            return False
        before, last = passes[-2:]
        moved = abs(last.loss - before.loss)
        return last.changed <= self.outer_tol and moved <= self.outer_tol * abs(before.loss)

    def _warn_unsettled(self, result: Result, passes: list[Pass]) -> None:
        if len(passes) == 1:
            return
        result.monitor.reasons[0] = "max_outer"
        limit = "max_outer" if self.max_outer <= self.max_iter else "max_iter"
        warn_caller(
            f"The outer loop stopped at {limit}={len(passes)} passes; in the last one "
            f"{passes[-1].changed:.0%} of the pairs were new. Raise {limit} or outer_tol, or set "
            "tol=None to train for exactly max_iter.",
            ConvergenceWarning,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.relation in SUPERVISED
        return tags


def _is_missing(label: Any) -> bool:
    return label is None or is_scalar_nan(label) or is_pandas_na(label)


def _is_of_means(loss: Loss) -> bool:
    """Whether a weighted sum of losses over a set is the loss of its mean, plus a constant."""
    inner = loss.loss if isinstance(loss, Linked) else loss
    return isinstance(inner, SquaredError | BinaryCrossEntropy)

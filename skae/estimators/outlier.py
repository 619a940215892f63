"""Outlier detection by reconstruction error."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context, clone
from sklearn.utils import check_random_state, gen_batches, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import (
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from skae.estimators._base import all_or_nothing
from skae.estimators._compat import CallbackSupportMixin, with_callbacks
from skae.estimators._estimator import estimator
from skae.estimators._input import checked_weight
from skae.estimators._progress import Subtasks
from skae.estimators._training import seed_all
from skae.estimators.autoencoder import Autoencoder

_CELLS = 2**22  # scored at a time


@estimator
class ReconstructionOutlierDetector(OutlierMixin, CallbackSupportMixin, BaseEstimator):
    """Flag the rows that an encoder and decoder trained on normal data reconstruct badly.

    The score of a row is ``-mean_j (x_j - x^_j)^2``, or minus the estimator's own
    `reconstruction_error` where it has one. X is never scaled: put a scaler in front.

    Parameters
    ----------
    estimator : object, default=None
        Anything with `transform` and `inverse_transform`: an autoencoder, `PCA`, `NMF`. It is
        cloned, fitted and kept as `estimator_`. None is an `Autoencoder` with its defaults.

    contamination : float, default=0.1
        Share in (0, 0.5] of the training rows to flag; it sets `offset_`. On new normal rows
        the share is larger, since the estimator has not seen them.

    random_state : int, RandomState instance, default=None
        Seeds every `random_state` of the estimator, in place of its own.

    Attributes
    ----------
    estimator_ : object
        The fitted estimator.

    offset_ : float
        Threshold on `score_samples`: rows below it are outliers. It may be set by hand.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has them.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import ReconstructionOutlierDetector
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> detector = make_pipeline(
    ...     StandardScaler(), ReconstructionOutlierDetector(estimator=PCA(5), contamination=0.05)
    ... ).fit(X[y == 1])
    >>> float((detector.predict(X[y == 0]) == -1).mean()) > 0.5
    True
    """

    estimator: Any = None
    contamination: float = 0.1
    random_state: Any = None

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "transform", "inverse_transform"]), None],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the estimator on X and set the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data, mostly normal.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, given to the estimator if its `fit` takes them, and to the
            quantile that sets the threshold.

        Returns
        -------
        self : object
            The fitted detector.
        """
        X = self._validated(X, reset=True)
        fitted = clone(Autoencoder() if self.estimator is None else self.estimator)
        if self.random_state is not None:
            seed_all(fitted, check_random_state(self.random_state))
        options = {}
        if sample_weight is not None:
            sample_weight = checked_weight(sample_weight, X)
            if has_fit_parameter(fitted, "sample_weight"):
                options["sample_weight"] = sample_weight
        tasks = Subtasks(self, X, 1)
        self.estimator_ = tasks.fit("fit-estimator", fitted, X, **options)
        tasks.finish()
        self.offset_ = self._quantile(self._scores(X), sample_weight)
        return self

    def _validated(self, X: Any, *, reset: bool) -> Any:
        finite = "allow-nan" if self._inner_tags().allow_nan else True
        return validate_data(
            self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32],
            ensure_all_finite=finite,
        )  # fmt: skip

    def _inner_tags(self) -> Any:
        return get_tags(Autoencoder() if self.estimator is None else self.estimator).input_tags

    def _quantile(self, scores: np.ndarray, weight: np.ndarray | None) -> float:
        """The threshold with a share `contamination` of the rows below it, rounded down.

        Halfway to the next score where the share is met exactly, so that integer weights equal
        repetitions.
        """
        order = np.argsort(scores)
        s = scores[order]
        w = np.ones(len(s)) if weight is None else np.asarray(weight, dtype=float)[order]
        s, below = s[w > 0], np.cumsum(w[w > 0])
        target = self.contamination * below[-1]
        flagged = int(np.searchsorted(below, target * (1 + 1e-12), side="right"))
        if flagged and np.isclose(below[flagged - 1], target, rtol=1e-12):
            return float((s[flagged - 1] + s[flagged]) / 2)
        return float(s[flagged])

    def _scores(self, X: Any) -> np.ndarray:
        """Scores in float64, a bounded number of rows at a time."""
        rows = max(1, _CELLS // max(1, X.shape[1]))
        parts = gen_batches(X.shape[0], rows)
        return np.concatenate([self._scores_at_once(X[part]) for part in parts])

    def _scores_at_once(self, X: Any) -> Any:
        # float64: in float32 a score differs by 1e-7 between batch sizes.
        X = X.astype(np.float64, copy=False)
        if hasattr(self.estimator_, "reconstruction_error"):
            return -np.asarray(self.estimator_.reconstruction_error(X), dtype=np.float64)
        X_hat = np.asarray(self.estimator_.inverse_transform(self.estimator_.transform(X)))
        dense = X.toarray() if hasattr(X, "toarray") else X
        return -np.mean((dense - X_hat) ** 2, axis=1, dtype=np.float64)

    def score_samples(self, X):
        """The negative reconstruction error of every row: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In float64; NaN for a row without any value, where the estimator takes such.
        """
        check_is_fitted(self)
        return self._scores(self._validated(X, reset=False))

    def decision_function(self, X):
        """Distance of the score from the threshold: negative for outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Whether each row is normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        label : ndarray of shape (n_samples,)
            +1 for normal rows, -1 for outliers.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = self._inner_tags()
        tags.input_tags.sparse = inner.sparse
        tags.input_tags.allow_nan = inner.allow_nan
        tags.input_tags.positive_only = inner.positive_only
        return tags

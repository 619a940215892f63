"""What outlier detectors share: thresholds, p-values and decisions from the scores of a model."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skae.estimators._base import all_or_nothing
from skae.estimators._calibration import Calibrated, calibrate
from skae.estimators._compat import CallbackSupportMixin, with_callbacks
from skae.estimators._estimator import estimator
from skae.estimators._explanation import ExplainsRows
from skae.estimators._input import checked_weight
from skae.estimators._thresholds import EXACT, RULES, Conformal, check_reach, rule_of


@estimator
class BaseOutlierDetector(ExplainsRows, OutlierMixin, CallbackSupportMixin, BaseEstimator):
    """The shell of detectors by reconstruction error.

    A detector gives `_validated`, and of a model `_fit_model`, `_scores_by`, `_cells_by` and
    `_reconstructions_by`. Its fitted model is `estimator_`.

    Parameters
    ----------
    contamination : float, default=0.1
        Share in (0, 0.5] of rows to flag; it sets `offset_`. Of which rows, `threshold` says.

    threshold : {"training", "held_out", "cross_fitted", "extreme_value"}, default="training"
        Where `offset_` comes from. "training" is the quantile of training scores, as in
        `IsolationForest`: exactly ``contamination * n_samples`` training rows are flagged (ties
        aside), and more of new normal rows, which the model has not seen. The others hold on new
        rows: of normal ones, drawn as the training rows were, they flag a share `contamination`.
        "held_out" fits to a part of the rows and calibrates on the others (split conformal): the
        share is not exceeded on average over such fits. "cross_fitted" fits to all rows, and
        calibrates on the scores that `cv` further models give to rows that they have not seen:
        slower, without the loss of rows, cautious where models change much with a fold.
        "extreme_value" fits a tail to held-out scores, for a contamination too small for ranks.
        A level of 0.1 % came out at 0.11 % with 200 calibration rows, and at 0.07 % with 1000; the
        tail is taken for exponential or heavier, so that bounded scores are flagged too seldom.

    calibration_fraction : float, default=0.2
        Share of the rows, drawn at random, that "held_out" and "extreme_value" calibrate on. None
        lets "extreme_value" use training scores.

    cv : int or cross-validation splitter, default=5
        Folds of "cross_fitted", shuffled where it is a number. A splitter that needs neither y nor
        groups; it may leave rows out, as `TimeSeriesSplit` does, but may test none twice.

    tail_fraction : float, default=0.1
        Share of the calibration rows that make the tail of "extreme_value", ten rows at least.

    random_state : int, RandomState instance, default=None
        Seeds training and the choice of calibration rows.

    Attributes
    ----------
    offset_ : float
        Threshold on `score_samples`: rows below it are outliers. `set_threshold` moves it, and it
        may be set by hand.

    calibration_scores_ : ndarray of shape (n_calibration_samples,)
        Scores that the threshold comes from; those of NaN, of rows without any value, do not
        count.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has them.
    """

    contamination: float = 0.1
    threshold: str = "training"
    calibration_fraction: float | None = 0.2
    cv: Any = 5
    tail_fraction: float = 0.1
    random_state: Any = None

    _parameter_constraints = {
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "threshold": [StrOptions(set(RULES) - {"out_of_bag"})],
        "calibration_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "cv": [Interval(Integral, 2, None, closed="left"), "cv_object"],
        "tail_fraction": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    # ---- what a detector gives

    def _fit_model(self, X: Any, weight: np.ndarray | None, seeds: Any, tasks: Any) -> Any:
        """A new model of validated rows; `seeds` is a RandomState, `tasks` fits what it holds."""
        raise NotImplementedError

    def _scores_by(self, model: Any, X: Any) -> np.ndarray:
        """Scores of shape (n,) in float64, higher for more normal rows."""
        raise NotImplementedError

    def _training_scores_by(self, model: Any, X: Any) -> np.ndarray:
        """The same of the rows that the model was fitted to."""
        return self._scores_by(model, X)

    # ---- fitting

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the model on X and set the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data, mostly normal.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, given to the model if its training takes them, and to the
            calibration rows.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If the calibration rows are too few to flag any row at this contamination.
        """
        X = self._validated(X, reset=True)
        if sample_weight is not None:
            # Those of float32 rows are float32, in which running sums lose rows.
            sample_weight = checked_weight(sample_weight, X).astype(np.float64, copy=False)
        calibrated = calibrate(self, X, sample_weight)
        self.estimator_ = calibrated.model
        self._keep(calibrated)
        check_reach(self._rule, self.threshold, self.contamination)
        return self

    def _keep(self, calibrated: Calibrated) -> None:
        self._source = calibrated.source
        self.calibration_scores_, self._calibration_weight = calibrated.scores, calibrated.weight
        self._set_rule()

    def _set_rule(self) -> None:
        self._rule: Conformal = rule_of(
            self.threshold, self.calibration_scores_, self._calibration_weight, self.tail_fraction
        )
        self.offset_ = self._rule.offset(self.contamination)

    @all_or_nothing
    def set_threshold(self, **parameters):
        """Move the threshold of a fitted detector, without fitting again.

        The parameters are set, as by `set_params`, and `offset_` and `p_values` follow from the
        calibration scores at hand. A later `fit` uses them too. `set_params` alone changes nothing
        before the next `fit` or `set_threshold`.

        Parameters
        ----------
        **parameters : dict
            New values of `contamination`, `threshold` and `tail_fraction`. `threshold` may change
            to "extreme_value" and back; others need other calibration rows.

        Returns
        -------
        self : object
            The same detector.
        """
        check_is_fitted(self)
        others = sorted(set(parameters) - {"contamination", "threshold", "tail_fraction"})
        if others:
            raise TypeError(
                f"set_threshold got {', '.join(others)}, which only fit can change. Use "
                "set_params and fit."
            )
        self.set_params(**parameters)
        self._validate_params()
        if self.threshold not in (self._source, "extreme_value"):
            raise ValueError(
                f"threshold={self.threshold!r} needs calibration rows of its own, and this "
                f"detector has those of {self._source!r}. Call fit."
            )
        self._set_rule()
        check_reach(self._rule, self.threshold, self.contamination)
        return self

    def _seeds(self) -> np.random.RandomState:
        """A generator of seeds; None takes fresh entropy, not the global generator."""
        if self.random_state is None:
            return np.random.RandomState(np.random.SeedSequence().generate_state(4))
        return check_random_state(self.random_state)

    # ---- what a fitted detector can do

    def score_samples(self, X):
        """The score of every row: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In float64; NaN for a row without any value, where the model takes such.
        """
        check_is_fitted(self)
        return self._scores_by(self.estimator_, self._validated(X, reset=False))

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

    def p_values(self, X):
        """How rare the score of every row is among those of normal rows: small for outliers.

        Of n calibration rows, r of which score no higher, it is ``(1 + r) / (1 + n)``, with the
        weights of the rows where `fit` had some. A normal row has p <= q with a probability of q
        at most if the calibration rows are new to the model and normal: so under "held_out", and
        nearly so under "cross_fitted". Under "training" p-values are too small on new rows. Under
        "extreme_value" those in the tail are the fitted tail's, and may be less than
        ``1 / (1 + n)``. Save under "training" and "out_of_bag", `predict` flags the rows with
        p <= contamination.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        p : ndarray of shape (n_samples,)
            In (0, 1]; 1 for a row without any value.
        """
        scores = self.score_samples(X)
        return self._rule.p_values(scores)

    def predict_fdr(self, X, level=0.1):
        """Judge a batch, with a share `level` of false outliers at most, on average.

        Needs p-values that hold on new rows, as those of ``threshold="held_out"`` do. The rule of
        Benjamini and Hochberg [1]_ on `p_values`, which [2]_ shows to hold for conformal ones. It
        looks at rows together: a row's label depends on which others are in X, and many clear
        outliers let less clear ones through. Calls of one row each control nothing.
        The smallest p-value, ``1 / (n + 1)``, bounds what can be found: m rows with k outliers
        need about ``m / (k level)`` calibration rows. "extreme_value" finds them with fewer,
        its tail being no promise: 10 % were false at a level of 10 %, where 2 % were outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            A batch.

        level : float, default=0.1
            False discovery rate in (0, 1).

        Returns
        -------
        label : ndarray of shape (n_samples,)
            +1 for normal rows, -1 for outliers.

        Raises
        ------
        ValueError
            If the calibration rows are those of training, which the model knows, as under
            "training" and "out_of_bag".

        References
        ----------
        .. [1] Benjamini and Hochberg, "Controlling the false discovery rate", JRSS B 57 (1995).
        .. [2] Bates, Candes, Lei, Romano and Sesia, "Testing for outliers with conformal
           p-values", Annals of Statistics 51 (2023), theorem 2.
        """
        from scipy.stats import false_discovery_control

        check_is_fitted(self)
        check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
        if self._source in ("training", "out_of_bag"):
            raise ValueError(
                "predict_fdr needs calibration rows that the model has not seen, but this detector "
                f"has those of threshold={self._source!r}, whose p-values are not exact on new "
                "rows. Fit with threshold='held_out' or 'cross_fitted'."
            )
        q = false_discovery_control(self.p_values(X))
        return np.where(q <= level * (1 + EXACT), -1, 1)

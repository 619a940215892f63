"""Outlier detection by reconstruction error."""

from __future__ import annotations

import inspect
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import _fit_context, clone
from sklearn.utils import gen_batches, get_tags
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter, validate_data

from skae.estimators._base import all_or_nothing
from skae.estimators._calibration import Calibrated, source_of
from skae.estimators._detector import BaseOutlierDetector
from skae.estimators._estimator import estimator
from skae.estimators._input import checked_weight, naming_text
from skae.estimators._training import seed_all
from skae.estimators.autoencoder import Autoencoder

_CELLS = 2**22  # scored at a time


def _streams(self) -> bool:
    held = getattr(self, "estimator_", self._unfitted())
    if not hasattr(held, "partial_fit"):
        raise AttributeError(
            f"{type(held).__name__}, the estimator inside, has no partial_fit with its present "
            "parameters. Use fit."
        )
    return True


@estimator
class ReconstructionOutlierDetector(BaseOutlierDetector):
    """Flag the rows that an encoder and decoder trained on normal data reconstruct badly.

    The score of a row is ``-mean_j (x_j - x^_j)^2`` over its observed values, or minus the
    estimator's own `reconstruction_error` where it has one. X is never scaled: put a scaler in
    front.

    **Mixed tables.** Put a `ColumnTransformer` in front, whose output is all numbers, and call its
    ``set_output(transform="pandas")``, so that `explain` names its columns. A pipeline may also
    be the `estimator`, if all of its steps have `inverse_transform`, which a `ColumnTransformer`
    has not; errors are then in the units of X, not in scaled ones. It sees the column names of a
    DataFrame.

    **Missing values** are taken where the estimator takes them, as `DenoisingAutoencoder` does.

    **Streams.** Where the estimator has `partial_fit`, the threshold follows the last
    `window_size` rows.

    Parameters
    ----------
    estimator : object, default=None
        Anything with `transform` and `inverse_transform`: an autoencoder, `PCA`, `NMF`. It is
        cloned, fitted and kept as `estimator_`. None is an `Autoencoder` with its defaults.

    random_state : int, RandomState instance, default=None
        Seeds every `random_state` of the estimator, in place of its own, and the choice of
        calibration rows.

    window_size : int, default=1000
        The number of latest rows that `partial_fit` calibrates on.

    Attributes
    ----------
    estimator_ : object
        The fitted estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import ReconstructionOutlierDetector
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> scaler = StandardScaler().set_output(transform="pandas").fit(X[y == 1])
    >>> detector = ReconstructionOutlierDetector(
    ...     estimator=PCA(5), contamination=0.05, threshold="cross_fitted", random_state=0
    ... ).fit(scaler.transform(X[y == 1]))
    >>> malignant = scaler.transform(X[y == 0])
    >>> float((detector.predict(malignant) == -1).mean()) > 0.5
    True
    >>> why = detector.explain(malignant[:2], n_features=2)
    >>> list(why.columns)
    ['row', 'feature', 'value', 'reconstruction', 'score', 'share']
    """

    estimator: Any = None
    window_size: int = 1000

    _parameter_constraints = {
        **BaseOutlierDetector._parameter_constraints,
        "estimator": [HasMethods(["fit", "transform", "inverse_transform"]), None],
        "window_size": [Interval(Integral, 1, None, closed="left")],
    }

    def _unfitted(self) -> Any:
        return Autoencoder() if self.estimator is None else self.estimator

    def _validated(self, X: Any, *, reset: bool) -> Any:
        held = self._unfitted() if reset else self.estimator_
        finite = "allow-nan" if _allows_nan(held) else True
        with naming_text(X):
            return validate_data(
                self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32],
                ensure_all_finite=finite,
            )  # fmt: skip

    def _named(self, X: Any) -> Any:
        """Rows with the column names of `fit`, for an estimator that selects by them."""
        names = getattr(self, "feature_names_in_", None)
        if names is None or hasattr(X, "toarray"):
            return X
        import pandas as pd

        return pd.DataFrame(X, columns=names, copy=False)

    # ---- training

    def _new(self, seeds: np.random.RandomState) -> Any:
        new = clone(self._unfitted())
        if self.random_state is not None:
            seed_all(new, seeds)
        return new

    def _fit_model(self, X: Any, weight: np.ndarray | None, seeds: Any, tasks: Any) -> Any:
        new, self._dtype = self._new(seeds), X.dtype
        return tasks.fit("fit-estimator", new, self._named(X), **_options(new, weight))

    @available_if(_streams)
    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Train on the next rows of a stream, and let the threshold follow.

        The latest `window_size` rows set the threshold. Under "training" their scores are those
        after learning from them. Otherwise they are scored before (test, then train), so that the
        false-alarm rate holds on what comes next; the first batch then only trains, and nothing
        is flagged until the window holds ``1 / contamination - 1`` rows. "extreme_value" ranks
        scores until its tail has ten rows. All rows are learnt from: leave out what should not
        become normal. After `fit` it continues with that threshold's scores.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The next rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, in training and in the window. Rows of weight zero take no place
            in it.

        Returns
        -------
        self : object
            The fitted detector.
        """
        is_first = not hasattr(self, "estimator_")
        X = self._validated(X, reset=is_first)
        if sample_weight is not None:
            sample_weight = checked_weight(sample_weight, X)
        source = source_of(self)
        model = self._new(self._seeds()) if is_first else self.estimator_
        self._dtype = getattr(self, "_dtype", X.dtype)
        scores = None if is_first or source == "training" else self._scores_by(model, X)
        model.partial_fit(self._named(X), **_options(model, sample_weight))
        self.estimator_ = model
        if source == "training":
            scores = self._scores_by(model, X)
        self._keep(self._window(source, scores, sample_weight))
        return self

    def _window(
        self, source: str, scores: np.ndarray | None, weight: np.ndarray | None
    ) -> Calibrated:
        """The latest scores: those kept, if of the same kind, and these; of rows with a weight."""
        parts, weights = [np.empty(0)], [np.empty(0)]
        if getattr(self, "_source", None) == source:
            parts.append(self.calibration_scores_)
            weights.append(_ones(self.calibration_scores_, self._calibration_weight))
        if scores is not None:
            parts.append(scores)
            weights.append(_ones(scores, weight))
        latest = slice(-self.window_size, None)
        known, w = np.concatenate(parts), np.concatenate(weights)
        known, w = known[w > 0][latest], w[w > 0][latest]
        return Calibrated(self.estimator_, known, None if (w == 1).all() else w, source)

    # ---- scores

    def _scores_by(self, model: Any, X: Any) -> np.ndarray:
        """Scores in float64, a bounded number of rows at a time."""
        return np.concatenate([-self._errors(model, part) for part in _portions(X)])

    def _errors(self, model: Any, X: Any) -> np.ndarray:
        if hasattr(model, "reconstruction_error"):
            return np.asarray(model.reconstruction_error(self._named(X)), dtype=np.float64)
        squares = self._squares(model, X)
        return _mean_observed(squares)

    def _cells_by(self, model: Any, X: Any) -> np.ndarray:
        return np.concatenate([self._cell_errors(model, part) for part in _portions(X)])

    def _cell_errors(self, model: Any, X: Any) -> np.ndarray:
        if not hasattr(model, "reconstruction_error"):
            return self._squares(model, X)
        if "per_feature" not in inspect.signature(model.reconstruction_error).parameters:
            raise TypeError(
                f"The error of {type(model).__name__} is its own reconstruction_error, which has "
                "no per_feature parameter to say what the features add to it. Give it one."
            )
        errors = model.reconstruction_error(self._named(X), per_feature=True)
        return np.asarray(errors, dtype=np.float64)

    def _squares(self, model: Any, X: Any) -> np.ndarray:
        dense = X.toarray() if hasattr(X, "toarray") else X
        return (dense - self._decoded(model, X)) ** 2

    def _reconstructions_by(self, model: Any, X: Any) -> np.ndarray:
        return np.concatenate([self._decoded(model, part) for part in _portions(X)])

    def _decoded(self, model: Any, X: Any) -> np.ndarray:
        try:
            codes = model.transform(self._named(X))
        except TypeError:  # of NMF and others, which take the dtype of `fit` alone
            codes = model.transform(self._named(X.astype(self._dtype)))
        X_hat = model.inverse_transform(codes)
        return np.asarray(X_hat, dtype=np.float64)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._unfitted()).input_tags
        tags.input_tags.sparse = inner.sparse
        tags.input_tags.allow_nan = _allows_nan(self._unfitted())
        tags.input_tags.positive_only = inner.positive_only
        return tags


def _allows_nan(held: Any) -> bool:
    """Whether it takes missing values: a pipeline's tags do not say, but its steps' do."""
    steps = [step for _, step in getattr(held, "steps", [])]
    if not steps:
        return get_tags(held).input_tags.allow_nan
    return all(_allows_nan(step) for step in steps if step not in (None, "passthrough"))


def _options(model: Any, weight: np.ndarray | None) -> dict[str, Any]:
    takes = weight is not None and has_fit_parameter(model, "sample_weight")
    return {"sample_weight": weight} if takes else {}


def _ones(scores: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return np.ones(len(scores)) if weight is None else weight


def _portions(X: Any) -> Any:
    """Rows in float64, a bounded number at a time.

    In float32 a score differs by 1e-7 between batch sizes.
    """
    rows = max(1, _CELLS // max(1, X.shape[1]))
    return (X[part].astype(np.float64, copy=False) for part in gen_batches(X.shape[0], rows))


def _mean_observed(cells: np.ndarray) -> np.ndarray:
    """Means of rows over what is not NaN; NaN where all is."""
    observed = ~np.isnan(cells)
    with np.errstate(invalid="ignore"):
        return np.where(observed, cells, 0).sum(1) / observed.sum(1)

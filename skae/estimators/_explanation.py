"""Why a row scores as it does: the share of every feature in its error."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_scalar
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted


class ExplainsRows:
    """Errors by feature of a detector that knows those of every cell."""

    estimator_: Any

    def _validated(self, X: Any, *, reset: bool) -> Any:
        """X as an array or CSR matrix."""
        raise NotImplementedError

    def _cells_by(self, model: Any, X: Any) -> np.ndarray:
        """Errors of shape (n, d), whose mean over the observed ones, not NaN, is the row's."""
        raise NotImplementedError

    def _reconstructions_by(self, model: Any, X: Any) -> np.ndarray:
        """What the model makes of validated rows, of shape (n, d)."""
        raise NotImplementedError

    def feature_scores(self, X):
        """What every feature adds to the error of a row: high for what is out of place.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_features)
            They add up to the row's error, ``-score_samples(X)``. A missing value adds 0; a row
            without any value is NaN.
        """
        check_is_fitted(self)
        return self._shares_of_error(self._validated(X, reset=False))

    def _shares_of_error(self, X: Any) -> np.ndarray:
        cells = self._cells_by(self.estimator_, X)
        observed = ~np.isnan(cells)
        with np.errstate(invalid="ignore"):  # 0 / 0 for a row without any value
            return np.where(observed, cells, 0) / observed.sum(1, keepdims=True)

    def explain(self, X, n_features=None):
        """Why rows score as they do, feature by feature, the largest error first.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows to explain, such as ``X[detector.predict(X) == -1]``.

        n_features : int, default=None
            How many features to show of each row; None shows all.

        Returns
        -------
        why : DataFrame
            A line for every row and feature, rows in the order of X: `row`, the position in X, or
            its label in the index of a DataFrame; `feature`, its name; `value` and
            `reconstruction`; `score`, what it adds to the row's error, as in `feature_scores`; and
            `share`, that over the sum of the row's (absolute) scores, 0 where all are 0. Missing
            values are left out.
        """
        import pandas as pd

        check_is_fitted(self)
        labels = X.index if isinstance(X, pd.DataFrame) else None
        X = self._validated(X, reset=False)
        if n_features is not None:
            check_scalar(n_features, "n_features", Integral, min_val=1)
        value = X.toarray() if hasattr(X, "toarray") else X
        score, X_hat = self._shares_of_error(X), self._reconstructions_by(self.estimator_, X)
        ranked = np.where(np.isnan(value), -np.inf, score)  # what is missing comes last
        top = np.argsort(-ranked, axis=1, kind="stable")[:, :n_features]
        share = _shares(score)
        labels = np.arange(len(top)) if labels is None else labels
        columns = {"value": value, "reconstruction": X_hat, "score": score, "share": share}
        names = _check_feature_names_in(self)
        why = pd.DataFrame(
            {"row": labels.repeat(top.shape[1])}
            | {"feature": names[top].ravel()}
            | {name: np.take_along_axis(cells, top, 1).ravel() for name, cells in columns.items()}
        )
        return why[why["value"].notna()].reset_index(drop=True)


def _shares(score: np.ndarray) -> np.ndarray:
    """Of each row's sum of absolute scores; infinite ones share it where there are any."""
    infinite = np.isinf(score)
    size = np.where(infinite.any(1, keepdims=True), infinite * np.sign(score), score)
    total = np.nansum(np.abs(size), axis=1, keepdims=True)
    return np.divide(size, total, out=np.zeros_like(score), where=total > 0)

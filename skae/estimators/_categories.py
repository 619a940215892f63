"""Categories in a code: clusters, or the classes in y where some rows have a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils._array_api import _convert_to_numpy, get_namespace
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from skae.estimators._input import Data
from skae.estimators._outputs import read_labels


def _is_to_have_clusters(self) -> bool:
    return _has_categories(self, self.n_clusters)


def _has_clusters(self) -> bool:
    """Once fitted, it is what was fitted that has categories, whatever is set since."""
    holder = getattr(self, "objective_", self)
    return _has_categories(self, getattr(holder, "n_clusters", None))


def _has_categories(estimator: Any, n_clusters: Any) -> bool:
    if n_clusters is None:
        raise AttributeError(
            f"This {type(estimator).__name__} has no categories to predict. Set n_clusters, to a "
            "number or to 'classes', and fit again."
        )
    return True


def class_indices(estimator: Any, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The classes, and for every row the place of its own among them, -1 without a label."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None: n_clusters='classes' has a category for each class. Pass y, or a number as "
            "n_clusters."
        )
    xp, is_array_api = get_namespace(y)
    y = _convert_to_numpy(y, xp) if is_array_api else y
    labels, known = read_labels(estimator, y, estimator.unlabeled)
    check_consistent_length(X, known)
    if labels.ndim > 1:
        raise ValueError(
            f"y has {labels.shape[1]} columns, but n_clusters='classes' needs one label a row."
        )
    classes, of_labelled = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y has only one class, {classes.tolist()[0]!r}: there is nothing to tell it from. "
            "Give rows of at least two classes, or n_clusters=None."
        )
    index = np.full(len(known), -1)
    index[known] = of_labelled
    return classes, index


class HasCategories:
    """A fitted autoencoder whose last columns of the code are probabilities of categories."""

    n_clusters: Any
    cluster_weights: Sequence[float] | None
    classes_: np.ndarray
    labels_: np.ndarray
    objective_: Any
    fit: Callable
    _read: Callable
    _by_chunks: Callable
    _encode: Callable
    _n_features_out: int

    @property
    def _n_categories(self) -> int:
        """Number of categories; 0 without, and before the classes are known."""
        if self.n_clusters == "classes":
            return len(getattr(self, "classes_", ()))
        return int(self.n_clusters or 0)

    def _cluster_weights(self) -> tuple[float, ...] | None:
        """How often each category comes, adding up to 1."""
        if self.cluster_weights is None:
            return None
        c = self._n_categories
        try:
            weights = np.asarray(self.cluster_weights, dtype=np.float64)
        except (TypeError, ValueError):
            weights = np.empty(0)
        if weights.shape != (c,) or not (weights > 0).all() or not np.isfinite(weights).all():
            raise ValueError(
                f"cluster_weights must be {c} positive numbers, one for each category that there "
                f"is (n_clusters={self.n_clusters!r}), got {self.cluster_weights!r}."
            )
        return tuple((weights / weights.sum()).tolist())

    @available_if(_has_clusters)
    def predict_proba(self, X):
        """Give the probability of every category: the last columns of the code.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        p : ndarray of shape (n_samples, n_clusters)
            Rows add up to 1; classes in the order of `classes_`.
        """
        data = self._read(X, "predict_proba")
        return data.give_back(self._probabilities(data))

    @available_if(_has_clusters)
    def predict(self, X):
        """Find the most probable category: a cluster, or a class with ``n_clusters="classes"``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Numbers of clusters from 0, or classes; of X's kind of array, save for classes that
            are no whole numbers.
        """
        data = self._read(X, "predict")
        index = self._probabilities(data).argmax(-1)
        if not hasattr(self, "classes_"):
            return data.as_given(index)
        labels = self.classes_[index.cpu().numpy()]
        if labels.dtype.kind not in "biu":
            return labels
        return data.as_given(torch.from_numpy(labels.astype(labels.dtype.newbyteorder("="))))

    def _probabilities(self, data: Data) -> Tensor:
        codes = self._by_chunks(data, self._encode, self._n_features_out)
        return codes[:, -self.objective_.n_clusters :]

    @available_if(_is_to_have_clusters)
    def fit_predict(self, X, y=None, sample_weight=None):
        """Fit to X and return `labels_`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.

        y : array-like of shape (n_samples,), default=None
            Labels, for ``n_clusters="classes"``.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Numbers of clusters from 0, or classes.
        """
        return self.fit(X, y, sample_weight=sample_weight).labels_

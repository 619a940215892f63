"""Networks that classify, and networks that give numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from skae.estimators._estimator import estimator
from skae.estimators._outputs import (
    Outputs,
    class_outputs,
    number_outputs,
    read_labels,
    read_numbers,
)
from skae.estimators._predictor import NetworkPredictor


def _has_probabilities(self) -> bool:
    """Whether the outputs are logits, as far as is known: margins have no probability."""
    outputs = getattr(self, "_outputs", None)
    return outputs is None or outputs.loss.link != "margin"


@estimator
class NetworkClassifier(ClassifierMixin, NetworkPredictor):
    """A network that classifies.

    Parameters
    ----------
    class_weight : dict or "balanced", default=None
        Weights of the classes, as everywhere in scikit-learn; they multiply `sample_weight`, and
        play no part in pretraining.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; under multilabel the numbers of the columns.
    """

    class_weight: Any = None

    _parameter_constraints = {
        **NetworkPredictor._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def _read_labels(self, y: Any, unlabeled: Any = None) -> tuple[np.ndarray, np.ndarray]:
        return read_labels(self, y, unlabeled)

    def _outputs_for(self, y: np.ndarray) -> Outputs:
        return class_outputs(y)

    def _strata(self, y: np.ndarray, outputs: Any) -> Tensor | None:
        return None if outputs.is_multilabel else torch.from_numpy(outputs.codes(y))

    def _row_weight(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return weight
        of_class = compute_sample_weight(self.class_weight, y)
        return of_class if weight is None else of_class * np.asarray(weight)

    @property
    def classes_(self) -> np.ndarray:
        """The labels, in order; under multilabel the numbers of the columns."""
        if not hasattr(self, "_outputs"):
            raise AttributeError("classes_ is known after fit.")
        return self._outputs.classes

    def decision_function(self, X):
        """Give the outputs before any probability: logits or margins.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes one column, positive for the second.
        """
        raw = self._raw(X)
        return self._outputs.decision(raw)

    def predict(self, X):
        """Predict the most probable class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels; 0 and 1 under multilabel.
        """
        raw = self._raw(X)
        return self._outputs.predictions(raw)

    @available_if(_has_probabilities)
    def predict_proba(self, X):
        """Predict the probability of every class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Rows add up to 1, but under multilabel, where every class is on its own.
        """
        raw = self._raw(X)
        return self._outputs.probabilities(raw)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X):
        """Predict logarithms of probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            Natural logarithms.
        """
        return np.log(self.predict_proba(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@estimator
class NetworkRegressor(RegressorMixin, NetworkPredictor):
    """A network that gives numbers.

    Parameters
    ----------
    """

    def _read_labels(self, y: Any, unlabeled: Any = None) -> tuple[np.ndarray, np.ndarray]:
        return read_numbers(self, y, unlabeled)

    def _outputs_for(self, y: np.ndarray) -> Outputs:
        return number_outputs(y)

    def predict(self, X):
        """Predict numbers.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            As y was in `fit`.
        """
        raw = self._raw(X)
        return self._outputs.predictions(raw)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

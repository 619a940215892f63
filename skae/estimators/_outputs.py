"""What a network's outputs stand for: y as targets for training, and outputs as predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_y

from skae.label_losses import LABEL_LOSSES
from skae.losses import Loss, SquaredError


@dataclass(frozen=True, eq=False)
class ClassOutputs:
    """Outputs that decide between classes.

    `link` names the loss: "softmax" and "logistic" have probabilities, margins have none. Two
    classes have one output. Several classes under anything but "softmax" are decided one against
    the rest; under multilabel every output is a decision of its own.
    """

    classes: np.ndarray
    link: str
    is_multilabel: bool = False

    @property
    def loss(self) -> Loss:
        """What the outputs are held to."""
        return LABEL_LOSSES[self.link]

    @property
    def width(self) -> int:
        """Number of outputs."""
        return 1 if len(self.classes) == 2 and not self.is_multilabel else len(self.classes)

    def codes(self, y: Any) -> np.ndarray:
        """The place of every label among the classes."""
        return np.searchsorted(self.classes, y)

    def targets(self, y: Any) -> np.ndarray:
        """What the outputs should be for these labels, of shape (n, width)."""
        if self.is_multilabel:
            on = np.asarray(y, dtype=np.float64)
        elif self.width == 1:
            on = (y == self.classes[1]).astype(np.float64)[:, None]
        else:
            on = np.eye(self.width)[self.codes(y)]
        return 2 * on - 1 if self.loss.link == "margin" else on

    def decision(self, raw: np.ndarray) -> np.ndarray:
        """Outputs as scikit-learn's `decision_function` gives them."""
        return raw[:, 0] if self.width == 1 and not self.is_multilabel else raw

    def predictions(self, raw: np.ndarray) -> np.ndarray:
        """Labels, or a 0/1 column for each under multilabel."""
        if self.is_multilabel:
            return (raw > 0).astype(int)
        if self.width == 1:
            return self.classes[(raw[:, 0] > 0).astype(int)]
        return self.classes[raw.argmax(axis=1)]

    def probabilities(self, raw: np.ndarray) -> np.ndarray:
        """Of shape (n, n_classes); under multilabel every column on its own."""
        if self.link == "softmax":
            return softmax(raw, axis=1)
        p = expit(raw)
        if self.is_multilabel:
            return p
        if self.width == 1:
            return np.column_stack([1 - p[:, 0], p[:, 0]])
        total = p.sum(axis=1, keepdims=True)
        return np.divide(p, total, out=np.full_like(p, 1 / self.width), where=total > 0)


def class_outputs(y: np.ndarray) -> ClassOutputs:
    """The outputs for labels y: a softmax, or logistic units for two classes and multilabel."""
    if type_of_target(y) == "multilabel-indicator":
        return ClassOutputs(np.arange(y.shape[1]), "logistic", is_multilabel=True)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ValueError(
            f"y has only one class, {classes.tolist()[0]!r}: there is nothing to tell it from. "
            "Give rows of at least two classes."
        )
    return ClassOutputs(classes, "logistic" if len(classes) == 2 else "softmax")


@dataclass(frozen=True)
class NumberOutputs:
    """Outputs that are numbers: one, or several."""

    width: int
    is_flat: bool  # y has one axis

    @property
    def loss(self) -> Loss:
        """What the outputs are held to: the mean square over outputs."""
        return SquaredError()

    def targets(self, y: np.ndarray) -> np.ndarray:
        """y of shape (n, width)."""
        return y.reshape(len(y), self.width)

    def predictions(self, raw: np.ndarray) -> np.ndarray:
        """Outputs in y's shape."""
        return raw[:, 0] if self.is_flat else raw


def number_outputs(y: np.ndarray) -> NumberOutputs:
    """The outputs for numbers y of shape (n,) or (n, width)."""
    return NumberOutputs(1 if y.ndim == 1 else y.shape[1], y.ndim == 1)


Outputs = ClassOutputs | NumberOutputs


def read_labels(estimator: Any, y: Any, unlabeled: Any) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the rows that have one, validated, and which rows these are."""
    _require(estimator, y)
    y = np.asarray(y) if not hasattr(y, "toarray") else y.toarray()
    if (y.ndim == 2 and y.shape[1] == 1) or y.ndim != 2:
        y = column_or_1d(y, warn=True)
    known = _known(y, unlabeled)
    labels = _of_one_kind(y[known])
    check_classification_targets(labels)
    kind = type_of_target(labels)
    if kind == "multiclass-multioutput":
        raise ValueError(
            f"y of shape {labels.shape} is {kind}: give one label a row, or columns of 0 and 1 for "
            "several labels a row; for several outputs of more classes, use MultiOutputClassifier."
        )
    return labels, known


def read_numbers(estimator: Any, y: Any, unlabeled: Any) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows that have one, validated, and which rows these are."""
    _require(estimator, y)
    y = np.asarray(y)
    if y.dtype.kind in "US":
        raise ValueError(f"y must be numbers, got {y.dtype.type.__name__}: {y.flat[0]!r}.")
    known = _known(y, unlabeled)
    return _check_y(y[known], multi_output=True, y_numeric=True, estimator=estimator), known


def _require(estimator: Any, y: Any) -> None:
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None."
        )


def _known(y: np.ndarray, unlabeled: Any) -> np.ndarray:
    """Which rows are labelled."""
    if unlabeled is None:
        return np.ones(len(y), dtype=bool)
    from pandas import isna  # a third of a second, for those who ask alone

    marked: Any
    if isna(unlabeled):
        marked = isna(y)
    elif y.dtype.kind != "O" and isinstance(unlabeled, str) != (y.dtype.kind in "US"):
        raise ValueError(
            f"unlabeled={unlabeled!r} cannot occur in y, which holds {y.dtype}. Give a mark of "
            "that kind, or None."
        )
    else:
        marked = y == unlabeled
    known: Any = ~np.asarray(marked, dtype=bool).reshape(len(y), -1).any(axis=1)
    if not known.any():
        raise ValueError(f"Every row of y is unlabeled={unlabeled!r}: there is nothing to learn.")
    return known


def _of_one_kind(labels: np.ndarray) -> np.ndarray:
    """Labels that stood beside a mark of another kind, in the dtype that they have in common."""
    if labels.dtype != object:
        return labels
    if len({isinstance(label, str) for label in labels.flat}) > 1:
        raise ValueError(
            "y has strings and other labels side by side. Make them all strings, or all numbers."
        )
    return np.array(labels.tolist())

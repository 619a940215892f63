"""Callbacks that follow a value from epoch to epoch."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import sklearn

from skae._warnings import warn_caller

# Constraints of the parameters that they share.
WATCHED = {
    "monitor": [str, callable],
    "X": "no_validation",
    "y": "no_validation",
    "greater_is_better": ["boolean", None],
}


@dataclass
class Watch:
    """The values of one fit, and the best of them."""

    epochs: int = 0
    values: list[float] = field(default_factory=list)
    best: float = math.inf  # lower is better in here
    best_epoch: int | None = None
    waited: int = 0
    stopped_epoch: int | None = None

    def take(self, epoch: int, value: float, sign: float, tol: float = 0.0) -> bool:
        """Record an epoch; whether it is the best so far. NaN never is."""
        self.values.append(value)
        margin = tol * abs(self.best) if math.isfinite(self.best) else 0.0
        self.waited = 0 if sign * value < self.best - margin else self.waited + 1
        is_best = sign * value < self.best
        if is_best:
            self.best, self.best_epoch = sign * value, epoch
        return is_best


class WatchingCallback:
    """Follows a value from epoch to epoch, for every estimator that is fitted on its own."""

    def __init__(self, monitor: Any, X: Any, y: Any, greater_is_better: bool | None):
        name = type(self).__name__
        if importlib.util.find_spec("sklearn.callback") is None:
            raise ImportError(
                f"{name} is a callback of scikit-learn >= 1.9, but this is scikit-learn "
                f"{sklearn.__version__}, which has none. Install a newer one, or use the "
                "estimator's early_stopping=True."
            )
        if X is None and y is not None:
            raise ValueError("y belongs to X, which is None. Give both, or neither for fit's own.")
        self.monitor, self.X, self.y = monitor, X, y
        self.greater_is_better = greater_is_better
        self._watches: dict[Any, Watch] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin a fit; scikit-learn calls it.

        Parameters
        ----------
        estimator : object
            What is fitted.

        context : CallbackContext
            The task that the fit is.
        """
        self._watches[estimator] = Watch()
        self._begin()

    def teardown(self, estimator: Any, context: Any) -> None:
        """End a fit, whether or not it succeeded; scikit-learn calls it.

        Parameters
        ----------
        estimator : object
            What was fitted.

        context : CallbackContext
            The task that the fit was.
        """
        self._finish(self._watches.pop(estimator))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing: epochs count when they end.

        Parameters
        ----------
        estimator : object
            What is fitted.

        context : CallbackContext
            The task that begins.
        """

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, X: Any = None, y: Any = None,
        fitted_estimator: Any = None,
    ) -> bool:  # fmt: skip
        """Take in an epoch; scikit-learn calls it.

        Parameters
        ----------
        estimator : object
            What is fitted.

        context : CallbackContext
            The task that has ended.

        X : array-like, default=None
            Training data.

        y : array-like, default=None
            Its labels; of an autoencoder, X again.

        fitted_estimator : object, default=None
            The estimator as fitted so far.

        Returns
        -------
        stop : bool
            Whether training is to stop.
        """
        watch = self._watches[estimator]
        if context.max_subtasks == 0 and context.parent is not None:  # a step of a fit
            if fitted_estimator is None:
                return False
            watch.epochs += 1
            epoch = getattr(fitted_estimator, "n_iter_", None)  # goes on under warm_start
            epoch = int(epoch) if isinstance(epoch, Integral) else watch.epochs
            return self._epoch(watch, epoch, fitted_estimator, X, y)
        if context.parent is None and not watch.epochs:
            name = type(self).__name__
            warn_caller(
                f"{name} was told of no epochs while {type(estimator).__name__} was fitted, which "
                "does not report any. Set it on the estimator that trains, such as the last step "
                "of a pipeline, if there is one."
            )
        return False

    def _begin(self) -> None:
        """Get ready for a fit."""

    def _epoch(self, watch: Watch, epoch: int, fitted: Any, X: Any, y: Any) -> bool:
        raise NotImplementedError

    def _finish(self, watch: Watch) -> None:
        """Report on a fit in the callback's attributes."""
        self.values_, self.best_epoch_ = watch.values, watch.best_epoch

    @property
    def _of_attribute(self) -> bool:
        return isinstance(self.monitor, str) and self.monitor.endswith("_")

    @property
    def _sign(self) -> float:
        """What makes lower better."""
        given = self.greater_is_better
        greater = not self._of_attribute if given is None else given
        return -1.0 if greater else 1.0

    def _value(self, fitted: Any, X: Any, y: Any) -> float:
        """The monitored value of an estimator fitted so far."""
        if self._of_attribute:
            return _latest(fitted, self.monitor)
        if self.X is not None:
            X, y = self.X, self.y
        return float(_scorer(self.monitor)(fitted, X, y))


def _latest(fitted: Any, name: str) -> float:
    """A fitted attribute's value, or its last where it is the list of all epochs."""
    value: Any = getattr(fitted, name, None)
    if isinstance(value, list) and value:
        value = value[-1]
    if not isinstance(value, Real):
        raise ValueError(
            f"monitor={name!r} must be a number, or a list of one for every epoch, as loss_ and "
            f"validation_loss_curve_ (under early_stopping=True) are. {type(fitted).__name__} has "
            f"{'no such attribute' if value is None else type(value).__name__}. For anything else "
            "pass a function of (estimator, X, y)."
        )
    return float(value)


def _scorer(monitor: str | Callable) -> Callable:
    if callable(monitor):
        return monitor
    if monitor == "score":
        return lambda fitted, X, y: fitted.score(X, y)
    from sklearn.metrics import get_scorer

    return get_scorer(monitor)

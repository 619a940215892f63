"""Callbacks for scikit-learn >= 1.9: early stopping on any metric, and snapshots to go on from.

They are set on an estimator by ``set_callbacks`` and follow scikit-learn's protocol, so that any
estimator that tells of its epochs or iterations takes them. Older versions of scikit-learn have no
callbacks: there the module can be imported, but making one raises ImportError.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import joblib
import sklearn
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skae._warnings import warn_caller

__all__ = ["EarlyStopping", "Snapshot"]

_WATCHED = {
    "monitor": [str, callable],
    "X": "no_validation",
    "y": "no_validation",
    "greater_is_better": ["boolean", None],
}
# What a fit leaves on the copies of its estimator that hooks get.
_OF_THE_FIT = (
    "_skl_callbacks", "_skl_callbacks_to_teardown", "_callback_fit_ctx", "_parent_callback_ctx",
)  # fmt: skip


@dataclass
class _Watch:
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


class _WatchingCallback:
    """Follows a value from epoch to epoch, for every estimator that is fitted on its own."""

    def __init__(self, monitor: Any, X: Any, y: Any, greater_is_better: bool | None):
        name = type(self).__name__
        if importlib.util.find_spec("sklearn.callback") is None:
            raise ImportError(
                f"{name} is a callback of scikit-learn >= 1.9, but this is scikit-learn "
                f"{sklearn.__version__}, which has none. Install a newer one, or use the "
                "estimator's early_stopping=True."
            )
        self.monitor, self.X, self.y = monitor, X, y
        self.greater_is_better = greater_is_better
        self._watches: dict[Any, _Watch] = {}

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin a fit; scikit-learn calls it.

        Parameters
        ----------
        estimator : object
            What is fitted.

        context : CallbackContext
            The task that the fit is.
        """
        self._watches[estimator] = _Watch()
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
                f"{name} was told of no epochs while {type(estimator).__name__} was fitted. Set it "
                "on the estimator that trains, such as the last step of a pipeline."
            )
        return False

    def _begin(self) -> None:
        """Get ready for a fit."""

    def _epoch(self, watch: _Watch, epoch: int, fitted: Any, X: Any, y: Any) -> bool:
        raise NotImplementedError

    def _finish(self, watch: _Watch) -> None:
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


class EarlyStopping(_WatchingCallback):
    """Stop training when a value has not become better for some epochs in a row.

    The estimator ends with the weights of its last epoch and ``stop_reason_ == "callback"``;
    `Snapshot` keeps those of the best. Its own ``early_stopping=True`` watches the loss of rows
    that it holds out itself, and is quicker. scikit-learn >= 1.9 only.

    Parameters
    ----------
    monitor : str or callable
        What to watch after every epoch. A name that ends in an underscore is a fitted attribute:
        ``"loss_"``, ``"validation_loss_curve_"``. A function or scorer is called as
        ``monitor(estimator, X, y)`` with the estimator as fitted so far. ``"score"`` is its own
        `score`, any other name one of scikit-learn's scorers, as ``"accuracy"``.

    X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
        Validation data for scores, as the estimator itself sees them: within a pipeline behind the
        steps in front of it. None is the training data.

    y : array-like of shape (n_samples,), default=None
        Labels that belong to X, if scores need them.

    greater_is_better : bool, default=None
        None means yes for scores and no for attributes, which are losses as a rule.

    tol : float, default=1e-4
        The value counts as better when it is so by this fraction of the best one.

    n_iter_no_change : int, default=10
        Epochs in a row without a better value after which training stops.

    Attributes
    ----------
    values_ : list of float
        The value after every epoch of the last fit that has ended.

    best_epoch_ : int or None
        The epoch of its best value, counted as `n_iter_` is.

    stopped_epoch_ : int or None
        The epoch after which training was stopped; None where it ended by itself.

    See Also
    --------
    Snapshot : Keeps the model of the best epoch.

    Notes
    -----
    Set on an autoencoder, it follows that into pipelines, searches and stacks, whose clones share
    it and are watched each on its own; in other processes the attributes stay there.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae.callbacks import EarlyStopping
    >>> X, _ = load_digits(return_X_y=True)
    >>> stopping = EarlyStopping("score", X=X[1500:], n_iter_no_change=2, tol=0.05)
    >>> ae = Autoencoder(n_components=4, random_state=0).set_callbacks(stopping).fit(X[:1500])
    >>> ae.stop_reason_
    'callback'
    >>> ae.n_iter_ == stopping.stopped_epoch_ < 200
    True
    """

    @validate_params(
        {
            **_WATCHED,
            "tol": [Interval(Real, 0, None, closed="left")],
            "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self, monitor, *, X=None, y=None, greater_is_better=None, tol=1e-4, n_iter_no_change=10
    ):
        super().__init__(monitor, X, y, greater_is_better)
        self.tol, self.n_iter_no_change = tol, n_iter_no_change

    def _epoch(self, watch, epoch, fitted, X, y):
        watch.take(epoch, self._value(fitted, X, y), self._sign, self.tol)
        if watch.waited < self.n_iter_no_change:
            return False
        watch.stopped_epoch = epoch
        return True

    def _finish(self, watch):
        super()._finish(watch)
        self.stopped_epoch_ = watch.stopped_epoch


class Snapshot(_WatchingCallback):
    """Keep the estimator as it is after the best epoch, or after every n epochs.

    A snapshot is an estimator fitted up to its epoch. One of an estimator with ``warm_start=True``
    holds the state of its training too: `fit` on the same data then goes on as if it had never
    ended, bit for bit under "adam" and "sgd". scikit-learn >= 1.9 only.

    Parameters
    ----------
    path : str or path-like, default=None
        The file to write, by `joblib.dump`; its folder has to exist. With ``{epoch}`` in it every
        snapshot has a file of its own, otherwise the last takes the place of the one before. None
        keeps snapshots in memory. Load only files that you trust.

    when : "best" or int, default="best"
        "best" keeps the epoch with the best value of `monitor` so far; an integer n every n-th
        epoch.

    monitor : str or callable, default="loss_"
        What "best" is measured by, as in `EarlyStopping`.

    X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
        Validation data for scores, as the estimator itself sees them: within a pipeline behind the
        steps in front of it. None is the training data.

    y : array-like of shape (n_samples,), default=None
        Labels that belong to X, if scores need them.

    greater_is_better : bool, default=None
        None means yes for scores and no for attributes, which are losses as a rule.

    Attributes
    ----------
    values_ : list of float
        The value after every epoch of the last fit that has ended; empty unless ``when="best"``.

    best_epoch_ : int or None
        The epoch of its best value, counted as `n_iter_` is; None unless ``when="best"``.

    epochs_ : list of int
        The epochs of which there is a snapshot, of the fit that has begun last.

    See Also
    --------
    EarlyStopping : Ends the training.

    Notes
    -----
    It keeps the snapshots of one fit. Clones, as searches and stacks make them, share the callback
    and its path: set it on the estimator that you fit.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae.callbacks import Snapshot
    >>> X, _ = load_digits(return_X_y=True)
    >>> snapshot = Snapshot(when=2)
    >>> ae = Autoencoder(n_components=4, warm_start=True, max_iter=5, tol=None, random_state=0)
    >>> ae = ae.set_callbacks(snapshot).fit(X)
    >>> snapshot.epochs_
    [2, 4]
    >>> continued = snapshot.load(2).set_params(max_iter=3).fit(X)
    >>> bool((continued.transform(X) == ae.transform(X)).all())
    True
    """

    @validate_params(
        {
            "path": [str, os.PathLike, None],
            "when": [StrOptions({"best"}), Interval(Integral, 1, None, closed="left")],
            **_WATCHED,
        },
        prefer_skip_nested_validation=True,
    )
    def __init__(
        self, path=None, *, when="best", monitor="loss_", X=None, y=None, greater_is_better=None
    ):
        super().__init__(monitor, X, y, greater_is_better)
        self.path, self.when = path, when
        self._kept: dict[int, Any] = {}

    @property
    def epochs_(self):
        """The epochs of which there is a snapshot."""
        return list(self._kept)

    def load(self, epoch=None):
        """Return a snapshot of the last fit.

        Parameters
        ----------
        epoch : int, default=None
            Its epoch; None is the last one taken, which is the best one under ``when="best"``.

        Returns
        -------
        estimator : object
            The fitted estimator, without callbacks; a copy of what is kept.
        """
        if not self._kept:
            raise ValueError("There is no snapshot yet: fit the estimator with this callback set.")
        epoch = next(reversed(self._kept)) if epoch is None else epoch
        if epoch not in self._kept:
            raise ValueError(f"There is no snapshot of epoch {epoch}, only of {self.epochs_}.")
        kept = self._kept[epoch]
        return joblib.load(kept) if isinstance(kept, Path) else copy.deepcopy(kept)

    def _begin(self):
        if self.path is not None and not Path(self.path).parent.is_dir():
            raise FileNotFoundError(
                f"path={str(self.path)!r} is in a folder that does not exist. Make the folder, or "
                "leave path=None to keep snapshots in memory."
            )
        self._kept = {}

    def _epoch(self, watch, epoch, fitted, X, y):
        if self.when == "best":
            is_due = watch.take(epoch, self._value(fitted, X, y), self._sign)
        else:
            is_due = epoch % self.when == 0
        if is_due:
            self._keep(epoch, _without_callbacks(fitted))
        return False

    def _keep(self, epoch: int, fitted: Any) -> None:
        if self.path is None:
            if self.when == "best":
                self._kept.clear()
            self._kept[epoch] = fitted
            return
        path = Path(str(self.path).replace("{epoch}", str(epoch)))
        # Written beside it first: whatever interrupts the writing leaves the last one whole.
        unfinished = path.with_name(path.name + ".unfinished")
        joblib.dump(fitted, unfinished)
        unfinished.replace(path)
        self._kept = {e: p for e, p in self._kept.items() if p != path}
        self._kept[epoch] = path


def _without_callbacks(fitted: Any) -> Any:
    """A copy of a fitted estimator that knows nothing of the fit that it is of."""
    copied = copy.copy(fitted)
    for name in _OF_THE_FIT:
        copied.__dict__.pop(name, None)
    return copied

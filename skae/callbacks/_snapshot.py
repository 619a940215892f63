"""Snapshot."""

from __future__ import annotations

import copy
import os
from numbers import Integral
from pathlib import Path
from typing import Any

import joblib
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skae.callbacks._watching import WATCHED, WatchingCallback

# What a fit leaves on the copies of its estimator that hooks get.
_OF_THE_FIT = (
    "_skl_callbacks", "_skl_callbacks_to_teardown", "_callback_fit_ctx", "_parent_callback_ctx",
)  # fmt: skip


class Snapshot(WatchingCallback):
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
    It keeps the snapshots of one fit: one that goes on, under ``warm_start=True``, has a best epoch
    of its own, whose snapshot takes the place of the last fit's. Clones, as searches and stacks
    make them, share the callback and its path: set it on the estimator that you fit.

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
            **WATCHED,
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

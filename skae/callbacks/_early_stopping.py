"""EarlyStopping."""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.utils._param_validation import Interval, validate_params

from skae.callbacks._watching import WATCHED, WatchingCallback


class EarlyStopping(WatchingCallback):
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
            **WATCHED,
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

"""BaseAutoencoder: the scikit-learn shell of every variant."""

from __future__ import annotations

import dataclasses
import functools
import math
import secrets
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.base import BaseEstimator, _clone_parametrized, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from skae._engine.batches import Source
from skae._engine.monitor import Monitor
from skae._engine.rng import Streams
from skae._engine.start import Moments, moments, starting_values
from skae._engine.train import FULL_BATCH, SCHEDULES, Result, Training, train
from skae._warnings import warn_caller
from skae.activations import ACTIVATIONS
from skae.estimators._build import (
    SETTINGS,
    Start,
    build_network,
    check_range,
    copied_weights,
    fitted_attributes,
)
from skae.estimators._compat import CallbackSupportMixin, with_callbacks
from skae.estimators._estimator import estimator
from skae.estimators._fitted import FittedAutoencoder
from skae.estimators._input import (
    Data,
    known_features,
    namespace_name,
    read_data,
    read_weight,
    without_missing,
)
from skae.estimators._progress import Progress
from skae.losses import INVERSE_LINKS, LOSSES, Loss, Poisson, resolve_loss
from skae.networks import Network
from skae.objective import NO_ROWS, Features, Objective, Rows, overrides


def all_or_nothing(method):
    """Leave the estimator as it was when `method` raises."""

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        before = self.__dict__.copy()
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return wrapped


def _steps_by_batch(self) -> bool:
    return self.solver not in FULL_BATCH


@estimator
class BaseAutoencoder(
    FittedAutoencoder,
    CallbackSupportMixin,
    BaseEstimator,
):
    """Shared parameters and fitting of all autoencoders.

    Parameters
    ----------
    n_components : int, default=None
        Number of code units. None takes the square root of the number of features, rounded up.

    hidden_layer_sizes : tuple of int, default=(100,)
        Widths of the encoder's hidden layers; the decoder mirrors them. ``()`` is the
        single-layer autoencoder ``x^ = W2 f(W1 x + b1) + b2``.

    activation : {"identity", "logistic", "tanh", "relu", "softplus", "elu", "silu", "gelu"}, \
default="relu"
        Activation of the hidden layers.

    code_activation : str, default="auto"
        Activation of the code, any of the above. "auto" takes `activation` when there is no
        hidden layer and "identity" otherwise.

    output_activation : {"auto", "identity", "logistic", "tanh", "relu", "softplus"}, \
default="auto"
        Activation of the output. "auto" is the loss's own: identity, logistic for
        "binary_cross_entropy", the exponential for "poisson". `fit` refuses X outside its range.

    loss : {"squared_error", "binary_cross_entropy", "absolute_error", "huber", "poisson"} \
or Loss, default="squared_error"
        Reconstruction loss, the mean over features. A `Loss` instance carries its own numbers,
        as ``skae.losses.Huber(delta=2.0)``.

    tied_weights : bool, default=False
        Use the encoder's weights, transposed, in the decoder.

    alpha : float, default=0.0
        Weight decay: ``alpha / 2 |W|^2`` is added to the mean loss per sample, biases excluded.
        The lecture's lambda is ``n d alpha / 2`` beside a loss summed over n rows and d features,
        as in ``lambda (|W1|^2 + |W2|^2)``. scikit-learn's MLP, whose gradient sums over outputs,
        has the same minimum at its ``alpha = batch_size d alpha / 2``.

    dropout : float, default=0.0
        Probability in [0, 1) of dropping a hidden or code unit in training, for every row on its
        own; kept units count 1 / (1 - dropout). (The lecture's p is the probability of keeping.)
        With an encoder or decoder of one's own it covers what is built in, and the code.

    input_dropout : float, default=0.0
        The same for the inputs. A dropped input counts as its feature's training mean (as 0
        under sgd or with an encoder of one's own), and kept ones are scaled about it.

    encoder : torch.nn.Module, default=None
        An encoder of one's own, from (n, n_features) to (n, width of the code). It is copied,
        and trained in the dtype of X. `hidden_layer_sizes` and the activations then shape only
        the decoder.

    decoder : torch.nn.Module, default=None
        A decoder of one's own, from the code to (n, n_features), before `output_activation`.

    initialize_from : fitted autoencoder, default=None
        Start from the weights of an estimator of the same shape. `clone` keeps it fitted.

    solver : {"adam", "sgd", "lbfgs", "cg"}, default="adam"
        "adam" and "sgd" (with momentum) step once a batch. "lbfgs" and "cg" use all rows at every
        step and need an objective without noise. Adam, lbfgs and cg work in the units of the
        data, so that X and c + s X train alike; sgd is the textbook's, on the raw weights.

    learning_rate : {"constant", "linear", "cosine"}, default="constant"
        Schedule of the step size; the last two fall to zero over `learning_rate_horizon`.

    learning_rate_init : float, default=0.001
        Step size of adam and sgd at the start.

    learning_rate_horizon : int, default=None
        Epochs, counted from the first, over which a schedule runs. None is `max_iter` of this
        call; give it to continue a schedule with `warm_start`. Calls of `partial_fit` are the
        epochs of one schedule, for which None is `max_iter` of them.

    momentum : float, default=0.9
        Momentum of sgd, in [0, 1).

    nesterovs_momentum : bool, default=True
        Whether sgd looks ahead.

    batch_size : int, default="auto"
        Rows per step; "auto" is ``min(200, n_samples)``. The last batch of an epoch may be
        shorter; no row is left out.

    shuffle : bool, default=True
        Whether every epoch takes the rows in a new order.

    max_iter : int, default=200
        Largest number of epochs, or of iterations for lbfgs and cg.

    tol : float, default=1e-4
        Training stops when the loss has not fallen by this fraction of the best one for
        `n_iter_no_change` epochs in a row. None trains for exactly `max_iter` epochs.

    n_iter_no_change : int, default=10
        See `tol`.

    early_stopping : bool, default=False
        Watch the loss of rows held out from training instead, and keep the best weights.

    validation_fraction : float, default=0.1
        Share of the rows held out when `early_stopping`.

    warm_start : bool, default=False
        Continue where the last `fit` ended, optimiser and generators included: two fits of k
        epochs are one fit of 2k, bit for bit.

    random_state : int, RandomState instance, default=None
        Seeds initial weights, shuffling, the held-out rows and all noise, in streams of their
        own. None takes fresh entropy; the global generators are never touched.

    device : str or torch.device, default=None
        Where to train; None is where X is.

    precision : {"float32", "float64", "bfloat16"}, default=None
        Arithmetic. None is X's dtype (small integers: float32). "bfloat16" multiplies matrices
        in bfloat16 during training and keeps everything in float32. Results have X's dtype.

    verbose : bool, default=False
        Print a line an epoch.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Module
        The trained network: an ordinary torch module each, in the units of X.

    coefs_, intercepts_ : list of ndarray
        Weights of shape (n_in, n_out) and biases of shape (n_out,) of all layers, encoder then
        decoder, as scikit-learn's MLP has them.

    n_components_ : int
        Number of code units.

    loss_curve_ : list of float
        Mean training loss of every epoch, penalties included.

    validation_loss_curve_ : list of float or None
        Loss of the held-out rows after every epoch, under `early_stopping`.

    loss_, best_loss_ : float
        The last training loss; the lowest of the curve that stopping watched.

    n_iter_ : int
        Number of epochs.

    stop_reason_ : str
        "converged", "max_iter", "callback", "interrupted", or "no_progress": lbfgs or cg found no
        further descent, as they do at the floating-point precision of the loss.

    engine_ : Plan
        Which path trained the network ("fused" or "autograd"), and why.

    objective_ : Objective
        What was optimised.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has them.
    """

    n_components: int | None = None
    hidden_layer_sizes: tuple[int, ...] = (100,)
    activation: str = "relu"
    code_activation: str = "auto"
    output_activation: str = "auto"
    loss: str | Loss = "squared_error"
    tied_weights: bool = False
    alpha: float = 0.0
    dropout: float = 0.0
    input_dropout: float = 0.0
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    initialize_from: Any = None
    solver: str = "adam"
    learning_rate: str = "constant"
    learning_rate_init: float = 1e-3
    learning_rate_horizon: int | None = None
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    batch_size: int | str = "auto"
    shuffle: bool = True
    max_iter: int = 200
    tol: float | None = 1e-4
    n_iter_no_change: int = 10
    early_stopping: bool = False
    validation_fraction: float = 0.1
    warm_start: bool = False
    random_state: Any = None
    device: Any = None
    precision: str | None = None
    verbose: bool = False

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS) - {"exp"})],
        "code_activation": [StrOptions((set(ACTIVATIONS) - {"exp"}) | {"auto"})],
        "output_activation": [StrOptions((set(INVERSE_LINKS) - {"exp"}) | {"auto"})],
        "loss": [StrOptions(set(LOSSES)), Loss],
        "tied_weights": ["boolean"],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "encoder": [nn.Module, None],
        "decoder": [nn.Module, None],
        "initialize_from": [HasMethods(["transform", "inverse_transform"]), None],
        "solver": [StrOptions({"adam", "sgd", "lbfgs", "cg"})],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "learning_rate_horizon": [Interval(Integral, 1, None, closed="left"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "shuffle": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "device": [str, torch.device, None],
        "precision": [StrOptions({"float32", "float64", "bfloat16"}), None],
        "verbose": ["verbose"],
    }

    def _shared_terms(self) -> dict[str, Any]:
        """The fields that every objective has."""
        return {
            "loss": resolve_loss(self.loss, self.output_activation),
            "alpha": float(self.alpha),
            "dropout": float(self.dropout),
            "input_dropout": float(self.input_dropout),
        }

    # ---- what a variant overrides

    def _objective(self) -> Objective:
        """What to optimise, from the parameters."""
        raise NotImplementedError

    def _objective_for(self, data: Data, weight: Tensor | None, kept: Start | None) -> Objective:
        """The same where the data have a say; `kept` is the fit that this one continues."""
        return self._objective()

    def _network(self, objective: Objective, source: Source, m: Moments) -> tuple[Network, int]:
        """The network, in the units of the data, and the number of code units."""
        return build_network(self, objective, source, m)

    def _settings(self) -> dict[str, Any]:
        """What has to stay as it is for a fit to continue the last one."""
        return {name: getattr(self, name) for name in SETTINGS}

    def _check_range(self, loss: Loss, m: Moments) -> None:
        """Raise when X leaves what can be represented."""
        check_range(self, loss, m)

    def _rows(self, data: Data, y: Any, weight: Tensor | None, **known: Any) -> Rows:
        """What training knows of the rows beside X; `known` is what the variant's `fit` adds."""
        return NO_ROWS if weight is None else Rows(weight=weight)

    def _task(self, rows: Rows) -> Any:
        """What a loss depends on beside the objective and X: it compares only where that agrees."""
        return ()

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        """How to optimise it."""
        return train(network, objective, source, rows=rows, **options)

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Fitted attributes of the variant's own, from the objective's state.

        Tensors become arrays of X's kind.
        """
        return {}

    # ---- the shell

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None):
        """Train the autoencoder.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data: an array, a DataFrame, a CSR matrix, a torch tensor, or a memory map,
            which is read a batch at a time.

        y : array-like of shape (n_samples,), default=None
            Labels, for estimators that use them; otherwise ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, scaled to mean 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X does not fit the parameters, or training diverges. The estimator is then as it
            was before the call.
        """
        return self._fit(X, y, sample_weight, self.max_iter, keep=self.warm_start)

    @available_if(_steps_by_batch)
    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one pass over X, continuing from what is fitted already.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The next rows of a stream. The first call's rows set the units of the data.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, scaled to mean 1.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        if self.early_stopping:
            raise ValueError("partial_fit takes one pass: it cannot use early_stopping=True.")
        return self._fit(X, y, sample_weight, 1, keep=True, partial=True)

    def _fit(self, X, y, sample_weight, epochs: int, keep: bool, partial: bool = False, **known):
        kept = getattr(self, "_training", None) if keep else None
        data = read_data(self, X, reset=not (partial and kept), **self._arithmetic())
        if kept is not None and not kept.continues(self._settings(), data.source):
            kept = None
        weight = read_weight(sample_weight, data)
        objective = self._objective_for(data, weight, kept)
        bounded = any(math.isfinite(bound) for bound in objective.loss.domain)
        bounds = bounded or overrides(objective, "informed")
        m = moments(data.source, weight, bounds, self._allows_nan)
        features = known_features(self, m) if kept is None else kept.features
        objective = objective.informed(features)
        m = m._replace(mean=m.mean.nan_to_num())
        self._check_range(objective.loss, m)
        observed = None
        if self._allows_nan:
            data, weight, observed = without_missing(data, weight, features.mean)
        start = kept or self._start(data, objective, m, features, keep)
        streams = Streams([start.seed], data.source.device)
        rows = self._rows(data, y, weight, **known)
        watched = self.validation_fraction if self.early_stopping else None
        task = (watched, self._task(rows)) if keep else None
        if observed is not None:
            rows = dataclasses.replace(rows, observed=observed)
        source, rows, validation = self._hold_out(data.source, rows, streams)

        def fitted(parameters: dict[str, Tensor], monitor: Monitor, state: Mapping) -> dict:
            made = fitted_attributes(start, objective, parameters, monitor, state)
            if self._allows_nan:
                made["_features"] = features
            own = {
                name: data.give_back(value) if isinstance(value, Tensor) else value
                for name, value in self._reported(state).items()
            }
            return made | own | {"_namespace": namespace_name(X)}

        progress = Progress(
            self, X, sample_weight, epochs,
            lambda epoch: fitted(epoch.parameters(), epoch.monitor, epoch.state),
            tells_callbacks=not partial,
        )  # fmt: skip
        result = self._train(
            start.network,
            objective,
            source,
            rows,
            training=self._training_numbers(source.n, start, objective.loss, epochs, partial),
            streams=streams,
            initial=start.initial,
            validation=validation,
            state=start.state_for(objective, m, task),
            on_epoch=progress.on_epoch,
        )
        self._check_end(result, epochs, partial)
        self.__dict__ |= fitted(result.parameters, result.monitor, result.learned)
        self.__dict__.pop("_training", None)
        if keep:
            self._training = start._replace(
                state=result.state, initial=result.parameters, seen=(objective, m, task)
            )
        progress.finish()
        return self

    def _arithmetic(self) -> dict[str, Any]:
        return {"precision": self.precision, "device": self.device}

    def _start(
        self, data: Data, objective: Objective, m: Moments, features: Features, keep: bool
    ) -> Start:
        """Where a fit begins that does not go on with the last one's optimiser."""
        network, k = self._network(objective, data.source, m)
        seed = self._seed()
        draws = Streams([seed], data.source.device).draws("init", data.source.dtype)
        initial = starting_values(network, objective, m, k, draws)
        given = self if keep and hasattr(self, "encoder_") else self.initialize_from
        if given is not None:
            initial |= copied_weights(network, given)
        return Start(network, k, m.scale, initial, seed, self._settings(), features)

    def _seed(self) -> int:
        if self.random_state is None:
            return secrets.randbits(31)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _hold_out(
        self, source: Source, rows: Rows, streams: Streams
    ) -> tuple[Source, Rows, tuple[Source, Rows] | None]:
        """Training rows, and validation rows if the estimator stops early by them."""
        if not self.early_stopping:
            return source, rows, None
        held = max(1, round(self.validation_fraction * source.n))
        if held >= source.n:
            raise ValueError(
                f"early_stopping=True with validation_fraction={self.validation_fraction} leaves "
                f"no training rows of n_samples={source.n}. Lower it, or set early_stopping=False."
            )
        order = streams.draws("split", source.dtype).permutation(source.n)
        kept, held_out = order[held:].sort().values, order[:held].sort().values
        validation = source.subset(held_out), rows.take(held_out)
        for part, what in ((kept, "train on"), (held_out, "validate by")):
            weight = rows.take(part).weight
            if weight is not None and not weight.sum() > 0:
                raise ValueError(
                    f"The sample weights leave no rows to {what}: all that early_stopping=True "
                    "assigned to it have weight zero. Set early_stopping=False."
                )
        return source.subset(kept), rows.take(kept).normalised(), validation

    def _training_numbers(
        self, n: int, start: Start, loss: Loss, epochs: int, partial: bool
    ) -> Training:
        size = min(200, n) if self.batch_size == "auto" else int(self.batch_size)
        return Training(
            solver=self.solver,
            learning_rate_init=float(self.learning_rate_init),
            learning_rate=self.learning_rate,
            horizon=self.learning_rate_horizon or (self.max_iter if partial else None),
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            batch_size=size,
            shuffle=self.shuffle,
            max_iter=epochs,
            tol=None if partial else self.tol,
            n_iter_no_change=self.n_iter_no_change,
            precision=self.precision,
            unit=loss.unit(start.scale),
        )

    def _check_end(self, result: Result, epochs: int, partial: bool) -> None:
        reason, epoch = result.monitor.reasons[0], len(result.monitor.loss_curves[0])
        if reason == "diverged":
            raise ValueError(
                f"Training diverged at epoch {epoch}: the loss is "
                f"{result.monitor.loss_curves[0][-1]}. Lower learning_rate_init (now "
                f"{self.learning_rate_init}), or scale X."
            )
        if reason == "interrupted":
            warn_caller(
                f"Training was interrupted after {epoch} epochs. The model fitted so far is kept.",
                ConvergenceWarning,
            )
        if reason == "max_iter" and self.tol is not None and not partial:
            warn_caller(
                f"Training stopped at max_iter={epochs} before the loss settled within tol="
                f"{self.tol}. Raise max_iter, or set tol=None to train for exactly max_iter.",
                ConvergenceWarning,
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._allows_nan
        tags.input_tags.positive_only = self.loss == "poisson" or isinstance(self.loss, Poisson)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        return tags

    def __sklearn_clone__(self):
        copied = _clone_parametrized(self)
        copied.initialize_from = self.initialize_from  # a clone of it would not be fitted
        return copied

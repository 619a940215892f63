"""BaseAutoencoder: the scikit-learn shell of every variant."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from sklearn.base import BaseEstimator, _clone_parametrized, _fit_context
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.monitor import Monitor
from skae._engine.rng import Streams
from skae._engine.start import Moments, moments, starting_values
from skae._engine.train import FULL_BATCH, Epoch, Result, train
from skae.estimators._build import (
    SETTINGS,
    Start,
    build_network,
    check_range,
    copied_weights,
    fitted_attributes,
    given_weights,
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
from skae.estimators._parameters import NetworkParameters
from skae.estimators._progress import Progress
from skae.estimators._training import TrainingParameters
from skae.losses import Loss, Poisson, resolve_loss
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


def steps_by_batch(self) -> bool:
    if self.solver in FULL_BATCH:
        raise AttributeError(
            f"solver={self.solver!r} uses all rows at every step, which a stream does not show. "
            "Use fit, or solver='adam' or 'sgd'."
        )
    return True


@estimator
class BaseAutoencoder(
    FittedAutoencoder,
    TrainingParameters,
    NetworkParameters,
    CallbackSupportMixin,
    BaseEstimator,
):
    """Shared parameters and fitting of all autoencoders.

    Parameters
    ----------
    warm_start : bool, default=False
        Continue where the last `fit` ended, optimiser and generators included: two fits of k
        epochs are one fit of 2k, bit for bit.

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

    warm_start: bool = False

    _parameter_constraints = {
        **NetworkParameters._parameter_constraints,
        **TrainingParameters._parameter_constraints,
        "warm_start": ["boolean"],
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

    @available_if(steps_by_batch)
    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one pass over X, continuing from what is fitted already; adam and sgd only.

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
        if not keep:  # what callbacks see of this fit is not that of the last one
            for name in self.__dict__.pop("_own_names", ()):
                self.__dict__.pop(name, None)
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
            names = {"_own_names": tuple(own)} if own else {}
            return made | own | names | {"_namespace": namespace_name(X), "_n_trained": source.n}

        def continuing(state: Mapping, parameters: dict[str, Tensor]) -> Start:
            return start._replace(state=state, initial=parameters, seen=(objective, m, task))

        def told(epoch: Epoch) -> dict:
            """What callbacks get of an epoch: as if `fit` had ended there."""
            parameters = epoch.parameters()
            # None takes the place of a former fit's, which a copy of this estimator has too.
            kept = continuing(epoch.resumable(), parameters) if keep else None
            return fitted(parameters, epoch.monitor, epoch.state()) | {"_training": kept}

        progress = Progress(
            self, X, sample_weight, epochs, told, tells_callbacks=not partial,
        )  # fmt: skip
        unit = objective.loss.unit(start.scale)
        result = self._train(
            start.network,
            objective,
            source,
            rows,
            training=self._training_numbers(source.n, unit, epochs, partial),
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
            self._training = continuing(result.state, result.parameters)
        progress.finish()
        return self

    def _start(
        self, data: Data, objective: Objective, m: Moments, features: Features, keep: bool
    ) -> Start:
        """Where a fit begins that does not go on with the last one's optimiser."""
        network, k = self._network(objective, data.source, m)
        seed = self._seed()
        draws = Streams([seed], data.source.device).draws("init", data.source.dtype)
        initial = starting_values(network, objective, m, k, draws)
        initial |= given_weights(network, self, data.source)
        given = self if keep and hasattr(self, "encoder_") else self.initialize_from
        if given is not None:
            initial |= copied_weights(network, given)
        return Start(network, k, m.scale, initial, seed, self._settings(), features)

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

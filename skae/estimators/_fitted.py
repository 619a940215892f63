"""What every fitted autoencoder can do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._engine.batches import complete, missing
from skae._engine.sparse_code import infer_from_sparse
from skae.estimators._export import mlp_of, torch_of
from skae.estimators._input import Data, check_namespace, read_codes, read_data, read_weight
from skae.modules import DenseModule, ParallelModule, infer
from skae.objective import Features, observed_weight

_CELLS = 2**21  # of the widest layer, held at once: a few tens of megabytes
_FEW_ROWS = 64  # that are never worth splitting


def _takes_nan(self) -> bool:
    return self._allows_nan


class FittedAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Codes, reconstructions, errors and weights of a fitted autoencoder.

    Inference changes no attribute, so a fitted estimator may serve many threads.
    """

    encoder_: nn.Module
    decoder_: nn.Module
    objective_: Any
    precision: str | None
    device: Any
    _features: Features
    _allows_nan = False  # whether NaN in X is a missing value

    def transform(self, X):
        """Encode X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Any finite values; they need not stay in the range seen in `fit`.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components_)
            Codes, in X's dtype.
        """
        data = self._read(X, "transform")
        return data.give_back(self._by_chunks(data, self._encode, self._n_features_out))

    def inverse_transform(self, X):
        """Decode codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_)
            Codes, as `transform` returns them.

        Returns
        -------
        X_hat : ndarray of shape (n_samples, n_features_in_)
            Reconstructions, in the codes' dtype.
        """
        check_is_fitted(self)
        data = read_codes(self, X, self.precision, self._inference_device(X))
        return data.give_back(self._by_chunks(data, self._decode, self.n_features_in_))

    def reconstruct(self, X):
        """Encode and decode X: ``inverse_transform(transform(X))``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        X_hat : ndarray of shape (n_samples, n_features)
            Reconstructions, in X's dtype.
        """
        data = self._read(X, "reconstruct")
        return data.give_back(self._by_chunks(data, self._reconstruct, self.n_features_in_))

    @available_if(_takes_nan)
    def impute(self, X):
        """Replace what is missing in X by its reconstruction.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data with NaN where a value is missing.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features)
            X, dense and in X's dtype, with NaN left only in features that have no value in `fit`.
            As from `reconstruct`, an array also for a DataFrame and under `set_output`, which is
            about `transform`.
        """
        data = self._read(X, "impute")
        return data.give_back(self._by_chunks(data, self._impute, self.n_features_in_))

    def reconstruction_error(self, X, *, per_feature=False):
        """The reconstruction loss of every row, without penalty, corruption or dropout.

        Missing cells, where they are allowed, do not count, and their error is NaN.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        per_feature : bool, default=False
            Return the loss of every cell instead; a row's mean is the row's error.

        Returns
        -------
        error : ndarray of shape (n_samples,) or (n_samples, n_features)
            In the units of the loss (squared units of X for ``loss="squared_error"``).
        """
        data = self._read(X, "reconstruction_error")
        if per_feature:
            return data.give_back(self._by_chunks(data, self._cell_errors, self.n_features_in_))
        return data.give_back(self._by_chunks(data, self._row_errors, None))

    def score_samples(self, X):
        """The negative reconstruction error of every row: higher is more normal.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        score : ndarray of shape (n_samples,)
            ``-reconstruction_error(X)``.
        """
        return -self.reconstruction_error(X)

    def score(self, X, y=None, sample_weight=None):
        """The (weighted) mean of `score_samples`: higher is better.

        It compares models of one loss: with it, `GridSearchCV` needs no labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
            Negative mean reconstruction error.
        """
        data = self._read(X, "score")
        error = self._by_chunks(data, self._row_errors, None).double()
        weight = read_weight(sample_weight, data)
        if self._allows_nan and error.isnan().any():  # of rows without any value
            known = ~error.isnan()
            weight = (known if weight is None else weight * known).double()
            error, weight = error.nan_to_num(), weight / weight.mean()
        return -float((error if weight is None else error * weight.double()).mean())

    def to(self, device):
        """Move the fitted network to a device.

        Parameters
        ----------
        device : str or torch.device
            Where inference should run. Results still come back as X's kind of array.

        Returns
        -------
        self : object
            The same estimator.
        """
        check_is_fitted(self)
        self.encoder_.to(device)
        self.decoder_.to(device)
        return self

    def to_torch(self, part="autoencoder"):
        """Copy the network as a plain ``torch.nn.Sequential``.

        It works in the units of X and includes the output's activation, so that
        ``to_torch()(torch.from_numpy(X))`` is ``reconstruct(X)``, and is independent of this
        estimator. Linear layers and activations are torch's own. Where a code or an output takes
        another step (a k-sparse code, split-brain predictions), a module of this package does it.
        Missing values are not filled in: fill them with `statistics_` before.

        Parameters
        ----------
        part : {"autoencoder", "encoder", "decoder"}, default="autoencoder"
            The whole network, from X to its reconstruction, or only that to or from the code.

        Returns
        -------
        module : torch.nn.Sequential
            In inference mode, in the dtype and on the device of the fitted network; its
            parameters can be trained further.

        Raises
        ------
        ValueError
            If there is no such part.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, _ = load_digits(return_X_y=True)
        >>> model = Autoencoder(n_components=8, hidden_layer_sizes=(), max_iter=2).fit(X)
        >>> model.to_torch()
        Sequential(
          (0): Linear(in_features=64, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=64, bias=True)
        )
        """
        check_is_fitted(self)
        return torch_of(self, part)

    def to_mlp(self, kind, y=None, random_state=None, **mlp_params):
        """Start a multi-layer perceptron of scikit-learn from the trained weights.

        It predicts right away; `fit`, which has ``warm_start=True``, and `partial_fit` go on from
        these weights. (A classifier's `partial_fit` on chunks that lack some class needs
        ``warm_start=False``, as everywhere in scikit-learn.) Its hidden layers are the encoder's,
        the code included, with a new last layer on top; or, as an autoencoder, all layers, so that
        its `predict` is `reconstruct`. Corruption, penalties and dropout are not part of it.

        Parameters
        ----------
        kind : {"classifier", "regressor", "autoencoder"}
            An `MLPClassifier` or `MLPRegressor` on the code, or an `MLPRegressor` from X to X.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The targets that it will be fitted to, for its outputs; an array of all classes will
            do for one label a sample, 0-1 indicators are several. Ignored by "autoencoder".

        random_state : int, RandomState instance, default=None
            Draws the new layer, as an MLP draws it, and becomes the MLP's own. None is that of
            this estimator.

        **mlp_params : dict
            Other parameters of the MLP, instead of what they would be; not `hidden_layer_sizes`
            and `activation`, nor an autoencoder's `loss`.

        Returns
        -------
        mlp : MLPClassifier or MLPRegressor
            With its own copy of the weights.

        Raises
        ------
        ValueError
            If an MLP cannot be this network: all its hidden layers have one activation, identity,
            logistic, tanh or relu, and regression has a squared error behind a linear output (or,
            from scikit-learn 1.7 on, a Poisson loss behind an exponential one).

        Notes
        -----
        The parameters that both have are taken over. Those that mean something else there:

        - `alpha`, of which an MLP divides the gradient by the rows of a batch, beside squared
          errors summed over outputs. As an autoencoder it gets ``rows d alpha / 2`` (Poisson
          loss: ``rows d alpha``), with rows those of a batch here (all of them under lbfgs), and
          d features: the same minimum. On a code, alpha / 2 |W|^2 stands beside the
          cross-entropy of a sample (``rows alpha``), or beside its mean squared error.
        - `learning_rate_init`: sgd takes the same steps with it divided by the same d / 2 (or d).
          Adam here works in the units of the data, there on raw weights, with the same rate.
        - `tol` is a fraction of the loss here and absolute there; as an autoencoder it is
          converted at the last loss (but for lbfgs and early stopping, which compare something
          else). None becomes ``n_iter_no_change=inf``.
        - ``solver="cg"`` becomes "lbfgs". Schedules are not taken over: the learning rate is
          constant.

        An estimator that holds others, as a stack, has none of these: they are an MLP's defaults.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, y = load_digits(return_X_y=True)
        >>> model = Autoencoder(n_components=32, code_activation="relu", max_iter=5, random_state=0)
        >>> mlp = model.fit(X / 16).to_mlp("classifier", y, max_iter=10)
        >>> mlp.hidden_layer_sizes
        (100, 32)
        >>> mlp.fit(X / 16, y).score(X / 16, y) > 0.8
        True
        """
        check_is_fitted(self)
        return mlp_of(self, kind, y, random_state, mlp_params)

    def __getstate__(self):
        state = super().__getstate__()
        for name in ("encoder_", "decoder_"):
            first = next(state[name].parameters(), None) if name in state else None
            if first is not None and first.device.type != "cpu":
                state = {**state, name: copy.deepcopy(state[name]).cpu()}
        return state

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Weights of all layers, encoder then decoder, each of shape (n_in, n_out)."""
        return [linear.weight.detach().t().cpu().numpy().copy() for linear in self._linears()]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases of all layers, encoder then decoder, each of shape (n_out,)."""
        return [linear.bias.detach().cpu().numpy().copy() for linear in self._linears()]

    @property
    def components_(self) -> np.ndarray:
        """Weights of a linear one-layer encoder, of shape (n_components_, n_features_in_)."""
        check_is_fitted(self)
        parts = list(self.encoder_.children())
        if len(parts) != 1 or not isinstance(parts[0], nn.Linear):
            raise AttributeError("components_ exists only for an encoder of one linear layer.")
        return parts[0].weight.detach().cpu().numpy()

    def _linears(self) -> list[nn.Linear]:
        check_is_fitted(self)
        modules = (self.encoder_, self.decoder_)
        if not all(isinstance(module, DenseModule | ParallelModule) for module in modules):
            raise AttributeError("coefs_ and intercepts_ exist only for built-in dense layers.")
        parts = (part for module in modules for part in module.modules())
        return [part for part in parts if isinstance(part, nn.Linear)]

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _inference_device(self, X: Any) -> Any:
        parameter = next(self.encoder_.parameters(), None)
        return self.device if parameter is None else parameter.device

    def _read(self, X: Any, method: str) -> Data:
        check_is_fitted(self)
        check_namespace(self, X, method)
        return read_data(
            self, X, reset=False, precision=self.precision, device=self._inference_device(X)
        )

    def _by_chunks(self, data: Data, function: Callable, width: int | None) -> Tensor:
        """``function(rows, out)`` of all rows, a bounded number at a time.

        The function may write its result to `out`, or return a tensor of its own.
        """
        source = data.source
        with torch.no_grad():
            if source.n <= _FEW_ROWS:
                return function(source.take(slice(0, source.n)), None)
            shape = (source.n,) if width is None else (source.n, width)
            out = torch.empty(shape, dtype=source.dtype, device=source.device)
            for part, x in source.chunks(max(_FEW_ROWS, _CELLS // self._widest)):
                result = function(x, out[part])
                if result.data_ptr() != out[part].data_ptr() or result.shape != out[part].shape:
                    out[part] = result
        return out

    @property
    def _widest(self) -> int:
        parameters = [*self.encoder_.parameters(), *self.decoder_.parameters()]
        sizes = [p.shape[0] for p in parameters if p.ndim]
        return max([self.n_features_in_, *sizes])

    def _completed(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x with the training means where values are missing, and 1 where they are not, else 0."""
        if not self._allows_nan:
            return x, None
        means = self._features.mean.to(x.device)
        gone = missing(x, means)
        return (complete(x, means, gone), (~gone).to(x.dtype)) if gone.any() else (x, None)

    def _encode(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._coding().encode(infer(self.encoder_, self._completed(x)[0], out))

    def _coding(self) -> Any:
        """The objective whose `encode` follows the encoder."""
        return self.objective_

    def _raw(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        raw = infer_from_sparse(self.decoder_, z)
        return infer(self.decoder_, z, out) if raw is None else raw

    def _decode(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        x_hat = self.objective_.loss.predict(self._raw(z, out))
        if self._allows_nan and (unseen := self._features.mean.isnan()).any():
            x_hat[:, unseen.to(x_hat.device)] = math.nan
        return x_hat

    def _reconstruct(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return self._decode(self._encode(x), out)

    def _impute(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.where(x.isnan(), self._reconstruct(x), x)

    def _cell_errors(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        loss = self.objective_.loss
        x, observed = self._completed(x)
        error = loss.elements(x, self._raw(self._encode(x)))
        error = error * (loss.share(x.shape[-1]) * x.shape[-1])
        return error if observed is None else error.masked_fill(observed == 0, math.nan)

    def _row_errors(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        x, observed = self._completed(x)
        weight = observed_weight(observed)
        error = self.objective_.data_loss(x, self._raw(self._encode(x)), weight)
        return error if observed is None else error.masked_fill(~observed.any(-1), math.nan)

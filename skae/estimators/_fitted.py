"""What every fitted autoencoder can do."""

from __future__ import annotations

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
from skae.estimators._export import ExportsAutoencoder
from skae.estimators._inference import HoldsModules, in_chunks
from skae.estimators._input import Data, check_namespace, read_codes, read_data, read_weight
from skae.modules import DenseModule, ParallelModule, infer
from skae.objective import Features, observed_weight


def _takes_nan(self) -> bool:
    if not self._allows_nan:
        raise AttributeError(
            f"{type(self).__name__} takes no missing values. Use DenoisingAutoencoder, which does."
        )
    return True


class FittedAutoencoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ExportsAutoencoder, HoldsModules
):
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
        return self._codes(X)

    def _codes(self, X: Any) -> Any:
        """What `transform` returns, whatever container `set_output` asks for."""
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
        """Replace what is missing in X by its reconstruction; `DenoisingAutoencoder` only.

        Of a fitted pipeline it is ``pipeline[-1].impute(pipeline[:-1].transform(X))``, in the units
        that the last step sees.

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
        modules = self._held_modules
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
        return in_chunks(data.source, function, width, lambda: self._widest)

    @property
    def _widest(self) -> int:
        sizes = [p.shape[0] for held in self._held_modules for p in held.parameters() if p.ndim]
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

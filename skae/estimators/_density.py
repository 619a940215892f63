"""What every fitted density model can do: posteriors, samples, bounds on log-likelihoods."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._engine.batches import Source
from skae.estimators._fitted import FittedAutoencoder
from skae.estimators._inference import in_chunks
from skae.estimators._input import read_weight
from skae.estimators._sampling import portions, sampling_draws
from skae.latents import split
from skae.modules import infer
from skae.monte_carlo import BLOCK, ENOUGH, GaussianModel

ACTIVE = 0.01  # Burda et al.: variance of a unit's posterior mean over the rows


class FittedDensity(FittedAutoencoder):
    """Posterior, samples and scores of a fitted model with a Gaussian code."""

    n_components_: int
    n_importance_samples: int
    activity_: Any
    _parameter_constraints: dict[str, list]

    @property
    def active_units_(self) -> Any:
        """Which code units tell rows apart, of shape (n_components_,)."""
        check_is_fitted(self)
        return self.activity_ > ACTIVE

    @property
    def noise_variance_(self) -> Any:
        """Variance of a feature given the code: a number, or of shape (n_features_in_,)."""
        check_is_fitted(self)
        found = self.objective_.loss.variance(self.n_features_in_)
        if found is None:
            raise AttributeError(
                "noise_variance_ exists only under likelihood='gaussian' and 'laplace'."
            )
        return np.array(found) if isinstance(found, tuple) else found

    @property
    def components_(self) -> np.ndarray:
        """Weights of a linear one-layer encoder, of shape (n_components_, n_features_in_)."""
        return super().components_[: self.n_components_]

    def posterior(self, X):
        """The posterior of the code of every row, a diagonal Gaussian.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_components_)
            Means.

        std : ndarray of shape (n_samples, n_components_)
            Standard deviations.
        """
        data = self._read(X, "posterior")
        width = 2 * self._n_features_out
        h = self._by_chunks(data, lambda x, out: infer(self.encoder_, x, out), width)
        mean, log_var = split(h)
        return data.give_back(mean), data.give_back(torch.exp(0.5 * log_var))

    def sample(self, n_samples=1, random_state=None):
        """Draw data from the model: z from p(z), then x from p(x | z).

        For the means of p(x | z) alone, without its noise, decode codes of one's own with
        `inverse_transform`.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance, default=None
            Seeds the draws. None takes fresh entropy; the global generators are never touched.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_)
            The rows, in the dtype of the network.
        """
        check_is_fitted(self)
        rng, model = sampling_draws(self, n_samples, random_state), self._model
        with torch.no_grad():
            parts = portions(n_samples, self._widest)
            drawn = [model.sample(n, self.n_components_, rng) for n in parts]
        return torch.cat(drawn).cpu().numpy()

    def score_samples(self, X):
        """A bound on the log-likelihood of every row, in nats: higher is more normal.

        With ``n_importance_samples=1`` it is the evidence lower bound

            E_q log p(x | z) - KL(q(z | x) || N(0, I)),

        the divergence in closed form. With S > 1 it is the importance-sampled log-likelihood

            log (1 / S) sum_s p(x | z_s) p(z_s) / q(z_s | x),

        which tends to log p(x) from below as S grows. The draws z_s = mu + sigma epsilon_s are
        the same epsilon for all rows and at every call, so that a row's score depends on nothing
        but the row. They are an estimate, whose error the rows share: within tenths of a nat, above
        or below. For few samples it is the mean over 64 draws or more, in sets of S. (With two
        stochastic layers z is both codes, and the evidence lower bound is drawn throughout.)
        `n_importance_samples` may be set anew without fitting again.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        score : ndarray of shape (n_samples,)
            In nats; the lowest number there is for rows beyond its reach.
        """
        data = self._read(X, "score_samples")
        return data.give_back(self._bounds(data.source))

    def score(self, X, y=None, sample_weight=None):
        """The (weighted) mean of `score_samples`, in nats: higher is better.

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
            Mean bound on the log-likelihood of a row.
        """
        data = self._read(X, "score")
        score, weight = self._bounds(data.source).double(), read_weight(sample_weight, data)
        score = score / len(score)  # before they are summed, which may overflow
        return float((score if weight is None else score * weight.double()).sum())

    @property
    def _model(self) -> GaussianModel:
        return GaussianModel(self.encoder_, self.decoder_, self.objective_)

    def _bounds(self, source: Source) -> Tensor:
        self._check_now("n_importance_samples")
        model, S = self._model, self.n_importance_samples
        at_once = min(BLOCK, max(ENOUGH, S))
        return in_chunks(
            source, lambda x, out: model.bound(x, S), None, lambda: at_once * self._widest
        )

    def _check_now(self, *names: str) -> None:
        """Validate these parameters, which may have been set after training."""
        constraints = {name: self._parameter_constraints[name] for name in names}
        given = {name: getattr(self, name) for name in names}
        validate_parameter_constraints(constraints, given, type(self).__name__)

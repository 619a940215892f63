"""What models with a Gaussian code share: likelihoods, posteriors, samples, log-likelihoods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.quasirandom import SobolEngine

from skae._engine.batches import Source
from skae._engine.start import Moments
from skae._engine.train import FULL_BATCH, Result
from skae._warnings import warn_caller
from skae.estimators._base import BaseAutoencoder
from skae.estimators._build import check_range
from skae.estimators._estimator import estimator
from skae.estimators._inference import in_chunks
from skae.estimators._input import read_weight
from skae.estimators._sampling import portions, sampling_draws
from skae.latents import kl, log_prior_ratio, means, split
from skae.likelihoods import Bernoulli, Gaussian, Laplace, Likelihood, Mixed, Poisson
from skae.losses import Loss
from skae.modules import infer
from skae.networks import Network
from skae.objective import Objective, Rows

_ACTIVE = 0.01  # Burda et al.: variance of a unit's posterior mean over the rows
_COLLAPSED = 0.25  # of the units active, below which a warning says so
_ENOUGH = 64  # draws for an expectation: the mean bound is then right to tenths of a nat or better
_TAIL = 1e-10  # probability beyond which no draw lies
BLOCK = 64  # draws decoded at once
_ROUNDING = 1e-6
_SUM_ROUNDING = 1e-3  # of the mean of a row's shares, in float32
_SPREADS: dict[str, Any] = {"gaussian": Gaussian, "laplace": Laplace}
_OTHERS: dict[str, Likelihood] = {"bernoulli": Bernoulli(), "poisson": Poisson()}


class Weighed(NamedTuple):
    """Codes drawn for rows, and log p(x, z) / q(z | x) of each."""

    z: Tensor  # (n, S, k)
    log_p: Tensor  # (n, S)  log p(x | z)
    log_w: Tensor  # (n, S)


@estimator
class LatentVariableAutoencoder(BaseAutoencoder):
    """Parameters and inference of models with a Gaussian code.

    Parameters
    ----------
    code_activation : str, default="identity"
        Means and log variances of the code are linear: anything but "identity" is refused.

    output_activation : str, default="auto"
        That of the likelihood: anything but "auto" is refused.

    loss : str, default="squared_error"
        Not used, as `likelihood` takes its place: anything but the default is refused.

    tied_weights : bool, default=False
        Not possible, since the encoder gives two numbers for each unit: True is refused.

    encoder : torch.nn.Module, default=None
        An encoder of one's own, from (n, n_features) to (n, 2 n_components): all means, then all
        log variances. It is copied, and trained in the dtype of X.

    dropout : float, default=0.0
        Probability in [0, 1) of dropping a hidden unit in training, not one of the code, for
        every row on its own; kept units count 1 / (1 - dropout).

    solver : {"adam", "sgd", "lbfgs", "cg"}, default="adam"
        "adam" and "sgd" (with momentum) step once a batch. "lbfgs" and "cg" are refused: codes
        are drawn anew at every step.

    likelihood : {"gaussian", "bernoulli", "laplace", "poisson"}, default="gaussian"
        p(x | z) of a feature. The decoder gives the mean of "gaussian" and "laplace", the logit
        of "bernoulli", which needs X in [0, 1], and the logarithm of the mean of "poisson", which
        needs X >= 0. All are summed over features, in nats, constants included.

    variance : {"shared", "per_feature"} or float, default="shared"
        Variance of a feature given the code, in squared units of X, under "gaussian" and
        "laplace": one for all features or one for each, both learned, or a number for all. (With
        a number v, the squared error counts 1 / (2 v).) Learned ones do not fall below a
        millionth of the data's.

    categorical_groups : sequence of sequences of int, default=None
        Groups of columns that are a category each, in one-hot form: their likelihood is a
        softmax's. The other columns have `likelihood`; scale them, for example with
        StandardScaler, so that both kinds train alike.

    n_importance_samples : int, default=1
        Draws of the code for each row in `score` and `score_samples`.

    Attributes
    ----------
    activity_ : ndarray of shape (n_components_,)
        Variance over the training rows of each unit's posterior mean.

    active_units_ : ndarray of shape (n_components_,) of bool
        Where `activity_` exceeds 0.01 [2]_: the units that tell rows apart.

    noise_variance_ : float or ndarray of shape (n_features_in_,)
        Variance of a feature given the code under "gaussian" and "laplace", given or learned; NaN
        for the columns of categories.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of the posterior means of a linear encoder of one layer.

    loss_curve_ : list of float
        Mean negative bound of every epoch, in nats, of the codes that were drawn.

    validation_loss_curve_ : list of float or None
        The likelihood's part of the held-out rows, at the mean code, after every epoch, under
        `early_stopping`.
    """

    code_activation: str = "identity"
    likelihood: str = "gaussian"
    variance: str | float = "shared"
    categorical_groups: Sequence[Sequence[int]] | None = None
    n_importance_samples: int = 1

    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "likelihood": [StrOptions({*_SPREADS, *_OTHERS})],
        "variance": [
            StrOptions({"shared", "per_feature"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "categorical_groups": ["array-like", None],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
    }
    _samples = True  # whether codes are drawn in training: off to test what noise would hide

    # ---- the objective

    def _code_terms(self) -> dict[str, Any]:
        """The fields that every objective with a Gaussian code has."""
        self._refuse()
        return {
            **self._shared_terms(),
            "loss": self._likelihood(),
            "samples": self._samples,
            "shared": self.variance == "shared",
        }

    def _refuse(self) -> None:
        """Raise where a shared parameter has no meaning here."""
        name = type(self).__name__
        if self.loss != "squared_error":
            raise ValueError(
                f"loss={self.loss!r}, but the loss of {name} is a likelihood. Set likelihood "
                f"(now {self.likelihood!r}) instead, and leave loss='squared_error'."
            )
        if self.output_activation != "auto":
            raise ValueError(
                f"output_activation={self.output_activation!r}, but the output of {name} is that "
                f"of likelihood={self.likelihood!r}. Leave output_activation='auto'."
            )
        if self.code_activation != "identity":
            raise ValueError(
                f"code_activation={self.code_activation!r}, but the code layer of {name} gives "
                "means and log variances, which have no bounds. Leave code_activation='identity'."
            )
        if self.tied_weights:
            raise ValueError(
                f"tied_weights=True, but the encoder of {name} gives two numbers for each code "
                "unit, of which the decoder sees one. Set tied_weights=False."
            )
        if self.solver in FULL_BATCH and self._samples:
            raise ValueError(
                f"solver={self.solver!r} needs a deterministic objective, but {name} draws codes "
                "anew at every step. Use solver='adam' or 'sgd'."
            )
        if self.variance != "shared" and self.likelihood not in _SPREADS:
            raise ValueError(
                f"variance={self.variance!r} is that of a gaussian or laplace likelihood; under "
                f"likelihood={self.likelihood!r} it follows from the mean. Leave it 'shared'."
            )

    def _likelihood(self) -> Likelihood:
        if self.likelihood in _OTHERS:
            numeric = _OTHERS[self.likelihood]
        else:
            numeric = _SPREADS[self.likelihood](None)
            if not isinstance(self.variance, str):
                given = torch.tensor([float(self.variance)], dtype=torch.float64)
                numeric = numeric.with_scale(numeric.start_scale(given), shared=True)
        groups = self._groups()
        return Mixed(numeric, groups) if groups else numeric

    def _groups(self) -> tuple[tuple[int, ...], ...]:
        """The columns of each category."""
        if self.categorical_groups is None:
            return ()
        try:
            groups = tuple(tuple(int(c) for c in group) for group in self.categorical_groups)
        except (TypeError, ValueError):
            groups = ((),)
        columns = [column for group in groups for column in group]
        if any(len(group) < 2 for group in groups) or len(set(columns)) < len(columns):
            raise ValueError(
                "categorical_groups must be sequences of two or more column numbers, no column "
                f"in two of them, got {self.categorical_groups!r}."
            )
        return groups

    def _objective_for(self, data, weight, kept):
        columns = [column for group in self._groups() for column in group]
        wrong = [c for c in columns if not 0 <= c < data.source.d]
        if wrong:
            raise ValueError(
                f"categorical_groups has column {wrong[0]}, but X has the columns 0 to "
                f"{data.source.d - 1}. Number them from 0."
            )
        return super()._objective_for(data, weight, kept)

    def _settings(self):
        own = {"likelihood": self.likelihood, "categorical_groups": self._groups()}
        return super()._settings() | own

    def _check_range(self, loss: Loss, m: Moments) -> None:
        said = f"likelihood={self.likelihood!r}", "likelihood='gaussian'"
        if not isinstance(loss, Mixed):
            check_range(self, loss, m, said=said)
            return
        groups = loss.groups
        for columns in groups:
            self._check_one_hot(columns, m.take(columns))
        others = sorted(set(range(len(m.mean))) - {c for group in groups for c in group})
        if others:
            check_range(self, loss.numeric, m.take(others), others, said)

    def _check_one_hot(self, columns: Sequence[int], m: Moments) -> None:
        total = float(m.mean.sum())
        is_share = float(m.low.min()) >= -_ROUNDING and float(m.high.max()) <= 1 + _ROUNDING
        if not is_share or abs(total - 1) > _SUM_ROUNDING:
            raise ValueError(
                f"categorical_groups holds {tuple(columns)}, but these columns are no category in "
                f"one-hot form: they lie in [{float(m.low.min()):g}, {float(m.high.max()):g}] and "
                f"add up to {total:g} on average, instead of 1. Encode them with OneHotEncoder, "
                "or leave them out."
            )

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        result = super()._train(network, objective, source, rows, **options)
        activity = _activity(network, result.parameters, source, rows.weight)
        return result._replace(learned={**result.learned, "activity": activity})

    def _check_end(self, result: Result, epochs: int, partial: bool) -> None:
        super()._check_end(result, epochs, partial)
        activity = result.learned["activity"]
        active, units = int((activity > _ACTIVE).sum()), len(activity)
        if active < _COLLAPSED * units and not partial:
            warn_caller(
                f"Posterior collapse: only {active} of {units} code units are active (variance of "
                f"their posterior means above {_ACTIVE}); the others ignore X. Train for longer, "
                "give the likelihood more weight (a smaller beta or variance, warm_up, free_bits, "
                "where there are such parameters), or lower n_components.",
                ConvergenceWarning,
            )

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"activity_": state["activity"]} if "activity" in state else {}

    # ---- a fitted model

    @property
    def active_units_(self) -> Any:
        """Which code units tell rows apart, of shape (n_components_,)."""
        check_is_fitted(self)
        return self.activity_ > _ACTIVE

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
        """Draw data from the model: z from N(0, I), then x from p(x | z).

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
        rng = sampling_draws(self, n_samples, random_state)
        drawn = []
        with torch.no_grad():
            for n in portions(n_samples, self._widest):
                raw = infer(self.decoder_, rng.normal((n, self.n_components_)))
                drawn.append(self.objective_.loss.draw(raw, rng))
        return torch.cat(drawn).cpu().numpy()

    def score_samples(self, X):
        """A bound on the log-likelihood of every row, in nats: higher is more normal.

        With ``n_importance_samples=1`` it is the evidence lower bound

            E_q log p(x | z) - KL(q(z | x) || N(0, I)),

        the divergence in closed form. With S > 1 it is the importance-sampled log-likelihood

            log (1 / S) sum_s p(x | z_s) p(z_s) / q(z_s | x),

        which tends to log p(x) from below as S grows. The draws z_s = mu + sigma epsilon_s are
        the same epsilon for all rows and at every call, so that a row's score depends on nothing
        but the row. For few samples it is the mean over 64 draws or more, in sets of S.
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
        return float((score if weight is None else score * weight.double()).mean())

    def _bounds(self, source: Source) -> Tensor:
        self._check_samples()
        at_once = min(BLOCK, max(_ENOUGH, self.n_importance_samples))
        return in_chunks(source, self._bound, None, lambda: at_once * self._widest)

    def _check_samples(self) -> None:
        """Validate the present number of samples, which may have been set after training."""
        name = "n_importance_samples"
        constraint = {name: self._parameter_constraints[name]}
        validate_parameter_constraints(
            constraint, {name: self.n_importance_samples}, type(self).__name__
        )

    def _bound(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        h, S = infer(self.encoder_, x), self.n_importance_samples
        if S == 1:
            parts = [drawn.log_p for drawn in self._weighed(x, h, fixed_draws(_ENOUGH, h))]
            value = torch.cat(parts, -1).mean(-1) - kl(h).sum(-1)
        elif S < _ENOUGH:
            sets = math.ceil(_ENOUGH / S)
            parts = [drawn.log_w for drawn in self._weighed(x, h, fixed_draws(sets * S, h))]
            each = torch.logsumexp(torch.cat(parts, -1).unflatten(-1, (sets, S)), -1)
            value = each.mean(-1) - math.log(S)
        else:
            value = torch.full_like(h[..., 0], -math.inf)
            for drawn in self._weighed(x, h, fixed_draws(S, h)):
                value = torch.logaddexp(value, torch.logsumexp(drawn.log_w, -1))
            value = value - math.log(S)
        lowest = torch.finfo(value.dtype).min
        return value.nan_to_num(nan=lowest, neginf=lowest)

    def _weighed(self, x: Tensor, h: Tensor, epsilon: Tensor) -> Iterator[Weighed]:
        """Codes z = mu + sigma epsilon of every row, a bounded number of draws at a time."""
        mean, log_var = (part.unsqueeze(-2) for part in split(h))
        for block in epsilon.split(BLOCK):
            z = torch.addcmul(mean, torch.exp(0.5 * log_var), block)
            raw = infer(self.decoder_, z.flatten(0, 1)).unflatten(0, (len(x), len(block)))
            log_p = -self.objective_.data_loss(x.unsqueeze(-2), raw)
            yield Weighed(z, log_p, log_p + log_prior_ratio(z, mean, log_var).sum(-1))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.likelihood == "poisson"
        return tags


def fixed_draws(n: int, h: Tensor) -> Tensor:
    """Standard normal numbers of shape (n, k), always the same ones.

    What all rows share does not average out over them. So these come from a scrambled Sobol
    sequence, in a random order, and many have the moments of their distribution.
    """
    k = h.shape[-1] // 2
    u = SobolEngine(k, scramble=True, seed=0).draw(n, dtype=torch.float64)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    epsilon = torch.special.ndtri(u[order].clamp(_TAIL, 1 - _TAIL))
    return (whitened(epsilon) if n >= _ENOUGH else epsilon).to(h)


def whitened(epsilon: Tensor) -> Tensor:
    """n draws with mean 0 and covariance 1, or variances of 1 where n is too small for more."""
    n, k = epsilon.shape
    epsilon = epsilon - epsilon.mean(0)
    if n < 2 * k:
        return epsilon / epsilon.square().mean(0).sqrt()
    L = torch.linalg.cholesky(epsilon.mT @ epsilon / n)
    return torch.linalg.solve_triangular(L, epsilon.mT, upper=False).mT


def _activity(
    network: Network, parameters: Mapping[str, Tensor], source: Source, weight: Tensor | None
) -> Tensor:
    """Variance of the posterior means over the rows, of shape (k,), in float64."""
    total: Any = 0.0
    first: Any = 0.0
    second: Any = 0.0
    network.train(False)
    with torch.no_grad():
        for part, x in source.chunks():
            mean = means(network.encoder.forward(parameters, x)).double()
            w = mean.new_ones(len(mean), 1) if weight is None else weight[part, None].double()
            total, first = total + w.sum(), first + (w * mean).sum(0)
            second = second + (w * mean.square()).sum(0)
    network.train(True)
    return (second / total - (first / total).square()).clamp(min=0.0)

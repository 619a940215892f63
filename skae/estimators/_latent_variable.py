"""What models with a Gaussian code share: parameters, likelihoods, and how they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from operator import index
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.start import Moments
from skae._engine.train import FULL_BATCH, Result
from skae._warnings import warn_caller
from skae.estimators._base import BaseAutoencoder
from skae.estimators._build import check_range
from skae.estimators._density import ACTIVE, FittedDensity
from skae.estimators._estimator import estimator
from skae.latents import means
from skae.likelihoods import Bernoulli, Gaussian, Laplace, Likelihood, Mixed, Poisson
from skae.losses import Loss
from skae.networks import Network
from skae.objective import Objective, Rows

_COLLAPSED = 0.25  # of the units active, below which a warning says so
_ROUNDING = 1e-6
_SUM_ROUNDING = 1e-3  # of a row's shares, in float32
_SPREADS: dict[str, Any] = {"gaussian": Gaussian, "laplace": Laplace}
_OTHERS: dict[str, Likelihood] = {"bernoulli": Bernoulli(), "poisson": Poisson()}

Means = Callable[[Tensor], Tensor]


@estimator
class LatentVariableAutoencoder(FittedDensity, BaseAutoencoder):
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
        Where `activity_` exceeds 0.01 (Burda et al., section 5.2): the units that tell rows apart.

    noise_variance_ : float or ndarray of shape (n_features_in_,)
        Variance of a feature given the code under "gaussian" and "laplace", given or learned: one
        number, or one for each feature under "per_feature", NaN for the columns of categories.

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
                numeric = numeric.with_scale(numeric.start_scale(given, True), shared=True)
        groups = self._groups()
        return Mixed(numeric, groups) if groups else numeric

    def _groups(self) -> tuple[tuple[int, ...], ...]:
        """The columns of each category."""
        if self.categorical_groups is None:
            return ()
        try:
            groups = tuple(tuple(map(index, group)) for group in self.categorical_groups)
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
        check_one_hot(data.source, weight, self._groups())
        return super()._objective_for(data, weight, kept)

    def _settings(self):
        own = {"likelihood": self.likelihood, "categorical_groups": self._groups()}
        return super()._settings() | own

    def _check_range(self, loss: Loss, m: Moments) -> None:
        said = f"likelihood={self.likelihood!r}", "likelihood='gaussian'"
        if not isinstance(loss, Mixed):
            check_range(self, loss, m, said=said)
            return
        others = sorted(set(range(len(m.mean))) - {c for group in loss.groups for c in group})
        if others:
            check_range(self, loss.numeric, m.take(others), others, said)

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        result = super()._train(network, objective, source, rows, **options)
        found = {
            name: row_variance(network, mean_of, source, rows.weight)
            for name, mean_of in self._means(network, result.parameters).items()
        }
        return result._replace(learned={**result.learned, **found})

    def _means(self, network: Network, p: Mapping[str, Tensor]) -> dict[str, Means]:
        """From x to posterior means, by the name of what their variance over rows is called."""
        return {"activity": lambda x: means(network.encoder.forward(p, x))}

    def _check_end(self, result: Result, epochs: int, partial: bool) -> None:
        super()._check_end(result, epochs, partial)
        if not partial:
            self._warn_of_collapse(result.learned)

    def _warn_of_collapse(self, learned: Mapping[str, Tensor]) -> None:
        activity = learned["activity"]
        active, units = int((activity > ACTIVE).sum()), len(activity)
        if active < _COLLAPSED * units:
            warn_caller(
                f"Posterior collapse: only {active} of {units} code units are active (variance of "
                f"their posterior means above {ACTIVE}); the others ignore X. Train for longer, "
                "give the likelihood more weight (a smaller beta or variance, warm_up, free_bits, "
                "where there are such parameters), or lower n_components.",
                ConvergenceWarning,
            )

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"activity_": state["activity"]} if "activity" in state else {}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.likelihood == "poisson"
        return tags


def check_one_hot(source: Source, weight: Tensor | None, groups: Sequence[Sequence[int]]) -> None:
    """Raise unless every row has a category of each group, or shares of several that make 1.

    Rows of weight zero are not looked at.
    """
    for part, x in source.chunks() if groups else ():
        for columns in groups:
            own = x[:, list(columns)]
            total = own.sum(-1)
            is_share = (own >= -_ROUNDING).all(-1) & (own <= 1 + _ROUNDING).all(-1)
            wrong = ~is_share | ((total - 1).abs() > _SUM_ROUNDING)
            if weight is not None:
                wrong &= weight[part] > 0
            if wrong.any():
                i = int(wrong.nonzero()[0])
                raise ValueError(
                    f"categorical_groups holds {tuple(columns)}, but these columns are no category "
                    f"in one-hot form: in row {part.start + i} they are "
                    f"{[float(f'{v:g}') for v in own[i].tolist()]}, instead of a 1 among zeros. "
                    "Encode them with OneHotEncoder, or leave them out."
                )


def row_variance(network: Network, mean_of: Means, source: Source, weight: Tensor | None) -> Tensor:
    """Variance over the rows of what `mean_of` gives, of shape (k,), in float64."""
    total: Any = 0.0
    first: Any = 0.0
    second: Any = 0.0
    network.train(False)
    with torch.no_grad():
        for part, x in source.chunks():
            mean = mean_of(x).double()
            w = mean.new_ones(len(mean), 1) if weight is None else weight[part, None].double()
            total, first = total + w.sum(), first + (w * mean).sum(0)
            second = second + (w * mean.square()).sum(0)
    network.train(True)
    return (second / total - (first / total).square()).clamp(min=0.0)

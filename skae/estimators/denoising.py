"""The denoising autoencoder, which also takes data with missing values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae.corruption import choose_cells, gaussian, replace_cells, salt_and_pepper, swapped
from skae.estimators._base import BaseAutoencoder
from skae.estimators._estimator import estimator
from skae.objective import Features, Forward, Objective, is_positive


@dataclass(frozen=True, kw_only=True)
class DenoisingObjective(Objective):
    """The loss against x of what is decoded from a corrupted x.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap"}, default="masking"
        How x is corrupted.

    noise_level : float, default=0.25
        Standard deviation of gaussian noise; for the others the share of cells.

    exact : bool, default=True
        Whether the share holds in every row.

    fill : "mean" or float, default="mean"
        What masked cells become.

    untouched_weight : float, default=1.0
        What the loss of an uncorrupted cell counts; that of a corrupted one counts 1.

    features : Features, default=None
        Moments of the training data, which `informed` puts here.
    """

    corruption: str = "masking"
    noise_level: Any = 0.25
    exact: bool = True
    fill: Any = "mean"
    untouched_weight: Any = 1.0
    features: Features | None = field(default=None, repr=False)

    def informed(self, features: Features) -> DenoisingObjective:
        return replace(self, features=features)

    def corrupt(self, x: Tensor, rng) -> tuple[Tensor, Tensor | None]:
        level = self.noise_level
        if not is_positive(level):
            return x, None
        if self.corruption == "gaussian":
            touched = torch.as_tensor(level > 0, device=x.device)
            return gaussian(x, level, rng), touched.expand_as(x)
        bits = rng.bits(x)
        chosen = choose_cells(level, x, bits, exact=self.exact)
        return replace_cells(x, chosen, self._replacement(x, bits)), chosen

    def _replacement(self, x: Tensor, bits: Tensor) -> Tensor:
        """What takes the place of corrupted cells."""
        if self.corruption == "swap":
            return swapped(x, bits)
        if self.corruption == "salt_and_pepper":
            return salt_and_pepper(*self._ends(x), bits)
        if self.fill != "mean":
            return torch.as_tensor(self.fill).to(x)
        if self.features is None:
            return torch.zeros_like(x)
        return self.features.mean.nan_to_num().to(x)

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and highest values possible, else those that each feature had."""
        low, high = self.loss.domain
        if math.isfinite(low) and math.isfinite(high):
            return x.new_tensor(low), x.new_tensor(high)
        if self.features is None:
            raise ValueError("Salt and pepper needs `features`: see Objective.informed.")
        return self.features.low.to(x), self.features.high.to(x)

    def cell_weight(self, out: Forward) -> Tensor | None:
        observed, beta = super().cell_weight(out), self.untouched_weight
        if not isinstance(beta, Tensor) and beta == 1:
            return observed
        touched = torch.zeros_like(out.x) if out.changed is None else out.changed.to(out.x.dtype)
        weight = beta + (1 - beta) * touched
        return weight if observed is None else weight * observed

    @property
    def noise(self) -> str | None:
        return "noise_level" if is_positive(self.noise_level) else super().noise


@estimator
class DenoisingAutoencoder(BaseAutoencoder):
    r"""Denoising autoencoder: reconstructs clean data from corrupted data.

    Every time a row is seen in training, a new :math:`\tilde x` is drawn from it. With encoder
    :math:`f_\theta` and decoder :math:`g_\theta` it minimises

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \frac{1}{d} \sum_{j=1}^{d}
        c_{ij} \, l\bigl(x_{ij}, g_\theta(f_\theta(\tilde x_i))_j\bigr)
        + \frac{\alpha}{2} \lVert W \rVert^2

    over n samples of d features, l the loss, :math:`c_{ij} = 1` for a corrupted cell and
    `untouched_weight` for another. The error is against the clean x. Validation, `transform`,
    `reconstruct` and scores see X as it is. [1]_ introduced it with masking noise; [2]_ compares
    noises and weights cells. Their losses sum over features and are d times ours.

    **Missing values.** NaN in X is a value never seen, here and after `fit`. It enters as its
    feature's training mean and does not count: the loss of a row is the mean over its observed
    cells, that of a row without any is NaN and weighs nothing. `reconstruct` predicts every cell,
    `impute` only those that are missing. To train on missing values alone, without more noise,
    set ``noise_level=0``. Infinite values are refused.

    Parameters
    ----------
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap"}, default="masking"
        "gaussian" adds N(0, noise_level^2) to every cell. The others replace a share of the
        cells, drawn anew for every row: "masking" by `fill`;
        "salt_and_pepper", by the toss of a fair coin, by the lowest or highest value possible, the
        ends of the output's range where it has two ("binary_cross_entropy", logistic, tanh), else
        of the feature's training values; "swap" by the feature's value in another row of the batch.

    noise_level : float, default=0.25
        For "gaussian" the standard deviation, in the units of X ([2]_: 0.05 to 0.5 for pixels in
        [0, 1]); for the others the share of cells, in [0, 1] ([2]_: 0.1, 0.25 or 0.4). At 0 this
        is the plain `Autoencoder`.

    exact_fraction : bool, default=True
        Whether the share holds in every row, as in [2]_; a fraction of a cell is rounded up or
        down at random. False draws every cell on its own, so that the share holds on average.

    fill : "mean" or float, default="mean"
        What masked cells become: their feature's training mean, as missing values do, or one
        number in the units of X. 0 is that of [1]_ and [2]_, for pixels on a black ground.

    untouched_weight : float, default=1.0
        What the loss of an uncorrupted cell counts where a corrupted one's counts 1: beta / alpha
        in the emphasised loss of [2]_. 1 is no emphasis, 0.5 its double and 0 its full emphasis.
        Gaussian noise leaves no cell untouched.

    keep_empty_features : bool, default=True
        What to do with a feature that has no value in any row (of positive weight) of `fit`:
        True is an error that names it, False leaves it out. The network then sees a constant in
        its place, and results as wide as X hold NaN there, or in `impute` what X has.

    Attributes
    ----------
    statistics_ : ndarray of shape (n_features_in_,)
        Training means over observed values, what missing ones enter as; NaN for a feature that
        is left out.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of a linear encoder of one layer.

    loss_curve_ : list of float
        Mean training loss of every epoch, of corrupted rows, penalties included.

    validation_loss_curve_ : list of float or None
        Loss of the held-out rows, not corrupted, after every epoch, under `early_stopping`.

    References
    ----------
    .. [1] Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features
       with denoising autoencoders", ICML (2008).
    .. [2] Vincent, Larochelle, Lajoie, Bengio and Manzagol, "Stacked denoising autoencoders:
       learning useful representations in a deep network with a local denoising criterion",
       JMLR 11 (2010).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import DenoisingAutoencoder
    >>> X = StandardScaler().fit_transform(load_wine(return_X_y=True)[0])
    >>> hidden = np.random.default_rng(0).random(X.shape) < 0.2
    >>> model = DenoisingAutoencoder(n_components=4, max_iter=100, tol=None, random_state=0)
    >>> X_hat = model.fit(np.where(hidden, np.nan, X)).impute(np.where(hidden, np.nan, X))
    >>> bool(np.mean((X_hat - X)[hidden] ** 2) < np.mean(X[hidden] ** 2))
    True
    """

    corruption: str = "masking"
    noise_level: float = 0.25
    exact_fraction: bool = True
    fill: str | float = "mean"
    untouched_weight: float = 1.0
    keep_empty_features: bool = True

    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "corruption": [StrOptions({"gaussian", "masking", "salt_and_pepper", "swap"})],
        "noise_level": [Interval(Real, 0, None, closed="left")],
        "exact_fraction": ["boolean"],
        "fill": [StrOptions({"mean"}), Interval(Real, None, None, closed="neither")],
        "untouched_weight": [Interval(Real, 0, None, closed="left")],
        "keep_empty_features": ["boolean"],
    }
    _allows_nan = True

    @property
    def statistics_(self) -> np.ndarray:
        """What missing values enter as, of shape (n_features_in_,); NaN where none was seen."""
        check_is_fitted(self)
        return self._features.mean.numpy().copy()

    def _objective(self) -> DenoisingObjective:
        if self.corruption != "gaussian" and self.noise_level > 1:
            raise ValueError(
                f"noise_level={self.noise_level} with corruption={self.corruption!r} is the share "
                "of cells to corrupt: give a number in [0, 1]. Only with corruption='gaussian' is "
                "it a standard deviation."
            )
        if self.untouched_weight == 0 and self.noise_level == 0:
            raise ValueError(
                "untouched_weight=0 trains on corrupted cells only, and noise_level=0 corrupts "
                "none. Raise either."
            )
        return DenoisingObjective(
            **self._shared_terms(),
            corruption=self.corruption,
            noise_level=float(self.noise_level),
            exact=bool(self.exact_fraction),
            fill=self.fill if isinstance(self.fill, str) else float(self.fill),
            untouched_weight=float(self.untouched_weight),
        )

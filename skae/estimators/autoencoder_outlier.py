"""The ready-made outlier detector: an ensemble of small denoising networks."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, validate_data

from skae.activations import ACTIVATIONS
from skae.estimators._bagging import as_source
from skae.estimators._detector import BaseOutlierDetector
from skae.estimators._estimator import estimator
from skae.estimators._input import naming_text
from skae.estimators._making_members import MakesMembers
from skae.estimators._members import Ensemble, in_parts
from skae.estimators._thresholds import RULES


def _judges_rows_of_fit(self) -> bool:
    if self.novelty and self.threshold != "training":
        raise AttributeError(
            "fit_predict is to find outliers among rows that novelty=True takes for normal. Set "
            "novelty=False, or threshold='training'."
        )
    return True


@estimator
class AutoencoderOutlierDetector(MakesMembers, BaseOutlierDetector):
    r"""Flag the rows that an ensemble of denoisers, networks and kernels, reconstructs badly.

    A ready-made detector for tables of numbers. By default half of its members are small networks,
    half kernel denoisers. The networks have no bottleneck: what keeps them from copying a row is
    the noise on their input, N(0, noise_level^2), which they are trained to take off. Rows like
    those of training come back almost unchanged. With e_k the mean squared error of member k over
    the features that it sees, and m_k its median over the training rows, the score is

    .. math::
        s(x) = -\frac{1}{K} \sum_{k=1}^{K} \log \frac{e_k(x)}{m_k}

    and `feature_scores` add up to ``exp(-s)``: 1 for a row as the middle training row, 10 for one
    that is reconstructed ten times worse. All networks are trained in one pass.

    **Kernel denoisers.** `n_kernel_denoisers` of the members are no networks. They reconstruct a
    row as the mean of stored training rows, weighed by ``exp(-|x - p|^2 / (2 bandwidth^2))``: in
    form a denoiser, in substance a method of neighbours. Set it to 0 for networks alone. A row
    that is stored itself is left out, once.

    **What leaves the training rows' range** is shown to the members at the end of the range, and
    counts with its whole distance. A feature that was constant in training has no scale, and a row
    in which it moves has an error of 10 standard deviations at most.

    **Mixed tables.** Put a `ColumnTransformer` in front, whose output is all numbers. **Missing
    values** (NaN) enter as their feature's training mean and do not count.

    Parameters
    ----------
    threshold : str, default="out_of_bag"
        Where `offset_` comes from: "out_of_bag", "training", "held_out", "cross_fitted" or
        "extreme_value", as in `ReconstructionOutlierDetector`. With "out_of_bag" each network
        leaves out a part of the rows, so that every training row is judged by a network that does
        not know it, as a new one would be, and by the range of the other rows: of new normal rows
        about a share `contamination` is flagged, without further fits or rows set apart. It is no
        promise, as "held_out" is. "training" has networks trained on all rows and flags exactly
        that share of them, but far more of new rows where rows are few: half of them at 10 % with
        199 rows of ten features.

    noise_level : float or sequence of float, default=0.15
        Standard deviation of the noise in training, in standard deviations of a feature (under
        ``scale=None``, in the units of X). Several are given to the networks in turn.

    n_estimators : int, default=4
        Number of networks.

    hidden_layer_sizes : int or sequence of int, default=(128, 128)
        Widths of the hidden layers of a network.

    activation : str, default="silu"
        Activation of the hidden layers: "identity", "logistic", "tanh", "relu", "softplus",
        "elu", "silu", "gelu" or "exp".

    n_steps : int, default=500
        Adam's steps, rounded to whole passes over the rows.

    batch_size : int, default=128
        Rows of a step, each network its own; all of them where there are fewer.

    learning_rate_init : float, default=0.002
        Adam's step size at the start; it falls linearly to zero.

    n_kernel_denoisers : int, default=4
        Number of kernel denoisers among the members. The first, third, ... see the features as the
        networks do, the others by their ranks: as normal scores, the standard normal quantiles of
        their mid-ranks.

    bandwidth : float or sequence of float, default=0.4
        Of all kernel denoisers, or of pairs of them in turn, in standard deviations of a feature
        (under ``scale=None``, in the units of X; of ranks, in root mean square deviations of X).

    n_prototypes : int, default=2048
        Sample rows that a kernel denoiser stores, at most, drawn at random.

    max_features : float, default=1.0
        Share in (0, 1] of the features that a member sees, drawn at random so that all are seen
        equally often, and rounded up: to as many as let the networks together, and the kernel
        denoisers together, see every feature.

    max_samples : int or float, default=None
        Rows, or the share of the rows, that each member is made from, drawn at random. None is
        all of them, or 64 under ``novelty=False``.

    novelty : bool, default=True
        Whether X of `fit` is normal, and outliers are looked for in new data. Set it to False where
        X has outliers itself, unlabelled, which are to be found, as in `LocalOutlierFactor`:
        members are then made from few rows each, and every row is scored by those that have not
        seen it, in `calibration_scores_` and by `fit_predict`.

    trim_fraction : float, default=0.3
        Under ``novelty=False``, the share in [0, 1) of the rows that no member is made from: those
        which a first pass, of kernel denoisers of 32 rows each, finds oddest.

    scale : {"standard"} or None, default="standard"
        Whether to bring every feature to mean 0 and variance 1 first, as `StandardScaler` does.

    precision : {"float32", "float64"}, default="float32"
        Arithmetic in training. Scores are always computed in float64.

    Attributes
    ----------
    estimator_ : object
        The fitted members.

    See Also
    --------
    ReconstructionOutlierDetector : The same of any autoencoder, `PCA` and the like.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skae import AutoencoderOutlierDetector
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> detector = AutoencoderOutlierDetector(contamination=0.05, random_state=0)
    >>> malignant, benign = X[y == 0], X[y == 1]
    >>> float((detector.fit(benign).predict(malignant) == -1).mean()) > 0.7
    True
    >>> why = detector.explain(malignant[:1], n_features=3)
    """

    threshold: str = "out_of_bag"
    noise_level: Any = 0.15
    n_estimators: int = 4
    hidden_layer_sizes: Any = (128, 128)
    activation: str = "silu"
    n_steps: int = 500
    batch_size: int = 128
    learning_rate_init: float = 2e-3
    n_kernel_denoisers: int = 4
    bandwidth: Any = 0.4
    n_prototypes: int = 2048
    max_features: float = 1.0
    max_samples: Any = None
    novelty: bool = True
    trim_fraction: float = 0.3
    scale: str | None = "standard"
    precision: str = "float32"

    _parameter_constraints = {
        **BaseOutlierDetector._parameter_constraints,
        "threshold": [StrOptions(set(RULES))],
        "noise_level": [Interval(Real, 0, None, closed="left"), "array-like"],
        "n_estimators": [Interval(Integral, 0, None, closed="left")],
        "hidden_layer_sizes": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "n_kernel_denoisers": [Interval(Integral, 0, None, closed="left")],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "n_prototypes": [Interval(Integral, 1, None, closed="left")],
        "max_features": [Interval(Real, 0, 1, closed="right")],
        "max_samples": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
            None,
        ],
        "novelty": ["boolean"],
        "trim_fraction": [Interval(Real, 0, 1, closed="left")],
        "scale": [StrOptions({"standard"}), None],
        "precision": [StrOptions({"float32", "float64"})],
    }

    def _validated(self, X: Any, *, reset: bool) -> Any:
        with naming_text(X):
            return validate_data(
                self, X, reset=reset, accept_sparse="csr", dtype=[np.float64, np.float32],
                ensure_all_finite="allow-nan",
            )  # fmt: skip

    # ---- scores

    def _scores_by(self, model: Ensemble, X: Any) -> np.ndarray:
        return in_parts(as_source(X), model.scores, model.widest)

    def _training_scores_by(self, model: Ensemble, X: Any) -> np.ndarray:
        errors = self._known_errors(model, as_source(X))
        logs = torch.from_numpy(self._unseen(errors, model.members))
        if self._leaves_out:  # one network stands for all of them
            n = sum(member.is_network for member in model.members)
            logs[:, :n] = logs[:, :n].nanmean(1, keepdim=True)
        return -logs.nanmean(1).numpy()  # without a warning of empty rows

    def _cells_by(self, model: Ensemble, X: Any) -> np.ndarray:
        return in_parts(as_source(X), model.cells, model.widest)

    def _reconstructions_by(self, model: Ensemble, X: Any) -> np.ndarray:
        return in_parts(as_source(X), model.reconstructions, model.widest)

    @available_if(_judges_rows_of_fit)
    def fit_predict(self, X, y=None, **kwargs):
        """Fit to X, and tell which of its rows are normal.

        Only under ``novelty=False`` or ``threshold="training"``: otherwise all rows of `fit` are
        taken for normal, as in `LocalOutlierFactor`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        y : None
            Ignored.

        **kwargs : dict
            What `fit` takes.

        Returns
        -------
        label : ndarray of shape (n_samples,)
            +1 for normal rows, -1 for outliers. Under ``novelty=False`` each row is judged by its
            score in `calibration_scores_`, of members that have not seen it, where every row has
            one: not under ``threshold="held_out"`` and "extreme_value". Else it is as `predict` has
            it, which asks all members.
        """
        self.fit(X, y, **kwargs)
        if (
            self.novelty
            or self._source == "held_out"
            or len(self.calibration_scores_) != _num_samples(X)
        ):
            return self.predict(X)
        return np.where(self.calibration_scores_ < self.offset_, -1, 1)

    def feature_scores(self, X):
        """What every feature adds to the error of a row: high for what is out of place.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_features)
            They add up to ``exp(-score_samples(X))``, the geometric mean over members of how often
            a row's error has the median training row's in it. A feature's share in that is the
            mean of its shares in the members' errors. A missing value adds 0; a row without any
            value is NaN.
        """
        return super().feature_scores(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags

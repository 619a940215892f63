"""The ready-made outlier detector: an ensemble of small denoising networks."""

from __future__ import annotations

import functools
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, validate_data
from torch import Tensor

from skae._engine.batches import Scaled
from skae._warnings import warn_caller
from skae.activations import ACTIVATIONS
from skae.estimators._bagging import (
    Sample,
    as_source,
    copies_of,
    draw_all_but,
    draw_columns,
    draw_rows,
    has_value,
    in_turn,
    known_of,
    left_out_of_last,
    medians,
    out_of_bag,
    ranked,
)
from skae.estimators._build import layer_sizes
from skae.estimators._detector import BaseOutlierDetector
from skae.estimators._estimator import estimator
from skae.estimators._input import feature_label, naming_text
from skae.estimators._kernel_denoiser import KernelDenoiser
from skae.estimators._members import Design, Ensemble, Member, in_parts, train_networks
from skae.estimators._scaling import View, scaling_of
from skae.estimators._thresholds import RULES
from skae.estimators.denoising import DenoisingObjective
from skae.losses import SquaredError

# Under novelty=False: rows of a member, so few that most of them hold no outlier; and of the first
# pass, whose members are for ranking alone.
_FEW_ROWS, _FEWEST_ROWS, _FIRST_MEMBERS = 64, 32, 32


def _judges_rows_of_fit(self) -> bool:
    if self.novelty and self.threshold != "training":
        raise AttributeError(
            "fit_predict is to find outliers among rows that novelty=True takes for normal. Set "
            "novelty=False, or threshold='training'."
        )
    return True


@estimator
class AutoencoderOutlierDetector(BaseOutlierDetector):
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
    threshold : {"out_of_bag", "training", "held_out", "cross_fitted", "extreme_value"}, \
            default="out_of_bag"
        Where `offset_` comes from. With "out_of_bag" each network leaves out a part of the rows, so
        that every training row is judged by a network that does not know it, as a new one would
        be: of new normal rows about a share `contamination` is flagged, without further fits or
        rows set apart. It is no exact promise, as "held_out" is: 12 % came out at 10 % with 199
        rows of ten features. "training" has networks trained on all rows and flags exactly that
        share of them, but far more of new rows where rows are few: half of them in that case.

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
    >>> float((detector.fit(benign).predict(malignant) == -1).mean()) > 0.8
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

    # ---- training

    def _objective(self, level: float | None = None) -> DenoisingObjective:
        """What a network optimises, under the noise of the first one unless told."""
        if level is None:
            level = in_turn(self.noise_level, 1, "noise_level", 0.0)[0]
        return DenoisingObjective(loss=SquaredError(), corruption="gaussian", noise_level=level)

    def _bandwidths(self, n: int) -> list[float]:
        """Those of n kernel denoisers: a pair, of one for each view, has one in common."""
        of_pairs = in_turn(self.bandwidth, -(-n // 2), "bandwidth", np.nextafter(0, 1))
        return [tau for tau in of_pairs for _ in range(2)][:n]

    def _fit_model(self, X: Any, weight: np.ndarray | None, seeds: Any, tasks: Any) -> Ensemble:
        levels = in_turn(self.noise_level, self.n_estimators, "noise_level", 0.0)
        taus = self._bandwidths(self.n_kernel_denoisers)
        if not levels and not taus:
            raise ValueError(
                "n_estimators=0 and n_kernel_denoisers=0 leave no member. Raise either."
            )
        if self._leaves_out and len(levels) == 1:
            raise ValueError(
                "threshold='out_of_bag' judges a row by networks that were trained without it, but "
                "n_estimators=1. Have two at least, or use threshold='held_out'."
            )
        sample = self._read(X, weight)
        if self.novelty:
            return self._ensemble(sample, levels, taus, self._n_rows(len(sample.places)), seeds)
        sample = self._trimmed(sample, X, seeds)
        few = self._n_rows(len(sample.places), _FEW_ROWS)
        model = self._ensemble(sample, levels, taus, few, seeds)
        known = functools.reduce(np.intersect1d, [member.rows for member in model.members])
        if len(known):
            warn_caller(
                f"All members were made from {len(known)} of the rows, which are scored by members "
                "that know them and so look more normal than others. Lower max_samples, or have "
                "more members (n_estimators, n_kernel_denoisers)."
            )
        return model

    def _trimmed(self, sample: Sample, X: Any, seeds: Any) -> Sample:
        """The rows without those that kernel denoisers of a few others reconstruct worst."""
        few = self._n_rows(len(sample.places), _FEWEST_ROWS)
        first = self._ensemble(sample, [], self._bandwidths(_FIRST_MEMBERS), few, seeds)
        scores = self._training_scores_by(first, X)[sample.places]
        n_left_out = int(self.trim_fraction * len(scores))
        return sample.take(np.sort(np.argsort(scores, kind="stable")[n_left_out:]))

    def _ensemble(
        self, sample: Sample, levels: list[float], taus: list[float], n_rows: int, seeds: Any
    ) -> Ensemble:
        # Rows are drawn last: all else is then the same for repeated rows and for weights.
        own = [int(seed) for seed in seeds.randint(2**31 - 1, size=len(levels))]
        of_networks, of_kernels = (
            draw_columns(sample.source.d, self.max_features, len(each), seeds)
            for each in (levels, taus)
        )
        members = []
        if levels:
            members += self._networks(sample, levels, of_networks, n_rows, own, seeds, not taus)
        views = [sample.scaling, ranked(sample, seeds)] if len(taus) > 1 else [sample.scaling]
        before = [member.rows for member in members]
        members += self._kernels(sample, taus, of_kernels, views, n_rows, seeds, before)
        model = Ensemble(views, members, (sample.unit, 1.0))
        errors = in_parts(sample.source, model.log_errors, model.widest)
        errors = self._unseen(errors, members)
        model.log_medians = torch.from_numpy(medians(errors, sample.weight))
        model.members = [
            member._replace(rows=sample.places[member.rows]) for member in model.members
        ]
        return model

    def _read(self, X: Any, weight: np.ndarray | None) -> Sample:
        source = as_source(X)
        used = has_value(source) if weight is None else has_value(source) & (weight > 0)
        places = np.flatnonzero(used)
        if not len(places):
            raise ValueError("No row of positive weight has a value: all that X holds is missing.")
        if len(places) < source.n:
            source = source.subset(torch.from_numpy(places))
        w = copies = None
        if weight is not None:
            own = weight[places]
            w, copies = torch.from_numpy(own / own.mean()), copies_of(own)
        standard = scaling_of(source, w)
        scaling = standard.in_units_of_X() if self.scale is None else standard
        empty = scaling.center.isnan().nonzero()
        if len(empty):
            names = ", ".join(feature_label(self, int(i)) for i in empty)
            raise ValueError(
                f"There is nothing to learn from {names}: no row (of positive weight) has a value. "
                "Drop such columns."
            )
        return Sample(source, w, copies, places, standard, scaling)

    def _networks(
        self, sample: Sample, levels: list[float], columns: Tensor, n_rows: int,
        own: list[int], seeds: Any, are_all: bool,
    ) -> list[Member]:  # fmt: skip
        most = min(n_rows, self.n_steps * self.batch_size)  # no step would see more
        if self._leaves_out or (are_all and not self.novelty):
            each = draw_all_but(sample.source.n, most, len(own), seeds)
        else:
            each = [draw_rows(sample.source.n, most, seeds) for _ in own]
        rows = torch.from_numpy(np.stack(each))
        design = Design(
            layer_sizes(self.hidden_layer_sizes), self.activation, int(self.n_steps),
            min(int(self.batch_size), len(each[0])), float(self.learning_rate_init),
            getattr(torch, self.precision),
        )  # fmt: skip
        scaling = sample.scaling
        scaled = Scaled(sample.source, scaling.center, scaling.scale, design.dtype)
        known = known_of(sample, rows, columns, design.dtype)
        objectives = [self._objective(level) for level in levels]
        networks = train_networks(design, objectives, scaled, rows, columns, known, own)
        parts = zip(networks, columns, rows.numpy(), strict=True)
        return [Member(network, 0, *own_parts) for network, *own_parts in parts]

    def _kernels(
        self, sample: Sample, taus: list[float], columns: Tensor, views: list[View],
        n_rows: int, seeds: Any, before: list[np.ndarray],
    ) -> list[Member]:  # fmt: skip
        """Kernel denoisers, which take the views in turn; `before`, other members' rows."""
        source, members = sample.source, []
        most = min(n_rows, int(self.n_prototypes))
        each = [draw_rows(source.n, most, seeds) for _ in taus]
        if each and not self.novelty:
            each[-1] = left_out_of_last([*before, *each], source.n)
        for k, (tau, own) in enumerate(zip(taus, columns, strict=True)):
            at, view = k % len(views), views[k % len(views)]
            rows = np.sort(each[k])
            index = torch.from_numpy(rows)
            prototypes = view.within(view.forward(source.take(index)))[:, own]
            weight, copies = (w if w is None else w[index] for w in (sample.weight, sample.copies))
            own_tau = tau / sample.unit if at else tau
            denoiser = KernelDenoiser(prototypes, own_tau, weight, copies)
            members.append(Member(denoiser, at, own, rows))
        return members

    def _n_rows(self, n: int, few: int | None = None) -> int:
        """How many of n rows a member may see; without `max_samples` all, or few of them."""
        if self.max_samples is None:
            return n if few is None else min(few, -(-n // 2))
        if isinstance(self.max_samples, Integral):
            return min(n, int(self.max_samples))
        return max(1, round(self.max_samples * n))

    # ---- scores

    def _scores_by(self, model: Ensemble, X: Any) -> np.ndarray:
        return in_parts(as_source(X), model.scores, model.widest)

    @property
    def _leaves_out(self) -> bool:
        """Whether every row is left out by a network, by which it is then judged."""
        return self.novelty and self.threshold == "out_of_bag"

    def _unseen(self, errors: np.ndarray, members: list[Member]) -> np.ndarray:
        """Errors of the training rows, (n, K), NaN where a member knows the row too well.

        A kernel denoiser leaves a row out of its own reconstruction, but is made from few others.
        """
        if not self.novelty:
            return out_of_bag(errors, [member.rows for member in members])
        networks = [member.rows for member in members if member.is_network]
        if self._leaves_out and networks:
            errors[:, : len(networks)] = out_of_bag(errors[:, : len(networks)], networks)
        return errors

    def _training_scores_by(self, model: Ensemble, X: Any) -> np.ndarray:
        errors = in_parts(as_source(X), model.log_errors, model.widest)
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

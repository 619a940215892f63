"""The k-sparse autoencoder: a linear code of which the k largest units stay."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from torch import Tensor

from skae._engine.train import FULL_BATCH
from skae.estimators._base import BaseAutoencoder
from skae.estimators._estimator import estimator
from skae.latents import keep_largest, keep_largest_of_batch, largest, whole
from skae.objective import Forward, Objective, is_positive

_FALL = 0.5  # of the schedule's horizon, over which k falls (the paper's first half of the epochs)
_START = 4  # times k: the paper starts k = 15 at 100; of 2, 4 and 8 the best codes on MNIST
_AUXILIARY = 1 / 32  # Gao et al.
_THRESHOLD_RATE = 0.05  # of a batch in the running threshold: about the last twenty count
_ROUNDING = 1e-6  # epochs are sums of batches' shares


@dataclass(frozen=True, kw_only=True)
class KSparse(Objective):
    """Reconstruction from the k largest units of the code, and the revival of dead ones.

    ``z = supp_k(h)`` keeps the k largest of h, with their sign: the only non-linearity.

    Parameters
    ----------
    k : float, default=None
        Units that stay; None is the root of the code's width, rounded up.

    k_start : float, default=None
        The k that training begins with. None is 4 k, or the whole code.

    falls : bool, default=True
        Whether k falls from k_start to k in training; otherwise it is constant.

    alpha_k : float, default=1.0
        `encode` keeps alpha_k k units.

    selection : {"row", "batch"}, default="row"
        Whether every row keeps k units, or a batch of n rows n k of them.

    dead_after : float, default=1.0
        Epochs without activity after which a unit is dead.

    auxiliary : float, default=0.0
        Weight of the dead units' reconstruction of the residual (a single-layer decoder's).

    threshold : float, default=None
        Under "batch" what `encode` keeps: values from here on. It is learned.
    """

    k: Any = None
    k_start: Any = None
    falls: bool = True
    alpha_k: Any = 1.0
    selection: str = "row"
    dead_after: Any = 1.0
    auxiliary: Any = 0.0
    threshold: Any = None

    # ---- the code

    def latent(self, h, rng):
        return self._keep(h, self.k_at(rng.progress, h.shape[-1]))

    def support(self, h, rng):
        k = self.k_at(rng.progress, h.shape[-1])
        return largest(h, k, of_batch=self.selection == "batch")

    def latent_gradient(self, d_z, h, z):
        return d_z * (z != 0)

    def encode(self, h):
        if self.threshold is not None:
            return h * (h >= self.threshold)
        return keep_largest(h, self.alpha_k * self._k(h.shape[-1]))

    def k_at(self, progress: float, width: int) -> Any:
        """Units that stay when this fraction of the schedule has passed."""
        k = self._k(width)
        return k + (self._k_start(width) - k) * max(0.0, 1 - progress / _FALL)

    def _keep(self, h: Tensor, k: Any) -> Tensor:
        return keep_largest(h, k) if self.selection == "row" else keep_largest_of_batch(h, k)

    def _k(self, width: int) -> Any:
        return math.ceil(math.sqrt(width)) if self.k is None else self.k

    def _k_start(self, width: int) -> Any:
        if not self.falls:
            return self._k(width)
        if self.k_start is not None:
            return self.k_start
        start = _START * self._k(width)
        return start.clamp(max=width) if isinstance(start, Tensor) else min(start, width)

    @property
    def settled(self) -> float:  # type: ignore[override]
        if None in (self.k, self.k_start):
            return _FALL if self.falls else 0.0
        return _FALL if self.falls and is_positive(self.k_start - self.k) else 0.0

    @property
    def mixes_rows(self) -> bool:  # type: ignore[override]
        return self.selection == "batch"

    # ---- what is learned of the units

    def init_state(self, d, k):
        _check_k(self._k(k), self._k_start(k), k)
        state = {"idle": torch.zeros(k, dtype=torch.float64)}
        if self.selection == "batch":
            zero = torch.zeros((), dtype=torch.float64)
            state |= {"threshold": zero, "batches": zero.clone()}
        return state

    def update(self, state, out):
        active = out.z != 0
        if out.rows.weight is not None:  # a row of weight zero is no row
            active &= (out.rows.weight > 0).unsqueeze(-1)
        idle = (state["idle"] + out.share).masked_fill(active.any(-2), 0.0)
        new = {"idle": idle}
        return new | self._threshold(state, out) if self.selection == "batch" else new

    def _threshold(self, state: Mapping[str, Tensor], out: Forward) -> dict[str, Tensor]:
        """The running mean of the smallest positive value that a batch keeps, by the final k."""
        z = self._kept_for_good(out)
        least = z.masked_fill(z <= 0, math.inf).amin((-2, -1)).double()
        found = least.isfinite()
        # While k falls only the last batch counts.
        batches = state["batches"] * (out.progress >= self.settled) + found
        rate = (1 / batches.clamp(min=1)).clamp(min=_THRESHOLD_RATE)
        step = rate * torch.where(found, least - state["threshold"], 0.0)
        return {"threshold": state["threshold"] + step, "batches": batches}

    def _kept_for_good(self, out: Forward) -> Tensor:
        """The alpha_k k largest values for each row that counts, of all of these rows."""
        k, weight = self.alpha_k * self._k(out.h.shape[-1]), out.rows.weight
        if weight is None:
            return keep_largest_of_batch(out.h, k)
        counts = (weight > 0).unsqueeze(-1)
        h = out.h.masked_fill(~counts, 0.0).flatten(-2)
        each = whole(k)
        each = each.squeeze(-1) if isinstance(each, Tensor) else each
        return keep_largest(h, counts.sum(-2) * each).view_as(out.h)

    def learned(self, state):
        if self.selection == "row":
            return self
        threshold: Any = state["threshold"]
        threshold = threshold[..., None, None] if threshold.ndim else float(threshold)
        return dataclasses.replace(self, threshold=threshold)

    def dead(self, state: Mapping[str, Tensor]) -> Tensor:
        """Which units are dead, of shape (..., 1, width)."""
        return state["idle"].unsqueeze(-2) >= self.dead_after - _ROUNDING

    # ---- their revival

    def penalty(self, out, net):
        aux = self._auxiliary(out, net)
        return None if aux is None else (aux.scale * aux.r.square()).mean(-1)

    def penalty_gradient(self, out, net, share):
        aux = self._auxiliary(out, net)
        if aux is None:
            return None, {}
        g = (-2 / out.x.shape[-1]) * share * aux.scale * aux.r
        d_h = torch.zeros_like(out.h)
        d_h[..., aux.units] = (g @ aux.W) * (aux.u != 0)
        d_W = torch.zeros_like(net[aux.name])
        (d_W.mT if aux.tied else d_W)[..., aux.units] = g.mT @ aux.u
        return d_h, {aux.name: d_W}

    def _auxiliary(self, out: Forward, net: Mapping[str, Tensor]) -> _Auxiliary | None:
        """What the dead units make of the residual; None where none is dead."""
        if not is_positive(self.auxiliary):
            return None
        dead, d = self.dead(out.state), out.x.shape[-1]
        index = dead.flatten(0, -2).any(0).nonzero().squeeze(-1)
        if not len(index):
            return None
        name, tied = _last_decoder_weight(net)
        W = (net[name].mT if tied else net[name])[..., index]
        h = out.h[..., index].masked_fill(~dead[..., index], -math.inf)
        u = keep_largest(h, max(1, d // 2))  # as many as Gao et al. take
        u = u.masked_fill(u == -math.inf, 0.0)
        e = (out.x - self.loss.predict(out.raw)).detach()
        cells = self.cell_weight(out)
        weight = torch.ones_like(e) if cells is None else cells
        loss = self.data_loss(out.x, out.raw, cells).detach().unsqueeze(-1)
        relative = (loss / (weight * e.square()).mean(-1, keepdim=True)).nan_to_num(0.0, 0.0)
        strength = self.auxiliary * dead.any(-1, keepdim=True).to(
            e
        )  # of a stack some may have none
        return _Auxiliary(name, tied, index, W, u, e - u @ W.mT, strength * relative * weight)


class _Auxiliary(NamedTuple):
    """The dead units' part in the decoder, and what they leave of the residual."""

    name: str  # of the decoder's weight,
    tied: bool  # which may be the encoder's
    units: Tensor  # (D,)  units that are dead, in any of the models
    W: Tensor  # (..., d, D)  their columns in the decoder
    u: Tensor  # (..., n, D)  the largest of their values, zero elsewhere
    r: Tensor  # (..., n, d)  the residual less u W^T
    scale: Tensor  # (..., n, d)  what a cell's square counts


def _last_decoder_weight(net: Mapping[str, Tensor]) -> tuple[str, bool]:
    """The name of the decoder's only weight, and whether it is the encoder's."""
    own = [name for name in net if name.startswith("decoder.")]
    return (own[-1], False) if own else ("encoder.0.W", True)


def _check_k(k: Any, k_start: Any, width: int) -> None:
    """Raise unless k <= k_start <= the code's width."""
    for name, value in (("k", k), ("k_start", k_start)):
        if is_positive(value - width):
            raise ValueError(
                f"{name}={value:g} is larger than the code, which has {width} units. Lower "
                f"{name}, or raise n_components."
            )
    if is_positive(k - k_start):
        raise ValueError(
            f"k_start={k_start:g} is smaller than k={k:g}, but k falls from k_start to k. Raise "
            "k_start, or leave it None."
        )


@estimator
class KSparseAutoencoder(BaseAutoencoder):
    r"""Autoencoder with a linear, k-sparse code: its k largest units stay, the others are zero.

    With the support of the k largest units, :math:`\mathrm{supp}_k`, it minimises

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \frac{1}{d} \lVert x_i - \hat x_i \rVert^2, \qquad
        \hat x = W^\top z + b', \quad z = \mathrm{supp}_k(h), \quad h = W x + b

    over n samples of d features [1]_. Choosing the k largest (with their sign, not in magnitude)
    is the only non-linearity: the gradient passes through the units that stay, and three units
    already divide the plane. The paper sums squared errors over features, which is d times ours.
    Any loss and hidden layers around the code are allowed; the paper has neither.

    A unit that is never among the largest gets no gradient. Against such dead units k falls to
    its value from a larger one (section 4.2.1), and dead ones are taught what the others miss
    [2]_: with u the values of the d / 2 largest among them and e = x - x^, a constant,

    .. math::
        c \, \frac{\ell(x, \hat x)}{\lVert e \rVert^2} \lVert e - W^\top u \rVert^2

    is added to a sample's loss :math:`\ell`, with c = `auxiliary`. (For the squared error that is
    c times the mean over features of (e - W^T u)^2; Gao et al. divide both errors by the size of
    what they reconstruct.)

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=()
        Widths of the encoder's hidden layers; the decoder mirrors them. None by default, as in
        the paper.

    code_activation : str, default="identity"
        The code is linear: anything but "identity" is refused.

    tied_weights : bool, default=True
        Use the encoder's weights, transposed, in the decoder: then choosing the largest units is
        the first step of sparse recovery with the dictionary W (section 3).

    k : int, default=None
        Units that stay, at most the code's width. None is the root of the width, rounded up: 32
        of 1000, between the paper's best values for MNIST.

    k_start : int, default=None
        The k that training begins with, from where it falls linearly to `k` in the first half
        of the schedule (`learning_rate_horizon`, or `max_iter` of this call); stopping by `tol`
        starts then. None is 4 k, or the width if that is less; the paper starts k = 15 at 100.
        Give `k` for a constant one, which is what None means with "lbfgs" and "cg".

    alpha_k : float, default=1.0
        Once trained, `transform` and `reconstruct` keep alpha_k k units, rounded up: the paper's
        alpha, at least 1, chosen by the classifier on the codes (3 on MNIST with k = 25). With
        "row" selection `set_params` changes it without another `fit`; with "batch" the threshold
        is learned for it, and another one is refused until then.

    selection : {"row", "batch"}, default="row"
        "row" keeps k units of every row. "batch" keeps the n k largest of a batch of n rows [3]_
        in training; afterwards every value from a threshold on, which is the running mean of the
        smallest positive value that a batch kept, so that the code of a row is a function of it
        alone. How many units a row keeps then varies. Rows of weight zero compete in training,
        but have no say on the threshold.

    auxiliary : float, default=None
        Weight c of the dead units' reconstruction of the residual; 0 is the plain k-sparse
        autoencoder. None is 1 / 32 [2]_, and 0 where it is not defined: a decoder with hidden
        layers or of one's own cannot add parts up, and "lbfgs" and "cg" need an objective that
        stays the same.

    dead_after : float, default=1.0
        Epochs in which no row activates a unit until it counts as dead.

    Attributes
    ----------
    encoder_, decoder_ : torch.nn.Module
        The trained network: an ordinary torch module each, in the units of X. The choice of
        units lies between them.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of an encoder of one layer.

    dead_fraction_ : float
        Share of the units that no row has activated for `dead_after` epochs of training.

    objective_ : Objective
        What was optimised, with the learned threshold.

    References
    ----------
    .. [1] Makhzani and Frey, "k-Sparse Autoencoders", ICLR 2014, arXiv:1312.5663, section 2.2.

    .. [2] Gao et al., "Scaling and evaluating sparse autoencoders", 2024, arXiv:2406.04093 (AuxK).

    .. [3] Bussmann, Leask and Nanda, "BatchTopK Sparse Autoencoders", 2024, arXiv:2412.06410.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import KSparseAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = KSparseAutoencoder(n_components=100, k=5, max_iter=10, tol=None, random_state=0)
    >>> codes = model.fit_transform(X)
    >>> set((codes != 0).sum(axis=1).tolist())
    {5}
    """

    hidden_layer_sizes: tuple[int, ...] = ()
    code_activation: str = "identity"
    tied_weights: bool = True
    k: int | None = None
    k_start: int | None = None
    alpha_k: float = 1.0
    selection: str = "row"
    auxiliary: float | None = None
    dead_after: float = 1.0

    _parameter_constraints = BaseAutoencoder._parameter_constraints | {
        "k": [Interval(Integral, 1, None, closed="left"), None],
        "k_start": [Interval(Integral, 1, None, closed="left"), None],
        "alpha_k": [Interval(Real, 0, None, closed="neither")],
        "selection": [StrOptions({"row", "batch"})],
        "auxiliary": [Interval(Real, 0, None, closed="left"), None],
        "dead_after": [Interval(Real, 0, None, closed="neither")],
    }

    def _objective(self) -> Objective:
        if self.code_activation != "identity":
            raise ValueError(
                f"code_activation={self.code_activation!r}, but a k-sparse code is linear: keeping "
                "its k largest units is the only non-linearity. Leave code_activation='identity'."
            )
        if self.k_start is not None and self.k_start != self.k:
            self._refuse_change(f"k_start={self.k_start}", "leave k_start=None")
        return KSparse(
            **self._shared_terms(),
            k=None if self.k is None else float(self.k),
            k_start=None if self.k_start is None else float(self.k_start),
            falls=self.solver not in FULL_BATCH,
            alpha_k=float(self.alpha_k),
            selection=self.selection,
            dead_after=float(self.dead_after),
            auxiliary=self._weight_of_auxiliary(),
        )

    def _weight_of_auxiliary(self) -> float:
        adds_up = not np.size(self.hidden_layer_sizes) and self.decoder is None
        if self.auxiliary is None:
            return _AUXILIARY if adds_up and self.solver not in FULL_BATCH else 0.0
        if self.auxiliary > 0:
            self._refuse_change(f"auxiliary={self.auxiliary}", "set auxiliary=0")
        if self.auxiliary > 0 and not adds_up:
            raise ValueError(
                f"auxiliary={self.auxiliary} adds the dead units' reconstruction to that of the "
                "others, which needs a decoder of one layer. Leave hidden_layer_sizes=() and "
                "decoder=None, or set auxiliary=0."
            )
        return float(self.auxiliary)

    def _refuse_change(self, given: str, instead: str) -> None:
        if self.solver in FULL_BATCH:
            raise ValueError(
                f"solver={self.solver!r} needs an objective that stays the same, but {given} "
                f"changes it as training goes on. Use solver='adam' or 'sgd', or {instead}."
            )

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"dead_fraction_": float(self._objective().dead(state).double().mean())}  # type: ignore[attr-defined]

    def _coding(self) -> KSparse:
        """The objective with the present `alpha_k`, which may have been set after training."""
        fitted: KSparse = self.objective_
        if self.alpha_k == fitted.alpha_k:
            return fitted
        constraint = {"alpha_k": self._parameter_constraints["alpha_k"]}
        validate_parameter_constraints(constraint, {"alpha_k": self.alpha_k}, type(self).__name__)
        if fitted.selection == "batch":
            raise ValueError(
                f"alpha_k={self.alpha_k}, but the threshold of selection='batch' was learned with "
                f"alpha_k={fitted.alpha_k}. Fit again, or set alpha_k back."
            )
        return dataclasses.replace(fitted, alpha_k=float(self.alpha_k))

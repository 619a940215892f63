"""The sparse autoencoder: code units that are seldom active."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.train import FULL_BATCH, Result
from skae.activations import ACTIVATIONS
from skae.estimators._base import BaseAutoencoder
from skae.estimators._bounded import bounded_activation, check_codes
from skae.estimators._estimator import estimator
from skae.networks import Network
from skae.objective import Forward, Objective, Rows
from skae.penalties import (
    any_weight,
    bernoulli_kl,
    bernoulli_kl_slope,
    mean_activation,
    row_shares,
)

_ASKS = ("penalty='kl'", "penalty='l1'")  # for bounded codes; and what does not


@dataclass(frozen=True, kw_only=True)
class Sparsity(Objective):
    """What the sparsity penalties share: a strength, and the mean activation of every unit.

    Parameters
    ----------
    beta : float, default=0.1
        Weight of the penalty, a sum over units.
    """

    beta: Any = 0.1

    def activity(self, h: Tensor, weight: Tensor | None) -> Tensor:
        """rho^, the mean over these rows, of shape (..., 1, k)."""
        return mean_activation(h, weight)

    def init_state(self, d, k):
        return {"rho_hat": torch.zeros(k)}

    def update(self, state, out):
        weight = out.rows.weight
        rho_hat = self.activity(out.h, weight).squeeze(-2)
        if weight is not None:
            rho_hat = torch.where(any_weight(weight) > 0, rho_hat, state["rho_hat"])  # type: ignore[arg-type]
        return {**state, "rho_hat": rho_hat}


@dataclass(frozen=True, kw_only=True)
class KLSparsity(Sparsity):
    """``beta sum_j KL(rho || rho^_j)``, rho^ the (weighted) mean activation of the batch.

    Parameters
    ----------
    rho : float, default=0.05
        Mean activation to aim at, in (0, 1).

    code_activation : {"logistic", "tanh"}, default="logistic"
        Its range is what rho^ in (0, 1) is measured in.
    """

    rho: Any = 0.05
    code_activation: str = "logistic"

    penalises_batch = True
    mixes_rows = True

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest activation: what rho^ = 0 and 1 stand for."""
        return ACTIVATIONS[self.code_activation].range

    def activity(self, h, weight):
        low, high = self.bounds
        mean = mean_activation(h, weight)
        return mean if (low, high) == (0, 1) else (mean - low) / (high - low)

    def rho_hat(self, out: Forward) -> Tensor:
        """The mean activation that is compared with rho."""
        return self.activity(out.h, out.rows.weight)

    def penalty(self, out, net):
        return self._of(self.rho_hat(out), out.rows.weight)

    def _of(self, rho_hat: Tensor, weight: Tensor | None) -> Tensor:
        return (self.beta * bernoulli_kl(self.rho, rho_hat)).sum(-1) * any_weight(weight)

    def penalty_and_gradient(self, out, net, share):
        (low, high), weight, rho_hat = self.bounds, out.rows.weight, self.rho_hat(out)
        slope = bernoulli_kl_slope(self.rho, rho_hat) * (self.beta / (high - low))
        d_h = (share * slope * row_shares(weight, out.h)).expand_as(out.h)
        return self._of(rho_hat, weight), d_h, {}


@dataclass(frozen=True, kw_only=True)
class RunningKLSparsity(KLSparsity):
    """The same with rho^ averaged over the batches so far.

    The gradient takes the slope at the average and counts the present batch in full, not by its
    share 1 - decay of the average: so beta means the same whatever the decay.

    Parameters
    ----------
    decay : float, default=0.9
        What the average keeps of itself at every batch.
    """

    decay: Any = 0.9

    def init_state(self, d, k):
        # A sum and its mass, as Adam's, so that the first batches are not drawn to the start.
        return {**super().init_state(d, k), "sum": torch.zeros(k), "mass": torch.zeros(1)}

    def _with(
        self, state: Mapping[str, Tensor], batch: Tensor, weight: Tensor | None
    ) -> dict[str, Tensor]:
        """The average, its sum and its mass with this batch, of shape (..., 1, k or 1).

        A batch without any weight leaves them as they were.
        """
        before = (state[name].to(batch.dtype).unsqueeze(-2) for name in ("sum", "mass"))
        here = any_weight(weight)
        here = here if weight is None else here.unsqueeze(-1)  # type: ignore[union-attr]
        decay = self.decay * here + (1 - here)
        total, mass = (decay * part for part in before)
        total, mass = total + (1 - decay) * batch, mass + (1 - decay)
        average = total / mass.clamp(min=torch.finfo(mass.dtype).tiny)
        return {"rho_hat": average, "sum": total, "mass": mass}

    def update(self, state, out):
        weight = out.rows.weight
        new = self._with(state, self.activity(out.h, weight), weight)
        return {name: value.squeeze(-2) for name, value in new.items()}

    def rho_hat(self, out):
        weight = out.rows.weight
        batch = self.activity(out.h, weight)
        average = self._with(out.state, batch, weight)["rho_hat"]
        return batch + (average - batch).detach()


@dataclass(frozen=True, kw_only=True)
class L1Sparsity(Sparsity):
    """``beta sum_j |h_j|`` of every sample."""

    def activity(self, h, weight):
        return mean_activation(h.abs(), weight)

    def penalty(self, out, net):
        return (self.beta * out.h.abs()).sum(-1)

    def penalty_gradient(self, out, net, share):
        return share * self.beta * out.h.sign(), {}


@estimator
class SparseAutoencoder(BaseAutoencoder):
    r"""Autoencoder whose code units are seldom active.

    It adds to the mean loss of the :class:`Autoencoder`

    .. math::
        \beta \sum_{j=1}^{k} \mathrm{KL}(\rho \,\Vert\, \hat\rho_j), \qquad
        \mathrm{KL}(\rho \,\Vert\, \hat\rho) = \rho \log \frac{\rho}{\hat\rho}
        + (1 - \rho) \log \frac{1 - \rho}{1 - \hat\rho},

    where :math:`\hat\rho_j = \frac{1}{n} \sum_i h_{ij}` is the mean activation of code unit j over
    the samples (weighted by `sample_weight`). The code may be wider than the data.

    *Units.* The loss is a mean over samples and over the d features. With sums,

    .. math::
        R_{sparse} = \sum_i \lVert x_i - \hat x_i \rVert^2
        + \lambda (\lVert W_1 \rVert^2 + \lVert W_2 \rVert^2)
        + \beta_R \sum_j \mathrm{KL}(\rho \,\Vert\, \hat\rho_j)

    is n d times ours at ``beta = beta_R / (n d)``, ``alpha = 2 lambda / (n d)``. The tutorial's
    [1]_ ``1/n sum_i 1/2 |x_i - x^_i|^2 + lambda/2 |W|^2 + beta_T sum_j KL`` is d / 2 times ours at
    ``beta = 2 beta_T / d``, ``alpha = 2 lambda / d``: its 64-25-64 network with beta 3 and lambda
    1e-4 is ``beta=0.094, alpha=3.1e-6`` here, with ``output_activation="logistic"``.

    *Batches.* In [1]_ :math:`\hat\rho` is a statistic of all samples. So it is here under
    ``solver="lbfgs"`` and ``"cg"``, and for ``batch_size >= n_samples``. The mean of a batch of b
    rows scatters about it, and as KL is convex the penalty is then too large in expectation: by
    :math:`\beta \sum_j \mathrm{Var}(h_j) / (2 b \rho (1 - \rho))` near :math:`\hat\rho = \rho`,
    which also asks for codes that vary less. Take batches much larger than 1 / rho, or
    ``rho_estimate="running"``.

    *Steps.* Becoming sparse takes many: compare `rho_hat_` with `rho`. On scikit-learn's 1797
    digits, in [0, 1], 32 units at the other defaults are active by 0.19 to 0.32 after the 200
    epochs of adam, of nine steps each, and by 0.05 with ``solver="lbfgs"`` or ``batch_size=32``.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=()
        Widths of the encoder's hidden layers; the decoder mirrors them. The source [1]_ has none.

    code_activation : str, default="logistic"
        Activation of the code. ``penalty="kl"`` needs a bounded one: "logistic", or "tanh", whose
        activations from -1 to 1 count as ``(1 + h) / 2``, so that `rho` = 0.05 is a mean of -0.9.
        A module given as `encoder` has to keep its codes within the range of this activation.
        ``penalty="l1"`` takes any.

    penalty : {"kl", "l1"}, default="kl"
        The divergence above, or :math:`\beta \sum_j |h_{ij}|`, a penalty of every sample, which
        needs no `rho`. Both are sums over units: `beta` is what one unit counts, whatever the
        number of units and features.

    rho : float, default=0.05
        Mean activation to aim at, in (0, 1).

    beta : float, default=0.1
        Weight of the penalty, in the units of the loss; 0 is the plain autoencoder.

    rho_estimate : {"batch", "running"}, default="batch"
        The mean activation that is compared with `rho`: of the present batch, or an average over
        the batches so far, whose slope is then applied to the present batch. lbfgs and cg always
        take all rows.

    rho_decay : float, default=0.9
        What the running average keeps of itself at every batch, in [0, 1): it looks back over
        about ``1 / (1 - rho_decay)`` batches.

    Attributes
    ----------
    rho_hat_ : ndarray of shape (n_components_,)
        Mean activation of every code unit over the training rows at the fitted weights, in (0, 1)
        (for tanh mapped as above); under ``penalty="l1"`` the mean of ``|h|``. After
        `partial_fit` it is over the rows of the last call alone. In the snapshots that callbacks
        see, it is the last batch's or the running average.

    References
    ----------
    .. [1] Ng, "Sparse autoencoder", CS294A lecture notes (2011), and the UFLDL tutorial. We depart
       in the initial weights, and in choosing the batch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import SparseAutoencoder
    >>> X = load_digits().data / 16
    >>> sparse = SparseAutoencoder(
    ...     n_components=32, rho=0.1, solver="lbfgs", max_iter=50, random_state=0
    ... ).fit(X)
    >>> bool(abs(sparse.rho_hat_ - 0.1).max() < 0.05)
    True
    """

    hidden_layer_sizes: tuple[int, ...] = ()
    code_activation: str = "logistic"
    penalty: str = "kl"
    rho: float = 0.05
    beta: float = 0.1
    rho_estimate: str = "batch"
    rho_decay: float = 0.9

    _parameter_constraints = BaseAutoencoder._parameter_constraints | {
        "penalty": [StrOptions({"kl", "l1"})],
        "rho": [Interval(Real, 0, 1, closed="neither")],
        "beta": [Interval(Real, 0, None, closed="left")],
        "rho_estimate": [StrOptions({"batch", "running"})],
        "rho_decay": [Interval(Real, 0, 1, closed="left")],
    }

    def _objective(self) -> Objective:
        shared = self._shared_terms() | {"beta": float(self.beta)}
        if self.penalty == "l1":
            return L1Sparsity(**shared)
        shared |= {"rho": float(self.rho), "code_activation": bounded_activation(self, *_ASKS)}
        if self.rho_estimate == "running" and self.solver not in FULL_BATCH:
            return RunningKLSparsity(decay=float(self.rho_decay), **shared)
        return KLSparsity(**shared)

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        if isinstance(objective, KLSparsity):
            check_codes(network, source, objective.code_activation, *_ASKS)
        result = super()._train(network, objective, source, rows, **options)
        rho_hat = _mean_activity(network, objective, result.parameters, source, rows)  # type: ignore[arg-type]
        result.learned["rho_hat"] = rho_hat
        return result

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"rho_hat_": state["rho_hat"].clone()}


def _mean_activity(
    network: Network, objective: Sparsity, parameters: Mapping[str, Tensor], source: Source,
    rows: Rows,
) -> Tensor:  # fmt: skip
    """rho^ over all rows, of shape (k,), a bounded number of them at a time."""
    network.train(False)
    total, count = torch.zeros((), dtype=torch.float64, device=source.device), 0.0
    with torch.no_grad():
        for part, x in source.chunks():
            w = rows.take(part).weight
            here = float(x.shape[-2] if w is None else w.sum())
            h = network.encoder.forward(parameters, x)
            total = total + here * objective.activity(h, w).squeeze(-2).double()
            count += here
    return (total / count).to(source.dtype)

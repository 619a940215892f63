"""The contractive autoencoder: codes that move little when x does."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skae._engine.batches import Source
from skae._engine.train import Result
from skae.activations import ACTIVATIONS
from skae.estimators._base import BaseAutoencoder
from skae.estimators._build import layer_sizes, resolved_code_activation
from skae.estimators._estimator import estimator
from skae.modules import ACTIVATION_OF, DenseModule, Wrapped
from skae.networks import Network
from skae.objective import Forward, Objective, Rows, is_positive
from skae.penalties import layer_jacobian, row_norms

_W = "encoder.0.W"  # of shape (k, d)


@dataclass(frozen=True, kw_only=True)
class LayerContraction(Objective):
    """``contraction |J_f(x)|_F^2`` of an encoder of one dense layer, in closed form.

    J = diag(f'(a)) W, so that the norm is ``sum_j f'(a_j)^2 |W_j|^2``.

    Parameters
    ----------
    contraction : float, default=0.01
        Weight of the penalty.

    activation : str, default="logistic"
        Name of the layer's activation f.
    """

    contraction: Any = 0.01
    activation: str = "logistic"

    @property
    def needs_input(self) -> bool:  # type: ignore[override]
        """Whether f' is a function of a, not of h = f(a)."""
        return ACTIVATIONS[self.activation].needs_input

    def penalty(self, out, net):
        s = ACTIVATIONS[self.activation].derivative(out.h, out.a)
        return (self.contraction * layer_jacobian(s, net[_W])).sum(-1)

    def penalty_and_gradient(self, out, net, share):
        f, W = ACTIVATIONS[self.activation], net[_W]
        squares, norms = f.derivative(out.h, out.a).square(), row_norms(W)
        value = (self.contraction * squares * norms).sum(-1)
        # On a it is 2 f' f'' |W_j|^2, and the engine multiplies what it is given for h by f'.
        c = 2 * share * self.contraction
        d_h = c * f.second(out.h, out.a) * norms
        return value, d_h, {_W: (c * squares).sum(-2).unsqueeze(-1) * W}


@dataclass(frozen=True, kw_only=True)
class HigherOrderLayerContraction(Objective):
    """The same plus ``hessian E |J_f(x) - J_f(x + e)|_F^2``, e from N(0, hessian_noise^2 I).

    One e for every row and step; J_f(x + e) only needs a + W e.

    Parameters
    ----------
    contraction : float, default=0.01
        Weight of the first penalty.

    activation : str, default="logistic"
        Name of the layer's activation f.

    hessian : float, default=0.1
        Weight of the second one.

    hessian_noise : float, default=0.1
        Standard deviation of e.
    """

    contraction: Any = 0.01
    activation: str = "logistic"
    hessian: Any = 0.1
    hessian_noise: Any = 0.1

    needs_input = True

    @property
    def noise(self):
        return "hessian" if is_positive(self.hessian) else super().noise

    def penalty(self, out, net):
        f, W = ACTIVATIONS[self.activation], net[_W]
        near = out.a + (self.hessian_noise * out.rng.normal(out.x_in)) @ W.mT
        s, s_near = f.derivative(out.h, out.a), f.derivative(f.function(near), near)
        first = self.contraction * layer_jacobian(s, W)
        return (first + self.hessian * layer_jacobian(s - s_near, W)).sum(-1)


@dataclass(frozen=True, kw_only=True)
class DeepContraction(Objective):
    """``contraction |J_f(x)|_F^2`` for any encoder, by differentiating through it.

    Parameters
    ----------
    contraction : float, default=0.01
        Weight of the penalty.

    jacobian : {"exact", "estimate"}, default="exact"
        A backward pass for every code unit, or for every probe v of random signs: the mean of
        ``|J^T v|^2`` is ``|J|_F^2``.

    n_probes : int, default=1
        Number of probes.
    """

    contraction: Any = 0.01
    jacobian: str = "exact"
    n_probes: int = 1

    needs_graph = True

    @property
    def noise(self):
        return "jacobian" if self.jacobian == "estimate" else super().noise

    def penalty(self, out, net):
        h = self._code(out)
        return sum(
            (self.contraction * _pulled_back(v, h, out.x_in).square()).sum(-1)
            for v in self._directions(h, out.rng)
        )

    def _code(self, out: Forward) -> Tensor:
        """f(x) without dropout's masks, which another pass of the encoder would draw anew."""
        return out.encoder(out.x_in) if is_positive(self.dropout) else out.h  # type: ignore[misc]

    def _directions(self, h: Tensor, rng: Any) -> Iterator[Tensor]:
        """Vectors v of the code whose ``|J^T v|^2`` add up to ``|J|_F^2``, or do so in the mean."""
        if self.jacobian == "exact":
            yield from torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
            return
        for _ in range(self.n_probes):
            signs = 2 * rng.bernoulli(0.5, h) - 1
            yield signs / math.sqrt(self.n_probes)


@dataclass(frozen=True, kw_only=True)
class HigherOrderDeepContraction(DeepContraction):
    """The same plus ``hessian E |J_f(x) - J_f(x + e)|_F^2``, e from N(0, hessian_noise^2 I).

    Parameters
    ----------
    hessian : float, default=0.1
        Weight of the second penalty.

    hessian_noise : float, default=0.1
        Standard deviation of e.
    """

    hessian: Any = 0.1
    hessian_noise: Any = 0.1

    @property
    def noise(self):
        return "hessian" if is_positive(self.hessian) else super().noise

    def penalty(self, out, net):
        near = out.x_in + self.hessian_noise * out.rng.normal(out.x_in)
        near = near.detach().requires_grad_()
        h, h_near = self._code(out), out.encoder(near)
        total = 0.0
        for v in self._directions(h, out.rng):
            row, row_near = _pulled_back(v, h, out.x_in), _pulled_back(v, h_near, near)
            first = self.contraction * row.square()
            total = total + (first + self.hessian * (row - row_near).square()).sum(-1)
        return total


def _pulled_back(v: Tensor, h: Tensor, x: Tensor) -> Tensor:
    """J^T v of every row, of shape (..., n, d), differentiable itself."""
    return torch.autograd.grad(h, x, v.expand_as(h), create_graph=True)[0]


@estimator
class ContractiveAutoencoder(BaseAutoencoder):
    r"""Autoencoder whose codes move little when x does.

    It adds to the mean loss of the :class:`Autoencoder` the squared Frobenius norm of the
    encoder's Jacobian, the sum of squared derivatives of all code units by all features:

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \lambda \lVert J_f(x_i) \rVert_F^2, \qquad
        \lVert J_f(x) \rVert_F^2 = \sum_{j=1}^{k} f'(a_j)^2 \lVert W_j \rVert^2

    for an encoder :math:`f(a)`, :math:`a = W x + b`, of one layer; there the penalty and its
    gradient have a closed form for every activation (for the logistic one f' is h (1 - h)). The
    decoder is tied to the encoder, as in the paper: else a small W of the encoder and a large one
    of the decoder lower the penalty without contracting anything.

    Codes are robust where the :class:`Autoencoder` trained on corrupted data has robust
    reconstructions, and the gradient is deterministic: ``solver="lbfgs"`` and ``"cg"`` apply.

    *Units.* The loss is a mean over the d features. The paper's [1]_

    .. math::
        J_{CAE} = \sum_i \left[ L(x_i, \hat x_i) + \lambda_P \lVert J_f(x_i) \rVert_F^2 \right],

    with L summed over features, is n d times ours at ``contraction = lambda_P / d``; the weight
    of the second-order penalty of [2]_ likewise at ``hessian = gamma_P / d``. As the derivatives
    are by x, both are in units of the loss times those of X squared.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int, default=()
        Widths of the encoder's hidden layers; the decoder mirrors them. The paper has none. With
        hidden layers, or an `encoder` of one's own, the penalty is computed by differentiating
        through the encoder, without dropout's masks. Such an encoder has to treat rows one by one
        (no batch normalisation), and smoothly: relu's Jacobian is that of each linear piece.

    code_activation : str, default="logistic"
        Activation of the code.

    tied_weights : bool, default=True
        Use the encoder's weights, transposed, in the decoder. Set it to False with an encoder or
        a decoder of one's own.

    contraction : float, default=0.01
        The weight lambda; 0 is the plain autoencoder. Its effect depends on the scale of X: 0.01
        contracts data in [0, 1], where 0.1 is too much, and standardised data take about 0.1.

    hessian : float, default=0.0
        Weight gamma of the second-order penalty of [2]_,
        :math:`\gamma E \lVert J_f(x) - J_f(x + \epsilon) \rVert_F^2`, with one
        :math:`\epsilon \sim N(0, \sigma^2 I)` a row and step. It draws noise, which lbfgs and cg
        refuse.

    hessian_noise : float, default=0.1
        The standard deviation sigma, in the units of X. The penalty is about
        :math:`\gamma \sigma^2` times the squared norm of the Hessian.

    jacobian : {"exact", "estimate"}, default="exact"
        "exact" is the closed form for an encoder of one layer, and otherwise one backward pass
        through the encoder for every code unit. "estimate" takes a pass for each of `n_probes`
        random sign vectors v instead: the mean of :math:`\lVert J^T v \rVert^2` is the norm. Take
        it for deep encoders with wide codes; it draws noise, which lbfgs and cg refuse.

    n_probes : int, default=1
        Sign vectors a row and step under ``jacobian="estimate"``.

    Attributes
    ----------

    References
    ----------
    .. [1] Rifai, Vincent, Muller, Glorot and Bengio, "Contractive auto-encoders: explicit
       invariance during feature extraction", ICML 2011, equation 5.

    .. [2] Rifai, Mesnil, Vincent, Muller, Bengio, Dauphin and Glorot, "Higher order contractive
       auto-encoder", ECML PKDD 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoencoder
    >>> X = load_digits().data / 16
    >>> norms = [
    ...     ContractiveAutoencoder(
    ...         n_components=16, contraction=c, solver="lbfgs", max_iter=30, random_state=0
    ...     ).fit(X).jacobian_norm(X).mean()
    ...     for c in (0.0, 0.01)
    ... ]
    >>> bool(norms[1] < norms[0])
    True
    """

    hidden_layer_sizes: tuple[int, ...] = ()
    code_activation: str = "logistic"
    tied_weights: bool = True
    contraction: float = 0.01
    hessian: float = 0.0
    hessian_noise: float = 0.1
    jacobian: str = "exact"
    n_probes: int = 1

    _parameter_constraints = BaseAutoencoder._parameter_constraints | {
        "contraction": [Interval(Real, 0, None, closed="left")],
        "hessian": [Interval(Real, 0, None, closed="left")],
        "hessian_noise": [Interval(Real, 0, None, closed="neither")],
        "jacobian": [StrOptions({"exact", "estimate"})],
        "n_probes": [Interval(Integral, 1, None, closed="left")],
    }

    def _objective(self) -> Objective:
        shared = self._shared_terms()
        if not (self.contraction or self.hessian):
            return Objective(**shared)
        shared["contraction"] = float(self.contraction)
        second: dict[str, Any] = {
            "hessian": float(self.hessian),
            "hessian_noise": float(self.hessian_noise),
        }
        if self._is_deep() or self.jacobian == "estimate":
            shared |= {"jacobian": self.jacobian, "n_probes": int(self.n_probes)}
            if self.hessian:
                return HigherOrderDeepContraction(**second, **shared)
            return DeepContraction(**shared)
        shared["activation"] = resolved_code_activation(self)
        if self.hessian:
            return HigherOrderLayerContraction(**second, **shared)
        return LayerContraction(**shared)

    def _is_deep(self) -> bool:
        return self.encoder is not None or bool(layer_sizes(self.hidden_layer_sizes))

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        mixes = isinstance(network.encoder, Wrapped) and network.encoder.needs_rows
        if mixes and (self.contraction or self.hessian):
            raise ValueError(
                "encoder normalises by the batch, so that a code depends on other rows, but "
                f"contraction={self.contraction} and hessian={self.hessian} penalise its "
                "derivative by its own row alone. Take the batch normalisation out, put it in "
                "inference mode with eval(), or set both to 0."
            )
        return super()._train(network, objective, source, rows, **options)

    def jacobian_norm(self, X):
        """The Frobenius norm of the encoder's Jacobian at every row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        norm : ndarray of shape (n_samples,)
            ``|J_f(x)|_F``, exact whatever `jacobian` is; `contraction` times its square is the
            penalty of a row.
        """
        data = self._read(X, "jacobian_norm")
        return data.give_back(self._by_chunks(data, self._jacobian_norms, None))

    def _jacobian_norms(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        module = self.encoder_
        if next(module.parameters(), x).dtype != x.dtype:
            module = copy.deepcopy(module).to(x.dtype)
        layers = list(module.children()) if isinstance(module, DenseModule) else []
        if len([layer for layer in layers if isinstance(layer, nn.Linear)]) == 1:
            return _norms_of_layer(layers, x)
        return _norms_of_module(module, x)


def _norms_of_layer(layers: list[Any], x: Tensor) -> Tensor:
    linear, *rest = layers
    f = ACTIVATION_OF[type(rest[0])] if rest else ACTIVATIONS["identity"]
    a = linear(x)
    s = f.derivative(f.function(a), a)
    return layer_jacobian(s, linear.weight).sum(-1).sqrt()


def _norms_of_module(module: nn.Module, x: Tensor) -> Tensor:
    """By a backward pass for every code unit."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        h = module(x)
        squares = torch.zeros_like(x[..., 0])
        for unit in h.unbind(-1):
            (row,) = torch.autograd.grad(unit.sum(), x, retain_graph=True)
            squares = squares + row.square().sum(-1)
    return squares.detach().sqrt()

"""Small networks, data, and objectives that between them exercise every hook of the contract."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from skae._engine.autograd import Autograd
from skae._engine.buffer import Buffer
from skae._engine.fused import Fused
from skae._engine.rng import Streams
from skae.losses import LOSSES, Linked, Loss, SquaredError
from skae.networks import Dense, Network
from skae.objective import NO_ROWS, Objective, Rows

DOUBLE = torch.float64
D, K = 5, 3  # features and code units, where a test says nothing else

LINKED = {
    f"{name} behind {link}": Linked(LOSSES[name], link)
    for name in ("squared_error", "absolute_error", "huber")
    for link in ("logistic", "tanh", "relu", "softplus", "exp")
}


def objective(**fields) -> Objective:
    return Objective(**{"loss": SquaredError()} | fields)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=DOUBLE)


def inside(loss: Loss, *shape: int, seed: int = 0) -> Tensor:
    """Random data in the loss's domain, away from its ends."""
    low, high = loss.domain
    x = normal(*shape, seed=seed)
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * (0.05 + 0.9 * x.sigmoid())
    return low + x.abs() + 0.05 if math.isfinite(low) else x


def network(
    hidden=(4,),
    d=D,
    k=K,
    *,
    activation="tanh",
    code="logistic",
    tied=False,
    center=None,
    gains=(1.0, 1.0),
    code_width=None,
    output_width=None,
) -> Network:
    """A dense network d -> hidden -> k -> hidden -> d."""
    widths = (d, *hidden, code_width or k)
    encoder = Dense("encoder", widths, activation, code, None, center, gains[0])
    widths = (k, *hidden[::-1], output_width or d)
    tied_to = encoder if tied else None
    decoder = Dense("decoder", widths, activation, "identity", tied_to, gain_out=gains[1])
    return Network(encoder, decoder)


def network_for(objective: Objective, **options) -> Network:
    """A network of the widths that the objective asks for."""
    return network(
        code_width=objective.code_width(K), output_width=objective.output_width(D), **options
    )


def starting(network: Network, objective: Objective | None = None, *lead: int, seed=7):
    """Random parameters of the network and of the objective, by name."""
    shapes = network.weight_shapes() | network.bias_shapes()
    own = {} if objective is None else objective.parameters(D, K)
    shapes |= {f"objective.{name}": tuple(value.shape) for name, value in own.items()}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.5 * torch.randn((*lead, *shape), generator=generator, dtype=DOUBLE)
        for name, shape in shapes.items()
    }


class Step(NamedTuple):
    value: Tensor
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]


def step(
    kind: type[Fused | Autograd],
    network: Network,
    objective: Objective,
    x: Tensor,
    rows: Rows = NO_ROWS,
    *,
    lead: tuple[int, ...] = (),
    parameters=None,
    streams=None,
    batches: int = 1,
) -> Step:
    """The value, gradients and state that an engine gives for a batch, the last of `batches`."""
    parameters = starting(network, objective, *lead) if parameters is None else parameters
    shapes = {name: tuple(p.shape[len(lead) :]) for name, p in parameters.items()}
    buffer = Buffer(shapes, lead, DOUBLE)
    buffer.fill(parameters)
    engine = kind(network, objective, buffer, streams or Streams([3]))
    state = objective.init_state(D, K)
    with torch.no_grad():
        for _ in range(batches):
            state = engine.add_gradient(x, rows, x.shape[-2], 0.25, state)
        value = engine.take_value() / (x.shape[-2] * batches)
    return Step(value, {k: g.clone() for k, g in buffer.gradients.items()}, dict(state))


def assert_close(got, expected, tolerance=1e-12):
    """Equal tensors, or mappings of tensors, relative to the largest entry."""
    if isinstance(expected, Tensor):
        got, expected = {"": got}, {"": expected}
    scale = max([1e-3, *(float(v.abs().max()) for v in expected.values() if v.numel())])
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name].shape == value.shape, name
        difference = float((got[name] - value).abs().max()) / scale if value.numel() else 0.0
        assert difference <= tolerance, f"{name}: {difference:.1e}"


def assert_engines_agree(network, objective, x, rows=NO_ROWS, **options):
    """The fused engine's value, gradients and state are autograd's, over two batches."""
    expected = step(Autograd, network, objective, x, rows, batches=2, **options)
    got = step(Fused, network, objective, x, rows, batches=2, **options)
    assert any(bool(g.any()) for g in expected.gradients.values())
    assert_close(got.value, expected.value)
    assert_close(got.gradients, expected.gradients)
    assert_close(got.state, expected.state)


# Objectives. Closed forms are given by subclasses, so that both ways are tried.


@dataclass(frozen=True, kw_only=True)
class Gaussian(Objective):
    """Sees x + sigma epsilon."""

    sigma: float = 0.3

    def corrupt(self, x, rng):
        return x + self.sigma * rng.normal(x), None

    @property
    def noise(self):
        return "sigma" if isinstance(self.sigma, Tensor) or self.sigma > 0 else super().noise


@dataclass(frozen=True, kw_only=True)
class Masked(Objective):
    """Sees x with cells set to zero, and counts those more."""

    share: float = 0.4
    emphasis: float = 2.0

    def corrupt(self, x, rng):
        gone = rng.bernoulli(self.share, x)
        return x * (1 - gone), gone

    def __call__(self, out, net=None):
        weight = 1 + self.emphasis * out.changed
        return (weight * self.loss.elements(out.x, out.raw)).mean(-1)

    noise = "share"


@dataclass(frozen=True, kw_only=True)
class Bent(Objective):
    """z = sin(c h), without a closed form."""

    c: float = 0.8

    def latent(self, h, rng):
        return torch.sin(self.c * h)

    def encode(self, h):
        return torch.sin(self.c * h)


@dataclass(frozen=True, kw_only=True)
class BentClosed(Bent):
    def latent_gradient(self, d_z, h, z):
        return d_z * self.c * torch.cos(self.c * h)


@dataclass(frozen=True, kw_only=True)
class Sampled(Objective):
    """A Gaussian code, drawn, with its KL divergence per sample."""

    beta: float = 0.5

    def code_width(self, k):
        return 2 * k

    def latent(self, h, rng):
        mean, log_var = h.chunk(2, -1)
        return mean + (0.5 * log_var).exp() * rng.normal(mean)

    def encode(self, h):
        return h.chunk(2, -1)[0]

    def penalty(self, out, net):
        mean, log_var = out.h.chunk(2, -1)
        return (self.beta * 0.5 * (mean**2 + log_var.exp() - 1 - log_var)).sum(-1)

    noise = "code"
    drops_code = False


@dataclass(frozen=True, kw_only=True)
class Importance(Sampled):
    """Several codes per row, folded by the mean of exponentials."""

    n_importance_samples: int = 4

    def latent(self, h, rng):
        return super().latent(h.repeat_interleave(self.n_importance_samples, -2), rng)

    def __call__(self, out, net=None):
        n = out.x.shape[-2]
        raw = out.raw.unflatten(-2, (n, self.n_importance_samples))
        error = self.loss.elements(out.x.unsqueeze(-2), raw).sum(-1)
        folded = math.log(self.n_importance_samples) - torch.logsumexp(-error, -1)
        return folded + self.penalty(out, net)


@dataclass(frozen=True, kw_only=True)
class Activity(Objective):
    """A penalty per sample."""

    beta: float = 0.7

    def penalty(self, out, net):
        return (self.beta * out.h**2).sum(-1)


@dataclass(frozen=True, kw_only=True)
class ActivityClosed(Activity):
    def penalty_gradient(self, out, net, share):
        return 2 * self.beta * out.h * share, {}


@dataclass(frozen=True, kw_only=True)
class Sparse(Objective):
    """KL(rho, mean activation), a penalty of the batch."""

    rho: float = 0.2
    beta: float = 0.7

    def penalty(self, out, net):
        mean = out.h.mean(-2, keepdim=True)
        return (self.beta * self._divergence(mean)).sum(-1)

    def _divergence(self, mean):
        a, b = self.rho / mean, (1 - self.rho) / (1 - mean)
        return self.rho * torch.log(a) + (1 - self.rho) * torch.log(b)

    mixes_rows = True
    penalises_batch = True


@dataclass(frozen=True, kw_only=True)
class SparseClosed(Sparse):
    def penalty_gradient(self, out, net, share):
        mean = out.h.mean(-2, keepdim=True)
        slope = self.beta * ((1 - self.rho) / (1 - mean) - self.rho / mean)
        return (share * slope / out.h.shape[-2]).expand_as(out.h), {}


@dataclass(frozen=True, kw_only=True)
class Contractive(Objective):
    """Squared Jacobian norm of a logistic layer: of h and of the weights, per sample."""

    strength: float = 0.3

    def penalty(self, out, net):
        norms = net["encoder.0.W"].square().sum(-1).unsqueeze(-2)
        return (self.strength * (out.h * (1 - out.h)) ** 2 * norms).sum(-1)


@dataclass(frozen=True, kw_only=True)
class ContractiveClosed(Contractive):
    def penalty_gradient(self, out, net, share):
        W, s = net["encoder.0.W"], out.h * (1 - out.h)
        norms = W.square().sum(-1).unsqueeze(-2)
        d_h = share * self.strength * 2 * s * (1 - 2 * out.h) * norms
        d_norms = (share * self.strength * s**2).sum(-2)
        return d_h, {"encoder.0.W": 2 * d_norms.unsqueeze(-1) * W}


@dataclass(frozen=True, kw_only=True)
class Emphasis(Masked):
    """Masked, by the weights of the cells, so that the fused path needs no seam."""

    def cell_weight(self, out):
        weight, observed = 1 + self.emphasis * out.changed, super().cell_weight(out)
        return weight if observed is None else weight * observed

    __call__ = Objective.__call__


@dataclass(frozen=True, kw_only=True)
class Steep(Objective):
    """A penalty of the code layer's input, by autograd at the seam, with draws of its own."""

    beta: float = 0.3

    def penalty(self, out, net):
        return (self.beta * (out.a + 0.1 * out.rng.normal(out.a)) ** 2).sum(-1)

    noise = "beta"
    needs_input = True


@dataclass(frozen=True, kw_only=True)
class SmoothWeights(Objective):
    """A penalty of the weights alone."""

    strength: float = 0.2

    def penalty(self, out, net):
        total = torch.cosh(net["encoder.0.W"]).sum((-2, -1), keepdim=True)
        return (self.strength * total).squeeze(-1)

    penalises_batch = True


@dataclass(frozen=True, kw_only=True)
class LearnedVariance(Objective):
    """A Gaussian likelihood whose log variance is a parameter of the objective."""

    def parameters(self, d, k):
        return {"log_var": torch.zeros(())}

    def __call__(self, out, net):
        log_var = net["objective.log_var"][..., None, None]
        return ((out.raw - out.x) ** 2 * torch.exp(-log_var) + log_var).mean(-1)


@dataclass(frozen=True, kw_only=True)
class LearnedOriginClosed(Objective):
    """Pulls codes to a learned origin, with a closed form."""

    beta: float = 0.4

    def parameters(self, d, k):
        return {"origin": torch.zeros(k)}

    def penalty(self, out, net):
        return (self.beta * (out.h - net["objective.origin"].unsqueeze(-2)) ** 2).sum(-1)

    def penalty_gradient(self, out, net, share):
        pull = 2 * share * self.beta * (out.h - net["objective.origin"].unsqueeze(-2))
        return pull, {"objective.origin": -pull.sum(-2)}


@dataclass(frozen=True, kw_only=True)
class Running(Objective):
    """Pulls codes to their running mean, which is the objective's state."""

    beta: float = 0.4
    momentum: float = 0.9

    def init_state(self, d, k):
        return {"mean": torch.ones(k, dtype=DOUBLE)}

    def update(self, state, out):
        rate = self.momentum
        mean = rate * state["mean"].unsqueeze(-2) + (1 - rate) * out.h.mean(-2, keepdim=True)
        return {"mean": mean.squeeze(-2)}

    def penalty(self, out, net):
        return (self.beta * (out.h - out.state["mean"].unsqueeze(-2)) ** 2).sum(-1)


@dataclass(frozen=True, kw_only=True)
class Whole(Objective):
    """A value of its own, of the loss, the code and the schedule."""

    beta: float = 0.4

    def __call__(self, out, net=None):
        error = self.data_loss(out.x, out.raw, self.cell_weight(out))
        return torch.log1p(error) + (out.progress * self.beta * out.z**4).sum(-1)


@dataclass(frozen=True, kw_only=True)
class WholeClosed(Whole):
    def value_and_gradient(self, out, net, share):
        cells = self.cell_weight(out)
        error = self.data_loss(out.x, out.raw, cells)
        scale = share / (1 + error.unsqueeze(-1)) * self.loss.share(out.x.shape[-1])
        d_raw = self.loss.scaled_gradient(out.x, out.raw, scale if cells is None else scale * cells)
        d_z = share * out.progress * self.beta * 4 * out.z**3
        return self(out), {"raw": d_raw, "z": d_z}, {}


@dataclass(frozen=True, kw_only=True)
class HalfPath(BentClosed):
    """The encoder sees a part of the code's gradient."""

    part: float = 0.5

    def path_weight(self, out):
        return self.part * torch.ones_like(out.z[..., :1])


@dataclass(frozen=True, kw_only=True)
class CodeOnly(Objective):
    """A value that does not look at the reconstruction."""

    beta: float = 0.4

    def __call__(self, out, net=None):
        return (self.beta * (out.z - out.x[..., : out.z.shape[-1]]) ** 2).sum(-1)


@dataclass(frozen=True, kw_only=True)
class FeatureWeighted(Objective):
    """A data loss of its own."""

    slope: float = 0.5

    def data_loss(self, x, raw, weight=None):
        slope = 1 + self.slope * torch.arange(x.shape[-1], dtype=x.dtype)
        elements = slope * self.loss.elements(x, raw)
        return (elements if weight is None else elements * weight).mean(-1)


@dataclass(frozen=True, kw_only=True)
class Labelled(Objective):
    """Pulls the codes of class 1 to the origin."""

    beta: float = 0.4

    def penalty(self, out, net):
        return (self.beta * out.h**2).sum(-1) * out.rows.y


@dataclass(frozen=True)
class MeanAndVariance(Loss):
    """Gaussian likelihood whose decoder gives means and log variances, half each."""

    link = "identity"

    def elements(self, x, raw):
        mean, log_var = raw.chunk(2, -1)
        return (mean - x) ** 2 * torch.exp(-log_var) + log_var

    def gradient(self, x, raw):
        mean, log_var = raw.chunk(2, -1)
        scaled = (mean - x) * torch.exp(-log_var)
        return torch.cat([2 * scaled, 1 - scaled * (mean - x)], -1)

    def predict(self, raw):
        return raw.chunk(2, -1)[0]

    def width(self, d):
        return 2 * d

    def accumulate(self, x, raw, scale, weight, total):
        elements = self.elements(x, raw)
        total.add_(elements if weight is None else elements * weight)
        both = raw.unflatten(-1, (2, -1))
        both.copy_(self.gradient(x, raw).view_as(both))
        both.mul_(scale if isinstance(scale, float) else scale.unsqueeze(-2))


@dataclass(frozen=True, kw_only=True)
class TwoOutputs(Objective):
    """A decoder with two outputs for each feature."""

    loss: Loss = MeanAndVariance()


@dataclass(frozen=True, kw_only=True)
class DeepJacobian(Objective):
    """Squared Jacobian norm of any encoder, by differentiating through it."""

    strength: float = 0.3

    def penalty(self, out, net):
        rows = [
            torch.autograd.grad(unit.sum(), out.x_in, create_graph=True)[0]
            for unit in out.h.unbind(-1)
        ]
        return (self.strength * torch.stack(rows).square().sum(0)).sum(-1)

    needs_graph = True


@dataclass(frozen=True, kw_only=True)
class Probed(Objective):
    """How far the code moves when x does, by calling the encoder again."""

    strength: float = 0.3

    def penalty(self, out, net):
        moved = out.encoder(out.x_in + 0.1 * out.rng.normal(out.x_in))
        return (self.strength * (moved - out.h) ** 2).sum(-1)

    noise = "strength"
    needs_graph = True


_CLASSES = (
    Gaussian, Masked, Bent, BentClosed, Sampled, Importance, Activity, ActivityClosed, Sparse,
    SparseClosed, Contractive, ContractiveClosed, SmoothWeights, LearnedVariance,
    LearnedOriginClosed, Running, Whole, WholeClosed, HalfPath, CodeOnly, FeatureWeighted,
    Labelled, DeepJacobian, Emphasis, Steep, Probed,
)  # fmt: skip
OBJECTIVES: dict[str, Objective] = {cls.__name__: cls(loss=SquaredError()) for cls in _CLASSES}
OBJECTIVES["TwoOutputs"] = TwoOutputs()
DETERMINISTIC = {name: o for name, o in OBJECTIVES.items() if o.noise is None}


def float_fields(objective: Objective) -> dict[str, float]:
    values = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}
    return {name: value for name, value in values.items() if isinstance(value, float)}

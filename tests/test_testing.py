"""`check_objective` accepts what keeps the contract and says which rule a broken one breaks."""

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from toys import (
    LINKED,
    OBJECTIVES,
    Activity,
    ActivityClosed,
    BentClosed,
    ContractiveClosed,
    Gaussian,
    Running,
    Sampled,
    Sparse,
    objective,
)

from skae.losses import LOSSES, SquaredError
from skae.objective import Objective, stack
from skae.testing import check_objective


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_that_keeps_the_contract_passes(name):
    check_objective(OBJECTIVES[name])


@pytest.mark.parametrize("loss", [*LOSSES.values(), *LINKED.values()], ids=[*LOSSES, *LINKED])
def test_plain_objective_passes_with_every_loss(loss):
    check_objective(objective(loss=loss, alpha=0.1))


@pytest.mark.parametrize("sizes", [(2, 1, 1, 1), (9, 4, 4, 3), (6, 3, 5, 2)])
@pytest.mark.parametrize("name", ["Sampled", "Importance", "SparseClosed", "ContractiveClosed"])
def test_sizes_do_not_matter(name, sizes):
    n_samples, n_features, n_components, models = sizes
    check_objective(
        OBJECTIVES[name],
        n_samples=n_samples,
        n_features=n_features,
        n_components=n_components,
        models=models,
        random_state=1,
    )


def test_thread_count_and_generators_are_as_before():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    check_objective(objective())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


MODULE = torch.nn.Linear(1, 1)

# Broken objectives. Each inherits the right behaviour and breaks one rule.


@dataclass(frozen=True, kw_only=True)
class HoldsList(Objective):
    extra: Any = field(default_factory=lambda: [1.0])


@dataclass(frozen=True, kw_only=True)
class HoldsModule(Objective):
    extra: Any = MODULE


@dataclass(frozen=True, kw_only=True)
class Unpicklable(Objective):
    extra: Any = lambda x: x


class Undecorated(Objective):
    beta: float = 0.5


class Unequal(Objective):
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


class Remembers(Objective):
    def encode(self, h):
        object.__setattr__(self, "alpha", 0.7)
        return h


class GlobalTorch(Gaussian):
    def corrupt(self, x, rng):
        return x + self.sigma * torch.randn_like(x), None


class GlobalNumpy(Gaussian):
    def corrupt(self, x, rng):
        return x + float(np.random.normal()), None  # noqa: NPY002


class GlobalPython(Gaussian):
    def latent(self, h, rng):
        return h + random.random()


class CountsCalls(Gaussian):
    calls = [0]

    def corrupt(self, x, rng):
        self.calls[0] += 1
        return x + self.calls[0], None


class CorruptsInPlace(Gaussian):
    def corrupt(self, x, rng):
        return x.add_(self.sigma * rng.normal(x)), None


class CorruptsAlone(Gaussian):
    def corrupt(self, x, rng):
        return x + self.sigma * rng.normal(x)


class CorruptsToDouble(Gaussian):
    def corrupt(self, x, rng):
        return x + self.sigma * rng.normal(x.double()), None


class CutsFeatures(Objective):
    def corrupt(self, x, rng):
        return x[..., :-1], None


class SilentNoise(Gaussian):
    noise = None


class SilentCodeNoise(Sampled):
    noise = None


class WideCode(Objective):
    def latent(self, h, rng):
        return torch.cat([h, h], -1)


class WideEncoding(Sampled):
    def encode(self, h):
        return h


class Reduced(Objective):
    def __call__(self, out, net=None):
        return super().__call__(out, net).mean()


class ReducedOverModels(Objective):
    def __call__(self, out, net=None):
        return super().__call__(out, net) + out.z.mean(0).mean(-1)


class SummedPenalty(Activity):
    def penalty(self, out, net):
        return super().penalty(out, net).sum()


class FeaturePenalty(Activity):
    def penalty(self, out, net):
        return out.h

    def __call__(self, out, net=None):
        return self.data_loss(out.x, out.raw) + self.penalty(out, net).sum(-1)


class SaysTooLittle(Sparse):
    penalises_batch = False


class MixesSilently(Sparse):
    mixes_rows = False


class OrderMatters(Objective):
    def penalty(self, out, net):
        return torch.arange(out.h.shape[-2]) * out.h.square().sum(-1)


class WrongGradient(SquaredError):
    def gradient(self, x, raw):
        return raw - x


class WrongAccumulate(SquaredError):
    def accumulate(self, x, raw, scale, weight, total):
        super().accumulate(x, raw, scale, None, total)


class ForgetsScale(SquaredError):
    def accumulate(self, x, raw, scale, weight, total):
        super().accumulate(x, raw, 1.0, weight, total)


class WrongLatentGradient(BentClosed):
    def latent_gradient(self, d_z, h, z):
        return d_z * torch.cos(self.c * h)


class KeepsFirst(Objective):
    """Keeps the first unit of every row."""

    def latent(self, h, rng):
        return torch.cat([h[..., :1], torch.zeros_like(h[..., 1:])], -1)

    def support(self, h, rng):
        return torch.arange(0, h.numel(), h.shape[-1])


class WrongSupport(KeepsFirst):
    def support(self, h, rng):
        return super().support(h, rng) + 1


class SupportOutOfOrder(KeepsFirst):
    def support(self, h, rng):
        return super().support(h, rng).flip(0)


class WrongPenaltyGradient(ActivityClosed):
    def penalty_gradient(self, out, net, share):
        return 2 * self.beta * out.h, {}


class AnotherValue(ActivityClosed):
    def penalty_and_gradient(self, out, net, share):
        value, *gradients = super().penalty_and_gradient(out, net, share)
        return 2 * value, *gradients


class ForgetsWeights(ContractiveClosed):
    def penalty_gradient(self, out, net, share):
        return super().penalty_gradient(out, net, share)[0], {}


class ForgetsInput(Objective):
    needs_input = True

    def penalty(self, out, net):
        return out.a.square().sum(-1)

    def penalty_gradient(self, out, net, share):
        return torch.zeros_like(out.h), {}


class ClosedOverCode(BentClosed):
    def penalty(self, out, net):
        return out.z.square().sum(-1)

    def penalty_gradient(self, out, net, share):
        return torch.zeros_like(out.h), {}


class UpdatesInPlace(Running):
    def update(self, state, out):
        return {"mean": state["mean"].mul_(0.9)}


class ForgetsState(Running):
    def update(self, state, out):
        return {}


class KeepsAlias(Running):
    def init_state(self, d, k):
        return {"mean": torch.zeros(k, dtype=torch.float64), "h": torch.zeros(1)}

    def update(self, state, out):
        return super().update(state, out) | {"h": out.h}


class ReducesTooEarly(Activity):
    def penalty(self, out, net):
        return self.beta * out.h.square().sum(-1)


class Raises(Activity):
    def penalty(self, out, net):
        raise RuntimeError("no such luck")


class Explodes(Activity):
    def penalty(self, out, net):
        return (out.h.sum(-1) - out.h.sum(-1).detach()).sqrt() * self.beta


BROKEN = {
    HoldsList: "'extra' is a list",
    HoldsModule: "'extra' is a Linear",
    Undecorated: "'beta' is annotated but is no field",
    Unpicklable: "an objective must pickle",
    Unequal: "must be equal to its pickled copy",
    Remembers: "hooks change the objective",
    GlobalTorch: "corrupt draws from torch's global generator",
    GlobalNumpy: "corrupt draws from NumPy's global generator",
    GlobalPython: "latent draws from Python's global generator",
    CountsCalls: "corrupt gives two results for one seed",
    CorruptsInPlace: "corrupt changes one of its arguments",
    CorruptsAlone: "corrupt must return",
    CorruptsToDouble: "corrupt turns float32 into torch.float64",
    CutsFeatures: "corrupt's x_in has shape",
    SilentNoise: "corrupt draws noise, but `noise` is None",
    SilentCodeNoise: "latent draws noise, but `noise` is None",
    WideCode: "latent's z has shape",
    WideEncoding: "encode must give one code",
    Reduced: r"the value has shape \(\), not \(n,\)",
    ReducedOverModels: "with a leading axis the value is not each model's own",
    SummedPenalty: r"penalty has shape \(\), not \(n,\), as penalises_batch is False",
    FeaturePenalty: r"penalty has shape \(7, 3\), not \(n,\)",
    SaysTooLittle: r"penalty has shape \(1,\), not \(n,\), as penalises_batch is False",
    MixesSilently: "the value of a row depends on the other rows",
    OrderMatters: "the value of a row depends on the other rows",
    WrongSupport: "support is not where latent keeps h",
    SupportOutOfOrder: "support's places are not in ascending order of rows",
    WrongLatentGradient: "latent_gradient is not the derivative of latent",
    WrongPenaltyGradient: r"penalty_gradient is not the derivative of penalty \('h'\)",
    AnotherValue: "penalty_and_gradient gives another value than penalty",
    ForgetsWeights: r"penalty_gradient is not the derivative of penalty \('encoder.0.W'\)",
    ForgetsInput: r"penalty_gradient is not the derivative of penalty \('h'\)",
    ClosedOverCode: "penalty depends on z too",
    UpdatesInPlace: "update changes one of its arguments",
    ForgetsState: "update returns the state",
    KeepsAlias: "update keeps a view of the batch",
    ReducesTooEarly: "training a stack by the autograd engine raised",
    Raises: "penalty raised RuntimeError: no such luck",
    Explodes: "gives gradients that are not finite",
}


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_broken_objective_fails_with_the_rule_it_breaks(cls):
    with pytest.raises(AssertionError, match=f"^{cls.__name__}: .*({BROKEN[cls]})"):
        check_objective(cls(loss=SquaredError()))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (WrongGradient(), "loss.gradient is not the derivative of loss.elements"),
        (WrongAccumulate(), "loss.accumulate does not add weight"),
        (ForgetsScale(), "loss.accumulate does not leave the gradient"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_broken_loss_fails_with_the_rule_it_breaks(loss, message):
    with pytest.raises(AssertionError, match=message):
        check_objective(objective(loss=loss))


@dataclass(frozen=True, kw_only=True)
class OverInput(Objective):
    """A penalty of the code layer's input, with the closed form for softplus."""

    def penalty(self, out, net):
        return out.a.square().sum(-1)

    def penalty_gradient(self, out, net, share):
        return 2 * share * out.a / torch.sigmoid(out.a), {}

    needs_input = True


def test_closed_form_is_tried_behind_the_activation_it_is_made_for():
    check_objective(OverInput(loss=SquaredError()), code_activation="softplus")
    with pytest.raises(AssertionError, match="penalty_gradient is not the derivative"):
        check_objective(OverInput(loss=SquaredError()))


def test_what_is_no_objective_is_refused():
    with pytest.raises(AssertionError, match="must inherit from"):
        check_objective(SquaredError())


def test_stack_is_refused():
    stacked = stack([objective(alpha=0.1), objective(alpha=0.2)])
    with pytest.raises(AssertionError, match="'alpha' is a Tensor"):
        check_objective(stacked)

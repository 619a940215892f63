"""Objectives as data: the contract of every one in the package, stacks, rows, and units."""

import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import re

import numpy as np
import pytest
import torch
from scipy.special import expit
from toys import (
    OBJECTIVES,
    Activity,
    Autograd,
    BentClosed,
    D,
    Fused,
    Gaussian,
    HalfPath,
    Importance,
    K,
    assert_close,
    network,
    normal,
    objective,
    starting,
    step,
)

import skae
from skae.losses import LOSSES, SquaredError
from skae.objective import (
    NO_ROWS,
    Forward,
    Objective,
    Rows,
    is_positive,
    observed_weight,
    overrides,
    stack,
)
from skae.pairs import Pairs
from skae.testing import check_objective


def package_objectives():
    """Every class of the package that is an objective, wherever it is defined."""
    for module in pkgutil.walk_packages(skae.__path__, "skae."):
        importlib.import_module(module.name)
    found, new = {Objective}, [Objective]
    while new:
        new = [cls for parent in new for cls in parent.__subclasses__() if cls not in found]
        found.update(new)
    found = {cls for cls in found if not inspect.isabstract(cls)}
    ours = (cls for cls in found if cls.__module__.partition(".")[0] == "skae")
    return sorted(ours, key=lambda cls: cls.__qualname__)


# Arguments of the classes that have more required fields than `loss`.
REQUIRED: dict[str, dict] = {}


@pytest.mark.parametrize("cls", package_objectives(), ids=lambda cls: cls.__qualname__)
def test_every_objective_of_the_package_keeps_the_contract(cls):
    arguments = REQUIRED.get(cls.__qualname__, {})
    needed = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    assert needed <= {"loss", *arguments}, f"add {cls.__qualname__}'s arguments to REQUIRED"
    check_objective(cls(**{"loss": SquaredError(), **arguments}))


def test_objective_is_immutable_and_compares_by_value():
    one, same, other = objective(alpha=0.1), objective(alpha=0.1), objective(alpha=0.2)
    assert one == same
    assert one != other
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.alpha = 0.3


def out_of(x, raw, **parts) -> Forward:
    return Forward(x, x, normal(len(x), K), normal(len(x), K), raw, **parts)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_value_is_the_mean_over_features(loss):
    x, raw = normal(6, D).sigmoid(), normal(6, D, seed=1)
    value = objective(loss=loss)(out_of(x, raw))
    assert_close(value, loss.elements(x, raw).mean(-1))
    wide = objective(loss=loss)(out_of(x.repeat(1, 3), raw.repeat(1, 3)))
    assert_close(wide, value)


def test_value_over_observed_cells_is_their_mean():
    x, raw = normal(6, D), normal(6, D, seed=1)
    observed = (normal(6, D, seed=2) > -0.5).double()
    observed[0] = 0
    value = objective()(out_of(x, raw, rows=Rows(observed=observed)))
    assert value[0] == 0
    for i in range(1, 6):
        seen = observed[i].bool()
        assert value[i].item() == pytest.approx(float(((x - raw)[i, seen] ** 2).mean()))


@pytest.mark.parametrize("kind", [Autograd, Fused])
def test_path_weight_is_what_the_encoder_sees_of_the_codes_gradient(kind):
    x = normal(6, D)
    whole, half = (
        step(kind, network(), o(loss=SquaredError()), x).gradients for o in (BentClosed, HalfPath)
    )
    for name, gradient in whole.items():
        assert_close(half[name], gradient * (0.5 if name.startswith("encoder") else 1))


def test_penalty_is_added_to_the_loss():
    out = out_of(normal(6, D), normal(6, D, seed=1))
    expected = objective()(out) + 0.7 * out.h.square().sum(-1)
    assert_close(Activity(loss=SquaredError(), beta=0.7)(out), expected)


def test_observed_weights_of_a_row_sum_to_the_number_of_features():
    observed = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
    assert observed_weight(observed).sum(-1).tolist() == [4, 4, 4, 0]


@pytest.mark.parametrize("name", ["dropout", "input_dropout"])
def test_noise_names_the_parameter_that_draws(name):
    assert objective().noise is None
    assert objective(**{name: 0.1}).noise == name
    assert Gaussian(loss=SquaredError(), sigma=0.0).noise is None
    assert Gaussian(loss=SquaredError(), sigma=0.1).noise == "sigma"


def test_stack_turns_the_fields_that_differ_into_a_column_of_models():
    stacked = stack([objective(alpha=a, dropout=0.2) for a in (0.0, 0.1, 0.5)], torch.float32)
    assert stacked.alpha.shape == (3, 1, 1)
    assert stacked.alpha.dtype is torch.float32
    assert stacked.alpha.flatten().tolist() == pytest.approx([0.0, 0.1, 0.5])
    assert stacked.dropout == 0.2
    assert stacked.loss == SquaredError()


def test_stack_of_equal_objectives_is_one_of_them():
    assert stack([objective(alpha=0.1)] * 3) == objective(alpha=0.1)


def test_stack_of_a_stacked_field_is_positive_if_any_model_is():
    assert is_positive(stack([objective(alpha=0.0), objective(alpha=0.1)]).alpha)
    assert not is_positive(torch.zeros(2, 1, 1))
    assert is_positive(0.1)
    assert not is_positive(0.0)


def test_stack_refuses_other_classes_and_other_static_fields():
    with pytest.raises(ValueError, match="different classes"):
        stack([objective(), OBJECTIVES["Bent"]])
    few, many = (Importance(loss=SquaredError(), n_importance_samples=k) for k in (2, 5))
    with pytest.raises(ValueError, match="'n_importance_samples' is the same in all"):
        stack([few, many])
    with pytest.raises(ValueError, match="'loss' is the same in all"):
        stack([objective(), objective(loss=LOSSES["huber"])])


def test_overrides_sees_what_a_class_gives_itself():
    assert overrides(OBJECTIVES["Bent"], "latent")
    assert not overrides(OBJECTIVES["Bent"], "latent_gradient")
    assert not overrides(objective(), "__call__")
    assert overrides(OBJECTIVES["Whole"], "__call__")


def all_rows(n=6):
    weight = torch.arange(1.0, n + 1)
    cells = torch.arange(2.0 * n).view(n, 2)
    pairs = Pairs(torch.arange(1.0 * n * n).view(n, n))
    return Rows(weight, cells, -cells, torch.arange(n), torch.arange(n) % 2, pairs)


@pytest.mark.parametrize("index", [torch.tensor([4, 0, 2]), slice(1, 4)], ids=["index", "slice"])
def test_rows_are_taken_together(index):
    rows = all_rows()
    taken = rows.take(index)
    for name, part in vars(rows).items():
        if name != "pairs":
            assert torch.equal(getattr(taken, name), part[index]), name
    assert torch.equal(taken.pairs.phi, rows.pairs.phi[index][:, index])
    assert NO_ROWS.take(index) == NO_ROWS


def test_rows_of_every_model_are_taken_along_the_rows():
    rows = Rows(weight=normal(3, 6), target=normal(3, 6, 2))
    taken = rows.take(torch.tensor([4, 0]))
    assert torch.equal(taken.weight, rows.weight[:, [4, 0]])
    assert torch.equal(taken.target, rows.target[:, [4, 0]])


def test_normalised_weights_have_mean_one():
    assert all_rows().normalised().weight.mean() == 1
    assert NO_ROWS.normalised() is NO_ROWS


def test_lectures_cost_is_ours_times_rows_and_features():
    """R = sum |x^ - x|^2 + lambda (|W1|^2 + |W2|^2), alpha = 2 lambda / (n d)."""
    n, lam = 10, 0.3
    net = network(hidden=(), center=normal(D, seed=4), gains=(0.4, 1.7))
    p, x = starting(net), normal(n, D)
    W1, b1, W2, b2 = (
        net.exported(p)[name].numpy()
        for name in ("encoder.0.W", "encoder.0.b", "decoder.0.W", "decoder.0.b")
    )
    h = expit(x.numpy() @ W1.T + b1)
    x_hat = h @ W2.T + b2
    R = np.sum((x_hat - x.numpy()) ** 2) + lam * (np.sum(W1**2) + np.sum(W2**2))
    ours = objective(alpha=2 * lam / (n * D))
    for engine in (Fused, Autograd):
        value = step(engine, net, ours, x, parameters=p).value
        assert n * D * value.item() == pytest.approx(R, rel=1e-12)


@pytest.mark.parametrize("cls", [Objective, skae.Autoencoder])
def test_docstrings_factor_turns_alpha_into_the_lectures_lambda(cls):
    """Beside a sum over rows and features, or the mean over rows of a sum over features."""
    n, d, lam = 10, D, 0.3
    names = {"n": n, "d": d, "n_features": d, "alpha": 2 * lam / (n * d)}
    found = re.findall(r"lambda is\s+`*([\w\s/]*alpha[\w\s/]*?)`*\s+(?:beside|for|\()", cls.__doc__)
    assert found
    for formula in found:
        value = eval(re.sub(r"(?<=\w)\s+(?=\w)", "*", formula), names)
        assert value == pytest.approx(lam if "n*" in formula or "n " in formula else lam / n)


def test_weight_decay_of_tied_weights_counts_them_once():
    net, x = network(hidden=(), tied=True), normal(8, D)
    p = starting(net)
    for engine in (Fused, Autograd):
        plain = step(engine, net, objective(), x, parameters=p).value
        decayed = step(engine, net, objective(alpha=0.5), x, parameters=p).value
        assert (decayed - plain).item() == pytest.approx(
            0.25 * float(p["encoder.0.W"].square().sum())
        )


def test_no_rows_say_nothing():
    assert all(part is None for part in vars(NO_ROWS).values())

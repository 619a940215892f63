"""Quantised columns, and columns that several groups predict."""

import copy
import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skae.cross_prediction import CrossPrediction, Head, Quantised
from skae.losses import AbsoluteError, BinaryCrossEntropy, SquaredError
from skae.objective import Objective
from skae.testing import check_objective
from tests.toys import DOUBLE, MeanAndVariance, assert_close, normal


def quantised(d, n_bins=3, is_categorical=False):
    """Bins of d columns, each column's somewhere else."""
    edges = tuple(tuple(0.1 * j + i - 0.5 for i in range(n_bins - 1)) for j in range(d))
    values = tuple(tuple(float(i - 1 + j) for i in range(n_bins)) for j in range(d))
    shares = ((1 / n_bins,) * n_bins,) * d
    return Quantised(edges, values, shares, is_categorical)


GROUPS = ((0, 3), (1, 5), (2, 4))
LOSSES = {
    "quantised": quantised(5),
    "categorical": quantised(5, 4, True),
    "one bin": Quantised(((),) * 5, ((1.0,),) * 5, ((1.0,),) * 5),
}
SPLITS = {
    "neighbours": CrossPrediction(
        ((0, 1, 2), (3, 4)), (Head((0, 1, 3), AbsoluteError()), Head((2, 4), quantised(2)))
    ),
    "halves": CrossPrediction(((0, 1, 2), (3, 4)), (Head((0, 1, 2, 3, 4), SquaredError()),)),
    "scattered": CrossPrediction(((1, 3), (0, 2, 4)), (Head((0, 1, 2, 3, 4), AbsoluteError()),)),
    "three groups": CrossPrediction(
        ((0, 3), (1,), (2, 4)), (Head((0, 1, 2, 3, 4), SquaredError()),)
    ),
    "bounded": CrossPrediction(
        ((0, 3), (1,), (2, 4)), (Head((0, 1, 2, 3, 4), BinaryCrossEntropy()),)
    ),
    "a wider loss": CrossPrediction(
        ((0, 3), (1,), (2, 4)), (Head((0, 1, 2, 3, 4), MeanAndVariance()),)
    ),
    "every kind": CrossPrediction(
        ((0, 3), (1,), (2, 4)),
        (Head((0, 1), SquaredError()), Head((2, 4), quantised(2)),
         Head((3,), quantised(1, 4, True))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LOSSES, *SPLITS])
def test_losses_keep_the_contract(name):
    check_objective(Objective(loss=(LOSSES | SPLITS)[name], alpha=0.01))


@pytest.mark.parametrize("name", [*LOSSES, *SPLITS])
def test_losses_are_data(name):
    loss = (LOSSES | SPLITS)[name]
    loss.elements(normal(7, 5), normal(7, loss.width(5), seed=1))
    for copied in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert copied == loss
        assert hash(copied) == hash(loss)
        assert vars(copied).keys() == {"groups", "heads"} or "edges" in vars(copied)


@pytest.mark.parametrize("name", [*LOSSES, *SPLITS])
def test_what_a_loss_makes_once_is_no_attribute(name):
    loss = copy.deepcopy((LOSSES | SPLITS)[name])
    fields = {field.name for field in dataclasses.fields(loss)}
    assert vars(loss).keys() == fields
    loss.predict(normal(7, loss.width(5)))
    assert vars(loss).keys() == fields
    assert dataclasses.replace(loss) == loss


# ---- bins


def test_elements_are_the_cross_entropy_of_the_bin():
    loss, x, raw = quantised(5), normal(7, 5), normal(7, 15, seed=1)
    logits = raw.view(7, 5, 3)
    for i, j in itertools.product(range(7), range(5)):
        bin_of_x = int(np.searchsorted(loss.edges[j], float(x[i, j]), side="right"))
        expected = F.cross_entropy(logits[i, j][None], torch.tensor([bin_of_x]))
        assert float(loss.elements(x, raw)[i, j]) == pytest.approx(float(expected))


def test_prediction_is_the_expected_value_of_the_bin():
    loss, raw = quantised(5), normal(7, 15, seed=1)
    p = raw.view(7, 5, 3).softmax(-1)
    expected = (p * torch.tensor(loss.values, dtype=DOUBLE)).sum(-1)
    assert_close(loss.predict(raw), expected)


def test_prediction_of_a_category_is_the_most_probable_one():
    loss, raw = quantised(5, 4, True), normal(7, 20, seed=1)
    best = raw.view(7, 5, 4).argmax(-1)
    expected = torch.tensor(loss.values, dtype=DOUBLE)[torch.arange(5), best]
    assert torch.equal(loss.predict(raw), expected)


def test_a_value_on_an_edge_belongs_to_the_upper_bin():
    loss = Quantised(((1.0, 2.0),), ((0.0, 1.0, 2.0),), ((0.2, 0.3, 0.5),))
    x = torch.tensor([[0.9], [1.0], [1.5], [2.0], [99.0], [-99.0]])
    assert loss.bins(x).flatten().tolist() == [0, 1, 1, 2, 2, 0]


def test_training_starts_at_the_shares_of_the_bins():
    loss = Quantised(((1.0, 2.0),), ((0.0, 1.0, 2.0),), ((0.2, 0.8, 0.0),))
    p = loss.start(torch.zeros(1, dtype=DOUBLE)).softmax(-1)
    np.testing.assert_allclose(p, [0.2, 0.8, 0.0], atol=2e-4)


# ---- groups


def parts(loss, raw):
    """What each group predicts, under one head of losses of their own width."""
    for g in range(len(loss.groups)):
        start = sum(loss.group_width(before) for before in range(g))
        yield loss.predicted(g), raw[..., start : start + loss.group_width(g)]


@pytest.mark.parametrize("name", ["halves", "scattered", "three groups", "bounded"])
def test_elements_are_the_mean_over_the_groups_that_predict_a_column(name):
    loss = SPLITS[name]
    x, raw = normal(7, 5).sigmoid(), normal(7, loss.width(5), seed=1)
    found = torch.full((len(loss.groups), 7, 5), torch.nan, dtype=DOUBLE)
    for g, (columns, own) in enumerate(parts(loss, raw)):
        found[g][:, columns] = loss.heads[0].loss.elements(x[:, columns], own)
        assert set(columns).isdisjoint(loss.groups[g])
    assert_close(loss.elements(x, raw), found.nanmean(0))


@pytest.mark.parametrize("name", ["halves", "scattered", "three groups", "bounded"])
def test_prediction_is_the_mean_over_the_groups_that_predict_a_column(name):
    loss = SPLITS[name]
    raw = normal(7, loss.width(5), seed=1)
    found = torch.stack([loss.predict_by(raw, g) for g in range(len(loss.groups))])
    for g, (columns, own) in enumerate(parts(loss, raw)):
        assert found[g][:, loss.groups[g]].isnan().all()
        assert torch.equal(found[g][:, columns], loss.heads[0].loss.predict(own))
    assert_close(loss.predict(raw), found.nanmean(0))


def test_bins_are_averaged_by_value_and_categories_by_probability():
    """A category that two groups think likely wins over one that each thinks likeliest."""
    loss = CrossPrediction(
        ((0,), (1,), (2,)), (Head((0, 1), SquaredError()), Head((2,), quantised(1, 3, True)))
    )
    # Each group predicts one numeric column and then, if it does not see it, the category.
    first, second = torch.tensor([0.5, 0.4, 0.1]).log(), torch.tensor([0.05, 0.45, 0.5]).log()
    raw = torch.cat([torch.zeros(1), first, torch.zeros(1), second, torch.zeros(2)])[None]
    votes = [float(loss.predict_by(raw, g)[0, 2]) for g in range(2)]
    values = loss.heads[1].loss.values[0]
    assert votes == [values[0], values[2]]
    assert float(loss.predict(raw)[0, 2]) == values[1]


def test_start_predicts_means_and_shares():
    loss, mean = SPLITS["every kind"], torch.arange(5, dtype=DOUBLE)
    raw = loss.start(mean)
    assert raw.shape == (loss.width(5),)
    x_hat = loss.predict(raw[None])
    assert_close(x_hat[0, :2], mean[:2])


def test_unit_is_the_smallest_so_that_no_head_stands_still():
    assert SPLITS["halves"].unit(100.0) == 1e4
    assert SPLITS["every kind"].unit(100.0) == 1.0


@pytest.mark.parametrize("name", [*LOSSES, *SPLITS])
def test_kernels_do_what_accumulate_does(name):
    loss = (LOSSES | SPLITS)[name]
    x, raw = normal(7, 5).sigmoid(), normal(7, loss.width(5), seed=1)
    expected, overwritten = torch.zeros(7, 5, dtype=DOUBLE), raw.clone()
    loss.accumulate(x, overwritten, 0.3, None, expected)
    total = torch.zeros(7, 5, dtype=DOUBLE)
    for op in loss.kernels(x, raw, 0.3, total):
        op()
    assert_close(total, expected)
    assert_close(raw, overwritten)

"""The data's moments, and networks placed by them."""

import math

import numpy as np
import pytest
import torch
from toys import (
    DOUBLE,
    D,
    K,
    LearnedVariance,
    TwoOutputs,
    assert_close,
    network,
    normal,
    objective,
    starting,
)

import skae._engine.batches as batches_module
from skae._engine.batches import make_source
from skae._engine.rng import Streams
from skae._engine.start import moments, place, starting_values
from skae.activations import ACTIVATIONS
from skae.losses import INVERSE_LINKS, LOSSES, Linked, SquaredError
from skae.modules import wrap
from skae.networks import Network

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, D)) * [1.0, 5.0, 0.1, 2.0, 1.0] + [0.0, 3.0, -2.0, 100.0, 0.5]


@pytest.fixture(params=[None, 1, 7, 64], ids=lambda rows: f"chunks of {rows}")
def chunked(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(batches_module, "_CHUNK_BYTES", request.param * D * 8)


@pytest.mark.usefixtures("chunked")
def test_moments_are_numpys():
    m = moments(make_source(X, DOUBLE))
    assert_close(m.mean, torch.from_numpy(X.mean(0)))
    assert np.array_equal(m.low, X.min(0))
    assert np.array_equal(m.high, X.max(0))
    assert m.scale == pytest.approx(math.sqrt(X.var(0).mean()), rel=1e-12)


@pytest.mark.usefixtures("chunked")
def test_weighted_moments_are_numpys():
    w = RNG.exponential(size=200)
    w[5:90] = 0
    m = moments(make_source(X, DOUBLE), torch.from_numpy(w))
    mean = np.average(X, axis=0, weights=w)
    assert_close(m.mean, torch.from_numpy(mean))
    variance = np.average((X - mean) ** 2, axis=0, weights=w)
    assert m.scale == pytest.approx(math.sqrt(variance.mean()), rel=1e-11)


@pytest.mark.usefixtures("chunked")
def test_integer_weights_are_repeated_rows():
    w = RNG.integers(0, 4, size=200)
    weighted = moments(make_source(X, DOUBLE), torch.from_numpy(w.astype(float)))
    repeated = moments(make_source(np.repeat(X, w, axis=0), DOUBLE))
    assert_close(weighted.mean, repeated.mean)
    assert weighted.scale == pytest.approx(repeated.scale, rel=1e-11)


@pytest.mark.usefixtures("chunked")
def test_moments_of_a_large_offset_keep_their_digits():
    far = moments(make_source(X + 1e8, DOUBLE))
    assert far.scale == pytest.approx(math.sqrt(X.var(0).mean()), rel=1e-6)


def test_moments_of_models_with_rows_of_their_own_are_those_of_all_rows():
    both = moments(make_source(torch.from_numpy(np.stack([X, 2 * X])), DOUBLE))
    rows = np.vstack([X, 2 * X])
    assert_close(both.mean, torch.from_numpy(rows.mean(0)))
    assert both.scale == pytest.approx(math.sqrt(rows.var(0).mean()), rel=1e-12)


@pytest.mark.parametrize("rows", [1, 3])
def test_scale_of_data_that_do_not_vary_is_one(rows):
    m = moments(make_source(np.full((rows, D), 3.0), DOUBLE))
    assert m.scale == 1.0
    assert m.mean.tolist() == [3.0] * D


def placed(data, loss=LOSSES["squared_error"], **options):
    m = moments(make_source(data, DOUBLE))
    return place(network(**options), loss, m, DOUBLE, "cpu"), m


def test_placed_network_centers_and_scales_by_the_moments():
    net, m = placed(X)
    assert_close(net.encoder.center, m.mean)
    assert net.encoder.gain_in == pytest.approx(1 / m.scale)
    assert net.decoder.gain_out == pytest.approx(m.scale)


def test_standardised_data_need_neither_center_nor_gains():
    net, _ = placed((X - X.mean(0)) / X.std(0))
    assert net.encoder.center is None
    assert net.encoder.gain_in == net.decoder.gain_out == 1.0


def test_tied_weights_are_centered_without_gains():
    net, m = placed(X, tied=True)
    assert_close(net.encoder.center, m.mean)
    assert net.encoder.gain_in == net.decoder.gain_out == 1.0
    assert net.decoder.tied_to is net.encoder


@pytest.mark.parametrize("link", [link for link in INVERSE_LINKS if link != "identity"])
def test_output_behind_a_curved_link_is_not_scaled(link):
    net, m = placed(X, Linked(SquaredError(), link))
    expected = m.scale if link == "relu" else 1.0
    assert net.decoder.gain_out == pytest.approx(expected)


def test_users_modules_are_left_as_they_are():
    module = wrap("encoder", torch.nn.Linear(D, K), DOUBLE, "cpu")
    net = Network(module, network().decoder)
    m = moments(make_source(X, DOUBLE))
    assert place(net, SquaredError(), m, DOUBLE, "cpu").encoder is module


@pytest.mark.parametrize("options", [{}, {"hidden": ()}], ids=["deep", "one layer"])
def test_placed_network_sees_standardised_data_and_answers_in_their_units(options):
    """Of c + s X it computes what it computes of X: the parameters are in the data's units."""
    net, _ = placed(X, **options)
    moved, _ = placed(1000 + 50 * X, **options)
    p = starting(net)
    x = torch.from_numpy(X)
    z, raw = net.encoder.forward(p, x), None
    assert_close(moved.encoder.forward(p, 1000 + 50 * x), z, 1e-11)
    raw = net.decoder.forward(p, z)
    assert_close(moved.decoder.forward(p, z), 50 * raw, 1e-11)


def values(net, o, m, seed=0):
    return starting_values(net, o, m, K, Streams([seed]).draws("init", DOUBLE))


@pytest.mark.parametrize("tied", [False, True])
def test_output_starts_at_the_features_means_where_the_code_is_zero(tied):
    net, m = placed(X, tied=tied)
    p = values(net, objective(), m)
    start = net.exported(p)
    assert_close(start["decoder.1.b"], m.mean)


@pytest.mark.parametrize("link", INVERSE_LINKS)
def test_output_bias_gives_the_means_through_the_link(link):
    data = RNG.uniform(0.2, 0.8, size=(100, D))
    loss = LOSSES["squared_error"] if link == "identity" else Linked(SquaredError(), link)
    net, m = placed(data, loss)
    bias = net.exported(values(net, objective(loss=loss), m))["decoder.1.b"]
    assert_close(ACTIVATIONS[link].function(bias), m.mean, 1e-11)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("link", INVERSE_LINKS)
def test_starting_values_are_finite_for_data_of_any_size(link, scale):
    data = scale * RNG.uniform(0, 1, size=(50, D))
    loss = LOSSES["squared_error"] if link == "identity" else Linked(SquaredError(), link)
    net, m = placed(data, loss)
    start = values(net, objective(loss=loss), m)
    assert all(value.isfinite().all() for value in start.values())


def test_same_seed_starts_from_the_same_weights_whatever_the_data():
    near, far = (placed(data)[0] for data in (X, 1000 + 50 * X))
    a, b = (values(net, objective(), moments(make_source(X, DOUBLE))) for net in (near, far))
    for name in near.weight_shapes():
        assert torch.equal(a[name], b[name])


def test_objectives_own_parameters_start_at_its_values():
    net, m = placed(X)
    start = values(net, LearnedVariance(loss=SquaredError()), m)
    assert start["objective.log_var"] == 0


def test_output_of_another_width_has_no_starting_bias():
    o = TwoOutputs()
    net, m = placed(X, output_width=2 * D)
    assert "decoder.1.b" not in values(net, o, m)
    assert normal(1).numel() == 1


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_leave_missing_values_out(weighted):
    rng = np.random.default_rng(1)
    holed = np.where(rng.random(X.shape) < 0.3, np.nan, X)
    holed[:, 1] = np.nan
    holed[50:120, 2] = np.nan  # whole chunks without a value
    w = rng.integers(0, 3, size=200).astype(float) if weighted else np.ones(200)
    m = moments(
        make_source(holed, DOUBLE), torch.from_numpy(w) if weighted else None, skip_nan=True
    )
    assert m.mean.isnan().tolist() == [False, True, False, False, False]
    variances = []
    for j in (0, 2, 3, 4):
        there = ~np.isnan(holed[:, j])
        x, weight = holed[there, j], w[there]
        mean = np.average(x, weights=weight)
        assert float(m.mean[j]) == pytest.approx(mean, rel=1e-12)
        assert (float(m.low[j]), float(m.high[j])) == (x.min(), x.max())
        variances.append(np.average((x - mean) ** 2, weights=weight))
    assert m.scale == pytest.approx(math.sqrt(np.mean(variances)), rel=1e-10)

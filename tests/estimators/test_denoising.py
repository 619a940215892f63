"""DenoisingAutoencoder: what it sees, what it is held to, and what it converges to."""

import dataclasses

import numpy as np
import pytest
import torch

from skae import Autoencoder, DenoisingAutoencoder
from skae._engine.rng import Streams
from skae.estimators.denoising import DenoisingObjective
from skae.losses import LOSSES, SquaredError
from skae.objective import Features, Forward
from skae.testing import check_objective

CORRUPTIONS = ("gaussian", "masking", "salt_and_pepper", "swap")
D = 5
FEATURES = Features(*(torch.linspace(a, b, D, dtype=torch.float64)
                      for a, b in ((-0.2, 0.3), (-2, -1), (1, 2))))  # fmt: skip


def quick(**changed):
    """One that trains in a few milliseconds."""
    return DenoisingAutoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


def assert_same_fit(a, b):
    for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(p, q)
    assert a.loss_curve_ == b.loss_curve_
    assert a.validation_loss_curve_ == b.validation_loss_curve_


def draws(seed=0):
    return Streams([seed]).draws("corruption", torch.float64)


@pytest.fixture
def seen(monkeypatch):
    """Every (x, x_in, changed) of the calls of `corrupt`."""
    calls = []
    corrupt = DenoisingObjective.corrupt

    def recorded(self, x, rng):
        x_in, changed = corrupt(self, x, rng)
        calls.append((x.clone(), x_in.clone(), None if changed is None else changed > 0))
        return x_in, changed

    monkeypatch.setattr(DenoisingObjective, "corrupt", recorded)
    return calls


# ---- the contract


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("untouched_weight", [1.0, 0.5, 0.0])
def test_objective_keeps_the_contract(corruption, untouched_weight):
    check_objective(
        DenoisingObjective(
            loss=SquaredError(), corruption=corruption, noise_level=0.4, features=FEATURES,
            untouched_weight=untouched_weight,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{"exact": False}, {"fill": 0.5}, {"noise_level": 0.0},
     {"loss": LOSSES["binary_cross_entropy"]},
     {"loss": LOSSES["binary_cross_entropy"], "corruption": "salt_and_pepper", "features": None}],
)  # fmt: skip
def test_objective_keeps_the_contract_with(fields):
    check_objective(
        DenoisingObjective(**{"loss": SquaredError(), "noise_level": 0.4, "features": FEATURES}
                           | fields)
    )  # fmt: skip


def test_salt_and_pepper_without_ends_says_so():
    objective = DenoisingObjective(loss=SquaredError(), corruption="salt_and_pepper")
    with pytest.raises(ValueError, match="needs `features`"):
        objective.corrupt(torch.zeros(3, D), draws())


# ---- zero noise, the target, the draws


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_zero_noise_is_plain_autoencoder(X, corruption, solver):
    options = {"solver": solver, "early_stopping": solver == "adam", "learning_rate_init": 1e-4}
    denoising = quick(corruption=corruption, noise_level=0, **options).fit(X)
    plain = Autoencoder(n_components=2, hidden_layer_sizes=(4,), max_iter=3, tol=None,
                        batch_size=16, random_state=0, **options).fit(X)  # fmt: skip
    assert_same_fit(denoising, plain)


def test_noise_leaves_start_and_order_of_rows_as_they_are(X, seen):
    quick(corruption="gaussian", noise_level=0.5).fit(X)
    noisy = [x for x, _, _ in seen]
    seen.clear()
    quick(noise_level=0).fit(X)
    assert all(torch.equal(a, b) for a, (b, _, _) in zip(noisy, seen, strict=True))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_noise_differs_between_batches_and_epochs(X, seen, corruption):
    same = np.tile(X[:2], (30, 1))  # batches of two kinds of rows
    quick(corruption=corruption, noise_level=0.4, batch_size=20, shuffle=False).fit(same)
    assert len(seen) == 9
    noise = [x_in - x for x, x_in, _ in seen]
    assert len({tuple(batch.flatten().tolist()) for batch in noise}) == 9
    assert len({tuple(row.tolist()) for row in noise[0][::2]}) > 3  # of ten equal rows


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_target_is_the_clean_input(X, corruption):
    """The loss of a network that gives the means is the variance of the clean rows."""
    ae = quick(corruption=corruption, noise_level=0.5, learning_rate_init=1e-12, max_iter=1)
    start = ae.fit(X)
    zero = [np.zeros_like(W) for W in start.coefs_]
    for linear, W in zip(start._linears(), zero, strict=True):
        linear.weight.data = torch.from_numpy(W.T.copy())
        linear.bias.data.zero_()
    start._linears()[-1].bias.data = torch.from_numpy(X.mean(0))
    again = quick(corruption=corruption, noise_level=0.5, learning_rate_init=1e-12, max_iter=1,
                  initialize_from=start).fit(X)  # fmt: skip
    assert again.loss_curve_[0] == pytest.approx(X.var(0).mean(), rel=1e-6)


def test_validation_and_inference_see_clean_rows(X):
    ae = quick(corruption="gaussian", noise_level=3.0, early_stopping=True, max_iter=1,
               learning_rate_init=1e-12).fit(X)  # fmt: skip
    plain = quick(noise_level=0, early_stopping=True, max_iter=1, learning_rate_init=1e-12).fit(X)
    assert ae.validation_loss_curve_ == pytest.approx(plain.validation_loss_curve_, rel=1e-6)
    assert ae.loss_curve_ != pytest.approx(plain.loss_curve_, rel=1e-3)
    for method in (ae.transform, ae.reconstruct, ae.score_samples):
        np.testing.assert_array_equal(method(X), method(X))
    np.testing.assert_array_equal(ae.reconstruct(X), ae.inverse_transform(ae.transform(X)))


# ---- what each corruption does to the batch


@pytest.mark.parametrize("corruption", ["masking", "salt_and_pepper", "swap"])
def test_every_row_has_the_share_of_its_cells_corrupted(X, seen, corruption):
    quick(corruption=corruption, noise_level=0.4).fit(X)
    for x, x_in, changed in seen:
        assert set(changed.sum(-1).tolist()) == {2}
        assert torch.equal(x_in[~changed], x[~changed])


def test_cells_are_drawn_one_by_one_on_request(X, seen):
    quick(noise_level=0.4, exact_fraction=False).fit(X)
    counts = torch.cat([changed.sum(-1) for _, _, changed in seen])
    assert len(counts.unique()) > 2
    assert counts.double().mean() == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize(("fill", "value"), [("mean", None), (0, 0.0), (-1.5, -1.5)])
def test_masked_cells_become_the_fill(X, seen, fill, value):
    quick(noise_level=0.4, fill=fill).fit(X)
    expected = torch.from_numpy(X.mean(0) if value is None else np.full(D, value))
    for _, x_in, changed in seen:
        torch.testing.assert_close(x_in[changed], expected.expand_as(x_in)[changed])


def test_masking_at_the_mean_does_not_depend_on_the_units_of_X(X):
    Z = (X - X.mean(0)) / np.sqrt(X.var(0).mean())
    a, b = (quick(max_iter=20).fit(data) for data in (Z, 1000 + 50 * Z))
    np.testing.assert_allclose(b.transform(1000 + 50 * Z), a.transform(Z), rtol=1e-6, atol=1e-8)


def test_salt_and_pepper_takes_the_ends_of_each_feature(X, seen):
    quick(corruption="salt_and_pepper", noise_level=0.6).fit(X)
    low, high = torch.from_numpy(X.min(0)), torch.from_numpy(X.max(0))
    _, x_in, changed = (torch.cat(parts) for parts in zip(*seen, strict=True))
    ends = torch.stack([x_in == low, x_in == high]).any(0)
    assert ends[changed].all()
    assert (x_in == low)[changed].double().mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("options", [{"loss": "binary_cross_entropy"},
                                     {"output_activation": "logistic"}])  # fmt: skip
def test_salt_and_pepper_takes_the_ends_of_the_output_where_it_has_two(X, seen, options):
    inside = 0.2 + 0.5 * (X - X.min()) / np.ptp(X)
    quick(corruption="salt_and_pepper", noise_level=0.6, **options).fit(inside)
    _, x_in, changed = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert set(x_in[changed].unique().tolist()) == {0.0, 1.0}


def test_swapped_cells_hold_values_of_their_feature_in_the_batch(X, seen):
    quick(corruption="swap", noise_level=0.4).fit(X)
    for x, x_in, changed in seen:
        for j in range(D):
            assert np.isin(x_in[changed[:, j], j], x[:, j]).all()
        assert (x_in != x)[changed].all()


# ---- emphasis


def test_emphasis_weighs_corrupted_and_untouched_cells():
    """alpha sum over corrupted + beta sum over untouched cells, of Vincent et al. (2010)."""
    objective = DenoisingObjective(loss=SquaredError(), noise_level=0.4, features=FEATURES)
    x, raw = torch.randn(2, 7, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_in, changed = objective.corrupt(x, draws())
    out = Forward(x, x_in, x_in, x_in, raw, changed=changed)
    errors = (raw - x) ** 2
    for beta in (1.0, 0.5, 0.0):
        value = dataclasses.replace(objective, untouched_weight=beta)(out)
        expected = [
            e[c].sum() + beta * e[~c].sum() for e, c in zip(errors, changed > 0, strict=True)
        ]
        torch.testing.assert_close(value, torch.stack(expected) / D, rtol=1e-12, atol=0)


def test_emphasis_of_gaussian_noise_is_none(X):
    assert_same_fit(quick(corruption="gaussian", untouched_weight=0.5).fit(X),
                    quick(corruption="gaussian").fit(X))  # fmt: skip


def test_full_emphasis_without_corruption_is_refused(X):
    with pytest.raises(ValueError, match="noise_level=0 corrupts none"):
        quick(untouched_weight=0, noise_level=0).fit(X)


# ---- what it converges to


def optimal_map(X, sigma):
    """x^ = C (C + sigma^2 I)^-1 x, the best linear reconstruction of x from x + sigma epsilon."""
    C = X.T @ X / len(X)
    return C @ np.linalg.inv(C + sigma**2 * np.eye(len(C)))


@pytest.fixture(scope="module")
def centred():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) * [1.0, 0.5, 1.5, 1.0]
    return X - X.mean(0)


def test_full_width_linear_network_reaches_the_wiener_map(centred):
    """By the noise that it draws: the schedule averages it out, up to a few percent."""
    ae = DenoisingAutoencoder(
        corruption="gaussian", noise_level=0.8, n_components=4, hidden_layer_sizes=(),
        activation="identity", learning_rate="cosine", learning_rate_init=0.01, max_iter=3000,
        tol=None, batch_size=400, random_state=0,
    ).fit(centred)  # fmt: skip
    found, expected = (ae.coefs_[0] @ ae.coefs_[1]).T, optimal_map(centred, 0.8)
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
    assert np.linalg.norm(np.eye(4) - expected) > 0.2 * np.linalg.norm(expected)


def test_many_noisy_copies_have_the_wiener_map_for_their_regression(centred):
    """The same without training: least squares from the rows that `corrupt` gives to the clean."""
    objective = DenoisingObjective(loss=SquaredError(), corruption="gaussian", noise_level=0.8)
    X = np.tile(centred, (500, 1))
    noisy = objective.corrupt(torch.from_numpy(X), draws())[0].numpy()
    found = np.linalg.lstsq(noisy, X, rcond=None)[0].T
    np.testing.assert_allclose(found, optimal_map(centred, 0.8), atol=0.01)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_it_repairs_noise_better_than_the_plain_one(digits, corruption):
    X, test = digits[:1200] / 16, digits[1200:] / 16
    level = 0.3 if corruption == "gaussian" else 0.4
    options = {"n_components": 24, "max_iter": 40, "tol": None, "random_state": 0,
               "learning_rate_init": 3e-3}  # fmt: skip
    denoising = DenoisingAutoencoder(corruption=corruption, noise_level=level, **options).fit(X)
    plain = Autoencoder(**options).fit(X)
    noisy = denoising.objective_.corrupt(torch.from_numpy(test), draws())[0].numpy()
    repaired, copied = (np.mean((m.reconstruct(noisy) - test) ** 2) for m in (denoising, plain))
    assert repaired < 0.8 * copied
    assert repaired < 0.8 * np.mean((noisy - test) ** 2)


# ---- the shell


def test_sample_weights_are_repeated_rows_on_average(centred):
    """In place of scikit-learn's check, which compares two fits of different noise."""
    X = centred[:60]
    w = (X[:, 0] > 0) * 2 + (X[:, 1] > 0)
    options = {"n_components": 4, "hidden_layer_sizes": (), "activation": "identity",
               "noise_level": 0.5, "corruption": "gaussian", "learning_rate_init": 0.02,
               "learning_rate": "cosine", "max_iter": 1000, "tol": None}  # fmt: skip

    def maps(X, weight=None):
        fits = [DenoisingAutoencoder(random_state=seed, **options).fit(X, sample_weight=weight)
                for seed in range(8)]  # fmt: skip
        return np.array([ae.coefs_[0] @ ae.coefs_[1] for ae in fits])

    weighted, repeated, ignored = maps(X, w), maps(np.repeat(X, w, axis=0)), maps(X)
    spread = np.sqrt((weighted.var(0) + repeated.var(0)) / 8)
    assert (np.abs(weighted.mean(0) - repeated.mean(0)) < 5 * spread + 1e-3).all()
    assert (np.abs(weighted.mean(0) - ignored.mean(0)) > 5 * spread + 1e-3).any()


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_refuse_the_noise(X, solver):
    with pytest.raises(ValueError, match=f"solver='{solver}' .* noise_level=0.25 draws noise"):
        quick(solver=solver).fit(X)


@pytest.mark.parametrize("corruption", ["masking", "salt_and_pepper", "swap"])
def test_a_share_beyond_one_is_refused(X, corruption):
    with pytest.raises(ValueError, match=r"noise_level=1.5 .* share of cells .* in \[0, 1\]"):
        quick(corruption=corruption, noise_level=1.5).fit(X)
    quick(corruption="gaussian", noise_level=1.5).fit(X)


@pytest.mark.parametrize(
    "wrong",
    [{"corruption": "pepper"}, {"noise_level": -0.1}, {"fill": "median"}, {"fill": None},
     {"untouched_weight": -1}, {"exact_fraction": "yes"}, {"keep_empty_features": None}],
)  # fmt: skip
def test_bad_parameters_are_refused(X, wrong):
    with pytest.raises(ValueError, match=f"The '{next(iter(wrong))}' parameter"):
        quick(**wrong).fit(X)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_two_fits_of_k_epochs_are_one_of_2k(X, corruption):
    twice = quick(corruption=corruption, warm_start=True).fit(X).fit(X)
    assert_same_fit(twice, quick(corruption=corruption, max_iter=6).fit(X))


def test_partial_fit_keeps_what_the_first_rows_said_of_the_features(X, seen):
    ae = quick(noise_level=0.6).partial_fit(X[:30])
    seen.clear()
    ae.partial_fit(X[30:])
    for _, x_in, changed in seen:
        expected = torch.from_numpy(X[:30].mean(0)).expand_as(x_in)
        torch.testing.assert_close(x_in[changed], expected[changed])


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("n", [1, 2])
def test_few_rows_and_features_fit(X, corruption, n):
    for d in (1, 2):
        ae = quick(corruption=corruption, n_components=1).fit(X[:n, :d])
        assert np.isfinite(ae.loss_)

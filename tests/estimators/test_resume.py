"""Continuing: warm_start, partial_fit, and what is saved for them."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skae import Autoencoder, GeneralizedAutoencoder


def noisy(**changed):
    """An autoencoder that draws in every way there is."""
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "batch_size": 16, "tol": None,
           "dropout": 0.2, "input_dropout": 0.1, "warm_start": True, "random_state": 0} | changed
    )  # fmt: skip


def seeded(*layers):
    """A module of these layer makers, the same on every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*[layer() for layer in layers])


def batch_norm():
    return nn.BatchNorm1d(4)


def assert_same_model(a, b, X):
    """The same weights, curves and codes, bit for bit."""
    pairs = zip(a.encoder_.state_dict().items(), b.encoder_.state_dict().items(), strict=True)
    assert all(torch.equal(p, q) for (_, p), (_, q) in pairs)
    assert a.loss_curve_ == b.loss_curve_
    assert a.validation_loss_curve_ == b.validation_loss_curve_
    assert (a.n_iter_, a.loss_, a.best_loss_) == (b.n_iter_, b.loss_, b.best_loss_)
    np.testing.assert_array_equal(a.reconstruct(X), b.reconstruct(X))


# ---- two fits of k epochs are one of 2k


SETTINGS = {
    "adam": {},
    "sgd": {"solver": "sgd"},
    "plain momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.2},
    "early stopping at a large rate": {"early_stopping": True, "learning_rate_init": 0.2},
    "cosine": {"learning_rate": "cosine", "learning_rate_horizon": 12},
    "linear": {"learning_rate": "linear", "learning_rate_horizon": 9, "solver": "sgd"},
    "tied": {"tied_weights": True},
    "float32 products": {"precision": "float32"},
    "patience": {"tol": 1e-4, "n_iter_no_change": 50},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_fits_of_k_epochs_are_one_of_2k(X, name):
    ae = noisy(**SETTINGS[name])
    whole = clone(ae).set_params(max_iter=12).fit(X)
    halves = clone(ae).set_params(max_iter=6).fit(X)
    assert halves.n_iter_ == len(halves.loss_curve_) == 6
    halves.fit(X)
    assert halves.n_iter_ == len(halves.loss_curve_) == 12
    assert_same_model(whole, halves, X)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("layer", [nn.Dropout, batch_norm])
def test_two_fits_of_k_epochs_are_one_of_2k_with_a_module(X, layer, early_stopping):
    encoder = seeded(lambda: nn.Linear(5, 4), layer, lambda: nn.Linear(4, 2))
    ae = noisy(encoder=encoder, n_components=None, early_stopping=early_stopping)
    whole = clone(ae).set_params(max_iter=12).fit(X)
    halves = clone(ae).set_params(max_iter=6).fit(X).fit(X)
    assert_same_model(whole, halves, X)


def test_two_weighted_fits_are_one(X):
    w = np.linspace(1, 2, len(X))
    whole = noisy(max_iter=12).fit(X, sample_weight=w)
    halves = noisy(max_iter=6).fit(X, sample_weight=w).fit(X, sample_weight=w)
    assert_same_model(whole, halves, X)


@pytest.mark.parametrize("parts", [(1, 11), (11, 1), (4, 4, 4), (1,) * 12])
def test_any_division_into_fits_is_the_same(X, parts):
    whole, ae = noisy(max_iter=12).fit(X), noisy()
    for k in parts:
        ae.set_params(max_iter=k).fit(X)
    assert_same_model(whole, ae, X)


def test_without_warm_start_every_fit_starts_anew(X):
    ae = noisy(warm_start=False, max_iter=5).fit(X)
    first = ae.loss_curve_
    assert ae.fit(X).loss_curve_ == first
    assert ae.n_iter_ == 5


def test_a_schedule_ends_at_its_horizon(X):
    ae = noisy(learning_rate="linear", learning_rate_horizon=4, max_iter=4, dropout=0.0).fit(X)
    weights = ae.coefs_
    ae.fit(X)  # the rate is zero by now
    assert all(np.array_equal(a, b) for a, b in zip(weights, ae.coefs_, strict=True))


def test_draws_in_between_do_not_change_what_follows(X):
    whole, halves = noisy(max_iter=12).fit(X), noisy(max_iter=6).fit(X)
    halves.reconstruct(X), torch.rand(3)
    noisy(random_state=7, max_iter=2).fit(X)
    assert_same_model(whole, halves.fit(X), X)


def test_an_unseeded_fit_continues_from_its_own_draws(X):
    ae = noisy(random_state=None, max_iter=6).fit(X)
    first = pickle.loads(pickle.dumps(ae))
    assert_same_model(ae.fit(X), first.fit(X), X)


def test_patience_is_counted_across_fits(X):
    """Two fits of two epochs that bring nothing are four, and the third one stops at once."""
    ae = noisy(solver="sgd", learning_rate_init=1e-300, tol=1e-4, n_iter_no_change=4, dropout=0.0,
               input_dropout=0.0, batch_size=60)  # fmt: skip
    whole = clone(ae).set_params(max_iter=20).fit(X)
    assert (whole.n_iter_, whole.stop_reason_) == (5, "converged")
    ae.set_params(max_iter=2).fit(X).fit(X)
    assert ae.n_iter_ == 4
    ae.fit(X)
    assert (ae.n_iter_, ae.stop_reason_) == (5, "converged")


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_continue_from_the_weights(X, solver):
    ae = noisy(solver=solver, dropout=0.0, input_dropout=0.0, max_iter=5).fit(X)
    first = ae.loss_curve_
    ae.fit(X)
    assert ae.n_iter_ == 10
    assert ae.loss_curve_[:5] == first
    assert (np.diff(ae.loss_curve_) <= 0).all()


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_warm_start_set_after_a_fit_starts_from_its_weights(X, solver):
    ae = noisy(solver=solver, warm_start=False, max_iter=10, dropout=0.0, input_dropout=0.0,
               batch_size=60).fit(X)  # fmt: skip
    error = -ae.score(X)
    ae.set_params(warm_start=True, max_iter=1).fit(X)
    if solver == "adam":
        assert ae.loss_curve_[0] == pytest.approx(error)
    else:
        assert ae.loss_curve_[0] < error


# ---- a continuation that does not fit


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_components": 3}, "does not fit at encoder layer 1"),
        ({"hidden_layer_sizes": (6,)}, "does not fit at encoder layer 0"),
        ({"hidden_layer_sizes": (4, 4)}, "hidden_layer_sizes"),
    ],
)
def test_another_width_under_warm_start_is_refused(X, changed, message):
    ae, reference = noisy(max_iter=3).fit(X), noisy(max_iter=6).fit(X)
    before, parameters = ae.reconstruct(X), {name: getattr(ae, name) for name in changed}
    with pytest.raises(ValueError, match=message):
        ae.set_params(**changed).fit(X)
    np.testing.assert_array_equal(ae.reconstruct(X), before)
    assert_same_model(ae.set_params(**parameters).fit(X), reference, X)


@pytest.mark.parametrize(
    "changed",
    [
        {"solver": "sgd"},
        {"solver": "lbfgs", "dropout": 0.0, "input_dropout": 0.0},
        {"activation": "tanh"},
        {"code_activation": "tanh"},
        {"tied_weights": True},
    ],
)
def test_another_solver_or_network_of_the_same_widths_starts_from_the_weights(X, changed):
    ae = noisy(max_iter=3).fit(X)
    given = pickle.loads(pickle.dumps(ae))
    expected = clone(ae).set_params(initialize_from=given, **changed).fit(X)
    assert_same_model(ae.set_params(**changed).fit(X), expected, X)


@pytest.mark.parametrize(
    "changed", [{"learning_rate_init": 1e-2}, {"batch_size": 7}, {"alpha": 0.1}, {"dropout": 0.5}]
)
def test_other_numbers_under_warm_start_count_from_now_on(X, changed):
    same, other = noisy(max_iter=3).fit(X), noisy(max_iter=3).fit(X)
    other.set_params(**changed).fit(X)
    assert other.n_iter_ == 6
    assert other.loss_curve_[:3] == same.loss_curve_
    assert other.loss_curve_[3:] != same.fit(X).loss_curve_[3:]


def test_losses_of_held_out_rows_are_no_record_for_training_losses(X):
    held = noisy(max_iter=30, early_stopping=True, dropout=0.0, input_dropout=0.0).fit(X)
    plain = held.set_params(early_stopping=False, alpha=0.0, learning_rate_init=1e-9).fit(X)
    assert -plain.score(X) == pytest.approx(plain.loss_, rel=1e-3)
    assert plain.best_loss_ == min(plain.loss_curve_[30:])


def test_another_number_of_features_under_warm_start_is_refused(X):
    ae, reference = noisy(max_iter=3).fit(X), noisy(max_iter=6).fit(X)
    before = ae.reconstruct(X)
    with pytest.raises(ValueError, match=r"continues training on 5 features .* but X has 4"):
        ae.fit(X[:, :4])
    assert ae.n_features_in_ == 5
    np.testing.assert_array_equal(ae.reconstruct(X), before)
    assert_same_model(ae.fit(X), reference, X)


def test_another_dtype_under_warm_start_is_refused(X):
    ae = noisy(max_iter=3).fit(X)
    with pytest.raises(ValueError, match=r"continues .* torch\.float64, but X has .*float32"):
        ae.fit(X.astype(np.float32))


@pytest.mark.parametrize("layer", [nn.Dropout, batch_norm])
@pytest.mark.parametrize("what", ["NaN", "divergence"])
def test_a_failed_continuation_leaves_what_can_be_continued(X, layer, what):
    encoder = seeded(lambda: nn.Linear(5, 4), layer, lambda: nn.Linear(4, 2))
    ae = noisy(encoder=encoder, n_components=None, max_iter=6)
    whole = clone(ae).set_params(max_iter=12).fit(X)
    ae.fit(X)
    if what == "NaN":
        with pytest.raises(ValueError, match="NaN"):
            ae.fit(X * np.nan)
    else:
        with pytest.raises(ValueError, match="diverged"):
            ae.set_params(learning_rate_init=1e300).fit(X)
        ae.set_params(learning_rate_init=1e-3)
    assert_same_model(ae.fit(X), whole, X)


# ---- partial_fit


def test_partial_fit_is_one_pass(X):
    ae = noisy(warm_start=False).partial_fit(X)
    assert ae.n_iter_ == len(ae.loss_curve_) == 1
    assert_same_model(ae, noisy(max_iter=1).fit(X), X)


def test_partial_fit_continues_optimiser_and_generators(X):
    whole, ae = noisy(max_iter=5).fit(X), noisy(warm_start=False)
    for _ in range(5):
        ae.partial_fit(X)
    assert_same_model(ae, whole, X)


@pytest.mark.parametrize("learning_rate", ["linear", "cosine"])
def test_a_schedule_runs_over_max_iter_calls_of_partial_fit(X, learning_rate):
    whole = noisy(max_iter=5, learning_rate=learning_rate).fit(X)
    ae = noisy(max_iter=5, learning_rate=learning_rate, warm_start=False)
    for _ in range(5):
        ae.partial_fit(X)
    assert_same_model(ae, whole, X)


def test_partial_fit_does_not_warn_of_convergence(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noisy(tol=1e-4).partial_fit(X).partial_fit(X)


def test_partial_fit_never_stops_training(X):
    ae = noisy(tol=0.5, n_iter_no_change=1)
    for _ in range(6):
        ae.partial_fit(X)
    assert ae.n_iter_ == 6


def test_partial_fit_continues_a_fit_only_where_its_state_was_kept(X):
    kept = noisy(max_iter=3).fit(X).partial_fit(X)
    assert_same_model(kept, noisy(max_iter=4).fit(X), X)
    weights_only = noisy(max_iter=30, warm_start=False, dropout=0.0, input_dropout=0.0).fit(X)
    error = -weights_only.score(X)
    assert weights_only.partial_fit(X).loss_curve_[0] < 1.5 * error


def test_partial_fit_takes_parts_of_any_size(X):
    ae = noisy()
    for part in (X[:1], X[1:40], X[40:57], X[57:]):
        ae.partial_fit(part, sample_weight=np.ones(len(part)))
    assert ae.n_iter_ == 4
    assert np.isfinite(ae.loss_curve_).all()


def test_fit_after_partial_fit_starts_anew(X):
    ae = noisy(warm_start=False, max_iter=3)
    ae.partial_fit(X).fit(X)
    assert_same_model(ae, clone(ae).fit(X), X)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_have_no_partial_fit(solver):
    assert hasattr(Autoencoder(), "partial_fit")
    assert not hasattr(Autoencoder(solver=solver), "partial_fit")
    for ae in (Autoencoder(solver=solver), GeneralizedAutoencoder(solver=solver, relation="self")):
        with pytest.raises(AttributeError) as error:
            ae.partial_fit(np.eye(3))
        assert f"solver='{solver}' uses all rows" in str(error.value.__cause__)


def test_partial_fit_refuses_what_it_cannot_do(X):
    with pytest.raises(ValueError, match="cannot use early_stopping=True"):
        noisy(early_stopping=True).partial_fit(X)
    ae = noisy().partial_fit(X)
    with pytest.raises(ValueError, match="X has 4 features, but Autoencoder is expecting 5"):
        ae.partial_fit(X[:, :4])


# ---- pickles


def size(model):
    return len(pickle.dumps(model))


def test_a_pickle_without_warm_start_holds_no_more_than_the_weights(digits):
    ae = noisy(warm_start=False, max_iter=2, hidden_layer_sizes=(200,)).fit(digits)
    weights = sum(W.nbytes for W in ae.coefs_ + ae.intercepts_)
    assert size(ae) < 1.05 * weights + 10_000
    kept = noisy(max_iter=2, hidden_layer_sizes=(200,)).fit(digits)
    assert size(kept) > 3 * weights  # Adam's two moments: the test can tell


def test_early_stopping_adds_nothing_to_the_pickle(digits):
    ae = noisy(warm_start=False, max_iter=2, hidden_layer_sizes=(200,), early_stopping=True)
    weights = sum(W.nbytes for W in ae.fit(digits).coefs_ + ae.intercepts_)
    assert size(ae) < 1.05 * weights + 10_000


def test_switching_warm_start_off_drops_the_state(X):
    ae = noisy(max_iter=2).fit(X)
    large = size(ae)
    assert size(ae.set_params(warm_start=False).fit(X)) < large


@pytest.mark.parametrize("how", [pickle, joblib])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_training_continues_after_loading(X, tmp_path, how, early_stopping):
    whole = noisy(max_iter=12, early_stopping=early_stopping).fit(X)
    half = noisy(max_iter=6, early_stopping=early_stopping).fit(X)
    with open(tmp_path / "model", "wb") as file:
        how.dump(half, file)
    with open(tmp_path / "model", "rb") as file:
        loaded = how.load(file)
    assert_same_model(loaded, half, X)
    assert_same_model(loaded.fit(X), whole, X)
    assert_same_model(half.fit(X), whole, X)


def test_training_with_a_module_continues_after_loading(X):
    encoder = seeded(lambda: nn.Linear(5, 4), batch_norm, lambda: nn.Linear(4, 2))
    ae = noisy(encoder=encoder, n_components=None)
    whole = clone(ae).set_params(max_iter=12).fit(X)
    half = clone(ae).set_params(max_iter=6).fit(X)
    assert_same_model(pickle.loads(pickle.dumps(half)).fit(X), whole, X)


def test_a_continuation_does_not_change_the_copy_it_was_made_from(X):
    """A shallow copy, as callbacks get, keeps its weights."""
    import copy

    encoder = seeded(lambda: nn.Linear(5, 4), batch_norm, lambda: nn.Linear(4, 2))
    for ae in (noisy(max_iter=2), noisy(max_iter=2, encoder=encoder, n_components=None)):
        ae.fit(X)
        copied = copy.copy(ae)
        before = copied.transform(X)
        ae.fit(X)
        np.testing.assert_array_equal(copied.transform(X), before)


def test_a_pickle_of_an_unfitted_estimator_is_its_parameters():
    ae = noisy()
    assert pickle.loads(pickle.dumps(ae)).get_params() == ae.get_params()

"""What a fitted autoencoder computes, and what it makes of its parameters."""

import copy
import inspect
import warnings

import joblib
import numpy as np
import pytest
import torch
from scipy.linalg import orth, subspace_angles
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skae import Autoencoder
from skae._engine.plan import _get_products
from skae.losses import Huber


def same_weights(a, b):
    """Whether two fitted autoencoders hold the same weights, bit for bit."""
    pairs = zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True)
    return all(np.array_equal(p, q) for p, q in pairs)


def quick(**changed):
    """An autoencoder that trains in a few milliseconds."""
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "random_state": 0} | changed
    )  # fmt: skip


def sequential(*layers):
    """These modules in a row, with the same weights on every run."""
    module = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(0)
    for layer in module:
        if isinstance(layer, nn.Linear):
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    return module


def linear(**changed):
    """A linear one of a single layer, trained by full-batch L-BFGS."""
    fixed = {"hidden_layer_sizes": (), "activation": "identity", "solver": "lbfgs", "tol": None}
    return quick(**fixed | changed)


# ---- the linear autoencoder and principal components


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize("tied_weights", [False, True])
def test_linear_autoencoder_spans_the_principal_subspace(digits, solver, tied_weights):
    pca = PCA(8).fit(digits)
    principal = pca.inverse_transform(pca.transform(digits))
    ae = linear(n_components=8, solver=solver, tied_weights=tied_weights, max_iter=1000)
    ae.fit(digits)

    spread = np.linalg.norm(digits - digits.mean(0))
    assert np.linalg.norm(ae.reconstruct(digits) - principal) < 1e-3 * spread
    decoder = ae.coefs_[1].T
    assert subspace_angles(decoder, pca.components_.T).max() < 1e-2
    # Untied, the encoder's weights of pixels that never vary are free: compare what it encodes.
    codes, scores = ae.transform(digits), pca.transform(digits)
    assert subspace_angles(orth(codes - codes.mean(0)), orth(scores)).max() < 1e-2
    if tied_weights:
        assert subspace_angles(ae.components_.T, pca.components_.T).max() < 1e-2


def test_permuted_columns_do_not_compress(digits):
    rng = np.random.default_rng(0)
    permuted = rng.permuted(digits, axis=0)
    ae = linear(n_components=16, max_iter=100)
    error = ae.fit(digits).loss_
    assert clone(ae).fit(permuted).loss_ > 2.5 * error


# ---- units: X and c + s X


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "cg"])
@pytest.mark.parametrize("hidden", [(), (4,)])
def test_offset_and_scale_of_the_data_do_not_change_the_training(X, solver, hidden):
    c, s = 1000.0, 50.0
    ae = quick(
        solver=solver, hidden_layer_sizes=hidden, activation="tanh", max_iter=15, batch_size=16
    )
    plain, moved = clone(ae).fit(X), clone(ae).fit(c + s * X)
    np.testing.assert_allclose(moved.loss_curve_, np.array(plain.loss_curve_) * s**2, rtol=1e-6)
    np.testing.assert_allclose(
        moved.reconstruct(c + s * X), c + s * plain.reconstruct(X), rtol=0, atol=1e-5 * s
    )
    np.testing.assert_allclose(moved.transform(c + s * X), plain.transform(X), atol=1e-5)


def test_sigmoid_output_refuses_what_is_outside_its_range(X):
    for data in (X, 1000 + 50 * X):
        with pytest.raises(ValueError, match=r"output_activation='logistic' needs X in \[0, 1\]"):
            quick(output_activation="logistic").fit(data)


# ---- reconstruction, errors, scores


LOSSES = ["squared_error", "absolute_error", "huber", "binary_cross_entropy", "poisson"]


def within(X, loss):
    """X moved into the loss's domain."""
    low, high = X.min(), X.max()
    return X - low if loss == "poisson" else (X - low) / (high - low)


@pytest.mark.parametrize("loss", LOSSES)
def test_reconstruct_is_inverse_transform_of_transform(X, loss):
    X = within(X, loss)
    ae = quick(loss=loss).fit(X)
    np.testing.assert_allclose(ae.reconstruct(X), ae.inverse_transform(ae.transform(X)))


@pytest.mark.parametrize("loss", LOSSES)
def test_error_of_a_row_is_the_mean_over_its_features(X, loss):
    X = within(X, loss)
    ae = quick(loss=loss).fit(X)
    error = ae.reconstruction_error(X)
    assert error.shape == (len(X),)
    np.testing.assert_allclose(error, ae.reconstruction_error(X, per_feature=True).mean(1))
    np.testing.assert_array_equal(ae.score_samples(X), -error)


def test_squared_error_is_what_numpy_makes_of_the_reconstruction(X):
    ae = quick().fit(X)
    np.testing.assert_allclose(
        ae.reconstruction_error(X, per_feature=True), (ae.reconstruct(X) - X) ** 2
    )


def test_score_is_the_weighted_mean_of_score_samples(X):
    ae = quick().fit(X)
    w = np.arange(len(X), dtype=float)
    assert ae.score(X) == pytest.approx(ae.score_samples(X).mean())
    expected = np.average(ae.score_samples(X), weights=w)
    assert ae.score(X, sample_weight=w) == pytest.approx(expected)
    assert ae.score(X, sample_weight=7 * w) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_row_gives_what_it_gives_in_a_batch(X, dtype):
    X = X.astype(dtype)
    ae = quick().fit(X)
    rtol = 1e-4 if dtype == np.float32 else 1e-12
    for method in (ae.transform, ae.reconstruct, ae.score_samples):
        alone = np.concatenate([method(X[i : i + 1]) for i in range(5)])
        np.testing.assert_allclose(alone, method(X)[:5], rtol=rtol)


def test_many_rows_are_encoded_in_chunks_as_they_are_at_once(X, monkeypatch):
    ae = quick().fit(X)
    at_once = [ae.transform(X), ae.reconstruct(X), ae.reconstruction_error(X, per_feature=True)]
    many = np.tile(X, (5, 1))
    monkeypatch.setattr("skae.estimators._inference._CELLS", 1)
    chunked = [ae.transform(many), ae.reconstruct(many),
               ae.reconstruction_error(many, per_feature=True)]  # fmt: skip
    for a, b in zip(at_once, chunked, strict=True):
        np.testing.assert_allclose(b, np.tile(a, (5, 1)), rtol=1e-12)


# ---- weights


ACTIVATIONS = {
    "identity": lambda a: a,
    "tanh": np.tanh,
    "logistic": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0),
}


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("tied_weights", [False, True])
@pytest.mark.parametrize("hidden", [(), (4, 3)])
@pytest.mark.parametrize("activation", ["identity", "tanh", "logistic", "relu"])
def test_coefs_and_intercepts_are_the_network(X, solver, tied_weights, hidden, activation):
    X = X + 100  # the units in which training works must not leak out
    ae = quick(
        solver=solver, hidden_layer_sizes=hidden, activation=activation, tied_weights=tied_weights,
        learning_rate_init=1e-6 if solver == "sgd" else 1e-3,
    )  # fmt: skip
    ae.fit(X)
    depth = len(hidden) + 1
    assert len(ae.coefs_) == len(ae.intercepts_) == 2 * depth
    f, code = ACTIVATIONS[activation], "identity" if hidden else activation

    def run(h, layers, last):
        for i in layers:
            a = h @ ae.coefs_[i] + ae.intercepts_[i]
            h = last(a) if i == layers[-1] else f(a)
        return h

    Z = run(X, range(depth), ACTIVATIONS[code])
    X_hat = run(Z, range(depth, 2 * depth), ACTIVATIONS["identity"])
    np.testing.assert_allclose(ae.transform(X), Z, atol=1e-9)
    np.testing.assert_allclose(ae.reconstruct(X), X_hat, atol=1e-9)
    if tied_weights:
        for encoder, decoder in zip(ae.coefs_[:depth], ae.coefs_[: depth - 1 : -1], strict=True):
            np.testing.assert_array_equal(encoder, decoder.T)


def test_components_are_the_weights_of_a_single_linear_layer(X):
    ae = linear().fit(X)
    assert ae.components_.shape == (2, 5)
    np.testing.assert_array_equal(ae.components_, ae.coefs_[0].T)
    assert not hasattr(quick().fit(X), "components_")


def test_fitted_modules_are_the_transform(X):
    ae = quick().fit(X)
    with torch.no_grad():
        Z = ae.encoder_(torch.tensor(X))
        X_hat = ae.decoder_(Z)
    np.testing.assert_allclose(ae.transform(X), Z, rtol=1e-12)
    np.testing.assert_allclose(ae.reconstruct(X), X_hat, rtol=1e-12)


def test_default_width_is_the_root_of_the_number_of_features(X):
    assert quick(n_components=None).fit(X).n_components_ == 3


@pytest.mark.parametrize(("sizes", "widths"), [((), [2]), (6, [6, 2]), ([7, 6], [7, 6, 2]),
                                               (np.array([6]), [6, 2])])  # fmt: skip
def test_decoder_mirrors_the_hidden_layers(X, sizes, widths):
    ae = quick(hidden_layer_sizes=sizes).fit(X)
    mirrored = [*widths[-2::-1], 5]
    assert [W.shape[1] for W in ae.coefs_] == widths + mirrored
    assert [len(b) for b in ae.intercepts_] == widths + mirrored


def test_code_activation_auto_is_the_activation_only_without_hidden_layers(X):
    assert (quick(hidden_layer_sizes=(), activation="relu").fit(X).transform(X) >= 0).all()
    assert (quick(hidden_layer_sizes=(4,), activation="relu").fit(X).transform(X) < 0).any()
    bounded = quick(code_activation="tanh").fit(X).transform(1000 * X)
    assert np.abs(bounded).max() <= 1


def test_output_stays_in_the_range_of_its_activation(X):
    X = within(X, "logistic")
    far = 100 * (X - 0.5)
    assert (quick(output_activation="relu").fit(X).reconstruct(far) >= 0).all()
    inside = quick(output_activation="logistic").fit(X).reconstruct(far)
    assert ((inside >= 0) & (inside <= 1)).all()
    assert (quick(loss="poisson").fit(X).reconstruct(far) >= 0).all()


# ---- training


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs", "cg"])
@pytest.mark.parametrize("loss", LOSSES)
def test_training_beats_the_untrained_network(X, solver, loss):
    X = within(X, loss)
    ae = quick(solver=solver, loss=loss, max_iter=30, learning_rate_init=1e-2, batch_size=20)
    untrained = clone(ae).set_params(solver="sgd", learning_rate_init=1e-300, max_iter=1).fit(X)
    trained = clone(ae).fit(X)
    assert trained.score(X) > untrained.score(X)
    assert trained.loss_ < untrained.loss_curve_[0]
    for before, after in zip(untrained.coefs_, trained.coefs_, strict=True):
        assert not np.array_equal(before, after)


def test_loss_is_reported_before_the_step_that_it_leads_to(X):
    ae = quick(max_iter=2, batch_size=len(X)).fit(X)
    first = quick(max_iter=1, batch_size=len(X)).fit(X)
    assert ae.loss_curve_[1] == pytest.approx(-first.score(X))


def test_alpha_adds_half_the_squared_weights_to_the_loss(X):
    given = quick().fit(X)
    start = {"initialize_from": given, "max_iter": 1, "batch_size": len(X)}
    plain, decayed = quick(**start).fit(X), quick(alpha=0.3, **start).fit(X)
    squares = sum((W**2).sum() for W in given.coefs_)
    assert decayed.loss_curve_[0] == pytest.approx(plain.loss_curve_[0] + 0.15 * squares)


def test_tol_none_trains_for_exactly_max_iter_without_a_warning(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae = quick(max_iter=7, tol=None, learning_rate_init=1e-300).fit(X)
    assert ae.n_iter_ == len(ae.loss_curve_) == 7
    assert ae.stop_reason_ == "max_iter"


def test_training_that_ends_too_early_warns(X):
    with pytest.warns(ConvergenceWarning, match=r"max_iter=3 .* tol=0\.0001"):
        quick(tol=1e-4).fit(X)


def test_training_stops_when_the_loss_no_longer_falls(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae = quick(tol=1e-4, max_iter=50, n_iter_no_change=4, solver="sgd",
                   learning_rate_init=1e-300).fit(X)  # fmt: skip
    assert ae.stop_reason_ == "converged"
    assert ae.n_iter_ == 5


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_say_that_they_converged(X, solver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae = linear(solver=solver, max_iter=2000, tol=1e-4).fit(X)
    assert ae.stop_reason_ == "converged"
    assert ae.n_iter_ == len(ae.loss_curve_) < 2000


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_losses_never_rise(X, solver):
    curve = quick(solver=solver, activation="tanh", max_iter=20).fit(X).loss_curve_
    assert len(curve) > 5
    assert (np.diff(curve) <= 0).all()


def test_loss_and_best_loss_are_of_the_curve(X):
    ae = quick(max_iter=20, learning_rate_init=0.3).fit(X)
    assert ae.loss_ == ae.loss_curve_[-1]
    assert ae.best_loss_ == min(ae.loss_curve_)
    assert ae.validation_loss_curve_ is None


class HeldOut(Autoencoder):
    """Keeps the rows that were held out."""

    def _hold_out(self, source, weight, streams):
        parts = super()._hold_out(source, weight, streams)
        held, rows = parts[2]
        self.held_ = held.take(slice(0, held.n)).numpy()
        self.held_weight_ = None if rows.weight is None else rows.weight.numpy()
        return parts


def past_the_best(X, sample_weight=None, **changed):
    """An early-stopping estimator whose last epoch was not its best."""
    parameters = quick(
        early_stopping=True, validation_fraction=0.3, learning_rate_init=0.3, max_iter=30, **changed
    ).get_params()
    ae = HeldOut(**parameters).fit(X, sample_weight=sample_weight)
    curve = ae.validation_loss_curve_
    assert len(ae.held_) == 18
    assert len(curve) == ae.n_iter_ == 30
    worse = [i for i in range(1, 30) if curve[i] > min(curve[:i])]
    assert worse, "this rate makes every epoch better than all before it: take a larger one"
    ae.set_params(max_iter=worse[-1] + 1).fit(X, sample_weight=sample_weight)
    assert ae.validation_loss_curve_ == curve[: worse[-1] + 1]
    return ae


def test_a_loss_may_carry_its_own_numbers(X):
    assert same_weights(quick(loss=Huber(delta=1.0)).fit(X), quick(loss="huber").fit(X))
    ae = clone(quick(loss=Huber(delta=0.1))).fit(X)
    e = np.abs(ae.reconstruct(X) - X)
    expected = np.where(e <= 0.1, e**2, 0.1 * (2 * e - 0.1))
    np.testing.assert_allclose(ae.reconstruction_error(X, per_feature=True), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_early_stopping_keeps_the_weights_that_were_best_on_the_held_out_rows(X, weighted):
    ae = past_the_best(X, np.linspace(0.5, 2, len(X)) if weighted else None)
    assert ae.best_loss_ == min(ae.validation_loss_curve_)
    score = ae.score(ae.held_, sample_weight=ae.held_weight_)
    assert -score == pytest.approx(ae.best_loss_, rel=1e-10)


def test_early_stopping_keeps_the_running_statistics_of_the_best_epoch(X):
    encoder = sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=0.5), nn.Linear(4, 2))
    ae = past_the_best(X, encoder=encoder, n_components=None)
    assert -ae.score(ae.held_) == pytest.approx(ae.best_loss_, rel=1e-10)


def test_early_stopping_stops(X):
    ae = quick(early_stopping=True, tol=1e-4, max_iter=500, n_iter_no_change=3,
               learning_rate_init=0.1).fit(X)  # fmt: skip
    assert ae.stop_reason_ == "converged"
    assert ae.n_iter_ < 500


def test_verbose_prints_a_line_an_epoch_and_the_default_prints_nothing(X, capsys):
    quick().fit(X)
    assert capsys.readouterr() == ("", "")
    quick(verbose=True).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", f"{i}/3"] for i in (1, 2, 3)]


# ---- sample weights


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_zero_weights_are_rows_left_out(X, solver):
    w = np.r_[np.ones(40), np.zeros(20)]
    ae = quick(solver=solver, batch_size=len(X), max_iter=10)
    weighted, without = clone(ae).fit(X, sample_weight=w), clone(ae).fit(X[:40])
    np.testing.assert_allclose(weighted.reconstruct(X), without.reconstruct(X), rtol=1e-6)
    np.testing.assert_allclose(weighted.loss_curve_, without.loss_curve_, rtol=1e-6)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_integer_weights_are_repeated_rows(X, solver):
    w = np.arange(len(X)) % 4
    ae = quick(solver=solver, batch_size=1000, max_iter=10, learning_rate_init=1e-3)
    weighted = clone(ae).fit(X, sample_weight=w)
    repeated = clone(ae).fit(np.repeat(X, w, axis=0))
    np.testing.assert_allclose(weighted.reconstruct(X), repeated.reconstruct(X), rtol=1e-6)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-6)


def test_weights_count_relative_to_each_other(X):
    w = np.linspace(1, 2, len(X))
    a, b = quick().fit(X, sample_weight=w), quick().fit(X, sample_weight=4 * w)
    assert same_weights(a, b)
    assert not same_weights(a, quick().fit(X))


# ---- the same seed


def test_other_libraries_draws_do_not_change_the_model(X):
    ae = quick(dropout=0.3, input_dropout=0.1, batch_size=16)
    first = clone(ae).fit(X)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    torch.rand(10)
    second = clone(ae)
    np.random.rand(7)  # noqa: NPY002
    second.fit(X)
    assert same_weights(first, second)
    assert first.loss_curve_ == second.loss_curve_


@pytest.mark.parametrize("random_state", [0, None])
def test_global_generators_are_left_alone(X, random_state):
    import random

    modules = {
        "encoder": sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 2)),
        "n_components": None,
    }

    def states():
        key, *rest = np.random.get_state()[1:]  # noqa: NPY002
        return [torch.get_rng_state().tolist(), key.tolist(), rest, random.getstate()]

    for changed in ({"dropout": 0.3, "early_stopping": True}, modules):
        before = states()
        ae = quick(random_state=random_state, **changed).fit(X)
        ae.transform(X), ae.reconstruct(X), ae.score(X)
        assert states() == before


def test_unseeded_fits_differ(X):
    assert not same_weights(quick(random_state=None).fit(X), quick(random_state=None).fit(X))


def test_seeding_happens_at_fit(X):
    ae = quick(random_state=3)
    ae.set_params(random_state=0)
    assert same_weights(ae.fit(X), quick(random_state=0).fit(X))
    first = ae.coefs_
    assert all(np.array_equal(a, b) for a, b in zip(first, ae.fit(X).coefs_, strict=True))


def test_a_generator_as_random_state_moves_on(X):
    rng = np.random.RandomState(0)
    ae = quick(random_state=rng)
    first = clone(ae).fit(X)
    assert not same_weights(ae.fit(X), quick(random_state=rng).fit(X))
    assert same_weights(first, quick(random_state=np.random.RandomState(0)).fit(X))


# ---- initialize_from


def test_training_starts_from_the_weights_given(X):
    given = quick(max_iter=20).fit(X)
    ae = quick(initialize_from=given, max_iter=1, batch_size=len(X)).fit(X)
    assert ae.loss_curve_[0] == pytest.approx(-given.score(X))


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("tied_weights", [False, True])
def test_weights_given_are_units_free(X, solver, tied_weights):
    same = {"tied_weights": tied_weights, "activation": "tanh"}
    given = quick(**same).fit(X)
    ae = quick(initialize_from=given, learning_rate_init=1e-12, solver=solver, max_iter=1, **same)
    if solver == "lbfgs":  # which has no step to make small: start at a stationary point
        given = linear(tied_weights=tied_weights, max_iter=500).fit(X)
        ae = linear(initialize_from=given, tied_weights=tied_weights, max_iter=1)
    other = X[::2] + 5  # other units than those the weights were found in
    if solver == "lbfgs":
        other = X
    np.testing.assert_allclose(ae.fit(other).reconstruct(X), given.reconstruct(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"hidden_layer_sizes": (6,)}, "encoder layer 0"),
        ({"n_components": 3}, "encoder layer 1"),
        ({"hidden_layer_sizes": (4, 4)}, "3 encoder layers"),
    ],
)
def test_weights_of_another_shape_are_refused_by_layer(X, theirs, message):
    given = quick(**theirs).fit(X)
    with pytest.raises(ValueError, match=message):
        quick(initialize_from=given).fit(X)


def test_weights_for_another_number_of_features_are_refused_by_layer(X):
    given = quick().fit(X[:, :4])
    with pytest.raises(ValueError, match="encoder layer 0: it has 4 inputs"):
        quick(initialize_from=given).fit(X)


def test_starting_weights_survive_clone(X):
    given = quick(max_iter=20).fit(X)
    copied = clone(quick(initialize_from=given, max_iter=1, batch_size=len(X)))
    assert copied.fit(X).loss_curve_[0] == pytest.approx(-given.score(X))


def test_starting_weights_survive_a_search(X):
    given = quick(max_iter=20).fit(X)
    search = GridSearchCV(
        quick(initialize_from=given, max_iter=1, batch_size=len(X)), {"alpha": [0.0]}, cv=2
    ).fit(X)
    assert search.best_estimator_.loss_curve_[0] == pytest.approx(-given.score(X))


def test_starting_weights_may_be_frozen(X):
    given = quick(max_iter=20).fit(X)
    ae = quick(initialize_from=FrozenEstimator(given), max_iter=1, batch_size=len(X))
    assert clone(ae).fit(X).loss_curve_[0] == pytest.approx(-given.score(X))


def test_starting_from_an_unfitted_estimator_is_refused(X):
    with pytest.raises(NotFittedError, match="initialize_from is not fitted"):
        quick(initialize_from=quick()).fit(X)


def test_starting_from_another_kind_of_estimator_is_refused(X):
    with pytest.raises(ValueError, match="must be an autoencoder of this package, got PCA"):
        quick(initialize_from=PCA(2).fit(X)).fit(X)


def test_training_leaves_the_weights_it_started_from(X):
    given = quick().fit(X)
    before = [W.copy() for W in given.coefs_]
    quick(initialize_from=given, max_iter=5).fit(X)
    assert all(np.array_equal(a, b) for a, b in zip(before, given.coefs_, strict=True))


# ---- modules of the user's own


def modules():
    """An encoder and a decoder for 5 features."""
    encoder = sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    decoder = sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 5))
    return encoder, decoder


class Empty(nn.Module):
    """A module that is false in a condition, as an empty container is."""

    def __init__(self, module):
        super().__init__()
        self.inner = module

    def __len__(self):
        return 0

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("which", ["encoder", "decoder", "both"])
def test_users_modules_are_trained_by_autograd(X, which):
    encoder, decoder = modules()
    given = {"encoder": encoder, "decoder": decoder}
    if which != "both":
        given = {which: given[which]}
    ae = quick(n_components=None if "encoder" in given else 2, max_iter=20, **given).fit(X)
    assert ae.engine_.path == "autograd"
    assert ("encoder" in ae.engine_.reason, "decoder" in ae.engine_.reason) == (
        "encoder" in given, "decoder" in given,
    )  # fmt: skip
    assert ae.loss_curve_[-1] < ae.loss_curve_[0]
    assert ae.n_components_ == 2
    assert ae.transform(X).shape == (60, 2)
    assert ae.reconstruct(X).shape == X.shape
    assert not hasattr(ae, "coefs_")


def test_dense_layers_are_trained_by_the_fused_path(X):
    assert quick().fit(X).engine_.path == "fused"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_users_modules_are_copied_and_take_the_dtype_of_X(X, dtype):
    encoder, decoder = modules()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    encoder.train()
    ae = quick(encoder=encoder, decoder=decoder, n_components=None).fit(X.astype(dtype))
    assert ae.encoder is encoder
    assert ae.encoder_ is not encoder
    assert encoder.training
    for name, value in encoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    fitted = next(ae.encoder_.parameters())
    assert fitted.dtype == torch.from_numpy(np.empty(0, dtype)).dtype
    assert not torch.equal(fitted.float(), before["0.weight"])
    assert ae.transform(X.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("extra", [nn.BatchNorm1d(2), nn.Dropout(0.5), nn.LayerNorm(2)])
def test_users_modules_infer_in_evaluation_mode(X, extra):
    encoder = sequential(nn.Linear(5, 2), extra)
    ae = quick(encoder=encoder, n_components=None, max_iter=10, batch_size=16).fit(X)
    assert not ae.encoder_.training
    np.testing.assert_array_equal(ae.transform(X), ae.transform(X))
    np.testing.assert_allclose(ae.transform(X[:3]), ae.transform(X)[:3])


def test_batch_norm_learns_running_statistics_and_leaves_the_users(X):
    encoder = sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))
    ae = quick(encoder=encoder, n_components=None).fit(X)
    assert int(encoder[1].num_batches_tracked) == 0
    assert int(ae.encoder_[1].num_batches_tracked) > 0


def test_dropout_in_a_users_module_is_seeded(X):
    encoder = sequential(nn.Linear(5, 2), nn.Dropout(0.5))
    ae = quick(encoder=encoder, n_components=None)
    first = clone(ae).fit(X)
    torch.rand(3)
    second = clone(ae).fit(X)
    assert first.loss_curve_ == second.loss_curve_
    assert first.loss_curve_ != clone(ae).set_params(random_state=1).fit(X).loss_curve_


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_frozen_parameters_of_a_users_module_stay_as_they_are(X, solver, alpha):
    encoder = sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    encoder[0].requires_grad_(False)
    ae = quick(encoder=encoder, n_components=None, solver=solver, alpha=alpha, warm_start=True)
    ae.fit(X).fit(X)
    for name, before in encoder[0].named_parameters():
        assert torch.equal(ae.encoder_[0].get_parameter(name).float(), before)
    assert not torch.equal(ae.encoder_[2].weight.float(), encoder[2].weight)
    start = quick(
        encoder=encoder, n_components=None, initialize_from=ae, max_iter=1, batch_size=len(X)
    )
    assert start.fit(X).loss_curve_[0] == pytest.approx(-ae.score(X))


def test_modules_without_anything_to_train_are_refused(X):
    with pytest.raises(ValueError, match="encoder and decoder have no parameters"):
        quick(encoder=nn.Identity(), decoder=nn.Identity(), n_components=None).fit(X)


@pytest.mark.parametrize("which", ["float16", "float64", "meta"])
def test_torchs_default_dtype_and_device_do_not_matter(X, which):
    ae = quick(dropout=0.2, batch_size=16, early_stopping=True)
    reference = clone(ae).fit(X).reconstruct(X)
    if which == "meta":  # tensors on it hold nothing: none may be made there
        with torch.device("meta"):
            got = clone(ae).fit(X).reconstruct(X)
    else:
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, which))
        try:
            got = clone(ae).fit(X).reconstruct(X)
        finally:
            torch.set_default_dtype(before)
    np.testing.assert_array_equal(got, reference)


def test_a_false_module_is_still_a_module(X):
    encoder, decoder = (Empty(module) for module in modules())
    assert not encoder
    ae = quick(encoder=encoder, decoder=decoder, n_components=None).fit(X)
    assert isinstance(ae.encoder_, Empty)
    assert isinstance(ae.decoder_, Empty)


def test_users_modules_survive_clone_and_pickle(X, tmp_path):
    encoder, decoder = modules()
    ae = quick(encoder=encoder, decoder=decoder, n_components=None)
    fitted = clone(ae).fit(X)
    joblib.dump(fitted, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(loaded.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(fitted.transform(X), clone(fitted).fit(X).transform(X))


def test_users_module_of_the_wrong_width_is_refused(X):
    encoder, decoder = modules()
    with pytest.raises(ValueError, match=r"encoder failed on an input of shape \(2, 4\)"):
        quick(encoder=encoder, n_components=None).fit(X[:, :4])
    with pytest.raises(ValueError, match="n_components=3, but encoder gives codes of width 2"):
        quick(encoder=encoder, n_components=3).fit(X)
    with pytest.raises(ValueError, match=r"decoder failed on an input of shape \(2, 3\)"):
        quick(decoder=decoder, n_components=3).fit(X)
    with pytest.raises(ValueError, match="decoder gives 4 columns, but X has 5 features"):
        quick(decoder=nn.Linear(2, 4)).fit(X)
    with pytest.raises(ValueError, match=r"encoder must return a tensor of shape \(n, width\)"):
        quick(encoder=nn.Flatten(0), n_components=None).fit(X)


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_tied_weights_need_built_in_layers(X, which):
    given = dict(zip(["encoder", "decoder"], modules(), strict=True))[which]
    with pytest.raises(ValueError, match="tied_weights=True needs the built-in dense layers"):
        quick(tied_weights=True, **{which: given}).fit(X)


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_users_module_equal_to_the_dense_one_trains_like_it(X, alpha, loss):
    encoder, decoder = modules()
    same = {"solver": "sgd", "batch_size": len(X), "max_iter": 15, "alpha": alpha, "loss": loss,
            "activation": "tanh", "learning_rate_init": 1e-3}  # fmt: skip
    users = quick(encoder=encoder, decoder=decoder, n_components=None, **same).fit(X)
    given = quick(encoder=encoder, decoder=decoder, n_components=None,
                  learning_rate_init=1e-300, solver="sgd").fit(X)  # fmt: skip
    dense = quick(initialize_from=given, **same).fit(X)
    assert (users.engine_.path, dense.engine_.path) == ("autograd", "fused")
    np.testing.assert_allclose(users.loss_curve_, dense.loss_curve_, rtol=1e-10)
    np.testing.assert_allclose(users.transform(X), dense.transform(X), rtol=1e-8)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_users_modules_train_with_full_batch_solvers(X, solver):
    encoder, decoder = modules()
    ae = quick(encoder=encoder, decoder=decoder, n_components=None, solver=solver).fit(X)
    assert ae.loss_curve_[-1] < ae.loss_curve_[0]


# ---- threads and inference


@pytest.mark.parametrize("hidden", [(4,), (600,)])
def test_thread_count_is_put_back(X, hidden):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        quick(hidden_layer_sizes=hidden, max_iter=1).fit(np.tile(X, (4, 1)))
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="diverged"):
            quick(solver="sgd", learning_rate_init=1e9, max_iter=200).fit(X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_thread_count_is_put_back_after_fits_in_threads(X):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        joblib.Parallel(n_jobs=4, backend="threading")(
            joblib.delayed(quick(max_iter=20, batch_size=8).fit)(X) for _ in range(8)
        )
        assert torch.get_num_threads() == 2
        [of_a_new_thread] = joblib.Parallel(n_jobs=2, backend="threading")(
            [joblib.delayed(torch.get_num_threads)()]
        )
        assert of_a_new_thread == 2
    finally:
        torch.set_num_threads(before)


def test_precision_of_products_is_put_back(X):
    before = torch.get_float32_matmul_precision(), _get_products()
    quick(precision="bfloat16").fit(X)
    assert (torch.get_float32_matmul_precision(), _get_products()) == before


def test_fits_in_threads_are_fits_one_by_one(X):
    models = [quick(random_state=i, dropout=0.2, batch_size=16, max_iter=10) for i in range(4)]
    alone = [clone(m).fit(X) for m in models]
    together = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(clone(m).fit)(X) for m in models
    )
    assert all(same_weights(a, b) for a, b in zip(alone, together, strict=True))


def test_fits_of_users_modules_in_threads_are_fits_one_by_one(X):
    encoder = sequential(nn.Linear(5, 2), nn.Dropout(0.5))
    models = [quick(random_state=i, encoder=encoder, n_components=None, max_iter=20, batch_size=8)
              for i in range(4)]  # fmt: skip
    alone = [clone(m).fit(X) for m in models]
    together = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(clone(m).fit)(X) for m in models
    )
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.transform(X), b.transform(X))


def test_inference_changes_no_attribute(X):
    encoder = sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))
    for ae in (quick(), quick(encoder=encoder, n_components=None)):
        ae.fit(X)
        before = ae.__dict__.copy()
        saved = {k: v.clone() for k, v in ae.encoder_.state_dict().items()}
        results = [ae.transform(X), ae.reconstruct(X), ae.score(X), ae.score_samples(X),
                   ae.inverse_transform(ae.transform(X)), ae.reconstruction_error(X)]  # fmt: skip
        assert len(results) == 6
        assert ae.__dict__ == before
        assert not any(module.training for module in ae.encoder_.modules())
        assert all(torch.equal(v, saved[k]) for k, v in ae.encoder_.state_dict().items())


def test_inference_in_threads_is_inference_one_by_one(X):
    ae = quick().fit(X)
    expected = ae.transform(X)
    together = joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(ae.transform)(X) for _ in range(16)
    )
    assert all(np.array_equal(expected, Z) for Z in together)


# ---- odd numbers of rows and columns


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 31])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_any_number_of_rows_fits_and_scores(X, n, solver):
    ae = quick(batch_size=10, solver=solver, dropout=0.0 if solver == "lbfgs" else 0.2)
    ae.fit(X[:n])
    assert np.isfinite(ae.loss_curve_).all()
    assert np.isfinite(ae.score(X))


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs", "cg"])
@pytest.mark.parametrize(
    "make",
    [
        lambda X: X[:, :1],
        lambda X: np.column_stack([X, np.full(len(X), 3.0)]),
        lambda X: np.full_like(X, 3.0),
        lambda X: np.zeros_like(X),
        lambda X: X[:1],
        lambda X: 1e-30 * X,
    ],
    ids=["one feature", "constant column", "constant", "zeros", "one row", "tiny"],
)
def test_degenerate_data_fit_and_score(X, solver, make):
    X = make(X)
    ae = quick(n_components=None, solver=solver, max_iter=5).fit(X)
    assert np.isfinite(ae.loss_curve_).all()
    assert np.isfinite(ae.score(X))
    assert np.isfinite(ae.transform(X)).all()


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "cg"])
def test_huge_data_fit_and_score(X, solver):
    ae = quick(solver=solver, max_iter=5).fit(1e30 * X)
    assert np.isfinite(ae.loss_curve_).all()
    assert -ae.score(1e30 * X) < 10 * np.var(1e30 * X)


def test_a_constant_column_stays_harmless_when_it_moves_a_little(X):
    X = np.column_stack([X, np.full(len(X), 3.0)])
    ae = quick(max_iter=50).fit(X)
    moved = X.copy()
    moved[:, -1] = 3.001
    assert ae.score(moved) == pytest.approx(ae.score(X), rel=0.05)


# ---- among scikit-learn's estimators


def test_sample_weight_is_routed_through_a_pipeline(X):
    w = np.linspace(1, 2, len(X))
    with config_context(enable_metadata_routing=True):
        ae = quick().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, ae).fit(X, sample_weight=w)[-1]
    scaled = StandardScaler().fit_transform(X)
    assert same_weights(routed, quick().fit(scaled, sample_weight=w))
    assert not same_weights(routed, quick().fit(scaled))


def test_sample_weight_is_routed_to_the_score_of_a_search(X):
    w = np.linspace(1, 2, len(X))
    with config_context(enable_metadata_routing=True):
        ae = quick().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(ae, {"n_components": [1]}, cv=2).fit(X, sample_weight=w)
    half = len(X) // 2
    by_hand = [
        quick(n_components=1).fit(X[a], sample_weight=w[a]).score(X[b], sample_weight=w[b])
        for a, b in ((slice(half, None), slice(half)), (slice(half), slice(half, None)))
    ]
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(np.mean(by_hand))


def test_a_search_needs_no_labels(X):
    search = GridSearchCV(linear(max_iter=50), {"n_components": [1, 2, 4]}, cv=3).fit(X)
    assert search.best_params_ == {"n_components": 4}  # a linear bottleneck never overfits
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_union_and_column_transformer_join_codes(X):
    union = FeatureUnion([("ae", quick()), ("pca", PCA(2))]).fit(X)
    assert union.transform(X).shape == (60, 4)
    assert list(union.get_feature_names_out()) == [
        "ae__autoencoder0", "ae__autoencoder1", "pca__pca0", "pca__pca1",
    ]  # fmt: skip
    columns = ColumnTransformer([("a", quick(), [0, 1, 2]), ("b", quick(), [3, 4])]).fit(X)
    assert columns.transform(X).shape == (60, 4)
    np.testing.assert_array_equal(columns.transform(X)[:, :2],
                                  quick().fit_transform(X[:, :3]))  # fmt: skip


def test_a_pipeline_inverts_the_code(X):
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    scaler, ae = pipeline[0], pipeline[1]
    expected = scaler.inverse_transform(ae.reconstruct(scaler.transform(X)))
    np.testing.assert_allclose(pipeline.inverse_transform(pipeline.transform(X)), expected)


def test_fit_transform_is_fit_then_transform(X):
    np.testing.assert_array_equal(quick().fit_transform(X), quick().fit(X).transform(X))


def test_html_and_text_representations_work_fitted_or_not(X):
    ae = quick(encoder=nn.Linear(5, 2), n_components=None)
    for model in (quick(), ae, quick().fit(X), clone(ae).fit(X), make_pipeline(quick()).fit(X)):
        assert "Autoencoder" in model._repr_html_()
        assert "Autoencoder" in repr(model)


def test_representation_shows_only_what_was_changed():
    assert repr(Autoencoder()) == "Autoencoder()"
    assert repr(Autoencoder(n_components=3, alpha=0.0)) == "Autoencoder(n_components=3)"


def test_parameters_are_keyword_only():
    parameters = inspect.signature(Autoencoder).parameters.values()
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    with pytest.raises(TypeError):
        Autoencoder(3)


def test_modules_of_a_fitted_estimator_count_as_built_in(X):
    first = quick(hidden_layer_sizes=(4,)).fit(X)
    parts = {"encoder": first.encoder_, "decoder": first.decoder_}
    again = quick(n_components=None, learning_rate_init=1e-12, max_iter=1, **parts).fit(X)
    assert again.engine_.path == "fused"
    np.testing.assert_allclose(again.transform(X), first.transform(X), rtol=1e-6, atol=1e-9)
    assert again.encoder_ is not first.encoder_
    ours = quick(hidden_layer_sizes=(4,), initialize_from=first, max_iter=3).fit(X)
    theirs = quick(n_components=None, max_iter=3, **parts).fit(X)
    np.testing.assert_array_equal(ours.transform(X), theirs.transform(X))


def test_frozen_module_of_a_fitted_estimator_stays_as_it_is(X):
    first = quick(hidden_layer_sizes=(4,)).fit(X)
    encoder = copy.deepcopy(first.encoder_).requires_grad_(False)
    again = quick(n_components=None, encoder=encoder, max_iter=3).fit(X)
    np.testing.assert_array_equal(again.transform(X), first.transform(X))


def test_module_of_another_width_is_refused(X):
    first = quick(hidden_layer_sizes=(4,)).fit(X[:, :3])
    with pytest.raises(ValueError, match="must take rows of width 5"):
        quick(n_components=None, encoder=first.encoder_).fit(X)

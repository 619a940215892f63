"""AdversarialAutoencoder: codes that follow a prior, clusters, and a few labels."""

import math
import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from scipy.spatial.distance import cdist
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_clusterer
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from torch import nn

from skae import AdversarialAutoencoder, Autoencoder
from skae._engine.rng import Draws
from skae.estimators import _adversarial
from skae.likelihoods import Bernoulli
from skae.priors import Gaussian, GaussianMixture, SwissRoll

CURVES = ("loss_curve_", "discriminator_curve_", "generator_curve_", "validation_loss_curve_")


def quick(**changed):
    """One that trains in a few milliseconds."""
    return AdversarialAutoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "discriminator_layer_sizes": (4,),
           "max_iter": 3, "tol": None, "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


def uniform(n, random_state):
    """A prior of one's own."""
    return np.random.default_rng(random_state).uniform(-2, 2, size=(n, 2))


def assert_same(a, b, X):
    """The same weights, curves and codes, bit for bit."""
    for x, y in zip(a.encoder_.state_dict().values(), b.encoder_.state_dict().values(),
                    strict=True):  # fmt: skip
        assert torch.equal(x, y)
    assert all(getattr(a, name) == getattr(b, name) for name in CURVES)
    np.testing.assert_array_equal(a.reconstruct(X), b.reconstruct(X))


def labels(n, known=10):
    """Three classes, most rows without one."""
    y = np.arange(n) % 3
    y[known:] = -1
    return y


def energy_distance(a, b):
    """2 E |a - b| - E |a - a'| - E |b - b'|, zero for the same distribution alone."""
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


# ---- what it is


SHARED = {"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 5, "tol": None,
          "batch_size": 16, "random_state": 0}  # fmt: skip


@pytest.mark.parametrize(
    "changed", [{}, {"solver": "sgd"}, {"early_stopping": True}, {"input_dropout": 0.2}]
)
def test_without_a_generator_it_is_the_plain_autoencoder(X, changed):
    plain = Autoencoder(code_activation="identity", **SHARED | changed).fit(X)
    model = quick(generator_learning_rate_init=0, max_iter=5, **changed).fit(X)
    np.testing.assert_array_equal(model.transform(X), plain.transform(X))
    np.testing.assert_array_equal(model.reconstruct(X), plain.reconstruct(X))
    assert model.loss_curve_ == plain.loss_curve_
    assert model.validation_loss_curve_ == plain.validation_loss_curve_
    assert len(model.discriminator_curve_) == 5


@pytest.fixture(scope="module")
def fitted():
    X = load_digits().data / 16
    shared = {"n_components": 2, "max_iter": 20, "tol": None, "random_state": 0}
    model = AdversarialAutoencoder(prior="swiss_roll", **shared).fit(X)
    return X, model, Autoencoder(**shared).fit(X)


def test_codes_come_nearer_to_the_prior_than_a_plain_autoencoders(fitted):
    """Also than those would if they had its mean and its variance."""
    X, model, plain = fitted
    rng = Draws([torch.Generator().manual_seed(1)], torch.float64, "cpu")
    prior = SwissRoll().draw(1000, 2, rng).numpy()
    codes = plain.transform(X)
    standardised = (codes - codes.mean(0)) / codes.std(0)
    ours, theirs, shape = (energy_distance(c, prior) for c in
                           (model.transform(X), codes, standardised))  # fmt: skip
    assert ours < 0.1 * theirs
    assert ours < 0.5 * shape


def test_samples_are_like_the_data(fitted):
    X, model, _ = fitted
    S = model.sample(500, random_state=0)
    assert S.shape == (500, 64)
    assert energy_distance(S, X) < 0.5 * energy_distance(np.broadcast_to(X.mean(0), (9, 64)), X)


def test_curves_end_near_equality(fitted):
    _, model, _ = fitted
    assert model.discriminator_curve_[-1] == pytest.approx(math.log(4), abs=0.05)
    assert model.generator_curve_[-1] == pytest.approx(math.log(2), abs=0.1)
    assert len(model.discriminator_curve_) == len(model.generator_curve_) == model.n_iter_ == 20


def test_spread_is_that_of_the_codes(fitted):
    X, model, _ = fitted
    np.testing.assert_allclose(model.spread_, model.transform(X).std(0), rtol=0.1)


@pytest.mark.parametrize(
    ("prior", "changed"),
    [("gaussian", {}), ("gaussian_mixture", {}), ("swiss_roll", {}), (uniform, {}),
     (Gaussian(3.0), {}), (GaussianMixture(n_modes=3), {}), ("gaussian", {"n_clusters": 3}),
     ("gaussian", {"loss": Bernoulli()})],
)  # fmt: skip
def test_every_prior_can_be_sampled_and_decoded(X, prior, changed):
    X = (X - X.min()) / np.ptp(X)
    model = quick(prior=prior, **changed).fit(X)
    S = model.sample(7, random_state=3)
    assert S.shape == (7, 5)
    np.testing.assert_array_equal(S, model.sample(7, random_state=3))
    assert not np.array_equal(S, model.sample(7, random_state=4))
    np.testing.assert_array_equal(model.reconstruct(X), model.inverse_transform(model.transform(X)))


def test_priors_of_the_plane_have_two_units(X):
    assert quick(prior="swiss_roll", n_components=None).fit(X).n_components_ == 2
    assert quick(n_components=None).fit(X).n_components_ == 3


def test_a_decoder_without_parameters_is_sampled_too(X):
    model = quick(n_components=5, decoder=nn.Identity()).fit(X.astype(np.float32))
    S = model.sample(3, random_state=0)
    assert S.shape == (3, 5)
    assert S.dtype == np.float32


def test_samples_are_decoded_draws(X):
    model = quick(prior=Gaussian(1e-12), hidden_layer_sizes=()).fit(X)
    expected = model.inverse_transform(np.zeros((1, 2)))
    np.testing.assert_allclose(model.sample(3), np.repeat(expected, 3, axis=0), atol=1e-9)


def test_a_few_samples_at_a_time_have_the_same_distribution(X, monkeypatch):
    model = quick().fit(X)
    expected = model.sample(4000, random_state=0)
    monkeypatch.setattr("skae.estimators._sampling._CELLS", 60)
    S = model.sample(4000, random_state=0)
    np.testing.assert_allclose(S.mean(0), expected.mean(0), atol=0.1)
    np.testing.assert_allclose(S.std(0), expected.std(0), rtol=0.1)


# ---- categories


@pytest.fixture(scope="module")
def blobs():
    """300 rows of three classes that lie apart, in 6 features."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    return 3 * np.eye(3, 6)[y] + 0.3 * rng.normal(size=(300, 6)), y


def test_clusters_are_what_predict_gives(X):
    model = quick(n_clusters=4)
    found = model.fit_predict(X)
    np.testing.assert_array_equal(found, model.labels_)
    np.testing.assert_array_equal(found, model.predict(X))
    p = model.predict_proba(X)
    np.testing.assert_array_equal(found, p.argmax(1))
    np.testing.assert_allclose(p.sum(1), 1)
    assert found.shape == (60,)
    assert found.dtype.kind == "i"


def test_a_code_is_style_and_then_probabilities(X):
    model = quick(n_clusters=4).fit(X)
    Z = model.transform(X)
    assert Z.shape == (60, 6) == (60, model.n_components_)
    np.testing.assert_array_equal(Z[:, 2:], model.predict_proba(X))
    assert model.spread_.shape == (2,)
    assert len(model.get_feature_names_out()) == 6


def test_curves_of_two_discriminators_are_pairs(X):
    model = quick(n_clusters=4).fit(X)
    assert np.shape(model.discriminator_curve_) == np.shape(model.generator_curve_) == (3, 2)


def clustering(**changed):
    return AdversarialAutoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (20,), "discriminator_layer_sizes": (20,),
           "max_iter": 60, "tol": None, "batch_size": 50, "random_state": 0} | changed
    )  # fmt: skip


def test_a_few_labels_tell_the_classes(blobs):
    X, y = blobs
    given = np.array(["unknown"] * 300, dtype=object)
    given[:6] = np.array(["a", "b", "c"])[y[:6]]
    model = clustering(n_clusters="classes", unlabeled="unknown", max_iter=40).fit(X, given)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert (model.predict(X) == np.array(["a", "b", "c"])[y]).mean() > 0.95
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    assert model.transform(X).shape == (300, 5)


def test_a_few_labels_beat_chance_on_digits():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    given = np.where(np.arange(len(y)) < 60, y, -1)
    model = AdversarialAutoencoder(n_components=4, n_clusters="classes", unlabeled=-1,
                                   max_iter=15, tol=None, random_state=0)  # fmt: skip
    model.fit(X, given)
    assert (model.predict(X[60:]) == y[60:]).mean() > 0.6


def test_every_value_is_a_label_unless_told_otherwise(X):
    y = labels(60)
    assert quick(n_clusters="classes").fit(X, y).classes_.tolist() == [-1, 0, 1, 2]
    assert quick(n_clusters="classes", unlabeled=-1).fit(X, y).classes_.tolist() == [0, 1, 2]


def test_y_is_ignored_where_categories_are_clusters(X):
    a, b = quick(n_clusters=3).fit(X), quick(n_clusters=3).fit(X, np.arange(60) / 7)
    assert_same(a, b, X)
    assert not hasattr(b, "classes_")


def test_weights_of_categories_are_those_of_samples(X):
    model = quick(n_clusters=2, cluster_weights=[1, 3], generator_learning_rate_init=0).fit(X)
    drawn = []
    model._decode = lambda z, out=None: drawn.append(z) or z
    model.sample(4000, random_state=0)
    np.testing.assert_allclose(drawn[0][:, 2:].mean(0), [0.25, 0.75], atol=0.03)


def test_what_was_fitted_before_is_forgotten(X):
    model = quick(n_clusters="classes").fit(X, labels(60))
    model.set_params(n_clusters=None).fit(X)
    assert not hasattr(model, "classes_")
    assert not hasattr(model, "labels_")
    assert not hasattr(model, "predict")
    assert model.transform(X).shape == (60, 2)


def test_what_is_set_after_fit_has_no_say_before_the_next(X):
    model = quick(n_clusters=3).fit(X)
    found, S = model.predict(X), model.sample(4, random_state=0)
    model.set_params(n_clusters=2, prior="swiss_roll", cluster_weights=[1, 9])
    np.testing.assert_array_equal(model.predict(X), found)
    np.testing.assert_array_equal(model.sample(4, random_state=0), S)
    np.testing.assert_array_equal(model.set_params(n_clusters=None).predict(X), found)


def test_categories_that_are_set_after_fit_are_there_after_the_next(X):
    model = quick().fit(X).set_params(n_clusters=3)
    assert not hasattr(model, "predict")
    assert not hasattr(model, "predict_proba")
    np.testing.assert_array_equal(model.fit_predict(X), model.predict(X))


def test_labels_change_with_what_predict_gives_in_partial_fit(X):
    model = quick(n_clusters=3)
    model.partial_fit(X[:20])
    assert len(model.labels_) == 20
    model.partial_fit(X[20:])
    np.testing.assert_array_equal(model.labels_, model.predict(X[20:]))


# ---- seeds, continuing, weights


SETTINGS = {
    "gaussian": {},
    "sgd": {"solver": "sgd"},
    "a function": {"prior": uniform},
    "clusters": {"n_clusters": 3},
    "dropout": {"dropout": 0.2, "input_dropout": 0.1, "n_clusters": 3},
    "stabilised": {"discriminator_noise": 0.2, "label_smoothing": 0.1},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.2},
    "a schedule": {"learning_rate": "cosine", "learning_rate_horizon": 8},
    "float32": {"precision": "float32"},
    "labels": {"n_clusters": "classes", "unlabeled": -1},
    "labels in batches": {"n_clusters": "classes", "unlabeled": -1, "batch_size": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_fits_of_k_epochs_are_one_of_2k(X, name):
    y = labels(60)
    model = quick(warm_start=True, **SETTINGS[name])
    whole = clone(model).set_params(max_iter=6).fit(X, y)
    halves = clone(model).set_params(max_iter=3).fit(X, y)
    halves = pickle.loads(pickle.dumps(halves)).fit(X, y)
    assert len(halves.discriminator_curve_) == len(halves.loss_curve_) == 6
    assert_same(whole, halves, X)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_seed_is_the_same_model(X, name):
    y = labels(60)
    torch.manual_seed(7)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a = quick(**SETTINGS[name]).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    torch.rand(3), np.random.rand(3)  # noqa: NPY002
    assert_same(a, quick(**SETTINGS[name]).fit(X, y), X)
    other = quick(**SETTINGS[name] | {"random_state": 1}).fit(X, y)
    assert other.loss_curve_ != a.loss_curve_


def seeded_encoder(width=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1),
                             nn.Linear(8, width))  # fmt: skip


@pytest.mark.parametrize("clusters", [None, 3])
def test_an_encoder_of_ones_own_continues_bit_for_bit(X, clusters):
    encoder = seeded_encoder(2 + (clusters or 0))
    model = quick(encoder=encoder, n_clusters=clusters, n_components=None, warm_start=True)
    whole = clone(model).set_params(max_iter=6).fit(X)
    halves = clone(model).fit(X).fit(X)
    assert_same(whole, halves, X)
    assert whole.engine_.path == "autograd"
    np.testing.assert_array_equal(whole.transform(X), whole.transform(X))


def test_other_classes_begin_anew(X):
    y = labels(60)
    model = quick(n_clusters="classes", unlabeled=-1, warm_start=True).fit(X, y)
    again = np.where(y == 2, 5, y)
    model.fit(X, again)
    assert model.n_iter_ == 3
    assert model.classes_.tolist() == [0, 1, 5]


def test_offset_and_scale_of_the_data_are_no_matter(X):
    a, b = quick(max_iter=10).fit(X), quick(max_iter=10).fit(1000 + 50 * X)
    np.testing.assert_allclose(a.transform(X), b.transform(1000 + 50 * X), atol=1e-6)
    np.testing.assert_allclose(a.discriminator_curve_, b.discriminator_curve_, rtol=1e-5)


def test_rows_of_weight_zero_are_as_good_as_absent(X):
    """To the codes, too: a far group without weight does not draw them."""
    weight = np.r_[np.ones(60), np.zeros(60)]
    both = np.r_[X, X + 20]
    fit = {"max_iter": 150, "batch_size": 60, "learning_rate_init": 0.01}
    weighted = quick(**fit).fit(both, sample_weight=weight)
    alone = quick(**fit).fit(X)
    np.testing.assert_allclose(weighted.transform(X).std(0), 1, atol=0.45)
    np.testing.assert_allclose(weighted.spread_, weighted.transform(X).std(0), rtol=0.1)
    assert weighted.score(X) == pytest.approx(alone.score(X), abs=0.5)
    assert weighted.score(both) < 10 * weighted.score(X)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 33])
def test_every_number_of_rows_fits(X, n):
    model = quick(n_clusters=2).fit(X[:n])
    assert model.sample(2).shape == (2, 5)
    assert np.isfinite(model.transform(X)).all()


# ---- data of all kinds


@pytest.mark.parametrize("kind", [sp.csr_matrix, torch.tensor, np.float32, list])
def test_data_of_every_kind(X, kind):
    given = {np.float32: lambda X: X.astype(np.float32), list: lambda X: X.tolist()}.get(kind, kind)
    model = quick(n_clusters=3).fit(given(np.array(X)))
    Z = model.transform(given(np.array(X)))
    assert Z.shape == (60, 5)
    assert str(Z.dtype).endswith("32" if kind is np.float32 else "64")
    assert model.sample(2).dtype == (np.float32 if kind is np.float32 else np.float64)


def test_a_pickle_predicts_the_same(X):
    model = quick(n_clusters="classes", unlabeled=-1, prior="swiss_roll").fit(X, labels(60))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.sample(3, random_state=0), model.sample(3, random_state=0))


def test_a_torch_module_does_what_the_estimator_does(X):
    model = quick(n_clusters=3).fit(X)
    with torch.no_grad():
        given = torch.tensor(np.array(X))
        np.testing.assert_allclose(model.to_torch()(given), model.reconstruct(X))
        np.testing.assert_allclose(model.to_torch("encoder")(given), model.transform(X))


def test_an_interrupt_keeps_what_there_is(X):
    before = math.ceil(_adversarial._DRAWS / 16)  # training
    calls = []

    def prior(n, random_state):
        calls.append(n)
        if len(calls) == before + 10:
            raise KeyboardInterrupt
        return uniform(n, random_state)

    with pytest.warns(ConvergenceWarning, match="interrupted after 2 epochs"):
        model = quick(prior=prior).fit(X)
    assert model.stop_reason_ == "interrupted"
    assert len(model.discriminator_curve_) == 2


def test_callbacks_see_the_players_of_every_epoch(X):
    pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")
    seen = []

    class Looking:
        """Keeps the lengths of the curves; stops after the second epoch."""

        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...

        def on_fit_task_end(self, estimator, context, *, X, fitted_estimator, **others):
            if context.task_name == "epoch":
                curves = fitted_estimator.discriminator_curve_, fitted_estimator.generator_curve_
                seen.append((*map(len, curves), fitted_estimator.predict(X).shape))
                return len(seen) == 2

    model = quick(n_clusters=2).set_callbacks(Looking()).fit(X)
    assert seen == [(1, 1, (60,)), (2, 2, (60,))]
    assert model.stop_reason_ == "callback"
    assert len(model.discriminator_curve_) == 2


def test_a_failed_fit_changes_nothing(X):
    model = quick(n_clusters="classes").fit(X, labels(60))
    before = dict(vars(model))
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(solver="sgd", learning_rate_init=1e6, n_clusters=2).fit(X)
    model.set_params(solver="adam", learning_rate_init=1e-3, n_clusters="classes")
    assert vars(model) == before


# ---- collapse


def told(model, X):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(X)
    return [str(w.message) for w in found if issubclass(w.category, ConvergenceWarning)]


def test_a_game_that_goes_well_has_no_warning(X):
    fit = {"max_iter": 150, "learning_rate_init": 0.01, "batch_size": 60}
    assert told(quick(**fit), X) == []


def test_a_collapsed_code_is_told(X):
    """One step a fit, far too few to leave the starting weights for a prior this wide."""
    (message,) = told(quick(prior=Gaussian(100.0), max_iter=1), X)
    assert "The code has collapsed: over the training rows unit" in message
    assert "raise generator_learning_rate_init (now 0.001)" in message
    assert "lower discriminator_learning_rate_init (now 0.001)" in message


def test_a_code_that_is_wider_than_its_prior_is_told(X):
    (message,) = told(quick(prior=Gaussian(1e-3), max_iter=1), X)
    assert "The code has escaped" in message


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_discriminator_that_always_wins_is_told(X, smoothing):
    model = quick(prior=lambda n, random_state: np.random.default_rng(random_state).normal(
        50.0, 1.0, size=(n, 2)), max_iter=80, discriminator_learning_rate_init=0.05,
        generator_learning_rate_init=1e-6, label_smoothing=smoothing)  # fmt: skip
    (message,) = told(model, X)
    assert "A discriminator tells most codes from draws of the prior" in message


def test_clusters_that_are_not_used_are_told():
    shares = torch.tensor([0.97, 0.01, 0.01, 0.01])
    assert "of 4.0 that the prior has, 1.2 are used" in _adversarial.fault_of_clusters(shares, None)
    assert _adversarial.fault_of_clusters(shares, tuple(shares.tolist())) is None
    assert _adversarial.fault_of_clusters(torch.full((4,), 0.25), None) is None


def test_nothing_is_told_where_nothing_was_played(X):
    assert told(quick(prior=Gaussian(100.0), generator_learning_rate_init=0), X) == []


# ---- refused


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"solver": "lbfgs"}, "solver='lbfgs' minimises one function of all rows, but two players"),
        ({"solver": "cg"}, "Use solver='adam' or 'sgd'"),
        ({"code_activation": "tanh"}, "what codes look like is for the prior to say"),
        ({"unlabeled": -1}, "marks rows in y, which is not used under n_clusters=None"),
        ({"prior": "swiss_roll", "n_components": 3}, "lies in 2 dimensions, but there are 3 style"),
        ({"prior": uniform, "n_components": 3}, r"here \(16, 3\), but it returned \(16, 2\)"),
        ({"n_clusters": 2, "cluster_weights": [1.0]}, "cluster_weights must be 2 positive numbers"),
        ({"n_clusters": 2, "cluster_weights": [1.0, 0.0]}, "must be 2 positive numbers"),
        ({"cluster_weights": [1.0, 1.0]}, r"must be 0 positive numbers.*n_clusters=None"),
        ({"n_clusters": "classes"}, "requires y to be passed, but the target y is None"),
        ({"discriminator_layer_sizes": (0,)}, "discriminator_layer_sizes must be positive"),
        ({"encoder": nn.Linear(5, 3), "n_components": None, "n_clusters": 3},
         "leaves no style unit beside 3 categories"),
        ({"encoder": nn.Linear(5, 5), "n_components": 4, "n_clusters": 3},
         "n_components=4, but encoder gives codes of width 5, of which 2 are style units"),
        ({"prior": "normal"}, "The 'prior' parameter"),
        ({"n_clusters": 0}, "The 'n_clusters' parameter"),
        ({"label_smoothing": 0.5}, "The 'label_smoothing' parameter"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(X, changed, said):
    with pytest.raises(ValueError, match=said):
        quick(**changed).fit(X)


@pytest.mark.parametrize(
    ("y", "changed", "said"),
    [
        (np.zeros(60, dtype=int), {}, "only one class, 0"),
        (np.full(60, -1), {"unlabeled": -1}, "Every row of y is unlabeled=-1"),
        (np.arange(59) % 3, {}, "inconsistent numbers of samples"),
        (np.eye(60, dtype=int)[:, :3], {}, "needs one label a row"),
        (np.linspace(0, 1, 60), {}, "Unknown label type"),
        (np.r_[0, 1, np.full(58, -1)], {"unlabeled": -1, "early_stopping": True,
                                        "validation_fraction": 0.98}, "No labelled row is left"),
    ],
)  # fmt: skip
def test_labels_that_are_refused_say_why(X, y, changed, said):
    with pytest.raises(ValueError, match=said):
        quick(n_clusters="classes", **changed).fit(X, y)


def test_labels_without_weight_are_refused(X):
    y, weight = labels(60), np.ones(60)
    weight[:10] = 0
    with pytest.raises(ValueError, match="All labelled rows have weight zero"):
        quick(n_clusters="classes", unlabeled=-1).fit(X, y, sample_weight=weight)


def test_methods_that_need_categories_say_so(X):
    with pytest.raises(AttributeError) as error:
        quick().fit(X).predict  # noqa: B018
    assert "Set n_clusters" in str(error.value.__cause__)
    with pytest.raises(AttributeError) as error:
        quick(n_clusters="classes").partial_fit  # noqa: B018
    assert "finds the classes in all of y" in str(error.value.__cause__)
    assert not hasattr(quick(solver="lbfgs"), "partial_fit")


@pytest.mark.parametrize("given", [{"n_samples": 0}, {"random_state": "seed"}])
def test_samples_are_asked_for_in_numbers(X, given):
    with pytest.raises(ValueError, match="parameter of AdversarialAutoencoder must be"):
        quick().fit(X).sample(**given)


# ---- as scikit-learn sees it


def test_it_is_a_clusterer_or_a_classifier_by_its_categories(X):
    plain, clusters, classes = quick(), quick(n_clusters=3), quick(n_clusters="classes")
    assert [is_clusterer(each) for each in (plain, clusters, classes)] == [False, True, False]
    assert [is_classifier(each) for each in (plain, clusters, classes)] == [False, False, True]
    y = np.arange(len(X)) // (len(X) // 2 + 1)  # sorted: folds without strata have one class
    assert np.isfinite(cross_val_score(classes, X, y, cv=2, scoring="accuracy")).all()


@pytest.mark.skipif(os.environ.get("SCIPY_ARRAY_API") != "1", reason="needs SCIPY_ARRAY_API=1")
def test_a_tensor_in_gives_categories_as_a_tensor(X):
    with config_context(array_api_dispatch=True):
        tensor = torch.tensor(X)
        clusters = quick(n_clusters=3).fit(tensor)
        assert isinstance(clusters.labels_, torch.Tensor)
        assert torch.equal(clusters.predict(tensor), clusters.predict_proba(tensor).argmax(-1))
        y = labels(len(X), len(X))
        numbers = quick(n_clusters="classes").fit(tensor, y + 5)
        assert set(numbers.predict(tensor).tolist()) <= {5, 6, 7}
        words = quick(n_clusters="classes").fit(tensor, np.array(["a", "b", "c"])[y])
        assert set(words.predict(tensor)) <= {"a", "b", "c"}


@pytest.mark.parametrize("kind", [np.asarray, pd.DataFrame, torch.as_tensor])
def test_a_prior_of_ones_own_is_asked_for_batches_alone(X, kind):
    asked = []

    def drawn(n, random_state):
        asked.append(n)
        return kind(uniform(n, random_state))

    model = quick(prior=drawn).fit(X)
    assert max(asked) == 16
    np.testing.assert_allclose(model.spread_, quick(prior=uniform).fit(X).spread_, rtol=0.1)


def test_a_prior_that_is_constant_in_a_unit_is_refused_before_training(X):
    flat = lambda n, random_state: uniform(n, random_state) * [1, 0]  # noqa: E731
    with pytest.raises(ValueError, match="prior is constant in unit 1"):
        quick(prior=flat).fit(X)

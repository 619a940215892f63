"""VariationalAutoencoder, and what it shares with the importance-weighted one."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from torch import nn

from skae import ImportanceWeightedAutoencoder, VariationalAutoencoder, monte_carlo
from skae.bounds import Evidence
from skae.estimators import _inference, _sampling

BOTH = [VariationalAutoencoder, ImportanceWeightedAutoencoder]


def quick(cls=VariationalAutoencoder, **changed):
    """One that trains in a few milliseconds."""
    return cls(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


def linear(cls=VariationalAutoencoder, **changed):
    """One that fits a linear-Gaussian model well."""
    return quick(cls, **{"hidden_layer_sizes": (), "learning_rate_init": 0.03, "batch_size": 250,
                         "learning_rate": "cosine", "max_iter": 400} | changed)  # fmt: skip


@pytest.fixture(scope="module")
def factors():
    """500 rows of 6 features: two factors and a noise of each feature's own."""
    rng = np.random.default_rng(0)
    noise = np.array([0.2, 0.3, 0.4, 0.2, 0.3, 0.4])
    X = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 6)) + noise * rng.normal(size=(500, 6)) + 2
    X.flags.writeable = False
    return X


@pytest.fixture(scope="module")
def table():
    """300 rows of a number, a category of three, and a category of two, which depend on it."""
    rng = np.random.default_rng(0)
    number = rng.normal(size=300)
    first = np.digitize(number + 0.3 * rng.normal(size=300), [-0.5, 0.8])
    second = (number + 0.5 * rng.normal(size=300) > 0).astype(int)
    return np.column_stack([np.eye(2)[second], number, np.eye(3)[first]])


GROUPS = [[0, 1], [3, 4, 5]]


@pytest.fixture(scope="module", params=BOTH, ids=lambda cls: cls.__name__)
def fitted(request, factors):
    return linear(request.param, max_iter=60).fit(factors)


# ---- a linear model is factor analysis


@pytest.mark.parametrize("variance", ["shared", "per_feature"])
def test_a_linear_model_reaches_the_likelihood_of_factor_analysis(factors, variance):
    exact = (PCA(2) if variance == "shared" else FactorAnalysis(2)).fit(factors)
    model = linear(variance=variance).fit(factors)
    assert model.score(factors) == pytest.approx(exact.score(factors), rel=0.01)
    assert model.score(factors) < exact.score(factors) + 1e-6
    many = clone(model).set_params(n_importance_samples=500).fit(factors)
    assert many.score(factors) == pytest.approx(exact.score(factors), rel=0.01)
    assert np.mean(model.noise_variance_) == pytest.approx(np.mean(exact.noise_variance_), rel=0.2)


def test_an_importance_weighted_one_does_too(factors):
    model = linear(ImportanceWeightedAutoencoder, max_iter=200).fit(factors)
    assert model.score(factors) == pytest.approx(PCA(2).fit(factors).score(factors), rel=0.01)


def test_offset_and_scale_of_the_data_are_no_matter(factors):
    a, b = (linear(max_iter=20).fit(X) for X in (factors, 1000 + 50 * factors))
    np.testing.assert_allclose(a.transform(factors), b.transform(1000 + 50 * factors), atol=1e-6)
    assert b.noise_variance_ == pytest.approx(2500 * a.noise_variance_)
    shift = factors.shape[1] * np.log(50)
    assert b.score(1000 + 50 * factors) == pytest.approx(a.score(factors) - shift)


# ---- the posterior and its codes


def test_codes_are_the_posterior_means(fitted, factors):
    mean, std = fitted.posterior(factors)
    np.testing.assert_array_equal(fitted.transform(factors), mean)
    assert mean.shape == std.shape == (500, 2)
    assert (std > 0).all()
    with torch.no_grad():
        h = fitted.encoder_(torch.from_numpy(np.array(factors))).numpy()
    np.testing.assert_allclose(mean, h[:, :2])
    np.testing.assert_allclose(std, np.exp(0.5 * h[:, 2:]))


def test_reconstruction_is_the_decoded_code(fitted, factors):
    codes = fitted.transform(factors)
    np.testing.assert_array_equal(fitted.reconstruct(factors), fitted.inverse_transform(codes))
    module = fitted.to_torch()
    x_hat = module(torch.from_numpy(np.array(factors))).detach().numpy()
    np.testing.assert_allclose(x_hat, fitted.reconstruct(factors))


def test_reconstruction_error_is_the_likelihood_at_the_mean_code(fitted, factors):
    v = fitted.noise_variance_
    residual = factors - fitted.reconstruct(factors)
    cells = residual**2 / (2 * v) + np.log(2 * np.pi * v) / 2
    np.testing.assert_allclose(fitted.reconstruction_error(factors), cells.sum(1))
    by_cell = fitted.reconstruction_error(factors, per_feature=True)
    np.testing.assert_allclose(by_cell.mean(1), cells.sum(1))


def test_active_units_vary_with_the_rows(fitted, factors):
    np.testing.assert_allclose(fitted.activity_, fitted.transform(factors).var(0), rtol=1e-6)
    assert fitted.active_units_.tolist() == (fitted.activity_ > 0.01).tolist()


def test_activity_counts_weights(factors):
    weight = np.arange(500) % 2
    model = quick().fit(factors, sample_weight=weight)
    codes = model.transform(factors)[weight == 1]
    np.testing.assert_allclose(model.activity_, codes.var(0), rtol=1e-6)


def test_posterior_collapse_is_told(factors):
    model = linear(beta=100.0, max_iter=150, learning_rate="constant")
    with pytest.warns(ConvergenceWarning, match="only 0 of 2 code units are active"):
        model.fit(factors)
    assert not model.active_units_.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear(max_iter=60).fit(factors)


def test_free_bits_keep_units_active(factors):
    fit = {"beta": 20.0, "max_iter": 100, "learning_rate": "constant"}
    with pytest.warns(ConvergenceWarning, match="collapse"):
        collapsed = linear(**fit).fit(factors)
    free = linear(free_bits=0.5, **fit).fit(factors)
    assert free.activity_.sum() > 5 * collapsed.activity_.sum()


def test_without_the_divergence_posteriors_shrink(factors):
    std = [linear(beta=beta, variance=1.0, max_iter=100).fit(factors).posterior(factors)[1].mean()
           for beta in (0.0, 1.0)]  # fmt: skip
    assert std[0] < 0.8 * std[1]


def test_a_warm_up_begins_without_the_divergence(factors):
    warm, none = (quick(max_iter=1, batch_size=500, **given).fit(factors)
                  for given in ({"warm_up": 1.0}, {"beta": 0.0}))  # fmt: skip
    np.testing.assert_array_equal(warm.coefs_[0], none.coefs_[0])
    later = [quick(max_iter=4, warm_up=w).fit(factors).loss_curve_[-1] for w in (0.0, 0.5)]
    assert later[0] != later[1]


# ---- scores


def test_scores_are_a_pure_function_of_the_row(fitted, factors, monkeypatch):
    for S in (1, 3, 100):
        model = pickle.loads(pickle.dumps(fitted)).set_params(n_importance_samples=S)
        score = model.score_samples(factors)
        np.testing.assert_array_equal(model.score_samples(factors), score)
        np.testing.assert_allclose(model.score_samples(factors[7:8]), score[7:8])
        with monkeypatch.context() as patch:
            patch.setattr(_inference, "_CELLS", 1)  # 64 rows at a time
            np.testing.assert_allclose(model.score_samples(factors), score)
            patch.setattr(monte_carlo, "BLOCK", 7)  # draws at a time
            np.testing.assert_allclose(model.score_samples(factors), score)
        assert model.score(factors) == pytest.approx(score.mean())
        weight = np.arange(500) % 3
        expected = np.average(score, weights=weight)
        assert model.score(factors, sample_weight=weight) == pytest.approx(expected)


def test_more_samples_give_a_tighter_bound(fitted, factors):
    model = pickle.loads(pickle.dumps(fitted))
    scores = [model.set_params(n_importance_samples=S).score(factors) for S in (1, 5, 50, 2000)]
    assert np.diff(scores).min() > -0.05  # draws that all rows share
    assert scores[-1] > scores[0]


def test_one_sample_is_the_evidence_lower_bound(fitted, factors):
    model = pickle.loads(pickle.dumps(fitted)).set_params(n_importance_samples=1)
    x = torch.from_numpy(np.array(factors))
    objective = Evidence(loss=model.objective_.loss)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean, log_var = model.encoder_(x).chunk(2, -1)
        rows = []
        for _ in range(200):
            epsilon = torch.randn(mean.shape, generator=rng, dtype=mean.dtype)
            raw = model.decoder_(mean + (0.5 * log_var).exp() * epsilon)
            rows.append(-objective.data_loss(x, raw))
    kl = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)
    drawn = torch.stack(rows).mean(0) - kl
    assert model.score(factors) == pytest.approx(float(drawn.mean()), abs=0.05)


def test_scores_of_rows_out_of_reach_are_finite(factors):
    model = quick(precision="float32").fit(factors)
    far = np.full((2, 6), 1e30, dtype=np.float32)
    for S in (1, 2, 100):
        score = model.set_params(n_importance_samples=S).score_samples(far)
        assert np.isfinite(score).all()
        assert (score < model.score_samples(factors).min()).all()


def test_the_number_of_samples_is_validated_when_it_is_used(fitted, factors):
    model = pickle.loads(pickle.dumps(fitted)).set_params(n_importance_samples=0)
    with pytest.raises(ValueError, match="n_importance_samples"):
        model.score(factors)


def test_scores_choose_between_models(factors):
    search = GridSearchCV(linear(max_iter=60), {"n_components": [1, 2]}, cv=2).fit(factors)
    assert search.best_params_ == {"n_components": 2}


# ---- samples


def test_samples_have_the_mean_and_covariance_of_the_data(factors):
    model = linear(variance="per_feature", max_iter=200).fit(factors)
    X = model.sample(5000, random_state=0)
    assert X.shape == (5000, 6)
    assert X.dtype == factors.dtype
    scale = factors.std(0)
    np.testing.assert_allclose(X.mean(0) / scale, factors.mean(0) / scale, atol=0.1)
    correlation = np.cov(factors.T) / np.outer(scale, scale)
    np.testing.assert_allclose(np.cov(X.T) / np.outer(scale, scale), correlation, atol=0.15)


def test_samples_are_those_of_the_seed(fitted):
    one, same, other = (fitted.sample(4, random_state=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(fitted.sample(), fitted.sample())
    assert fitted.sample().shape == (1, 6)


def test_many_samples_are_drawn_in_parts(fitted, monkeypatch):
    monkeypatch.setattr(_sampling, "_CELLS", 60)
    X = fitted.sample(25, random_state=0)
    assert X.shape == (25, 6)
    assert len(np.unique(X[:, 0])) == 25


@pytest.mark.parametrize("given", [{"n_samples": 0}, {"n_samples": 1.5}, {"random_state": "a"}])
def test_what_sample_cannot_draw(fitted, given):
    with pytest.raises(ValueError, match=next(iter(given))):
        fitted.sample(**given)


# ---- likelihoods


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "laplace", "poisson"])
def test_training_beats_the_mean(digits, cls, likelihood):
    X = {"bernoulli": digits / 16, "poisson": digits}.get(likelihood, digits / 16)[:300]
    model = quick(cls, likelihood=likelihood, hidden_layer_sizes=(32,), n_components=4,
                  batch_size=50, max_iter=15, learning_rate_init=0.005)  # fmt: skip
    first = clone(model).set_params(max_iter=1, learning_rate_init=1e-9).fit(X)
    assert model.fit(X).score(X) > first.score(X) + 1
    drawn = model.sample(200, random_state=0)
    assert abs(drawn.mean() - X.mean()) < 0.3 * X.mean()


def test_bernoulli_and_poisson_say_what_they_need(factors):
    with pytest.raises(
        ValueError, match=r"likelihood='bernoulli' needs X in \[0, 1\], but feature"
    ):
        quick(likelihood="bernoulli").fit(factors)
    with pytest.raises(ValueError, match=r"likelihood='poisson' needs X in \[0, inf\).*gaussian"):
        quick(likelihood="poisson").fit(factors - 5)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_a_given_variance_is_kept(factors, likelihood):
    model = quick(likelihood=likelihood, variance=0.7).fit(factors)
    assert model.noise_variance_ == pytest.approx(0.7)
    assert quick(likelihood=likelihood).fit(factors).noise_variance_ != pytest.approx(0.7)


def test_only_spreads_have_a_variance(digits):
    model = quick(likelihood="poisson").fit(digits[:50])
    with pytest.raises(AttributeError, match="noise_variance_ exists only"):
        _ = model.noise_variance_
    with pytest.raises(ValueError, match=r"variance=0.5 is that of a gaussian or laplace"):
        quick(likelihood="poisson", variance=0.5).fit(digits[:50])


def test_a_constant_feature_has_a_finite_density(factors):
    X = np.column_stack([factors, np.full(500, 3.0)])
    model = linear(variance="per_feature", max_iter=100).fit(X)
    assert np.isfinite(model.score(X))
    assert model.noise_variance_[-1] >= 1e-7


# ---- mixed tables


def test_samples_of_a_mixed_table_are_rows_of_one(table):
    model = linear(categorical_groups=GROUPS, hidden_layer_sizes=(8,), n_components=1,
                   batch_size=50, max_iter=100).fit(table)  # fmt: skip
    X = model.sample(4000, random_state=0)
    for group in GROUPS:
        np.testing.assert_array_equal(X[:, group].sum(1), 1)
        assert set(np.unique(X[:, group])) == {0, 1}
        np.testing.assert_allclose(X[:, group].mean(0), table[:, group].mean(0), atol=0.05)
        np.testing.assert_allclose(model.reconstruct(table)[:, group].sum(1), 1)
    with_first = X[X[:, 3] == 1, 2].mean()
    assert with_first < X[:, 2].mean() - 0.5  # as in the data: numbers and categories depend
    assert model.noise_variance_ > 0


def test_a_table_of_categories_alone(table):
    X = table[:, [0, 1, 3, 4, 5]]
    model = quick(categorical_groups=[(0, 1), (2, 3, 4)]).fit(X)
    assert model.sample(3, random_state=0).sum() == 6
    np.testing.assert_array_equal(model.noise_variance_, np.full(5, np.nan))
    counted = quick(categorical_groups=[(0, 1), (2, 3, 4)], likelihood="bernoulli").fit(X)
    with pytest.raises(AttributeError, match="noise_variance_"):
        _ = counted.noise_variance_


@pytest.mark.parametrize(
    ("groups", "match"),
    [
        ([["0", "1"]], "two or more column numbers"),
        ([[0.9, 1.2]], "two or more column numbers"),
        ([[0]], "two or more column numbers"),
        ([0, 1], "two or more column numbers"),
        ([[0, 1], [1, 3]], "no column in two of them"),
        ([["a", "b"]], "two or more column numbers"),
        ([[0, 9]], "has column 9, but X has the columns 0 to 5"),
        ([[0, -1]], "has column -1"),
        ([[0, 2]], r"holds \(0, 2\), but these columns are no category in one-hot form"),
        ([[0, 3, 4, 5]], r"one-hot form: in row \d+ they are \[.*\], instead of a 1"),
        ([[0, 3]], "in row 2 they are"),
    ],
)
def test_groups_that_are_no_categories_are_refused(table, groups, match):
    with pytest.raises(ValueError, match=match):
        quick(categorical_groups=groups).fit(table)


def test_the_other_columns_of_a_mixed_table_are_in_range_too(table):
    with pytest.raises(ValueError, match=r"needs X in \[0, 1\], but feature 2 reaches"):
        quick(categorical_groups=GROUPS, likelihood="bernoulli").fit(table)


# ---- noise, seeds, continuing


@pytest.mark.parametrize("cls", BOTH)
def test_codes_are_drawn_from_a_stream_of_their_own(factors, cls, monkeypatch):
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = quick(cls).fit(factors)
    model.score(factors)
    model.sample(3)
    model.sample(3, random_state=0)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    again = quick(cls).fit(factors)
    np.testing.assert_array_equal(model.coefs_[0], again.coefs_[0])
    monkeypatch.setattr(cls, "_samples", False)
    assert quick(cls)._objective().noise is None
    still = quick(cls).fit(factors)
    assert not np.array_equal(model.coefs_[0], still.coefs_[0])


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_two_fits_of_k_epochs_are_one_of_2k(factors, cls, early_stopping):
    fit = {"early_stopping": early_stopping, "warm_start": True}
    whole = quick(cls, max_iter=12, **fit).fit(factors)
    halves = quick(cls, max_iter=6, **fit).fit(factors).fit(factors)
    for a, b in zip(whole.coefs_ + whole.intercepts_, halves.coefs_ + halves.intercepts_,
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
    assert whole.loss_curve_ == halves.loss_curve_
    assert whole.validation_loss_curve_ == halves.validation_loss_curve_
    assert whole.noise_variance_ == halves.noise_variance_


def test_a_warm_up_continues_over_its_horizon(factors):
    fit = {"warm_start": True, "warm_up": 0.8, "learning_rate_horizon": 10}
    whole = quick(max_iter=10, **fit).fit(factors)
    halves = quick(max_iter=5, **fit).fit(factors).fit(factors)
    np.testing.assert_array_equal(whole.coefs_[0], halves.coefs_[0])


def test_partial_fit_takes_passes(factors):
    model = quick()
    for _ in range(3):
        model.partial_fit(factors)
    assert model.n_iter_ == 3
    assert np.isfinite(model.score(factors))


def test_the_learned_variance_is_that_of_the_weights_kept(digits):
    X = digits[:150]
    fit = {"hidden_layer_sizes": (32,), "learning_rate_init": 0.01, "batch_size": 32}
    model = quick(early_stopping=True, max_iter=90, **fit).fit(X)
    best = int(np.argmin(model.validation_loss_curve_)) + 1
    assert best < 85
    same = quick(early_stopping=True, max_iter=best, **fit).fit(X)
    assert model.noise_variance_ == same.noise_variance_
    assert model.score(X) == same.score(X)


def test_early_stopping_keeps_no_epoch_from_inside_the_warm_up(digits):
    model = quick(likelihood="bernoulli", early_stopping=True, warm_up=0.5, beta=8.0, max_iter=30,
                  learning_rate_init=0.01).fit(digits[:300] / 16)  # fmt: skip
    held_out = model.validation_loss_curve_
    assert np.argmin(held_out) < 15  # where the divergence did not count yet
    assert model.best_loss_ == min(held_out[15:])


def test_an_epoch_is_the_best_even_where_all_are_warm_up(factors):
    assert np.isfinite(quick(warm_up=1.0).fit(factors).best_loss_)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
@pytest.mark.parametrize("variance", ["shared", "per_feature", 0.5])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_tol_does_not_depend_on_units(factors, likelihood, variance, scale):
    fit = {"likelihood": likelihood, "tol": 1e-2, "n_iter_no_change": 2, "max_iter": 200}
    scaled = variance if isinstance(variance, str) else variance * scale**2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        a = quick(variance=variance, **fit).fit(factors)
        b = quick(variance=scaled, **fit).fit(factors * scale)
    assert a.stop_reason_ == "converged"
    assert a.n_iter_ == b.n_iter_


def test_scores_that_overflow_when_added_have_a_mean(factors):
    far = np.full((4, 6), 1e200)
    assert np.isfinite(quick().fit(factors).score(far))


def test_more_code_units_than_sobol_has_dimensions(factors, monkeypatch):
    monkeypatch.setattr(monte_carlo.SobolEngine, "MAXDIM", 1)
    model = quick().fit(factors)
    exact = linear(n_components=2).fit(factors)
    assert np.isfinite(model.score(factors))
    many = exact.set_params(n_importance_samples=2000).score(factors)
    monkeypatch.undo()
    assert many == pytest.approx(exact.score(factors), abs=0.1)


def test_weights_are_seen_in_spite_of_the_noise(factors):
    X = np.concatenate([factors[:250], factors[:250] + 5])
    weight = np.repeat([1.0, 1e-6], 250)
    model = linear(max_iter=100).fit(X, sample_weight=weight)
    mean = model.sample(2000, random_state=0).mean(0)
    np.testing.assert_allclose(mean, factors[:250].mean(0), atol=0.5)


# ---- kinds of input, networks


def test_float32_stays_float32(factors):
    X = factors.astype(np.float32)
    model = quick().fit(X)
    results = [model.transform(X), *model.posterior(X), model.score_samples(X), model.sample(2),
               model.activity_]  # fmt: skip
    assert {result.dtype for result in results} == {np.dtype(np.float32)}


def test_sparse_rows_are_rows(digits):
    X = digits[:100] / 16
    model = quick(likelihood="bernoulli").fit(sp.csr_matrix(X))
    np.testing.assert_allclose(model.score_samples(X), model.score_samples(sp.csr_matrix(X)))


def test_an_encoder_of_ones_own_gives_means_and_log_variances(factors):
    encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6))
    model = quick(n_components=None, encoder=encoder).fit(factors)
    assert model.n_components_ == 3
    assert model.transform(factors).shape == (500, 3)
    with pytest.raises(ValueError, match="encoder gives 5 outputs, but a code of 3 units needs 6"):
        quick(n_components=None, encoder=nn.Linear(6, 5)).fit(factors)


def test_dropout_leaves_the_code_alone(factors):
    assert np.isfinite(quick(dropout=0.3, input_dropout=0.1).fit(factors).score(factors))
    a, b = (quick(hidden_layer_sizes=(), dropout=p).fit(factors) for p in (0.0, 0.9))
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])


def test_components_are_the_weights_of_the_means(factors):
    model = quick(hidden_layer_sizes=()).fit(factors)
    assert model.components_.shape == (2, 6)
    centred = model.transform(factors) - model.transform(factors[:1])
    np.testing.assert_allclose(centred, (factors - factors[:1]) @ model.components_.T, atol=1e-9)


def test_codes_have_names(factors):
    names = quick().fit(factors).get_feature_names_out()
    assert names.tolist() == ["variationalautoencoder0", "variationalautoencoder1"]


# ---- what is refused


@pytest.mark.parametrize("cls", BOTH)
@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"loss": "huber"}, r"loss='huber', but the loss of \w+ is a likelihood. Set likelihood"),
        ({"output_activation": "tanh"}, "output is that of|Leave output_activation='auto'"),
        ({"code_activation": "relu"}, "means and log variances, which have no bounds"),
        ({"tied_weights": True}, "two numbers for each code unit"),
        ({"solver": "lbfgs"}, "draws codes anew at every step"),
        ({"solver": "cg"}, "draws codes anew at every step"),
        ({"variance": 0.0}, "variance"),
        ({"likelihood": "binomial"}, "likelihood"),
    ],
)
def test_what_has_no_meaning_here_is_refused(factors, cls, given, match):
    with pytest.raises(ValueError, match=match):
        quick(cls, **given).fit(factors)

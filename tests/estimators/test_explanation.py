"""Which features made a row an outlier, under which names."""

import inspect

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import NMF, PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

import skae
from skae import Autoencoder, DenoisingAutoencoder, ReconstructionOutlierDetector

NAMES = ["height", "width", "depth", "mass", "price"]
OURS = [
    cls
    for name in skae.__all__
    if inspect.isclass(cls := getattr(skae, name))
    and hasattr(cls, "reconstruction_error")
    and not issubclass(cls, ClassifierMixin | RegressorMixin)
]


def quick(cls):
    if "max_iter" in inspect.signature(cls).parameters:
        return cls(max_iter=2, tol=None)
    return cls(layers=(4, 2), estimator=Autoencoder(hidden_layer_sizes=(), max_iter=2, tol=None))


def detector(estimator=None, **changed):
    estimator = PCA(2) if estimator is None else estimator
    return ReconstructionOutlierDetector(**{"estimator": estimator, "random_state": 0} | changed)


@pytest.fixture
def frame(X):
    return pd.DataFrame(X, columns=NAMES, index=[f"row {i}" for i in range(60)])


# ---- feature_scores


@pytest.mark.parametrize(
    "estimator",
    [*map(quick, OURS), Autoencoder(loss="huber", max_iter=2, tol=None), PCA(2), NMF(2),
     make_pipeline(StandardScaler(), PCA(2))],
    ids=lambda estimator: type(estimator).__name__,
)  # fmt: skip
def test_feature_scores_add_up_to_the_error_of_the_row(X, estimator):
    X = X - X.min()
    fitted = detector(estimator).fit(X)
    scores = fitted.feature_scores(X + 1)
    assert scores.shape == (60, 5)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores.sum(1), -fitted.score_samples(X + 1), rtol=1e-9, atol=1e-12)


def test_feature_scores_of_any_estimator_are_its_squares(X):
    fitted = detector(PCA(2)).fit(X)
    pca = PCA(2, random_state=0).fit(X)
    squares = (pca.inverse_transform(pca.transform(X)) - X) ** 2
    np.testing.assert_allclose(fitted.feature_scores(X), squares / 5, rtol=1e-9)


@pytest.mark.parametrize("holed_as", ["DenoisingAutoencoder", "Pipeline"])
def test_missing_values_add_nothing_and_are_not_explained(X, holed_as):
    holed = X.copy()
    holed[3, 1] = holed[7] = holed[9, :4] = np.nan
    estimator = DenoisingAutoencoder(n_components=2, max_iter=3, tol=None)
    if holed_as == "Pipeline":
        estimator = make_pipeline(StandardScaler(), estimator)
    fitted = detector(estimator).fit(holed)
    assert get_tags(fitted).input_tags.allow_nan
    assert not get_tags(detector(make_pipeline(StandardScaler(), PCA(2)))).input_tags.allow_nan
    cells, scores = fitted.feature_scores(holed), fitted.score_samples(holed)
    assert cells[3, 1] == 0
    assert (cells[9, :4] == 0).all()
    np.testing.assert_array_equal(np.isnan(scores), np.arange(60) == 7)
    np.testing.assert_array_equal(np.isnan(cells).all(1), np.arange(60) == 7)
    np.testing.assert_allclose(cells.sum(1), -scores, rtol=1e-9)
    x_hat = fitted.estimator_.inverse_transform(fitted.estimator_.transform(holed))
    np.testing.assert_allclose(scores[9], -((holed[9, 4] - x_hat[9, 4]) ** 2), rtol=1e-9)
    why = fitted.explain(holed[[3, 7, 9]])
    assert why["row"].tolist() == [0, 0, 0, 0, 2]
    assert why["feature"].iloc[-1] == "x4"
    assert fitted.p_values(holed)[7] == 1
    assert fitted.predict(holed)[7] == 1


def test_whether_missing_values_are_taken_is_the_fitted_estimators_say(X):
    holed = X.copy()
    holed[3, 1] = np.nan
    fitted = detector(DenoisingAutoencoder(n_components=2, max_iter=3, tol=None)).fit(holed)
    scores = fitted.score_samples(holed)
    fitted.set_params(estimator=PCA(2))
    np.testing.assert_array_equal(fitted.score_samples(holed), scores)
    with pytest.raises(ValueError, match="NaN"):
        fitted.fit(holed)


def test_an_error_of_its_own_needs_a_share_for_every_feature(X):
    class Rounded(PCA):
        def reconstruction_error(self, X):
            return ((X - self.inverse_transform(self.transform(X))) ** 2).mean(1).round(3)

    fitted = detector(Rounded(2)).fit(X)
    np.testing.assert_array_equal(
        fitted.score_samples(X), -fitted.estimator_.reconstruction_error(X)
    )
    with pytest.raises(TypeError, match=r"Rounded is its own reconstruction_error.*per_feature"):
        fitted.feature_scores(X)


# ---- explain


def test_explain_lists_features_by_what_they_add(frame):
    fitted = detector().fit(frame)
    rows = frame.iloc[[5, 2]].copy()
    rows.iloc[0, 3] += 50
    why = fitted.explain(rows)
    assert why.columns.tolist() == [
        "row", "feature", "value", "reconstruction", "score", "share",
    ]  # fmt: skip
    assert why["row"].tolist() == ["row 5"] * 5 + ["row 2"] * 5
    assert sorted(why["feature"][:5]) == sorted(NAMES)
    scores = fitted.feature_scores(rows)
    assert why["feature"].iloc[0] == NAMES[scores[0].argmax()]
    X_hat = fitted.estimator_.inverse_transform(fitted.estimator_.transform(rows))
    for i, (_, part) in enumerate(why.groupby("row", sort=False)):
        assert part["score"].is_monotonic_decreasing
        where = [NAMES.index(name) for name in part["feature"]]
        np.testing.assert_array_equal(part["score"], scores[i, where])
        np.testing.assert_array_equal(part["value"], rows.to_numpy()[i, where])
        np.testing.assert_allclose(part["reconstruction"], X_hat[i, where])
        assert part["share"].sum() == pytest.approx(1)
    few = fitted.explain(rows, n_features=2)
    pd.testing.assert_frame_equal(
        few, why.groupby("row", sort=False).head(2).reset_index(drop=True)
    )


def test_rows_and_features_without_names_have_numbers(X):
    fitted = detector(PCA(2, svd_solver="arpack")).fit(X)
    why, same = (fitted.explain(data) for data in (X[:3], sp.csr_array(X[:3])))
    assert why["row"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert set(why["feature"]) == {f"x{i}" for i in range(5)}
    pd.testing.assert_frame_equal(why, same)


def test_shares_are_of_absolute_scores():
    """A log-likelihood per feature may have either sign."""

    class Signed(PCA):
        def reconstruction_error(self, X, *, per_feature=False):
            cells = np.tile([3.0, -1.0, 0.0, 0.0], (len(X), 1))
            return cells if per_feature else cells.mean(1)

    X = np.random.default_rng(0).normal(size=(20, 4))
    why = detector(Signed(2)).fit(X).explain(X[:1])
    np.testing.assert_allclose(why["score"], [0.75, 0, 0, -0.25])
    np.testing.assert_allclose(why["share"], [0.75, 0, 0, -0.25])


@pytest.mark.parametrize("n_features", [0, 1.5, "all"])
def test_absurd_numbers_of_features_are_refused(X, n_features):
    with pytest.raises((TypeError, ValueError), match="n_features"):
        detector().fit(X).explain(X, n_features=n_features)


# ---- what moves although it never did


@pytest.mark.parametrize(("moved", "flagged"), [(3.0, False), (3.001, False), (300.0, True)])
def test_a_constant_column_that_moves_is_one_finite_finding(X, moved, flagged):
    data = np.c_[X, np.full(60, 3.0)]
    scaler = StandardScaler().fit(data)
    fitted = detector().fit(scaler.transform(data))
    row = data[:1].copy()
    row[0, 5] = moved
    before, score = (fitted.score_samples(scaler.transform(x))[0] for x in (data[:1], row))
    added = (moved - 3.0) ** 2 / 6  # the column is scaled by 1, as scikit-learn's scalers do
    assert before - score == pytest.approx(added, rel=1e-12, abs=1e-12)
    why = fitted.explain(scaler.transform(row), n_features=1)
    assert (why["feature"][0] == "x5") == flagged
    assert (why["share"][0] > 0.99) == flagged


def test_errors_of_zero_explode_nothing():
    data = np.full((30, 3), 2.0)
    for threshold in ("training", "held_out", "cross_fitted", "extreme_value"):
        with np.errstate(all="raise", under="ignore"):
            fitted = detector(
                Shift(), threshold=threshold, tail_fraction=0.5, calibration_fraction=0.8,
                contamination=0.3,
            ).fit(data)  # fmt: skip
            why = fitted.explain(data[:2])
            assert (why["share"] == 0).all()
            assert (fitted.predict(data) == 1).all()
            assert (fitted.p_values(data) == 1).all()
            assert fitted.predict(data + np.array([0, 1e-3, 0])).tolist() == [-1] * 30
            assert np.isfinite(fitted.decision_function(data + 1e-9)).all()


class Shift(TransformerMixin, BaseEstimator):
    """Reconstructs the first row that it has seen."""

    def fit(self, X, y=None):
        self.row_ = np.asarray(X)[0]
        return self

    def transform(self, X):
        return np.zeros((len(X), 1))

    def inverse_transform(self, Z):
        return np.tile(self.row_, (len(Z), 1))


# ---- names


class Columns(ColumnTransformer):
    """A column transformer that can go back: every column is in one place of its output."""

    def inverse_transform(self, Z):
        X = np.empty((len(Z), self.n_features_in_))
        for name, transformer, columns in self.transformers_:
            where = [list(self.feature_names_in_).index(column) for column in columns]
            X[:, where] = transformer.inverse_transform(Z[:, self.output_indices_[name]])
        return X


@pytest.mark.parametrize("threshold", ["training", "held_out", "cross_fitted"])
def test_column_names_reach_the_estimator_inside(frame, threshold):
    columns = Columns([
        ("minmax", MinMaxScaler(), ["mass", "height"]),
        ("standard", StandardScaler(), ["price", "width", "depth"]),
    ])  # fmt: skip
    fitted = detector(make_pipeline(columns, PCA(2)), threshold=threshold).fit(frame)
    inside = make_pipeline(columns, PCA(2, random_state=0))
    if threshold != "held_out":
        X_hat = inside.fit(frame).inverse_transform(inside.transform(frame))
        np.testing.assert_allclose(
            fitted.score_samples(frame), -((X_hat - frame.to_numpy()) ** 2).mean(1), rtol=1e-9
        )
    assert fitted.explain(frame[:1])["feature"].isin(NAMES).all()
    assert fitted.estimator_[0].feature_names_in_.tolist() == NAMES


def test_names_of_other_libraries_reach_it_too(frame):
    columns = Columns([("all", StandardScaler(), NAMES[::-1])])
    ours = detector(make_pipeline(columns, PCA(2))).fit(frame)
    theirs = detector(make_pipeline(columns, PCA(2))).fit(pl.from_pandas(frame))
    np.testing.assert_allclose(  # a frame of another layout in memory is added up in another order
        ours.score_samples(frame), theirs.score_samples(pl.from_pandas(frame)), rtol=1e-10
    )


@pytest.mark.filterwarnings("error")
def test_an_estimator_inside_does_not_warn_of_names(frame):
    for estimator in (PCA(2), Autoencoder(max_iter=2, tol=None)):
        fitted = detector(estimator).fit(frame)
        fitted.predict(frame), fitted.feature_scores(frame), fitted.explain(frame)
    with pytest.warns(UserWarning, match="X does not have valid feature names") as caught:
        fitted.predict(frame.to_numpy())
    assert len(caught) == 1


def test_other_names_are_refused(frame):
    fitted = detector().fit(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.explain(frame[NAMES[::-1]])


def test_mixed_tables_come_through_a_column_transformer_in_front(frame):
    frame = frame.assign(colour=np.tile(["red", "green", "blue"], 20))
    columns = ColumnTransformer(
        [("", StandardScaler(), NAMES), ("is", OneHotEncoder(sparse_output=False), ["colour"])]
    ).set_output(transform="pandas")
    model = make_pipeline(columns, detector(PCA(4), contamination=0.05)).fit(frame)
    assert (model.predict(frame) == -1).sum() == 3
    odd = frame[:1].assign(price=99.0)
    assert model.predict(odd) == [-1]
    why = model[-1].explain(model[:-1].transform(odd))
    assert why["feature"][0].endswith("price")
    assert "is__colour_red" in set(why["feature"])
    inside = make_pipeline(columns, PCA(4))
    with pytest.raises(ValueError, match="inverse_transform"):  # it cannot go back
        detector(inside).fit(frame)

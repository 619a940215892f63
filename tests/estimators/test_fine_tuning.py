"""Fine-tuning: the network is the pipeline, and training goes on from it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from torch import nn

from skae import (
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    FineTunedClassifier,
    FineTunedRegressor,
    KSparseAutoencoder,
    SplitBrainAutoencoder,
    fine_tune,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def quick(kind=Autoencoder, **changed):
    return kind(**{"n_components": 3, "max_iter": 3, "tol": None, "random_state": 0} | changed)


def unmoved(pipeline, X, y, **changed):
    """Fine-tuned by a step that moves nothing."""
    numbers = {"solver": "sgd", "learning_rate_init": 1e-30, "max_iter": 1, "tol": None}
    return fine_tune(pipeline, X, y, **numbers | changed)


CLASSIFIERS = {
    "logistic regression": LogisticRegression(),
    "linear SVM": LinearSVC(),
    "linear SVM, hinge": LinearSVC(loss="hinge"),
    "sgd, hinge": SGDClassifier(random_state=0),
    "sgd, squared hinge": SGDClassifier(
        loss="squared_hinge", learning_rate="constant", eta0=1e-3, random_state=0
    ),
    "sgd, logistic": SGDClassifier(loss="log_loss", random_state=0),
    "sgd, squared error": SGDClassifier(loss="squared_error", alpha=1.0, random_state=0),
    "ridge": RidgeClassifier(),
}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("last", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_network_predicts_what_the_pipeline_does_before_any_step(iris, last, n_classes):
    X, y = iris
    X, y = X[y < n_classes], np.array(["a", "b", "c"])[y[y < n_classes]]
    pipeline = make_pipeline(StandardScaler(), quick(), copy.deepcopy(last)).fit(X, y)
    model = unmoved(pipeline, X, y)
    np.testing.assert_allclose(
        model.decision_function(X), pipeline.decision_function(X), rtol=1e-8, atol=1e-8
    )
    np.testing.assert_array_equal(model.predict(X), pipeline.predict(X))
    assert hasattr(model, "predict_proba") == hasattr(pipeline, "predict_proba")
    if hasattr(pipeline, "predict_proba"):
        np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), atol=1e-7)
        np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))


@pytest.mark.parametrize("last", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_fine_tuning_lowers_the_classifiers_own_loss(iris, last):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), copy.deepcopy(last)).fit(X, y)
    model = fine_tune(pipeline, X, y, solver="lbfgs", max_iter=20, tol=None)
    assert model.loss_ < model.loss_curve_[0] < np.inf
    assert model.score(X, y) >= pipeline.score(X, y)


@pytest.mark.parametrize(
    "last", [Ridge(), LinearRegression(), Lasso(), ElasticNet(), SGDRegressor(random_state=0)],
    ids=lambda last: type(last).__name__,
)  # fmt: skip
@pytest.mark.parametrize("n_outputs", [0, 1, 2])
def test_regressors_predict_the_same_and_then_better(last, n_outputs):
    X, y = load_diabetes(return_X_y=True)
    if n_outputs:
        if isinstance(last, SGDRegressor):
            pytest.skip("it takes one output, without an axis")
        y = np.column_stack([y, 100 * X @ np.arange(10)])[:, :n_outputs]
    pipeline = make_pipeline(StandardScaler(), quick(), copy.deepcopy(last)).fit(X, y)
    same = unmoved(pipeline, X, y)
    assert isinstance(same, FineTunedRegressor)
    np.testing.assert_allclose(same.predict(X), pipeline.predict(X), rtol=1e-6, atol=1e-6)
    better = fine_tune(pipeline, X, y, solver="lbfgs", max_iter=20, tol=None)
    predicted = better.predict(X)
    assert predicted.shape == pipeline.predict(X).shape
    assert better.score(X, y) > pipeline.score(X, y)
    assert better.loss_ == pytest.approx(((predicted.reshape(y.shape) - y) ** 2).mean())


STEPS = {
    "scalers of all kinds": [MinMaxScaler(), RobustScaler(), quick()],
    "no scaler": [quick()],
    "two autoencoders": [StandardScaler(), quick(n_components=5), quick(n_components=2)],
    "a scaler between": [StandardScaler(), quick(), StandardScaler(), quick(n_components=2)],
    "scalers between": [quick(), MinMaxScaler(), MaxAbsScaler(), RobustScaler(), "passthrough"],
    "half a scaler": [quick(), StandardScaler(with_std=False), StandardScaler(with_mean=False)],
    "a projection": [quick(), PCA(2, whiten=True), TruncatedSVD(1)],
    "a tied one": [StandardScaler(), quick(ContractiveAutoencoder)],
    "a deep one": [StandardScaler(), quick(hidden_layer_sizes=(7, 5), activation="tanh")],
    "a noisy one": [StandardScaler(), quick(DenoisingAutoencoder)],
    "a k-sparse one": [StandardScaler(), quick(KSparseAutoencoder, k=1, alpha_k=2.0)],
    "a threshold": [StandardScaler(), quick(KSparseAutoencoder, k=1, selection="batch")],
    "after a k-sparse one": [quick(KSparseAutoencoder, k=1), StandardScaler(), quick()],
    "split-brain": [StandardScaler(), quick(SplitBrainAutoencoder, n_components=2)],
    "a module of one's own": [
        StandardScaler(), quick(n_components=None, encoder=nn.Sequential(nn.Linear(4, 3), nn.ELU()))
    ],
    "features in front": [PolynomialFeatures(2), FunctionTransformer(), StandardScaler(), quick()],
}  # fmt: skip


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_network_of_any_steps_is_the_pipeline_and_trains(iris, steps):
    X, y = iris
    pipeline = make_pipeline(*copy.deepcopy(steps), LogisticRegression()).fit(X, y)
    model = unmoved(pipeline, X, y)
    np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), atol=1e-7)
    trained = fine_tune(pipeline, X, y, max_iter=20, tol=None, random_state=0, batch_size=30)
    assert trained.loss_ < model.loss_
    dense = not any(isinstance(s, KSparseAutoencoder | SplitBrainAutoencoder) for s in steps)
    dense = dense and getattr(steps[-1], "encoder", None) is None
    assert (trained.engine_.path == "fused") == dense


def test_pipeline_stays_as_it_is(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression()).fit(X, y)
    before = pipeline.predict_proba(X)
    fine_tune(pipeline, X, y, max_iter=5, tol=None)
    np.testing.assert_array_equal(pipeline.predict_proba(X), before)


def test_pipeline_in_single_precision_is_tuned_in_it():
    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression()).fit(X, y)
    model = unmoved(pipeline, X, y)
    np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), atol=1e-5)
    assert model.predict_proba(X).dtype == np.float32
    assert next(model.head_.parameters()).dtype == next(model.encoder_.parameters()).dtype


REFUSED = {
    "no pipeline": (LogisticRegression(), "must be a Pipeline"),
    "no autoencoder": (make_pipeline(StandardScaler(), LogisticRegression()), "no autoencoder"),
    "a step that is no layer": (
        Pipeline([("ae", quick()), ("poly", PolynomialFeatures()), ("lr", LogisticRegression())]),
        "Step 'poly', PolynomialFeatures, cannot be a layer",
    ),
    "a clipping scaler": (
        make_pipeline(quick(), MinMaxScaler(clip=True), LogisticRegression()),
        "MinMaxScaler, cannot be a layer",
    ),
    "a kernel": (make_pipeline(quick(), SVC()), r"'svc', SVC, cannot be the last layer"),
    "neighbours": (make_pipeline(quick(), KNeighborsClassifier()), "cannot be the last layer"),
    "another loss": (
        make_pipeline(quick(), SGDClassifier(loss="modified_huber", random_state=0)),
        r"SGDClassifier\(loss='modified_huber'\).*loss may be 'log_loss'",
    ),
    "a joint SVM": (
        make_pipeline(quick(), LinearSVC(multi_class="crammer_singer")), "multi_class may be 'ovr'"
    ),
    "a scaler before a module": (
        make_pipeline(quick(), StandardScaler(), quick(SplitBrainAutoencoder), LinearSVC()),
        "Leave the scaler out",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pipeline", "message"), REFUSED.values(), ids=REFUSED)
def test_step_that_cannot_be_a_layer_is_an_error_that_names_it(iris, pipeline, message):
    X, y = iris
    with pytest.raises(ValueError, match=message):
        fine_tune(copy.deepcopy(pipeline).fit(X, y), X, y)


def test_regressor_of_another_loss_is_refused():
    X, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(quick(), SGDRegressor(loss="huber", random_state=0)).fit(X, y)
    with pytest.raises(ValueError, match="loss may be 'squared_error'"):
        fine_tune(pipeline, X, y)


def test_labels_that_the_pipeline_does_not_know_are_refused(iris):
    X, y = iris
    pipeline = make_pipeline(quick(), LogisticRegression()).fit(X[y < 2], y[y < 2])
    with pytest.raises(ValueError, match=r"labels \[2\]"):
        fine_tune(pipeline, X, y)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_full_batch_fine_tuning_never_ends_above_its_start(iris, solver, alpha):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression()).fit(X, y)
    start = unmoved(pipeline, X, y, alpha=alpha, batch_size=len(X)).loss_
    for max_iter in (1, 5, 30):
        model = fine_tune(pipeline, X, y, solver=solver, max_iter=max_iter, tol=None, alpha=alpha)
        assert model.loss_ <= start + 1e-12
    assert model.loss_ < 0.9 * start


def phases_of(monkeypatch, model, X, y):
    """What is fitted at the end of every phase of training."""
    seen, train = [], type(model)._train

    def watched(self, task, *args, **kwargs):
        result = train(self, task, *args, **kwargs)
        seen.append(task.fitted(result.monitor, task.values | result.parameters))
        return result

    monkeypatch.setattr(type(model), "_train", watched)
    model.fit(X, y)
    return seen


UNFROZEN = {
    "dense": [quick(n_components=5), quick(n_components=3)],
    "with modules between": [
        quick(KSparseAutoencoder, n_components=5, k=2),
        quick(KSparseAutoencoder, n_components=3, k=2),
    ],
}


@pytest.mark.parametrize("steps", UNFROZEN.values(), ids=UNFROZEN)
def test_layers_are_unfrozen_from_the_top(iris, monkeypatch, steps):
    X, y = iris
    pipeline = make_pipeline(*copy.deepcopy(steps), LogisticRegression()).fit(X, y)
    model = FineTunedClassifier(
        estimator=FrozenEstimator(pipeline), unfreeze_epochs=2, max_iter=3, tol=None,
        learning_rate_init=0.05, random_state=0,
    )  # fmt: skip
    seen = phases_of(monkeypatch, model, X, y)
    weights = [
        [p.detach().clone() for p in made["encoder_"].parameters() if p.ndim == 2] for made in seen
    ]
    n_layers = len(weights[0])
    assert len(seen) == n_layers + 1
    assert model.n_iter_ == len(model.loss_curve_) == 2 * n_layers + 3
    for i, now in enumerate(weights[1:], start=1):
        moved = [not torch.allclose(a, b) for a, b in zip(weights[i - 1], now, strict=True)]
        assert moved == [layer >= n_layers - i for layer in range(n_layers)]
    assert not np.allclose(seen[0]["head_"][0].weight.detach().numpy(), pipeline[-1].coef_)
    codes = pipeline[:-1].transform(X)
    with torch.no_grad():
        np.testing.assert_allclose(seen[0]["encoder_"](torch.from_numpy(X)), codes, atol=1e-9)


def test_refitting_is_fitting(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression())
    model = FineTunedClassifier(estimator=pipeline, max_iter=5, tol=None, random_state=0)
    first = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), first)


def test_searches_reach_into_the_pipeline(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression())
    model = FineTunedClassifier(estimator=pipeline, max_iter=3, tol=None, random_state=0)
    grid = {"estimator__autoencoder__n_components": [1, 2], "dropout": [0.0, 0.2]}
    search = GridSearchCV(model, grid, cv=3).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    fitted = pipeline.fit(X, y)
    frozen = FineTunedClassifier(estimator=FrozenEstimator(fitted), max_iter=3, tol=None)
    assert cross_val_score(frozen, X, y, cv=3).min() > 0.5


def test_class_weight_moves_the_decision():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression()).fit(X, y)
    numbers = {"max_iter": 20, "tol": None, "random_state": 0}
    plain = fine_tune(pipeline, X, y, **numbers).predict(X).mean()
    heavy = fine_tune(pipeline, X, y, class_weight={0: 100, 1: 1}, **numbers).predict(X).mean()
    assert heavy < plain
    weight = np.where(y == 0, 100.0, 1.0)
    same = fine_tune(pipeline, X, y, sample_weight=weight, **numbers).predict(X).mean()
    assert same == heavy


def test_held_out_rows_are_of_every_class(iris, monkeypatch):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression()).fit(X, y)
    model = fine_tune(
        pipeline, X, y, early_stopping=True, validation_fraction=0.1, max_iter=20, random_state=0
    )
    assert len(model.validation_loss_curve_) == model.n_iter_
    held, hold_out = [], FineTunedClassifier._hold_out

    def watched(self, source, rows, streams):
        parts = hold_out(self, source, rows, streams)
        held.append(parts[2][1].y)
        return parts

    monkeypatch.setattr(FineTunedClassifier, "_hold_out", watched)
    fine_tune(pipeline, X, y, early_stopping=True, max_iter=2, random_state=0)
    np.testing.assert_array_equal(np.bincount(held[0]), [5, 5, 5])


def test_divergence_leaves_the_estimator_as_it_was(iris):
    X, y = iris
    pipeline = make_pipeline(quick(), LogisticRegression())
    model = FineTunedClassifier(estimator=pipeline, max_iter=5, tol=None, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    model.set_params(solver="sgd", learning_rate_init=1e30)
    with pytest.raises(ValueError, match="diverged"):
        model.fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_stopping_at_max_iter_warns(iris):
    X, y = iris
    pipeline = make_pipeline(quick(), LogisticRegression()).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        fine_tune(pipeline, X, y, max_iter=2)


def test_frames_keep_their_names(iris):
    pd = pytest.importorskip("pandas")
    X, y = iris
    X = pd.DataFrame(X, columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression()).fit(X, y)
    model = fine_tune(pipeline, X, y, max_iter=2, tol=None)
    assert list(model.feature_names_in_) == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X[list("dcba")])


# ---- given away


FRONTS = {
    "nothing in front": [],
    "a scaler": [StandardScaler()],
    "scalers": [MinMaxScaler(), StandardScaler(with_mean=False), RobustScaler()],
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_torch_module_and_mlp_predict_the_same_from_X_itself(iris, front, n_classes):
    X, y = iris
    X, y = X[y < n_classes], np.array(list("abc"))[y[y < n_classes]]
    layers = [quick(hidden_layer_sizes=(), activation="tanh"), LogisticRegression()]
    pipeline = make_pipeline(*copy.deepcopy(front), *layers).fit(X, y)
    model = fine_tune(pipeline, X, y, max_iter=5, tol=None, random_state=0)
    with torch.no_grad():
        raw = model.to_torch()(torch.from_numpy(X)).numpy()
    expected = model.decision_function(X).reshape(len(X), -1)
    np.testing.assert_allclose(raw, expected, rtol=1e-9, atol=1e-9)
    mlp = model.to_mlp(max_iter=3)
    np.testing.assert_allclose(mlp.predict_proba(X), model.predict_proba(X), atol=1e-9)
    assert mlp.classes_.tolist() == model.classes_.tolist()
    before = model.loss_
    assert mlp.fit(X, y).loss_ < 2 * before  # it goes on from there


def test_regressor_as_an_mlp_predicts_the_same():
    X, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(), quick(hidden_layer_sizes=(), activation="tanh"), Ridge()
    ).fit(X, y)
    model = fine_tune(pipeline, X, y, max_iter=5, tol=None, random_state=0)
    np.testing.assert_allclose(model.to_mlp().predict(X), model.predict(X), rtol=1e-9)


def test_what_is_no_network_or_no_mlp_is_refused(iris):
    X, y = iris
    tanh = {"hidden_layer_sizes": (), "activation": "tanh"}
    in_front = make_pipeline(PolynomialFeatures(2), quick(**tanh), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="'polynomialfeatures', PolynomialFeatures, in front"):
        fine_tune(in_front, X, y, max_iter=1, tol=None).to_torch()
    hinge = make_pipeline(quick(**tanh), LinearSVC()).fit(X, y)
    with pytest.raises(ValueError, match="trained by SquaredHinge"):
        fine_tune(hinge, X, y, max_iter=1, tol=None).to_mlp()
    against_rest = make_pipeline(quick(**tanh), SGDClassifier(loss="log_loss")).fit(X, y)
    with pytest.raises(ValueError, match="trained by LogisticCrossEntropy"):
        fine_tune(against_rest, X, y, max_iter=1, tol=None).to_mlp()
    mixed = make_pipeline(quick(), LogisticRegression()).fit(X, y)  # relu, and a linear code
    with pytest.raises(ValueError, match="one activation"):
        fine_tune(mixed, X, y, max_iter=1, tol=None).to_mlp()
    split = make_pipeline(StandardScaler(), quick(SplitBrainAutoencoder), LogisticRegression()).fit(
        X, y
    )
    with pytest.raises(ValueError, match="has to be linear"):
        fine_tune(split, X, y, max_iter=1, tol=None).to_torch()


# ---- what does not fit


def test_lengths_of_X_and_y_must_agree(iris):
    X, y = iris
    pipeline = make_pipeline(quick(), LogisticRegression()).fit(X, y)
    for labels in (np.r_[y, y], y[:100]):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            fine_tune(pipeline, X, labels)


@pytest.mark.parametrize("front", [[], [StandardScaler()]], ids=["no scaler", "a scaler"])
def test_columns_are_those_of_the_pipeline(iris, front):
    pd = pytest.importorskip("pandas")
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    pipeline = make_pipeline(*front, quick(), LogisticRegression()).fit(frame, y)
    with pytest.raises(ValueError, match="feature names should match"):
        fine_tune(pipeline, frame[list("dcba")], y)
    with pytest.raises(ValueError, match="X has 3 features, but"):
        fine_tune(make_pipeline(*front, quick(), LogisticRegression()).fit(X, y), X[:, :3], y)


@pytest.mark.parametrize("n_labels", [2, 3, 4])
def test_ridge_classifier_of_several_labels_a_row(iris, n_labels):
    X, y = iris
    Y = np.column_stack([y == 0, y > 1, y == 1, X[:, 0] > 5.5])[:, :n_labels].astype(int)
    pipeline = make_pipeline(quick(), RidgeClassifier()).fit(X, Y)
    same = unmoved(pipeline, X, Y)
    np.testing.assert_array_equal(same.predict(X), pipeline.predict(X))
    assert fine_tune(pipeline, X, Y, solver="lbfgs", max_iter=20, tol=None).loss_ < same.loss_


def test_kind_of_the_last_step_must_be_that_of_the_network(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"FineTunedRegressor needs .* Use FineTunedClassifier"):
        FineTunedRegressor(estimator=make_pipeline(quick(), LogisticRegression())).fit(X, y)
    with pytest.raises(ValueError, match=r"FineTunedClassifier needs .* Use FineTunedRegressor"):
        FineTunedClassifier(estimator=make_pipeline(quick(), Ridge())).fit(X, y)


REFUSED_EARLY = {
    "cannot be a layer": {
        "estimator": make_pipeline(quick(), PolynomialFeatures(), LogisticRegression())
    },
    "cannot be the last layer": {"estimator": make_pipeline(quick(), SVC())},
    "needs a deterministic objective": {"solver": "lbfgs", "dropout": 0.3},
    "minimises without constraints": {"solver": "cg", "max_norm": 2.0},
    "are not in class_weight": {"class_weight": {7: 2.0}},
    "leaves no training rows": {"early_stopping": True, "validation_fraction": 0.999},
}


@pytest.mark.parametrize(("message", "changed"), REFUSED_EARLY.items(), ids=REFUSED_EARLY)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    iris, monkeypatch, message, changed
):
    X, y = iris
    monkeypatch.setattr(Autoencoder, "_train", lambda *args, **options: pytest.fail("trained"))
    model = FineTunedClassifier(
        **{"estimator": make_pipeline(quick(), LogisticRegression())} | changed
    )
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


def test_missing_values_that_an_autoencoder_fills_need_an_imputer_here(iris):
    X, y = iris
    X = X.copy()
    X[::3, 0] = np.nan
    pipeline = make_pipeline(quick(DenoisingAutoencoder), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match=r"Step 'denoisingautoencoder'.*Put an imputer in front"):
        fine_tune(pipeline, X, y)
    whole = make_pipeline(SimpleImputer(), quick(DenoisingAutoencoder), LogisticRegression())
    assert fine_tune(whole.fit(X, y), X, y, max_iter=3, tol=None).predict(X).shape == y.shape


# ---- pipelines in other things


HOLDERS = {
    "frozen": lambda p, X, y: FrozenEstimator(p.fit(X, y)),
    "frozen twice": lambda p, X, y: FrozenEstimator(FrozenEstimator(p.fit(X, y))),
    "a search": lambda p, X, y: GridSearchCV(p, {"autoencoder__alpha": [0.0, 0.1]}, cv=2),
    "a pipeline inside": lambda p, X, y: make_pipeline(
        make_pipeline(MaxAbsScaler(), p[0]), make_pipeline(p[1]), p[2]
    ),
    "a frozen step": lambda p, X, y: make_pipeline(
        StandardScaler(), FrozenEstimator(quick().fit(X)), LogisticRegression()
    ),
}


@pytest.mark.parametrize("held", HOLDERS.values(), ids=HOLDERS)
def test_pipelines_are_found_where_they_are_held(iris, held):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression())
    model = FineTunedClassifier(
        estimator=held(pipeline, X, y), solver="sgd", learning_rate_init=1e-30, max_iter=1, tol=None
    ).fit(X, y)
    expected = model.estimator_.predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-9)


def test_weights_reach_every_step_that_takes_them(iris):
    X, y = iris
    weight = np.where(y == 0, 5.0, 1.0)
    mean = np.average(X, axis=0, weights=weight)
    flat = make_pipeline(StandardScaler(), quick(), LogisticRegression())
    nested = make_pipeline(make_pipeline(StandardScaler()), quick(), LogisticRegression())
    for pipeline in (flat, nested):
        model = FineTunedClassifier(estimator=pipeline, max_iter=2, tol=None).fit(X, y, weight)
        np.testing.assert_allclose(model.before_[0].mean_, mean)


def test_weights_are_routed_as_requested(iris):
    X, y = iris
    weight = np.where(y == 0, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        steps = [
            StandardScaler().set_fit_request(sample_weight=True),
            quick().set_fit_request(sample_weight=False),
            LogisticRegression().set_fit_request(sample_weight=True),
        ]
        model = FineTunedClassifier(estimator=make_pipeline(*steps), max_iter=2, tol=None)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        fitted = model.fit(X, y, sample_weight=weight)
        np.testing.assert_allclose(fitted.before_[0].mean_, np.average(X, axis=0, weights=weight))
        search = GridSearchCV(model, {"alpha": [0.0, 0.1]}, cv=2)
        assert np.isfinite(search.fit(X, y, sample_weight=weight).best_score_)


def test_seeds_of_the_pipeline_and_of_the_network_differ(iris):
    X, y = iris
    pipeline = make_pipeline(quick(random_state=None), LogisticRegression())
    seeds = []
    model = FineTunedClassifier(estimator=pipeline, max_iter=1, tol=None, random_state=7)
    tune = FineTunedClassifier._tune

    def watched(self, *args):
        seeds.append(args[-2])
        return tune(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FineTunedClassifier, "_tune", watched)
        model.fit(X, y)
    own = [step.get_params()["random_state"] for step in model.estimator_[:1]]
    assert seeds[0] not in own


def test_interrupted_autoencoder_ends_the_whole(iris, monkeypatch):
    X, y = iris
    pipeline = make_pipeline(quick(), LogisticRegression())
    model = FineTunedClassifier(estimator=pipeline, max_iter=2, tol=None).fit(X, y)
    before = model.predict_proba(X)

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("skae._engine.train._descend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


# ---- stages and the best weights


def test_early_stopping_keeps_the_best_weights_of_all_stages():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), quick(n_components=20), LogisticRegression())
    model = FineTunedClassifier(
        estimator=pipeline, unfreeze_epochs=40, max_iter=3, early_stopping=True,
        learning_rate_init=0.1, random_state=0,
    ).fit(X, y)  # fmt: skip
    curve = model.validation_loss_curve_
    assert model.best_loss_ == min(curve)
    assert int(np.argmin(curve)) < len(curve) - 3  # not in the last stage
    held = []
    hold_out = FineTunedClassifier._hold_out

    def watched(self, *args):
        parts = hold_out(self, *args)
        held.append(parts[2])
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FineTunedClassifier, "_hold_out", watched)
        model.fit(X, y)
    source, rows = held[0]
    with torch.no_grad():
        raw = model.head_(model.encoder_(source.take(slice(0, source.n))))
    value = model._outputs.loss.elements(rows.target, raw).sum(-1).mean()
    assert float(value) == pytest.approx(model.best_loss_)


@pytest.mark.parametrize(
    "options", [{"solver": "liblinear"}, {"multi_class": "ovr"}, {"multi_class": "multinomial"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_older_forms_of_logistic_regression_are_the_same_too(iris, options, n_classes):
    X, y = iris
    X, y = X[y < n_classes], y[y < n_classes]
    try:
        last = LogisticRegression(**options)
        pipeline = make_pipeline(StandardScaler(), quick(), last).fit(X, y)
    except (TypeError, ValueError):
        pytest.skip("this scikit-learn has no such form")
    model = unmoved(pipeline, X, y)
    np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), atol=1e-7)

"""Fine-tuning: the network is the pipeline, and training goes on from it."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
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
            return  # it takes one output, without an axis
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
        r"SGDClassifier\(loss='modified_huber'\)",
    ),
    "a joint SVM": (
        make_pipeline(quick(), LinearSVC(multi_class="crammer_singer")), "cannot be the last layer"
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
    with pytest.raises(ValueError, match="by the squared error only"):
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

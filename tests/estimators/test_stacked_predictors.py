"""Stacked classifiers and regressors: pretraining, heads, unlabelled rows, fine-tuning."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    Autoencoder,
    DenoisingAutoencoder,
    GeneralizedAutoencoder,
    KSparseAutoencoder,
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
    fine_tune,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
LAYER = Autoencoder(hidden_layer_sizes=(), activation="tanh", max_iter=5, tol=None)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600] / 16, y[:600]


def quick(kind=StackedAutoencoderClassifier, **changed):
    return kind(
        **{"layers": (20, 10), "estimator": LAYER, "max_iter": 10, "tol": None, "random_state": 0}
        | changed
    )


def test_pretraining_is_the_stacks_own(digits):
    X, y = digits
    model = quick().fit(X, y)
    stack = clone(model.stack_).fit(X)
    np.testing.assert_array_equal(model.stack_.transform(X), stack.transform(X))


def test_fine_tuning_starts_from_the_stack(digits):
    X, y = digits
    model = quick(learning_rate_init=1e-30, solver="sgd", max_iter=1).fit(X, y)
    with torch.no_grad():
        codes = model.encoder_(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(codes, model.stack_.transform(X), rtol=1e-9)


def test_fine_tuning_moves_every_layer_and_leaves_the_stack(digits):
    X, y = digits
    model = quick().fit(X, y)
    before = [p.detach().numpy().copy() for p in model.stack_.encoder_.parameters()]
    again = clone(model.stack_).fit(X)
    for kept, tuned, pretrained in zip(
        before, model.encoder_.parameters(), again.encoder_.parameters(), strict=True
    ):
        assert not np.allclose(kept, tuned.detach().numpy())
        np.testing.assert_array_equal(kept, pretrained.detach().numpy())
    assert model.loss_ < model.loss_curve_[0]


def test_without_pretraining_the_weights_are_drawn(digits):
    X, y = digits
    options = {"solver": "sgd", "learning_rate_init": 1e-30, "max_iter": 1}
    model = quick(pretrain=False, **options).fit(X, y)
    assert model.stack_ is None
    for linear in (model.encoder_[0], model.encoder_[2]):
        r = np.sqrt(6 / (linear.in_features + linear.out_features))
        W = linear.weight.detach().numpy()
        assert 0.95 * r < abs(W).max() <= r
        assert abs(linear.bias.detach().numpy()).max() <= r
    trained = quick(pretrain=False, max_iter=60).fit(X, y)
    assert trained.score(X, y) > 0.8


@pytest.mark.parametrize("kind", ["multi", "binary", "multilabel"])
def test_probabilities_are_of_the_outputs(digits, kind):
    X, y = digits
    if kind == "binary":
        y = np.where(y > 4, "large", "small")
    elif kind == "multilabel":
        y = np.column_stack([y > 4, y % 2 == 0, y == 3]).astype(int)
    model = quick(max_iter=60).fit(X, y)
    p, raw = model.predict_proba(X), model.decision_function(X)
    if kind == "multilabel":
        np.testing.assert_allclose(p, 1 / (1 + np.exp(-raw)))
        np.testing.assert_array_equal(model.predict(X), p > 0.5)
    else:
        np.testing.assert_allclose(p.sum(axis=1), 1)
        np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])
    if kind == "binary":
        np.testing.assert_array_equal(raw > 0, model.predict(X) == "small")
    assert model.score(X, y) > 0.7


def test_loss_is_the_log_loss(digits):
    X, y = digits
    model = quick(solver="lbfgs", max_iter=15).fit(X, y)
    own = -np.log(model.predict_proba(X)[np.arange(len(y)), y]).mean()
    assert model.loss_ == pytest.approx(own, rel=1e-6)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_training_never_rises(digits, solver):
    X, y = digits
    curve = quick(solver=solver, max_iter=15).fit(X, y).loss_curve_
    assert (np.diff(curve) <= 1e-12).all()


def test_head_may_have_hidden_layers(digits):
    X, y = digits
    model = quick(head_layer_sizes=(15, 12), head_activation="tanh").fit(X, y)
    shapes = [p.shape for p in model.head_.parameters() if p.ndim == 2]
    assert shapes == [(15, 10), (12, 15), (10, 12)]
    assert isinstance(model.head_[1], torch.nn.Tanh)


@pytest.mark.parametrize("mark", [-1, "?"])
def test_unlabelled_rows_serve_the_pretraining_alone(digits, mark):
    X, y = digits
    labels = y.astype(object) if mark == "?" else y.copy()
    labels[100:] = mark
    model = quick(unlabeled=mark).fit(X, labels)
    assert model.classes_.tolist() == list(range(10))
    whole = clone(model.stack_).fit(X)
    np.testing.assert_array_equal(model.stack_.transform(X), whole.transform(X))
    # What is fine-tuned is what a pipeline of that stack would be on the labelled rows.
    again = quick(unlabeled=mark).fit(X, labels)
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    few = X[:100]
    assert model.loss_ == pytest.approx(
        -np.log(model.predict_proba(few)[np.arange(100), y[:100]]).mean(), rel=0.5
    )


def test_without_a_mark_minus_one_is_a_class(digits):
    X, y = digits
    assert -1 in quick().fit(X, y - 1).classes_


def test_weights_of_unlabelled_rows_weigh_in_pretraining(digits):
    X, y = digits
    labels, weight = y.copy(), np.ones(len(y))
    labels[300:] = -1
    weight[450:] = 0
    model = quick(unlabeled=-1).fit(X, labels, sample_weight=weight)
    whole = clone(model.stack_).fit(X, sample_weight=weight)
    np.testing.assert_array_equal(model.stack_.transform(X), whole.transform(X))


def test_regressor_learns_numbers_and_takes_nan_as_unlabelled():
    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = quick(StackedAutoencoderRegressor, max_iter=60).fit(X, y)
    assert model.score(X, y) > 0.4
    unknown = y.copy()
    unknown[::2] = np.nan
    half = quick(StackedAutoencoderRegressor, max_iter=60, unlabeled=np.nan).fit(X, unknown)
    assert half.score(X[1::2], y[1::2]) > 0.4
    with pytest.raises(ValueError, match="NaN"):
        quick(StackedAutoencoderRegressor).fit(X, unknown)


def test_regressor_has_several_outputs_of_any_offset_and_scale():
    X, y = load_diabetes(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    Y = np.column_stack([y, -y])
    model = quick(StackedAutoencoderRegressor, max_iter=40).fit(X, Y)
    assert model.predict(X).shape == Y.shape
    moved = quick(StackedAutoencoderRegressor, max_iter=40).fit(X, 1e6 + 1e3 * Y)
    np.testing.assert_allclose(
        (moved.predict(X) - 1e6) / 1e3, model.predict(X), rtol=1e-4, atol=0.05
    )


def test_layers_of_any_kind_are_fine_tuned(digits):
    X, y = digits
    layers = (
        KSparseAutoencoder(n_components=40, k=8, max_iter=3, tol=None),
        DenoisingAutoencoder(n_components=15, hidden_layer_sizes=(), max_iter=3, tol=None),
    )
    model = quick(layers=layers, max_iter=20).fit(X, y)
    assert model.engine_.path == "autograd"
    assert model.score(X, y) > 0.6


def test_layers_that_need_labels_get_them_where_all_rows_have_one(digits):
    X, y = digits
    layer = GeneralizedAutoencoder(
        relation="class", n_components=10, hidden_layer_sizes=(), max_iter=3, tol=None, max_outer=1
    )
    quick(layers=(layer,)).fit(X, y)
    labels = y.copy()
    labels[::3] = -1
    with pytest.raises(ValueError, match=r"needs y|needs labels|requires y"):
        quick(layers=(layer,), unlabeled=-1).fit(X, labels)


def test_is_what_fine_tuning_a_pipeline_is(digits):
    X, y = digits
    model = quick(learning_rate_init=0.003, max_iter=40).fit(X, y)
    from sklearn.linear_model import LogisticRegression

    pipeline = make_pipeline(clone(model.stack_), LogisticRegression(max_iter=1000)).fit(X, y)
    tuned = fine_tune(pipeline, X, y, max_iter=40, tol=None, learning_rate_init=0.003)
    assert abs(tuned.score(X, y) - model.score(X, y)) < 0.05


def test_parameters_of_layers_are_searched(digits):
    X, y = digits
    layers = (DenoisingAutoencoder(n_components=10, hidden_layer_sizes=(), max_iter=2, tol=None),)
    model = quick(layers=layers, max_iter=2)
    grid = {"layer_0__noise_level": [0.0, 0.3], "pretrain": [True, False]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert model.get_params()["layer_0__n_components"] == 10


def test_same_seed_same_bits_and_pickles(digits):
    X, y = digits
    model = quick(dropout=0.2).fit(X, y)
    p = model.predict_proba(X)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), p)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), p)
    assert not np.array_equal(clone(model).set_params(random_state=1).fit(X, y).predict_proba(X), p)


def test_early_stopping_keeps_the_best_weights(digits):
    X, y = digits
    model = quick(early_stopping=True, max_iter=60, learning_rate_init=0.02, tol=1e-4,
                  n_iter_no_change=5).fit(X, y)  # fmt: skip
    assert model.best_loss_ == min(model.validation_loss_curve_)
    assert len(model.validation_loss_curve_) == model.n_iter_


@pytest.mark.parametrize("changed", [{"alpha": 0.01}, {"dropout": 0.4}, {"input_dropout": 0.4},
                                     {"max_norm": 0.5}, {"unfreeze_epochs": 2},
                                     {"class_weight": "balanced"}], ids=str)  # fmt: skip
def test_every_parameter_does_something(digits, changed):
    X, y = digits
    plain = quick().fit(X[:200], y[:200] ** 2 % 7).predict_proba(X)
    other = quick(**changed).fit(X[:200], y[:200] ** 2 % 7).predict_proba(X)
    assert not np.allclose(plain, other)


def test_max_norm_holds_in_the_units_of_X(digits):
    X, y = digits
    model = quick(max_norm=0.5, head_layer_sizes=(8,)).fit(X, y)
    hidden = [m for m in (*model.encoder_, *list(model.head_)[:-1]) if hasattr(m, "weight")]
    assert len(hidden) == 3
    for linear in hidden:
        assert linear.weight.norm(dim=1).max() <= 0.5 + 1e-9
    assert model.head_[-1].weight.norm(dim=1).max() > 0.5


def test_sparse_input_is_dense_input(digits):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = digits
    X = np.where(X > 0.5, X, 0)
    p = quick().fit(X, y).predict_proba(X)
    given = sparse.csr_array(X)
    np.testing.assert_allclose(quick().fit(given, y).predict_proba(given), p, rtol=1e-6, atol=1e-9)


def test_lengths_of_X_and_y_must_agree(digits):
    X, y = digits
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick().fit(X, y[:-1])


def test_bad_layers_are_refused(digits):
    X, y = digits
    with pytest.raises(TypeError, match="layer_0 must be"):
        quick(layers=("wide",)).fit(X, y)
    with pytest.raises(ValueError, match="layers is empty"):
        quick(layers=()).fit(X, y)
    with pytest.raises(ValueError, match="head_layer_sizes must be"):
        quick(head_layer_sizes=(0,)).fit(X, y)


@pytest.mark.parametrize("kind", ["multi", "binary", "multilabel"])
def test_stack_with_its_head_is_an_mlp(digits, kind):
    X, y = digits
    if kind == "binary":
        y = y > 4
    elif kind == "multilabel":
        y = np.column_stack([y > 4, y % 2 == 0, y == 3]).astype(int)
    model = quick(head_layer_sizes=(8,), head_activation="tanh", alpha=0.01).fit(X, y)
    mlp = model.to_mlp()
    assert mlp.hidden_layer_sizes == (20, 10, 8)
    assert mlp.alpha == pytest.approx(0.01 * 200)
    np.testing.assert_allclose(mlp.predict_proba(X), model.predict_proba(X), atol=1e-9)
    np.testing.assert_array_equal(mlp.predict(X), model.predict(X))


REFUSED_EARLY = {
    "needs a deterministic objective": {"solver": "lbfgs", "dropout": 0.3},
    "minimises without constraints": {"solver": "lbfgs", "max_norm": 2.0},
    "head_layer_sizes must be": {"head_layer_sizes": ("a",)},
    "are not in class_weight": {"class_weight": {77: 2.0}},
    "leaves no training rows": {"early_stopping": True, "validation_fraction": 0.9999},
}


@pytest.mark.parametrize(("message", "changed"), REFUSED_EARLY.items(), ids=REFUSED_EARLY)
def test_what_does_not_fit_is_refused_before_pretraining(digits, monkeypatch, message, changed):
    X, y = digits
    monkeypatch.setattr(Autoencoder, "_train", lambda *args, **options: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        quick(**changed).fit(X, y)


def test_one_label_a_row_or_columns_of_0_and_1(digits):
    X, y = digits
    with pytest.raises(ValueError, match="multiclass-multioutput"):
        quick().fit(X, np.column_stack([y, y % 3]))


def test_regressor_takes_a_number_as_the_mark():
    X, y = load_diabetes(return_X_y=True)
    y[:200] = -1
    assert quick(StackedAutoencoderRegressor, unlabeled=-1).fit(X, y)._n_trained == len(y) - 200
    with pytest.raises(ValueError, match="cannot occur in y"):
        quick(StackedAutoencoderRegressor, unlabeled="?").fit(X, y)


@pytest.mark.parametrize("unlabeled", [None, -1])
def test_callbacks_hear_of_every_epoch_and_score_labelled_rows(digits, unlabeled):
    callback = pytest.importorskip("sklearn.callback")
    X, y = digits
    labels = y.copy()
    if unlabeled is not None:
        labels[::2] = -1
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = quick(unlabeled=unlabeled, max_iter=4).set_callbacks(monitor)
    model.fit(X, labels, sample_weight=np.ones(len(y)))
    epochs = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(epochs) == 4
    known = labels != (99 if unlabeled is None else unlabeled)
    assert epochs[-1]["accuracy"] == pytest.approx(model.score(X[known], y[known]))


def test_progress_reaches_layers_and_epochs(digits):
    callback = pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    X, y = digits
    quick(max_iter=2).set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X, y)

"""What is refused, in which words, and that a refusal changes nothing."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from torch import nn

from skae import Autoencoder, AutoencoderOutlierDetector, ReconstructionOutlierDetector
from skae._engine.solvers import SGD, Adam


def quick(**changed):
    """An autoencoder that trains in a few milliseconds."""
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


def detector():
    return ReconstructionOutlierDetector(estimator=quick(), random_state=0)


def with_cell(X, value):
    X = np.array(X)
    X[3, 2] = value
    return X


BAD = {
    "NaN": (lambda X: with_cell(X, np.nan), ValueError, "NaN"),
    "infinity": (lambda X: with_cell(X, np.inf), ValueError, "infinity"),
    "minus infinity": (lambda X: with_cell(X, -np.inf), ValueError, "infinity"),
    "no rows": (lambda X: X[:0], ValueError, "0 sample"),
    "no columns": (lambda X: X[:, :0], ValueError, "0 feature"),
    "complex": (lambda X: X + 1j, ValueError, "Complex data not supported"),
    "strings": (lambda X: X.astype(str).astype(object) + "a", ValueError, "could not convert"),
    "one dimension": (lambda X: X[0], ValueError, "Expected 2D array, got 1D"),
    "three dimensions": (lambda X: X[None], ValueError, "with dim 3"),
    "a number": (lambda X: 3.0, ValueError, "Expected 2D array, got scalar"),
    "sparse with NaN": (lambda X: sp.csr_matrix(with_cell(X, np.nan)), ValueError, "NaN"),
    "tensor with NaN": (lambda X: torch.tensor(with_cell(X, np.nan)), ValueError, "NaN"),
    "frame with NaN": (lambda X: pd.DataFrame(with_cell(X, np.nan)), ValueError, "NaN"),
    "frame with a missing count": (
        lambda X: pd.DataFrame(X).assign(n=pd.array([None] + [1] * (len(X) - 1), dtype="Int64"))
        .rename(columns=str), ValueError, "NaN"),
    "frame of text": (lambda X: pd.DataFrame(X).assign(a="b").rename(columns=str), ValueError,
                      "could not convert string to float"),
}  # fmt: skip


def ready_made():
    return AutoencoderOutlierDetector(n_steps=2, random_state=0)


def with_text(kind):
    """Rows of which columns 1 and 3 are text, as containers have it, and how they are called."""
    frame = pd.DataFrame(np.ones((20, 4)), columns=list("abcd"))
    frame["b"], frame["d"] = pd.Categorical(["u", "v"] * 10), ["x", "y"] * 10
    rows = {
        "pandas": lambda: frame,
        "objects": lambda: frame.astype({"d": object}),
        "array": lambda: frame.to_numpy(dtype=object),
        "strings": lambda: frame.to_numpy(dtype=object).astype(str),
        "lists": lambda: frame.to_numpy(dtype=object).tolist(),
        "polars": lambda: pytest.importorskip("polars").DataFrame(frame.to_dict("list")),
    }[kind]()
    return rows, "'b', 'd'" if hasattr(rows, "columns") else "column 1, column 3"


@pytest.mark.parametrize("make", [quick, detector, ready_made])
@pytest.mark.parametrize("kind", ["pandas", "objects", "array", "strings", "lists", "polars"])
def test_columns_of_text_are_named_with_what_to_do(make, kind):
    rows, named = with_text(kind)
    said = "could not convert string to float: .*OneHotEncoder in a ColumnTransformer.*; here: "
    with pytest.raises(ValueError, match=f"{said}{named}\\.$"):
        make().fit(rows)


def test_of_many_columns_of_text_the_first_are_named():
    rows = pd.DataFrame({f"t{i}": ["u", "v"] * 10 for i in range(9)})
    with pytest.raises(ValueError, match=r"here: 't0', 't1', 't2', 't3', 't4', \.{4}$"):
        quick().fit(rows)


def test_text_that_is_numbers_is_read_as_scikit_learn_reads_it(X):
    text = pd.DataFrame(X, columns=list("abcde")).astype(str)
    numbers = text.astype(float)
    np.testing.assert_array_equal(quick().fit_transform(text), quick().fit_transform(numbers))


def test_text_does_not_change_what_is_said_of_other_mistakes(X):
    fitted = quick().fit(pd.DataFrame(X, columns=list("abcde")))
    with pytest.raises(ValueError, match="feature names should match") as caught:
        fitted.transform(pd.DataFrame(X, columns=list("abcdf")).assign(f="text"))
    assert "OneHotEncoder" not in str(caught.value)


def test_codes_that_are_text_are_refused_in_the_same_words(X):
    with pytest.raises(ValueError, match="here: column 1"):
        quick().fit(X).inverse_transform([[1.0, "a"], [2.0, "b"]])


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("make", [quick, detector])
@pytest.mark.parametrize("kind", BAD)
def test_bad_data_are_refused_and_change_nothing(X, make, kind):
    spoil, error, message = BAD[kind]
    unfitted = make()
    with pytest.raises(error, match=message):
        unfitted.fit(spoil(X))
    assert set(vars(unfitted)) == set(unfitted.get_params(deep=False))

    fitted = make().fit(X)
    before, scores = vars(fitted).copy(), fitted.score_samples(X)
    methods = ["fit", "score_samples", "reconstruct", "transform", "partial_fit", "predict"]
    for method in (getattr(fitted, name) for name in methods if hasattr(fitted, name)):
        with pytest.raises(error, match=message):
            method(spoil(X))
    assert vars(fitted) == before
    assert fitted.n_features_in_ == 5
    np.testing.assert_array_equal(fitted.score_samples(X), scores)


@pytest.mark.parametrize("make", [quick, detector])
def test_data_of_another_width_are_refused_after_fit(X, make):
    fitted = make().fit(X)
    for method in (fitted.score_samples, getattr(fitted, "transform", fitted.score_samples)):
        with pytest.raises(ValueError, match=r"X has 4 features, but .* is expecting 5"):
            method(X[:, :4])


@pytest.mark.parametrize("make", [quick, detector])
def test_reordered_columns_are_refused(X, make):
    frame = pd.DataFrame(X, columns=list("abcde"))
    fitted = make().fit(frame)
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.score_samples(frame[list("edcba")])
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.score_samples(frame.rename(columns={"a": "z"}))


def test_a_failed_refit_keeps_names_and_number_of_features(X):
    frame = pd.DataFrame(X, columns=list("abcde"))
    ae = quick().fit(frame)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        ae.set_params(loss="binary_cross_entropy").fit(frame[["a", "b"]].rename(columns=str.upper))
    assert list(ae.feature_names_in_) == list("abcde")
    assert ae.n_features_in_ == 5
    assert ae.set_params(loss="squared_error").transform(frame).shape == (60, 2)


@pytest.mark.parametrize(
    "method", ["transform", "reconstruct", "reconstruction_error", "score_samples", "score",
               "inverse_transform", "get_feature_names_out"],
)  # fmt: skip
def test_an_unfitted_autoencoder_says_so(X, method):
    call = getattr(quick(), method)
    with pytest.raises(NotFittedError):
        call() if method == "get_feature_names_out" else call(X)


@pytest.mark.parametrize("name", ["coefs_", "intercepts_", "components_"])
def test_an_unfitted_autoencoder_has_no_weights(name):
    assert not hasattr(quick(), name)


@pytest.mark.parametrize("method", ["predict", "score_samples", "decision_function"])
def test_an_unfitted_detector_says_so(X, method):
    with pytest.raises(NotFittedError):
        getattr(detector(), method)(X)


# ---- ranges


UNIT = [{"loss": "binary_cross_entropy"}, {"output_activation": "logistic"}]


@pytest.mark.parametrize("changed", UNIT)
@pytest.mark.parametrize(("value", "shown"), [(255.0, "255"), (-0.5, "-0.5"), (1.00001, "1.00001")])
def test_what_is_outside_the_unit_interval_is_refused_by_feature_and_value(
    X, changed, value, shown
):
    unit = (X - X.min()) / (X.max() - X.min())
    ae = quick(**changed)
    [(name, given)] = changed.items()
    with pytest.raises(ValueError, match=rf"{name}='{given}' .*feature 2 reaches {shown}\b"):
        ae.fit(with_cell(unit, value))
    named = pd.DataFrame(with_cell(unit, value), columns=list("abcde"))
    with pytest.raises(ValueError, match=r"feature 2 \('c'\)"):
        ae.fit(named)
    with pytest.raises(ValueError, match="Scale X, for example with MinMaxScaler"):
        ae.fit(with_cell(unit, value))
    ae.fit(with_cell(unit, 1 + 1e-9))  # rounding of a scaler


@pytest.mark.parametrize("changed", UNIT)
def test_after_fit_any_finite_value_is_accepted(X, changed):
    unit = (X - X.min()) / (X.max() - X.min())
    ae = quick(**changed).fit(unit)
    for far in (unit - 3, 100 * unit):
        assert np.isfinite(ae.transform(far)).all()
        assert np.isfinite(ae.score_samples(far)).all()


@pytest.mark.parametrize(
    ("changed", "good", "bad", "interval"),
    [
        ({"output_activation": "tanh"}, -1.0, -1.1, r"\[-1, 1\]"),
        ({"output_activation": "relu"}, 0.0, -0.1, r"\[0, inf\)"),
        ({"output_activation": "softplus"}, 0.0, -0.1, r"\[0, inf\)"),
        ({"loss": "poisson"}, 0.0, -1.0, r"\[0, inf\)"),
    ],
)
def test_what_the_output_cannot_reach_is_refused(X, changed, good, bad, interval):
    unit = (X - X.min()) / (X.max() - X.min())
    quick(**changed).fit(with_cell(unit, good))
    with pytest.raises(ValueError, match=rf"needs X in {interval}, but feature 2 reaches {bad:g}"):
        quick(**changed).fit(with_cell(unit, bad))


@pytest.mark.parametrize("make", [sp.csr_matrix, torch.tensor])
def test_ranges_are_checked_in_any_kind_of_X(X, make):
    unit = (X - X.min()) / (X.max() - X.min())
    with pytest.raises(ValueError, match="feature 2 reaches 7"):
        quick(loss="binary_cross_entropy").fit(make(with_cell(unit, 7.0)))


def test_ranges_are_checked_in_partial_fit(X):
    unit = (X - X.min()) / (X.max() - X.min())
    ae = quick(loss="binary_cross_entropy").partial_fit(unit)
    before = ae.transform(unit)
    with pytest.raises(ValueError, match="feature 2 reaches 7"):
        ae.partial_fit(with_cell(unit, 7.0))
    np.testing.assert_array_equal(ae.transform(unit), before)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "poisson"])
def test_a_likelihood_takes_only_its_own_output_activation(X, loss):
    with pytest.raises(ValueError, match=f"loss='{loss}' needs output_activation='auto'"):
        quick(loss=loss, output_activation="tanh").fit(np.abs(X) / 100)


# ---- parameters


ABSURD = [
    {"n_components": 0}, {"n_components": 2.5}, {"n_components": "many"},
    {"hidden_layer_sizes": (4, 0)}, {"hidden_layer_sizes": -1}, {"hidden_layer_sizes": (2.5,)},
    {"hidden_layer_sizes": ("a",)}, {"hidden_layer_sizes": ((4, 4), (4, 4))},
    {"hidden_layer_sizes": (np.nan,)}, {"hidden_layer_sizes": None},
    {"activation": "sigmoid"}, {"activation": "exp"}, {"code_activation": None},
    {"output_activation": "exp"}, {"loss": "mse"}, {"loss": np.square},
    {"tied_weights": "yes"}, {"alpha": -1.0}, {"alpha": np.nan}, {"alpha": np.inf},
    {"dropout": 1.0}, {"dropout": -0.1}, {"input_dropout": 1}, {"encoder": 3},
    {"encoder": nn.Linear}, {"decoder": "linear"}, {"initialize_from": 3}, {"solver": "adamw"},
    {"learning_rate": "adaptive"}, {"learning_rate_init": 0.0}, {"learning_rate_init": -1.0},
    {"learning_rate_init": np.inf}, {"learning_rate_horizon": 0}, {"momentum": 1.5},
    {"batch_size": 0}, {"batch_size": 2.5}, {"batch_size": "all"}, {"max_iter": 0},
    {"max_iter": 2.5}, {"tol": -1e-3}, {"tol": np.nan}, {"n_iter_no_change": 0},
    {"validation_fraction": 0.0}, {"validation_fraction": 1.0}, {"random_state": "seed"},
    {"random_state": np.random.default_rng(0)}, {"device": 3}, {"precision": "float16"},
    {"verbose": "loud"}, {"warm_start": 2}, {"early_stopping": "yes"}, {"shuffle": None},
    {"nesterovs_momentum": "no"},
]  # fmt: skip


def label(parameter):
    [(name, value)] = parameter.items()
    return f"{name}={getattr(value, '__name__', value)}"


@pytest.mark.parametrize("absurd", ABSURD, ids=label)
def test_absurd_parameters_are_refused_by_name(X, absurd):
    [name] = absurd
    ae = quick().fit(X)
    before = vars(ae).copy()
    with pytest.raises((ValueError, TypeError), match=name):
        ae.set_params(**absurd).fit(X)
    assert {k: v for k, v in vars(ae).items() if k != name} == {
        k: v for k, v in before.items() if k != name
    }


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", torch.device("cuda:99")])
def test_a_device_that_is_not_there_is_refused_by_name(X, device):
    there, fitted = quick(device=device), quick().fit(X)
    for use, given in ((there.fit, X), (there.partial_fit, X), (fitted.to, device)):
        with pytest.raises(ValueError, match=f"device='{device}' .* Leave device=None"):
            use(given)
    fitted.transform(X)  # is where it was


@pytest.mark.parametrize("contamination", [0.0, 0.6, -0.1, "auto", np.nan])
def test_absurd_contamination_is_refused(X, contamination):
    with pytest.raises(ValueError, match="contamination"):
        ReconstructionOutlierDetector(estimator=PCA(2), contamination=contamination).fit(X)


def test_a_detector_needs_something_that_reconstructs(X):
    from sklearn.svm import SVC

    with pytest.raises(ValueError, match="estimator"):
        ReconstructionOutlierDetector(estimator=SVC()).fit(X)


@pytest.mark.parametrize("fraction", [0.99, 0.6])
def test_a_validation_set_that_leaves_no_rows_is_refused(X, fraction):
    n = 1 if fraction == 0.6 else 20
    with pytest.raises(
        ValueError, match=rf"validation_fraction={fraction} leaves no training rows"
    ):
        quick(early_stopping=True, validation_fraction=fraction).fit(X[:n])


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize("noise", ["dropout", "input_dropout"])
def test_full_batch_solvers_refuse_noise_with_the_reason(X, solver, noise):
    with pytest.raises(ValueError, match=rf"solver='{solver}' needs a deterministic .*{noise}=0.2"):
        quick(solver=solver, **{noise: 0.2}).fit(X)


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
def test_full_batch_solvers_refuse_dropout_in_a_module(X, solver):
    encoder = nn.Sequential(nn.Linear(5, 2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=rf"solver='{solver}' needs a deterministic"):
        quick(solver=solver, encoder=encoder, n_components=None).fit(X)


# ---- sample weights


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(60), "zero"),
        (-np.ones(60), "[Nn]egative"),
        (np.full(60, np.nan), "NaN"),
        (np.full(60, np.inf), "infinity"),
        (np.ones(59), "59"),
        (np.ones((60, 2)), "1D"),
        (["a"] * 60, "could not convert"),
    ],
)
@pytest.mark.parametrize("make", [quick, detector])
def test_bad_weights_are_refused_and_change_nothing(X, make, weight, message):
    fitted = make().fit(X)
    before = vars(fitted).copy()
    with pytest.raises(ValueError, match=message):
        fitted.fit(X, sample_weight=weight)
    if hasattr(fitted, "score"):
        with pytest.raises(ValueError, match=message):
            fitted.score(X, sample_weight=weight)
    assert vars(fitted) == before


@pytest.mark.parametrize("row", [0, 7, 59])
def test_weights_that_leave_nothing_to_train_or_to_validate_are_refused(X, row):
    """All the weight on one row: it is held out or not, and the other part has none."""
    w = np.zeros(60)
    w[row] = 1
    with pytest.raises(ValueError, match="sample weights"):
        quick(early_stopping=True).fit(X, sample_weight=w)


# ---- divergence


@pytest.mark.parametrize("early_stopping", [False, True])
def test_divergence_says_at_which_epoch_and_what_to_do(X, early_stopping):
    ae = quick(solver="sgd", learning_rate_init=1e6, max_iter=100, early_stopping=early_stopping)
    with pytest.raises(ValueError, match=r"diverged at epoch \d+.*[Ll]ower learning_rate_init"):
        ae.fit(X)
    assert not hasattr(ae, "encoder_")


def test_divergence_leaves_the_model_as_it_was(X):
    ae = quick().fit(X)
    before = ae.transform(X)
    with pytest.raises(ValueError, match="diverged"):
        ae.set_params(solver="sgd", learning_rate_init=1e6, max_iter=100).fit(X)
    np.testing.assert_array_equal(ae.transform(X), before)


def test_weights_that_the_last_step_made_infinite_are_not_kept(X):
    """The loss of an epoch is of the weights before its last step."""
    ae = quick(solver="sgd", learning_rate_init=1.7e308, max_iter=1, batch_size=60)
    with pytest.raises(ValueError, match="diverged"):
        ae.fit(100 * X)


# ---- interruption


class InterruptedStep:
    """Replaces an optimiser's step by one that is interrupted at its n-th call."""

    def __init__(self, step, n):
        self.step, self.left = step, n

    def __call__(self, *args):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.step(*args)


@pytest.mark.parametrize(("solver", "kind"), [("adam", Adam), ("sgd", SGD)])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_interruption_within_an_epoch_keeps_the_model(X, monkeypatch, solver, kind, early_stopping):
    step = InterruptedStep(kind.step, 9)
    monkeypatch.setattr(kind, "step", lambda self, *args: step(self, *args))
    threads = torch.get_num_threads()
    ae = quick(solver=solver, max_iter=50, early_stopping=early_stopping)
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 epochs.*kept"):
        ae.fit(X)
    assert ae.stop_reason_ == "interrupted"
    assert ae.n_iter_ == len(ae.loss_curve_) == 2
    assert np.isfinite(ae.score(X))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("solver", ["lbfgs", "cg"])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_interrupted_full_batch_solver_keeps_its_last_iterate(X, monkeypatch, solver, after):
    from skae._engine.fused import Fused

    ae = quick(solver=solver, activation="tanh", max_iter=50)
    untrained = clone(ae).set_params(solver="adam", learning_rate_init=1e-300).fit(X)
    whole = clone(ae).fit(X)
    step = InterruptedStep(Fused.add_gradient, after)
    monkeypatch.setattr(Fused, "add_gradient", lambda self, *args: step(self, *args))
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        ae.fit(X)
    assert ae.stop_reason_ == "interrupted"
    assert ae.loss_curve_ == whole.loss_curve_[: ae.n_iter_]
    expected = ae.loss_curve_[-1] if ae.loss_curve_ else -untrained.score(X)
    assert -ae.score(X) == pytest.approx(expected)


def test_training_continues_after_an_interruption(X, monkeypatch):
    ae = quick(warm_start=True, max_iter=50)
    with monkeypatch.context() as patched:
        step = InterruptedStep(Adam.step, 8)
        patched.setattr(Adam, "step", lambda self, *args: step(self, *args))
        with pytest.warns(ConvergenceWarning, match="interrupted"):
            ae.fit(X)
    score = ae.score(X)
    ae.fit(X)
    assert ae.n_iter_ == 52
    assert ae.stop_reason_ == "max_iter"
    assert ae.score(X) > score


def test_an_interrupted_fit_without_an_epoch_is_usable(X, monkeypatch):
    step = InterruptedStep(Adam.step, 0)
    monkeypatch.setattr(Adam, "step", lambda self, *args: step(self, *args))
    with pytest.warns(ConvergenceWarning, match="interrupted after 0 epochs"):
        ae = quick().fit(X)
    assert ae.loss_curve_ == []
    assert np.isfinite(ae.score(X))


def test_interruption_before_training_changes_nothing(X, monkeypatch):
    import skae.estimators._base as base

    ae = quick().fit(X)
    before = vars(ae).copy()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "moments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ae.fit(X)
    assert vars(ae) == before


def test_a_good_fit_does_not_warn(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ae = quick().fit(X)
        ae.score(X), ae.reconstruct(X)
        detector().fit(X).predict(X)


@pytest.mark.parametrize(("n", "batch_size"), [(9, 4), (5, 1)])
def test_batch_of_one_row_is_refused_where_a_module_normalises_by_the_batch(n, batch_size):
    X = np.random.default_rng(0).normal(size=(n, 5))
    encoder = nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=r"leaves a batch of one row.*another batch_size"):
        Autoencoder(encoder=encoder, batch_size=batch_size, max_iter=2).fit(X)
    encoder[1].eval()  # normalises by its running statistics
    Autoencoder(encoder=encoder, batch_size=batch_size, max_iter=2).fit(X)


def test_warning_points_to_the_line_that_called_fit():
    X = np.random.default_rng(0).normal(size=(20, 5))
    for model in (Autoencoder(max_iter=1), make_pipeline(Autoencoder(max_iter=1))):
        with pytest.warns(ConvergenceWarning, match="max_iter=1") as caught:
            model.fit(X)
        assert caught[0].filename == __file__

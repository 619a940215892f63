"""scikit-learn's callbacks hear of every epoch, and may end the training."""

import pickle
import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, ReconstructionOutlierDetector

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")


def quick(**changed):
    """An autoencoder that trains in a few milliseconds."""
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 5, "tol": None,
           "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


class Recording:
    """Keeps what the hooks are told; `stop` and `look` see every epoch's fitted estimator."""

    def __init__(self, stop=lambda fitted: False, look=lambda fitted: None):
        self.stop, self.look = stop, look
        self.events, self.tasks, self.seen, self.passed = [], [], [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")
        self.tasks.append((context.task_name, context.task_id, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.events.append(f"end {context.task_name}")
        self.passed.append((X, y, metadata))
        if context.task_name == "epoch":
            self.seen.append(self.look(fitted_estimator))
            return self.stop(fitted_estimator)


class Propagated(Recording):
    """The same, reaching nested estimators as ProgressBar does."""

    max_propagation_depth = None

    def on_fit_task_begin(self, estimator, context):
        super().on_fit_task_begin(estimator, context)
        self.estimators = [*getattr(self, "estimators", []), type(estimator).__name__]


class Hooks:
    """Only the hooks' shortest forms."""

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context): ...


def epochs_shown(text):
    """The names on the bars of the last picture that rich printed."""
    return re.findall(r"Autoencoder - (\w+)", text)


# ---- the order of events


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs", "cg"])
def test_every_epoch_is_a_task_of_the_fit(X, solver):
    recorded = Recording()
    ae = quick(solver=solver).set_callbacks(recorded).fit(X)
    epoch = ["begin epoch", "end epoch"]
    assert recorded.events == ["setup", "begin fit", *epoch * 5, "end fit", "teardown"]
    assert recorded.tasks == [("fit", 0, 5), *(("epoch", i, 0) for i in range(5))]
    assert ae.n_iter_ == 5


@pytest.mark.parametrize("solver", ["sgd", "lbfgs", "cg"])
def test_begun_epochs_end_when_training_stops_by_itself(X, solver):
    recorded = Recording()
    ae = quick(solver=solver, max_iter=2000, tol=1e-4, n_iter_no_change=2, hidden_layer_sizes=(),
               activation="identity", learning_rate_init=1e-300)  # fmt: skip
    ae.set_callbacks(recorded).fit(X)
    assert ae.n_iter_ < 2000
    epoch = ["begin epoch", "end epoch"]
    assert recorded.events == ["setup", "begin fit", *epoch * ae.n_iter_, "end fit", "teardown"]


def test_a_search_for_a_minimum_that_solvers_give_up_ends_what_it_began(X):
    """SciPy stops by itself where no step improves, between two epochs."""
    recorded = Recording()
    ae = quick(solver="lbfgs", max_iter=2000, hidden_layer_sizes=(), activation="identity")
    ae.set_callbacks(recorded).fit(X)
    assert ae.n_iter_ < 2000
    assert recorded.events.count("begin epoch") == recorded.events.count("end epoch")
    assert len(recorded.seen) == ae.n_iter_


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_second_fit_counts_its_own_epochs(X, warm_start):
    recorded = Recording()
    ae = quick(warm_start=warm_start).set_callbacks(recorded).fit(X)
    ae.fit(X)
    assert recorded.events.count("end epoch") == 10
    assert ae.n_iter_ == (10 if warm_start else 5)


def test_hooks_are_told_of_X_as_passed_and_of_weights(X):
    import pandas as pd

    frame, w = pd.DataFrame(X, columns=list("abcde")), np.linspace(1, 2, 60)
    recorded = Recording()
    quick().set_callbacks(recorded).fit(frame, sample_weight=w)
    for given, y, metadata in recorded.passed:
        assert given is frame
        assert y is frame
        assert metadata["sample_weight"] is w


def test_hooks_may_ask_for_nothing(X):
    quick().set_callbacks(Hooks()).fit(X)


def test_callbacks_do_not_change_the_model(X):
    ae = quick(dropout=0.2)
    with_callbacks = clone(ae).set_callbacks(Recording()).fit(X)
    np.testing.assert_array_equal(with_callbacks.transform(X), ae.fit(X).transform(X))
    assert with_callbacks.loss_curve_ == ae.loss_curve_


# ---- the fitted estimator that hooks get


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_hooks_get_an_estimator_fitted_up_to_the_epoch(X, solver):
    recorded = Recording(look=lambda fitted: fitted)
    ae = quick(solver=solver).set_callbacks(recorded).fit(X)
    assert [fitted.n_iter_ for fitted in recorded.seen] == [1, 2, 3, 4, 5]
    for k, fitted in enumerate(recorded.seen, start=1):
        alone = quick(solver=solver, max_iter=k).fit(X)
        np.testing.assert_allclose(fitted.transform(X), alone.transform(X), rtol=1e-12)
        assert fitted.loss_curve_ == ae.loss_curve_[:k]


def test_hooks_get_weights_that_training_does_not_touch(X):
    at_the_time = []

    def look(fitted):
        at_the_time.append(fitted.transform(X))
        return fitted

    recorded = Recording(look=look)
    ae = quick().set_callbacks(recorded).fit(X)
    for fitted, codes in zip(recorded.seen, at_the_time, strict=True):
        np.testing.assert_array_equal(fitted.transform(X), codes)
    for parameter in recorded.seen[-1].encoder_.parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(ae.transform(X), at_the_time[-1])


def test_under_early_stopping_hooks_get_the_present_weights_and_the_end_the_best(X):
    recorded = Recording(look=lambda fitted: (fitted.validation_loss_curve_, fitted.score(X)))
    ae = quick(early_stopping=True, learning_rate_init=0.2, max_iter=20)
    ae.set_callbacks(recorded).fit(X)
    assert [len(curve) for curve, _ in recorded.seen] == list(range(1, 21))
    best = int(np.argmin(ae.validation_loss_curve_))
    assert ae.score(X) == pytest.approx(recorded.seen[best][1])


def test_the_estimator_being_fitted_is_not_the_one_handed_out(X):
    recorded = Recording(look=lambda fitted: fitted)
    ae = quick().set_callbacks(recorded).fit(X)
    assert all(fitted is not ae for fitted in recorded.seen)
    assert len({id(fitted) for fitted in recorded.seen}) == 5


# ---- stopping


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs", "cg"])
@pytest.mark.parametrize("k", [1, 3])
def test_a_callback_that_returns_true_stops_at_that_epoch(X, solver, k):
    recorded = Recording(stop=lambda fitted: fitted.n_iter_ == k)
    ae = quick(solver=solver).set_callbacks(recorded).fit(X)
    assert ae.n_iter_ == k
    assert ae.stop_reason_ == "callback"
    assert recorded.events[-2:] == ["end fit", "teardown"]
    alone = quick(solver=solver, max_iter=k).fit(X)
    np.testing.assert_allclose(ae.transform(X), alone.transform(X), rtol=1e-12)


def test_stopping_by_a_callback_does_not_warn_of_convergence(X, recwarn):
    recorded = Recording(stop=lambda fitted: fitted.n_iter_ == 2)
    quick(tol=1e-4).set_callbacks(recorded).fit(X)
    assert len(recwarn) == 0


def test_a_fit_stopped_by_a_callback_can_be_continued(X):
    recorded = Recording(stop=lambda fitted: fitted.n_iter_ == 2)
    ae = quick(warm_start=True, dropout=0.2).set_callbacks(recorded).fit(X)
    ae.set_callbacks().set_params(max_iter=3).fit(X)
    whole = quick(dropout=0.2).fit(X)
    np.testing.assert_array_equal(ae.transform(X), whole.transform(X))
    assert ae.loss_curve_ == whole.loss_curve_


def test_an_error_in_a_callback_changes_nothing(X):
    def fail(fitted):
        raise RuntimeError("of the callback's own")

    recorded = Recording(look=fail)
    ae = quick().fit(X)
    codes = ae.transform(X)
    with pytest.raises(RuntimeError, match="of the callback's own"):
        ae.set_callbacks(recorded).fit(-X)
    assert recorded.events[-1] == "teardown"
    np.testing.assert_array_equal(ae.transform(X), codes)
    ae.set_callbacks().fit(X)


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "cg"])
def test_interruption_in_a_callback_keeps_the_model(X, solver):
    def interrupt(fitted):
        if fitted.n_iter_ == 3:
            raise KeyboardInterrupt

    recorded = Recording(look=interrupt)
    ae = quick(solver=solver).set_callbacks(recorded)
    with pytest.warns(UserWarning, match="interrupted after 3 epochs"):
        ae.fit(X)
    assert ae.stop_reason_ == "interrupted"
    alone = quick(solver=solver, max_iter=3).fit(X)
    np.testing.assert_allclose(ae.transform(X), alone.transform(X), rtol=1e-12)
    assert recorded.events[-1] == "teardown"
    assert pickle.loads(pickle.dumps(ae.set_callbacks())).n_iter_ == 3


# ---- what stays behind


def leftovers(ae):
    return {name for name in vars(ae) if "callback" in name}


def test_nothing_of_the_callbacks_stays_on_the_estimator(X):
    ae = quick().fit(X)
    assert leftovers(ae) == set()
    recorded = quick().set_callbacks(Hooks()).fit(X)
    assert leftovers(recorded) == {"_skl_callbacks"}
    assert set(vars(recorded.set_callbacks())) == set(vars(ae))
    assert pickle.loads(pickle.dumps(ae)).n_iter_ == 5


def test_nothing_of_the_callbacks_stays_after_partial_fit(X):
    ae = quick().partial_fit(X)
    assert leftovers(ae) == set()
    recorded = quick().set_callbacks(Hooks()).partial_fit(X)
    assert leftovers(recorded) == {"_skl_callbacks"}
    pickle.loads(pickle.dumps(recorded)).partial_fit(X).fit(X)


def test_nothing_stays_after_a_fit_that_fails(X):
    ae = quick().set_callbacks(Hooks())
    with pytest.raises(ValueError, match="NaN"):
        ae.fit(X * np.nan)
    assert leftovers(ae) == {"_skl_callbacks"}
    ae.fit(X)


def test_without_callbacks_no_estimator_is_copied(X, monkeypatch):
    import skae.estimators._base as base

    calls = []
    made = base.fitted_attributes
    monkeypatch.setattr(base, "fitted_attributes", lambda *a: calls.append(1) or made(*a))
    quick().fit(X)
    assert len(calls) == 1


# ---- scikit-learn's own


def test_progress_bar_shows_the_epochs_of_an_estimator(X, capsys):
    pytest.importorskip("rich")
    quick().set_callbacks(callback.ProgressBar()).fit(X)
    out = capsys.readouterr().out
    assert "Autoencoder - fit" in out
    assert "100%" in out


def test_progress_bar_survives_training_that_stops_early(X, capsys):
    pytest.importorskip("rich")
    stop = Recording(stop=lambda fitted: fitted.n_iter_ == 2)
    quick().set_callbacks(callback.ProgressBar(), stop).fit(X)
    assert "100%" in capsys.readouterr().out


def test_progress_bar_shows_the_epochs_within_a_pipeline(X, capsys):
    pytest.importorskip("rich")
    bar = callback.ProgressBar(max_propagation_depth=None)
    make_pipeline(StandardScaler(), quick()).set_callbacks(bar).fit(X)
    assert "Autoencoder - fit" in capsys.readouterr().out


@pytest.mark.parametrize("inside", [quick, lambda: make_pipeline(StandardScaler(), quick())])
def test_progress_bar_shows_the_epochs_within_a_search(X, capsys, inside):
    pytest.importorskip("rich")
    bar = callback.ProgressBar(max_propagation_depth=None)
    model = inside()
    name = "alpha" if model.__class__ is Autoencoder else "autoencoder__alpha"
    GridSearchCV(model, {name: [0.0, 0.1]}, cv=2).set_callbacks(bar).fit(X)
    out = capsys.readouterr().out
    assert out.count("Autoencoder - fit") >= 5  # four candidates' folds and the refit


def test_propagated_callbacks_hear_of_epochs_within_pipeline_and_search(X):
    recorded = Propagated()
    pipeline = make_pipeline(StandardScaler(), quick())
    pipeline.set_callbacks(recorded).fit(X)
    assert recorded.events.count("end epoch") == 5
    recorded = Propagated()
    search = GridSearchCV(pipeline.set_callbacks(), {"autoencoder__alpha": [0.0, 0.1]}, cv=2)
    search.set_callbacks(recorded).fit(X)
    assert recorded.events.count("end epoch") == 5 * 5
    assert recorded.events.count("setup") == recorded.events.count("teardown") == 1


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_scoring_monitor_records_every_epoch(X, solver):
    monitor = callback.ScoringMonitor(
        scoring={"error": lambda ae, X, y: -((ae.reconstruct(X) - y) ** 2).mean()}
    )
    ae = quick(solver=solver).set_callbacks(monitor).fit(X)
    recorded = [row["error"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(recorded) == 5
    assert recorded[-1] == pytest.approx(ae.score(X))
    expected = [quick(solver=solver, max_iter=k).fit(X).score(X) for k in range(1, 6)]
    np.testing.assert_allclose(recorded, expected)


def test_scoring_monitor_works_in_a_pipeline_where_set_on_the_autoencoder(X):
    monitor = callback.ScoringMonitor(scoring={"score": lambda ae, X, y: ae.score(X)})
    make_pipeline(StandardScaler(), quick().set_callbacks(monitor)).fit(X)
    assert sum(row["task_name"] == "epoch" for row in monitor.get_logs().data) == 5


def test_scoring_monitor_works_with_array_api_dispatch(X):
    import os

    if os.environ.get("SCIPY_ARRAY_API") != "1":
        pytest.skip("SCIPY_ARRAY_API is not 1")
    import torch
    from sklearn import config_context

    monitor = callback.ScoringMonitor(scoring={"score": lambda ae, X, y: ae.score(X)})
    with config_context(array_api_dispatch=True):
        quick().set_callbacks(monitor).fit(torch.tensor(X))
    assert sum(row["task_name"] == "epoch" for row in monitor.get_logs().data) == 5


# ---- the detector passes them on


def test_detector_passes_propagated_callbacks_to_its_estimator(X):
    recorded = Propagated()
    ReconstructionOutlierDetector(estimator=quick()).set_callbacks(recorded).fit(X)
    assert recorded.events.count("end epoch") == 5
    assert {"ReconstructionOutlierDetector", "Autoencoder"} <= set(recorded.estimators)
    assert recorded.events[0] == "setup"
    assert recorded.events[-1] == "teardown"
    assert recorded.events.count("begin fit") == recorded.events.count("end fit")


def test_detector_keeps_callbacks_of_its_own_to_itself(X):
    recorded = Recording()
    detector = ReconstructionOutlierDetector(estimator=quick()).set_callbacks(recorded).fit(X)
    assert recorded.events.count("end epoch") == 0
    assert leftovers(detector.estimator_) == set()
    assert leftovers(detector) == {"_skl_callbacks"}


def test_callbacks_of_the_inner_estimator_hear_of_its_epochs(X):
    recorded = Recording()
    inner = quick().set_callbacks(recorded)
    ReconstructionOutlierDetector(estimator=inner).fit(X)
    assert recorded.events.count("end epoch") == 5


def test_detector_of_an_estimator_without_callbacks_fits(X):
    recorded = Recording()
    ReconstructionOutlierDetector(estimator=PCA(2)).set_callbacks(recorded).fit(X)
    assert recorded.events.count("end fit") == 1


def test_progress_bar_shows_the_epochs_within_a_detector(X, capsys):
    pytest.importorskip("rich")
    bar = callback.ProgressBar(max_propagation_depth=None)
    detector = ReconstructionOutlierDetector(estimator=quick())
    make_pipeline(StandardScaler(), detector).set_callbacks(bar).fit(X)
    assert "Autoencoder - fit" in capsys.readouterr().out

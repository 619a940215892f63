"""Early stopping on any metric, and snapshots that training goes on from."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, StackedAutoencoder, StackedAutoencoderClassifier
from skae.callbacks import EarlyStopping, Snapshot

pytest.importorskip("sklearn.callback", reason="scikit-learn < 1.9 has no callbacks")

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(60, 5)) + 3
Y = (X[:, 0] > 3).astype(int)


def quick(**changed):
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 8, "tol": None,
           "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


class Scripted:
    """A scorer that gives these values one after the other."""

    def __init__(self, *values):
        self.values, self.seen = list(values), []

    def __call__(self, estimator, X, y):
        self.seen.append((estimator.n_iter_, X, y))
        return self.values[len(self.seen) - 1]


# ---- stopping


def test_training_stops_when_the_score_has_not_risen_for_so_many_epochs():
    score = Scripted(1, 2, 3, 2.5, 3, 2.9, 99, 99)
    stopping = EarlyStopping(score, n_iter_no_change=3)
    ae = quick().set_callbacks(stopping).fit(X)
    assert ae.n_iter_ == stopping.stopped_epoch_ == 6
    assert ae.stop_reason_ == "callback"
    assert stopping.best_epoch_ == 3
    assert stopping.values_ == [1, 2, 3, 2.5, 3, 2.9]


@pytest.mark.parametrize(("tol", "stops"), [(0.0, None), (0.05, 3)])
def test_a_better_value_counts_only_where_it_is_so_by_the_fraction_tol(tol, stops):
    score = Scripted(*(100 + np.arange(8)))
    stopping = EarlyStopping(score, tol=tol, n_iter_no_change=2)
    quick().set_callbacks(stopping).fit(X)
    assert stopping.stopped_epoch_ == stops


def test_of_a_loss_lower_is_better_and_of_the_other_kind_what_one_says():
    """The loss of this fit falls from epoch to epoch."""
    for given, stops in ((None, None), (False, None), (True, 3)):
        stopping = EarlyStopping("loss_", greater_is_better=given, n_iter_no_change=2)
        ae = quick().set_callbacks(stopping).fit(X)
        assert stopping.stopped_epoch_ == stops
        assert stopping.values_ == ae.loss_curve_
    costs = EarlyStopping(Scripted(*range(8)), greater_is_better=False, n_iter_no_change=2)
    assert quick().set_callbacks(costs).fit(X).n_iter_ == 3


def test_a_value_that_is_not_a_number_is_never_better():
    stopping = EarlyStopping(Scripted(*[np.nan] * 8), n_iter_no_change=4)
    assert quick().set_callbacks(stopping).fit(X).n_iter_ == 4
    assert stopping.best_epoch_ is None


def test_curves_are_watched_at_their_last_value():
    stopping = EarlyStopping("validation_loss_curve_", n_iter_no_change=100)
    ae = quick(early_stopping=True).set_callbacks(stopping).fit(X)
    assert stopping.values_ == ae.validation_loss_curve_


def test_scores_are_of_the_data_given_or_of_the_training_data():
    for given, expected in (((None, None), (X, X)), ((X[:9], Y[:9]), (X[:9], Y[:9]))):
        score = Scripted(*range(8))
        quick().set_callbacks(EarlyStopping(score, X=given[0], y=given[1])).fit(X)
        assert [epoch for epoch, *_ in score.seen] == list(range(1, 9))
        for _, *seen in score.seen:
            for a, b in zip(seen, expected, strict=True):
                np.testing.assert_array_equal(a, b)


def test_score_is_the_estimators_own():
    held = X[40:]
    stopping = EarlyStopping("score", X=held, n_iter_no_change=100)
    ae = quick().set_callbacks(stopping).fit(X[:40])
    assert stopping.values_[-1] == pytest.approx(ae.score(held))


def test_networks_that_labels_train_are_watched_by_scikit_learns_scorers():
    accuracy = EarlyStopping("accuracy", X=X, y=Y, n_iter_no_change=100)
    layer = Autoencoder(hidden_layer_sizes=(), max_iter=2, tol=None)
    model = StackedAutoencoderClassifier(
        layers=(3,), estimator=layer, max_iter=4, tol=None, random_state=0
    )
    model.set_callbacks(accuracy).fit(X, Y)
    assert len(accuracy.values_) == 4
    assert accuracy.values_[-1] == model.score(X, Y)


def test_each_fit_is_watched_on_its_own_also_of_clones_in_searches_and_stacks():
    stopping = EarlyStopping("loss_", greater_is_better=True, n_iter_no_change=2)
    ae = quick().set_callbacks(stopping)
    assert [ae.fit(X).n_iter_ for _ in range(2)] == [3, 3]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), ae), {"autoencoder__alpha": [0, 0.1]}, cv=2
    )
    assert search.fit(X).best_estimator_[-1].n_iter_ == 3
    stack = StackedAutoencoder(layers=(3, 2), estimator=ae.set_params(hidden_layer_sizes=()))
    assert [layer.n_iter_ for layer in stack.fit(X).layers_] == [3, 3]
    assert stopping._watches == {}


def test_a_fit_that_fails_is_forgotten():
    stopping = EarlyStopping("loss_")
    with pytest.raises(ValueError, match="NaN"):
        quick().set_callbacks(stopping).fit(X * np.nan)
    assert stopping._watches == {}


@pytest.mark.parametrize("name", ["losses_", "encoder_", "validation_loss_curve_"])
def test_attributes_that_are_no_number_are_refused(name):
    with pytest.raises(ValueError, match=f"monitor='{name}' must be a number, or a list of one"):
        quick().set_callbacks(EarlyStopping(name)).fit(X)


@pytest.mark.parametrize("callback", [EarlyStopping("loss_"), Snapshot()])
def test_where_there_are_no_epochs_a_warning_says_where_they_are(callback):
    model = make_pipeline(StandardScaler(), quick()).set_callbacks(callback)
    with pytest.warns(UserWarning, match="was told of no epochs while Pipeline was fitted"):
        model.fit(X)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EarlyStopping(3), "monitor"),
        (lambda: EarlyStopping("loss_", n_iter_no_change=0), "n_iter_no_change"),
        (lambda: EarlyStopping("loss_", tol=-1), "tol"),
        (lambda: Snapshot(when=0), "when"),
        (lambda: Snapshot(when="last"), "when"),
        (lambda: Snapshot(path=3), "path"),
    ],
)
def test_parameters_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        make()


@pytest.mark.parametrize("make", [lambda: EarlyStopping("accuracy", y=Y), lambda: Snapshot(y=Y)])
def test_labels_without_rows_are_refused(make):
    with pytest.raises(ValueError, match="y belongs to X, which is None"):
        make()


@pytest.mark.parametrize("make", [lambda: EarlyStopping("loss_"), Snapshot])
def test_with_an_older_scikit_learn_the_error_says_what_to_do(make, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"is a callback of scikit-learn >= 1\.9, but this is"):
        make()


# ---- snapshots


def test_the_best_snapshot_is_the_model_of_the_best_epoch():
    score = Scripted(1, 5, 2, 7, 3, 7, 6, 4)
    snapshot = Snapshot(monitor=score)
    quick().set_callbacks(snapshot).fit(X)
    assert snapshot.best_epoch_ == 4
    assert snapshot.epochs_ == [4]
    best, alone = snapshot.load(), quick(max_iter=4).fit(X)
    np.testing.assert_array_equal(best.transform(X), alone.transform(X))
    assert best.loss_curve_ == alone.loss_curve_


def test_by_the_validation_loss_it_is_what_early_stopping_keeps():
    snapshot = Snapshot(monitor="validation_loss_curve_")
    ae = quick(early_stopping=True, learning_rate_init=0.2, max_iter=15)
    ae.set_callbacks(snapshot).fit(X)
    assert snapshot.best_epoch_ == np.argmin(ae.validation_loss_curve_) + 1 < 15
    np.testing.assert_array_equal(snapshot.load().transform(X), ae.transform(X))


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_every_nth_epoch_is_kept_as_it_was(solver):
    snapshot = Snapshot(when=3)
    quick(solver=solver).set_callbacks(snapshot).fit(X)
    assert snapshot.epochs_ == [3, 6]
    assert snapshot.best_epoch_ is None
    for epoch in (3, 6):
        alone = quick(solver=solver, max_iter=epoch).fit(X)
        np.testing.assert_allclose(
            snapshot.load(epoch).transform(X), alone.transform(X), rtol=1e-12
        )


RESUMED = [
    {}, {"dropout": 0.3}, {"solver": "sgd", "learning_rate_init": 0.01}, {"early_stopping": True},
    {"learning_rate": "cosine", "learning_rate_horizon": 8},
]  # fmt: skip


@pytest.mark.parametrize("changed", RESUMED)
@pytest.mark.parametrize("kept_in", ["memory", "file"])
def test_training_goes_on_from_a_snapshot_as_if_it_had_never_ended(changed, kept_in, tmp_path):
    snapshot = Snapshot(None if kept_in == "memory" else tmp_path / "ae.joblib", when=5)
    whole = quick(warm_start=True, **changed).set_callbacks(snapshot).fit(X)
    resumed = snapshot.load().set_params(max_iter=3).fit(X)
    assert resumed.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(resumed.transform(X), whole.transform(X))


def test_a_snapshot_of_a_resumed_fit_counts_on():
    snapshot = Snapshot(when=3)
    ae = quick(warm_start=True).set_callbacks(snapshot).fit(X)
    ae.set_params(max_iter=4).fit(X)
    assert snapshot.epochs_ == [9, 12]
    again = snapshot.load(9).set_params(max_iter=3).fit(X)
    np.testing.assert_array_equal(again.transform(X), ae.transform(X))


def test_without_warm_start_it_holds_no_state_not_even_of_a_former_fit():
    snapshot = Snapshot(when=2)
    ae = quick(warm_start=True).fit(X)
    ae.set_params(warm_start=False).set_callbacks(snapshot).fit(X)
    assert snapshot.load()._training is None
    fresh = snapshot.load(4).set_params(warm_start=True, max_iter=2).fit(X)
    assert fresh.n_iter_ == 2  # from the weights of the snapshot, with an optimiser of its own


def test_to_go_on_changes_no_snapshot_and_training_none_that_is_kept():
    snapshot = Snapshot(when=2)
    quick(warm_start=True).set_callbacks(snapshot).fit(X)
    before = snapshot.load(2).transform(X)
    snapshot.load(2).fit(X)
    np.testing.assert_array_equal(snapshot.load(2).transform(X), before)
    assert snapshot.load(2).n_iter_ == 2


def test_a_file_holds_the_last_one_or_with_the_epoch_in_its_name_each(tmp_path):
    one, each = Snapshot(str(tmp_path / "ae"), when=3), Snapshot(tmp_path / "{epoch}.ae", when=3)
    ae = quick().set_callbacks(one, each).fit(X)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.ae", "6.ae", "ae"]
    assert one.epochs_ == [6]
    assert each.epochs_ == [3, 6]
    assert joblib.load(tmp_path / "ae").n_iter_ == one.load().n_iter_ == 6
    assert joblib.load(tmp_path / "3.ae").n_iter_ == each.load(3).n_iter_ == 3
    assert ae.n_iter_ == 8


def test_a_snapshot_knows_nothing_of_callbacks():
    snapshot = Snapshot(when=2)
    quick().set_callbacks(snapshot, EarlyStopping("loss_")).fit(X)
    loaded = snapshot.load()
    assert [name for name in vars(loaded) if "callback" in name] == []
    assert pickle.loads(pickle.dumps(loaded)).n_iter_ == 8
    clone(loaded)


def test_what_is_not_there_is_refused(tmp_path):
    snapshot = Snapshot(when=3)
    with pytest.raises(ValueError, match="There is no snapshot yet"):
        snapshot.load()
    quick().set_callbacks(snapshot).fit(X)
    with pytest.raises(ValueError, match=r"no snapshot of epoch 4, only of \[3, 6\]"):
        snapshot.load(4)
    nowhere = Snapshot(tmp_path / "missing" / "ae.joblib")
    with pytest.raises(FileNotFoundError, match="is in a folder that does not exist"):
        quick().set_callbacks(nowhere).fit(X)


# ---- progress lines


def test_verbose_lines_are_aligned(capsys):
    quick(verbose=True, early_stopping=True, max_iter=12, loss="poisson").fit(np.abs(X))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert len({len(line) for line in lines}) == 1
    assert len({(line.index("loss"), line.index("validation")) for line in lines}) == 1

"""The displays show what the estimators compute."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, ReconstructionOutlierDetector
from skae.inspection import (
    FeatureDisplay,
    LatentSpaceDisplay,
    LossCurveDisplay,
    OutlierDisplay,
    ReconstructionDisplay,
    maximally_activating_inputs,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(60, 6))
FRAME = pd.DataFrame(X, columns=list("abcdef"))
Y = np.array(["one", "two", "three"])[np.arange(60) % 3]
IMAGE = {"image_shape": (2, 3)}
QUICK = {"hidden_layer_sizes": (), "max_iter": 5, "tol": None, "batch_size": 16, "random_state": 0}


def quick(n_components=2, **changed):
    return Autoencoder(n_components=n_components, **QUICK | changed)


@pytest.fixture(scope="module")
def ae():
    return quick().fit(X)


@pytest.fixture(scope="module")
def detector():
    return ReconstructionOutlierDetector(estimator=quick(), contamination=0.1).fit(X)


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def shown(images):
    return np.array([np.asarray(image.get_array()) for image in images.ravel()])


# ---- what all have in common

EVERY = {
    "loss": lambda ae, **k: LossCurveDisplay.from_estimator(ae, **k),
    "reconstructed images": lambda ae, **k: ReconstructionDisplay.from_estimator(
        ae, X, **IMAGE, **k
    ),
    "reconstructed tables": lambda ae, **k: ReconstructionDisplay.from_estimator(ae, X, **k),
    "images of features": lambda ae, **k: FeatureDisplay.from_estimator(ae, **IMAGE, **k),
    "a table of features": lambda ae, **k: FeatureDisplay.from_estimator(ae, **k),
    "points": lambda ae, **k: LatentSpaceDisplay.from_estimator(ae, X, Y, **k),
    "a decoded plane": lambda ae, **k: LatentSpaceDisplay.from_estimator(
        ae, X, kind="decoded", n_grid=4, **IMAGE, **k
    ),
    "activations": lambda ae, **k: LatentSpaceDisplay.from_estimator(
        ae, X, kind="activations", **k
    ),
    "outliers": lambda ae, **k: OutlierDisplay.from_estimator(
        ReconstructionOutlierDetector(estimator=ae).fit(X), X, **k
    ),
}


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_a_figure_is_made_only_where_no_axes_are_given(ae, make):
    alone = make(ae)
    assert alone.figure_ is alone.ax_.figure
    figure, (_, ax) = plt.subplots(2)
    before = plt.get_fignums()
    given = make(ae, ax=ax)
    assert given.ax_ is ax
    assert given.figure_ is figure
    assert plt.get_fignums() == before


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_the_picture_can_be_laid_out_and_drawn_without_a_warning(ae, make, recwarn):
    make(ae).figure_.canvas.draw()
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
def test_without_matplotlib_the_error_says_what_to_install(ae, make, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Display.plot requires matplotlib. You can install"):
        make(ae)


@pytest.mark.parametrize("make", [v for k, v in EVERY.items() if k in ("activations", "outliers")])
def test_axes_outside_a_grid_cannot_be_divided(ae, make):
    with pytest.raises(ValueError, match="ax must be part of a grid"):
        make(ae, ax=plt.figure().add_axes((0, 0, 1, 1)))


SHAPES = {
    (3, 3): r"image_shape=\(3, 3\) has 9 pixels, but there are 6 features. Pass a shape of 6",
    (6,): r"image_shape must be \(height, width\), or .* got \(6,\)",
    (2.0, 3.0): "of whole numbers, got",
    (-2, -3): "of whole numbers, got",
    6: "of whole numbers, got 6",
    (3, 2, 1): "for colours, of whole numbers, got",
}


class Idle(Autoencoder):
    """One that must not be asked for anything yet."""

    def transform(self, X):
        raise AssertionError("work was done")

    reconstruct = inverse_transform = score_samples = feature_scores = transform


@pytest.mark.parametrize(("shape", "said"), SHAPES.items(), ids=str)
@pytest.mark.parametrize("cls", [ReconstructionDisplay, FeatureDisplay, LatentSpaceDisplay])
def test_images_of_another_size_are_refused_before_any_work(cls, shape, said, monkeypatch):
    def no_work(*_, **__):
        raise AssertionError("work was done")

    monkeypatch.setattr("skae.inspection._features.maximally_activating_inputs", no_work)
    idle = Idle(n_components=2, **QUICK).fit(X)
    given = (idle,) if cls is FeatureDisplay else (idle, X)
    options = {"kind": "decoded"} if cls is LatentSpaceDisplay else {}
    before = plt.get_fignums()
    with pytest.raises(ValueError, match=said):
        cls.from_estimator(*given, image_shape=shape, **options)
    assert plt.get_fignums() == before


@pytest.mark.parametrize(("shape", "said"), SHAPES.items(), ids=str)
def test_contributions_of_another_size_are_refused_before_any_work(shape, said, monkeypatch):
    model = make_pipeline(StandardScaler(), Explains(n_estimators=3, random_state=0)).fit(X)
    before = plt.get_fignums()
    with pytest.raises(ValueError, match=said):
        OutlierDisplay.from_predictions(X[:, 0], 0.0, contributions=X, image_shape=shape)
    for step, method in ((model[0], "transform"), (model[-1], "score_samples")):
        monkeypatch.setattr(step, method, None)
    with pytest.raises(ValueError, match=said):
        OutlierDisplay.from_estimator(model, X, image_shape=shape)
    assert plt.get_fignums() == before


def test_a_square_number_of_features_has_a_shape_to_suggest():
    with pytest.raises(ValueError, match=r"but there are 4 features.* such as \(2, 2\)"):
        ReconstructionDisplay.from_predictions(X[:, :4], X[:, :4], image_shape=(2, 3))


# ---- losses


def test_loss_curves_show_every_epoch_and_the_best_one():
    ae = quick(early_stopping=True).fit(X)
    display = LossCurveDisplay.from_estimator(ae)
    training, validation = display.lines_
    np.testing.assert_array_equal(training.get_xdata(), range(1, 6))
    np.testing.assert_array_equal(training.get_ydata(), ae.loss_curve_)
    np.testing.assert_array_equal(validation.get_ydata(), ae.validation_loss_curve_)
    assert training.get_color() == validation.get_color()
    best = int(np.argmin(ae.validation_loss_curve_))
    assert display.best_.get_xydata().tolist() == [[best + 1, ae.validation_loss_curve_[best]]]
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts[0] == "Autoencoder, training"
    assert texts[2] == f"Autoencoder, best, epoch {best + 1}"


def test_the_best_epoch_is_one_with_a_loss():
    display = LossCurveDisplay.from_predictions([3.0, 2.0, 9.0], [3.0, 2.5, np.nan])
    assert display.best_.get_xydata().tolist() == [[2, 2.5]]


def test_curves_of_several_estimators_share_axes_in_colours_of_their_own(ae):
    first = LossCurveDisplay.from_estimator(ae)
    second = LossCurveDisplay.from_estimator(ae, ax=first.ax_, name="again")
    assert first.best_ is None
    assert len(first.ax_.lines) == 2
    assert first.lines_[0].get_color() != second.lines_[0].get_color()


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([3.0, 2.0, 1.0], "linear"), ([30.0, 2.0, 1.0], "log"), ([30.0, 2.0, -1.0], "linear")],
)
def test_losses_of_several_decades_get_a_logarithmic_axis_where_they_are_positive(losses, scale):
    assert LossCurveDisplay.from_predictions(losses).ax_.get_yscale() == scale
    display = LossCurveDisplay.from_predictions(losses, yscale="linear")
    assert display.ax_.get_yscale() == "linear"


def test_whoever_has_a_loss_curve_is_shown_also_at_the_end_of_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), MLPRegressor(max_iter=3, random_state=0))
    display = LossCurveDisplay.from_estimator(pipeline.fit(X, X[:, 0]), line_kw={"color": "k"})
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), pipeline[-1].loss_curve_)
    assert display.lines_[0].get_color() == "k"
    with pytest.raises(ValueError, match="PCA has no loss_curve_"):
        LossCurveDisplay.from_estimator(PCA(2).fit(X))


# ---- reconstructions


@pytest.mark.parametrize("rows", [5, [3, 1, 59]])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, lambda X: FRAME])
def test_images_are_the_rows_over_their_reconstructions(ae, rows, container):
    display = ReconstructionDisplay.from_estimator(ae, container(X), rows=rows, **IMAGE)
    which = np.linspace(0, 59, 5).round().astype(int) if rows == 5 else rows
    x, x_hat = X[which], ae.reconstruct(X)[which]
    np.testing.assert_array_equal(shown(display.images_[0]), x.reshape(-1, 2, 3))
    np.testing.assert_allclose(shown(display.images_[1]), x_hat.reshape(-1, 2, 3))
    assert {image.get_clim() for image in display.images_.ravel()} == {(x.min(), x.max())}
    assert labels(display.ax_.yaxis) == ["original", "reconstruction"]
    assert labels(display.ax_.xaxis) == [f"{e:.2g}" for e in ((x - x_hat) ** 2).mean(axis=1)]


def test_images_do_not_overlap_and_all_are_within_the_axes(ae):
    display = ReconstructionDisplay.from_estimator(ae, X, rows=4, **IMAGE)
    left, right, bottom, top = np.moveaxis(
        [[image.get_extent() for image in row] for row in display.images_], -1, 0
    )
    assert (left[:, 1:] > right[:, :-1]).all()
    assert (top[1] > bottom[0]).all()
    (first, last), (lowest, highest) = display.ax_.get_xlim(), display.ax_.get_ylim()
    assert first < left.min()
    assert last > right.max()
    assert lowest > bottom.max()
    assert highest < top.min()


def test_bars_are_as_high_as_the_values_and_named_after_the_columns(ae):
    display = ReconstructionDisplay.from_estimator(ae, FRAME, rows=[7, 2])
    for i, row in enumerate([7, 2]):
        for bars, values in zip(display.bars_[:, i], (X, ae.reconstruct(X)), strict=True):
            np.testing.assert_allclose([bar.get_height() for bar in bars], values[row])
        assert display.axes_[i].get_title(loc="left").startswith(f"row {row}, mean squared error")
    assert labels(display.axes_[-1].xaxis) == list("abcdef")


def test_any_transformer_with_an_inverse_is_shown_and_so_are_predictions():
    pca = make_pipeline(StandardScaler(), PCA(2)).fit(X)
    X_hat = pca.inverse_transform(pca.transform(X))
    rows = np.linspace(0, 59, 10).round().astype(int)
    for display in (
        ReconstructionDisplay.from_estimator(pca, X, **IMAGE),
        ReconstructionDisplay.from_predictions(X, X_hat, **IMAGE),
    ):
        np.testing.assert_allclose(shown(display.images_[1]), X_hat[rows].reshape(-1, 2, 3))
    with pytest.raises(ValueError, match=r"X has shape \(60, 6\), but X_hat \(60, 5\)"):
        ReconstructionDisplay.from_predictions(X, X_hat[:, :5])


def test_missing_cells_do_not_count_in_the_error():
    holes = X.copy()
    holes[0, :3] = np.nan
    display = ReconstructionDisplay.from_predictions(holes, np.zeros_like(X), rows=[0], **IMAGE)
    assert labels(display.ax_.xaxis) == [f"{(X[0, 3:] ** 2).mean():.2g}"]


def test_colours_are_kept_within_their_range():
    rows = rng.uniform(size=(4, 12))
    display = ReconstructionDisplay.from_predictions(rows, rows + 0.5, image_shape=(2, 2, 3))
    np.testing.assert_array_equal(display.images_[0, 1].get_array(), rows[1].reshape(2, 2, 3))
    assert display.images_[1, 1].get_array().max() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_colours_of_whole_numbers_are_white_at_255(dtype):
    rows = rng.integers(0, 256, size=(4, 12)).astype(dtype)
    display = ReconstructionDisplay.from_predictions(rows, rows + 0.25, image_shape=(2, 2, 3))
    expected = rows.reshape(-1, 2, 2, 3) / 255
    np.testing.assert_allclose(shown(display.images_[0]), expected)
    np.testing.assert_allclose(shown(display.images_[1]), expected.clip(0, 1), atol=0.25 / 255)


# ---- features


def test_images_of_features_are_the_maximising_inputs_about_zero(ae):
    display = FeatureDisplay.from_estimator(ae, units=[1, 0], **IMAGE)
    inputs = maximally_activating_inputs(ae, units=[1, 0])
    np.testing.assert_array_equal(shown(display.images_), inputs.reshape(-1, 2, 3))
    for image, feature in zip(display.images_, inputs, strict=True):
        assert image.get_clim() == pytest.approx((-np.abs(feature).max(), np.abs(feature).max()))
    assert labels(display.ax_.yaxis)[0] == "1"


def test_features_about_a_center_are_differences_from_it(ae):
    display = FeatureDisplay.from_estimator(ae, center=X.mean(axis=0), norm=2.0, **IMAGE)
    expected = 2 * maximally_activating_inputs(ae)
    np.testing.assert_allclose(display.features, expected, atol=1e-12)


def test_of_a_table_features_are_a_heat_map_under_the_names_that_the_autoencoder_sees():
    pipeline = make_pipeline(StandardScaler(), quick()).fit(FRAME)
    display = FeatureDisplay.from_estimator(pipeline)
    np.testing.assert_array_equal(display.im_.get_array(), maximally_activating_inputs(pipeline))
    low, high = display.im_.get_clim()
    assert -low == high == pytest.approx(np.abs(display.features).max())
    assert labels(display.ax_.xaxis) == list("abcdef")
    behind = make_pipeline(PCA(3), quick()).fit(FRAME)
    assert labels(FeatureDisplay.from_estimator(behind).ax_.xaxis) == ["pca0", "pca1", "pca2"]


@pytest.mark.parametrize("options", [IMAGE, {}], ids=["images", "table"])
def test_a_title_says_what_the_features_are(ae, options):
    display = FeatureDisplay.from_estimator(ae, **options)
    assert display.ax_.get_title() == "Input that excites each unit most"
    around = FeatureDisplay.from_estimator(ae, center=X.mean(axis=0), **options)
    assert around.ax_.get_title() == "Input that excites each unit most,\nminus the center"
    assert FeatureDisplay.from_predictions(X[:4], **options).ax_.get_title() == ""
    titled = FeatureDisplay.from_predictions(X[:4], title="four rows", **options)
    assert titled.plot(**options).ax_.get_title() == "four rows"


def test_the_colour_bar_of_images_has_the_scale_that_they_have(ae):
    own = FeatureDisplay.from_estimator(ae, **IMAGE)
    assert own.colorbar_.mappable.get_clim() == (-1, 1)
    assert own.colorbar_.mappable.get_cmap() == own.images_[0].get_cmap()
    assert own.colorbar_.ax.get_ylabel().startswith("input, as a fraction of")
    limits = {"vmin": -0.5, "vmax": 0.5}
    shared = FeatureDisplay.from_estimator(ae, **IMAGE, im_kw=limits | {"cmap": "PiYG"})
    assert shared.colorbar_.mappable.get_clim() == (-0.5, 0.5)
    assert {image.get_clim() for image in shared.images_} == {(-0.5, 0.5)}
    assert shared.colorbar_.mappable.get_cmap() == shared.images_[0].get_cmap()
    assert shared.colorbar_.ax.get_ylabel() == "input"
    alone = FeatureDisplay.from_estimator(ae, **IMAGE, im_kw={"vmax": 3})
    assert getattr(alone, "colorbar_", None) is None  # each image has a scale of its own


def test_the_colour_bar_can_be_left_out_and_colours_have_none(ae):
    for options in (IMAGE, {}):
        display = FeatureDisplay.from_estimator(ae, colorbar=False, **options)
        assert display.colorbar_ is None
        assert display.figure_.axes == [display.ax_]
    colours = FeatureDisplay.from_predictions(np.ones((2, 12)), image_shape=(2, 2, 3))
    assert colours.colorbar_ is None
    table = FeatureDisplay.from_estimator(ae)
    assert table.colorbar_.mappable is table.im_


def test_features_that_are_there_already_are_shown():
    pca = PCA(2).fit(X)
    display = FeatureDisplay.from_predictions(pca.components_, **IMAGE)
    np.testing.assert_array_equal(shown(display.images_), pca.components_.reshape(-1, 2, 3))
    with pytest.raises(ValueError, match="feature_names has 2 entries, but there are 6 features"):
        FeatureDisplay.from_predictions(pca.components_, feature_names=["a", "b"])


# ---- codes


def test_points_are_the_codes_class_by_class(ae):
    display = LatentSpaceDisplay.from_estimator(ae, X, Y)
    for points, name in zip(display.scatter_, ["one", "three", "two"], strict=True):
        np.testing.assert_allclose(points.get_offsets(), ae.transform(X)[name == Y])
        assert points.get_label() == name
    assert display.ax_.get_xlabel() == "code unit 0"


def test_a_continuous_y_colours_the_points_by_its_values(ae):
    display = LatentSpaceDisplay.from_estimator(ae, X, X[:, 0])
    (points,) = display.scatter_
    np.testing.assert_array_equal(points.get_array(), X[:, 0])
    assert len(display.figure_.axes) == 2  # with a colour bar


def test_wider_codes_are_projected_onto_their_principal_components():
    codes = quick(4).fit(X).transform(X)
    display = LatentSpaceDisplay.from_predictions(codes)
    pca = PCA(2).fit(codes)
    (points,) = display.scatter_
    np.testing.assert_allclose(np.abs(points.get_offsets()), np.abs(pca.transform(codes)))
    share = f"({pca.explained_variance_ratio_[1]:.0%})"
    assert display.ax_.get_ylabel() == f"principal component 2 of the codes {share}"


@pytest.mark.parametrize("k", [2, 4])
def test_decoded_images_are_what_the_grid_decodes_to(k):
    ae = quick(k).fit(X)
    display = LatentSpaceDisplay.from_estimator(ae, X, kind="decoded", n_grid=5, **IMAGE)
    assert display.grid_.shape == (5, 5, k)
    decoded = ae.inverse_transform(display.grid_.reshape(25, k))
    np.testing.assert_allclose(shown(display.images_), decoded.reshape(25, 2, 3))
    left, right, bottom, top = display.images_[3, 1].get_extent()
    points = (
        display.grid_
        if k == 2
        else PCA(2).fit(ae.transform(X)).transform(display.grid_.reshape(25, k)).reshape(5, 5, 2)
    )
    np.testing.assert_allclose(
        np.abs([(left + right) / 2, (bottom + top) / 2]), np.abs(points[3, 1]), rtol=1e-6
    )


def test_the_decoded_grid_spans_the_codes(ae):
    display = LatentSpaceDisplay.from_estimator(ae, X, kind="decoded", n_grid=3, **IMAGE)
    codes = ae.transform(X)
    for corner, q in ((display.grid_[0, 0], 0.02), (display.grid_[-1, -1], 0.98)):
        np.testing.assert_allclose(corner, np.quantile(codes, q, axis=0))


def test_activations_are_in_the_order_of_y_under_their_means():
    codes = np.abs(quick(4).fit(X).transform(X))
    codes[:30, 2] = 0
    display = LatentSpaceDisplay.from_predictions(codes, Y, kind="activations", near_zero=0.1)
    np.testing.assert_array_equal(display.im_.get_array(), codes[np.argsort(Y, kind="stable")])
    np.testing.assert_allclose(display.rho_hat_, codes.mean(axis=0))
    np.testing.assert_allclose(display.near_zero_, (codes <= 0.1 * codes.max()).mean(axis=0))
    assert display.near_zero_[2] >= 0.5
    for panel, values in zip(display.axes_, (display.rho_hat_, display.near_zero_), strict=False):
        np.testing.assert_allclose([bar.get_height() for bar in panel.patches], values)
    assert labels(display.axes_[2].yaxis) == ["one", "three", "two"]
    assert display.im_.get_clim() == (0, codes.max())


def test_units_have_the_names_given():
    codes = quick(3).fit(X).transform(X)
    display = LatentSpaceDisplay.from_predictions(codes, kind="activations", names=list("uvw"))
    assert labels(display.axes_[2].xaxis) == list("uvw")
    plane = LatentSpaceDisplay.from_predictions(codes[:, :2], names=list("uv"))
    assert (plane.ax_.get_xlabel(), plane.ax_.get_ylabel()) == ("u", "v")
    for kind in ("activations", "scatter"):
        with pytest.raises(ValueError, match="names has 3 entries, but there are 2 code units"):
            LatentSpaceDisplay.from_predictions(codes[:, :2], names=list("uvw"), kind=kind)


def test_signed_activations_have_white_at_zero():
    ae = quick(activation="tanh").fit(X)
    display = LatentSpaceDisplay.from_estimator(ae, X, kind="activations")
    low, high = display.im_.get_clim()
    assert -low == high == np.abs(ae.transform(X)).max()


def test_what_cannot_be_drawn_is_refused(ae):
    with pytest.raises(ValueError, match="kind must be one of"):
        LatentSpaceDisplay.from_estimator(ae, X, kind="3d")
    with pytest.raises(ValueError, match="pass image_shape, and an estimator with"):
        LatentSpaceDisplay.from_estimator(ae, X, kind="decoded")
    with pytest.raises(ValueError, match="One code unit has no plane"):
        LatentSpaceDisplay.from_estimator(quick(1).fit(X), X)


# ---- outliers


def counts(display):
    """Rows left and right of the threshold, by the bars."""
    bars = display.axes_[0].patches
    below = [bar.get_x() + bar.get_width() <= display.threshold + 1e-9 for bar in bars]
    heights = np.array([bar.get_height() for bar in bars])
    return heights[below].sum(), heights[~np.array(below)].sum()


@pytest.mark.parametrize("of", ["detector", "forest", "huge errors"])
def test_bars_are_split_at_the_threshold(detector, of):
    if of == "forest":
        model, rows = IsolationForest(n_estimators=5, random_state=0, contamination=0.2).fit(X), X
    else:
        model, rows = detector, X if of == "detector" else np.r_[X, 100 * X[:10]]
    display = OutlierDisplay.from_estimator(model, rows)
    flagged = (model.predict(rows) == -1).sum()
    assert counts(display) == (flagged, len(rows) - flagged)
    assert display.line_.get_xdata()[0] == model.offset_
    assert f"{flagged / len(rows):.1%} below" in display.line_.get_label()
    expected = "symlog" if of == "huge errors" else "linear"
    assert of == "detector" or display.axes_[0].get_xscale() == expected


def test_a_threshold_that_nothing_is_below_leaves_the_scores(recwarn):
    """That of a stream whose window is not yet full."""
    for scores in (np.linspace(-1, 0, 50), -np.geomspace(1, 1e4, 50)):
        display = OutlierDisplay.from_predictions(scores, -np.inf)
        assert sum(bar.get_height() for bar in display.ax_.patches) == 50
        assert "0.0% below" in display.line_.get_label()
        display.figure_.canvas.draw()
    assert [str(w.message) for w in recwarn] == []


def test_the_worst_rows_show_the_shares_of_their_features(detector):
    display = OutlierDisplay.from_estimator(detector, FRAME.to_numpy(), n_worst=4, n_features=3)
    scores, cells = (
        detector.score_samples(X),
        detector.estimator_.reconstruction_error(X, per_feature=True),
    )
    worst = np.argsort(scores)[:4]
    np.testing.assert_array_equal(display.worst_, worst)
    shares = cells[worst] / cells[worst].sum(axis=1, keepdims=True)
    most = np.sort(np.argsort(-shares.mean(axis=0))[:3])
    np.testing.assert_array_equal(display.shown_, most)
    np.testing.assert_allclose(display.im_.get_array(), shares[:, most])
    assert labels(display.axes_[1].yaxis) == [str(i) for i in worst]
    assert labels(display.axes_[1].xaxis) == [f"x{j}" for j in most]


def test_how_many_of_the_features_are_shown_is_written_below_them(detector):
    few = OutlierDisplay.from_estimator(detector, X, n_features=4)
    assert few.axes_[1].get_xlabel() == "the 4 of 6 features that contribute most"
    for n in (6, 20):
        every = OutlierDisplay.from_estimator(detector, X, n_features=n)
        assert every.axes_[1].get_xlabel() == "feature"
    wide = OutlierDisplay.from_predictions(X[:, 0], 0.0, contributions=np.ones((60, 64)))
    assert wide.axes_[1].get_xlabel() == "the 20 of 64 features that contribute most"


def test_contributions_may_be_images(detector):
    display = OutlierDisplay.from_estimator(detector, X, n_worst=4, **IMAGE)
    shares = shown(display.images_)
    assert shares.shape == (4, 2, 3)
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), 1)


class Explains(IsolationForest):
    """A detector that explains itself."""

    def feature_scores(self, X):
        return np.abs(np.asarray(X))


def test_feature_scores_of_a_detector_are_its_contributions_also_behind_a_scaler():
    model = make_pipeline(StandardScaler(), Explains(n_estimators=3, random_state=0)).fit(FRAME)
    display = OutlierDisplay.from_estimator(model, FRAME)
    np.testing.assert_allclose(display.contributions, np.abs(model[0].transform(FRAME)))
    assert labels(display.axes_[1].xaxis) == list("abcdef")
    np.testing.assert_allclose(display.scores, model.score_samples(FRAME))


def test_a_detector_that_explains_nothing_shows_its_scores():
    display = OutlierDisplay.from_estimator(IsolationForest(n_estimators=3).fit(X), X)
    assert display.im_ is display.images_ is None
    assert display.axes_.tolist() == [display.ax_]


def test_known_kinds_of_rows_have_colours_and_signed_contributions_have_white_at_zero():
    scores = np.linspace(-1, 0, 60)
    display = OutlierDisplay.from_predictions(scores, -0.5, y=Y, contributions=X)
    texts = [text.get_text() for text in display.axes_[0].get_legend().get_texts()]
    assert set(texts) >= {"one", "two", "three"}
    low, high = display.im_.get_clim()
    assert -low == high == np.abs(display.im_.get_array()).max()


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (None, {"inlier", "outlier"}),
        (np.where(np.arange(60) < 9, -1, 1), {"inlier", "outlier"}),
        (np.arange(60) % 2, {"y = 0", "y = 1"}),
        (pd.Series(np.arange(60) % 2, name="benign"), {"benign = 0", "benign = 1"}),
        (pd.Series(["a", "b"] * 30, name="kind"), {"a", "b"}),
        ([True, False] * 30, {"y = True", "y = False"}),
    ],
    ids=["none", "signs", "numbers", "named numbers", "names", "booleans"],
)
def test_the_legend_says_what_rows_are(y, said):
    scores = np.linspace(-1, 0, 60)
    display = OutlierDisplay.from_predictions(scores, -0.5, y=y)
    texts = {text.get_text() for text in display.ax_.get_legend().get_texts()}
    assert texts - {display.line_.get_label()} == said


def test_rows_labelled_as_scikit_learn_labels_outliers_are_the_outliers():
    y = np.where(np.arange(60) < 9, -1, 1)
    display = OutlierDisplay.from_predictions(np.linspace(-1, 0, 60), -0.5, y=y)
    heights = {
        bars[0].get_label(): sum(bar.get_height() for bar in bars)
        for bars in display.ax_.containers
    }
    assert heights == {"inlier": 51, "outlier": 9}

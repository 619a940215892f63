"""OutlierDisplay."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.inspection._drawing import (
    Display,
    as_images,
    checked_image_shape,
    divided,
    draw_sheet,
    lightened,
    middles,
    symmetric,
    with_names,
)
from skae.inspection._fitted import checked_names, dense, names_seen

_CHARACTER = 0.06  # inches that a character of the features' names takes
_FACTOR = 30.0  # between the scores of negative errors, from which on their axis is logarithmic


class OutlierDisplay(Display):
    """Scores of rows, the threshold, and what the features of the worst rows contribute.

    Make it with `from_estimator` or `from_predictions`; `plot` draws it again.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        What `score_samples` gives: higher is more normal.

    threshold : float
        Rows below it are outliers: `offset_`.

    contributions : array-like of shape (n_samples, n_features), default=None
        How much every feature adds to a row's being an outlier.

    y : array-like of shape (n_samples,), default=None
        What the rows are known to be, one colour each. The legend has its values: 1 and -1 as
        inlier and outlier, which they are in scikit-learn, other numbers after the name of y. None
        tells rows below the threshold, the outliers, from the others.

    feature_names : list of str, default=None
        Names of the features.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the scores. With contributions they are the invisible ones in whose place
        `axes_` are.

    axes_ : ndarray of matplotlib Axes
        The scores, and the contributions if there are any.

    figure_ : matplotlib Figure
        Figure that contains them.

    line_ : matplotlib Line2D
        The threshold.

    worst_ : ndarray of shape (n_worst,)
        Positions of the rows with the lowest scores, the lowest first.

    im_ : matplotlib AxesImage or None
        Contributions to the worst rows, of shape (n_worst, n_shown), as fractions of the sum of
        a row's (of their sizes, where some are negative).

    shown_ : ndarray of shape (n_shown,) or None
        The features in it: those that contribute the most to these rows, in their order.

    images_ : ndarray of matplotlib AxesImage, of shape (n_worst,), or None
        The same as images.

    See Also
    --------
    ReconstructionDisplay : The rows and what they should have been.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import ReconstructionOutlierDetector
    >>> from skae.inspection import OutlierDisplay
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> detector = make_pipeline(
    ...     StandardScaler(), ReconstructionOutlierDetector(estimator=PCA(5), contamination=0.05)
    ... ).fit(X[y == 1])
    >>> OutlierDisplay.from_estimator(detector, X, y.map({0: "malignant", 1: "benign"}))
    <...>
    >>> plt.show()
    """

    def __init__(self, scores, threshold, *, contributions=None, y=None, feature_names=None):
        self.scores = scores
        self.threshold = threshold
        self.contributions = contributions
        self.y = y
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, feature_names=None, image_shape=None, ax=None, **plot_kw
    ):
        """Score X and draw the scores.

        Parameters
        ----------
        estimator : object
            A fitted detector with `score_samples` and `offset_`, or a pipeline with one at its
            end. Contributions are shown where it has `feature_scores`.

        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        y : array-like of shape (n_samples,), default=None
            What the rows are known to be, one colour each.

        feature_names : list of str, default=None
            Names of the features; None is those that the detector sees, or x0, x1 and so on.

        image_shape : tuple of int, default=None
            Height and width of the images that contributions are; None shows a heat map.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : OutlierDisplay
            The display.
        """
        check_is_fitted(estimator)
        detector = estimator[-1] if hasattr(estimator, "steps") else estimator
        explains = hasattr(detector, "feature_scores")
        if image_shape is not None and explains and hasattr(detector, "n_features_in_"):
            checked_image_shape(image_shape, detector.n_features_in_)
        seen = _seen_at_the_end(estimator, X)
        contributions = dense(detector.feature_scores(seen)) if explains else None
        names = names_seen(estimator, detector) if feature_names is None else feature_names
        made = cls(
            detector.score_samples(seen), detector.offset_, contributions=contributions, y=y,
            feature_names=names,
        )  # fmt: skip
        return made.plot(ax, image_shape=image_shape, **plot_kw)

    @classmethod
    def from_predictions(
        cls, scores, threshold, *, contributions=None, y=None, feature_names=None, ax=None,
        **plot_kw,
    ):  # fmt: skip
        """Draw scores that are there already.

        Parameters
        ----------
        scores : array-like of shape (n_samples,)
            Higher is more normal.

        threshold : float
            Rows below it are outliers.

        contributions : array-like of shape (n_samples, n_features), default=None
            How much every feature adds to a row's being an outlier.

        y : array-like of shape (n_samples,), default=None
            What the rows are known to be, one colour each.

        feature_names : list of str, default=None
            Names of the features.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : OutlierDisplay
            The display.
        """
        if contributions is not None:
            contributions = dense(contributions)
        made = cls(
            np.asarray(scores), threshold, contributions=contributions, y=y,
            feature_names=feature_names,
        )  # fmt: skip
        return made.plot(ax, **plot_kw)

    def plot(self, ax=None, *, n_worst=10, n_features=20, image_shape=None, im_kw=None):
        """Draw the scores and the contributions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        n_worst : int, default=10
            How many rows of the lowest scores to explain.

        n_features : int, default=20
            How many features the heat map shows: those that contribute the most to these rows,
            on average. Their number is written below them where there are more.

        image_shape : tuple of int, default=None
            Height and width of the images that contributions are; None shows a heat map.

        im_kw : dict, default=None
            Keywords for matplotlib's `imshow`.

        Returns
        -------
        display : OutlierDisplay
            This display.
        """
        if image_shape is not None and self.contributions is not None:
            checked_image_shape(image_shape, self.contributions.shape[1])
        self.im_ = self.shown_ = self.images_ = None
        self.worst_ = np.argsort(self.scores, kind="stable")[:n_worst]
        if self.contributions is None:
            ax = self._axes(ax, (6.4, 3.6))
            self.axes_ = np.array([ax])
        else:
            ax = self._axes(ax, (11.0, 4.0 + _CHARACTER * self._longest_name(image_shape)))
            self.axes_ = divided(ax, 1, 2, width_ratios=(1, 1.3))[0]
        self._plot_scores(self.axes_[0])
        if self.contributions is not None:
            if image_shape is None:
                self._plot_table(self.axes_[1], n_features, im_kw or {})
            else:
                self._plot_images(self.axes_[1], image_shape, im_kw or {})
            self.axes_[1].set_title(f"the {len(self.worst_)} lowest scores", size=10)
        return self

    def _plot_scores(self, ax):
        scores = np.asarray(self.scores, dtype=float)
        kinds = np.where(scores < self.threshold, "outlier", "inlier")
        if self.y is not None:
            kinds = _kinds(self.y)
        each = {name: scores[kinds == name] for name in np.unique(kinds)}
        finite = scores[np.isfinite(scores)]
        # A stream whose window is not yet full has a threshold of minus infinity.
        split = self.threshold if np.isfinite(self.threshold) else finite.min()
        low, high = min(finite.min(), split), max(finite.max(), split)
        if low < _FACTOR * high < 0:  # errors, and some of them huge
            edges = -np.exp(_edges(np.log(-high), np.log(-low), np.log(-split)))[::-1]
            ax.set_xscale("symlog", linthresh=-edges[-1])
        else:
            edges = _edges(low, high, split)
        ax.hist(
            list(each.values()), bins=edges, stacked=True, label=list(each), alpha=0.85,
            color=[f"C{i % 10}" for i in range(len(each))],
        )  # fmt: skip
        flagged = (scores < self.threshold).mean()
        self.line_ = ax.axvline(
            self.threshold, color="0.2", linestyle="--", linewidth=1.4,
            label=f"threshold: {flagged:.1%} below",
        )  # fmt: skip
        ax.set(xlabel="score, higher is more normal", ylabel="rows")
        lightened(ax)
        ax.legend(loc="best", frameon=False)

    def _longest_name(self, image_shape):
        return 0 if image_shape is not None else max(map(len, self.feature_names or ()), default=0)

    def _shares(self) -> np.ndarray:
        """What every feature contributes to a worst row, as a fraction of all of them."""
        worst = self.contributions[self.worst_]
        total = np.nansum(np.abs(worst), axis=1, keepdims=True)
        return worst / np.where(total > 0, total, 1)

    def _plot_table(self, ax, n_features, im_kw):
        d = self.contributions.shape[1]
        names = checked_names(self.feature_names, d)
        worst = self._shares()
        most = np.argsort(-np.nanmean(worst, axis=0), kind="stable")[:n_features]
        self.shown_ = np.sort(most)
        options = _colours(worst) | {"aspect": "auto"} | im_kw
        self.im_ = ax.imshow(worst[:, self.shown_], **options)
        ax.spines[:].set_visible(False)
        with_names(ax.xaxis, [names[j] for j in self.shown_])
        with_names(ax.yaxis, [str(i) for i in self.worst_])
        ax.tick_params(axis="x", rotation=90)
        ax.tick_params(length=0)
        few = f"the {len(most)} of {d} features that contribute most"
        ax.set(ylabel="row", xlabel=few if len(most) < d else "feature")
        self._colour_bar(self.im_, ax, "share of the row's contributions")

    def _plot_images(self, ax, image_shape, im_kw):
        images = as_images(self._shares(), image_shape)
        columns = max(1, int(np.ceil(np.sqrt(len(images)))))
        options = _colours(images) | im_kw
        self.images_ = draw_sheet(ax, images, columns, **options)
        rows = range(0, len(images), columns)
        ax.set_yticks(
            middles(len(rows), images.shape[1]), labels=[str(self.worst_[i]) for i in rows]
        )
        ax.tick_params(length=0)
        ax.set_ylabel("row, the first of each line")
        self._colour_bar(self.images_[0], ax, "share of the row's contributions")


def _colours(shares: np.ndarray) -> dict[str, Any]:
    if np.nanmin(shares) < 0:
        return symmetric(shares)
    return {"cmap": "magma_r", "vmin": 0, "vmax": float(np.nanmax(shares)) or 1.0}


def _kinds(y: Any) -> np.ndarray:
    """What the legend calls rows."""
    values = np.array(np.asarray(y).tolist())  # of objects too that are numbers
    if values.dtype.kind not in "biuf":
        return values.astype(str)
    if values.dtype.kind != "b" and np.isin(values, (-1, 1)).all():
        return np.where(values == 1, "inlier", "outlier")
    name = getattr(y, "name", None)
    return np.array([f"{'y' if name is None else name} = {value}" for value in values])


def _seen_at_the_end(estimator: Any, X: Any) -> Any:
    """X as the last step of a pipeline sees it."""
    few = len(getattr(estimator, "steps", ())) < 2
    return X if few else estimator[:-1].transform(X)


def _edges(low: float, high: float, threshold: float, bins: int = 40) -> np.ndarray:
    """Edges of equal bins from low to high. The threshold is one: no bar stands on both sides."""
    width = (high - low) / bins or 1.0
    first, last = np.floor((low - threshold) / width), np.ceil((high - threshold) / width)
    return threshold + width * np.arange(first, max(last, first + 1) + 1)

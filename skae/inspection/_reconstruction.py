"""ReconstructionDisplay."""

from __future__ import annotations

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_features

from skae.inspection._drawing import (
    GREY,
    Display,
    as_images,
    checked_image_shape,
    divided,
    draw_sheet,
    lightened,
    middles,
    sheet_size,
    with_names,
)
from skae.inspection._fitted import checked_names, chosen_rows, dense, names_of

_IMAGES, _PANELS = 10, 3  # rows of X that are shown as images and as bars


class ReconstructionDisplay(Display):
    """Rows of X over their reconstructions: as images, or as bars for tables.

    Make it with `from_estimator` or `from_predictions`; `plot` draws it again. Below every image,
    and above every panel of bars, stands the mean squared difference of the two.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        The originals.

    X_hat : ndarray of shape (n_rows, n_features)
        Their reconstructions.

    rows : array-like of shape (n_rows,), default=None
        Numbers of the rows, for the labels of the panels.

    feature_names : list of str, default=None
        Names of the features, for the bars.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the images. Behind bars they are the invisible ones in whose place `axes_` are.

    axes_ : ndarray of matplotlib Axes, or None
        The panels of bars, of shape (n_rows,).

    figure_ : matplotlib Figure
        Figure that contains them.

    images_ : ndarray of matplotlib AxesImage, or None
        The images, of shape (2, n_rows): originals and reconstructions.

    bars_ : ndarray of matplotlib BarContainer, or None
        The bars, of shape (2, n_rows).

    See Also
    --------
    OutlierDisplay : Rows that are reconstructed badly, and because of which features.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae.inspection import ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = Autoencoder(n_components=16, max_iter=5, tol=None, random_state=0).fit(X)
    >>> ReconstructionDisplay.from_estimator(ae, X, image_shape=(8, 8))
    <...>
    >>> plt.show()
    """

    def __init__(self, X, X_hat, *, rows=None, feature_names=None):
        self.X = X
        self.X_hat = X_hat
        self.rows = rows
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls, estimator, X, *, rows=None, image_shape=None, feature_names=None, ax=None, **plot_kw
    ):
        """Reconstruct rows of X and draw both.

        Parameters
        ----------
        estimator : object
            Anything fitted with `transform` and `inverse_transform`: an autoencoder, a pipeline,
            `PCA`. Features of different units are better compared behind a scaler:
            ``from_estimator(pipeline[-1], pipeline[:-1].transform(X))``.

        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        rows : int or array-like of int, default=None
            How many rows to show, spread evenly over X, or which. None is 10 images or 3 panels
            of bars.

        image_shape : tuple of int, default=None
            Height and width of an image, and 3 for colours, in [0, 1] or whole numbers up to 255.
            None shows bars.

        feature_names : list of str, default=None
            For the bars; None is the columns of X, or x0, x1 and so on.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : ReconstructionDisplay
            The display.
        """
        if image_shape is not None:
            checked_image_shape(image_shape, _num_features(X))
        rows = _which(X, rows, image_shape)
        names = names_of(X, feature_names)
        X = _safe_indexing(X, rows)
        if hasattr(estimator, "reconstruct"):
            X_hat = estimator.reconstruct(X)
        else:
            X_hat = estimator.inverse_transform(estimator.transform(X))
        made = cls(dense(X), dense(X_hat), rows=rows, feature_names=names)
        return made.plot(ax, image_shape=image_shape, **plot_kw)

    @classmethod
    def from_predictions(
        cls, X, X_hat, *, rows=None, image_shape=None, feature_names=None, ax=None, **plot_kw
    ):
        """Draw rows of X and of their reconstructions.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The originals.

        X_hat : array-like of shape (n_samples, n_features)
            Their reconstructions.

        rows : int or array-like of int, default=None
            How many rows to show, spread evenly over X, or which. None is 10 images or 3 panels
            of bars.

        image_shape : tuple of int, default=None
            Height and width of an image, and 3 for colours, in [0, 1] or whole numbers up to 255.
            None shows bars.

        feature_names : list of str, default=None
            For the bars; None is the columns of X, or x0, x1 and so on.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : ReconstructionDisplay
            The display.
        """
        if np.shape(X) != np.shape(X_hat):
            raise ValueError(
                f"X has shape {np.shape(X)}, but X_hat {np.shape(X_hat)}. Pass the "
                "reconstructions of these rows."
            )
        rows = _which(X, rows, image_shape)
        both = (dense(_safe_indexing(each, rows)) for each in (X, X_hat))
        made = cls(*both, rows=rows, feature_names=names_of(X, feature_names))
        return made.plot(ax, image_shape=image_shape, **plot_kw)

    def plot(self, ax=None, *, image_shape=None, im_kw=None, bar_kw=None):
        """Draw the rows and their reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        image_shape : tuple of int, default=None
            Height and width of an image, and 3 for colours, in [0, 1] or whole numbers up to 255.
            None shows bars.

        im_kw : dict, default=None
            Keywords for matplotlib's `imshow`.

        bar_kw : dict, default=None
            Keywords for matplotlib's `bar`, for the reconstructions.

        Returns
        -------
        display : ReconstructionDisplay
            This display.
        """
        self.axes_ = self.images_ = self.bars_ = None
        errors = np.nanmean((self.X - self.X_hat) ** 2, axis=1)
        if image_shape is None:
            self._plot_bars(ax, errors, bar_kw or {})
        else:
            self._plot_images(ax, errors, image_shape, im_kw or {})
        return self

    def _plot_images(self, ax, errors, image_shape, im_kw):
        n = len(self.X)
        images = as_images(np.concatenate([self.X, self.X_hat]), image_shape)
        ax = self._axes(ax, sheet_size(2, n, image_shape))
        low, high = np.nanmin(self.X), np.nanmax(self.X)
        if images.ndim == 4:  # colours have their range already
            images = images.clip(0, _white(self.X)) / _white(self.X)
        options = {"cmap": GREY, "vmin": low, "vmax": high} | im_kw
        self.images_ = draw_sheet(ax, images, n, **options).reshape(2, n)
        height, width = images.shape[1:3]
        ax.set_yticks(middles(2, height), labels=["original", "reconstruction"])
        ax.set_xticks(middles(n, width), labels=[f"{error:.2g}" for error in errors])
        ax.tick_params(length=0)
        ax.set_xlabel("mean squared error")

    def _plot_bars(self, ax, errors, bar_kw):
        n, d = self.X.shape
        names = checked_names(self.feature_names, d)
        ax = self._axes(ax, (min(14.0, max(6.0, 0.34 * d)), 0.9 + 1.5 * n))
        self.axes_ = divided(ax, n, 1, sharex=True, sharey=True)[:, 0]
        self.bars_ = np.empty((2, n), dtype=object)
        options = {"width": 0.4, "color": "C0"} | bar_kw
        labels = range(n) if self.rows is None else self.rows
        for i, (panel, row) in enumerate(zip(self.axes_, labels, strict=True)):
            self.bars_[0, i] = panel.bar(range(d), self.X[i], 0.8, color="0.8", label="original")
            self.bars_[1, i] = panel.bar(range(d), self.X_hat[i], label="reconstruction", **options)
            panel.set_title(f"row {row}, mean squared error {errors[i]:.2g}", loc="left", size=9)
            panel.margins(x=0.01)
            panel.axhline(0, color="0.4", linewidth=0.8)
            lightened(panel)
            panel.grid(visible=False, axis="x")
        with_names(self.axes_[-1].xaxis, names)
        if d > 5:
            self.axes_[-1].tick_params(axis="x", rotation=90)
        self.axes_[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)


def _white(X):
    """The largest value of a colour: 255 where they are whole numbers beyond 1, else 1."""
    known = X[~np.isnan(X)]
    return 255 if known.max(initial=0) > 1 and (known % 1 == 0).all() else 1


def _which(X, rows, image_shape):
    default = _PANELS if image_shape is None else _IMAGES
    return chosen_rows(X, default if rows is None else rows)

"""FeatureDisplay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skae.inspection._drawing import (
    SIGNED,
    Display,
    as_images,
    checked_image_shape,
    draw_sheet,
    middles,
    sheet_size,
    symmetric,
    with_names,
)
from skae.inspection._fitted import checked_names, holder, names_seen
from skae.inspection._maximal import maximally_activating_inputs, width_in

_TITLE = "Input that excites each unit most"
_BAR = 0.9  # inches that a colour bar takes
_SMALLEST = 3.6, 2.4  # inches that title and labels take


class FeatureDisplay(Display):
    """What every code unit responds to: the input of bounded norm that activates it the most.

    Make it with `from_estimator` or `from_predictions`; `plot` draws it again. White is zero, red
    is above, blue below. Images are scaled each by its own largest value, which is 1 on their
    colour bar; limits of your own, as in ``im_kw={"vmin": -1, "vmax": 1}``, hold for all. With one
    of them, or a `norm`, images have no scale in common, and there is no bar.

    Parameters
    ----------
    features : ndarray of shape (n_units, n_features)
        What is shown of every unit, such as `maximally_activating_inputs` without their center.

    units : array-like of shape (n_units,), default=None
        Numbers of the units, for their labels.

    feature_names : list of str, default=None
        Names of the features, for tables.

    title : str, default=None
        What is drawn, to stand above it; None is nothing.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the features.

    figure_ : matplotlib Figure
        Figure that contains them.

    images_ : ndarray of matplotlib AxesImage, of shape (n_units,), or None
        One image a unit.

    im_ : matplotlib AxesImage or None
        The heat map of shape (n_units, n_features) of a table.

    colorbar_ : matplotlib Colorbar or None
        The scale of the colours.

    See Also
    --------
    maximally_activating_inputs : The features, as an array.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skae import SparseAutoencoder
    >>> from skae.inspection import FeatureDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = SparseAutoencoder(n_components=25, max_iter=5, tol=None, random_state=0).fit(X)
    >>> FeatureDisplay.from_estimator(ae, image_shape=(8, 8), random_state=0)
    <...>
    >>> plt.show()
    """

    images_: Any

    def __init__(self, features, *, units=None, feature_names=None, title=None):
        self.features = features
        self.units = units
        self.feature_names = feature_names
        self.title = title

    @classmethod
    def from_estimator(
        cls, estimator, *, units=None, norm=1.0, center=None, random_state=None,
        feature_names=None, image_shape=None, ax=None, **plot_kw,
    ):  # fmt: skip
        """Find what activates the units of a fitted autoencoder the most, and draw it.

        Parameters
        ----------
        estimator : object
            A fitted autoencoder or network of this package, or a pipeline, a search or a detector
            with one. Behind a scaler the features are in its units.

        units : array-like of shape (n_units,), default=None
            The code units; None is all of them.

        norm : float, default=1.0
            Largest distance of an input from the center, in units of X.

        center : array-like of shape (n_features,), default=None
            The middle of the ball, for example the mean of X; None is the origin. What is drawn
            are differences from it.

        random_state : int, RandomState instance, default=None
            Draws the starts of the search; encoders of one layer need none.

        feature_names : list of str, default=None
            For the heat map; None is the names that the autoencoder sees, or x0, x1 and so on.

        image_shape : tuple of int, default=None
            Height and width of an image, and 3 for colours. None draws a heat map of units by
            features.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : FeatureDisplay
            The display.
        """
        network = holder(estimator, "encoder_")
        if image_shape is not None:
            checked_image_shape(image_shape, width_in(network))
        inputs = maximally_activating_inputs(
            estimator, units=units, norm=norm, center=center, random_state=random_state
        )
        if feature_names is None:
            feature_names = names_seen(estimator, network)
        features = inputs if center is None else inputs - np.asarray(center)
        title = _TITLE if center is None else f"{_TITLE},\nminus the center"
        made = cls(features, units=units, feature_names=feature_names, title=title)
        return made.plot(ax, image_shape=image_shape, **plot_kw)

    @classmethod
    def from_predictions(
        cls, features, *, units=None, feature_names=None, title=None, ax=None, **plot_kw
    ):
        """Draw features that are there already, such as the components of `PCA`.

        Parameters
        ----------
        features : array-like of shape (n_units, n_features)
            What is shown of every unit.

        units : array-like of shape (n_units,), default=None
            Numbers of the units, for their labels.

        feature_names : list of str, default=None
            For the heat map.

        title : str, default=None
            What is drawn, to stand above it; None is nothing.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : FeatureDisplay
            The display.
        """
        made = cls(np.asarray(features), units=units, feature_names=feature_names, title=title)
        return made.plot(ax, **plot_kw)

    def plot(self, ax=None, *, image_shape=None, im_kw=None, colorbar=True):
        """Draw the features.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        image_shape : tuple of int, default=None
            Height and width of an image, and 3 for colours. None draws a heat map of units by
            features.

        im_kw : dict, default=None
            Keywords for matplotlib's `imshow`.

        colorbar : bool, default=True
            Whether to show the scale of the colours. Images in colours have none: their grey is
            zero.

        Returns
        -------
        display : FeatureDisplay
            This display.
        """
        self.images_ = self.im_ = self.colorbar_ = None
        if image_shape is None:
            self._plot_table(ax, im_kw or {}, colorbar)
        else:
            self._plot_images(ax, image_shape, im_kw or {}, colorbar)
        if self.title is not None:
            self.ax_.set_title(self.title, size=10)
        return self

    def _plot_images(self, ax, image_shape, im_kw, colorbar):
        n = len(self.features)
        images = as_images(self.features, image_shape)
        height, width = images.shape[1:3]
        columns = math.ceil(math.sqrt(n * height / width))
        rows = math.ceil(n / columns)
        across, up = sheet_size(rows, columns, image_shape)
        size = np.maximum(_SMALLEST, (across + _BAR * colorbar, up + 0.3))
        ax = self._axes(ax, tuple(size))
        in_colours = images.ndim == 4
        if in_colours:  # about grey
            largest = np.abs(images).max(axis=(1, 2, 3), keepdims=True)
            images = 0.5 + images / np.where(largest > 0, 2 * largest, 1)
        self.images_ = draw_sheet(ax, images, columns, **{"cmap": SIGNED} | im_kw)
        for artist, feature in zip(self.images_, self.features, strict=True):
            limits = symmetric(feature) | im_kw
            artist.set_clim(limits["vmin"], limits["vmax"])
        units = self._units()
        ax.set_yticks(middles(rows, height), labels=[units[i] for i in range(0, n, columns)])
        ax.tick_params(length=0)
        ax.set_ylabel("code unit, the first of its row" if rows > 1 else "code unit")
        given = {"vmin", "vmax", "norm"} & im_kw.keys()
        if colorbar and not in_colours and given in (set(), {"vmin", "vmax"}):
            self._scale_of_images(ax, bool(given))

    def _scale_of_images(self, ax, shared):
        """The colour bar of all images: of their values, or as fractions of each one's largest."""
        from matplotlib.cm import ScalarMappable

        first = self.images_[0]
        label = "input" if shared else "input, as a fraction of\nthe unit's largest"
        limits = first.get_clim() if shared else (-1, 1)
        colours = ScalarMappable(cmap=first.get_cmap())
        colours.set_clim(*limits)
        self.colorbar_ = self._colour_bar(colours, ax, label, shrink=0.9)
        if not shared:
            self.colorbar_.set_ticks([-1, 0, 1])

    def _plot_table(self, ax, im_kw, colorbar):
        n, d = self.features.shape
        names = checked_names(self.feature_names, d)
        size = min(14.0, max(5.0, 0.3 * d + 1.5)), min(14.0, 0.28 * n + 2.2)
        ax = self._axes(ax, size)
        options = symmetric(self.features) | {"aspect": "auto"} | im_kw
        self.im_ = ax.imshow(self.features, **options)
        ax.spines[:].set_visible(False)
        with_names(ax.xaxis, names)
        with_names(ax.yaxis, self._units())
        if d > 5:
            ax.tick_params(axis="x", rotation=90)
        ax.tick_params(length=0)
        ax.set(xlabel="feature", ylabel="code unit")
        if colorbar:
            self.colorbar_ = self._colour_bar(self.im_, ax, "input")

    def _units(self) -> list[str]:
        units = range(len(self.features)) if self.units is None else self.units
        return [str(unit) for unit in units]

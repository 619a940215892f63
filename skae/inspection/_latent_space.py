"""LatentSpaceDisplay."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_features

from skae.inspection._drawing import (
    GREY,
    UNSIGNED,
    Display,
    as_images,
    checked_image_shape,
    divided,
    lightened,
    symmetric,
    with_names,
)
from skae.inspection._fitted import dense

KINDS = ("scatter", "decoded", "activations")
_EDGE = 0.02  # share of the codes beyond each side of the decoded grid
_CONTRAST = (0.05, 0.99)  # quantiles of the decoded pixels that are black and white
_FILLED = 0.94  # share of a cell of the grid that its image takes
_FEW_BARS = 40  # units that are told apart by gaps between their bars


class LatentSpaceDisplay(Display):
    r"""The codes of rows: as points, as what the plane between them decodes to, or one by one.

    - ``kind="scatter"``: two-dimensional codes, coloured by y. Wider ones are projected onto
      their first two principal components.
    - ``kind="decoded"``: images that a grid over the same plane decodes to.
    - ``kind="activations"``: a heat map of rows by units, under every unit's mean activation
      :math:`\hat\rho_j = \frac{1}{n} \sum_i h_{ij}` and the share of rows in which it is near
      zero: :math:`|h_{ij}| \le \epsilon \max |h|`. Rows are in the order of y.

    Make it with `from_estimator` or `from_predictions`; `plot` draws it again.

    Parameters
    ----------
    codes : array-like of shape (n_samples, n_components)
        What `transform` returned.

    y : array-like of shape (n_samples,), default=None
        Labels or values of the rows.

    decode : callable, default=None
        The rows that codes of shape (m, n_components) decode to: `inverse_transform`.

    names : list of str, default=None
        Names of the units, for the axes of two units and of activations.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture. Behind activations they are the invisible ones in whose place
        `axes_` are.

    axes_ : ndarray of matplotlib Axes, or None
        For activations: mean activations, shares near zero, and the heat map, of shape (3,).

    figure_ : matplotlib Figure
        Figure that contains them.

    scatter_ : list of matplotlib PathCollection, or None
        The points: one for every class of y in their order, or one alone.

    images_ : ndarray of matplotlib AxesImage, or None
        The decoded images, of shape (n_grid, n_grid): the first axis goes up, the second right.

    grid_ : ndarray of shape (n_grid, n_grid, n_components), or None
        The codes that they were decoded from.

    im_ : matplotlib AxesImage or None
        The heat map, of shape (n_samples, n_components).

    rho_hat_, near_zero_ : ndarray of shape (n_components,), or None
        What the bars show.

    points_ : ndarray of shape (n_samples, 2), or None
        The codes in the plane.

    See Also
    --------
    FeatureDisplay : What the code units respond to.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae.inspection import LatentSpaceDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> ae = Autoencoder(n_components=2, max_iter=5, tol=None, random_state=0).fit(X)
    >>> display = LatentSpaceDisplay.from_estimator(ae, X, y)
    >>> display.plot(kind="decoded", image_shape=(8, 8))
    <...>
    >>> display.plot(kind="activations")
    <...>
    >>> plt.show()
    """

    points_: Any

    def __init__(self, codes, *, y=None, decode=None, names=None):
        self.codes = codes
        self.y = y
        self.decode = decode
        self.names = names

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, kind="scatter", image_shape=None, ax=None, **plot_kw
    ):
        """Encode X and draw the codes.

        Parameters
        ----------
        estimator : object
            Anything fitted with `transform`, and for ``kind="decoded"`` with `inverse_transform`:
            an autoencoder, a pipeline, `PCA`.

        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        y : array-like of shape (n_samples,), default=None
            Labels or values of the rows, for colours and order.

        kind : {"scatter", "decoded", "activations"}, default="scatter"
            What to draw.

        image_shape : tuple of int, default=None
            Height and width of a decoded image, and 3 for colours, in [0, 1].

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : LatentSpaceDisplay
            The display.
        """
        decode = getattr(estimator, "inverse_transform", None)
        _check_kind(kind, image_shape, decode)
        if kind == "decoded":
            checked_image_shape(image_shape, _num_features(X))
        made = cls(dense(estimator.transform(X)), y=y, decode=decode)
        return made.plot(ax, kind=kind, image_shape=image_shape, **plot_kw)

    @classmethod
    def from_predictions(cls, codes, y=None, *, decode=None, names=None, ax=None, **plot_kw):
        """Draw codes that are there already.

        Parameters
        ----------
        codes : array-like of shape (n_samples, n_components)
            The codes.

        y : array-like of shape (n_samples,), default=None
            Labels or values of the rows, for colours and order.

        decode : callable, default=None
            The rows that codes of shape (m, n_components) decode to, for ``kind="decoded"``.

        names : list of str, default=None
            Names of the units, for the axes of two units and of activations.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : LatentSpaceDisplay
            The display.
        """
        return cls(dense(codes), y=y, decode=decode, names=names).plot(ax, **plot_kw)

    def plot(
        self, ax=None, *, kind="scatter", image_shape=None, n_grid=12, near_zero=0.05,
        scatter_kw=None, im_kw=None,
    ):  # fmt: skip
        """Draw the codes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        kind : {"scatter", "decoded", "activations"}, default="scatter"
            What to draw.

        image_shape : tuple of int, default=None
            Height and width of a decoded image, and 3 for colours, in [0, 1].

        n_grid : int, default=12
            Decoded images along each side.

        near_zero : float, default=0.05
            The largest activation that counts as near zero, as a fraction of the largest of all.

        scatter_kw : dict, default=None
            Keywords for matplotlib's `scatter`.

        im_kw : dict, default=None
            Keywords for matplotlib's `imshow`.

        Returns
        -------
        display : LatentSpaceDisplay
            This display.
        """
        _check_kind(kind, image_shape, self.decode)
        self.axes_ = self.scatter_ = self.images_ = self.grid_ = self.im_ = None
        self.rho_hat_ = self.near_zero_ = self.points_ = None
        if kind == "scatter":
            self._plot_scatter(ax, scatter_kw or {})
        elif kind == "decoded":
            self._plot_decoded(ax, image_shape, n_grid, im_kw or {})
        else:
            self._plot_activations(ax, near_zero, im_kw or {})
        return self

    def _plane(self):
        """The points of the codes, what leads from points to codes, and what the axes mean."""
        k = self.codes.shape[1]
        if k == 2:
            return self.codes, lambda points: points, self._names()
        if k == 1:
            raise ValueError(
                "One code unit has no plane. Use kind='activations', or at least two units."
            )
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full").fit(self.codes)
        shares = [f"{share:.0%}" for share in pca.explained_variance_ratio_]
        labels = [f"principal component {i + 1} of the codes ({s})" for i, s in enumerate(shares)]
        return pca.transform(self.codes), pca.inverse_transform, labels

    def _names(self):
        k = self.codes.shape[1]
        if self.names is None:
            return [f"code unit {j}" for j in range(k)]
        if len(self.names) != k:
            raise ValueError(f"names has {len(self.names)} entries, but there are {k} code units.")
        return list(self.names)

    def _plot_scatter(self, ax, scatter_kw):
        self.points_, _, labels = self._plane()
        ax = self._axes(ax, (6.4, 5.2))
        options = {"s": 12, "alpha": 0.75, "linewidths": 0} | scatter_kw
        if self.y is None:
            self.scatter_ = [ax.scatter(*self.points_.T, **options)]
        elif _is_class(self.y):
            self.scatter_ = self._scatter_classes(ax, options)
        else:
            drawn = ax.scatter(*self.points_.T, c=self.y, **{"cmap": UNSIGNED} | options)
            bar = self._colour_bar(drawn, ax, "y")
            bar.solids.set_alpha(1)
            self.scatter_ = [drawn]
        ax.set(xlabel=labels[0], ylabel=labels[1])
        lightened(ax)

    def _scatter_classes(self, ax, options):
        import matplotlib

        classes, which = np.unique(self.y, return_inverse=True)
        colours = matplotlib.color_sequences["tab10" if len(classes) <= 10 else "tab20"]
        drawn = [
            ax.scatter(
                *self.points_[which == c].T,
                **{"color": colours[c % len(colours)], "label": str(name)} | options,
            )
            for c, name in enumerate(classes)
        ]
        legend = ax.legend(
            loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handletextpad=0.2,
            markerscale=2,
        )  # fmt: skip
        for handle in legend.legend_handles:
            handle.set_alpha(1)
        return drawn

    def _plot_decoded(self, ax, image_shape, n_grid, im_kw):
        self.points_, codes_of, labels = self._plane()
        low, high = np.quantile(self.points_, [_EDGE, 1 - _EDGE], axis=0)
        across, up = np.linspace(low, high, n_grid).T
        points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
        codes = codes_of(points.astype(self.codes.dtype))
        images = as_images(dense(self.decode(codes)), image_shape)
        ax = self._axes(ax, (6.4, 6.4))
        if images.ndim == 4:
            images = images.clip(0, 1)
        # Corners where no code is decode to extremes, which would leave no contrast to the others.
        dark, light = np.quantile(images, _CONTRAST)
        options = {"cmap": GREY, "vmin": dark, "vmax": light} | im_kw
        half = (high - low) / max(1, n_grid - 1) / 2
        self.images_ = np.empty(n_grid * n_grid, dtype=object)
        for i, (image, (x, y)) in enumerate(zip(images, points, strict=True)):
            (left, bottom), (right, top) = (x, y) - _FILLED * half, (x, y) + _FILLED * half
            extent = (left, right, bottom, top)
            self.images_[i] = ax.imshow(image, extent=extent, **options)
        self.images_ = self.images_.reshape(n_grid, n_grid)
        self.grid_ = codes.reshape(n_grid, n_grid, -1)
        (left, bottom), (right, top) = low - half, high + half
        ax.set(xlim=(left, right), ylim=(bottom, top), xlabel=labels[0], ylabel=labels[1])
        height, width = image_shape[:2]
        ax.set_aspect(half[0] / half[1] * height / width)
        ax.spines[:].set_visible(False)

    def _plot_activations(self, ax, near_zero, im_kw):
        h = self.codes
        n, k = h.shape
        order = np.arange(n) if self.y is None else np.argsort(self.y, kind="stable")
        self.rho_hat_ = h.mean(axis=0)
        self.near_zero_ = (np.abs(h) <= near_zero * np.abs(h).max()).mean(axis=0)
        ax = self._axes(ax, (min(12.0, max(5.0, 2.5 + 0.12 * k)), 6.0))
        self.axes_ = divided(ax, 3, 1, sharex=True, height_ratios=(1, 1, 5))[:, 0]
        width = 0.8 if k <= _FEW_BARS else 1.0
        self.axes_[0].bar(range(k), self.rho_hat_, width, color="C0")
        self.axes_[1].bar(range(k), self.near_zero_, width, color="0.6")
        self.axes_[0].set_ylabel(r"mean $\hat\rho$")
        self.axes_[1].set(ylabel="near zero", ylim=(0, 1))
        for panel in self.axes_[:2]:
            lightened(panel)
            panel.grid(visible=False, axis="x")
            panel.tick_params(axis="x", length=0)
        colours = symmetric(h) if h.min() < 0 else {"cmap": UNSIGNED, "vmin": 0, "vmax": h.max()}
        options = {"aspect": "auto", "interpolation": "nearest"} | colours | im_kw
        heat = self.axes_[2]
        self.im_ = heat.imshow(h[order], **options)
        heat.spines[:].set_visible(False)
        if self.names is None:
            heat.xaxis.get_major_locator().set_params(integer=True)
        else:
            with_names(heat.xaxis, self._names())
            heat.tick_params(axis="x", rotation=90)
        heat.set(xlabel="code unit", ylabel="row" if self.y is None else "rows in the order of y")
        if self.y is not None and _is_class(self.y):
            _mark_classes(heat, np.asarray(self.y)[order])
        self.figure_.align_ylabels(self.axes_)
        self._colour_bar(self.im_, list(self.axes_), "activation", shrink=0.7)


def _check_kind(kind, image_shape, decode) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}.")
    if kind == "decoded" and (image_shape is None or decode is None):
        raise ValueError(
            "kind='decoded' draws images: pass image_shape, and an estimator with "
            "inverse_transform (or decode)."
        )


def _is_class(y) -> bool:
    return type_of_target(y) in ("binary", "multiclass")


def _mark_classes(ax, y) -> None:
    """Tick labels in the middle of every class of rows, and lines between them."""
    names, starts, counts = np.unique(y, return_index=True, return_counts=True)
    ax.set_yticks(starts + counts / 2 - 0.5, labels=[str(name) for name in names])
    ax.tick_params(axis="y", length=0)
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", linewidth=1)

"""Axes, sheets of images and heat maps, in which the displays draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

SIGNED = "RdBu_r"  # diverging: white is zero
UNSIGNED = "viridis"
GREY = "gray"
_GAP = 0.12  # between images, as a fraction of one
_IMAGE = 0.75  # inches that an image gets


class Display:
    """The axes and the figure of a display."""

    ax_: Any
    figure_: Any

    def _axes(self, ax: Any, figsize: tuple[float, float]) -> Any:
        """Where to draw: the axes given, or the only ones of a new figure of this size."""
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=figsize, layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        return ax

    def _colour_bar(self, artist: Any, ax: Any, label: str, **options: Any) -> Any:
        bar = self.figure_.colorbar(artist, ax=ax, label=label, **options)
        bar.outline.set_visible(False)
        return bar


def divided(
    ax: Any, rows: int, columns: int, *, sharex: bool = False, sharey: bool = False, **grid: Any
) -> np.ndarray:
    """Axes of shape (rows, columns) in the place of `ax`, which turns invisible."""
    spec = ax.get_subplotspec()
    if spec is None:
        raise ValueError(
            "This display needs several axes in the place of ax, so ax must be part of a grid, as "
            "plt.subplots() makes them. Leave ax=None, or pass such axes."
        )
    ax.set_axis_off()
    parts = spec.subgridspec(rows, columns, **grid)
    return parts.subplots(sharex=sharex, sharey=sharey, squeeze=False)


def checked_image_shape(image_shape: Sequence[int], d: int) -> tuple[int, ...]:
    """The height and width, and 3 for colours, of an image of d features.

    The displays ask before they compute anything, so that a mistake is told at once.
    """
    shape = tuple(image_shape) if np.ndim(image_shape) == 1 else ()
    sizes = all(isinstance(size, Integral) and size > 0 for size in shape)
    if not sizes or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4)):
        raise ValueError(
            "image_shape must be (height, width), or (height, width, 3) for colours, of whole "
            f"numbers, got {image_shape!r}."
        )
    shape = tuple(int(size) for size in shape)
    if math.prod(shape) != d:
        side = math.isqrt(d)
        such_as = f", such as ({side}, {side})" if side**2 == d else ""
        raise ValueError(
            f"image_shape={shape} has {math.prod(shape)} pixels, but there are {d} features. "
            f"Pass a shape of {d} pixels{such_as}."
        )
    return shape


def as_images(X: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Rows of shape (n, d) as images of shape (n, height, width) or (n, height, width, 3)."""
    return X.reshape(*X.shape[:-1], *checked_image_shape(image_shape, X.shape[-1]))


def sheet_size(rows: int, columns: int, image_shape: Sequence[int]) -> tuple[float, float]:
    """Width and height in inches of a figure for so many images."""
    height, width = image_shape[:2]
    longest = max(height, width)
    scale = min(_IMAGE, 14 / columns)
    return 1.0 + scale * columns * width / longest, 0.8 + scale * rows * height / longest


def draw_sheet(ax: Any, images: np.ndarray, columns: int, **im_kw: Any) -> np.ndarray:
    """Images of shape (n, height, width) row by row, and the artists, of shape (n,).

    A pixel is one unit of the axes, the first image is at the top left.
    """
    from matplotlib.patches import Rectangle

    n, height, width = images.shape[:3]
    across, down = width * (1 + _GAP), height * (1 + _GAP)
    artists = np.empty(n, dtype=object)
    for i, image in enumerate(images):
        left, top = i % columns * across, i // columns * down
        artists[i] = ax.imshow(image, extent=(left, left + width, top + height, top), **im_kw)
        # Else images with white at their borders would have none.
        ax.add_patch(Rectangle((left, top), width, height, fill=False, ec="0.8", lw=0.6))
    rows = math.ceil(n / columns)
    edge = max(height, width) * _GAP / 2  # the lines around the images are not cut
    right, bottom = min(n, columns) * across, rows * down
    ax.set(xlim=(-edge, right - width * _GAP + edge), ylim=(bottom - height * _GAP + edge, -edge))
    ax.set_aspect("equal")
    without_frame(ax)
    return artists


def middles(count: int, size: int) -> np.ndarray:
    """Where the images of a sheet have their middles, along one side."""
    return np.arange(count) * size * (1 + _GAP) + size / 2


def without_frame(ax: Any) -> None:
    """Take away the spines, the ticks and their labels."""
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[])


def lightened(ax: Any) -> None:
    """Leave the left and the lower spine, with a light grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def symmetric(values: np.ndarray) -> dict[str, Any]:
    """Colours for signed values: the limits lie equally far from zero."""
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return {"cmap": SIGNED, "vmin": -largest, "vmax": largest}


def with_names(axis: Any, names: Sequence[str], most: int = 40) -> None:
    """Tick labels of features, or numbers where there are too many to be read."""
    if len(names) <= most:
        axis.set_ticks(range(len(names)), labels=names)
    else:
        axis.get_major_locator().set_params(integer=True)

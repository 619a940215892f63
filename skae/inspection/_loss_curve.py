"""LossCurveDisplay."""

from __future__ import annotations

import numpy as np

from skae.inspection._drawing import Display, lightened
from skae.inspection._fitted import holder

_DECADES = 10.0  # the factor between losses from which on a logarithmic axis shows more


class LossCurveDisplay(Display):
    """Training and validation loss, epoch by epoch.

    Make it with `from_estimator` or `from_predictions`; `plot` draws it again.

    Parameters
    ----------
    loss_curve : array-like of shape (n_epochs,)
        Training loss of every epoch.

    validation_loss_curve : array-like of shape (n_epochs,), default=None
        Validation loss of every epoch.

    name : str, default=None
        What the curves are of, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.

    figure_ : matplotlib Figure
        Figure that contains them.

    lines_ : list of matplotlib Line2D
        The training curve, and the validation curve if there is one.

    best_ : matplotlib Line2D or None
        The dot at the lowest validation loss, whose weights early stopping keeps.

    See Also
    --------
    ReconstructionDisplay : What the loss comes to.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> from skae.inspection import LossCurveDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = Autoencoder(max_iter=5, early_stopping=True, random_state=0).fit(X)
    >>> LossCurveDisplay.from_estimator(ae)
    <...>
    >>> plt.show()
    """

    def __init__(self, loss_curve, *, validation_loss_curve=None, name=None):
        self.loss_curve = loss_curve
        self.validation_loss_curve = validation_loss_curve
        self.name = name

    @classmethod
    def from_estimator(cls, estimator, *, name=None, ax=None, **plot_kw):
        """Draw the curves of a fitted estimator.

        Parameters
        ----------
        estimator : object
            A fitted estimator with `loss_curve_`, or a pipeline, a search or a detector with one.
            Of a stack these are its layers: ``from_estimator(stack.layers_[0])``.

        name : str, default=None
            For the legend; None is the name of the class.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : LossCurveDisplay
            The display.
        """
        fitted = holder(estimator, "loss_curve_")
        return cls.from_predictions(
            fitted.loss_curve_,
            getattr(fitted, "validation_loss_curve_", None),
            name=type(fitted).__name__ if name is None else name,
            ax=ax,
            **plot_kw,
        )

    @classmethod
    def from_predictions(
        cls, loss_curve, validation_loss_curve=None, *, name=None, ax=None, **plot_kw
    ):
        """Draw curves.

        Parameters
        ----------
        loss_curve : array-like of shape (n_epochs,)
            Training loss of every epoch.

        validation_loss_curve : array-like of shape (n_epochs,), default=None
            Validation loss of every epoch.

        name : str, default=None
            For the legend.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        **plot_kw : dict
            Keywords for `plot`.

        Returns
        -------
        display : LossCurveDisplay
            The display.
        """
        made = cls(loss_curve, validation_loss_curve=validation_loss_curve, name=name)
        return made.plot(ax, **plot_kw)

    def plot(self, ax=None, *, yscale="auto", line_kw=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        yscale : {"auto", "linear", "log"}, default="auto"
            "auto" is "log" where losses are positive and span more than a factor of 10.

        line_kw : dict, default=None
            Keywords for matplotlib's `plot`.

        Returns
        -------
        display : LossCurveDisplay
            This display.
        """
        ax = self._axes(ax, (6.4, 4.0))
        options = {"linewidth": 1.8} | (line_kw or {})
        prefix = "" if self.name is None else f"{self.name}, "
        epochs = np.arange(1, len(self.loss_curve) + 1)
        self.lines_ = ax.plot(epochs, self.loss_curve, label=f"{prefix}training", **options)
        self.best_ = None
        checked = self.validation_loss_curve
        if checked is not None:
            # The estimator has the colour, the kind of loss the style: several may share the axes.
            options |= {"color": self.lines_[0].get_color(), "linestyle": "--"}
            self.lines_ += ax.plot(epochs, checked, label=f"{prefix}validation", **options)
            best = int(np.argmin(np.nan_to_num(checked, nan=np.inf)))  # NaN after a divergence
            (self.best_,) = ax.plot(
                epochs[best], checked[best], "o", color=options["color"], markersize=7,
                label=f"{prefix}best, epoch {best + 1}",
            )  # fmt: skip
        ax.set_yscale(self._scale(ax) if yscale == "auto" else yscale)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        lightened(ax)
        ax.legend(frameon=False)
        return self

    def _scale(self, ax) -> str:
        """The scale that shows all curves of these axes."""
        values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
        return "log" if 0 < values.min() * _DECADES < values.max() else "linear"

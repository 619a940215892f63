"""A second layer of random codes: its parameters, its network, and what is reported of it."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._warnings import warn_caller
from skae.estimators._build import layer_sizes
from skae.estimators._density import ACTIVE, FittedDensity
from skae.estimators._estimator import estimator
from skae.estimators._latent_variable import LatentVariableAutoencoder
from skae.monte_carlo import fixed_draws, whitened
from skae.networks import Dense, Network
from skae.two_layers import TwoLayerModel, TwoLayers

_DRAWS = 16  # of z1 for a row's mean of z2


class FittedLayers(FittedDensity):
    """What a fitted model has of a second layer."""

    top_encoder_: Any  # None without one
    top_decoder_: Any
    top_activity_: Any
    _modules = ("encoder_", "decoder_", "top_encoder_", "top_decoder_")

    @property
    def top_active_units_(self) -> Any:
        """Which units of the second layer tell rows apart, of shape (n_top_components,)."""
        check_is_fitted(self)
        if self.top_activity_ is None:
            raise AttributeError("top_active_units_ exists only with n_top_components.")
        return self.top_activity_ > ACTIVE

    @property
    def _model(self):
        if self.top_encoder_ is None:
            return super()._model
        parts = self.encoder_, self.decoder_, self.objective_, self.top_encoder_, self.top_decoder_
        return TwoLayerModel(*parts)


@estimator
class LayeredAutoencoder(FittedLayers, LatentVariableAutoencoder):
    """A model with a Gaussian code that may have a Gaussian code of its own.

    Parameters
    ----------
    n_top_components : int, default=None
        Number of units of a second stochastic layer above the code. None is a model of one layer.

    top_hidden_layer_sizes : tuple of int, default=(100,)
        Widths of the hidden layers between the code and the second layer, on the way up; the way
        down mirrors them. Without a second layer there are none.

    Attributes
    ----------
    top_encoder_, top_decoder_ : torch.nn.Module or None
        From the code to mean and log variance of the second layer's, and back; None without one.

    top_activity_ : ndarray of shape (n_top_components,) or None
        As `activity_`, of the second layer's units, of means over 16 draws of the code.

    top_active_units_ : ndarray of shape (n_top_components,) of bool
        Where `top_activity_` exceeds 0.01.
    """

    n_top_components: int | None = None
    top_hidden_layer_sizes: tuple[int, ...] = (100,)

    _parameter_constraints = {
        **LatentVariableAutoencoder._parameter_constraints,
        "n_top_components": [Interval(Integral, 1, None, closed="left"), None],
        "top_hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    }

    def _settings(self):
        names = ("n_top_components", "top_hidden_layer_sizes")
        return super()._settings() | {name: getattr(self, name) for name in names}

    def _network(self, objective, source, m):
        network, k = super()._network(objective, source, m)
        if self.n_top_components is None:
            return network, k
        hidden = layer_sizes(self.top_hidden_layer_sizes, "top_hidden_layer_sizes")
        up = (k, *hidden, 2 * self.n_top_components)
        down = (self.n_top_components, *hidden[::-1], 2 * k)
        top = Network(
            Dense("top_encoder", up, self.activation, "identity"),
            Dense("top_decoder", down, self.activation, "identity"),
        )
        return TwoLayers(network.encoder, network.decoder, top, self._samples), k

    def _means(self, network, p):
        found = super()._means(network, p)
        if isinstance(network, TwoLayers):
            epsilon = whitened(fixed_draws(_DRAWS, network.top.encoder.in_features(0)))
            found["top_activity"] = lambda x: network.top_means(p, x, epsilon)
        return found

    def _warn_of_collapse(self, learned):
        if "top_activity" not in learned:
            super()._warn_of_collapse(learned)
            return
        # Of 100 and 50 units the paper finds 16 and 5 active where all is well: none is a collapse.
        layers = {"first": learned["activity"], "second": learned["top_activity"]}
        for name, activity in layers.items():
            if not (activity > ACTIVE).any():
                warn_caller(
                    f"Posterior collapse: none of the {len(activity)} units of the {name} layer "
                    f"are active (variance of their posterior means above {ACTIVE}). Train for "
                    "longer, give the likelihood more weight (a smaller variance), or set "
                    "n_top_components=None.",
                    ConvergenceWarning,
                )

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        activity = {"top_activity_": state.get("top_activity")}
        gone = {} if self.n_top_components else {"top_encoder_": None, "top_decoder_": None}
        return super()._reported(state) | activity | gone

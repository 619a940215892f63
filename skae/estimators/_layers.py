"""Layers of a stack: what they are made from, and the network that they make together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from numbers import Integral
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import _num_features
from torch import nn

from skae._warnings import held_warnings, warn_caller
from skae.estimators._base import BaseAutoencoder
from skae.estimators._build import OutOfRange, resolved_code_activation, same_setting
from skae.estimators._export import decoder_steps, encoder_steps
from skae.estimators._progress import pass_on_interruption
from skae.losses import INVERSE_LINKS, LOSSES, Loss
from skae.modules import chained
from skae.objective import overrides


def is_size(layer: Any) -> bool:
    """Whether an entry is a number of code units."""
    return isinstance(layer, Integral) and not isinstance(layer, bool)


def shallow(estimator: Any) -> Any:
    """A copy that shares everything (`copy.copy` would bring its modules to the CPU)."""
    copied = object.__new__(type(estimator))
    copied.__dict__ |= estimator.__dict__
    return copied


def default_width(X: Any) -> int | None:
    """The width of a code that X asks for; None of what is no data, which others refuse."""
    try:
        return max(1, math.ceil(math.sqrt(_num_features(X))))
    except (TypeError, LookupError):
        return None


def mirrored_activation(template: Any, below: Any) -> str:
    """The output activation of a layer given by its size: that of the codes it reconstructs."""
    if not isinstance(template, BaseAutoencoder) or not isinstance(below, BaseAutoencoder):
        return "auto"  # `fit` refuses them
    given, loss = template.output_activation, template.loss
    loss = LOSSES.get(loss) if isinstance(loss, str) else loss  # type: ignore[assignment]
    is_free = isinstance(loss, Loss) and loss.link == "identity" and not loss.own_link_only
    if given != "auto" or not is_free or below.encoder is not None:
        return given
    activation = resolved_code_activation(below)
    return activation if activation in INVERSE_LINKS else given


def is_clone_of(template: Any, fitted: Any) -> bool:
    """Whether a fitted layer is a clone of this one, seeds aside."""
    theirs = fitted.get_params(deep=False)
    return type(template) is type(fitted) and all(
        name == "random_state" or _same(value, theirs[name])
        for name, value in template.get_params(deep=False).items()
    )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, nn.Module) and isinstance(b, nn.Module):  # a clone has copies
        mine, theirs = a.state_dict(), b.state_dict()
        return repr(a) == repr(b) and all(torch.equal(mine[key], theirs[key]) for key in mine)
    return same_setting(a, b)


class HasLayers:
    """An estimator with a parameter `layers`, whose entries' parameters are its own, by name."""

    layers: Any

    def _entries(self) -> dict[str, Any]:
        """The layers as they were given, by name."""
        layers = self.layers if isinstance(self.layers, tuple | list) else ()
        return {f"layer_{i}": layer for i, layer in enumerate(layers)}

    def get_params(self, deep=True):
        """Get the parameters, those of layers as ``layer_0__noise_level``.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the layers and their parameters, and those of `estimator` and
            `joint`.

        Returns
        -------
        params : dict
            Parameters by name.
        """
        params = super().get_params(deep=deep)  # type: ignore[misc]
        for name, layer in self._entries().items() if deep else ():
            params[name] = layer
            if isinstance(layer, BaseEstimator):
                params |= {f"{name}__{key}": value for key, value in layer.get_params().items()}
        return params

    def set_params(self, **params):
        """Set parameters, those of layers as ``layer_0__noise_level``.

        Parameters
        ----------
        **params : dict
            Parameters by name; ``layer_0`` replaces a layer.

        Returns
        -------
        self : object
            The same estimator.
        """
        if "layers" in params:
            self.layers = params.pop("layers")
        entries = self._entries()
        replaced = {name: params.pop(name) for name in entries if name in params}
        if replaced:
            self.layers = type(self.layers)((entries | replaced).values())
        for key in params:
            name, nested, _ = key.partition("__")
            layer = self._entries().get(name)
            if nested and (layer is None or is_size(layer)) and name in entries:
                raise ValueError(
                    f"Cannot set {key}: {name} is {layer!r}, a size, and has no parameters of its "
                    "own. Set those of estimator, or give an autoencoder as the layer."
                )
        return super().set_params(**params)  # type: ignore[misc]


@contextmanager
def naming(part: str, below: str | None = None) -> Iterator[None]:
    """Say in errors and warnings which part of a stack they come from.

    `below` is the layer whose codes it is trained on, if it is.
    """
    try:
        with held_warnings() as held:
            yield
    except OutOfRange as error:
        codes = f"X is the code of {below} here: give it a code_activation of that range"
        message = str(error) if below is None else error.advising(codes)
        raise ValueError(f"{part}: {message}") from error
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error
    for message, category in held:
        warn_caller(f"{part}: {message}", category)


def naming_layer(i: int) -> AbstractContextManager[None]:
    """`naming` for layer i."""
    return naming(f"layer_{i}", f"layer_{i - 1}" if i else None)


def bottom_up(layers: Sequence[Any], X: Any, train: Callable[[int, Any, Any], None]) -> None:
    """Call ``train(i, layer, codes of the layers below)`` for every layer.

    Raises KeyboardInterrupt after one that was interrupted, other than the top one.
    """
    codes = X
    for i, layer in enumerate(layers):
        with naming_layer(i):
            train(i, layer, codes)
            if i < len(layers) - 1:
                pass_on_interruption(layer)
        codes = layer._codes(codes)


def prepared_joint(joint: Any, templates: Sequence[Any]) -> Any:
    """The estimator that trains the network of these layers, if it can."""
    first, top = templates[0], templates[-1]
    name = type(joint).__name__
    joint.set_params(n_components=None, tied_weights=False, initialize_from=None)
    with naming("joint"):
        joint._validate_params()
        objective = joint._objective()
    if overrides(objective, "encode") or _has_own_network(joint):
        raise ValueError(
            f"joint={name} makes codes of its own kind, but the network is that of the layers. "
            "Use Autoencoder or DenoisingAutoencoder, and give codes their kind in the top layer."
        )
    if _has_own_network(first):
        raise ValueError(
            f"joint={name} reconstructs X itself, but {type(first).__name__}, the first layer, "
            "gives something else before its reconstruction. Set joint=None."
        )
    given, expected = objective.loss.link, first._objective().loss.link
    if given != expected:
        raise ValueError(
            f"joint={name} has a loss with the output activation {given!r}, but that of the first "
            f"layer is {expected!r}, and they share a decoder. Give both the same "
            "output_activation, or the same loss."
        )
    if top.encoder is None:
        with naming("joint"):
            joint.set_params(code_activation=resolved_code_activation(top))._objective()
    return joint


def _has_own_network(part: BaseAutoencoder) -> bool:
    return type(part)._network is not BaseAutoencoder._network


def with_own_weights(layers: Sequence[Any]) -> list[Any]:
    """Copies of fitted layers whose weights may be changed; none continues its own training."""
    copies = [shallow(layer) for layer in layers]
    for layer in copies:
        layer.encoder_, layer.decoder_ = copy.deepcopy((layer.encoder_, layer.decoder_))
        layer.__dict__.pop("_training", None)
    return copies


# ---- their network


def encoder_of(layers: Sequence[Any]) -> nn.Module:
    """From X to the top code: each layer's encoder, and what its objective makes of that."""
    return chained([step for layer in layers for step in encoder_steps(layer)])


def decoder_of(layers: Sequence[Any]) -> nn.Module:
    """From the top code to X: decoders and output activations, the first layer's excepted."""
    above = [step for layer in layers[:0:-1] for step in decoder_steps(layer)]
    return chained([*above, layers[0].decoder_])

"""Stacks of autoencoders, each trained on the codes of the one below."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, _fit_context, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._warnings import warn_caller
from skae.estimators._base import BaseAutoencoder, all_or_nothing
from skae.estimators._compat import CallbackSupportMixin, with_callbacks
from skae.estimators._estimator import estimator
from skae.estimators._fitted import FittedAutoencoder
from skae.estimators._input import read_data, read_weight
from skae.estimators._layers import (
    HasLayers,
    bottom_up,
    decoder_of,
    default_width,
    encoder_of,
    is_clone_of,
    is_size,
    mirrored_activation,
    naming,
    naming_layer,
    prepared_joint,
    shallow,
    with_own_weights,
)
from skae.estimators._progress import Subtasks, was_interrupted
from skae.estimators._training import seed_all
from skae.estimators.autoencoder import Autoencoder
from skae.objective import Objective


def _check_data(layer: Any, X: Any, sample_weight: Any, *, reset: bool) -> None:
    """Raise what is wrong with X and the weights: the fault of no layer, though one sees them."""
    read_weight(sample_weight, read_data(layer, X, reset=reset, **layer._arithmetic()))


def _steps_by_batch(self) -> bool:
    return all(hasattr(template, "partial_fit") for template in self._templates())


@estimator
class StackedAutoencoder(FittedAutoencoder, HasLayers, CallbackSupportMixin, BaseEstimator):
    r"""Autoencoders on top of each other, trained greedily from the bottom up.

    Layer l learns to reconstruct the codes of the layer below, whose weights stay as they are:

    .. math::
        a^{(0)} = x, \qquad
        a^{(l)} = f_l(W^{(l, 1)} a^{(l - 1)} + b^{(l, 1)}), \qquad
        \hat a^{(l - 1)} = g_l(W^{(l, 2)} \hat a^{(l)} + b^{(l, 2)}), \qquad
        \hat a^{(L)} = a^{(L)}

    `transform` gives the codes :math:`a^{(L)}` of the top layer, `inverse_transform` decodes them
    through all layers in reverse [1]_. Every layer is trained on the clean codes of the one below:
    what corrupts a layer's input in training corrupts these [2]_. Then `joint`, if given, trains
    all weights together. A layer's own objective is that of its class.

    ``stack[i]`` is a fitted layer, and ``stack[:i]`` the stack of the lowest i, which shares their
    weights: ``stack[:i].transform(X)`` are the codes at that depth.

    Parameters
    ----------
    layers : tuple, default=(100, None)
        What each layer is, bottom up. A number of code units, or None for what `estimator` has
        there, makes a clone of `estimator`; an autoencoder of this package makes a clone of
        itself. In the parameters' names they are ``layer_0``, ``layer_1`` and so on, as in
        ``layer_0__noise_level`` (for autoencoders; numbers have no parameters).

        Where `estimator` has no `n_components` either, None is the root of the width of X, rounded
        up, at any height: the default code is as wide as that of `Autoencoder`, by way of a
        hidden layer of 100 as there. Where X is narrower than that, this layer is overcomplete
        and only passes on what it sees, unless `estimator` regularises; give it fewer units.

        Above the first, a layer given by its size reconstructs through the code activation of
        the layer below, as the lecture's do, where `estimator` leaves ``output_activation="auto"``
        and its loss allows it: squared, absolute or Huber error and identity, logistic, tanh, relu
        or softplus.

    estimator : autoencoder, default=None
        What layers given by their size are clones of. None is
        ``Autoencoder(hidden_layer_sizes=(), activation="tanh")``, the single layer of the formula.

    joint : autoencoder, default=None
        Trains the whole network from end to end, from the layers' weights on, by its own
        objective, solver and schedule: ``Autoencoder(max_iter=50)``,
        ``DenoisingAutoencoder(learning_rate_init=1e-4)``. What it says of layers, activations of
        the code and tied weights is not used: weights that a layer tied go separate ways. Its
        output activation has to be that of the first layer.

    warm_start : bool, default=False
        Keep, at another `fit`, the layers up to the first whose parameters have changed (other
        than `random_state`), or that was interrupted, as they are, and train only those from there
        on. `joint` is then trained again.

    random_state : int, RandomState instance, default=None
        Seeds every `random_state` of the layers and of `joint`, in place of their own.

    Attributes
    ----------
    layers_ : list of autoencoders
        The fitted layers, bottom up. They hold the weights: what is below is made from them.

    encoder_, decoder_ : torch.nn.Module
        The network from X to the top code and back: dense modules where all layers are dense.

    coefs_, intercepts_ : list of ndarray
        Weights of shape (n_in, n_out) and biases of shape (n_out,), encoders bottom up and then
        decoders top down, where all layers are dense.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of a linear encoder of one layer.

    n_components_ : int
        Number of code units of the top layer.

    n_layers_ : int
        Number of layers.

    loss_curves_ : list of list of float
        Mean training loss of every epoch, a list for each layer.

    joint_loss_curve_ : list of float or None
        The same for `joint`.

    stop_reason_ : str
        Why the training of the top layer ended, or of `joint`: see `Autoencoder`.

    n_iter_ : int
        Number of epochs of all layers and of `joint`.

    objective_ : Objective
        The loss of the first layer, by which reconstructions are scored.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X has them.

    References
    ----------
    .. [1] Bengio, Lamblin, Popovici and Larochelle, "Greedy layer-wise training of deep networks",
       NIPS (2006).
    .. [2] Vincent, Larochelle, Lajoie, Bengio and Manzagol, "Stacked denoising autoencoders:
       learning useful representations in a deep network with a local denoising criterion",
       JMLR 11 (2010).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import minmax_scale
    >>> from skae import Autoencoder, StackedAutoencoder
    >>> X = minmax_scale(load_digits(return_X_y=True)[0])
    >>> layer = Autoencoder(hidden_layer_sizes=(), activation="tanh", max_iter=10, tol=None)
    >>> stack = StackedAutoencoder(layers=(32, 8), estimator=layer, random_state=0).fit(X)
    >>> stack.transform(X).shape, stack[:1].transform(X).shape, stack.reconstruct(X).shape
    ((1797, 8), (1797, 32), (1797, 64))
    """

    layers: tuple[Any, ...] = (100, None)
    estimator: Any = None
    joint: Any = None
    warm_start: bool = False
    random_state: Any = None

    _parameter_constraints = {
        "layers": [tuple, list],
        "estimator": [BaseAutoencoder, None],
        "joint": [BaseAutoencoder, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
    }

    # ---- training

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Train the layers, each on the codes of the one below, and then `joint`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data, of any kind that the first layer takes.

        y : array-like of shape (n_samples,), default=None
            Labels, for layers that use them; otherwise ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, given to every layer and to `joint`.

        Returns
        -------
        self : object
            The fitted stack.

        Raises
        ------
        ValueError
            If X does not fit, or the parameters of a layer or of `joint`, or training diverges;
            the message names the part. The stack is then as it was before the call.

        KeyboardInterrupt
            If Ctrl-C ends the training of a layer below the top one: a stack that lacks layers is
            none, and it is as it was before the call. An interrupted top layer, without `joint`
            then, or an interrupted `joint` is kept with a warning, and `stop_reason_` says so.
        """
        fitted = getattr(self, "layers_", []) if self.warm_start else []
        whole = [layer for layer in fitted if not was_interrupted(layer)]
        joint, layers, n_kept = self._begin(X, whole)
        known = {"y": y, "sample_weight": sample_weight}
        _check_data(layers[0], X, sample_weight, reset=not n_kept)
        if joint is not None:  # it may not take what the first layer takes
            with naming("joint"):
                read_data(joint, X, reset=True, **joint._arithmetic())
        tasks = Subtasks(self, X, len(layers) - n_kept + (joint is not None))

        def train(i: int, layer: Any, codes: Any) -> None:
            if i >= n_kept:
                tasks.fit(f"fit-layer_{i}", layer, codes, may_end=True, **known)

        bottom_up(layers, X, train)
        if joint is not None and was_interrupted(layers[-1]):
            warn_caller("joint: Not trained, since Ctrl-C ended the top layer.", ConvergenceWarning)
            joint = None
        if joint is not None:
            layers = with_own_weights(layers)
            encoder, decoder = encoder_of(layers), decoder_of(layers)
            with naming("joint"):
                joint.set_params(encoder=encoder, decoder=decoder)
                tasks.fit("fit-joint", joint, X, may_end=True, **known)
            encoder.load_state_dict(joint.encoder_.state_dict())
            decoder.load_state_dict(joint.decoder_.state_dict())
        self._keep(layers, joint)
        tasks.finish()
        return self

    @available_if(_steps_by_batch)
    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one pass over X in every layer, bottom up, continuing from what is fitted already.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The next rows of a stream. The first call's rows set the units of the data.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : object
            The fitted stack.
        """
        joint, layers, n_kept = self._begin(X, getattr(self, "layers_", []))
        if joint is not None:
            raise ValueError(
                "partial_fit takes one pass in every layer, but joint trains all of them when "
                "they have ended. Set joint=None, or use fit."
            )
        layers = [*map(shallow, layers[:n_kept]), *layers[n_kept:]]
        _check_data(layers[0], X, sample_weight, reset=not n_kept)

        def train(i: int, layer: Any, codes: Any) -> None:
            layer.partial_fit(codes, y, sample_weight=sample_weight)

        bottom_up(layers, X, train)
        self._keep(layers)
        return self

    def _initialise(self, X: Any, y: Any = None) -> None:
        """Give every layer the weights that its training would start from."""
        _, layers, _ = self._begin(X, [])

        def draw(i: int, layer: Any, codes: Any) -> None:
            layer._fit(codes, y, None, 0, keep=False, partial=True)

        bottom_up(layers, X, draw)
        self._keep(layers)

    def _keep(self, layers: list[Any], joint: Any = None) -> None:
        """Have these fitted layers, which `joint`, if given, was trained on after the top one."""
        self.layers_ = layers
        self.joint_loss_curve_ = None if joint is None else joint.loss_curve_
        self.stop_reason_ = (layers[-1] if joint is None else joint).stop_reason_

    def _begin(self, X: Any, fitted: Sequence[Any]) -> tuple[Any, list[Any], int]:
        """`joint`; those of `fitted` that stay, and layers to train above; how many stay."""
        self._check_layers()
        templates = self._templates(default_width(X))
        for i, template in enumerate(templates):
            with naming_layer(i):
                template._validate_params()
                template._objective()
        joint = None if self.joint is None else prepared_joint(clone(self.joint), templates)
        layers = [clone(template) for template in templates]
        if self.random_state is not None:
            random_state = check_random_state(self.random_state)
            for part in layers if joint is None else [*layers, joint]:
                seed_all(part, random_state)
        both = zip(templates, fitted, strict=False)
        kept = [old for _, old in takewhile(lambda pair: is_clone_of(*pair), both)]
        return joint, [*kept, *layers[len(kept) :]], len(kept)

    def _check_layers(self) -> None:
        if not self.layers:
            raise ValueError("layers is empty: give one entry a layer, such as layers=(100, 10).")
        for i, layer in enumerate(self.layers):
            if layer is not None and not is_size(layer) and not isinstance(layer, BaseAutoencoder):
                raise TypeError(
                    f"layer_{i} must be a number of code units, None or an autoencoder of this "
                    f"package (an instance), got {layer!r}."
                )

    def _templates(self, width: int | None = None) -> list[Any]:
        """What each layer is a clone of; entries that make no sense stay as they are.

        `width` is that of codes of which nothing is said, above the first layer.
        """
        templates: list[Any] = []
        for layer in self._entries().values():
            if layer is None or is_size(layer):
                layer = self._sized(layer, templates, width)
            templates.append(layer)
        return templates

    def _sized(self, size: int | None, below: Sequence[Any], width: int | None) -> Any:
        default = Autoencoder(hidden_layer_sizes=(), activation="tanh")
        template = shallow(default if self.estimator is None else self.estimator)
        if size is not None:
            template.n_components = int(size)
        if below:
            template.output_activation = mirrored_activation(template, below[-1])
            if width and template.n_components is None and template.encoder is None:
                template.n_components = width
        return template

    # ---- what is fitted

    def __len__(self) -> int:
        return len(getattr(self, "layers_", self.layers))

    def __getitem__(self, index):
        if not isinstance(index, slice):
            check_is_fitted(self)
            return self.layers_[index]
        start, stop, step = index.indices(len(self))
        if step != 1 or start >= stop:
            raise ValueError(
                f"A part of a stack has one or more layers in a row, got {index} of {len(self)}."
            )
        part, fitted = shallow(self), getattr(self, "layers_", [])
        # `layers` may have been set since, perhaps to fewer.
        layers = [*self.layers, *fitted[len(self.layers) :]]
        part.layers = type(self.layers)(layers[start:stop])
        if fitted:
            part.layers_ = fitted[start:stop]
            if len(part) < len(self):
                part._keep(part.layers_)
        return part

    @property
    def encoder_(self) -> nn.Module:  # type: ignore[override]
        """The network from X to the codes of the top layer."""
        return encoder_of(self.layers_)

    @property
    def decoder_(self) -> nn.Module:  # type: ignore[override]
        """The network from the codes of the top layer to X, before the output activation."""
        return decoder_of(self.layers_)

    @property
    def objective_(self) -> Objective:
        """The loss of the first layer."""
        return Objective(loss=self.layers_[0].objective_.loss)

    @property
    def n_layers_(self) -> int:
        """Number of layers."""
        return len(self.layers_)

    @property
    def n_components_(self) -> int:
        """Number of code units of the top layer."""
        return self.layers_[-1].n_components_

    @property
    def n_features_in_(self) -> int:
        """Number of features seen in `fit`."""
        return self.layers_[0].n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the features, where X has them."""
        return self.layers_[0].feature_names_in_

    @property
    def loss_curves_(self) -> list[list[float]]:
        """Mean training loss of every epoch, a list for each layer."""
        return [layer.loss_curve_ for layer in self.layers_]

    @property
    def n_iter_(self) -> int:
        """Number of epochs of all layers and of `joint`."""
        return sum(map(len, [*self.loss_curves_, self.joint_loss_curve_ or []]))

    @property
    def precision(self) -> str | None:  # type: ignore[override]
        """Arithmetic of the first layer, in which the stack's codes are computed."""
        return self.layers_[0].precision

    def _inference_device(self, X: Any) -> Any:
        return self.layers_[0]._inference_device(X)

    @property
    def _features(self) -> Any:  # type: ignore[override]
        return self.layers_[0]._features

    @property
    def _widest(self) -> int:
        return max(layer._widest for layer in self.layers_)

    # Layer by layer: `encoder_` and `decoder_` are made anew wherever they are asked for.

    def _encode(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        for layer in self.layers_[:-1]:
            x = layer._encode(x)
        return self.layers_[-1]._encode(x, out)

    def _raw(self, z: Tensor, out: Tensor | None = None) -> Tensor:
        for layer in self.layers_[:0:-1]:
            z = layer._decode(z)
        return self.layers_[0]._raw(z, out)

    @property
    def _namespace(self) -> str:
        return self.layers_[0]._namespace

    @property
    def _allows_nan(self) -> bool:  # type: ignore[override]
        """Whether NaN in X is a missing value, which is up to who sees X."""
        bottom = next(iter(self._entries().values()), None)
        bottom = bottom if isinstance(bottom, BaseAutoencoder) else self.estimator
        return getattr(bottom, "_allows_nan", False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Clones would say no more, and scikit-learn asks whenever it validates X.
        sized = Autoencoder() if self.estimator is None else self.estimator
        layers = (
            sized if layer is None or is_size(layer) else layer
            for layer in self._entries().values()
        )
        made_of = [part for part in (*layers, self.joint) if isinstance(part, BaseAutoencoder)]
        parts = [get_tags(part) for part in dict.fromkeys(made_of or [Autoencoder()])]
        tags.input_tags = parts[0].input_tags
        tags.input_tags.allow_nan &= getattr(self.joint, "_allows_nan", True)
        tags.target_tags.required = any(part.target_tags.required for part in parts)
        tags.transformer_tags = parts[0].transformer_tags
        tags.array_api_support = all(part.array_api_support for part in parts)
        return tags

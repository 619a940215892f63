"""What an autoencoder is made of: the parameters that all variants share."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch import nn

from skae.activations import ACTIVATIONS
from skae.estimators._estimator import estimator
from skae.losses import INVERSE_LINKS, LOSSES, Loss


@estimator
class NetworkParameters:
    """What an autoencoder is made of.

    Parameters
    ----------
    n_components : int, default=None
        Number of code units. None takes the square root of the number of features, rounded up.

    hidden_layer_sizes : tuple of int, default=(100,)
        Widths of the encoder's hidden layers; the decoder mirrors them. ``()`` is the
        single-layer autoencoder ``x^ = W2 f(W1 x + b1) + b2``.

    activation : {"identity", "logistic", "tanh", "relu", "softplus", "elu", "silu", "gelu"}, \
default="relu"
        Activation of the hidden layers.

    code_activation : str, default="auto"
        Activation of the code, any of the above. "auto" takes `activation` when there is no
        hidden layer and "identity" otherwise.

    output_activation : {"auto", "identity", "logistic", "tanh", "relu", "softplus"}, \
default="auto"
        Activation of the output. "auto" is the loss's own: identity, logistic for
        "binary_cross_entropy", the exponential for "poisson". `fit` refuses X outside its range.

    loss : {"squared_error", "binary_cross_entropy", "absolute_error", "huber", "poisson"} \
or Loss, default="squared_error"
        Reconstruction loss, the mean over features. A `Loss` instance carries its own numbers,
        as ``skae.losses.Huber(delta=2.0)``.

    tied_weights : bool, default=False
        Use the encoder's weights, transposed, in the decoder.

    encoder : torch.nn.Module, default=None
        An encoder of one's own, from (n, n_features) to (n, width of the code). It is copied,
        and trained in the dtype of X. `hidden_layer_sizes` and the activations then shape only
        the decoder. The `encoder_` of a fitted estimator counts as built in, and starts from its
        weights.

    decoder : torch.nn.Module, default=None
        A decoder of one's own, from the code to (n, n_features), before `output_activation`.

    initialize_from : fitted autoencoder, default=None
        Start from the weights of an estimator of the same shape. `clone` keeps it fitted.
    """

    n_components: int | None = None
    hidden_layer_sizes: tuple[int, ...] = (100,)
    activation: str = "relu"
    code_activation: str = "auto"
    output_activation: str = "auto"
    loss: str | Loss = "squared_error"
    tied_weights: bool = False
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    initialize_from: Any = None

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS) - {"exp"})],
        "code_activation": [StrOptions((set(ACTIVATIONS) - {"exp"}) | {"auto"})],
        "output_activation": [StrOptions((set(INVERSE_LINKS) - {"exp"}) | {"auto"})],
        "loss": [StrOptions(set(LOSSES)), Loss],
        "tied_weights": ["boolean"],
        "encoder": [nn.Module, None],
        "decoder": [nn.Module, None],
        "initialize_from": [HasMethods(["transform", "inverse_transform"]), None],
    }

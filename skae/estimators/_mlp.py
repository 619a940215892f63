"""scikit-learn's multi-layer perceptrons with the weights of torch modules of dense layers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from skae.activations import NAME_OF
from skae.modules import DenseModule

_MLP_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")


class Layer(NamedTuple):
    """A dense layer of a module: h = f(W x + b)."""

    linear: nn.Linear
    activation: str


def mlp_classifier(module: nn.Sequential, y: Any, **params: Any) -> Any:
    """The MLPClassifier that equals a module of dense layers, the last of which gives logits.

    `y` is labels, the array of all classes, or 0-1 indicators of several labels a sample. Two
    classes have one logit, more a softmax over theirs, labels one logit each.
    """
    *hidden, head = dense_layers(module)
    return _classifier(hidden, head, y, params)


def mlp_classifier_on(encoder: nn.Sequential, y: Any, **params: Any) -> Any:
    """The same with hidden layers only: scikit-learn draws the last one."""
    return _classifier(dense_layers(encoder), None, y, params)


def mlp_regressor(module: nn.Sequential, **params: Any) -> Any:
    """The MLPRegressor that equals a module of dense layers, the last of which is linear.

    With ``loss="poisson"`` it gives the logarithm of the prediction.
    """
    *hidden, head = dense_layers(module)
    return _regressor(hidden, head, head.linear.out_features, params)


def mlp_regressor_on(encoder: nn.Sequential, n_outputs: int, **params: Any) -> Any:
    """The same with hidden layers only: scikit-learn draws the last one."""
    return _regressor(dense_layers(encoder), None, n_outputs, params)


def dense_layers(module: nn.Module) -> list[Layer]:
    """The layers of a module that is nothing but linear layers and activations."""
    layers: list[Layer] = []
    for part in flat(module):
        if isinstance(part, nn.Linear):
            layers.append(Layer(part, "identity"))
        elif isinstance(part, nn.Identity):
            continue
        elif layers and layers[-1].activation == "identity" and type(part) in NAME_OF:
            layers[-1] = layers[-1]._replace(activation=NAME_OF[type(part)])
        else:
            raise ValueError(
                f"An MLP has dense layers only, but after {len(layers)} of them this network has "
                f"{type(part).__name__}({part.extra_repr()}). Use to_torch() instead."
            )
    return layers


def flat(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a sequence, in order; of another module the module itself."""
    if type(module) not in (nn.Sequential, DenseModule):
        yield module
    else:
        for part in module:  # type: ignore[attr-defined]
            yield from flat(part)


def _classifier(hidden: Sequence[Layer], head: Layer | None, y: Any, params: dict) -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import LabelBinarizer

    mlp: Any = MLPClassifier(**_structure(hidden, params), **{"warm_start": True} | params)
    if np.ndim(y) == 2 and np.shape(y)[1] == 1:
        y = column_or_1d(y)
    check_classification_targets(y)
    mlp._label_binarizer = LabelBinarizer().fit(y)
    mlp.classes_ = mlp._label_binarizer.classes_
    n_outputs = 1 if mlp._label_binarizer.y_type_ == "binary" else len(mlp.classes_)
    return _started(mlp, hidden, head, n_outputs)


def _regressor(hidden: Sequence[Layer], head: Layer | None, n_outputs: int, params: dict) -> Any:
    from sklearn.neural_network import MLPRegressor

    if "loss" in params and "loss" not in inspect.signature(MLPRegressor).parameters:
        raise ValueError("MLPRegressor has a loss='poisson' only from scikit-learn 1.7 on.")
    mlp = MLPRegressor(**_structure(hidden, params), **{"warm_start": True} | params)
    return _started(mlp, hidden, head, n_outputs)


def _structure(hidden: Sequence[Layer], params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an MLP that its hidden layers decide."""
    used = [layer.activation for layer in hidden]
    if len(set(used)) > 1 or not set(used) <= set(_MLP_ACTIVATIONS):
        listed = ", ".join(f"hidden layer {i} has {name!r}" for i, name in enumerate(used))
        best = next((name for name in used if name in _MLP_ACTIVATIONS[1:]), "tanh")
        raise ValueError(
            "An MLP has one activation, identity, logistic, tanh or relu, for all hidden layers, "
            f"of which the code is one, but here {listed}. Use activation={best!r} everywhere "
            "(code_activation too)."
        )
    made = {
        "hidden_layer_sizes": tuple(layer.linear.out_features for layer in hidden),
        "activation": used[0] if used else "identity",
    }
    for name, value in made.items():
        if name in params:
            raise ValueError(
                f"{name}={params[name]!r}, but the network has {value!r}. Leave {name} out."
            )
    return made


def _started(mlp: Any, hidden: Sequence[Layer], head: Layer | None, n_outputs: int) -> Any:
    """Put an MLP into the state of one whose `fit` has begun, with these weights."""
    if head is not None and (head.activation, head.linear.out_features) != ("identity", n_outputs):
        raise ValueError(
            f"The last layer must be linear with {n_outputs} outputs for these targets, but it has "
            f"{head.linear.out_features} and the activation {head.activation!r}."
        )
    layers = [*hidden] if head is None else [*hidden, head]
    first = layers[0].linear
    mlp.n_features_in_ = first.in_features
    units = [first.in_features, *(layer.linear.out_features for layer in hidden), n_outputs]
    mlp._random_state = check_random_state(mlp.random_state)
    # scikit-learn's own beginning of `fit`, private but the same from 1.6 to 1.9: it sets all that
    # `predict`, `fit` and `partial_fit` go by, and draws the head, where that is not given.
    dtype = first.weight.detach().cpu().numpy().dtype
    mlp._initialize(np.empty((0, n_outputs), dtype), units, dtype)
    for layer, W, b in zip(layers, mlp.coefs_, mlp.intercepts_, strict=False):
        W[:] = layer.linear.weight.detach().cpu().numpy().T
        b[:] = 0 if layer.linear.bias is None else layer.linear.bias.detach().cpu().numpy()
    mlp._best_coefs = [W.copy() for W in mlp.coefs_]
    mlp._best_intercepts = [b.copy() for b in mlp.intercepts_]
    return mlp

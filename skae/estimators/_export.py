"""Fitted networks for others: plain torch modules, and scikit-learn's multi-layer perceptrons."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skae.activations import ACTIVATIONS
from skae.estimators._mlp import (
    dense_layers,
    flat,
    mlp_classifier,
    mlp_classifier_on,
    mlp_regressor,
    mlp_regressor_on,
)
from skae.estimators._outputs import NumberOutputs
from skae.losses import Loss, Poisson, SquaredError
from skae.modules import Applied, Linear
from skae.objective import Objective, overrides

_AUTO_BATCH = 200  # what batch_size="auto" comes to at most, here as there
# Parameters of both, under the same name; `mlp_parameters` changes the values of some.
_SHARED = (
    "solver", "learning_rate_init", "batch_size", "max_iter", "shuffle", "tol", "n_iter_no_change",
    "momentum", "nesterovs_momentum", "early_stopping", "validation_fraction", "random_state",
    "verbose",
)  # fmt: skip


# ---- torch


def torch_of(estimator: Any, part: str) -> nn.Sequential:
    """A fitted autoencoder, or one part of it, as a module of its own."""
    _check_choice("part", part, ("autoencoder", "encoder", "decoder"))
    encoder = encoder_parts(estimator) if part != "decoder" else []
    decoder = decoder_parts(estimator) if part != "encoder" else []
    return nn.Sequential(*encoder, *decoder).eval()


def encoder_steps(estimator: Any) -> list[nn.Module]:
    """The steps from x to the code, which share the estimator's parameters."""
    coding: Objective = estimator._coding()
    hook = [Applied(coding, "encode")] if overrides(coding, "encode") else []
    return [estimator.encoder_, *hook]


def decoder_steps(estimator: Any) -> list[nn.Module]:
    """The steps from the code to x^, which share the estimator's parameters."""
    loss: Loss = estimator.objective_.loss
    if type(loss).predict is not Loss.predict:
        return [estimator.decoder_, Applied(loss, "predict")]
    output = [] if loss.link == "identity" else [ACTIVATIONS[loss.link].module()]  # type: ignore[misc]
    return [estimator.decoder_, *output]


def encoder_parts(estimator: Any) -> list[nn.Module]:
    """Copies of the steps from x to the code, taken apart."""
    return plain_parts(nn.Sequential(*encoder_steps(estimator)))


def decoder_parts(estimator: Any) -> list[nn.Module]:
    """Copies of the steps from the code to x^, taken apart."""
    return plain_parts(nn.Sequential(*decoder_steps(estimator)))


def plain_parts(module: nn.Module) -> list[nn.Module]:
    """A copy of a module, taken apart where it is a sequence, with torch's own linear layers."""
    return [_plain(part) if type(part) is Linear else part for part in flat(copy.deepcopy(module))]


def _plain(linear: Linear) -> nn.Linear:
    made = nn.Linear(linear.in_features, linear.out_features, device="meta")  # draws nothing
    made.weight, made.bias = linear.weight, linear.bias
    return made


def scaled_first(module: nn.Module, scale: np.ndarray, shift: np.ndarray) -> nn.Linear:
    """The linear layer of ``scale * x + shift`` that another linear layer of x is."""
    if type(module) is not nn.Linear:
        raise ValueError(
            "A scaler in front becomes part of the first layer, which has to be linear, but it is "
            f"{type(module).__name__}. Scale X before, and fine-tune without the scaler."
        )
    W, b = module.weight.detach().double(), module.bias.detach().double()
    a, c = (torch.as_tensor(part, dtype=torch.float64, device=W.device) for part in (scale, shift))
    made = nn.Linear(module.in_features, module.out_features, device="meta")
    made.weight = nn.Parameter((W * a).to(module.weight.dtype))
    made.bias = nn.Parameter((b + W @ c).to(module.bias.dtype))
    return made


# ---- scikit-learn


def mlp_of(estimator: Any, kind: str, y: Any, random_state: Any, given: Mapping[str, Any]) -> Any:
    """An MLP that starts from a fitted autoencoder's weights."""
    _check_choice("kind", kind, tuple(_MAKERS))
    if random_state is not None:
        given = {**given, "random_state": random_state}
    if y is None and kind != "autoencoder":
        what = "labels, or the array of all classes" if kind == "classifier" else "targets"
        raise ValueError(f"kind={kind!r} needs y for the number of outputs. Pass the {what}.")
    mlp = _MAKERS[kind](estimator, y, given)
    if hasattr(estimator, "feature_names_in_"):
        mlp.feature_names_in_ = estimator.feature_names_in_.copy()
    return mlp


def _classifier_mlp(estimator: Any, y: Any, given: Mapping[str, Any]) -> Any:
    encoder = nn.Sequential(*encoder_parts(estimator))
    return mlp_classifier_on(encoder, y, **mlp_parameters(estimator, given, 1.0))


def _regressor_mlp(estimator: Any, y: Any, given: Mapping[str, Any]) -> Any:
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    outputs = 1 if y.ndim == 1 else y.shape[1]
    c = 1.0 if given.get("loss") == "poisson" else 2.0
    encoder = nn.Sequential(*encoder_parts(estimator))
    return mlp_regressor_on(encoder, outputs, **mlp_parameters(estimator, given, c / outputs))


def _autoencoder_mlp(estimator: Any, y: Any, given: Mapping[str, Any]) -> Any:
    loss, d = estimator.objective_.loss, estimator.n_features_in_
    module = nn.Sequential(*encoder_parts(estimator), *plain_parts(estimator.decoder_))
    dense_layers(module)  # the first thing that an MLP cannot be
    if type(loss) not in _REGRESSION:
        raise ValueError(
            "An MLPRegressor has the squared error behind a linear output, or Poisson's behind an "
            f"exponential one, but this autoencoder has {type(loss).__name__} behind "
            f"{loss.link!r}. Fit it with loss='squared_error' and output_activation='auto', or "
            "use to_torch()."
        )
    own, c, value = _REGRESSION[type(loss)]
    if "loss" in given:
        raise ValueError(f"loss={given['loss']!r}, but an autoencoder keeps its own. Leave it out.")
    params = mlp_parameters(estimator, given, c / d) | own
    if "tol" in params and "tol" not in given and _stops_by_loss(params, estimator):
        params["tol"] *= value(d) * estimator.loss_
    return mlp_regressor(module, **params)


_MAKERS = {
    "classifier": _classifier_mlp, "regressor": _regressor_mlp, "autoencoder": _autoencoder_mlp,
}  # fmt: skip
# Of each loss: the MLP's name for it; c where our gradient is c / d (x^ - x), an MLP's being
# x^ - x; and what an MLP shows for a loss of 1 here (for the squared error its value is a mean
# over outputs, though its gradient is that of the sum).
_REGRESSION: dict[type[Loss], tuple[dict[str, str], float, Callable[[int], float]]] = {
    SquaredError: ({}, 2.0, lambda d: 0.5),
    Poisson: ({"loss": "poisson"}, 1.0, float),
}


def mlp_parameters(estimator: Any, given: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    """Parameters by which an MLP trains as the estimator does, but for those that are given.

    `ratio` is the gradient of our loss divided by that of the MLP's. We minimise
    ``loss + alpha / 2 |W|^2``; on a batch of b rows an MLP has the gradient of
    ``loss / ratio + alpha_mlp / (2 b) |W|^2``, the same but for that factor where
    ``alpha_mlp = b alpha / ratio``. A step of sgd is the same with `ratio` times our rate.
    """
    own = estimator.get_params(deep=False)
    params = {name: own[name] for name in _SHARED if name in own}
    if "solver" not in own:  # made of others that have them
        return {**params, **given}
    if own["tol"] is None:
        params |= {"tol": 0.0, "n_iter_no_change": np.inf}
    if own["solver"] == "cg":
        params["solver"] = "lbfgs"  # the other one that takes all rows at once
    params |= given
    if "alpha" not in given:
        params["alpha"] = own["alpha"] * _rows_per_step(params, estimator) / ratio
    if "learning_rate_init" not in given and own["solver"] == params["solver"] == "sgd":
        params["learning_rate_init"] *= ratio
    return params


def mlp_of_predictor(estimator: Any, given: Mapping[str, Any]) -> Any:
    """The MLP that predicts what a network that labels trained does."""
    module, outputs = estimator.to_torch(), estimator._outputs
    if isinstance(outputs, NumberOutputs):
        ratio = 2.0 / outputs.width
        mlp = mlp_regressor(module, **mlp_parameters(estimator, given, ratio))
    else:
        y = np.eye(outputs.width) if outputs.is_multilabel else outputs.classes
        is_one_against_rest = len(outputs.classes) > 2 and not outputs.is_multilabel
        if outputs.link != ("softmax" if is_one_against_rest else "logistic"):
            raise ValueError(
                "An MLPClassifier has a softmax, or logistic outputs for two classes and "
                f"multilabel, but these outputs are trained by {type(outputs.loss).__name__}. End "
                "the pipeline with LogisticRegression, or use to_torch()."
            )
        mlp = mlp_classifier(module, y, **mlp_parameters(estimator, given, 1.0))
    if hasattr(estimator, "feature_names_in_"):
        mlp.feature_names_in_ = estimator.feature_names_in_.copy()
    return mlp


def _stops_by_loss(params: Mapping[str, Any], estimator: Any) -> bool:
    """Whether an MLP compares losses, and the last one here tells their size."""
    watches_loss = params["solver"] != "lbfgs" and not params["early_stopping"]
    return watches_loss and math.isfinite(estimator.loss_)


def _rows_per_step(params: Mapping[str, Any], estimator: Any) -> int:
    n = estimator._n_trained
    if params["solver"] == "lbfgs":
        return n
    return min(n, _AUTO_BATCH if params["batch_size"] == "auto" else params["batch_size"])


def _check_choice(name: str, given: Any, choices: Sequence[str]) -> None:
    if given not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {given!r}.")


# ---- methods


class ExportsAutoencoder:
    """A fitted autoencoder that is given away."""

    def to_torch(self, part="autoencoder"):
        """Copy the network as a plain ``torch.nn.Sequential``.

        It works in the units of X and includes the output's activation, so that
        ``to_torch()(torch.from_numpy(X))`` is ``reconstruct(X)``, and is independent of this
        estimator. Linear layers and activations are torch's own. Where a code or an output takes
        another step (a k-sparse code, split-brain predictions), a module of this package does it.
        Missing values are not filled in: fill them with `statistics_` before.

        Parameters
        ----------
        part : {"autoencoder", "encoder", "decoder"}, default="autoencoder"
            The whole network, from X to its reconstruction, or only that to or from the code.

        Returns
        -------
        module : torch.nn.Sequential
            In inference mode, in the dtype and on the device of the fitted network; its
            parameters can be trained further.

        Raises
        ------
        ValueError
            If there is no such part.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, _ = load_digits(return_X_y=True)
        >>> model = Autoencoder(n_components=8, hidden_layer_sizes=(), max_iter=2).fit(X)
        >>> model.to_torch()
        Sequential(
          (0): Linear(in_features=64, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=64, bias=True)
        )
        """
        check_is_fitted(self)
        return torch_of(self, part)

    def to_mlp(self, kind, y=None, random_state=None, **mlp_params):
        """Start a multi-layer perceptron of scikit-learn from the trained weights.

        It predicts right away; `fit`, which has ``warm_start=True``, and `partial_fit` go on from
        these weights. (A classifier's `partial_fit` on chunks that lack some class needs
        ``warm_start=False``, as everywhere in scikit-learn.) Its hidden layers are the encoder's,
        the code included, with a new last layer on top; or, as an autoencoder, all layers, so that
        its `predict` is `reconstruct`. Corruption, penalties and dropout are not part of it.

        Parameters
        ----------
        kind : {"classifier", "regressor", "autoencoder"}
            An `MLPClassifier` or `MLPRegressor` on the code, or an `MLPRegressor` from X to X.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The targets that it will be fitted to, for its outputs; an array of all classes will
            do for one label a sample, 0-1 indicators are several. Ignored by "autoencoder".

        random_state : int, RandomState instance, default=None
            Draws the new layer, as an MLP draws it, and becomes the MLP's own. None is that of
            this estimator.

        **mlp_params : dict
            Other parameters of the MLP, instead of what they would be; not `hidden_layer_sizes`
            and `activation`, nor an autoencoder's `loss`.

        Returns
        -------
        mlp : MLPClassifier or MLPRegressor
            With its own copy of the weights.

        Raises
        ------
        ValueError
            If an MLP cannot be this network: all its hidden layers have one activation, identity,
            logistic, tanh or relu, and regression has a squared error behind a linear output (or,
            from scikit-learn 1.7 on, a Poisson loss behind an exponential one).

        Notes
        -----
        The parameters that both have are taken over. Those that mean something else there:

        - `alpha`, of which an MLP divides the gradient by the rows of a batch, beside squared
          errors summed over outputs. As an autoencoder it gets ``rows d alpha / 2`` (Poisson
          loss: ``rows d alpha``), with rows those of a batch here (all of them under lbfgs), and
          d features: the same minimum. On a code, ``alpha / 2 |W|^2`` stands beside the
          cross-entropy of a sample (``rows alpha``), or beside its mean squared error.
        - `learning_rate_init`: sgd takes the same steps with it divided by the same d / 2 (or d).
          Adam here works in the units of the data, there on raw weights, with the same rate.
        - `tol` is a fraction of the loss here and absolute there; as an autoencoder it is
          converted at the last loss (but for lbfgs and early stopping, which compare something
          else). None becomes ``n_iter_no_change=inf``.
        - ``solver="cg"`` becomes "lbfgs". Schedules are not taken over: the learning rate is
          constant.

        An estimator that holds others, as a stack, has none of these: they are an MLP's defaults.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, y = load_digits(return_X_y=True)
        >>> model = Autoencoder(n_components=32, code_activation="relu", max_iter=5, random_state=0)
        >>> mlp = model.fit(X / 16).to_mlp("classifier", y, max_iter=10)
        >>> mlp.hidden_layer_sizes
        (100, 32)
        >>> mlp.fit(X / 16, y).score(X / 16, y) > 0.8
        True
        """
        check_is_fitted(self)
        return mlp_of(self, kind, y, random_state, mlp_params)

"""A fitted pipeline as a network: what stays in front of it, its layers, and its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae.estimators._export import encoder_steps
from skae.estimators._fitted import FittedAutoencoder
from skae.estimators._outputs import ClassOutputs, NumberOutputs, Outputs
from skae.modules import DenseModule, Linear, chained

_SGD_LINKS = {"log_loss": "logistic", "hinge": "hinge", "squared_hinge": "squared_hinge",
              "squared_error": "squared_margin"}  # fmt: skip
_SCALERS = MaxAbsScaler | MinMaxScaler | RobustScaler | StandardScaler
_LINEAR_REGRESSORS = (LinearRegression, Ridge, Lasso, ElasticNet, SGDRegressor)


class PipelineNetwork(NamedTuple):
    """A fitted pipeline in parts."""

    before: Pipeline | None  # steps in front of the first autoencoder, which stay as they are
    encoder: nn.Module
    head: DenseModule
    outputs: Outputs
    first: tuple[str, Any]  # the first autoencoder and its name


def read_pipeline(pipeline: Any) -> PipelineNetwork:
    """The network that gives what a fitted pipeline predicts.

    Raises ValueError for a step that cannot be a layer.
    """
    before, steps, (name, last) = checked_steps(pipeline)
    check_is_fitted(last)
    modules = [layer for named in steps for layer in _layers(*named)]
    linear, outputs = _linear_head(name, last)
    *encoder, head = _merged([*modules, linear])
    # A pipeline's names have no double underscores.
    front = Pipeline([(n.replace("__", "."), step) for n, step in before]) if before else None
    return PipelineNetwork(front, chained(encoder), head, outputs, steps[0])


Steps = list[tuple[str, Any]]


def checked_steps(pipeline: Any) -> tuple[Steps, Steps, tuple[str, Any]]:
    """The steps in front of the first autoencoder, those from there on, and the last one.

    Raises ValueError for one whose kind cannot be a layer, fitted or not.
    """
    pipeline = inner_estimator(pipeline)
    if not isinstance(pipeline, Pipeline) or len(pipeline.steps) < 2:
        raise ValueError(
            "What is fine-tuned must be a Pipeline of scalers, autoencoders and a linear model, "
            f"got {type(pipeline).__name__}. Make one with make_pipeline."
        )
    *steps, last = _flat(pipeline)
    first = next((i for i, (_, step) in enumerate(steps) if _is_autoencoder(step)), None)
    if first is None:
        raise ValueError(
            f"The pipeline {[name for name, _ in pipeline.steps]} has no autoencoder of this "
            "package, so that there is no network to fine-tune. Put one before the last step."
        )
    for name, step in steps[first:]:
        is_linear = isinstance(step, PCA | TruncatedSVD | _SCALERS) and not getattr(
            step, "clip", False
        )
        if not (_is_autoencoder(step) or is_linear):
            raise ValueError(
                f"Step {name!r}, {type(step).__name__}, cannot be a layer of a network: between "
                "the first autoencoder and the last step there may be autoencoders, linear "
                "scalers, PCA and TruncatedSVD. Put it before the first autoencoder, where it "
                "stays as it is."
            )
    _check_last(*last)
    return steps[:first], steps[first:], last


def inner_estimator(estimator: Any) -> Any:
    """What a frozen estimator or a search holds; the best one, where that is known."""
    while isinstance(estimator, FrozenEstimator | BaseSearchCV):
        estimator = getattr(estimator, "best_estimator_", estimator.estimator)
    return estimator


def _flat(pipeline: Pipeline) -> Iterator[tuple[str, Any]]:
    """The steps, those of pipelines inside taken out, frozen ones as what they hold."""
    for name, step in pipeline.steps:
        step = inner_estimator(step)
        if isinstance(step, Pipeline):
            yield from ((f"{name}__{inner}", part) for inner, part in _flat(step))
        elif step not in (None, "passthrough"):
            yield name, step


def _is_autoencoder(step: Any) -> bool:
    return isinstance(step, FittedAutoencoder)


class _Affine(NamedTuple):
    """z -> scale * z + shift, column by column; merged into the linear layer that follows."""

    scale: Tensor
    shift: Tensor


def _layers(name: str, step: Any) -> list[Any]:
    """A step between the first autoencoder and the last step, as modules or scalers."""
    if _is_autoencoder(step):
        encoder, *hook = encoder_steps(step)
        return [*(encoder if type(encoder) is nn.Sequential else [encoder]), *hook]
    if isinstance(step, PCA | TruncatedSVD):
        return [DenseModule(_linear(*_projection(step)))]
    scale, shift = as_affine(step)  # type: ignore[misc]
    return [_Affine(*(torch.as_tensor(part, dtype=torch.float64) for part in (scale, shift)))]


def as_affine(step: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of a fitted scaler; None where it is none, or clips."""
    width = getattr(step, "n_features_in_", 1)
    zero, one = np.zeros(width), np.ones(width)
    if isinstance(step, MinMaxScaler) and not step.clip:
        return step.scale_, step.min_
    if isinstance(step, MaxAbsScaler) and not getattr(step, "clip", False):
        return 1 / step.scale_, zero
    if isinstance(step, StandardScaler | RobustScaler):
        center = step.mean_ if isinstance(step, StandardScaler) else step.center_
        scale = one if step.scale_ is None else 1 / step.scale_
        centers = step.with_mean if isinstance(step, StandardScaler) else step.with_centering
        return scale, -center * scale if centers else zero
    return None


def _projection(step: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of a linear projection."""
    W = step.components_
    if getattr(step, "whiten", False):
        W = W / np.sqrt(step.explained_variance_)[:, None]
    mean = getattr(step, "mean_", None)
    return W, np.zeros(len(W)) if mean is None else -W @ mean


def _linear(W: np.ndarray, b: np.ndarray) -> Linear:
    linear = Linear(W.shape[1], W.shape[0], device="meta")
    linear.weight = nn.Parameter(torch.tensor(W, dtype=torch.float64))
    linear.bias = nn.Parameter(torch.tensor(b, dtype=torch.float64))
    return linear


def _merged(modules: Sequence[nn.Module | _Affine]) -> list[Any]:
    """The same modules with scalers merged into the layers that follow them."""
    out: list[Any] = []
    waiting: _Affine | None = None
    for module in modules:
        if isinstance(module, _Affine):
            if waiting is not None:
                shift = module.scale * waiting.shift + module.shift
                module = _Affine(module.scale * waiting.scale, shift)
            waiting = module
            continue
        if waiting is not None:
            module, waiting = _after(waiting, module), None
        out.append(module)
    return out


def _after(affine: _Affine, module: nn.Module) -> DenseModule:
    """A dense module that scales its input first."""
    if not isinstance(module, DenseModule):
        raise ValueError(
            "A scaler between autoencoders becomes part of the layer that follows it, which has "
            "to be a built-in dense one. Leave the scaler out there."
        )
    first, *rest = module
    weight: Any = first.weight
    W, b = weight.detach().double().cpu(), first.bias.detach().double().cpu()  # type: ignore[operator]
    scaled = _linear((W * affine.scale).numpy(), (b + W @ affine.shift).numpy())
    return DenseModule(scaled.to(weight), *rest)


def _check_last(name: str, model: Any) -> None:
    """Raise unless the model is linear and its loss one of ours."""
    if isinstance(model, _LINEAR_REGRESSORS):
        what = "loss" if getattr(model, "loss", "squared_error") != "squared_error" else None
        allowed = "'squared_error'"
    elif isinstance(model, SGDClassifier):
        what, allowed = None if model.loss in _SGD_LINKS else "loss", _listed(_SGD_LINKS)
    elif isinstance(model, LinearSVC):
        what, allowed = None if model.multi_class == "ovr" else "multi_class", "'ovr'"
    elif isinstance(model, LogisticRegression | RidgeClassifier):
        return
    else:
        raise ValueError(
            f"The last step {name!r}, {type(model).__name__}, cannot be the last layer of a "
            "network: use LogisticRegression, LinearSVC, SGDClassifier, RidgeClassifier, Ridge, "
            "LinearRegression, Lasso, ElasticNet or SGDRegressor."
        )
    if what is not None:
        raise ValueError(
            f"The last step {name!r}, {type(model).__name__}({what}={getattr(model, what)!r}), "
            f"cannot be the last layer of a network: {what} may be {allowed}."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _linear_head(name: str, model: Any) -> tuple[DenseModule, Outputs]:
    """The linear model as a layer, and what its outputs stand for."""
    W = np.atleast_2d(model.coef_)
    b = np.broadcast_to(np.asarray(model.intercept_, dtype=float), (len(W),))
    outputs: Outputs
    if isinstance(model, _LINEAR_REGRESSORS):
        outputs = NumberOutputs(len(W), np.ndim(model.coef_) == 1)
    elif isinstance(model, RidgeClassifier) and _is_multilabel(model):
        outputs = ClassOutputs(np.arange(len(W)), "squared_margin", is_multilabel=True)
    else:
        link, factor = _link(model)
        W, b, outputs = factor * W, factor * b, ClassOutputs(model.classes_, link)
    return DenseModule(_linear(W, b)).eval(), outputs


def _is_multilabel(model: RidgeClassifier) -> bool:
    return model._label_binarizer.y_type_.startswith("multilabel")


def _link(model: Any) -> tuple[str, float]:
    """The loss of a linear classifier, by its link, and what its outputs are multiplied with."""
    if isinstance(model, LogisticRegression):  # with cross-validation or not
        is_binary = len(model.classes_) == 2
        strategy = getattr(model, "multi_class", None)  # before scikit-learn 1.8
        if strategy == "multinomial" and is_binary:
            return "logistic", 2.0  # a softmax of -f and f
        one_by_one = strategy == "ovr" or (model.solver == "liblinear")
        return ("logistic" if is_binary or one_by_one else "softmax"), 1.0
    if isinstance(model, LinearSVC):
        return model.loss, 1.0
    return (_SGD_LINKS[model.loss] if isinstance(model, SGDClassifier) else "squared_margin"), 1.0

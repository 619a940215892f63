"""A fitted pipeline as a network: what stays in front of it, its layers, and its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA, TruncatedSVD
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
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae.estimators._fitted import FittedAutoencoder
from skae.estimators._outputs import ClassOutputs, NumberOutputs, Outputs
from skae.modules import Applied, DenseModule, Linear, chained
from skae.objective import overrides

_SGD_LINKS = {"log_loss": "logistic", "hinge": "hinge", "squared_hinge": "squared_hinge",
              "squared_error": "squared_margin"}  # fmt: skip
_LINEAR_REGRESSORS = (LinearRegression, Ridge, Lasso, ElasticNet, SGDRegressor)


class PipelineNetwork(NamedTuple):
    """A fitted pipeline in parts."""

    before: Pipeline | None  # steps in front of the first autoencoder, which stay as they are
    encoder: nn.Module
    head: DenseModule
    outputs: Outputs


def read_pipeline(pipeline: Any) -> PipelineNetwork:
    """The network that gives what a fitted pipeline predicts.

    Raises ValueError for a step that cannot be a layer.
    """
    pipeline = getattr(pipeline, "estimator", pipeline)  # a FrozenEstimator
    if not isinstance(pipeline, Pipeline) or len(pipeline.steps) < 2:
        raise ValueError(
            "What is fine-tuned must be a Pipeline of scalers, autoencoders and a linear model, "
            f"got {type(pipeline).__name__}. Make one with make_pipeline."
        )
    check_is_fitted(pipeline)
    steps = [(n, step) for n, step in pipeline.steps[:-1] if step not in (None, "passthrough")]
    first = next((i for i, (_, step) in enumerate(steps) if _is_autoencoder(step)), None)
    if first is None:
        raise ValueError(
            f"The pipeline {[name for name, _ in pipeline.steps]} has no autoencoder of this "
            "package, so that there is no network to fine-tune. Put one before the last step."
        )
    before = Pipeline(steps[:first]) if first else None
    modules = [layer for name, step in steps[first:] for layer in _layers(name, step)]
    linear, outputs = _linear_head(*pipeline.steps[-1])
    *encoder, head = _merged([*modules, linear])
    return PipelineNetwork(before, chained(encoder), head, outputs)


def _is_autoencoder(step: Any) -> bool:
    return isinstance(step, FittedAutoencoder)


class _Affine(NamedTuple):
    """z -> scale * z + shift, column by column; merged into the linear layer that follows."""

    scale: Tensor
    shift: Tensor


def _layers(name: str, step: Any) -> list[Any]:
    """A step between the first autoencoder and the last step, as modules or scalers."""
    if _is_autoencoder(step):
        encoder, coding = step.encoder_, step._coding()
        parts = list(encoder) if type(encoder) is nn.Sequential else [encoder]
        return [*parts, Applied(coding, "encode")] if overrides(coding, "encode") else parts
    if isinstance(step, PCA | TruncatedSVD):
        return [DenseModule(_linear(*_projection(step)))]
    affine = as_affine(step)
    if affine is None:
        raise ValueError(
            f"Step {name!r}, {type(step).__name__}, cannot be a layer of a network: between the "
            "first autoencoder and the last step there may be autoencoders, linear scalers, PCA "
            "and TruncatedSVD. Put it before the first autoencoder, where it stays as it is."
        )
    return [_Affine(*(torch.as_tensor(part, dtype=torch.float64) for part in affine))]


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
    W, b = weight.detach().double(), first.bias.detach().double()  # type: ignore[operator]
    scaled = _linear((W * affine.scale).numpy(), (b + W @ affine.shift).numpy())
    return DenseModule(scaled.to(weight.dtype), *rest)


def _linear_head(name: str, model: Any) -> tuple[DenseModule, Outputs]:
    """The linear model as a layer, and what its outputs stand for."""
    link = _link(model)
    if isinstance(model, _LINEAR_REGRESSORS):
        _check_squared(name, model)
        W = np.atleast_2d(model.coef_)
        outputs: Outputs = NumberOutputs(len(W), np.ndim(model.coef_) == 1)
    elif link is not None:
        W, outputs = np.atleast_2d(model.coef_), ClassOutputs(model.classes_, link)
        if isinstance(model, RidgeClassifier) and len(W) != outputs.width:
            outputs = ClassOutputs(np.arange(len(W)), link, is_multilabel=True)
    else:
        raise ValueError(
            f"The last step {name!r}, {_said(model)}, cannot be the last layer of a network: use "
            "LogisticRegression, LinearSVC, SGDClassifier, RidgeClassifier, Ridge, "
            "LinearRegression, Lasso, ElasticNet or SGDRegressor."
        )
    b = np.broadcast_to(np.asarray(model.intercept_, dtype=float), (len(W),))
    return DenseModule(_linear(W, b)).eval(), outputs


def _link(model: Any) -> str | None:
    """The loss of a linear classifier, by the link of its outputs."""
    if isinstance(model, LogisticRegression):  # with cross-validation or not
        return "logistic" if len(model.classes_) == 2 else "softmax"
    if isinstance(model, LinearSVC):
        return model.loss if model.multi_class == "ovr" or len(model.classes_) == 2 else None
    if isinstance(model, SGDClassifier):
        return _SGD_LINKS.get(model.loss)
    return "squared_margin" if isinstance(model, RidgeClassifier) else None


def _check_squared(name: str, model: Any) -> None:
    if getattr(model, "loss", "squared_error") != "squared_error":
        raise ValueError(
            f"The last step {name!r}, {_said(model)}, is fine-tuned by the squared error only. Use "
            "loss='squared_error'."
        )


def _said(model: Any) -> str:
    loss = f"(loss={model.loss!r})" if hasattr(model, "loss") else ""
    return f"{type(model).__name__}{loss}"

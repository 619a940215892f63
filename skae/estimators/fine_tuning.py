"""Fine-tuning: a pipeline of autoencoders under a linear model, trained on as one network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils._param_validation import HasMethods
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_consistent_length, has_fit_parameter, validate_data

from skae.estimators._base import BaseAutoencoder, all_or_nothing
from skae.estimators._compat import with_callbacks
from skae.estimators._estimator import estimator
from skae.estimators._input import Data, read_rows
from skae.estimators._outputs import ClassOutputs, Outputs
from skae.estimators._predictor import Layers, NetworkPredictor
from skae.estimators._progress import pass_on_interruption
from skae.estimators._supervised import NetworkClassifier, NetworkRegressor
from skae.estimators._training import seed_all
from skae.estimators.autoencoder import Autoencoder

if TYPE_CHECKING:  # it would be a twelfth of the package's import time
    from sklearn.pipeline import Pipeline


@estimator
class PipelineParameters:
    """What a fine-tuned network is made of."""

    estimator: Any = None

    _parameter_constraints = {"estimator": [HasMethods(["fit", "predict"]), None]}


class _FineTuned(NetworkPredictor):
    """A network whose layers are a pipeline's."""

    estimator: Any  # what PipelineParameters has
    estimator_: Any
    before_: Pipeline | None

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Fit the pipeline, and train it on as one network.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, as the last step of the pipeline takes them.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for every step whose `fit` takes them, and for the network.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a step cannot be a layer, or training diverges. The estimator is then as it was
            before the call.
        """
        # Here, since it imports the linear models.
        from skae.estimators._pipeline import checked_steps, read_pipeline

        given = clone(self._default() if self.estimator is None else self.estimator)
        _check_kind(self, given)
        checked_steps(given)
        labels, _ = self._read_labels(y)
        check_consistent_length(X, labels)
        self._check_early(labels)
        validate_data(self, X, reset=True, skip_check_array=True)
        random_state = check_random_state(self._seed())
        if self.random_state is not None:
            seed_all(given, random_state)
        tasks = self._subtasks(X)
        weights = self._weights(given, sample_weight)
        self.estimator_ = tasks.fit("fit-estimator", given, X, y, **weights)
        _pass_interrupt_on(given, checked_steps(given)[1])
        network = read_pipeline(self.estimator_)
        self.before_ = network.before
        _check_labels(labels, network.outputs)
        data = self._read_first(X, *network.first)
        seed = int(random_state.randint(2**31 - 1))
        layers = Layers(network.encoder, network.head)
        self._tune(X, labels, sample_weight, data, layers, network.outputs, seed, tasks)
        return self

    def _weights(self, pipeline: Any, sample_weight: Any) -> dict[str, Any]:
        """The weights, for every step of the pipeline that takes them."""
        if sample_weight is None:
            return {}
        if _routing_enabled():
            return process_routing(self, "fit", sample_weight=sample_weight).estimator.fit
        from skae.estimators._pipeline import inner_estimator

        return _nested_weights(inner_estimator(pipeline), sample_weight)

    def get_metadata_routing(self):
        """Get what becomes of metadata: the pipeline's steps get what they ask for.

        Returns
        -------
        routing : MetadataRouter
            The network itself takes `sample_weight` as well.
        """
        given = self._default() if self.estimator is None else self.estimator
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        return router.add(estimator=given, method_mapping=mapping)

    def _read_first(self, X: Any, name: str, first: Any) -> Data:
        """X for the network, which has to be like that of the pipeline."""
        if self.before_ is None:
            validate_data(first, X, reset=False, skip_check_array=True)
        try:
            return self._read_input(X, self.device)
        except ValueError as error:
            if first._allows_nan and "NaN" in str(error):
                raise ValueError(
                    f"Step {name!r}, {type(first).__name__}, fills missing values in X, which a "
                    "layer of a network cannot. Put an imputer in front, such as SimpleImputer."
                ) from error
            raise

    @staticmethod
    def _default() -> Pipeline:
        raise NotImplementedError

    def _read_input(self, X: Any, device: Any, *, reset: bool = False) -> Data:
        if self.before_ is None:
            return super()._read_input(X, device, reset=reset)
        validate_data(self, X, reset=False, skip_check_array=True)
        return read_rows(self, self.before_.transform(X), self.precision, device)

    def _front(self) -> tuple[np.ndarray, np.ndarray] | None:
        from skae.estimators._pipeline import as_affine

        front = None
        for name, step in self.before_.steps if self.before_ else ():
            affine = as_affine(step)
            if affine is None:
                raise ValueError(
                    f"Step {name!r}, {type(step).__name__}, in front of the network is no linear "
                    "scaler, so that the whole is no network. Apply the steps in before_ yourself "
                    "and take the network from encoder_ and head_."
                )
            a, c = affine
            front = affine if front is None else (a * front[0], a * front[1] + c)
        return front

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        given = self._default() if self.estimator is None else self.estimator
        tags.input_tags = get_tags(given).input_tags
        first = given.steps[0][1] if hasattr(given, "steps") else None
        tags.input_tags.allow_nan &= not isinstance(first, BaseAutoencoder)
        return tags


def _nested_weights(pipeline: Any, sample_weight: Any) -> dict[str, Any]:
    """The weights under the names that a pipeline, and those inside it, take them by."""
    weights: dict[str, Any] = {}
    for name, step in getattr(pipeline, "steps", ()):
        inner = _nested_weights(step, sample_weight)
        weights |= {f"{name}__{key}": value for key, value in inner.items()}
        if step not in (None, "passthrough") and has_fit_parameter(step, "sample_weight"):
            weights[f"{name}__sample_weight"] = sample_weight
    return weights


def _pass_interrupt_on(given: Any, steps: list[tuple[str, Any]]) -> None:
    """End here where the fit of an autoencoder was interrupted, which keeps what it has."""
    if not isinstance(given, FrozenEstimator):
        for _, step in steps:
            pass_on_interruption(step)


def _check_kind(tuned: Any, given: Any) -> None:
    """Raise where a classifier is given a regressor, or the other way round."""
    wants, is_one = is_classifier(tuned), is_classifier(given)
    if wants != is_one:
        kinds, names = ("regressor", "classifier"), ("FineTunedRegressor", "FineTunedClassifier")
        raise ValueError(
            f"{names[wants]} needs a pipeline that ends in a {kinds[wants]}, but estimator is a "
            f"{kinds[is_one]}. Use {names[is_one]}."
        )


def _check_labels(labels: np.ndarray, outputs: Outputs) -> None:
    """Raise where y is not of the kind that the pipeline's last step has learned."""
    if isinstance(outputs, ClassOutputs) and not outputs.is_multilabel:
        unknown = np.setdiff1d(labels, outputs.classes)
        if len(unknown):
            raise ValueError(
                f"y has the labels {unknown[:5].tolist()}, which the pipeline was not fitted with: "
                f"it knows {outputs.classes.tolist()[:10]}. Fit it with all classes first."
            )
        return
    width = 1 if labels.ndim == 1 else labels.shape[1]
    if width != outputs.width:
        raise ValueError(f"y has {width} columns, but the pipeline predicts {outputs.width}.")


@estimator
class FineTunedClassifier(_FineTuned, NetworkClassifier, PipelineParameters):
    r"""Classifier: a pipeline of autoencoders and a linear classifier, fine-tuned as one network.

    The pipeline is fitted as it stands: scalers, autoencoders, and a linear classifier on the
    codes. Then encoders and classifier become one network, which predicts the same, and
    back-propagation goes on from there (the lecture's third stage). Over n rows it minimises

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} l(y_i, f(x_i)) + \frac{\alpha}{2} \lVert W \rVert^2

    with :math:`l` the loss of the linear classifier: cross-entropy, in nats, for
    `LogisticRegression` (softmax, or one logistic output for two classes) and
    ``SGDClassifier(loss="log_loss")`` (one class against the rest); hinge or squared hinge for
    `LinearSVC` and `SGDClassifier`; squared error to -1 and 1 for `RidgeClassifier`. All are summed
    over outputs. The classifier's own penalty, such as C, plays no part; `alpha` is the network's.

    Steps in front of the first autoencoder stay as they are and are applied first. Between it and
    the last step there may be autoencoders, linear scalers, `PCA` and `TruncatedSVD`. Corruption
    and penalties of the autoencoders are no part of the network, nor what they do about missing
    values. Codes that are more than dense layers (k-sparse, split-brain, a module of one's own,
    which stays in inference mode) are trained by autograd, in the units of X; `dropout` and
    `max_norm` are for dense layers then, and `dropout` covers the code.

    Parameters
    ----------
    estimator : Pipeline, default=None
        It is cloned and fitted; ``FrozenEstimator(pipeline)`` keeps one that is fitted, as
        `fine_tune` does. None is ``make_pipeline(Autoencoder(), LogisticRegression())``.

    random_state : int, RandomState instance, default=None
        Seeds shuffling, the held-out rows and dropout, and every `random_state` of the pipeline,
        in place of its own.

    Attributes
    ----------
    estimator_ : Pipeline
        The fitted pipeline, before fine-tuning.

    before_ : Pipeline or None
        Its steps in front of the first autoencoder.

    See Also
    --------
    fine_tune : The same for a pipeline that is fitted already.

    References
    ----------
    .. [1] Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks",
       Science 313 (2006).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skae import Autoencoder, FineTunedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> pipeline = make_pipeline(
    ...     MinMaxScaler(),
    ...     Autoencoder(n_components=8, max_iter=5, tol=None, random_state=0),
    ...     LogisticRegression(),
    ... )
    >>> model = FineTunedClassifier(estimator=pipeline, max_iter=20, tol=None, random_state=0)
    >>> model.fit(X, y).score(X, y) > model.estimator_.score(X, y)
    True
    """

    _parameter_constraints = {
        **NetworkClassifier._parameter_constraints,
        **PipelineParameters._parameter_constraints,
    }

    @staticmethod
    def _default() -> Pipeline:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        return make_pipeline(Autoencoder(), LogisticRegression())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = False  # of the linear classifiers hardly any takes it
        return tags


@estimator
class FineTunedRegressor(_FineTuned, NetworkRegressor, PipelineParameters):
    r"""Regressor: a pipeline of autoencoders and a linear regressor, fine-tuned as one network.

    As `FineTunedClassifier`, with a squared error, the mean over outputs, in place of its loss:

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \frac{1}{m} \lVert y_i - f(x_i) \rVert^2
        + \frac{\alpha}{2} \lVert W \rVert^2

    over n rows of m outputs. The regressor's own penalty plays no part.

    Parameters
    ----------
    estimator : Pipeline, default=None
        It is cloned and fitted; ``FrozenEstimator(pipeline)`` keeps one that is fitted, as
        `fine_tune` does. None is ``make_pipeline(Autoencoder(), Ridge())``.

    random_state : int, RandomState instance, default=None
        Seeds shuffling, the held-out rows and dropout, and every `random_state` of the pipeline,
        in place of its own.

    Attributes
    ----------
    estimator_ : Pipeline
        The fitted pipeline, before fine-tuning.

    before_ : Pipeline or None
        Its steps in front of the first autoencoder.

    See Also
    --------
    fine_tune : The same for a pipeline that is fitted already.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import Autoencoder, FineTunedRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> pipeline = make_pipeline(
    ...     StandardScaler(), Autoencoder(max_iter=5, tol=None, random_state=0), Ridge()
    ... )
    >>> model = FineTunedRegressor(estimator=pipeline, max_iter=20, tol=None, random_state=0)
    >>> model.fit(X, y).score(X, y) > model.estimator_.score(X, y)
    True
    """

    _parameter_constraints = {
        **NetworkRegressor._parameter_constraints,
        **PipelineParameters._parameter_constraints,
    }

    @staticmethod
    def _default() -> Pipeline:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline

        return make_pipeline(Autoencoder(), Ridge())


def fine_tune(pipeline, X, y, *, sample_weight=None, **params):
    """Train a fitted pipeline of autoencoders and a linear model on, as one network.

    Parameters
    ----------
    pipeline : fitted Pipeline
        Steps of any kind, autoencoders, and a linear model: see `FineTunedClassifier`. It stays as
        it is.

    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Training data, as the pipeline takes them.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Labels.

    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    **params : dict
        Parameters of `FineTunedClassifier` or `FineTunedRegressor`: `solver`, `max_iter`,
        `learning_rate_init`, `dropout` and so on.

    Returns
    -------
    model : FineTunedClassifier or FineTunedRegressor
        Fitted. It carries the steps in front of the network, and takes X as the pipeline does.

    Raises
    ------
    ValueError
        If a step cannot be a layer, y has labels that the pipeline does not know, or training
        diverges.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skae import Autoencoder, fine_tune
    >>> X, y = load_digits(return_X_y=True)
    >>> pipeline = make_pipeline(
    ...     MinMaxScaler(),
    ...     Autoencoder(n_components=8, max_iter=5, tol=None, random_state=0),
    ...     LogisticRegression(),
    ... ).fit(X, y)
    >>> model = fine_tune(pipeline, X, y, max_iter=20, tol=None, random_state=0)
    >>> model.score(X, y) > pipeline.score(X, y)
    True
    """
    kind = FineTunedClassifier if is_classifier(pipeline) else FineTunedRegressor
    return kind(estimator=FrozenEstimator(pipeline), **params).fit(X, y, sample_weight)

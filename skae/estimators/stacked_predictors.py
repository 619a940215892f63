"""Stacks under a softmax or linear outputs: pretrained, and then trained as one network."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length

from skae.activations import ACTIVATIONS
from skae.estimators._base import BaseAutoencoder, all_or_nothing
from skae.estimators._build import layer_sizes
from skae.estimators._compat import with_callbacks
from skae.estimators._estimator import estimator
from skae.estimators._input import checked_weight, read_data
from skae.estimators._layers import HasLayers
from skae.estimators._predictor import Layers, NetworkPredictor
from skae.estimators._supervised import NetworkClassifier, NetworkRegressor
from skae.estimators.stacked import StackedAutoencoder
from skae.networks import Dense

_ANYTHING: Any = "no_validation"


@estimator
class StackParameters:
    """What a network on a stack is made of.

    Parameters
    ----------
    layers : tuple, default=(100, 10)
        The stack, bottom up, as `StackedAutoencoder` takes it: numbers of code units, None for
        its default width, or autoencoders. Their parameters are ``layer_0__noise_level`` and
        so on. Layers that are not dense (k-sparse, split-brain, a module of one's own, which
        stays in inference mode) are fine-tuned by autograd, in the units of X; `dropout` then
        covers the code and the head, `max_norm` is refused, and a module keeps its weights
        without pretraining.

    estimator : autoencoder, default=None
        What layers given by their size are clones of: see `StackedAutoencoder`. It also says how
        they are trained: for how many epochs, in which precision, on which device. What is said
        of that here is of the training on labels.

    pretrain : bool, default=True
        Whether layers are first trained as autoencoders, on all rows. False draws their weights
        as scikit-learn's MLP does, which leaves an ordinary network of the same shape.

    head_layer_sizes : tuple of int, default=()
        Widths of hidden layers between the top code and the outputs: a code that was learned
        without labels may not be linearly separable.

    head_activation : {"identity", "logistic", "tanh", "relu", "softplus", "elu", "silu", \
"gelu"}, default="relu"
        Their activation.

    unlabeled : object, default=None
        What marks, in y, a row whose label is not known, such as -1 or, for regressors, NaN. Such
        rows serve the pretraining alone. None: every value is a label.
    """

    layers: tuple[Any, ...] = (100, 10)
    estimator: Any = None
    pretrain: bool = True
    head_layer_sizes: tuple[int, ...] = ()
    head_activation: str = "relu"
    unlabeled: Any = None

    _parameter_constraints = {
        "layers": [tuple, list],
        "estimator": [BaseAutoencoder, None],
        "pretrain": ["boolean"],
        "head_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "head_activation": [StrOptions(set(ACTIVATIONS) - {"exp"})],
        "unlabeled": _ANYTHING,
    }


class _OnStack(HasLayers, NetworkPredictor):
    """A network whose layers are a stack's."""

    # What StackParameters has.
    layers: Any
    estimator: Any
    pretrain: Any
    head_layer_sizes: Any
    head_activation: Any
    unlabeled: Any

    @all_or_nothing
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None):
        """Train the layers as autoencoders, and then all of them on the labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels; see `unlabeled`.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, in pretraining and on the labels.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or y do not fit the parameters, or training diverges. The estimator is then as
            it was before the call.
        """
        data = read_data(self, X, reset=True, **self._arithmetic())
        labels, known = self._read_labels(y, self.unlabeled)
        check_consistent_length(data.X, known)
        outputs = self._outputs_for(labels)
        self._check_early(labels)
        sizes = layer_sizes(self.head_layer_sizes, "head_layer_sizes")
        seeds = None if self.random_state is None else check_random_state(self.random_state)
        stack = StackedAutoencoder(
            layers=self.layers, estimator=self.estimator,
            random_state=None if seeds is None else int(seeds.randint(2**31 - 1)),
        )  # fmt: skip
        tasks = self._subtasks(X)
        targets = labels if known.all() else None
        if self.pretrain:
            tasks.fit("pretrain", stack, X, targets, sample_weight=sample_weight)
        else:
            stack._initialise(X, targets)
        self.stack_ = stack if self.pretrain else None
        widths = (stack.n_components_, *sizes, outputs.width)
        head = Dense("decoder", widths, self.head_activation, "identity")
        layers = Layers(stack.encoder_, head, keeps_weights=self.pretrain)
        if sample_weight is not None:
            sample_weight = checked_weight(sample_weight, np.empty((len(known), 0)))[known]
        if not known.all():
            index = np.flatnonzero(known)
            at = torch.from_numpy(index).to(data.source.device)
            data, X = data._replace(source=data.source.subset(at)), _safe_indexing(X, index)
        seed = self._seed() if seeds is None else int(seeds.randint(2**31 - 1))
        self._tune(X, labels, sample_weight, data, layers, outputs, seed, tasks)
        return self


@estimator
class StackedAutoencoderClassifier(_OnStack, NetworkClassifier, StackParameters):
    r"""Classifier: autoencoders trained layer by layer, a softmax on top, then all fine-tuned.

    The layers are trained as a `StackedAutoencoder`, without labels; outputs for the classes are
    put on top of its code, perhaps with hidden layers between; then back-propagation trains the
    whole network on the labels (the lecture's three stages in one estimator). Over the n labelled
    rows it minimises the cross-entropy, in nats,

    .. math::
        -\frac{1}{n} \sum_{i=1}^{n} \log p_{y_i}(x_i) + \frac{\alpha}{2} \lVert W \rVert^2

    with p the softmax of the outputs; one logistic output for two classes; for multilabel y a
    logistic output for each column, their cross-entropies summed. Corruption, penalties and
    decoders of the layers play no part in it.

    Parameters
    ----------
    random_state : int, RandomState instance, default=None
        Seeds every `random_state` of the layers, in place of their own, and initial weights,
        shuffling, the held-out rows and dropout here.

    Attributes
    ----------
    stack_ : StackedAutoencoder or None
        The layers as they were before fine-tuning; None without pretraining.

    See Also
    --------
    StackedAutoencoder : The stack alone, for pipelines.
    FineTunedClassifier : The same from a pipeline that ends in a linear classifier.

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
    >>> from skae import Autoencoder, StackedAutoencoderClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> layer = Autoencoder(hidden_layer_sizes=(), max_iter=5, tol=None)
    >>> model = StackedAutoencoderClassifier(
    ...     layers=(64, 32), estimator=layer, max_iter=10, tol=None, random_state=0
    ... ).fit(X / 16, y)
    >>> model.score(X / 16, y) > 0.9
    True
    """

    _parameter_constraints = {
        **NetworkClassifier._parameter_constraints,
        **StackParameters._parameter_constraints,
    }


@estimator
class StackedAutoencoderRegressor(_OnStack, NetworkRegressor, StackParameters):
    r"""Regressor: autoencoders trained layer by layer, linear outputs on top, then all fine-tuned.

    As `StackedAutoencoderClassifier`, with linear outputs and the squared error, the mean over
    outputs, in place of the cross-entropy:

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \frac{1}{m} \lVert y_i - f(x_i) \rVert^2
        + \frac{\alpha}{2} \lVert W \rVert^2

    over n labelled rows of m outputs. Offset and scale of y cost nothing (but with sgd).

    Parameters
    ----------
    random_state : int, RandomState instance, default=None
        Seeds every `random_state` of the layers, in place of their own, and initial weights,
        shuffling, the held-out rows and dropout here.

    Attributes
    ----------
    stack_ : StackedAutoencoder or None
        The layers as they were before fine-tuning; None without pretraining.

    See Also
    --------
    StackedAutoencoder : The stack alone, for pipelines.
    FineTunedRegressor : The same from a pipeline that ends in a linear regressor.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from skae import StackedAutoencoderRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = StackedAutoencoderRegressor(layers=(16, 8), max_iter=60, tol=None, random_state=0)
    >>> model.fit(scale(X), y).score(scale(X), y) > 0.3
    True
    """

    _parameter_constraints = {
        **NetworkRegressor._parameter_constraints,
        **StackParameters._parameter_constraints,
    }

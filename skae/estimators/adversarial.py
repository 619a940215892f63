"""The adversarial autoencoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import ClassifierTags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._engine.adversarial import Game, Part
from skae._engine.batches import Source
from skae._engine.start import Moments
from skae._engine.train import FULL_BATCH, Result, train
from skae._warnings import warn_caller
from skae.estimators._adversarial import (
    Adversarial,
    AdversarialCategories,
    code_moments,
    fault_of_clusters,
    fault_of_discriminator,
    fault_of_spread,
    labelled_rows,
    prior_spread,
)
from skae.estimators._base import BaseAutoencoder, steps_by_batch
from skae.estimators._build import layer_sizes
from skae.estimators._categories import HasCategories, class_indices
from skae.estimators._estimator import estimator
from skae.estimators._input import Data
from skae.estimators._sampling import portions, sampling_draws
from skae.networks import Dense, Network
from skae.objective import Objective, Rows
from skae.priors import PRIORS, Category, Prior, resolve_prior

_ANYTHING: Any = "no_validation"
# On MNIST with 16 clusters, after 2,000 steps: 14 of them used with it, 6 without.
_NOISE_OF_CATEGORIES = 0.3


def _takes_streams(self) -> bool:
    if self.n_clusters == "classes":
        raise AttributeError(
            "n_clusters='classes' finds the classes in all of y, which a stream does not show. Use "
            "fit, or a number as n_clusters."
        )
    return steps_by_batch(self)


@estimator
class AdversarialAutoencoder(HasCategories, BaseAutoencoder):
    r"""Autoencoder whose codes, over all rows, are distributed as a prior: what it decodes is data.

    After the step on the reconstruction of each batch, two players take one each [1]_. A
    discriminator D learns to tell draws z' of the prior p from codes z = f(x), and then the
    encoder f, the generator, learns to pass its codes off as draws: they minimise

    .. math::
        -\mathbb{E}_{z' \sim p} \log D(z') - \mathbb{E}_x \log (1 - D(f(x)))
        \qquad\text{and}\qquad -\mathbb{E}_x \log D(f(x)),

    in nats. Where D cannot tell them apart these are log 4 and log 2: see `discriminator_curve_`
    and `generator_curve_`. Nothing else asks anything of the prior but draws of it.

    With `n_clusters` the code has two parts: style, with the prior, and a category, the softmax of
    as many further units, whose prior is a category in one-hot form. Each part has a
    discriminator. Rows of one category are a cluster, and where some rows have labels
    (``n_clusters="classes"``), a third step of each batch holds their categories to them by
    cross-entropy.

    `transform` returns the style units and, behind them, the probabilities of the categories. It
    draws nothing.

    Parameters
    ----------
    n_components : int, default=None
        Number of style units. None takes the prior's, where it is one for the plane, and the
        square root of the number of features, rounded up, elsewhere.

    code_activation : str, default="identity"
        The prior says what codes look like: anything but "identity" is refused.

    encoder : torch.nn.Module, default=None
        An encoder of one's own, from (n, n_features) to (n, n_components + n_clusters): style,
        then the logits of the categories. It is copied, and trained in the dtype of X.

    dropout : float, default=0.0
        Probability in [0, 1) of dropping a hidden unit in training, not one of the code, for
        every row on its own; kept units count 1 / (1 - dropout). Not in the discriminators.

    solver : {"adam", "sgd", "lbfgs", "cg"}, default="adam"
        Of all steps. "lbfgs" and "cg" are refused: a game has no one function to minimise.

    prior : {"gaussian", "gaussian_mixture", "swiss_roll"}, Prior or callable, default="gaussian"
        Distribution of the style: N(0, I); ten Gaussians like petals in the plane; a spiral in the
        plane. An instance carries its own numbers, as ``skae.priors.Gaussian(scale=5.0)``. A
        function ``prior(n, random_state)`` gives n draws as an array of shape (n, n_components);
        `random_state` is an int.

    n_clusters : int or "classes", default=None
        Number of categories. "classes" has one for each class in y. None has no categories, and
        ignores y, as a number does. For scikit-learn it is a clusterer with a number, and a
        classifier with "classes", whose `score` is that of the reconstruction all the same: give
        ``scoring="accuracy"`` to a search.

    cluster_weights : array-like of shape (n_clusters,), default=None
        How often each category, or class in the order of `classes_`, comes under the prior; None
        is equally often. They are scaled to add up to 1.

    unlabeled : object, default=None
        What marks, in y, a row without a label, such as -1, under ``n_clusters="classes"``. None:
        every value is a label.

    discriminator_layer_sizes : tuple of int, default=(100,)
        Widths of the discriminators' hidden layers, with the `activation` of the others.

    discriminator_learning_rate_init : float, default=None
        Step size of the discriminators; None is `learning_rate_init`. The schedule is that of
        `learning_rate`.

    generator_learning_rate_init : float, default=None
        Step size of the encoder as generator; None is `learning_rate_init`. It is what weighs the
        prior against the reconstruction, which the size of a loss does not under adam. 0 is the
        plain autoencoder.

    adversarial_momentum : float, default=0.5
        Momentum of both players, in [0, 1): beta_1 of adam, or that of sgd, without looking ahead.
        Each moves the other's minimum, so that gradients grow old sooner than elsewhere.

    discriminator_noise : float, default=None
        Standard deviation of Gaussian noise on all that discriminators see, draws and codes, so
        that what overlaps cannot be told apart for certain. A number is for both of them; None is
        0 for style and 0.3 for categories, whose draws would else be told from codes by being
        exactly 0 or 1: a generator that learns this first ends with few clusters.

    label_smoothing : float, default=0.0
        The discriminators hold a draw of the prior to be one with probability 1 - label_smoothing
        [2]_, in [0, 0.5).

    Attributes
    ----------
    n_components_ : int
        Number of columns of the code: style units and categories.

    discriminator_curve_ : list of float
        Mean loss of the discriminator in every epoch, in nats, log 4 where it cannot tell (less
        with `label_smoothing`). With
        `n_clusters` of both: pairs of style and category.

    generator_curve_ : list of float
        The same of the generator, log 2 where the discriminator cannot tell.

    loss_curve_ : list of float
        Mean reconstruction loss of every epoch.

    validation_loss_curve_ : list of float or None
        Reconstruction loss of the held-out rows after every epoch, under `early_stopping`: how far
        codes are from the prior has no say in when to stop.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of a linear encoder of one layer.

    spread_ : ndarray of shape (n_style_units,)
        Standard deviation of every style unit over the training rows, in units of the prior's.

    labels_ : ndarray of shape (n_samples,)
        What `predict` gives for the rows of `fit`, with `n_clusters`.

    classes_ : ndarray of shape (n_classes,)
        The classes in y, with ``n_clusters="classes"``.

    Notes
    -----
    Sample weights count in every step: for the reconstruction, for codes as seen by the
    discriminators and by the generator, and for labels. `tol` is about the reconstruction alone.
    `loss` is a mean over features, as in the other autoencoders; one of `skae.likelihoods` is
    summed, in nats. No step's loss is added to another's, so that either trains alike.

    A warning tells of a game that has come to nothing: a code that has shrunk or grown far from the
    spread of its prior, clusters of which few are used, or a discriminator that always wins.

    References
    ----------
    .. [1] Makhzani, Shlens, Jaitly, Goodfellow and Frey, "Adversarial autoencoders", 2015,
       arXiv:1511.05644, sections 2 (the two phases), 5 (labels) and 6 (clusters).

    .. [2] Salimans et al., "Improved techniques for training GANs", NeurIPS 2016,
       arXiv:1606.03498, section 3.4.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AdversarialAutoencoder
    >>> X = load_digits().data / 16
    >>> model = AdversarialAutoencoder(
    ...     n_components=2, n_clusters=10, max_iter=10, tol=None, random_state=0
    ... ).fit(X)
    >>> model.transform(X).shape
    (1797, 12)
    >>> model.labels_.shape
    (1797,)
    >>> model.sample(5, random_state=0).shape
    (5, 64)
    """

    code_activation: str = "identity"
    prior: Any = "gaussian"
    n_clusters: int | str | None = None
    cluster_weights: Sequence[float] | None = None
    unlabeled: Any = None
    discriminator_layer_sizes: tuple[int, ...] = (100,)
    discriminator_learning_rate_init: float | None = None
    generator_learning_rate_init: float | None = None
    adversarial_momentum: float = 0.5
    discriminator_noise: float | None = None
    label_smoothing: float = 0.0

    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "prior": [StrOptions(set(PRIORS)), Prior, callable],
        "n_clusters": [Interval(Integral, 1, None, closed="left"), StrOptions({"classes"}), None],
        "cluster_weights": ["array-like", None],
        "unlabeled": _ANYTHING,
        "discriminator_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "discriminator_learning_rate_init": [Interval(Real, 0, None, closed="neither"), None],
        "generator_learning_rate_init": [Interval(Real, 0, None, closed="left"), None],
        "adversarial_momentum": [Interval(Real, 0, 1, closed="left")],
        "discriminator_noise": [Interval(Real, 0, None, closed="left"), None],
        "label_smoothing": [Interval(Real, 0, 0.5, closed="left")],
    }

    @available_if(_takes_streams)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Take one pass over X, continuing from what is fitted already; adam and sgd only.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The next rows of a stream. The first call's rows set the units of the data.

        y : None
            Ignored; ``n_clusters="classes"`` is for `fit` alone.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, scaled to mean 1.

        Returns
        -------
        self : object
            The fitted estimator; `labels_` are those of these rows.
        """
        return super().partial_fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight, epochs, keep, partial=False, **known):
        for name in ("classes_", "labels_"):
            self.__dict__.pop(name, None)
        index = None
        if self.n_clusters == "classes":
            self.classes_, index = class_indices(self, X, y)
        super()._fit(X, index, sample_weight, epochs, keep, partial, **known)
        if self.n_clusters is not None:
            self.labels_ = self.predict(X)
        return self

    # ---- the objective and the network

    def _objective(self) -> Objective:
        self._refuse()
        rate = float(self._rate("generator_learning_rate_init"))
        terms = {**self._shared_terms(), "generator_learning_rate_init": rate}
        c = self._n_categories
        return AdversarialCategories(**terms, n_clusters=c) if c else Adversarial(**terms)

    def _rate(self, name: str) -> float:
        given = getattr(self, name)
        return self.learning_rate_init if given is None else given

    def _refuse(self) -> None:
        """Raise where a parameter has no meaning here."""
        if self.solver in FULL_BATCH:
            raise ValueError(
                f"solver={self.solver!r} minimises one function of all rows, but two players have "
                "one each, of which each changes the other's. Use solver='adam' or 'sgd'."
            )
        if self.code_activation != "identity":
            raise ValueError(
                f"code_activation={self.code_activation!r}, but what codes look like is for the "
                f"prior to say (prior={self.prior!r}). Leave code_activation='identity'."
            )
        if self.unlabeled is not None and self.n_clusters != "classes":
            raise ValueError(
                f"unlabeled={self.unlabeled!r} marks rows in y, which is not used under "
                f"n_clusters={self.n_clusters!r}. Set n_clusters='classes', or leave it None."
            )

    def _network(self, objective: Objective, source: Source, m: Moments) -> tuple[Network, int]:
        prior, c = resolve_prior(self.prior), self._n_categories
        sized = copy.copy(self)
        if self.encoder is not None:
            sized.n_components = None  # its outputs are counted below
        elif self.n_components is not None:
            sized.n_components = self.n_components + c
        else:
            sized.n_components = (prior.n_components or math.ceil(math.sqrt(source.d))) + c
        network, width = BaseAutoencoder._network(sized, objective, source, m)
        k = width - c
        if k < 1:
            raise ValueError(
                f"encoder gives codes of width {width}, which leaves no style unit beside "
                f"{c} categories. Change the width of its last layer, or n_clusters."
            )
        if self.n_components not in (None, k):
            raise ValueError(
                f"n_components={self.n_components}, but encoder gives codes of width {width}, of "
                f"which {k} are style units beside {c} categories. Leave n_components=None, or "
                "change the encoder."
            )
        if prior.n_components not in (None, k):
            raise ValueError(
                f"prior={self.prior!r} lies in {prior.n_components} dimensions, but there are {k} "
                f"style units. Set n_components={prior.n_components}, or use another prior."
            )
        return network, width

    def _settings(self) -> dict[str, Any]:
        names = ("prior", "n_clusters", "discriminator_layer_sizes")
        classes = {"classes": getattr(self, "classes_", None)}
        return super()._settings() | {name: getattr(self, name) for name in names} | classes

    # ---- the game

    def _rows(self, data: Data, y: Any, weight: Tensor | None, **known: Any) -> Rows:
        index = None if y is None else torch.from_numpy(y).to(data.source.device)
        return Rows(weight=weight, y=index)

    def _train(
        self, network: Network, objective: Objective, source: Source, rows: Rows, **options: Any
    ) -> Result:
        width = network.encoder_outputs(source.take(slice(0, 1)))
        game = self._game(source, rows, width)
        rows = Rows(weight=rows.weight)
        k, size = width - self._n_categories, min(options["training"].batch_size, source.n)
        spread = self._spread_of_prior(k, size)
        result = train(network, objective, source, rows=rows, further=game, **options)
        m = code_moments(network, objective, result.parameters, source, rows, width)
        std = m.variance[:k].sqrt().cpu() / spread  # type: ignore[index]
        return result._replace(learned={**result.learned, "spread": std, "shares": m.mean[k:]})

    def _spread_of_prior(self, k: int, n: int) -> Tensor:
        """Standard deviation of every unit, found once for a prior."""
        known = getattr(self, "_known_spread", None)
        if known is None or known[:2] != (self.prior, k):
            self._known_spread = known = (self.prior, k, prior_spread(self._priors()[0], k, n))
        return known[2]

    def _priors(self) -> tuple[Prior, ...]:
        """Of style, and of the category if there is one."""
        weights = self._cluster_weights()
        style = resolve_prior(self.prior)
        return (style, Category(weights)) if self._n_categories else (style,)

    def _game(self, source: Source, rows: Rows, width: int) -> Game:
        k = width - self._n_categories
        columns = (slice(0, k), slice(k, width))
        sizes = layer_sizes(self.discriminator_layer_sizes, "discriminator_layer_sizes")
        stacks = (
            Dense("discriminator", (part.stop - part.start, *sizes, 1), self.activation, "identity")
            for part in columns
        )
        given = self.discriminator_noise
        noises = (0.0, _NOISE_OF_CATEGORIES) if given is None else (float(given),) * 2
        return Game(
            parts=tuple(map(Part, columns, self._priors(), stacks, noises)),
            labelled=None if rows.y is None else labelled_rows(source, rows, width - k),
            discriminator_rate=float(self._rate("discriminator_learning_rate_init")),
            generator_rate=float(self._rate("generator_learning_rate_init")),
            momentum=float(self.adversarial_momentum),
            smoothing=float(self.label_smoothing),
        )

    def _check_end(self, result: Result, epochs: int, partial: bool) -> None:
        super()._check_end(result, epochs, partial)
        if partial or not self._rate("generator_learning_rate_init") > 0:
            return
        faults = [fault_of_spread(result.learned["spread"])]
        if self._n_categories:
            faults.append(fault_of_clusters(result.learned["shares"], self._cluster_weights()))
        curve = result.learned["discriminator_curve"]
        faults += [
            fault_of_discriminator(float(loss), float(self.label_smoothing))
            for part in curve[-1:]
            for loss in part
        ]
        if any(faults):
            rates = (f"{player}_learning_rate_init (now "
                     f"{self._rate(f'{player}_learning_rate_init'):g})"
                     for player in ("generator", "discriminator"))  # fmt: skip
            raised, lowered = rates
            warn_caller(
                f"{'. '.join(fault for fault in faults if fault)}. Train for longer, raise "
                f"{raised} or lower {lowered}, or add discriminator_noise.",
                ConvergenceWarning,
            )

    def _reported(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        curves = {
            f"{player}_curve_": (curve[:, 0] if curve.shape[1] == 1 else curve).tolist()
            for player in ("discriminator", "generator")
            if (curve := state.get(f"{player}_curve")) is not None
        }
        spread = {"spread_": state["spread"]} if "spread" in state else {}
        return {**curves, **spread, "_drawn_from": self._priors()}

    # ---- a fitted model

    def sample(self, n_samples=1, random_state=None):
        """Decode draws of the prior: new data, without noise of their own.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        random_state : int, RandomState instance, default=None
            Seeds the draws. None takes fresh entropy; the global generators are never touched.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features_in_)
            The rows, in the dtype of the network.
        """
        check_is_fitted(self)
        rng = sampling_draws(self, n_samples, random_state)
        c = getattr(self.objective_, "n_clusters", 0)
        widths = (self.n_components_ - c, c)
        drawn = []
        with torch.no_grad():
            for n in portions(n_samples, self._widest):
                both = zip(self._drawn_from, widths, strict=False)
                drawn.append(self._decode(torch.cat([p.draw(n, k, rng) for p, k in both], -1)))
        return torch.cat(drawn).cpu().numpy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.n_clusters == "classes"
        if self.n_clusters == "classes":
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        elif self.n_clusters is not None:
            tags.estimator_type = "clusterer"
        return tags

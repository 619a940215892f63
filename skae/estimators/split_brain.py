"""Split-brain: groups of columns that predict each other."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._engine.batches import Source
from skae._engine.start import Moments, place
from skae.cross_prediction import CrossPrediction, Head, Quantised
from skae.estimators._base import BaseAutoencoder
from skae.estimators._build import Start, check_range, layer_sizes, resolved_code_activation
from skae.estimators._estimator import estimator
from skae.estimators._groups import (
    as_loss,
    learn_bins,
    learn_categories,
    per_group,
    resolve_columns,
    resolve_groups,
)
from skae.estimators._input import Data
from skae.losses import Loss
from skae.networks import Dense, Network, side_by_side
from skae.objective import Objective


@estimator
class SplitBrainAutoencoder(BaseAutoencoder):
    r"""Autoencoder of separate networks, each of which predicts what it does not see.

    The columns of X are split into groups. Network g, with an encoder and a decoder of its own,
    sees the columns of group g and predicts all others; the code is the codes of all networks
    side by side. Over n samples it minimises

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \frac{1}{d} \sum_{j=1}^{d} \frac{1}{G - 1}
        \sum_{g \not\ni j} l_j(x_{ij}, \hat x^{(g)}_{ij}) + \frac{\alpha}{2} \lVert W \rVert^2

    with d features, G groups, :math:`\hat x^{(g)}` what network g predicts and :math:`l_j` the
    loss of column j: `loss` under regression, else the cross-entropy, in nats, of the bin or
    category that it falls in. Networks share nothing, so that training them together is training
    each alone.

    The source [1]_ has two groups, lightness and colour of an image, and per image the sum of
    :math:`\frac{1}{2} \lVert x_2 - \hat x_2 \rVert^2` and its counterpart, d / 2 times ours, or
    cross-entropies summed over the cells, d times ours. It joins the networks' features layer by
    layer; here `transform` joins their codes. Of more than two groups it speaks as future work.

    Parameters
    ----------
    n_components : int, default=None
        Number of code units of *each* group. None takes the square root of the number of its
        columns, rounded up.

    hidden_layer_sizes : tuple of int, default=(100,)
        Widths of the hidden layers of each group's encoder; its decoder mirrors them.

    tied_weights : bool, default=False
        Has to be False: encoder and decoder of a group have no columns in common.

    encoder : torch.nn.Module, default=None
        Has to be None: every group has an encoder of its own.

    decoder : torch.nn.Module, default=None
        Has to be None, as `encoder`.

    groups : {"halves"}, list of list of int or str, or callable, default="halves"
        Two or more groups of columns, by index (or slice) or by a DataFrame's names, that have
        every column exactly once. A callable is called with the array of feature names ("x0",
        "x1", ... where X has none) and returns such groups. "halves" are the first columns, one
        more where their number is odd, and the rest.

    targets : {"regression", "classification"} or list of str, default="regression"
        How columns are predicted, of all groups or of each group in turn: their values, or the
        bins that they fall in. ``["regression", "classification"]`` quantises the columns of the
        second group, which the others then predict.

    n_bins : int or list of int, default=10
        Largest number of bins of a column under "classification", of all groups or of each;
        quantiles that coincide leave fewer.

    bin_strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equally many rows, or of equal width, learned from up to 10,000 rows, evenly
        spaced. A bin stands for the mean of its rows.

    categorical_features : list of int or str, default=None
        Columns whose values are categories, by index or name. They are predicted by
        classification among the values seen in `fit`, whatever `targets` says, and enter the
        encoder as the numbers that they are; another value counts as the nearest one.

    Attributes
    ----------
    groups_ : list of ndarray of int
        The columns of each group, ascending.

    bin_edges_ : list of ndarray or None
        Inner edges of the bins of every column, None where it is predicted by regression.

    encoder_, decoder_ : torch.nn.Module
        The trained networks, side by side, in the units of X; ``encoder_.parts[g]`` and
        ``decoder_.parts[g]`` are those of group g. The decoder gives the predictions of the
        groups one after the other, before they are averaged.

    coefs_, intercepts_ : list of ndarray
        Weights of shape (n_in, n_out) and biases of shape (n_out,) of all layers: the encoders,
        one group after the other, then the decoders.

    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of linear encoders of one layer; zero in the columns that a unit does not see.

    n_components_ : int
        Number of code units of all groups together.

    See Also
    --------
    Autoencoder : One network that predicts what it sees.

    Notes
    -----
    `inverse_transform` is the mean of what the groups predict for a column, for categories the
    most probable under their mean probability. `reconstruction_error` is the mean of their
    losses, which with more than two groups is not the loss of the mean.

    Columns under regression work in the units of the data, as everywhere. A group that predicts
    both kinds of columns has logits in its last layer: scale X then, as with StandardScaler.

    References
    ----------
    .. [1] Zhang, Isola and Efros, "Split-Brain Autoencoders: Unsupervised Learning by
       Cross-Channel Prediction", CVPR 2017, equations 1 to 3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import SplitBrainAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = SplitBrainAutoencoder(n_components=8, max_iter=20, tol=None, random_state=0)
    >>> model.fit_transform(X).shape
    (1797, 16)
    >>> lower = model.predict_by_group(X, 0)[:, 32:]  # of the digits, from the upper half
    >>> lower.shape
    (1797, 32)
    """

    groups: Any = "halves"
    targets: Any = "regression"
    n_bins: Any = 10
    bin_strategy: str = "quantile"
    categorical_features: Any = None

    _parameter_constraints = {
        **BaseAutoencoder._parameter_constraints,
        "groups": ["array-like", callable, StrOptions({"halves"})],
        "targets": ["array-like", StrOptions({"regression", "classification"})],
        "n_bins": ["array-like", Interval(Integral, 2, None, closed="left")],
        "bin_strategy": [StrOptions({"quantile", "uniform"})],
        "categorical_features": ["array-like", None],
    }

    def _objective(self) -> Objective:
        return Objective(**self._shared_terms())

    def _objective_for(self, data: Data, weight: Tensor | None, kept: Start | None) -> Objective:
        objective = self._objective()
        if kept is not None and kept.seen is not None:
            return dataclasses.replace(objective, loss=kept.seen[0].loss)  # bins stay
        groups = self._groups()
        binned, categorical = self._kinds(groups)
        heads = _heads(objective.loss, data.source, weight, binned, categorical, self.bin_strategy)
        return dataclasses.replace(objective, loss=CrossPrediction(groups, heads))

    def _groups(self) -> tuple[tuple[int, ...], ...]:
        return resolve_groups(self.groups, self._names(), type(self).__name__)

    def _names(self) -> list[str]:
        named = getattr(self, "feature_names_in_", None)
        return [f"x{i}" for i in range(self.n_features_in_)] if named is None else list(named)

    def _kinds(self, groups: tuple[tuple[int, ...], ...]) -> tuple[dict[int, int], tuple[int, ...]]:
        """The columns to quantise, with their numbers of bins, and those of categories."""
        targets = per_group(self.targets, len(groups), "targets")
        n_bins = per_group(self.n_bins, len(groups), "n_bins")
        for g, (target, count) in enumerate(zip(targets, n_bins, strict=True)):
            if target not in ("regression", "classification"):
                raise ValueError(
                    f"targets must be 'regression' or 'classification', but targets[{g}] is "
                    f"{target!r}."
                )
            if not isinstance(count, Integral) or count < 2:
                raise ValueError(f"n_bins must be integers from 2, but n_bins[{g}] is {count!r}.")
        given = () if self.categorical_features is None else self.categorical_features
        named = resolve_columns(given, self._names(), "categorical_features")
        categorical = tuple(sorted(set(named)))
        binned = {
            j: int(count)
            for group, target, count in zip(groups, targets, n_bins, strict=True)
            for j in group
            if target == "classification" and j not in categorical
        }
        return binned, categorical

    def _settings(self) -> dict[str, Any]:
        groups = self._groups()
        binned, categorical = self._kinds(groups)
        kinds = (tuple(sorted(binned.items())), categorical, self.bin_strategy)
        return super()._settings() | {"groups": groups, "kinds": kinds}

    def _network(self, objective: Objective, source: Source, m: Moments) -> tuple[Network, int]:
        self._check_is_split()
        loss: Any = objective.loss
        hidden = layer_sizes(self.hidden_layer_sizes)
        code_activation = resolved_code_activation(self)
        networks = []
        for g, seen in enumerate(loss.groups):
            k = self.n_components or math.ceil(math.sqrt(len(seen)))
            into, out_of = (len(seen), *hidden, k), (k, *hidden[::-1], loss.group_width(g))
            network = Network(
                Dense(f"encoder.{g}", into, self.activation, code_activation),
                Dense(f"decoder.{g}", out_of, self.activation, "identity"),
            )
            if self.solver != "sgd":
                # Logits have no unit, so where there are some the decoder is left in its own.
                of_group, target = loss.of_group(g), m.take(loss.predicted(g))
                only = of_group[0] if len(of_group) == 1 else loss
                network = place(network, only, m.take(seen), source.dtype, source.device, target)
            networks.append(network)
        network = side_by_side(networks, loss.groups)
        return network, network.encoder.widths[-1]  # type: ignore[union-attr]

    def _check_is_split(self) -> None:
        if self.tied_weights:
            raise ValueError(
                "tied_weights=True needs an encoder and a decoder of the same columns, but a "
                "group predicts those that it does not see. Set tied_weights=False."
            )
        if self.encoder is not None or self.decoder is not None:
            raise ValueError(
                "encoder and decoder must be None: every group has a network of its own, made of "
                "built-in dense layers."
            )

    def _check_range(self, loss: Loss, m: Moments) -> None:
        """Only columns under regression have a range: bins and categories cover all values."""
        for head in loss.heads:  # type: ignore[attr-defined]
            check_range(self, head.loss, m.take(head.columns), head.columns)

    def predict_by_group(self, X, group):
        """Predict, from the columns of one group, all others.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data; only the columns of the group matter.

        group : int
            Which group of `groups_`.

        Returns
        -------
        X_hat : ndarray of shape (n_samples, n_features)
            Predictions, in X's dtype; NaN in the columns of the group itself.

        Raises
        ------
        ValueError
            If there is no such group.
        """
        data = self._read(X, "predict_by_group")
        loss = self.objective_.loss
        if not isinstance(group, Integral) or not 0 <= int(group) < len(loss.groups):
            raise ValueError(
                f"group must be an integer from 0 to {len(loss.groups) - 1}, got {group!r}."
            )

        def predict(x: Tensor, out: Tensor | None = None) -> Tensor:
            return loss.predict_by(self._raw(self._encode(x)), int(group))

        return data.give_back(self._by_chunks(data, predict, self.n_features_in_))

    @property
    def groups_(self) -> list[np.ndarray]:
        """The columns of each group, ascending."""
        check_is_fitted(self)
        return [np.array(group) for group in self.objective_.loss.groups]

    @property
    def bin_edges_(self) -> list[np.ndarray | None]:
        """Inner edges of the bins of every column, None where it is predicted by regression."""
        check_is_fitted(self)
        edges: list[np.ndarray | None] = [None] * self.n_features_in_
        for columns, loss in self.objective_.loss.heads:
            if isinstance(loss, Quantised):
                for j, found in zip(columns, loss.edges, strict=True):
                    edges[j] = np.array(found)
        return edges

    @property
    def components_(self) -> np.ndarray:
        """Weights of linear encoders of one layer; zero in the columns that a unit does not see."""
        check_is_fitted(self)
        parts = [list(part.children()) for part in self.encoder_.parts]  # type: ignore[union-attr]
        if not all(len(part) == 1 and isinstance(part[0], nn.Linear) for part in parts):
            raise AttributeError("components_ exists only for encoders of one linear layer.")
        weights = [part[0].weight.detach() for part in parts]
        units = torch.block_diag(*weights).cpu().numpy()
        components = np.empty_like(units)
        components[:, np.concatenate(self.groups_)] = units
        return components


def _heads(
    loss: Loss,
    source: Source,
    weight: Tensor | None,
    binned: dict[int, int],
    categorical: tuple[int, ...],
    strategy: str,
) -> tuple[Head, ...]:
    """How each column is predicted: those with equally many bins together."""
    columns = tuple(j for j in range(source.d) if j not in binned and j not in categorical)
    heads = [Head(columns, loss)] if columns else []
    kinds = []
    if binned:
        bins = learn_bins(source, weight, list(binned), list(binned.values()), strategy)
        kinds.append((tuple(binned), bins, False))
    if categorical:
        kinds.append((categorical, learn_categories(source, weight, categorical), True))
    for of_kind, bins, is_categorical in kinds:
        of_column = dict(zip(of_kind, bins, strict=True))
        for count in sorted({len(b.values) for b in bins}):
            same = tuple(sorted(j for j in of_kind if len(of_column[j].values) == count))
            heads.append(Head(same, as_loss([of_column[j] for j in same], is_categorical)))
    return tuple(heads)

"""Losses whose decoder is wider than x: quantised columns, and columns predicted several times."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae.losses import Loss
from skae.modules import as_index

_LEAST_SHARE = 1e-4  # of a bin, for its starting logit


class _Memoised(Loss):
    """A loss with tensors made from its fields once, which are no part of its value.

    They have a slot beside the fields, so that inference changes no attribute. Threads that make
    the same one at the same time make it twice.
    """

    __slots__ = ("_made",)
    _made: dict[Any, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_made", {})

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


@dataclass(frozen=True)
class Quantised(_Memoised):
    """Cross-entropy of the bin that x falls in, in nats: -log p_bin(x), p = softmax(raw).

    The decoder gives ``n_bins`` logits for each feature, those of a feature together, so that raw
    has shape (..., n, d * n_bins). All features have the same number of bins.

    Parameters
    ----------
    edges : tuple of tuple of float
        Inner edges of each feature's bins, ascending, one fewer than bins. x on an edge belongs to
        the upper bin.

    values : tuple of tuple of float
        What each bin stands for: a reconstruction is their expectation under p.

    shares : tuple of tuple of float
        Fraction of the training rows in each bin, where training starts.

    is_categorical : bool, default=False
        Whether bins are categories, so that a reconstruction is the most probable value.
    """

    edges: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    is_categorical: bool = False
    link = "softmax"

    @property
    def n_bins(self) -> int:
        """Number of bins of every feature."""
        return len(self.values[0])

    def take(self, features: Sequence[int]) -> Quantised:
        """The loss of these features only."""

        def of(part: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
            return tuple(part[i] for i in features)

        return Quantised(of(self.edges), of(self.values), of(self.shares), self.is_categorical)

    def width(self, d):
        return d * self.n_bins

    def start(self, mean):
        shares = torch.tensor(self.shares, dtype=mean.dtype, device=mean.device)
        return shares.clamp(min=_LEAST_SHARE).log().flatten()

    def elements(self, x, raw):
        shifted = self._shifted(raw)
        chosen = shifted.gather(-1, self._at(x, shifted))
        return shifted.exp().sum(-1).log() - chosen.squeeze(-1)

    def gradient(self, x, raw):
        p = self.probabilities(raw)
        return _less_one(p, self._at(x, p)).flatten(-2)

    def accumulate(self, x, raw, scale, weight, total):
        shifted = self._shifted(raw)
        bins = self._at(x, shifted)
        chosen = shifted.gather(-1, bins).squeeze(-1)
        p = shifted.exp_()
        mass = p.sum(-1, keepdim=True)
        elements = mass.squeeze(-1).log() - chosen
        total.add_(elements if weight is None else elements * weight)
        gradient = _less_one(p.div_(mass), bins)
        gradient.mul_(scale.unsqueeze(-1) if isinstance(scale, Tensor) else scale)
        self._logits(raw).copy_(gradient)

    def probabilities(self, raw: Tensor) -> Tensor:
        """Of every bin, of shape (..., n, d, n_bins)."""
        p = self._shifted(raw).exp()
        return p / p.sum(-1, keepdim=True)

    def read(self, p: Tensor) -> Tensor:
        """The reconstruction that bins of these probabilities stand for, of shape (..., n, d)."""
        values = self._tensors(p)[1]
        if self.is_categorical:
            return values.expand_as(p).gather(-1, p.argmax(-1, keepdim=True)).squeeze(-1)
        return (p * values).sum(-1)

    def predict(self, raw):
        return self.read(self.probabilities(raw))

    def bins(self, x: Tensor) -> Tensor:
        """The bin of every cell, of the shape of x."""
        edges = self._tensors(x)[0]
        edges = edges.expand(*x.shape[:-2], *edges.shape)
        return torch.searchsorted(edges.contiguous(), x.mT.contiguous(), right=True).mT

    def _logits(self, raw: Tensor) -> Tensor:
        return raw.unflatten(-1, (-1, self.n_bins))

    def _shifted(self, raw: Tensor) -> Tensor:
        """Logits less the largest of their feature, which leaves p as it is."""
        logits = self._logits(raw)  # torch.log_softmax takes 8 times longer over a few bins
        return logits - logits.detach().amax(-1, keepdim=True)

    def _at(self, x: Tensor, logits: Tensor) -> Tensor:
        """The bins of x, of shape (..., n, d, 1), as an index to the logits."""
        return self.bins(x).expand(logits.shape[:-1]).unsqueeze(-1)

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Edges and values, as `like` is."""
        key = (like.dtype, like.device)
        if key not in self._made:
            made = (torch.tensor(p, dtype=key[0], device=key[1]) for p in (self.edges, self.values))
            self._made[key] = tuple(made)
        return self._made[key]


def _less_one(p: Tensor, bins: Tensor) -> Tensor:
    """Take 1 from the probability of the right bin: the gradient of its -log p."""
    return p.scatter_add_(-1, bins, p.new_full((), -1.0).expand(bins.shape))


class Head(NamedTuple):
    """Columns that are predicted in the same way, by whichever group."""

    columns: tuple[int, ...]
    loss: Loss  # of these columns


class Block(NamedTuple):
    """What one group predicts of the columns of one head."""

    group: int
    head: int
    loss: Loss  # of these columns
    features: Tensor  # (c,)  columns of x
    columns: slice | Tensor  # the same, as a slice where it can be one
    within: Tensor  # (c,)  where they lie among the head's columns
    raw: slice  # where their predictions lie in raw


@dataclass(frozen=True)
class CrossPrediction(_Memoised):
    """Every group of columns predicts all other columns.

    raw has the predictions of the first group, then those of the second, and so on; within a
    group those of the first head's columns, then the second's. With G groups a column is
    predicted G - 1 times: the loss of a cell is the mean over its predictions, and a
    reconstruction is their mean (of categories: the most probable under the mean probability).

    Parameters
    ----------
    groups : tuple of tuple of int
        Columns of each group, ascending. Every column belongs to exactly one of them.

    heads : tuple of Head
        How columns are predicted. Every column belongs to exactly one of them.
    """

    groups: tuple[tuple[int, ...], ...]
    heads: tuple[Head, ...]
    link = "cross"

    @property
    def domain(self):  # type: ignore[override]
        bounds = [head.loss.domain for head in self.heads]
        return max(low for low, _ in bounds), min(high for _, high in bounds)

    def predicted(self, group: int) -> tuple[int, ...]:
        """The columns that a group predicts: all but its own."""
        own = frozenset(self.groups[group])
        return tuple(j for j in range(self.d) if j not in own)

    @property
    def d(self) -> int:
        """Number of columns."""
        return sum(len(group) for group in self.groups)

    @property
    def times(self) -> int:
        """How often a column is predicted."""
        return len(self.groups) - 1

    def of_group(self, group: int) -> tuple[Loss, ...]:
        """The losses by which a group predicts, one for each head that it has columns of."""
        return tuple(block.loss for block in self._blocks("cpu") if block.group == group)

    def group_width(self, group: int) -> int:
        """Number of decoder outputs of a group."""
        blocks = [block for block in self._blocks("cpu") if block.group == group]
        return blocks[-1].raw.stop - blocks[0].raw.start

    def width(self, d):
        return self._blocks("cpu")[-1].raw.stop

    def start(self, mean):
        blocks = self._blocks(mean.device)
        return torch.cat([block.loss.start(mean[block.columns]) for block in blocks])

    def unit(self, s):
        return min(head.loss.unit(s) for head in self.heads)

    def elements(self, x, raw):
        total: Any = 0.0
        for block in self._blocks(raw.device):
            e = block.loss.elements(x[..., block.columns], raw[..., block.raw])
            cells = e.new_zeros(*e.shape[:-1], self.d)
            total = total + cells.index_add(-1, block.features, e, alpha=1.0 / self.times)
        return total

    def gradient(self, x, raw):
        parts = [
            block.loss.gradient(x[..., block.columns], raw[..., block.raw])
            for block in self._blocks(raw.device)
        ]
        return torch.cat(parts, -1) / self.times

    def accumulate(self, x, raw, scale, weight, total):
        for block in self._blocks(raw.device):
            x_block = x[..., block.columns]
            here = total.new_zeros(*total.shape[:-1], len(block.features))
            share, w = _columns(scale, block.columns), _columns(weight, block.columns)
            block.loss.accumulate(x_block, raw[..., block.raw], share / self.times, w, here)
            total.index_add_(-1, block.features, here, alpha=1.0 / self.times)

    def kernels(self, x, raw, scale, total):
        blocks = self._blocks(raw.device)
        if self.times > 1 or not all(isinstance(block.columns, slice) for block in blocks):
            return super().kernels(x, raw, scale, total)
        return [
            op
            for block in blocks
            for op in block.loss.kernels(
                x[..., block.columns], raw[..., block.raw], scale, total[..., block.columns]
            )
        ]

    def predict(self, raw):
        """The mean over the groups that predict a column, of shape (..., n, d)."""
        x_hat = raw.new_empty(*raw.shape[:-1], self.d)
        blocks = self._blocks(raw.device)
        for i, head in enumerate(self.heads):
            parts = [self._spread(block, raw) for block in blocks if block.head == i]
            mean = torch.stack(parts).sum(0) / self.times
            read = head.loss.read if isinstance(head.loss, Quantised) else _only
            x_hat[..., list(head.columns)] = read(mean)
        return x_hat

    def predict_by(self, raw: Tensor, group: int) -> Tensor:
        """What one group predicts, of shape (..., n, d); NaN in the columns that it sees."""
        x_hat = raw.new_full((*raw.shape[:-1], self.d), torch.nan)
        for block in self._blocks(raw.device):
            if block.group == group:
                x_hat[..., block.columns] = block.loss.predict(raw[..., block.raw])
        return x_hat

    def _spread(self, block: Block, raw: Tensor) -> Tensor:
        """A block's predictions, or the probabilities of bins, among all columns of its head."""
        part = raw[..., block.raw]
        if isinstance(block.loss, Quantised):
            found = block.loss.probabilities(part)
        else:
            found = block.loss.predict(part).unsqueeze(-1)
        count = len(self.heads[block.head].columns)
        zeros = found.new_zeros(*found.shape[:-2], count, found.shape[-1])
        return zeros.index_add_(-2, block.within, found)

    def _blocks(self, device: Any) -> tuple[Block, ...]:
        key = torch.device(device)
        if key not in self._made:
            self._made[key] = tuple(self._lay_out(key))
        return self._made[key]

    def _lay_out(self, device: torch.device):
        end = 0
        for group, own in enumerate(map(frozenset, self.groups)):
            for i, (columns, loss) in enumerate(self.heads):
                within = [p for p, j in enumerate(columns) if j not in own]
                if not within:
                    continue
                of_block = loss.take(within) if isinstance(loss, Quantised) else loss
                seen = [columns[p] for p in within]
                start, end = end, end + of_block.width(len(seen))
                index, places = (torch.tensor(c, device=device) for c in (seen, within))
                yield Block(group, i, of_block, index, as_index(seen), places, slice(start, end))


def _only(predictions: Tensor) -> Tensor:
    """The predictions themselves, of which `_spread` gives one for each column."""
    return predictions.squeeze(-1)


def _columns(part: Any, columns: slice | Tensor) -> Any:
    """What counts for these columns, where each cell has a number of its own."""
    return part[..., columns] if isinstance(part, Tensor) and part.shape[-1] > 1 else part

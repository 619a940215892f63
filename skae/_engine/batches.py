"""Arrays, sparse matrices and memory maps as sources of batches.

A source hands out rows as tensors of one dtype on one device. Only what is asked for is converted
or read, so a memory map larger than memory is never copied whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skae.objective import NO_ROWS, Rows

_GATHER_BYTES = 4 * 2**20  # up to this size, a cache's, an epoch's rows are shuffled in one pass
_MAPPED_BYTES = 64 * 2**20  # up to this size a memory map is read whole
_SIMPLE = ("weight", "target")
_CHUNK_BYTES = 16 * 2**20  # rows of a pass over everything, at a time


class Source:
    """Rows of X, of shape (n, d), or (M, n, d) with every model its own rows."""

    def __init__(self, X: Any, dtype: torch.dtype, device="cpu"):
        self.X, self.dtype, self.device = X, dtype, torch.device(device)
        self.n, self.d = X.shape[-2:]
        self.lead: tuple[int, ...] = tuple(X.shape[:-2])  # of models with rows of their own

    def take(self, index: Tensor | slice) -> Tensor:
        """These rows."""
        raise NotImplementedError

    def subset(self, index: Tensor) -> Source:
        """A source of these rows only; what is not in memory stays where it is."""
        return Subset(self, index)

    def chunks(self, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """All rows in order, a bounded number at a time."""
        rows = rows or max(1, _CHUNK_BYTES // max(1, self.d * self.dtype.itemsize))
        for start in range(0, self.n, rows):
            part = slice(start, min(start + rows, self.n))
            yield part, self.take(part)


class TensorSource(Source):
    """A dense tensor that is already in memory, in the dtype and on the device of training."""

    def take(self, index):
        return self.X[..., index, :] if isinstance(index, slice) else self.X.index_select(-2, index)

    def subset(self, index):
        return TensorSource(self.take(index), self.dtype, self.device)


class ArraySource(Source):
    """A NumPy array of any real dtype, a memory map or not."""

    def take(self, index):
        rows = self.X[index if isinstance(index, slice) else index.cpu().numpy()]
        if not rows.dtype.isnative:
            rows = rows.astype(rows.dtype.newbyteorder("="))
        elif not rows.flags.writeable or rows.base is not None:
            rows = rows.copy()
        return torch.from_numpy(rows).to(device=self.device, dtype=self.dtype)


class SparseSource(Source):
    """A SciPy CSR matrix or array, made dense a batch at a time."""

    def take(self, index):
        rows = self.X[index if isinstance(index, slice) else index.cpu().numpy()].toarray()
        return torch.from_numpy(rows).to(device=self.device, dtype=self.dtype)


class Subset(Source):
    """Some rows of another source."""

    def __init__(self, source: Source, index: Tensor):
        self.source, self.index = source, index
        self.dtype, self.device, self.lead = source.dtype, source.device, source.lead
        self.n, self.d = len(index), source.d

    def take(self, index):
        return self.source.take(self.index[index])


class Scaled(Source):
    """Another source's rows less their center, over their scale, in a dtype of its own.

    Missing values become 0, the center.
    """

    def __init__(self, source: Source, center: Tensor, scale: Tensor, dtype: torch.dtype):
        self.source, self.center, self.scale = source, center, scale
        self.dtype, self.device, self.lead = dtype, source.device, source.lead
        self.n, self.d = source.n, source.d

    def take(self, index):
        x = (self.source.take(index) - self.center) / self.scale
        return x.nan_to_num_(nan=0.0).to(self.dtype)


class Drawn(Source):
    """For each of M models rows and columns of its own of one source, which all of them share.

    `rows`, of shape (M, n), and `columns`, of shape (M, q), hold their places in it. Batches are of
    shape (M, batch, q), and only they are ever copied.
    """

    def __init__(self, source: Source, rows: Tensor, columns: Tensor):
        self.source, self.rows, self.columns = source, rows, columns
        self.dtype, self.device = source.dtype, source.device
        self.lead, self.n, self.d = rows.shape[:1], rows.shape[1], columns.shape[1]

    def take(self, index):
        rows = self.rows[:, index]
        x = self.source.take(rows.reshape(-1)).view(*rows.shape, self.source.d)
        return x.take_along_dim(self.columns.unsqueeze(1), -1)


def make_source(X: Any, dtype: torch.dtype, device="cpu") -> Source:
    """The source for a tensor, an array, a memory map, a CSR matrix, or a source."""
    if isinstance(X, Source):
        return X
    if isinstance(X, Tensor):
        return TensorSource(X.to(device=device, dtype=dtype), dtype, device)
    if not isinstance(X, np.ndarray):
        return SparseSource(X, dtype, device)
    if is_memory_map(X) and X.size * dtype.itemsize > _MAPPED_BYTES:
        return ArraySource(X, dtype, device)
    if not X.dtype.isnative:
        X = X.astype(X.dtype.newbyteorder("="))
    if not X.flags.writeable or any(s < 0 for s in X.strides):
        X = X.copy()  # torch takes neither
    tensor = torch.from_numpy(X).to(device=device, dtype=dtype).contiguous()
    return TensorSource(tensor, dtype, device)


class Filled(Source):
    """Another source's rows with every missing value replaced by its feature's mean."""

    def __init__(self, source: Source, means: Tensor):
        self.source, self.means = source, means
        self.dtype, self.device, self.lead = source.dtype, source.device, source.lead
        self.n, self.d = source.n, source.d

    def take(self, index):
        x = self.source.take(index)
        return complete(x, self.means, missing(x, self.means))


def missing(x: Tensor, means: Tensor) -> Tensor:
    """Where x has no value: NaN, or any value of a feature without a mean."""
    return x.isnan() | means.isnan()


def complete(x: Tensor, means: Tensor, gone: Tensor) -> Tensor:
    """x with the features' means, or 0 where there is none, in place of what is gone."""
    return torch.where(gone, means.nan_to_num().to(x), x)


def observed_cells(source: Source, means: Tensor) -> Tensor | None:
    """Where values are not missing, a byte a cell; None where none is."""
    observed, whole = None, not means.isnan().any()
    for part, x in source.chunks():
        if whole and not x.sum().isnan():
            continue
        if observed is None:
            shape = (source.n, source.d)
            observed = torch.ones(shape, dtype=torch.bool, device=source.device)
        torch.logical_not(missing(x, means), out=observed[part])
    return observed


def fill(source: Source, means: Tensor) -> Source:
    """A source of the same rows without missing values; the user's data stay as they are."""
    if isinstance(source, TensorSource):
        X = complete(source.X, means, missing(source.X, means))
        return TensorSource(X, source.dtype, source.device)
    return Filled(source, means)


def side_data(rows: Rows, index: Tensor | slice, dtype: torch.dtype) -> Rows:
    """What is known of these rows, as hooks see it: what is observed in training's dtype."""
    taken = rows.take(index)
    if taken.observed is None:
        return taken
    return dataclasses.replace(taken, observed=taken.observed.to(dtype))


def is_memory_map(X: Any) -> bool:
    """Whether the array's memory is a file's."""
    while X is not None:
        if isinstance(X, np.memmap):
            return True
        X = getattr(X, "base", None)
    return False


class Staged(Rows):
    """Weights and targets in tensors that are filled anew for every batch of one place."""


class Batches:
    """The batches of an epoch: every row exactly once, the last batch as short as it comes.

    Where pairs bring neighbours along, each row comes with one, in a batch of twice the rows.
    Batches are handed out in a few tensors that are used again, in every epoch the same ones:
    keep a copy of what should outlive the next batch.
    """

    def __init__(self, source: Source, rows: Rows, batch_size: int, shuffle: bool):
        self.source = source
        self.rows = NO_ROWS if all(part is None for part in vars(rows).values()) else rows
        self.batch_size = min(batch_size, source.n)
        self.count = -(-source.n // self.batch_size)
        self.shuffle = shuffle and self.count > 1
        pairs = self.rows.pairs
        self.accompanies = self.count > 1 and pairs is not None and pairs.brings_neighbours
        self.handed = source.n * (1 + self.accompanies)  # rows of an epoch
        self._staging: dict[int, Tensor] = {}
        self._views: tuple[Tensor, ...] = ()
        # Of the rows, where they are weights and targets alone: see `_side`.
        self._is_simple = self.rows is not NO_ROWS and all(
            part is None for name, part in vars(self.rows).items() if name not in _SIMPLE
        )
        self._sides: dict[int, Staged] = {}
        if isinstance(source, TensorSource) and not self.accompanies:
            size = source.n * source.d * source.dtype.itemsize
            if not self.shuffle:
                self._views = source.X.split(self.batch_size, dim=-2)
            elif size <= _GATHER_BYTES:
                self._shuffled = torch.empty_like(source.X)
                self._views = self._shuffled.split(self.batch_size, dim=-2)

    def epoch(self, draws) -> Iterator[tuple[Tensor, Rows]]:
        """(x, rows) of every batch, in a new random order if shuffling."""
        order = draws.permutation(self.source.n) if self.shuffle else None
        if self._views and order is not None:
            torch.index_select(self.source.X, -2, order, out=self._shuffled)
        if self._views and self.rows is NO_ROWS:
            for x in self._views:
                yield x, NO_ROWS
            return
        for i in range(self.count):
            part = slice(i * self.batch_size, min((i + 1) * self.batch_size, self.source.n))
            index = part if order is None else order[part]
            if self.accompanies:
                yield self._accompanied(index, draws)
                continue
            size = part.stop - part.start
            x = self._views[i] if self._views else self._staged(index, size)
            yield x, self._side(index, i if self._views else -size)

    def _side(self, index: Tensor | slice, place: int) -> Rows:
        """What is known of these rows; for the same place the same tensors, filled anew."""
        if self.rows is NO_ROWS:
            return NO_ROWS
        if not self._is_simple:
            return side_data(self.rows, index, self.source.dtype)
        if place not in self._sides:
            self._sides[place] = self._first_side(index)
        elif not (self._views and isinstance(index, slice)):  # which are the same in every epoch
            for axis, name in ((-1, "weight"), (-2, "target")):
                if (part := getattr(self.rows, name)) is not None:
                    _gather(part, axis, index, getattr(self._sides[place], name))
        return self._sides[place]

    def _first_side(self, index: Tensor | slice) -> Staged:
        taken = {name: getattr(self.rows.take(index), name) for name in _SIMPLE}
        if not self._views and isinstance(index, slice):  # a view, which is to be written to
            taken = {name: part if part is None else part.clone() for name, part in taken.items()}
        return Staged(**taken)

    def _accompanied(self, index: Tensor | slice, draws) -> tuple[Tensor, Rows]:
        """A batch in which every row has a neighbour along."""
        if isinstance(index, slice):
            index = torch.arange(index.start, index.stop, device=self.source.device)
        index, rows = self.rows.accompanied(index, draws)
        return self._staged(index, len(index)), rows

    def _staged(self, index: Tensor | slice, n: int) -> Tensor:
        source = self.source
        if n not in self._staging:
            shape = (*source.lead, n, source.d)
            self._staging[n] = torch.empty(shape, dtype=source.dtype, device=source.device)
        if isinstance(source, TensorSource) and isinstance(index, Tensor):
            return torch.index_select(source.X, -2, index, out=self._staging[n])
        return self._staging[n].copy_(source.take(index))


def _gather(part: Tensor, axis: int, index: Tensor | slice, out: Tensor) -> None:
    """Write these rows to `out`."""
    if isinstance(index, Tensor):
        torch.index_select(part, axis, index, out=out)
    else:
        out.copy_(part.narrow(axis, index.start, index.stop - index.start))

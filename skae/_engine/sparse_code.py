"""Products of a sparse code with dense tables, as sums over its few entries.

A code of n rows and K units of which k stay is a sparse matrix Z. With tables of d columns

    Z W     decodes,                        n k d instead of n K d operations,
    Z^T G   is the gradient of a weight,
    G W^T   at Z's entries, that of the code.

The first two are `embedding_bag`, which adds rows of a table, the third is what it gives its
weights as a gradient: torch's kernels, several times as quick as its CSR products with batches
of a few hundred rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skae.modules import DenseModule

# Of a code's cells, the part up to which its entries are summed: see `is_worth_it`.
_SPARSE = 1 / 8
_WIDE = 256  # units from which on it is worth to look for zeros at all


def is_worth_it(entries: int, rows: int, width: int, device: torch.device) -> bool:
    """Whether sums over the entries are quicker than dense products.

    A step at 784-K-784, tied, 256 rows, float32, one core (EPYC): with 1/8 of the units 1.3, 1.5
    and 1.4 times as quick for K = 512, 1024 and 4096, even at about 1/4; with 32 units 1.9, 2.4
    and 3.3 times (90 ms to 28 at 4096). What an entry costs is memory: a row of the table is read
    for it, where the dense product keeps it in the cache. GPUs multiply.
    """
    return device.type == "cpu" and width >= _WIDE and entries <= _SPARSE * rows * width


class SparseCode:
    """The entries of a code of shape (n, K), by rows and by units.

    `places` are theirs in the flattened code, in ascending order of rows.
    """

    def __init__(self, places: Tensor, n: int, width: int):
        self.width = width
        self.rows = places.div(width, rounding_mode="floor")
        self.units = places - self.rows * width
        self.row_starts = _starts(self.rows, n)
        self._by_unit: tuple[Tensor, Tensor, Tensor] | None = None

    def times(self, values: Tensor, table: Tensor) -> Tensor:
        """Z W of shape (n, d), for a table W of shape (K, d)."""
        return F.embedding_bag(
            self.units, table, self.row_starts, mode="sum", per_sample_weights=values
        )

    def transposed_times(self, values: Tensor, table: Tensor) -> Tensor:
        """Z^T G of shape (K, d), for a table G of shape (n, d)."""
        if self._by_unit is None:
            order = self.units.argsort(stable=True)
            self._by_unit = order, self.rows[order], _starts(self.units, self.width)
        order, rows, starts = self._by_unit
        return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=values[order])

    def products(self, G: Tensor, table: Tensor) -> Tensor:
        """The entries of G W^T, for G of shape (n, d) and W of shape (K, d)."""
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            G, table, self.units, self.row_starts, self.rows, 0
        )


def _starts(index: Tensor, n: int) -> Tensor:
    """Where the entries of each of n bags begin."""
    counts = torch.bincount(index, minlength=n)
    return counts.cumsum(0) - counts


class SparseSides:
    """The layers on both sides of a sparse code: the decoder's first and the encoder's last.

    `code` and `values` are set for a batch; `DenseOps` calls these methods in place of its
    products. Gradients pass through the entries unchanged.
    """

    code: SparseCode
    values: Tensor  # (entries,)
    d_values: Tensor

    def forward(self, slot) -> None:
        """The decoder's first layer before its activation."""
        summed = self.code.times(self.values, slot.W_t.contiguous())
        torch.add(summed.mul_(slot.layer.gain), slot.b, alpha=slot.layer.bias_gain, out=slot.a)

    def back_decoder(self, slot) -> None:
        """Gradient of the decoder's first weight, and of the entries."""
        slot.dW.mT.copy_(self.code.transposed_times(self.values, slot.delta))
        self.d_values = self.code.products(slot.delta, slot.W_t.contiguous())

    def back_encoder(self, slot, seen: Tensor, down: Tensor | None, adds: bool) -> None:
        """Gradients of the encoder's last weight and bias, and of what it saw."""
        code, gain = self.code, slot.layer.gain
        d_W = code.transposed_times(self.d_values, seen)
        (slot.dW.add_ if adds else slot.dW.copy_)(d_W.mul_(gain))
        slot.db.zero_().view(-1).index_add_(0, code.units, self.d_values)
        if down is not None:
            down.copy_(code.times(self.d_values, slot.W))
        if slot.seed is not None:  # what a penalty asks of h, usually of a few units
            units = slot.seed.any(-2).nonzero().squeeze(-1)
            seed = slot.seed[:, units]
            slot.dW[units] += (seed.mT @ seen).mul_(gain)
            slot.db[0, units] += seed.sum(-2)
            if down is not None:
                down.addmm_(seed, slot.W[units])


def infer_from_sparse(module: nn.Module, z: Tensor) -> Tensor | None:
    """The output of a dense module without a graph, from codes with many zeros; None otherwise."""
    n, width = z.shape
    if not isinstance(module, DenseModule) or width < _WIDE:
        return None
    # The module's weight has to be turned, which costs as much as two rows of it.
    entries = int(z.count_nonzero()) + 2 * width
    if not is_worth_it(entries, n, width, z.device):
        return None
    linear: nn.Linear = module[0]  # type: ignore[assignment]
    places = z.flatten().nonzero().squeeze(-1)
    W, b = linear.weight.to(z.dtype).t().contiguous(), linear.bias.to(z.dtype)
    a = SparseCode(places, n, width).times(z.flatten()[places], W).add_(b)
    return module[1:].infer(a)  # type: ignore[operator]

"""What all fitted networks share: results in bounded chunks, devices, pickles."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._engine.batches import Source
from skae.estimators._input import checked_device

_CELLS = 2**21  # of the widest layer, held at once: a few tens of megabytes
_FEW_ROWS = 64  # that are never worth splitting


def in_chunks(
    source: Source, function: Callable, width: int | None, widest: Callable[[], int]
) -> Tensor:
    """``function(rows, out)`` of all rows, a bounded number at a time.

    `widest` gives the largest number of cells that a row comes to on the way. The function may
    write its result to `out`, or return a tensor of its own.
    """
    with torch.no_grad():
        if source.n <= _FEW_ROWS:
            return function(source.take(slice(0, source.n)), None)
        shape = (source.n,) if width is None else (source.n, width)
        out = torch.empty(shape, dtype=source.dtype, device=source.device)
        for part, x in source.chunks(max(_FEW_ROWS, _CELLS // widest())):
            result = function(x, out[part])
            if result.data_ptr() != out[part].data_ptr() or result.shape != out[part].shape:
                out[part] = result
    return out


class HoldsModules:
    """An estimator with fitted torch modules."""

    _modules: ClassVar[tuple[str, ...]] = ("encoder_", "decoder_")

    def to(self, device):
        """Move the fitted network to a device.

        Parameters
        ----------
        device : str or torch.device
            Where inference should run. Results still come back as X's kind of array.

        Returns
        -------
        self : object
            The same estimator.
        """
        check_is_fitted(self)
        device = checked_device(device)
        for module in self._held_modules:
            module.to(device)
        return self

    @property
    def _held_modules(self) -> list[nn.Module]:
        """Those that there are: a model need not have all."""
        held = (getattr(self, name, None) for name in self._modules)
        return [module for module in held if module is not None]

    def __getstate__(self):
        state: Any = super().__getstate__()
        for name in self._modules:
            module = state.get(name)
            first = None if module is None else next(module.parameters(), None)
            if first is not None and first.device.type != "cpu":
                state = {**state, name: copy.deepcopy(state[name]).cpu()}
        return state

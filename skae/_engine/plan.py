"""Which path trains this network under this objective, with how many threads, and why."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch

from skae._engine.autograd import Autograd
from skae._engine.buffer import Buffer
from skae._engine.fused import Fused
from skae._engine.rng import Streams
from skae.modules import Wrapped
from skae.networks import Network
from skae.objective import Objective

# Below this many floating-point operations a step, about a millisecond on one core, a second
# thread brings little, and much less than nothing where another process holds its core.
_ONE_THREAD_FLOPS = 1e8


class Plan(NamedTuple):
    """The path taken, "fused" or "autograd", and the reason."""

    path: str
    reason: str

    def engine(
        self,
        network: Network,
        objective: Objective,
        buffer: Buffer,
        streams: Streams,
        epoch_rows: int | None = None,
    ) -> Fused | Autograd:
        """The engine that computes values and gradients, with this many rows an epoch."""
        kind = Fused if self.path == "fused" else Autograd
        return kind(network, objective, buffer, streams, epoch_rows)


def make_plan(network: Network, objective: Objective) -> Plan:
    """Choose the path."""
    users = [stack.name for stack in network.stacks if isinstance(stack, Wrapped)]
    if users:
        return Plan("autograd", f"the {' and the '.join(users)} is more than dense layers")
    if network.draws:
        return Plan("autograd", "the network draws a second layer of codes")
    if objective.needs_graph:
        return Plan("autograd", f"{type(objective).__name__} differentiates through the network")
    return Plan("fused", "all layers are dense")


class Shared:
    """A setting of the whole process for several runs at once: first in sets it, last out resets.

    `enter` sets it and returns what `leave` needs to put it back.
    """

    def __init__(self, enter: Callable[[], Any], leave: Callable[[Any], None]):
        self.enter, self.leave = enter, leave
        self.lock, self.runs, self.before = threading.Lock(), 0, None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if self.runs == 0:
                self.before = self.enter()
            self.runs += 1
        try:
            yield
        finally:
            with self.lock:
                self.runs -= 1
                if self.runs == 0:
                    self.leave(self.before)


# Before torch 2.9 the precision of all float32 products is one switch.
_PRODUCTS: Any = getattr(torch.backends.mkldnn, "matmul", None)
_SCOPED = hasattr(_PRODUCTS, "fp32_precision")


def _get_products() -> str:
    return _PRODUCTS.fp32_precision if _SCOPED else torch.get_float32_matmul_precision()


def _set_products(precision: str) -> None:
    if _SCOPED:
        _PRODUCTS.fp32_precision = precision
    else:
        torch.set_float32_matmul_precision(precision)


def _enter_bfloat16() -> str:
    before = _get_products()
    _set_products("bf16" if _SCOPED else "medium")
    return before


_bfloat16_products = Shared(_enter_bfloat16, _set_products)


@contextmanager
def computing(flops: float, precision: str | None) -> Iterator[None]:
    """Set torch's threads and matrix-product precision for a run, and put them back.

    Both are global to the process; bfloat16 products keep float32 storage.
    """
    threads = torch.get_num_threads()
    try:
        if flops < _ONE_THREAD_FLOPS and threads > 1:
            torch.set_num_threads(1)
        with _bfloat16_products() if precision == "bfloat16" else nullcontext():
            yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

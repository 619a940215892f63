"""Seeded draws: one child generator per purpose, never the global generators."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# One stream each, so that a purpose without draws leaves the others untouched: zero noise is the
# plain autoencoder bit for bit. New purposes go to the end.
PURPOSES = (
    "init",
    "split",
    "shuffle",
    "corruption",
    "dropout",
    "latent",
    "module",
    "input_dropout",
    "penalty",
    "prior",
    "adversary",
    "labels",
)


class Draws:
    """Random tensors from one generator, or from one per model of a stack.

    With one generator, models on a leading axis share their draws, as each would draw alone; with
    M generators, every model of the stack has its own.
    """

    def __init__(self, generators: Sequence[torch.Generator], dtype: torch.dtype, device):
        self.generators, self.dtype, self.device = list(generators), dtype, device
        #: Fraction of the schedule's horizon that has passed, for hooks with a schedule.
        self.progress = 0.0

    def _draw(self, like: Tensor | Sequence[int], fill: str, *args) -> Tensor:
        if isinstance(like, Tensor) and like.ndim <= 2 and len(self.generators) == 1:
            out = torch.empty_like(like, memory_format=torch.contiguous_format)
            return getattr(out, fill)(*args, generator=self.generators[0])
        shape, dtype, device = (
            (like.shape, like.dtype, like.device)
            if isinstance(like, Tensor)
            else (torch.Size(like), self.dtype, self.device)
        )
        if len(self.generators) > 1:
            out = torch.empty(shape, dtype=dtype, device=device)
            for row, generator in zip(out, self.generators, strict=True):
                getattr(row, fill)(*args, generator=generator)
            return out
        out = torch.empty(shape[-2:], dtype=dtype, device=device)
        getattr(out, fill)(*args, generator=self.generators[0])
        return out if len(shape) <= 2 else out.expand(shape)

    def normal(self, like: Tensor | Sequence[int]) -> Tensor:
        """Standard normal numbers of the shape, dtype and device of `like`."""
        return self._draw(like, "normal_")

    def uniform(self, like: Tensor | Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1) of the shape, dtype and device of `like`."""
        return self._draw(like, "uniform_")

    def bernoulli(self, p: float | Tensor, like: Tensor | Sequence[int]) -> Tensor:
        """Ones with probability `p`, zeros otherwise, of the shape of `like`.

        `p` may hold one value per model: the models then share the uniform numbers behind it.
        """
        u = self.uniform(like)
        return (u < p).to(u.dtype)

    def bits(self, like: Tensor) -> Tensor:
        """32 random bits for every element of `like`, as int32: half the time of a `uniform`."""
        if len(self.generators) > 1:
            return torch.stack([_bits(like.shape[1:], g) for g in self.generators])
        return _bits(like.shape[-2:], self.generators[0]).expand(like.shape)

    def permutation(self, n: int) -> Tensor:
        """A random order of n rows, from the first generator."""
        return torch.randperm(n, generator=self.generators[0], device=self.generators[0].device)

    def __getstate__(self):
        raise TypeError("Draws are not saved: save the Streams they come from.")


def _bits(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random bits, drawn for two numbers at once."""
    n = shape.numel()
    pairs = torch.empty(-(-n // 2), dtype=torch.int64, device=generator.device)
    pairs.random_(-(2**63), None, generator=generator)
    return pairs.view(torch.int32)[:n].view(shape)


class Streams:
    """The child generators of one seed, or of one seed per model."""

    def __init__(self, seeds: Sequence[int], device="cpu"):
        self.device = torch.device(device)
        self.generators = {purpose: [] for purpose in PURPOSES}  # type: dict[str, list]
        for seed in seeds:
            parent = torch.Generator("cpu").manual_seed(seed)
            for purpose in PURPOSES:
                child = int(torch.randint(2**62, (), generator=parent, device="cpu"))
                generator = torch.Generator(self.device).manual_seed(child)
                self.generators[purpose].append(generator)

    def draws(self, purpose: str, dtype: torch.dtype) -> Draws:
        """The draws for one purpose."""
        return Draws(self.generators[purpose], dtype, self.device)

    def state(self) -> dict[str, list[Tensor]]:
        """The generators' states, to resume from."""
        return {p: [g.get_state() for g in gs] for p, gs in self.generators.items()}

    def restore(self, state: dict[str, list[Tensor]]) -> None:
        """Continue where `state` was taken."""
        for purpose, states in state.items():
            for generator, saved in zip(self.generators[purpose], states, strict=True):
                generator.set_state(saved)


_GLOBAL_GENERATOR = threading.Lock()  # fits in several threads take turns with it


@contextmanager
def module_draws(streams: Streams) -> Iterator[None]:
    """Give torch's global generator our stream, for a user's module, and put it back."""
    generator = streams.generators["module"][0]
    fork = [generator.device] if generator.device.type == "cuda" else []
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=fork):
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        used = torch.default_generator
        if fork:
            used = torch.cuda.default_generators[generator.device.index or 0]
        used.manual_seed(seed)  # torch.manual_seed would seed every device's
        yield

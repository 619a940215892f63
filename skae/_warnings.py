"""Warnings that point to where the package was called."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_PASSED = ("skae", "sklearn", "joblib", "contextlib")  # whose frames are not the caller's
Warnings = list[tuple[str, type[Warning]]]
_held: ContextVar[Warnings | None] = ContextVar("held", default=None)


@contextmanager
def held_warnings() -> Iterator[Warnings]:
    """Hold the warnings of this thread back, for whoever knows what they are about."""
    held: Warnings = []
    token = _held.set(held)
    try:
        yield held
    finally:
        _held.reset(token)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points to the line from which the libraries were called."""
    held = _held.get()
    if held is not None:
        held.append((message, category))
        return
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package(frame.f_globals) in _PASSED:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _package(names: dict[str, Any]) -> str:
    return names.get("__name__", "").partition(".")[0]

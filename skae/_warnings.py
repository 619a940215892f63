"""Warnings that point to where the package was called."""

from __future__ import annotations

import inspect
import warnings
from typing import Any


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points to the line from which the libraries were called."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package(frame.f_globals) in ("skae", "sklearn", "joblib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _package(names: dict[str, Any]) -> str:
    return names.get("__name__", "").partition(".")[0]

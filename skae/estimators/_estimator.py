"""`@estimator`: an explicit keyword-only signature and shared docstrings, never restated."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TypeVar, dataclass_transform

T = TypeVar("T", bound=type)
_PARAMETERS = re.compile(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)", re.S | re.M)
_ENTRY = re.compile(r"^(\w+(?:, \w+)*) : .*?(?=^\S|\Z)", re.S | re.M)


@dataclass_transform(kw_only_default=True, eq_default=False)
def estimator(cls: T) -> T:
    """Make annotated class attributes keyword-only parameters and complete the docstring.

    The constructor stores its arguments and nothing else. The class documents the parameters it
    adds or changes; those it inherits are documented by the class that has them, and are inserted
    in the order of the signature.
    """
    own_doc = inspect.cleandoc(cls.__doc__ or "")
    dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)  # adds __init__ in place
    entries: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        doc = own_doc if parent is cls else getattr(parent, "__own_doc__", "")
        entries |= _entries(doc)
    cls.__own_doc__ = own_doc  # type: ignore[attr-defined]
    names = inspect.signature(cls).parameters
    text = "\n\n".join(entries[name] for name in names if name in entries)
    section = f"Parameters\n----------\n{text}\n\n"
    cls.__doc__ = _PARAMETERS.sub(lambda _: section, own_doc, count=1)
    return cls


def _entries(doc: str) -> dict[str, str]:
    found = _PARAMETERS.search(doc)
    if not found:
        return {}
    return {
        name: entry.group(0).strip()
        for entry in _ENTRY.finditer(found.group(1))
        for name in entry.group(1).split(", ")
    }

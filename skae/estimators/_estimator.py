"""`@estimator`: an explicit keyword-only signature and shared docstrings, never restated."""

from __future__ import annotations

import dataclasses
import inspect
import re
from functools import cache
from typing import TypeVar, dataclass_transform

T = TypeVar("T", bound=type)
_SECTION = r"^{}\n-+\n(.*?)(?=^\S[^\n]*\n-+\n|\Z)"
_SECTIONS = {
    title: re.compile(_SECTION.format(title), re.S | re.M) for title in ("Parameters", "Attributes")
}
_ENTRY = re.compile(r"^(\w+(?:, \w+)*) : .*?(?=^\S|\Z)", re.S | re.M)


@dataclass_transform(kw_only_default=True, eq_default=False)
def estimator(cls: T) -> T:
    """Make annotated class attributes keyword-only parameters and complete the docstring.

    The constructor stores its arguments and nothing else. The class documents the parameters and
    attributes it adds or changes; those it inherits are documented by the class that has them.
    Parameters come in the order of the signature, attributes with the class's own first.
    """
    own_doc = inspect.cleandoc(cls.__doc__ or "")
    dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)  # adds __init__ in place
    cls.__own_doc__ = own_doc  # type: ignore[attr-defined]
    doc = own_doc
    for title, in_order in (("Parameters", _by_signature), ("Attributes", _own_first)):
        doc = _replaced(doc, title, in_order(cls, _entries(own_doc, title), _above(cls, title)))
    cls.__doc__ = doc
    return cls


def _above(cls: type, title: str) -> dict[str, str]:
    """The entries of a section that the class inherits, by name."""
    docs = [vars(parent).get("__own_doc__", "") for parent in reversed(cls.__mro__[1:])]
    return {name: entry for doc in docs for name, entry in _entries(doc, title).items()}


def _by_signature(cls: type, own: dict[str, str], above: dict[str, str]) -> dict[str, str]:
    entries = above | own
    return {name: entries[name] for name in inspect.signature(cls).parameters if name in entries}


def _own_first(cls: type, own: dict[str, str], above: dict[str, str]) -> dict[str, str]:
    new = {name: entry for name, entry in own.items() if name not in above}
    return new | {name: own.get(name, entry) for name, entry in above.items()}


@cache  # a parent is asked by every child
def _entries(doc: str, title: str) -> dict[str, str]:
    found = _SECTIONS[title].search(doc)
    if not found:
        return {}
    return {
        name: entry.group(0).strip()
        for entry in _ENTRY.finditer(found.group(1))
        for name in entry.group(1).split(", ")
    }


def _replaced(doc: str, title: str, entries: dict[str, str]) -> str:
    """The docstring with these entries in a section; names that share one show it once."""
    text = "\n\n".join(dict.fromkeys(entries.values()))
    section = f"{title}\n----------\n{text}\n\n"
    return _SECTIONS[title].sub(lambda _: section, doc, count=1)

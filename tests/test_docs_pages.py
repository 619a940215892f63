"""The pages in docs/: every public name has one, and what they link to and show is there."""

import importlib.util
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
from estimators.test_docs import IGNORED, IGNORED_OF_METHODS, mistakes, own_methods, path
from sklearn.base import BaseEstimator

import skae

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs/_ext/api_pages.py")
api_pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(api_pages)

NAMES = [name for names in api_pages.sections().values() for name in names]
IGNORED_OF_CONTRACT = IGNORED | {"EX01": "the page on a variant of one's own has the example"}


def found(name):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def offered(name):
    """Whether users call it; hooks of the contract say shapes in a sentence, not in sections."""
    return found(name) not in api_pages.FOR_OBJECTIVES


# test_docs.py holds estimators to more than this.
OTHERS = [n for n in NAMES if not (inspect.isclass(c := found(n)) and issubclass(c, BaseEstimator))]


def test_every_public_name_has_one_page():
    times = Counter(name.removeprefix("skae.") for name in NAMES)
    assert {name: times[name] for name in skae.__all__} == dict.fromkeys(skae.__all__, 1)
    assert set(times.values()) == {1}
    assert "testing.check_objective" in times


def test_the_page_shows_what_was_found():
    lines = {line.strip() for line in api_pages.page().splitlines()}
    assert set(NAMES) <= lines


def with_methods(names):
    """The paths of objects and of their methods, with what is not asked of each."""
    for name in names:
        yield path(found(name)), IGNORED if offered(name) else IGNORED_OF_CONTRACT
        if offered(name) and inspect.isclass(found(name)):
            for method in own_methods(found(name)):
                yield f"{path(found(name))}.{method}", IGNORED_OF_METHODS


@pytest.mark.parametrize(("name", "ignored"), list(with_methods(OTHERS)))
def test_docstring_of_what_is_no_estimator_is_valid(name, ignored):
    assert mistakes(name, ignored) == []


# ---- links to elsewhere

TEXTS = [
    *(ROOT / "docs").glob("*.*"),
    *(ROOT / "docs/guide").glob("*.rst"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "skae").rglob("*.py"),
]
LINK = re.compile(r"https?://[^\s>)\]\"'`]+")
HOST = re.compile(r"https://[\w-]+(\.[\w-]+)+(/|$)")
ARXIV = re.compile(r"arxiv(?:\.org/abs/|:)\s*([\w./-]*\w)", re.I)
DOI = re.compile(r"doi\.org/([^\s>)\]\"'`]*)")


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_to_elsewhere_are_well_formed(file):
    text = file.read_text()
    assert [n for n in ARXIV.findall(text) if not re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?", n)] == []
    assert [n for n in DOI.findall(text) if not re.fullmatch(r"10\.\d{4,9}/\S+", n)] == []
    assert [
        u for u in LINK.findall(text) if not re.match(r"https://[\w-]+(\.[\w-]+)+(/|$)", u)
    ] == []

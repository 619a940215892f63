"""The README's code runs, and its tables say what the package is."""

import importlib.util
import inspect
import re
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import OutlierMixin

import skae

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


PARAMETERS = README.parent / "docs" / "parameters.md"
DEFAULTS = README.parent / "docs" / "defaults.md"


def column_of_names(header, page=README):
    """The rows of the table under `header`, as tuples of their cells."""
    lines = page.read_text().split(header, 1)[1].splitlines()[1:]
    table = [line for line in takewhile(bool, lines) if line.startswith("| `")]
    return [tuple(cell.strip(" `") for cell in line.strip("|").split(" | ")) for line in table]


def test_every_python_block_runs_in_the_order_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, names = README.read_text(), {}
    for found in BLOCK.finditer(text):
        code = found.group(1)
        if "sklearn.callback" in code and importlib.util.find_spec("sklearn.callback") is None:
            continue  # scikit-learn before 1.9
        above = "\n" * text.count("\n", 0, found.start(1))  # so that errors show the line
        exec(compile(above + code, str(README), "exec"), names)
    assert names["codes"].shape == (1797, 16)
    assert ((names["sparse"].transform(names["X"]) != 0).sum(1) == 10).all()
    hidden = np.isnan(names["holes"])
    error = (names["complete"] - names["wine"])[hidden]
    assert np.mean(error**2) < np.mean(names["wine"][hidden] ** 2)
    assert names["X_hat"].shape == (450, 64)
    assert names["model"].score(names["X_test"], names["y_test"]) > 0.9
    flagged = (names["flags"] == -1).sum()
    assert names["why"].shape == (3 * flagged, 6)
    assert names["p"].min() > 0
    assert names["by_auroc"].best_score_ > 0.9


def test_every_estimator_is_in_the_table():
    named = [name for row in column_of_names("| estimator |") for name in row[0].split("`, `")]
    assert sorted(named) == sorted(skae.__all__)


def test_the_detectors_table_has_all_their_parameters_and_defaults():
    expected = {
        (name, parameter.name): repr(parameter.default)
        for name in skae.__all__
        if inspect.isclass(cls := getattr(skae, name)) and issubclass(cls, OutlierMixin)
        for parameter in inspect.signature(cls).parameters.values()
    }
    said = {
        (detector, name): default
        for detectors, name, default, *_ in column_of_names("| detector |", PARAMETERS)
        for detector in detectors.split("`, `")
    }
    assert said == expected


@pytest.mark.parametrize("row", column_of_names("| parameter |", DEFAULTS), ids=lambda row: row[0])
def test_the_table_of_defaults_shows_the_defaults(row):
    name, default = row[:2]
    both = skae.ReconstructionOutlierDetector, skae.Autoencoder
    signature = next(s for cls in both if name in (s := inspect.signature(cls).parameters))
    assert default == repr(signature[name].default)


def test_the_variants_table_has_what_each_adds_or_changes_and_its_default():
    plain = inspect.signature(skae.Autoencoder).parameters
    expected = {
        (name, parameter.name): repr(parameter.default)
        for name in skae.__all__
        if inspect.isclass(cls := getattr(skae, name)) and not issubclass(cls, OutlierMixin)
        for parameter in inspect.signature(getattr(skae, name)).parameters.values()
        if parameter.name not in plain or plain[parameter.name].default != parameter.default
    }
    said = {
        (estimator, name): default
        for estimators, name, default, *_ in column_of_names("| estimator |", PARAMETERS)
        for estimator in estimators.split("`, `")
    }
    assert said == expected

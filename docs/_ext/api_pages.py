"""The page of all public names, found rather than listed: `skae.__all__`, and modules with one."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

from sklearn.base import ClassifierMixin, OutlierMixin, RegressorMixin
from sphinx.application import Sphinx

import skae
from skae.estimators._base import BaseAutoencoder
from skae.losses import LOSSES, Loss
from skae.objective import Objective

# What objectives of one's own are written with.
FOR_OBJECTIVES = [Objective, Loss, *map(type, LOSSES.values())]

HEAD = """\
Public names
============

Methods that scikit-learn gives to every estimator, such as `get_params`, `set_params`,
`set_output`, `fit_transform` or `get_feature_names_out`, work as described there and are not
repeated on these pages.
"""


def kind(name: str) -> str:
    """The section in which a public name of `skae` stands."""
    found = getattr(skae, name)
    if not inspect.isclass(found):
        return "Functions"
    if issubclass(found, OutlierMixin):
        return "Detectors"
    if issubclass(found, ClassifierMixin | RegressorMixin):
        return "Networks that labels train"
    if issubclass(found, BaseAutoencoder) or hasattr(found, "inverse_transform"):
        return "Autoencoders"
    return "Displays" if name.endswith("Display") else "Others"


def modules_with_names() -> list[str]:
    """Public modules below `skae` that say what they offer."""
    names = [m.name for m in pkgutil.iter_modules(skae.__path__, "skae.")]
    public = [name for name in names if not name.rpartition(".")[2].startswith("_")]
    return [name for name in public if hasattr(importlib.import_module(name), "__all__")]


def sections() -> dict[str, list[str]]:
    """Titles, and the full names under each."""
    order = "Autoencoders", "Networks that labels train", "Detectors", "Functions", "Displays"
    found: dict[str, list[str]] = {title: [] for title in (*order, "Others")}
    for name in skae.__all__:
        found[kind(name)].append(f"skae.{name}")
    for module in modules_with_names():
        offered = importlib.import_module(module).__all__
        found[f"``{module}``"] = [f"{module}.{n}" for n in offered if n not in skae.__all__]
    found["Objectives and losses of your own"] = [
        f"{cls.__module__}.{cls.__name__}" for cls in FOR_OBJECTIVES
    ]
    return {title: names for title, names in found.items() if names}


def page() -> str:
    """The page, with a table of summaries in every section."""
    parts = [HEAD]
    for title, names in sections().items():
        table = "\n   ".join([".. autosummary::", ":toctree:", ":nosignatures:", "", *names])
        parts.append(f"{title}\n{'-' * len(title)}\n\n{table}\n")
    return "\n".join(parts)


def skip_others(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what scikit-learn defines."""
    if what != "class" or skip:
        return None
    function = obj.fget if isinstance(obj, property) else inspect.unwrap(getattr(obj, "fn", obj))
    return None if (getattr(function, "__module__", None) or "").startswith("skae") else True


# As in "of shape (n_samples, n_components_)", and in 'default="loss_"'.
FITTED = re.compile(r"(?<=[(, ])(n_\w+)_(?=[,)])|(?<==\")(\w+)_(?=\"$)")


def escape_names(app, what, name, obj, options, lines) -> None:
    """Keep names that end in an underscore from being read as references."""
    lines[:] = [
        FITTED.sub(lambda found: f"{found.group()[:-1]}\\_", line)
        if "of shape (" in line or "default=" in line
        else line
        for line in lines
    ]


def setup(app: Sphinx) -> dict:
    here = Path(app.srcdir) / "api" / "index.rst"
    here.parent.mkdir(exist_ok=True)
    text = page()
    if not here.exists() or here.read_text() != text:  # a new date would read all pages again
        here.write_text(text)
    names = {name for section in sections().values() for name in section}
    for stub in here.parent.glob("skae.*.rst"):
        if stub.stem not in names:
            stub.unlink()  # of a name that is gone
    app.connect("autodoc-skip-member", skip_others)
    app.connect("autodoc-process-docstring", escape_names, priority=900)  # after numpydoc
    return {"parallel_read_safe": True}

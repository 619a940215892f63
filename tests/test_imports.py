"""Who may import whom (docs/architecture.md), and what importing the package brings along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skae

ROOT = Path(skae.__file__).parent
FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
DEFINITIONS = {f"skae.{name}" for name in (
    "_warnings", "activations", "bounds", "corruption", "cross_prediction", "label_losses",
    "latents", "likelihoods", "losses", "modules", "monte_carlo", "networks", "objective", "pairs",
    "penalties", "priors", "two_layers")}  # fmt: skip
# Below the estimators there is only torch, but where data enter and SciPy optimises.
NUMERIC = {
    "skae._engine.batches": {"numpy", "scipy"},
    "skae._engine.solvers": {"numpy", "scipy", "threadpoolctl"},
}
# Variants that another holds, not inherits from.
HELD = {
    ("skae.estimators.autoencoder_outlier", "skae.estimators.denoising"),
    ("skae.estimators.fine_tuning", "skae.estimators.autoencoder"),
    ("skae.estimators.outlier", "skae.estimators.autoencoder"),
    ("skae.estimators.stacked", "skae.estimators.autoencoder"),
    ("skae.estimators.stacked_predictors", "skae.estimators.stacked"),
}


def imported(module):
    """The modules that a module imports, anywhere in it, as (name, only for typing)."""
    path, package = FILES[module], module if FILES[module].name == "__init__.py" else None
    parent = package or module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parent.split(".")[: len(parent.split(".")) + 1 - node.level]
            name = ".".join([*base, node.module or ""] if node.level else [node.module])
            names = {f"{name}.{alias.name}" for alias in node.names}
            found |= {n for n in names if n in FILES} or {name}
    return found


def layer(module):
    """definitions < engine < estimators < package; `testing` and tools stand beside them."""
    if module in DEFINITIONS:
        return "definitions"
    if module == "skae._engine" or module.startswith("skae._engine."):
        return "engine"
    if module == "skae":
        return "package"
    if module.startswith(("skae.callbacks", "skae.inspection")):
        return "tools"
    return "testing" if module.startswith("skae.testing") else "estimators"


MAY_IMPORT = {
    "definitions": {"definitions"},
    "engine": {"engine", "definitions"},
    "testing": {"testing", "engine", "definitions"},
    "estimators": {"estimators", "engine", "definitions"},
    "tools": {"tools", "engine", "definitions"},
    "package": {"estimators", "definitions", "testing"},
}
OWN = {m: sorted(i for i in imported(m) if i.partition(".")[0] == "skae") for m in FILES}
VARIANTS = {m for m in FILES if layer(m) == "estimators"
            and m.startswith("skae.estimators.") and "._" not in m}  # fmt: skip


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downwards_only(module):
    for other in OWN[module]:
        assert other in FILES, f"{module} imports {other}, which does not exist"
        assert layer(other) in MAY_IMPORT[layer(module)], f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in FILES if layer(m) in ("definitions", "engine")])
def test_below_the_estimators_there_is_only_torch(module):
    packages = {name.partition(".")[0] for name in imported(module)} - {"skae"}
    others = packages - set(sys.stdlib_module_names) - {"torch"}
    assert others <= NUMERIC.get(module, set()), f"{module} imports {sorted(others)}"


def test_definitions_see_only_what_they_are_made_of():
    assert OWN["skae.activations"] == []
    assert OWN["skae.modules"] == ["skae.activations"]
    assert OWN["skae.losses"] == ["skae.activations"]
    assert OWN["skae.networks"] == ["skae.activations", "skae.modules"]
    assert OWN["skae.pairs"] == OWN["skae.penalties"] == []
    assert OWN["skae.objective"] == ["skae.losses", "skae.pairs"]


@pytest.mark.parametrize("module", sorted(VARIANTS))
def test_variants_do_not_import_each_other(module):
    others = {other for other in OWN[module] if other in VARIANTS}
    assert {(module, other) for other in others} <= HELD


def test_nothing_imports_what_only_users_need():
    for module in set(FILES) - {"skae"}:
        is_own = layer(module) == "testing"
        assert is_own or not [other for other in OWN[module] if layer(other) == "testing"]
        assert "skae" not in OWN[module], f"{module} imports the package it is part of"


def test_no_module_imports_in_a_circle():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            path.append(module)
            for other in OWN[module]:
                visit(other)
            path.pop()
            done.add(module)

    for module in FILES:
        visit(module)


def test_stub_imports_exactly_the_public_names_from_their_homes():
    tree = ast.parse(FILES["skae"].with_suffix(".pyi").read_text())
    assert ast.get_docstring(tree)
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert homes == skae._HOMES
    (names,) = [n.value for n in tree.body if isinstance(n, ast.Assign)]
    assert ast.literal_eval(names) == skae.__all__ == sorted(homes)


def test_names_come_when_asked_for_and_others_are_refused():
    assert set(skae.__all__) <= set(dir(skae))
    with pytest.raises(AttributeError, match="module 'skae' has no attribute 'Autoencodr'"):
        skae.Autoencodr  # noqa: B018


ONE_NAME = """
import sys
from skae import Autoencoder
print(*(name for name in sys.modules if name.startswith("skae.estimators.")))
"""


def test_one_estimator_does_not_bring_the_others():
    done = subprocess.run(
        [sys.executable, "-c", ONE_NAME], capture_output=True, text=True, check=True
    )
    public = {name for name in done.stdout.split() if not name.split(".")[-1].startswith("_")}
    assert public == {"skae.estimators.autoencoder"}


@pytest.mark.parametrize("module", FILES)
def test_public_names_are_sorted_unique_and_exist(module):
    found = sys.modules.get(module) or __import__(module, fromlist=["_"])
    names = list(getattr(found, "__all__", []))
    assert names == sorted(set(names))
    assert all(hasattr(found, name) for name in names)


# Slow to import, and used by few: where they are used.
LAZY = ("sklearn.neighbors", "sklearn.metrics", "sklearn.manifold", "scipy.sparse.csgraph",
        "scipy.optimize")  # fmt: skip
SLOW_MODULES = """
import contextlib, sys, torch, sklearn.base, sklearn.utils.validation, sklearn.utils.metaestimators
with contextlib.suppress(ImportError):
    import sklearn.callback  # since 1.9
before = set(sys.modules)
from skae import *
print(*sorted(set(sys.modules) - before))
"""


def test_importing_the_package_imports_nothing_slow_of_scikit_learn_and_scipy():
    """Beyond what scikit-learn and torch bring by themselves."""
    done = subprocess.run(
        [sys.executable, "-c", SLOW_MODULES], capture_output=True, text=True, check=True
    )
    found = done.stdout.split()
    assert "skae" in found
    assert not [m for m in found if m.startswith(LAZY)]


NEW_MODULES = """
import contextlib, sys, torch, torch.func, scipy.optimize, sklearn.base
with contextlib.suppress(ImportError):
    import sklearn.callback  # since 1.9; itself imports rich where it is installed
before = set(sys.modules)
from skae import *
import skae.callbacks, skae.inspection
print(*(name.partition(".")[0] for name in set(sys.modules) - before))
"""


def test_importing_the_package_brings_only_what_it_requires():
    """No plotting and no optional package: only more of torch's and scikit-learn's own."""
    done = subprocess.run(
        [sys.executable, "-c", NEW_MODULES], capture_output=True, text=True, check=True
    )
    found = set(done.stdout.split()) - set(sys.stdlib_module_names)
    assert "skae" in found
    assert found <= {"skae", "torch", "sklearn", "scipy", "numpy", "joblib", "threadpoolctl"}

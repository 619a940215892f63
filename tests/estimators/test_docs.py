"""Docstrings say what is there: no parameter, default, option or attribute too many or too few."""

import ast
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pandas as pd
import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.decomposition import PCA
from sklearn.utils._param_validation import StrOptions

import skae
import skae.callbacks
import skae.inspection
from skae.estimators._base import BaseAutoencoder
from skae.estimators._estimator import estimator

ESTIMATORS = [
    cls
    for name in skae.__all__
    if inspect.isclass(cls := getattr(skae, name)) and issubclass(cls, BaseEstimator)
]
TOOLS = [
    getattr(module, name) for module in (skae.callbacks, skae.inspection) for name in module.__all__
]

IGNORED = {
    "ES01": "one sentence often says it all",
    "SA01": "methods of one class need no See Also",
    "RT02": "scikit-learn names what is returned: `Z : ndarray of shape ...`",
    "GL02": "the docstrings of estimators are put together by @estimator, without a last newline",
}
IGNORED_OF_METHODS = IGNORED | {"EX01": "the class has the example"}


def path(obj):
    return f"{obj.__module__}.{obj.__qualname__}"


def own_methods(cls):
    """Public methods and properties that this package wrote."""
    for name, member in inspect.getmembers(cls):
        static = inspect.getattr_static(cls, name)
        function = static.fget if isinstance(static, property) else inspect.unwrap(member)
        is_ours = (getattr(function, "__module__", None) or "").startswith("skae.")
        if is_ours and not name.startswith("_") and not inspect.isclass(member):
            yield name


def mistakes(name, ignored):
    """What numpydoc finds, apart from the codes ignored and full stops within brackets."""
    entries = get_doc_object(Validator._load_obj(name))["Parameters"]
    bracketed = [e.name for e in entries if "".join(e.desc).endswith(".)")]
    return [
        (code, text)
        for code, text in validate(name)["errors"]
        if code not in ignored
        and not (code == "PR09" and any(f'"{parameter}"' in text for parameter in bracketed))
    ]


@pytest.mark.parametrize("obj", [*ESTIMATORS, *TOOLS])
def test_docstring_is_valid(obj):
    assert mistakes(path(obj), IGNORED) == []


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (cls, name)
        for cls in (*ESTIMATORS, *filter(inspect.isclass, TOOLS))
        for name in own_methods(cls)
    ],
)
def test_method_docstring_is_valid(cls, name):
    assert mistakes(f"{path(cls)}.{name}", IGNORED_OF_METHODS) == []


def test_methods_are_found():
    assert {"fit", "transform", "reconstruct", "coefs_"} <= set(own_methods(skae.Autoencoder))
    assert {"from_estimator", "from_predictions", "plot"} <= set(
        own_methods(skae.inspection.LossCurveDisplay)
    )
    assert "get_params" not in set(own_methods(skae.Autoencoder))


# ---- parameters


def documented(cls, section):
    """(name, type) of every entry of a section, names that share one taken apart."""
    entries = get_doc_object(cls)[section]
    return [(name, entry.type) for entry in entries for name in entry.name.split(", ")]


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_documented_parameters_are_the_signature_in_its_order(cls):
    assert [name for name, _ in documented(cls, "Parameters")] == list(
        inspect.signature(cls).parameters
    )


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_documented_defaults_are_the_signatures(cls):
    said = {
        name: ast.literal_eval(kind.split("default=")[1])
        for name, kind in documented(cls, "Parameters")
    }
    real = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
    assert said == real


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_every_parameter_has_a_constraint_and_every_constraint_a_parameter(cls):
    assert set(cls._parameter_constraints) == set(inspect.signature(cls).parameters)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_documented_options_are_the_accepted_ones(cls):
    for name, kind in documented(cls, "Parameters"):
        listed = re.match(r"\{.*?\}", kind)
        if listed:
            accepted = [c for c in cls._parameter_constraints[name] if isinstance(c, StrOptions)]
            assert ast.literal_eval(listed.group()) == set().union(*(c.options for c in accepted))


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_requests_are_of_metadata_only(cls):
    """scikit-learn takes every parameter of a method but X and y for metadata to be routed."""
    requests = vars(cls().get_metadata_routing())
    asked = {name for method in requests.values() for name in getattr(method, "requests", {})}
    assert asked <= {"sample_weight", "affinity_matrix"}


# ---- attributes


@pytest.fixture
def fitted(X):
    """Fits that between them have every attribute."""
    frame = pd.DataFrame(X, columns=list("abcde"))

    def of(cls):
        if cls is skae.ReconstructionOutlierDetector:
            return [cls(estimator=PCA(2)).fit(frame)]
        if cls is skae.AutoencoderOutlierDetector:
            return [cls(n_steps=2).fit(frame)]
        if cls is skae.StackedAutoencoder:
            layer = skae.Autoencoder(hidden_layer_sizes=(), activation="identity", max_iter=2)
            return [cls(layers=(2,), estimator=layer, joint=layer).fit(frame)]
        if issubclass(cls, ClassifierMixin | RegressorMixin):
            return [cls(max_iter=2, early_stopping=True).fit(frame, np.arange(len(frame)) % 3)]
        changed = [{}, {"hidden_layer_sizes": (), "activation": "identity"}]
        labels = None
        if cls is skae.ImportanceWeightedAutoencoder:
            changed.append({"n_top_components": 2})
        if cls is skae.AdversarialAutoencoder:
            changed[1]["n_clusters"], labels = "classes", np.arange(len(frame)) % 3
        return [cls(max_iter=2, early_stopping=True, **given).fit(frame, labels)
                for given in changed]  # fmt: skip

    return of


def is_fitted_name(name):
    return name.endswith("_") and not name.startswith("_")


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_documented_attributes_exist_after_fit(cls, fitted):
    models = fitted(cls)
    for name, _ in documented(cls, "Attributes"):
        assert any(hasattr(model, name) for model in models), name


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_fitted_attributes_are_documented(cls, fitted):
    models = fitted(cls)
    names = {name for model in models for name in (*vars(model), *dir(cls))}
    there = {name for name in names if any(hasattr(model, name) for model in models)}
    said = {name for name, _ in documented(cls, "Attributes")}
    assert {name for name in there if is_fitted_name(name)} <= said


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_no_fitted_attribute_exists_before_fit(cls):
    said = [name for name, _ in documented(cls, "Attributes")]
    assert [name for name in said if hasattr(cls(), name)] == []


# ---- @estimator


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def undecorated(cls):
    """Whether the class would silently keep its parent's signature."""
    return "__init__" not in vars(cls)


def test_every_autoencoder_of_the_package_is_decorated():
    for module in pkgutil.walk_packages(skae.__path__, "skae."):
        importlib.import_module(module.name)
    ours = [cls for cls in subclasses(BaseAutoencoder) if cls.__module__.startswith("skae.")]
    assert skae.Autoencoder in ours
    assert [cls for cls in ours if undecorated(cls)] == []


def test_a_forgotten_decorator_is_detected():
    class Forgotten(skae.Autoencoder):
        strength: float = 1.0

    @estimator
    class Decorated(skae.Autoencoder):
        """A variant.

        Parameters
        ----------
        strength : float, default=1.0
            Of its own.

        alpha : float, default=0.5
            Changed.
        """

        strength: float = 1.0
        alpha: float = 0.5

    assert undecorated(Forgotten)
    assert not undecorated(Decorated)
    assert "strength" not in Forgotten().get_params()
    assert Decorated().get_params() | skae.Autoencoder().get_params() == {
        **skae.Autoencoder().get_params(), "strength": 1.0,
    }  # fmt: skip
    assert Decorated().alpha == 0.5
    names = [name for name, _ in documented(Decorated, "Parameters")]
    assert names == list(inspect.signature(Decorated).parameters)
    assert "Changed." in Decorated.__doc__


def test_public_names_are_sorted_and_exist():
    assert skae.__all__ == sorted(skae.__all__)
    assert all(hasattr(skae, name) for name in skae.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", skae.__version__)

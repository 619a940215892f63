"""scikit-learn's own checks, for every public estimator, found by discovery."""

import inspect

import pytest
import sklearn.utils.estimator_checks as checks
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

import skae

ESTIMATORS = [
    cls
    for name in skae.__all__
    if inspect.isclass(cls := getattr(skae, name)) and issubclass(cls, BaseEstimator)
]

# What check_estimator leaves out; those that a supported scikit-learn lacks are skipped there.
EXTRA = [
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_dataframe_column_names_consistency",
    "check_inplace_ensure_writeable",
    "check_estimators_partial_fit_n_features",
]


def quick(cls):
    """An instance that fits fast enough for a hundred checks."""
    if "max_iter" in inspect.signature(cls).parameters:
        return cls(max_iter=20)
    return cls(estimator=skae.Autoencoder(max_iter=20))


@parametrize_with_checks([quick(cls) for cls in ESTIMATORS])
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("cls", ESTIMATORS)
@pytest.mark.parametrize("name", [name for name in EXTRA if hasattr(checks, name)])
def test_extra_check(cls, name):
    estimator = quick(cls)
    needed = {"set_output": "transform", "global": "transform", "get_feature": "transform"}
    for key, method in needed.items():
        if key in name and not hasattr(estimator, method):
            pytest.skip(f"{cls.__name__} has no {method}")
    getattr(checks, name)(cls.__name__, estimator)

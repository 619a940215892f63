"""scikit-learn's own checks, for every public estimator, found by discovery."""

import inspect

import pytest
import sklearn.utils.estimator_checks as checks
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
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
    if issubclass(cls, ClassifierMixin | RegressorMixin):
        return cls()  # which are to learn something, too
    if "max_iter" in inspect.signature(cls).parameters:
        return cls(max_iter=20)
    if "n_steps" in inspect.signature(cls).parameters:  # in float64 repeated rows are weights
        return cls(n_steps=20, n_estimators=2, precision="float64")
    return cls(estimator=skae.Autoencoder(max_iter=20))


def is_noisy(estimator):
    """Whether training draws noise, so that two fits of other rows differ by more than rounding."""
    return hasattr(estimator, "_objective") and estimator._objective().noise is not None


def expected_failures(estimator):
    """Weights cannot equal repeated rows where every row draws its own noise.

    In place of these two checks stand a statistical test of every noisy estimator, and the checks
    themselves without the noise (below).
    """
    names = ("dense", "sparse") if is_noisy(estimator) else ()
    return {
        f"check_sample_weight_equivalence_on_{name}_data": "every row draws its own noise"
        for name in names
    }


def without_noise(cls):
    """The quick instance with the parameter that draws noise at zero.

    Codes that are drawn have no such parameter, so that a switch stands in for it.
    """
    if hasattr(cls, "_samples"):
        made = type(f"{cls.__name__}OfMeans", (cls,), {"_samples": False, "__module__": __name__})
        globals()[made.__name__] = made  # where pickle looks for it
        return quick(made)
    estimator = quick(cls)
    while is_noisy(estimator):
        estimator.set_params(**{estimator._objective().noise: 0})
    if getattr(estimator, "threshold", None) == "out_of_bag":  # which rows are left out is drawn
        estimator.set_params(threshold="training")
    return estimator


@parametrize_with_checks(
    [quick(cls) for cls in ESTIMATORS], expected_failed_checks=expected_failures
)
def test_check_estimator(estimator, check):
    check(estimator)


@parametrize_with_checks([without_noise(cls) for cls in ESTIMATORS if is_noisy(quick(cls))])
def test_check_estimator_without_noise(estimator, check):
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

"""The public door for data: validation, dtypes, devices, and the way back to the user's array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn import get_config
from sklearn.utils import _safe_indexing
from sklearn.utils._array_api import _convert_to_numpy, get_namespace, supported_float_dtypes
from sklearn.utils.validation import _check_sample_weight, _num_features, check_array, validate_data
from torch import Tensor

from skae._engine.batches import Source, fill, is_memory_map, make_source, observed_cells
from skae._engine.start import Moments
from skae.objective import Features

_NAMED = 5  # columns that a message names
_SMALL = (np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.float16)
_TORCH = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


class Data(NamedTuple):
    """Validated rows, and how results go back to where they came from."""

    X: Any  # array, CSR matrix or tensor, as the user's library has it
    source: Source
    dtype: torch.dtype  # of results

    def give_back(self, result: Tensor) -> Any:
        """The result in X's kind of array, dtype and device."""
        return self.as_given(result.detach().to(self.dtype))

    def as_given(self, result: Tensor) -> Any:
        """The same without a change of dtype."""
        xp, is_array_api = get_namespace(self.X)
        if not is_array_api or sp.issparse(self.X):
            return result.cpu().numpy()
        if isinstance(self.X, Tensor):
            return result.to(self.X.device)
        return xp.asarray(result.cpu().numpy(), device=self.X.device)


def read_data(estimator: Any, X: Any, *, reset: bool, precision: str | None, device: Any) -> Data:
    """Validate X of shape (n_samples, n_features) against the estimator and make it a source."""
    finite = "allow-nan" if estimator._allows_nan else True
    with naming_text(X):
        X = validate_data(
            estimator, X, reset=reset, accept_sparse="csr", dtype=_wanted_dtype(X),
            ensure_all_finite=finite,
        )  # fmt: skip
    return _as_data(X, precision, device)


@contextmanager
def naming_text(X: Any) -> Iterator[None]:
    """Have scikit-learn's refusal of text say which columns hold it, and what to do."""
    try:
        yield
    except ValueError as error:
        named = _columns_of_text(X) if "could not convert string" in str(error) else []
        if not named:
            raise
        some = ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
        raise ValueError(
            f"{error}. Encode columns of text as numbers first, for example by OneHotEncoder in a "
            f"ColumnTransformer in front, or leave them out; here: {some}."
        ) from error


def _columns_of_text(X: Any) -> list[str]:
    """The columns that hold text which is no number, by name or place."""
    if sp.issparse(X):
        return []
    X = X if hasattr(X, "shape") else np.asarray(X, dtype=object)
    if len(X.shape) != 2:
        return []
    places = range(X.shape[1])
    names = [repr(name) for name in getattr(X, "columns", ())] or [f"column {j}" for j in places]
    columns = (np.asarray(_safe_indexing(X, j, axis=1)) for j in places)
    return [name for name, column in zip(names, columns, strict=True) if _is_text(column)]


def _is_text(column: np.ndarray) -> bool:
    if column.dtype.kind not in "OUST":
        return False
    try:
        column.astype(np.float64)
    except ValueError:
        return True
    except TypeError:  # of an object that is neither text nor a number
        return any(isinstance(value, str) for value in column)
    return False


def known_features(estimator: Any, m: Moments) -> Features:
    """What `fit` learns of the features; those without any value are refused or left out."""
    empty = m.mean.isnan()
    if empty.any() and getattr(estimator, "keep_empty_features", True):
        names = ", ".join(feature_label(estimator, int(i)) for i in empty.nonzero())
        raise ValueError(
            f"There is nothing to learn from {names}: no row (of positive weight) has a value. "
            "Drop such columns, or set keep_empty_features=False to leave them out."
        )
    low, high = m.low.masked_fill(empty, 0.0), m.high.masked_fill(empty, 0.0)
    variance = None if m.variance is None else m.variance.cpu()
    return Features(m.mean.cpu(), low.cpu(), high.cpu(), variance)


def without_missing(
    data: Data, weight: Tensor | None, means: Tensor
) -> tuple[Data, Tensor | None, Tensor | None]:
    """The data with means in place of what is missing, the rows' weights, what is observed.

    Rows without any value weigh nothing; the other weights have mean 1 again.
    """
    means = means.to(data.source.device)
    observed = observed_cells(data.source, means)
    if observed is None:
        return data, weight, None
    some = observed.any(-1)
    if not some.all():
        weight = some.to(data.source.dtype) * (1.0 if weight is None else weight)
        if not weight.sum() > 0:
            raise ValueError("No row of positive weight has a value: all that X holds is missing.")
        weight = weight / weight.mean()
    return data._replace(source=fill(data.source, means)), weight, observed


def read_codes(estimator: Any, Z: Any, precision: str | None, device: Any) -> Data:
    """Validate codes of shape (n_samples, n_components_)."""
    with naming_text(Z):
        Z = check_array(Z, dtype=_wanted_dtype(Z), estimator=estimator)
    width = estimator._n_features_out
    if _num_features(Z) != width:
        raise ValueError(
            f"Z has {_num_features(Z)} columns, but this {type(estimator).__name__} has {width} "
            "code units. Pass what its transform returns."
        )
    return _as_data(Z, precision, device)


def read_rows(estimator: Any, X: Any, precision: str | None, device: Any) -> Data:
    """Validate what a step in front of the estimator has made of X."""
    with naming_text(X):
        X = check_array(X, accept_sparse="csr", dtype=_wanted_dtype(X), estimator=estimator)
    return _as_data(X, precision, device)


def checked_device(device: Any) -> Any:
    """The device, where torch can use it."""
    try:
        torch.empty(1, device=device)
    except Exception as error:  # RuntimeError, AssertionError or ImportError, as the device has it
        raise ValueError(
            f"device={str(device)!r} is not one that torch can use here. Leave device=None to stay "
            "where X is, or name one that there is, such as 'cpu'."
        ) from error
    return device


def _as_data(X: Any, precision: str | None, device: Any) -> Data:
    xp, is_array_api = get_namespace(X)
    values = X.detach() if isinstance(X, Tensor) else X
    if is_array_api and not isinstance(X, Tensor) and not sp.issparse(X):
        values = _convert_to_numpy(X, xp)
    result = values.dtype if isinstance(values, Tensor) else _result_dtype(values.dtype)
    dtype = result if precision is None else _TORCH[precision]
    if device is None:
        device = values.device if isinstance(values, Tensor) else "cpu"
    return Data(X, make_source(values, dtype, device), result)


def _wanted_dtype(X: Any) -> Any:
    """What validation should convert X to; None to leave it as it is."""
    xp, is_array_api = get_namespace(X) if not sp.issparse(X) else (np, False)
    if is_array_api:
        return supported_float_dtypes(xp)
    dtype = _numpy_dtype(X)
    if dtype is None or dtype.kind not in "biuf":
        return [np.float64, np.float32]
    if isinstance(X, np.ndarray) and is_memory_map(X):
        return None  # converted a batch at a time
    return np.float32 if dtype.type in (*_SMALL, np.float32) else np.float64


def _numpy_dtype(X: Any) -> np.dtype | None:
    """The dtype that NumPy gives to X: a frame's columns have one in common."""
    dtype = getattr(X, "dtype", None)
    if isinstance(dtype, np.dtype):
        return dtype
    try:
        return np.asarray(X[:0]).dtype
    except Exception:  # whatever X is, validation says what is wrong with it
        return None


def _result_dtype(dtype: np.dtype) -> torch.dtype:
    is_single = dtype.type in (*_SMALL, np.float32)
    return torch.float32 if is_single else torch.float64


def read_weight(sample_weight: Any, data: Data) -> Tensor | None:
    """Sample weights of shape (n_samples,), scaled to mean 1; None without."""
    if sample_weight is None:
        return None
    xp, is_array_api = get_namespace(sample_weight)
    if is_array_api:
        sample_weight = _convert_to_numpy(sample_weight, xp)
    rows = np.empty((data.source.n, 0), dtype=np.float64)
    weight = checked_weight(sample_weight, rows)
    tensor = torch.from_numpy(weight / weight.mean())
    return tensor.to(dtype=data.source.dtype, device=data.source.device)


def checked_weight(sample_weight: Any, X: Any) -> np.ndarray:
    """Validated weights of X's rows, not all of them zero."""
    weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
    if not weight.sum() > 0:
        raise ValueError("Sample weights sum to zero: at least one row needs a positive weight.")
    return weight


def namespace_name(X: Any) -> str:
    """The array library that results for X come back in."""
    xp, is_array_api = get_namespace(X) if not sp.issparse(X) else (np, False)
    return xp.__name__.rpartition("array_api_compat.")[2] if is_array_api else "numpy"


def check_namespace(estimator: Any, X: Any, method: str) -> None:
    """Raise when array API dispatch is on and X is of another library than fit's X."""
    if not get_config()["array_api_dispatch"]:
        return
    fitted, given = estimator._namespace, namespace_name(X)
    if fitted != given:
        raise ValueError(
            f"Inputs passed to {type(estimator).__name__}.{method}() must use the same namespace "
            f"as those passed to fit(), which were of {fitted}, but X is of {given}. Convert X."
        )


def feature_label(estimator: Any, i: int) -> str:
    """Feature i for a message, with its name where there is one."""
    names = getattr(estimator, "feature_names_in_", None)
    return f"feature {i}" if names is None else f"feature {i} ({names[i]!r})"

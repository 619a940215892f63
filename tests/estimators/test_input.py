"""What X may be, and what comes back."""

import os

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from sklearn import config_context
from sklearn.decomposition import PCA

from skae import Autoencoder
from skae._engine import batches

SCIPY_ARRAY_API = os.environ.get("SCIPY_ARRAY_API") == "1"


def quick(**changed):
    """An autoencoder that trains in a few milliseconds."""
    return Autoencoder(
        **{"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "tol": None,
           "batch_size": 16, "random_state": 0} | changed
    )  # fmt: skip


def assert_same_fit(a, b):
    """The same weights and curves, bit for bit."""
    for p, q in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(p, q)
    assert a.loss_curve_ == b.loss_curve_
    assert a.validation_loss_curve_ == b.validation_loss_curve_


def results(ae, X):
    """What every method returns for X."""
    return [ae.transform(X), ae.reconstruct(X), ae.reconstruction_error(X),
            ae.reconstruction_error(X, per_feature=True), ae.score_samples(X)]  # fmt: skip


def assert_same_results(a, b):
    for p, q in zip(a, b, strict=True):
        np.testing.assert_array_equal(np.asarray(p), np.asarray(q))


@pytest.fixture
def sparse_like(X):
    """X with two thirds of its cells zero."""
    return np.where(np.random.default_rng(1).random(X.shape) < 1 / 3, X, 0.0)


# ---- dtypes


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        ("float64", "float64"), ("float32", "float32"), ("float16", "float32"),
        ("int64", "float64"), ("int32", "float64"), ("uint32", "float64"),
        ("int16", "float32"), ("uint16", "float32"), ("int8", "float32"), ("uint8", "float32"),
        ("bool", "float32"),
    ],
)  # fmt: skip
def test_results_are_floats_as_wide_as_X_needs(X, given, computed):
    data = (X * 3).astype(given) if given != "bool" else X > 3
    ae = quick().fit(data)
    for result in [*results(ae, data), ae.inverse_transform(ae.transform(data))]:
        assert result.dtype == computed
    assert {W.dtype.name for W in ae.coefs_ + ae.intercepts_} == {computed}
    assert_same_fit(ae, quick().fit(data.astype(computed)))
    assert_same_results(results(ae, data), results(ae, data.astype(computed)))


def test_a_list_of_lists_is_an_array(X):
    assert_same_fit(quick().fit(X.tolist()), quick().fit(X))


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_precision_is_of_the_arithmetic_not_of_the_results(X, precision):
    ae = quick(precision=precision).fit(X)
    assert all(result.dtype == np.float64 for result in results(ae, X))
    held = {"float64": torch.float64}.get(precision, torch.float32)
    assert next(ae.encoder_.parameters()).dtype == held
    single = X.astype(np.float32)
    assert all(result.dtype == np.float32 for result in results(ae, single))
    reference = quick().fit(X if precision == "float64" else single)
    rtol = {"float64": 1e-12, "float32": 1e-4, "bfloat16": 0.05}[precision]
    np.testing.assert_allclose(ae.loss_curve_, reference.loss_curve_, rtol=rtol)


def test_a_fit_in_float32_scores_float64_in_float64(X):
    ae = quick().fit(X.astype(np.float32))
    scores = ae.score_samples(X)
    assert scores.dtype == np.float64
    alone = np.concatenate([ae.score_samples(row[None]) for row in X])
    np.testing.assert_allclose(alone, scores, rtol=1e-12)


# ---- frames


def test_names_of_a_data_frame_are_kept(X):
    frame = pd.DataFrame(X, columns=list("abcde"))
    ae = quick().fit(frame)
    assert list(ae.feature_names_in_) == list("abcde")
    assert list(ae.get_feature_names_out()) == ["autoencoder0", "autoencoder1"]
    assert_same_fit(ae, quick().fit(X))
    assert_same_results(results(ae, frame), results(quick().fit(X), X))


def test_frames_come_back_when_asked_for(X):
    frame = pd.DataFrame(X, columns=list("abcde"), index=range(100, 160))
    ae = quick().set_output(transform="pandas").fit(frame)
    Z = ae.transform(frame)
    assert list(Z.columns) == ["autoencoder0", "autoencoder1"]
    assert list(Z.index) == list(range(100, 160))
    with config_context(transform_output="polars"):
        Z = quick().fit_transform(pl.DataFrame(X, schema=list("abcde")))
    assert isinstance(Z, pl.DataFrame)
    assert Z.columns == ["autoencoder0", "autoencoder1"]


def test_a_polars_frame_is_its_array(X):
    frame = pl.DataFrame(X, schema=list("abcde"))
    ae = quick().fit(frame)
    names = getattr(PCA().fit(frame), "feature_names_in_", None)  # scikit-learn < 1.7 sees none
    np.testing.assert_array_equal(getattr(ae, "feature_names_in_", None), names)
    assert_same_fit(ae, quick().fit(X))
    assert_same_results(results(ae, frame), results(quick().fit(X), X))


def test_a_frame_of_mixed_numbers_is_float64(X):
    frame = pd.DataFrame(X).assign(count=np.arange(60), flag=X[:, 0] > 3)
    frame.columns = frame.columns.astype(str)
    assert quick().fit_transform(frame).dtype == np.float64


def test_a_frame_of_single_precision_stays_so(X):
    for frame in (pd.DataFrame(X.astype(np.float32)), pl.DataFrame(X.astype(np.float32))):
        assert quick().fit_transform(frame).dtype == np.float32


# ---- sparse matrices


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.coo_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_a_sparse_matrix_is_its_dense_one(sparse_like, make, dtype):
    dense = sparse_like.astype(dtype)
    sparse = make(dense)
    same = {"early_stopping": True, "dropout": 0.1}
    ae, reference = quick(**same).fit(sparse), quick(**same).fit(dense)
    assert_same_fit(ae, reference)
    assert_same_results(results(ae, sparse), results(ae, dense))
    assert isinstance(ae.transform(sparse), np.ndarray)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_sparse_matrix_takes_weights(sparse_like, solver):
    w = np.linspace(1, 2, 60)
    sparse = sp.csr_array(sparse_like)
    ae = quick(solver=solver).fit(sparse, sample_weight=w)
    reference = quick(solver=solver).fit(sparse_like, sample_weight=w)
    assert_same_fit(ae, reference)
    assert ae.score(sparse, sample_weight=w) == reference.score(sparse_like, sample_weight=w)


def test_a_sparse_matrix_with_empty_rows_and_columns(X):
    dense = np.array(X)
    dense[3] = dense[:, 2] = 0
    assert_same_fit(quick().fit(sp.csr_matrix(dense)), quick().fit(dense))


# ---- tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_dispatch_a_tensor_gives_arrays(X, dtype):
    tensor = torch.tensor(X, dtype=dtype)
    ae = quick().fit(tensor)
    assert_same_fit(ae, quick().fit(tensor.numpy()))
    for result in results(ae, tensor):
        assert isinstance(result, np.ndarray)
        assert result.dtype == tensor.numpy().dtype


@pytest.mark.skipif(not SCIPY_ARRAY_API, reason="SCIPY_ARRAY_API is not 1")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_dispatch_a_tensor_gives_tensors(X, dtype):
    tensor = torch.tensor(X, dtype=dtype)
    w = torch.linspace(1, 2, 60)
    reference = quick().fit(tensor.numpy(), sample_weight=w.numpy())
    with config_context(array_api_dispatch=True):
        ae = quick().fit(tensor, sample_weight=w)
        got = results(ae, tensor)
        back = ae.inverse_transform(ae.transform(tensor))
        score = ae.score(tensor, sample_weight=w)
    for result in [*got, back]:
        assert isinstance(result, torch.Tensor)
        assert result.dtype == dtype
        assert result.device == tensor.device
        assert not result.requires_grad
    assert_same_fit(ae, reference)
    assert_same_results(got, results(reference, tensor.numpy()))
    assert score == reference.score(tensor.numpy(), sample_weight=w.numpy())


@pytest.mark.skipif(not SCIPY_ARRAY_API, reason="SCIPY_ARRAY_API is not 1")
def test_with_dispatch_arrays_stay_arrays(X):
    with config_context(array_api_dispatch=True):
        ae = quick().fit(X)
        assert_same_results(results(ae, X), results(quick().fit(X), X))
        assert isinstance(ae.transform(X), np.ndarray)


@pytest.mark.skipif(not SCIPY_ARRAY_API, reason="SCIPY_ARRAY_API is not 1")
def test_with_dispatch_another_library_than_in_fit_is_refused(X):
    with config_context(array_api_dispatch=True):
        ae = quick().fit(X)
        with pytest.raises(ValueError, match="same namespace"):
            ae.transform(torch.tensor(X))


def test_a_tensor_is_not_changed(X):
    tensor = torch.tensor(X)
    quick(input_dropout=0.2).fit(tensor).reconstruct(tensor)
    np.testing.assert_array_equal(tensor, X)


@pytest.mark.skipif(not SCIPY_ARRAY_API, reason="SCIPY_ARRAY_API is not 1")
def test_with_dispatch_a_tensor_that_requires_grad_is_not_changed(X):
    tensor = torch.tensor(X).requires_grad_()
    with config_context(array_api_dispatch=True):
        ae = quick(input_dropout=0.2).fit(tensor)
        assert not ae.transform(tensor).requires_grad
    assert tensor.grad is None
    np.testing.assert_array_equal(tensor.detach(), X)


def test_a_fit_on_a_tensor_transforms_arrays(X):
    ae = quick().fit(torch.tensor(X))
    np.testing.assert_array_equal(ae.transform(X), ae.transform(torch.tensor(X)))


# ---- memory layouts


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "every other column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "big endian": lambda X: X.astype(X.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_layout_does_not_matter(X, layout, dtype):
    X = X.astype(dtype)
    laid_out = LAYOUTS[layout](X)
    ae, reference = quick().fit(laid_out), quick().fit(X)
    assert_same_fit(ae, reference)
    assert_same_results(results(ae, laid_out), results(reference, X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_read_only_data_fit_and_stay_as_they_are(X, dtype):
    data = (10 * X).astype(dtype)
    before = data.copy()
    data.flags.writeable = False
    ae = quick(input_dropout=0.2).fit(data)
    assert_same_fit(ae, quick(input_dropout=0.2).fit(before))
    results(ae, data)
    np.testing.assert_array_equal(data, before)


def test_writeable_data_are_not_written_to(X):
    data = np.array(X)
    ae = quick(input_dropout=0.2, shuffle=True).fit(data)
    codes = ae.transform(data)
    before = codes.copy()
    ae.inverse_transform(codes)
    np.testing.assert_array_equal(data, X)
    np.testing.assert_array_equal(codes, before)


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_shuffled_at_once_or_by_batch_train_alike(X, monkeypatch, weighted):
    w = np.linspace(1, 2, 60) if weighted else None
    at_once = quick().fit(X, sample_weight=w)
    monkeypatch.setattr(batches, "_GATHER_BYTES", 0)
    assert_same_fit(quick().fit(X, sample_weight=w), at_once)


def test_results_do_not_share_memory_with_what_was_passed(X):
    ae = quick(hidden_layer_sizes=(), activation="identity").fit(X)
    Z = ae.transform(X)
    assert not np.shares_memory(ae.reconstruct(X), X)
    assert not np.shares_memory(ae.inverse_transform(Z), Z)


# ---- memory maps


@pytest.fixture
def memory_map(tmp_path):
    """A function that writes an array to a file and maps it read-only."""

    def write(data):
        path = tmp_path / "rows"
        data.tofile(path)
        return np.memmap(path, dtype=data.dtype, mode="r", shape=data.shape)

    return write


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("read_by_batch", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64])
def test_a_memory_map_is_its_array(X, memory_map, monkeypatch, dtype, read_by_batch, solver):
    data = (10 * X).astype(dtype)
    mapped = memory_map(data)
    same = {"solver": solver, "early_stopping": True}
    reference = quick(**same).fit(data)
    expected = results(reference, data)
    kinds = []
    if read_by_batch:
        monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
        take = batches.ArraySource.take
        monkeypatch.setattr(
            batches.ArraySource, "take", lambda s, i: kinds.append(type(s.X)) or take(s, i)
        )
    ae = quick(**same).fit(mapped)
    assert_same_fit(ae, reference)
    assert_same_results(results(ae, mapped), expected)
    assert all(result.dtype == e.dtype for result, e in zip(results(ae, mapped), expected))  # noqa: B905
    assert bool(kinds) == read_by_batch, "the path that this test is about was not taken"


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "uint16", "int32", "uint32", "uint64", "f2", ">f4", ">i2"]
)
def test_a_memory_map_of_any_real_dtype_is_its_array(X, memory_map, monkeypatch, dtype):
    data = X > 3 if dtype == "bool" else (10 * abs(X)).astype(dtype)
    mapped = memory_map(data)
    reference = quick().fit(data.astype(data.dtype.newbyteorder("=")))
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    ae = quick().fit(mapped)
    assert_same_fit(ae, reference)
    assert_same_results(results(ae, mapped), results(reference, np.asarray(mapped)))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_memory_map_takes_weights(X, memory_map, monkeypatch, solver):
    w = np.linspace(1, 2, 60)
    mapped = memory_map(np.array(X))
    reference = quick(solver=solver).fit(X, sample_weight=w)
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    assert_same_fit(quick(solver=solver).fit(mapped, sample_weight=w), reference)


def test_a_part_of_a_memory_map_is_read_by_batch(X, memory_map, monkeypatch):
    mapped = memory_map(np.array(X))[5:45]
    reference = quick().fit(X[5:45])
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    assert_same_fit(quick().fit(mapped), reference)


def test_a_memory_map_is_checked_for_nan(X, memory_map, monkeypatch):
    data = np.array(X)
    data[17, 2] = np.nan
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(memory_map(data))


def test_scoring_a_memory_map_reads_a_part_at_a_time(X, memory_map, monkeypatch):
    ae = quick().fit(X)
    mapped = memory_map(np.tile(X, (10, 1)))
    read = []
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    monkeypatch.setattr("skae.estimators._inference._CELLS", 1)
    take = batches.ArraySource.take

    def counted(source, index):
        rows = take(source, index)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(batches.ArraySource, "take", counted)
    np.testing.assert_allclose(ae.transform(mapped), np.tile(ae.transform(X), (10, 1)), rtol=1e-12)
    assert sum(read) == 600
    assert max(read) <= 64


def test_fitting_a_memory_map_reads_a_batch_at_a_time(X, memory_map, monkeypatch):
    mapped = memory_map(np.tile(X, (10, 1)))
    read = []
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    monkeypatch.setattr(batches, "_CHUNK_BYTES", 100 * 5 * 8)
    take = batches.ArraySource.take

    def counted(source, index):
        rows = take(source, index)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(batches.ArraySource, "take", counted)
    quick(max_iter=2).fit(mapped)
    assert sum(read) == 600 * 3  # once for the moments, then once an epoch
    assert max(read) <= 100


def test_a_saved_npy_file_may_be_mapped(X, tmp_path, monkeypatch):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    reference = quick().fit(X)
    monkeypatch.setattr(batches, "_MAPPED_BYTES", 0)
    assert_same_fit(quick().fit(mapped), reference)


# ---- codes


def test_codes_of_another_width_are_refused(X):
    ae = quick().fit(X)
    with pytest.raises(ValueError, match="Z has 3 columns, but this Autoencoder has 2 code units"):
        ae.inverse_transform(np.zeros((4, 3)))


def test_codes_may_be_a_frame(X):
    ae = quick().set_output(transform="pandas").fit(X)
    np.testing.assert_allclose(ae.inverse_transform(ae.transform(X)), ae.reconstruct(X))


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_device_may_be_named_and_is_not_stored(X, device):
    ae = quick(device=device).fit(X)
    assert ae.device is device
    assert_same_fit(ae, quick().fit(X))
    assert quick().fit(X).device is None


def test_constructor_stores_and_nothing_else():
    ae = Autoencoder(device="nowhere", n_components="three")
    assert set(ae.__dict__) == set(ae.get_params())
    assert ae.device == "nowhere"

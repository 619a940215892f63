"""Sources agree with each other, and an epoch holds every row once."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from toys import DOUBLE, assert_close

import skae._engine.batches as batches_module
from skae._engine.batches import (
    ArraySource,
    Batches,
    Drawn,
    Scaled,
    SparseSource,
    Staged,
    Subset,
    TensorSource,
    is_memory_map,
    make_source,
)
from skae._engine.rng import Streams
from skae.objective import NO_ROWS, Rows
from skae.pairs import GraphPairs, Pairs

B = 4
COUNTS = [1, 2, B - 1, B, B + 1, 3 * B, 3 * B + 1]


def numbers(n=13, d=3):
    """Row i holds i d, i d + 1, ...: rows are known by what they hold; a third are zeros."""
    X = np.arange(1.0, n * d + 1).reshape(n, d)
    X[:, 1] = 0
    return X


def memory_map(tmp_path, X):
    path = tmp_path / "X.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


SOURCES = {
    "tensor": lambda X, tmp_path: make_source(torch.from_numpy(X), DOUBLE),
    "array": lambda X, tmp_path: make_source(X, DOUBLE),
    "memory map": lambda X, tmp_path: ArraySource(memory_map(tmp_path, X), DOUBLE),
    "small memory map": lambda X, tmp_path: make_source(memory_map(tmp_path, X), DOUBLE),
    "CSR matrix": lambda X, tmp_path: make_source(sp.csr_matrix(X), DOUBLE),
    "CSR array": lambda X, tmp_path: make_source(sp.csr_array(X), DOUBLE),
    "subset": lambda X, tmp_path: Subset(
        ArraySource(np.vstack([X[::-1], X]), DOUBLE), torch.arange(len(X), 2 * len(X))
    ),
}


@pytest.fixture(params=SOURCES)
def source_of(request, tmp_path):
    return lambda X: SOURCES[request.param](X, tmp_path)


def epoch(batches, seed=0):
    """Copies of the batches of one epoch."""
    draws = Streams([seed]).draws("shuffle", DOUBLE)
    return [(x.clone(), rows) for x, rows in batches.epoch(draws)]


def test_sources_hand_out_the_rows_asked_for(source_of):
    X = numbers()
    source = source_of(X)
    assert (source.n, source.d) == X.shape
    for index in (torch.tensor([3, 0, 12]), torch.tensor([5]), slice(2, 6), slice(0, 13)):
        rows = source.take(index)
        assert rows.dtype is DOUBLE
        assert np.array_equal(rows, X[index if isinstance(index, slice) else index.numpy()])


def test_rows_read_a_batch_at_a_time_are_copies(tmp_path):
    X = memory_map(tmp_path, numbers())
    for given in (X, numbers()):
        source = ArraySource(given, DOUBLE)
        for index in (slice(0, 5), torch.tensor([1, 2])):
            assert not np.shares_memory(source.take(index).numpy(), given)


def test_chunks_are_all_rows_in_order(source_of):
    X = numbers()
    source = source_of(X)
    for rows in (None, 1, 5, 13, 50):
        parts = list(source.chunks(rows))
        assert np.array_equal(torch.cat([x for _, x in parts]), X)
        assert all(np.array_equal(x, X[part]) for part, x in parts)


def test_subset_holds_its_rows_only(source_of):
    X, index = numbers(), torch.tensor([7, 2, 9, 0])
    subset = source_of(X).subset(index)
    assert subset.n == 4
    assert np.array_equal(subset.take(slice(0, 4)), X[index])
    assert np.array_equal(subset.take(torch.tensor([2, 0])), X[[9, 7]])
    again = subset.subset(torch.tensor([3, 1]))
    assert np.array_equal(again.take(slice(0, 2)), X[[0, 2]])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", COUNTS)
def test_epoch_holds_every_row_once(source_of, n, shuffle):
    X = numbers(n)
    batches = Batches(source_of(X), NO_ROWS, B, shuffle)
    for seed in (0, 1):
        parts = [x for x, _ in epoch(batches, seed)]
        assert [len(x) for x in parts[:-1]] == [B] * (batches.count - 1)
        assert len(parts) == batches.count == -(-n // B)
        rows = torch.cat(parts)
        if not shuffle:
            assert np.array_equal(rows, X)
        assert sorted(rows.tolist()) == X.tolist()


def test_order_is_another_one_every_epoch():
    batches = Batches(make_source(numbers(40), DOUBLE), NO_ROWS, B, True)
    draws = Streams([0]).draws("shuffle", DOUBLE)
    orders = [
        tuple(torch.cat([x.clone() for x, _ in batches.epoch(draws)])[:, 0].tolist())
        for _ in range(5)
    ]
    assert len(set(orders)) == 5


def test_every_kind_of_source_gives_the_same_batches(tmp_path):
    X = numbers()
    expected = epoch(Batches(make_source(X, DOUBLE), NO_ROWS, B, True))
    for make in SOURCES.values():
        for (x, _), (y, _) in zip(
            epoch(Batches(make(X, tmp_path), NO_ROWS, B, True)), expected, strict=True
        ):
            assert torch.equal(x, y)


def test_data_too_large_to_shuffle_in_one_pass_give_the_same_batches(monkeypatch):
    X = numbers()
    expected = epoch(Batches(make_source(X, DOUBLE), NO_ROWS, B, True))
    monkeypatch.setattr(batches_module, "_GATHER_BYTES", 0)
    found = epoch(Batches(make_source(X, DOUBLE), NO_ROWS, B, True))
    assert all(torch.equal(x, y) for (x, _), (y, _) in zip(found, expected, strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
def test_side_data_stay_with_their_rows(source_of, shuffle):
    X = numbers()
    T = torch.from_numpy(X)
    known = Rows(T[:, 0], 2 * T, -T, torch.arange(13), torch.arange(13) % 3)
    for x, rows in epoch(Batches(source_of(X), known, B, shuffle)):
        assert torch.equal(rows.weight, x[:, 0])
        assert torch.equal(rows.target, 2 * x)
        assert torch.equal(rows.observed, -x)
        assert torch.equal(T[rows.index], x)
        assert torch.equal(rows.y, rows.index % 3)


def test_nothing_known_of_rows_stays_nothing():
    batches = Batches(make_source(numbers(), DOUBLE), Rows(), B, True)
    assert all(rows is NO_ROWS for _, rows in epoch(batches))


def test_batch_size_beyond_the_data_is_the_data():
    batches = Batches(make_source(numbers(), DOUBLE), NO_ROWS, 1000, True)
    assert batches.count == 1
    assert np.array_equal(epoch(batches)[0][0], numbers())


def test_a_single_batch_draws_no_order():
    streams = Streams([0])
    list(Batches(make_source(numbers(), DOUBLE), NO_ROWS, 13, True).epoch(
        streams.draws("shuffle", DOUBLE)))  # fmt: skip
    assert torch.equal(streams.state()["shuffle"][0], Streams([0]).state()["shuffle"][0])


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("shuffle", [True, False])
def test_models_with_rows_of_their_own_are_batched_together(shuffle, large, monkeypatch):
    if large:
        monkeypatch.setattr(batches_module, "_GATHER_BYTES", 0)
    X = torch.stack([torch.from_numpy(numbers()), -torch.from_numpy(numbers())])
    source = make_source(X, DOUBLE)
    assert (source.n, source.d) == (13, 3)
    parts = [x for x, _ in epoch(Batches(source, NO_ROWS, B, shuffle))]
    assert all(torch.equal(x[0], -x[1]) for x in parts)
    assert sorted(torch.cat(parts, -2)[0].tolist()) == numbers().tolist()


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32])
def test_rows_of_any_real_dtype_are_converted_to_trainings(dtype, tmp_path):
    X = (numbers() % 2).astype(dtype)
    expected = torch.from_numpy(X.astype(np.float32))
    for given in (X, memory_map(tmp_path, X), np.asfortranarray(X)):
        for source in (make_source(given, torch.float32), ArraySource(given, torch.float32)):
            assert torch.equal(source.take(slice(0, 13)), expected)


def test_array_that_torch_cannot_view_is_copied():
    X = numbers()
    X.flags.writeable = False
    assert np.array_equal(make_source(X, DOUBLE).take(slice(0, 13)), X)
    assert np.array_equal(make_source(X[::-1], DOUBLE).take(slice(0, 13)), X[::-1])
    assert np.array_equal(make_source(X[:, ::-1], DOUBLE).take(slice(0, 13)), X[:, ::-1])


def test_memory_map_is_known_through_views(tmp_path):
    X = memory_map(tmp_path, numbers())
    assert is_memory_map(X)
    assert is_memory_map(np.asarray(X)[2:, ::2])
    assert not is_memory_map(numbers())
    assert not is_memory_map(None)


def test_large_memory_map_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(batches_module, "_MAPPED_BYTES", 8)
    source = make_source(memory_map(tmp_path, numbers()), DOUBLE)
    assert isinstance(source, ArraySource)
    assert is_memory_map(source.X)
    assert isinstance(make_source(numbers(), DOUBLE), TensorSource)


def test_sparse_rows_are_made_dense_a_batch_at_a_time():
    source = make_source(sp.csr_array(numbers()), DOUBLE)
    assert isinstance(source, SparseSource)
    assert sp.issparse(source.X)


def test_source_is_its_own_source():
    source = make_source(numbers(), DOUBLE)
    assert make_source(source, torch.float32) is source


def test_tensor_in_the_right_dtype_is_not_copied():
    X = torch.from_numpy(numbers())
    assert make_source(X, DOUBLE).take(slice(0, 13)).data_ptr() == X.data_ptr()
    assert_close(make_source(X.float(), DOUBLE).take(slice(0, 13)), X)


def test_batches_of_an_epoch_come_in_the_same_tensors_again():
    """What the fused engine binds its calls to."""
    for make in (lambda X: make_source(X, DOUBLE), lambda X: ArraySource(X, DOUBLE)):
        batches = Batches(make(numbers()), NO_ROWS, B, True)
        draws = Streams([0]).draws("shuffle", DOUBLE)
        addresses = [[x.data_ptr() for x, _ in batches.epoch(draws)] for _ in range(2)]
        assert addresses[0] == addresses[1]


# ---- neighbours along


def ring(n=13):
    """Everyone's neighbours are the rows before and after."""
    i = torch.arange(n)
    column = torch.stack([(i - 1) % n, (i + 1) % n], 1).flatten()
    return GraphPairs(2 * torch.arange(n + 1), column, torch.ones(2 * n, dtype=DOUBLE))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_row_of_a_graph_brings_a_neighbour_without_weight(source_of, shuffle, weighted):
    w = torch.linspace(0.5, 1.5, 13, dtype=DOUBLE) if weighted else None
    batches = Batches(source_of(numbers()), Rows(weight=w, pairs=ring()), B, shuffle)
    assert batches.handed == 26
    seen = []
    for x, rows in epoch(batches):
        b = len(x) // 2
        row = ((x[:, 0] - 1) / 3).long()
        assert (((row[b:] - row[:b]) % 13 == 1) | ((row[b:] - row[:b]) % 13 == 12)).all()
        assert (rows.weight[b:] == 0).all()
        assert_close(
            rows.weight[:b], 2 * (torch.ones(b, dtype=DOUBLE) if w is None else w[row[:b]])
        )
        assert rows.pairs.phi.shape == rows.pairs.share.shape == (2 * b, 2 * b)
        seen.append(row[:b])
    assert sorted(torch.cat(seen).tolist()) == list(range(13))
    assert (torch.cat(seen).tolist() == list(range(13))) != shuffle


def test_neighbours_are_drawn_anew_and_by_the_seed():
    batches = Batches(make_source(numbers(), DOUBLE), Rows(pairs=ring()), B, False)
    draws = Streams([0]).draws("shuffle", DOUBLE)
    first, second = (torch.cat([x.clone() for x, _ in batches.epoch(draws)]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat([x for x, _ in epoch(batches)]))


def test_a_full_batch_and_a_matrix_bring_nobody():
    source, matrix = make_source(numbers(), DOUBLE), torch.arange(169.0).view(13, 13)
    for pairs, size in ((ring(), 13), (Pairs(matrix), B)):
        batches = Batches(source, Rows(pairs=pairs), size, False)
        assert batches.handed == 13
        x, rows = epoch(batches)[0]
        assert len(x) == size
        assert rows.weight is None
        assert_close(rows.pairs.phi, pairs.phi[:size, :size])


# ---- weights and targets, in tensors that are used again


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", ["tensor", "large", "array"])
@pytest.mark.parametrize("names", [("weight",), ("target",), ("weight", "target")], ids=str)
def test_weights_and_targets_are_those_of_the_rows_in_every_epoch(
    shuffle, kind, names, monkeypatch
):
    if kind == "large":
        monkeypatch.setattr("skae._engine.batches._GATHER_BYTES", 1)
    n = 23
    X = torch.arange(n, dtype=torch.float64).unsqueeze(-1).repeat(1, 3)
    source = ArraySource(X.numpy(), torch.float64) if kind == "array" else make_source(X, X.dtype)
    every = {"weight": X[:, 0] * 10, "target": torch.stack([X[:, 0], -X[:, 0]], -1)}
    rows = Rows(**{name: every[name].clone() for name in names})
    batches = Batches(source, rows, 5, shuffle)
    draws, places = Streams([0]).draws("shuffle", torch.float64), []
    for _ in range(3):
        seen, here = [], []
        for x, side in batches.epoch(draws):
            assert isinstance(side, Staged)
            at = x[:, 0].long()
            for name in ("weight", "target"):
                got = getattr(side, name)
                assert (got is None) == (name not in names)
                if got is not None:
                    torch.testing.assert_close(got, every[name][at])
            seen += at.tolist()
            here.append(id(side))
        assert sorted(seen) == list(range(n))
        places.append(here)
    assert places[0] == places[1] == places[2]
    for name in names:  # what was given is never written to
        torch.testing.assert_close(getattr(rows, name), every[name])


def test_other_knowledge_of_rows_comes_in_tensors_of_its_own():
    rows = Rows(weight=torch.ones(6), index=torch.arange(6))
    batches = Batches(make_source(torch.zeros(6, 2), torch.float32), rows, 3, False)
    assert not any(isinstance(side, Staged) for _, side in batches.epoch(None))


# ---- rows of each model's own


def drawn(n=11, d=4, models=3, size=7, columns=2):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d))
    rows = np.stack([rng.permutation(n)[:size] for _ in range(models)])
    own = np.stack([rng.permutation(d)[:columns] for _ in range(models)])
    source = make_source(X, torch.float64)
    return X, rows, own, Drawn(source, torch.from_numpy(rows), torch.from_numpy(own))


def test_drawn_rows_are_each_models_own():
    X, rows, own, source = drawn()
    expected = np.stack([X[r][:, c] for r, c in zip(rows, own, strict=True)])
    assert (source.lead, source.n, source.d) == ((3,), 7, 2)
    np.testing.assert_array_equal(source.take(slice(0, 7)), expected)
    index = torch.tensor([4, 0, 4])
    np.testing.assert_array_equal(source.take(index), expected[:, index])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_batches_of_drawn_rows_hold_every_row_of_every_model_once(batch_size):
    X, rows, own, source = drawn()
    seen = [x.clone() for x, _ in Batches(source, NO_ROWS, batch_size, True).epoch(
        Streams([0]).draws("shuffle", torch.float64))]  # fmt: skip
    together = torch.cat(seen, -2).numpy()
    assert together.shape == (3, 7, 2)
    for model, (r, c) in enumerate(zip(rows, own, strict=True)):
        expected = X[r][:, c]
        order = np.lexsort(expected.T), np.lexsort(together[model].T)
        np.testing.assert_array_equal(together[model][order[1]], expected[order[0]])


def test_scaled_rows_are_centred_and_missing_values_are_the_center():
    X = np.array([[1.0, 10.0], [3.0, np.nan]])
    center, scale = torch.tensor([2.0, 10.0]), torch.tensor([0.5, 2.0])
    source = Scaled(make_source(X, torch.float64), center, scale, torch.float32)
    found = source.take(slice(0, 2))
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found, [[-2, 0], [2, 0]])
    assert np.isnan(X[1, 1])

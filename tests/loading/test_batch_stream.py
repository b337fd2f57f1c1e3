"""Batches of a real dataset: exact values, and one sequence however the reading is divided.

The workers are iterators that take turns here, as those of PyTorch's DataLoader do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import melmill
from melmill.pipelines.dataset import Dataset
from melmill.pipelines.loading.batch_stream import BatchStream, Start, Worker
from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.loading.parts import open_loader
from melmill.pipelines.loading.row_loader import RowLoader
from melmill.pipelines.loading.window_reader import LoadedWindow, WindowReader
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.lane_order import Window
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.conftest import GENRES, ROWS

KEY = ["number", "chunk_index"]
ORDER = RowOrder(seed=1, window_rows=16, lanes=4, turn_rows=2)


def loader_of(
    dataset: Dataset, order: RowOrder = ORDER, columns: Any = KEY, **options: Any
) -> RowLoader:
    return open_loader([dataset._open_part("train", columns, order, Cuts(), **options)], order)


def keys_of(batch: dict[str, Any]) -> list[tuple[int, int]]:
    return list(zip(*(batch[name] for name in KEY), strict=True))


def rank_batches(stream: BatchStream, workers: int, start: Start) -> Iterator[Any]:
    """Yield the batches of a rank, as a DataLoader takes them from its workers in turn."""
    readers = [stream.batches(start, Worker(number, workers)) for number in range(workers)]
    while readers:
        for reader in readers[:]:
            batch = next(reader, None)
            if batch is None:
                return
            yield batch


def rows_of_ranks(loader: RowLoader, batch: int, ranks: int, workers: int, start: Start) -> Any:
    """Return the rows of each step, those of all ranks one after the other."""
    streams = [BatchStream(loader, batch, rank, ranks) for rank in range(ranks)]
    sequences = [list(rank_batches(stream, workers, start)) for stream in streams]
    steps = max(map(len, sequences))
    return [
        [key for sequence in sequences for b in sequence[step : step + 1] for key in keys_of(b)]
        for step in range(steps)
    ]


def flat(steps: list[list[Any]]) -> list[Any]:
    return [key for step in steps for key in step]


@pytest.fixture(scope="module")
def expected(small: Dataset) -> list[tuple[int, int]]:
    """Return the order of epoch 2, read by one process in one piece."""
    return keys_of(loader_of(small).batch(2, np.arange(ROWS)))


def test_an_epoch_has_each_row_once_with_its_exact_values(small):
    columns = ["samples", "genre", "valid_samples", *KEY]
    batch = loader_of(small, columns=columns).batch(0, np.arange(ROWS))
    assert sorted(keys_of(batch)) == [(n, i) for n in range(len(GENRES)) for i in range(n + 3)]
    table = small.as_arrow("train").to_table()
    stored = {(r["number"], r["chunk_index"]): r for r in table.to_pylist()}
    assert batch["samples"].dtype == np.float32
    for i, key in enumerate(keys_of(batch)):
        np.testing.assert_array_equal(batch["samples"][i], np.float32(stored[key]["samples"]))
        assert batch["genre"][i] == GENRES[key[0]]
        assert batch["valid_samples"][i] == stored[key]["valid_samples"]


@settings(max_examples=30)
@given(
    batch=st.integers(1, 9),
    ranks=st.integers(1, 4),
    workers=st.integers(1, 4),
    steps=st.integers(0, 90),
    later=st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4)),
)
def test_interrupted_anywhere_and_divided_otherwise_it_is_the_same_sequence(
    small, expected, batch, ranks, workers, steps, later
):
    loader = loader_of(small)
    before = rows_of_ranks(loader, batch, ranks, workers, Start(2))[:steps]
    saved = BatchStream(loader, batch, 0, ranks).state(Start(2), Worker(), len(before))
    resumed = loader_of(small)
    start = BatchStream(resumed, later[0]).start(json.loads(json.dumps(saved)))
    after = rows_of_ranks(resumed, later[0], later[1], later[2], start)
    assert flat(before) + flat(after) == expected


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 30))
def test_each_worker_resumes_from_its_own_state(small, expected, batch, workers, taken):
    stream = BatchStream(loader_of(small), batch)
    whole = list(map(keys_of, rank_batches(stream, workers, Start(2))))
    readers = []
    for number in range(workers):
        given_by = len(range(number, min(taken, len(whole)), workers))
        worker = Worker(number, workers)
        state = stream.state(Start(2), worker, given_by)
        resumed = BatchStream(loader_of(small), batch)
        readers.append(map(keys_of, resumed.batches(resumed.start(state), worker)))
    rest = []
    for turn in range(taken, len(whole)):
        rest += next(readers[turn % workers])
    assert flat(whole[:taken]) + rest == expected


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of blocks of each window that is read."""
    reads, read = [], WindowReader.read

    def counting(self: WindowReader, window: Window, blocks: Blocks) -> LoadedWindow:
        reads.append(len(window.blocks))
        return read(self, window, blocks)

    monkeypatch.setattr(WindowReader, "read", counting)
    return reads


def test_a_state_resumes_without_reading_what_came_before(small, monkeypatch):
    loader = loader_of(small, RowOrder(window_rows=4, lanes=1))
    reads = count_reads(monkeypatch)
    stream = BatchStream(loader, 2)
    start = stream.start(stream.state(Start(), Worker(), 20))
    next(stream.batches(start, Worker()))
    assert len(reads) <= 2  # a batch may have rows of two windows
    reads.clear()
    list(stream.batches(Start(), Worker()))
    assert len(reads) > ROWS // 4


def test_no_more_windows_are_kept_than_lanes(small):
    loader = loader_of(small)
    for batch in BatchStream(loader, 4).batches(Start(), Worker()):
        assert len(loader._windows) <= ORDER.lanes, batch


def test_workers_whose_batches_fit_the_turns_read_every_block_about_once(small, monkeypatch):
    reads = count_reads(monkeypatch)
    order = RowOrder(window_rows=8, lanes=4, turn_rows=2)
    for number in range(4):
        for _ in BatchStream(loader_of(small, order), 2).batches(Start(), Worker(number, 4)):
            pass
    once = sum(len(lane.blocks) for lane in loader_of(small, order).mixture.parts[0])
    # The last turns do not fit: lanes differ by up to a block.
    assert once <= sum(reads) <= 1.5 * once


def test_one_process_reads_every_block_once(small, monkeypatch):
    reads = count_reads(monkeypatch)
    loader = loader_of(small)
    for _ in BatchStream(loader, 3).batches(Start(), Worker()):
        pass
    assert sum(reads) == sum(len(lane.blocks) for lane in loader.mixture.parts[0])


def test_with_drop_last_all_ranks_have_equally_many_full_batches(small):
    loader = loader_of(small)
    for ranks, batch in ((1, 4), (2, 5), (4, 3)):
        streams = [BatchStream(loader, batch, rank, ranks, drop_last=True) for rank in range(ranks)]
        lengths = [[len(keys_of(b)) for b in s.batches(Start(), Worker())] for s in streams]
        assert lengths == [[batch] * (ROWS // (batch * ranks))] * ranks
        assert [stream.count() for stream in streams] == [len(own) for own in lengths]


def test_classes_come_equally_often(small):
    loader = loader_of(small, columns=["genre"], class_weights="genre")
    genres = loader.batch(0, np.arange(loader.rows))["genre"]
    assert ROWS - loader.rows in range(ORDER.lanes)
    assert {genre: abs(genres.count(genre) - ROWS / 3) <= 4 for genre in set(GENRES)} == {
        **dict.fromkeys(set(GENRES), True)
    }


def test_a_class_without_a_weight_gives_no_rows(small):
    weights = {"genre": {"rock": 1, "jazz": 3}}
    loader = loader_of(small, columns=["genre"], class_weights=weights)
    genres = loader.batch(0, np.arange(loader.rows))["genre"]
    assert set(genres) == {"rock", "jazz"}
    assert abs(genres.count("jazz") - 3 / 4 * loader.rows) <= 4


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"genre": {"pop": 1}}, ConfigError, "no class 'pop'; there are: folk, jazz, rock"),
        ("colour", DatasetError, "no column 'colour'"),
        ({"genre": {}, "number": {}}, ConfigError, "give one label"),
    ],
)
def test_wrong_class_weights_are_refused(small, weights, error, message):
    with pytest.raises(error, match=message):
        loader_of(small, class_weights=weights)


def test_a_state_of_another_dataset_or_order_is_refused(small, other):
    stream = BatchStream(loader_of(small), 4)
    for loader, message in (
        (loader_of(other), r"sources\[0\].dataset is"),
        (loader_of(small, RowOrder(seed=2)), "order.seed is 2, and this loader has 1"),
        (loader_of(small, class_weights="genre"), "weighting is"),
    ):
        with pytest.raises(DatasetError, match=message):
            stream.start(BatchStream(loader, 4).state(Start(), Worker(), 1))


def test_added_columns_are_joined_and_weigh_and_are_part_of_the_version(
    small, small_path, tmp_path
):
    copy = shutil.copytree(small_path, tmp_path / "copy")
    ids = small.recordings(["recording_id", "uri"]).to_pylist()
    lines = [f"{row['recording_id']},{int(Path(row['uri']).stem) // 8}" for row in ids]
    (tmp_path / "parts.csv").write_text("\n".join(["recording_id,part", *lines]))
    melmill.add_columns(copy, tmp_path / "parts.csv", on="recording_id")
    loader = loader_of(Dataset(copy), columns=["part", "number"], class_weights="part")
    batch = loader.batch(0, np.arange(loader.rows))
    assert all(part == number // 8 for part, number in zip(*batch.values(), strict=True))
    assert abs(batch["part"].count(1) - ROWS / 2) <= 4  # of 63 rows, 11 have this part
    old = BatchStream(loader_of(small), 4).state(Start(), Worker(), 1)
    with pytest.raises(DatasetError, match="state: "):
        BatchStream(loader_of(Dataset(copy)), 4).start(old)


def test_a_copy_of_the_dataset_resumes_its_states(small, small_path, tmp_path):
    copy = Dataset(shutil.copytree(small_path, tmp_path / "copy"))
    state = BatchStream(loader_of(small), 4).state(Start(1), Worker(), 3)
    assert BatchStream(loader_of(copy), 4).start(state) == Start(1, 12)


def test_a_state_of_one_worker_is_refused_by_another(small):
    stream = BatchStream(loader_of(small), 4)
    start = stream.start(stream.state(Start(), Worker(1, 2), 3))
    for worker in (Worker(0, 2), Worker(1, 3), Worker()):
        with pytest.raises(DatasetError, match="worker 1 of 2, and this is worker"):
            next(stream.batches(start, worker))
    with pytest.raises(DatasetError, match="steps had 4 rows, and these have 5"):
        BatchStream(loader_of(small), 5).start(stream.state(Start(), Worker(1, 2), 3))


def test_a_damaged_or_missing_shard_is_named(small_path, tmp_path):
    dataset = Dataset(shutil.copytree(small_path, tmp_path / "copy"))
    name = Path(dataset.files("train")[0])
    stream = BatchStream(loader_of(dataset, columns=["samples"]), 4)
    samples = pq.read_metadata(name).row_group(0).column(pq.read_metadata(name).num_columns - 1)
    content = bytearray(name.read_bytes())
    content[samples.data_page_offset + samples.total_compressed_size // 2] ^= 1
    name.write_bytes(content)
    with pytest.raises(DatasetError, match=f"{name.name} is damaged"):
        list(stream.batches(Start(), Worker()))
    name.unlink()
    with pytest.raises(DatasetError, match=f"{name.name} is missing"):
        list(stream.batches(Start(), Worker()))


def test_two_datasets_are_mixed_by_weight(small, other):
    parts = [
        dataset._open_part("train", ["samples", *KEY], ORDER, Cuts()) for dataset in (small, other)
    ]
    loader = open_loader(parts, ORDER, (3, 1))
    places = loader.mixture.places(0, np.arange(loader.rows))
    batch = loader.batch(0, np.arange(loader.rows))
    share = np.mean(places.sources == 0)
    assert share == pytest.approx(0.75, abs=0.03)
    stored = [
        {
            (r["number"], r["chunk_index"]): r["samples"]
            for r in d.as_arrow("train").to_table().to_pylist()
        }
        for d in (small, other)
    ]
    for i, key in islice(enumerate(keys_of(batch)), 40):
        expected = stored[places.sources[i]][key]
        np.testing.assert_array_equal(batch["samples"][i], np.float32(expected))

"""grain reads the one order from Parquet, and any order from an ArrayRecord view."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import melmill
from melmill.pipelines.dataset import Dataset
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.conftest import GENRES, ROWS

grain = pytest.importorskip("grain")
KEY = ["number", "chunk_index"]
ORDER = RowOrder(seed=1, window_rows=16, lanes=4, turn_rows=1)
ONE_THREAD = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)


def keys_of(rows: Any) -> list[tuple[int, int]]:
    return [(int(row["number"]), int(row["chunk_index"])) for row in rows]


def in_order(dataset: Dataset, **options: Any) -> list[tuple[int, int]]:
    rows = dataset.as_grain("train", KEY, order=ORDER, **options)
    return keys_of(rows[i] for i in range(len(rows)))


@pytest.fixture(scope="module")
def view(small_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "records"
    melmill.export(small_path, folder, "arrayrecord")
    return folder


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(small):
    keys = in_order(small, epochs=2)
    first, second = keys[:ROWS], keys[ROWS:]
    assert first != second
    assert Counter(first) == Counter(second)
    assert sorted(first) == [(n, i) for n in range(len(GENRES)) for i in range(n + 3)]


def test_grain_batches_the_rows_and_resumes_at_its_own_checkpoint(small):
    rows = small.as_grain("train", ["samples", *KEY], order=ORDER)
    batches = grain.MapDataset.source(rows).batch(4).to_iter_dataset(ONE_THREAD)
    iterator = iter(batches)
    before = [next(iterator) for _ in range(5)]
    state = iterator.get_state()
    assert before[0]["samples"].shape == (4, 400)
    again = small.as_grain("train", ["samples", *KEY], order=ORDER)
    resumed = iter(grain.MapDataset.source(again).batch(4).to_iter_dataset(ONE_THREAD))
    resumed.set_state(state)
    keys = [
        (int(number), int(index))
        for batch in [*before, *resumed]
        for number, index in zip(batch["number"], batch["chunk_index"], strict=True)
    ]
    assert keys == in_order(small)[: len(keys)]
    assert len(keys) == ROWS // 4 * 4 or len(keys) == ROWS


def test_many_threads_get_the_same_rows(small):
    rows = small.as_grain("train", KEY, order=ORDER)
    options = grain.ReadOptions(num_threads=8, prefetch_buffer_size=32)
    assert keys_of(grain.MapDataset.source(rows).to_iter_dataset(options)) == in_order(small)


def test_a_source_is_pickled_without_the_rows_in_memory(small):
    rows = small.as_grain("train", ["samples", *KEY], order=ORDER)
    rows[0]
    other_process = pickle.loads(pickle.dumps(rows))
    assert not other_process.loader._windows
    assert keys_of([other_process[7]]) == keys_of([rows[7]])
    assert repr(other_process) == repr(rows)
    assert repr(rows) != repr(small.as_grain("train", ["samples", *KEY]))


def test_a_row_beyond_the_end_is_an_index_error(small):
    rows = small.as_grain("train", KEY)
    with pytest.raises(IndexError, match=f"row {ROWS} of {ROWS} rows"):
        rows[ROWS]
    with pytest.raises(ConfigError, match="epochs is 0"):
        small.as_grain("train", KEY, epochs=0)


def test_an_arrayrecord_view_gives_each_row_by_itself(small, view):
    columns = ["samples", "genre", "rms_dbfs", *KEY]
    rows = small.as_grain("train", columns, array_record=view)
    assert len(rows) == ROWS
    table = small.as_arrow("train").to_table().to_pylist()
    stored = {(row["number"], row["chunk_index"]): row for row in table}
    for row in (rows[i] for i in range(len(rows))):
        expected = stored.pop(keys_of([row])[0])
        np.testing.assert_array_equal(row["samples"], np.float32(expected["samples"]))
        assert row["genre"] == expected["genre"]
        assert row["rms_dbfs"] == np.float32(expected["rms_dbfs"])
    assert not stored


def test_grain_shuffles_an_arrayrecord_view_as_a_whole(small, view):
    rows = small.as_grain("train", KEY, array_record=view)
    shuffled = keys_of(grain.MapDataset.source(rows).shuffle(seed=3))
    assert Counter(shuffled) == Counter(in_order(small))
    assert shuffled != keys_of(rows[i] for i in range(ROWS))


def test_what_a_view_lacks_is_refused(small, view, tmp_path):
    with pytest.raises(DatasetError, match="no ArrayRecord files of the split 'train'"):
        small.as_grain("train", KEY, array_record=tmp_path)
    with pytest.raises(ConfigError, match="let grain shuffle"):
        small.as_grain("train", KEY, array_record=view, epochs=2)


def test_a_mixture_is_read_by_number_too(small, other):
    parts = [melmill.Part(small, "train", 3), melmill.Part(other, "train", 1)]
    rows = melmill.Mixture(parts).as_grain(KEY, order=ORDER)
    assert len(rows) == 2 * ROWS
    assert len(keys_of(rows[i] for i in range(len(rows)))) == 2 * ROWS
    with pytest.raises(ConfigError, match="there are no parts"):
        melmill.Mixture([])

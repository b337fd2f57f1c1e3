"""The index's files are sorted and complete, and are read back as they were written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from melmill.transforms.index.results import Held
from melmill.transforms.index.tables import (
    FAILURES,
    RECORDINGS,
    SHARDS,
    failed_row,
    failure_row,
    is_indexed,
    read_index,
    read_shards,
    recording_row,
    shard_row,
    write_part,
)
from melmill.transforms.rows.summaries import RecordingRows
from melmill.transforms.store.folders import Store
from tests.plans import failure, planned, summary


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_rows_come_back_sorted(store: Store) -> None:
    rows = [failure_row(failure(f"{i}.wav")) for i in range(20)]
    write_part(store, "x", "failures", 0, rows)
    assert list(read_index(store, "x", "failures")) == sorted(
        rows, key=lambda row: row["recording_id"]
    )


def test_parts_are_read_in_order(store: Store) -> None:
    for part in (11, 2):
        row = failure_row(failure(f"{part}.wav"))
        assert write_part(store, "x", "failures", part, [row]) is not None
    assert [row["uri"] for row in read_index(store, "x", "failures")] == [
        "/songs/2.wav",
        "/songs/11.wav",
    ]


def test_a_part_without_rows_is_not_written(store: Store) -> None:
    assert write_part(store, "x", "failures", 0, []) is None
    assert list(store.names()) == []


def test_the_order_of_the_rows_does_not_change_the_file(store: Store) -> None:
    rows = [shard_row(summary(f"{i}")) for i in range(5)]
    for index, order in (("x", rows), ("y", rows[::-1])):
        write_part(store, index, "shards", 0, order)
    assert store.read("index/x/shards-00000.parquet") == store.read("index/y/shards-00000.parquet")


def test_a_recording_comes_back_with_its_tags(store: Store) -> None:
    song = planned()
    audio = replace(song.probed.audio, tags=(("artist", "A"), ("title", "Ä")))
    tagged_song = replace(song, probed=replace(song.probed, audio=audio))
    row = recording_row(
        tagged_song, [Held("s", RecordingRows("a", 10, -math.inf, "0f"))], "features"
    )
    write_part(store, "x", "recordings", 0, [row])
    (stored,) = read_index(store, "x", "recordings")
    assert stored == row | {"tags": {"artist": "A", "title": "Ä"}}
    assert (stored["seconds"], stored["peak_dbfs"]) == (10.0, -math.inf)


def test_a_failed_recording_has_nulls_where_nothing_is_known(store: Store) -> None:
    write_part(store, "x", "recordings", 0, [failed_row(failure(), None, "f")])
    (stored,) = read_index(store, "x", "recordings")
    assert (stored["status"], stored["rows"], stored["shards"]) == ("failed", 0, [])
    assert (stored["codec"], stored["split"], stored["tags"]) == (None, None, None)


def test_columns_can_be_chosen(store: Store) -> None:
    write_part(store, "x", "failures", 0, [failure_row(failure())])
    assert list(read_index(store, "x", "failures", ["cause"])) == [{"cause": "corrupt"}]


def test_an_index_without_failures_has_none(store: Store) -> None:
    write_part(store, "x", "shards", 0, [shard_row(summary())])
    assert list(read_index(store, "x", "failures")) == []


def test_shards_come_back_as_they_were_without_the_failures(store: Store) -> None:
    one, other = summary("one"), summary("other", rows=0, parquet=None, failures=(failure(),))
    write_part(store, "x", "shards", 0, [shard_row(shard) for shard in (one, other)])
    assert set(read_shards(store, "x")) == {one, replace(other, failures=())}


def test_a_shard_is_known_from_any_index(store: Store) -> None:
    for index in ("x", "y"):
        write_part(store, index, "shards", 0, [shard_row(summary(index))])
    assert is_indexed(store, summary("x").name)
    assert is_indexed(store, summary("y").name)
    assert not is_indexed(store, summary("z").name)


@pytest.mark.parametrize(
    ("kind", "schema"), [("recordings", RECORDINGS), ("failures", FAILURES), ("shards", SHARDS)]
)
def test_files_have_the_declared_columns(store: Store, kind: str, schema: object) -> None:
    rows = {
        "recordings": recording_row(planned(), (), "f"),
        "failures": failure_row(failure()),
        "shards": shard_row(summary()),
    }
    name = write_part(store, "x", kind, 0, [rows[kind]])
    assert pq.read_schema(store.path(name or "")).equals(schema)


def test_a_value_of_the_wrong_type_is_refused(store: Store) -> None:
    row = recording_row(planned(), (), "f") | {"frames": "many"}
    with pytest.raises((TypeError, ValueError)):
        write_part(store, "x", "recordings", 0, [row])
    assert list(store.names("index")) == []

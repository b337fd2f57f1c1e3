"""Totals are the sums of an index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from melmill.transforms.core.errors import Cause, DatasetError
from melmill.transforms.core.records import Failure
from melmill.transforms.index.facts import Held
from melmill.transforms.index.tables import (
    failed_row,
    failure_row,
    recording_row,
    shard_row,
    write_part,
)
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from melmill.transforms.snapshot.totals import Totals, add_up, ordered_shards, training_split
from melmill.transforms.store.folders import Store
from tests.plans import failure, planned, summary

TWIN = FileEntry("tfrecord/test/part-x.tfrecord", 77, "0" * 64)
SHARDS = [
    summary("one", rows=3, mean=(0.0, 10.0)),
    summary("two", rows=3, mean=(2.0, 20.0), low=-90.0),
    summary("three", "test", rows=5, tfrecord=TWIN, null_labels=("genre",)),
    summary("none", "test", rows=0, parquet=None),
]
FAILED = [
    *(failure(f"{i}.wav", Cause.CORRUPT, f"message {i}") for i in range(5)),
    failure("gone.wav", Cause.NOT_FOUND, "gone"),
]


SONGS = [planned("a.wav", 3), planned("b.wav", 5, split="test"), planned("c.wav", 0)]


def write(
    store: Store,
    shards: Iterable[ShardSummary],
    failures: Iterable[Failure],
    songs: Iterable[PlannedRecording] = SONGS,
) -> None:
    rows = [recording_row(song, _held(song), "f") for song in songs]
    rows += [failed_row(failed, None, "f") for failed in failures]
    write_part(store, "x", "recordings", 0, rows)
    write_part(store, "x", "failures", 0, [failure_row(failed) for failed in failures])
    write_part(store, "x", "shards", 0, [shard_row(shard) for shard in shards])


def _held(song: PlannedRecording) -> list[Held]:
    return [Held("s", RecordingRows("", song.rows, 0.0))] if song.rows else []


@pytest.fixture
def totals(tmp_path: Path) -> Totals:
    store = Store(str(tmp_path))
    write(store, SHARDS, FAILED)
    return add_up(store, "x")


def test_recordings_are_counted_by_what_became_of_them(totals: Totals) -> None:
    assert totals.recordings == {"ok": 2, "skipped": 1, "failed": 6}
    assert totals.failure_ratio == 6 / 9


def test_seconds_are_those_of_the_recordings_used(totals: Totals) -> None:
    assert totals.seconds == 8.0


def test_splits_are_added_up_apart(totals: Totals) -> None:
    train, test = totals.split("train"), totals.split("test")
    assert (train.recordings, train.rows, train.shards) == (1, 6, 2)
    assert (test.recordings, test.rows, test.shards) == (1, 5, 1)
    assert (train.parquet_bytes, train.tfrecord_bytes) == (2000, 0)
    assert (test.parquet_bytes, test.tfrecord_bytes) == (1000, 77)
    assert totals.rows == 11


def test_failures_are_counted_with_some_examples(totals: Totals) -> None:
    assert totals.failures == {"corrupt": 5, "not_found": 1}
    assert totals.examples["not_found"] == [("/songs/gone.wav", "gone")]
    assert len(totals.examples["corrupt"]) == 3


def test_moments_are_those_of_the_training_split(totals: Totals) -> None:
    assert totals.moments is not None
    assert totals.moments.count == 24
    assert_allclose(totals.moments.mean, [1.0, 15.0])
    assert (totals.moments.low, totals.moments.high) == (-90.0, 0.0)


def test_labels_that_are_sometimes_missing_are_named(totals: Totals) -> None:
    assert totals.null_labels == {"genre"}


def test_the_sums_have_the_same_bits_whatever_the_order(tmp_path: Path, totals: Totals) -> None:
    other_store = Store(str(tmp_path / "other"))
    write(other_store, SHARDS[::-1], FAILED[::-1])
    other_totals = add_up(other_store, "x")
    assert totals.moments is not None
    assert other_totals.moments is not None
    assert other_totals.moments.m2.tobytes() == totals.moments.m2.tobytes()
    assert other_totals.examples == totals.examples
    assert list(ordered_shards(other_store, "x")) == list(ordered_shards(Store(str(tmp_path)), "x"))


def test_without_a_split_called_train_the_first_one_counts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    folds = [replace(SHARDS[0], split="fold1"), replace(SHARDS[1], split="fold2")]
    write(store, folds, FAILED[:1], [])
    moments = add_up(store, "x").moments
    assert moments is not None
    assert moments.count == 12


def test_an_index_that_is_missing_is_not_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="index/x is missing"):
        add_up(Store(str(tmp_path)), "x")


@pytest.mark.parametrize(
    ("splits", "expected"), [({}, None), ({"b": 1, "a": 1}, "a"), ({"a": 1, "train": 1}, "train")]
)
def test_the_split_for_statistics(splits: dict[str, int], expected: str | None) -> None:
    assert training_split(splits) == expected

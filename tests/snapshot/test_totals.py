"""Totals are the sums of an index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from numpy.testing import assert_allclose

from melmill.transforms.core.errors import Cause, DatasetError
from melmill.transforms.core.records import Failure
from melmill.transforms.index.results import Held
from melmill.transforms.index.tables import (
    failed_row,
    failure_row,
    read_shards,
    recording_row,
    shard_row,
    write_part,
)
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.rows.distribution import DURATION_EDGES_S
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from melmill.transforms.snapshot import totals as totals_module
from melmill.transforms.snapshot.totals import (
    Totals,
    add_up,
    ordered_shards,
    require_consistent,
    require_whole,
    row_differences,
    training_split,
)
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


def test_recordings_are_counted_by_status(totals: Totals) -> None:
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


def test_the_sizes_of_all_files_of_a_split_are_added_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    twins = [replace(TWIN, size_bytes=size) for size in (70, 7)]
    write(store, [summary(twin.name + str(n), tfrecord=twin) for n, twin in enumerate(twins)], [])
    content = add_up(store, "x").split("train")
    assert (content.parquet_bytes, content.tfrecord_bytes) == (2000, 77)


def test_failures_are_counted_with_some_examples(totals: Totals) -> None:
    assert totals.failures == {"corrupt": 5, "not_found": 1}
    assert totals.examples["not_found"] == [("/songs/gone.wav", "gone")]
    assert len(totals.examples["corrupt"]) == 3


def test_moments_are_those_of_the_training_split(totals: Totals) -> None:
    assert totals.moments[""].count == 24
    assert_allclose(totals.moments[""].mean, [1.0, 15.0])
    assert (totals.moments[""].low, totals.moments[""].high) == (-90.0, 0.0)


def test_labels_that_are_sometimes_missing_are_named(totals: Totals) -> None:
    assert totals.null_labels == {"genre"}


def test_the_sums_have_the_same_bits_whatever_the_order(tmp_path: Path, totals: Totals) -> None:
    other_store = Store(str(tmp_path / "other"))
    write(other_store, SHARDS[::-1], FAILED[::-1])
    other_totals = add_up(other_store, "x")
    assert other_totals.moments[""].m2.tobytes() == totals.moments[""].m2.tobytes()
    assert other_totals.examples == totals.examples
    assert list(ordered_shards(other_store, "x")) == list(ordered_shards(Store(str(tmp_path)), "x"))


def test_without_a_split_called_train_the_first_one_counts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    folds = [replace(SHARDS[0], split="fold1"), replace(SHARDS[1], split="fold2")]
    write(store, folds, FAILED[:1], [])
    moments = add_up(store, "x").moments[""]
    assert moments.count == 12


def test_an_index_that_is_missing_is_not_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="index/x is missing"):
        add_up(Store(str(tmp_path)), "x")


@pytest.mark.parametrize(
    ("splits", "expected"), [({}, None), ({"b": 1, "a": 1}, "a"), ({"a": 1, "train": 1}, "train")]
)
def test_the_split_for_statistics(splits: dict[str, int], expected: str | None) -> None:
    assert training_split(splits) == expected


# The tables of an index must agree


def digest_of(number: int) -> str:
    return f"{number:032x}"


def index_of(
    store: Store,
    indexed: dict[str, tuple[int, str]],
    shards: list[dict[str, tuple[int, str]]],
    status: str = "ok",
) -> None:
    """Write an index.

    `indexed`: the number of rows and their digest for each recording in the table of recordings.
    `shards`: for each shard, the number of rows and their digest for each of its recordings.
    """
    rows = [
        recording_row(planned(name), (), "f")
        | {"rows": number, "rows_digest": digest or None, "status": status, "shards": ["s"]}
        for name, (number, digest) in indexed.items()
    ]
    summaries = [
        summary(
            f"shard {i}",
            rows=sum(number for number, _ in entries.values()),
            recordings=tuple(
                RecordingRows(planned(name).probed.recording.recording_id, number, 0.0, digest)
                for name, (number, digest) in entries.items()
            ),
        )
        for i, entries in enumerate(shards)
    ]
    write_part(store, "x", "recordings", 0, rows)
    write_part(store, "x", "failures", 0, [])
    write_part(store, "x", "shards", 0, [shard_row(shard) for shard in summaries])


def identity(name: str) -> str:
    return planned(name).probed.recording.recording_id


LARGE = (1 << 128) - 5
OTHER = "the shards hold other rows than the index says"


@pytest.mark.parametrize(
    ("indexed", "shards", "expected"),
    [
        ({"a": (3, digest_of(7))}, [{"a": (3, digest_of(7))}], []),
        ({"a": (3, digest_of(7))}, [{"a": (1, digest_of(5))}, {"a": (2, digest_of(2))}], []),
        # Digests are added up modulo 2¹²⁸.
        ({"a": (2, digest_of(5))}, [{"a": (1, digest_of(LARGE))}, {"a": (1, digest_of(10))}], []),
        ({"a": (0, "")}, [], []),
        ({"a": (3, "")}, [{"a": (3, "")}], []),
        ({"a": (3, digest_of(7))}, [], [("a", "the index says 3 rows, the shards hold 0")]),
        ({}, [{"a": (3, digest_of(7))}], [("a", "the index says 0 rows, the shards hold 3")]),
        (
            {"a": (3, digest_of(7)), "b": (4, digest_of(1))},
            [{"a": (2, digest_of(7)), "b": (5, digest_of(1))}],
            [
                ("a", "the index says 3 rows, the shards hold 2"),
                ("b", "the index says 4 rows, the shards hold 5"),
            ],
        ),
        ({"a": (3, digest_of(7))}, [{"a": (3, digest_of(8))}], [("a", OTHER)]),
        (
            {"a": (2, digest_of(7))},
            [{"a": (1, digest_of(7))}, {"a": (1, digest_of(1))}],
            [("a", OTHER)],
        ),
        # Older versions of melmill wrote no digests.
        ({"a": (3, "")}, [{"a": (3, digest_of(8))}], []),
        ({"a": (3, digest_of(7))}, [{"a": (3, "")}], []),
        (
            {"a": (3, digest_of(7)), "b": (3, digest_of(7))},
            [{"a": (3, digest_of(7)), "b": (3, digest_of(9))}],
            [("b", OTHER)],
        ),
    ],
)
def test_rows_are_compared_recording_by_recording(
    tmp_path: Path,
    indexed: dict[str, tuple[int, str]],
    shards: list[dict[str, tuple[int, str]]],
    expected: list[tuple[str, str]],
) -> None:
    store = Store(str(tmp_path))
    index_of(store, indexed, shards)
    messages = [f"recording {identity(name)}: {text}" for name, text in expected]
    assert sorted(row_differences(store, "x")) == sorted(messages)
    if not messages:
        assert require_whole(store, "x") == sum(rows for rows, _ in indexed.values())
        return
    with pytest.raises(DatasetError) as raised:
        require_whole(store, "x")
    listed = "; ".join(row_differences(store, "x"))
    assert str(raised.value) == (
        f"{store.root}/index/x contradicts itself: {listed}; nothing was committed"
    )


def test_differences_are_sorted_by_id_and_the_error_names_three(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    names = sorted("abcde", key=identity)
    index_of(store, dict.fromkeys(names[::-1], (1, "")), [])
    differences = list(row_differences(store, "x"))
    assert [difference.split()[1].rstrip(":") for difference in differences] == [
        identity(name) for name in names
    ]
    with pytest.raises(DatasetError) as raised:
        require_whole(store, "x")
    assert str(raised.value).count("the index says") == 3


def test_many_recordings_are_compared_in_groups(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    entries = {f"{i}": (i % 7, digest_of(i) if i % 7 else "") for i in range(60)}
    index_of(store, entries, [entries])
    assert list(row_differences(store, "x")) == []
    swapped = entries | {"3": entries["10"], "10": entries["3"]}
    index_of(store, entries, [swapped])
    differing_ids = {
        difference.split()[1].rstrip(":") for difference in row_differences(store, "x")
    }
    assert differing_ids == {identity("3"), identity("10")}


PARTS = [{"a": (1, digest_of(LARGE)), "b": (1, digest_of(1))}, {"a": (1, digest_of(10))}]


def test_in_an_uneven_group_only_the_recordings_that_differ_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals_module, "_GROUPS", 1)
    store = Store(str(tmp_path))
    index_of(store, {"a": (2, digest_of(5)), "b": (1, digest_of(2))}, PARTS)
    assert list(row_differences(store, "x")) == [f"recording {identity('b')}: {OTHER}"]


def test_an_index_that_agrees_is_read_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    index_of(store, {"a": (2, digest_of(5)), "b": (1, digest_of(1))}, PARTS)
    with patch.object(totals_module, "read_shards", wraps=read_shards) as reading:
        assert list(row_differences(store, "x")) == []
    reading.assert_called_once()


def test_a_planned_recording_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    index_of(store, {"a": (0, "")}, [], status="unwritten")
    with pytest.raises(DatasetError, match=r"/songs/a was planned, but no shard holds it; nothing"):
        require_whole(store, "x")


def test_an_index_that_does_not_describe_the_tables_files_is_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    index_of(store, {"a": (3, "")}, [{"a": (3, "")}])
    name = f"split=train/part-{summary('shard 0').name}.parquet"
    assert require_consistent(store, "x", [name]) == 3
    for files in ([], [name, "split=train/part-y.parquet"], ["split=test/part-y.parquet"]):
        with pytest.raises(DatasetError) as raised:
            require_consistent(store, "x", files)
        assert str(raised.value) == (
            f"{store.root}: the Delta log names {len(files)} shards; index/x/ describes 1 shards "
            "with 3 rows, and recordings with 3 rows: the log or the index is damaged. melmill "
            "history lists the versions; melmill rollback goes back to one of them"
        )
    index_of(store, {"a": (2, "")}, [{"a": (3, "")}])
    with pytest.raises(DatasetError, match="1 shards with 3 rows, and recordings with 2 rows"):
        require_consistent(store, "x", [name])
    index_of(store, {"a": (0, "")}, [{"a": (0, "")}])
    assert require_consistent(store, "x", []) == 0


def test_each_split_has_a_histogram_of_durations(tmp_path: Path, totals: Totals) -> None:
    """The songs are 3 s and 5 s long. The song without rows does not count."""
    edges = list(DURATION_EDGES_S)
    for name, seconds in (("train", 3.0), ("test", 5.0)):
        split = totals.split(name)
        assert split.seconds == seconds
        bin_index = sum(edge <= seconds for edge in edges)
        assert split.durations.tolist() == [int(i == bin_index) for i in range(len(edges) + 1)]


def test_partial_recordings_count_but_failed_recordings_do_not(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    index_of(store, {"a": (3, ""), "b": (4, "")}, [], status="partial")
    totals = add_up(store, "x")
    assert (totals.recordings, totals.seconds) == ({"partial": 2}, 20.0)
    assert (totals.split("train").recordings, totals.rows) == (2, 0)
    index_of(store, {"a": (3, "")}, [], status="failed")
    assert (add_up(store, "x").seconds, add_up(store, "x").failure_ratio) == (0.0, 1.0)


def test_parts_of_an_index_add_up(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    labels = [("genre",), ("year",), ()]
    for part, missing in enumerate(labels):
        songs = [planned(f"{part}{i}.wav", 3) for i in range(2)]
        rows = [recording_row(song, _held(song), "f") for song in songs]
        write_part(store, "x", "recordings", part, rows)
        write_part(store, "x", "failures", part, [])
        shard = summary(f"{part}", rows=6, null_labels=missing)
        write_part(store, "x", "shards", part, [shard_row(shard)])
    totals = add_up(store, "x")
    train = totals.split("train")
    assert (train.recordings, train.seconds, train.rows, train.shards) == (6, 18.0, 18, 3)
    assert sum(train.durations.tolist()) == 6
    assert totals.null_labels == {"genre", "year"}
    assert (totals.recordings, totals.seconds) == ({"ok": 6}, 18.0)
    names = [f"split=train/part-{summary(f'{part}').name}.parquet" for part in range(3)]
    assert require_consistent(store, "x", names) == 18

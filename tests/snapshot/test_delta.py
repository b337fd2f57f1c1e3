"""A snapshot is one commit. If two runs commit at once, one wins. Foreign tables are refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.snapshot import committing, delta
from melmill.transforms.snapshot.delta import (
    Past,
    Snapshot,
    has_columns,
    index_names,
    logged_files,
    open_table,
    read_history,
    read_snapshot,
    require_past,
    require_snapshot,
    table_files,
    table_labels,
)
from melmill.transforms.store.folders import Store
from tests.plans import lay_down, summary

SCHEMA = pa.schema({"mel": pa.float32(), "split": pa.string()})
UNCOMMITTED = Snapshot(-1, "index-0", {"chunk": {"seconds": 3.0}}, "/songs", "{}")
SHARD_ONE, SHARD_TWO, SHARD_THREE = (
    summary("one"),
    summary("two", split="test"),
    summary("three", rows=7),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def commit(
    store: Store, snapshot: Snapshot, shards: Iterable[ShardSummary], schema: pa.Schema
) -> int:
    """Write the shards' files and an index that describes them, then commit the index."""
    lay_down(store, snapshot.index, *shards)
    return committing.commit(store, snapshot, schema)


def files(store: Store) -> set[tuple[str, int, str]]:
    table = open_table(store)
    assert table is not None
    return set(table_files(table))


def entries(*shards: ShardSummary) -> set[tuple[str, int, str]]:
    return {
        (shard.parquet.name, shard.parquet.size_bytes, shard.split)
        for shard in shards
        if shard.parquet
    }


def after(store: Store, version: int, index: str = "index-1") -> Snapshot:
    return replace(UNCOMMITTED, version=version, index=index)


def log(store: Store, version: int) -> list[dict[str, dict[str, object]]]:
    text = store.read(f"_delta_log/{version:020d}.json").decode()
    return [json.loads(line) for line in text.splitlines()]


def test_nothing_committed_is_no_snapshot(store: Store) -> None:
    assert read_snapshot(store) is None
    assert open_table(store) is None
    with pytest.raises(DatasetError, match="holds no dataset"):
        require_snapshot(store)


def test_the_first_commit_makes_the_table(store: Store) -> None:
    assert commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA) == 0
    assert files(store) == entries(SHARD_ONE, SHARD_TWO)
    assert read_snapshot(store) == replace(
        UNCOMMITTED, version=0, rows=SHARD_ONE.rows + SHARD_TWO.rows
    )


def test_a_commit_replaces_the_previous_shards(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA)
    assert commit(store, after(store, 0), [SHARD_TWO, SHARD_THREE], SCHEMA) == 1
    assert files(store) == entries(SHARD_TWO, SHARD_THREE)
    assert read_snapshot(store) == replace(after(store, 1), rows=SHARD_TWO.rows + SHARD_THREE.rows)


def test_a_log_is_read_again_after_a_broken_connection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    real, failures = DeltaTable.__init__, [OSError("end of file before message length reached")]

    def break_off(self: DeltaTable, *arguments: object, **options: object) -> None:
        if failures:
            raise failures.pop()
        real(self, *arguments, **options)

    monkeypatch.setattr(DeltaTable, "__init__", break_off)
    assert require_snapshot(store).version == 0
    assert not failures


def test_adds_and_removes_are_one_commit(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA)
    commit(store, after(store, 0), [SHARD_TWO, SHARD_THREE], SCHEMA)
    actions = log(store, 1)
    added = [action["add"]["path"] for action in actions if "add" in action]
    removed = [action["remove"]["path"] for action in actions if "remove" in action]
    assert (added, removed) == ([_name(SHARD_THREE)], [_name(SHARD_ONE)])


def _name(shard: ShardSummary) -> str:
    return shard.parquet.name if shard.parquet else ""


def test_the_previous_snapshot_can_still_be_read(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    commit(store, after(store, 0), [SHARD_TWO], SCHEMA)
    table = open_table(store, version=0)
    assert table is not None
    assert set(table_files(table)) == entries(SHARD_ONE)


def test_a_shard_without_rows_is_not_in_the_table(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE, summary("empty", rows=0, parquet=None)], SCHEMA)
    assert files(store) == entries(SHARD_ONE)


def test_the_log_knows_the_number_of_rows(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_THREE], SCHEMA)
    table = open_table(store)
    assert table is not None
    actions = pa.table(table.get_add_actions(flatten=True))
    assert sum(actions["num_records"].to_pylist()) == SHARD_ONE.rows + SHARD_THREE.rows


def test_other_columns_replace_the_columns_of_the_table(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    wider = pa.schema([*SCHEMA, pa.field("label", pa.string())])
    commit(store, after(store, 0), [SHARD_TWO], wider)
    table = open_table(store)
    assert table is not None
    assert [field.name for field in table.schema().fields] == ["mel", "split", "label"]
    assert files(store) == entries(SHARD_TWO)


# Two runs at once


def test_a_run_that_comes_second_is_refused(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    commit(store, after(store, 0, "winner"), [SHARD_TWO], SCHEMA)
    with pytest.raises(DatasetError, match="another run committed version 1"):
        commit(store, after(store, 0, "loser"), [SHARD_THREE], SCHEMA)
    assert files(store) == entries(SHARD_TWO)
    assert require_snapshot(store).index == "winner"


def test_a_run_that_expected_to_be_the_first_is_refused(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    with pytest.raises(DatasetError, match="another run committed version 0"):
        commit(store, UNCOMMITTED, [SHARD_TWO], SCHEMA)
    assert files(store) == entries(SHARD_ONE)


def race(store: Store, base: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another run commit after our run has checked the version and before it commits."""
    real = committing._check_version

    def check_and_lose(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(committing, "_check_version", real)
        commit(store, replace(base, index="winner"), [SHARD_TWO], SCHEMA)

    monkeypatch.setattr(committing, "_check_version", check_and_lose)
    with pytest.raises(DatasetError, match="another run committed"):
        commit(store, replace(base, index="loser"), [SHARD_THREE], SCHEMA)
    assert require_snapshot(store).index == "winner"
    assert require_snapshot(store).version == base.version + 1


def test_one_of_two_first_commits_at_once_wins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    race(store, UNCOMMITTED, monkeypatch)
    assert files(store) == entries(SHARD_TWO)


def test_one_of_two_commits_at_once_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    race(store, after(store, 0), monkeypatch)
    assert files(store) == entries(SHARD_TWO)


def test_one_of_two_appends_at_once_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Delta itself accepts two appends at once.
    commit(store, UNCOMMITTED, [], SCHEMA)
    race(store, after(store, 0), monkeypatch)
    assert files(store) == entries(SHARD_TWO)


def test_a_foreign_append_at_once_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta would add our rows to those of the other tool if it tried again."""
    commit(store, UNCOMMITTED, [], SCHEMA)

    def lose(*_: object) -> None:
        rows = pa.table({"mel": [1.0], "split": ["train"]}, SCHEMA)
        write_deltalake(store.root, rows, mode="append")

    monkeypatch.setattr(committing, "_check_version", lose)
    with pytest.raises(ConflictError, match="another run committed"):
        commit(store, after(store, 0), [SHARD_THREE], SCHEMA)
    assert _name(SHARD_THREE) not in {name for name, _, _ in files(store)}


def test_a_folders_name_may_hold_characters_that_end_a_url(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/a#b?c")
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    assert files(store) == entries(SHARD_ONE)
    assert (tmp_path / "a#b?c" / "_delta_log").is_dir()


# Other tools, other versions


def tidy(store: Store) -> None:
    """Commit a change of the table's properties, as another tool might."""
    properties = {"delta.logRetentionDuration": "interval 9 days"}
    DeltaTable(store.root).alter.set_table_properties(properties)


def test_a_table_of_another_tool_is_refused(store: Store) -> None:
    write_deltalake(store.root, pa.table({"x": [1]}))
    with pytest.raises(DatasetError, match="a Delta table, but melmill did not make it"):
        read_snapshot(store)


@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_foreign_commits_on_top_do_not_hide_ours(store: Store, number: int) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    for _ in range(number):
        tidy(store)
    current = require_snapshot(store)
    assert (current.index, current.catalogue, current.configuration) == (
        UNCOMMITTED.index,
        UNCOMMITTED.catalogue,
        UNCOMMITTED.configuration,
    )


def test_a_foreign_commit_on_top_does_not_block_our_next_commit(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    tidy(store)
    current = require_snapshot(store)
    assert commit(store, replace(current, index="index-1"), [SHARD_TWO], SCHEMA) == 2
    assert require_snapshot(store).index == "index-1"
    assert files(store) == entries(SHARD_TWO)


def test_a_checkpoint_does_not_hide_the_snapshot(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    for version in range(3):
        commit(store, after(store, version), [SHARD_ONE, SHARD_TWO][version % 2 :], SCHEMA)
    DeltaTable(store.root).create_checkpoint()
    assert require_snapshot(store) == replace(after(store, 3), rows=SHARD_ONE.rows + SHARD_TWO.rows)


def test_a_snapshot_of_a_newer_format_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(committing, "FORMAT", 6)
        patch.setattr("melmill.transforms.snapshot.delta.FORMAT", 6)
        commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
        assert read_snapshot(store) == replace(UNCOMMITTED, version=0, rows=SHARD_ONE.rows)
    with pytest.raises(DatasetError, match=r"by a newer melmill, in format 6, and .* format 5"):
        read_snapshot(store)


def test_a_refusal_by_delta_is_no_conflict(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that retries after each conflict would otherwise retry forever."""
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)

    def refuse(*_: object, **__: object) -> None:
        raise CommitFailedError("the table has a feature that this writer lacks")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refuse)
    with pytest.raises(DatasetError, match=r"cannot commit .* this writer lacks") as raised:
        commit(store, after(store, 0), [SHARD_TWO], SCHEMA)
    assert not isinstance(raised.value, ConflictError)


def test_another_error_of_delta_is_not_taken_for_a_refusal(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)

    def fail(*_: object, **__: object) -> None:
        raise DeltaError("a fault of the program")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", fail)
    with pytest.raises(DeltaError, match="a fault of the program"):
        commit(store, after(store, 0), [SHARD_TWO], SCHEMA)


def test_a_run_recognises_its_own_commit_before_a_later_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to our commit is lost, and another run commits before our run checks."""
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    real = committing._write

    def write_and_lose(*arguments: object) -> int:
        monkeypatch.setattr(committing, "_write", real)
        real(*arguments)  # type: ignore[arg-type]
        commit(store, after(store, 1, "index-2"), [SHARD_THREE], SCHEMA)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(committing, "_write", write_and_lose)
    assert commit(store, replace(after(store, 0), run="mine"), [SHARD_TWO], SCHEMA) == 1
    assert files(store) == entries(SHARD_THREE)


# History


def test_the_history_lists_snapshots_from_the_latest_to_the_first(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    commit(store, replace(after(store, 0), operation="refresh"), [SHARD_ONE, SHARD_TWO], SCHEMA)
    tidy(store)
    commit(store, after(store, 2, "index-2"), [SHARD_THREE], SCHEMA)
    history = read_history(store)
    assert [(past.snapshot.version, past.snapshot.index) for past in history] == [
        (3, "index-2"),
        (1, "index-1"),
        (0, "index-0"),
    ]
    assert [past.snapshot.rows for past in history] == [7, 4, 2]
    assert all(past.kept for past in history)
    now_ms = time.time() * 1000
    times = [past.committed_ms for past in history]
    assert times == sorted(times, reverse=True)
    assert now_ms - 60_000 < times[-1] <= now_ms


def test_a_snapshot_without_its_recordings_is_no_longer_kept(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    commit(store, after(store, 0), [SHARD_TWO], SCHEMA)
    first, second = (f"index/index-{i}/recordings-00000.parquet" for i in range(2))
    store.remove_files(["index/index-0/shards-00000.parquet"])
    assert [past.kept for past in read_history(store)] == [True, True]
    store.remove_files([first, second])
    # The current snapshot counts as kept, even without its index.
    assert [past.kept for past in read_history(store)] == [True, False]


def test_replaced_indexes_are_followed_to_the_last(store: Store) -> None:
    commit(store, replace(UNCOMMITTED, statistics={"a": 1}), [SHARD_ONE], SCHEMA)
    commit(store, replace(after(store, 0), statistics={"b": 2}), [SHARD_ONE], SCHEMA)
    erased = replace(after(store, 1, "index-2"), replaced={"index-0": "old-0", "index-1": "old-1"})
    commit(store, erased, [SHARD_ONE], SCHEMA)
    erased_again = replace(after(store, 2, "index-3"), replaced={"old-0": "older-0"})
    commit(store, erased_again, [SHARD_ONE], SCHEMA)
    lay_down(store, "older-0", SHARD_ONE)
    history = read_history(store)
    assert [(past.snapshot.index, past.kept) for past in history] == [
        ("index-3", True),
        ("index-2", True),
        ("old-1", False),
        ("older-0", True),
    ]
    assert [past.snapshot.statistics for past in history[2:]] == [{}, {}]
    assert index_names(history) == {
        *("index-2", "index-3", "old-0", "old-1", "older-0", "index-0", "index-1"),
    }


def test_an_index_without_a_name_is_ignored(store: Store) -> None:
    past = Past(replace(UNCOMMITTED, index="", replaced={"": "x"}), 0, False)
    assert index_names([past]) == {"x"}
    assert index_names([]) == set()


def test_the_log_remembers_every_file(store: Store) -> None:
    spaced = summary("one", parquet=replace(SHARD_ONE.parquet, name="split=a b/part-1.parquet"))
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA)
    commit(store, after(store, 0), [spaced], SCHEMA)
    store.put("_delta_log/notes.json", b'{"add": {"path": "mine"}}')
    store.put("_delta_log/_last_checkpoint", b'{"add": {"path": "mine"}}')
    assert sorted(logged_files(store)) == sorted(
        [_name(SHARD_ONE), _name(SHARD_TWO), _name(spaced)]
    )


def test_an_earlier_version_is_found_or_the_error_lists_the_kept_versions(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    tidy(store)
    commit(store, after(store, 1), [SHARD_TWO], SCHEMA)
    assert require_past(store, 0).snapshot.index == "index-0"
    assert require_past(store, 1).snapshot.version == 0  # Another tool committed version 1.
    assert require_past(store, 2).snapshot.index == "index-1"
    for version in (3, -1):
        with pytest.raises(DatasetError) as raised:
            require_past(store, version)
        message = f"version {version} is not in its history; kept: 2, 0"
        assert str(raised.value) == f"{store.root}: {message}"
    store.remove_files(["index/index-0/recordings-00000.parquet"])
    for version in (0, 1):
        with pytest.raises(DatasetError) as raised:
            require_past(store, version)
        message = f"version {version} is no longer kept; kept: 2"
        assert str(raised.value) == f"{store.root}: {message}"


def test_labels_are_the_columns_that_melmill_does_not_define(store: Store) -> None:
    schema = pa.schema(
        {
            "recording_id": pa.string(),
            "genre": pa.string(),
            "tags": pa.list_(pa.string()),
            "mel": pa.list_(pa.list_(pa.float32())),
            "split": pa.string(),
        }
    )
    commit(store, UNCOMMITTED, [SHARD_ONE], schema)
    labels, per_channel = table_labels(store, 0, ["mel"])
    assert [(label.name, label.type) for label in labels] == [
        ("genre", "string"),
        ("tags", "list<string>"),
    ]
    assert not per_channel
    commit(store, after(store, 0), [SHARD_TWO], schema.append(pa.field("channel", pa.int32())))
    assert table_labels(store, 1, ["mel"]) == (labels, True)
    assert table_labels(store, 0, ["mel"]) == (labels, False)


def test_columns_of_a_table_that_is_gone_are_an_error(store: Store) -> None:
    with pytest.raises(DatasetError, match=rf"{store.root}: the Delta log no longer exists"):
        table_labels(store, 0, ["mel"])


# Refused commits


def test_a_file_that_differs_from_its_description_is_not_committed(store: Store) -> None:
    for size in (999, 1001, None):
        lay_down(store, UNCOMMITTED.index, SHARD_ONE, SHARD_TWO)
        if size is None:
            store.remove_files([_name(SHARD_TWO)])
        else:
            store.put(_name(SHARD_TWO), bytes(size))
        with pytest.raises(DatasetError) as raised:
            committing.commit(store, UNCOMMITTED, SCHEMA)
        assert str(raised.value) == (
            f"{store.root}: {_name(SHARD_TWO)} has {size or 0:,} bytes, but index/index-0/ "
            "describes 1,000 with 2 rows; nothing was committed"
        )
    assert open_table(store) is None


def test_a_shard_that_says_more_rows_than_its_recordings_is_not_committed(store: Store) -> None:
    with pytest.raises(DatasetError) as raised:
        commit(store, UNCOMMITTED, [replace(SHARD_ONE, rows=1003)], SCHEMA)
    assert str(raised.value) == (
        f"{store.root}: the commit would hold 1,003 rows, but its index describes 2; nothing was "
        "committed"
    )


def test_a_file_that_stays_must_have_its_logged_number_of_rows(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    more = replace(SHARD_ONE, rows=3, recordings=(replace(SHARD_ONE.recordings[0], rows=3),))
    with pytest.raises(DatasetError, match=r"describes 1,000 with 3 rows; nothing was committed"):
        commit(store, after(store, 0), [more], SCHEMA)
    larger = replace(SHARD_ONE, parquet=replace(SHARD_ONE.parquet, size_bytes=1001))
    with pytest.raises(DatasetError, match=r"has 1,000 bytes, but .* describes 1,001"):
        commit(store, after(store, 0, "index-2"), [larger], SCHEMA)


def test_the_sizes_of_many_files_are_listed_folder_by_folder(store: Store) -> None:
    many = [summary(f"{i}", split=f"s{i % 3}", rows=i + 1) for i in range(33)]
    with patch.object(Store, "files", autospec=True, side_effect=Store.files) as listing:
        assert commit(store, UNCOMMITTED, many, SCHEMA) == 0
    folders = [call.args[1] for call in listing.call_args_list]
    assert folders == ["split=s0", "split=s1", "split=s2"]
    assert files(store) == entries(*many)
    assert require_snapshot(store).rows == 33 * 34 // 2
    more = [summary(f"more {i}", rows=1) for i in range(33)]
    lay_down(store, "index-1", *more)
    store.put(_name(more[5]), bytes(7))
    with pytest.raises(DatasetError, match="has 7 bytes"):
        committing.commit(store, after(store, 0), SCHEMA)


def test_columns_change_only_if_all_shards_are_replaced(store: Store) -> None:
    wider = pa.schema([*SCHEMA, pa.field("label", pa.string()), pa.field("n", pa.int64())])
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA)
    with pytest.raises(DatasetError) as raised:
        commit(store, after(store, 0), [SHARD_ONE, SHARD_THREE], wider)
    assert str(raised.value).startswith(
        f"{store.root}: the Delta table lacks the columns label, n of 1 shards that stay, or has "
        "them with other types: another tool changed the table; nothing was committed. "
    )
    assert commit(store, after(store, 0, "index-2"), [SHARD_THREE], wider) == 1
    # The table may have columns that the shards lack.
    assert commit(store, after(store, 1, "index-3"), [SHARD_THREE, SHARD_ONE], SCHEMA) == 2
    assert files(store) == entries(SHARD_THREE, SHARD_ONE)
    table = open_table(store)
    assert table is not None
    assert len(table.schema().fields) == 4
    # Each of the three ways to commit leaves the table divided by split.
    for version in range(3):
        table.load_as_version(version)
        assert table.metadata().partition_columns == ["split"]


def test_the_values_of_a_snapshot_are_stored_in_its_commit(store: Store) -> None:
    snapshot = replace(
        *(UNCOMMITTED,),
        statistics={"mean": [1.5]},
        operation="refresh",
        parts=4,
        listed_ms=123,
        dataset_version=7,
        taken_down="taken_down/x.jsonl",
        replaced={"a": "b"},
        run="run-attempt",
    )
    commit(store, snapshot, [SHARD_ONE], SCHEMA)
    assert require_snapshot(store) == replace(snapshot, version=0, rows=2)
    actions = log(store, 0)
    (metadata,) = [action["metaData"] for action in actions if "metaData" in action]
    assert metadata["configuration"] == {"delta.enableExpiredLogCleanup": "false"}
    assert metadata["partitionColumns"] == ["split"]
    (added,) = [action["add"] for action in actions if "add" in action]
    assert added["modificationTime"] == 0
    assert added["partitionValues"] == {"split": "train"}
    assert added["dataChange"] is True
    (transaction,) = [action["txn"] for action in actions if "txn" in action]
    assert (transaction["appId"], transaction["version"]) == ("melmill", 0)


def test_the_log_says_when_a_file_was_removed(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA)
    commit(store, after(store, 0), [SHARD_TWO], SCHEMA)
    (removed,) = [action["remove"] for action in log(store, 1) if "remove" in action]
    assert (removed["path"], removed["size"]) == (_name(SHARD_ONE), 1000)
    assert removed["partitionValues"] == {"split": "train"}
    assert removed["dataChange"] is True
    assert abs(time.time() * 1000 - float(str(removed["deletionTimestamp"]))) < 60_000


def test_an_unreadable_log_is_a_dataset_error(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    store.put(f"_delta_log/{0:020d}.json", b"{not json\n{")
    with pytest.raises(DatasetError) as raised:
        open_table(store)
    first, _, reason = str(raised.value).partition(": the Delta log cannot be read: ")
    assert first == store.root
    assert len(reason) > 10
    assert "\n" not in reason


def test_a_nullable_column_counts_as_the_same_column(store: Store) -> None:
    lists = pa.schema({"tags": pa.list_(pa.string()), "split": pa.string()})
    commit(store, UNCOMMITTED, [SHARD_ONE], lists)
    table = open_table(store)
    assert table is not None
    strict = pa.field("element", pa.string(), nullable=False)
    for columns, same in [
        (pa.schema({"tags": pa.list_(strict), "split": pa.string()}), True),
        (pa.schema({"tags": pa.list_(pa.int32()), "split": pa.string()}), False),
        (pa.schema({"split": pa.string()}), False),
    ]:
        assert has_columns(table, Schema.from_arrow(columns)) is same


def test_an_empty_latest_commit_is_damage(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
    tidy(store)
    store.put(f"_delta_log/{1:020d}.json", b"")
    with pytest.raises(DatasetError, match=r"the Delta log is damaged: its commit 1 is empty"):
        read_snapshot(store)


def test_a_list_in_an_older_commit_is_kept_as_text(store: Store) -> None:
    """Up to format 3, the commit itself held the list of recordings that were taken down."""
    old_commit = {
        "index": "x",
        "configuration": {},
        "catalogue": "/songs",
        "features": "{}",
        "format": 3,
    }
    snapshot = delta._parse(store, old_commit | {"taken_down": [["/a.wav"]]}, 5)
    assert (snapshot.version, snapshot.taken_down) == (5, '[["/a.wav"]]')
    assert delta._parse(store, old_commit | {"taken_down": []}, 5).taken_down == ""
    assert delta._parse(store, old_commit, 5) == Snapshot(5, "x", {}, "/songs", "{}")
    new_commit = old_commit | {"taken_down": "taken_down/x.jsonl"}
    assert delta._parse(store, new_commit, 5).taken_down == "taken_down/x.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n  ↳ the reason", "the reason"),
        ("\n alone \n", "alone"),
        ("a\n\x1b[31m  ↳ the reason", "the reason"),
        ("a\n  ↳ missing credentials", "missing credentials"),
        ("a\n  ↳ 404 not found", "404 not found"),
        ("metadata x", "metadata x"),
        ("x <Error><Code>Denied</Code>\n<Message>No\nmore</Message> y", "Denied: No"),
        ("<Code>Denied</Code><Message>None</Message></Error>\nlast", "Denied: None"),
    ],
)
def test_the_innermost_message_of_an_error_is_found(text: str, message: str) -> None:
    assert delta.innermost_message(OSError(text)) == message


def test_an_interrupted_store_gives_a_dataset_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("generic\n  ↳ no space")

    with monkeypatch.context() as broken:
        broken.setattr(DeltaTable, "create_write_transaction", refuse)
        with pytest.raises(DatasetError) as raised:
            commit(store, after(store, 0), [SHARD_TWO], SCHEMA)
    assert str(raised.value) == (
        f"cannot commit to {store.root}: no space; finished shards stay there: run the same "
        "command again to continue"
    )
    monkeypatch.setattr(delta, "insist", refuse)
    with pytest.raises(DatasetError) as raised:
        open_table(store)
    assert str(raised.value) == f"{store.root}: the Delta log cannot be read: no space"

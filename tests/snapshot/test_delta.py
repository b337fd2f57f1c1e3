"""Snapshots: one commit each, one winner of two, and nothing of anybody else's."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.snapshot import delta as snapshots
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
NONE = Snapshot(-1, "index-0", {"chunk": {"seconds": 3.0}}, "/songs", "{}")
ONE, TWO, THREE = summary("one"), summary("two", split="test"), summary("three", rows=7)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def commit(
    store: Store, snapshot: Snapshot, shards: Iterable[ShardSummary], schema: pa.Schema
) -> int:
    """Commit an index that describes these shards, whose files are there."""
    lay_down(store, snapshot.index, *shards)
    return snapshots.commit(store, snapshot, schema)


def files(store: Store) -> set[tuple[str, int, str]]:
    table = open_table(store)
    assert table is not None
    return set(table_files(table))


def entries(*shards: ShardSummary) -> set[tuple[str, int, str]]:
    return {(s.parquet.name, s.parquet.size_bytes, s.split) for s in shards if s.parquet}


def after(store: Store, version: int, index: str = "index-1") -> Snapshot:
    return replace(NONE, version=version, index=index)


def log(store: Store, version: int) -> list[dict[str, dict[str, object]]]:
    text = store.read(f"_delta_log/{version:020d}.json").decode()
    return [json.loads(line) for line in text.splitlines()]


def test_nothing_committed_is_no_snapshot(store: Store) -> None:
    assert read_snapshot(store) is None
    assert open_table(store) is None
    with pytest.raises(DatasetError, match="holds no dataset"):
        require_snapshot(store)


def test_the_first_commit_makes_the_table(store: Store) -> None:
    assert commit(store, NONE, [ONE, TWO], SCHEMA) == 0
    assert files(store) == entries(ONE, TWO)
    assert read_snapshot(store) == replace(NONE, version=0, rows=ONE.rows + TWO.rows)


def test_a_commit_replaces_what_was_there(store: Store) -> None:
    commit(store, NONE, [ONE, TWO], SCHEMA)
    assert commit(store, after(store, 0), [TWO, THREE], SCHEMA) == 1
    assert files(store) == entries(TWO, THREE)
    assert read_snapshot(store) == replace(after(store, 1), rows=TWO.rows + THREE.rows)


def test_a_log_that_breaks_off_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    real, failures = DeltaTable.__init__, [OSError("end of file before message length reached")]

    def break_off(self: DeltaTable, *of: object, **named: object) -> None:
        if failures:
            raise failures.pop()
        real(self, *of, **named)

    monkeypatch.setattr(DeltaTable, "__init__", break_off)
    assert require_snapshot(store).version == 0
    assert not failures


def test_adds_and_removes_are_one_commit(store: Store) -> None:
    commit(store, NONE, [ONE, TWO], SCHEMA)
    commit(store, after(store, 0), [TWO, THREE], SCHEMA)
    actions = log(store, 1)
    added = [action["add"]["path"] for action in actions if "add" in action]
    removed = [action["remove"]["path"] for action in actions if "remove" in action]
    assert (added, removed) == ([_name(THREE)], [_name(ONE)])


def _name(shard: ShardSummary) -> str:
    return shard.parquet.name if shard.parquet else ""


def test_the_snapshot_before_can_still_be_read(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    commit(store, after(store, 0), [TWO], SCHEMA)
    table = open_table(store, version=0)
    assert table is not None
    assert set(table_files(table)) == entries(ONE)


def test_a_shard_without_rows_is_not_in_the_table(store: Store) -> None:
    commit(store, NONE, [ONE, summary("empty", rows=0, parquet=None)], SCHEMA)
    assert files(store) == entries(ONE)


def test_the_log_knows_the_number_of_rows(store: Store) -> None:
    commit(store, NONE, [ONE, THREE], SCHEMA)
    table = open_table(store)
    assert table is not None
    actions = pa.table(table.get_add_actions(flatten=True))
    assert sum(actions["num_records"].to_pylist()) == ONE.rows + THREE.rows


def test_other_columns_replace_the_tables(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    wider = pa.schema([*SCHEMA, pa.field("label", pa.string())])
    commit(store, after(store, 0), [TWO], wider)
    table = open_table(store)
    assert table is not None
    assert [field.name for field in table.schema().fields] == ["mel", "split", "label"]
    assert files(store) == entries(TWO)


# Two runs


def test_a_run_that_comes_second_is_refused(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    commit(store, after(store, 0, "winner"), [TWO], SCHEMA)
    with pytest.raises(DatasetError, match="another run committed version 1"):
        commit(store, after(store, 0, "loser"), [THREE], SCHEMA)
    assert files(store) == entries(TWO)
    assert require_snapshot(store).index == "winner"


def test_a_run_that_thought_it_was_the_first_is_refused(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    with pytest.raises(DatasetError, match="another run committed version 0"):
        commit(store, NONE, [TWO], SCHEMA)
    assert files(store) == entries(ONE)


def race(store: Store, base: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another run commit between our looking at the table and our writing to it."""
    seen = snapshots._check_version

    def lose(*arguments: object) -> None:
        seen(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(snapshots, "_check_version", seen)
        commit(store, replace(base, index="winner"), [TWO], SCHEMA)

    monkeypatch.setattr(snapshots, "_check_version", lose)
    with pytest.raises(DatasetError, match="another run committed"):
        commit(store, replace(base, index="loser"), [THREE], SCHEMA)
    assert require_snapshot(store).index == "winner"
    assert require_snapshot(store).version == base.version + 1


def test_of_two_first_commits_at_once_one_wins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    race(store, NONE, monkeypatch)
    assert files(store) == entries(TWO)


def test_of_two_commits_at_once_one_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    race(store, after(store, 0), monkeypatch)
    assert files(store) == entries(TWO)


def test_of_two_that_only_add_at_once_one_wins(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Delta itself lets two appends pass one another.
    commit(store, NONE, [], SCHEMA)
    race(store, after(store, 0), monkeypatch)
    assert files(store) == entries(TWO)


# Others


def tidy(store: Store) -> None:
    """Commit as another tool would, without touching the content."""
    properties = {"delta.logRetentionDuration": "interval 9 days"}
    DeltaTable(store.root).alter.set_table_properties(properties)


def test_a_table_of_somebody_elses_is_refused(store: Store) -> None:
    write_deltalake(store.root, pa.table({"x": [1]}))
    with pytest.raises(DatasetError, match="a Delta table, but melmill did not make it"):
        read_snapshot(store)


@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_foreign_commits_on_top_do_not_hide_ours(store: Store, number: int) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    for _ in range(number):
        tidy(store)
    found = require_snapshot(store)
    assert (found.index, found.catalogue, found.configuration) == (
        NONE.index,
        NONE.catalogue,
        NONE.configuration,
    )


def test_a_foreign_commit_on_top_does_not_bar_the_next_of_ours(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    tidy(store)
    found = require_snapshot(store)
    assert commit(store, replace(found, index="index-1"), [TWO], SCHEMA) == 2
    assert require_snapshot(store).index == "index-1"
    assert files(store) == entries(TWO)


def test_a_checkpoint_does_not_hide_the_snapshot(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    for version in range(3):
        commit(store, after(store, version), [ONE, TWO][version % 2 :], SCHEMA)
    DeltaTable(store.root).create_checkpoint()
    assert require_snapshot(store) == replace(after(store, 3), rows=ONE.rows + TWO.rows)


def test_a_snapshot_of_a_newer_format_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(snapshots, "FORMAT", snapshots.FORMAT + 1)
        commit(store, NONE, [ONE], SCHEMA)
        assert read_snapshot(store) == replace(NONE, version=0, rows=ONE.rows)
    with pytest.raises(DatasetError, match=r"by a newer melmill, in format 5, and .* format 4"):
        read_snapshot(store)


def test_a_refusal_by_delta_is_no_conflict(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that runs again after a conflict would do so for ever."""
    commit(store, NONE, [ONE], SCHEMA)

    def refuse(*_: object, **__: object) -> None:
        raise CommitFailedError("the table has a feature that this writer lacks")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refuse)
    with pytest.raises(DatasetError, match=r"cannot commit .* this writer lacks") as caught:
        commit(store, after(store, 0), [TWO], SCHEMA)
    assert not isinstance(caught.value, ConflictError)


def test_another_error_of_delta_is_not_taken_for_a_refusal(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, NONE, [ONE], SCHEMA)

    def fail(*_: object, **__: object) -> None:
        raise DeltaError("a fault of the program")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", fail)
    with pytest.raises(DeltaError, match="a fault of the program"):
        commit(store, after(store, 0), [TWO], SCHEMA)


def test_a_commit_is_known_as_ones_own_behind_a_later_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply was lost, and another run committed before we looked."""
    commit(store, NONE, [ONE], SCHEMA)
    real = snapshots._write

    def write_and_lose(*arguments: object) -> int:
        monkeypatch.setattr(snapshots, "_write", real)
        real(*arguments)  # type: ignore[arg-type]
        commit(store, after(store, 1, "index-2"), [THREE], SCHEMA)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshots, "_write", write_and_lose)
    assert commit(store, replace(after(store, 0), run="mine"), [TWO], SCHEMA) == 1
    assert files(store) == entries(THREE)


# History


def test_history_is_told_from_the_latest_to_the_first(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    commit(store, replace(after(store, 0), operation="refresh"), [ONE, TWO], SCHEMA)
    tidy(store)
    commit(store, after(store, 2, "index-2"), [THREE], SCHEMA)
    found = read_history(store)
    assert [(past.snapshot.version, past.snapshot.index) for past in found] == [
        (3, "index-2"),
        (1, "index-1"),
        (0, "index-0"),
    ]
    assert [past.snapshot.rows for past in found] == [7, 4, 2]
    assert all(past.kept for past in found)
    now_ms = time.time() * 1000
    times = [past.committed_ms for past in found]
    assert times == sorted(times, reverse=True)
    assert now_ms - 60_000 < times[-1] <= now_ms


def test_a_snapshot_whose_index_began_to_go_is_not_kept(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    commit(store, after(store, 0), [TWO], SCHEMA)
    first, second = (f"index/index-{i}/recordings-00000.parquet" for i in range(2))
    store.remove_files(["index/index-0/shards-00000.parquet"])
    assert [past.kept for past in read_history(store)] == [True, True]
    store.remove_files([first, second])
    # The current snapshot is kept, whatever it lacks.
    assert [past.kept for past in read_history(store)] == [True, False]


def test_replaced_indexes_are_followed_to_the_last(store: Store) -> None:
    commit(store, replace(NONE, statistics={"a": 1}), [ONE], SCHEMA)
    commit(store, replace(after(store, 0), statistics={"b": 2}), [ONE], SCHEMA)
    erased = replace(after(store, 1, "index-2"), replaced={"index-0": "old-0", "index-1": "old-1"})
    commit(store, erased, [ONE], SCHEMA)
    again = replace(after(store, 2, "index-3"), replaced={"old-0": "older-0"})
    commit(store, again, [ONE], SCHEMA)
    lay_down(store, "older-0", ONE)
    found = read_history(store)
    assert [(past.snapshot.index, past.kept) for past in found] == [
        ("index-3", True),
        ("index-2", True),
        ("old-1", False),
        ("older-0", True),
    ]
    assert [past.snapshot.statistics for past in found[2:]] == [{}, {}]
    assert index_names(found) == {
        *("index-2", "index-3", "old-0", "old-1", "older-0", "index-0", "index-1"),
    }


def test_an_index_without_a_name_is_none(store: Store) -> None:
    past = Past(replace(NONE, index="", replaced={"": "x"}), 0, False)
    assert index_names([past]) == {"x"}
    assert index_names([]) == set()


def test_the_log_remembers_every_file(store: Store) -> None:
    spaced = summary("one", parquet=replace(ONE.parquet, name="split=a b/part-1.parquet"))
    commit(store, NONE, [ONE, TWO], SCHEMA)
    commit(store, after(store, 0), [spaced], SCHEMA)
    store.put("_delta_log/notes.json", b'{"add": {"path": "mine"}}')
    store.put("_delta_log/_last_checkpoint", b'{"add": {"path": "mine"}}')
    assert sorted(logged_files(store)) == sorted([_name(ONE), _name(TWO), _name(spaced)])


def test_an_earlier_version_is_found_or_the_kept_ones_are_named(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    tidy(store)
    commit(store, after(store, 1), [TWO], SCHEMA)
    assert require_past(store, 0).snapshot.index == "index-0"
    assert require_past(store, 1).snapshot.version == 0  # by another tool
    assert require_past(store, 2).snapshot.index == "index-1"
    for version in (3, -1):
        with pytest.raises(DatasetError) as caught:
            require_past(store, version)
        message = f"version {version} is not in its history; kept: 2, 0"
        assert str(caught.value) == f"{store.root}: {message}"
    store.remove_files(["index/index-0/recordings-00000.parquet"])
    for version in (0, 1):
        with pytest.raises(DatasetError) as caught:
            require_past(store, version)
        message = f"version {version} is no longer kept; kept: 2"
        assert str(caught.value) == f"{store.root}: {message}"


def test_labels_are_the_tables_columns_beside_our_own(store: Store) -> None:
    schema = pa.schema(
        {
            "recording_id": pa.string(),
            "genre": pa.string(),
            "tags": pa.list_(pa.string()),
            "mel": pa.list_(pa.list_(pa.float32())),
            "split": pa.string(),
        }
    )
    commit(store, NONE, [ONE], schema)
    labels, per_channel = table_labels(store, 0)
    assert [(label.name, label.type) for label in labels] == [
        ("genre", "string"),
        ("tags", "list<string>"),
    ]
    assert not per_channel
    commit(store, after(store, 0), [TWO], schema.append(pa.field("channel", pa.int32())))
    assert table_labels(store, 1) == (labels, True)
    assert table_labels(store, 0) == (labels, False)


# What is not committed


def test_a_file_that_is_not_as_described_is_not_committed(store: Store) -> None:
    for size in (999, 1001, None):
        lay_down(store, NONE.index, ONE, TWO)
        if size is None:
            store.remove_files([_name(TWO)])
        else:
            store.put(_name(TWO), bytes(size))
        with pytest.raises(DatasetError) as caught:
            snapshots.commit(store, NONE, SCHEMA)
        assert str(caught.value) == (
            f"{store.root}: {_name(TWO)} has {size or 0:,} bytes, but index/index-0/ describes "
            "1,000 with 2 rows; nothing was committed"
        )
    assert open_table(store) is None


def test_a_file_that_stays_must_have_the_rows_that_the_log_says(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    more = replace(ONE, rows=3, recordings=(replace(ONE.recordings[0], rows=3),))
    with pytest.raises(DatasetError, match=r"describes 1,000 with 3 rows; nothing was committed"):
        commit(store, after(store, 0), [more], SCHEMA)
    larger = replace(ONE, parquet=replace(ONE.parquet, size_bytes=1001))
    with pytest.raises(DatasetError, match=r"has 1,000 bytes, but .* describes 1,001"):
        commit(store, after(store, 0, "index-2"), [larger], SCHEMA)


def test_many_files_are_looked_up_by_their_folders(store: Store) -> None:
    many = [summary(f"{i}", split=f"s{i % 3}", rows=i + 1) for i in range(33)]
    assert commit(store, NONE, many, SCHEMA) == 0
    assert files(store) == entries(*many)
    assert require_snapshot(store).rows == 33 * 34 // 2
    more = [summary(f"more {i}", rows=1) for i in range(33)]
    lay_down(store, "index-1", *more)
    store.put(_name(more[5]), bytes(7))
    with pytest.raises(DatasetError, match="has 7 bytes"):
        snapshots.commit(store, after(store, 0), SCHEMA)


def test_columns_change_only_with_all_rows(store: Store) -> None:
    wider = pa.schema([*SCHEMA, pa.field("label", pa.string()), pa.field("n", pa.int64())])
    commit(store, NONE, [ONE, TWO], SCHEMA)
    with pytest.raises(DatasetError) as caught:
        commit(store, after(store, 0), [ONE, THREE], wider)
    assert str(caught.value).startswith(
        f"{store.root}: the Delta table lacks the columns label, n of 1 shards that stay, or has "
        "them with other types: another tool changed the table; nothing was committed. "
    )
    assert commit(store, after(store, 0, "index-2"), [THREE], wider) == 1
    # A table may have columns that the rows lack.
    assert commit(store, after(store, 1, "index-3"), [THREE, ONE], SCHEMA) == 2
    assert files(store) == entries(THREE, ONE)
    table = open_table(store)
    assert table is not None
    assert len(table.schema().fields) == 4


def test_what_a_commit_says_is_kept_with_it(store: Store) -> None:
    said = replace(
        *(NONE,),
        statistics={"mean": [1.5]},
        operation="refresh",
        parts=4,
        listed_ms=123,
        dataset_version=7,
        taken_down="taken_down/x.jsonl",
        replaced={"a": "b"},
        run="run-attempt",
    )
    commit(store, said, [ONE], SCHEMA)
    assert require_snapshot(store) == replace(said, version=0, rows=2)
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


def test_a_removed_file_is_said_to_be_removed_now(store: Store) -> None:
    commit(store, NONE, [ONE, TWO], SCHEMA)
    commit(store, after(store, 0), [TWO], SCHEMA)
    (removed,) = [action["remove"] for action in log(store, 1) if "remove" in action]
    assert (removed["path"], removed["size"]) == (_name(ONE), 1000)
    assert removed["partitionValues"] == {"split": "train"}
    assert removed["dataChange"] is True
    assert abs(time.time() * 1000 - float(str(removed["deletionTimestamp"]))) < 60_000


def test_a_log_that_cannot_be_read_is_the_datasets_fault(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    store.put(f"_delta_log/{0:020d}.json", b"{not json\n{")
    with pytest.raises(DatasetError) as caught:
        open_table(store)
    first, _, reason = str(caught.value).partition(": the Delta log cannot be read: ")
    assert first == store.root
    assert len(reason) > 10
    assert "\n" not in reason


def test_what_may_be_null_is_no_other_column(store: Store) -> None:
    lists = pa.schema({"tags": pa.list_(pa.string()), "split": pa.string()})
    commit(store, NONE, [ONE], lists)
    table = open_table(store)
    assert table is not None
    strict = pa.field("element", pa.string(), nullable=False)
    for columns, same in [
        (pa.schema({"tags": pa.list_(strict), "split": pa.string()}), True),
        (pa.schema({"tags": pa.list_(pa.int32()), "split": pa.string()}), False),
        (pa.schema({"split": pa.string()}), False),
    ]:
        assert has_columns(table, Schema.from_arrow(columns)) is same


def test_an_empty_commit_on_top_is_damage(store: Store) -> None:
    commit(store, NONE, [ONE], SCHEMA)
    tidy(store)
    store.put(f"_delta_log/{1:020d}.json", b"")
    with pytest.raises(DatasetError, match=r"the Delta log is damaged: its commit 1 is empty"):
        read_snapshot(store)


def test_a_list_in_an_older_commit_is_kept_as_text(store: Store) -> None:
    """Up to format 3 the commit itself held what was taken down."""
    old = {"index": "x", "configuration": {}, "catalogue": "/songs", "features": "{}", "format": 3}
    found = snapshots._parse(store, old | {"taken_down": [["/a.wav"]]}, 5)
    assert (found.version, found.taken_down) == (5, '[["/a.wav"]]')
    assert snapshots._parse(store, old | {"taken_down": []}, 5).taken_down == ""
    assert snapshots._parse(store, old, 5) == Snapshot(5, "x", {}, "/songs", "{}")
    named = old | {"taken_down": "taken_down/x.jsonl"}
    assert snapshots._parse(store, named, 5).taken_down == "taken_down/x.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n  ↳ the reason", "the reason"),
        ("\n alone \n", "alone"),
        ("x <Error><Code>Denied</Code>\n<Message>No\nmore</Message> y", "Denied: No"),
        ("<Code>Denied</Code><Message>None</Message></Error>\nlast", "Denied: None"),
    ],
)
def test_of_an_error_with_many_layers_the_innermost_is_told(text: str, message: str) -> None:
    assert snapshots._innermost_message(OSError(text)) == message


def test_a_store_that_breaks_off_is_told_as_such(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, NONE, [ONE], SCHEMA)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("generic\n  ↳ no space")

    with monkeypatch.context() as broken:
        broken.setattr(DeltaTable, "create_write_transaction", refuse)
        with pytest.raises(DatasetError) as caught:
            commit(store, after(store, 0), [TWO], SCHEMA)
    assert str(caught.value) == (
        f"cannot commit to {store.root}: no space; finished shards stay there: run the same "
        "command again to continue"
    )
    monkeypatch.setattr(snapshots, "insist", refuse)
    with pytest.raises(DatasetError) as caught:
        open_table(store)
    assert str(caught.value) == f"{store.root}: the Delta log cannot be read: no space"

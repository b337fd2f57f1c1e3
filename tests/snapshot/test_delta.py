"""A snapshot is one commit, one of two runs at once wins, and foreign tables are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.snapshot import committing
from melmill.transforms.snapshot.delta import (
    Snapshot,
    open_table,
    read_snapshot,
    require_snapshot,
    table_files,
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


def test_a_commit_replaces_what_was_there(store: Store) -> None:
    commit(store, UNCOMMITTED, [SHARD_ONE, SHARD_TWO], SCHEMA)
    assert commit(store, after(store, 0), [SHARD_TWO, SHARD_THREE], SCHEMA) == 1
    assert files(store) == entries(SHARD_TWO, SHARD_THREE)
    assert read_snapshot(store) == replace(after(store, 1), rows=SHARD_TWO.rows + SHARD_THREE.rows)


def test_a_log_that_breaks_off_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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
        patch.setattr(committing, "FORMAT", 5)
        patch.setattr("melmill.transforms.snapshot.delta.FORMAT", 5)
        commit(store, UNCOMMITTED, [SHARD_ONE], SCHEMA)
        assert read_snapshot(store) == replace(UNCOMMITTED, version=0, rows=SHARD_ONE.rows)
    with pytest.raises(DatasetError, match=r"by a newer melmill, in format 5, and .* format 4"):
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

"""Commits a snapshot: one atomic change of the dataset's Delta table.

Workers write shards, which readers do not see yet. The launcher then makes one commit that adds
the new shards and removes the shards that are no longer needed. A reader of the table sees either
the old snapshot or the new snapshot.

A commit contains exactly what an index describes. It is refused unless the index is complete, the
files exist with the sizes in the index, and the table then has exactly the index's rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.rows.summaries import FileEntry, ShardSummary
from melmill.transforms.snapshot.delta import (
    FORMAT,
    KEY,
    Snapshot,
    column_types,
    innermost_message,
    open_table,
    read_history,
    table_files,
    table_options,
    table_uri,
)
from melmill.transforms.snapshot.totals import ordered_shards, require_whole
from melmill.transforms.store.folders import Store

_APPLICATION = "melmill"

#: Maximum number of files whose sizes are requested one by one.
_FEW_FILES = 32

#: Modification time of shards in the table: always the same, so that equal shards give equal
#: actions.
_NO_TIME = 0


def commit(store: Store, snapshot: Snapshot, schema: Any) -> int:
    """Commit the shards of an index as the dataset's content; return the new version.

    Parameters
    ----------
    store
        Store of the dataset.
    snapshot
        Metadata of the commit. Its ``version`` is the version before the commit, −1 for none.
    schema
        ``pyarrow.Schema`` of the rows and of the partition column.

    Raises
    ------
    DatasetError
        If the index or a file is incomplete, the table would not hold exactly the index's rows,
        or the store refused the commit.
    ConflictError
        If another run has committed since ``snapshot.version``.
    """
    rows = require_whole(store, snapshot.index)
    snapshot = replace(snapshot, rows=rows)
    table = open_table(store)
    _check_version(store, table, snapshot.version)
    actions = _actions(store, table, snapshot)
    try:
        return _write(store, table, actions, snapshot, schema)
    except DeltaError as error:
        # If another run has just made the table, the error has no class of its own.
        if isinstance(error, CommitFailedError) or (table is None and open_table(store)):
            return _find_own(store, snapshot, error)
        raise
    except OSError as error:
        raise DatasetError(
            f"cannot commit to {store.root}: {innermost_message(error)}; finished shards stay "
            "there: run the same command again to continue"
        ) from error


def _find_own(store: Store, snapshot: Snapshot, error: DeltaError) -> int:
    """Return the version that this run committed, if only the reply was lost; else raise."""
    table = open_table(store)
    if table is None or table.version() == snapshot.version:
        reason = str(error).partition("\n")[0]
        raise DatasetError(f"cannot commit to {store.root}: {reason}") from error
    for past in read_history(store):
        committed = past.snapshot
        if snapshot.run and (committed.run, committed.index) == (snapshot.run, snapshot.index):
            return committed.version
    raise ConflictError(f"another run committed to {store.root} meanwhile: {error}") from error


@dataclass(slots=True)
class _Actions:
    """The changes that a commit makes to the table."""

    adds: list[AddAction] = field(default_factory=list)
    removes: list[RemoveAction] = field(default_factory=list)
    kept: list[AddAction] = field(default_factory=list)


def _actions(store: Store, table: DeltaTable | None, snapshot: Snapshot) -> _Actions:
    """Return the changes from the table to an index, after a check of the index's files."""
    present = {name: (size, split) for name, size, split in table_files(table)} if table else {}
    logged = {} if table is None else _rows_by_file(table)
    actions = _Actions()
    indexed: set[str] = set()
    rows = 0
    files = list(_parquet_files(store, snapshot.index))
    sizes = _sizes(store, [file.name for _, file in files if file.name not in present])
    for shard, file in files:
        indexed.add(file.name)
        rows += shard.rows
        size = present[file.name][0] if file.name in present else sizes.get(file.name)
        if size != file.size_bytes or logged.get(file.name, shard.rows) != shard.rows:
            raise DatasetError(
                f"{store.root}: {file.name} has {size or 0:,} bytes, but index/{snapshot.index}/ "
                f"describes {file.size_bytes:,} with {shard.rows:,} rows; nothing was committed"
            )
        group = actions.kept if file.name in present else actions.adds
        group.append(_add(shard, file))
    if rows != snapshot.rows:
        raise DatasetError(
            f"{store.root}: the commit would hold {rows:,} rows, but its index describes "
            f"{snapshot.rows:,}; nothing was committed"
        )
    actions.removes += [
        _remove(name, size_bytes, split)
        for name, (size_bytes, split) in present.items()
        if name not in indexed
    ]
    return actions


def _parquet_files(store: Store, index: str) -> Iterator[tuple[ShardSummary, FileEntry]]:
    for shard in ordered_shards(store, index):
        if shard.parquet is not None:
            yield shard, shard.parquet


def _sizes(store: Store, names: Sequence[str]) -> dict[str, int | None]:
    """Return the sizes of files; if there are many files, their folders are listed."""
    if len(names) <= _FEW_FILES:
        return {name: store.size(name) for name in names}
    folders = sorted({name.partition("/")[0] for name in names})
    requested = set(names)
    listed = (file for folder in folders for file in store.files(folder))
    return {file.name: file.size_bytes for file in listed if file.name in requested}


def _rows_by_file(table: DeltaTable) -> dict[str, int]:
    actions = table.get_add_actions(flatten=True)
    if "num_records" not in actions.schema.names:
        return {}
    names, rows = (actions.column(name).to_pylist() for name in ("path", "num_records"))
    return {name: number for name, number in zip(names, rows, strict=True) if number is not None}


def _check_version(store: Store, table: DeltaTable | None, expected: int) -> None:
    version = -1 if table is None else table.version()
    if version != expected:
        raise ConflictError(
            f"another run committed version {version} to {store.root} while this run was "
            f"working from version {expected}; nothing of this run was committed"
        )


def _write(
    store: Store,
    table: DeltaTable | None,
    actions: _Actions,
    snapshot: Snapshot,
    schema: Any,
) -> int:
    properties = _properties(snapshot)
    columns = Schema.from_arrow(schema)
    if table is None:
        create_table_with_add_actions(
            table_uri(store),
            columns,
            actions.adds,
            mode="error",
            partition_by=["split"],
            # Snapshots are described by commits, which Delta would otherwise delete after a month.
            configuration={"delta.enableExpiredLogCleanup": "false"},
            storage_options=table_options(store),
            commit_properties=properties,
        )
        return 0
    mode, columns = _mode(store, table, columns, actions)
    # An overwrite removes all present files without remove actions.
    removes = actions.removes if mode == "append" else []
    table.create_write_transaction(
        [*actions.adds, *removes],
        mode=mode,
        schema=columns,
        partition_by=["split"],
        commit_properties=properties,
    )
    table.update_incremental()
    return table.version()


def _mode(
    store: Store, table: DeltaTable, columns: Schema, actions: _Actions
) -> tuple[Literal["append", "overwrite"], Schema]:
    """Return the write mode and the columns of a commit; only an overwrite changes columns.

    One commit cannot remove and add the same file, so the table keeps its columns while files
    stay. The table may have columns that the rows lack.
    """
    before, now = column_types(table.schema()), column_types(columns)
    if before == now or (actions.kept and now.items() <= before.items()):
        return "append", table.schema()
    if actions.kept:
        changed = sorted(name for name in now if before.get(name) != now[name])
        raise DatasetError(
            f"{store.root}: the Delta table lacks the columns {', '.join(changed)} of "
            f"{len(actions.kept):,} shards that stay, or has them with other types: another tool "
            "changed the table; nothing was committed. Go back to an earlier version with "
            "melmill rollback"
        )
    return "overwrite", columns


def _properties(snapshot: Snapshot) -> CommitProperties:
    metadata = {"format": FORMAT, **asdict(snapshot)}
    del metadata["version"]
    return CommitProperties(
        # Not sorted: names of shards depend on the order of the splits in the recipe.
        custom_metadata={KEY: json.dumps(metadata)},
        # Do not retry after another run's commit. The transaction makes two concurrent runs
        # conflict; without it, Delta would accept both appends.
        max_commit_retries=0,
        app_transactions=[Transaction(_APPLICATION, snapshot.version + 1)],
    )


def _add(shard: ShardSummary, file: FileEntry) -> AddAction:
    stats = json.dumps({"numRecords": shard.rows})
    split = {"split": shard.split}
    return AddAction(file.name, file.size_bytes, split, _NO_TIME, data_change=True, stats=stats)


def _remove(name: str, size: int, split: str) -> RemoveAction:
    # The grace period of a removed shard starts at this time.
    now = time.time_ns() // 1_000_000
    return RemoveAction(name, True, now, size=size, partition_values={"split": split})

"""A snapshot: one version of the dataset's Delta table, committed atomically.

Workers write shards, which readers do not see yet. The launcher then makes one commit that adds
the new shards and removes the shards that are no longer needed. A reader of the table sees either
the old snapshot or the new snapshot.

A commit contains exactly what an index describes. It is refused unless the index is complete, the
files exist with the sizes in the index, and the table then has exactly the index's rows.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from melmill.transforms.core.errors import ConflictError, DatasetError
from melmill.transforms.rows.columns import LabelColumn, is_label, type_name
from melmill.transforms.rows.summaries import FileEntry, ShardSummary
from melmill.transforms.snapshot.totals import ordered_shards, require_whole
from melmill.transforms.store.endpoints import delta_options
from melmill.transforms.store.folders import Store
from melmill.transforms.store.retries import insist

_KEY = "melmill"
_APPLICATION = "melmill"

#: Version of the format of a commit's metadata and of its index. It is raised when older readers
#: would misread the new format. Format 1 lacks the values that a refresh needs; format 2 lacks
#: rows and run; up to format 3, the commit itself holds the list of recordings that were taken
#: down. All formats can be read.
FORMAT = 4

#: File that each index has, and that melmill removes first.
_FIRST_PART = "/recordings-00000.parquet"

#: Maximum number of files whose sizes are requested one by one.
_FEW_FILES = 32

#: Number of commits that are read first; the latest is nearly always the current snapshot.
_FEW_COMMITS = 4

#: Modification time of shards in the table: always the same, so that equal shards give equal
#: actions.
_NO_TIME = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The metadata that a commit holds about its snapshot.

    Attributes
    ----------
    version
        Version of the Delta table.
    index
        Name of the snapshot's index in ``index/``.
    configuration
        Configuration with which the snapshot was made.
    catalogue
        URI of the catalogue.
    features
        Canonical JSON of the feature configuration.
    statistics
        Statistics of mel bands and rows; see
        :func:`~melmill.transforms.snapshot.card.brief_statistics`.
    operation
        Command that committed the snapshot.
    parts
        Number of parts of the index; 0 if it was not recorded.
    listed_ms
        Time when the listing of the catalogue began, in milliseconds since 1970.
    dataset_version
        Number of the schema; it grows whenever the columns or the shape of ``mel`` change.
    taken_down
        File that lists the recordings which were erased and stay out of the dataset, even if the
        catalogue lists them (see :mod:`~melmill.transforms.catalogue.taken_down`); ``""`` if
        there are none.
    replaced
        New index for each index of an earlier snapshot that a takedown replaced.
    rows
        Number of rows; −1 if it was not recorded.
    run
        Run and attempt that committed the snapshot; ``""`` if not recorded.
    """

    version: int
    index: str
    configuration: dict[str, Any]
    catalogue: str
    features: str
    statistics: dict[str, Any] = field(default_factory=dict)
    operation: str = "extract"
    parts: int = 0
    listed_ms: int = 0
    dataset_version: int = 1
    taken_down: str = ""
    replaced: dict[str, str] = field(default_factory=dict)
    rows: int = -1
    run: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """A snapshot of a dataset's history.

    Attributes
    ----------
    snapshot
        Snapshot as it was committed, except for recordings that were erased since. ``version``
        is the version of its commit; ``index`` is the index that describes it now.
    committed_ms
        Time of the commit, in milliseconds since 1970.
    kept
        Whether the snapshot can still be read: ``gc`` removes old snapshots.
    """

    snapshot: Snapshot
    committed_ms: int
    kept: bool


def open_table(store: Store, version: int | None = None) -> DeltaTable | None:
    """Return the dataset's Delta table; ``None`` if there is no table.

    Raises
    ------
    DatasetError
        If the table's log is damaged.
    """
    try:
        uri, options = _table_uri(store), _options(store)
        # Delta's own client does not retry after a response that breaks off.
        return insist(lambda: DeltaTable(uri, version=version, storage_options=options))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        reason = str(error).partition("\n")[0]
        raise DatasetError(f"{store.root}: the Delta log cannot be read: {reason}") from error
    except OSError as error:
        reason = _innermost_message(error)
        raise DatasetError(f"{store.root}: the Delta log cannot be read: {reason}") from error


def _table_uri(store: Store) -> str:
    return store.filesystem()[1] if store.is_local else store.root


def _options(store: Store) -> dict[str, str] | None:
    return delta_options(store.filesystem()[0]) or None


def read_snapshot(store: Store) -> Snapshot | None:
    """Return the current snapshot; ``None`` if nothing was committed.

    Raises
    ------
    DatasetError
        If the Delta table was made by another tool or by a newer melmill.
    """
    table = open_table(store)
    if table is None:
        return None
    # Delta's library reads an empty commit as a commit that changed nothing.
    if store.size(f"_delta_log/{table.version():020d}.json") == 0:
        raise DatasetError(
            f"{store.root}: the Delta log is damaged: its commit {table.version()} is empty"
        )
    for commit in _commits(table):
        if (text := commit.get(_KEY)) is not None:
            # The table's version, not the commit's: another tool may have committed since.
            return _parse(store, json.loads(text), table.version())
    raise DatasetError(
        f"{store.root} is a Delta table, but melmill did not make it; choose another folder"
    )


def _commits(table: DeltaTable) -> Iterator[dict[str, Any]]:
    """Yield the metadata of commits, the latest first; at first only a few commits are read."""
    latest = insist(lambda: table.history(_FEW_COMMITS))
    yield from latest
    if len(latest) == _FEW_COMMITS:
        yield from insist(table.history)[_FEW_COMMITS:]


def _parse(store: Store, metadata: dict[str, Any], version: int) -> Snapshot:
    if (form := metadata.pop("format", FORMAT)) > FORMAT:
        raise DatasetError(
            f"{store.root}: version {version} was committed by a newer melmill, in format {form}, "
            f"and this melmill reads up to format {FORMAT}; install the newer melmill"
        )
    if not isinstance(taken_down := metadata.pop("taken_down", ""), str):
        taken_down = json.dumps(taken_down) if taken_down else ""
    return Snapshot(version=version, taken_down=taken_down, **metadata)


def read_history(store: Store) -> list[Past]:
    """Return all snapshots that were ever committed, the latest first.

    Raises
    ------
    DatasetError
        If there is no snapshot, or the log cannot be read.
    """
    require_snapshot(store)
    # gc removes this file of an index first: an index without it is no longer complete.
    indexes = {name.split("/")[1] for name in store.names("index") if name.endswith(_FIRST_PART)}
    table = open_table(store)
    replaced: dict[str, str] = {}
    history: list[Past] = []
    for entry in insist(table.history) if table else ():
        if (text := entry.get(_KEY)) is None:
            continue
        snapshot = _parse(store, json.loads(text), entry["version"])
        if not history:
            # The current snapshot is always kept: if files of its index are missing, the
            # dataset is damaged.
            indexes.add(snapshot.index)
        history.append(_past(snapshot, entry["timestamp"], replaced, indexes))
        for before, after in snapshot.replaced.items():
            replaced.setdefault(before, replaced.get(after, after))
    return history


def _past(
    snapshot: Snapshot,
    committed_ms: int,
    replaced: Mapping[str, str],
    indexes: Collection[str],
) -> Past:
    if (index := replaced.get(snapshot.index)) is not None:
        # The commit's statistics are no longer true, because rows were erased.
        snapshot = replace(snapshot, index=index, statistics={})
    return Past(snapshot, committed_ms, snapshot.index in indexes)


def index_names(history: Iterable[Past]) -> set[str]:
    """Return the names of all indexes that commits ever named, also of replaced indexes."""
    names = {past.snapshot.index for past in history}
    for past in history:
        names |= {*past.snapshot.replaced, *past.snapshot.replaced.values()}
    return names - {""}


def logged_files(store: Store) -> Iterator[str]:
    """Yield the Parquet files of all versions of the table, also of removed files."""
    for name in store.names("_delta_log"):
        if re.fullmatch(r"_delta_log/[0-9]{20}\.json", name):
            for line in store.read(name).splitlines():
                if line.startswith(b'{"add"'):
                    yield unquote(json.loads(line)["add"]["path"])


def require_past(store: Store, version: int) -> Past:
    """Return a kept snapshot by its version.

    Raises
    ------
    DatasetError
        If there is no such version, or it is no longer kept. The message names kept versions.
    """
    history = read_history(store)
    kept = [past.snapshot.version for past in history if past.kept]
    # Between two snapshots, another tool may have made a commit that changed no row.
    past = next((past for past in history if past.snapshot.version <= version), None)
    latest = open_table(store)
    if past is None or not past.kept or latest is None or version > latest.version():
        kept_text = ", ".join(map(str, kept[:20])) + (", …" if len(kept) > 20 else "")
        problem = "is no longer kept" if past and not past.kept else "is not in its history"
        raise DatasetError(f"{store.root}: version {version} {problem}; kept: {kept_text}")
    return past


def require_snapshot(store: Store) -> Snapshot:
    """Return the current snapshot; raise ``DatasetError`` if there is none."""
    # List the folder first: if the store refuses, fsspec's message is clearer than Delta's.
    snapshot = read_snapshot(store) if "_delta_log" in store.top_names() else None
    if snapshot is None:
        raise DatasetError(f"{store.root} holds no dataset: nothing was committed there")
    return snapshot


def table_files(table: DeltaTable) -> Iterator[tuple[str, int, str]]:
    """Yield the name, size and split of every shard in a version of the table."""
    actions = table.get_add_actions(flatten=True)
    names = actions.column("path").to_pylist()
    sizes = actions.column("size_bytes").to_pylist()
    splits = actions.column("partition.split").to_pylist()
    yield from zip(names, sizes, splits, strict=True)


def table_labels(store: Store, version: int) -> tuple[tuple[LabelColumn, ...], bool]:
    """Return the label columns of a table's version, and whether each channel has its own rows.

    A snapshot without rows has no other record of its columns.
    """
    table = open_table(store, version)
    if table is None:
        raise DatasetError(f"{store.root}: the Delta log no longer exists")
    columns = pa.schema(table.schema().to_arrow())
    labels = (LabelColumn(f.name, type_name(f.type)) for f in columns if is_label(f.name))
    return tuple(labels), "channel" in columns.names


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
            f"cannot commit to {store.root}: {_innermost_message(error)}; finished shards stay "
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


def has_columns(table: DeltaTable, columns: Schema) -> bool:
    """Return whether a table has exactly these columns, by name and type.

    Comments and metadata that other tools add are ignored: they change no row.
    """
    return _types(table.schema()) == _types(columns)


def _types(schema: Schema) -> dict[str, str]:
    # Nullability is ignored: another tool may change it.
    return {
        field.name: re.sub(r'"containsNull":(true|false)', "", field.type.to_json())
        for field in schema.fields
    }


def _innermost_message(error: OSError) -> str:
    """Return the innermost message: delta-rs's messages are trees, and a store's are XML."""
    text = str(error)
    if xml := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)(\n|</Message>)", text, re.DOTALL):
        return f"{xml[1]}: {xml[2]}"
    return text.strip().splitlines()[-1].lstrip("\x1b[0123456789m ↳")


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
            _table_uri(store),
            columns,
            actions.adds,
            mode="error",
            partition_by=["split"],
            # Snapshots are described by commits, which Delta would otherwise delete after a month.
            configuration={"delta.enableExpiredLogCleanup": "false"},
            storage_options=_options(store),
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
    before, now = _types(table.schema()), _types(columns)
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
        custom_metadata={_KEY: json.dumps(metadata, sort_keys=True)},
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

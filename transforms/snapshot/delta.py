"""A snapshot: one version of the dataset's Delta table, committed at once.

Workers write shards, which nobody sees; the launcher then makes one commit that adds the
new ones and removes those that no longer belong. A reader of the table sees the snapshot
before it or the one after it.

A commit describes what an index says, and nothing else: it is refused unless the index is whole,
the files are there with the sizes that the index gives, and the table then has exactly the
index's rows.
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

#: What a commit's metadata and its index look like; raised where older readers would misread it.
#: The first lacked what a refresh goes by, the second rows and run; up to the third, commits held
#: the list of what was taken down themselves. All can be read.
FORMAT = 4

#: Each index has it, and melmill removes it first.
_FIRST_PART = "/recordings-00000.parquet"

#: Files that a store is asked about one by one.
_FEW_FILES = 32

#: Commits that are read to find the current snapshot, which is nearly always the latest.
_FEW_COMMITS = 4

#: Shards carry no time of their making: the same shard is the same action.
_NO_TIME = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a commit says of itself.

    Attributes
    ----------
    version
        Version of the Delta table.
    index
        Which index in ``index/`` belongs to it.
    configuration
        The recipe that it was made with.
    catalogue
        Where its recordings come from.
    features
        The feature configuration's canonical JSON.
    statistics
        Of its mel bands and rows; see :func:`~melmill.transforms.snapshot.card.brief_statistics`.
    operation
        The command that committed it.
    parts
        Into how many parts the index's recordings are divided; 0 where that was not recorded.
    listed_ms
        When the listing of the catalogue began that it rests on; milliseconds since 1970.
    dataset_version
        Counts the schemas: raised whenever the columns or the shape of ``mel`` change.
    taken_down
        File that lists the recordings which were erased, and stay away whatever the catalogue
        says (see :mod:`~melmill.transforms.catalogue.taken_down`); ``""`` where there are none.
    replaced
        Of a takedown: the index that each earlier snapshot's became.
    rows
        Rows that it holds; −1 where that was not recorded.
    run
        Which attempt of which run committed it; ``""`` where that was not recorded.
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
        As it was committed, but for what was erased since: its ``version`` is its own commit's,
        its ``index`` the one that describes it now.
    committed_ms
        When it was committed; milliseconds since 1970.
    kept
        Whether it is still there: ``gc`` removes old ones.
    """

    snapshot: Snapshot
    committed_ms: int
    kept: bool


def open_table(store: Store, version: int | None = None) -> DeltaTable | None:
    """Open the dataset's Delta table; ``None`` where there is none.

    Raises
    ------
    DatasetError
        Its log is damaged.
    """
    try:
        place, options = _table_uri(store), _options(store)
        # Of an answer that breaks off, Delta's own client does not ask again.
        return insist(lambda: DeltaTable(place, version=version, storage_options=options))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        said = str(error).partition("\n")[0]
        raise DatasetError(f"{store.root}: the Delta log cannot be read: {said}") from error
    except OSError as error:
        said = _last_leaf(error)
        raise DatasetError(f"{store.root}: the Delta log cannot be read: {said}") from error


def _table_uri(store: Store) -> str:
    return store.filesystem()[1] if store.is_local else store.root


def _options(store: Store) -> dict[str, str] | None:
    return delta_options(store.filesystem()[0]) or None


def read_snapshot(store: Store) -> Snapshot | None:
    """Read what the current snapshot says of itself; ``None`` where nothing was committed.

    Raises
    ------
    DatasetError
        There is a Delta table, but none of ours, or one that a newer melmill made.
    """
    table = open_table(store)
    if table is None:
        return None
    # To Delta's library such a commit is one that changed nothing.
    if store.size(f"_delta_log/{table.version():020d}.json") == 0:
        raise DatasetError(
            f"{store.root}: the Delta log is damaged: its commit {table.version()} is empty"
        )
    for commit in _commits(table):
        if (text := commit.get(_KEY)) is not None:
            # The table's version, not the commit's: another tool may have tidied up since.
            return _parse(store, json.loads(text), table.version())
    raise DatasetError(f"{store.root} is a Delta table, but not one that melmill made")


def _commits(table: DeltaTable) -> Iterator[dict[str, Any]]:
    """Yield what the commits say, the latest first; only the latest few are read at first."""
    latest = insist(lambda: table.history(_FEW_COMMITS))
    yield from latest
    if len(latest) == _FEW_COMMITS:
        yield from insist(table.history)[_FEW_COMMITS:]


def _parse(store: Store, said: dict[str, Any], version: int) -> Snapshot:
    if (form := said.pop("format", FORMAT)) > FORMAT:
        raise DatasetError(
            f"{store.root}: version {version} was committed by a newer melmill, in format {form}, "
            f"and this one reads format {FORMAT}; install the newer one"
        )
    if not isinstance(listed := said.pop("taken_down", ""), str):
        listed = json.dumps(listed) if listed else ""
    return Snapshot(version=version, taken_down=listed, **said)


def read_history(store: Store) -> list[Past]:
    """Read all snapshots that were ever committed, the latest first.

    Raises
    ------
    DatasetError
        There is none, or the log cannot be read.
    """
    require_snapshot(store)
    # The first to be removed of an index: what is left without it is no longer whole.
    indexes = {name.split("/")[1] for name in store.names("index") if name.endswith(_FIRST_PART)}
    table = open_table(store)
    replaced: dict[str, str] = {}
    history: list[Past] = []
    for said in insist(table.history) if table else ():
        if (text := said.get(_KEY)) is None:
            continue
        snapshot = _parse(store, json.loads(text), said["version"])
        if not history:
            # The current snapshot is the dataset's, and what it lacks is damage.
            indexes.add(snapshot.index)
        history.append(_past(snapshot, said["timestamp"], replaced, indexes))
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
        # What the commit says of its rows is not true any more.
        snapshot = replace(snapshot, index=index, statistics={})
    return Past(snapshot, committed_ms, snapshot.index in indexes)


def index_names(history: Iterable[Past]) -> set[str]:
    """Name all indexes that commits ever named, also those that were replaced."""
    names = {past.snapshot.index for past in history}
    for past in history:
        names |= {*past.snapshot.replaced, *past.snapshot.replaced.values()}
    return names - {""}


def logged_files(store: Store) -> Iterator[str]:
    """Name the Parquet files of all versions of the table, also those long removed."""
    for name in store.names("_delta_log"):
        if re.fullmatch(r"_delta_log/[0-9]{20}\.json", name):
            for line in store.read(name).splitlines():
                if line.startswith(b'{"add"'):
                    yield unquote(json.loads(line)["add"]["path"])


def require_past(store: Store, version: int) -> Past:
    """Read one kept snapshot, or say which there are.

    Raises
    ------
    DatasetError
        There is no such version, or it is no longer kept.
    """
    history = read_history(store)
    kept = [past.snapshot.version for past in history if past.kept]
    # Between two of ours, another tool may have committed something that changed no row.
    found = next((past for past in history if past.snapshot.version <= version), None)
    latest = open_table(store)
    if found is None or not found.kept or latest is None or version > latest.version():
        some = ", ".join(map(str, kept[:20])) + (", …" if len(kept) > 20 else "")
        was = "is no longer kept" if found and not found.kept else "is not in its history"
        raise DatasetError(f"{store.root}: version {version} {was}; kept: {some}")
    return found


def require_snapshot(store: Store) -> Snapshot:
    """Read the current snapshot, or say that there is none."""
    # Asked first, since a store's refusal is clearer from fsspec's clients than from Delta's.
    snapshot = read_snapshot(store) if "_delta_log" in store.top_names() else None
    if snapshot is None:
        raise DatasetError(f"{store.root} holds no dataset: nothing was committed there")
    return snapshot


def table_files(table: DeltaTable) -> Iterator[tuple[str, int, str]]:
    """Name, size and split of every shard that a version of the table holds."""
    actions = table.get_add_actions(flatten=True)
    names = actions.column("path").to_pylist()
    sizes = actions.column("size_bytes").to_pylist()
    splits = actions.column("partition.split").to_pylist()
    yield from zip(names, sizes, splits, strict=True)


def table_labels(store: Store, version: int) -> tuple[tuple[LabelColumn, ...], bool]:
    """Read the label columns of a version of the table, and whether channels have rows each.

    It is what is known of the rows of a snapshot that has none.
    """
    table = open_table(store, version)
    if table is None:
        raise DatasetError(f"{store.root}: its Delta log has gone")
    columns = pa.schema(table.schema().to_arrow())
    labels = (LabelColumn(f.name, type_name(f.type)) for f in columns if is_label(f.name))
    return tuple(one for one in labels if one.name != "split"), "channel" in columns.names


def commit(store: Store, snapshot: Snapshot, schema: Any) -> int:
    """Make what an index describes the dataset's content, in one commit, and give its version.

    Parameters
    ----------
    store
        The dataset.
    snapshot
        What the commit says of itself; its ``version`` is the one it follows, −1 for none.
    schema
        ``pyarrow.Schema`` of the rows and of the partition column.

    Raises
    ------
    DatasetError
        The index or a file is not whole, the table would not hold the index's rows, or the
        store refused.
    ConflictError
        Another run has committed since ``snapshot.version``.
    """
    rows = require_whole(store, snapshot.index)
    snapshot = replace(snapshot, rows=rows)
    table = open_table(store)
    _check_version(store, table, snapshot.version)
    actions = _actions(store, table, snapshot)
    try:
        return _write(store, table, actions, snapshot, schema)
    except DeltaError as error:
        # That another run has just made the table is an error without a class of its own.
        if isinstance(error, CommitFailedError) or (table is None and open_table(store)):
            return _find_own(store, snapshot, error)
        raise
    except OSError as error:
        raise DatasetError(
            f"cannot commit to {store.root}: {_last_leaf(error)}; what is finished there stays, "
            "and the same command goes on from it"
        ) from error


def _find_own(store: Store, snapshot: Snapshot, error: DeltaError) -> int:
    """Give the version that this very run has committed, where only the reply was lost."""
    table = open_table(store)
    if table is None or table.version() == snapshot.version:
        said = str(error).partition("\n")[0]
        raise DatasetError(f"cannot commit to {store.root}: {said}") from error
    for past in read_history(store):
        found = past.snapshot
        if snapshot.run and (found.run, found.index) == (snapshot.run, snapshot.index):
            return found.version
    raise ConflictError(f"another run committed to {store.root} meanwhile: {error}") from error


@dataclass(slots=True)
class _Actions:
    """What a commit does to the table."""

    adds: list[AddAction] = field(default_factory=list)
    removes: list[RemoveAction] = field(default_factory=list)
    kept: list[AddAction] = field(default_factory=list)


def _actions(store: Store, table: DeltaTable | None, snapshot: Snapshot) -> _Actions:
    """Compare an index with the table, and see that its files are what it says they are."""
    present = {name: (size, split) for name, size, split in table_files(table)} if table else {}
    logged = {} if table is None else _rows_by_file(table)
    actions = _Actions()
    wanted: set[str] = set()
    rows = 0
    files = list(_parquet_files(store, snapshot.index))
    sizes = _sizes(store, [file.name for _, file in files if file.name not in present])
    for shard, file in files:
        wanted.add(file.name)
        rows += shard.rows
        found = present[file.name][0] if file.name in present else sizes.get(file.name)
        if found != file.size_bytes or logged.get(file.name, shard.rows) != shard.rows:
            raise DatasetError(
                f"{store.root}: {file.name} has {found or 0:,} bytes, and index/{snapshot.index}/ "
                f"describes {file.size_bytes:,} with {shard.rows:,} rows; nothing was committed"
            )
        group = actions.kept if file.name in present else actions.adds
        group.append(_add(shard, file))
    if rows != snapshot.rows:
        raise DatasetError(
            f"{store.root}: the commit would hold {rows:,} rows, and {snapshot.rows:,} were "
            "announced; nothing was committed"
        )
    actions.removes += [
        _remove(name, size, split) for name, (size, split) in present.items() if name not in wanted
    ]
    return actions


def _parquet_files(store: Store, index: str) -> Iterator[tuple[ShardSummary, FileEntry]]:
    for shard in ordered_shards(store, index):
        if shard.parquet is not None:
            yield shard, shard.parquet


def _sizes(store: Store, names: Sequence[str]) -> dict[str, int | None]:
    """Give the sizes of files, by a listing of their folders where they are many."""
    if len(names) <= _FEW_FILES:
        return {name: store.size(name) for name in names}
    folders = sorted({name.partition("/")[0] for name in names})
    wanted = set(names)
    listed = (file for folder in folders for file in store.files(folder))
    return {file.name: file.size_bytes for file in listed if file.name in wanted}


def _rows_by_file(table: DeltaTable) -> dict[str, int]:
    found = table.get_add_actions(flatten=True)
    if "num_records" not in found.schema.names:
        return {}
    names, rows = (found.column(name).to_pylist() for name in ("path", "num_records"))
    return {name: number for name, number in zip(names, rows, strict=True) if number is not None}


def has_columns(table: DeltaTable, columns: Schema) -> bool:
    """Tell whether a table has exactly these columns, by name and type.

    Comments and other metadata, which other tools set, change no row.
    """
    return _types(table.schema()) == _types(columns)


def _types(schema: Schema) -> dict[str, str]:
    # Whether a value may be missing is another tool's to tighten or not.
    return {
        field.name: re.sub(r'"containsNull":(true|false)', "", field.type.to_json())
        for field in schema.fields
    }


def _last_leaf(error: OSError) -> str:
    """Say what it was: delta-rs's messages are trees, and a store's own words are XML."""
    text = str(error)
    if found := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)(\n|</Message>)", text, re.DOTALL):
        return f"{found[1]}: {found[2]}"
    return text.strip().splitlines()[-1].lstrip("\x1b[0123456789m ↳")


def _check_version(store: Store, table: DeltaTable | None, expected: int) -> None:
    found = -1 if table is None else table.version()
    if found != expected:
        raise ConflictError(
            f"another run committed version {found} to {store.root} while this one was "
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
            # Commits say what a snapshot is: Delta would drop the old ones after a month.
            configuration={"delta.enableExpiredLogCleanup": "false"},
            storage_options=_options(store),
            commit_properties=properties,
        )
        return 0
    mode, columns = _mode(store, table, columns, actions)
    # Overwriting removes by itself whatever is there.
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
    """Choose how the table's columns become the commit's: only overwriting changes them.

    A file cannot be removed and added by one commit, so files that stay keep the table's
    columns: it may have more than their rows.
    """
    before, now = _types(table.schema()), _types(columns)
    if before == now or (actions.kept and now.items() <= before.items()):
        return "append", table.schema()
    if actions.kept:
        changed = sorted(name for name in now if before.get(name) != now[name])
        raise DatasetError(
            f"{store.root}: the Delta table lacks the columns {', '.join(changed)} of "
            f"{len(actions.kept):,} shards that stay, or has them with other types: another tool "
            "has changed it; nothing was committed. melmill rollback goes back to a version before"
        )
    return "overwrite", columns


def _properties(snapshot: Snapshot) -> CommitProperties:
    said = {"format": FORMAT, **asdict(snapshot)}
    del said["version"]
    return CommitProperties(
        custom_metadata={_KEY: json.dumps(said, sort_keys=True)},
        # No retry over another run's commit, and a transaction that makes two runs conflict:
        # Delta itself would let two appends pass one another.
        max_commit_retries=0,
        app_transactions=[Transaction(_APPLICATION, snapshot.version + 1)],
    )


def _add(shard: ShardSummary, file: FileEntry) -> AddAction:
    stats = json.dumps({"numRecords": shard.rows})
    split = {"split": shard.split}
    return AddAction(file.name, file.size_bytes, split, _NO_TIME, data_change=True, stats=stats)


def _remove(name: str, size: int, split: str) -> RemoveAction:
    # When a shard was removed is what its time of grace is counted from.
    now = time.time_ns() // 1_000_000
    return RemoveAction(name, True, now, size=size, partition_values={"split": split})

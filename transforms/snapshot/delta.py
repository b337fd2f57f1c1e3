"""A snapshot: one version of the dataset's Delta table, and the history of snapshots."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.rows.columns import LabelColumn, is_label, is_variant, type_name
from melmill.transforms.side_tables.side_table import SideTable
from melmill.transforms.store.endpoints import delta_options
from melmill.transforms.store.folders import Store
from melmill.transforms.store.retries import insist

#: Name of our metadata in a commit.
KEY = "melmill"

#: Version of the format of a commit's metadata and of its index. It is raised when older readers
#: would misread the new format. Format 1 lacks the values that a refresh needs; format 2 lacks
#: rows and run; up to format 3, the commit itself holds the list of recordings that were taken
#: down; format 4 lacks side tables. All formats can be read.
FORMAT = 5

#: File that each index has, and that melmill removes first.
_FIRST_PART = "/recordings-00000.parquet"

#: Number of commits that are read first; the latest is nearly always the current snapshot.
_FEW_COMMITS = 4


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
        catalogue lists them (see :mod:`~melmill.transforms.catalogue.taken_down_list`); ``""`` if
        there are none.
    replaced
        New index or side table for each one of an earlier snapshot that a takedown replaced.
    rows
        Number of rows; −1 if it was not recorded.
    run
        Run and attempt that committed the snapshot; ``""`` if not recorded.
    side_tables
        Side tables with columns that were added after the extraction.
    asked_shares
        Share of each split that the recipe asks for; empty if the catalogue gives the splits, or
        if an older melmill made the snapshot.
    """

    version: int
    index: str
    configuration: dict[str, Any] = field(repr=False)
    catalogue: str
    features: str
    statistics: dict[str, Any] = field(default_factory=dict, repr=False)
    operation: str = "extract"
    parts: int = 0
    listed_ms: int = 0
    dataset_version: int = 1
    taken_down: str = ""
    replaced: dict[str, str] = field(default_factory=dict)
    rows: int = -1
    run: str = ""
    side_tables: tuple[SideTable, ...] = ()
    asked_shares: dict[str, float] = field(default_factory=dict)

    @property
    def recipe(self) -> dict[str, Any]:
        """Configuration with all keys whose default is not what older datasets were made with."""
        return with_later_keys(self.configuration)


_LATER_CATALOGUE_KEYS = (
    *("uri_column", "start_column", "end_column", "duration_column", "separator", "root"),
    *("require_license", "publish_root"),
)


def with_later_keys(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with the keys that older recipes lack, as they were then."""
    later_split = {"keep_together": None, "min_recordings": 0, "stratify": None}
    split = {**later_split, **configuration.get("split", {})}
    later_catalogue = {**dict.fromkeys(_LATER_CATALOGUE_KEYS), "other_license": "drop"}
    later = {"quality": "off", "select": None, "dedupe": "off"}
    recipe = {**later, **configuration, "split": split}
    if "catalogue" in recipe:
        recipe["catalogue"] = {**later_catalogue, **recipe["catalogue"]}
    return recipe


def split_rule(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe that decide in which split a recording is."""
    split = recipe.get("split", {})
    return {key: value for key, value in split.items() if key != "min_recordings"}


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
        uri, options = table_uri(store), table_options(store)
        # Delta's own client does not retry after a response that breaks off.
        return insist(lambda: DeltaTable(uri, version=version, storage_options=options))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        reason = str(error).partition("\n")[0]
        raise DatasetError(f"{store.root}: the Delta log cannot be read: {reason}") from error
    except OSError as error:
        reason = innermost_message(error)
        raise DatasetError(f"{store.root}: the Delta log cannot be read: {reason}") from error


def table_uri(store: Store) -> str:
    """Return the path or URL of the table, for Delta's library."""
    return store.filesystem()[1] if store.is_local else store.root


def table_options(store: Store) -> dict[str, str] | None:
    """Return the options of the table\'s store, for Delta\'s library."""
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
        if (text := commit.get(KEY)) is not None:
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
    tables = tuple(map(SideTable.from_json, metadata.pop("side_tables", ())))
    return Snapshot(version=version, taken_down=taken_down, side_tables=tables, **metadata)


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
        if (text := entry.get(KEY)) is None:
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
    tables = tuple(
        replace(table, name=replaced.get(table.name, table.name)) for table in snapshot.side_tables
    )
    snapshot = replace(snapshot, side_tables=tables)
    return Past(snapshot, committed_ms, snapshot.index in indexes)


def index_names(history: Iterable[Past]) -> set[str]:
    """Return the names of all indexes that commits ever named, also of replaced indexes."""
    names = {past.snapshot.index for past in history}
    for past in history:
        names |= {*past.snapshot.replaced, *past.snapshot.replaced.values()}
    return names - {""}


def side_table_names(history: Iterable[Past]) -> set[str]:
    """Return the names of all side tables that commits ever named, also of replaced ones."""
    names: set[str] = set()
    for past in history:
        names |= {table.name for table in past.snapshot.side_tables}
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
        raise DatasetError(
            f"{store.root} holds no dataset: nothing was committed there; give the folder of a "
            "dataset, or make one: melmill extract CATALOGUE OUTPUT"
        )
    return snapshot


def table_files(table: DeltaTable) -> Iterator[tuple[str, int, str]]:
    """Yield the name, size and split of every shard in a version of the table."""
    actions = table.get_add_actions(flatten=True)
    names = actions.column("path").to_pylist()
    sizes = actions.column("size_bytes").to_pylist()
    splits = actions.column("partition.split").to_pylist()
    yield from zip(names, sizes, splits, strict=True)


def table_labels(
    store: Store, version: int, features: Collection[str]
) -> tuple[tuple[LabelColumn, ...], bool]:
    """Return the label columns of a table's version, and whether each channel has its own rows.

    A snapshot without rows has no other record of its columns. The names of its features, and of
    the columns that belong to them, are given.
    """
    table = open_table(store, version)
    if table is None:
        raise DatasetError(f"{store.root}: the Delta log no longer exists")
    columns = pa.schema(table.schema().to_arrow())
    labels = (
        LabelColumn(field.name, type_name(field.type))
        for field in columns
        if is_label(field.name) and field.name not in features and not is_variant(field)
    )
    return tuple(labels), "channel" in columns.names


def innermost_message(error: OSError) -> str:
    """Return the innermost message: delta-rs's messages are trees, and a store's are XML."""
    text = str(error)
    if xml := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)(\n|</Message>)", text, re.DOTALL):
        return f"{xml[1]}: {xml[2]}"
    return re.sub(r"^(\x1b\[\d*m|[ ↳])+", "", text.strip().splitlines()[-1])


def has_columns(table: DeltaTable, columns: Schema) -> bool:
    """Return whether a table has exactly these columns, by name and type.

    Comments and metadata that other tools add are ignored: they change no row.
    """
    return column_types(table.schema()) == column_types(columns)


def column_types(schema: Schema) -> dict[str, str]:
    """Return the type of each column, as JSON."""
    # Nullability is ignored: another tool may change it.
    return {
        field.name: re.sub(r'"containsNull":(true|false)', "", field.type.to_json())
        for field in schema.fields
    }

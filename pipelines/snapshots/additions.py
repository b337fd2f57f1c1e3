"""What a user wants to add to a dataset, and the checks before any row of it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.catalogue.meanings import CLIPS
from melmill.transforms.catalogue.parts import split_glob
from melmill.transforms.catalogue.table_formats import is_table
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.core.naming import join_uri, split_chain
from melmill.transforms.index.tables import RECORDINGS
from melmill.transforms.rows.columns import RESERVED_COLUMNS
from melmill.transforms.side_tables.side_table import KEY, SideTable
from melmill.transforms.side_tables.user_tables import UserTable, open_user_table
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem, reading

On = Literal["recording_id", "uri", "row"]

#: What is done with columns that were added before: refuse them, replace all their values, or
#: replace the values of the rows in the table.
Mode = Literal["add", "replace", "update"]

#: Compressed tables take up to this many times their size in memory.
_COMPRESSION = 8


@dataclass(frozen=True, slots=True)
class Addition:
    """The columns to add.

    Attributes
    ----------
    table
        Path or URL of the table: CSV, JSON lines or Parquet.
    on
        What a row of the table belongs to: the recording with its ``recording_id`` or its ``uri``,
        or a row of the dataset.
    columns
        Columns to add; empty for all.
    types
        Types of columns, which override the types in the table.
    mode
        Treatment of columns that were added before.
    ignore_unknown
        Whether rows that belong to nothing in the dataset are left out.
    storage_options
        Options of fsspec for the store of the table.
    """

    table: str
    on: On = "recording_id"
    columns: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = "add"
    ignore_unknown: bool = False
    storage_options: StorageOptions = field(default=(), repr=False)


def check_on(name: str) -> On:
    """Return what the rows of a table belong to; raise ``ConfigError`` if it is not allowed."""
    allowed = get_args(On)
    if name not in allowed:
        raise ConfigError(f"--on {name}: unknown; allowed: {', '.join(allowed)}")
    return cast(On, name)


def key_of(opened: OpenSnapshot, on: On) -> tuple[str, ...]:
    """Return the key of the side table."""
    if on != "row":
        return KEY[:1]
    if opened.schema.with_variants:
        raise ConfigError(
            f"--on row: {opened.store.root} has variants, whose rows have the same chunk_index as "
            "those of their recordings; add the column to recordings, with --on recording_id"
        )
    return KEY if opened.schema.per_channel else KEY[:2]


def open_table(addition: Addition, key: tuple[str, ...]) -> UserTable:
    """Open the user's table; see :func:`open_user_table` for the errors."""
    own_key = ("uri",) if addition.on == "uri" else key
    options = addition.storage_options
    return open_user_table(addition.table, own_key, addition.columns, addition.types, options)


def roots_of(opened: OpenSnapshot) -> tuple[str, ...]:
    """Return the folders that the relative URIs of a dataset's catalogue may start from."""
    catalogue = opened.snapshot.catalogue
    if root := opened.recipe.catalogue.root:
        return (root,)
    head, chained = split_chain(catalogue)
    parent = (head.rpartition("/")[0] or "/") + chained
    folder, pattern = split_glob(catalogue)
    if pattern:
        return (folder,)
    return (parent, join_uri(parent, CLIPS)) if is_table(catalogue) else (catalogue, parent)


def size_of(addition: Addition) -> int:
    """Return the size of the table, or an upper estimate if it is compressed."""
    filesystem, path = open_filesystem(addition.table, addition.storage_options)
    with reading(addition.table):
        size = int(filesystem.info(path)["size"])
    compressed = addition.table.lower().endswith((".gz", ".parquet"))
    return size * _COMPRESSION if compressed else size


def check_names(opened: OpenSnapshot, table: UserTable, addition: Addition) -> list[SideTable]:
    """Return the side tables that have some of the columns already.

    Raises
    ------
    DatasetError
        A column has the name of a column of the dataset, or of an added column without
        ``--replace`` or ``--update``.
    """
    schema, root = opened.schema, opened.store.root
    own = {*schema.columns(), *(column.name for column in schema.features)}
    own = {name.casefold() for name in own | RESERVED_COLUMNS | {*RECORDINGS.names}}
    added = {name: known for known in opened.snapshot.side_tables for name in known.columns}
    folded = {name.casefold(): name for name in added}
    for name in table.columns:
        if name.casefold() in own:
            raise DatasetError(
                f"{addition.table}: {root} has a column {name!r} of its own; rename the column, or "
                "choose others with --columns"
            )
        if (known := folded.get(name.casefold(), name)) != name or (
            name in added and addition.mode == "add"
        ):
            raise DatasetError(
                f"{addition.table}: {root} has an added column {known!r} already; --replace "
                "replaces its values, --update replaces those of the rows in the table"
            )
    return list({added[name].name: added[name] for name in table.columns if name in added}.values())


def table_to_update(
    previous: Sequence[SideTable], table: UserTable, key: tuple[str, ...], addition: Addition
) -> SideTable | None:
    """Return the side table whose other rows are kept; ``None`` if there is none.

    Raises
    ------
    DatasetError
        The values cannot be updated, only replaced.
    """
    if addition.mode != "update" or not previous:
        return None
    known = previous[0]
    problem = ""
    if len(previous) > 1:
        problem = f"{', '.join(table.columns)} were not added together"
    elif known.key != key:
        problem = f"its values were added by {', '.join(known.key)}"
    for name, kind in table.columns.items():
        if known.columns.get(name, kind) != kind:
            problem = f"{name!r} is {known.columns[name]} in the dataset, and {kind} in the table"
    if problem:
        raise DatasetError(
            f"--update: {addition.table}: {problem}; choose columns with --columns, set --type, or "
            "replace all values with --replace"
        )
    return known

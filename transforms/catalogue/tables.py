"""Tables as catalogues: text, JSON lines and Parquet with a column that names audio, and labels.

Some columns have a meaning (see :mod:`~melmill.transforms.catalogue.meanings`): ``uri``, ``start``
and ``end`` (seconds) and ``split`` in a plain table. Every other column is a label. A label's type
is fixed when the table is opened: Parquet declares it; for CSV and JSON lines it comes from
``label_types`` or from the first ``SAMPLE_ROWS`` rows. A later value that contradicts the type is
never converted silently: it is a fault of its row, and the message names the line. A row with a
fault is still listed (:attr:`~melmill.transforms.core.records.Recording.fault`); a problem of the
whole table raises an error.

In CSV an empty cell is null in every column; a word like ``NA`` or ``null`` is null in a
column of numbers or booleans. A column is converted to numbers only if nothing is lost:
``007``, and numbers of more than 15 digits, stay text. Dates in CSV and JSON lines stay text;
dates and timestamps in Parquet become ISO 8601 text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from melmill.transforms.catalogue.archive_rows import Archives
from melmill.transforms.catalogue.column_faults import Columns, column_faults
from melmill.transforms.catalogue.embedded_rows import embedded_blocks, embedded_column_types
from melmill.transforms.catalogue.listing import look
from melmill.transforms.catalogue.meanings import (
    ARCHIVED,
    CLIPS,
    KNOWN_URI_COLUMNS,
    NO_KEYS,
    PLAIN,
    Meanings,
    TableKeys,
    choose_meanings,
)
from melmill.transforms.catalogue.row_blocks import (
    RowRange,
    archive_blocks,
    archive_column_types,
    read_blocks,
    read_column_types,
)
from melmill.transforms.catalogue.table_formats import (
    CSV,
    EMBEDDED,
    TableFormat,
    recognise_format,
)
from melmill.transforms.catalogue.table_recordings import block_recordings
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import (
    join_uri,
    number_of,
)
from melmill.transforms.core.records import Recording
from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.store.filesystems import StorageOptions

#: Largest number of faults that a message lists.
_SHOWN_FAULTS = 10


@dataclass(frozen=True, slots=True)
class Table:
    """The description of an opened table: all that a worker needs to read it.

    Attributes
    ----------
    uri, root
        URI of the table, and the directory at which its relative URIs start.
    label_columns
        All columns without a meaning of their own, in the table's order.
    declared
        Names of the label columns with a type from the user; for them, more spellings are
        converted.
    storage_options
        Options of the store.
    form, meanings
        Format of the table, and its columns with a meaning.
    archives
        Archives whose members are the rows; ``None`` for any other table.
    """

    uri: str
    root: str
    label_columns: tuple[LabelColumn, ...] = ()
    # Sorted, because a run's name is made from it.
    declared: tuple[str, ...] = ()
    storage_options: StorageOptions = field(default=(), repr=False)
    form: TableFormat = CSV
    meanings: Meanings = PLAIN
    archives: Archives | None = None


def open_table(
    uri: str,
    root: str,
    *,
    label_types: Mapping[str, str] | None = None,
    storage_options: StorageOptions = (),
    keys: TableKeys = NO_KEYS,
    form: TableFormat | None = None,
    archives: Archives | None = None,
) -> Table:
    """Return the description of a table, from its footer or its first rows.

    Parameters
    ----------
    uri, root
        URI of the table, and the directory at which its relative URIs start.
    label_types
        Types of label columns, by name; they override the types in the table.
    storage_options
        Options of the store.
    keys
        What the recipe says about the table; its root overrides `root`.
    form
        Format of the table; ``None`` to recognise it.
    archives
        Archives, if the table is one or several.

    Raises
    ------
    CatalogueError
        If the table cannot be read, has no column that names the audio, or has a column that
        cannot be a label.
    """
    declared = label_types or {}
    wanted = (keys.uri_column,) if keys.uri_column else KNOWN_URI_COLUMNS
    form = form or recognise_format(uri, storage_options, keys.separator, wanted)
    usual = PLAIN
    if archives and form == EMBEDDED:
        audio, columns = embedded_column_types(archives, keys.uri_column)
        usual, keys = replace(ARCHIVED, uri=audio), replace(keys, uri_column=audio)
    elif archives:
        usual, columns = ARCHIVED, archive_column_types(archives)
    else:
        columns = read_column_types(uri, storage_options, form)
    names = [name for name, _ in columns]
    meanings = choose_meanings(names, keys, usual)
    opened = Columns(uri, form, names, dict(columns), declared, meanings, keys)
    if faults := column_faults(opened):
        raise CatalogueError(join_faults(uri, faults))
    labels = tuple(LabelColumn(name, kind) for name, kind in opened.label_types.items())
    in_clips = meanings.in_clips and not keys.root and _has_clips(root, storage_options)
    meanings = replace(meanings, in_clips=in_clips)
    root = keys.root or (join_uri(root, CLIPS) if in_clips else root)
    declared_names = tuple(sorted(declared))
    return Table(uri, root, labels, declared_names, storage_options, form, meanings, archives)


def _has_clips(root: str, options: StorageOptions) -> bool:
    """Return whether the audio of Common Voice is where the archive puts it."""
    return look(join_uri(root, CLIPS), options) is not None


def list_rows(
    table: Table,
    part: RowRange,
    passed_over: Counter[str] | None = None,
    deadline: float = math.inf,
) -> Iterator[Recording]:
    """Yield the recordings of a table's part, block by block; rows with a fault are included.

    Parameters
    ----------
    table, part
        Table and part of it.
    passed_over, deadline
        For archives; see :func:`~melmill.transforms.catalogue.archive_rows.archive_rows`.
    """
    names = (*table.meanings.types, *(column.name for column in table.label_columns))
    if table.archives and table.form == EMBEDDED:
        audio = table.meanings.uri
        blocks = embedded_blocks(table.archives, audio, frozenset(names), part, deadline)
    elif table.archives:
        blocks = archive_blocks(table.archives, names, part, passed_over, deadline)
    else:
        blocks = read_blocks(table.uri, table.storage_options, names, part, form=table.form)
    # A row names itself by its file, as the user knows it.
    uri = join_uri(table.root, part.archive) if part.archive else table.uri
    for block in blocks:
        yield from block_recordings(table, block, uri, part.archive or uri.rpartition("/")[2])


def duplicate_message(a: Recording, b: Recording) -> str:
    """Return the message for two rows that name the same recording."""
    segment = " (the same segment)" if a.is_segment else ""
    return (
        f"{a.origin or a.uri} and {b.origin or b.uri} both name {a.uri}{segment};"
        " remove one of them, or give each its own start and end"
    )


def join_faults(uri: str, faults: Sequence[str]) -> str:
    """Return the message for a catalogue's faults: the first faults, and the number of the rest.

    >>> join_faults("a.csv", ["a.csv has no column 'uri'"])
    "a.csv has no column 'uri'"
    """
    if len(faults) == 1:
        return faults[0]
    more = [f"and {len(faults) - _SHOWN_FAULTS:,} more"] if len(faults) > _SHOWN_FAULTS else []
    return "\n  ".join(
        [f"{uri}: {number_of(len(faults), 'fault')}", *faults[:_SHOWN_FAULTS], *more]
    )

"""Rows of Parquet files with audio in them: each row is a recording, its other columns are labels.

Each row has the version and the place of its audio; see :mod:`~melmill.transforms.store.embedded`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pyarrow as pa

from melmill.transforms.catalogue.archive_rows import ArchivedRow, Archives, archive_names
from melmill.transforms.catalogue.cells import column_type, from_arrow
from melmill.transforms.catalogue.listing import OutOfTimeError
from melmill.transforms.catalogue.row_blocks import Block, RowRange
from melmill.transforms.catalogue.table_formats import open_file
from melmill.transforms.core.errors import CatalogueError, RecordingError
from melmill.transforms.core.naming import join_uri
from melmill.transforms.rows.columns import LABEL_TYPES
from melmill.transforms.store.archives import BadArchiveError
from melmill.transforms.store.embedded import Embedded, audio_columns, read_embedded
from melmill.transforms.store.filesystems import StorageOptions, reading
from melmill.transforms.store.members import content_fingerprint
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.parquet_files import ParquetFile
from melmill.transforms.store.stored_file import buffered


def has_audio(uri: str, options: StorageOptions, uri_column: str = "") -> bool:
    """Return whether a Parquet file holds the audio of its rows.

    Parameters
    ----------
    uri, options
        URI of the file, and its storage options.
    uri_column
        Column of the recordings, if the user names it.

    Raises
    ------
    CatalogueError
        If the file cannot be read, or several columns may hold the audio.
    """
    return bool(_audio_column(uri, _schema(uri, options), uri_column))


def embedded_column_types(
    archives: Archives, uri_column: str = ""
) -> tuple[str, list[tuple[str, str]]]:
    """Return the column of the audio of the first file, and the names and types of its columns.

    Columns whose type no label has, such as images, are left out.

    Raises
    ------
    CatalogueError
        If there is no file, or it has no column of audio, or several.
    """
    listing = archives.listing
    for name in archive_names(archives):
        uri = join_uri(listing.root, name)
        schema = _schema(uri, listing.storage_options)
        if audio := _audio_column(uri, schema, uri_column):
            # A URI is made for each row of the column.
            return audio, [(audio, "string"), *_labels(schema)]
        raise CatalogueError(
            f"{uri} has no column of audio (a struct with bytes and path); its columns are"
            f" {schema.names}. A table that names files must be one file"
        )
    raise CatalogueError(f"no file matches {join_uri(listing.root, '/'.join(listing.pattern))}")


def embedded_blocks(
    archives: Archives, audio: str, names: frozenset[str], part: RowRange, deadline: float
) -> Iterator[Block]:
    """Yield the rows of a Parquet file with audio, in blocks.

    Parameters
    ----------
    archives, part
        Files, and the part that names one of them; if its first rows are enough, they have no
        fingerprints, and one of them has no fault.
    audio, names
        Column of the audio, and all columns that the file may have.
    deadline
        Time on the clock of ``time.monotonic`` after which no further row is read.

    Raises
    ------
    CatalogueError
        If the store of the file fails, or it has another column. A damaged file is a row with a
        fault, after the rows before the damage.
    OutOfTimeError
        If the deadline has passed.
    """
    uri = join_uri(archives.listing.root, part.archive)
    source = StoredObject(uri, storage_options=archives.listing.storage_options)
    try:
        source = source.in_its_version()
        from_start = not part.first_only
        with buffered(source.open_raw(float(from_start), from_start)) as file:
            for rows in read_embedded(file, source.fingerprint, audio):
                if time.monotonic() > deadline:
                    raise OutOfTimeError
                if others := dict(_labels(rows.columns.schema)).keys() - names:
                    raise CatalogueError(
                        f"{uri} has columns that the first file lacks: {sorted(others)}; drop them,"
                        " or make catalogues of files with equal columns"
                    )
                yield _block(part.archive, audio, rows, with_version=not part.first_only)
                if part.first_only and not all(member.fault for member in rows.members):
                    return
    except BadArchiveError as error:
        yield Block(["file"], {}, from_arrow, {0: str(error.strerror)}, [ArchivedRow("file", {})])
    except RecordingError as error:
        raise CatalogueError(f"{uri} cannot be read: {error.message}") from error


def _block(name: str, audio: str, rows: Embedded, *, with_version: bool) -> Block:
    columns = dict(zip(rows.columns.schema.names, rows.columns.columns, strict=True))
    columns[audio] = pa.array([f"{name}#{member.name}" for member in rows.members])
    places = [f"row {rows.first_row + i}" for i in range(len(rows.members))]
    archived = [
        ArchivedRow(
            place,
            {},
            member.place.size_bytes,
            content_fingerprint(value) if with_version and value is not None else "",
            member.place.text,
        )
        for place, member, value in zip(places, rows.members, rows.values, strict=True)
    ]
    broken = {i: member.fault for i, member in enumerate(rows.members) if member.fault}
    return Block(places, columns, from_arrow, broken, archived)


def _labels(schema: pa.Schema) -> list[tuple[str, str]]:
    types = ((field.name, column_type(field.type)) for field in schema)
    return [(name, kind) for name, kind in types if kind in LABEL_TYPES]


def _schema(uri: str, options: StorageOptions) -> pa.Schema:
    with reading(uri), open_file(uri, options) as file:
        return ParquetFile(file).schema_arrow


def _audio_column(uri: str, schema: pa.Schema, uri_column: str) -> str:
    columns = audio_columns(schema)
    if uri_column:
        return uri_column if uri_column in columns else ""
    if len(columns) > 1:
        raise CatalogueError(
            f"{uri} may have audio in the columns {', '.join(columns)}; name one of them, such as"
            f" --set catalogue.uri_column={columns[0]}"
        )
    return columns[0] if columns else ""

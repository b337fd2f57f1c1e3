"""Audio inside Parquet files, in place: each row's bytes are a member of the file.

Such a file has a column of structs with ``bytes``, and ``path`` if the audio had a name, as the
library datasets of Hugging Face writes it. The URI of a row is ``FILE.parquet#PATH``, or
``FILE.parquet#row-12`` without a path. A value is read from its page alone: from its own bytes if
the column is not compressed, else from the page, which is decompressed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from melmill.transforms.store.archives import BadArchiveError, Member, Place
from melmill.transforms.store.page_headers import PageData, read_pages
from melmill.transforms.store.parquet_files import ParquetFile

#: Ending of the names of Parquet files.
PARQUET_EXTENSION = ".parquet"

#: Largest page that is read.
MOST_PAGE_BYTES = 2**29
#: Bytes of audio that are read at once, unless one value has more.
_BATCH_BYTES = 2**24
_MOST_BATCH_ROWS = 1_024
_BUFFER_BYTES = 2**20
_LENGTH_BYTES = 4

#: What to do about audio that is not found in the pages.
_REWRITE = "write the file again with pyarrow, without its option column_encoding"


@dataclass(frozen=True, slots=True)
class Embedded:
    """Rows of a Parquet file, with the audio in them.

    Attributes
    ----------
    first_row
        Number of the first row, from 1.
    members
        Audio of the rows.
    values
        Bytes of the audio; ``None`` for a row without audio.
    columns
        All columns of the rows.
    """

    first_row: int
    members: list[Member]
    values: list[memoryview | None]
    columns: pa.RecordBatch


def audio_column(schema: pa.Schema, name: str) -> str:
    """Return the column of a Parquet file that holds audio; ``""`` if there is none.

    Parameters
    ----------
    schema
        Columns of the file.
    name
        Name of the file, for the message.

    Raises
    ------
    BadArchiveError
        If several columns hold audio.

    Examples
    --------
    >>> audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    >>> audio_column(pa.schema([("audio", audio), ("text", pa.string())]), "a.parquet")
    'audio'
    """
    names = [field.name for field in schema if _holds_bytes(field.type)]
    if len(names) > 1:
        raise BadArchiveError(
            f"{name} has audio in the columns {', '.join(names)}; write a file for each of them"
        )
    return names[0] if names else ""


def _holds_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    held = kind.field("bytes").type
    return bool(pa.types.is_binary(held) or pa.types.is_large_binary(held))


def embedded_members(file: Any, version: str, name: str) -> Iterator[Member]:
    """Yield the audio in a Parquet file as members; see :func:`read_embedded`."""
    for rows in read_embedded(file, version, name):
        yield from rows.members


def read_embedded(file: Any, version: str, name: str) -> Iterator[Embedded]:
    """Yield the rows of a Parquet file with audio, a few at a time.

    Parameters
    ----------
    file
        Binary file that can seek.
    version
        Fingerprint of the file.
    name
        Name of the file, for messages.

    Raises
    ------
    BadArchiveError
        If the file is no Parquet file with audio, or is damaged.
    """
    try:
        parquet = ParquetFile(file, buffer_size=_BUFFER_BYTES)
        column = audio_column(parquet.schema_arrow, name)
        if not column:
            raise BadArchiveError("has no column of audio, which is a struct with bytes and path")
        first_row = 1
        for group in range(parquet.num_row_groups):
            values = _ChunkValues(file, parquet.metadata.row_group(group), column, version)
            for batch in parquet.iter_batches(values.batch_rows, row_groups=[group]):
                yield _embedded(first_row, batch, column, values)
                first_row += batch.num_rows
    except (pa.ArrowException, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own has no number
            raise
        reason = " ".join(str(error).split())
        raise BadArchiveError(f"is a damaged Parquet file: {reason}") from error


def _embedded(first_row: int, batch: pa.RecordBatch, column: str, values: _ChunkValues) -> Embedded:
    audio = batch.column(column)
    names = [f"row-{first_row + i}" for i in range(batch.num_rows)]
    if audio.type.get_field_index("path") >= 0:
        paths = audio.field("path").to_pylist()
        names = [path or name for path, name in zip(paths, names, strict=True)]
    stored = [
        None if value.as_py() is None else memoryview(value.as_buffer())
        for value in pa.StructArray.flatten(audio)[audio.type.get_field_index("bytes")]
    ]
    members = [values.member(name, value) for name, value in zip(names, stored, strict=True)]
    return Embedded(first_row, members, stored, batch)


class _ChunkValues:
    """The values of a column in a row group, found in its pages one after another.

    The pages are searched for the bytes that Arrow gives, so no encoding of values, levels or
    dictionaries is decoded here, and a place that is found holds the right bytes.
    """

    def __init__(self, file: Any, group: Any, column: str, version: str) -> None:
        chunks = (group.column(i) for i in range(group.num_columns))
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema == f"{column}.bytes")
        self._file, self._version, self._codec = file, version, _codec(chunk.compression)
        starts = [chunk.data_page_offset, chunk.dictionary_page_offset]
        start = min(offset for offset in starts if offset is not None)
        self._pages = read_pages(file, start, start + chunk.total_compressed_size)
        #: The pages in which the next value may be: the dictionary, if there is one, and the last.
        self._open: list[_OpenPage] = []
        self._has_dictionary = chunk.dictionary_page_offset is not None
        self._fault = f"has audio that is not stored in one piece; {_REWRITE}"
        mean = max(1, chunk.total_uncompressed_size // max(1, chunk.num_values))
        self.batch_rows = max(1, min(_MOST_BATCH_ROWS, _BATCH_BYTES // mean))

    def member(self, name: str, value: memoryview | None) -> Member:
        """Return the member that a value is; values are asked for in their order."""
        nowhere = Place("plain", 0, 0, 0, 0, self._version)
        if not name.isprintable():
            return Member(name, nowhere, "has a control character in its path")
        if value is None:
            return Member(name, nowhere, "has no bytes of audio; embed the files")
        if not value.nbytes:
            return Member(name, nowhere)
        try:
            place = self._find(value)
        except BadArchiveError as error:
            self._fault = str(error.strerror)  # no page after a damaged one is known
            return Member(name, nowhere, self._fault)
        return Member(name, place)

    def _find(self, value: memoryview) -> Place:
        for find in (_OpenPage.find_next, _OpenPage.find):
            for page in self._open:
                if (start := find(page, value)) >= 0:
                    return self._place(page.data, start, value.nbytes)
        for data in self._pages:
            page = _OpenPage(data, self._read(data))
            self._open = [*self._open[: self._has_dictionary], page]
            if (start := page.find(value)) >= 0:
                return self._place(data, start, value.nbytes)
        raise BadArchiveError(self._fault)

    def _read(self, data: PageData) -> bytes:
        return read_page(self._file, self._page(data))

    def _page(self, data: PageData) -> Place:
        """Return the place of all of a page."""
        codec = self._codec if data.is_compressed else ""
        size = data.unpacked_bytes
        kind: Any = "page" if codec else "plain"
        page = (codec, 0, size) if codec else ()
        return Place(kind, data.start, data.stored_bytes, size, 0, self._version, *page)

    def _place(self, data: PageData, start: int, size: int) -> Place:
        page = self._page(data)
        if page.kind == "plain":
            return Place("plain", data.start + start, size, size, 0, self._version)
        stored = data.start, data.stored_bytes
        return Place(
            "page", *stored, size, 0, self._version, page.codec, start, page.unpacked_bytes
        )


class _OpenPage:
    """A page's content, in which values are searched in their order."""

    def __init__(self, data: PageData, content: bytes) -> None:
        self.data, self._content, self._position = data, content, 0

    def find_next(self, value: memoryview) -> int:
        """Return the position of a value that follows the last one; -1 for any other value."""
        start = self._position + _LENGTH_BYTES  # each value is after its length
        if memoryview(self._content)[start : start + value.nbytes] != value:
            return -1
        self._position = start + value.nbytes
        return start

    def find(self, value: memoryview) -> int:
        """Return the position of a value; -1 if it is not in the page."""
        if (start := self._content.find(value)) >= 0:
            self._position = start + value.nbytes
        return start


def _codec(compression: str) -> str:
    """Return Arrow's name of a Parquet codec; ``""`` for none."""
    names = {"UNCOMPRESSED": "", "LZ4": "lz4_raw"}
    return names.get(compression, compression.lower())


def read_page(file: Any, page: Place) -> bytes:
    """Return the decompressed content of the page that a place is in.

    Raises
    ------
    BadArchiveError
        If the page is damaged or too large.
    """
    size = page.unpacked_bytes if page.kind == "page" else page.size_bytes
    if max(size, page.stored_bytes) > MOST_PAGE_BYTES:
        raise BadArchiveError(
            f"is in a page of {size:,} bytes, more than the allowed {MOST_PAGE_BYTES:,}; write the"
            " file again with fewer rows in a row group"
        )
    data = b""
    file.seek(page.start)
    while len(data) < page.stored_bytes and (more := file.read(page.stored_bytes - len(data))):
        data += more
    if page.kind == "page" and len(data) == page.stored_bytes:
        try:
            data = pa.decompress(data, size, codec=page.codec, asbytes=True)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise BadArchiveError(f"is in a page that is damaged: {error}") from error
    if len(data) != size:
        raise BadArchiveError(f"is in a page with {len(data):,} bytes of {size:,}")
    return data

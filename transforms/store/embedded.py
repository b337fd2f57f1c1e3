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

from melmill.transforms.store.archives import BadArchiveError, Member, Place, plain_name
from melmill.transforms.store.page_headers import PageData, read_pages
from melmill.transforms.store.parquet_files import ParquetFile

#: Largest page that is read.
MOST_PAGE_BYTES = 2**29
#: Bytes of audio that are read at once, unless one value has more.
_BATCH_BYTES = 2**24
_MOST_BATCH_ROWS = 1_024
_BUFFER_BYTES = 2**20
_LENGTH_BYTES = 4
#: Bytes that a batch may have if all of its values are the largest one of a dictionary.
_MOST_BATCH_BYTES = 2**27
_ARROW_ERRORS = (pa.ArrowException, EOFError, OSError)

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


def audio_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of a Parquet file that may hold audio: structs with ``bytes``.

    Examples
    --------
    >>> audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    >>> audio_columns(pa.schema([("audio", audio), ("text", pa.string())]))
    ['audio']
    """
    return [field.name for field in schema if _holds_bytes(field.type)]


def _holds_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    bytes_type = kind.field("bytes").type
    return bool(pa.types.is_binary(bytes_type) or pa.types.is_large_binary(bytes_type))


def embedded_members(file: Any, version: str) -> Iterator[Member]:
    """Yield the audio in a Parquet file as members; see :func:`read_embedded`."""
    for column in audio_columns(_open(file).schema_arrow):
        for rows in read_embedded(file, version, column):
            yield from rows.members


def read_embedded(file: Any, version: str, column: str) -> Iterator[Embedded]:
    """Yield the rows of a Parquet file with audio, a few at a time.

    Parameters
    ----------
    file
        Binary file that can seek.
    version
        Fingerprint of the file.
    column
        Column of the audio. If several columns may hold audio, the names begin with the column:
        ``audio/a.wav``.

    Raises
    ------
    BadArchiveError
        If the file is no Parquet file with such a column, or is damaged.
    """
    parquet = _open(file)
    columns = audio_columns(parquet.schema_arrow)
    if column not in columns:
        raise BadArchiveError(f"has no column {column!r} of audio: a struct with bytes and path")
    folder, first_row = f"{column}/" if len(columns) > 1 else "", 1
    try:
        for group in range(parquet.num_row_groups):
            values = _ChunkValues(file, parquet.metadata.row_group(group), column, version)
            for batch in parquet.iter_batches(values.batch_rows, row_groups=[group]):
                audio = batch.column(column)
                names = [folder + name for name in _names(audio, first_row)]
                stored = [
                    memoryview(value.as_buffer()) if value.is_valid else None
                    for value in audio.flatten()[audio.type.get_field_index("bytes")]
                ]
                members = [values.member(*pair) for pair in zip(names, stored, strict=True)]
                yield Embedded(first_row, members, stored, batch)
                first_row += batch.num_rows
    except _ARROW_ERRORS as error:
        raise _damage(error) from error


def _open(file: Any) -> ParquetFile:
    try:
        return ParquetFile(file, buffer_size=_BUFFER_BYTES)
    except _ARROW_ERRORS as error:
        raise _damage(error) from error


def _damage(error: Exception) -> Exception:
    """Return the error for a file that Arrow cannot read."""
    if isinstance(error, OSError) and error.errno is not None:  # Arrow's own has no number
        return error
    return BadArchiveError(f"is a damaged Parquet file: {' '.join(str(error).split())}")


def _names(audio: pa.StructArray, first_row: int) -> Iterator[str]:
    """Yield the name of each row's audio: its path, or its number."""
    index = audio.type.get_field_index("path")
    has_paths = index >= 0 and (
        pa.types.is_string(audio.type.field(index).type)
        or pa.types.is_large_string(audio.type.field(index).type)
    )
    paths = audio.flatten()[index] if has_paths else pa.nulls(len(audio))
    for number, path in enumerate(paths, first_row):
        data = path.as_buffer().to_pybytes() if path.is_valid else b""
        # Other bytes than UTF-8 become halves of surrogate pairs, which no name may have.
        yield plain_name(data.decode("utf-8", "surrogateescape")) or f"row-{number}"


class _ChunkValues:
    """The values of a column in a row group, found in its pages one after another.

    The pages are searched for the bytes that Arrow gives, so no encoding of values, levels or
    dictionaries is decoded here, and a place that is found holds the right bytes.
    """

    def __init__(self, file: Any, group: Any, column: str, version: str) -> None:
        chunks = (group.column(i) for i in range(group.num_columns))
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema == f"{column}.bytes")
        self._file, self._version, self._codec = file, version, _codec(chunk.compression)
        # Some writers give the place 0 for no dictionary.
        dictionary, data = chunk.dictionary_page_offset or 0, chunk.data_page_offset
        self._has_dictionary = 0 < dictionary < data
        start = dictionary if self._has_dictionary else data
        stop = start + chunk.total_compressed_size
        self._pages = read_pages(file, start, stop)
        #: The pages in which the next value may be: the dictionary, if there is one, and the last.
        self._open: list[_OpenPage] = []
        self._fault = f"has audio that is not stored in one piece; {_REWRITE}"
        mean = max(1, chunk.total_uncompressed_size // max(1, chunk.num_values))
        most = min(_MOST_BATCH_ROWS, _BATCH_BYTES // mean)
        if self._has_dictionary:  # the mean says little: a large value may be in many rows
            page = next(read_pages(file, start, stop))
            most = min(most, _MOST_BATCH_BYTES // max(1, page.unpacked_bytes))
        self.batch_rows = max(1, most)

    def member(self, name: str, value: memoryview | None) -> Member:
        """Return the member that a value is; values are asked for in their order."""
        nowhere = Place("plain", 0, 0, 0, 0, self._version)
        if not name.isprintable():
            return Member(name, nowhere, "has a path with control characters, or not in UTF-8")
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

"""Formats of tables, recognised by their first bytes, and by the name where these may be either.

A table is Parquet, JSON lines, or text with a separator (comma, tab, semicolon or bar), each text
format also compressed with gzip. JSON lines may be a manifest of lhotse. A Kaldi data folder is a
table, too: several files that are joined by their keys.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.store.archives import is_parquet
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem, reading
from melmill.transforms.store.parquet_files import ParquetFile

#: Formats of text without compression, by the endings of file names.
_BY_NAME = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}

#: File name endings of tables.
TABLE_EXTENSIONS = (*(f"{name}{gz}" for name in _BY_NAME for gz in ("", ".gz")), ".parquet")

#: Characters that may separate the cells of a row; the first fits most tables.
_SEPARATORS = (",", "\t", ";", "|")

#: Number of first bytes that are read, and the largest number if a line of JSON is longer.
_HEAD_BYTES, _LINE_BYTES = 2**20, 2**26
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"

#: Files of a Kaldi data folder with a value for each utterance, and the labels that they become.
KALDI_LABELS = {
    "text": "text",
    "utt2spk": "speaker",
    "utt2lang": "language",
    "utt2gender": "gender",
}

#: Kinds of lhotse's manifests.
Lhotse = Literal["recordings", "supervisions", "cuts"]


@dataclass(frozen=True, slots=True)
class TableFormat:
    """The format of a table.

    Attributes
    ----------
    kind
        ``csv`` for text with a separator, ``json`` for JSON lines, ``parquet``, ``kaldi``,
        ``archive`` for tar and zip files, or ``embedded`` for Parquet files with audio in them.
    separator
        Character between the cells of a row of text.
    quoted
        Whether quotes surround cells, as in CSV; if not, a quote is a character like any other.
    compressed
        Whether the file is compressed with gzip.
    lhotse
        Kind of lhotse's manifest; ``None`` for any other table.
    files
        Names of the files of a Kaldi data folder.
    """

    kind: Literal["csv", "json", "parquet", "kaldi", "archive", "embedded"]
    separator: str = ","
    quoted: bool = True
    compressed: bool = False
    lhotse: Lhotse | None = None
    files: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a Kaldi data folder."""
        return ("uri", "start", "end", "utterance", *(KALDI_LABELS[name] for name in self.labels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Files of a Kaldi data folder whose values are labels."""
        return tuple(name for name in self.files if name in KALDI_LABELS)

    @property
    def identity(self) -> str:
        """Column whose value belongs to a segment's identity; ``""`` if there is none.

        Two utterances of Kaldi may have the same times: two people speak at once.
        """
        return "utterance" if self.kind == "kaldi" and "segments" in self.files else ""

    @property
    def declares_columns(self) -> bool:
        """Whether all columns are known; else a row may have a key that the first rows lack."""
        return self.kind not in ("json", "archive")

    @property
    def is_text(self) -> bool:
        """Whether cells are text, which holds no lists and fits any meaning."""
        return self.kind in ("csv", "kaldi")


#: The format of a plain table of text, and those of archives and of Parquet files with audio.
CSV, ARCHIVE, EMBEDDED = TableFormat("csv"), TableFormat("archive"), TableFormat("embedded")


def is_table(uri: str) -> bool:
    """Return whether a file is a table, by its name.

    Examples
    --------
    >>> is_table("s3://bucket/Songs.CSV.gz"), is_table("song.wav")
    (True, False)
    """
    return uri.lower().endswith(TABLE_EXTENSIONS)


def is_csv(uri: str) -> bool:
    """Return whether a table is text with a separator, by its name; its cells hold no lists."""
    return _kind_by_name(uri) == "csv"


def is_json_lines(uri: str) -> bool:
    """Return whether a table is JSON lines, by its name; JSON lines declare no columns."""
    return _kind_by_name(uri) == "json"


def _kind_by_name(uri: str) -> str:
    name = uri.lower().removesuffix(".gz")
    return next((kind for ending, kind in _BY_NAME.items() if name.endswith(ending)), "")


def recognise_format(
    uri: str, options: StorageOptions, separator: str = "", names: Collection[str] = ("uri",)
) -> TableFormat:
    """Return the format of a table, from its first bytes and its name.

    Parameters
    ----------
    uri, options
        URI of the table, and its storage options.
    separator
        Separator that the user names; ``""`` to find it in the first row.
    names
        Columns of which a table should have one; they tell which character separates cells.

    Raises
    ------
    CatalogueError
        If the table cannot be read, or is a JSON document instead of JSON lines.
    """
    with reading(uri):
        with open_file(uri, options) as file:
            start = file.read(len(_PARQUET))
        if start == _PARQUET or is_parquet(uri):
            return TableFormat("parquet")
        compressed = start.startswith(_GZIP)
        with open_file(uri, options, compressed) as file:
            text = _head(file)
    if (record := _first_record(text)) is not None:
        return TableFormat("json", compressed=compressed, lhotse=_lhotse_kind(record))
    if is_json_lines(uri):
        _require_lines(uri, text)
        return TableFormat("json", compressed=compressed)
    return _separated(uri, text, separator, names, compressed)


def first_names(uri: str, options: StorageOptions, names: Collection[str]) -> list[str]:
    """Return the names of a table's columns, or the keys of its first row.

    Parameters
    ----------
    uri, options
        URI of the table, and its storage options.
    names
        Columns of which the table should have one; they tell which character separates cells.

    Raises
    ------
    CatalogueError
        If the table cannot be read.
    """
    form = recognise_format(uri, options, names=names)
    with reading(uri), open_file(uri, options, form.compressed) as file:
        if form.kind == "parquet":
            return list(ParquetFile(file).schema_arrow.names)
        text = _head(file)
    return list(_first_record(text) or _cells(_header(text), form.separator))


def _head(file: Any) -> str:
    """Return the first bytes of a table as text, with the whole first line if it is JSON."""
    head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
    blocks = [head.lstrip() if head.lstrip().startswith(b"{") else head]
    if blocks[0].startswith(b"{"):
        while blocks[-1] and b"\n" not in blocks[-1] and len(blocks) * _HEAD_BYTES < _LINE_BYTES:
            blocks.append(file.read(_HEAD_BYTES))
    # A wrong byte is an error later, with its place.
    return b"".join(blocks).decode("utf-8", "replace")


def open_file(uri: str, options: StorageOptions, compressed: bool = False) -> Any:
    """Open a table's bytes for reading, decompressed."""
    filesystem, path = open_filesystem(uri, options)
    return filesystem.open(path, "rb", compression="gzip" if compressed else None)


def _first_record(text: str) -> dict[str, Any] | None:
    """Return the first line as a JSON object; ``None`` if it is anything else."""
    line = text.partition("\n")[0]
    if not line.startswith("{"):
        return None
    with suppress(ValueError, RecursionError):
        return dict(json.loads(line))
    return None


def _lhotse_kind(record: dict[str, Any]) -> Lhotse | None:
    """Return the kind of lhotse's manifest that a record comes from.

    >>> _lhotse_kind({"id": "a", "sources": [], "sampling_rate": 16000})
    'recordings'
    >>> _lhotse_kind({"uri": "a.wav", "id": "a"}) is None
    True
    """
    if "uri" in record or "id" not in record:
        return None
    if isinstance(record.get("sources"), list) and "sampling_rate" in record:
        return "recordings"
    if str(record.get("type", "")).endswith("Cut") or isinstance(record.get("recording"), dict):
        return "cuts"
    return "supervisions" if {"recording_id", "start", "duration"} <= record.keys() else None


def _require_lines(uri: str, text: str) -> None:
    name = uri.lower().removesuffix(".gz")
    if name.endswith(".json") and text.strip():
        raise CatalogueError(
            f"{uri} is not JSON lines: a table has a JSON object on each line. Write the objects "
            "of a list with: jq -c '.[]' FILE > FILE.jsonl"
        )


def _separated(
    uri: str, text: str, separator: str, names: Collection[str], compressed: bool
) -> TableFormat:
    header = _header(text)
    is_tsv = ".tsv" in uri.lower()[-7:]
    separator = separator or _find_separator(header, names, "\t" if is_tsv else ",")
    # Tables with tabs write quotes as they are, unless even the names are in quotes.
    quoted = separator != "\t" or header.startswith('"')
    return TableFormat("csv", separator, quoted, compressed)


def _header(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _find_separator(header: str, names: Collection[str], usual: str) -> str:
    """Return the character that separates the names in a header.

    >>> _find_separator("uri;genre", ("uri",), ","), _find_separator("path;genre", ("uri",), ",")
    (';', ';')
    >>> _find_separator("uri,a;b", ("uri",), ","), _find_separator("uri", ("uri",), ",")
    (',', ',')
    """
    ordered = sorted(_SEPARATORS, key=lambda separator: separator != usual)
    cells = {separator: _cells(header, separator) for separator in ordered}
    for separator in ordered:
        if any(name in cells[separator] for name in names):
            return separator
    return max(ordered, key=lambda separator: len(cells[separator]))


def _cells(header: str, separator: str) -> Sequence[str]:
    with suppress(csv.Error):
        return next(csv.reader([header], delimiter=separator), [])
    return ()

"""A side table: Parquet files with a key and columns that were added after the extraction.

Its files lie in ``columns/NAME/`` and never change. A snapshot names its side tables, so an added
column belongs to the versions that were committed with it. The rows are divided into parts by a
digest of their recording, and sorted by their key within a part.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.columns import CORE_COLUMNS, LabelColumn, arrow_type
from melmill.transforms.shards.receipts import announce_files
from melmill.transforms.store.folders import Store
from melmill.transforms.store.parquet_files import ParquetFile

#: Columns that can be in a key, in this order.
KEY = ("recording_id", "chunk_index", "channel")

_PART = re.compile(r"columns/[0-9a-f]{32}/part-([0-9]{5,})-([0-9a-f]{32})\.parquet")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SideTable:
    """The description of a side table in a commit.

    Attributes
    ----------
    name
        Name of the folder in ``columns/``.
    key
        Columns that identify a row: ``recording_id``; for values of rows also ``chunk_index`` and,
        if each channel has its own rows, ``channel``.
    labels
        Added columns. The files may hold more columns, which were replaced or dropped.
    parts
        Number of files.
    chunks
        Digest of the settings that decide which chunk a row is; ``""`` for values of recordings.
    """

    name: str
    key: tuple[str, ...]
    labels: tuple[LabelColumn, ...]
    parts: int
    chunks: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SideTable:
        """Return the side table that a commit describes."""
        labels = tuple(LabelColumn(**label) for label in values["labels"])
        return cls(**{**values, "key": tuple(values["key"]), "labels": labels})

    @property
    def columns(self) -> dict[str, str]:
        """Type of each added column, by name."""
        return {label.name: label.type for label in self.labels}

    def without(self, names: Collection[str]) -> SideTable:
        """Return the side table without some added columns, which stay in its files."""
        return replace(self, labels=tuple(c for c in self.labels if c.name not in names))

    @property
    def is_by_row(self) -> bool:
        """Whether each row of the dataset has its own value."""
        return len(self.key) > 1


def chunks_digest(features: str) -> str:
    """Return the digest of the settings that decide which chunk of a recording a row is.

    `features` is the canonical JSON of a feature configuration.
    """
    settings = json.loads(features)
    body = {name: settings[name] for name in ("sample_rate_hz", "channels")}
    chunk = {name: settings["chunk"][name] for name in ("length", "hop", "tail")}
    variants = {"variants": settings["variants"]} if "variants" in settings else {}
    return digest(json.dumps({**body, **chunk, **variants}, sort_keys=True))


def kept_tables(tables: Iterable[SideTable], features: str) -> tuple[SideTable, ...]:
    """Return the side tables that belong to the rows of a feature configuration.

    Values of rows do not if the rows are other chunks of their recordings. `features` is the
    canonical JSON of the configuration.
    """
    chunks = chunks_digest(features)
    return tuple(table for table in tables if table.chunks in ("", chunks))


def stored_schema(key: Sequence[str], columns: Mapping[str, str]) -> pa.Schema:
    """Return the columns of a side table's files: the key, the URI, and the added columns."""
    names = [key[0], "uri", *key[1:]]
    own = [pa.field(name, arrow_type(CORE_COLUMNS[name])) for name in names]
    return pa.schema([*own, *(pa.field(name, arrow_type(kind)) for name, kind in columns.items())])


def write_part_files(folder: Path, tables: Iterable[pa.Table]) -> list[Path]:
    """Write the parts of a side table to a local folder, in order; return their paths."""
    paths = []
    for number, table in enumerate(tables):
        path = folder / f"part-{number:05d}"
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        paths.append(path)
    return paths


def publish_parts(
    job: ExtractJob,
    paths: Sequence[Path],
    key: tuple[str, ...],
    columns: Mapping[str, str],
    chunks: str = "",
) -> SideTable:
    """Put local files into the dataset as a side table, which no snapshot names yet.

    The name depends on the content and on the run, so no other run writes files with these names.
    """
    digests = file_digests(paths)
    name = digest(job.run_id, *digests)
    names = [_part_name(name, number, content) for number, content in enumerate(digests)]
    announce_files(job, name, names)
    for path, target in zip(paths, names, strict=True):
        with job.store.scratch() as scratch:
            shutil.copyfile(path, scratch)
            job.store.publish(scratch, target)
    labels = tuple(LabelColumn(*column) for column in columns.items())
    return SideTable(name, key, labels, len(paths), chunks)


def _part_name(name: str, number: int, content: str) -> str:
    return f"columns/{name}/part-{number:05d}-{content}.parquet"


def file_digests(paths: Iterable[Path]) -> list[str]:
    """Return the digest of each local file, which becomes a part of its name."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(_digest_of(file))
    return digests


def _digest_of(file: IO[bytes]) -> str:
    state = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK_BYTES):
        state.update(block)
    return state.hexdigest()


def content_of_part(name: str) -> str:
    """Return the digest of the content of a side table's file, from its name."""
    match = _PART.fullmatch(name)
    return match[2] if match else ""


def list_parts(store: Store, table: SideTable) -> list[str]:
    """Return the names of a side table's files, in order.

    Raises
    ------
    DatasetError
        A file is missing.
    """
    matches = (_PART.fullmatch(name) for name in store.names(f"columns/{table.name}"))
    files = {int(match[1]): match[0] for match in matches if match}
    missing = [number for number in range(table.parts) if number not in files]
    if missing:
        raise DatasetError(
            f"{store.root}: columns/{table.name}/part-{missing[0]:05d}-….parquet is missing, which "
            f"holds values of the added columns {', '.join(table.columns)}; restore the file from "
            f"a backup, or drop the columns with melmill add-columns --drop"
        )
    return [files[number] for number in range(table.parts)]


def read_file(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return columns of a side table's file, or all; the pages' checksums are verified.

    Raises
    ------
    DatasetError
        The file is missing or damaged.
    """
    with (
        store.reading_shard(name, "file") as file,
        ParquetFile(file, page_checksum_verification=True) as parquet,
    ):
        return parquet.read(None if columns is None else list(columns))


def read_parts(
    store: Store, table: SideTable, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield columns of a side table, part by part."""
    for name in list_parts(store, table):
        yield read_file(store, name, columns)


def part_faults(store: Store, table: SideTable) -> Iterator[str]:
    """Yield the faults of a side table's files: missing, or with other content than they had."""
    try:
        names = list_parts(store, table)
    except DatasetError as error:
        yield str(error)
        return
    for name in names:
        with store.open(name) as file:
            content = _digest_of(file)
        if content != content_of_part(name):
            yield f"{name}: is damaged: its content does not match its name"

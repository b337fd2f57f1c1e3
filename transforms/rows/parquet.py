"""Parquet shards, written and read by row group.

A shard's bytes depend only on its rows, its schema, its metadata and the version of pyarrow:
the file holds no time or place of writing, so a retry writes the same file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet as pq

from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.rows.flac_bytes import decode_flac
from melmill.transforms.rows.schema import Array, RowBatch, RowSchema, to_table
from melmill.transforms.rows.shard_file import ShardFile
from melmill.transforms.store.parquet_files import ParquetFile

#: Rows per row group: larger row groups scan no faster, and a random row costs more.
ROW_GROUP_ROWS = 128


def _leaf(name: str, kind: str) -> str:
    return f"{name}.list.element" if kind.startswith("list<") else name


class ParquetShard(ShardFile):
    """A writer of a shard to a local file; each batch becomes a row group.

    Parameters
    ----------
    path, schema
        See :class:`~melmill.transforms.rows.shard_file.ShardFile`.
    metadata
        Entries for the schema's metadata (configuration, versions); they are sorted by key.
    compression_level
        Compression level of zstd.
    """

    def __init__(
        self,
        path: str | Path,
        schema: RowSchema,
        metadata: Mapping[str, str] | None = None,
        *,
        compression_level: int = 3,
    ) -> None:
        """Create the file."""
        super().__init__(path, schema)
        self._writer = pq.ParquetWriter(
            self._path,
            schema.arrow(),
            compression="zstd",
            compression_level=compression_level,
            **_encodings(schema),
        )
        self._writer.add_key_value_metadata(_all_metadata(schema, metadata or {}))

    def add(self, batch: RowBatch) -> None:
        """Write the batch as a row group.

        Raises
        ------
        ValueError
            If the batch does not match the shard's schema, or is empty.
        """
        table = to_table(batch, self._schema).replace_schema_metadata(None)
        self._writer.write_table(table, row_group_size=batch.rows)
        self.rows += batch.rows

    def close(self) -> None:
        """Write the footer; without it, the file is not Parquet."""
        self._writer.close()


def _all_metadata(schema: RowSchema, metadata: Mapping[str, str]) -> dict[str, str]:
    own = _schema_metadata(schema)
    if conflicts := sorted(metadata.keys() & own.keys()):
        raise ValueError(f"metadata keys {conflicts} are the schema's own; use other keys")
    return dict(sorted((own | dict(metadata)).items()))


def _schema_metadata(schema: RowSchema) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in schema.arrow().metadata.items()}


def _encodings(schema: RowSchema) -> dict[str, Any]:
    others = [_leaf(name, kind) for name, kind in schema.columns().items()]
    others += [column.leaf for column in schema.features if column.is_number]
    arrays = [c for c in schema.features if not c.flac_rate_hz and not c.is_number]
    return {
        # A split of floats by byte stores the exponents, which repeat, next to each other.
        "use_byte_stream_split": [c.leaf for c in arrays if c.dtype == "float32"],
        # Neighbouring samples differ little.
        "column_encoding": {c.leaf: "DELTA_BINARY_PACKED" for c in arrays if c.dtype != "float32"},
        "use_dictionary": others,
        "write_statistics": others,
        "write_page_checksum": True,
        # Parquet's own types describe the columns; a copy as an Arrow schema is not needed.
        # (Without the copy pyarrow drops the metadata, so add_key_value_metadata writes it.)
        "store_schema": False,
    }


def read_schema(source: str | Path | IO[bytes]) -> tuple[RowSchema, dict[str, str]]:
    """Return the schema and the metadata with which a shard was written.

    Raises
    ------
    ValueError
        If the file is Parquet, but not a shard of melmill. If the file is not Parquet,
        pyarrow's own exceptions pass through (``pyarrow.ArrowInvalid`` is a ``ValueError``).
    """
    arrow = pq.read_schema(source)
    schema = RowSchema.from_arrow(arrow)
    metadata = {key.decode(): value.decode() for key, value in arrow.metadata.items()}
    own = _schema_metadata(schema)
    return schema, {key: value for key, value in metadata.items() if key not in own}


def count_row_groups(source: str | Path | IO[bytes]) -> int:
    """Return the number of row groups in a shard."""
    number: int = pq.read_metadata(source).num_row_groups
    return number


def read_rows(
    source: str | Path | IO[bytes],
    groups: Iterable[int] | None = None,
    *,
    columns: Collection[str] | None = None,
    verify: bool = True,
) -> Iterator[RowBatch]:
    """Yield the rows of a shard, by row group.

    Parameters
    ----------
    source
        Local path, or seekable binary file.
    groups
        Numbers of the row groups to read, from 0; ``None`` for all.
    columns
        Names of the columns and features to read; ``None`` for all.
    verify
        Whether the pages' checksums are verified.

    Yields
    ------
    RowBatch
        Rows of a row group; an array is a read-only view of pyarrow's memory. FLAC is decoded,
        and a null of a feature that is a number is NaN.

    Raises
    ------
    ValueError
        If the file is not a shard of melmill, or a feature has the wrong shape or a null.
    OSError
        If a page's checksum is wrong (with pyarrow's message), or a read failed.
    """
    with ParquetFile(source, page_checksum_verification=verify) as file:
        kinds, features, names = _selection(file, columns)
        for index in range(file.num_row_groups) if groups is None else groups:
            table = file.read_row_group(index, names)
            yield _to_batch(table, kinds, features, f"row group {index}")


def read_row_ranges(
    source: str | Path | IO[bytes],
    ranges: Iterable[tuple[int, int]],
    *,
    columns: Collection[str] | None = None,
    verify: bool = True,
) -> Iterator[RowBatch]:
    """Yield a batch for each range of rows of a shard; reads the row groups that hold the range.

    Parameters
    ----------
    ranges
        First row of each range, and the row after its last row, counted from the shard's start.
    source, columns, verify
        See :func:`read_rows`, which also lists the errors.
    """
    with ParquetFile(source, page_checksum_verification=verify) as file:
        kinds, features, names = _selection(file, columns)
        lengths = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.cumsum([0, *lengths])
        for first, after in ranges:
            if after > starts[-1]:
                raise ValueError(
                    f"it has {starts[-1]} rows, and the index tells of {after} or more"
                )
            groups = range(*np.searchsorted(starts, [first + 1, after]) - [1, 0])
            table = file.read_row_groups(list(groups), names)
            rows = table.slice(first - starts[groups[0]], after - first)
            yield _to_batch(rows, kinds, features, f"rows {first} to {after - 1}")


def _selection(
    file: ParquetFile, columns: Collection[str] | None
) -> tuple[dict[str, str], list[FeatureColumn], list[str]]:
    """Return the types of the chosen columns, the chosen features, and the names of both."""
    schema = RowSchema.from_arrow(file.schema_arrow)
    all_kinds = schema.columns()
    kinds = {name: all_kinds[name] for name in all_kinds if columns is None or name in columns}
    features = [c for c in schema.features if columns is None or c.name in columns]
    return kinds, features, [*kinds, *(column.name for column in features)]


def _to_batch(
    table: Any, kinds: Mapping[str, str], features: Iterable[FeatureColumn], where: str
) -> RowBatch:
    columns = {name: _values(_one_array(table.column(name)), kind) for name, kind in kinds.items()}
    arrays = {c.name: _feature_array(table.column(c.name), c, where) for c in features}
    return RowBatch(columns, arrays)


def _one_array(column: Any) -> Any:
    # combine_chunks makes a copy, even of a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _values(array: Any, kind: str) -> Any:
    as_numpy = kind in ("int32", "int64", "float") and not array.null_count
    return array.to_numpy() if as_numpy else array.to_pylist()


def _feature_array(stored: Any, column: FeatureColumn, where: str) -> Array:
    values = _one_array(stored)
    rows = len(values)
    if column.flac_rate_hz:
        return _decoded(values, column, where)
    if column.is_number:
        # One NaN, so that digests of rows do not depend on the library that chose its bits.
        numbers: Array = values.fill_null(np.nan).to_numpy()
        return numbers
    for length in column.shape:
        lengths = np.diff(values.offsets.to_numpy())
        if values.null_count or np.any(lengths != length):
            raise ValueError(f"{where}: {column.name} has lists whose length is not {length}")
        values = values.flatten()
    if values.null_count:
        raise ValueError(f"{where}: {column.name} has {values.null_count} nulls")
    array: Array = values.to_numpy(zero_copy_only=True)
    return array.reshape(rows, *column.shape)


def _decoded(values: Any, column: FeatureColumn, where: str) -> Array:
    samples = np.empty((len(values), *column.shape), column.dtype)
    for row, data in enumerate(values):
        try:
            samples[row] = decode_flac(data.as_py() or b"", *column.shape)
        except ValueError as error:
            raise ValueError(f"{where}: row {row} of {column.name} is {error}") from error
    return samples

"""Parquet shards, written and read a row group at a time.

A shard's bytes are a function of its rows, its schema and its metadata (and of the
version of pyarrow): nothing in the file tells when or where it was written, so a shard
that is made twice is the same file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import pyarrow.parquet as pq

from melmill.transforms.rows.schema import Float32Array, RowBatch, RowSchema, to_table

#: Rows that a row group should have: larger ones scan no faster, and a random row costs more.
ROW_GROUP_ROWS = 128

_MEL_LEAF = "mel.list.element.list.element"


def _leaf(name: str, kind: str) -> str:
    return f"{name}.list.element" if kind.startswith("list<") else name


class ParquetShard:
    """One shard being written to a local file; each batch becomes one row group.

    As a context manager it leaves a whole file, or, after an exception, none.

    Parameters
    ----------
    path
        Where to write. Only local: stores are given whole files.
    schema
        The dataset's columns.
    metadata
        Goes into the schema's metadata (configuration, versions), sorted by key.
    compression_level
        Of zstd.

    Attributes
    ----------
    rows
        How many rows were added so far.
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
        self.rows = 0
        self._path = Path(path)
        self._schema = schema
        self._writer = pq.ParquetWriter(
            self._path,
            schema.arrow(),
            compression="zstd",
            compression_level=compression_level,
            **_encodings(schema),
        )
        self._writer.add_key_value_metadata(_all_metadata(schema, metadata or {}))

    def add(self, batch: RowBatch) -> None:
        """Write the batch as one row group.

        Raises
        ------
        ValueError
            If the batch is not of the shard's schema, or empty.
        """
        table = to_table(batch, self._schema).replace_schema_metadata(None)
        self._writer.write_table(table, row_group_size=batch.rows)
        self.rows += batch.rows

    def close(self) -> None:
        """Write the footer; before that, the file is not Parquet."""
        self._writer.close()

    def __enter__(self) -> Self:
        """Give the shard itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, and remove it if an exception ended the block."""
        self.close()
        # A closed writer leaves a readable file, also when rows are missing from it.
        if kind is not None:
            self._path.unlink()


def _all_metadata(schema: RowSchema, given: Mapping[str, str]) -> dict[str, str]:
    own = _own_metadata(schema)
    if taken := sorted(given.keys() & own.keys()):
        raise ValueError(f"metadata keys {taken} are the schema's own")
    return dict(sorted((own | dict(given)).items()))


def _own_metadata(schema: RowSchema) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in schema.arrow().metadata.items()}


def _encodings(schema: RowSchema) -> dict[str, Any]:
    others = [_leaf(name, kind) for name, kind in schema.columns().items()]
    return {
        # Splitting floats by byte puts the exponents, which repeat, beside one another.
        "use_byte_stream_split": [_MEL_LEAF],
        "use_dictionary": others,
        "write_statistics": others,
        "write_page_checksum": True,
        # The types are Parquet's own: a copy of them in Arrow's form would say nothing new.
        # (Without it pyarrow drops the metadata too, hence add_key_value_metadata above.)
        "store_schema": False,
    }


def read_schema(source: str | Path | IO[bytes]) -> tuple[RowSchema, dict[str, str]]:
    """Read what a shard was opened with: its schema, and the metadata beside it.

    Raises
    ------
    ValueError
        If the file is Parquet, but no shard of melmill. pyarrow's own exceptions
        (``pyarrow.ArrowInvalid`` is a ``ValueError`` too) where it is not Parquet.
    """
    arrow = pq.read_schema(source)
    schema = RowSchema.from_arrow(arrow)
    found = {key.decode(): value.decode() for key, value in arrow.metadata.items()}
    own = _own_metadata(schema)
    return schema, {key: value for key, value in found.items() if key not in own}


def count_row_groups(source: str | Path | IO[bytes]) -> int:
    """Count the row groups of a shard."""
    number: int = pq.read_metadata(source).num_row_groups
    return number


def read_rows(
    source: str | Path | IO[bytes],
    groups: Iterable[int] | None = None,
    *,
    columns: Collection[str] | None = None,
    verify: bool = True,
) -> Iterator[RowBatch]:
    """Read a shard, a row group at a time.

    Parameters
    ----------
    source
        A local path, or a seekable binary file.
    groups
        Which row groups, from 0; ``None`` for all.
    columns
        Which columns beside ``mel``; ``None`` for all.
    verify
        Whether pages' checksums are verified.

    Yields
    ------
    RowBatch
        One row group; ``mel`` is a read-only view of what pyarrow decoded.

    Raises
    ------
    ValueError
        If the file is no shard of melmill, or some ``mel`` has another shape or a null.
    OSError
        If a page's checksum is wrong (pyarrow's words), or reading failed.
    """
    with pq.ParquetFile(source, page_checksum_verification=verify) as file:
        schema = RowSchema.from_arrow(file.schema_arrow)
        kinds = schema.columns()
        chosen = {name: kinds[name] for name in kinds if columns is None or name in columns}
        for index in range(file.num_row_groups) if groups is None else groups:
            table = file.read_row_group(index, [*chosen, "mel"])
            yield _to_batch(table, chosen, schema, f"row group {index}")


def _to_batch(table: Any, kinds: Mapping[str, str], schema: RowSchema, where: str) -> RowBatch:
    columns = {name: _values(_one_array(table.column(name)), kind) for name, kind in kinds.items()}
    return RowBatch(columns, _mel_array(table.column("mel"), schema, where))


def _one_array(column: Any) -> Any:
    # combine_chunks copies, also where there is but one.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _values(array: Any, kind: str) -> Any:
    as_numpy = kind in ("int32", "int64", "float") and not array.null_count
    return array.to_numpy() if as_numpy else array.to_pylist()


def _mel_array(column: Any, schema: RowSchema, where: str) -> Float32Array:
    rows = _one_array(column)
    bins = _elements(rows, schema.n_mels, where)
    values = _elements(bins, schema.n_frames, where)
    if values.null_count:
        raise ValueError(f"{where}: mel has {values.null_count} nulls")
    mel: Float32Array = values.to_numpy(zero_copy_only=True)
    return mel.reshape(len(rows), schema.n_mels, schema.n_frames)


def _elements(lists: Any, length: int, where: str) -> Any:
    lengths = np.diff(lists.offsets.to_numpy())
    if lists.null_count or np.any(lengths != length):
        raise ValueError(f"{where}: mel has lists that are not {length} long")
    return lists.flatten()

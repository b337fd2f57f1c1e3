"""The files of a view in each format; a file is a pure function of the rows."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.rows.flac_bytes import encode_flac
from melmill.transforms.rows.parquet import ParquetShard
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.tf_example import encode_examples
from melmill.transforms.rows.tfrecord import TFRecordShard


def write_parquet(schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path) -> None:
    """Write the rows as Parquet, as in a shard."""
    with ParquetShard(path, schema) as writer:
        for batch in batches:
            writer.add(batch)


def write_array_record(
    schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path
) -> None:
    """Write the same Examples as in TFRecord; readers can read each by its number."""
    # zstd level 1 is twice as fast as the default level, and takes 1 % more space.
    writer = array_record_module().ArrayRecordWriter(str(path), "group_size:1,zstd:1")
    try:
        for batch in batches:
            for example in encode_examples(batch, schema):
                writer.write(example)
    finally:
        writer.close()


def array_record_module() -> Any:
    """Return the module that writes ArrayRecord; raise ``ConfigError`` if it is not installed."""
    try:
        from array_record.python import array_record_module as module
    except ImportError as error:
        how = "pip install 'melmill[arrayrecord]'"
        raise ConfigError(f"--format arrayrecord: {error}: {how}") from error
    return module


def write_tfrecord(schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path) -> None:
    """Write the rows as TFRecord, as in a shard."""
    with TFRecordShard(path, schema) as writer:
        for batch in batches:
            writer.add(batch)


def write_numpy(schema: RowSchema, rows: int, batches: Iterator[RowBatch], *paths: Path) -> None:
    """Write each feature as an array that can be memory-mapped, and the columns as JSON lines.

    The last path is that of the JSON lines. They also have the features that are numbers.
    """
    with ExitStack() as stack:
        lines = stack.enter_context(paths[-1].open("w", encoding="utf-8"))
        arrays = {}
        columns = (column for column in schema.features if not column.is_number)
        for column, path in zip(columns, paths[:-1], strict=True):
            file = arrays[column.name] = stack.enter_context(path.open("wb"))
            little_endian = np.dtype(column.dtype).newbyteorder("<").str
            shape = (rows, *column.shape)
            header = {"descr": little_endian, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            for name, file in arrays.items():
                values = batch.features[name]
                file.write(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
            lines.writelines(f"{_json(row)}\n" for row in _plain_rows(batch, schema))


def write_tar(schema: RowSchema, rows: int, batches: Iterator[RowBatch], path: Path) -> None:
    """Write a WebDataset shard: ``KEY.NAME.npy`` or ``.flac`` per feature, ``KEY.json`` per row.

    Features that are numbers are in the JSON.
    """
    arrays = [column for column in schema.features if not column.is_number]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for batch in batches:
            for number, row in enumerate(_plain_rows(batch, schema)):
                key = f"{row['recording_id']}-{row['chunk_index']:06}"
                key += f"-{row['channel']}" if schema.per_channel else ""
                key += f"-v{row['variant']}" if schema.with_variants else ""
                for column in arrays:
                    values = batch.features[column.name][number]
                    if column.flac_rate_hz:
                        flac = encode_flac(values, column.flac_rate_hz)
                        _add(tar, f"{key}.{column.name}.flac", flac)
                        continue
                    array = io.BytesIO()
                    np.lib.format.write_array(array, values, allow_pickle=False)
                    _add(tar, f"{key}.{column.name}.npy", array.getvalue())
                _add(tar, f"{key}.json", _json(row).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # The entry's time stays 0, so that the same shard gives the same bytes.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _plain_rows(batch: RowBatch, schema: RowSchema) -> Iterator[dict[str, Any]]:
    """Yield the columns of each row that are not arrays of features."""
    columns = {
        name: values.tolist() if isinstance(values, np.ndarray) else values
        for name, values in batch.columns.items()
    }
    columns |= {c.name: batch.features[c.name].tolist() for c in schema.features if c.is_number}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _json(row: dict[str, Any]) -> str:
    finite = {name: _finite(value) for name, value in row.items()}
    return json.dumps(finite, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    """Return the value, with ``None`` for infinity and NaN, which JSON cannot hold.

    Minus infinity is the level of digital silence.
    """
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Parquet files that are read in the thread that asks."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from melmill.transforms.store.parquet_files import ParquetFile


def test_rows_are_those_of_the_file() -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "y"]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=2)
    with ParquetFile(buffer) as file:
        assert file.read() == table
        assert file.read_row_group(1, ["b"]).to_pydict() == {"b": ["y"]}
        assert pa.Table.from_batches(file.iter_batches(2, columns=["a"])) == table.select(["a"])

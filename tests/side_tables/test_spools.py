"""A spool gives back all rows, in their order, bucket by bucket."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.naming import bucket
from melmill.transforms.side_tables import spools
from melmill.transforms.side_tables.spools import Spool

SCHEMA = pa.schema({"name": pa.string(), "number": pa.int64()})


@given(
    names=st.lists(st.sampled_from("abcdefgh"), max_size=60),
    buckets=st.integers(1, 7),
    block=st.integers(1, 9),
    buffer_bytes=st.sampled_from([1, 200, 1 << 20]),
)
def test_each_bucket_has_its_rows_in_order(
    names: list[str], buckets: int, block: int, buffer_bytes: int
) -> None:
    rows = list(enumerate(names))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(spools, "_BUFFER_BYTES", buffer_bytes),
    ):
        spool = Spool(Path(folder) / "spool", SCHEMA, "name", buckets)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            columns = {"name": [name for _, name in part], "number": [n for n, _ in part]}
            spool.add(pa.table(columns, SCHEMA))
        for number in range(buckets):
            expected = [n for n, name in rows if bucket(name, buckets) == number]
            assert spool.read(number)["number"].to_pylist() == expected


def test_a_bucket_without_rows_is_empty(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", SCHEMA, "name", 3)
    assert spool.read(2) == SCHEMA.empty_table()

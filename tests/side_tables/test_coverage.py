"""The coverage counts the recordings that lack values, however both tables are divided."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.core.naming import bucket, recording_id
from melmill.transforms.side_tables.coverage import Coverage, coverage
from melmill.transforms.side_tables.side_table import (
    SideTable,
    publish_parts,
    stored_schema,
    write_part_files,
)
from melmill.transforms.store.folders import Store
from tests.side_tables.indexes import make_job, recording, write_index

NAMES = [f"{number}.wav" for number in range(8)]
COLUMNS = {"value": "int64"}


def write_side_table(
    store: Store, values: Mapping[tuple[str, int], int | None], parts: int, by_row: bool
) -> SideTable:
    """Write a side table of values by the recording's name and the chunk's number."""
    key = ("recording_id", "chunk_index") if by_row else ("recording_id",)
    schema = stored_schema(key, COLUMNS)
    rows = [
        {"recording_id": recording_id(name), "uri": name, "chunk_index": chunk, "value": value}
        for (name, chunk), value in values.items()
    ]
    tables = [
        pa.Table.from_pylist([r for r in rows if bucket(r["recording_id"], parts) == part], schema)
        for part in range(parts)
    ]
    with tempfile.TemporaryDirectory() as folder:
        paths = write_part_files(Path(folder), tables)
        return publish_parts(make_job(store), paths, key, COLUMNS)


@settings(max_examples=60)
@given(
    rows=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), min_size=1),
    values=st.dictionaries(
        st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), st.sampled_from([1, None])
    ),
    parts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    by_row=st.booleans(),
    before=st.sets(st.sampled_from(NAMES)),
)
def test_recordings_without_all_their_values_lack_them(
    rows: dict[str, int],
    values: dict[tuple[str, int], int | None],
    parts: tuple[int, int],
    by_row: bool,
    before: set[str],
) -> None:
    if not by_row:
        values = {(name, 0): value for (name, _), value in values.items()}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/set")
        known = write_index(store, [recording(name, n) for name, n in rows.items()], parts[0])
        earlier = write_index(store, [recording(name) for name in sorted(before)], 2, "e" * 32)
        table = write_side_table(store, values, parts[1], by_row)
        (counted,) = coverage(known, [table], before=earlier)
    lacking = {
        name
        for name, number in rows.items()
        if any(values.get((name, chunk)) is None for chunk in range(number if by_row else 1))
        and number
    }
    assert counted.recordings == sum(number > 0 for number in rows.values())
    assert counted.lacking == len(lacking)
    assert counted.new == len(lacking - before)
    uris = (*sorted(lacking - before), *sorted(lacking & before))
    assert counted.examples == tuple(f"/songs/{name}" for name in uris)


def test_a_split_and_some_columns_are_counted(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    names = [("a.wav", "train"), ("b.wav", "test"), ("c.wav", "test")]
    known = write_index(store, [recording(name, split=split) for name, split in names])
    table = write_side_table(store, {("a.wav", 0): 1, ("b.wav", 0): 2}, 1, False)
    assert coverage(known, [table], split="train") == [Coverage("value", 1)]
    (test,) = coverage(known, [table], split="test", names=["value"])
    assert test == Coverage("value", 2, 1, 0, ("/songs/c.wav",))
    assert coverage(known, [table], names=["other"]) == []

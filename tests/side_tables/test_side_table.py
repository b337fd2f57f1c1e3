"""A side table's files are named by their content, and a missing or damaged file is named."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import recording_id
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.plan.job import Base
from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.shards.receipts import read_made
from melmill.transforms.side_tables.erasing import without_recordings
from melmill.transforms.side_tables.side_table import (
    SideTable,
    chunks_digest,
    kept_tables,
    list_parts,
    part_faults,
    publish_parts,
    read_parts,
)
from melmill.transforms.store.folders import Store
from melmill.transforms.store.own_files import is_own, side_table_of
from tests.side_tables.indexes import make_job
from tests.side_tables.test_coverage import write_side_table

NAMES = [f"{number}.wav" for number in range(10)]
VALUES = {(name, 0): number for number, name in enumerate(NAMES)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def table(store: Store) -> SideTable:
    return write_side_table(store, VALUES, 3, False)


def stored(store: Store, table: SideTable) -> dict[str, int]:
    rows = (row for part in read_parts(store, table) for row in part.to_pylist())
    return {row["uri"]: row["value"] for row in rows}


def test_the_parts_hold_all_values(store: Store, table: SideTable) -> None:
    assert stored(store, table) == {name: value for (name, _), value in VALUES.items()}
    names = list_parts(store, table)
    assert len(names) == table.parts == 3
    assert all(is_own(name) and side_table_of(name) == table.name for name in names)
    assert list(part_faults(store, table)) == []


def test_the_same_values_give_the_same_files(store: Store, table: SideTable) -> None:
    before = {name: store.read(name) for name in store.names("columns")}
    assert write_side_table(store, VALUES, 3, False) == table
    assert {name: store.read(name) for name in store.names("columns")} == before


def test_runs_from_other_versions_write_other_files(store: Store, table: SideTable) -> None:
    # The run that is overtaken removes its files. They must not be those of another run.
    job = make_job(store)
    path = store.path(list_parts(store, table)[0])
    names = {
        publish_parts(replace(job, base=Base(version)), [Path(path)], table.key, {}).name
        for version in (1, 2)
    }
    assert len(names) == 2


def test_files_are_announced(store: Store, table: SideTable) -> None:
    (made,) = read_made(store, make_job(store).staging)
    assert list(made.files) == list_parts(store, table)


def test_a_missing_file_is_named(store: Store, table: SideTable) -> None:
    store.remove(list_parts(store, table)[1])
    message = r"columns/.*/part-00001-….parquet is missing, which holds values of .* value; restore"
    with pytest.raises(DatasetError, match=message):
        list_parts(store, table)
    (fault,) = part_faults(store, table)
    assert "part-00001" in fault


def test_a_damaged_file_is_named(store: Store, table: SideTable) -> None:
    name = list_parts(store, table)[2]
    content = bytearray(store.read(name))
    content[len(content) // 3] ^= 1
    store.put(name, bytes(content))
    assert list(part_faults(store, table)) == [
        f"{name}: is damaged: its content does not match its name"
    ]
    store.put(name, b"PAR1")
    with pytest.raises(DatasetError, match=f"file {name} is damaged"):
        stored(store, table)


def test_values_of_recordings_are_erased(store: Store, table: SideTable) -> None:
    erased = {recording_id(name) for name in NAMES[:4]}
    kept = without_recordings(make_job(store), table, erased)
    assert kept.name != table.name
    assert replace(kept, name=table.name) == table
    assert stored(store, kept) == {name: VALUES[name, 0] for name in NAMES[4:]}
    everything = without_recordings(make_job(store), table, {recording_id(n) for n in NAMES})
    assert stored(store, everything) == {}


def test_replaced_columns_are_erased_too(store: Store, table: SideTable) -> None:
    # A snapshot may name only some of the columns in the files.
    fewer = replace(table, labels=())
    kept = without_recordings(make_job(store), fewer, {recording_id(NAMES[0])})
    for name in list_parts(store, replace(kept, labels=table.labels)):
        with store.open(name) as file:
            assert pq.read_schema(file).names == ["recording_id", "uri", "value"]


def test_a_description_is_read_back(table: SideTable) -> None:
    two = replace(table, labels=(*table.labels, LabelColumn("a", "list<double>")), chunks="5")
    assert SideTable.from_json(asdict(two)) == two
    assert two.columns == {"value": "int64", "a": "list<double>"}
    assert two.without(["value"]).columns == {"a": "list<double>"}


def test_values_of_rows_belong_to_chunks_of_one_kind(table: SideTable) -> None:
    features = FeatureSpec()
    by_row = replace(table, key=("recording_id", "chunk_index"))
    by_row = replace(by_row, chunks=chunks_digest(features.canonical()))
    both = (table, by_row)
    finer = replace(features, resolution=1 / 64)
    assert kept_tables(both, finer.canonical()) == both
    for chunk in (replace(features.chunk, hop=7), replace(features.chunk, tail="shift_back")):
        assert kept_tables(both, replace(features, chunk=chunk).canonical()) == (table,)
    assert kept_tables(both, replace(features, sample_rate_hz=8000).canonical()) == (table,)

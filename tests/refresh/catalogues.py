"""Small catalogues that tests can change, and functions that read what a dataset holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from melmill.transforms.index.tables import read_index, read_shards
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here
from tests.signals import noise, write_audio

RATE = 4000

#: A second of audio is eight tiny chunks. All recordings may fail, and all may be removed.
SMALL = (
    "audio.sample_rate_hz=4000",
    "chunk.seconds=0.125",
    "mel.n_fft=256",
    "mel.hop_length=128",
    "mel.n_mels=8",
    "limits.max_failure_ratio=1",
    "refresh.max_removed_ratio=1",
    "output.row_group_rows=3",
)


def write_song(path: Path, seed: int = 0, seconds: float = 1.0, rate: int = RATE) -> None:
    """Write a recording of noise; another seed gives other noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, noise(seconds, rate, seed), rate)


def write_songs(folder: Path, number: int = 6) -> Path:
    """Write songs of different lengths: ``0.wav``, ``1.wav`` …"""
    for i in range(number):
        write_song(folder / f"{i}.wav", i, 0.5 + 0.25 * i)
    return folder


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a catalogue in JSON lines: a row of URI and labels for each recording."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def rows_of(dataset: Path, version: int | None = None) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return every row that pyarrow reads from the Delta table, by recording and chunk."""
    return by_chunk(DeltaTable(dataset, version=version).to_pyarrow_dataset().to_table())


def rows_in(files: Mapping[str, Sequence[str]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the rows in the files of each split, by recording and chunk."""
    tables = [
        pq.ParquetFile(path).read().append_column("split", pa.array([split] * rows, pa.string()))
        for split, paths in files.items()
        for path in paths
        if (rows := pq.read_metadata(path).num_rows)
    ]
    return by_chunk(pa.concat_tables(tables, promote_options="default")) if tables else {}


def by_chunk(table: pa.Table) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    names = sorted(set(table.column_names) - {"mel"})
    columns = [table[name].to_pylist() for name in names]
    mels = [np.array(mel, np.float32).tobytes() for mel in table["mel"].to_pylist()]
    rows = {}
    for values, mel in zip(zip(*columns, strict=True), mels, strict=True):
        row = dict(zip(names, values, strict=True))
        key = row["recording_id"], row["chunk_index"], row.get("channel")
        assert key not in rows, f"{key} occurs twice"
        rows[key] = (*((name, str(row[name])) for name in names), mel)
    return rows


def failures_of(dataset: Path) -> dict[str, str]:
    """Return the cause of every failure, by URI."""
    store = Store(str(dataset))
    index = require_snapshot(store).index
    return {row["uri"]: row["cause"] for row in read_index(store, index, "failures")}


def statuses_of(dataset: Path) -> dict[str, tuple[str, int]]:
    """Return the status and the number of rows of every recording in the index, by URI."""
    store = Store(str(dataset))
    index = require_snapshot(store).index
    rows = read_index(store, index, "recordings", ["uri", "status", "rows"])
    return {row["uri"]: (row["status"], row["rows"]) for row in rows}


def duplicates_in(dataset: Path) -> dict[str, str]:
    """Return the recordings that are duplicates, and what they are duplicates of."""
    store = Store(str(dataset))
    rows = read_index(
        store, require_snapshot(store).index, "recordings", ["recording_id", "duplicate_of"]
    )
    return {row["recording_id"]: row["duplicate_of"] for row in rows if row["duplicate_of"]}


def assert_as_fresh(catalogue: Path, dataset: Path, folder: Path, *overrides: str) -> None:
    """Assert that the dataset equals an extraction of the catalogue into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    extract_here(catalogue, folder, *overrides)
    rows, fresh_rows = rows_of(dataset), rows_of(folder)
    assert rows.keys() == fresh_rows.keys()
    assert [key for key in rows if rows[key] != fresh_rows[key]] == []
    assert failures_of(dataset) == failures_of(folder)
    assert statuses_of(dataset) == statuses_of(folder)
    assert duplicates_in(dataset) == duplicates_in(folder)


def needed_files(dataset: Path) -> set[str]:
    """Return the names of the files that the current snapshot needs."""
    store = Store(str(dataset))
    index = require_snapshot(store).index
    twins = [(shard.parquet, shard.tfrecord) for shard in read_shards(store, index)]
    shard_files = {file.name for pair in twins for file in pair if file}
    taken_down = {require_snapshot(store).taken_down} - {""}
    side_files = {".melmill", "README.md", "statistics.json"}
    side_tables = require_snapshot(store).side_tables
    side_files |= {name for table in side_tables for name in store.names(f"columns/{table.name}")}
    return shard_files | set(store.names(f"index/{index}")) | taken_down | side_files


def mentions_of(dataset: Path, *uris: str) -> list[str]:
    """Return the files that mention any of the URIs.

    The Delta log and the lists of recordings that were taken down are not searched.
    """
    mentions = set()
    for name in files_of(dataset) | {f"runs/{path.name}" for path in dataset.glob("runs/*")}:
        if not name.startswith("taken_down/"):
            content = (dataset / name).read_bytes()
            if name.endswith(".parquet"):
                table = pq.read_table(dataset / name, partitioning=None)
                content = repr([table[c].to_pylist() for c in table.column_names if c != "mel"])
                content = content.encode()
            mentions |= {name for uri in uris if uri.encode() in content}
    return sorted(mentions)


def files_of(dataset: Path) -> set[str]:
    """Return every file of a dataset, except its log and the records of its runs."""
    paths = (path.relative_to(dataset) for path in dataset.rglob("*") if path.is_file())
    return {str(path) for path in paths if path.parts[0] not in ("_delta_log", "runs")}

"""Test shards that are written directly from rows. No audio is decoded."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardSpec
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.tally import held_recordings
from melmill.transforms.shards.writing import read_shard, write_again
from tests.mel_features import with_mel
from tests.pipeline_runs import make_test_job
from tests.plans import FEATURES, recording

#: A row: the name of the recording, the index of the chunk, and the channel.
Row = tuple[str, int, int]


def job_of_rows(folder: Path, *overrides: str, channels: str = "mono") -> ExtractJob:
    """Return a job for a table with labels. A row group has three rows."""
    (folder / "a.wav").touch()
    table = folder / "songs.csv"
    table.write_text("uri,genre,year\na.wav,jazz,1959\n")
    types = "catalogue.label_types={genre: string, year: int64}"
    job = make_test_job(table, folder / "set", types, *overrides)
    return replace(
        job,
        features=replace(
            with_mel(FEATURES, hop_length=256),
            channels=channels,
            chunk=replace(FEATURES.chunk, tail="pad"),
        ),
        writer=replace(job.writer, row_group_rows=3),
        shards=ShardSpec(seed=5),
    )


def rows_of(name: str, *chunks: int) -> list[Row]:
    return [(name, chunk, 0) for chunk in chunks]


def batch_of(job: ExtractJob, rows: Sequence[Row], **labels: Any) -> RowBatch:
    """Return a batch of these rows. The values in a row depend only on the row."""
    seeds = [zlib.crc32(repr(row).encode()) for row in rows]
    mels = [
        np.random.default_rng(seed).normal(-30, 9, job.features.columns[0].shape) for seed in seeds
    ]
    columns: dict[str, Any] = {
        "recording_id": [recording(name).recording_id for name, _, _ in rows],
        "uri": [f"/songs/{name}" for name, _, _ in rows],
        "chunk_index": [chunk for _, chunk, _ in rows],
        "start_sample": [1000 * chunk for _, chunk, _ in rows],
        "valid_samples": [1000 - chunk for _, chunk, _ in rows],
        "valid_frames": [5 - chunk % 5 for _, chunk, _ in rows],
        "sample_rate_hz": [1000] * len(rows),
        "peak_dbfs": [-1.0 - seed % 40 for seed in seeds],
        "rms_dbfs": [-50.0] * len(rows),
        "genre": [labels.get("genre", "rock")] * len(rows),
        "year": [labels.get("year", 1970)] * len(rows),
    }
    if job.schema.per_channel:
        columns["channel"] = [channel for _, _, channel in rows]
    return RowBatch(columns, {"mel": np.array(mels, np.float32)})


def shard_of(job: ExtractJob, plan: str, *batches: RowBatch, split: str = "train") -> ShardSummary:
    expected = [entry for batch in batches for entry in held_recordings(batch)]
    return write_again(plan, split, batches, expected, job)


def read_rows_of(job: ExtractJob, summary: ShardSummary) -> list[dict[str, Any]]:
    """Return the rows of a stored shard. `mel` holds the bytes of the spectrogram."""
    return [row for batch in read_shard(job.store, summary) for row in rows_in(batch)]


def rows_in(*batches: RowBatch) -> list[dict[str, Any]]:
    return [
        {name: values[i] for name, values in batch.columns.items()}
        | {"mel": batch.features["mel"][i].tobytes()}
        for batch in batches
        for i in range(batch.rows)
    ]


def places(rows: Iterable[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(Path(row["uri"]).name, row["chunk_index"]) for row in rows]

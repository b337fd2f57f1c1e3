"""Announcements name the files that a run writes. Receipts name its finished shards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from melmill.transforms.core.errors import Cause
from melmill.transforms.core.naming import digest
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import FileEntry, ShardSummary
from melmill.transforms.shards.receipts import (
    Made,
    announce_file,
    announce_index,
    announce_shard,
    count_finished,
    is_whole,
    read_made,
    read_receipt,
    write_receipt,
)
from tests.plans import failure, summary
from tests.shard_rows import job_of_rows

TWIN = FileEntry("tfrecord/train/part-s.tfrecord", 700, "1" * 64)


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of_rows(tmp_path, "output.formats=[parquet,tfrecord]")


def test_announcements_are_read_as_they_were_written(job: ExtractJob) -> None:
    assert read_made(job.store, job.staging) == []
    announce_shard(job, "5hard", ["b.parquet", "a.tfrecord"])
    announce_index(job, "1ndex")
    announce_file(job, "README.md")
    folder = f"staging/{job.run_id}/made"
    single = f"{folder}/{digest('README.md')}.json"
    expected = {
        Made(shard="5hard", files=("a.tfrecord", "b.parquet"), name=f"{folder}/5hard.json"),
        Made(index="1ndex", name=f"{folder}/1ndex.json"),
        Made(files=("README.md",), name=single),
    }
    assert set(read_made(job.store, job.staging)) == expected
    # Other versions of melmill read these files, too.
    stored = {name: json.loads(job.store.read(name)) for name in job.store.names(folder)}
    assert stored == {
        f"{folder}/5hard.json": {"shard": "5hard", "files": ["a.tfrecord", "b.parquet"]},
        f"{folder}/1ndex.json": {"index": "1ndex"},
        single: {"files": ["README.md"]},
    }


def store_files(job: ExtractJob, *files: FileEntry | None) -> None:
    for file in files:
        if file is not None:
            job.store.put(file.name, bytes(file.size_bytes))


def test_a_finished_shard_has_a_receipt(job: ExtractJob) -> None:
    shard = summary(tfrecord=TWIN)
    store_files(job, shard.parquet, shard.tfrecord)
    assert read_receipt(job, shard.plan) is None
    assert count_finished(job) == 0
    write_receipt(job, shard)
    assert read_receipt(job, shard.plan) == shard
    assert read_receipt(job, "another plan") is None
    write_receipt(job, replace(shard, plan="another"))
    assert count_finished(job) == 2
    assert job.store.size(f"staging/{job.run_id}/shards/{shard.plan}.json")


def test_a_receipt_without_the_shards_files_does_not_count(job: ExtractJob) -> None:
    shard = summary(tfrecord=TWIN)
    write_receipt(job, shard)
    assert read_receipt(job, shard.plan) is None


WHOLE = summary(tfrecord=TWIN)


@pytest.mark.parametrize(
    ("shard", "stored_files", "whole"),
    [
        (WHOLE, (WHOLE.parquet, TWIN), True),
        (WHOLE, (WHOLE.parquet,), False),
        (WHOLE, (TWIN,), False),
        (WHOLE, (WHOLE.parquet, replace(TWIN, size_bytes=699)), False),
        (WHOLE, (WHOLE.parquet, replace(TWIN, size_bytes=701)), False),
        (summary(), (WHOLE.parquet,), False),
        (summary(rows=0, parquet=None), (), True),
        (replace(WHOLE, failures=(failure(),)), (WHOLE.parquet, TWIN), True),
        (replace(WHOLE, failures=(failure(cause=Cause.TIMEOUT),)), (WHOLE.parquet, TWIN), False),
        (summary(rows=0, failures=(failure(cause=Cause.TIMEOUT),)), (), False),
    ],
)
def test_a_shard_is_whole_if_its_files_exist_and_its_failures_are_final(
    job: ExtractJob, shard: ShardSummary, stored_files: tuple[FileEntry | None, ...], whole: bool
) -> None:
    store_files(job, *stored_files)
    assert is_whole(shard, job) is whole


def test_a_format_that_the_job_does_not_write_is_not_needed(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path)
    store_files(job, WHOLE.parquet)
    assert is_whole(WHOLE, job)

"""What a run has made so far: names announced before a file is there, receipts after.

Both lie in the run's staging folder. An announcement lets whoever tidies up know each file as
the run's own, wherever the run was killed; a receipt lets the same run, started again, take a
finished shard as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from melmill.transforms.core.naming import digest
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class Made:
    """What one announcement names.

    Attributes
    ----------
    shard
        Name of a shard; ``""`` where something else is announced.
    files
        Names of the shard's files, or of a file by itself.
    index
        Name of an index; ``""`` where something else is announced.
    name
        Name of the announcement's own file.
    """

    shard: str = ""
    files: tuple[str, ...] = ()
    index: str = ""
    name: str = ""


def announce_shard(job: ExtractJob, shard: str, files: Sequence[str]) -> None:
    """Write down the names of a shard's files, before the first of them is there."""
    said = json.dumps({"shard": shard, "files": sorted(files)})
    job.store.put(f"{job.staging}/made/{shard}.json", said.encode())


def announce_index(job: ExtractJob, index: str) -> None:
    """Write down the name of an index, before the first of its files is there."""
    job.store.put(f"{job.staging}/made/{index}.json", json.dumps({"index": index}).encode())


def announce_file(job: ExtractJob, name: str) -> None:
    """Write down the name of a file that belongs to no shard, before it is there."""
    said = json.dumps({"files": [name]})
    job.store.put(f"{job.staging}/made/{digest(name)}.json", said.encode())


def read_made(store: Store, staging: str) -> list[Made]:
    """Read what a run has announced; what another process removes meanwhile is passed over."""
    found = store.read_many(list(store.names(f"{staging}/made")))
    said = {name: json.loads(content) for name, content in found.items()}
    return [
        Made(one.get("shard", ""), tuple(one.get("files", ())), one.get("index", ""), name)
        for name, one in said.items()
    ]


def write_receipt(job: ExtractJob, summary: ShardSummary) -> None:
    """Write down that a plan's shard is finished."""
    job.store.put(_receipt(job, summary.plan), summary.to_json())


def read_receipt(job: ExtractJob, plan: str) -> ShardSummary | None:
    """Read the shard that was made of a plan; ``None`` unless it needs no more work."""
    try:
        summary = ShardSummary.from_json(job.store.read(_receipt(job, plan)))
    except FileNotFoundError:
        return None
    return summary if is_whole(summary, job) else None


def is_whole(summary: ShardSummary, job: ExtractJob) -> bool:
    """Tell whether a shard needs no more work: its files are there, its failures final."""
    wanted = {form for form in job.writer.formats if summary.rows}
    files = {"parquet": summary.parquet, "tfrecord": summary.tfrecord}
    there = {
        form
        for form, file in files.items()
        if file is not None and job.store.size(file.name) == file.size_bytes
    }
    return summary.is_final and wanted <= there


def count_finished(job: ExtractJob) -> int:
    """Count the shards that a run has finished so far."""
    return sum(1 for _ in job.store.names(f"{job.staging}/shards"))


def _receipt(job: ExtractJob, plan: str) -> str:
    return f"{job.staging}/shards/{plan}.json"

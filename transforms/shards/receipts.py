"""A run's records of its files: announcements before a file is written, receipts after.

Both lie in the run's staging folder. An announcement shows which run wrote a file, even if the
run is killed at any point, so that ``gc`` may remove the file. A receipt lets the same run, when
it is resumed, reuse a finished shard.
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
    """An announcement of a run.

    Attributes
    ----------
    shard
        Name of the shard; ``""`` if no shard is announced.
    files
        Names of the shard's files, or the name of a single file.
    index
        Name of the index; ``""`` if no index is announced.
    name
        Name of the announcement's own file.
    """

    shard: str = ""
    files: tuple[str, ...] = ()
    index: str = ""
    name: str = ""


def announce_shard(job: ExtractJob, shard: str, files: Sequence[str]) -> None:
    """Write the announcement of a shard's files, before the first file is written."""
    text = json.dumps({"shard": shard, "files": sorted(files)})
    job.store.put(f"{job.staging}/made/{shard}.json", text.encode())


def announce_index(job: ExtractJob, index: str) -> None:
    """Write the announcement of an index, before the first of its files is written."""
    job.store.put(f"{job.staging}/made/{index}.json", json.dumps({"index": index}).encode())


def announce_file(job: ExtractJob, name: str) -> None:
    """Write the announcement of a file that belongs to no shard, before the file is written."""
    text = json.dumps({"files": [name]})
    job.store.put(f"{job.staging}/made/{digest(name)}.json", text.encode())


def announce_files(job: ExtractJob, name: str, files: Sequence[str]) -> None:
    """Write the announcement of a side table's files, before the first file is written."""
    text = json.dumps({"files": sorted(files)})
    job.store.put(f"{job.staging}/made/{name}.json", text.encode())


def read_made(store: Store, staging: str) -> list[Made]:
    """Return a run's announcements; files that another process removes meanwhile are skipped."""
    contents = store.read_many(list(store.names(f"{staging}/made")))
    announced = {name: json.loads(content) for name, content in contents.items()}
    return [
        Made(keys.get("shard", ""), tuple(keys.get("files", ())), keys.get("index", ""), name)
        for name, keys in announced.items()
    ]


def write_receipt(job: ExtractJob, summary: ShardSummary) -> None:
    """Write the receipt of a finished shard."""
    job.store.put(_receipt(job, summary.plan), summary.to_json())


def read_receipt(job: ExtractJob, plan: str) -> ShardSummary | None:
    """Return the summary of a plan's shard if the shard is finished; else ``None``."""
    try:
        summary = ShardSummary.from_json(job.store.read(_receipt(job, plan)))
    except FileNotFoundError:
        return None
    return summary if is_whole(summary, job) else None


def is_whole(summary: ShardSummary, job: ExtractJob) -> bool:
    """Return whether a shard is finished: its files exist, and its failures are final."""
    required = {form for form in job.writer.formats if summary.rows}
    files = {"parquet": summary.parquet, "tfrecord": summary.tfrecord}
    present = {
        form
        for form, file in files.items()
        if file is not None and job.store.size(file.name) == file.size_bytes
    }
    return summary.is_final and required <= present


def count_finished(job: ExtractJob) -> int:
    """Return the number of shards that a run has finished so far."""
    return sum(1 for _ in job.store.names(f"{job.staging}/shards"))


def _receipt(job: ExtractJob, plan: str) -> str:
    return f"{job.staging}/shards/{plan}.json"

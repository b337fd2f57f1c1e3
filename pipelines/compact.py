"""The compaction: merge small shards, which refreshes leave, into fewer, larger shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam

from melmill.pipelines.commit import (
    begin,
    commit_and_describe,
    discarding_the_overtaken,
    require_outcome,
)
from melmill.pipelines.run.launch import run_job
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.check_workers import CheckWorkers
from melmill.transforms.index.comparing import FEW_BYTES
from melmill.transforms.index.tables import read_index
from melmill.transforms.merge_shards import MergeShards
from melmill.transforms.plan.change_records import Decision, Difference
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.shards.merging import ShardSize, plan_merges
from melmill.transforms.shards.receipts import count_finished
from melmill.transforms.shards.writing import row_group_rows
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.snapshot.totals import add_up
from melmill.transforms.store.exclusive import require_exclusive_commits
from melmill.transforms.store.folders import Store
from melmill.transforms.write_index import WriteIndex

#: The number of full row groups that a merge may keep in memory at the same time.
_OPEN_ROW_GROUPS = 16


@dataclass(frozen=True, slots=True)
class Compaction:
    """The result of a compaction.

    Attributes
    ----------
    snapshot
        The dataset's current snapshot.
    committed
        Whether this run committed the snapshot; otherwise no two shards were small enough.
    merged, shards
        The number of shards that were merged, and the number of new shards.
    rows
        The number of rows in the dataset, which does not change.
    """

    snapshot: Snapshot
    committed: bool
    merged: int
    shards: int
    rows: int


def build_pipeline(
    pipeline: beam.Pipeline, job: ExtractJob, *, merges: list[tuple[str, ...]]
) -> beam.PCollection[str]:
    """Apply all transforms of a compaction; return the name of the index, for the commit."""
    start = pipeline | "CheckWorkers" >> CheckWorkers(job.stores[1:])
    decided = start | "Decide" >> beam.Map(_decide, job)
    named = start | "NameMerges" >> beam.FlatMap(_name_merges, merges)
    merged = named | "MergeShards" >> MergeShards(job)
    return (merged,) | "WriteIndex" >> WriteIndex(job, decided)


def _decide(_: Any, job: ExtractJob) -> Decision:
    return Decision(job.base.parts, Difference(), todo=True)


def _name_merges(_: Any, merges: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return merges


def compact(
    store: Store, options: Any, *, address: str = "", single_writer: bool = False
) -> Compaction:
    """Merge the small shards of a dataset's current snapshot, and commit the result.

    Parameters
    ----------
    store
        The dataset.
    options
        The options of Beam.
    address
        The address of a progress display; ``""`` for none.
    single_writer
        Whether the user guarantees that no other run writes to the dataset at the same time.

    Raises
    ------
    UserError
        An argument or an input is wrong; the message says what to change.
    ConflictError
        Another run committed first; nothing of this run is left.
    """
    opened = OpenSnapshot.whole(store)
    current = opened.snapshot
    job = replace(opened.job("compact"), progress=address)
    merges = list(_plan(job, current))
    sizes = list(read_index(store, current.index, "shards", ["rows", "parquet_bytes"]))
    rows = sum(size["rows"] for size in sizes)
    if not merges:
        opened.mend_side_files()
        return Compaction(current, False, 0, 0, rows)
    job = begin(job)
    if not single_writer:
        require_exclusive_commits(job.store, job.staging)
    with discarding_the_overtaken(job, opened):
        build = partial(build_pipeline, merges=merges)
        brief = sum(size["parquet_bytes"] or 0 for size in sizes) <= FEW_BYTES
        run_job(build, job, options, partial(count_finished, job), brief)
        index = require_outcome(job).index
        snapshot = replace(
            current,
            index=index,
            operation="compact",
            replaced={},
            parts=job.base.parts,
            run=job.attempt,
        )
        snapshot = commit_and_describe(job, snapshot, add_up(store, index)).snapshot
    return Compaction(snapshot, True, sum(map(len, merges)), len(merges), rows)


def _plan(job: ExtractJob, current: Snapshot) -> Iterator[tuple[str, ...]]:
    by_split: defaultdict[str, list[ShardSize]] = defaultdict(list)
    columns = ["name", "split", "rows", "parquet_bytes"]
    for row in read_index(job.store, current.index, "shards", columns):
        if row["rows"]:
            by_split[row["split"]].append(ShardSize(**row))
    open_rows = _OPEN_ROW_GROUPS * row_group_rows(job)
    for _, shards in sorted(by_split.items()):
        yield from plan_merges(shards, job.shards.target_bytes, open_rows)

"""Merges small shards into one: the same rows, in the order that a single shard would have."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from melmill.transforms.core.naming import digest
from melmill.transforms.index.results import Replaced, Rewritten
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import order_of
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.writing import read_shard, write_again


@dataclass(frozen=True, slots=True)
class ShardSize:
    """The facts about a shard that decide with which shards it is merged."""

    name: str
    split: str
    rows: int
    parquet_bytes: int


def plan_merges(
    shards: Sequence[ShardSize], target_bytes: int, open_rows: int
) -> Iterator[tuple[str, ...]]:
    """Yield groups of small shards' names; each group is merged into one shard.

    Parameters
    ----------
    shards
        All shards of one split.
    target_bytes
        Target size of a shard. Shards smaller than half of it are small.
    open_rows
        Maximum number of rows in memory: one row group of each shard that is merged.

    Examples
    --------
    >>> sizes = [ShardSize(name, "train", 10, size) for name, size in zip("abcd", (9, 70, 30, 30))]
    >>> list(plan_merges(sizes, 100, 1000))
    [('a', 'c', 'd')]
    """
    # The smallest first, so that the small shards of daily runs are merged with each other.
    small = sorted(
        (shard for shard in shards if 2 * shard.parquet_bytes < target_bytes),
        key=lambda shard: (shard.parquet_bytes, shard.name),
    )
    members: list[str] = []
    size = rows = 0
    for shard in small:
        if members and (size + shard.parquet_bytes > target_bytes or rows >= open_rows):
            if len(members) > 1:
                yield tuple(members)
            members, size, rows = [], 0, 0
        members.append(shard.name)
        size, rows = size + shard.parquet_bytes, rows + shard.rows
    if len(members) > 1:
        yield tuple(members)


def merge_shards(
    summaries: Sequence[ShardSummary], job: ExtractJob
) -> Iterator[Replaced | Rewritten]:
    """Write the rows of several shards of one split into one shard.

    One row group of each shard is in memory at a time.

    Raises
    ------
    DatasetError
        If a shard is missing or damaged.
    """
    names = tuple(sorted(summary.name for summary in summaries))
    plan = digest("merged", job.run_id, *names)
    rows = heapq.merge(
        *(_keyed_rows(summary, job) for summary in summaries), key=lambda row: row[0]
    )
    batches = (batch for _, batch in rows)
    expected = (entry for summary in summaries for entry in summary.recordings)
    yield Rewritten(names, write_again(plan, summaries[0].split, batches, expected, job))
    yield from (Replaced(name) for name in names)


def _keyed_rows(
    summary: ShardSummary, job: ExtractJob
) -> Iterator[tuple[tuple[float, str, int], RowBatch]]:
    """Yield a shard's rows in runs that stay together, each with its sort key."""
    recording_id, chunk, variant, order = "", -1, 0, 0.0
    for batch in read_shard(job.store, summary):
        has_variants = job.schema.with_variants
        variants = np.asarray(batch.columns["variant"]) if has_variants else np.zeros(batch.rows)
        chunks = np.asarray(batch.columns["chunk_index"])
        names = list(batch.columns["recording_id"])
        continues = [
            names[i] == names[i - 1]
            and variants[i] == variants[i - 1]
            and chunks[i] - chunks[i - 1] in (0, 1)
            for i in range(1, batch.rows)
        ]
        begins = [i for i, goes_on in enumerate([False, *continues]) if not goes_on]
        for start, stop in pairwise([*begins, batch.rows]):
            # A run may continue from the previous batch.
            same = (names[start], variants[start]) == (recording_id, variant)
            if not same or chunks[start] - chunk not in (0, 1):
                where = int(chunks[start]), int(variants[start])
                order = order_of(job.shards.seed, names[start], *where)
            recording_id, chunk, variant = names[start], chunks[stop - 1], variants[start]
            yield (order, recording_id, int(chunks[start])), batch.take(slice(start, stop))

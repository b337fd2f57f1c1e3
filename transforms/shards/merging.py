"""Small shards merged into one: the same rows, in the order that one shard of them has."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from melmill.transforms.core.naming import digest
from melmill.transforms.index.facts import Replaced, Rewritten
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.planning import order_of
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.writing import read_shard, write_again


@dataclass(frozen=True, slots=True)
class ShardSize:
    """What is to be known of a shard to decide with which others it is merged."""

    name: str
    split: str
    rows: int
    parquet_bytes: int


def plan_merges(
    shards: Sequence[ShardSize], target_bytes: int, open_rows: int
) -> Iterator[tuple[str, ...]]:
    """Choose which shards are merged into one: small ones, until together they are not.

    Parameters
    ----------
    shards
        All of one split.
    target_bytes
        Size of a shard to aim at; those of less than half of it are small.
    open_rows
        Rows that may be held at once: one row group of each shard that is being merged.

    Examples
    --------
    >>> sizes = [ShardSize(name, "train", 10, size) for name, size in zip("abcd", (9, 70, 30, 30))]
    >>> list(plan_merges(sizes, 100, 1000))
    [('a', 'c', 'd')]
    """
    # The smallest first: what a run of every day adds is merged with its like.
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
    """Write the rows of several shards of one split into one.

    A row group of each is held at a time.

    Raises
    ------
    DatasetError
        A shard is missing or damaged.
    """
    names = tuple(sorted(summary.name for summary in summaries))
    plan = digest("merged", job.run_id, *names)
    rows = heapq.merge(
        *(_keyed_rows(summary, job) for summary in summaries), key=lambda row: row[0]
    )
    batches = (batch for _, batch in rows)
    expected = (entry for summary in summaries for entry in summary.recordings)
    yield Rewritten(names, write_again(plan, summaries[0].split, batches, expected, job))
    yield from (Replaced(one) for one in names)


def _keyed_rows(
    summary: ShardSummary, job: ExtractJob
) -> Iterator[tuple[tuple[float, str, int], RowBatch]]:
    """Give a shard's rows in runs that stay together, each with its place in the order."""
    recording_id, chunk, order = "", -1, 0.0
    for batch in read_shard(job.store, summary):
        chunks = np.asarray(batch.columns["chunk_index"])
        names = list(batch.columns["recording_id"])
        begins = [0, *(i for i in range(1, batch.rows) if names[i] != names[i - 1]), batch.rows]
        for start, stop in pairwise(begins):
            # A run that began in the batch before goes on.
            if names[start] != recording_id or chunks[start] - chunk not in (0, 1):
                order = order_of(job.shards.seed, names[start], int(chunks[start]))
            recording_id, chunk = names[start], chunks[stop - 1]
            part = {name: values[start:stop] for name, values in batch.columns.items()}
            yield (order, recording_id, int(chunks[start])), RowBatch(part, batch.mel[start:stop])

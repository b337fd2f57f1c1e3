"""The rows that a view keeps of a shard, and their statistics.

A worker counts the statistics while it writes the rows, and puts them into the view's staging
folder for the launcher. If all rows of a shard are kept, the index has its statistics.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

import numpy as np

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import RowBatch, RowSchema
from melmill.transforms.rows.summaries import FeatureMoments, ShardSummary
from melmill.transforms.shards.tally import Tally
from melmill.transforms.shards.writing import regroup, without
from melmill.transforms.snapshot.totals import Totals, add_moments, training_split
from melmill.transforms.store.folders import Store


def kept_rows(batches: Iterator[RowBatch], refused: Collection[str]) -> Iterator[RowBatch]:
    """Yield the rows of a shard without those of refused recordings.

    The row groups are as large as the first in the shard. Use each before you request the next: if
    rows are left out, they share memory.
    """
    if not refused:
        yield from batches
    elif first := next(batches, None):
        gone = frozenset(refused)
        kept = (without(_with_lists(batch), gone) for batch in chain([first], batches))
        yield from regroup(kept, first.rows)


def _with_lists(batch: RowBatch) -> RowBatch:
    columns = {
        name: values.tolist() if isinstance(values, np.ndarray) else values
        for name, values in batch.columns.items()
    }
    return RowBatch(columns, batch.features)


def counted(batches: Iterable[RowBatch], tally: Tally, schema: RowSchema) -> Iterator[RowBatch]:
    """Yield the batches, and add each to the statistics."""
    for batch in batches:
        tally.count(batch, schema)
        yield batch


def write_counts(output: Store, name: str, split: str, tally: Tally, schema: RowSchema) -> None:
    """Write the statistics of the rows that are kept of a shard."""
    first, *others = (
        FeatureMoments.of(column.name, tally.moments.get(column.name, Moments.empty(column.bands)))
        for column in schema.features
    )
    summary = ShardSummary(
        name=name,
        plan="",
        split=split,
        rows=tally.rows,
        parquet=None,
        tfrecord=None,
        recordings=(),
        failures=(),
        null_labels=tuple(sorted(tally.null_labels)),
        count=first.count,
        mean=first.mean,
        m2=first.m2,
        low=first.low,
        high=first.high,
        distribution=tally.distribution.total(),
        others=tuple(others),
    )
    output.put(_counts(name), summary.to_json())


def add_kept_rows(
    totals: Totals, shards: Iterable[ShardSummary], kept: Mapping[str, int], output: Store
) -> None:
    """Add the statistics of the rows that a view keeps to the totals of its recordings.

    Parameters
    ----------
    totals
        Totals of the recordings that are kept.
    shards
        Shards of the snapshot, in their order.
    kept
        Number of rows that are kept of each shard from which rows are left out.
    output
        Folder of the view.
    """
    train = training_split(totals.splits)
    for shard in shards:
        if shard.name in kept:
            if not kept[shard.name]:
                continue
            shard = ShardSummary.from_json(read_working_file(output, _counts(shard.name)))
        content = totals.split(shard.split)
        content.rows += shard.rows
        content.shards += 1
        content.counter.add(shard.distribution)
        totals.null_labels |= set(shard.null_labels)
        if shard.split == train:
            add_moments(totals, shard)


def read_working_file(output: Store, name: str) -> bytes:
    """Return the content of an export's working file; raise ``DatasetError`` if it is missing."""
    try:
        return output.read(name)
    except FileNotFoundError:
        raise DatasetError(
            f"output {output.root}: {name} is missing: workers on other machines do not share the "
            "folder, or another process removed it; choose an object store, or a folder that all "
            "machines share, and export again"
        ) from None


def _counts(shard: str) -> str:
    return f"staging/shards/{shard}.json"

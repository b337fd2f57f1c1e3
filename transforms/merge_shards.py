"""From small shards to fewer, larger ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count
from melmill.transforms.core.naming import bucket
from melmill.transforms.index.facts import Replaced, Rewritten
from melmill.transforms.index.tables import read_part
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.merging import merge_shards


@dataclass(eq=False)
class MergeShards(beam.PTransform):
    """Merge shards of the snapshot that the job starts from.

    In go the names of those that are merged into one. A retry finds what is finished. Fails
    where a shard is missing or damaged.
    """

    job: ExtractJob

    def expand(
        self, merges: beam.PCollection[tuple[str, ...]]
    ) -> beam.PCollection[Replaced | Rewritten]:
        """Write one merged shard at a time on each worker."""
        return (
            merges
            | "SpreadMerges" >> beam.Reshuffle()
            | "MergeRows" >> beam.ParDo(_Merge(self.job))
        )


class _Merge(ReportingDoFn):
    def __init__(self, job: ExtractJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def process(self, names: tuple[str, ...]) -> Iterator[Replaced | Rewritten]:
        for one in merge_shards(find_summaries(names, self.job), self.job):
            if isinstance(one, Rewritten):
                count("shards_merged", len(names))
                count("rows_carried", one.summary.rows)
                self.progress.add(rows=one.summary.rows)
            yield one
        self.progress.add(shards=1)


def find_summaries(names: tuple[str, ...], job: ExtractJob) -> list[ShardSummary]:
    """Look some shards up in the index that the job starts from."""
    base = job.base
    found = {}
    for part in sorted({bucket(name, base.parts) for name in names}):
        table = read_part(job.store, base.index, "shards", part, ["name", "summary"])
        for name, summary in zip(table["name"].to_pylist(), table["summary"], strict=True):
            if name in names:
                found[name] = ShardSummary.from_json(summary.as_py())
    return [found[name] for name in names]

"""Merges small shards into fewer, larger shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count
from melmill.transforms.core.naming import bucket
from melmill.transforms.index.results import Replaced, Rewritten
from melmill.transforms.index.tables import read_part
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.merging import merge_shards


@dataclass(eq=False)
class MergeShards(beam.PTransform):
    """Merge shards of the snapshot that the job starts from.

    Each input element has the names of shards that are merged into one shard. A retry reuses
    finished shards. The step fails if a shard is missing or damaged.

    Attributes
    ----------
    job
        Job of the run.
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
        for result in merge_shards(find_summaries(names, self.job), self.job):
            if isinstance(result, Rewritten):
                count("shards_merged", len(names))
                count("rows_carried", result.summary.rows)
                self.progress.add(rows=result.summary.rows)
            yield result
        self.progress.add(shards=1)


def find_summaries(names: tuple[str, ...], job: ExtractJob) -> list[ShardSummary]:
    """Return the summaries of shards in the index that the job starts from."""
    base = job.base
    summaries = {}
    for part in sorted({bucket(name, base.parts) for name in names}):
        table = read_part(job.store, base.index, "shards", part, ["name", "summary"])
        for name, summary in zip(table["name"].to_pylist(), table["summary"], strict=True):
            if name in names:
                summaries[name] = ShardSummary.from_json(summary.as_py())
    return [summaries[name] for name in names]

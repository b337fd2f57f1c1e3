"""Rewrites the shards of recordings that changed or were removed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import bucket
from melmill.transforms.index.results import Replaced, Rewritten
from melmill.transforms.index.tables import read_part
from melmill.transforms.plan.change_records import Decision, Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.rewriting import rewrite_shard


@dataclass(eq=False)
class RewriteShards(beam.PTransform):
    """Rewrite the snapshot's shards that hold rows which change or are removed.

    The inputs are collections of :class:`~melmill.transforms.plan.change_records.Touched` rows, and
    last the decision. Other rows are carried over as they are stored. A retry reuses finished
    shards. The step fails if a shard is missing or damaged.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(
        self, found: tuple[beam.PCollection[Any], ...]
    ) -> beam.PCollection[Replaced | Rewritten]:
        """Gather the changes of each shard, then write one shard at a time on each worker."""
        *touched, decision = found
        # Key each collection before the Flatten: Flink's fusion (Beam 2.70) refuses two Flattens
        # in a row.
        keyed = (
            rows | f"KeyByPart{number}" >> beam.Map(_key_by_part, self.job)
            for number, rows in enumerate(touched)
        )
        all_parts = decision | "NameParts" >> beam.FlatMap(_parts_to_visit, self.job)
        return (
            (*keyed, all_parts)
            | "JoinParts" >> beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "FindShards" >> beam.FlatMap(find_shards, self.job)
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteAnew" >> beam.ParDo(_Rewrite(self.job))
        )


def _key_by_part(touched: Touched, job: ExtractJob) -> tuple[int, Touched | None]:
    return bucket(touched.shard, job.base.parts), touched


def _parts_to_visit(_: Decision, job: ExtractJob) -> Iterator[tuple[int, Touched | None]]:
    """Yield the numbers of all parts if all shards must be rewritten."""
    base = job.base
    if base.same_features and not (base.is_nothing or base.same_files):
        yield from ((part, None) for part in range(base.parts))


def find_shards(
    group: tuple[int, Iterable[Touched | None]], job: ExtractJob
) -> Iterator[tuple[ShardSummary, list[Touched]]]:
    """Yield the shards in one part of the index that must be rewritten, with their changes."""
    part, all_touched = group
    touched: defaultdict[str, list[Touched]] = defaultdict(list)
    for change in all_touched:
        if change is not None:
            touched[change.shard].append(change)
    base = job.base
    table = read_part(job.store, base.index, "shards", part, ["name", "summary"])
    for name, summary in zip(table["name"].to_pylist(), table["summary"], strict=True):
        changes = touched.pop(name, None)
        if changes is not None or not base.same_files:
            by_id = sorted(changes or (), key=lambda change: change.recording_id)
            yield ShardSummary.from_json(summary.as_py()), by_id
    if touched:
        raise DatasetError(
            f"{job.store.root}/index/{base.index} contradicts itself: its recordings name the "
            f"shards {', '.join(sorted(touched)[:3])}, but its shards table lacks them"
        )


class _Rewrite(ReportingDoFn):
    def __init__(self, job: ExtractJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def process(self, shard: tuple[ShardSummary, list[Touched]]) -> Iterator[Replaced | Rewritten]:
        for result in rewrite_shard(*shard, self.job):
            if isinstance(result, Replaced):
                count("shards_rewritten")
            else:
                count("rows_carried", result.summary.rows)
            yield result
        self.progress.add(shards=1)

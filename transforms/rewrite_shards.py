"""From recordings that changed or left to their shards without them."""

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
from melmill.transforms.index.facts import Replaced, Rewritten
from melmill.transforms.index.tables import read_part
from melmill.transforms.plan.comparing import Decision, Touched
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.rewriting import rewrite_shard


@dataclass(eq=False)
class RewriteShards(beam.PTransform):
    """Write the snapshot's shards anew that hold rows which do not stay as they are.

    In go collections of :class:`~melmill.transforms.plan.comparing.Touched` rows, then the
    decision. Rows that stay are carried over as they are stored. A retry finds what is finished.
    Fails where a shard is missing or damaged.
    """

    job: ExtractJob

    def expand(
        self, found: tuple[beam.PCollection[Any], ...]
    ) -> beam.PCollection[Replaced | Rewritten]:
        """Gather what is said of a shard, then write one shard at a time on each worker."""
        *touched, decision = found
        # Each by itself, then joined: Flink's fusion (Beam 2.70) refuses two Flattens in a row.
        keyed = (
            rows | f"KeyByPart{number}" >> beam.Map(_key_by_part, self.job)
            for number, rows in enumerate(touched)
        )
        every = decision | "NameParts" >> beam.FlatMap(_parts_to_visit, self.job)
        return (
            (*keyed, every)
            | "JoinParts" >> beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "FindShards" >> beam.FlatMap(find_shards, self.job)
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteAnew" >> beam.ParDo(_Rewrite(self.job))
        )


def _key_by_part(touched: Touched, job: ExtractJob) -> tuple[int, Touched | None]:
    return bucket(touched.shard, job.base.parts), touched


def _parts_to_visit(_: Decision, job: ExtractJob) -> Iterator[tuple[int, Touched | None]]:
    """Name all parts where all shards are to be written anew."""
    base = job.base
    if base.same_features and not (base.is_nothing or base.same_files):
        yield from ((part, None) for part in range(base.parts))


def find_shards(
    group: tuple[int, Iterable[Touched | None]], job: ExtractJob
) -> Iterator[tuple[ShardSummary, list[Touched]]]:
    """Look up the shards of one part of the index that are to be written anew."""
    part, said = group
    touched: defaultdict[str, list[Touched]] = defaultdict(list)
    for one in said:
        if one is not None:
            touched[one.shard].append(one)
    base = job.base
    table = read_part(job.store, base.index, "shards", part, ["name", "summary"])
    for name, summary in zip(table["name"].to_pylist(), table["summary"], strict=True):
        changes = touched.pop(name, None)
        if changes is not None or not base.same_files:
            found = ShardSummary.from_json(summary.as_py())
            yield found, sorted(changes or (), key=lambda one: one.recording_id)
    if touched:
        raise DatasetError(
            f"{job.store.root}/index/{base.index} contradicts itself: it lacks the shards "
            f"{', '.join(sorted(touched)[:3])}, which it says hold recordings"
        )


class _Rewrite(ReportingDoFn):
    def __init__(self, job: ExtractJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def process(self, found: tuple[ShardSummary, list[Touched]]) -> Iterator[Replaced | Rewritten]:
        for one in rewrite_shard(*found, self.job):
            if isinstance(one, Replaced):
                count("shards_rewritten")
            else:
                count("rows_carried", one.summary.rows)
            yield one
        self.progress.add(shards=1)

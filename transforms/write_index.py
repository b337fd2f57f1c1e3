"""Writes the index of a run's snapshot, from the results of all steps."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.combine import CombineEach
from melmill.transforms.core.naming import digest
from melmill.transforms.index.joining import write_index_part
from melmill.transforms.index.results import (
    Carried,
    Fact,
    Result,
    add_digests,
    index_name,
    key_by_part,
    result_digest,
)
from melmill.transforms.plan.change_records import Decision, Dropped
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.shards.receipts import announce_index


@dataclass(eq=False)
class WriteIndex(beam.PTransform):
    """Write the index of a run, and tell the launcher its name.

    The inputs are collections of results: planned recordings, failures before the shards were
    written, summaries of shards; in a refresh, also the changes since the previous snapshot. The
    rest of the previous index is carried over. The index is written to ``index/DIGEST``, where
    ``DIGEST`` depends on all results, so a retry writes the same files again. The last file is the
    outcome, in the run's staging folder; it contains the index's name. The output is that name, as
    one element.

    Attributes
    ----------
    job
        Job of the run.
    decision
        Decision of the run. If there is nothing to do, the snapshot keeps its index.
    """

    job: ExtractJob
    decision: beam.PCollection[Decision]

    def expand(self, results: tuple[beam.PCollection[Any], ...]) -> beam.PCollection[str]:
        """Join recordings, failures and shards by recording, part by part."""
        counted = self.decision | "TakeParts" >> beam.Map(lambda decision: decision.parts)
        parts = beam.pvalue.AsSingleton(counted)
        outcome = beam.pvalue.AsSingleton(self.decision)
        results = (*results, self.decision | "CarryParts" >> beam.FlatMap(_carry, self.job))
        index = beam.pvalue.AsSingleton(
            results
            | "SumDigests" >> CombineEach(_SumDigests())
            | "NameIndex" >> beam.Map(_name, self.job, outcome)
        )
        # Key each collection before the Flatten: Flink's fusion (Beam 2.70) refuses a Flatten
        # before this step.
        keyed = tuple(
            collection | f"KeyByPart{number}" >> beam.FlatMap(key_by_part, parts)
            for number, collection in enumerate(results)
        )
        return (
            keyed
            | "JoinFacts" >> beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "WriteParts" >> beam.FlatMap(_write_announced, index, self.job)
            | "ListParts" >> beam.combiners.ToList()
            | "TellOutcome" >> beam.Map(_write_outcome, index, parts, self.job, outcome)
        )


def _carry(decision: Decision, job: ExtractJob) -> Iterator[Carried]:
    """Yield the parts of the new index into which rows are carried over."""
    if decision.todo:
        # The first part is always written: an index may have no recordings.
        parts = 1 if job.base.is_nothing else decision.parts
        yield from (Carried(decision.parts, part) for part in range(parts))


class _SumDigests(beam.CombineFn):
    def create_accumulator(self) -> int:
        return 0

    def add_input(self, total: int, result: Result) -> int:
        return add_digests((total, result_digest(result)))

    def merge_accumulators(self, totals: Iterable[int]) -> int:
        return add_digests(totals)

    def extract_output(self, total: int) -> int:
        return total


def _name(number: int, job: ExtractJob, decision: Decision) -> str:
    """Return the index's name, which also depends on the index that rows are carried over from."""
    if job.base.is_nothing:
        return index_name(number)
    return _name_after(number, job.base) if decision.todo else job.base.index


def _name_after(number: int, base: Base) -> str:
    return index_name(add_digests((number, int(digest("base", base.index), 16))))


def _write_announced(
    group: tuple[tuple[str, int], Iterable[Fact]], index: str, job: ExtractJob
) -> Iterator[str]:
    announce_index(job, index)
    yield from write_index_part(group, index, job)


def write_index(results: Iterable[Result], job: ExtractJob, base: Base) -> str:
    """Write an index in this process, with a few changes to a snapshot's index; return its name.

    One part of the index is in memory at a time. The index is announced in the job's staging
    folder.
    """
    changes = list(results)
    erased = tuple(sorted(c.recording_id for c in changes if isinstance(c, Dropped)))
    carried = (Carried(base.parts, part, erased) for part in range(base.parts))
    all_results = [*changes, *carried]
    index = _name_after(add_digests(map(result_digest, all_results)), base)
    groups: defaultdict[tuple[str, int], list[Fact]] = defaultdict(list)
    for result in all_results:
        for key, fact in key_by_part(result, base.parts):
            groups[key].append(fact)
    announce_index(job, index)
    for group in sorted(groups.items(), key=lambda group: group[0]):
        list(write_index_part(group, index, replace(job, base=base)))
    return index


def _write_outcome(
    files: list[str], index: str, parts: int, job: ExtractJob, decision: Decision
) -> str:
    outcome: dict[str, Any] = {"index": index, "parts": parts, "files": sorted(files)}
    outcome |= {"todo": decision.todo, "difference": decision.difference.to_json()}
    job.store.put(job.outcome, json.dumps(outcome).encode())
    return index

"""From everything that is known of a run to the index of its snapshot."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.combine import CombineEach
from melmill.transforms.core.naming import digest
from melmill.transforms.index.facts import (
    Carried,
    Fact,
    Result,
    add_digests,
    index_name,
    key_by_part,
    result_digest,
)
from melmill.transforms.index.joining import write_index_part
from melmill.transforms.plan.comparing import Decision
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.shards.receipts import announce_index


@dataclass(eq=False)
class WriteIndex(beam.PTransform):
    """Write the index of a run, and name it for the launcher.

    In go collections of results: planned recordings, failures before any shard, shards'
    summaries; in a refresh, also what differs from the previous snapshot. The rest of the previous
    index is carried over. The index is written to ``index/DIGEST``. The digest is that of all
    results, so a retry writes the same files again. At last the outcome, a file in the run's
    staging folder, names the index. Out comes that name, once.

    Attributes
    ----------
    job
        The run.
    decision
        What the run does; with nothing to do, the index stays the snapshot's.
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
        # Each by itself, then joined: Flink's fusion (Beam 2.70) refuses a Flatten before them.
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
    if decision.todo:
        # The first part is written in any case: an index of no recordings is one, too.
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
    """Name the index, which also depends on the index that rows are carried over from."""
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
    """Write an index in this process: what a few results change in a snapshot's index.

    One part of the index is in memory at a time. Returns the index's name; the job announces it.
    """
    every = [*results, *(Carried(base.parts, part) for part in range(base.parts))]
    index = _name_after(add_digests(map(result_digest, every)), base)
    groups: defaultdict[tuple[str, int], list[Fact]] = defaultdict(list)
    for result in every:
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

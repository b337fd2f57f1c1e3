"""From everything that is known of a run to the index of its snapshot."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from transforms.combine import CombineEach
from transforms.job import ExtractJob
from transforms.planning import PlannedRecording
from transforms.records import Failure
from transforms.storage.index import (
    RECORDINGS_PER_PART,
    failed_row,
    failure_row,
    recording_row,
    shard_row,
    write_part,
)
from transforms.storage.naming import bucket, digest
from transforms.storage.summaries import ShardSummary

Facts = Mapping[str, Iterable[Any]]

_MODULUS = 1 << 128


@dataclass(eq=False)
class WriteIndex(beam.PTransform):
    """Write the index of what a run found and made, and name it for the launcher.

    In go the planned recordings, the failures before any shard, and the shards' summaries.
    The index is written to ``index/DIGEST``, the digest being that of everything in it, so
    a retry writes the same files again; then ``outcome.json`` in the run's staging folder
    names it. Out comes that name, once.
    """

    job: ExtractJob

    def expand(
        self,
        found: tuple[
            beam.PCollection[PlannedRecording],
            beam.PCollection[Failure],
            beam.PCollection[ShardSummary],
        ],
    ) -> beam.PCollection[str]:
        """Join recordings, failures and shards by recording, part by part."""
        digests = tuple(
            facts | f"Digest{number}" >> beam.Map(fact_digest) for number, facts in enumerate(found)
        )
        index = beam.pvalue.AsSingleton(
            digests | "SumDigests" >> CombineEach(_sum_digests, _sum_digests)
        )
        planned, failures, _ = found
        parts = beam.pvalue.AsSingleton(
            (planned, failures)
            | "CountRecordings" >> CombineEach(beam.combiners.CountCombineFn(), sum)
            | "CountParts" >> beam.Map(lambda number: 1 + number // RECORDINGS_PER_PART)
        )
        # Each by itself, then joined: Flink's fusion (Beam 2.70) refuses a Flatten before them.
        keyed = tuple(
            facts | f"KeyByPart{number}" >> beam.FlatMap(key_by_part, parts)
            for number, facts in enumerate(found)
        )
        return (
            keyed
            | "JoinFacts" >> beam.Flatten()
            | "GroupByPart" >> beam.GroupByKey()
            | "WriteParts" >> beam.FlatMap(write_index_part, index, self.job)
            | "ListParts" >> beam.combiners.ToList()
            | "NameIndex" >> beam.Map(_write_outcome, index, self.job)
        )


def fact_digest(fact: PlannedRecording | Failure | ShardSummary) -> int:
    """Digest one thing known of the run, as a number that adds up in any order."""
    text = fact.to_json() if isinstance(fact, ShardSummary) else repr(fact)
    return int(digest(type(fact).__name__, text), 16)


def _sum_digests(numbers: Iterable[int]) -> int:
    return sum(numbers) % _MODULUS


def index_name(number: int) -> str:
    """Name an index by the sum of its facts' digests.

    >>> index_name(255)
    '000000000000000000000000000000ff'
    """
    return f"{number:032x}"


def key_by_part(
    fact: PlannedRecording | Failure | ShardSummary, parts: int
) -> Iterator[tuple[tuple[str, int], Any]]:
    """Send what concerns a recording to the recording's part, and a shard to the shard's."""
    if isinstance(fact, PlannedRecording):
        yield ("recordings", bucket(fact.probed.recording.recording_id, parts)), fact
    elif isinstance(fact, Failure):
        yield ("recordings", bucket(fact.recording_id, parts)), fact
    else:
        yield ("shards", bucket(fact.name, parts)), fact
        for held in fact.recordings:
            entry = held.recording_id, (fact.name, held.rows, held.peak_dbfs)
            yield ("recordings", bucket(held.recording_id, parts)), entry
        for failure in fact.failures:
            yield ("recordings", bucket(failure.recording_id, parts)), failure


def write_index_part(
    group: tuple[tuple[str, int], Iterable[Any]], index: int, job: ExtractJob
) -> Iterator[str]:
    """Write one part of the index; give the names of its files."""
    (kind, part), facts = group
    folder = index_name(index)
    if kind == "shards":
        tables = {"shards": ([shard_row(summary) for summary in facts], "name")}
    else:
        recordings, failures = join_recordings(facts, job.features.digest())
        tables = {
            "recordings": (recordings, "recording_id"),
            "failures": (failures, "recording_id"),
        }
    for table, (rows, key) in tables.items():
        if name := write_part(job.store, folder, table, part, rows, key):
            yield name


def join_recordings(
    facts: Iterable[Any], features_digest: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Say of every recording what became of it.

    Returns
    -------
    recordings, failures
        Rows of the index's tables. A recording that failed more than once is one failure.
    """
    planned: dict[str, PlannedRecording] = {}
    failed: dict[str, Failure] = {}
    held: defaultdict[str, list[tuple[str, int, float]]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact, PlannedRecording):
            planned[fact.probed.recording.recording_id] = fact
        elif isinstance(fact, Failure):
            failed[fact.recording_id] = min(fact, failed.get(fact.recording_id, fact), key=repr)
        else:
            held[fact[0]].append(fact[1])
    recordings = [
        recording_row(one, held[name], features_digest)
        for name, one in planned.items()
        if name not in failed
    ]
    recordings += [
        failed_row(failure, planned.get(name), features_digest) for name, failure in failed.items()
    ]
    return recordings, [failure_row(failure) for failure in failed.values()]


def _write_outcome(parts: list[str], index: int, job: ExtractJob) -> str:
    name = index_name(index)
    outcome = {"index": name, "parts": sorted(parts)}
    job.store.put(f"{job.staging}/outcome.json", json.dumps(outcome).encode())
    return name

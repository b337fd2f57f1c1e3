"""Exports a snapshot to a view in another layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import itemgetter
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count
from melmill.transforms.index.tables import count_parts, read_batches
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.normalization import BandsOf
from melmill.transforms.snapshot.totals import ordered_shards
from melmill.transforms.views.exports import ExportJob, ExportShard, export_shard, measure_shared
from melmill.transforms.views.selection_plan import read_plan, refused_in_part


@dataclass(eq=False)
class ExportShards(beam.PTransform):
    """Write the view's files for each shard of a snapshot.

    The input is one element with any value (see
    :class:`~melmill.transforms.check_workers.CheckWorkers`). The output is the names of the
    files. A retry writes the same files again.

    Attributes
    ----------
    job
        Description of the export.
    """

    job: ExportJob

    def expand(self, start: beam.PCollection[str]) -> beam.PCollection[str]:
        """Number the shards of each split, then write them on all workers."""
        named = start | "NameView" >> beam.Map(lambda _, job: job, self.job)
        listed = named | "ListShards" >> beam.FlatMap(list_export_shards)
        if self.job.select:
            listed = _with_refused(listed, named, self.job)
        shards = listed | "SpreadShards" >> beam.Reshuffle()
        if self.job.normalize != "per_recording":
            return shards | "WriteFiles" >> beam.ParDo(_ExportShard(self.job))
        # Recordings in only one shard are measured when that shard is written.
        parted = beam.pvalue.AsSingleton(
            named
            | "ListParted" >> beam.FlatMap(list_parted_recordings)
            | "GatherParted" >> beam.CombineGlobally(_gather)
        )
        moments = (
            shards
            | "MeasureParts" >> beam.FlatMap(_measure_parts, self.job, parted)
            | "GroupParts" >> beam.GroupByKey()
            | "MergeParts" >> beam.MapTuple(_merge_parts)
        )
        return shards | "WriteFiles" >> beam.ParDo(
            _ExportShard(self.job), beam.pvalue.AsDict(moments)
        )


def list_export_shards(job: ExportJob) -> Iterator[ExportShard]:
    """Yield the snapshot's shards, numbered within their splits, in the order of its index.

    Shards of which a selection leaves out all rows have no number. The recordings that it refuses
    are not listed.
    """
    kept = read_plan(job)
    counts: Counter[str] = Counter()
    for shard in ordered_shards(job.dataset, job.index):
        counts[shard.split] += kept.get(shard.name, shard.rows) > 0
    numbers: Counter[str] = Counter()
    for shard in ordered_shards(job.dataset, job.index):
        rows = kept.get(shard.name, shard.rows)
        if shard.parquet is not None and rows:
            number = numbers[shard.split]
            numbers[shard.split] += 1
            shard_count = counts[shard.split]
            entries = shard.parquet, shard.tfrecord
            yield ExportShard(shard.split, number, shard_count, rows, *entries, shard.name)


def _with_refused(
    listed: beam.PCollection[ExportShard], named: beam.PCollection[ExportJob], job: ExportJob
) -> beam.PCollection[ExportShard]:
    """Return the shards with the recordings that the selection refuses."""
    refused = (
        named
        | "ListParts" >> beam.FlatMap(_list_parts)
        | "SpreadParts" >> beam.Reshuffle()
        | "RefuseRecordings" >> beam.FlatMap(refused_in_part, job)
    )
    shards = listed | "KeyShards" >> beam.Map(_with_key)
    return (
        {"shards": shards, "refused": refused}
        | "GroupRefused" >> beam.CoGroupByKey()
        | "LeaveOut" >> beam.FlatMapTuple(_leave_out)
    )


def _list_parts(job: ExportJob) -> Iterator[int]:
    yield from range(count_parts(job.dataset, job.index))


def _with_key(shard: ExportShard) -> tuple[str, ExportShard]:
    return shard.name, shard


def _leave_out(name: str, grouped: Mapping[str, Iterable[Any]]) -> Iterator[ExportShard]:
    for shard in grouped["shards"]:  # none if all rows of the shard are left out
        yield replace(shard, refused=tuple(sorted(grouped["refused"])))


def list_parted_recordings(job: ExportJob) -> Iterator[str]:
    """Yield the ids of recordings in more than one shard: at most as many ids as shards."""
    for batch in read_batches(job.dataset, job.index, "recordings", ["recording_id", "shards"]):
        columns = (batch.column(name).to_pylist() for name in ("recording_id", "shards"))
        for name, shards in zip(*columns, strict=True):
            if len(shards) > 1:
                yield name


def _gather(names: Iterable[Any]) -> frozenset[str]:
    gathered: set[str] = set()
    for name in names:
        # Beam also passes sets that earlier calls returned.
        gathered |= {name} if isinstance(name, str) else name
    return frozenset(gathered)


def _measure_parts(
    shard: ExportShard, job: ExportJob, parted: frozenset[str]
) -> Iterator[tuple[BandsOf, tuple[str, Moments]]]:
    for key, moments in measure_shared(shard, job, parted).items():
        yield key, (shard.parquet.name, moments)


def _merge_parts(key: BandsOf, parts: Iterable[tuple[str, Moments]]) -> tuple[BandsOf, Moments]:
    # Always in the same order, so that sums have the same bits.
    ordered = sorted(parts, key=itemgetter(0))
    return key, reduce(Moments.merge, (moments for _, moments in ordered))


class _ExportShard(ReportingDoFn):
    def __init__(self, job: ExportJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def process(
        self, shard: ExportShard, shared: Mapping[BandsOf, Moments] | None = None
    ) -> Iterator[str]:
        yield from export_shard(shard, self.job, shared)
        count("shards_exported")
        count("rows_exported", shard.rows)
        self.progress.add(exported=1, rows=shard.rows)

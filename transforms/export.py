"""From a snapshot to a view of it in another layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from transforms.metrics import Progress, count
from transforms.storage.exports import ExportJob, ExportShard, export_shard
from transforms.storage.totals import ordered_shards


@dataclass(eq=False)
class ExportShards(beam.PTransform):
    """Write what each shard of a snapshot becomes.

    Out come the names of the files. A retry writes the same files again.
    """

    job: ExportJob

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[str]:
        """Number the shards of each split, then write them on all workers."""
        return (
            pipeline
            | "NameView" >> beam.Create([self.job])
            | "ListShards" >> beam.FlatMap(list_export_shards)
            | "SpreadShards" >> beam.Reshuffle()
            | "WriteFiles" >> beam.ParDo(_ExportShard(self.job))
        )


def list_export_shards(job: ExportJob) -> Iterator[ExportShard]:
    """Number the snapshot's shards within their splits, in the order of its index."""
    counts: Counter[str] = Counter()
    for shard in ordered_shards(job.dataset, job.index):
        counts[shard.split] += 1
    numbers: Counter[str] = Counter()
    for shard in ordered_shards(job.dataset, job.index):
        if shard.parquet is not None:
            number = numbers[shard.split]
            numbers[shard.split] += 1
            count_of = counts[shard.split]
            entries = shard.parquet, shard.tfrecord
            yield ExportShard(shard.split, number, count_of, shard.rows, *entries)


class _ExportShard(beam.DoFn):
    def __init__(self, job: ExportJob) -> None:
        self.job = job

    def setup(self) -> None:
        self.progress = Progress(self.job.progress)

    def process(self, shard: ExportShard) -> Iterator[str]:
        yield from export_shard(shard, self.job)
        count("shards_exported")
        self.progress.add(exported=1, rows=shard.rows)

    def finish_bundle(self) -> None:
        self.progress.tell()

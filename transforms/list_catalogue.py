"""Lists the recordings of a catalogue, divided among parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.do_fns import ReportingDoFn
from melmill.transforms.beam.metrics import count_passed_over, count_recordings
from melmill.transforms.catalogue.parts import catalogue_parts
from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import Recording
from melmill.transforms.index.tables import recordings_per_part
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.listing import (
    list_blocks,
    look_up_versions,
    pack_recordings,
    unpack_recordings,
)

#: A part of the listing: its number, and packed recordings, which may be empty.
Part = tuple[int, Iterable[bytes]]


@dataclass(eq=False)
class ListCatalogue(beam.PTransform):
    """List the catalogue, and divide its recordings among parts, as an index does.

    The input is one element with any value. The outputs are the parts, also those without
    recordings, and the number of parts. A retry lists again; all uses see one listing.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(
        self, start: beam.PCollection[str]
    ) -> tuple[beam.PCollection[Part], beam.PCollection[int]]:
        """List recordings in blocks, count them, and deal them out."""
        blocks = (
            start
            | "NameCatalogue" >> beam.Map(lambda _, catalogue: catalogue, self.job.catalogue)
            | "ListParts" >> beam.FlatMap(catalogue_parts)
            | "SpreadParts" >> beam.Reshuffle()
            | "ListRecordings" >> beam.ParDo(_List(self.job))
            # A catalogue may change: counts and comparison must use the same listing.
            | "KeepListing" >> beam.Reshuffle()
        )
        parts = (
            blocks
            | "CountListed" >> beam.Map(lambda block: block[0])
            | "SumListed" >> beam.CombineGlobally(sum)
            | "CountParts" >> beam.Map(_count_parts, self.job)
        )
        number = beam.pvalue.AsSingleton(parts)
        dealt = blocks | "DealRecordings" >> beam.FlatMap(_deal, number)
        # Also parts without listed recordings, because their known recordings were removed.
        all_parts = parts | "NameParts" >> beam.FlatMap(
            lambda parts: [(n, b"") for n in range(parts)]
        )
        joined = (dealt, all_parts) | "JoinParts" >> beam.Flatten()
        return joined | "GroupByPart" >> beam.GroupByKey(), parts


class _List(ReportingDoFn):
    """Lists a part in blocks."""

    def __init__(self, job: ExtractJob) -> None:
        super().__init__(job.progress)
        self.job = job

    def setup(self) -> None:
        super().setup()
        self.left_out, self.extensions = self.job.left_out(), set[str]()

    def process(self, part: Any) -> Iterator[tuple[int, bytes]]:
        passed_over: Counter[str] = Counter()
        for listed in list_blocks(self.job, part, self.left_out, passed_over):
            block = look_up_versions(self.job, listed)
            count_recordings("list", len(block), len(block))
            self.progress.add(listed=len(block))
            yield len(block), pack_recordings(block)
        for extension, number in passed_over.items():
            count_passed_over(extension, number, self.extensions)


def _count_parts(listed: int, job: ExtractJob) -> int:
    """Return a suitable number of parts for a catalogue: a multiple of the snapshot's number."""
    base, most = job.base.parts, 2 * recordings_per_part(job.meters)
    return base * max(1, -(-listed // (most * base)))


def _deal(block: tuple[int, bytes], parts: int) -> Iterator[tuple[int, bytes]]:
    """Yield the recordings of a block, packed by the part that they belong to."""
    dealt: defaultdict[int, list[Recording]] = defaultdict(list)
    for recording in unpack_recordings(block[1]):
        dealt[bucket(recording.recording_id, parts)].append(recording)
    for part, recordings in dealt.items():
        yield part, pack_recordings(recordings)

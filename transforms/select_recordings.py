"""Measures recordings before their shards are planned, and selects by the readings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam

from melmill.transforms.beam.do_fns import DecodingDoFn
from melmill.transforms.beam.metrics import count_failure, count_recordings
from melmill.transforms.beam.outputs import FAILURES, tag_failures
from melmill.transforms.core.records import Failure
from melmill.transforms.features.spans import FETCHED_AHEAD
from melmill.transforms.measures.expressions import selection_of
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.shards.selecting import select_recording

#: Number of recordings in a batch, so that a worker knows which recordings come next.
_TOGETHER = 8


@dataclass(eq=False)
class SelectRecordings(beam.PTransform):
    """Measure the recordings whose readings are not known, and select by all readings.

    Without a selection all are selected: what is looked for are duplicates.

    The outputs are the planned recordings, without chunks if they are refused, and, tagged
    ``failures``, :class:`~melmill.transforms.core.records.Failure`. A retry measures again.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(self, planned: beam.PCollection[PlannedRecording]) -> beam.pvalue.DoOutputsTuple:
        """Decode in a decoder process on each worker."""
        batched = beam.BatchElements(min_batch_size=_TOGETHER, max_batch_size=_TOGETHER)
        return (
            planned
            | "SpreadPlanned" >> beam.Reshuffle()
            | "BatchPlanned" >> batched
            | "Select" >> beam.ParDo(_Select(self.job))
            # A second decode may fail differently: all uses must see the same attempt.
            | "KeepSelected" >> beam.Reshuffle()
            | "PartFailures" >> beam.ParDo(tag_failures).with_outputs(FAILURES, main="recordings")
        )


class _Select(DecodingDoFn):
    def setup(self) -> None:
        super().setup()
        self.selection = selection_of(self.job.select) if self.job.select else None

    def process(self, batch: list[PlannedRecording]) -> Iterator[PlannedRecording | Failure]:
        recordings = [planned.probed.recording for planned in batch]
        for number, planned in enumerate(batch, 1):
            upcoming = [
                recording
                for recording in recordings[number : number + FETCHED_AHEAD]
                if not recording.measures
            ]
            result = select_recording(planned, self.selection, self.job, self.decoder, upcoming)
            self.progress.add(measured=1)
            if isinstance(result, Failure):
                count_recordings("select", 1, 0)
                count_failure(result.cause)
                self.progress.add(failed=1)
            else:
                count_recordings("select")
            yield result

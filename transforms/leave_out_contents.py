"""Leaves out recordings whose content was taken down under another name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from melmill.transforms.catalogue.left_out import TAKEN_DOWN
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.plan.change_records import Decision
from melmill.transforms.plan.finding_changes import is_todo
from melmill.transforms.plan.job import ExtractJob


@dataclass(eq=False)
class LeaveOutContents(beam.PTransform):
    """Leave out recordings whose content was taken down under another name.

    The input is the probed recordings. The outputs are the recordings that stay, and those that are
    left out (``None`` if contents are not known), for :func:`leave_out`. A retry gives the same
    result.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(
        self, probed: beam.PCollection[ProbedRecording]
    ) -> tuple[beam.PCollection[ProbedRecording], beam.PCollection[Recording] | None]:
        """Separate the recordings to leave out."""
        if not (self.job.content_hashes and self.job.taken_down):
            return probed, None
        parted = probed | "PartContents" >> beam.ParDo(_PartContents(self.job)).with_outputs(
            TAKEN_DOWN, main="recordings"
        )
        return parted["recordings"], parted[TAKEN_DOWN]


class _PartContents(beam.DoFn):
    def __init__(self, job: ExtractJob) -> None:
        self.job = job

    def setup(self) -> None:
        self.left_out = self.job.left_out()

    def process(self, probed: ProbedRecording) -> Iterator[Any]:
        recording = probed.recording
        if not self.left_out.holds_content(recording.content_hash):
            yield probed
        else:
            yield beam.pvalue.TaggedOutput(TAKEN_DOWN, recording)


def leave_out(decision: Decision, erased: Iterable[Recording], job: ExtractJob) -> Decision:
    """Return the decision with some recordings counted as taken down, not as read."""
    difference = decision.difference.copy()
    for recording in sorted(erased, key=lambda recording: recording.recording_id):
        difference.leave_out(recording, TAKEN_DOWN)
    todo = decision.todo and (job.base.is_nothing or is_todo(difference, job.base))
    return replace(decision, difference=difference, todo=todo)

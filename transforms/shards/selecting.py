"""Selects a recording by its measures, before its shard is planned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.records import Failure, Recording
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.measures.expressions import Selection
from melmill.transforms.measures.spans import measure_spans
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import row_bytes
from melmill.transforms.plan.recordings import PlannedRecording, plan_recording, read_again


def select_recording(
    planned: PlannedRecording,
    selection: Selection | None,
    job: ExtractJob,
    decoder: DecoderProcess,
    upcoming: Sequence[Recording] = (),
) -> PlannedRecording | Failure:
    """Return a recording with its readings, without chunks if the selection refuses it.

    A recording whose readings are not known yet is decoded. If the decode gives another length than
    the header, or damage is to be kept, the recording is planned again.

    Parameters
    ----------
    planned
        Recording; one without chunks is returned as it is.
    selection
        Expression that decides; ``None`` selects all.
    job, decoder
        Job of the run, and the decoder process.
    upcoming
        Recordings that are fetched meanwhile if they are remote.
    """
    recording = planned.probed.recording
    if not planned.chunks:
        return planned
    try:
        if not recording.measures:
            planned = _measured(planned, job, decoder, upcoming)
    except RecordingError as error:
        failure = Failure.of(recording, error)
        again = read_again(recording, failure, job.limits.damaged)
        if again is None:
            return failure
        try:
            replanned = plan_recording(again, job.features, job.split, job.limits.max_seconds)
            if not replanned.chunks:
                return replanned
            planned = _measured(replanned, job, decoder, ())
        except RecordingError as later_error:
            return Failure.of(recording, later_error)
    if selection is None:
        return planned
    readings = json.loads(planned.probed.recording.measures)
    refused_by = selection.refused_by(lambda name: _reading(readings, name))
    return replace(planned, chunks=0, deselected_by=refused_by) if refused_by else planned


def _measured(
    planned: PlannedRecording,
    job: ExtractJob,
    decoder: DecoderProcess,
    upcoming: Sequence[Recording],
) -> PlannedRecording:
    """Return a recording with its readings as JSON; raise ``RecordingError`` if it is damaged."""
    probed, source = planned.probed, job.source(planned.probed.recording)
    # Local files are not fetched: their paths would go to the decoder process for nothing.
    sources = (job.source(recording) for recording in upcoming)
    remote = [stored for stored in sources if stored.local_path is None]
    span = Span(probed, planned.origin_sample, planned.samples, 0, planned.chunks)
    what = [span], [source], job.features, job.meters, remote
    # A whole recording may take the time of all spans that it is extracted in.
    spans = -(-planned.rows * row_bytes(job.features) // job.shards.target_bytes)
    (part,) = decoder.call(spans * job.limits.timeout_s, measure_spans, *what)
    recording = replace(probed.recording, measures=part.text)
    return replace(planned, probed=replace(probed, recording=recording))


def _reading(readings: dict[str, dict[str, object]], name: str) -> object:
    group, own = name.split(".")
    return (readings.get(group) or {}).get(own)

"""Reads the headers of recordings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam

from melmill.transforms.beam.do_fns import DecodingDoFn
from melmill.transforms.beam.metrics import count, count_failure, count_recordings, observe_ms
from melmill.transforms.beam.outputs import FAILURES, tag_failures
from melmill.transforms.core.errors import RecordingError, Stage
from melmill.transforms.core.records import Failure, ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_object
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.recordings import read_again
from melmill.transforms.store.objects import MOST_HEADERS, hash_content

#: Number of recordings in a batch, so that a worker knows which recordings come next.
_TOGETHER = 64


@dataclass(eq=False)
class ProbeRecordings(beam.PTransform):
    """Read every recording's header.

    The outputs are :class:`~melmill.transforms.core.records.ProbedRecording` and, tagged
    ``failures``, :class:`~melmill.transforms.core.records.Failure`. A retry reads the headers
    again.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(self, recordings: beam.PCollection[Recording]) -> beam.pvalue.DoOutputsTuple:
        """Read headers in a decoder process on each worker."""
        batched = beam.BatchElements(min_batch_size=_TOGETHER, max_batch_size=_TOGETHER)
        return (
            recordings
            # A few tasks compared the catalogue; all workers read headers.
            | "SpreadRecordings" >> beam.Reshuffle()
            | "BatchRecordings" >> batched
            | "ReadHeaders" >> beam.ParDo(_Probe(self.job))
            # A second read may give another result: all uses must see the same attempt.
            | "KeepHeaders" >> beam.Reshuffle()
            | "PartFailures" >> beam.ParDo(tag_failures).with_outputs(FAILURES, main="recordings")
        )


class _Probe(DecodingDoFn):
    def process(self, recordings: list[Recording]) -> Iterator[ProbedRecording | Failure]:
        for number, recording in enumerate(recordings):
            upcoming = recordings[number + 1 : number + 1 + MOST_HEADERS]
            yield self._probe(recording, upcoming)

    def _probe(self, recording: Recording, upcoming: list[Recording]) -> ProbedRecording | Failure:
        started = time.perf_counter()
        try:
            probed = probe_recording(recording, self.job, self.decoder, upcoming)
        except RecordingError as error:
            result = self._read_again(self.job.in_its_version(recording), error)
            if isinstance(result, Failure):
                count_recordings("probe", 1, 0)
                count_failure(result.cause)
                self.progress.add(failed=1)
                return result
            probed = result
        observe_ms("probe_ms", time.perf_counter() - started)
        count_recordings("probe")
        count("audio_ms_probed", round(1000 * probed.seconds))
        self.progress.add(seconds_listed=probed.seconds)
        return probed

    def _read_again(self, seen: Recording, error: RecordingError) -> ProbedRecording | Failure:
        """Return the usable part of a recording whose header failed, or the failure."""
        failure = Failure.of(seen, error)
        again = read_again(seen, failure, self.job.limits.damaged)
        if again is None or (segment := _segment(seen, self.job)) is None:
            return again or failure
        try:
            limit, source = self.job.limits.timeout_s, self.job.source(seen)
            content_hash = self.decoder.call(limit, hash_content, source, segment)
        except RecordingError as hash_error:
            return Failure.of(seen, hash_error)
        return replace(again, recording=replace(seen, content_hash=content_hash))


def probe_recording(
    recording: Recording,
    job: ExtractJob,
    decoder: DecoderProcess,
    upcoming: Sequence[Recording] = (),
) -> ProbedRecording:
    """Return a recording with its header, which a decoder process reads.

    Meanwhile, the headers of upcoming recordings are fetched if they are remote.

    Raises
    ------
    RecordingError
        If the header cannot be read.
    """
    if recording.fault is not None:
        raise RecordingError(Stage.LIST, *recording.fault)
    source = job.source(recording)
    # Local files are not fetched: their paths would go to the decoder process for nothing.
    sources = (job.source(r) for r in upcoming if r.fault is None)
    remote = [stored for stored in sources if stored.local_path is None]
    try:
        audio, size_bytes, fingerprint, content_hash = decoder.call(
            job.limits.timeout_s, probe_object, source, remote, _segment(recording, job)
        )
    except RecordingError as error:
        if error.stage is Stage.READ:
            raise
        # If the decoder process crashes or times out, its error does not know the stage.
        raise RecordingError(Stage.PROBE, error.cause, error.message, error.audio) from error
    seen = replace(
        recording, size_bytes=size_bytes, fingerprint=fingerprint, content_hash=content_hash
    )
    return ProbedRecording(seen, audio)


def _segment(recording: Recording, job: ExtractJob) -> str | None:
    """Return the recording's segment as text, for its content hash; ``None`` if none is needed."""
    if not job.content_hashes:
        return None
    return f"@{recording.start_seconds}-{recording.end_seconds}" if recording.is_segment else ""

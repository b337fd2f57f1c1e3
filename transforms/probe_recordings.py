"""From recordings to what their headers say."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import apache_beam as beam

from melmill.transforms.beam.do_fns import DecodingDoFn
from melmill.transforms.beam.metrics import count, count_failure, count_recordings, observe_ms
from melmill.transforms.beam.outputs import FAILURES
from melmill.transforms.core.errors import RecordingError, Stage
from melmill.transforms.core.records import Failure, ProbedRecording, Recording
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.decode.media import probe_object
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.planning import read_again
from melmill.transforms.store.objects import MOST_HEADERS, hash_content

#: Recordings that are handed on together, so that it is known which are upcoming.
_TOGETHER = 64


@dataclass(eq=False)
class ProbeRecordings(beam.PTransform):
    """Read every recording's header.

    Out come :class:`~melmill.transforms.core.records.ProbedRecording` and, tagged ``failures``,
    :class:`~melmill.transforms.core.records.Failure`. A retry reads again.
    """

    job: ExtractJob

    def expand(self, recordings: beam.PCollection[Recording]) -> beam.pvalue.DoOutputsTuple:
        """Probe in a decoder process of each worker."""
        batched = beam.BatchElements(min_batch_size=_TOGETHER, max_batch_size=_TOGETHER)
        return (
            recordings
            # A few tasks have compared the catalogue; all of them read headers.
            | "SpreadRecordings" >> beam.Reshuffle()
            | "BatchRecordings" >> batched
            | "ReadHeaders" >> beam.ParDo(_Probe(self.job))
            # Read again, a header may fail otherwise: all uses must be of the same attempt.
            | "KeepHeaders" >> beam.Reshuffle()
            | "PartFailures" >> beam.ParDo(_part).with_outputs(FAILURES, main="recordings")
        )


def _part(found: ProbedRecording | Failure) -> Iterator[ProbedRecording | beam.pvalue.TaggedOutput]:
    yield beam.pvalue.TaggedOutput(FAILURES, found) if isinstance(found, Failure) else found


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
            found = self._read_again(self.job.in_its_version(recording), error)
            if isinstance(found, Failure):
                count_recordings("probe", 1, 0)
                count_failure(found.cause)
                self.progress.add(listed=1, failed=1)
                return found
            probed = found
        observe_ms("probe_ms", time.perf_counter() - started)
        count_recordings("probe")
        count("audio_ms_probed", round(1000 * probed.seconds))
        self.progress.add(listed=1, seconds_listed=probed.seconds)
        return probed

    def _read_again(self, seen: Recording, error: RecordingError) -> ProbedRecording | Failure:
        """Give what is used of a recording in spite of its header, if anything is."""
        failure = Failure.of(seen, error)
        again = read_again(seen, failure, self.job.limits.damaged)
        if again is None or (segment := _segment(seen, self.job)) is None:
            return again or failure
        try:
            limit, source = self.job.limits.timeout_s, self.job.source(seen)
            found = self.decoder.call(limit, hash_content, source, segment)
        except RecordingError as unread:
            return Failure.of(seen, unread)
        return replace(again, recording=replace(seen, content_hash=found))


def probe_recording(
    recording: Recording,
    job: ExtractJob,
    decoder: DecoderProcess,
    upcoming: Sequence[Recording] = (),
) -> ProbedRecording:
    """Read a recording's header in a decoder process; ``RecordingError`` if it cannot be.

    The headers of those that are upcoming are fetched meanwhile, where they are remote.
    """
    if recording.fault is not None:
        raise RecordingError(Stage.LIST, *recording.fault)
    source = job.source(recording)
    # Local ones would only be carried over to the decoder process and back.
    sources = (job.source(one) for one in upcoming if one.fault is None)
    remote = [one for one in sources if one.local_path is None]
    try:
        audio, size_bytes, fingerprint, content_hash = decoder.call(
            job.limits.timeout_s, probe_object, source, remote, _segment(recording, job)
        )
    except RecordingError as error:
        if error.stage is Stage.READ:
            raise
        # What ends a decoder process does not know what it was asked for.
        raise RecordingError(Stage.PROBE, error.cause, error.message, error.audio) from error
    seen = replace(
        recording, size_bytes=size_bytes, fingerprint=fingerprint, content_hash=content_hash
    )
    return ProbedRecording(seen, audio)


def _segment(recording: Recording, job: ExtractJob) -> str | None:
    """Say which segment of its content a recording is; ``None`` where that is not asked for."""
    if not job.content_hashes:
        return None
    start, end = recording.start_seconds, recording.end_seconds
    return "" if start is None and end is None else f"@{start}-{end}"

"""A recording is measured, and selected or refused, before its shard is planned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import Failure, MeasuredPart, ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.measures.expressions import Selection
from melmill.transforms.measures.measuring import measure_recording
from melmill.transforms.measures.registry import by_group
from melmill.transforms.measures.spans import measure_spans
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import row_bytes
from melmill.transforms.plan.recordings import PlannedRecording, plan_recording
from melmill.transforms.shards.selecting import select_recording
from melmill.transforms.store.objects import StoredObject
from tests import signals
from tests.plans import planned, recording
from tests.shard_rows import job_of_rows

QUIET = Selection("level.peak < -6 and level.rms < -20")
LOUD_READINGS, QUIET_READINGS = (
    json.dumps({"level": {"peak": peak, "rms": -30.0}}) for peak in (-1.0, -7.0)
)


class Decoder(DecoderProcess):
    """A stand-in that returns readings, or raises errors, one for each call."""

    def __init__(self, *results: str | RecordingError) -> None:
        self.results = list(results)
        self.calls: list[tuple[float, list[Any]]] = []

    def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
        assert function is measure_spans
        self.calls.append((timeout_s, list(arguments)))
        result = self.results.pop(0)
        if isinstance(result, RecordingError):
            raise result
        return [MeasuredPart("", 0, 1, 1, result)]


class InThisProcess(DecoderProcess):
    """Measures in the test's process."""

    def __init__(self) -> None:
        pass

    def call(self, _: float, function: Any, /, *arguments: Any, **__: Any) -> Any:
        return function(*arguments)


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return replace(job_of_rows(tmp_path), meters=("level",))


def with_measures(planned: PlannedRecording, measures: str) -> PlannedRecording:
    song = replace(planned.probed.recording, measures=measures)
    return replace(planned, probed=replace(planned.probed, recording=song))


def measures_of(planned: PlannedRecording | Failure) -> str:
    assert isinstance(planned, PlannedRecording)
    return planned.probed.recording.measures


def select(
    song: PlannedRecording,
    job: ExtractJob,
    *results: str | RecordingError,
    upcoming: Sequence[Recording] = (),
) -> tuple[PlannedRecording | Failure, Decoder]:
    decoder = Decoder(*results)
    return select_recording(song, QUIET, job, decoder, upcoming), decoder


def test_a_recording_is_measured_as_a_whole(job: ExtractJob, tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "song.wav", signals.song(3.25, 2000, 1, 2), 2000)
    source = StoredObject(str(path))
    size_bytes, version = source.stat()
    listed = Recording("id", str(path), "song.wav", version, size_bytes)
    probed = ProbedRecording(listed, probe_audio(source))
    song = plan_recording(probed, job.features, job.split, 100)
    _, readings = measure_recording(source, job.meters)
    limit = readings["level.peak"]
    for expression, refused_by in (
        (f"level.peak <= {limit}", ""),
        (f"level.peak < {limit}", "level.peak"),
    ):
        selected = select_recording(song, Selection(expression), job, InThisProcess())
        assert isinstance(selected, PlannedRecording)
        assert json.loads(measures_of(selected)) == by_group(readings)
        assert (selected.chunks, selected.deselected_by) == (0 if refused_by else 4, refused_by)
        assert replace(selected, chunks=4, deselected_by="") == song


def test_the_decoder_gets_the_whole_recording_and_what_is_measured(job: ExtractJob) -> None:
    song = replace(planned("a.wav"), origin_sample=500)
    selected, decoder = select(song, job, QUIET_READINGS)
    assert selected == song
    assert measures_of(selected) == QUIET_READINGS
    ((_, arguments),) = decoder.calls
    spans, sources, *others = arguments
    assert spans == [Span(song.probed, 500, 10_000, 0, 10)]
    assert sources == [job.source(song.probed.recording)]
    assert others == [job.features, ("level",), []]


def test_only_remote_recordings_are_fetched_in_advance(job: ExtractJob) -> None:
    local, remote = recording("b.wav"), replace(recording("c.wav"), uri="memory://songs/c.wav")
    _, decoder = select(planned(), job, QUIET_READINGS, upcoming=[local, remote])
    assert decoder.calls[0][1][-1] == [job.source(remote)]


@pytest.mark.parametrize(("row_bytes_per_shard", "spans"), [(100, 1), (10, 1), (9, 2), (1, 10)])
def test_a_long_recording_has_the_time_of_all_its_spans(
    job: ExtractJob, row_bytes_per_shard: int, spans: int
) -> None:
    target = row_bytes(job.features) * row_bytes_per_shard
    limited_job = replace(job, shards=replace(job.shards, target_bytes=target))
    _, decoder = select(planned(chunks=5, rows_per_chunk=2), limited_job, QUIET_READINGS)
    assert [timeout_s for timeout_s, _ in decoder.calls] == [spans * job.limits.timeout_s]


@pytest.mark.parametrize(
    ("measures", "refused_by"),
    [
        (QUIET_READINGS, ""),
        (LOUD_READINGS, "level.peak"),
        ('{"level": {"peak": -9.0}}', "level.rms"),
        ('{"level": null}', "level.peak"),
        ('{"clipping": {"share": 0.0}}', "level.peak"),
    ],
)
def test_known_readings_decide_without_a_decode(
    job: ExtractJob, measures: str, refused_by: str
) -> None:
    song = with_measures(planned(), measures)
    selected, decoder = select(song, job)
    assert decoder.calls == []
    chunks = 0 if refused_by else song.chunks
    assert selected == replace(song, chunks=chunks, deselected_by=refused_by)
    assert measures_of(selected) == measures


def test_a_recording_without_chunks_is_not_measured(job: ExtractJob) -> None:
    song = planned(chunks=0)
    selected, decoder = select(song, job)
    assert selected is song
    assert decoder.calls == []


def longer(song: PlannedRecording, seconds: float, cause: Cause) -> RecordingError:
    """Return the error of a decode that found this many seconds of audio."""
    frames = round(seconds * song.probed.audio.sample_rate_hz)
    audio = replace(song.probed.audio, frames=frames)
    return RecordingError(Stage.DECODE, cause, f"{seconds} s", audio)


@pytest.mark.parametrize("seconds", [7, 12])
def test_a_recording_of_another_length_is_planned_and_measured_again(
    job: ExtractJob, seconds: int
) -> None:
    song, upcoming = planned(), replace(recording("c.wav"), uri="memory://songs/c.wav")
    error = longer(song, seconds, Cause.LENGTH_MISMATCH)
    selected, decoder = select(song, job, error, LOUD_READINGS, upcoming=[upcoming])
    assert error.audio is not None
    probed = ProbedRecording(song.probed.recording, error.audio)
    again = plan_recording(probed, job.features, job.split, 100)
    assert again.chunks == seconds
    assert selected == replace(again, chunks=0, deselected_by="level.peak")
    assert measures_of(selected) == LOUD_READINGS
    first, second = (arguments for _, arguments in decoder.calls)
    assert second[0] == [Span(probed, 0, again.samples, 0, seconds)]
    # They were fetched in the first decode.
    assert (first[-1], second[-1]) == ([job.source(upcoming)], [])


def test_a_recording_that_turns_out_to_be_too_short_is_not_measured_again(
    job: ExtractJob,
) -> None:
    features = replace(job.features, chunk=replace(job.features.chunk, short="drop"))
    song = planned()
    error = longer(song, 0.5, Cause.LENGTH_MISMATCH)
    selected, decoder = select(song, replace(job, features=features), error)
    assert isinstance(selected, PlannedRecording)
    assert (selected.chunks, selected.deselected_by, selected.probed.audio) == (0, "", error.audio)
    assert len(decoder.calls) == 1


@pytest.mark.parametrize("damaged", ["fail", "keep"])
def test_what_is_before_the_damage_is_measured_if_it_is_kept(job: ExtractJob, damaged: Any) -> None:
    song = planned()
    error = longer(song, 4, Cause.TRUNCATED)
    failure = Failure.of(song.probed.recording, error)
    keeping_job = replace(job, limits=replace(job.limits, damaged=damaged))
    selected, _ = select(song, keeping_job, error, QUIET_READINGS)
    if damaged == "fail":
        assert selected == failure
        return
    assert isinstance(selected, PlannedRecording)
    assert (selected.chunks, selected.probed.damage) == (4, failure)
    assert measures_of(selected) == QUIET_READINGS


def test_a_recording_that_cannot_be_decoded_fails(job: ExtractJob) -> None:
    song = planned()
    error = RecordingError(Stage.DECODE, Cause.TIMEOUT, "slow")
    assert select(song, job, error)[0] == Failure.of(song.probed.recording, error)


def test_a_recording_whose_second_decode_fails_too_has_the_second_failure(job: ExtractJob) -> None:
    song = planned()
    first = longer(song, 12, Cause.LENGTH_MISMATCH)
    second = RecordingError(Stage.DECODE, Cause.CORRUPT, "broken")
    assert select(song, job, first, second)[0] == Failure.of(song.probed.recording, second)


def test_a_recording_that_turns_out_to_be_too_long_fails(job: ExtractJob) -> None:
    limited_job = replace(job, limits=replace(job.limits, max_seconds=11))
    error = longer(planned(), 12, Cause.LENGTH_MISMATCH)
    failed, decoder = select(planned(), limited_job, error)
    assert isinstance(failed, Failure)
    assert failed.cause is Cause.TOO_LONG
    assert len(decoder.calls) == 1

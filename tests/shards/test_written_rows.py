"""Shards are written with the right rows, summaries, files and reports.

The tests decode in their own process, because this is quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melmill.transforms.core.errors import Cause, DatasetError, RecordingError, Stage
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import MeasuredPart, ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.spec import Feature
from melmill.transforms.index.tables import shard_row, write_part
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan, name_plan
from melmill.transforms.plan.recordings import plan_recording
from melmill.transforms.rows.distribution import LEVEL_EDGES_DBFS
from melmill.transforms.rows.rows_digest import digest_text, rows_digest
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import FeatureMoments, RecordingRows
from melmill.transforms.shards import extracting
from melmill.transforms.shards.extracting import SpanOutcome, write_shard
from melmill.transforms.shards.receipts import read_made, read_receipt
from melmill.transforms.shards.rewriting import withdraw_recordings
from melmill.transforms.shards.tally import add_rows, held_recordings, is_same
from melmill.transforms.shards.writing import (
    read_shard,
    row_group_rows,
    without,
    write_again,
)
from melmill.transforms.store.objects import StoredObject
from tests import signals
from tests.mel_features import with_mel
from tests.plans import failure, recording
from tests.shard_rows import (
    batch_of,
    job_of_rows,
    places,
    read_rows_of,
    rows_in,
    rows_of,
    shard_of,
)

LABELS = (("genre", "jazz"), ("year", None))


class InThisProcess(DecoderProcess):
    """Decodes in the test's process and records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Span, list[str]]] = []

    def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
        (span,), _features, _sources, _spool, upcoming, _catalogue, _meters = arguments
        self.calls.append((timeout_s, span, [source.uri for source in upcoming]))
        return function(*arguments)


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of_rows(tmp_path)


def song(folder: Path, name: str, seconds: float = 2.25, channels: int = 1) -> ProbedRecording:
    path = folder / name
    signals.write_audio(path, signals.song(seconds, 1000, len(name), channels), 1000)
    size_bytes, version = StoredObject(str(path)).stat()
    listed = Recording(f"id of {name}", str(path), name, version, size_bytes, labels=LABELS)
    return ProbedRecording(listed, probe_audio(StoredObject(listed.uri)))


def plan_of(job: ExtractJob, *songs: ProbedRecording, split: str = "train") -> ShardPlan:
    """Return the plan of a shard that holds these recordings in full."""
    spans = []
    for probed in songs:
        planned = plan_recording(probed, job.features, job.split, 100)
        spans.append(Span(probed, planned.origin_sample, planned.samples, 0, planned.chunks))
    return of_spans(job, *spans, split=split)


def of_spans(job: ExtractJob, *spans: Span, split: str = "train") -> ShardPlan:
    return ShardPlan(name_plan(split, spans, job.features, job.run_id), split, spans)


def write(
    job: ExtractJob, plan: ShardPlan, decoder: DecoderProcess | None = None
) -> tuple[Any, list[SpanOutcome]]:
    outcomes: list[SpanOutcome] = []
    summary = write_shard(plan, job, decoder or InThisProcess(), outcomes.append)
    return summary, outcomes


def test_a_row_holds_its_position_labels_and_levels(job: ExtractJob, tmp_path: Path) -> None:
    probed = song(tmp_path, "a.wav")
    summary, _ = write(job, plan_of(job, probed))
    rows = read_rows_of(job, summary)
    names = ("chunk_index", "start_sample", "valid_samples", "sample_rate_hz", "genre", "year")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (0, 0, 1000, 1000, "jazz", None),
        (1, 1000, 1000, 1000, "jazz", None),
        (2, 2000, 250, 1000, "jazz", None),
    ]
    assert {row["uri"] for row in rows} == {probed.recording.uri}
    assert {row["recording_id"] for row in rows} == {"id of a.wav"}
    samples = np.round(signals.song(2.25, 1000, 5) * 2**15) / 2**15
    chunks = [samples[:1000], samples[1000:2000], samples[2000:]]
    peaks = [20 * np.log10(np.abs(chunk).max()) for chunk in chunks]
    # The RMS level is computed over the whole chunk, including its padding.
    levels = [10 * np.log10(np.sum(chunk**2) / 1000) for chunk in chunks]
    assert [row["peak_dbfs"] for row in rows] == pytest.approx(peaks, abs=0.01)
    assert [row["rms_dbfs"] for row in rows] == pytest.approx(levels, abs=0.01)


def test_each_channel_has_its_own_rows(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, channels="each")
    summary, outcomes = write(job, plan_of(job, song(tmp_path, "a.wav", channels=2)))
    rows = read_rows_of(job, summary)
    indices = [(row["chunk_index"], row["channel"]) for row in rows]
    assert indices == [(chunk, channel) for chunk in range(3) for channel in range(2)]
    assert [outcome.rows for outcome in outcomes] == [6]
    mel = np.concatenate([batch.features["mel"].copy() for batch in read_shard(job.store, summary)])
    columns = ("chunk_index", "channel", "start_sample", "valid_samples")
    whole = rows_digest(*([row[name] for row in rows] for name in columns), [mel])
    assert summary.recordings[0].digest == digest_text(whole)
    assert summary.recordings[0].rows == 6


def test_values_are_rounded_to_the_resolution(job: ExtractJob, tmp_path: Path) -> None:
    probed = song(tmp_path, "a.wav")
    coarse = replace(job, features=replace(job.features, resolution=0.5))
    exact, rounded = (write(test_job, plan_of(test_job, probed))[0] for test_job in (job, coarse))
    fine, steps = (
        np.concatenate([batch.features["mel"].copy() for batch in read_shard(job.store, summary)])
        for summary in (exact, rounded)
    )
    assert np.array_equal(steps, np.round(steps * 2) / 2)
    assert 0.1 < np.abs(steps - fine).max() <= 0.25


def test_a_summary_describes_the_written_rows(job: ExtractJob, tmp_path: Path) -> None:
    songs = [song(tmp_path, "a.wav"), song(tmp_path, "bb.wav", 1.5)]
    summary, _ = write(job, plan_of(job, *songs, split="test"))
    batches = [
        RowBatch(b.columns, {"mel": b.features["mel"].copy()})
        for b in read_shard(job.store, summary)
    ]
    mel = np.concatenate([batch.features["mel"] for batch in batches])
    assert (summary.rows, summary.split, summary.null_labels) == (5, "test", ("year",))
    assert [batch.rows for batch in batches] == [3, 2]
    levels = [row["peak_dbfs"] for batch in batches for row in rows_in(batch)]
    below = sum(level < LEVEL_EDGES_DBFS[-1] for level in levels)
    assert sum(summary.distribution.peak_dbfs) == sum(summary.distribution.rms_dbfs) == 5
    assert summary.distribution.peak_dbfs[-1] == 5 - below
    genres = [
        (label.column, label.value, label.rows, label.recordings)
        for label in summary.distribution.classes
    ]
    assert ("genre", "jazz", 5, 2) in genres
    valid = [row["valid_frames"] for batch in batches for row in rows_in(batch)]
    assert min(valid) < mel.shape[2]
    counted = [row[:, :number] for row, number in zip(mel, valid, strict=True)]
    values = np.concatenate(counted, axis=1).astype(np.float64)
    assert summary.count == values.shape[1]
    assert summary.mean == pytest.approx(values.mean(axis=1))
    assert summary.m2 == pytest.approx(values.var(axis=1) * summary.count)
    assert (summary.low, summary.high) == (values.min(), values.max())
    rows = rows_in(*batches)
    for entry, first, stop in zip(summary.recordings, (0, 3), (3, 5), strict=True):
        part = rows[first:stop]
        names = ("chunk_index", "start_sample", "valid_samples")
        columns = {name: [row[name] for row in part] for name in names}
        digest_of_part = rows_digest(channel=[0] * len(part), features=[mel[first:stop]], **columns)
        assert entry == RecordingRows(
            part[0]["recording_id"],
            *(stop - first, max(row["peak_dbfs"] for row in part)),
            digest_text(digest_of_part),
        )


def test_a_summary_names_the_moments_of_each_feature(job: ExtractJob, tmp_path: Path) -> None:
    (mel,) = job.features.features
    twin = Feature("twin", mel.spec)
    both_job = replace(job, features=replace(job.features, features=(mel, twin)))
    summary, _ = write(both_job, plan_of(both_job, song(tmp_path, "a.wav")))
    moments = summary.count, summary.mean, summary.m2, summary.low, summary.high
    assert summary.others == (FeatureMoments("twin", *moments),)


def test_a_shard_is_named_after_its_plan_and_its_content(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, "output.formats=[parquet,tfrecord]")
    plan = plan_of(job, song(tmp_path, "a.wav"))
    summary, _ = write(job, plan)
    assert summary.plan == plan.name
    files = {"parquet": summary.parquet, "tfrecord": summary.tfrecord}
    sums = {}
    for form, file in files.items():
        content = (tmp_path / "set" / file.name).read_bytes()
        sums[form] = hashlib.sha256(content).hexdigest()
        assert (file.size_bytes, file.sha256) == (len(content), sums[form])
        assert content.startswith(b"PAR1") == (form == "parquet")
    assert summary.name == digest(plan.name, sums["parquet"], sums["tfrecord"])
    assert summary.parquet.name == f"split=train/part-{summary.name}.parquet"
    assert summary.tfrecord.name == f"tfrecord/train/part-{summary.name}.tfrecord"
    (announced,) = read_made(job.store, job.staging)
    assert announced.shard == summary.name
    assert announced.files == (summary.parquet.name, summary.tfrecord.name)
    assert read_receipt(job, plan.name) == summary


def test_a_parquet_file_names_its_features_and_its_plan(job: ExtractJob, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    plan = plan_of(job, song(tmp_path, "a.wav"))
    summary, _ = write(job, plan)
    metadata = pq.read_metadata(tmp_path / "set" / summary.parquet.name)
    assert metadata.metadata[b"melmill.features"].decode() == job.features.canonical()
    assert metadata.metadata[b"melmill.plan"].decode() == plan.name
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    fast_job = replace(job, writer=replace(job.writer, compression_level=-50))
    larger, _ = write(fast_job, replace(plan, name="other"))
    assert larger.parquet.size_bytes > summary.parquet.size_bytes


def test_each_span_is_reported(job: ExtractJob, tmp_path: Path) -> None:
    songs = [song(tmp_path, name) for name in ("a.wav", "bb.wav", "ccc.wav")]
    plan = plan_of(job, *songs)
    Path(songs[1].recording.uri).unlink()
    decoder = InThisProcess()
    summary, outcomes = write(job, plan, decoder)
    assert [outcome.span for outcome in outcomes] == list(plan.spans)
    assert [outcome.rows for outcome in outcomes] == [3, 0, 3]
    assert [outcome.failed for outcome in outcomes] == ["", Cause.NOT_FOUND, ""]
    assert [outcome.reused for outcome in outcomes] == [False] * 3
    assert all(0 < outcome.decode_seconds < 60 for outcome in outcomes)
    assert [outcome.features_seconds > 0 for outcome in outcomes] == [True, False, True]
    (listed_failure,) = summary.failures
    assert outcomes[1].failure == listed_failure
    assert (listed_failure.recording_id, listed_failure.cause) == ("id of bb.wav", Cause.NOT_FOUND)
    assert {timeout for timeout, _, _ in decoder.calls} == {job.limits.timeout_s}
    assert [span for _, span, _ in decoder.calls] == list(plan.spans)


def test_a_finished_shard_reports_its_rows_and_failures(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, channels="each")
    songs = [song(tmp_path, "a.wav", channels=2), song(tmp_path, "bb.wav", 1.5)]
    plan = plan_of(job, *songs)

    class Failing(InThisProcess):
        def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
            if arguments[0] == [plan.spans[1]]:
                raise RecordingError(Stage.DECODE, Cause.CORRUPT, "broken")
            return super().call(timeout_s, function, *arguments)

    summary, _ = write(job, plan, Failing())
    (listed_failure,) = summary.failures
    decoder = InThisProcess()
    second_summary, outcomes = write(job, plan, decoder)
    assert (second_summary, decoder.calls) == (summary, [])
    assert outcomes == [
        SpanOutcome(plan.spans[0], 6, None, reused=True),
        SpanOutcome(plan.spans[1], 0, listed_failure, reused=True),
    ]


def test_files_that_are_read_from_their_start_are_fetched_in_advance(
    job: ExtractJob, tmp_path: Path
) -> None:
    songs = [song(tmp_path, f"{'x' * i}.wav") for i in range(1, 7)]
    spans = [plan_of(job, probed).spans[0] for probed in songs]
    spans[1] = replace(spans[1], first_chunk=1)
    spans[2] = replace(spans[2], origin_sample=5)
    decoder = InThisProcess()
    write(job, of_spans(job, *spans), decoder)
    uris = [probed.recording.uri for probed in songs]
    assert [upcoming for _, _, upcoming in decoder.calls] == [
        [uris[3]],  # The spans 1 and 2 do not begin at the start of their files.
        [uris[3], uris[4]],
        [uris[3], uris[4], uris[5]],
        [uris[4], uris[5]],
        [uris[5]],
        [],
    ]


@pytest.mark.parametrize("read_bytes", [1, 128, 300, 10**6])
def test_working_files_are_read_in_parts_of_any_size(
    job: ExtractJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    probed = song(tmp_path, "a.wav", 7)
    whole_summary, _ = write(job, plan_of(job, probed))
    monkeypatch.setattr(extracting, "_READ_BYTES", read_bytes)
    other_job = replace(job, store=replace(job.store, root=str(tmp_path / "other")))
    summary, _ = write(other_job, plan_of(other_job, probed))
    assert read_rows_of(other_job, summary) == read_rows_of(job, whole_summary)
    assert len(read_rows_of(other_job, summary)) == 7


def test_a_working_file_that_is_too_short_is_an_error(job: ExtractJob, tmp_path: Path) -> None:
    class Cutting(InThisProcess):
        def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
            rows = super().call(timeout_s, function, *arguments)
            spool = arguments[3]
            spool.write_bytes(spool.read_bytes()[:-1])
            return rows

    with pytest.raises(RuntimeError, match="holds fewer rows than the span"):
        write(job, plan_of(job, song(tmp_path, "a.wav")), Cutting())


# Existing rows


def runs(job: ExtractJob) -> list[RowBatch]:
    row_runs = [rows_of("a.wav", 0, 1, 2, 3), rows_of("b.wav", 5), rows_of("a.wav", 7)]
    return [batch_of(job, run) for run in row_runs]


def test_runs_of_a_recordings_rows_are_summed_up(job: ExtractJob) -> None:
    a, b, more = runs(job)
    columns = {name: [*a.columns[name], *b.columns[name]] for name in a.columns}
    both = RowBatch(columns, {"mel": np.concatenate([a.features["mel"], b.features["mel"]])})
    first, second = held_recordings(both)
    assert [first] == list(held_recordings(a))
    assert [second] == list(held_recordings(b))
    assert (first.rows, second.rows) == (4, 1)
    assert first.peak_dbfs == max(a.columns["peak_dbfs"])
    (third,) = held_recordings(more)
    together = add_rows(first, third)
    assert (together.rows, together.recording_id) == (5, first.recording_id)
    assert together.peak_dbfs == max(first.peak_dbfs, third.peak_dbfs)
    total = (int(first.digest, 16) + int(third.digest, 16)) % 2**128
    assert together.digest == f"{total:032x}"
    for old_entry in (replace(first, digest=""), replace(third, digest="")):
        other_entry = third if old_entry.rows == 4 else first
        assert add_rows(old_entry, other_entry).digest == ""


def test_the_given_rows_are_written(job: ExtractJob) -> None:
    batches = runs(job)
    summary = shard_of(job, "plan", *batches, split="test")
    assert read_rows_of(job, summary) == rows_in(*batches)
    assert [entry.rows for entry in summary.recordings] == [5, 1]
    assert (summary.plan, summary.split, summary.rows, summary.failures) == ("plan", "test", 6, ())
    assert summary.null_labels == ()


def test_a_label_that_a_row_group_lacks_is_listed_as_null(job: ExtractJob) -> None:
    without_genre = batch_of(job, rows_of("a.wav", 0, 1, 2), genre=None)
    without_year = batch_of(job, rows_of("b.wav", 0, 1, 2), year=None)
    assert shard_of(job, "plan", without_genre, without_year, runs(job)[0]).null_labels == (
        "genre",
        "year",
    )


def test_a_finished_shard_is_not_written_again(job: ExtractJob) -> None:
    summary = shard_of(job, "plan", *runs(job))

    def no_rows() -> Iterator[RowBatch]:
        raise AssertionError("the rows were read")
        yield

    song_failure = failure()
    second_summary = write_again("plan", "train", no_rows(), [], job, [song_failure])
    assert second_summary == replace(summary, failures=(song_failure,))


@pytest.mark.parametrize("wrong", ["rows", "digest", "missing", "surplus"])
def test_rows_other_than_expected_are_an_error(job: ExtractJob, wrong: str) -> None:
    (entry,) = held_recordings(batch_of(job, rows_of("a.wav", 0, 1)))
    expected = {
        "rows": [replace(entry, rows=3)],
        "digest": [replace(entry, digest="0" * 32)],
        "missing": [entry, replace(entry, recording_id="another")],
        "surplus": [],
    }[wrong]
    batch = batch_of(job, rows_of("a.wav", 0, 1))
    with pytest.raises(RuntimeError, match=r"shard .* was written with .*, but must hold "):
        write_again("plan", "train", [batch], expected, job)
    assert read_receipt(job, "plan") is None


def test_rows_without_a_digest_are_written_without_a_digest(job: ExtractJob) -> None:
    batch = batch_of(job, rows_of("a.wav", 0, 1))
    (entry,) = held_recordings(batch)
    entry_without_digest = replace(entry, digest="")
    summary = write_again("plan", "train", [batch], [entry_without_digest], job)
    assert summary.recordings == (entry_without_digest,)
    entries = [replace(entry, rows=1, digest=""), replace(entry, rows=1, digest="")]
    assert write_again("other plan", "train", [batch], entries, job).recordings == (
        entry_without_digest,
    )


def test_rows_are_compared_by_number_and_digest() -> None:
    expected = RecordingRows("a", 3, -1.0, "5f")
    assert is_same(replace(expected, peak_dbfs=-2.0), expected)
    assert is_same(expected, replace(expected, digest=""))
    assert not is_same(replace(expected, digest=""), expected)
    assert not is_same(replace(expected, rows=4), replace(expected, digest=""))
    assert not is_same(None, expected)
    assert not is_same(expected, None)


def test_the_rows_of_a_recording_are_left_out(job: ExtractJob) -> None:
    a, b, _ = runs(job)
    columns = {name: [*b.columns[name], *a.columns[name]] for name in a.columns}
    batch = RowBatch(columns, {"mel": np.concatenate([b.features["mel"], a.features["mel"]])})
    removed_ids = {recording("a.wav").recording_id}
    assert rows_in(without(batch, removed_ids)) == rows_in(b)
    assert rows_in(without(batch, ())) == rows_in(b, a)


def test_only_the_rows_of_a_withdrawn_recording_are_removed(job: ExtractJob) -> None:
    batches = runs(job)
    song_failure = failure("x.wav")
    summary = replace(shard_of(job, "plan", *batches), failures=(song_failure,))
    withdrawn_id = recording("a.wav").recording_id
    remaining = withdraw_recordings(summary, [withdrawn_id, "somebody else"], job)
    assert places(read_rows_of(job, remaining)) == [("b.wav", 5)]
    assert (remaining.split, remaining.failures) == ("train", (song_failure,))
    assert remaining.plan == digest("withdrawn", summary.name, withdrawn_id)
    names = sorted(entry.recording_id for entry in summary.recordings)
    empty = withdraw_recordings(summary, names, job)
    assert (empty.rows, empty.parquet) == (0, None)
    assert empty.plan == digest("withdrawn", summary.name, *names)
    assert withdraw_recordings(empty, names, job) is empty
    without_a_file = replace(summary, parquet=None)
    assert withdraw_recordings(without_a_file, names, job) is without_a_file


def test_what_was_measured_of_the_other_recordings_is_kept(job: ExtractJob) -> None:
    """A withdrawn shard is written from its rows, which do not hold the readings."""
    ids = [recording(name).recording_id for name in ("a.wav", "b.wav", "b.wav")]
    measured = tuple(
        MeasuredPart(recording_id, 9 * number, 9 * number + 9, 27, f"{number}")
        for number, recording_id in enumerate(ids)
    )
    written = shard_of(job, "plan", *runs(job))
    summary = replace(written, meters=("level", "clipping"), measured=measured)
    remaining = withdraw_recordings(summary, ids[:1], job)
    assert (remaining.meters, remaining.measured) == (("level", "clipping"), measured[1:])


def test_a_shard_without_rows_is_named_after_its_plan(job: ExtractJob) -> None:
    summary = shard_of(job, "plan")
    assert (summary.name, summary.rows, summary.parquet, summary.tfrecord) == (
        "plan",
        0,
        None,
        None,
    )
    assert (summary.count, summary.mean, summary.m2) == (0, (0.0,) * 8, (0.0,) * 8)
    assert (summary.low, summary.high) == (float("inf"), float("-inf"))
    assert list(read_shard(job.store, summary)) == []


@pytest.mark.parametrize(
    ("requested_rows", "n_mels", "rows"),
    [(3, 8, 3), (10**9, 8, 262_144), (10**9, 10, 209_715), (10**9, 2**23, 1), (1, 8, 1)],
)
def test_a_row_group_is_limited_by_memory(
    job: ExtractJob, requested_rows: int, n_mels: int, rows: int
) -> None:
    """A row group holds at most 32 MiB of spectrograms.

    A spectrogram of 8 bands and 4 frames has 128 bytes.
    """
    assert job.features.columns[0].shape == (8, 4)
    features = with_mel(job.features, n_mels=n_mels)
    writer = replace(job.writer, row_group_rows=requested_rows)
    assert row_group_rows(replace(job, features=features, writer=writer)) == rows


@pytest.mark.parametrize("indexed", [False, True])
def test_a_file_of_a_wrong_size_is_replaced_unless_a_snapshot_uses_it(
    job: ExtractJob, tmp_path: Path, indexed: bool
) -> None:
    summary = shard_of(job, "plan", *runs(job))
    assert summary.parquet is not None
    path = tmp_path / "set" / summary.parquet.name
    content = path.read_bytes()
    if indexed:
        write_part(job.store, "0" * 32, "shards", 0, [shard_row(summary)])
    path.write_bytes(content[:-10])
    if not indexed:
        assert shard_of(job, "plan", *runs(job)) == summary
        assert path.read_bytes() == content
        return
    with pytest.raises(DatasetError) as raised:
        shard_of(job, "plan", *runs(job))
    assert str(raised.value) == (
        f"{job.store.root}: {summary.parquet.name} has {len(content) - 10:,} bytes, but "
        f"{len(content):,} were written: it is damaged, and a kept snapshot uses it. melmill "
        "validate lists all damage; remove the file, and run the same command again"
    )
    path.unlink()
    assert shard_of(job, "plan", *runs(job)) == summary


def test_an_existing_file_is_not_written_again(job: ExtractJob, tmp_path: Path) -> None:
    summary = shard_of(job, "plan", *runs(job))
    assert summary.parquet is not None
    path = tmp_path / "set" / summary.parquet.name
    before = path.stat().st_mtime_ns, path.stat().st_ino
    job.store.remove(f"{job.staging}/shards")
    assert shard_of(job, "plan", *runs(job)) == summary
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before

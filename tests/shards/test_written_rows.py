"""What a shard is written of, and what is said of it; decoded in this process, which is quick."""

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
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.decode.media import probe_audio
from melmill.transforms.features.spans import Span
from melmill.transforms.index.tables import shard_row, write_part
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan, name_plan
from melmill.transforms.plan.recordings import plan_recording
from melmill.transforms.rows.distribution import LEVEL_EDGES_DBFS
from melmill.transforms.rows.rows_digest import digest_text, rows_digest
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import RecordingRows
from melmill.transforms.shards import extracting
from melmill.transforms.shards.extracting import SpanOutcome, write_shard
from melmill.transforms.shards.receipts import read_made, read_receipt
from melmill.transforms.shards.tally import add_rows, held_recordings, is_same
from melmill.transforms.shards.writing import (
    read_shard,
    row_group_rows,
    withdraw_recordings,
    without,
    write_again,
)
from melmill.transforms.store.objects import StoredObject
from tests import signals
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
    """Decodes where it is called, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Span, list[str]]] = []

    def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
        span, _features, _source, _spool, upcoming = arguments
        self.asked.append((timeout_s, span, [source.uri for source in upcoming]))
        return function(*arguments)


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of_rows(tmp_path)


def song(folder: Path, name: str, seconds: float = 2.25, channels: int = 1) -> ProbedRecording:
    path = folder / name
    signals.write_audio(path, signals.song(seconds, 1000, len(name), channels), 1000)
    size_bytes, version = StoredObject(str(path)).stat()
    one = Recording(f"id of {name}", str(path), name, version, size_bytes, labels=LABELS)
    return ProbedRecording(one, probe_audio(StoredObject(one.uri)))


def plan_of(job: ExtractJob, *probed: ProbedRecording, split: str = "train") -> ShardPlan:
    """A shard of whole recordings."""
    spans = []
    for one in probed:
        made = plan_recording(one, job.features, job.split, 100)
        spans.append(Span(one, made.origin_sample, made.samples, 0, made.chunks))
    return of_spans(job, *spans, split=split)


def of_spans(job: ExtractJob, *spans: Span, split: str = "train") -> ShardPlan:
    return ShardPlan(name_plan(split, spans, job.features, job.run_id), split, spans)


def write(
    job: ExtractJob, plan: ShardPlan, decoder: DecoderProcess | None = None
) -> tuple[Any, list[SpanOutcome]]:
    outcomes: list[SpanOutcome] = []
    made = write_shard(plan, job, decoder or InThisProcess(), outcomes.append)
    return made, outcomes


def test_a_row_says_where_it_is_from_and_how_loud_it_is(job: ExtractJob, tmp_path: Path) -> None:
    one = song(tmp_path, "a.wav")
    made, _ = write(job, plan_of(job, one))
    rows = read_rows_of(job, made)
    names = ("chunk_index", "start_sample", "valid_samples", "sample_rate_hz", "genre", "year")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (0, 0, 1000, 1000, "jazz", None),
        (1, 1000, 1000, 1000, "jazz", None),
        (2, 2000, 250, 1000, "jazz", None),
    ]
    assert {row["uri"] for row in rows} == {one.recording.uri}
    assert {row["recording_id"] for row in rows} == {"id of a.wav"}
    samples = np.round(signals.song(2.25, 1000, 5) * 2**15) / 2**15
    chunks = [samples[:1000], samples[1000:2000], samples[2000:]]
    peaks = [20 * np.log10(np.abs(chunk).max()) for chunk in chunks]
    # The level is that of the whole chunk, with its padding.
    levels = [10 * np.log10(np.sum(chunk**2) / 1000) for chunk in chunks]
    assert [row["peak_dbfs"] for row in rows] == pytest.approx(peaks, abs=0.01)
    assert [row["rms_dbfs"] for row in rows] == pytest.approx(levels, abs=0.01)


def test_each_channel_has_its_rows(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, channels="each")
    made, outcomes = write(job, plan_of(job, song(tmp_path, "a.wav", channels=2)))
    rows = read_rows_of(job, made)
    found = [(row["chunk_index"], row["channel"]) for row in rows]
    assert found == [(chunk, channel) for chunk in range(3) for channel in range(2)]
    assert [outcome.rows for outcome in outcomes] == [6]
    mel = np.concatenate([batch.mel.copy() for batch in read_shard(job.store, made)])
    columns = ("chunk_index", "channel", "start_sample", "valid_samples")
    whole = rows_digest(*([row[name] for row in rows] for name in columns), mel)
    assert made.recordings[0].digest == digest_text(whole)
    assert made.recordings[0].rows == 6


def test_values_are_rounded_to_the_resolution(job: ExtractJob, tmp_path: Path) -> None:
    one = song(tmp_path, "a.wav")
    coarse = replace(job, features=replace(job.features, resolution=0.5))
    exact, rounded = (write(asked, plan_of(asked, one))[0] for asked in (job, coarse))
    fine, steps = (
        np.concatenate([batch.mel.copy() for batch in read_shard(job.store, made)])
        for made in (exact, rounded)
    )
    assert np.array_equal(steps, np.round(steps * 2) / 2)
    assert 0.1 < np.abs(steps - fine).max() <= 0.25


def test_a_summary_counts_what_was_written(job: ExtractJob, tmp_path: Path) -> None:
    songs = [song(tmp_path, "a.wav"), song(tmp_path, "bb.wav", 1.5)]
    made, _ = write(job, plan_of(job, *songs, split="test"))
    batches = [RowBatch(b.columns, b.mel.copy()) for b in read_shard(job.store, made)]
    mel = np.concatenate([batch.mel for batch in batches])
    assert (made.rows, made.split, made.null_labels) == (5, "test", ("year",))
    assert [batch.rows for batch in batches] == [3, 2]
    levels = [row["peak_dbfs"] for batch in batches for row in rows_in(batch)]
    below = sum(level < LEVEL_EDGES_DBFS[-1] for level in levels)
    assert sum(made.distribution.peak_dbfs) == sum(made.distribution.rms_dbfs) == 5
    assert made.distribution.peak_dbfs[-1] == 5 - below
    genres = [
        (one.column, one.value, one.rows, one.recordings) for one in made.distribution.classes
    ]
    assert ("genre", "jazz", 5, 2) in genres
    values = mel.transpose(1, 0, 2).reshape(8, -1).astype(np.float64)
    assert made.count == values.shape[1]
    assert made.mean == pytest.approx(values.mean(axis=1))
    assert made.m2 == pytest.approx(values.var(axis=1) * made.count)
    assert (made.low, made.high) == (mel.min(), mel.max())
    rows = rows_in(*batches)
    for entry, first, stop in zip(made.recordings, (0, 3), (3, 5), strict=True):
        part = rows[first:stop]
        names = ("chunk_index", "start_sample", "valid_samples")
        columns = {name: [row[name] for row in part] for name in names}
        digest_of_part = rows_digest(channel=[0] * len(part), mel=mel[first:stop], **columns)
        assert entry == RecordingRows(
            part[0]["recording_id"],
            *(stop - first, max(row["peak_dbfs"] for row in part)),
            digest_text(digest_of_part),
        )


def test_a_shard_is_named_after_its_plan_and_its_content(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, "output.formats=[parquet,tfrecord]")
    plan = plan_of(job, song(tmp_path, "a.wav"))
    made, _ = write(job, plan)
    assert made.plan == plan.name
    files = {"parquet": made.parquet, "tfrecord": made.tfrecord}
    sums = {}
    for form, file in files.items():
        content = (tmp_path / "set" / file.name).read_bytes()
        sums[form] = hashlib.sha256(content).hexdigest()
        assert (file.size_bytes, file.sha256) == (len(content), sums[form])
        assert content.startswith(b"PAR1") == (form == "parquet")
    assert made.name == digest(plan.name, sums["parquet"], sums["tfrecord"])
    assert made.parquet.name == f"split=train/part-{made.name}.parquet"
    assert made.tfrecord.name == f"tfrecord/train/part-{made.name}.tfrecord"
    (announced,) = read_made(job.store, job.staging)
    assert announced.shard == made.name
    assert announced.files == (made.parquet.name, made.tfrecord.name)
    assert read_receipt(job, plan.name) == made


def test_a_parquet_file_says_of_what_features_and_plan_it_is(
    job: ExtractJob, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    plan = plan_of(job, song(tmp_path, "a.wav"))
    made, _ = write(job, plan)
    metadata = pq.read_metadata(tmp_path / "set" / made.parquet.name)
    assert metadata.metadata[b"melmill.features"].decode() == job.features.canonical()
    assert metadata.metadata[b"melmill.plan"].decode() == plan.name
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    loose = replace(job, writer=replace(job.writer, compression_level=-50))
    larger, _ = write(loose, replace(plan, name="other"))
    assert larger.parquet.size_bytes > made.parquet.size_bytes


def test_each_span_is_reported(job: ExtractJob, tmp_path: Path) -> None:
    songs = [song(tmp_path, name) for name in ("a.wav", "bb.wav", "ccc.wav")]
    plan = plan_of(job, *songs)
    Path(songs[1].recording.uri).unlink()
    decoder = InThisProcess()
    made, outcomes = write(job, plan, decoder)
    assert [outcome.span for outcome in outcomes] == list(plan.spans)
    assert [outcome.rows for outcome in outcomes] == [3, 0, 3]
    assert [outcome.failed for outcome in outcomes] == ["", Cause.NOT_FOUND, ""]
    assert [outcome.reused for outcome in outcomes] == [False] * 3
    assert all(0 < outcome.decode_seconds < 60 for outcome in outcomes)
    assert [outcome.features_seconds > 0 for outcome in outcomes] == [True, False, True]
    (lost,) = made.failures
    assert outcomes[1].failure == lost
    assert (lost.recording_id, lost.cause) == ("id of bb.wav", Cause.NOT_FOUND)
    assert {timeout for timeout, _, _ in decoder.asked} == {job.limits.timeout_s}
    assert [span for _, span, _ in decoder.asked] == list(plan.spans)


def test_a_finished_shard_reports_what_it_holds(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, channels="each")
    songs = [song(tmp_path, "a.wav", channels=2), song(tmp_path, "bb.wav", 1.5)]
    plan = plan_of(job, *songs)

    class Failing(InThisProcess):
        def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
            if arguments[0] == plan.spans[1]:
                raise RecordingError(Stage.DECODE, Cause.CORRUPT, "broken")
            return super().call(timeout_s, function, *arguments)

    made, _ = write(job, plan, Failing())
    (lost,) = made.failures
    decoder = InThisProcess()
    again, outcomes = write(job, plan, decoder)
    assert (again, decoder.asked) == (made, [])
    assert outcomes == [
        SpanOutcome(plan.spans[0], 6, None, reused=True),
        SpanOutcome(plan.spans[1], 0, lost, reused=True),
    ]


def test_what_is_read_next_from_its_start_is_fetched(job: ExtractJob, tmp_path: Path) -> None:
    songs = [song(tmp_path, f"{'x' * i}.wav") for i in range(1, 7)]
    spans = [plan_of(job, one).spans[0] for one in songs]
    spans[1] = replace(spans[1], first_chunk=1)
    spans[2] = replace(spans[2], origin_sample=5)
    decoder = InThisProcess()
    write(job, of_spans(job, *spans), decoder)
    uris = [one.recording.uri for one in songs]
    assert [upcoming for _, _, upcoming in decoder.asked] == [
        [uris[3]],  # of the next three spans
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
    one = song(tmp_path, "a.wav", 7)
    whole, _ = write(job, plan_of(job, one))
    monkeypatch.setattr(extracting, "_READ_BYTES", read_bytes)
    other = replace(job, store=replace(job.store, root=str(tmp_path / "other")))
    made, _ = write(other, plan_of(other, one))
    assert read_rows_of(other, made) == read_rows_of(job, whole)
    assert len(read_rows_of(other, made)) == 7


def test_a_working_file_that_is_too_short_is_an_error(job: ExtractJob, tmp_path: Path) -> None:
    class Cutting(InThisProcess):
        def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
            rows = super().call(timeout_s, function, *arguments)
            spool = arguments[3]
            spool.write_bytes(spool.read_bytes()[:-1])
            return rows

    with pytest.raises(RuntimeError, match="holds fewer rows than the span"):
        write(job, plan_of(job, song(tmp_path, "a.wav")), Cutting())


# Rows that exist


def runs(job: ExtractJob) -> list[RowBatch]:
    chosen = [rows_of("a.wav", 0, 1, 2, 3), rows_of("b.wav", 5), rows_of("a.wav", 7)]
    return [batch_of(job, run) for run in chosen]


def test_runs_of_a_recordings_rows_are_summed_up(job: ExtractJob) -> None:
    a, b, more = runs(job)
    columns = {name: [*a.columns[name], *b.columns[name]] for name in a.columns}
    both = RowBatch(columns, np.concatenate([a.mel, b.mel]))
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
    for old in (replace(first, digest=""), replace(third, digest="")):
        other = third if old.rows == 4 else first
        assert add_rows(old, other).digest == ""


def test_written_rows_are_those_that_were_given(job: ExtractJob) -> None:
    batches = runs(job)
    made = shard_of(job, "plan", *batches, split="test")
    assert read_rows_of(job, made) == rows_in(*batches)
    assert [entry.rows for entry in made.recordings] == [5, 1]
    assert (made.plan, made.split, made.rows, made.failures) == ("plan", "test", 6, ())
    assert made.null_labels == ()


def test_a_label_that_is_missing_in_one_row_group_is_sometimes_missing(job: ExtractJob) -> None:
    unnamed = batch_of(job, rows_of("a.wav", 0, 1, 2), genre=None)
    later = batch_of(job, rows_of("b.wav", 0, 1, 2), year=None)
    assert shard_of(job, "plan", unnamed, later, runs(job)[0]).null_labels == ("genre", "year")


def test_a_finished_shard_is_not_written_again(job: ExtractJob) -> None:
    made = shard_of(job, "plan", *runs(job))

    def no_rows() -> Iterator[RowBatch]:
        raise AssertionError("rows were asked for")
        yield

    lost = failure()
    again = write_again("plan", "train", no_rows(), [], job, [lost])
    assert again == replace(made, failures=(lost,))


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


def test_rows_of_an_older_melmill_stay_without_a_digest(job: ExtractJob) -> None:
    batch = batch_of(job, rows_of("a.wav", 0, 1))
    (entry,) = held_recordings(batch)
    old = replace(entry, digest="")
    made = write_again("plan", "train", [batch], [old], job)
    assert made.recordings == (old,)
    in_parts = [replace(entry, rows=1, digest=""), replace(entry, rows=1, digest="")]
    assert write_again("other plan", "train", [batch], in_parts, job).recordings == (old,)


def test_the_same_rows_are_held_or_not() -> None:
    wanted = RecordingRows("a", 3, -1.0, "5f")
    assert is_same(replace(wanted, peak_dbfs=-2.0), wanted)
    assert is_same(wanted, replace(wanted, digest=""))
    assert not is_same(replace(wanted, digest=""), wanted)
    assert not is_same(replace(wanted, rows=4), replace(wanted, digest=""))
    assert not is_same(None, wanted)
    assert not is_same(wanted, None)


def test_rows_are_left_out_by_their_recording(job: ExtractJob) -> None:
    a, b, _ = runs(job)
    columns = {name: [*b.columns[name], *a.columns[name]] for name in a.columns}
    both = RowBatch(columns, np.concatenate([b.mel, a.mel]))
    gone = {recording("a.wav").recording_id}
    assert rows_in(without(both, gone)) == rows_in(b)
    assert rows_in(without(both, ())) == rows_in(b, a)


def test_a_withdrawn_recording_takes_its_rows_alone(job: ExtractJob) -> None:
    batches = runs(job)
    lost = failure("x.wav")
    made = replace(shard_of(job, "plan", *batches), failures=(lost,))
    gone = recording("a.wav").recording_id
    left = withdraw_recordings(made, [gone, "somebody else"], job)
    assert places(read_rows_of(job, left)) == [("b.wav", 5)]
    assert (left.split, left.failures) == ("train", (lost,))
    assert left.plan == digest("withdrawn", made.name, gone)
    names = sorted(entry.recording_id for entry in made.recordings)
    nothing = withdraw_recordings(made, names, job)
    assert (nothing.rows, nothing.parquet) == (0, None)
    assert nothing.plan == digest("withdrawn", made.name, *names)
    assert withdraw_recordings(nothing, names, job) is nothing
    without_a_file = replace(made, parquet=None)
    assert withdraw_recordings(without_a_file, names, job) is without_a_file


def test_a_shard_without_rows_is_named_after_its_plan(job: ExtractJob) -> None:
    made = shard_of(job, "plan")
    assert (made.name, made.rows, made.parquet, made.tfrecord) == ("plan", 0, None, None)
    assert (made.count, made.mean, made.m2) == (0, (0.0,) * 8, (0.0,) * 8)
    assert (made.low, made.high) == (float("inf"), float("-inf"))
    assert list(read_shard(job.store, made)) == []


@pytest.mark.parametrize(
    ("asked", "n_mels", "rows"),
    [(3, 8, 3), (10**9, 8, 262_144), (10**9, 10, 209_715), (10**9, 2**23, 1), (1, 8, 1)],
)
def test_a_row_group_is_limited_by_memory(
    job: ExtractJob, asked: int, n_mels: int, rows: int
) -> None:
    """Thirty-two mebibytes of spectrograms: 128 bytes each, with eight bands of four frames."""
    assert job.features.shape == (8, 4)
    features = replace(job.features, mel=replace(job.features.mel, n_mels=n_mels))
    writer = replace(job.writer, row_group_rows=asked)
    assert row_group_rows(replace(job, features=features, writer=writer)) == rows


@pytest.mark.parametrize("indexed", [False, True])
def test_a_file_of_another_size_is_replaced_unless_a_snapshot_uses_it(
    job: ExtractJob, tmp_path: Path, indexed: bool
) -> None:
    made = shard_of(job, "plan", *runs(job))
    assert made.parquet is not None
    path = tmp_path / "set" / made.parquet.name
    content = path.read_bytes()
    if indexed:
        write_part(job.store, "0" * 32, "shards", 0, [shard_row(made)])
    path.write_bytes(content[:-10])
    if not indexed:
        assert shard_of(job, "plan", *runs(job)) == made
        assert path.read_bytes() == content
        return
    with pytest.raises(DatasetError) as caught:
        shard_of(job, "plan", *runs(job))
    assert str(caught.value) == (
        f"{job.store.root}: {made.parquet.name} has {len(content) - 10:,} bytes, but "
        f"{len(content):,} were written: it is damaged, and a kept snapshot uses it. melmill "
        "validate lists all damage; remove the file, and run the same command again"
    )
    path.unlink()
    assert shard_of(job, "plan", *runs(job)) == made


def test_a_file_that_is_there_is_left_alone(job: ExtractJob, tmp_path: Path) -> None:
    made = shard_of(job, "plan", *runs(job))
    assert made.parquet is not None
    path = tmp_path / "set" / made.parquet.name
    before = path.stat().st_mtime_ns, path.stat().st_ino
    job.store.remove(f"{job.staging}/shards")
    assert shard_of(job, "plan", *runs(job)) == made
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before

"""Shards that are written twice, interrupted, full of failures, or rewritten."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from melmill.pipelines.snapshots.validate import check_shard, validate
from melmill.transforms.catalogue.parts import catalogue_parts, list_part
from melmill.transforms.core.errors import Cause, DatasetError
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.features.spans import extract_spans
from melmill.transforms.index.tables import read_index
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan, pack_shards
from melmill.transforms.plan.recordings import PlannedRecording, plan_recording
from melmill.transforms.probe_recordings import probe_recording
from melmill.transforms.rows.parquet import read_rows
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.extracting import SpanOutcome, _Part, _spooled, write_shard
from melmill.transforms.shards.receipts import read_receipt
from melmill.transforms.shards.rewriting import withdraw_recordings
from melmill.transforms.shards.writing import regroup
from melmill.transforms.store.folders import Store
from melmill.transforms.write_shards import find_incomplete
from tests import signals
from tests.pipeline_runs import extract_here, make_test_job

RATE = 22_050
OVERRIDES = ("chunk.seconds=0.5", "split.fractions={train: 1.0}", "mel.n_mels=16")
BOTH = "output.formats=[parquet,tfrecord]"


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    process = DecoderProcess(2**30)
    yield process
    process.close()


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for number, seconds in enumerate((1.0, 1.5, 2.0)):
        samples = signals.song(seconds, RATE, number)
        signals.write_audio(folder / f"{number}.wav", samples, RATE)
    return folder


def write_long_song_with_a_broken_end(path: Path) -> Path:
    """Write a song with a correct header and an end that fails only when it is decoded."""
    content = signals.encode(signals.song(12.0, RATE, 9), RATE, "flac")
    cut = len(content) * 9 // 10
    path.write_bytes(content[:cut] + np.random.default_rng(0).bytes(len(content) - cut))
    return path


def ignore(outcome: SpanOutcome) -> None:
    pass


def plan_all(job: ExtractJob, decoder: DecoderProcess) -> list[PlannedRecording]:
    parts = catalogue_parts(job.catalogue)
    listed = [recording for part in parts for recording in list_part(job.catalogue, part)]
    probed = [probe_recording(recording, job, decoder) for recording in listed]
    return [
        plan_recording(song, job.features, job.split, job.limits.max_seconds) for song in probed
    ]


def plan_shards(job: ExtractJob, decoder: DecoderProcess, shards: int) -> list[ShardPlan]:
    recordings = plan_all(job, decoder)
    return list(pack_shards(recordings, shards, job.features, 0, job.run_id))


def rows_of(summary: ShardSummary, job: ExtractJob) -> list[tuple[object, ...]]:
    """Return every value of every row, in order, with spectrograms as bytes."""
    if summary.parquet is None:
        return []
    with job.store.open(summary.parquet.name) as file:
        return [row for batch in read_rows(file) for row in _tuples(batch)]


def _tuples(batch: RowBatch) -> Iterator[tuple[object, ...]]:
    columns = [batch.columns[name] for name in sorted(batch.columns)]
    mels = [mel.tobytes() for mel in batch.features["mel"]]
    return zip(*columns, mels, strict=True)


def test_a_shard_written_twice_has_the_same_bytes(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    summaries = []
    for output in (tmp_path / "a", tmp_path / "b"):
        job = make_test_job(songs, output, *OVERRIDES, BOTH)
        (plan,) = plan_shards(job, decoder, 1)
        summaries.append(write_shard(plan, job, decoder, ignore))
    assert summaries[0] == summaries[1]
    for file in (summaries[0].parquet, summaries[0].tfrecord):
        assert file is not None
        assert (tmp_path / "a" / file.name).read_bytes() == (
            tmp_path / "b" / file.name
        ).read_bytes()


@pytest.mark.parametrize("channels", ["mono", "each"])
def test_a_finished_shard_is_not_decoded_again(
    songs: Path, tmp_path: Path, decoder: DecoderProcess, channels: str
) -> None:
    (tmp_path / "stereo").mkdir()
    stereo = signals.song(3.0, RATE, 7, 2)
    signals.write_audio(tmp_path / "stereo" / "a.wav", stereo, RATE)
    catalogue = songs if channels == "mono" else tmp_path / "stereo"
    job = make_test_job(catalogue, tmp_path / "out", *OVERRIDES, f"audio.channels={channels}")
    (plan,) = plan_shards(job, decoder, 1)
    first = write_shard(plan, job, decoder, ignore)
    no_decoder: DecoderProcess = None  # type: ignore[assignment] - must not be used
    reported: list[int] = []
    second = write_shard(plan, job, no_decoder, lambda outcome: reported.append(outcome.rows))
    assert second == first
    assert sum(reported) == first.rows


def test_a_decoder_process_needs_neither_beam_nor_arrow(songs: Path, tmp_path: Path) -> None:
    """Importing Beam takes longer than decoding most recordings, and Arrow takes memory."""
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES, "catalogue.content_hashes=true")
    new_decoder = DecoderProcess(2**30)
    (plan,) = plan_shards(job, new_decoder, 1)
    assert not write_shard(plan, job, new_decoder, ignore).failures
    modules = new_decoder.call(20, eval, "sorted(__import__('sys').modules)")
    new_decoder.close()
    assert "melmill.transforms.features.spans" in modules
    needless = {"apache_beam", "pyarrow", "melmill.transforms.probe_recordings"}
    assert not needless & set(modules)


@pytest.mark.parametrize("damage", ["missing", "cut", "twin missing", "no receipt"])
def test_a_shard_that_is_not_whole_is_written_again(
    damage: str, songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES, BOTH)
    (plan,) = plan_shards(job, decoder, 1)
    first = write_shard(plan, job, decoder, ignore)
    assert first.parquet is not None
    assert first.tfrecord is not None
    parquet, tfrecord = (tmp_path / "out" / f.name for f in (first.parquet, first.tfrecord))
    content = parquet.read_bytes()
    if damage == "missing":
        parquet.unlink()
    elif damage == "cut":
        parquet.write_bytes(content[:-10])
    elif damage == "twin missing":
        tfrecord.unlink()
    else:
        job.store.remove(f"{job.staging}/shards")
    assert write_shard(plan, job, decoder, ignore) == first
    assert parquet.read_bytes() == content
    assert check_shard(first, store=job.store, features=job.features.canonical()) == []


def test_a_failed_recording_costs_only_its_own_rows(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES)
    (plan,) = plan_shards(job, decoder, 1)
    (songs / "1.wav").unlink()
    summary = write_shard(plan, job, decoder, ignore)
    (failure,) = summary.failures
    assert (Path(failure.uri).name, failure.cause) == ("1.wav", Cause.NOT_FOUND)
    assert summary.rows == len(rows_of(summary, job)) == 2 + 4
    assert failure.recording_id not in {entry.recording_id for entry in summary.recordings}


def test_a_shard_whose_failures_may_be_cured_is_tried_again(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES)
    (plan,) = plan_shards(job, decoder, 1)
    (songs / "1.wav").rename(tmp_path / "away.wav")
    assert write_shard(plan, job, decoder, ignore).rows == 6
    (tmp_path / "away.wav").rename(songs / "1.wav")
    assert write_shard(plan, job, decoder, ignore).rows == 9


def test_a_recording_that_changed_since_the_probe_fails(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES)
    (plan,) = plan_shards(job, decoder, 1)
    signals.write_audio(songs / "1.wav", signals.song(1.5, RATE, 7), RATE)
    (failure,) = write_shard(plan, job, decoder, ignore).failures
    assert failure.cause is Cause.CHANGED


def test_a_shard_of_failures_alone_has_no_file(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES, BOTH)
    (plan,) = plan_shards(job, decoder, 1)
    for song in songs.iterdir():
        song.write_bytes(song.read_bytes()[:-100])
    summary = write_shard(plan, job, decoder, ignore)
    assert (summary.rows, len(summary.failures)) == (0, 3)
    assert (summary.parquet, summary.tfrecord) == (None, None)
    assert list((tmp_path / "out").rglob("part-*")) == []
    assert list((tmp_path / "out").rglob("scratch/*")) == []


def test_a_programming_error_in_the_decoder_leaves_no_file(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES)
    (plan,) = plan_shards(job, decoder, 1)
    span = plan.spans[1]
    wrong = replace(span, origin_sample=None)  # type: ignore[arg-type] - wrong on purpose
    plan = replace(plan, spans=(plan.spans[0], wrong, plan.spans[2]))
    with pytest.raises(RuntimeError, match="in the decoder process"):
        write_shard(plan, job, decoder, ignore)
    assert list((tmp_path / "out").rglob("part-*")) == []
    assert list((tmp_path / "out").rglob("scratch/*")) == []


def test_a_full_disk_is_the_users_error_and_leaves_no_file(
    songs: Path, tmp_path: Path, decoder: DecoderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES)
    (plan,) = plan_shards(job, decoder, 1)

    def publish(store: Store, path: Path, name: str) -> None:
        Path("/dev/full").write_bytes(path.read_bytes())

    monkeypatch.setattr(Store, "publish", publish)
    with pytest.raises(DatasetError, match="No space left on device"):
        write_shard(plan, job, decoder, ignore)
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == []


@pytest.fixture
def broken(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> Callable[..., tuple[ExtractJob, list[ShardPlan], list[ShardSummary], str]]:
    """Return a function that writes three shards; each has a part of a long, damaged recording."""
    write_long_song_with_a_broken_end(songs / "long.flac")

    def write(*overrides: str) -> tuple[ExtractJob, list[ShardPlan], list[ShardSummary], str]:
        job = make_test_job(songs, tmp_path / "out", *OVERRIDES, *overrides)
        plans = plan_shards(job, decoder, 3)
        summaries = [write_shard(plan, job, decoder, ignore) for plan in plans]
        (failed_id,) = {
            failure.recording_id for summary in summaries for failure in summary.failures
        }
        return job, plans, summaries, failed_id

    return write


def test_a_recording_that_failed_in_one_shard_is_named_for_the_other_shards(
    broken: Callable,
) -> None:
    job, plans, summaries, failed_id = broken()
    incomplete = [
        set(find_incomplete(plan, summary, job))
        for plan, summary in zip(plans, summaries, strict=True)
    ]
    assert [failed_id] == list(set().union(*incomplete))
    assert (
        sum(
            1
            for summary in summaries
            if failed_id in {entry.recording_id for entry in summary.recordings}
        )
        == 2
    )


def test_without_the_recording_a_shard_is_as_if_the_recording_had_never_been_there(
    broken: Callable, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job, plans, summaries, failed_id = broken(BOTH)
    fresh_job = replace(job, store=Store(str(tmp_path / "fresh")))
    for plan, summary in zip(plans, summaries, strict=True):
        corrected = withdraw_recordings(summary, {failed_id}, job)
        other_spans = [
            span for span in plan.spans if span.probed.recording.recording_id != failed_id
        ]
        expected_summary = write_shard(
            replace(plan, spans=tuple(other_spans)), fresh_job, decoder, ignore
        )
        assert rows_of(corrected, job) == rows_of(expected_summary, fresh_job)
        assert failed_id not in {entry.recording_id for entry in corrected.recordings}
        expected = (
            expected_summary.rows,
            expected_summary.recordings,
            expected_summary.moments.mean.tolist(),
            expected_summary.low,
        )
        assert expected == (
            corrected.rows,
            corrected.recordings,
            corrected.moments.mean.tolist(),
            corrected.low,
        )
        assert check_shard(corrected, store=job.store, features=job.features.canonical()) == []


def test_withdrawing_twice_writes_once(broken: Callable, tmp_path: Path) -> None:
    job, _, summaries, failed_id = broken()
    holders = [
        summary
        for summary in summaries
        if failed_id in {entry.recording_id for entry in summary.recordings}
    ]
    first = [withdraw_recordings(summary, {failed_id}, job) for summary in holders]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")}
    assert [withdraw_recordings(summary, {failed_id}, job) for summary in holders] == first
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {summary.name for summary in first}.isdisjoint(summary.name for summary in holders)


def test_nothing_is_rewritten_where_nothing_is_withdrawn(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES)
    (plan,) = plan_shards(job, decoder, 1)
    summary = write_shard(plan, job, decoder, ignore)
    assert withdraw_recordings(summary, set(), job) is summary
    assert withdraw_recordings(summary, {"somebody else"}, job) is summary


def test_a_shard_from_which_all_is_withdrawn_has_no_file(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    job = make_test_job(songs, tmp_path / "out", *OVERRIDES, BOTH)
    (plan,) = plan_shards(job, decoder, 1)
    summary = write_shard(plan, job, decoder, ignore)
    empty = withdraw_recordings(summary, {entry.recording_id for entry in summary.recordings}, job)
    assert (empty.rows, empty.parquet, empty.tfrecord) == (0, None, None)
    assert read_receipt(job, empty.plan) == replace(empty, meters=())


def test_a_recording_is_in_a_dataset_whole_or_not_at_all(songs: Path, tmp_path: Path) -> None:
    settings = (*OVERRIDES, BOTH, "output.min_shards=3", "limits.max_failure_ratio=0.5")
    clean = extract_here(songs, tmp_path / "clean", *settings)
    write_long_song_with_a_broken_end(songs / "long.flac")
    output = Store(str(tmp_path / "out"))
    extraction = extract_here(songs, output.root, *settings)
    assert extraction.totals.recordings == {"ok": 3, "failed": 1}
    assert extraction.totals.failures == {"corrupt": 1}
    recordings = list(read_index(output, extraction.snapshot.index, "recordings"))
    (failed_row,) = [row for row in recordings if row["status"] == "failed"]
    assert (Path(failed_row["uri"]).name, failed_row["rows"], failed_row["shards"]) == (
        "long.flac",
        0,
        [],
    )
    assert _all_rows(output) == _all_rows(Store(str(tmp_path / "clean")))
    assert extraction.totals.rows == clean.totals.rows
    assert validate(output, 1, lambda number: None) == []


def _all_rows(store: Store) -> dict[tuple[str, int], tuple[object, ...]]:
    rows = DeltaTable(store.root).to_pyarrow_table().to_pylist()
    rows_by_chunk = {
        (row["uri"], row["chunk_index"]): tuple(map(str, row.values())) for row in rows
    }
    assert len(rows_by_chunk) == len(rows)
    return rows_by_chunk


def test_a_second_run_over_a_withdrawn_recording_changes_nothing(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*OVERRIDES, "output.min_shards=3", "limits.max_failure_ratio=0.5")
    write_long_song_with_a_broken_end(songs / "long.flac")
    first = extract_here(songs, tmp_path / "out", *settings)
    # The function that decodes is removed, so decoding would fail.
    monkeypatch.delattr("melmill.transforms.shards.extracting.extract_and_measure")
    second = extract_here(songs, tmp_path / "out", *settings)
    assert not second.committed
    assert second.snapshot == first.snapshot


@pytest.mark.parametrize("sizes", [[], [0], [5], [1, 1, 1], [3, 0, 4, 7], [10, 1]])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_regrouping_keeps_every_row_in_its_place(sizes: list[int], size: int) -> None:
    starts = [0, *itertools.accumulate(sizes)]
    batches = [
        RowBatch(
            {"n": list(range(a, b))}, {"mel": np.arange(a, b, dtype=np.float32).reshape(-1, 1, 1)}
        )
        for a, b in itertools.pairwise(starts)
    ]
    groups = [
        RowBatch(group.columns, {"mel": group.features["mel"].copy()})
        for group in regroup(batches, size)
    ]
    assert [n for group in groups for n in group.columns["n"]] == list(range(sum(sizes)))
    assert [int(x) for group in groups for x in group.features["mel"].ravel()] == list(
        range(sum(sizes))
    )
    assert all(group.rows == size for group in groups[:-1])


def test_unreadable_working_files_are_not_reported_as_files_of_the_dataset(
    songs: Path, tmp_path: Path, decoder: DecoderProcess
) -> None:
    """The decoder writes a working file, and the worker cannot read it from a broken disk."""
    job = make_test_job(songs, tmp_path / "dataset", *OVERRIDES)
    spans = plan_shards(job, decoder, 1)[0].spans
    rows, *_ = decoder.call(
        60,
        extract_spans,
        spans[:1],
        job.features,
        [job.source(spans[0].probed.recording)],
        tmp_path / "spool",
    )
    (tmp_path / "spool").unlink()
    part = _Part.of(spans[0], job)
    with pytest.raises(DatasetError, match="cannot read working files"), job.store.scratch():
        next(_spooled([part], [rows], job, tmp_path / "spool", lambda _: None))

"""Spans are extracted together to fill the batches of a model, and fail one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melmill.transforms.core.errors import Cause, DatasetError
from melmill.transforms.core.records import ProbedRecording
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.shards.extracting import SpanOutcome, write_shard
from tests.shard_rows import job_of_rows, read_rows_of
from tests.shards.test_carrying import Decoder, carried_from, with_samples
from tests.shards.test_written_rows import plan_of, song

NAMES = ["a.wav", "bb.wav", "ccc.wav", "dddd.wav", "eeeee.wav"]


def ignore(outcome: SpanOutcome) -> None:
    pass


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of_rows(tmp_path)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the features have a model with batches of two rows: spans are grouped up to 8 rows."""
    monkeypatch.setattr(FeatureSpec, "batch_rows", 2)


def songs_of(folder: Path, *rows: int, channels: int = 1) -> list[ProbedRecording]:
    """Return recordings that have these numbers of chunks."""
    names = zip(NAMES, rows, strict=False)
    return [song(folder, name, number, channels) for name, number in names]


def groups_of(decoder: Decoder) -> list[str]:
    """Return the first letters of the recordings in each call of the decoder."""
    return ["".join(name[0] for name in names) for names, _ in decoder.computed]


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ((3, 3, 3, 3), ["abc", "d"]),
        ((4, 4, 4, 4), ["ab", "cd"]),
        ((7, 1, 7, 1, 1), ["ab", "cd", "e"]),
        ((8, 1, 7, 9), ["a", "bc", "d"]),
        ((1,), ["a"]),
    ],
)
def test_spans_are_extracted_together_until_they_fill_some_batches(
    job: ExtractJob, tmp_path: Path, rows: tuple[int, ...], groups: list[str]
) -> None:
    plan = plan_of(job, *songs_of(tmp_path, *rows))
    decoder = Decoder()
    outcomes: list[SpanOutcome] = []
    summary = write_shard(plan, job, decoder, outcomes.append)
    assert groups_of(decoder) == groups
    assert [outcome.rows for outcome in outcomes] == list(rows)
    assert [entry.rows for entry in summary.recordings] == list(rows)


@pytest.mark.usefixtures("batches")
def test_the_rows_of_all_channels_fill_the_batches(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, channels="each")
    decoder = Decoder()
    write_shard(plan_of(job, *songs_of(tmp_path, 2, 2, 4, channels=2)), job, decoder, ignore)
    assert groups_of(decoder) == ["ab", "c"]


@pytest.mark.usefixtures("batches")
def test_spans_with_other_channels_are_not_extracted_together(
    job: ExtractJob, tmp_path: Path
) -> None:
    first, second, third = songs_of(tmp_path, 1, 1, 1)
    stereo = song(tmp_path, "s.wav", 1, channels=2)
    decoder = Decoder()
    write_shard(plan_of(job, first, second, stereo, third), job, decoder, ignore)
    assert groups_of(decoder) == ["ab", "s", "c"]


def test_without_a_model_each_span_is_extracted_alone(job: ExtractJob, tmp_path: Path) -> None:
    decoder = Decoder()
    write_shard(plan_of(job, *songs_of(tmp_path, 1, 1)), job, decoder, ignore)
    assert groups_of(decoder) == ["a", "b"]


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize(
    ("missing", "groups"),
    [
        ("a", ["abcd", "ab", "a", "b", "cd", "e"]),
        ("b", ["abcd", "ab", "a", "b", "cd", "e"]),
        ("d", ["abcd", "ab", "cd", "c", "d", "e"]),
        ("e", ["abcd", "e"]),
    ],
)
def test_a_failure_in_a_group_costs_only_the_rows_of_its_recording(
    job: ExtractJob, tmp_path: Path, missing: str, groups: list[str]
) -> None:
    songs = songs_of(tmp_path, 2, 2, 2, 2, 2)
    plan = plan_of(job, *songs)
    whole = write_shard(plan, job, Decoder(), ignore)
    number = "abcde".index(missing)
    Path(songs[number].recording.uri).unlink()
    decoder = Decoder()
    outcomes: list[SpanOutcome] = []
    summary = write_shard(replace(plan, name="other"), job, decoder, outcomes.append)
    assert groups_of(decoder) == groups
    expected: list[Any] = [""] * 5
    expected[number] = Cause.NOT_FOUND
    assert [outcome.failed for outcome in outcomes] == expected
    assert [failure.uri for failure in summary.failures] == [songs[number].recording.uri]
    others = [row for row in read_rows_of(job, whole) if row["uri"] != songs[number].recording.uri]
    assert read_rows_of(job, summary) == others


@pytest.mark.usefixtures("batches")
def test_spans_that_need_other_features_are_not_extracted_together(
    job: ExtractJob, tmp_path: Path
) -> None:
    songs = songs_of(tmp_path, 1, 1, 1)
    before = write_shard(plan_of(job, *songs), job, Decoder(), ignore)
    larger_job = with_samples(replace(job, base=Base(unchanged_features=("mel",))))
    plan = plan_of(larger_job, *(carried_from(before, song) for song in songs[:2]), songs[2])
    decoder = Decoder()
    summary = write_shard(plan, larger_job, decoder, ignore)
    assert decoder.computed == [
        (["a.wav"], ("samples",)),
        *[(["bb.wav"], ("samples",)), (["ccc.wav"], ("samples", "mel"))],
    ]
    assert [entry.rows for entry in summary.recordings] == [1, 1, 1]


def test_a_working_file_that_is_gone_is_not_reported_as_a_file_of_the_dataset(
    job: ExtractJob, tmp_path: Path
) -> None:
    class Removing(Decoder):
        def call(self, timeout_s: float, function: Any, /, *arguments: Any, **_: Any) -> Any:
            rows = super().call(timeout_s, function, *arguments)
            arguments[3].unlink()
            return rows

    plan = plan_of(job, *songs_of(tmp_path, 1))
    with pytest.raises(DatasetError, match=r"cannot read working files in .*/set"):
        write_shard(plan, job, Removing(), ignore)

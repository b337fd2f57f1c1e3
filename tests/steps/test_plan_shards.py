"""The planning steps in a pipeline: which recordings are planned, and which fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.records import Failure
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan, SplitTotals
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.plan_shards import PlanRecordings, PlanShards, pack_bucket
from tests.pipeline_runs import make_test_job
from tests.plans import failure, in_memory_pipeline, planned, probed

SONGS = [planned(f"{i}.wav", 10, split="test" if i % 5 == 0 else "train") for i in range(20)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ExtractJob:
    folder = tmp_path_factory.mktemp("catalogue")
    (folder / "a.wav").touch()
    features = ("chunk.seconds=1", "audio.sample_rate_hz=1000", "mel.n_mels=8", "mel.n_fft=256")
    limits = (
        "limits.max_duration_hours=0.01",
        "limits.max_failure_ratio=0.5",
        "output.min_shards=4",
    )
    return make_test_job(folder, folder.parent / "output", "mel.hop_length=128", *features, *limits)


def plan_shards(
    job: ExtractJob,
    recordings: Sequence[PlannedRecording],
    failures: Sequence[Failure],
    check: Callable[[list[ShardPlan]], None],
) -> None:
    with in_memory_pipeline() as pipeline:
        inputs = (
            pipeline | "Recordings" >> beam.Create(recordings, reshuffle=False),
            pipeline | "Failures" >> beam.Create(failures, reshuffle=False),
        )
        assert_that(inputs | PlanShards(job), check)


def test_recordings_are_planned_and_the_others_fail(job: ExtractJob) -> None:
    with in_memory_pipeline() as pipeline:
        songs = [probed("a.wav", 10), probed("long.wav", 50), probed("b.wav", 3, start_seconds=9)]
        results = pipeline | beam.Create(songs) | PlanRecordings(job)
        rows = results.recordings | beam.Map(lambda song: (song.probed, song.rows))
        failed = results.failures | beam.Map(
            lambda failure: (failure.uri, failure.cause, failure.fingerprint)
        )
        assert_that(rows, equal_to([(songs[0], 10)]), label="Planned")
        causes = [
            ("/songs/long.wav", Cause.TOO_LONG, "1-1"),
            ("/songs/b.wav", Cause.BAD_SEGMENT, "1-1"),
        ]
        assert_that(failed, equal_to(causes), label="Failed")


def test_every_split_has_shards_of_its_own(job: ExtractJob) -> None:
    def check(plans: list[ShardPlan]) -> None:
        splits = [(plan.split, span.probed) for plan in plans for span in plan.spans]
        assert sorted(splits, key=repr) == sorted(
            [(song.split, song.probed) for song in SONGS], key=repr
        )
        assert sorted(plan.split for plan in plans) == ["test", "train", "train", "train", "train"]

    plan_shards(job, SONGS, [], check)


def test_the_plan_does_not_depend_on_the_order(job: ExtractJob) -> None:
    names: list[set[str]] = [set(), set()]
    totals = {"train": SplitTotals(16, 160), "test": SplitTotals(4, 40)}
    for number, songs in enumerate([SONGS, SONGS[::-1]]):
        for split in totals:
            group = (split, 0), [song for song in songs if song.split == split]
            names[number] |= {plan.name for plan in pack_bucket(group, totals, 0, job)}
    assert names[0] == names[1]
    plan_shards(job, SONGS[::-1], [], lambda plans: _equal({plan.name for plan in plans}, names[0]))


def _equal(actual: object, expected: object) -> None:
    assert actual == expected


def test_as_many_failures_as_allowed_do_not_stop_the_plan(job: ExtractJob) -> None:
    failures = [failure(f"bad{i}.wav") for i in range(20)]
    plan_shards(job, SONGS, failures, lambda plans: _equal(len(plans), 5))


def test_nothing_is_planned_where_too_many_failed(job: ExtractJob) -> None:
    failures = [failure(f"bad{i}.wav") for i in range(21)]
    plan_shards(job, SONGS, failures, lambda plans: _equal(plans, []))


def test_nothing_is_planned_where_all_failed(job: ExtractJob) -> None:
    plan_shards(job, [], [failure()], lambda plans: _equal(plans, []))


def test_recordings_that_give_no_rows_need_no_shard(job: ExtractJob) -> None:
    plan_shards(job, [planned(chunks=0)], [], lambda plans: _equal(plans, []))


def test_a_recording_listed_twice_fails_the_run(job: ExtractJob) -> None:
    with pytest.raises(CatalogueError, match=r"/songs/1\.wav is listed twice"):
        plan_shards(job, [*SONGS, SONGS[1]], [], lambda plans: None)


def test_buckets_share_the_shards_of_a_split(job: ExtractJob) -> None:
    totals = {"train": SplitTotals(20, 200)}
    halves = [SONGS[:10], SONGS[10:]]
    songs = [[replace(song, split="train") for song in half] for half in halves]
    buckets = [
        list(pack_bucket((("train", i), half), totals, 0, job)) for i, half in enumerate(songs)
    ]
    assert [len(plans) for plans in buckets] == [2, 2]

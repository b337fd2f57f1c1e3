"""The index has the status of every recording, and does not depend on the order of facts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from melmill.transforms.core.errors import Cause
from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.core.records import Failure, MeasuredPart
from melmill.transforms.index.joining import join_recordings
from melmill.transforms.index.results import (
    Fact,
    Held,
    Kind,
    by_kind,
    facts_of,
    index_name,
    key_by_part,
    result_digest,
)
from melmill.transforms.index.tables import read_index, read_shards
from melmill.transforms.plan.change_records import Decision, Difference
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.rows.summaries import RecordingRows, ShardSummary
from melmill.transforms.write_index import WriteIndex
from tests.pipeline_runs import make_test_job
from tests.plans import failure, in_memory_pipeline, planned, summary


def held_fact(name: str, shard: str, rows: int, peak_dbfs: float) -> Fact:
    value = Held(shard, RecordingRows(digest(name), rows, peak_dbfs, f"{rows:032x}"))
    return Fact("recordings", digest(name), Kind.HELD, value)


def join(
    *results: Any, features: str = "features"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    facts_of_results = [
        [result] if isinstance(result, Fact) else facts_of(result) for result in results
    ]
    return join_recordings(by_kind(fact for facts in facts_of_results for fact in facts), features)


def test_a_recordings_rows_are_those_of_all_its_shards() -> None:
    (row,), failures = join(
        held_fact("a.wav", "s2", 3, -9.0), planned(), held_fact("a.wav", "s1", 7, -3.0)
    )
    assert failures == []
    assert (row["status"], row["rows"], row["shards"]) == ("ok", 10, ["s1", "s2"])
    assert (row["peak_dbfs"], row["rows_digest"]) == (-3.0, f"{10:032x}")


def test_a_recording_without_rows_was_skipped() -> None:
    (row,), failures = join(planned(chunks=0))
    assert (row["status"], row["rows"], row["shards"], row["peak_dbfs"]) == ("skipped", 0, [], None)
    assert failures == []


def test_a_failed_recording_holds_nothing_but_is_described() -> None:
    (row,), (failed,) = join(planned(), failure())
    assert (row["status"], row["rows"], row["shards"]) == ("failed", 0, [])
    assert (row["codec"], row["frames"]) == ("pcm_16", 20_000)
    assert (failed["cause"], failed["stage"], failed["message"]) == ("corrupt", "decode", "bad")


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param([planned(), held_fact("a.wav", "s1", 7, -3.0)], id="too few"),
        pytest.param([planned(), held_fact("a.wav", "s1", 11, -3.0)], id="too many"),
        pytest.param(
            [planned(), failure(), held_fact("a.wav", "s1", 7, -3.0)], id="failed, and held"
        ),
        pytest.param([held_fact("a.wav", "s1", 7, -3.0)], id="never planned"),
    ],
)
def test_a_recording_that_is_not_held_whole_is_refused(facts: list[Any]) -> None:
    with pytest.raises(RuntimeError, match=r"the shards hold \d+ rows, but \d+ were planned"):
        join(*facts)


def test_a_recording_that_was_planned_and_not_written_says_so() -> None:
    (row,), _ = join(planned())
    assert (row["status"], row["rows"]) == ("unwritten", 0)


def test_a_recording_that_failed_before_it_was_planned_is_listed_too() -> None:
    (row,), _ = join(failure(cause=Cause.NOT_FOUND))
    assert row["status"] == "failed"
    assert "codec" not in row


def test_a_recording_that_failed_in_two_spans_is_one_failure() -> None:
    span_failures = [failure(message="first"), failure(message="second")]
    for order in (span_failures, span_failures[::-1]):
        recordings, failures = join(planned(), *order)
        assert len(recordings) == 1
        assert [row["message"] for row in failures] == ["first"]


def test_every_recording_is_joined_with_its_own_facts() -> None:
    rows, failures = join(
        planned("a.wav", chunks=0),
        failure("b.wav"),
        planned("c.wav", chunks=5),
        held_fact("c.wav", "s", 5, 0.0),
    )
    statuses = {row["recording_id"]: (row["status"], row["rows"]) for row in rows}
    assert statuses == {
        digest("a.wav"): ("skipped", 0),
        digest("b.wav"): ("failed", 0),
        digest("c.wav"): ("ok", 5),
    }
    assert [row["recording_id"] for row in failures] == [digest("b.wav")]


def test_another_feature_configuration_gives_another_key() -> None:
    results = [join(planned(chunks=0), features=name) for name in ("one", "other")]
    keys = {recordings[0]["feature_key"] for recordings, _ in results}
    assert len(keys) == 2


def test_a_shard_gives_facts_to_the_parts_of_its_recordings() -> None:
    part = MeasuredPart(digest("a.wav"), 0, 9, 9, "{}")
    shard = summary(failures=(failure("b.wav"),), meters=("level",), measured=(part,))
    rows = RecordingRows(digest("a.wav"), 2, -3.0)
    assert [fact for _, fact in key_by_part(shard, 1000)] == [
        # What the rows of the recordings hold does not travel twice.
        Fact("shards", shard.name, Kind.WRITTEN, summary()),
        Fact("recordings", digest("a.wav"), Kind.HELD, Held(shard.name, rows)),
        Fact("recordings", digest("a.wav"), Kind.MEASURED, part),
        Fact("recordings", digest("b.wav"), Kind.FAILED, failure("b.wav")),
    ]
    assert all(
        key == (fact.table, bucket(fact.name, 1000)) for key, fact in key_by_part(shard, 1000)
    )


@pytest.mark.parametrize("change", [{"rows": 3}, {"low": -math.inf}, {"null_labels": ("x",)}])
def test_any_difference_in_a_shard_is_in_the_digest(change: dict[str, Any]) -> None:
    assert result_digest(replace(summary(), **change)) != result_digest(summary())


# In a pipeline

PLANNED = [planned(f"{i}.wav", chunks=0 if i == 3 else 2) for i in range(4)]
FAILURES = [failure("bad.wav", Cause.UNKNOWN_FORMAT)]
SHARDS = [
    summary(f"shard {i}", recordings=(RecordingRows(digest(f"{i}.wav"), 2, -math.inf),))
    for i in range(3)
]


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs/a.wav").touch()
    return make_test_job(tmp_path / "songs", tmp_path / "output")


def decision(parts: int) -> Decision:
    return Decision(parts, Difference(), todo=True)


def write(
    job: ExtractJob,
    recordings: list[PlannedRecording] = PLANNED,
    failures: list[Failure] = FAILURES,
    shards: list[ShardSummary] = SHARDS,
    parts: int = 1,
) -> str:
    """Write the index and return its name, which the run's outcome contains."""
    with in_memory_pipeline() as pipeline:
        facts_of_steps = tuple(
            pipeline | f"Create{i}" >> beam.Create(facts, reshuffle=False)
            for i, facts in enumerate((recordings, failures, shards))
        )
        decided = pipeline | beam.Create([decision(parts)], reshuffle=False)
        _ = facts_of_steps | WriteIndex(job, decided)
    outcome = json.loads(job.store.read(job.outcome))
    assert sorted(job.store.names("index")) == outcome["files"]
    return outcome["index"]


def test_the_index_has_every_result(job: ExtractJob) -> None:
    index = write(job)
    statuses = {
        row["uri"]: (row["status"], row["rows"])
        for row in read_index(job.store, index, "recordings")
    }
    assert statuses == {
        "/songs/0.wav": ("ok", 2),
        "/songs/1.wav": ("ok", 2),
        "/songs/2.wav": ("ok", 2),
        "/songs/3.wav": ("skipped", 0),
        "/songs/bad.wav": ("failed", 0),
    }
    assert [row["cause"] for row in read_index(job.store, index, "failures")] == ["unknown_format"]
    assert set(read_shards(job.store, index)) == set(SHARDS)


def test_the_order_does_not_matter(job: ExtractJob) -> None:
    index = write(job)
    before = {name: job.store.read(name) for name in job.store.names("index")}
    assert write(job, PLANNED[::-1], FAILURES, SHARDS[::-1]) == index
    assert {name: job.store.read(name) for name in job.store.names("index")} == before


def test_another_content_has_another_name(job: ExtractJob, tmp_path: Path) -> None:
    other_job = replace(job, store=replace(job.store, root=str(tmp_path / "other")))
    assert write(job) != write(other_job, PLANNED[1:], FAILURES, SHARDS[1:])


def test_many_recordings_are_written_in_parts(job: ExtractJob) -> None:
    index = write(job, parts=3)
    parts = [name for name in job.store.names("index") if "/recordings-" in name]
    assert len(parts) > 1
    assert len(list(read_index(job.store, index, "recordings"))) == 5


def test_an_index_is_named_by_128_bits() -> None:
    assert len(index_name(2**128 - 1)) == 32

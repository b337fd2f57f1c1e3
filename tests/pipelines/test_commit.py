"""The last step: what a run made is committed once, and what it leaves is its own alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from melmill.pipelines import commit as commit_module
from melmill.pipelines.commit import (
    Outcome,
    begin,
    changes_schema,
    commit_index,
    discard,
    discarding_the_overtaken,
    finish,
    leave,
    read_outcome,
    require_outcome,
    tidy_up_after,
)
from melmill.pipelines.config import load_config
from melmill.pipelines.run.errors import TooManyFailuresError
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import Cause, ConflictError, DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.index.facts import Held
from melmill.transforms.index.tables import (
    failed_row,
    failure_row,
    recording_row,
    shard_row,
    write_part,
)
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.shards.receipts import announce_file, announce_index, announce_shard
from melmill.transforms.snapshot.delta import read_snapshot, require_snapshot
from tests.plans import failure, planned
from tests.shard_rows import batch_of, job_of_rows, rows_of, shard_of

RECIPE = load_config(None, ()).as_dict()
A, B = "a" * 32, "b" * 32


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return begin(job_of_rows(tmp_path))


def shard(job: ExtractJob, name: str, rows: int = 2) -> ShardSummary:
    return shard_of(job, digest("plan of", name), batch_of(job, rows_of(name, *range(rows))))


def lay_index(
    job: ExtractJob, index: str, *shards: ShardSummary, failed: Sequence[str] = (), short: int = 0
) -> None:
    """An index of these shards, each of one recording, and of recordings without rows."""
    announce_index(job, index)
    rows = []
    for made in shards:
        (entry,) = made.recordings
        row = recording_row(planned("x.wav", entry.rows), [Held(made.name, entry)], "f")
        rows.append(row | {"recording_id": entry.recording_id})
    rows += [recording_row(planned(f"short{i}.wav", 0), (), "f") for i in range(short)]
    failures = [failure(name, Cause.CORRUPT, f"{name} is broken") for name in failed]
    rows += [failed_row(one, None, "f") for one in failures]
    write_part(job.store, index, "recordings", 0, rows)
    write_part(job.store, index, "failures", 0, [failure_row(one) for one in failures])
    write_part(job.store, index, "shards", 0, [shard_row(one) for one in shards])


def committed(job: ExtractJob, index: str = A, *names: str) -> OpenSnapshot:
    """What a run commits that found these recordings."""
    shards = [shard(job, name) for name in names or ("a.wav",)]
    lay_index(job, index, *shards)
    current = read_snapshot(job.store)
    opened = OpenSnapshot(job.store, current) if current else None
    return finish(job, RECIPE, opened, Outcome(index, 1))[0]


def next_job(job: ExtractJob, current: OpenSnapshot, **values: Any) -> ExtractJob:
    """Another run, from the snapshot that is there."""
    base = replace(job.base, version=current.snapshot.version, index=current.snapshot.index)
    return begin(replace(job, base=base, attempt="", began_ms=0, **values))


def staged(job: ExtractJob) -> list[str]:
    return sorted(name.removeprefix(f"{job.staging}/") for name in job.store.names(job.staging))


# What the pipeline found


def test_an_outcome_is_read_as_it_was_written(job: ExtractJob) -> None:
    said = {"index": A, "parts": 3, "difference": {"new": 2}, "todo": False, "files": ["x"]}
    job.store.put(f"staging/{job.run_id}/outcomes/{job.attempt}.json", json.dumps(said).encode())
    assert read_outcome(job) == Outcome(A, 3, {"new": 2}, False) == require_outcome(job)


def test_an_outcome_that_is_missing_was_written_elsewhere(job: ExtractJob) -> None:
    with pytest.raises(FileNotFoundError):
        read_outcome(job)
    with pytest.raises(DatasetError) as caught:
        require_outcome(job)
    assert job.store.root in str(caught.value)


# The beginning and the end of an attempt


def test_an_attempt_leaves_its_name_and_when_it_began(tmp_path: Path) -> None:
    plain = job_of_rows(tmp_path)
    first = begin(plain)
    assert first.attempt.startswith(f"{plain.run_id}-")
    assert len(first.attempt) == len(plain.run_id) + 1 + 32
    assert abs(first.began_ms - time.time() * 1000) < 60_000
    assert staged(first) == [f"attempts/{first.attempt}", "started"]
    assert first.store.read(f"{first.staging}/started") == str(first.began_ms).encode()
    first.store.put(f"{first.staging}/started", b"1234")
    second = begin(plain)
    assert (second.began_ms, second.run_id) == (1234, first.run_id)
    assert second.attempt != first.attempt
    assert first.store.size(".melmill") is not None


def test_who_leaves_first_leaves_the_folder(job: ExtractJob) -> None:
    current = committed(job)
    first, second = next_job(job, current), next_job(job, current)
    leave(first)
    assert staged(second) == [f"attempts/{second.attempt}", "started"]
    leave(second)
    assert staged(second) == []
    assert not Path(job.store.path(job.staging)).exists()


# The commit


def test_the_first_commit_says_how_it_was_made(job: ExtractJob) -> None:
    made = [shard(job, "a.wav"), shard(job, "b.wav", 3)]
    lay_index(job, A, *made, failed=["bad.wav"])
    lenient = replace(job, limits=replace(job.limits, max_failure_ratio=0.4))
    opened, is_new = finish(lenient, RECIPE, None, Outcome(A, 1))
    found = require_snapshot(job.store)
    assert is_new
    assert opened.snapshot == found
    assert (found.version, found.index, found.rows, found.parts) == (0, A, 5, 1)
    assert (found.catalogue, found.features) == (job.catalogue.uri, job.features.canonical())
    assert (found.configuration, found.operation) == (RECIPE, "extract")
    assert (found.listed_ms, found.run) == (job.began_ms, job.attempt)
    assert (found.dataset_version, found.taken_down) == (1, "")
    assert found.statistics == json.loads(json.dumps(opened.statistics))
    assert f"index/{A}" in job.store.read("README.md").decode()
    assert list(job.store.names("staging")) == []


def test_a_refresh_goes_on_from_what_was_there(job: ExtractJob) -> None:
    first = committed(job)
    noted = replace(first.snapshot, taken_down="taken_down/x.jsonl", dataset_version=7)
    known = OpenSnapshot(job.store, noted)
    again = next_job(job, first)
    lay_index(again, B, shard(again, "b.wav"))
    opened, is_new = finish(again, RECIPE, known, Outcome(B, 2))
    found = opened.snapshot
    assert is_new
    assert (found.version, found.operation, found.parts) == (1, "refresh", 2)
    assert (found.taken_down, found.dataset_version) == ("taken_down/x.jsonl", 7)
    assert found.run == again.attempt != job.attempt


def test_nothing_to_do_is_not_committed(job: ExtractJob) -> None:
    current = committed(job)
    again = next_job(job, current)
    assert finish(again, RECIPE, current, Outcome(A, todo=False)) == (current, False)
    assert require_snapshot(job.store).version == 0
    assert list(job.store.names("staging")) == []


def test_other_columns_or_another_shape_are_another_schema(job: ExtractJob) -> None:
    current = committed(job)
    assert not changes_schema(job, current)
    taller = replace(job.features, mel=replace(job.features.mel, n_mels=9))
    other = replace(job, features=taller)
    channels = replace(job, features=replace(job.features, channels="each"))
    assert changes_schema(other, current)
    assert changes_schema(channels, current)
    again = next_job(job, current, features=taller)
    lay_index(again, B, shard(again, "b.wav"))
    opened, _ = finish(again, RECIPE, current, Outcome(B, 1))
    assert opened.snapshot.dataset_version == 2


def test_too_many_failures_are_not_committed(job: ExtractJob) -> None:
    lay_index(job, A, shard(job, "a.wav"), failed=["b.wav", "c.wav"])
    for allowed in (0.66, 0.0):
        limited = replace(job, limits=replace(job.limits, max_failure_ratio=allowed))
        with pytest.raises(TooManyFailuresError) as caught:
            finish(limited, RECIPE, None, Outcome(A, 1))
        first, *lines = str(caught.value).splitlines()
        assert first == (
            "2 of 3 recordings failed (66.7%, and limits.max_failure_ratio allows "
            f"{allowed:.1%}); nothing was committed. All failures are listed in "
            f"{job.store.root}/index/{A}/"
        )
        assert "corrupt" in "".join(lines)
    assert read_snapshot(job.store) is None
    allowed_all = replace(job, limits=replace(job.limits, max_failure_ratio=2 / 3))
    assert finish(allowed_all, RECIPE, None, Outcome(A, 1))[1]


def test_a_new_dataset_without_rows_is_a_mistake(job: ExtractJob) -> None:
    lay_index(job, A, failed=["b.wav"], short=2)
    lenient = replace(job, limits=replace(job.limits, max_failure_ratio=0.5))
    with pytest.raises(TooManyFailuresError) as caught:
        finish(lenient, RECIPE, None, Outcome(A, 1, {"excluded": 4}))
    first, *lines = str(caught.value).splitlines()
    assert first == (
        "no recording has any rows: 1 failed, 2 were shorter than a chunk (chunk.short is drop), "
        "4 were left out by catalogue.exclude; nothing was committed. All failures are listed in "
        f"{job.store.root}/index/{A}/"
    )
    assert "corrupt" in "".join(lines)
    with pytest.raises(TooManyFailuresError, match="0 were left out by"):
        finish(lenient, RECIPE, None, Outcome(A, 1))


def test_a_dataset_may_become_empty(job: ExtractJob) -> None:
    current = committed(job)
    again = next_job(job, current)
    lay_index(again, B)
    opened, is_new = finish(again, RECIPE, current, Outcome(B, 1))
    assert (is_new, opened.snapshot.rows) == (True, 0)
    lay_index(third := next_job(again, opened), "c" * 32, failed=["b.wav"])
    with pytest.raises(TooManyFailuresError):
        finish(third, RECIPE, opened, Outcome("c" * 32, 1))


# What a run leaves


def test_what_was_announced_and_not_committed_goes(job: ExtractJob) -> None:
    current = committed(job)
    kept = set(job.store.names())
    again = next_job(job, current)
    made = shard(again, "b.wav")
    lay_index(again, B, made)
    announce_file(again, "README.md")  # not a name that only melmill gives
    announce_file(again, f"taken_down/{B}.jsonl")
    job.store.put(f"taken_down/{B}.jsonl", b"x")
    assert made.parquet is not None
    assert job.store.size(made.parquet.name)
    discard(again)
    assert set(job.store.names()) == kept


def test_what_an_earlier_snapshot_needs_stays(job: ExtractJob) -> None:
    first = committed(job)
    (old,) = [name for name in job.store.names() if name.startswith("split=")]
    second = committed(next_job(job, first), B, "b.wav")
    again = next_job(job, second)
    announce_shard(again, old[-40:-8], [old])
    announce_index(again, A)
    discard(again)
    assert job.store.size(old)
    assert list(job.store.names(f"index/{A}"))


def test_an_attempt_that_may_still_write_keeps_its_announcements(job: ExtractJob) -> None:
    current = committed(job)
    first, second = next_job(job, current), next_job(job, current)
    name = f"split=train/part-{B}.parquet"
    announce_shard(first, B, [name])
    announce_shard(first, "c" * 32, [name.replace(B, "c" * 32)])
    discard(first)
    # The files are not there yet: the other attempt may be about to write them.
    announced = [f"made/{B}.json", f"made/{'c' * 32}.json"]
    assert staged(first) == [f"attempts/{second.attempt}", *announced, "started"]
    job.store.put(name, b"x")
    job.store.put(name.replace(B, "c" * 32), b"x")
    discard(first)
    assert (staged(first), job.store.size(name)) == ([], None)


def test_alone_an_attempt_removes_its_announcements(job: ExtractJob) -> None:
    current = committed(job)
    again = next_job(job, current)
    announce_shard(again, B, [f"split=train/part-{B}.parquet"])
    discard(again)
    assert staged(again) == []


def test_a_run_that_was_killed_after_its_commit_is_tidied_up(job: ExtractJob) -> None:
    current = committed(job)
    job.store.put(f"{job.staging}/started", b"1")
    job.store.put("staging/0123456789abcdef/started", b"1")
    tidy_up_after(job.store, replace(current.snapshot, run=""))
    assert staged(job) == ["started"]
    tidy_up_after(job.store, current.snapshot)
    assert staged(job) == []
    assert list(job.store.names("staging")) == ["staging/0123456789abcdef/started"]


# Two runs


def test_an_error_after_anothers_commit_is_a_conflict(job: ExtractJob) -> None:
    first = committed(job)
    loser = next_job(job, first, operation="loser")
    other = next_job(job, first, operation="of the loser, too")
    made = shard(other, "c.wav")
    winner = committed(next_job(job, first), B, "b.wav")
    with (
        pytest.raises(ConflictError) as caught,
        discarding_the_overtaken(loser, first, [other]),
    ):
        raise KeyError("a file that is gone")
    assert str(caught.value) == (
        f"another run committed version 1 to {job.store.root} while this run worked from version "
        "0; nothing of this run is left: run the same command again to do what is still missing"
    )
    assert made.parquet is not None
    assert job.store.size(made.parquet.name) is None
    assert list(job.store.names("staging")) == []
    assert require_snapshot(job.store) == winner.snapshot
    with (
        pytest.raises(ConflictError, match="worked from an empty folder"),
        discarding_the_overtaken(loser, None),
    ):
        raise KeyError("a file that is gone")


def test_a_run_that_is_overtaken_at_once_leaves_the_card_to_the_other(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = commit_module.commit

    def commit_and_lose(*arguments: Any) -> int:
        monkeypatch.undo()
        version = real(*arguments)
        committed(next_job(job, OpenSnapshot.current(job.store)), B, "b.wav", "c.wav")
        return version

    monkeypatch.setattr(commit_module, "commit", commit_and_lose)
    opened = committed(job)
    assert (opened.snapshot.version, opened.snapshot.index) == (0, A)
    assert (opened.snapshot.rows, opened.snapshot.run) == (2, job.attempt)
    assert opened.totals.rows == 2
    assert f"index/{B}" in job.store.read("README.md").decode()
    current = require_snapshot(job.store)
    assert (current.version, current.index, current.rows) == (1, B, 4)


def test_a_worker_that_is_overtaken_leaves_nothing(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(job)
    again = next_job(job, first, operation="slow")
    made = shard(again, "c.wav")
    lay_index(again, B, made)
    write_outcome(again, B)

    def lose(*_: object) -> None:
        monkeypatch.undo()
        committed(next_job(job, first), "c" * 32, "b.wav")
        raise KeyError("a file that is gone")

    monkeypatch.setattr(commit_module, "add_up", lose)
    with pytest.raises(ConflictError, match=r"version 1 .* worked from version 0;"):
        commit_index(B, again, RECIPE, 0)
    assert made.parquet is not None
    assert job.store.size(made.parquet.name) is None
    assert list(job.store.names("staging")) == []


@pytest.mark.parametrize("case", ["nothing", "the same", "its own"])
def test_another_error_stays_what_it_is(job: ExtractJob, case: str) -> None:
    current = committed(job) if case != "nothing" else None
    before = None if case == "its own" else current
    with pytest.raises(KeyError), discarding_the_overtaken(job, before):
        raise KeyError("a fault")


def write_outcome(job: ExtractJob, index: str, todo: bool = True) -> None:
    said = {"index": index, "parts": 1, "difference": {}, "todo": todo, "files": []}
    job.store.put(job.outcome, json.dumps(said).encode())


def test_a_worker_commits_once(job: ExtractJob) -> None:
    lay_index(job, A, shard(job, "a.wav"))
    write_outcome(job, A)
    assert commit_index(A, job, RECIPE, -1) == 0
    assert require_snapshot(job.store).configuration == RECIPE
    assert staged(job) == []
    job.store.remove_files(["README.md"])
    job.store.put(f"{job.staging}/started", b"1")
    # A retry writes what was not written, and tidies up.
    assert commit_index(A, job, RECIPE, -1) == 0
    assert job.store.size("README.md")
    assert staged(job) == []
    again = next_job(job, OpenSnapshot.current(job.store))
    lay_index(again, B, shard(again, "b.wav"))
    write_outcome(again, B)
    assert commit_index(B, again, RECIPE, 0) == 1


def test_a_worker_does_not_commit_over_another_version(job: ExtractJob) -> None:
    first = committed(job)
    again = next_job(job, first)
    made = shard(again, "b.wav")
    lay_index(again, B, made)
    write_outcome(again, B)
    with pytest.raises(DatasetError) as caught:
        commit_index(B, again, RECIPE, -1)
    assert str(caught.value) == (
        f"{job.store.root}: was at version -1 when this job was created, and is at version 0 now; "
        "nothing was committed; create the job again"
    )
    assert list(job.store.names(f"index/{B}")) == []
    assert require_snapshot(job.store).index == A


def test_a_worker_that_has_nothing_to_do_gives_the_present_version(job: ExtractJob) -> None:
    current = committed(job)
    again = next_job(job, current)
    write_outcome(again, A, todo=False)
    assert commit_index(A, again, RECIPE, 0) == 0
    # An earlier try has removed the outcome.
    assert commit_index(A, again, RECIPE, 0) == 0
    with pytest.raises(DatasetError, match=r"set"):
        commit_index(B, again, RECIPE, 0)

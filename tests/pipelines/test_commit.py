"""The last step of a run commits its rows once, or removes only the run's own files."""

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
from melmill.transforms.index.results import Held
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
from tests.mel_features import with_mel
from tests.plans import failure, planned
from tests.shard_rows import batch_of, job_of_rows, rows_of, shard_of

RECIPE = load_config(None, ()).as_dict()
A, B = "a" * 32, "b" * 32


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return begin(job_of_rows(tmp_path))


def shard(job: ExtractJob, name: str, rows: int = 2) -> ShardSummary:
    return shard_of(job, digest("plan of", name), batch_of(job, rows_of(name, *range(rows))))


def write_index(
    job: ExtractJob, index: str, *shards: ShardSummary, failed: Sequence[str] = (), short: int = 0
) -> None:
    """Write an index of these shards and of recordings without rows.

    Each shard holds the rows of one recording.
    """
    announce_index(job, index)
    rows = []
    for summary in shards:
        (entry,) = summary.recordings
        row = recording_row(planned("x.wav", entry.rows), [Held(summary.name, entry)], "f")
        rows.append(row | {"recording_id": entry.recording_id})
    rows += [recording_row(planned(f"short{i}.wav", 0), (), "f") for i in range(short)]
    failures = [failure(name, Cause.CORRUPT, f"{name} is broken") for name in failed]
    rows += [failed_row(song_failure, None, "f") for song_failure in failures]
    write_part(job.store, index, "recordings", 0, rows)
    write_part(
        job.store, index, "failures", 0, [failure_row(song_failure) for song_failure in failures]
    )
    write_part(job.store, index, "shards", 0, [shard_row(song_failure) for song_failure in shards])


def commit_run(job: ExtractJob, index: str = A, *names: str) -> OpenSnapshot:
    """Commit a run with these recordings and return the new snapshot."""
    shards = [shard(job, name) for name in names or ("a.wav",)]
    write_index(job, index, *shards)
    current = read_snapshot(job.store)
    opened = OpenSnapshot(job.store, current) if current else None
    return finish(job, RECIPE, opened, Outcome(index, 1))[0]


def next_job(job: ExtractJob, current: OpenSnapshot, **values: Any) -> ExtractJob:
    """Return the job of another run that starts from the current snapshot."""
    base = replace(job.base, version=current.snapshot.version, index=current.snapshot.index)
    return begin(replace(job, base=base, attempt="", began_ms=0, **values))


def staged(job: ExtractJob) -> list[str]:
    return sorted(name.removeprefix(f"{job.staging}/") for name in job.store.names(job.staging))


# The outcome of the pipeline


def test_an_outcome_is_read_as_it_was_written(job: ExtractJob) -> None:
    stored = {"index": A, "parts": 3, "difference": {"new": 2}, "todo": False, "files": ["x"]}
    job.store.put(f"staging/{job.run_id}/outcomes/{job.attempt}.json", json.dumps(stored).encode())
    assert read_outcome(job) == Outcome(A, 3, {"new": 2}, False) == require_outcome(job)


def test_a_missing_outcome_is_an_error(job: ExtractJob) -> None:
    with pytest.raises(FileNotFoundError):
        read_outcome(job)
    with pytest.raises(DatasetError) as raised:
        require_outcome(job)
    assert job.store.root in str(raised.value)


# The beginning and the end of an attempt


def test_an_attempt_stores_its_name_and_its_start_time(tmp_path: Path) -> None:
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


def test_the_last_attempt_that_leaves_removes_the_folder(job: ExtractJob) -> None:
    current = commit_run(job)
    first, second = next_job(job, current), next_job(job, current)
    leave(first)
    assert staged(second) == [f"attempts/{second.attempt}", "started"]
    leave(second)
    assert staged(second) == []
    assert not Path(job.store.path(job.staging)).exists()


# The commit


def test_the_first_commit_describes_its_run(job: ExtractJob) -> None:
    shards = [shard(job, "a.wav"), shard(job, "b.wav", 3)]
    write_index(job, A, *shards, failed=["bad.wav"])
    lenient = replace(job, limits=replace(job.limits, max_failure_ratio=0.4))
    opened, is_new = finish(lenient, RECIPE, None, Outcome(A, 1))
    snapshot = require_snapshot(job.store)
    assert is_new
    assert opened.snapshot == snapshot
    assert (snapshot.version, snapshot.index, snapshot.rows, snapshot.parts) == (0, A, 5, 1)
    assert (snapshot.catalogue, snapshot.features) == (job.catalogue.uri, job.features.canonical())
    assert (snapshot.configuration, snapshot.operation) == (RECIPE, "extract")
    assert (snapshot.listed_ms, snapshot.run) == (job.began_ms, job.attempt)
    assert (snapshot.dataset_version, snapshot.taken_down) == (1, "")
    assert snapshot.statistics == json.loads(json.dumps(opened.statistics))
    assert f"index/{A}" in job.store.read("README.md").decode()
    assert list(job.store.names("staging")) == []


def test_a_refresh_continues_from_the_current_snapshot(job: ExtractJob) -> None:
    first = commit_run(job)
    changed = replace(first.snapshot, taken_down="taken_down/x.jsonl", dataset_version=7)
    before = OpenSnapshot(job.store, changed)
    next_run = next_job(job, first)
    write_index(next_run, B, shard(next_run, "b.wav"))
    opened, is_new = finish(next_run, RECIPE, before, Outcome(B, 2))
    snapshot = opened.snapshot
    assert is_new
    assert (snapshot.version, snapshot.operation, snapshot.parts) == (1, "refresh", 2)
    assert (snapshot.taken_down, snapshot.dataset_version) == ("taken_down/x.jsonl", 7)
    assert snapshot.run == next_run.attempt != job.attempt


def test_a_run_with_nothing_to_do_commits_nothing(job: ExtractJob) -> None:
    current = commit_run(job)
    next_run = next_job(job, current)
    assert finish(next_run, RECIPE, current, Outcome(A, todo=False)) == (current, False)
    assert require_snapshot(job.store).version == 0
    assert list(job.store.names("staging")) == []


def test_other_columns_or_another_shape_are_another_schema(job: ExtractJob) -> None:
    current = commit_run(job)
    assert not changes_schema(job, current)
    taller_features = with_mel(job.features, n_mels=9)
    taller_job = replace(job, features=taller_features)
    channels_job = replace(job, features=replace(job.features, channels="each"))
    assert changes_schema(taller_job, current)
    assert changes_schema(channels_job, current)
    next_run = next_job(job, current, features=taller_features)
    write_index(next_run, B, shard(next_run, "b.wav"))
    opened, _ = finish(next_run, RECIPE, current, Outcome(B, 1))
    assert opened.snapshot.dataset_version == 2


def test_too_many_failures_are_not_committed(job: ExtractJob) -> None:
    write_index(job, A, shard(job, "a.wav"), failed=["b.wav", "c.wav"])
    for allowed in (0.66, 0.0):
        limited = replace(job, limits=replace(job.limits, max_failure_ratio=allowed))
        with pytest.raises(TooManyFailuresError) as raised:
            finish(limited, RECIPE, None, Outcome(A, 1))
        first, *lines = str(raised.value).splitlines()
        assert first == (
            "2 of 3 recordings failed (66.7%, and limits.max_failure_ratio allows "
            f"{allowed:.1%}); nothing was committed. All failures are listed in "
            f"{job.store.root}/index/{A}/"
        )
        assert "corrupt" in "".join(lines)
    assert read_snapshot(job.store) is None
    allowed_all = replace(job, limits=replace(job.limits, max_failure_ratio=2 / 3))
    assert finish(allowed_all, RECIPE, None, Outcome(A, 1))[1]


def test_a_new_dataset_without_rows_is_not_committed(job: ExtractJob) -> None:
    write_index(job, A, failed=["b.wav"], short=2)
    lenient = replace(job, limits=replace(job.limits, max_failure_ratio=0.5))
    with pytest.raises(TooManyFailuresError) as raised:
        finish(lenient, RECIPE, None, Outcome(A, 1, {"excluded": 4}))
    first, *lines = str(raised.value).splitlines()
    assert first == (
        "no recording has any rows: 1 failed, 2 were shorter than a chunk (chunk.short is drop), "
        "4 were left out by catalogue.exclude, 0 by catalogue.require_license; nothing was "
        "committed. All failures are listed in "
        f"{job.store.root}/index/{A}/"
    )
    assert "corrupt" in "".join(lines)
    with pytest.raises(TooManyFailuresError, match="0 were left out by"):
        finish(lenient, RECIPE, None, Outcome(A, 1))


def test_a_new_dataset_may_be_empty_if_the_selection_refuses_all(job: ExtractJob) -> None:
    write_index(job, A)
    refused = replace(planned("a.wav", 0), deselected_by="level.peak")
    write_part(job.store, A, "recordings", 0, [recording_row(refused, (), "f")])
    opened, is_new = finish(job, RECIPE, None, Outcome(A, 1))
    assert (is_new, opened.snapshot.rows) == (True, 0)


def test_a_dataset_may_become_empty(job: ExtractJob) -> None:
    current = commit_run(job)
    next_run = next_job(job, current)
    write_index(next_run, B)
    opened, is_new = finish(next_run, RECIPE, current, Outcome(B, 1))
    assert (is_new, opened.snapshot.rows) == (True, 0)
    write_index(third_run := next_job(next_run, opened), "c" * 32, failed=["b.wav"])
    with pytest.raises(TooManyFailuresError):
        finish(third_run, RECIPE, opened, Outcome("c" * 32, 1))


# The files that a run leaves


def test_announced_files_that_were_not_committed_are_removed(job: ExtractJob) -> None:
    current = commit_run(job)
    files_before = set(job.store.names())
    next_run = next_job(job, current)
    summary = shard(next_run, "b.wav")
    write_index(next_run, B, summary)
    announce_file(next_run, "README.md")  # Other programs use this name, too.
    announce_file(next_run, f"taken_down/{B}.jsonl")
    job.store.put(f"taken_down/{B}.jsonl", b"x")
    assert summary.parquet is not None
    assert job.store.size(summary.parquet.name)
    discard(next_run)
    assert set(job.store.names()) == files_before


def test_the_files_of_an_earlier_snapshot_stay(job: ExtractJob) -> None:
    first = commit_run(job)
    (old_file,) = [name for name in job.store.names() if name.startswith("split=")]
    second = commit_run(next_job(job, first), B, "b.wav")
    next_run = next_job(job, second)
    announce_shard(next_run, old_file[-40:-8], [old_file])
    announce_index(next_run, A)
    discard(next_run)
    assert job.store.size(old_file)
    assert list(job.store.names(f"index/{A}"))


def test_an_attempt_that_may_still_write_keeps_its_announcements(job: ExtractJob) -> None:
    current = commit_run(job)
    first, second = next_job(job, current), next_job(job, current)
    name = f"split=train/part-{B}.parquet"
    announce_shard(first, B, [name])
    announce_shard(first, "c" * 32, [name.replace(B, "c" * 32)])
    discard(first)
    # The files do not exist yet. The other attempt may write them soon.
    announced = [f"made/{B}.json", f"made/{'c' * 32}.json"]
    assert staged(first) == [f"attempts/{second.attempt}", *announced, "started"]
    job.store.put(name, b"x")
    job.store.put(name.replace(B, "c" * 32), b"x")
    discard(first)
    assert (staged(first), job.store.size(name)) == ([], None)


def test_the_only_attempt_removes_its_announcements(job: ExtractJob) -> None:
    current = commit_run(job)
    next_run = next_job(job, current)
    announce_shard(next_run, B, [f"split=train/part-{B}.parquet"])
    discard(next_run)
    assert staged(next_run) == []


def test_the_files_of_a_run_that_was_killed_after_its_commit_are_removed(job: ExtractJob) -> None:
    current = commit_run(job)
    job.store.put(f"{job.staging}/started", b"1")
    job.store.put("staging/0123456789abcdef/started", b"1")
    tidy_up_after(job.store, replace(current.snapshot, run=""))
    assert staged(job) == ["started"]
    tidy_up_after(job.store, current.snapshot)
    assert staged(job) == []
    assert list(job.store.names("staging")) == ["staging/0123456789abcdef/started"]


# Two runs


def test_an_error_after_a_commit_of_another_run_is_a_conflict(job: ExtractJob) -> None:
    first = commit_run(job)
    loser = next_job(job, first, operation="loser")
    follower = next_job(job, first, operation="of the loser, too")
    summary = shard(follower, "c.wav")
    winner = commit_run(next_job(job, first), B, "b.wav")
    with (
        pytest.raises(ConflictError) as raised,
        discarding_the_overtaken(loser, first, [follower]),
    ):
        raise KeyError("a file that is gone")
    assert str(raised.value) == (
        f"another run committed version 1 to {job.store.root} while this run worked from version "
        "0; nothing of this run is left: run the same command again to do what is still missing"
    )
    assert summary.parquet is not None
    assert job.store.size(summary.parquet.name) is None
    assert list(job.store.names("staging")) == []
    assert require_snapshot(job.store) == winner.snapshot
    with (
        pytest.raises(ConflictError, match="worked from an empty folder"),
        discarding_the_overtaken(loser, None),
    ):
        raise KeyError("a file that is gone")


def test_a_run_that_is_overtaken_at_once_does_not_write_the_card(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = commit_module.commit

    def commit_and_lose(*arguments: Any) -> int:
        monkeypatch.undo()
        version = real(*arguments)
        commit_run(next_job(job, OpenSnapshot.current(job.store)), B, "b.wav", "c.wav")
        return version

    monkeypatch.setattr(commit_module, "commit", commit_and_lose)
    opened = commit_run(job)
    assert (opened.snapshot.version, opened.snapshot.index) == (0, A)
    assert (opened.snapshot.rows, opened.snapshot.run) == (2, job.attempt)
    assert opened.totals.rows == 2
    assert f"index/{B}" in job.store.read("README.md").decode()
    current = require_snapshot(job.store)
    assert (current.version, current.index, current.rows) == (1, B, 4)


def test_a_worker_that_is_overtaken_leaves_nothing(
    job: ExtractJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit_run(job)
    slow_run = next_job(job, first, operation="slow")
    summary = shard(slow_run, "c.wav")
    write_index(slow_run, B, summary)
    write_outcome(slow_run, B)

    def lose(*_: object) -> None:
        monkeypatch.undo()
        commit_run(next_job(job, first), "c" * 32, "b.wav")
        raise KeyError("a file that is gone")

    monkeypatch.setattr(commit_module, "add_up", lose)
    with pytest.raises(ConflictError, match=r"version 1 .* worked from version 0;"):
        commit_index(B, slow_run, RECIPE, 0)
    assert summary.parquet is not None
    assert job.store.size(summary.parquet.name) is None
    assert list(job.store.names("staging")) == []


@pytest.mark.parametrize("case", ["nothing", "the same", "its own"])
def test_an_error_without_a_commit_of_another_run_is_raised_unchanged(
    job: ExtractJob, case: str
) -> None:
    current = commit_run(job) if case != "nothing" else None
    before = None if case == "its own" else current
    with pytest.raises(KeyError), discarding_the_overtaken(job, before):
        raise KeyError("a fault")


def write_outcome(job: ExtractJob, index: str, todo: bool = True) -> None:
    outcome = {"index": index, "parts": 1, "difference": {}, "todo": todo, "files": []}
    job.store.put(job.outcome, json.dumps(outcome).encode())


def test_a_worker_commits_once(job: ExtractJob) -> None:
    write_index(job, A, shard(job, "a.wav"))
    write_outcome(job, A)
    assert commit_index(A, job, RECIPE, -1) == 0
    assert require_snapshot(job.store).configuration == RECIPE
    assert staged(job) == []
    job.store.remove_files(["README.md"])
    job.store.put(f"{job.staging}/started", b"1")
    # A retry writes the missing card and removes the working files.
    assert commit_index(A, job, RECIPE, -1) == 0
    assert job.store.size("README.md")
    assert staged(job) == []
    next_run = next_job(job, OpenSnapshot.current(job.store))
    write_index(next_run, B, shard(next_run, "b.wav"))
    write_outcome(next_run, B)
    assert commit_index(B, next_run, RECIPE, 0) == 1


def test_a_worker_does_not_commit_over_another_version(job: ExtractJob) -> None:
    first = commit_run(job)
    next_run = next_job(job, first)
    summary = shard(next_run, "b.wav")
    write_index(next_run, B, summary)
    write_outcome(next_run, B)
    with pytest.raises(DatasetError) as raised:
        commit_index(B, next_run, RECIPE, -1)
    assert str(raised.value) == (
        f"{job.store.root}: was at version -1 when this job was created, and is at version 0 now; "
        "nothing was committed; create the job again"
    )
    assert list(job.store.names(f"index/{B}")) == []
    assert require_snapshot(job.store).index == A


def test_a_worker_with_nothing_to_do_returns_the_current_version(job: ExtractJob) -> None:
    current = commit_run(job)
    next_run = next_job(job, current)
    write_outcome(next_run, A, todo=False)
    assert commit_index(A, next_run, RECIPE, 0) == 0
    # The first call has removed the outcome.
    assert commit_index(A, next_run, RECIPE, 0) == 0
    with pytest.raises(DatasetError, match=r"set"):
        commit_index(B, next_run, RECIPE, 0)

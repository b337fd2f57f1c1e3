"""The comparison of a catalogue's part with the snapshot, and the decisions that follow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.records import Recording
from melmill.transforms.plan.changes import Candidate, Difference, Dropped, Relabelled, Touched
from melmill.transforms.plan.comparing import (
    by_identity,
    decide,
    diff_part,
    is_settled,
    labels_digest,
    pack_recordings,
    unpack_recordings,
)
from melmill.transforms.plan.job import Base, ExtractJob
from tests.pipeline_runs import make_test_job
from tests.plans import recording
from tests.signals import noise, write_audio

NAMES = [f"{letter}.wav" for letter in "abcdefg"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ExtractJob:
    folder = tmp_path_factory.mktemp("diffing")
    (folder / "songs").mkdir()
    write_audio(folder / "songs" / "a.wav", noise(1, 22_050), 22_050)
    test_job = make_test_job(folder / "songs", folder / "set", "split.fractions={train: 1.0}")
    return replace(test_job, base=Base(3, "0" * 32, 1, 1_700_000_000_000, max_seconds=1e6))


def known(listed: Recording, status: str = "ok", **values: Any) -> dict[str, Any]:
    row = {
        "recording_id": listed.recording_id,
        "uri": listed.uri,
        "fingerprint": listed.fingerprint,
        "content_hash": None,
        "status": status,
        "split": "train",
        "labels_digest": labels_digest(listed),
        "rows": 5,
        "shards": [f"shard of {listed.relative_uri}"] if status == "ok" else [],
        "seconds": 10.0,
    }
    return row | values


def compare(
    listed: list[Recording], rows: list[dict[str, Any]], job: ExtractJob, **failures: Any
) -> tuple[list[Any], Difference]:
    difference = Difference()
    changes = diff_part(by_identity(listed), rows, failures, job, difference)
    return list(changes), difference


@given(
    before=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 2)),
    after=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 2)),
)
def test_every_recording_is_new_changed_removed_or_unchanged(
    job: ExtractJob, before: dict[str, int], after: dict[str, int]
) -> None:
    def version(name: str, number: int) -> Recording:
        return replace(recording(name), fingerprint=f"etag:{number}:9")

    rows = [known(version(name, number)) for name, number in before.items()]
    changes, difference = compare([version(name, n) for name, n in after.items()], rows, job)
    unchanged = {name for name in before.keys() & after.keys() if before[name] == after[name]}
    counts = difference.counts
    assert counts["unchanged"] == len(unchanged)
    assert counts["changed"] == len(before.keys() & after.keys()) - len(unchanged)
    assert counts["new"] == len(after.keys() - before.keys())
    assert counts["removed"] == len(before.keys() - after.keys())
    assert difference.carried_rows == 5 * len(unchanged)
    assert difference.is_nothing == (before == after)
    candidates = {
        change.recording.relative_uri for change in changes if isinstance(change, Candidate)
    }
    assert candidates == after.keys() - unchanged
    dropped = {change.recording_id for change in changes if isinstance(change, Dropped)}
    assert dropped == {recording(name).recording_id for name in before.keys() - unchanged}
    assert {change.shard for change in changes if isinstance(change, Touched)} == {
        f"shard of {name}" for name in before.keys() - unchanged
    }


def test_other_labels_are_carried_over(job: ExtractJob) -> None:
    before = recording("a.wav", labels=(("genre", "rock"),))
    after = replace(before, labels=(("genre", "jazz"),))
    changes, difference = compare([after], [known(before)], job)
    assert [type(change) for change in changes] == [Relabelled, Touched]
    assert changes[1].recording == after
    assert difference.counts["relabelled"] == 1


@pytest.mark.parametrize(
    ("cause", "attempts", "retried"),
    [("timeout", 1, True), ("timeout", 5, False), ("corrupt", 1, False), ("not_found", 4, True)],
)
def test_failures_are_tried_again_if_they_may_pass(
    job: ExtractJob, cause: str, attempts: int, retried: bool
) -> None:
    song = recording("a.wav")
    for test_job, expected in ((job, retried), (_with_retry_failed(job), True)):
        _, result = compare(
            [song], [known(song, "failed")], test_job, **{song.recording_id: (cause, attempts)}
        )
        assert (result.counts["retried"], result.counts["waiting"]) == (expected, not expected)


def _with_retry_failed(job: ExtractJob) -> ExtractJob:
    return replace(job, refresh=replace(job.refresh, retry_failed=True))


@pytest.mark.parametrize("status", ["ok", "partial", "failed"])
def test_a_file_that_may_have_changed_within_its_second_is_read_again(
    job: ExtractJob, status: str
) -> None:
    """Once, a failed file that was repaired within the second of its listing was never retried."""
    second_ns = 1_700_000_000_000_000_000  # the second of the listing
    song = replace(recording("a.wav"), fingerprint=f"mtime:{second_ns}:100")
    older = replace(song, fingerprint=f"mtime:{second_ns - 9_000_000_000}:100")
    failures = {song.recording_id: ("corrupt", 1)} if status != "ok" else {}
    _, difference = compare([song], [known(song, status)], job, **failures)
    assert difference.counts["changed"] == 1
    _, difference = compare([older], [known(older, status)], job, **failures)
    assert difference.counts["unchanged"] == 1


def test_what_was_taken_down_is_not_new(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, difference = compare([replace(song, change="taken_down")], [], job)
    assert (changes, difference.counts["taken_down"], difference.is_nothing) == ([], 1, True)


def test_what_is_excluded_leaves_and_is_not_counted_as_removed(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, result = compare([replace(song, change="excluded")], [known(song)], job)
    assert [type(change) for change in changes] == [Dropped, Touched]
    assert (result.counts["excluded"], result.removed_ratio, result.is_nothing) == (1, 0.0, False)


def test_a_recording_listed_twice_is_an_error() -> None:
    with pytest.raises(CatalogueError, match=r"both name /songs/a\.wav"):
        by_identity([recording("a.wav"), recording("a.wav")])


@pytest.mark.parametrize(("removed", "stops"), [(0, False), (2, False), (3, True)])
def test_more_removals_than_allowed_stop(job: ExtractJob, removed: int, stops: bool) -> None:
    rows = [known(recording(f"{i}.wav")) for i in range(10)]
    _, difference = compare([recording(f"{i}.wav") for i in range(removed, 10)], rows, job)
    if stops:
        with pytest.raises(DatasetError, match=r"lacks 3 of the 10 recordings of version 3 \(30"):
            decide(difference, 1, job)
    else:
        assert decide(difference, 1, job).todo == (removed > 0)


@given(st.lists(st.builds(Recording, st.text(), st.text(), st.text()), max_size=20))
def test_packed_recordings_are_unpacked(recordings: list[Recording]) -> None:
    assert unpack_recordings(pack_recordings(recordings)) == recordings


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("fingerprint", "settled"),
    [
        (f"mtime:{1000 * SECOND}:5", False),
        (f"mtime:{998 * SECOND}:5", False),
        (f"mtime:{997 * SECOND}:5", True),
        (f"mtime:{1000 * SECOND + 1}:5", True),
        (f"mtime:{1001 * SECOND}:5", False),
        (f"mtime:{100_000 * SECOND}:5", True),
        ("mtime:1970-01-01T00:16:40+00:00:5", False),
        ("mtime:1970-01-01T00:16:30+00:00:5", True),
        ("mtime:yesterday:5", True),
        ("etag:abc:5", True),
        ("generation:1000000000000:5", True),
        ("", True),
    ],
)
def test_a_recent_time_in_whole_seconds_settles_nothing(fingerprint: str, settled: bool) -> None:
    assert is_settled(fingerprint, listed_ms=1_000_000) == settled

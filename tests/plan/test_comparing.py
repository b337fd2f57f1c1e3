"""The difference of one part of a catalogue and of its snapshot, and what is decided of it."""

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
    made = make_test_job(folder / "songs", folder / "set", "split.fractions={train: 1.0}")
    return replace(made, base=Base(3, "0" * 32, 1, 1_700_000_000_000, max_seconds=1e6))


def known(one: Recording, status: str = "ok", **values: Any) -> dict[str, Any]:
    row = {
        "recording_id": one.recording_id,
        "uri": one.uri,
        "fingerprint": one.fingerprint,
        "content_hash": None,
        "status": status,
        "split": "train",
        "labels_digest": labels_digest(one),
        "rows": 5,
        "shards": [f"shard of {one.relative_uri}"] if status == "ok" else [],
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
def test_every_recording_is_exactly_one_of_them(
    job: ExtractJob, before: dict[str, int], after: dict[str, int]
) -> None:
    def version(name: str, number: int) -> Recording:
        return replace(recording(name), fingerprint=f"etag:{number}:9")

    rows = [known(version(name, number)) for name, number in before.items()]
    changes, found = compare([version(name, n) for name, n in after.items()], rows, job)
    same = {name for name in before.keys() & after.keys() if before[name] == after[name]}
    counts = found.counts
    assert counts["unchanged"] == len(same)
    assert counts["changed"] == len(before.keys() & after.keys()) - len(same)
    assert counts["new"] == len(after.keys() - before.keys())
    assert counts["removed"] == len(before.keys() - after.keys())
    assert found.carried_rows == 5 * len(same)
    assert found.is_nothing == (before == after)
    made = {one.recording.relative_uri for one in changes if isinstance(one, Candidate)}
    assert made == after.keys() - same
    gone = {one.recording_id for one in changes if isinstance(one, Dropped)}
    assert gone == {recording(name).recording_id for name in before.keys() - same}
    assert {one.shard for one in changes if isinstance(one, Touched)} == {
        f"shard of {name}" for name in before.keys() - same
    }


def test_other_labels_are_carried_over(job: ExtractJob) -> None:
    before = recording("a.wav", labels=(("genre", "rock"),))
    after = replace(before, labels=(("genre", "jazz"),))
    changes, found = compare([after], [known(before)], job)
    assert [type(one) for one in changes] == [Relabelled, Touched]
    assert changes[1].recording == after
    assert found.counts["relabelled"] == 1


@pytest.mark.parametrize(
    ("cause", "attempts", "tried"),
    [("timeout", 1, True), ("timeout", 5, False), ("corrupt", 1, False), ("not_found", 4, True)],
)
def test_failures_are_tried_again_if_they_may_pass(
    job: ExtractJob, cause: str, attempts: int, tried: bool
) -> None:
    one = recording("a.wav")
    for asked, again in ((job, tried), (_asked(job), True)):
        _, found = compare(
            [one], [known(one, "failed")], asked, **{one.recording_id: (cause, attempts)}
        )
        assert (found.counts["retried"], found.counts["waiting"]) == (again, not again)


def _asked(job: ExtractJob) -> ExtractJob:
    return replace(job, refresh=replace(job.refresh, retry_failed=True))


@pytest.mark.parametrize("status", ["ok", "partial", "failed"])
def test_a_file_that_may_have_changed_within_its_second_is_read_again(
    job: ExtractJob, status: str
) -> None:
    """A failed file, repaired within the second of its listing, was never read again."""
    second_ns = 1_700_000_000_000_000_000  # that of the listing
    one = replace(recording("a.wav"), fingerprint=f"mtime:{second_ns}:100")
    later = replace(one, fingerprint=f"mtime:{second_ns - 9_000_000_000}:100")
    failures = {one.recording_id: ("corrupt", 1)} if status != "ok" else {}
    _, difference = compare([one], [known(one, status)], job, **failures)
    assert difference.counts["changed"] == 1
    _, difference = compare([later], [known(later, status)], job, **failures)
    assert difference.counts["unchanged"] == 1


def test_what_was_taken_down_is_not_new(job: ExtractJob) -> None:
    one = recording("a.wav")
    changes, found = compare([replace(one, change="taken_down")], [], job)
    assert (changes, found.counts["taken_down"], found.is_nothing) == ([], 1, True)


def test_what_is_excluded_leaves_and_is_not_counted_as_removed(job: ExtractJob) -> None:
    one = recording("a.wav")
    changes, found = compare([replace(one, change="excluded")], [known(one)], job)
    assert [type(change) for change in changes] == [Dropped, Touched]
    assert (found.counts["excluded"], found.removed_ratio, found.is_nothing) == (1, 0.0, False)


def test_a_recording_listed_twice_is_an_error() -> None:
    with pytest.raises(CatalogueError, match=r"both name /songs/a\.wav"):
        by_identity([recording("a.wav"), recording("a.wav")])


@pytest.mark.parametrize(("removed", "stops"), [(0, False), (2, False), (3, True)])
def test_more_removals_than_allowed_stop(job: ExtractJob, removed: int, stops: bool) -> None:
    rows = [known(recording(f"{i}.wav")) for i in range(10)]
    _, found = compare([recording(f"{i}.wav") for i in range(removed, 10)], rows, job)
    if stops:
        with pytest.raises(DatasetError, match=r"lacks 3 of the 10 recordings of version 3 \(30"):
            decide(found, 1, job)
    else:
        assert decide(found, 1, job).todo == (removed > 0)


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
def test_a_time_in_whole_seconds_settles_nothing_while_it_is_young(
    fingerprint: str, settled: bool
) -> None:
    assert is_settled(fingerprint, listed_ms=1_000_000) == settled

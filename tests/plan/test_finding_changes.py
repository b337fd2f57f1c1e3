"""The comparison of a catalogue's part with the snapshot, and the decisions that follow."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import CatalogueError, DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import AudioInfo, Recording
from melmill.transforms.plan.change_records import (
    Adopted,
    Attempts,
    Candidate,
    Decision,
    Difference,
    Dropped,
    Offer,
    Relabelled,
    Touched,
)
from melmill.transforms.plan.finding_changes import decide, diff_part
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.known_rows import columns_of, labels_digest
from melmill.transforms.plan.listing import by_identity, pack_recordings, unpack_recordings
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


LEVEL = pa.struct({"peak": pa.float64(), "rms": pa.float64()})


def readings(level: dict[str, float] | None) -> pa.StructScalar:
    """Return the readings in a row of the index; its file lacks those that are not named."""
    return pa.scalar({"level": level}, pa.struct({"level": LEVEL}))


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
        "container": "wav",
        "codec": "pcm_16",
        "decoder": "libsndfile",
        "sample_rate_hz": 2000,
        "channels": 2,
        "frames": 20_000,
        "tags": {"title": "Song", "artist": "Singer"},
        "measures": readings({"peak": -1.0, "rms": -9.0}),
        "deselected_by": None,
        "duplicate_of": None,
        "split_unit": None,
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


def test_rows_are_carried_over_with_their_new_labels(job: ExtractJob) -> None:
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
def test_failures_are_retried_if_a_retry_may_succeed(
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


def based(job: ExtractJob, **values: Any) -> ExtractJob:
    return replace(job, base=replace(job.base, **values))


def limited(job: ExtractJob, **values: Any) -> ExtractJob:
    return replace(job, limits=replace(job.limits, **values))


READINGS = {"level": {"peak": -1.0, "rms": -9.0}}
HEADER = AudioInfo(
    *("wav", "pcm_16", "libsndfile", 2000, 2, 20_000),
    tags=(("artist", "Singer"), ("title", "Song")),
)


def test_a_new_recording_is_computed(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, difference = compare([song], [], job)
    assert changes == [Candidate(song)]
    assert changes[0].recording.change == "new"
    assert difference == Difference({"new": 1}, {"new": [song.uri]})


def test_a_changed_file_is_computed_again(job: ExtractJob) -> None:
    before, after = recording("a.wav"), replace(recording("a.wav"), fingerprint="2-2")
    changes, difference = compare([after], [known(before, uri="/old.wav")], job)
    name = before.recording_id
    assert changes == [Dropped(name), Touched("shard of a.wav", name), Candidate(after)]
    assert changes[2].recording.change == "changed"
    assert difference == Difference({"known": 1, "changed": 1}, {"changed": ["/old.wav"]})


@pytest.mark.parametrize("listed", [True, False])
def test_rows_that_may_be_taken_over_are_offered(job: ExtractJob, listed: bool) -> None:
    hashing_job = replace(job, content_hashes=True)
    song = recording("a.wav")
    listed_songs = [replace(song, fingerprint="2-2")] if listed else []
    row = known(song, content_hash="hash")
    changes, _ = compare(listed_songs, [row], hashing_job)
    assert changes[0] == Offer("hash", row | {"measures": READINGS})
    assert len(changes) == 1 + listed
    for test_job, values in [
        (job, {}),
        (based(hashing_job, same_features=False), {}),
        (hashing_job, {"content_hash": None}),
        (hashing_job, {"status": "partial"}),
    ]:
        changes, _ = compare(listed_songs, [row | values], test_job)
        assert changes[0] == Dropped(song.recording_id)


def test_with_other_features_everything_is_computed_and_no_shard_is_kept(job: ExtractJob) -> None:
    song = recording("a.wav")
    row = known(song, content_hash="hash", uri="/old.wav")
    changes, difference = compare([song], [row], based(job, same_features=False))
    hashed_song = replace(song, content_hash="hash")
    assert changes == [Dropped(song.recording_id), Candidate(hashed_song, HEADER)]
    assert changes[1].recording.change == "recomputed"
    assert changes[1].recording.measures == ""
    measured = based(job, same_features=False, meters=(*job.meters, "loudness"))
    changes, _ = compare([song], [row], measured)
    assert json.loads(changes[1].recording.measures) == READINGS
    assert difference == Difference({"known": 1, "recomputed": 1}, {"recomputed": ["/old.wav"]})
    changes, _ = compare([song], [known(song)], based(job, same_features=False))
    assert changes[1].recording.content_hash == ""


@pytest.mark.parametrize(
    ("seconds", "new_limit", "old_limit", "recomputed"),
    [(10.0, 9, 20, True), (10.0, 10, 20, False), (10.0, 9, 9, False), (10.0, 9, 8, False)],
)
def test_a_recording_that_is_now_too_long_is_planned_again(
    job: ExtractJob, seconds: float, new_limit: float, old_limit: float, recomputed: bool
) -> None:
    limited_job = based(limited(job, max_seconds=new_limit), max_seconds=old_limit)
    song = recording("a.wav")
    changes, difference = compare([song], [known(song, seconds=seconds)], limited_job)
    assert (difference.counts["recomputed"], difference.counts["unchanged"]) == (
        recomputed,
        not recomputed,
    )
    name = song.recording_id
    expected = [Dropped(name), Touched("shard of a.wav", name), Candidate(song, HEADER)]
    assert changes == (expected if recomputed else [])


@pytest.mark.parametrize(
    ("status", "base", "recomputed"),
    [
        ("partial", {"damaged": "keep"}, True),
        ("partial", {"same_features": False}, True),
        ("partial", {}, False),
        ("ok", {"damaged": "keep"}, False),
    ],
)
def test_a_damaged_recording_is_decoded_again_if_its_treatment_changes(
    job: ExtractJob, status: str, base: dict[str, Any], recomputed: bool
) -> None:
    song = recording("a.wav")
    row = known(song, status, shards=["s"], uri=song.uri if not recomputed else "/old.wav")
    changes, difference = compare([song], [row], based(job, **base))
    if recomputed:
        touched = [Touched("s", song.recording_id)] if base.get("same_features", True) else []
        # The new candidate has no header, because the stored header does not describe the damage.
        assert changes == [Dropped(song.recording_id), *touched, Candidate(song)]
        assert difference == Difference({"known": 1, "recomputed": 1}, {"recomputed": ["/old.wav"]})
    else:
        assert changes == []
        counts = {"known": 1, "unchanged": 1}
        assert difference == Difference(counts, {"unchanged": [song.uri]}, 5, 1, 0)


@pytest.mark.parametrize(
    ("cause", "base", "limits", "retried"),
    [
        ("too_long", {"max_seconds": 10}, {"max_seconds": 20}, True),
        ("too_long", {"max_seconds": 10}, {"max_seconds": 10}, False),
        ("corrupt", {"max_seconds": 10}, {"max_seconds": 20}, False),
        ("truncated", {}, {"damaged": "keep"}, True),
        ("truncated", {}, {}, False),
        ("too_long", {"max_seconds": 10}, {"max_seconds": 10, "damaged": "keep"}, False),
    ],
)
def test_failures_are_retried_if_their_limit_has_changed(
    job: ExtractJob, cause: str, base: dict[str, Any], limits: dict[str, Any], retried: bool
) -> None:
    song = recording("a.wav")
    limited_job = limited(based(job, **base), **limits)
    changes, difference = compare(
        [song], [known(song, "failed")], limited_job, **{song.recording_id: (cause, 3)}
    )
    name = song.recording_id
    if retried:
        assert changes == [Dropped(name), Attempts(name, 3), Candidate(song)]
        assert changes[2].recording.change == "retried"
        assert difference == Difference({"known": 1, "retried": 1}, {"retried": [song.uri]})
    else:
        waiting = {"unchanged": [song.uri], "waiting": [song.uri]}
        assert changes == []
        assert difference == Difference(
            {"known": 1, "unchanged": 1, "waiting": 1}, waiting, 0, 0, 1
        )


def test_a_failure_without_recorded_attempts_is_retried(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, _ = compare([song], [known(song, "failed")], job)
    assert changes == [
        *(Dropped(song.recording_id), Attempts(song.recording_id, 0)),
        Candidate(song),
    ]


@pytest.mark.parametrize(
    ("row", "base", "change"),
    [
        ({"uri": "/old.wav"}, {}, "changed"),
        ({"fingerprint": "0-0"}, {}, "changed"),
        ({}, {"same_features": False}, "recomputed"),
        ({"fingerprint": "0-0"}, {"same_features": False}, "changed"),
    ],
)
def test_the_attempts_of_a_changed_failed_file_are_counted_from_zero(
    job: ExtractJob, row: dict[str, str], base: dict[str, Any], change: str
) -> None:
    song = recording("a.wav")
    before = known(song, "failed", **row)
    changes, difference = compare(
        [song], [before], based(job, **base), **{song.recording_id: ("corrupt", 1)}
    )
    assert changes == [Dropped(song.recording_id), Candidate(song)]
    assert changes[1].recording.change == change
    assert difference == Difference({"known": 1, change: 1}, {change: [before["uri"]]})


@pytest.mark.parametrize(
    ("row", "same_split", "split"),
    [
        ({"uri": "/old.wav", "split": "other"}, True, "other"),
        ({"uri": "/old.wav", "split": "other"}, False, "train"),
        ({"split": "other"}, False, "train"),
        ({"labels_digest": "x", "split": "other"}, True, "train"),
        ({"labels_digest": "x"}, True, "train"),
    ],
)
def test_a_recording_that_is_carried_over_gets_its_new_uri_split_and_labels(
    job: ExtractJob, row: dict[str, str], same_split: bool, split: str
) -> None:
    song = recording("a.wav", labels=(("genre", "rock"),))
    before = known(song, **row)
    changes, difference = compare([song], [before], based(job, same_split=same_split))
    name = song.recording_id
    assert changes == [
        Relabelled(name, song.uri, split, labels_digest(song)),
        Touched("shard of a.wav", name, song, split),
    ]
    relabelled = {"relabelled": [before["uri"]]}
    assert difference == Difference({"known": 1, "relabelled": 1}, relabelled, 5, 1, 0)


def test_the_digest_distinguishes_labels_from_the_split() -> None:
    labelled = recording(labels=(("genre", "rock"),))
    divided = recording(split="test")
    both = recording(labels=(("genre", "rock"),), split="test")
    digests = {labels_digest(song) for song in (recording(), labelled, divided, both)}
    assert len(digests) == 4
    assert labels_digest(recording()) == ""
    assert labels_digest(recording("b.wav", split="test")) == labels_digest(divided)


def test_a_recording_that_was_taken_down_is_not_new(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, difference = compare([replace(song, change="taken_down")], [], job)
    assert (changes, difference.is_nothing) == ([], True)
    assert difference == Difference({"taken_down": 1}, {"taken_down": [song.uri]})


def test_an_excluded_recording_is_dropped_but_not_counted_as_removed(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, result = compare([replace(song, change="excluded")], [known(song)], job)
    assert [type(change) for change in changes] == [Dropped, Touched]
    assert result == Difference({"known": 1, "excluded": 1}, {"excluded": [song.uri]})
    assert (result.removed_ratio, result.is_nothing) == (0.0, False)


def test_a_recording_listed_twice_is_an_error() -> None:
    with pytest.raises(CatalogueError, match=r"both name /songs/a\.wav"):
        by_identity([recording("a.wav"), recording("a.wav")])


def test_a_run_on_nothing_always_has_something_to_do(job: ExtractJob) -> None:
    difference = Difference()
    first_job = based(job, index="")
    assert decide(difference, 7, first_job) == Decision(7, difference, todo=True)
    assert decide(difference, 7, job) == Decision(7, difference, todo=False)


@pytest.mark.parametrize("removed", [0, 2])
def test_as_many_removals_as_allowed_do_not_stop_the_run(job: ExtractJob, removed: int) -> None:
    rows = [known(recording(f"{i}.wav")) for i in range(10)]
    _, difference = compare([recording(f"{i}.wav") for i in range(removed, 10)], rows, job)
    assert decide(difference, 1, job) == Decision(1, difference, todo=removed > 0)


@pytest.mark.parametrize(
    ("removed", "examples"),
    [
        (3, "30.0%; /songs/0.wav, /songs/1.wav, /songs/2.wav)"),
        (4, "40.0%; /songs/0.wav, /songs/1.wav, /songs/2.wav, …)"),
    ],
)
def test_more_removals_than_allowed_stop_the_run(
    job: ExtractJob, removed: int, examples: str
) -> None:
    rows = [known(recording(f"{i}.wav")) for i in range(10)]
    _, difference = compare([recording(f"{i}.wav") for i in range(removed, 10)], rows, job)
    with pytest.raises(DatasetError) as raised:
        decide(difference, 1, job)
    assert str(raised.value) == (
        f"{job.catalogue.uri} lacks {removed} of the 10 recordings of version 3 ({examples}, but "
        "refresh.max_removed_ratio allows 20.0%; nothing was changed. To remove "
        "these recordings: melmill refresh --allow-removals"
    )


@given(st.lists(st.builds(Recording, st.text(), st.text(), st.text()), max_size=20))
def test_packed_recordings_are_unpacked(recordings: list[Recording]) -> None:
    assert unpack_recordings(pack_recordings(recordings)) == recordings


# Features that are carried over


def test_the_files_that_hold_unchanged_features_are_named(job: ExtractJob) -> None:
    song = recording("a.wav")
    row = known(song, split="test", shards=["1", "2"])
    for names, files in [
        (("mel",), ("split=test/part-1.parquet", "split=test/part-2.parquet")),
        ((), ()),
    ]:
        partly_job = based(job, same_features=False, unchanged_features=names)
        (_, candidate), _ = compare([song], [row], partly_job)
        assert candidate.recording.carried_from == files


@pytest.mark.parametrize(
    ("wanted", "measured", "kept"),
    [
        (("level",), ("level",), True),
        (("level",), ("level", "clipping"), True),
        (("level", "clipping"), ("level",), False),
    ],
)
def test_readings_are_kept_if_all_that_is_wanted_was_measured(
    job: ExtractJob, wanted: tuple[str, ...], measured: tuple[str, ...], kept: bool
) -> None:
    song = recording("a.wav")
    measuring_job = based(replace(job, meters=wanted), same_features=False, meters=measured)
    (_, candidate), _ = compare([song], [known(song)], measuring_job)
    assert candidate.recording.measures == (json.dumps(READINGS) if kept else "")


def test_a_reading_that_is_no_number_is_an_error(job: ExtractJob) -> None:
    song = recording("a.wav")
    row = known(song, measures=readings({"peak": float("nan"), "rms": -9.0}))
    with pytest.raises(ValueError, match="JSON"):
        compare([song], [row], based(replace(job, meters=()), same_features=False))


@pytest.mark.parametrize(
    ("changed", "base", "are_read"),
    [
        ({}, {}, False),
        ({}, {"same_features": False}, True),
        ({"select": "level.peak < 0"}, {}, True),
        ({"select": "level.peak < 0"}, {"select": "level.peak < 0"}, False),
        ({"content_hashes": True}, {}, True),
        ({"dedupe": "mark"}, {"dedupe": "mark"}, True),
        ({"dedupe": "off"}, {"dedupe": "mark"}, True),
        ({}, {"max_seconds": 3601.0}, True),
        ({}, {"max_seconds": 3600.0}, False),
        ({}, {"max_seconds": 3599.0}, False),
    ],
)
def test_readings_are_read_only_where_a_recording_may_get_a_new_row(
    job: ExtractJob, changed: dict[str, Any], base: dict[str, Any], are_read: bool
) -> None:
    limited_job = limited(based(job, max_seconds=3600.0), max_seconds=3600.0)
    columns = columns_of(based(replace(limited_job, **changed), **base))
    assert ("measures" in columns) == are_read
    needed = known(recording("a.wav")).keys() | {"rows_digest", "peak_dbfs", "size_bytes"}
    assert {*columns, "measures"} == needed


# Selections. A recording has a peak of -1 dBFS and an RMS level of -9 dBFS.


def selecting(job: ExtractJob, select: str, before: str = "", **base: Any) -> ExtractJob:
    return based(replace(job, select=select), select=before, **base)


def test_a_recording_that_is_refused_now_loses_its_rows_but_not_its_readings(
    job: ExtractJob,
) -> None:
    song = recording("a.wav")
    row = known(song, rows_digest="1f", peak_dbfs=-1.5, size_bytes=100)
    quiet_job = selecting(job, "level.rms < 0 and level.peak < -6")
    (*removed, adopted), difference = compare([song], [row], quiet_job)
    name = song.recording_id
    # Its row is replaced. If it were dropped, its failure would be dropped, too.
    assert removed == [Touched("shard of a.wav", name)]
    assert adopted == Adopted(
        name,
        {
            **row,
            **{"status": "deselected", "deselected_by": "level.peak", "rows": 0, "shards": []},
            **{"rows_digest": None, "peak_dbfs": None, "measures": READINGS},
            "feature_key": digest(song.fingerprint, job.features.digest()),
            "tags": [("artist", "Singer"), ("title", "Song")],
        },
    )
    assert difference == Difference(
        {"known": 1, "deselected": 1}, {"deselected": [song.uri]}, 0, 1, 0
    )


def test_a_recording_that_is_selected_now_is_planned_with_its_readings(job: ExtractJob) -> None:
    song = recording("a.wav")
    row = known(song, "deselected", deselected_by="level.peak", rows=0)
    for select in ("level.peak < 0", ""):
        loud_job = selecting(job, select, "level.peak < -6", meters=("level",))
        changes, difference = compare([song], [row], replace(loud_job, meters=("level",)))
        assert changes == [Dropped(song.recording_id), Candidate(song, HEADER)]
        assert changes[1].recording.change == "selected"
        assert json.loads(changes[1].recording.measures) == READINGS
        assert difference == Difference({"known": 1, "selected": 1}, {"selected": [song.uri]})


@pytest.mark.parametrize(
    ("status", "refused_by", "select"),
    [
        ("ok", None, "level.peak < 0"),
        ("ok", None, ""),
        ("deselected", "level.peak", "level.peak < -7 and level.rms < -20"),
        ("skipped", None, "level.peak < -6"),
    ],
)
def test_a_recording_that_another_selection_treats_the_same_keeps_its_row(
    job: ExtractJob, status: str, refused_by: str | None, select: str
) -> None:
    song = recording("a.wav", labels=(("genre", "rock"),))
    row = known(song, status, deselected_by=refused_by, rows=0)
    other_job = selecting(job, select, "level.peak < -6")
    changes, difference = compare([song], [row], other_job)
    assert changes == []
    assert difference == Difference({"known": 1, "unchanged": 1}, {"unchanged": [song.uri]}, 0, 1)
    changes, difference = compare([song], [row | {"labels_digest": "x"}], other_job)
    assert changes[0] == Relabelled(song.recording_id, song.uri, "train", labels_digest(song))
    assert difference.counts == {"known": 1, "relabelled": 1}


@pytest.mark.parametrize(
    ("before", "same_split", "split", "kind"),
    [
        ({}, True, "train", "unchanged"),
        ({"split": "other"}, True, "other", "unchanged"),
        ({"split": "other"}, False, "train", "relabelled"),
        ({"uri": "/old.wav"}, True, "train", "relabelled"),
        ({"labels_digest": "x"}, True, "train", "relabelled"),
    ],
)
def test_a_recording_that_another_measure_refuses_now_stays_out(
    job: ExtractJob, before: dict[str, str], same_split: bool, split: str, kind: str
) -> None:
    song = recording("a.wav", labels=(("genre", "rock"),))
    row = known(song, "deselected", deselected_by="level.peak", rows=0, **before)
    quiet_job = selecting(job, "level.rms < -20", "level.peak < -6", same_split=same_split)
    (adopted,), difference = compare([song], [row], quiet_job)
    assert (adopted.row["deselected_by"], adopted.row["status"]) == ("level.rms", "deselected")
    named = [adopted.row[name] for name in ("uri", "split", "labels_digest")]
    assert named == [song.uri, split, labels_digest(song)]
    assert difference == Difference({"known": 1, kind: 1}, {kind: [row["uri"]]}, 0, 1, 0)


@pytest.mark.parametrize("level", [None, {"rms": -9.0}])
def test_a_recording_without_the_reading_is_refused(
    job: ExtractJob, level: dict[str, float] | None
) -> None:
    song = recording("a.wav")
    row = known(song, measures=readings(level))
    (*_, adopted), _ = compare([song], [row], selecting(job, "level.peak < 0"))
    assert adopted.row["deselected_by"] == "level.peak"


def test_a_damaged_recording_is_decoded_again_if_the_selection_changes(job: ExtractJob) -> None:
    song = recording("a.wav")
    changes, _ = compare([song], [known(song, "partial")], selecting(job, "level.peak < 0"))
    assert changes == [Dropped(song.recording_id), Candidate(song)]


def test_rows_are_not_offered_if_the_selection_changes(job: ExtractJob) -> None:
    row = known(recording("a.wav"), content_hash="hash")
    hashing_job = selecting(replace(job, content_hashes=True), "level.peak < 0")
    changes, _ = compare([], [row], hashing_job)
    assert changes[0] == Dropped(row["recording_id"])

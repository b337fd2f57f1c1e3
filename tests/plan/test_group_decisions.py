"""Test the decisions about groups of duplicates: for new recordings, and for those that are known.

The job starts from a snapshot, and its recordings were matched. A is the recording that is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from melmill.transforms.core.records import Recording
from melmill.transforms.plan.change_records import (
    Adopted,
    Candidate,
    Difference,
    Dropped,
    Relabelled,
    Touched,
)
from melmill.transforms.plan.finding_changes import diff_part
from melmill.transforms.plan.group_decisions import Dedupe, GroupDecisions, leaves_out
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.listing import by_identity
from melmill.transforms.plan.recordings import plan_recording
from melmill.transforms.plan.splits import SplitSpec, split_unit
from tests.plan.test_finding_changes import job, known
from tests.plans import FEATURES, probed, recording

__all__ = ["job"]

SONG = recording("b.wav")
NAME = SONG.recording_id
LEAVING_OUT: tuple[Dedupe, ...] = ("drop", "keep_best")


def matching(job: ExtractJob, dedupe: Dedupe, **base: Any) -> ExtractJob:
    known_base = replace(job.base, version=3, index="5f", dedupe=dedupe, **base)
    return replace(job, dedupe=dedupe, base=known_base)


def decided(dedupe: Dedupe, duplicate_of: str = "", **splits: str) -> GroupDecisions:
    return GroupDecisions(dedupe, {NAME: duplicate_of} if duplicate_of else {}, splits)


def compare(
    job: ExtractJob,
    row: dict[str, Any],
    groups: GroupDecisions | None,
    song: Recording = SONG,
    **failures: Any,
) -> tuple[list[Any], dict[str, int]]:
    difference = Difference()
    changes = list(diff_part(by_identity([song]), [row], failures, job, difference, groups))
    counts = {kind: n for kind, n in difference.counts.items() if n and kind != "known"}
    return changes, counts


@pytest.mark.parametrize("dedupe", LEAVING_OUT)
def test_a_duplicate_loses_its_rows_and_keeps_its_readings(job: ExtractJob, dedupe: Dedupe) -> None:
    row = known(SONG)
    (touched, adopted), counts = compare(matching(job, dedupe), row, decided(dedupe, "A"))
    assert touched == Touched("shard of b.wav", NAME)
    assert isinstance(adopted, Adopted)
    assert (adopted.row["status"], adopted.row["duplicate_of"]) == ("duplicate", "A")
    assert (adopted.row["rows"], adopted.row["shards"]) == (0, [])
    assert adopted.row["measures"] == row["measures"].as_py()
    assert counts == {"duplicate": 1}


def test_a_marked_duplicate_keeps_its_rows(job: ExtractJob) -> None:
    changes, counts = compare(matching(job, "mark"), known(SONG), decided("mark", "A"))
    assert changes == [Relabelled(NAME, SONG.uri, "train", "", "", "A")]
    assert counts == {"relabelled": 1}
    marked = known(SONG, duplicate_of="A")
    assert compare(matching(job, "mark"), marked, decided("mark", "A")) == ([], {"unchanged": 1})
    changes, _ = compare(matching(job, "mark"), marked, decided("mark"))
    assert changes == [Relabelled(NAME, SONG.uri, "train", "", "", "")]


@pytest.mark.parametrize("dedupe", LEAVING_OUT)
def test_what_was_left_out_stays_out(job: ExtractJob, dedupe: Dedupe) -> None:
    row = known(SONG, "duplicate", duplicate_of="A", rows=0)
    assert compare(matching(job, dedupe), row, decided(dedupe, "A")) == ([], {"unchanged": 1})
    changes, counts = compare(matching(job, dedupe), row, decided(dedupe, "B"))
    assert (changes, counts) == (
        [Relabelled(NAME, SONG.uri, "train", "", "", "B")],
        {"relabelled": 1},
    )


@pytest.mark.parametrize("treatment", [("keep_best", ""), ("mark", "A"), ("mark", "")])
def test_what_is_no_longer_left_out_is_computed(
    job: ExtractJob, treatment: tuple[Dedupe, str]
) -> None:
    dedupe, duplicate_of = treatment
    row = known(SONG, "duplicate", duplicate_of="A", rows=0)
    (dropped, candidate), counts = compare(
        matching(job, dedupe, meters=job.meters), row, decided(dedupe, duplicate_of)
    )
    assert dropped == Dropped(NAME)
    assert isinstance(candidate, Candidate)
    assert candidate.by_groups
    assert candidate.audio is not None
    assert candidate.recording.measures
    assert (candidate.recording.change, counts) == ("selected", {"selected": 1})


def test_damage_is_read_again_if_a_duplicate_comes_back(job: ExtractJob) -> None:
    row = known(SONG, "duplicate", duplicate_of="A", rows=0)
    failures = {NAME: ("truncated", 1)}
    changes, _ = compare(matching(job, "keep_best"), row, decided("keep_best"), **failures)
    changed = replace(SONG, change="selected")
    assert changes == [Dropped(NAME), Candidate(changed, None, by_groups=True)]


@pytest.mark.parametrize("status", ["ok", "duplicate"])
def test_the_first_comparison_leaves_groups_as_they_are(job: ExtractJob, status: str) -> None:
    row = known(SONG, status, duplicate_of="A")
    assert compare(matching(job, "keep_best"), row, None) == ([], {"unchanged": 1})


@pytest.mark.parametrize("groups", [None, decided("keep_best", "B"), decided("keep_best")])
def test_a_duplicate_of_what_was_taken_down_is_matched_again(
    job: ExtractJob, groups: GroupDecisions | None
) -> None:
    """Both comparisons say the same, or it would be computed twice or not at all."""
    row = known(SONG, "duplicate", rows=0)
    (dropped, candidate), counts = compare(matching(job, "keep_best"), row, groups)
    assert (dropped, counts) == (Dropped(NAME), {"selected": 1})
    assert not candidate.by_groups


def test_all_have_rows_if_no_duplicates_are_looked_for(job: ExtractJob) -> None:
    off = replace(matching(job, "keep_best"), dedupe="off")
    row = known(SONG, "duplicate", duplicate_of="A", rows=0)
    (dropped, candidate), counts = compare(off, row, None)
    assert (dropped, counts) == (Dropped(NAME), {"selected": 1})
    assert not candidate.by_groups
    changes, _ = compare(off, known(SONG, duplicate_of="A"), None)
    assert changes == [Relabelled(NAME, SONG.uri, "train", "", "", "")]


def test_a_failed_recording_is_in_no_group(job: ExtractJob) -> None:
    row, failures = known(SONG, "failed", rows=0), {NAME: ("corrupt", 1)}
    first, counts = compare(matching(job, "mark"), row, None, **failures)
    assert (first, counts) == ([Dropped(NAME)], {"unchanged": 1, "waiting": 1})
    assert compare(matching(job, "mark"), row, decided("mark"), **failures)[0] == []
    assert compare(job, row, None, **failures)[0] == []


def test_rows_move_to_the_split_of_their_group(job: ExtractJob) -> None:
    together = replace(matching(job, "off"), split=SplitSpec(keep_together="duplicates"))
    unit = split_unit(SONG, together.split)
    row = known(SONG, split_unit=unit)
    changes, _ = compare(together, row, decided("off", **{unit: "test"}))
    relabelled = Relabelled(NAME, SONG.uri, "test", "", unit, "")
    assert changes == [relabelled, Touched("shard of b.wav", NAME, SONG, "test")]
    assert compare(together, row, decided("off", other="test")) == ([], {"unchanged": 1})


def test_units_are_kept_together_only_if_the_recipe_says_so() -> None:
    spec = SplitSpec(keep_together="duplicates")
    by_singer = replace(spec, by="group", group="singer")
    same, other = (recording(n, labels=(("singer", "Nina"),)) for n in ("a.wav", "b.wav"))
    assert split_unit(SONG, SplitSpec()) == ""
    assert split_unit(replace(SONG, split="test"), spec) == ""
    assert split_unit(same, by_singer) == split_unit(other, by_singer) != split_unit(SONG, spec)


@pytest.mark.parametrize(("dedupe", "chunks"), [("mark", 10), ("drop", 0), ("keep_best", 0)])
def test_the_decisions_are_applied_to_new_recordings(dedupe: Dedupe, chunks: int) -> None:
    spec = SplitSpec(fractions=(("train", 1.0),), keep_together="duplicates")
    planned = plan_recording(probed("b.wav"), FEATURES, spec, 100)
    applied = decided(dedupe, "A", **{planned.split_unit: "test"}).applied(planned)
    assert applied == replace(planned, split="test", duplicate_of="A", chunks=chunks)
    assert decided(dedupe).applied(planned) == planned
    # What has no chunk took no part.
    short = replace(planned, chunks=0)
    assert decided(dedupe, "A").applied(short) == short


def test_only_some_treatments_leave_recordings_out() -> None:
    treatments: tuple[Dedupe, ...] = ("off", "mark", "drop", "keep_best")
    assert tuple(filter(leaves_out, treatments)) == LEAVING_OUT
    for dedupe in treatments:
        kept = "A" if dedupe in LEAVING_OUT else ""
        assert decided(dedupe, "A").kept_instead_of(NAME) == kept
        assert decided(dedupe, "A").kept_instead_of("another") == ""

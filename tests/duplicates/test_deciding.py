"""Test the decisions about groups: what is kept, and in which split the units are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.duplicates.deciding import decide_groups, known_groups
from melmill.transforms.duplicates.grouping import FoundMatch, MatchedRecording, groups_of
from melmill.transforms.index.results import GROUP_TABLES, GroupTables
from melmill.transforms.index.tables import SCHEMAS
from melmill.transforms.plan.change_records import Relabelled
from melmill.transforms.plan.group_decisions import Dedupe, GroupDecisions
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.splits import SplitSpec
from tests.pipeline_runs import make_test_job
from tests.signals import noise, write_audio

NUMBERS = st.integers(0, 7)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS).filter(lambda pair: pair[0] != pair[1]), max_size=8)
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ExtractJob:
    folder = tmp_path_factory.mktemp("deciding")
    (folder / "songs").mkdir()
    write_audio(folder / "songs" / "a.wav", noise(0.1, 2000), 2000)
    return make_test_job(folder / "songs", folder / "set")


def deciding(
    job: ExtractJob, dedupe: Dedupe, version: int = -1, before: Dedupe = "off"
) -> ExtractJob:
    """Return a job whose snapshot has the version, and treated duplicates in a way."""
    split = SplitSpec(keep_together="duplicates")
    index = "" if version < 0 else "5f"
    known = replace(job.base, version=version, index=index, dedupe=before)
    return replace(job, dedupe=dedupe, split=split, base=known)


def nothing() -> GroupTables:
    return GroupTables(*(SCHEMAS[name].empty_table() for name in GROUP_TABLES))


def song(number: int, **changes: Any) -> MatchedRecording:
    """Return a recording; the smaller the number, the larger is its file."""
    values = {"dataset": 1, "recording_id": f"r{number}", "uri": f"/{number}.wav", "status": "ok"}
    numbers = {"size_bytes": 100 - number, "seconds": 9.0, "sample_rate_hz": 8000, "channels": 1}
    split = {"split": SPLITS[number % 3], "split_unit": f"u{number}"}
    return MatchedRecording(
        **{**values, **numbers, **split, "digest": "", "bandwidth_hz": 4000.0, **changes}
    )


def same(*pairs: tuple[int, int]) -> list[FoundMatch]:
    return [(first, second, "same", 1200, 24_000, 0.1) for first, second in pairs]


def decide(
    job: ExtractJob,
    matches: list[FoundMatch],
    known: GroupTables | None = None,
    changes: Mapping[str, Relabelled | None] | None = None,
    **values: dict[str, Any],
) -> tuple[GroupDecisions, GroupTables]:
    named = {number for match in matches for number in match[:2]}
    recordings = {number: song(number, **values.get(f"r{number}", {})) for number in named}
    return decide_groups(matches, recordings, known or nothing(), changes or {}, job)


@given(PAIRS, st.randoms())
def test_each_group_keeps_one_recording_and_is_in_one_split(job, pairs, random):
    matches = same(*pairs)
    decisions, tables = decide(deciding(job, "keep_best"), matches)
    for group in groups_of((f"r{first}", f"r{second}") for first, second in pairs):
        kept = [name for name in group if name not in decisions.duplicate_of]
        assert kept == [min(group)]  # the largest file
        assert {decisions.duplicate_of[name] for name in group if name != kept[0]} <= {*kept}
        assert len({decisions.splits[name.replace("r", "u")] for name in group}) == 1
    assert len(decisions.duplicate_of) == sum(
        len(group) - 1 for group in groups_of((f"r{a}", f"r{b}") for a, b in pairs)
    )
    shuffled = random.sample(matches, len(matches))
    assert decide(deciding(job, "keep_best"), shuffled) == (decisions, tables)


@given(PAIRS, PAIRS)
def test_a_second_run_moves_no_unit_of_the_oldest_group(job, first_pairs, second_pairs):
    """What a run adds to the groups of an earlier one gives the same groups as all at once."""
    before, tables = decide(deciding(job, "mark"), same(*first_pairs))
    after, _ = decide(deciding(job, "mark", 0), same(*second_pairs), tables)
    whole, _ = decide(deciding(job, "mark"), same(*first_pairs, *second_pairs))
    assert after.duplicate_of == whole.duplicate_of
    for group in groups_of((f"u{a}", f"u{b}") for a, b in [*first_pairs, *second_pairs]):
        old = sorted(name for name in group if name in before.splits)
        if old:
            # All groups of the first run are equally old: the first unit decides.
            assert {after.splits[name] for name in group} == {before.splits[old[0]]}


def test_groups_that_merge_take_the_split_of_the_older_one(job):
    _, first = decide(deciding(job, "off"), same((4, 5)))
    _, second = decide(deciding(job, "off", 0), same((0, 1)), first)
    decisions, tables = decide(deciding(job, "off", 1), same((1, 4), (1, 7)), second)
    older = song(4).split
    assert song(0).split != older
    assert {decisions.splits[f"u{number}"] for number in (0, 1, 4, 5, 7)} == {older}
    assert {row["since"] for row in tables.split_units.to_pylist()} == {0}
    assert decisions.duplicate_of == {}


def test_a_recording_of_the_snapshot_takes_precedence_over_new_ones(job):
    values = {f"r{number}": {"dataset": 0} for number in (4, 5)}
    decisions, tables = decide(deciding(job, "off", 6), same((0, 4), (0, 5)), **values)
    assert set(decisions.splits.values()) == {song(4).split}
    assert {row["since"] for row in tables.split_units.to_pylist()} == {7}


def test_a_unit_stays_in_its_split_without_its_group(job):
    _, tables = decide(deciding(job, "off"), same((0, 2)))
    decisions, tables = decide(deciding(job, "off", 0), [], tables, {"r0": None})
    assert decisions.splits == {"u0": song(0).split, "u2": song(0).split}
    assert (tables.matches.num_rows, tables.matched_recordings.num_rows) == (0, 0)


def test_recordings_of_one_unit_are_in_one_split_whatever_they_match(job):
    unit = {"split_unit": "singer", "split": "test"}
    values = {"r1": unit, "r3": unit}
    decisions, _ = decide(deciding(job, "off"), same((0, 1), (3, 6)), **values)
    assert len({decisions.splits[name] for name in ("u0", "singer", "u6")}) == 1


def test_what_has_rows_stays_if_duplicates_are_dropped(job):
    drop = deciding(job, "drop")
    values = {"r3": {"dataset": 0}}
    first, tables = decide(drop, same((0, 3), (3, 5)), **values)
    assert first.duplicate_of == {"r0": "r3", "r5": "r3"}
    assert [first.kept_instead_of(name) for name in ("r0", "r3")] == ["r3", ""]
    # Those that were left out have no rows, and are not kept next time.
    second, _ = decide(deciding(job, "drop", 0, "drop"), same((1, 0)), tables)
    assert second.duplicate_of == {"r0": "r3", "r1": "r3", "r5": "r3"}
    # What was only marked has rows: the best of these is kept.
    third, _ = decide(deciding(job, "drop", 0, "mark"), [], tables)
    assert third.duplicate_of == {"r3": "r0", "r5": "r0"}


def test_a_damaged_recording_stays_behind_a_whole_one_after_it_was_left_out(job):
    best = deciding(job, "keep_best")
    damaged = {"r0": {"status": "partial"}}
    first, tables = decide(best, same((0, 1)), **damaged)
    assert first.duplicate_of == {"r0": "r1"}
    second, _ = decide(deciding(job, "keep_best", 0, "keep_best"), [], tables)
    assert second.duplicate_of == {"r0": "r1"}


def test_excerpts_are_in_the_index_but_in_no_group(job):
    match = (0, 1, "contained", 8000, 20_000, 0.05)
    decisions, tables = decide(deciding(job, "keep_best"), [match])
    assert (decisions.duplicate_of, decisions.splits) == ({}, {})
    (row,) = tables.matches.to_pylist()
    assert row == {
        **{"first": "r0", "second": "r1", "kind": "contained"},
        **{"offset_seconds": 2.0, "overlap_seconds": 5.0, "error": 0.05},
    }
    assert tables.matched_recordings["recording_id"].to_pylist() == ["r0", "r1"]


def test_matches_are_in_the_order_of_the_ids(job):
    _, tables = decide(deciding(job, "mark"), same((6, 2)))
    (row,) = tables.matches.to_pylist()
    assert (row["first"], row["second"], row["offset_seconds"]) == ("r2", "r6", -0.3)


def test_a_new_snapshot_knows_no_groups(job, tmp_path: Path):
    assert known_groups(deciding(job, "mark")) == nothing()


def test_exact_copies_stay_a_group_without_the_copy_that_all_matched(job):
    values = {f"r{number}": {"digest": "5f"} for number in range(4)}
    matches = [(0, number, "exact", 0, 0, 0.0) for number in (1, 2, 3)]
    decisions, tables = decide(deciding(job, "mark"), matches, **values)
    assert decisions.duplicate_of == {"r1": "r0", "r2": "r0", "r3": "r0"}
    decisions, tables = decide(deciding(job, "mark", 0), [], tables, {"r0": None})
    assert decisions.duplicate_of == {"r2": "r1", "r3": "r1"}
    assert set(tables.matches["kind"].to_pylist()) == {"exact"}


def test_exact_copies_have_no_other_match(job):
    values = {f"r{number}": {"digest": "5f"} for number in range(2)}
    matches = [*same((0, 1), (1, 2)), (0, 1, "exact", 0, 0, 0.0)]
    _, tables = decide(deciding(job, "mark"), matches, **values)
    rows = {(row["first"], row["second"]): row["kind"] for row in tables.matches.to_pylist()}
    assert rows == {("r0", "r1"): "exact", ("r1", "r2"): "same"}


def test_the_catalogue_may_change_the_name_and_the_unit_of_a_recording(job):
    _, tables = decide(deciding(job, "mark"), same((0, 1), (2, 3)))
    change = Relabelled("r1", "/new/1.wav", "validation", "labels", "another unit")
    decisions, tables = decide(deciding(job, "mark", 0), [], tables, {"r1": change})
    row = next(r for r in tables.matched_recordings.to_pylist() if r["recording_id"] == "r1")
    assert (row["uri"], row["split_unit"]) == ("/new/1.wav", "another unit")
    # The new unit joins the group, whose split is the older one.
    assert row["split"] == decisions.splits["another unit"] == song(0).split


def test_another_rule_of_splits_does_not_forget_the_groups(job):
    _, tables = decide(deciding(job, "keep_best"), same((0, 1)))
    decisions, _ = decide(deciding(job, "keep_best", 0), [], tables)
    assert decisions.duplicate_of == {"r1": "r0"}

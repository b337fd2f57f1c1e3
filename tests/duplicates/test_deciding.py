"""Test the decisions about groups: what is kept, and in which split the units are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.duplicates.deciding import decide_groups, known_groups, without
from melmill.transforms.duplicates.grouping import FoundMatch, MatchedRecording, groups_of
from melmill.transforms.index.results import GROUP_TABLES, GroupTables
from melmill.transforms.index.tables import SCHEMAS
from melmill.transforms.plan.duplicate_groups import Dedupe, GroupDecisions
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
    return [(first, second, "same", 3, 60, 0.1) for first, second in pairs]


def decide(
    job: ExtractJob,
    matches: list[FoundMatch],
    known: GroupTables | None = None,
    **changes: dict[str, Any],
) -> tuple[GroupDecisions, GroupTables]:
    recordings = {number: song(number, **changes.get(f"r{number}", {})) for number in range(8)}
    return decide_groups(matches, recordings, known or nothing(), job)


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
    known = {f"r{number}": {"dataset": 0} for number in (4, 5)}
    decisions, tables = decide(deciding(job, "off", 6), same((0, 4), (0, 5)), **known)
    assert set(decisions.splits.values()) == {song(4).split}
    assert {row["since"] for row in tables.split_units.to_pylist()} == {7}


def test_a_unit_stays_in_its_split_without_its_group(job):
    _, tables = decide(deciding(job, "off"), same((0, 2)))
    decisions, tables = decide(deciding(job, "off", 0), [], without(tables, ["r0"]))
    assert decisions.splits == {"u0": song(0).split, "u2": song(0).split}
    assert (tables.matches.num_rows, tables.matched_recordings.num_rows) == (0, 0)


def test_recordings_of_one_unit_are_in_one_split_whatever_they_match(job):
    unit = {"split_unit": "singer", "split": "test"}
    changes = {"r1": unit, "r3": unit}
    decisions, _ = decide(deciding(job, "off"), same((0, 1), (3, 6)), **changes)
    assert len({decisions.splits[name] for name in ("u0", "singer", "u6")}) == 1


def test_what_has_rows_stays_if_duplicates_are_dropped(job):
    drop = deciding(job, "drop")
    known = {"r3": {"dataset": 0}}
    first, tables = decide(drop, same((0, 3), (3, 5)), **known)
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
    match = (0, 1, "contained", 20, 50, 0.05)
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

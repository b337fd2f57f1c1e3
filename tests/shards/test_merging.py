"""Small shards are merged. The merged rows have the order of a single shard."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from melmill.transforms.core.naming import digest
from melmill.transforms.index.results import Replaced, Rewritten
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import order_of
from melmill.transforms.shards.merging import ShardSize, merge_shards, plan_merges
from tests.plans import recording
from tests.shard_rows import (
    Row,
    batch_of,
    job_of_rows,
    places,
    read_rows_of,
    rows_in,
    rows_of,
    shard_of,
)


def merges(sizes: dict[str, int], target: int, open_rows: int = 10**9, rows: int = 10) -> list:
    shards = [ShardSize(name, "train", rows, size) for name, size in sizes.items()]
    plans = list(plan_merges(shards, target, open_rows))
    assert list(plan_merges(shards[::-1], target, open_rows)) == plans
    return plans


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, []),
        ({"a": 1}, []),
        ({"a": 1, "b": 1}, [("a", "b")]),
        ({"b": 1, "a": 1, "c": 2}, [("a", "b", "c")]),
        # The target is 100 bytes. A shard is small if it has less than half of the target.
        ({"a": 49, "b": 49}, [("a", "b")]),
        ({"a": 49, "b": 50}, []),
        # The smallest shards are merged first, up to 100 bytes together.
        ({"a": 30, "b": 20, "c": 40, "d": 10}, [("d", "b", "a", "c")]),
        ({"a": 30, "b": 21, "c": 40, "d": 10}, [("d", "b", "a")]),
        ({"a": 40, "b": 41, "c": 42, "d": 43}, [("a", "b"), ("c", "d")]),
        ({"a": 40, "b": 41, "c": 42}, [("a", "b")]),
        (
            {"a": 30, "b": 31, "c": 32, "d": 33, "e": 33, "f": 34},
            [("a", "b", "c"), ("d", "e", "f")],
        ),
    ],
)
def test_small_shards_are_merged_up_to_the_target(
    sizes: dict[str, int], expected: list[tuple[str, ...]]
) -> None:
    assert merges(sizes, 100) == expected


@pytest.mark.parametrize(
    ("open_rows", "expected"),
    [
        (41, [("a", "b", "c", "d", "e")]),
        (40, [("a", "b", "c", "d")]),
        (30, [("a", "b", "c"), ("d", "e")]),
        (20, [("a", "b"), ("c", "d")]),
        (11, [("a", "b"), ("c", "d")]),
        (10, []),
        (1, []),
    ],
)
def test_the_number_of_open_rows_is_limited(
    open_rows: int, expected: list[tuple[str, ...]]
) -> None:
    assert merges(dict.fromkeys("abcde", 1), 100, open_rows) == expected


@pytest.fixture
def job(tmp_path: Path) -> ExtractJob:
    return job_of_rows(tmp_path)


def position(job: ExtractJob, name: str, first_chunk: int) -> float:
    return order_of(job.shards.seed, recording(name).recording_id, first_chunk)


def test_merged_rows_have_the_order_of_a_single_shard(job: ExtractJob) -> None:
    runs: list[list[Row]] = [
        rows_of("a.wav", *range(8)),  # over several row groups
        rows_of("a.wav", 9, 10),  # This does not continue the first run: chunk 8 is missing.
        rows_of("b.wav", 4, 5),
        rows_of("c.wav", 0),
        rows_of("d.wav", *range(3, 7)),
        rows_of("a.wav", 8),
        rows_of("e.wav", 0, 1),
    ]
    ordered = sorted(runs, key=lambda run: position(job, run[0][0], run[0][1]))
    # Chunk 8 is in the other shard, so that it does not join the runs before and after it.
    moved_runs = [runs[4], runs[5]]
    shards = [
        [run for run in ordered if run not in moved_runs],
        [run for run in ordered if run in moved_runs],
    ]
    written = [
        shard_of(job, f"plan{i}", *(batch_of(job, run) for run in shard))
        for i, shard in enumerate(shards)
    ]
    merged, *replaced = list(merge_shards(written, job))
    names = tuple(sorted(summary.name for summary in written))
    assert isinstance(merged, Rewritten)
    assert merged.replaced == names
    assert replaced == [Replaced(name) for name in names]
    stored = read_rows_of(job, merged.summary)
    assert stored == rows_in(*(batch_of(job, run) for run in ordered))
    assert merged.summary.split == "train"
    assert merged.summary.plan == digest("merged", job.run_id, *names)
    counts = {entry.recording_id: entry.rows for entry in merged.summary.recordings}
    assert counts == {
        recording(name).recording_id: number
        for name, number in [("a.wav", 11), ("b.wav", 2), ("c.wav", 1), ("d.wav", 4), ("e.wav", 2)]
    }
    backwards = next(iter(merge_shards(written[::-1], job)))
    assert isinstance(backwards, Rewritten)
    assert backwards.summary == merged.summary


def test_runs_of_different_recordings_with_the_same_chunks_are_separate(job: ExtractJob) -> None:
    """Twelve recordings have the chunks 0 and 1, and a run of x.wav is merged between them."""
    names = [f"{i}.wav" for i in range(12)]
    ordered = sorted(names, key=lambda name: position(job, name, 0))
    written = [
        shard_of(job, f"plan{i}", *(batch_of(job, rows_of(name, 0, 1)) for name in part))
        for i, part in enumerate(
            (
                ordered[:6],
                ordered[6:],
            )
        )
    ]
    other_shard = shard_of(job, "other", batch_of(job, rows_of("x.wav", 7)))
    merged = next(iter(merge_shards([*written, other_shard], job)))
    assert isinstance(merged, Rewritten)
    expected = [(name, chunk) for name in ordered for chunk in (0, 1)]
    stored_places = places(read_rows_of(job, merged.summary))
    assert [place for place in stored_places if place[0] != "x.wav"] == expected
    before = sum(position(job, name, 0) < position(job, "x.wav", 7) for name in names)
    assert stored_places.index(("x.wav", 7)) == 2 * before


def test_channels_of_a_chunk_stay_together(tmp_path: Path) -> None:
    job = job_of_rows(tmp_path, channels="each")
    runs = [
        [(name, chunk, channel) for chunk in range(2) for channel in range(2)]
        for name in ("a.wav", "b.wav", "c.wav")
    ]
    ordered = sorted(runs, key=lambda run: position(job, run[0][0], 0))
    written = [
        shard_of(job, "one", batch_of(job, ordered[0]), batch_of(job, ordered[2])),
        shard_of(job, "two", batch_of(job, ordered[1])),
    ]
    merged = next(iter(merge_shards(written, job)))
    assert isinstance(merged, Rewritten)
    expected = rows_in(*(batch_of(job, run) for run in ordered))
    assert read_rows_of(job, merged.summary) == expected


def test_an_earlier_chunk_after_a_later_chunk_begins_a_new_piece(job: ExtractJob) -> None:
    name_pairs = [
        (name, other_name)
        for name in (f"{i}.wav" for i in range(40))
        for other_name in ("x.wav", "y.wav")
        if position(job, name, 1) < position(job, other_name, 0) < position(job, name, 0)
    ]
    name, other_name = name_pairs[0]
    reversed_shard = shard_of(
        job, "one", *(batch_of(job, rows_of(name, chunk)) for chunk in (1, 0))
    )
    other_shard = shard_of(job, "two", batch_of(job, rows_of(other_name, 0)))
    merged = next(iter(merge_shards([reversed_shard, other_shard], job)))
    assert isinstance(merged, Rewritten)
    assert places(read_rows_of(job, merged.summary)) == [(name, 1), (other_name, 0), (name, 0)]


@pytest.mark.parametrize("seed", range(3))
def test_any_pieces_in_any_shards_are_merged_in_order(job: ExtractJob, seed: int) -> None:
    """Pieces have a few chunks. Consecutive pieces in the same shard form one run."""
    rng = random.Random(seed)
    shards: list[list[list[Row]]] = [[], [], []]
    for name in ("a.wav", "b.wav", "c.wav"):
        borders = sorted({0, 10, *rng.sample(range(1, 10), 7)})
        for first, stop in pairwise(borders):
            rng.choice(shards).append(rows_of(name, *range(first, stop)))
    runs: list[list[Row]] = []
    for pieces in shards:
        pieces.sort(key=lambda piece: position(job, piece[0][0], piece[0][1]))
        last = ("", 0, 0)
        for piece in pieces:
            if piece[0][:2] == (last[0], last[1] + 1):
                runs[-1].extend(piece)
            else:
                runs.append(list(piece))
            last = piece[-1]
    written = [
        shard_of(job, f"plan{i}", *(batch_of(job, piece) for piece in pieces))
        for i, pieces in enumerate(shards)
    ]
    merged = next(iter(merge_shards(written, job)))
    assert isinstance(merged, Rewritten)
    runs.sort(key=lambda run: position(job, run[0][0], run[0][1]))
    expected = [(name, chunk) for run in runs for name, chunk, _ in run]
    assert places(read_rows_of(job, merged.summary)) == expected


def test_rows_that_a_shard_lacks_stop_the_merge(job: ExtractJob) -> None:
    whole = shard_of(job, "plan", batch_of(job, rows_of("a.wav", 0, 1)))
    (entry,) = whole.recordings
    wrong = replace(whole, recordings=(replace(entry, rows=3),))
    with pytest.raises(RuntimeError, match="the rows that it was written from are wrong"):
        list(merge_shards([wrong], job))

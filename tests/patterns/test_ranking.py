"""Test what is kept in a pass over chunks, and how a sample is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.patterns.ranking import ChunkPlace, OpenRecordings, RecordingSum, Top
from melmill.transforms.patterns.reading import VectorBatch, add_rows, draw_rows
from melmill.transforms.patterns.recordings import is_drawn


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, 9.0]), max_size=400), st.integers(1, 9))
def test_the_top_is_that_of_all_in_any_order(scores, size):
    named = [(score, f"{number:04}") for number, score in enumerate(scores)]
    forth, back = Top[str](size), Top[str](size)
    for score, name in named:
        forth.add(score, name, name)
    for score, name in reversed(named):
        back.add(score, name, name)
    expected = sorted(named, key=lambda pair: (-pair[0], pair[1]))[:size]
    assert forth.items() == back.items() == expected


def sums_of(ids: list[str], first_row: int = 0) -> dict[str, RecordingSum]:
    """Return the sums of rows of a shard; a row's point is its number."""
    numbers = np.arange(first_row, first_row + len(ids))
    columns = {"recording_id": ids, "uri": ids, "chunk_index": numbers, "start_sample": numbers}
    sums: dict[str, RecordingSum] = {}
    points = numbers[:, np.newaxis].astype(float)
    add_rows(VectorBatch(columns, points.astype(np.float32)), points, points[:, 0], "train", sums)
    return sums


def test_the_rows_of_a_recording_are_added_up_wherever_they_are():
    sums = sums_of(["a", "a", "b", "a"])
    assert (sums["a"].rows, sums["a"].total.tolist()) == (3, [4.0])
    assert sums["a"].best == ChunkPlace(3.0, 3, 0, 3)
    assert sums["b"].point.tolist() == [2.0]


def test_recordings_are_complete_when_all_of_their_shards_were_read():
    pending = OpenRecordings({"b": 3})
    assert [r.recording_id for r in pending.close(sums_of(["a", "b"]))] == ["a"]
    assert [r.recording_id for r in pending.close(sums_of(["b", "c"], 10))] == ["c"]
    (b,) = pending.close(sums_of(["b"], 20))
    assert (b.rows, b.total.tolist(), b.best.score) == (3, [1 + 10 + 20], 20.0)
    assert list(pending.close({})) == []


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=9), st.integers(128, 2000), st.integers(0, 9)
)
def test_a_sample_is_bounded_and_within_the_shards(shard_rows, most, seed):
    drawn = list(draw_rows(shard_rows, most, seed))
    total = sum(len(rows) for _, rows in drawn)
    assert total <= most
    if sum(shard_rows) <= most:
        assert total == sum(shard_rows)
    else:
        assert total > 0
    for shard, rows in drawn:
        assert len(np.unique(rows)) == len(rows)
        assert 0 <= rows.min() <= rows.max() < shard_rows[shard]
    again = draw_rows(shard_rows, most, seed)
    assert [rows.tolist() for _, rows in again] == [rows.tolist() for _, rows in drawn]


def test_a_share_of_recordings_is_drawn_by_their_ids():
    ids = [f"{number:032x}" for number in range(4000)]
    drawn = [name for name in ids if is_drawn(name, 0.25)]
    assert len(drawn) == pytest.approx(1000, abs=100)
    assert all(is_drawn(name, 1.0) for name in ids)

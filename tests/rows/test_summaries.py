"""Tests of shard summaries: writing them as JSON and reading them loses nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from melmill.transforms.core.errors import TRANSIENT_CAUSES, Cause
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from tests.plans import failure, summary

FINITE = st.floats(allow_nan=False)


@given(FINITE, st.lists(FINITE), FINITE, st.text())
def test_a_summary_survives_the_round_trip(
    peak: float, mean: list[float], low: float, name: str
) -> None:
    recordings = (RecordingRows(name, 1, peak),)
    sent = summary(recordings=recordings, mean=tuple(mean), low=low, null_labels=(name,))
    assert ShardSummary.from_json(sent.to_json()) == sent


def test_digital_silence_survives_the_round_trip() -> None:
    sent = summary(recordings=(RecordingRows("a", 1, -math.inf),), low=math.inf, high=-math.inf)
    assert ShardSummary.from_json(sent.to_json()) == sent


def test_files_and_failures_survive_the_round_trip() -> None:
    twin = FileEntry("tfrecord/train/part-x.tfrecord", 9, "1" * 64)
    sent = summary(tfrecord=twin, failures=(failure(), failure("b.wav", Cause.TIMEOUT)))
    received = ShardSummary.from_json(sent.to_json())
    assert received == sent
    assert received.failures[1].cause is Cause.TIMEOUT


def test_a_summary_is_written_the_same_way_every_time() -> None:
    assert summary().to_json() == ShardSummary.from_json(summary().to_json()).to_json()


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"name": "x"}', summary().to_json()[:-1]])
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        ShardSummary.from_json(text)


def test_moments_are_given_as_arrays() -> None:
    moments = summary().moments
    assert moments.count == 8
    assert_array_equal(moments.mean, [-20.0, -30.5])


@pytest.mark.parametrize("cause", list(Cause))
def test_a_shard_is_final_where_another_attempt_could_not_help(cause: Cause) -> None:
    shard = summary(failures=(failure(), failure("b.wav", cause)))
    assert shard.is_final == (cause not in TRANSIENT_CAUSES)


def test_a_shard_without_failures_is_final() -> None:
    assert summary().is_final

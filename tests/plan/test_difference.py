"""Counts of changes: parts add up, examples stay few, and no left-out recording counts twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melmill.transforms.plan.change_records import Difference
from tests.plans import recording


def counted(**kinds: list[str]) -> Difference:
    difference = Difference()
    for kind, uris in kinds.items():
        for uri in uris:
            difference.count(kind, uri)
    return difference


def test_ten_examples_of_a_kind_are_kept_and_all_are_counted() -> None:
    difference = counted(new=[f"/{i:02}.wav" for i in range(12)], changed=["/x.wav"])
    assert difference.counts == {"new": 12, "changed": 1}
    assert difference.examples == {
        "new": [f"/{i:02}.wav" for i in range(10)],
        "changed": ["/x.wav"],
    }


def test_carried_recordings_and_rows_add_up() -> None:
    difference = Difference()
    for status, rows in [("ok", 5), ("failed", 0), ("partial", 3), ("ok", 0), ("failed", 0)]:
        difference.carry(status, rows)
    assert (
        difference.carried_rows,
        difference.carried_recordings,
        difference.carried_failures,
    ) == (8, 3, 2)


def test_parts_add_up_in_any_order() -> None:
    first = counted(new=["/b.wav", "/d.wav"], removed=["/r.wav"])
    second = counted(new=["/a.wav", "/b.wav"], changed=["/c.wav"])
    first.carry("ok", 5)
    first.carry("failed", 0)
    for _ in range(2):
        second.carry("ok", 7)
        second.carry("failed", 0)
    forwards, backwards = first.copy(), second.copy()
    forwards.merge(second)
    backwards.merge(first)
    assert forwards == backwards
    assert forwards.counts == {"new": 4, "removed": 1, "changed": 1}
    assert forwards.examples == {
        "new": ["/a.wav", "/b.wav", "/d.wav"],
        "removed": ["/r.wav"],
        "changed": ["/c.wav"],
    }
    assert forwards.carried_rows == 19
    assert (forwards.carried_recordings, forwards.carried_failures) == (3, 3)


def test_examples_of_parts_are_the_first_ten_by_name() -> None:
    difference = counted(new=[f"/{i:02}.wav" for i in range(5, 15)])
    difference.merge(counted(new=[f"/{i:02}.wav" for i in range(5)]))
    assert difference.examples["new"] == [f"/{i:02}.wav" for i in range(10)]


def test_a_copy_is_independent() -> None:
    difference = counted(new=["/a.wav"])
    difference.carry("ok", 5)
    copied = difference.copy()
    assert copied == difference
    copied.count("new", "/b.wav")
    assert difference == replace(counted(new=["/a.wav"]), carried_rows=5, carried_recordings=1)


def test_a_recording_that_is_left_out_is_counted_under_its_reason() -> None:
    first, second = (replace(recording(name), change="new") for name in ("a.wav", "b.wav"))
    difference = counted(new=[first.uri, second.uri])
    difference.leave_out(first, "taken_down")
    assert difference.counts == {"new": 1, "taken_down": 1}
    assert difference.examples == {"new": [second.uri], "taken_down": [first.uri]}


def test_a_recording_without_an_example_can_be_left_out() -> None:
    difference = counted(new=[f"/{i}.wav" for i in range(10)])
    song = replace(recording("a.wav"), change="new")
    difference.count("new", song.uri)
    difference.leave_out(song, "excluded")
    assert (difference.counts["new"], difference.counts["excluded"]) == (10, 1)
    assert len(difference.examples["new"]) == 10
    changed_song = replace(song, change="changed")
    difference.leave_out(changed_song, "excluded")
    assert difference.counts["changed"] == -1


def test_the_json_has_every_kind_but_no_examples_of_unchanged_recordings() -> None:
    kinds = ["unchanged", "new", "removed", "known", "waiting", "excluded", "relabelled"]
    difference = counted(**{kind: [f"/{kind}.wav"] * (i + 1) for i, kind in enumerate(kinds)})
    assert difference.to_json() == {
        "new": 2,
        "changed": 0,
        "removed": 3,
        "retried": 0,
        "relabelled": 7,
        "recomputed": 0,
        "unchanged": 1,
        "selected": 0,
        "deselected": 0,
        "duplicate": 0,
        "waiting": 5,
        "taken_down": 0,
        "excluded": 6,
        "other_license": 0,
        "examples": {
            "excluded": ["/excluded.wav"] * 6,
            "new": ["/new.wav"] * 2,
            "relabelled": ["/relabelled.wav"] * 7,
            "removed": ["/removed.wav"] * 3,
            "waiting": ["/waiting.wav"] * 5,
        },
    }
    assert list(difference.to_json()["examples"]) == [
        *("excluded", "new", "relabelled", "removed", "waiting")
    ]


@pytest.mark.parametrize(
    ("kinds", "ratio", "nothing"),
    [
        ({}, 0.0, True),
        ({"known": 4, "unchanged": 4}, 0.0, True),
        ({"known": 4, "unchanged": 3, "removed": 1}, 0.25, False),
        ({"known": 4, "unchanged": 4, "new": 1}, 0.0, False),
        ({"known": 1, "removed": 1}, 1.0, False),
    ],
)
def test_the_removed_ratio_and_whether_anything_changed(
    kinds: dict[str, int], ratio: float, nothing: bool
) -> None:
    difference = counted(**{kind: ["/a.wav"] * number for kind, number in kinds.items()})
    assert (difference.removed_ratio, difference.is_nothing) == (ratio, nothing)

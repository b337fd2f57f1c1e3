"""What changed, counted: parts add up, examples stay few, and what leaves is not counted twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melmill.transforms.plan.changes import Difference
from tests.plans import recording


def counted(**kinds: list[str]) -> Difference:
    found = Difference()
    for kind, uris in kinds.items():
        for uri in uris:
            found.count(kind, uri)
    return found


def test_ten_examples_of_a_kind_are_kept_and_all_are_counted() -> None:
    found = counted(new=[f"/{i:02}.wav" for i in range(12)], changed=["/x.wav"])
    assert found.counts == {"new": 12, "changed": 1}
    assert found.examples == {"new": [f"/{i:02}.wav" for i in range(10)], "changed": ["/x.wav"]}


def test_what_is_carried_over_adds_up() -> None:
    found = Difference()
    for status, rows in [("ok", 5), ("failed", 0), ("partial", 3), ("ok", 0), ("failed", 0)]:
        found.carry(status, rows)
    assert (found.carried_rows, found.carried_recordings, found.carried_failures) == (8, 3, 2)


def test_parts_add_up_in_any_order() -> None:
    one = counted(new=["/b.wav", "/d.wav"], removed=["/r.wav"])
    other = counted(new=["/a.wav", "/b.wav"], changed=["/c.wav"])
    one.carry("ok", 5)
    one.carry("failed", 0)
    for _ in range(2):
        other.carry("ok", 7)
        other.carry("failed", 0)
    forwards, backwards = one.copy(), other.copy()
    forwards.merge(other)
    backwards.merge(one)
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
    found = counted(new=[f"/{i:02}.wav" for i in range(5, 15)])
    found.merge(counted(new=[f"/{i:02}.wav" for i in range(5)]))
    assert found.examples["new"] == [f"/{i:02}.wav" for i in range(10)]


def test_a_copy_is_independent() -> None:
    found = counted(new=["/a.wav"])
    found.carry("ok", 5)
    copied = found.copy()
    assert copied == found
    copied.count("new", "/b.wav")
    assert found == replace(counted(new=["/a.wav"]), carried_rows=5, carried_recordings=1)


def test_what_is_left_out_moves_to_its_reason() -> None:
    one, other = (replace(recording(name), change="new") for name in ("a.wav", "b.wav"))
    found = counted(new=[one.uri, other.uri])
    found.leave_out(one, "taken_down")
    assert found.counts == {"new": 1, "taken_down": 1}
    assert found.examples == {"new": [other.uri], "taken_down": [one.uri]}


def test_what_is_left_out_need_not_be_among_the_examples() -> None:
    found = counted(new=[f"/{i}.wav" for i in range(10)])
    one = replace(recording("a.wav"), change="new")
    found.count("new", one.uri)
    found.leave_out(one, "excluded")
    assert (found.counts["new"], found.counts["excluded"]) == (10, 1)
    assert len(found.examples["new"]) == 10
    unseen = replace(one, change="changed")
    found.leave_out(unseen, "excluded")
    assert found.counts["changed"] == -1


def test_the_json_has_every_kind_and_no_examples_of_what_stays() -> None:
    kinds = ["unchanged", "new", "removed", "known", "waiting", "excluded", "relabelled"]
    found = counted(**{kind: [f"/{kind}.wav"] * (i + 1) for i, kind in enumerate(kinds)})
    assert found.to_json() == {
        "new": 2,
        "changed": 0,
        "removed": 3,
        "retried": 0,
        "relabelled": 7,
        "recomputed": 0,
        "unchanged": 1,
        "waiting": 5,
        "taken_down": 0,
        "excluded": 6,
        "examples": {
            "excluded": ["/excluded.wav"] * 6,
            "new": ["/new.wav"] * 2,
            "relabelled": ["/relabelled.wav"] * 7,
            "removed": ["/removed.wav"] * 3,
            "waiting": ["/waiting.wav"] * 5,
        },
    }
    assert list(found.to_json()["examples"]) == [
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
def test_a_share_is_removed_or_nothing_changed(
    kinds: dict[str, int], ratio: float, nothing: bool
) -> None:
    found = counted(**{kind: ["/a.wav"] * number for kind, number in kinds.items()})
    assert (found.removed_ratio, found.is_nothing) == (ratio, nothing)

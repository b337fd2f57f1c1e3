"""Tests of the places of members by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from melmill.transforms.store.archives import BadArchiveError, Member, Place
from melmill.transforms.store.member_places import MemberPlaces

ARCHIVE = ("/a.tar", "mtime:1:9")


def member(name: str, start: int = 0, fault: str = "") -> Member:
    return Member(name, Place("plain", start, 1, 1, 0, ARCHIVE[1]), fault)


def test_the_first_name_that_exists_is_found_and_the_last_member_of_it_counts() -> None:
    members = [member("a", 1), member("b\udcff", 2), member("a", 3)]
    places = MemberPlaces()
    assert places.find(ARCHIVE, ["no", "a"], lambda: members).start == 3
    assert places.find(ARCHIVE, ["b\udcff", "a"], lambda: []).start == 2


def test_versions_and_archives_are_kept_apart() -> None:
    places = MemberPlaces()
    for start, archive in enumerate([ARCHIVE, (ARCHIVE[0], "other"), ("/b.tar", ARCHIVE[1])]):
        assert places.find(archive, ["a"], lambda at=start: [member("a", at)]).start == start


@pytest.mark.parametrize(
    ("name", "message"), [("no", "has no member 'no'"), ("link", "member 'link' is a link")]
)
def test_a_member_that_is_not_read_is_not_found(name: str, message: str) -> None:
    members = [member("a"), member("link", fault="is a link")]
    with pytest.raises(FileNotFoundError, match=message):
        MemberPlaces().find(ARCHIVE, [name], lambda: members)


def test_a_reading_that_failed_is_tried_again() -> None:
    def damaged() -> Iterator[Member]:
        yield member("a", 1)
        raise BadArchiveError("is damaged")

    places = MemberPlaces()
    with pytest.raises(BadArchiveError):
        places.find(ARCHIVE, ["a"], damaged)
    assert places.find(ARCHIVE, ["b"], lambda: [member("b", 2)]).start == 2
    with pytest.raises(FileNotFoundError):
        places.find(ARCHIVE, ["a"], lambda: [])


def test_threads_that_need_one_archive_read_it_once() -> None:
    places, read = MemberPlaces(), threading.Semaphore(0)

    def members() -> Iterator[Member]:
        read.release()
        yield from (member(str(n), n) for n in range(2_500))

    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda n: places.find(ARCHIVE, [str(n)], members).start, range(2_500))
        assert list(found) == list(range(2_500))
    assert read.acquire(blocking=False)
    assert not read.acquire(blocking=False)

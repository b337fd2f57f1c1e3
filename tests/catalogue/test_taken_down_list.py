"""Tests of the list of recordings that were taken down: its name, and the check of its content."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.left_out import names_of_uri, read_left_out
from melmill.transforms.catalogue.taken_down_list import (
    TakenDown,
    read_taken_down,
    taken_down_name,
    write_taken_down,
)
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.store.folders import Store

#: Entries with equal times, and few different names and contents, so that many are almost equal.
ENTRIES = st.lists(
    st.builds(
        TakenDown,
        recording_id=st.sampled_from(["", "a.wav"]),
        uri=st.sampled_from(["/a.wav", "/b.wav"]),
        time=st.just("2026-11-29T12:00:00+00:00"),
        content=st.text("0123456789abcdef", max_size=2),
    ),
    max_size=8,
)


@given(ENTRIES.flatmap(lambda entries: st.tuples(st.just(entries), st.permutations(entries))))
def test_a_lists_name_depends_on_what_is_on_it_alone(
    lists: tuple[list[TakenDown], list[TakenDown]],
) -> None:
    entries, permuted = lists
    assert taken_down_name(entries) == taken_down_name(permuted)


@given(ENTRIES)
def test_a_list_that_was_written_in_another_order_is_read(
    tmp_path_factory: pytest.TempPathFactory, entries: list[TakenDown]
) -> None:
    store = Store(str(tmp_path_factory.mktemp("set")))
    lines = store.read(write_taken_down(store, entries)).splitlines(keepends=True)
    backwards = b"".join(reversed(lines))
    name = f"taken_down/{digest(backwards)}.jsonl"
    store.put(name, backwards)
    assert {*read_taken_down(store, name)} == {*entries}


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    name = write_taken_down(store, [TakenDown("a.wav", "/a.wav", "now")])
    store.put(name, store.read(name).replace(b"/a.wav", b"/b.wav"))
    with pytest.raises(DatasetError, match="its content does not match its name"):
        read_taken_down(store, name)


def test_a_damaged_list_in_an_old_commit_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    old = '[{"recording_id": "a.wav", "uri": "/a.wav", "time": "now"}]'
    assert read_taken_down(store, old) == [TakenDown("a.wav", "/a.wav", "now")]
    with pytest.raises(DatasetError, match="is missing or damaged"):
        read_taken_down(store, old[:-2])


def test_a_link_that_leads_elsewhere_is_followed_again(tmp_path: Path) -> None:
    """A second run in one process must not go by what a link was in the first."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    link, uri = tmp_path / "now", str(tmp_path / "now" / "x.wav")
    link.symlink_to(tmp_path / "a")
    store = Store(str(tmp_path / "set"))
    assert str(tmp_path / "a" / "x.wav") in names_of_uri(uri)
    link.unlink()
    link.symlink_to(tmp_path / "b")
    read_left_out(store, "")
    assert str(tmp_path / "b" / "x.wav") in names_of_uri(uri)

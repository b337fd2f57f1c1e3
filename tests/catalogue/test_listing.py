"""Tests of listing a store: links, errors, the requests to the store, and globs."""

from __future__ import annotations

import os
import re
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.listing import (
    DirectoryPart,
    Listing,
    list_files,
    listing_parts,
    matches,
)
from melmill.transforms.core.errors import CatalogueError, Cause

ALL = DirectoryPart("", recursive=True)
COMPONENTS = st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=4)
PATTERNS = st.lists(st.sampled_from(["*", "**", "a*", "?", "[ab]", ".*", "ab"]), max_size=4)


def list_names(root: Path, part: DirectoryPart = ALL, **options: Any) -> list[str]:
    listing = Listing(str(root), extensions=("wav",), **options)
    return [recording.relative_uri for recording in list_files(listing, part)]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_the_order_depends_on_names_only(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a/z.wav", "a.wav", "a/b/c.wav", "B.wav")
    assert list_names(tmp_path) == ["B.wav", "a.wav", "b.wav", "a/z.wav", "a/b/c.wav"]


def test_a_directory_alone_holds_its_own_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b/c.wav", "b/d/e.wav")
    assert list_names(tmp_path, DirectoryPart("b")) == ["b/c.wav"]


def test_links_to_files_and_directories_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.wav", "store/b/c.wav", "songs/own.wav")
    (tmp_path / "songs/a.wav").symlink_to(tmp_path / "store/a.wav")
    (tmp_path / "songs/b").symlink_to(tmp_path / "store/b")
    assert list_names(tmp_path / "songs") == ["a.wav", "own.wav", "b/c.wav"]


def test_a_link_has_the_version_of_what_it_leads_to(tmp_path: Path) -> None:
    touch(tmp_path, "songs/own.wav")
    target = tmp_path / "target.wav"
    target.write_bytes(b"12345")
    (tmp_path / "songs/own.wav").unlink()
    (tmp_path / "songs/a.wav").symlink_to(target)
    (before,) = list_files(Listing(str(tmp_path / "songs")), ALL)
    os.utime(target, ns=(1, 1))
    (after,) = list_files(Listing(str(tmp_path / "songs")), ALL)
    assert before.size_bytes == after.size_bytes == 5
    assert before.fingerprint != after.fingerprint


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav", "a/b/y.wav")
    (tmp_path / "a/b/back").symlink_to(tmp_path / "a")
    (tmp_path / "a/b/here").symlink_to(".")
    (tmp_path / "a/above").symlink_to(tmp_path.parent)
    assert list_names(tmp_path) == ["a/x.wav", "a/b/y.wav"]
    assert list_names(tmp_path / "a") == ["x.wav", "b/y.wav"]


def test_links_that_lead_to_one_another_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav", "b/y.wav")
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    assert list_names(tmp_path) == ["a/x.wav", "a/to_b/y.wav", "b/y.wav", "b/to_a/x.wav"]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "store/a.wav", "store/b/c.wav")
    (tmp_path / "songs").symlink_to(tmp_path / "store")
    (tmp_path / "store/b/back").symlink_to(tmp_path / "store")
    assert list_names(tmp_path / "songs") == ["a.wav", "b/c.wav"]


def test_a_link_to_nothing_is_listed_as_not_seen(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "missing")
    (tmp_path / "b.wav").symlink_to(tmp_path / "b.wav")
    for recording in list_files(Listing(str(tmp_path)), ALL):
        assert (recording.size_bytes, recording.fingerprint) == (-1, "")
    assert list_names(tmp_path) == ["a.wav", "b.wav"]


def test_what_is_no_file_is_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    touch(tmp_path, "b.wav")
    assert list_names(tmp_path) == ["b.wav"]


def test_a_directory_called_like_a_file_is_entered(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav/b.wav")
    assert list_names(tmp_path) == ["a.wav/b.wav"]


def test_a_directory_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "open/a.wav", "shut/b.wav")
    original = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CatalogueError, match="shut cannot be read: permission denied"):
        list_names(tmp_path)


def test_a_directory_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="gone does not exist"):
        list_names(tmp_path, DirectoryPart("gone"))


def test_a_name_that_is_no_text_is_that_files_fault(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/K\xf6ln"))
    folder.mkdir()
    for name in (b"/\xff.wav", b"/K\xf6ln/b.wav", b"/K\xf6ln/c.wav"):
        Path(os.fsdecode(os.fsencode(tmp_path) + name)).touch()
    listing = Listing(str(tmp_path))
    recordings = [
        recording for part in listing_parts(listing) for recording in list_files(listing, part)
    ]
    faults = {recording.relative_uri: recording.fault for recording in recordings}
    assert faults.pop("a.wav") is None
    assert sorted(faults) == [r"K\xf6ln/b.wav", r"K\xf6ln/c.wav", r"\xff.wav"]
    for fault in faults.values():
        assert fault is not None
        assert fault[0] == Cause.BAD_NAME
        assert "is not UTF-8" in fault[1]
        assert "rename the file" in fault[1]
    assert len({recording.recording_id for recording in recordings}) == 4
    for recording in recordings:
        recording.uri.encode()


def test_a_file_that_goes_while_it_is_listed_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_not_found(details: object) -> str:
        raise FileNotFoundError(2, "No such file")

    touch(tmp_path, "a.wav")
    monkeypatch.setattr("melmill.transforms.catalogue.listing.fingerprint_of", raise_not_found)
    (recording,) = list_files(Listing(str(tmp_path)), ALL)
    assert (recording.size_bytes, recording.fingerprint) == (-1, "")


def test_no_request_is_made_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{i}.wav" for i in range(50)))
    requests: list[object] = []
    original = LocalFileSystem.info

    def info(self: Any, path: Any, **options: Any) -> Any:
        requests.extend([path] if isinstance(path, str) else [])  # a DirEntry needs no request
        return original(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "info", info)
    assert len(list_names(tmp_path)) == 50
    assert requests == []


def test_a_directory_is_read_by_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.transforms.store.pages._LOCAL_PAGE", 100)
    touch(tmp_path, *(f"{number:04}.wav" for number in range(3_000)), "folder/a.wav")
    listing = Listing(str(tmp_path), extensions=("wav",))
    list(list_files(listing, DirectoryPart("folder")))  # imports what a listing needs
    tracemalloc.start()
    try:
        names = {recording.relative_uri for recording in list_files(listing, DirectoryPart())}
        number = sum(1 for _ in list_files(listing, DirectoryPart()))
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        assert sum(1 for _ in list_files(listing, DirectoryPart())) == number
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert names == {f"{number:04}.wav" for number in range(3_000)}
    # A page of 100 files, at about 1.5 kB each with the copies. The whole directory took 3 MB.
    assert peak < 300_000


def test_a_file_that_goes_before_its_page_is_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    original = LocalFileSystem.info

    def info(self: Any, path: Any, **options: Any) -> Any:
        if isinstance(path, os.DirEntry) and path.name == "a.wav":
            raise FileNotFoundError(2, "No such file or directory")
        return original(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "info", info)
    assert list_names(tmp_path) == ["b.wav"]


def test_directories_that_cannot_match_are_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "rock/1/a.wav", "pop/1/b.wav", "rock/1/deep/c.wav")
    entered: list[str] = []
    original = os.scandir

    def scandir(path: str) -> Any:
        entered.append(path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list_names(tmp_path, pattern=("rock", "*", "*.wav")) == ["rock/1/a.wav"]
    assert entered == [str(tmp_path), f"{tmp_path}/rock", f"{tmp_path}/rock/1"]


def test_many_directories_are_not_all_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{i:03}/{j}/a.wav" for i in range(100) for j in range(3)))
    entered: list[str] = []
    original = os.scandir

    def scandir(path: str) -> Any:
        entered.append(path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    parts = list(listing_parts(Listing(str(tmp_path))))
    assert len(parts) == 101
    assert entered == [str(tmp_path)]


def reference(pattern: list[str], components: list[str]) -> bool:
    """Return whether a glob matches, by one regular expression for the whole path."""
    translated = {"*": "[^/]*", "a*": "a[^/]*", "?": "[^/]", "[ab]": "[ab]", "ab": "ab"}
    expression = ""
    for part in pattern:
        if part == "**":
            expression += r"(?:(?!\.)[^/]+/)*"
        elif part == ".*":
            expression += r"\.[^/]*/"
        else:
            expression += rf"(?!\.){translated[part]}/"
    return re.fullmatch(expression, "/".join(components) + "/") is not None


@given(PATTERNS, COMPONENTS)
def test_a_glob_matches_what_its_regular_expression_does(
    pattern: list[str], components: list[str]
) -> None:
    assert matches(pattern, components) == reference(pattern, components)


@given(PATTERNS, COMPONENTS)
def test_every_directory_above_a_match_is_entered(
    pattern: list[str], components: list[str]
) -> None:
    if matches(pattern, components):
        directories = [components[:i] for i in range(1, len(components))]
        assert all(matches(pattern, directory, partly=True) for directory in directories)


def test_a_directory_that_is_all_of_the_pattern_is_not_entered() -> None:
    assert not matches(("rock", "*.wav"), ("rock", "a.wav"), partly=True)
    assert not matches(("rock", "*.wav"), ("pop",), partly=True)


def test_what_is_passed_over_is_counted_in_every_part(tmp_path: Path) -> None:
    for name in ("a.wav", "b.amr", "x/c.AMR", "x/d", ".e.amr", "x/f.2024-01 (live)"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listing, skipped = Listing(str(tmp_path), extensions=("wav",)), Counter[str]()
    for part in listing_parts(listing):
        list(list_files(listing, part, skipped))
    assert skipped == {".amr": 2, "": 1, "*": 1}

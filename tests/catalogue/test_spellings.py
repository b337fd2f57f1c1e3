"""Tests of paths in other spellings: a path that exists is never read as another."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.spellings import other_spellings, resolve_spelling
from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.naming import resolve_uri
from tests.catalogue.manifests import listed, write_lines

#: The home folder, and the folder where Linux sees the drives of Windows; no test reads there.
HOME, MOUNTED = "~", "/mnt"
ACCENTED = "Café/Ünder.wav"


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_its_other_normal_form(tmp_path: Path, form: str) -> None:
    name = unicodedata.normalize(form, ACCENTED)
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", ACCENTED)
    make(tmp_path / name)
    resolved = resolve_spelling(str(tmp_path), other)
    assert (resolved.absolute, resolved.relative) == (f"{tmp_path}/{name}", name)


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("rock\\a.wav", "rock/a.wav"),
        (".\\rock\\a.wav", "rock/a.wav"),
        (f"{HOME}/a.wav", "home/a.wav"),
        ("~\\a.wav", "home/a.wav"),
        ("file://{root}/a%20b.wav", "a b.wav"),
        ("file://localhost{root}/a.wav", "a.wav"),
        ("file:{root}/a.wav", "a.wav"),
        ("file:///{root}/Caf%C3%A9.wav", "Café.wav"),
    ],
)
def test_another_spelling_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, file: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    make(tmp_path / file)
    resolved = resolve_spelling(str(tmp_path), written.format(root=tmp_path))
    assert Path(resolved.absolute).resolve() == tmp_path / file
    assert resolved.fault == ""


@pytest.mark.parametrize("name", ["rock\\a.wav", f"{HOME}/a.wav", "C:\\a.wav", "C:/a.wav"])
def test_a_file_with_exactly_the_name_counts_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (name, "rock/a.wav", "a.wav"):
        make(tmp_path / path)
    resolved = resolve_spelling(str(tmp_path), name)
    assert (resolved.absolute, resolved.relative) == (f"{tmp_path}/{name}", name)


def test_an_escape_in_a_plain_path_is_never_decoded(tmp_path: Path) -> None:
    make(tmp_path / "a b.wav")
    resolved = resolve_spelling(str(tmp_path), "a%20b.wav")
    assert (resolved.absolute, resolved.fault) == (f"{tmp_path}/a%20b.wav", "")


def test_a_path_that_is_nowhere_says_what_was_tried(tmp_path: Path) -> None:
    rows = [{"uri": "D:\\corpus\\a.wav", "x": 1}, {"uri": "plain.wav", "x": 2}]
    missing, plain = listed(write_lines(tmp_path / "t.jsonl", rows))
    assert missing.fault is not None
    assert missing.fault[0] == Cause.NOT_FOUND
    message = missing.fault[1]
    assert message.startswith("t.jsonl line 1, column 'uri': 'D:\\\\corpus\\\\a.wav' names no file")
    for tried in (f"{tmp_path}/D:/corpus/a.wav", f"{MOUNTED}/d/corpus/a.wav"):
        assert repr(tried) in message
    assert message.endswith("a path of Windows needs catalogue.root and relative paths")
    # The failure belongs to the path, as for any other missing file.
    assert missing.relative_uri == "D:\\corpus\\a.wav"
    assert dict(missing.labels) == {"x": 1}
    assert plain.fault is None


def test_names_in_stores_are_used_unchanged() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/songs/t.csv", "uri\nrock\\a.wav\n~/Cafe\u0301.wav\n".encode())
    try:
        recordings = listed("memory://songs/t.csv")
    finally:
        memory.rm("/songs", recursive=True)
    assert [r.uri for r in recordings] == [
        "memory://songs/rock\\a.wav",
        "memory://songs/~/Cafe\u0301.wav",
    ]
    assert [r.fault for r in recordings] == [None, None]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\~:")))
def test_a_plain_path_has_no_other_spelling(path: str) -> None:
    assert other_spellings(path) == []


@given(st.text(min_size=1))
def test_whatever_a_path_is_its_literal_meaning_stays_if_nothing_else_exists(path: str) -> None:
    try:
        expected = resolve_uri("/no/such/root", path)
    except CatalogueError:
        return
    if "\0" not in path:
        resolved = resolve_spelling("/no/such/root", path)
        assert resolved.fault or (resolved.absolute, resolved.relative) == expected


# The catalogue itself


def test_a_catalogue_is_found_in_another_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "rock" / "Café" / "a.wav")
    decomposed = unicodedata.normalize("NFD", "Café")
    names = ("rock\\Café", f"rock/{decomposed}", f"file:{tmp_path}/rock/Caf%C3%A9")
    for name in names:
        assert [r.uri for r in listed(name)] == [f"{tmp_path}/rock/Café/a.wav"]


def test_a_catalogue_that_is_nowhere_says_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"does not exist; check the path.*tried: .*/mnt/c/so"):
        listed("C:\\songs")
    with pytest.raises(CatalogueError) as raised:
        listed(tmp_path / "songs")
    assert "tried" not in str(raised.value)

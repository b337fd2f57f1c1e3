"""Tests of catalogues: what a user may name as a catalogue, and what its parts contain."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.catalogue.parts import (
    Catalogue,
    catalogue_parts,
    list_part,
    nothing_found_message,
    open_catalogue,
    split_glob,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.records import Recording

ODD_NAMES = [
    "a b.wav",
    'it\'s "quoted".wav',
    "🎵.flac",
    "new\nline.wav",
    "100%25 #1?.wav",
    "a[1]*.wav",
    "a::b.wav",
    "~.wav",
    "x" * 251 + ".wav",
]


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def recordings(catalogue: Catalogue) -> list[Recording]:
    return [r for part in catalogue_parts(catalogue) for r in list_part(catalogue, part)]


def names(uri: object, **options: object) -> list[str]:
    return sorted(r.relative_uri for r in recordings(open_catalogue(str(uri), **options)))  # type: ignore[arg-type]


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


def test_a_directory_gives_the_audio_below_it(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "b/c.FLAC", "b/d/e.mp3", "cover.jpg", "notes")
    assert names(tmp_path) == ["a.wav", "b/c.FLAC", "b/d/e.mp3"]


def test_hidden_files_and_directories_are_skipped(tmp_path: Path) -> None:
    make(tmp_path, ".a.wav", ".git/b.wav", "c/.d/e.wav", "f.wav")
    assert names(tmp_path) == ["f.wav"]


def test_hidden_components_above_the_root_do_not_count(tmp_path: Path) -> None:
    make(tmp_path, ".cache/music/a.wav")
    assert names(tmp_path / ".cache" / "music") == ["a.wav"]


def test_extensions_can_be_chosen(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "b.RAW")
    assert names(tmp_path, extensions=[".Raw"]) == ["b.RAW"]


def test_odd_names_are_listed_and_can_be_opened(tmp_path: Path) -> None:
    make(tmp_path, *ODD_NAMES)
    listed = recordings(open_catalogue(str(tmp_path)))
    assert sorted(r.relative_uri for r in listed) == sorted(ODD_NAMES)
    for recording in listed:
        assert Path(recording.uri).read_bytes() == recording.relative_uri.encode()


def test_each_odd_name_is_a_catalogue_of_one(tmp_path: Path) -> None:
    make(tmp_path, *ODD_NAMES)
    for name in ODD_NAMES:
        (recording,) = recordings(open_catalogue(str(tmp_path / name)))
        assert (recording.relative_uri, recording.uri) == (name, str(tmp_path / name))


def test_a_recording_says_what_the_store_knows(tmp_path: Path) -> None:
    make(tmp_path, "a/b.wav")
    (before,) = recordings(open_catalogue(str(tmp_path)))
    assert before.size_bytes == len("a/b.wav")
    assert before.fingerprint
    (tmp_path / "a/b.wav").write_bytes(b"changed")
    (after,) = recordings(open_catalogue(str(tmp_path)))
    assert before.recording_id == after.recording_id
    assert before.fingerprint != after.fingerprint


def test_ids_do_not_change_when_the_root_moves(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    make(tmp_path, "one/x/a.wav", "two/x/a.wav")
    memory.pipe_file("/songs/x/a.wav", b"")
    roots = [tmp_path / "one", tmp_path / "two", "memory://songs", f"{tmp_path}/one/**/*.wav"]
    assert len({recordings(open_catalogue(str(root)))[0].recording_id for root in roots}) == 1


def test_ids_change_when_the_root_is_another_directory(tmp_path: Path) -> None:
    make(tmp_path, "one/x/a.wav")
    roots = [tmp_path / "one", tmp_path / "one" / "x"]
    assert len({recordings(open_catalogue(str(root)))[0].recording_id for root in roots}) == 2


def test_a_single_file_has_the_id_that_its_directory_gives_it(tmp_path: Path) -> None:
    make(tmp_path, "a.wav", "b.wav")
    both = {r.recording_id for r in recordings(open_catalogue(str(tmp_path)))}
    (single,) = recordings(open_catalogue(str(tmp_path / "a.wav")))
    assert single.recording_id in both


def test_an_empty_file_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (recording,) = recordings(open_catalogue(str(tmp_path)))
    assert recording.size_bytes == 0


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_local_catalogues_list_the_same_with_and_without_a_scheme(
    tmp_path: Path, prefix: str
) -> None:
    make(tmp_path, "100%25/a b.wav")
    (recording,) = recordings(open_catalogue(f"{prefix}{tmp_path}/"))
    assert recording.uri == f"{prefix}{tmp_path}/100%25/a b.wav"
    assert recording.relative_uri == "100%25/a b.wav"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "songs/a.wav")
    monkeypatch.chdir(tmp_path)
    (recording,) = recordings(open_catalogue("songs"))
    assert recording.uri == f"{tmp_path}/songs/a.wav"


def test_a_tilde_is_the_home_only_before_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "home/songs/a.wav", "~root/b.wav")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert names("~/songs") == ["a.wav"]
    assert names("~root") == ["b.wav"]


def test_a_memory_store_is_listed(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("/songs/a.wav", "/songs/b/c#1.ogg", "/songs/b/.d.wav", "/other/e.wav"):
        memory.pipe_file(name, b"12")
    listed = recordings(open_catalogue("memory://songs"))
    assert [(r.uri, r.size_bytes) for r in listed] == [
        ("memory://songs/a.wav", 2),
        ("memory://songs/b/c#1.ogg", 2),
    ]
    assert names("memory://songs/**/*.ogg") == ["b/c#1.ogg"]
    assert names("memory://songs/a.wav") == ["a.wav"]


def test_an_archive_is_listed_through_a_chain(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("songs/x.wav", b"123")
    (recording,) = recordings(open_catalogue(f"zip://songs::file://{tmp_path}/a.zip"))
    assert recording.relative_uri == "x.wav"
    with fsspec.open(recording.uri) as file:
        assert file.read() == b"123"


def test_a_glob_finds_what_it_says(tmp_path: Path) -> None:
    make(tmp_path, "rock/a.wav", "rock/1/b.wav", "pop/c.wav", "rock/a.mp3", "rock/x.dat")
    assert names(tmp_path / "*" / "*.wav") == ["pop/c.wav", "rock/a.wav"]
    assert names(tmp_path / "**" / "*.wav") == ["pop/c.wav", "rock/1/b.wav", "rock/a.wav"]
    assert names(tmp_path / "r?ck" / "[ab].*") == ["rock/a.mp3", "rock/a.wav"]


def test_a_glob_is_rooted_where_it_is_fixed(tmp_path: Path) -> None:
    make(tmp_path, "rock/a.wav")
    assert names(tmp_path / "rock" / "*.wav") == ["a.wav"]


def test_a_glob_that_names_an_extension_is_taken_as_it_is(tmp_path: Path) -> None:
    make(tmp_path, "a.dat", "b.wav")
    assert names(tmp_path / "*.dat") == ["a.dat"]
    assert names(tmp_path / "*.d*") == ["a.dat"]


def test_a_glob_that_names_none_finds_audio_only(tmp_path: Path) -> None:
    make(tmp_path, "a.dat", "a.wav")
    assert names(tmp_path / "a*") == ["a.wav"]
    assert names(tmp_path / "*.*") == ["a.wav"]
    assert names(tmp_path / "**") == ["a.wav"]


def test_a_glob_finds_hidden_names_only_where_it_says_so(tmp_path: Path) -> None:
    make(tmp_path, "x/.cache/a.wav", "x/b/a.wav")
    assert names(tmp_path / "*" / "*" / "*.wav") == ["x/b/a.wav"]
    assert names(tmp_path / "*" / ".cache" / "*.wav") == ["x/.cache/a.wav"]


def test_what_exists_is_no_glob(tmp_path: Path) -> None:
    make(tmp_path, "a[1]/x.wav", "a1/y.wav", "b*.wav", "bb.wav")
    assert names(tmp_path / "a[1]") == ["x.wav"]
    assert names(tmp_path / "b*.wav") == ["b*.wav"]


@given(
    st.lists(st.text("ab. %#", min_size=1, max_size=5), max_size=4),
    st.lists(st.sampled_from(["*", "**", "a*", "[ab]", "x?y"]), min_size=1, max_size=3),
    st.sampled_from(["/", "s3://bucket/", "file:///", "memory://"]),
)
def test_the_fixed_part_and_the_pattern_are_the_whole_glob(
    fixed: list[str], magic: list[str], prefix: str
) -> None:
    uri = prefix + "/".join([*fixed, *magic])
    root, pattern = split_glob(uri)
    assert pattern == tuple(magic)
    assert root.rstrip("/") == (prefix + "/".join(fixed)).rstrip("/")


def test_parts_hold_each_recording_once_however_many_directories_there_are(tmp_path: Path) -> None:
    expected = [f"d{i}/e{j}/{k}.wav" for i in range(12) for j in range(7) for k in range(2)]
    make(tmp_path, *expected, "top.wav")
    catalogue = open_catalogue(str(tmp_path))
    parts = list(catalogue_parts(catalogue))
    listed = [r.relative_uri for part in parts for r in list_part(catalogue, part)]
    assert sorted(listed) == sorted([*expected, "top.wav"])
    assert len(parts) > 64


def test_parts_and_catalogues_can_be_pickled(tmp_path: Path) -> None:
    make(tmp_path, "a/b.wav")
    (tmp_path / "t.csv").write_text("uri,x\na.wav,1\n")
    for uri in (tmp_path, tmp_path / "t.csv"):
        catalogue = open_catalogue(str(uri), storage_options=(("key", "value"),))
        parts = list(catalogue_parts(catalogue))
        assert pickle.loads(pickle.dumps((catalogue, parts))) == (catalogue, parts)
        assert len(pickle.dumps(catalogue)) < 2_000


def test_a_part_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri\na.wav\n")
    directory, table = (open_catalogue(str(p)) for p in (tmp_path, tmp_path / "t.csv"))
    with pytest.raises(TypeError, match="not a part of the listing"):
        list_part(directory, next(catalogue_parts(table)))


def test_a_listing_has_no_labels(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path))
    assert (catalogue.kind, catalogue.label_columns, catalogue.root) == (
        "listing",
        (),
        str(tmp_path),
    )


def test_label_types_are_refused_where_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="label_types is for tables"):
        open_catalogue(str(tmp_path), label_types={"track": "string"})


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("missing", "missing does not exist"),
        ("missing.csv", "missing.csv does not exist"),
        ("missing/*.wav", "there is no directory .*missing"),
        ("a.wav/*.wav", "there is no directory .*a.wav"),
        ("songs.xlsx", r"neither a table \(.csv.* nor an audio file \(wav"),
        ("folder.csv", "is a directory; a table must be one file"),
        ("x" * 300, "cannot be read"),
    ],
)
def test_what_is_no_catalogue_is_refused_by_name(tmp_path: Path, uri: str, message: str) -> None:
    make(tmp_path, "a.wav", "songs.xlsx", "folder.csv/a.wav")
    with pytest.raises(CatalogueError, match=message):
        open_catalogue(str(tmp_path / uri))


@pytest.mark.parametrize("uri", ["nosuch://bucket/a", "memory://nothing", ""])
def test_urls_that_lead_nowhere_are_refused(uri: str, memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(CatalogueError, match=uri or "is an empty string"):
        open_catalogue(uri)


def test_a_name_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.info", refuse)
    with pytest.raises(CatalogueError, match="permission denied"):
        open_catalogue(str(tmp_path))


def test_an_empty_catalogue_can_be_described(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(tmp_path), extensions=["wav"])
    assert recordings(catalogue) == []
    assert "no files with the extensions wav" in nothing_found_message(catalogue)
    (tmp_path / "t.csv").write_text("uri\n")
    table = open_catalogue(str(tmp_path / "t.csv"))
    assert recordings(table) == []
    assert nothing_found_message(table).endswith("t.csv has no rows")

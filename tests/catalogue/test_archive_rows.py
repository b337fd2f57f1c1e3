"""Tests of archives as catalogues: members, labels beside them, parts, and hostile archives."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import webdataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melmill.transforms.catalogue import archive_rows
from melmill.transforms.catalogue.archive_rows import Archives, sample_rows
from melmill.transforms.catalogue.left_out import names_of_uri
from melmill.transforms.catalogue.listing import Listing, OutOfTimeError
from melmill.transforms.catalogue.parts import (
    catalogue_parts,
    list_part,
    open_catalogue,
    require_recordings,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.store.objects import StoredObject
from tests.catalogue.manifests import faults, listed
from tests.store.test_archives import HOSTILE, deflated_zip_of, tar_of, zip_of

Make = Callable[[Mapping[str, bytes]], bytes]

CONTENT = {
    "rock/a.flac": b"audio a",
    "rock/a.json": json.dumps({"genre": "rock", "year": 1999, "split": "test"}).encode(),
    "rock/a.txt": b"la la la\n",
    "rock/b.flac": b"audio b",
    "rock/b.json": json.dumps(
        {"genre": "rock", "nested": {"x": 1}, "words": [[1]], "start": 2.5}
    ).encode(),
    "c.wav": b"audio c",
}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def labels(catalogue: Path | str) -> dict[str, dict[str, Any]]:
    return {r.relative_uri: dict(r.labels) for r in listed(catalogue)}


@pytest.mark.parametrize("make", [tar_of, zip_of, deflated_zip_of])
def test_an_archive_gives_its_audio_with_the_labels_beside_it(tmp_path: Path, make: Make) -> None:
    path = write(tmp_path / ("x.tar" if make is tar_of else "x.zip"), make(CONTENT))
    name = path.name
    recordings = listed(path)
    assert [r.uri for r in recordings] == [f"{path}#{n}" for n in CONTENT if n[-4:] in "flac.wav"]
    assert [r.split for r in recordings] == ["test", None, None]
    nothing = dict.fromkeys(("genre", "year", "text", "start"))
    assert labels(path) == {
        f"{name}#rock/a.flac": nothing | {"genre": "rock", "year": 1999, "text": "la la la"},
        f"{name}#rock/b.flac": nothing | {"genre": "rock", "start": 2.5},
        f"{name}#c.wav": nothing,
    }
    for recording in recordings:
        source = StoredObject(
            recording.uri, recording.size_bytes, (), recording.fingerprint, recording.place
        )
        assert source.stat() == (recording.size_bytes, recording.fingerprint)
        with source.open() as file:
            assert file.read() == CONTENT[recording.relative_uri.partition("#")[2]]
    assert recordings[0].origin == f"{name} member rock/a.flac"


def test_shards_of_webdatasets_own_writer_are_read(tmp_path: Path) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/s-%03d.tar", maxcount=2, verbose=0) as writer:
        for i in range(3):
            labels_of_sample = {"genre": f"g{i}", "n": i}
            sample = {"wav": b"RIFF", "json": labels_of_sample, "txt": f"hello {i}"}
            writer.write({"__key__": f"dir/{i}", **sample})
    assert labels(tmp_path / "*.tar") == {
        f"s-00{i // 2}.tar#dir/{i}.wav": {"genre": f"g{i}", "n": i, "text": f"hello {i}"}
        for i in range(3)
    }


def test_a_glob_of_archives_has_a_part_for_each(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "shards" / f"{number}.tar", tar_of({f"{number}.wav": b"x"}))
    catalogue = open_catalogue(str(tmp_path / "shards" / "*.tar"))
    parts = list(catalogue_parts(catalogue))
    assert [part.archive for part in parts] == ["0.tar", "1.tar", "2.tar"]  # type: ignore[union-attr]
    uris = [r.uri for part in parts for r in list_part(catalogue, part)]
    assert uris == [f"{tmp_path}/shards/{i}.tar#{i}.wav" for i in range(3)]
    assert catalogue.root == f"{tmp_path}/shards"


def test_an_archive_on_a_store_is_listed_in_place() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/songs/x.tar", tar_of(CONTENT))
    try:
        assert [r.uri for r in listed("memory://songs/*.tar")] == [
            "memory://songs/x.tar#rock/a.flac",
            "memory://songs/x.tar#rock/b.flac",
            "memory://songs/x.tar#c.wav",
        ]
    finally:
        memory.rm("/songs", recursive=True)


def test_a_table_may_name_members(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", tar_of(CONTENT))
    (recording,) = listed(write(tmp_path / "t.csv", b"uri,genre\nx.tar#c.wav,pop\n"))
    assert recording.uri == f"{tmp_path}/x.tar#c.wav"
    with StoredObject(recording.uri).open() as file:
        assert file.read() == b"audio c"


def test_a_member_that_was_taken_down_has_one_name_whatever_leads_to_its_archive(
    tmp_path: Path,
) -> None:
    archive = write(tmp_path / "songs" / "x.tar", tar_of(CONTENT))
    (tmp_path / "link.tar").symlink_to(archive)
    (tmp_path / "folder").symlink_to(tmp_path / "songs")
    names = [
        names_of_uri(f"{name}#rock/a.flac")
        for name in (
            archive,
            tmp_path / "link.tar",
            tmp_path / "folder" / "x.tar",
            f"file://{archive}",
        )
    ]
    assert all(name & names[0] for name in names)
    # Another spelling of the member's own name leads to the same member, and to the same name.
    other = f"{archive}#./rock//a.flac"
    assert names_of_uri(other) & names[0]
    with StoredObject(other).open() as file:
        assert file.read() == b"audio a"


@pytest.mark.parametrize("form", ["./{}", "songs/./{}", "songs//{}", ".//./songs/./{}"])
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_names_are_plain_whatever_was_packed(tmp_path: Path, form: str, make: Make) -> None:
    path = write(tmp_path / "x.tar", make({form.format(n): data for n, data in CONTENT.items()}))
    folder = "songs/" if "songs" in form else ""
    names = [f"x.tar#{folder}{name}" for name in ("rock/a.flac", "rock/b.flac", "c.wav")]
    assert list(labels(path)) == names
    assert labels(path)[names[0]]["text"] == "la la la"


SIDECARS = {f"{n}.{kind}": b'"x"' for n in range(3) for kind in ("wav", "json", "txt")} | {
    f"{n}.json": json.dumps({"n": n}).encode() for n in range(3)
}


@given(st.permutations([*SIDECARS, "._0.json", "__MACOSX/._1.txt", "0.npy"]))
@example([*SIDECARS][::-1])
@settings(max_examples=20)
def test_labels_are_joined_in_any_order_of_the_members(names: list[str]) -> None:
    memory = fsspec.filesystem("memory")
    for kind, make in {"tar": tar_of, "zip": zip_of}.items():
        memory.pipe_file(f"/order/x.{kind}", make({n: SIDECARS.get(n, b"{") for n in names}))
        rows = labels(f"memory://order/x.{kind}")
        assert rows == {f"x.{kind}#{n}.wav": {"n": n, "text": '"x"'} for n in range(3)}
        assert list(rows) == [f"x.{kind}#{n}" for n in names if n.endswith(".wav")]


def labels_by_name(tmp_path: Path, content: Mapping[str, str], make: Make) -> dict[str, Any]:
    path = write(tmp_path / "x.tar", make({n: data.encode() for n, data in content.items()}))
    return {
        r.relative_uri.partition("#")[2]: r.fault[1] if r.fault else dict(r.labels).get("text")
        for r in listed(path)
    }


@pytest.mark.parametrize(
    "names", [("2024.01.02", "2024.01.03"), ("Dr. A", "Dr. B"), ("s.d\\1", "s.d\\2")]
)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_names_with_dots_have_their_own_labels(
    tmp_path: Path, names: tuple[str, ...], make: Make
) -> None:
    content = {f"{name}.{kind}": name for name in names for kind in ("wav", "txt")}
    alone = "2024.01.04.wav"  # its sample has labels, but those of other audio
    labels = labels_by_name(tmp_path, {**content, alone: ""}, make)
    assert labels == {**{f"{name}.wav": name for name in names}, alone: None}


def test_the_audio_of_a_sample_shares_its_labels_as_in_webdataset(tmp_path: Path) -> None:
    content = {"1.left.wav": "", "1.right.wav": "", "1.txt": "x", "2.wav": "", "2.clean.txt": "y"}
    labels = labels_by_name(tmp_path, content, tar_of)
    assert labels == {"1.left.wav": "x", "1.right.wav": "x", "2.wav": "y"}


@pytest.mark.parametrize("others", [("1.a.txt", "1.b.txt"), ("1.txt", "1.TXT")])
def test_two_files_of_one_kind_for_one_audio_are_a_fault(
    tmp_path: Path, others: tuple[str, str]
) -> None:
    content = {"1.wav": "", **dict.fromkeys(others, "x"), "2.wav": "", "2.txt": "y"}
    labels = labels_by_name(tmp_path, content, tar_of)
    assert labels.pop("2.wav") == "y"
    (fault,) = labels.values()
    assert "has labels in {!r} and in {!r}; leave one file".format(*others) in fault


def test_of_members_with_one_name_the_last_one_counts(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    members = [
        ("a.wav", b"old"),
        ("./a.txt", b"1"),
        ("b.wav", b"b"),
        ("./a.wav", b"new"),
        ("a.txt", b"2"),
    ]
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    recordings = listed(write(tmp_path / "x.tar", buffer.getvalue()))
    assert [r.relative_uri for r in recordings] == ["x.tar#b.wav", "x.tar#a.wav"]
    assert [dict(r.labels)["text"] for r in recordings] == [None, "2"]
    for place in (recordings[1].place, ""):  # as the listing and as a look-up find it
        with StoredObject(recordings[1].uri, place=place).open() as file:
            assert file.read() == b"new"


def test_to_open_an_archive_reads_its_first_members_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = {f"{n}.{kind}": b"1" for n in range(9) for kind in ("wav", "txt")}
    path = write(tmp_path / "x.tar", tar_of(labelled))
    monkeypatch.setattr(archive_rows, "_LOCAL_MEMBERS", 4)
    archives = Archives(Listing(str(tmp_path), (path.name,), single=True), ("wav",))
    assert len(sample_rows(archives)) == 2
    catalogue = open_catalogue(str(path))
    first = require_recordings(catalogue)
    assert (first.relative_uri, first.fingerprint) == ("x.tar#0.wav", "")
    (part,) = catalogue_parts(catalogue)
    assert len(list(list_part(catalogue, part))) == 9


@pytest.mark.parametrize("place", ["{}", "memory://late/{}"])
def test_labels_and_splits_behind_the_first_audio_are_seen_when_the_archive_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(archive_rows, "_LOCAL_MEMBERS", 2)
    monkeypatch.setattr(archive_rows, "_STORE_MEMBERS", 6)
    songs = {f"{n}.wav": b"1" for n in range(4)}
    more = {"3.json": b'{"split": "test", "n": 1}', "0.json": b'{"n": 2}', "1.txt": b"a"}
    data = tar_of({**songs, **more})
    fsspec.filesystem("memory").pipe_file("/late/x.tar", data)
    path = place.format(write(tmp_path / "x.tar", data) if place == "{}" else "x.tar")
    catalogue = open_catalogue(path, label_types={"text": "string"})
    assert [column.name for column in catalogue.label_columns] == ["n", "text"]
    assert require_recordings(catalogue).split == "test"
    assert len(listed(path, label_types={"text": "string"})) == 4


def test_an_archive_whose_audio_comes_late_is_no_empty_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_rows, "_LOCAL_MEMBERS", 1)
    path = write(tmp_path / "x.tar", tar_of({"a.npy": b"", "a.wav": b"1"}))
    assert require_recordings(open_catalogue(str(path))).relative_uri == "x.tar#a.wav"


def test_hidden_members_are_skipped_and_others_are_counted(tmp_path: Path) -> None:
    content = {
        **{"._a.wav": b"", "__MACOSX/._b.wav": b"", "a.wav": b"1", "a.npy": b"", "README": b""},
        **{"no.json": b"{}", "no.txt": b"", "a.txt": b"", "._no.json": b"{"},
    }
    catalogue = open_catalogue(str(write(tmp_path / "x.tar", tar_of(content))))
    passed_over: Counter[str] = Counter()
    (part,) = catalogue_parts(catalogue)
    assert [r.relative_uri for r in list_part(catalogue, part, passed_over)] == ["x.tar#a.wav"]
    unused = {".json without audio": 1, ".txt without audio": 1}
    assert passed_over == {".npy": 1, "": 1, **unused}


def test_to_open_archives_reads_no_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr(archive_rows, "member_fingerprint", lambda *_: read.append(1) or "x:1")
    catalogue = open_catalogue(str(write(tmp_path / "x.tar", tar_of(CONTENT))))
    assert [column.name for column in catalogue.label_columns][:2] == ["genre", "year"]
    assert read == []
    (part,) = catalogue_parts(catalogue)
    assert [r.fingerprint for r in list_part(catalogue, part)] == ["x:1"] * 3


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_name_that_leads_out_fails_alone(tmp_path: Path, name: str, make: Make) -> None:
    content = {name: b"1", "good.wav": b"2"}
    recordings = listed(write(tmp_path / "x.tar", make(content)))
    (fault,) = faults(recordings)
    assert fault.startswith(f"x.tar member {name} leads out of the archive")
    assert recordings[1].relative_uri == "x.tar#good.wav"
    assert recordings[0].uri == f"{tmp_path}/x.tar"


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        (b"{", "has labels in 'a.json', which cannot be read"),
        (b"[1]", "has labels in 'a.json', which is not a JSON object"),
        (b"\xff", "has labels in 'a.json', which cannot be read"),
        (b" " * (2**20 + 1), "has labels in 'a.json', which is larger than 1,048,576 bytes"),
    ],
)
def test_labels_that_cannot_be_read_are_their_rows_fault(
    tmp_path: Path, sidecar: bytes, message: str
) -> None:
    content = {"a.wav": b"1", "a.json": sidecar, "b.wav": b"2"}
    (fault,) = faults(listed(write(tmp_path / "x.tar", tar_of(content))))
    assert message in fault


def test_a_label_of_another_type_is_its_rows_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_rows, "SAMPLE_MEMBERS", 1)
    content = {"a.wav": b"1", "a.json": b'{"n": 1}', "b.wav": b"2", "b.json": b'{"n": "x"}'}
    path = write(tmp_path / "x.tar", tar_of(content))
    (fault,) = faults(listed(path))
    expected = "x.tar member b.wav, column 'n': 'x' is not int64, the type of the first 256 rows"
    assert fault.startswith(expected)
    assert faults(listed(path, label_types={"n": "string"})) == []


def test_a_key_that_comes_late_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_rows, "SAMPLE_MEMBERS", 1)
    content = {
        **{"a.wav": b"1", "a.json": b"{}", "b.wav": b"2", "b.json": b'{"year": 7}'},
        **{"c.wav": b"3", "c.json": b'{"my key": "x", "year": 8}'},
    }
    path = write(tmp_path / "x.tar", tar_of(content))
    late = (
        r"x.tar has keys .*: 'my key' \(member c.wav\), 'year' \(member b.wav\); set their types in"
    )
    types = r" catalogue.label_types: {\"my key\": string, year: int64}"
    with pytest.raises(CatalogueError, match=late + types):
        listed(path)
    expected = [{}, {"year": 7}, {"year": 8, "my key": "x"}]
    nothing = {"year": None, "my key": None}
    types_of = {"year": "int64", "my key": "string"}
    assert labels_of(path, **types_of) == [nothing | labels for labels in expected]


def labels_of(path: Path, **types: str) -> list[dict[str, Any]]:
    return [dict(r.labels) for r in listed(path, label_types=types)]


def test_a_damaged_archive_is_a_fault_and_the_others_are_read(tmp_path: Path) -> None:
    whole = tar_of(CONTENT)
    write(tmp_path / "0.tar", whole[:4000])
    write(tmp_path / "1.tar", b"not an archive" * 99)
    write(tmp_path / "2.tar", whole)
    recordings = listed(tmp_path / "*.tar")
    cut, none = faults(recordings)
    assert cut.startswith("0.tar archive is damaged")
    assert none.startswith("1.tar archive is no tar file without compression")
    assert [r.relative_uri for r in recordings if r.fault is None] == [
        "0.tar#rock/a.flac",
        "2.tar#rock/a.flac",
        "2.tar#rock/b.flac",
        "2.tar#c.wav",
    ]


def test_audio_whose_labels_may_be_lost_by_damage_is_left_out(tmp_path: Path) -> None:
    content = {
        "a.wav": b"1",
        "b.wav": b"2",
        "c.wav": b"3",
        "b.txt": b"b",
        "a.txt": b"a",
        "c.txt": b"",
    }
    write(tmp_path / "x.tar", tar_of(content)[: 8 * 512])  # behind the labels of b
    recordings = listed(tmp_path / "x.tar")
    assert [r.relative_uri for r in recordings if not r.fault] == []
    write(tmp_path / "x.tar", tar_of(content)[: 10 * 512])  # and behind those of a
    recordings = listed(tmp_path / "x.tar")
    assert [r.relative_uri for r in recordings if not r.fault] == ["x.tar#b.wav"]
    assert len(faults(recordings)) == 1


@pytest.mark.parametrize("pattern", ["x.tar.gz", "*.tar.gz", "*.tar*", "*.t*"])
def test_a_compressed_tar_file_is_refused_with_what_to_do(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / "x.tar.gz", b"\x1f\x8b")
    with pytest.raises(CatalogueError, match=r"cannot be read in place; unpack it to a tar file"):
        require_recordings(open_catalogue(str(tmp_path / pattern)))


def test_a_pattern_that_takes_archives_for_audio_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "x.tar", tar_of(CONTENT))
    with pytest.raises(CatalogueError, match=r"x.tar is an archive, .*such as .*/\*\.tar"):
        require_recordings(open_catalogue(str(tmp_path / "*.tar*")))


def test_a_table_with_members_of_a_compressed_file_says_what_to_do(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", b"uri\nx.tar.gz#a.wav\nx.tar#./c.wav\n")
    write(tmp_path / "x.tar", tar_of(CONTENT))
    compressed, plain = listed(table)
    assert compressed.fault is not None
    assert "'x.tar.gz' is a compressed tar file" in compressed.fault[1]
    assert (plain.relative_uri, plain.uri) == ("x.tar#c.wav", f"{tmp_path}/x.tar#c.wav")


def test_a_deadline_ends_the_reading_of_an_archive(tmp_path: Path) -> None:
    catalogue = open_catalogue(str(write(tmp_path / "x.tar", tar_of(CONTENT))))
    (part,) = catalogue_parts(catalogue)
    with pytest.raises(OutOfTimeError):
        list(list_part(catalogue, part, deadline=time.monotonic() - 1))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("x.tar", "name {}/*.tar"), ("x.json", "name {}/NAME.json"), ("x.npy", "")],
)
def test_a_folder_without_audio_says_what_else_it_holds(
    tmp_path: Path, name: str, hint: str
) -> None:
    write(tmp_path / name, b"")
    with pytest.raises(CatalogueError, match=r"holds no files with") as raised:
        require_recordings(open_catalogue(str(tmp_path)))
    advice = str(raised.value).partition(". It holds 1 file with the extension ")[2]
    assert advice.partition(": ")[2] == hint.format(tmp_path)


def test_a_glob_of_archives_below_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"matches nothing: there is no directory"):
        listed(tmp_path / "no" / "*.tar")

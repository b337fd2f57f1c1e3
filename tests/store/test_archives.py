"""Tests of archives: members read in place, their fingerprints, and hostile or damaged archives."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import struct
import tarfile
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.store import archived
from melmill.transforms.store.archives import (
    BadArchiveError,
    Member,
    Place,
    read_members,
    split_member,
)
from melmill.transforms.store.members import open_place, read_place
from melmill.transforms.store.objects import StoredObject

NOISE = bytes(range(256)) * 700
CONTENT = {"rock/a.wav": NOISE, "b.txt": b"la " * 9999, "rock/ü#1.wav": NOISE[::-1], "e.wav": b""}


def tar_of(content: Mapping[str, bytes], mtime: int = 0, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def deflated_zip_of(content: Mapping[str, bytes]) -> bytes:
    return zip_of(content, zipfile.ZIP_DEFLATED)


MAKERS = {"a.tar": tar_of, "a.zip": zip_of, "b.ZIP": deflated_zip_of}


@pytest.fixture(params=list(MAKERS))
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_bytes(MAKERS[request.param](CONTENT))
    return path


def test_members_are_read_in_place(archive: Path) -> None:
    for name, data in CONTENT.items():
        source = StoredObject(f"{archive}#{name}")
        for known in (source, source.located()):
            with known.open() as file:
                assert file.size_bytes == len(data)
                assert file.read() == data
                assert [file.read_at(at, 100) for at in (70_000, 10, 0)] == [
                    data[at : at + 100] for at in (70_000, 10, 0)
                ]
        assert source.stat()[0] == len(data)
        assert source.local_path is None


@pytest.mark.parametrize("make", MAKERS.values())
def test_members_on_a_store_are_read_in_place(make: object) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/songs/a.tar", make(CONTENT))  # type: ignore[operator]
    try:
        for name, data in CONTENT.items():
            with StoredObject(f"memory://songs/a.tar#{name}").open() as file:
                assert file.read() == data
    finally:
        memory.rm("/songs", recursive=True)


@given(st.sampled_from(sorted(CONTENT)), st.lists(st.integers(0, 200_000), max_size=8))
def test_any_order_of_reads_gives_the_members_bytes(name: str, positions: list[int]) -> None:
    memory = fsspec.filesystem("memory")
    for kind, make in MAKERS.items():
        memory.pipe_file(f"/order/{kind}", make(CONTENT))
        with StoredObject(f"memory://order/{kind}#{name}").open() as file:
            for position in positions:
                expected = CONTENT[name][position : position + 300]
                assert file.read_at(position, 300) == expected


def test_a_fingerprint_is_that_of_the_content(archive: Path) -> None:
    def fingerprints() -> dict[str, str]:
        return {name: StoredObject(f"{archive}#{name}").stat()[1] for name in CONTENT}

    before, make = fingerprints(), MAKERS[archive.name]
    changed = {"new.wav": b"1", **CONTENT, "rock/a.wav": NOISE[:-1] + b"x"}
    archive.write_bytes(make(changed))
    os.utime(archive, ns=(1, 1))
    after = fingerprints()
    assert [name for name in CONTENT if before[name] != after[name]] == ["rock/a.wav"]


def test_an_archive_that_changed_is_never_read_at_an_old_place(archive: Path) -> None:
    source = StoredObject(f"{archive}#rock/a.wav").located()
    source = replace(source, fingerprint=source.stat()[1])
    with source.open() as file:
        file.read(10)
        archive.write_bytes(MAKERS[archive.name]({"new.wav": b"12", **CONTENT}))
        os.utime(archive, ns=(1, 1))
        # The member itself is the same, but its place is not.
        assert source.stat()[1].startswith("moved:")
    with pytest.raises(RecordingError) as raised:
        source.open()
    assert raised.value.cause == Cause.CHANGED


def test_a_member_that_stays_where_it_was_did_not_change(archive: Path) -> None:
    source = StoredObject(f"{archive}#rock/a.wav").located()
    source = replace(source, fingerprint=source.stat()[1])
    archive.write_bytes(MAKERS[archive.name]({**CONTENT, "z.wav": b"1"}))
    os.utime(archive, ns=(1, 1))
    assert source.stat()[1] == source.fingerprint


@pytest.mark.parametrize(
    ("uri", "cause"),
    [("a.tar#no.wav", Cause.NOT_FOUND), ("no.tar#a.wav", Cause.NOT_FOUND)],
)
def test_what_is_missing_is_not_found(tmp_path: Path, uri: str, cause: Cause) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(CONTENT))
    with pytest.raises(RecordingError) as raised:
        StoredObject(f"{tmp_path}/{uri}").open()
    assert raised.value.cause == cause


def test_a_file_whose_name_looks_like_a_member_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar#b.wav"
    path.write_bytes(b"123")
    assert split_member(str(path)) is None
    assert StoredObject(str(path)).local_path == str(path)


def test_each_archive_that_a_table_names_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(file: Any, version: str, name: str) -> Iterator[Member]:
        read.append(name)
        return read_members(file, version, name)

    monkeypatch.setattr(archived, "read_members", counted)
    for number in range(9):
        (tmp_path / f"{number}.tar").write_bytes(tar_of({"a.wav": b"1", "b.wav": b"22"}))
    uris = [f"{tmp_path}/{number}.tar#{name}.wav" for name in "abab" for number in range(9)]
    with ThreadPoolExecutor(4) as threads:
        sizes = list(threads.map(lambda uri: StoredObject(uri).located().stat()[0], uris))
    assert sizes == [1] * 9 + [2] * 9 + [1] * 9 + [2] * 9
    assert sorted(read) == [f"{tmp_path}/{number}.tar" for number in range(9)]


def test_a_place_that_is_known_is_not_looked_up_again(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = StoredObject(f"{archive}#rock/a.wav").located()
    monkeypatch.setattr(archived, "member_places", lambda: pytest.fail("a place was looked up"))
    size_bytes, fingerprint = source.stat()
    assert replace(source, fingerprint=fingerprint).stat() == (size_bytes, fingerprint)
    with source.open() as file:
        assert file.read() == NOISE


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_member_is_found_with_its_accents_in_another_form(tmp_path: Path, make: Any) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Köln.wav") for form in ("NFC", "NFD"))
    for archived_name, asked in ((composed, decomposed), (decomposed, composed)):
        (tmp_path / "a.tar").write_bytes(make({archived_name: b"1" * len(archived_name)}))
        assert StoredObject(f"{tmp_path}/a.tar#./{asked}").stat()[0] == len(archived_name)
    both = {composed: b"1", decomposed: b"22"}
    (tmp_path / "a.tar").write_bytes(make(both))
    for name, data in both.items():
        assert StoredObject(f"{tmp_path}/a.tar#{name}").stat()[0] == len(data)


def test_names_in_zip_files_are_utf8_even_without_the_flag() -> None:
    data = zip_of({"K\xf6ln.wav": b"1"})
    flag = struct.pack("<H", 0x800)
    assert data.count(flag) == 2
    assert faults(data.replace(flag, b"\0\0")) == {"K\xf6ln.wav": ""}
    # Other names are in the code page of old PCs.
    latin = zip_of({"K_ln.wav": b"1"}).replace(b"K_ln", b"K\x94ln")
    assert faults(latin) == {"K\xf6ln.wav": ""}


@given(
    st.builds(
        Place,
        st.sampled_from(["plain", "stored", "deflated"]),
        *(st.integers(0, 2**63) for _ in range(4)),
        st.text(),
    )
)
def test_a_place_survives_as_text(place: Place) -> None:
    assert Place.parse(place.text) == place


# Hostile and damaged archives


def faults(data: bytes) -> dict[str, str]:
    return {member.name: member.fault for member in read_members(io.BytesIO(data), "v")}


HOSTILE = ("../a.wav", "/etc/a.wav", "a/../../b.wav", "C:/a.wav", "..\\a.wav", "//host/a.wav")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_name_that_leads_out_is_refused(name: str, make: object) -> None:
    found = faults(make({name: b"1", "good.wav": b"2"}))  # type: ignore[operator]
    assert [bool(fault) for fault in found.values()] == [True, False]
    assert "leads out of the archive" in next(iter(found.values()))


def test_a_refused_member_is_not_found_by_its_name_either(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"../a.wav": b"1"}))
    with pytest.raises(RecordingError) as raised:
        StoredObject(f"{tmp_path}/a.tar#../a.wav").open()
    assert raised.value.cause == Cause.NOT_FOUND


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.wav")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    (fault,) = faults(buffer.getvalue()).values()
    assert fault.startswith(("is a link to '/etc/passwd'", "is not stored as a regular file"))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(form: int) -> None:
    name = "/".join(["x" * 60] * 5) + ".wav"
    assert faults(tar_of({name: b"1"}, form=form)) == {name: ""}


def members_before(data: bytes) -> tuple[list[str], str]:
    """Return the names before the damage of an archive, and what the error says."""
    names: list[str] = []
    with pytest.raises(BadArchiveError) as raised:
        _collect(data, names)
    return names, str(raised.value.strerror)


def _collect(data: bytes, names: list[str]) -> None:
    _collect_file(io.BytesIO(data), names)


def _collect_file(file: IO[bytes], names: list[str]) -> None:
    for member in read_members(file, "v"):
        names.append(member.name)


TAR = tar_of({"a.wav": b"1" * 1024, "b.wav": b"2" * 1024}, form=tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (TAR[:3072], ["a.wav", "b.wav"]),  # the end mark is missing
        (TAR[:2500], ["a.wav", "b.wav"]),  # in the data of the second member
        (TAR[:1536], ["a.wav"]),  # between the members
        (TAR[:1700], ["a.wav"]),  # in the header of the second member
        (TAR[:1536] + b"x" * 512 + TAR[2048:], ["a.wav"]),  # the second header is destroyed
        (b"x" * 9999, []),
        (b"", []),
        (b"\x1f\x8b" + bytes(600), []),  # compressed
        (zip_of(CONTENT)[:-30], []),
        (zip_of(CONTENT)[:40], []),
    ],
    ids=itertools.count(),  # the bytes hold the time
)
def test_damage_is_an_error_behind_the_intact_members(data: bytes, names: list[str]) -> None:
    found, message = members_before(data)
    assert found == names
    assert message


@given(st.integers(0, len(TAR) - 1), st.binary(min_size=1, max_size=9))
def test_whatever_is_changed_in_a_tar_file_gives_members_or_our_error(at: int, new: bytes) -> None:
    data = TAR[:at] + new + TAR[at + len(new) :]
    with contextlib.suppress(BadArchiveError):
        faults(data)


ZIP = deflated_zip_of({"a.wav": NOISE, "b.wav": b"2"})


@given(st.integers(0, len(ZIP) - 1), st.binary(min_size=1, max_size=9))
@example(len(ZIP) - 4, b"\1")  # the list seems to begin later, and the first member before byte 0
def test_whatever_is_changed_in_a_zip_file_gives_its_bytes_or_our_error(
    at: int, new: bytes
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/fuzz/a.zip", ZIP[:at] + new + ZIP[at + len(new) :])
    try:
        with StoredObject("memory://fuzz/a.zip#a.wav").open() as file:
            data = file.read()
            file.raise_kept()
    except RecordingError:
        return
    assert data == NOISE


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_any_length_takes_little_memory(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 2**30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(TAR[:1536] + header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**30 + 4096)
    names: list[str] = []
    tracemalloc.start()
    with path.open("rb") as file, pytest.raises(BadArchiveError) as raised:
        _collect_file(file, names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert names == ["a.wav"]
    assert raised.value.strerror == (
        "is damaged behind 'a.wav': it has a header of more than 1,048,576 bytes"
    )
    assert peak < 2**23


@pytest.mark.parametrize(("keys", "is_read"), [(100, True), (101, False)])
def test_the_headers_for_all_members_take_little_memory(keys: int, is_read: bool) -> None:
    buffer, shared = io.BytesIO(), {f"comment{n}": "x" for n in range(keys)}
    with tarfile.open(fileobj=buffer, mode="w", pax_headers=shared) as archive:
        archive.addfile(tarfile.TarInfo("a.wav"))
    if is_read:
        assert faults(buffer.getvalue()) == {"a.wav": ""}
    else:
        assert "too many headers" in members_before(buffer.getvalue())[1]


def test_a_chain_of_headers_ends(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    chain = (header.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)) * 2000
    names, message = members_before(TAR[:1536] + chain + bytes(1024))
    assert names == ["a.wav"]
    assert "is damaged" in message


@pytest.mark.parametrize("stored", [10**9, 2000])
def test_a_small_member_with_a_wrong_length_is_not_read(stored: int) -> None:
    data = deflated_zip_of({"a.json": b"{}" * 99})
    (member,) = read_members(io.BytesIO(data), "v")
    assert read_place(io.BytesIO(data), member.place) == b"{}" * 99
    with pytest.raises(BadArchiveError, match="so the archive's list is damaged"):
        read_place(io.BytesIO(data), replace(member.place, stored_bytes=stored))
    with pytest.raises(BadArchiveError, match="another checksum"):
        read_place(io.BytesIO(data), replace(member.place, crc=1))


def test_a_zip_file_may_begin_with_a_program() -> None:
    data = io.BytesIO(b"#!/bin/sh\n" + zip_of({"a.wav": b"123"}))
    (member,) = read_members(data, "v", "songs.ZIP")
    with open_place(data, member.place) as file:
        assert file.read() == b"123"


@pytest.mark.parametrize("data", [b"", bytes(9999), b"<html>not found</html>" * 99])
def test_what_is_no_zip_file_is_said_by_its_name(data: bytes) -> None:
    with pytest.raises(BadArchiveError) as raised:
        list(read_members(io.BytesIO(data), "v", "a.zip"))
    assert raised.value.strerror.startswith("is no zip file: its end")


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    # The header of GNU's old sparse format: type S.
    data = bytearray(TAR)
    data[156:157] = b"S"
    header = bytes(data[:148]) + b" " * 8 + bytes(data[156:512])
    data[148:156] = f"{sum(header):06o}\0 ".encode()
    assert faults(bytes(data))["a.wav"] == "is not stored as a regular file"

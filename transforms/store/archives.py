"""Archives of audio, read in place: the members of a tar or zip file are ranges of its bytes.

The URI of a member is ``ARCHIVE#MEMBER``, as in ``s3://bucket/songs.tar#rock/a.wav``. Nothing is
unpacked, so a member's name is never a path on a disk; yet names that lead out of the archive are
refused, because other tools would write there. A Parquet file with audio in its rows is an archive,
too; see :mod:`~melmill.transforms.store.embedded`.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

#: File name endings of archives.
ARCHIVE_EXTENSIONS = (".tar", ".zip")
_COMPRESSED = r"\.(?:tar\.(?:gz|bz2|xz|zst|lz4|z)|tgz|tbz2?|txz|tzst)"

_MEMBER = re.compile(r"(.+?\.(?:tar|zip|parquet))#(.+)", re.IGNORECASE | re.DOTALL)

_COMPRESSED_NAME = re.compile(rf".+?{_COMPRESSED}(?:#.+)?", re.IGNORECASE | re.DOTALL)

_BLOCK_BYTES = 512  # of a tar file
#: Largest number of bytes that the headers of a member may have. Names have a few hundred.
_MOST_HEADER_BYTES = 2**20
#: Largest number of keys in the headers that a tar file has for all members.
_MOST_SHARED_KEYS = 100
_ENCRYPTED, _UTF8 = 0x1, 0x800
#: Errors that the standard library raises for damaged archives, beside its own.
_PARSING_ERRORS = (
    *(ValueError, OverflowError, EOFError, RecursionError, struct.error, zlib.error),
)

#: What is wrong with a file that is no tar file that can be read in place.
NO_TAR = "is no tar file without compression; unpack a compressed one first, with gunzip or zstd -d"


#: What is wrong with a file whose name ends in ``.zip`` and that is no zip file.
NO_ZIP = "is no zip file: its end, with the list of members, is missing; download or write it again"

#: What is wrong with a compressed tar file, and what to do.
COMPRESSED_TAR = (
    "is a compressed tar file, whose members cannot be read in place; unpack it to a tar file"
    " first, with gunzip or zstd -d"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member is in a version of its archive.

    Attributes
    ----------
    kind
        ``plain``: the bytes begin at `start`. ``stored`` and ``deflated``: the member's header in
        a zip file begins there. ``page``: a compressed page of a Parquet file begins there.
    start
        Position in the archive.
    stored_bytes, size_bytes
        Number of bytes in the archive, and of the member.
    crc
        CRC-32 of the member in a zip file; 0 in any other archive.
    version
        Fingerprint of the archive.
    codec, first_byte, unpacked_bytes
        Compression of a page, and its size without it; first byte of the member in it.
    """

    kind: Literal["plain", "stored", "deflated", "page"]
    start: int
    stored_bytes: int
    size_bytes: int
    crc: int
    version: str
    codec: str = ""
    first_byte: int = 0
    unpacked_bytes: int = 0

    @property
    def text(self) -> str:
        """Text from which :meth:`parse` gives an equal place."""
        numbers = (self.start, self.stored_bytes, self.size_bytes, self.crc)
        page = (self.codec, self.first_byte, self.unpacked_bytes)
        return ":".join(map(str, (self.kind, *numbers, *page, self.version)))

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place that a text stands for.

        >>> place = Place("plain", 512, 44, 44, 0, "etag:abc:10240")
        >>> Place.parse(place.text) == place
        True
        """
        kind, start, stored, size, crc, codec, first, unpacked, version = text.split(":", 8)
        numbers = (int(start), int(stored), int(size), int(crc))
        page = (codec, int(first), int(unpacked))
        return cls(kind, *numbers, version, *page)  # type: ignore[arg-type]  # text of a place


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes
    ----------
    name
        Name in the archive, without ``.`` as a folder; see :func:`plain_name`.
    place
        Where it is.
    fault
        Reason why it is not read; ``""`` if it is.
    """

    name: str
    place: Place
    fault: str = ""


class BadArchiveError(OSError):
    """The error for a file that is no archive, or is damaged; ``strerror`` gives the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EBADMSG, message)


def split_member(uri: str) -> tuple[str, str] | None:
    """Return the archive and the member that a URI names; ``None`` for any other URI.

    Examples
    --------
    >>> split_member("s3://bucket/songs.tar#rock/a#1.wav")
    ('s3://bucket/songs.tar', 'rock/a#1.wav')
    >>> split_member("/music/a.tar"), split_member("/music/100%25 #1?.wav")
    (None, None)
    """
    if "#" not in uri or (found := _MEMBER.fullmatch(uri)) is None:
        return None
    # A local file may have this very name.
    return None if "://" not in uri and os.path.exists(uri) else (found[1], found[2])  # noqa: PTH110 - a literal path


def is_archive(uri: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return uri.lower().endswith(ARCHIVE_EXTENSIONS)


def is_parquet(uri: str) -> bool:
    """Return whether a file is a Parquet file, by its name."""
    return uri.lower().endswith(".parquet")


def is_compressed_tar(uri: str) -> bool:
    """Return whether a URI names a compressed tar file, or a member of one, by its name.

    >>> [is_compressed_tar(uri) for uri in ("/a.tar.gz", "/a.tgz#b.wav", "/a.tar")]
    [True, True, False]
    """
    return _COMPRESSED_NAME.fullmatch(uri) is not None


def plain_name(name: str) -> str:
    """Return a member's name without empty components and ``.``, as unpacking it gives.

    >>> plain_name("./songs/.//1.wav"), plain_name("/a.wav"), plain_name("../a.wav")
    ('songs/1.wav', '/a.wav', '../a.wav')
    """
    if name.startswith("/") or not ("./" in name or "//" in name):
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) or name


def is_hidden(name: str) -> bool:
    """Return whether a member's name, or a folder in it, begins with a dot.

    >>> [is_hidden(name) for name in ("a/.b/c.wav", "__MACOSX/._a.wav", "../a.wav", "a.b.wav")]
    [True, True, False, False]
    """
    parts = name.replace("\\", "/").split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


def read_members(file: Any, version: str, name: str = "") -> Iterator[Member]:
    """Yield the files in an archive, in their order.

    A tar file is walked from header to header, a zip file has a list. Folders are passed over.
    If several members have one name, the last one counts, as for tar and unzip.

    Parameters
    ----------
    file
        Binary file that can seek.
    version
        Fingerprint of the archive.
    name
        Name of the archive. A zip file may begin with a program; then its name tells its kind.

    Raises
    ------
    BadArchiveError
        If the file is no archive, or is damaged or cut off; the members before are yielded.
    """
    start = file.read(4)
    file.seek(0)
    is_zip = start[:2] == b"PK" or name.lower().endswith(".zip")
    yield from (_zip_members if is_zip else _tar_members)(file, version)


class _Headers:
    """The file of a tar archive for ``tarfile``, which takes any length in a header for true."""

    def __init__(self, file: Any) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self.left = _MOST_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Return bytes of the headers; raise ``BadArchiveError`` if there are too many."""
        self.left -= size
        if self.left < 0:
            raise BadArchiveError(f"has a header of more than {_MOST_HEADER_BYTES:,} bytes")
        data: bytes = self._read(size)
        return data


def _tar_members(file: Any, version: str) -> Iterator[Member]:
    name, headers = "", _Headers(file)
    # tarfile reads and seeks, and needs no other method of a file.
    file_of_headers: Any = headers
    try:
        with tarfile.open(fileobj=file_of_headers, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all
                if len(archive.pax_headers) > _MOST_SHARED_KEYS:
                    raise BadArchiveError("has too many headers for all members")
                name = plain_name(info.name)
                if not info.isdir():
                    place = Place("plain", info.offset_data, info.size, info.size, 0, version)
                    yield Member(name, place, _name_fault(name) or _tar_fault(info))
                headers.left = _MOST_HEADER_BYTES
            end = archive.offset
    except BadArchiveError as error:
        where = f"behind {name!r}" if name else "at its start"
        raise BadArchiveError(f"is damaged {where}: it {error.strerror}") from error
    except (tarfile.TarError, *_PARSING_ERRORS) as error:
        raise BadArchiveError(f"is damaged behind {name!r}: {error}" if name else NO_TAR) from error
    # tarfile takes a damaged header for the end.
    file.seek(end)
    if len(block := file.read(_BLOCK_BYTES)) < _BLOCK_BYTES or block.strip(b"\0"):
        raise BadArchiveError(
            f"is damaged or cut off behind {name!r}: the end mark of a tar file is missing"
        )


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return f"is a link to {info.linkname!r}; write the file itself into the archive"
    if not info.isreg() or info.issparse():
        return "is not stored as a regular file"
    return ""


def _zip_members(file: Any, version: str) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                name = plain_name(_zip_name(info))
                if not name.endswith("/"):
                    fault = _name_fault(name) or _zip_fault(info)
                    yield Member(name, _zip_place(info, version), fault)
    except (zipfile.BadZipFile, NotImplementedError, *_PARSING_ERRORS) as error:
        is_zip = str(error) != "File is not a zip file"  # the text of the standard library
        raise BadArchiveError(f"is a damaged zip file: {error}" if is_zip else NO_ZIP) from error


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name. Some tools, as those of macOS, write UTF-8 without its flag."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except ValueError:
        return info.filename


def _zip_place(info: zipfile.ZipInfo, version: str) -> Place:
    kind: Literal["stored", "deflated"] = (
        "stored" if info.compress_type == zipfile.ZIP_STORED else "deflated"
    )
    sizes = info.compress_size, info.file_size
    return Place(kind, info.header_offset, *sizes, info.CRC, version)


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.header_offset < 0:
        return "is before the start of the archive, so the archive's list is damaged"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed by another method than deflate; store it without compression"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return "has two different sizes in the list of the archive"
    return ""


def _name_fault(name: str) -> str:
    """Return the fault of a name that leads out of the folder where one unpacks the archive.

    >>> [bool(_name_fault(name)) for name in ("a/b.wav", "/a.wav", "../a.wav", "a/..\\\\b", "C:x")]
    [False, True, True, True, True]
    """
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "leads out of the archive; write relative names without .. into it"
    return "has a zero character in its name" if "\0" in name else ""

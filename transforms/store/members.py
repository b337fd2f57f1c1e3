"""Members of archives as files: opened in place, and fingerprinted by their content."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from melmill.transforms.store.archives import BadArchiveError, Place
from melmill.transforms.store.sized_file import SizedFile

_HASHED_BYTES, _DIGEST_BYTES = 2**20, 16
#: Largest number of bytes that compression may add to a member.
_MOST_OVERHEAD = 1024
_Result = TypeVar("_Result")


def member_fingerprint(file: Any, place: Place) -> str:
    """Return the fingerprint of a member: it depends on the content alone, not on the archive.

    A zip file has checksums. The member of any other archive is read.

    Parameters
    ----------
    file
        Open archive.
    place
        Place of the member in it.

    Raises
    ------
    BadArchiveError
        If the archive ends within the member.
    """
    if place.kind in ("stored", "deflated"):
        return f"crc32:{place.crc:08x}:{place.size_bytes}"
    if place.kind == "page":
        return content_fingerprint(_read_page_member(file, place))
    state, left = hashlib.blake2b(digest_size=_DIGEST_BYTES), place.size_bytes
    file.seek(place.start)
    while left:
        block = file.read(min(left, _HASHED_BYTES))
        if not block:
            raise BadArchiveError(f"ends {left:,} bytes before the end of a member")
        state.update(block)
        left -= len(block)
    return _fingerprint(state, place.size_bytes)


def content_fingerprint(content: bytes | memoryview) -> str:
    """Return the fingerprint of a member that has a content."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    state.update(content)
    return _fingerprint(state, len(content))


def _fingerprint(state: hashlib.blake2b, size_bytes: int) -> str:
    return f"blake2b:{state.hexdigest()}:{size_bytes}"


def _read_page_member(file: Any, place: Place) -> bytes:
    from melmill.transforms.store.embedded import read_page  # loads Arrow, which few reads need

    return read_page(file, place)[place.first_byte :][: place.size_bytes]


class Window(SizedFile):
    """A range of a file as a file.

    Parameters
    ----------
    file
        Binary file that can seek; it is closed with the window.
    start, size
        First byte and number of bytes.
    """

    def __init__(self, file: Any, start: int, size: int) -> None:
        super().__init__(size)
        self._file, self._start = file, start

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` up to the window's end; return the count, 0 at the end."""
        view = memoryview(buffer).cast("B")
        left = max(0, self._size - self._position)
        if not left:
            return 0
        self._file.seek(self._start + self._position)
        count = int(self._file.readinto(view[:left]))
        if not count:
            raise BadArchiveError(f"the archive ends {left:,} bytes before the end of the member")
        self._position += count
        return count

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()


class _Inflated(io.RawIOBase):
    """A compressed member as a file; its checksum is compared at its end."""

    def __init__(self, window: Window, info: zipfile.ZipInfo) -> None:
        self._window = window
        self._file = zipfile.ZipExtFile(window, "r", info)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._checked(lambda: self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        data = self._checked(lambda: self._file.read1(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._window.close()
        super().close()

    def _checked(self, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadArchiveError(f"the member is damaged: {error}") from error


def open_place(file: Any, place: Place) -> Any:
    """Return a member as a binary file that can seek.

    Parameters
    ----------
    file
        Open archive, in the version of the place; it is closed with the member.
    place
        Place of the member.

    Raises
    ------
    BadArchiveError
        If there is no such member of a zip file.
    """
    if place.kind == "plain":
        return Window(file, place.start, place.size_bytes)
    if place.kind == "page":
        with file:
            return io.BytesIO(_read_page_member(file, place))
    window = Window(file, data_start(file, place), place.stored_bytes)
    if place.kind == "stored":
        return window
    info = zipfile.ZipInfo()
    info.compress_type, info.CRC = zipfile.ZIP_DEFLATED, place.crc
    info.compress_size, info.file_size = place.stored_bytes, place.size_bytes
    return io.BufferedReader(_Inflated(window, info))


def read_place(file: Any, place: Place) -> bytes:
    """Return all bytes of a small member; the archive stays open.

    The memory depends on the member's size alone.

    Raises
    ------
    BadArchiveError
        If the archive ends within the member, or the member is damaged.
    """
    if place.stored_bytes > 2 * place.size_bytes + _MOST_OVERHEAD:
        message = f"the member takes {place.stored_bytes:,} bytes for {place.size_bytes:,} bytes"
        raise BadArchiveError(f"{message}, so the archive's list is damaged")
    file.seek(data_start(file, place))
    data: bytes = file.read(place.stored_bytes)
    if place.kind == "deflated":
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, place.size_bytes + 1)
        except zlib.error as error:
            raise BadArchiveError(f"the member is damaged: {error}") from error
    if len(data) != place.size_bytes:
        raise BadArchiveError(f"the member has {len(data):,} bytes of {place.size_bytes:,}")
    if place.kind != "plain" and zlib.crc32(data) != place.crc:
        raise BadArchiveError("the member is damaged: it has another checksum than in the list")
    return data


def data_start(file: Any, place: Place) -> int:
    """Return the position of the first byte of a member's data; a zip file has a header before it.

    Raises
    ------
    BadArchiveError
        If there is no such header.
    """
    if place.kind == "plain":
        return place.start
    file.seek(place.start)
    header = file.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise BadArchiveError("the zip file has no header where its list says that a member is")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return place.start + len(header) + lengths

"""A stored object: a version of a file, local or remote, opened for reads of ranges.

Local paths are used unchanged (never URL-decoded); everything else goes through fsspec.
Requests with a transient error are retried. A lasting error becomes a
:class:`RecordingError` of the stage ``read``, even if a decoder in C makes the read and
loses the exception (see :class:`~melmill.transforms.store.stored_file.StoredFile`).
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat as stat_modes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from melmill.transforms.core.errors import Cause, RecordingError, Stage, UserError
from melmill.transforms.store.archived import locate, member_reader, open_member, stat_member
from melmill.transforms.store.archives import split_member
from melmill.transforms.store.read_ahead import (
    FIRST_BYTES,
    SMALLEST_BYTES,
    Prefetched,
    ReadAheadFile,
    ReadRange,
)
from melmill.transforms.store.retries import patiently
from melmill.transforms.store.stored_file import StoredFile

#: Size of a cache block, and of a request, for stores whose requests name no version.
REMOTE_BLOCK_BYTES = 2**20
#: Number of cache blocks for an open remote object.
REMOTE_BLOCKS = 16

_HASHED_BYTES = 2**20

#: Number of headers that are fetched before they are read.
MOST_HEADERS = 8
_PREFETCHED = Prefetched(most=4)
_HEADERS = Prefetched(most=MOST_HEADERS + 1)

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::.*://)", re.DOTALL)
_LOCAL_SCHEME = re.compile(r"(file|local)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a store.

    Parameters
    ----------
    uri
        Local path, used literally with all its characters; ``file://`` URL, whose path is
        used literally too; any URL that fsspec opens; or a member of an archive,
        ``ARCHIVE#MEMBER``.
    size_bytes
        Size from a listing; ``-1`` if it is not known.
    storage_options
        ``(name, value)`` pairs for the fsspec filesystem.
    fingerprint
        Version to read; ``""`` for the present version.
    place
        Place of a member in its archive; ``""`` to look for it.

    Examples
    --------
    >>> StoredObject("/music/100%25 #1?.wav").local_path
    '/music/100%25 #1?.wav'
    >>> StoredObject("file:///music/a b.wav").local_path
    '/music/a b.wav'
    >>> StoredObject("s3://music/a.wav").local_path is None
    True
    """

    uri: str
    size_bytes: int = -1
    storage_options: tuple[tuple[str, object], ...] = field(default=(), repr=False)
    fingerprint: str = ""
    place: str = ""

    @property
    def local_path(self) -> str | None:
        """Path on this machine's disks; ``None`` for a remote object and a member of an archive."""
        if split_member(self.uri):
            return None
        if scheme := _LOCAL_SCHEME.match(self.uri):
            return self.uri[scheme.end() :]
        return None if _REMOTE.match(self.uri) else self.uri

    def open(self, *, share: float = 0.0, from_start: bool = False) -> StoredFile:
        """Open the object for reading.

        Parameters
        ----------
        share
            Position at which reading will probably end, as a share of the object: 0.0 if only
            a few places are read, 1.0 if the object is read to its end.
        from_start
            Whether the object is read sequentially from its start.

        Returns
        -------
        StoredFile
            Buffered, seekable file; a context manager that closes the file.

        Raises
        ------
        RecordingError
            With the stage ``read``: the object is not found or not permitted, or the store
            fails.
        UserError
            The filesystem's package is not installed, or the URL's scheme is unknown.
        """
        return StoredFile(patiently(lambda: self.open_raw(share, from_start)))

    @property
    def holds_version(self) -> bool:
        """Whether reads are bound to the fingerprint's version: they give its bytes or fail."""
        return self.range_reader() is not None

    def prefetch(self) -> None:
        """Begin to fetch a remote object that will soon be read from its start."""
        if self.size_bytes > 0 and (read := self.range_reader()) is not None:
            size = min(self.size_bytes, FIRST_BYTES)
            _PREFETCHED.fetch((self.uri, self.fingerprint), read, size)

    def prefetch_header(self) -> None:
        """Begin to fetch the start of a remote object that will soon be opened."""
        if self.size_bytes > 0 and (read := self.range_reader()) is not None:
            size = min(self.size_bytes, SMALLEST_BYTES)
            _HEADERS.fetch((self.uri, self.fingerprint), read, size)

    def stat(self) -> tuple[int, str]:
        """Return the object's size in bytes and its :func:`fingerprint_of`, from the store.

        The fingerprint of a member of an archive is that of its content.
        """
        if named := split_member(self.uri):
            return stat_member(self, *named)
        details = patiently(self._details)
        return int(details.get("size") or 0), fingerprint_of(details)

    def located(self) -> StoredObject:
        """Return the object with its place, if it is a member of an archive; see :func:`locate`."""
        named = split_member(self.uri)
        return locate(self, *named) if named else self

    def in_its_version(self) -> StoredObject:
        """Return the object with its present size and fingerprint."""
        size_bytes, fingerprint = self.stat()
        return replace(self, size_bytes=size_bytes, fingerprint=fingerprint)

    def _details(self) -> Mapping[str, Any]:
        if (path := self.local_path) is not None:
            return local_details(path)
        filesystem, path = self._filesystem()
        details: Mapping[str, Any] = filesystem.info(path)
        return details

    def range_reader(self) -> ReadRange | None:
        """Return a reader of ranges of the fingerprint's version; ``None`` if there is none."""
        if self.local_path is not None:
            return None
        if named := split_member(self.uri):
            return member_reader(self, named[0])
        from melmill.transforms.store.ranges import (
            range_reader,  # imported here because it loads fsspec, which local files do not need
        )

        return range_reader(*self._filesystem(), self.fingerprint)

    def read_ahead(self, read: ReadRange, share: float, from_start: bool) -> ReadAheadFile:
        """Return the object as a file that reads ranges; see :meth:`open`."""
        expected = min(self.size_bytes, round(share * self.size_bytes) + SMALLEST_BYTES)
        prefetch = (_PREFETCHED if from_start else _HEADERS).take((self.uri, self.fingerprint))
        first: Callable[[], bytes] | None = prefetch.result if prefetch else None
        if from_start and first is None:
            first = partial(read, 0, min(expected, FIRST_BYTES))
        return ReadAheadFile(read, self.size_bytes, expected, first)

    def open_raw(self, share: float, from_start: bool) -> Any:
        """Open the object once, without a buffer and without retries; see :meth:`open`."""
        if (path := self.local_path) is not None:
            local_details(path)
            return io.FileIO(path)
        if self.size_bytes > 0 and (read := self.range_reader()) is not None:
            return self.read_ahead(read, share, from_start)
        if named := split_member(self.uri):
            return open_member(self, *named, share, from_start)
        filesystem, path = self._filesystem()
        file = filesystem.open(
            path,
            "rb",
            block_size=REMOTE_BLOCK_BYTES,
            cache_type="blockcache",
            cache_options={"maxblocks": REMOTE_BLOCKS},
        )
        if not file.seekable():
            raise OSError(errno.ESPIPE, "the server does not support ranged reads")
        return file

    def _filesystem(self) -> tuple[Any, str]:
        from melmill.transforms.store.filesystems import open_filesystem  # loads fsspec, too

        return open_filesystem(self.uri, self.storage_options, UserError)


def hash_content(source: StoredObject, segment: str = "") -> str:
    """Return the digest of an object's bytes, followed by the segment.

    Returns
    -------
    str
        SHA-256 in hexadecimal, followed by `segment`.

    Raises
    ------
    RecordingError
        The object cannot be read, or changed while it was read.
    """
    state = hashlib.sha256()
    with source.open(share=1.0, from_start=True) as file:
        while block := file.read(_HASHED_BYTES):
            state.update(block)
    if not source.holds_version and source.stat()[1] != source.fingerprint:
        message = f"the object was {source.fingerprint} when listed and changed during the read"
        raise RecordingError(Stage.READ, Cause.CHANGED, message)
    return state.hexdigest() + segment


def local_details(path: str) -> dict[str, int]:
    """Return the size and the exact modification time of a regular local file.

    fsspec gives the time as a float, which cannot hold nanoseconds.
    """
    status = os.stat(path)  # noqa: PTH116 - the path is used literally
    if not stat_modes.S_ISREG(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a regular file")
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def fingerprint_of(details: Mapping[str, Any]) -> str:
    """Return the fingerprint of an object's version, from the details that its store gives.

    Parameters
    ----------
    details
        Details of an object from fsspec's ``info``, or from a listing with ``detail=True``.

    Returns
    -------
    str
        Text that is equal for equal content, as far as the store can tell: the kind and the
        value of the generation, ETag, digest or modification time, and the size.

    Examples
    --------
    >>> fingerprint_of({"ETag": '"abc"', "size": 123})
    'etag:abc:123'
    >>> fingerprint_of({"generation": "1700000000", "etag": "CJ", "size": 123})
    'generation:1700000000:123'
    >>> fingerprint_of({"size": 123, "mtime_ns": 1_700_000_000_000_000_001})
    'mtime:1700000000000000001:123'
    >>> fingerprint_of({"size": 123})
    'size:123'
    """
    if "ino" in details and "name" in details and "mtime_ns" not in details:
        details = local_details(str(details["name"]))  # LocalFileSystem's float mtime
    size = details.get("size")
    for kind, keys in _FINGERPRINT_KEYS:
        for key in keys:
            if value := details.get(key):
                return f"{kind}:{_plain(value)}:{size}"
    return f"size:{size}"


_FINGERPRINT_KEYS = (
    ("generation", ("generation",)),
    ("etag", ("ETag", "etag", "e_tag")),
    ("md5", ("md5Hash", "content_md5", "Content-MD5")),
    ("mtime", ("mtime_ns", "mtime", "LastModified", "last_modified", "Last-Modified", "created")),
)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return str(round(value * 1_000_000_000))
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value).strip('"')

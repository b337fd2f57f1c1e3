"""Listings of a store: the store lists its directories, and globs are matched here.

A request lists a directory with each object's size and version, so no request per object is
needed. Globs are matched component by component: names may hold any character, and
directories that cannot hold a match are not read.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from melmill.transforms.core.errors import Cause
from melmill.transforms.core.naming import join_uri, recording_id
from melmill.transforms.core.records import Recording
from melmill.transforms.store.filesystems import StorageOptions, open_filesystem, reading
from melmill.transforms.store.objects import fingerprint_of
from melmill.transforms.store.pages import directory_pages

# Enough directories to give every worker a part, but few enough that it does not matter that
# they are listed twice: to find the parts, and for their files.
_EXPANDED_DIRECTORIES = 64

_EXTENSION_LETTERS = 8

Details = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """The root, pattern and extensions of the files to list.

    Attributes
    ----------
    root
        Absolute path or URL of a directory.
    pattern
        Components that a path below the root must match; ``**`` stands for any number of
        directories. A component matches a name that begins with ``.`` only if the component
        begins with ``.``, too.
    extensions
        Extensions of the files to list, in lower case; ``()`` for all.
    single
        Whether the pattern is the name of a single file, which is not matched as a glob.
    storage_options
        Options of the store.
    """

    root: str
    pattern: tuple[str, ...] = ("**",)
    extensions: tuple[str, ...] = ()
    single: bool = False
    # Not part of the repr, from which a run's name is made: tokens are secret and expire.
    storage_options: StorageOptions = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class DirectoryPart:
    """A directory below the root (``""`` is the root): its own files, or all files below it."""

    directory: str = ""
    recursive: bool = False


class OutOfTimeError(Exception):
    """A listing did not end before its deadline."""


def listing_parts(listing: Listing, deadline: float = math.inf) -> Iterator[DirectoryPart]:
    """Yield parts of a listing that hold each file once; read only upper directories."""
    waiting = deque([""])
    for _ in range(_EXPANDED_DIRECTORIES):
        # A single file needs no listing; its directory may be huge.
        if not waiting or listing.single or len(waiting) >= _EXPANDED_DIRECTORIES:
            break
        directory = waiting.popleft()
        yield DirectoryPart(directory)
        entries = _scan(listing, directory, deadline=deadline)
        waiting.extend(name for name, details in entries if details is None)
    for directory in waiting:
        yield DirectoryPart(directory, recursive=True)


def list_files(
    listing: Listing,
    part: DirectoryPart,
    passed_over: Counter[str] | None = None,
    deadline: float = math.inf,
) -> Iterator[Recording]:
    """Yield the recordings of a part, directory by directory.

    A directory is read page by page, and a page is in the order of the names.

    Parameters
    ----------
    listing, part
        Listing and part of it.
    passed_over
        Counter of skipped files by :func:`extension_of`: files that match, but whose
        extension is not in the listing.
    deadline
        Time on the clock of ``time.monotonic`` after which no further page is read.

    Raises
    ------
    CatalogueError
        If a directory cannot be read.
    OutOfTimeError
        If the deadline has passed.
    """
    if listing.single:
        yield _single(listing)
        return
    waiting = [part.directory]
    while waiting:
        directories = []
        for relative, details in _scan(listing, waiting.pop(), passed_over, deadline):
            if details is None:
                directories.append(relative)
            else:
                yield _recording(listing, relative, details)
        if part.recursive:
            waiting.extend(reversed(directories))


def look(uri: str, options: StorageOptions) -> Details | None:
    """Return the store's details of a file or directory; ``None`` if it does not exist."""
    filesystem, path = open_filesystem(uri, options)
    with reading(uri):
        try:
            details: Details = filesystem.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return details


def has_extension(name: str, extensions: Sequence[str]) -> bool:
    """Return whether a name ends in one of the extensions, in upper or lower case.

    Examples
    --------
    >>> has_extension("a.b.WAV", ("wav",)), has_extension("wav", ("wav",))
    (True, False)
    """
    _stem, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in extensions


def extension_of(name: str) -> str:
    """Return a name's extension in lower case; ``*`` if it does not look like an extension.

    >>> [extension_of(name) for name in ("a.b.MKA", "README", "song.2024-01-01 (live)")]
    ['.mka', '', '*']
    """
    _stem, dot, extension = name.rpartition(".")
    if not dot:
        return ""
    usual = extension.isascii() and extension.isalnum() and len(extension) <= _EXTENSION_LETTERS
    return f".{extension.lower()}" if usual else "*"


def matches(pattern: Sequence[str], components: Sequence[str], *, partly: bool = False) -> bool:
    """Return whether a path matches a glob or, if ``partly``, whether a path below it could.

    Examples
    --------
    >>> matches(("**", "*.wav"), ("a.wav",)), matches(("**", "*.wav"), (".git", "a.wav"))
    (True, False)
    >>> matches(("rock*", "*.wav"), ("rock 1",))
    False
    >>> matches(("rock*", "*.wav"), ("rock 1",), partly=True)
    True
    """
    if not components:
        return bool(pattern) if partly else all(component == "**" for component in pattern)
    if not pattern:
        return False
    first, rest = components[0], components[1:]
    if pattern[0] == "**":
        deeper = not first.startswith(".") and matches(pattern, rest, partly=partly)
        return deeper or matches(pattern[1:], components, partly=partly)
    return _component_matches(pattern[0], first) and matches(pattern[1:], rest, partly=partly)


def _component_matches(pattern: str, name: str) -> bool:
    if name.startswith(".") and not pattern.startswith("."):
        return False
    return fnmatchcase(name, pattern)


def _scan(
    listing: Listing,
    directory: str,
    passed_over: Counter[str] | None = None,
    deadline: float = math.inf,
) -> Iterator[tuple[str, Details | None]]:
    """Yield the files to list of a directory, and the subdirectories to read, without details."""
    for name, details in _entries(listing, directory, deadline):
        relative = f"{directory}/{name}" if directory else name
        components = relative.split("/")
        if details["type"] == "directory":
            if matches(listing.pattern, components, partly=True):
                yield relative, None
        elif details["type"] == "file" and matches(listing.pattern, components):
            if not listing.extensions or has_extension(name, listing.extensions):
                yield relative, details
            elif passed_over is not None:
                passed_over[extension_of(name)] += 1


def _entries(listing: Listing, directory: str, deadline: float) -> Iterator[tuple[str, Details]]:
    uri = readable(_uri(listing, directory))
    filesystem, root = open_filesystem(listing.root, listing.storage_options)
    path = f"{root.rstrip('/')}/{directory}" if directory else root
    pages = directory_pages(filesystem, path)
    directories: set[str] = set()
    while True:
        if time.monotonic() > deadline:
            raise OutOfTimeError
        with reading(uri):
            page = next(pages, None)
        if page is None:
            return
        # Some stores have an empty object with the directory's name, and list it in the directory.
        entries = [entry for entry in page if entry["name"].strip("/") != path.strip("/")]
        for details in sorted(entries, key=lambda entry: entry["name"].rstrip("/")):
            name = details["name"].rstrip("/")
            if details["type"] == "directory":
                # On Azure, a directory may come as an object and as a prefix, on two pages.
                if name in directories:
                    continue
                directories.add(name)
            yield name.rpartition("/")[2], _follow_link(filesystem, details, root)


def is_text(name: str) -> bool:
    """Return whether a name can be encoded as UTF-8; file names may hold any bytes.

    >>> is_text("Köln.wav"), is_text("K\\udcf6ln.wav")
    (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    """Return a name in which bytes that are not UTF-8 are replaced by escape sequences.

    >>> readable("K\\udcf6ln.wav")
    'K\\\\xf6ln.wav'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _follow_link(filesystem: Any, details: Details, root: str) -> Details:
    """Return the details of a symbolic link's target, or the details if this is no link."""
    if not details.get("islink"):
        return details
    try:
        target: Details = filesystem.info(details["name"])
    except OSError:
        # The target does not exist: list a file, which is then reported as missing.
        return {"name": details["name"], "type": "file"}
    leads_back = target["type"] == "directory" and _leads_back(Path(details["name"]), Path(root))
    return {**target, "type": "other"} if leads_back else target


def _leads_back(link: Path, root: Path) -> bool:
    """Return whether a link leads back to one of its parent directories."""
    target = link.resolve()
    parents = [parent for parent in link.parents if parent == root or root in parent.parents]
    return any(target == real or target in real.parents for real in map(Path.resolve, parents))


def _single(listing: Listing) -> Recording:
    (name,) = listing.pattern
    return _recording(listing, name, look(_uri(listing, name), listing.storage_options) or {})


def _uri(listing: Listing, relative: str) -> str:
    return join_uri(listing.root, relative) if relative else listing.root


def _recording(listing: Listing, relative: str, details: Details) -> Recording:
    size, fingerprint = _version(details)
    readable_name = readable(relative)
    uri = _uri(listing, readable_name)
    message = f"the file's name is not UTF-8: {readable_name!r}; rename the file"
    return Recording(
        recording_id=recording_id(relative),
        uri=uri,
        relative_uri=readable_name,
        fingerprint=fingerprint,
        size_bytes=size,
        fault=None if is_text(relative) else (Cause.BAD_NAME, message),
    )


def _version(details: Details) -> tuple[int, str]:
    if details.get("size") is None:
        return -1, ""
    try:
        return int(details["size"]), fingerprint_of(details)
    except FileNotFoundError:
        # The file was removed after the listing; opening it will fail for this recording.
        return -1, ""

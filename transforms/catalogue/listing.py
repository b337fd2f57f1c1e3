"""Listing a store: directories walked as the store itself lists them, globs matched here.

One request lists one directory and gives each object's size and version; nothing is asked
per object. Globs are matched component by component, so that a name may hold any
character and a directory that cannot hold a match is not entered.
"""

from __future__ import annotations

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

# Enough parts for every worker to have some; few enough that their directories, listed
# once to find the parts and once for their files, do not count.
_EXPANDED_DIRECTORIES = 64

_EXTENSION_LETTERS = 8

Details = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """What is looked for below a root.

    Attributes
    ----------
    root
        An absolute path or URL of a directory.
    pattern
        What the path below the root must match, a component each; ``**`` is any number
        of directories. A component matches a name that begins with ``.`` only if it
        begins so itself.
    extensions
        Which of these files are meant, in lower case; ``()`` for all.
    single
        Whether the pattern is one file's name, not to be matched.
    storage_options
        How the store is reached.
    """

    root: str
    pattern: tuple[str, ...] = ("**",)
    extensions: tuple[str, ...] = ()
    single: bool = False
    # Not among what a run's name is made of: tokens expire, and are nobody's business.
    storage_options: StorageOptions = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class DirectoryPart:
    """A directory below the root (``""`` is the root): its own files, or all below it."""

    directory: str = ""
    recursive: bool = False


def listing_parts(listing: Listing) -> Iterator[DirectoryPart]:
    """Cut a listing into parts that hold each file once; looks into upper directories only."""
    waiting = deque([""])
    for _ in range(_EXPANDED_DIRECTORIES):
        # A single file is never looked for: it is there, and its directory may be huge.
        if not waiting or listing.single or len(waiting) >= _EXPANDED_DIRECTORIES:
            break
        directory = waiting.popleft()
        yield DirectoryPart(directory)
        waiting.extend(_scan(listing, directory)[0])
    for directory in waiting:
        yield DirectoryPart(directory, recursive=True)


def list_files(
    listing: Listing, part: DirectoryPart, passed_over: Counter[str] | None = None
) -> Iterator[Recording]:
    """List the files of one part, in the order of their names, a directory at a time.

    Parameters
    ----------
    listing, part
        What is listed.
    passed_over
        Counts files that match but for their extension, by :func:`extension_of`.

    Raises
    ------
    CatalogueError
        If a directory cannot be read.
    """
    if listing.single:
        yield _single(listing)
        return
    waiting = [part.directory]
    while waiting:
        directories, files = _scan(listing, waiting.pop(), passed_over)
        for relative, details in files:
            yield _recording(listing, relative, details)
        if part.recursive:
            waiting.extend(reversed(directories))


def look(uri: str, options: StorageOptions) -> Details | None:
    """Ask the store what a name stands for; ``None`` if for nothing."""
    filesystem, path = open_filesystem(uri, options)
    with reading(uri):
        try:
            details: Details = filesystem.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return details


def has_extension(name: str, extensions: Sequence[str]) -> bool:
    """Tell whether a name ends in one of the extensions, in either case.

    Examples
    --------
    >>> has_extension("a.b.WAV", ("wav",)), has_extension("wav", ("wav",))
    (True, False)
    """
    _stem, dot, extension = name.rpartition(".")
    return bool(dot) and extension.lower() in extensions


def extension_of(name: str) -> str:
    """Give a name's extension, in lower case; ``*`` for what looks like none.

    >>> [extension_of(name) for name in ("a.b.MKA", "README", "song.2024-01-01 (live)")]
    ['.mka', '', '*']
    """
    _stem, dot, extension = name.rpartition(".")
    if not dot:
        return ""
    usual = extension.isascii() and extension.isalnum() and len(extension) <= _EXTENSION_LETTERS
    return f".{extension.lower()}" if usual else "*"


def matches(pattern: Sequence[str], components: Sequence[str], *, partly: bool = False) -> bool:
    """Tell whether a path matches a glob; ``partly``, whether something below it could.

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
    listing: Listing, directory: str, passed_over: Counter[str] | None = None
) -> tuple[list[str], list[tuple[str, Details]]]:
    """List one directory: the directories in it to enter, and the files in it that count."""
    directories, files = [], []
    for name, details in _entries(listing, directory):
        relative = f"{directory}/{name}" if directory else name
        components = relative.split("/")
        if details["type"] == "directory":
            if matches(listing.pattern, components, partly=True):
                directories.append(relative)
        elif details["type"] == "file" and matches(listing.pattern, components):
            if not listing.extensions or has_extension(name, listing.extensions):
                files.append((relative, details))
            elif passed_over is not None:
                passed_over[extension_of(name)] += 1
    return directories, files


def _entries(listing: Listing, directory: str) -> list[tuple[str, Details]]:
    uri = readable(_uri(listing, directory))
    filesystem, root = open_filesystem(listing.root, listing.storage_options)
    path = f"{root.rstrip('/')}/{directory}" if directory else root
    with reading(uri):
        found = filesystem.ls(path, detail=True)
    # Some stores keep an empty object in a directory's name, and list it in the directory.
    named = {e["name"].rstrip("/"): e for e in found if e["name"].strip("/") != path.strip("/")}
    return [
        (name.rpartition("/")[2], _followed(filesystem, details, root))
        for name, details in sorted(named.items())
    ]


def is_text(name: str) -> bool:
    """Tell whether a name can be written as UTF-8; a file's may be any bytes.

    >>> is_text("Köln.wav"), is_text("K\\udcf6ln.wav")
    (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    """Write what is no text of a name as its bytes.

    >>> readable("K\\udcf6ln.wav")
    'K\\\\xf6ln.wav'
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _followed(filesystem: Any, details: Details, root: str) -> Details:
    """Give what a symbolic link leads to; all else as it is."""
    if not details.get("islink"):
        return details
    try:
        target: Details = filesystem.info(details["name"])
    except OSError:
        # It leads nowhere: listed as a file, so that it is found to be missing and reported.
        return {"name": details["name"], "type": "file"}
    leads_back = target["type"] == "directory" and _leads_back(Path(details["name"]), Path(root))
    return {**target, "type": "other"} if leads_back else target


def _leads_back(link: Path, root: Path) -> bool:
    """Tell whether a link leads to a directory that the way to it came through."""
    target = link.resolve()
    passed = [parent for parent in link.parents if parent == root or root in parent.parents]
    return any(target == real or target in real.parents for real in map(Path.resolve, passed))


def _single(listing: Listing) -> Recording:
    (name,) = listing.pattern
    return _recording(listing, name, look(_uri(listing, name), listing.storage_options) or {})


def _uri(listing: Listing, relative: str) -> str:
    return join_uri(listing.root, relative) if relative else listing.root


def _recording(listing: Listing, relative: str, details: Details) -> Recording:
    size, fingerprint = _version(details)
    shown = readable(relative)
    uri = _uri(listing, shown)
    message = f"the file's name is not UTF-8: {shown!r}; rename it"
    return Recording(
        recording_id=recording_id(relative),
        uri=uri,
        relative_uri=shown,
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
        # Gone since the directory was read: opening it will say so, as this recording's fault.
        return -1, ""

"""Recordings that a catalogue lists and that are left out: taken down, or excluded by the user.

Both are recognised by their absolute URI, even if the catalogue names them in another way: by
another root or table, as a segment, by a ``file://`` URL, through a symbolic link to a folder.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from melmill.transforms.catalogue.cells import CONVERSION_ERRORS
from melmill.transforms.catalogue.row_blocks import (
    Block,
    read_blocks,
    read_column_types,
    row_ranges,
)
from melmill.transforms.catalogue.table_formats import is_json_lines, is_table
from melmill.transforms.catalogue.taken_down_list import read_taken_down
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import resolve_uri, split_chain
from melmill.transforms.core.records import Recording
from melmill.transforms.store.archives import plain_name, split_member
from melmill.transforms.store.filesystems import (
    StorageOptions,
    absolute_path,
    open_filesystem,
    reading,
)
from melmill.transforms.store.folders import Store

TAKEN_DOWN, EXCLUDED = "taken_down", "excluded"

_LOCAL_SCHEME = re.compile(r"(?:file|local):(?://)?(?=/)", re.IGNORECASE)
_SAME_SCHEME = {"gcs": "gs", "s3a": "s3", "az": "abfs", "abfss": "abfs"}
_SCHEME = re.compile(r"([A-Za-z][\w+.-]*)://", re.ASCII)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The recordings to leave out, as sets in which each recording is looked up.

    Attributes
    ----------
    taken_down
        Ids, URIs and content digests of recordings; see :func:`names_of_uri`.
    excluded
        URIs that the user excludes.
    """

    taken_down: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()

    def reason(self, recording: Recording) -> str:
        """Return why a listed recording is left out; ``""`` if it is not."""
        if not self.taken_down and not self.excluded:
            return ""
        names = names_of_uri(recording.uri)
        if recording.recording_id in self.taken_down or not self.taken_down.isdisjoint(names):
            return TAKEN_DOWN
        return "" if self.excluded.isdisjoint(names) else EXCLUDED

    def holds_content(self, content_hash: str) -> bool:
        """Return whether an object with this content was taken down; the segment is ignored."""
        return bool(content_hash) and content_of(content_hash) in self.taken_down


def read_left_out(
    store: Store, taken_down: str, exclude: str = "", options: StorageOptions = ()
) -> LeftOut:
    """Return the recordings to leave out, from both lists.

    Parameters
    ----------
    store, taken_down
        Store of the dataset, and the name of its list of taken-down recordings; ``""`` for
        none.
    exclude, options
        URI of the user's file of URIs, and its storage options; ``""`` for none.

    Raises
    ------
    UserError
        A list is missing or damaged.
    """
    _real_folder.cache_clear()  # links may lead elsewhere since an earlier run in this process
    names: set[str] = set()
    for entry in read_taken_down(store, taken_down):
        names |= {entry.recording_id, entry.content, *names_of_uri(entry.uri)}
    excluded = (name for uri in read_uris(exclude, options) for name in names_of_uri(uri))
    return LeftOut(frozenset(names - {""}), frozenset(excluded) if exclude else frozenset())


def content_of(content_hash: str) -> str:
    """Return the digest of the whole object from a recording's content hash.

    >>> content_of("5f@1.0-2.5"), content_of("5f")
    ('5f', '5f')
    """
    return content_hash.partition("@")[0]


def names_of_uri(uri: str) -> set[str]:
    """Return the names under which a URI is looked up; all URIs of a file share a name.

    >>> names_of_uri("file:///nowhere/./a.wav"), names_of_uri("S3A://bucket/x/../a.wav")
    ({'/nowhere/a.wav'}, {'s3://bucket/a.wav'})
    """
    plain = canonical_uri(uri)
    return {plain, _real_path(plain)} if plain.startswith("/") else {plain}


def canonical_uri(uri: str) -> str:
    """Return the canonical form of an absolute URI, for comparisons; nothing is decoded.

    >>> canonical_uri("s3://bucket/songs//a b%20.wav/"), canonical_uri("local:///a/../b.wav")
    ('s3://bucket/songs/a b%20.wav', '/b.wav')
    >>> canonical_uri("s3a://bucket/a.tar#./b.wav")
    's3://bucket/a.tar#b.wav'
    """
    if "#" in uri and (member := split_member(uri)):
        # The listing and a table may write the same name with accents in another form.
        name = unicodedata.normalize("NFC", plain_name(member[1]))
        return f"{canonical_uri(member[0])}#{name}"
    head, chained = split_chain(uri)
    if local := _LOCAL_SCHEME.match(head):
        head = head[local.end() :]
    scheme = _SCHEME.match(head)
    if scheme is None:
        return _normal_path(head) + chained
    name = scheme[1].lower()
    store, slash, path = head[scheme.end() :].partition("/")
    path = _normal_path(slash + path).rstrip("/") if path else ""
    return f"{_SAME_SCHEME.get(name, name)}://{store}{path}{chained}"


def _normal_path(path: str) -> str:
    # Nearly all paths need no normalising; this test skips it.
    if "/." in path or "//" in path or path.endswith("/"):
        path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path


def _real_path(path: str) -> str:
    """Return a path with symbolic links resolved; the file itself need not exist any more."""
    if member := split_member(path):
        return f"{_real_path(member[0])}#{member[1]}"
    folder, _, name = path.rpartition("/")
    real = f"{_real_folder(folder or '/').rstrip('/')}/{name}"
    return os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114


@lru_cache(65_536)
def _real_folder(folder: str) -> str:
    try:
        return os.path.realpath(folder)
    except ValueError:
        return folder  # no disk can hold such a name; later the recording fails for it


def read_uris(uri: str, options: StorageOptions) -> Iterator[str]:
    """Yield absolute URIs from the user's file: a URI per line, or a table's column ``uri``.

    Relative URIs start at the file's folder, as in a catalogue's table. Lines that are empty
    or begin with ``#`` are skipped.

    Parameters
    ----------
    uri, options
        URI of the file, and its storage options; ``""`` for no file.

    Raises
    ------
    CatalogueError
        The file is missing or cannot be read, or a URI in it cannot be resolved.
    """
    if not uri:
        return
    head, chained = split_chain(uri)
    root = (head.rpartition("/")[0] or "/") + chained
    try:
        rows = _table_uris(uri, options) if is_table(uri) else _line_uris(uri, options)
        for place, value in rows:
            yield _resolve(root, place, value)
    except CatalogueError as error:
        raise CatalogueError(
            f"catalogue.exclude: {uri}: {error}; correct the file, or set another file "
            "(null for no file)"
        ) from error


def _resolve(root: str, place: str, value: str) -> str:
    # A "file:" URL is always absolute.
    if _LOCAL_SCHEME.match(value):
        return value
    try:
        return resolve_uri(root, value)[0]
    except CatalogueError as error:
        raise CatalogueError(f"{place}: {error}") from error


def _line_uris(uri: str, options: StorageOptions) -> Iterator[tuple[str, str]]:
    filesystem, path = open_filesystem(uri, options)
    compression = "gzip" if uri.lower().endswith(".gz") else None
    with reading(uri), filesystem.open(path, "rb", compression=compression) as file:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n \t")
            if text and not text.startswith("#"):
                yield f"line {number}", text


def _table_uris(uri: str, options: StorageOptions) -> Iterator[tuple[str, str]]:
    names = [name for name, _ in read_column_types(uri, options)]
    if not names and is_json_lines(uri):
        names = ["uri"]  # the file has no rows, or none that can be read
    if "uri" not in names:
        raise CatalogueError(f"the table has no column 'uri'; its columns are {names}")
    for part in row_ranges(uri, options):
        for block in read_blocks(uri, options, names, part):
            yield from zip(block.places, _texts(block), strict=True)


def _texts(block: Block) -> Iterator[str]:
    for number, fault in sorted(block.broken.items()):
        raise CatalogueError(f"{block.places[number]} {fault}")
    try:
        values = block.convert(block.columns["uri"], "string", False)
    except CONVERSION_ERRORS as error:
        raise CatalogueError(f"{block.places[0]} and following: a uri is not text") from error
    for place, value in zip(block.places, values, strict=True):
        if not value:
            raise CatalogueError(f"{place}: the uri is empty")
        yield str(value)


def absolute_file(uri: str) -> str:
    """Return the absolute path or URL of the user's file, for use from any working directory.

    >>> absolute_file("s3://bucket/no.txt")
    's3://bucket/no.txt'
    """
    return uri if "://" in uri else absolute_path(uri)

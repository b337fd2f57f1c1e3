"""A catalogue: where the recordings are, and how to list them piece by piece.

A catalogue is a directory, a glob, one audio file, or a table (see
:mod:`~melmill.transforms.catalogue.tables`). It is opened once, cheaply, by the launcher; the
description travels to the workers, which list its parts. What is there under the very
name that the user gave is taken before the name is read as a glob.

In a directory, and wherever a glob's ``*`` or ``**`` could stand for them, names that begin
with ``.`` are skipped. A glob that names an extension (``*.wav``) is taken as it is; any
other one finds the files with the catalogue's extensions. Symbolic links are followed,
except back to a directory that the way came through.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from melmill.transforms.catalogue.listing import (
    DirectoryPart,
    Listing,
    has_extension,
    is_text,
    list_files,
    listing_parts,
    look,
    readable,
)
from melmill.transforms.catalogue.row_blocks import TABLE_EXTENSIONS, RowRange, is_table, row_ranges
from melmill.transforms.catalogue.tables import Table, join_faults, list_rows, open_table
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import split_chain
from melmill.transforms.core.records import Recording
from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.store.filesystems import StorageOptions, absolute_path

#: File name endings of what is listed from a directory: all that the decoders open and whose
#: end can be checked. Not ``ts`` and ``mts``, which most often are TypeScript.
DEFAULT_EXTENSIONS = (
    *("wav", "wave", "bwf", "rf64", "w64", "aif", "aiff", "aifc", "au", "snd", "caf", "sph"),
    *("flac", "ogg", "oga", "ogx", "opus", "spx", "mp3", "mp2", "mp1", "mpga", "m4a", "m4b"),
    *("m4r", "aac", "wma", "ac3", "eac3", "dts", "dtshd", "mlp", "thd", "amr", "awb", "mka"),
    *("weba", "ape", "wv", "tta", "tak", "mpc", "shn", "dsf", "dff", "oma", "aa3", "qcp", "ra"),
    *("voc", "8svx", "avr", "sox"),
    *("mp4", "m4v", "mov", "3gp", "3g2", "webm", "mkv", "avi", "flv", "f4v", "wmv", "asf"),
    *("ogv", "mpg", "mpeg", "vob", "m2ts", "rm"),
)

#: Entries that must not all be wrong.
_LOOKED_AT = 2_048

_MAGIC = re.compile(r"[*?[]")

#: A piece of a catalogue that can be listed apart from the others.
Part = DirectoryPart | RowRange


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue that was found to be one: small, and all that a worker needs.

    Attributes
    ----------
    uri
        What the user named, made absolute.
    source
        Where the recordings are named: in a store's own listing, or in a table.
    """

    uri: str
    source: Listing | Table

    @property
    def kind(self) -> Literal["listing", "table"]:
        """Whether the store lists the recordings, or a table does."""
        return "table" if isinstance(self.source, Table) else "listing"

    @property
    def root(self) -> str:
        """The directory that relative URIs start from."""
        return self.source.root

    @property
    def storage_options(self) -> StorageOptions:
        """How the store is reached."""
        return self.source.storage_options

    @property
    def label_columns(self) -> tuple[LabelColumn, ...]:
        """The labels that each recording has; none in a listing."""
        return self.source.label_columns if isinstance(self.source, Table) else ()


def open_catalogue(
    uri: str,
    *,
    extensions: Sequence[str] = DEFAULT_EXTENSIONS,
    storage_options: StorageOptions = (),
    label_types: Mapping[str, str] | None = None,
) -> Catalogue:
    """Find out what a catalogue is, without listing it.

    Parameters
    ----------
    uri
        A directory, a glob, an audio file or a table; a local path or any fsspec URL.
    extensions
        Which files of a directory are recordings, in either case, with or without dots.
    storage_options
        What fsspec opens the store with.
    label_types
        Types of a table's label columns that overrule what the table shows.

    Raises
    ------
    CatalogueError
        If there is no such thing, it may not be read, or it is no catalogue.
    """
    uri = _absolute(uri)
    wanted = tuple(extension.lower().lstrip(".") for extension in extensions)
    details = look(uri, storage_options)
    if details is not None and details["type"] != "directory" and is_table(uri):
        root = _parent(uri)
        table = open_table(uri, root, label_types=label_types, storage_options=storage_options)
        return Catalogue(uri, table)
    if label_types:
        raise CatalogueError(f"catalogue.label_types is for tables, and {uri} is none")
    if details is None:
        return Catalogue(uri, _open_glob(uri, wanted, storage_options))
    open_found = _open_directory if details["type"] == "directory" else _open_file
    return Catalogue(uri, open_found(uri, wanted, storage_options))


def catalogue_parts(catalogue: Catalogue) -> Iterator[Part]:
    """Cut a catalogue into parts that can be listed apart from one another.

    The parts hold every recording once. Of a listing, only the upper directories are
    looked into.
    """
    if isinstance(catalogue.source, Table):
        return row_ranges(catalogue.source.uri, catalogue.source.storage_options)
    return listing_parts(catalogue.source)


def list_part(
    catalogue: Catalogue, part: Part, passed_over: Counter[str] | None = None
) -> Iterator[Recording]:
    """List the recordings of one part, in an order that depends on the catalogue only.

    One directory's entries, or one block of a table's rows, are held at a time. A retry
    gives the same recordings as long as the catalogue is the same. Files that are passed over,
    since their extension is not among the catalogue's, are counted by it in `passed_over`.

    Raises
    ------
    CatalogueError
        If a directory or a table cannot be read.
    """
    if isinstance(catalogue.source, Table) and isinstance(part, RowRange):
        return list_rows(catalogue.source, part)
    if isinstance(catalogue.source, Listing) and isinstance(part, DirectoryPart):
        return list_files(catalogue.source, part, passed_over)
    raise TypeError(f"{part} is no part of the {catalogue.kind} {catalogue.uri}")


def require_recordings(catalogue: Catalogue) -> None:
    """See that a catalogue names something to read, before any worker starts.

    Raises
    ------
    CatalogueError
        It is empty, or whatever stands at its beginning is wrong: all of it is named at once.
    """
    parts = catalogue_parts(catalogue)
    listed = (recording for part in parts for recording in list_part(catalogue, part))
    faults: list[str] = []
    for recording in islice(listed, _LOOKED_AT):
        if recording.fault is None:
            return
        faults.append(recording.fault[1])
    if not faults:
        raise CatalogueError(nothing_found_message(catalogue))
    raise CatalogueError(join_faults(catalogue.uri, faults))


def nothing_found_message(catalogue: Catalogue) -> str:
    """Say that a catalogue turned out to be empty, and what was looked for."""
    if isinstance(catalogue.source, Table):
        return f"{catalogue.uri} has no rows"
    extensions = catalogue.source.extensions
    kinds = f" with the extensions {', '.join(extensions)}" if extensions else ""
    return f"{catalogue.uri} holds no files{kinds}; hidden files and directories are skipped"


def _absolute(uri: str) -> str:
    if not uri:
        raise CatalogueError("the catalogue has no name; give a directory, a glob or a table")
    if not is_text(uri):
        raise CatalogueError(f"{readable(uri)}: the catalogue's name is not UTF-8; rename it")
    if "://" in uri:
        head, chained = split_chain(uri)
        return re.sub(r"(?<![:/])/+$", "", head) + chained
    return absolute_path(uri)


def _parent(uri: str) -> str:
    head, chained = split_chain(uri)
    scheme, separator, path = head.rpartition("://")
    directory = path.rpartition("/")[0] or ("/" if path.startswith("/") else "")
    return f"{scheme}{separator}{directory}{chained}"


def _open_directory(uri: str, extensions: tuple[str, ...], options: StorageOptions) -> Listing:
    if is_table(uri):
        raise CatalogueError(f"{uri} is a directory; a table must be one file")
    return Listing(uri, extensions=extensions, storage_options=options)


def _open_file(uri: str, extensions: tuple[str, ...], options: StorageOptions) -> Listing:
    if not has_extension(uri, extensions):
        raise CatalogueError(
            f"{uri} is neither a table ({', '.join(TABLE_EXTENSIONS)}) nor an audio file"
            f" ({', '.join(extensions)}); see catalogue.extensions"
        )
    name = split_chain(uri)[0].rpartition("/")[2]
    return Listing(_parent(uri), (name,), single=True, storage_options=options)


def _open_glob(uri: str, extensions: tuple[str, ...], options: StorageOptions) -> Listing:
    root, pattern = split_glob(uri)
    if not pattern:
        raise CatalogueError(f"{uri} does not exist")
    details = look(root, options)
    if details is None or details["type"] != "directory":
        raise CatalogueError(f"{uri} finds nothing: there is no directory {root}")
    named = pattern[-1].rpartition(".")[2].strip("*?") if "." in pattern[-1] else ""
    return Listing(root, pattern, () if named else extensions, storage_options=options)


def split_glob(uri: str) -> tuple[str, tuple[str, ...]]:
    """Split a glob into the directory that it is fixed to, and the rest.

    Examples
    --------
    >>> split_glob("s3://bucket/songs/*/disc[12]/**/*.wav")
    ('s3://bucket/songs', ('*', 'disc[12]', '**', '*.wav'))
    >>> split_glob("/*.wav"), split_glob("/no/magic.wav")
    (('/', ('*.wav',)), ('/no/magic.wav', ()))
    """
    head, chained = split_chain(uri)
    scheme, separator, path = head.rpartition("://")
    components = path.split("/")
    fixed = next((i for i, c in enumerate(components) if _MAGIC.search(c)), len(components))
    directory = "/".join(components[:fixed]) or ("/" if path.startswith("/") else "")
    pattern = [component for component in components[fixed:] if component]
    return f"{scheme}{separator}{directory}{chained}", tuple(pattern)

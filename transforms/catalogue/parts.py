"""A catalogue: the source of the recordings, and how to list it part by part.

A catalogue is a directory, a glob, an audio file, or a table (see
:mod:`~melmill.transforms.catalogue.tables`), such as a Kaldi data folder or archives of audio. The
launcher opens it once, which is cheap, and sends the description to the workers, which list its
parts. If a file or directory has exactly the name that the user gave, the name is no glob.

Names that begin with ``.`` are skipped in a directory, and by ``*`` and ``**`` of a glob. A glob
with an extension (``*.wav``) finds all files that match; any other glob finds only the files
with the catalogue's extensions. Symbolic links are followed, unless they lead back to a parent
directory.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from melmill.transforms.catalogue.finding import (
    FoundTable,
    find_table,
    found_archives,
    look_for,
    what_else,
)
from melmill.transforms.catalogue.listing import (
    DirectoryPart,
    Listing,
    has_extension,
    list_files,
    listing_parts,
    look,
)
from melmill.transforms.catalogue.meanings import NO_KEYS, TableKeys
from melmill.transforms.catalogue.row_blocks import RowRange, archive_ranges, row_ranges
from melmill.transforms.catalogue.table_formats import TABLE_EXTENSIONS, is_table
from melmill.transforms.catalogue.tables import Table, join_faults, list_rows, open_table
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import split_chain
from melmill.transforms.core.records import Recording
from melmill.transforms.rows.columns import LabelColumn
from melmill.transforms.store.archives import (
    COMPRESSED_TAR,
    is_archive,
    is_compressed_tar,
    is_parquet,
)
from melmill.transforms.store.filesystems import StorageOptions

#: Extensions of the files that a directory lists: all formats that the decoders open and whose
#: end can be checked. ``ts`` and ``mts`` are left out: such files are usually TypeScript.
DEFAULT_EXTENSIONS = (
    *("wav", "wave", "bwf", "rf64", "w64", "aif", "aiff", "aifc", "au", "snd", "caf", "sph"),
    *("flac", "ogg", "oga", "ogx", "opus", "spx", "mp3", "mp2", "mp1", "mpga", "m4a", "m4b"),
    *("m4r", "aac", "wma", "ac3", "eac3", "dts", "dtshd", "mlp", "thd", "amr", "awb", "mka"),
    *("weba", "ape", "wv", "tta", "tak", "mpc", "shn", "dsf", "dff", "oma", "aa3", "qcp", "ra"),
    *("voc", "8svx", "avr", "sox"),
    *("mp4", "m4v", "mov", "3gp", "3g2", "webm", "mkv", "avi", "flv", "f4v", "wmv", "asf"),
    *("ogv", "mpg", "mpeg", "vob", "m2ts", "rm"),
)

#: Number of first entries of which at least one must be correct.
_CHECKED_ENTRIES = 2_048

_MAGIC = re.compile(r"[*?[]")

#: A part of a catalogue that can be listed on its own.
Part = DirectoryPart | RowRange


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The description of an opened catalogue: small, and all that a worker needs.

    Attributes
    ----------
    uri
        Absolute path or URL that the user gave.
    source
        Source of the recordings: a store's listing or a table.
    gives_splits
        Whether the first recording has a split.
    """

    uri: str
    source: Listing | Table
    # Not part of the repr, from which names of runs are made.
    gives_splits: bool = field(default=False, repr=False)

    @property
    def kind(self) -> Literal["listing", "table"]:
        """Kind of the source: the store's listing or a table."""
        return "table" if isinstance(self.source, Table) else "listing"

    @property
    def root(self) -> str:
        """Directory at which relative URIs start."""
        return self.source.root

    @property
    def storage_options(self) -> StorageOptions:
        """Options of the store."""
        return self.source.storage_options

    @property
    def label_columns(self) -> tuple[LabelColumn, ...]:
        """Label columns of the recordings; none for a listing."""
        return self.source.label_columns if isinstance(self.source, Table) else ()


def open_catalogue(
    uri: str,
    *,
    extensions: Sequence[str] = DEFAULT_EXTENSIONS,
    storage_options: StorageOptions = (),
    label_types: Mapping[str, str] | None = None,
    keys: TableKeys = NO_KEYS,
) -> Catalogue:
    """Return the description of a catalogue, without listing it.

    Parameters
    ----------
    uri
        Local path or fsspec URL of a directory, a glob, an audio file, a table or an archive.
    extensions
        Extensions of the files in a directory that are recordings, in upper or lower case,
        with or without dots.
    storage_options
        Options with which fsspec opens the store.
    label_types
        Types of a table's label columns; they override the types in the table.
    keys
        What the recipe says about a table.

    Raises
    ------
    CatalogueError
        If the catalogue does not exist, cannot be read, or is of no known kind.
    """
    suffixes = tuple(extension.lower().lstrip(".") for extension in extensions)
    uri, source = _find(uri, suffixes, storage_options, keys)
    if isinstance(source, FoundTable):
        table = open_table(
            source.uri,
            source.archives.listing.root if source.archives else _parent(source.uri),
            label_types=label_types,
            storage_options=storage_options,
            keys=keys,
            form=source.form,
            archives=source.archives,
        )
        return Catalogue(uri, table)
    if given := [*(["label_types"] if label_types else []), *keys.given]:
        raise CatalogueError(
            f"catalogue.{given[0]} is for tables, but {uri} is not a table; remove the key"
        )
    return Catalogue(uri, source)


def _find(
    name: str, extensions: tuple[str, ...], options: StorageOptions, keys: TableKeys
) -> tuple[str, Listing | FoundTable]:
    """Return the absolute URI that a name stands for, and what is there."""
    uri, details, tried = look_for(name, options)
    if details is None:
        listing = _open_glob(uri, extensions, options, tried)
        archives = is_archive(listing.pattern[-1]) or is_parquet(uri)
        return uri, found_archives(uri, listing, extensions) if archives else listing
    if (found := find_table(uri, details, extensions, options, keys)) is not None:
        return uri, found
    open_listing = _open_directory if details["type"] == "directory" else _open_file
    return uri, open_listing(uri, extensions, options)


def catalogue_parts(catalogue: Catalogue, deadline: float = math.inf) -> Iterator[Part]:
    """Yield the parts of a catalogue, each of which can be listed on its own.

    The parts hold every recording once. To find the parts of a listing, only its upper
    directories are read; see :func:`~melmill.transforms.catalogue.listing.list_files` for the
    deadline.
    """
    if isinstance(catalogue.source, Table):
        table = catalogue.source
        if table.archives:
            return archive_ranges(table.archives, deadline)
        return row_ranges(table.uri, table.storage_options, table.form)
    return listing_parts(catalogue.source, deadline)


def list_part(
    catalogue: Catalogue,
    part: Part,
    passed_over: Counter[str] | None = None,
    deadline: float = math.inf,
) -> Iterator[Recording]:
    """Yield the recordings of a part.

    Only a page of a directory, or a block of a table's rows, is in memory at a time. A retry gives
    the same recordings if the catalogue did not change. `passed_over` counts, by extension, the
    files that are skipped because the catalogue does not list their extension.

    Raises
    ------
    CatalogueError
        If a directory or a table cannot be read.
    """
    if isinstance(catalogue.source, Table) and isinstance(part, RowRange):
        return list_rows(catalogue.source, part, passed_over, deadline)
    if isinstance(catalogue.source, Listing) and isinstance(part, DirectoryPart):
        return list_files(catalogue.source, part, passed_over, deadline)
    raise TypeError(f"{part} is not a part of the {catalogue.kind} {catalogue.uri}")


def require_recordings(catalogue: Catalogue) -> Recording:
    """Return the first recording of a catalogue; raise an error if it names nothing to read.

    Raises
    ------
    CatalogueError
        The catalogue is empty, or all of its first entries are wrong; the message lists them.
    """
    skipped = Counter[str]()
    faults: list[str] = []
    for recording in islice(_first_recordings(catalogue, skipped), _CHECKED_ENTRIES):
        if recording.fault is None:
            _refuse_archive(catalogue, recording)
            return recording
        faults.append(recording.fault[1])
    if not faults:
        instead = what_else(catalogue.root, skipped) if catalogue.kind == "listing" else ""
        raise CatalogueError(nothing_found_message(catalogue) + instead)
    raise CatalogueError(join_faults(catalogue.uri, faults))


def _first_recordings(catalogue: Catalogue, skipped: Counter[str]) -> Iterator[Recording]:
    """Yield the recordings of a catalogue; of archives the first ones, which need no full read.

    The first members of an archive may lack the labels of a recording, so recordings with a split
    come first.
    """
    found = False
    if isinstance(catalogue.source, Table) and catalogue.source.archives:
        for part in catalogue_parts(catalogue):
            if isinstance(part, RowRange):
                first = list(list_part(catalogue, replace(part, first_only=True)))
                found = found or bool(first)
                yield from sorted(first, key=lambda recording: recording.split is None)
    if not found:
        for part in catalogue_parts(catalogue):
            yield from list_part(catalogue, part, skipped)


def _refuse_archive(catalogue: Catalogue, recording: Recording) -> None:
    """Raise an error if a glob lists an archive as if it were audio."""
    if catalogue.kind != "listing":
        return
    if is_compressed_tar(recording.uri):
        raise CatalogueError(f"{recording.uri} {COMPRESSED_TAR}")
    if is_archive(recording.uri):
        ending = recording.uri.rpartition(".")[2]
        raise CatalogueError(
            f"{recording.uri} is an archive, and {catalogue.uri} may also match other files; give a"
            f" pattern that ends in .{ending}, such as {catalogue.root}/*.{ending}"
        )


def nothing_found_message(catalogue: Catalogue) -> str:
    """Return the message for an empty catalogue, with the extensions it was searched for."""
    if isinstance(catalogue.source, Table):
        return f"{catalogue.uri} has no rows"
    extensions = catalogue.source.extensions
    kinds = f" with the extensions {', '.join(extensions)}" if extensions else ""
    return f"{catalogue.uri} holds no files{kinds}; hidden files and directories are skipped"


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
            f" ({', '.join(extensions)}); choose another file, or add the extension to"
            " catalogue.extensions"
        )
    name = split_chain(uri)[0].rpartition("/")[2]
    return Listing(_parent(uri), (name,), single=True, storage_options=options)


def _open_glob(
    uri: str, extensions: tuple[str, ...], options: StorageOptions, tried: str
) -> Listing:
    root, pattern = split_glob(uri)
    if not pattern:
        raise CatalogueError(
            f"{uri} does not exist; check the path: a catalogue is a directory, a glob, an audio "
            f"file or a table{tried}"
        )
    details = look(root, options)
    if details is None or details["type"] != "directory":
        raise CatalogueError(f"{uri} matches nothing: there is no directory {root}")
    suffix = pattern[-1].rpartition(".")[2].strip("*?") if "." in pattern[-1] else ""
    return Listing(root, pattern, () if suffix else extensions, storage_options=options)


def split_glob(uri: str) -> tuple[str, tuple[str, ...]]:
    """Split a glob into its fixed directory and the components of its pattern.

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

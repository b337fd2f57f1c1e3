"""What a catalogue's name stands for: its absolute form, and the table that is there, if any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melmill.transforms.catalogue.archive_rows import Archives
from melmill.transforms.catalogue.embedded_rows import has_audio
from melmill.transforms.catalogue.kaldi_rows import KALDI_FILES, SCRIPT, SEGMENTS
from melmill.transforms.catalogue.listing import (
    Details,
    Listing,
    has_extension,
    is_text,
    look,
    readable,
)
from melmill.transforms.catalogue.meanings import TableKeys
from melmill.transforms.catalogue.spellings import other_spellings, tried_message
from melmill.transforms.catalogue.table_formats import (
    ARCHIVE,
    EMBEDDED,
    TABLE_EXTENSIONS,
    TableFormat,
    first_names,
    is_table,
    recognise_format,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.core.naming import join_uri, number_of, split_chain
from melmill.transforms.store.archives import (
    ARCHIVE_EXTENSIONS,
    COMPRESSED_TAR,
    is_archive,
    is_compressed_tar,
    is_parquet,
)
from melmill.transforms.store.filesystems import (
    StorageOptions,
    absolute_path,
    open_filesystem,
    reading,
)
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.pages import files_named


def look_for(name: str, options: StorageOptions) -> tuple[str, Details | None, str]:
    """Return the catalogue's absolute URI and its details, in the spelling that exists.

    If none exists, the last value says which other spellings were tried.
    """
    uri = _absolute(name)
    details = look(uri, options)
    if details is not None or StoredObject(uri).local_path is None:
        return uri, details, ""
    others = [_absolute(other) for other in other_spellings(name)]
    for other in others:
        if "://" not in other and (details := look(other, options)) is not None:
            return other, details, ""
    return uri, None, f"; {tried_message(name, [uri, *others])}" if others else ""


def _absolute(uri: str) -> str:
    if not uri:
        raise CatalogueError(
            "the catalogue is an empty string; give a directory, a glob, an audio file or a table"
        )
    if not is_text(uri):
        raise CatalogueError(f"{readable(uri)}: the catalogue's name is not UTF-8; rename it")
    if "://" in uri:
        head, chained = split_chain(uri)
        return re.sub(r"(?<![:/])/+$", "", head) + chained
    return absolute_path(uri)


#: Tables in a folder of audio that give the labels of its files, if they have ``file_name``.
AUDIOFOLDER_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table that was found.

    Attributes
    ----------
    uri
        URI of the rows.
    form
        Format; ``None`` if it is not recognised yet.
    archives
        Archives that are the table, if any.
    """

    uri: str
    form: TableFormat | None = None
    archives: Archives | None = None


def find_table(
    uri: str,
    details: Details,
    extensions: tuple[str, ...],
    options: StorageOptions,
    keys: TableKeys,
) -> FoundTable | None:
    """Return the table that a file or a folder is; ``None`` if it is no table."""
    if details["type"] == "directory":
        if is_table(uri):
            return None
        return _find_kaldi(uri, options) or _find_audiofolder(uri, options)
    head, chained = split_chain(uri)
    folder, _, name = head.rpartition("/")
    if name == SCRIPT:
        return _find_kaldi(folder + chained, options, alone=True)
    listing = Listing(folder + chained, (name,), single=True, storage_options=options)
    if is_parquet(head) and has_audio(uri, options, keys.uri_column):
        return found_archives(uri, listing, extensions)
    if is_table(uri):
        return FoundTable(uri)
    if is_archive(head):
        return found_archives(uri, listing, extensions)
    if has_extension(uri, extensions):
        return None
    if is_compressed_tar(head):
        raise CatalogueError(f"{uri} {COMPRESSED_TAR}")
    form = recognise_format(uri, options, keys.separator)
    is_known = form.kind != "csv" or keys.uri_column or keys.separator
    return FoundTable(uri, form) if is_known else None


def found_archives(uri: str, listing: Listing, extensions: tuple[str, ...]) -> FoundTable:
    """Return the table that archives, or Parquet files with audio, are."""
    form = EMBEDDED if is_parquet(listing.pattern[-1]) else ARCHIVE
    return FoundTable(uri, form, Archives(listing, extensions))


def _find_kaldi(folder: str, options: StorageOptions, alone: bool = False) -> FoundTable | None:
    """Return the table that a Kaldi data folder is; ``wav.scp`` counts alone if it is named."""
    if not alone and not _files_named((SCRIPT,), folder, options):
        return None
    others = [name for name in KALDI_FILES[1:] if _files_named((name,), folder, options)]
    if not others and not alone:
        return None
    rows = SEGMENTS if SEGMENTS in others else SCRIPT
    return FoundTable(join_uri(folder, rows), TableFormat("kaldi", files=(SCRIPT, *others)))


def _find_audiofolder(folder: str, options: StorageOptions) -> FoundTable | None:
    """Return the table of a folder that holds the labels of its files; ``None`` without one."""
    for name in _files_named(AUDIOFOLDER_TABLES, folder, options):
        uri = join_uri(folder, name)
        if "file_name" in first_names(uri, options, ("file_name",)):
            return FoundTable(uri)
    return None


def _files_named(names: Sequence[str], folder: str, options: StorageOptions) -> list[str]:
    filesystem, path = open_filesystem(folder, options)
    with reading(folder):
        return files_named(filesystem, path, names)


def what_else(folder: str, skipped: Mapping[str, int]) -> str:
    """Return what a folder without audio holds that can be a catalogue, for its message.

    Parameters
    ----------
    folder
        URI of the folder.
    skipped
        Numbers of files that are not audio, by extension.

    Examples
    --------
    >>> what_else("/songs", {".tar": 2})
    '. It holds 2 files with the extension .tar: name /songs/*.tar'
    """
    for kind in (*ARCHIVE_EXTENSIONS, *TABLE_EXTENSIONS):
        if number := skipped.get(kind, 0):
            name = "*" if kind in ARCHIVE_EXTENSIONS else "NAME"
            files = number_of(number, "file")
            return f". It holds {files} with the extension {kind}: name {folder}/{name}{kind}"
    return ""

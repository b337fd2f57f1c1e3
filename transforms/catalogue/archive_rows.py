"""Rows of archives: each audio file in a tar or zip file is a row, with the labels beside it.

As in WebDataset, the files of a sample stand one after the other, and their names are equal up to
the first dot: ``a/1.flac``, ``a/1.json``, ``a/1.txt``. The keys of the JSON object are labels, and
the text is the label ``text``. Each row has the version and the place of its file.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from melmill.transforms.catalogue.listing import (
    Listing,
    OutOfTimeError,
    extension_of,
    has_extension,
    is_text,
    list_files,
    listing_parts,
    readable,
)
from melmill.transforms.catalogue.text_rows import BrokenRow, Row, without_nested
from melmill.transforms.core.errors import CatalogueError, RecordingError
from melmill.transforms.core.naming import join_uri
from melmill.transforms.store.archives import BadArchiveError, Member, read_members
from melmill.transforms.store.members import member_fingerprint, read_place
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.stored_file import buffered

#: Number of first rows from which the labels' types are taken.
SAMPLE_MEMBERS = 256

_SIDECARS = ("json", "txt")
_MOST_SIDECAR_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Archives:
    """Archives that are a catalogue.

    Attributes
    ----------
    listing
        Where the archives are.
    extensions
        Extensions of the members that are audio.
    """

    listing: Listing
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArchivedRow:
    """A row of an archive.

    Attributes
    ----------
    place
        What the row is, for messages: ``member a.wav``.
    row
        URI relative to the folder of the archives, and labels.
    size_bytes, fingerprint, position
        Size and version of the audio, and its place in the archive.
    """

    place: str
    row: Row | BrokenRow
    size_bytes: int = -1
    fingerprint: str = ""
    position: str = ""


@dataclass(frozen=True, slots=True)
class _Archive:
    """An open archive: its file and name, which members are audio, and what is read of them."""

    file: Any
    name: str
    extensions: tuple[str, ...]
    labels_only: bool


@dataclass(slots=True)
class _Sample:
    """The files of a sample: its audio, and the labels beside it."""

    audio: list[ArchivedRow] = field(default_factory=list)
    labels: Row = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def archive_names(archives: Archives, deadline: float = math.inf) -> Iterator[str]:
    """Yield the names of the archives, relative to the listing's root."""
    for part in listing_parts(archives.listing, deadline):
        for archive in list_files(archives.listing, part, None, deadline):
            yield archive.relative_uri


def archive_rows(
    archives: Archives,
    name: str,
    passed_over: Counter[str] | None = None,
    deadline: float = math.inf,
    *,
    labels_only: bool = False,
) -> Iterator[ArchivedRow]:
    """Yield the rows of an archive.

    The members of a tar file are read, because it has no checksums of them; zip files have.

    Parameters
    ----------
    archives, name
        Archives, and the name of one of them.
    passed_over
        Counter of skipped members by extension.
    deadline
        Time on the clock of ``time.monotonic`` after which no further member is read.
    labels_only
        Whether the rows need no fingerprints, so that no audio is read.

    Raises
    ------
    CatalogueError
        If the store of the archive fails. A damaged archive is a row with a fault, after the
        samples before the damage. The last of these is left out: some of its labels may be lost.
    OutOfTimeError
        If the deadline has passed.
    """
    uri = join_uri(archives.listing.root, name)
    source = StoredObject(uri, storage_options=archives.listing.storage_options)
    try:
        source = source.in_its_version()
        # A zip file has its list at its end, a tar file is read from end to end.
        from_start = name.lower().endswith(".tar") and not labels_only
        with buffered(source.open_raw(float(from_start), from_start)) as file:
            members = read_members(file, source.fingerprint)
            archive = _Archive(file, name, archives.extensions, labels_only)
            for _, sample in groupby(members, key=lambda member: _key(member.name)):
                if time.monotonic() > deadline:
                    raise OutOfTimeError
                yield from _rows(archive, sample, passed_over)
    except BadArchiveError as error:
        yield ArchivedRow("archive", BrokenRow(str(error.strerror)))
    except RecordingError as error:
        raise CatalogueError(f"{uri} cannot be read: {error.message}") from error


def sample_rows(archives: Archives) -> list[Row]:
    """Return the first rows of the archives, without those that have a fault."""
    listed = (
        listed.row
        for name in archive_names(archives)
        for listed in archive_rows(archives, name, labels_only=True)
    )
    return [row for row in islice(listed, SAMPLE_MEMBERS) if isinstance(row, dict)]


def _key(name: str) -> str:
    """Return what the names of a sample's files have in common.

    >>> _key("a.b/1.flac"), _key("a.b/1.meta.json")
    ('a.b/1', 'a.b/1')
    """
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _rows(
    archive: _Archive, members: Iterator[Member], passed_over: Counter[str] | None
) -> Iterator[ArchivedRow]:
    """Yield the rows of a sample: each of its audio files has all of its labels."""
    sample = _Sample()
    for member in members:
        if not member.fault and "/." in f"/{member.name}":
            continue  # hidden files are skipped, as in a folder
        if has_extension(member.name, archive.extensions):
            sample.audio.append(_audio(archive, member))
        elif has_extension(member.name, _SIDECARS):
            _add_labels(sample, archive.file, member)
        elif passed_over is not None:
            passed_over[extension_of(member.name)] += 1
    for audio in sample.audio:
        if isinstance(audio.row, dict):
            yield _with_labels(audio, audio.row, sample)
        else:
            yield audio


def _with_labels(audio: ArchivedRow, row: Mapping[str, Any], sample: _Sample) -> ArchivedRow:
    if sample.faults:
        return ArchivedRow(audio.place, BrokenRow(sample.faults[0]))
    version = audio.size_bytes, audio.fingerprint, audio.position
    return ArchivedRow(audio.place, {**sample.labels, **row}, *version)


def _audio(archive: _Archive, member: Member) -> ArchivedRow:
    place = f"member {readable(member.name)}"
    if member.fault:
        return ArchivedRow(place, BrokenRow(member.fault))
    if not is_text(member.name):
        return ArchivedRow(place, BrokenRow("has a name that is not UTF-8; rename it"))
    row = {"uri": f"{archive.name}#{member.name}"}
    if archive.labels_only:
        return ArchivedRow(place, row)
    try:
        fingerprint = member_fingerprint(archive.file, member.place)
    except BadArchiveError as error:
        return ArchivedRow(place, BrokenRow(str(error.strerror)))
    version = member.place.size_bytes, fingerprint, member.place.text
    return ArchivedRow(place, row, *version)


def _add_labels(sample: _Sample, file: Any, member: Member) -> None:
    """Add the labels of a JSON or text file to its sample; what is wrong with it, too."""
    name, size = member.name, member.place.size_bytes
    if member.fault or size > _MOST_SIDECAR_BYTES:
        too_large = f"is larger than {_MOST_SIDECAR_BYTES:,} bytes"
        sample.faults.append(f"has labels in {name!r}, which {member.fault or too_large}")
        return
    try:
        text = read_place(file, member.place).decode("utf-8-sig")
        labels = json.loads(text) if has_extension(name, ("json",)) else {"text": text.strip()}
    except (ValueError, RecursionError, BadArchiveError) as error:
        sample.faults.append(f"has labels in {name!r}, which cannot be read: {error}")
        return
    if not isinstance(labels, dict):
        sample.faults.append(f"has labels in {name!r}, which is not a JSON object")
        return
    sample.labels |= without_nested(labels)

"""Rows of archives: each audio file in a tar or zip file is a row, with the labels beside it.

The labels of a row are in the sidecars of its audio, wherever they stand in the archive:
``a/1.flac``, ``a/1.json``, ``a/1.txt`` (:mod:`~melmill.transforms.catalogue.archive_members`). The
keys of the JSON object are labels, and the text is the label ``text``. Each row has the version and
the place of its file.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from melmill.transforms.catalogue.archive_members import (
    SIDECARS,
    ArchiveMembers,
    Entry,
    archive_members,
    sample_of,
)
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
from melmill.transforms.store.archives import (
    BadArchiveError,
    Member,
    Place,
    is_hidden,
    read_members,
)
from melmill.transforms.store.members import member_fingerprint, read_place
from melmill.transforms.store.objects import StoredObject
from melmill.transforms.store.stored_file import buffered

#: Number of first rows from which the labels' types are taken.
SAMPLE_MEMBERS = 256

#: Number of first members that are looked at for them: on a disk, where more are read if these have
#: no labels or no audio, and in a store, where each header may be a request.
_LOCAL_MEMBERS, _STORE_MEMBERS = 4_096, 1_024

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
    version: str
    extensions: tuple[str, ...]
    first_only: bool
    is_local: bool


@dataclass(frozen=True, slots=True)
class _Damage:
    """Damage of an archive: what it is, and the sample before it."""

    message: str
    sample: str


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
    first_only: bool = False,
) -> Iterator[ArchivedRow]:
    """Yield the rows of an archive.

    All members are listed before the first row, because labels may stand anywhere. The members of a
    tar file are read, because it has no checksums of them; zip files have.

    Parameters
    ----------
    archives, name
        Archives, and the name of one of them.
    passed_over
        Counter of skipped members by extension; ``.txt without audio`` counts sidecars that
        belong to no audio.
    deadline
        Time on the clock of ``time.monotonic`` after which no further member is read.
    first_only
        Whether a sample of the rows is enough: only the first members are listed, no audio is read,
        and the rows have no fingerprints. If the archive has labels, rows without any are left out:
        their labels may come later.

    Raises
    ------
    CatalogueError
        If the store of the archive fails. A damaged archive is a row with a fault, after the
        samples before the damage, without those whose labels may be lost: the last one, and in an
        archive with labels all those that have none.
    OutOfTimeError
        If the deadline has passed.
    """
    uri = join_uri(archives.listing.root, name)
    source = StoredObject(uri, storage_options=archives.listing.storage_options)
    try:
        source = source.in_its_version()
        # A zip file has its list at its end, a tar file is read from end to end.
        from_start = name.lower().endswith(".tar") and not first_only
        with archive_members() as members:
            with buffered(source.open_raw(float(from_start), from_start)) as file:
                how = archives.extensions, first_only, source.local_path is not None
                archive = _Archive(file, name, source.fingerprint, *how)
                damage = _collect(archive, members, passed_over, deadline)
            yield from _rows(archive, members, damage)
            if passed_over is not None:
                passed_over.update(f"{extension_of(n)} without audio" for n in members.unused())
    except RecordingError as error:
        raise CatalogueError(f"{uri} cannot be read: {error.message}") from error


def sample_rows(archives: Archives) -> list[Row]:
    """Return the first rows of the archives, without those that have a fault."""
    listed = (
        listed.row
        for name in archive_names(archives)
        for listed in archive_rows(archives, name, first_only=True)
    )
    return [row for row in islice(listed, SAMPLE_MEMBERS) if isinstance(row, dict)]


def _collect(
    archive: _Archive, members: ArchiveMembers, passed_over: Counter[str] | None, deadline: float
) -> _Damage | None:
    """Add the audio and the sidecars of an archive to its members; return its damage, if any."""
    last = ""
    try:
        listed = read_members(archive.file, archive.version, archive.name)
        for number, member in enumerate(listed):
            if archive.first_only and _is_enough(archive, members, number):
                break
            if time.monotonic() > deadline:
                raise OutOfTimeError
            if is_hidden(member.name):
                continue  # hidden files are skipped, as in a folder
            last = member.name
            if has_extension(member.name, archive.extensions):
                members.add(_audio(archive, member))
            elif has_extension(member.name, SIDECARS):
                members.add(_sidecar(archive.file, member))
            elif passed_over is not None:
                passed_over[extension_of(member.name)] += 1
    except BadArchiveError as error:
        return _Damage(str(error.strerror), sample_of(last))
    return None


def _is_enough(archive: _Archive, members: ArchiveMembers, number: int) -> bool:
    """Return whether a number of first members is enough to know which labels there are."""
    if not archive.is_local:
        return number >= _STORE_MEMBERS
    return number >= _LOCAL_MEMBERS and members.has_labels and members.has_audio


def _rows(
    archive: _Archive, members: ArchiveMembers, damage: _Damage | None
) -> Iterator[ArchivedRow]:
    """Yield the rows of an archive: each audio file has all of its labels."""
    need_labels = (damage is not None or archive.first_only) and members.has_labels
    for audio, sidecars in members.joined():
        if damage and sample_of(audio.name) == damage.sample:
            continue
        if audio.fault:
            yield ArchivedRow(f"member {readable(audio.name)}", BrokenRow(audio.fault))
        elif sidecars or not need_labels:
            yield _row(archive.name, audio, sidecars)
    if damage:
        yield ArchivedRow("archive", BrokenRow(damage.message))


def _row(archive: str, audio: Entry, sidecars: Sequence[Entry]) -> ArchivedRow:
    place = f"member {readable(audio.name)}"
    faults = [sidecar.fault for sidecar in sidecars if sidecar.fault]
    names = [repr(sidecar.name) for sidecar in sidecars]
    if len({sidecar.kind for sidecar in sidecars}) < len(sidecars):
        faults.append(f"has labels in {' and in '.join(names)}; leave one file of each kind")
    if faults:
        return ArchivedRow(place, BrokenRow(faults[0]))
    labels: Row = {}
    for sidecar in sidecars:
        labels |= json.loads(sidecar.labels)
    version = Place.parse(audio.place).size_bytes, audio.fingerprint, audio.place
    return ArchivedRow(place, {**labels, "uri": f"{archive}#{audio.name}"}, *version)


def _audio(archive: _Archive, member: Member) -> Entry:
    if member.fault:
        return Entry(member.name, "audio", member.fault)
    if not is_text(member.name):
        return Entry(member.name, "audio", "has a name that is not UTF-8; rename it")
    if archive.first_only:
        return Entry(member.name, "audio", "", member.place.text)
    try:
        fingerprint = member_fingerprint(archive.file, member.place)
    except BadArchiveError as error:
        return Entry(member.name, "audio", str(error.strerror))
    return Entry(member.name, "audio", "", member.place.text, fingerprint)


def _sidecar(file: Any, member: Member) -> Entry:
    """Return a JSON or text file with its labels, or with what is wrong with it."""
    kind = member.name.rpartition(".")[2].lower()
    try:
        labels = _labels(file, member, kind)
    except BadArchiveError as error:
        fault = str(error.strerror)
    except (ValueError, RecursionError) as error:
        fault = f"cannot be read: {error}"
    else:
        return Entry(member.name, kind, labels=json.dumps(without_nested(labels)))
    return Entry(member.name, kind, f"has labels in {member.name!r}, which {fault}")


def _labels(file: Any, member: Member, kind: str) -> Row:
    """Return the labels of a sidecar; raise ``BadArchiveError`` or ``ValueError`` for a bad one."""
    if member.fault:
        raise BadArchiveError(member.fault)
    if member.place.size_bytes > _MOST_SIDECAR_BYTES:
        raise BadArchiveError(f"is larger than {_MOST_SIDECAR_BYTES:,} bytes")
    try:
        text = read_place(file, member.place).decode("utf-8-sig")
    except BadArchiveError as error:
        raise BadArchiveError(f"cannot be read: {error.strerror}") from error
    labels = json.loads(text) if kind == "json" else {"text": text.strip()}
    if not isinstance(labels, dict):
        raise BadArchiveError("is not a JSON object")
    return labels

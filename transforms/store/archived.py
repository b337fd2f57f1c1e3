"""Stored objects that are members of archives: found by name, opened in place, versioned.

Where a member is (its :class:`~melmill.transforms.store.archives.Place`) comes from the listing of
its archive, or is looked up. The place names the archive's version: reads give its bytes or fail.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.store.archives import (
    Member,
    Place,
    is_parquet,
    plain_name,
    read_members,
)
from melmill.transforms.store.member_places import member_places
from melmill.transforms.store.members import data_start, member_fingerprint, open_place
from melmill.transforms.store.read_ahead import ReadRange
from melmill.transforms.store.retries import patiently
from melmill.transforms.store.stored_file import buffered

if TYPE_CHECKING:
    from melmill.transforms.store.objects import StoredObject


def locate(member: StoredObject, uri: str, name: str) -> StoredObject:
    """Return a member with its place.

    Parameters
    ----------
    member
        Member that may lack its place.
    uri, name
        URI of the archive, and name of the member in it.

    Raises
    ------
    RecordingError
        With the stage ``read``: the archive or the member is not found, or the store fails.
    """
    if member.place:
        return member
    archive = _archive(member, uri, _archive(member, uri).stat()[1])
    place = patiently(lambda: _find(archive, name))
    return replace(member, place=place.text, size_bytes=place.size_bytes)


def stat_member(member: StoredObject, uri: str, name: str) -> tuple[int, str]:
    """Return a member's size and fingerprint; if its archive did not change, it is not read.

    If the member has moved in its archive, the fingerprint is a new one: what was read at the old
    place may be anything.
    """
    known = Place.parse(member.place) if member.place else None
    version = _archive(member, uri).stat()[1]
    if known and known.version == version:
        return known.size_bytes, member.fingerprint or _fingerprint(member, uri, known)
    place = Place.parse(locate(replace(member, place=""), uri, name).place)
    if known and replace(known, version=version) != place:
        return place.size_bytes, f"moved:{version}"
    return place.size_bytes, _fingerprint(member, uri, place)


def member_reader(member: StoredObject, uri: str) -> ReadRange | None:
    """Return a reader of ranges of a member whose bytes are stored as they are, in a fixed version.

    ``None`` if the place is not known, for a zip file, whose headers must be read first, for a
    compressed page, and if requests to the store cannot name a version.
    """
    place = Place.parse(member.place) if member.place else None
    if place is None or place.kind != "plain":
        return None
    read = _archive(member, uri, place.version).range_reader()
    return None if read is None else _shifted(read, place.start)


def open_member(member: StoredObject, uri: str, name: str, share: float, from_start: bool) -> Any:
    """Return an open member: in a local archive, in a zip file, or after its place is looked up.

    Parameters
    ----------
    member, uri, name
        Member, URI of the archive, and name in it.
    share, from_start
        See :meth:`~melmill.transforms.store.objects.StoredObject.open`.

    Raises
    ------
    RecordingError
        With the cause ``changed_while_reading``: the archive has another version than the place.
    """
    member = locate(member, uri, name)
    place = Place.parse(member.place)
    _require_version(_archive(member, uri, place.version))
    if place.size_bytes and (reader := member_reader(member, uri)):
        return member.read_ahead(reader, share, from_start)
    archive = _archive(member, uri, place.version)
    read = archive.range_reader() if place.kind != "deflated" else None
    if read is None:
        return open_place(archive.open_raw(0.0, False), place)
    if place.kind == "page":  # in one request
        page = read(place.start, place.start + place.stored_bytes)
        return open_place(io.BytesIO(page), replace(place, start=0))
    with archive.open_raw(0.0, False) as file:
        first = data_start(file, place)
    return member.read_ahead(_shifted(read, first), share, from_start)


def _archive(member: StoredObject, uri: str, version: str = "") -> StoredObject:
    """Return the archive of a member in a version; the text of a version ends with the size."""
    size = version.rpartition(":")[2]
    size_bytes = int(size) if size.isdigit() else -1
    return replace(member, uri=uri, size_bytes=size_bytes, fingerprint=version, place="")


def _require_version(archive: StoredObject) -> None:
    """Raise an error for an archive with another version, if reads do not."""
    if archive.range_reader() is None and archive.stat()[1] != archive.fingerprint:
        message = f"the archive was {archive.fingerprint} when it was listed, and has changed"
        raise RecordingError(Stage.READ, Cause.CHANGED, message)


def _shifted(read: ReadRange, first: int) -> ReadRange:
    return lambda start, stop: read(first + start, first + stop)


def _find(archive: StoredObject, name: str) -> Place:
    """Return the place of a member; its name may have accents in another form."""
    plain = plain_name(name)
    forms = (unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))
    names = list(dict.fromkeys((plain, *forms)))
    key = archive.uri, archive.fingerprint
    return member_places().find(key, names, lambda: _members(archive))


def _members(archive: StoredObject) -> Iterator[Member]:
    with buffered(archive.open_raw(0.0, False)) as file:
        if is_parquet(archive.uri):
            from melmill.transforms.store.embedded import embedded_members  # loads Arrow

            yield from embedded_members(file, archive.fingerprint)
        else:
            yield from read_members(file, archive.fingerprint, archive.uri)


def _fingerprint(member: StoredObject, uri: str, place: Place) -> str:
    archive = _archive(member, uri, place.version)

    def read() -> str:
        with buffered(archive.open_raw(0.0, False)) as file:
            return member_fingerprint(file, place)

    return patiently(read)

"""Stored objects that are members of archives: found by name, opened in place, versioned.

Where a member is (its :class:`~melmill.transforms.store.archives.Place`) comes from the listing of
its archive, or is looked up. The place names the archive's version: reads give its bytes or fail.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.store.archives import Place, read_members
from melmill.transforms.store.members import data_start, member_fingerprint, open_place
from melmill.transforms.store.read_ahead import ReadRange
from melmill.transforms.store.retries import patiently
from melmill.transforms.store.stored_file import buffered

if TYPE_CHECKING:
    from melmill.transforms.store.objects import StoredObject

#: Number of archives whose members are remembered by name. A member takes some 250 bytes.
_REMEMBERED = 4
_PLACES: OrderedDict[tuple[str, str], dict[str, Place]] = OrderedDict()


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
    if known and member.fingerprint and known.version == version:
        return member.size_bytes, member.fingerprint
    place = Place.parse(locate(replace(member, place=""), uri, name).place)
    if known and replace(known, version=version) != place:
        return place.size_bytes, f"moved:{version}"
    archive = _archive(member, uri, place.version)
    return place.size_bytes, patiently(lambda: _fingerprint(archive, place))


def member_reader(member: StoredObject, uri: str) -> ReadRange | None:
    """Return a reader of ranges of a member that is in a tar file, in a fixed version.

    ``None`` if the place is not known, for a zip file, whose headers must be read first, and if
    requests to the store cannot name a version.
    """
    place = Place.parse(member.place) if member.place else None
    if place is None or place.kind != "tar":
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
    read = archive.range_reader() if place.kind == "stored" else None
    if read is None:
        return open_place(archive.open_raw(0.0, False), place)
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
    key = archive.uri, archive.fingerprint
    places = _PLACES.get(key)
    if places is None:
        with buffered(archive.open_raw(0.0, False)) as file:
            members = read_members(file, archive.fingerprint)
            # As in tar itself, the last of several members with one name counts.
            places = {member.name: member.place for member in members if not member.fault}
        _PLACES[key] = places
        if len(_PLACES) > _REMEMBERED:
            _PLACES.popitem(last=False)
    if name not in places:
        raise FileNotFoundError(errno.ENOENT, f"the archive has no member {name!r} to read")
    return places[name]


def _fingerprint(archive: StoredObject, place: Place) -> str:
    with buffered(archive.open_raw(0.0, False)) as file:
        return member_fingerprint(file, place)

"""Places of archives' members by name, in a temporary database on the disk.

A table may name members of many archives in any order. Each archive is read once by a process, and
memory does not grow with the number of members.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import count, islice
from threading import Lock

from melmill.transforms.store.archives import Member, Place
from melmill.transforms.store.temporary_database import open_temporary_database, to_blob

_CACHE_KIBIBYTES = 16_384
_BATCH = 1_000
_TABLE = """
CREATE TABLE places (archive INTEGER, name BLOB, place TEXT, fault TEXT,
    PRIMARY KEY (archive, name)) WITHOUT ROWID
"""


class MemberPlaces:
    """Places of members; several threads may look for them."""

    def __init__(self) -> None:
        self._database = open_temporary_database(_TABLE, _CACHE_KIBIBYTES)
        self._lock, self._numbers = Lock(), count()
        self._archives: dict[tuple[str, str], int] = {}
        self._reading: defaultdict[tuple[str, str], Lock] = defaultdict(Lock)

    def find(
        self,
        archive: tuple[str, str],
        names: Sequence[str],
        read: Callable[[], Iterable[Member]],
    ) -> Place:
        """Return the place of a member.

        Parameters
        ----------
        archive
            URI and version of the archive.
        names
            Names that the member may have; the first one that exists is used.
        read
            Function that reads the archive's members, for the first look-up in it.

        Raises
        ------
        FileNotFoundError
            If the archive has no such member, or a member that is not read.
        """
        with self._lock:
            reading = self._reading[archive]
        with reading:
            if archive not in self._archives:
                self._archives[archive] = self._add(read())
        for name in names:
            if (row := self._get(self._archives[archive], name)) is not None:
                place, fault = row
                if fault:
                    message = f"the archive's member {name!r} {fault}"
                    raise FileNotFoundError(errno.ENOENT, message)
                return Place.parse(place)
        raise FileNotFoundError(errno.ENOENT, f"the archive has no member {names[0]!r} to read")

    def _add(self, members: Iterable[Member]) -> int:
        # If the reading fails, nothing refers to the number, and the next attempt has another.
        number, left = next(self._numbers), iter(members)
        while batch := list(islice(left, _BATCH)):
            rows = [(number, to_blob(m.name), m.place.text, m.fault) for m in batch]
            with self._lock:
                # The last of several members with one name counts.
                self._database.executemany(
                    "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", rows
                )
        return number

    def _get(self, archive: int, name: str) -> tuple[str, str] | None:
        query = "SELECT place, fault FROM places WHERE archive = ? AND name = ?"
        with self._lock:
            row: tuple[str, str] | None = self._database.execute(
                query, (archive, to_blob(name))
            ).fetchone()
        return row


def member_places() -> MemberPlaces:
    """Return the places that this process knows."""
    return _places_of(os.getpid())


@lru_cache(None)
def _places_of(process: int) -> MemberPlaces:
    # A forked process needs its own database.
    return MemberPlaces()

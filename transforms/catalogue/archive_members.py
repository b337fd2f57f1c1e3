"""Members of an archive in a temporary database: audio files, joined with the labels beside them.

The members need no order: ``tar`` and ``zip`` write them as the folder lists them. A sidecar, which
is a JSON or text file, belongs to the audio with the same name up to the last dot: ``a.b.wav``,
``a.b.json``. Audio without such a sidecar has that of its sample, whose files have equal names up
to the first dot, as in WebDataset: ``1.left.flac``, ``1.right.flac``, ``1.json``. A sidecar with
several dots that has an audio file of the first kind belongs to no other audio.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from melmill.transforms.store.temporary_database import (
    from_blob,
    open_temporary_database,
    to_blob,
)

#: Extensions of sidecars. If both give a label, the text gives it.
SIDECARS = ("json", "txt")

_CACHE_KIBIBYTES = 16_384

_TABLES = """
CREATE TABLE members (number INTEGER PRIMARY KEY, name BLOB UNIQUE, kind TEXT, fault TEXT,
    place TEXT, fingerprint TEXT, labels TEXT, stem BLOB, sample BLOB, is_shared INTEGER DEFAULT 0);
CREATE TABLE used (number INTEGER PRIMARY KEY);
"""
_JOIN = """
CREATE INDEX stems ON members (stem, kind);
UPDATE members SET is_shared = 1 WHERE kind <> 'audio' AND (stem = sample OR NOT EXISTS
    (SELECT 1 FROM members AS audio WHERE audio.stem = members.stem AND audio.kind = 'audio'));
CREATE INDEX samples ON members (sample, kind) WHERE is_shared = 1;
"""
_FIELDS = "name, kind, fault, place, fingerprint, labels"
_SAME_STEM = f"SELECT number, {_FIELDS} FROM members WHERE stem = ? AND kind = ? LIMIT 2"
_SAME_SAMPLE = (
    f"SELECT number, {_FIELDS} FROM members WHERE sample = ? AND kind = ? AND is_shared = 1 LIMIT 2"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive that is audio or a sidecar.

    Attributes
    ----------
    name
        Name in the archive.
    kind
        ``audio``, or the extension of a sidecar.
    fault
        What is wrong with it; ``""`` if nothing is.
    place, fingerprint
        Place and version of audio.
    labels
        Labels of a sidecar as JSON.
    """

    name: str
    kind: str
    fault: str = ""
    place: str = ""
    fingerprint: str = ""
    labels: str = ""


class ArchiveMembers:
    """Members of an archive.

    Parameters
    ----------
    database
        Open database with empty tables.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._kinds = database, set[str]()

    def add(self, entry: Entry) -> None:
        """Add a member; of several members with one name, the last one counts."""
        self._kinds.add(entry.kind)
        self._database.execute(
            f"INSERT OR REPLACE INTO members ({_FIELDS}, stem, sample)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(to_blob(entry.name), entry.kind, entry.fault, entry.place, entry.fingerprint),
                *(entry.labels, to_blob(_stem(entry.name)), to_blob(sample_of(entry.name))),
            ),
        )

    @property
    def has_audio(self) -> bool:
        """Whether there is an audio file."""
        return "audio" in self._kinds

    @property
    def has_labels(self) -> bool:
        """Whether there is a sidecar."""
        return not self._kinds <= {"audio"}

    def joined(self) -> Iterator[tuple[Entry, list[Entry]]]:
        """Yield each audio file with its sidecars, in the order of the audio.

        If there are two sidecars of a kind, both are in the list: which one counts is not clear.
        """
        for statement in _JOIN.split(";"):
            self._database.execute(statement)
        query = f"SELECT {_FIELDS}, stem, sample FROM members WHERE kind = 'audio' ORDER BY number"
        for *fields, stem, sample in self._database.execute(query):
            yield (
                _entry(*fields),
                [sidecar for kind in SIDECARS for sidecar in self._sidecars(stem, sample, kind)],
            )

    def unused(self) -> Iterator[str]:
        """Yield the names of sidecars without audio, after all audio was yielded."""
        query = (
            "SELECT name FROM members WHERE kind <> 'audio'"
            " AND number NOT IN (SELECT number FROM used)"
        )
        for (name,) in self._database.execute(query):
            yield from_blob(name)

    def _sidecars(self, stem: bytes, sample: bytes, kind: str) -> Iterator[Entry]:
        rows = self._database.execute(_SAME_STEM, (stem, kind)).fetchall()
        rows = rows or self._database.execute(_SAME_SAMPLE, (sample, kind)).fetchall()
        for number, *fields in rows:
            self._database.execute("INSERT OR IGNORE INTO used VALUES (?)", (number,))
            yield _entry(*fields)


@contextmanager
def archive_members() -> Iterator[ArchiveMembers]:
    """Keep the members of an archive, and remove them at the end.

    Examples
    --------
    >>> with archive_members() as members:
    ...     for name, kind in (("a.b.wav", "audio"), ("a.c.txt", "txt"), ("a.b.txt", "txt")):
    ...         members.add(Entry(name, kind))
    ...     joined = [(audio.name, [s.name for s in rest]) for audio, rest in members.joined()]
    ...     joined, list(members.unused())
    ([('a.b.wav', ['a.b.txt'])], ['a.c.txt'])
    """
    with closing(open_temporary_database(_TABLES, _CACHE_KIBIBYTES)) as database:
        yield ArchiveMembers(database)


def sample_of(name: str) -> str:
    """Return what the names of a sample's files have in common.

    >>> sample_of("a.b/1.flac"), sample_of("a.b/1.meta.json")
    ('a.b/1', 'a.b/1')
    """
    # Some tools of Windows write backslashes.
    start = max(name.rfind("/"), name.rfind("\\")) + 1
    return name[:start] + name[start:].partition(".")[0]


def _stem(name: str) -> str:
    """Return a name up to its last dot."""
    return name.rpartition(".")[0]


def _entry(name: bytes, *rest: str) -> Entry:
    return Entry(from_blob(name), *rest)

"""Values that are looked up by a key, in a temporary database on the disk.

Manifests of several files are joined by keys. Memory does not grow with their number, and the
files need no order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.store.temporary_database import (
    from_blob,
    open_temporary_database,
    to_blob,
)

_CACHE_KIBIBYTES = 32_768
_TABLE = "CREATE TABLE pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"


class KeyedValues:
    """Values by key.

    Parameters
    ----------
    database
        Open database with an empty table of pairs.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, pairs: Iterable[tuple[str, str]], uri: str) -> None:
        """Add pairs of a file; raise ``CatalogueError`` if it has a key twice."""
        for key, value in pairs:
            row = to_blob(key), to_blob(value)
            added = self._database.execute("INSERT OR IGNORE INTO pairs VALUES (?, ?)", row)
            if not added.rowcount:
                raise CatalogueError(f"{uri} has the id {key!r} twice; remove one of them")

    def get(self, key: str) -> str | None:
        """Return the value of a key; ``None`` if there is none."""
        query = "SELECT value FROM pairs WHERE key = ?"
        row = self._database.execute(query, (to_blob(key),)).fetchone()
        return None if row is None else from_blob(row[0])


@contextmanager
def keyed_values(pairs: Iterable[tuple[str, str]], uri: str) -> Iterator[KeyedValues]:
    """Keep the pairs of a file for look-ups, and remove them at the end.

    Raises
    ------
    CatalogueError
        If the file has a key twice.

    Examples
    --------
    >>> with keyed_values([("a", "1"), ("b", "2")], "text") as values:
    ...     values.get("b"), values.get("c")
    ('2', None)
    """
    with closing(open_temporary_database(_TABLE, _CACHE_KIBIBYTES)) as database:
        values = KeyedValues(database)
        values.add(pairs, uri)
        yield values

"""Values that are looked up by a key, in a temporary database on the disk.

Manifests of several files are joined by keys. Memory does not grow with their number, and the
files need no order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from melmill.transforms.core.errors import CatalogueError

_CACHE_KIBIBYTES = 32_768


class KeyedValues:
    """Values by key.

    Parameters
    ----------
    database
        Open database, which is empty.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
        database.execute("CREATE TABLE pairs (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")

    def add(self, pairs: Iterable[tuple[str, str]], uri: str) -> None:
        """Add pairs of a file; raise ``CatalogueError`` if it has a key twice."""
        for key, value in pairs:
            row = _bytes(key), _bytes(value)
            added = self._database.execute("INSERT OR IGNORE INTO pairs VALUES (?, ?)", row)
            if not added.rowcount:
                raise CatalogueError(f"{uri} has the id {key!r} twice; remove one of them")

    def get(self, key: str) -> str | None:
        """Return the value of a key; ``None`` if there is none."""
        query = "SELECT value FROM pairs WHERE key = ?"
        row = self._database.execute(query, (_bytes(key),)).fetchone()
        return None if row is None else bytes(row[0]).decode("utf-8", "surrogatepass")


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
    # A database without a name is a temporary file, which ends with its connection.
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("BEGIN")
        values = KeyedValues(database)
        values.add(pairs, uri)
        yield values


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

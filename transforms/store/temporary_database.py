"""Temporary databases on the disk, for look-ups whose memory does not grow with their entries."""

from __future__ import annotations

import sqlite3


def open_temporary_database(script: str, cache_kibibytes: int) -> sqlite3.Connection:
    """Return a new database, which ends with its connection; several threads may use it in turn.

    Parameters
    ----------
    script
        Statements that make its tables.
    cache_kibibytes
        Memory that it may take.

    Examples
    --------
    >>> database = open_temporary_database("CREATE TABLE t (n INTEGER)", 1_024)
    >>> database.execute("SELECT count(*) FROM t").fetchone()
    (0,)
    >>> database.close()
    """
    # A database without a name is a temporary file.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute(f"PRAGMA cache_size = -{cache_kibibytes}")
    database.execute("PRAGMA journal_mode = OFF")
    database.executescript(script)
    database.execute("BEGIN")
    return database


def to_blob(text: str) -> bytes:
    """Return the bytes that stand for a text, which may have a half of a surrogate pair."""
    return text.encode("utf-8", "surrogatepass")


def from_blob(data: bytes) -> str:
    """Return the text that bytes from :func:`to_blob` stand for."""
    return data.decode("utf-8", "surrogatepass")

"""The tags worth keeping: who made the recording, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping

_KEPT = frozenset(
    {"title", "artist", "album", "albumartist", "date", "genre", "tracknumber", "comment"}
)
_OTHER_NAMES = {"album_artist": "albumartist", "track": "tracknumber"}
#: Comments hold whole songs' lyrics, and now and then an encoder's log.
_MAX_CHARACTERS = 1000


def keep_tags(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Keep what says who made a recording and what it is called.

    Parameters
    ----------
    metadata
        Tags as a decoder names them, in any case.

    Returns
    -------
    tuple of (name, value)
        Sorted by name; values cut at 1,000 characters.

    Examples
    --------
    >>> keep_tags({"TITLE": "Vibe Ace", "encoder": "Lavf", "album_artist": "K. MacLeod"})
    (('albumartist', 'K. MacLeod'), ('title', 'Vibe Ace'))
    """
    named = {_OTHER_NAMES.get(name.lower(), name.lower()): text for name, text in metadata.items()}
    return tuple(
        (name, text[:_MAX_CHARACTERS])
        for name, text in sorted(named.items())
        if name in _KEPT and text
    )

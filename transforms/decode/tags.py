"""The tags that are kept, such as artist and title."""

from __future__ import annotations

from collections.abc import Mapping

_KEPT = frozenset(
    {"title", "artist", "album", "albumartist", "date", "genre", "tracknumber", "comment"}
)
_OTHER_NAMES = {"album_artist": "albumartist", "track": "tracknumber"}
#: Maximum length of a value. Some comments contain the lyrics of a song or an encoder's log.
_MAX_CHARACTERS = 1000


def keep_tags(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the tags that are kept, such as artist and title.

    Parameters
    ----------
    metadata
        Tags with the names that a decoder gives them, in upper or lower case.

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

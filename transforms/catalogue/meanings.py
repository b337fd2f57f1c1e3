"""Columns of a table that have a meaning: which one names the audio, its segment, its split.

The names are those of plain tables (``uri``, ``start``, ``end``, ``split``), those of a known
layout (NeMo, Common Voice, audiofolder), or those that the user gives. All other columns are
labels.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace

#: Columns that name the audio in a known layout, the first that a table has counts.
KNOWN_URI_COLUMNS = ("uri", "audio_filepath", "file_name", "path")

#: Columns that a table of Common Voice has beside ``path``.
_COMMON_VOICE = frozenset({"client_id", "path", "sentence"})

#: Folder of the audio of Common Voice, beside its tables.
CLIPS = "clips"

#: Words in the names of columns that may name audio.
_LIKELY_WORDS = ("path", "file", "audio", "wav", "url", "uri", "clip", "recording", "name")


@dataclass(frozen=True, slots=True)
class TableKeys:
    """What the recipe says about a table; the defaults if it says nothing.

    Attributes
    ----------
    uri_column
        Name of the column that names the audio.
    start_column, end_column, duration_column
        Names of columns of a segment; ``""`` for none: such columns of the table are labels.
    separator
        Character between the cells of a row of text.
    root
        Folder at which relative URIs start.
    """

    uri_column: str = ""
    start_column: str | None = None
    end_column: str | None = None
    duration_column: str | None = None
    separator: str = ""
    root: str = ""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the keys that the recipe sets."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != f.default)


#: A recipe that says nothing about tables.
NO_KEYS = TableKeys()


@dataclass(frozen=True, slots=True)
class Meanings:
    """The names of the columns with a meaning; ``""`` for a meaning without a column.

    Attributes
    ----------
    uri, start, end, split
        Columns of the audio, of its segment in seconds, and of its split.
    duration
        Column of the segment's duration in seconds, in place of its end.
    whole_without_start
        Whether a row without a start is the whole recording, whatever its duration.
    in_clips
        Whether the audio is in the folder ``clips`` beside the table.
    """

    uri: str = "uri"
    start: str = "start"
    end: str = "end"
    duration: str = ""
    split: str = "split"
    whole_without_start: bool = False
    in_clips: bool = False

    @property
    def types(self) -> dict[str, str]:
        """Types of the columns, by name, in the order uri, start, end, duration, split."""
        return {name: kind for name, kind in self._named() if name}

    def _named(self) -> Iterator[tuple[str, str]]:
        yield self.uri, "string"
        yield from ((name, "double") for name in (self.start, self.end, self.duration))
        yield self.split, "string"


#: The columns of a plain table, and of archives: labels beside a member do not cut it.
PLAIN, ARCHIVED = Meanings(), Meanings(start="", end="")


def choose_meanings(names: Collection[str], keys: TableKeys, usual: Meanings = PLAIN) -> Meanings:
    """Return the columns with a meaning, from a table's columns and the recipe.

    Parameters
    ----------
    names
        Names of the table's columns.
    keys
        What the recipe says.
    usual
        Meanings if the table has no other layout.

    The layout is that of the column which names the audio, whether the recipe names it or not.

    Examples
    --------
    >>> nemo = choose_meanings(["audio_filepath", "offset", "duration", "text"], TableKeys())
    >>> nemo.uri, nemo.start, nemo.end, nemo.duration
    ('audio_filepath', 'offset', '', 'duration')
    >>> choose_meanings(["path", "genre"], TableKeys(uri_column="path")).uri
    'path'
    >>> choose_meanings(["uri", "start", "end"], TableKeys(start_column="")).types
    {'uri': 'string', 'split': 'string'}
    """
    layouts = _layouts(names, usual)
    layout = next((found for found in layouts if keys.uri_column in ("", found.uri)), usual)
    meanings = replace(layout, uri=keys.uri_column or layout.uri)
    if keys.start_column is not None:
        meanings = replace(meanings, start=keys.start_column)
    if keys.start_column == "":
        # A recording that is not cut at its start is not cut at its usual end either.
        meanings = replace(meanings, end="", duration="", whole_without_start=False)
    return _with_ending(meanings, keys)


def _with_ending(meanings: Meanings, keys: TableKeys) -> Meanings:
    """Return meanings with the end or the duration that the recipe says."""
    if keys.end_column:
        return replace(meanings, end=keys.end_column, duration="", whole_without_start=False)
    if keys.duration_column:
        return replace(meanings, end="", duration=keys.duration_column, whole_without_start=False)
    if keys.end_column == "":
        meanings = replace(meanings, end="")
    return replace(meanings, duration="") if keys.duration_column == "" else meanings


def _layouts(names: Collection[str], usual: Meanings) -> Iterator[Meanings]:
    """Yield the layouts that a table may have, the first that counts first."""
    if "uri" in names:
        yield usual
    if "audio_filepath" in names:
        is_nemo = "offset" in names or "duration" in names
        nemo = Meanings("audio_filepath", "offset", "", "duration", whole_without_start=True)
        yield nemo if is_nemo else Meanings("audio_filepath")
    if set(names) >= _COMMON_VOICE:
        yield Meanings("path", in_clips=True)
    if "file_name" in names:
        yield Meanings("file_name")


def missing_columns(
    uri: str, names: Sequence[str], meanings: Meanings, keys: TableKeys
) -> Iterator[str]:
    """Yield a message for each column that the table should have and lacks."""
    if meanings.uri not in names:
        key = "catalogue.uri_column: " if keys.uri_column else ""
        advice = _advice(names, meanings.uri)
        yield f"{key}{uri} has no column {meanings.uri!r}; its columns are {list(names)}{advice}"
    for key in ("start_column", "end_column", "duration_column"):
        name = getattr(keys, key)
        if name and name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            yield f"catalogue.{key}: {uri} has no column {name!r}; it has {list(names)}{meant}"


def _advice(names: Sequence[str], wanted: str) -> str:
    """Return what to do about a table whose column for the audio is not known.

    >>> _advice(["speaker", "wav_path"], "uri")
    "; is the audio in 'wav_path'? Then set catalogue.uri_column: wav_path"
    """
    likely = likely_column(names, wanted)
    if not likely:
        return ""
    return f"; is the audio in {likely!r}? Then set catalogue.uri_column: {likely}"


def likely_column(names: Sequence[str], wanted: str) -> str:
    """Return the column that probably names the audio; ``""`` if none looks like it.

    >>> likely_column(["id", "URI"], "uri"), likely_column(["id", "genre"], "uri")
    ('URI', '')
    """
    known = [name for name in names if name.casefold() in (wanted.casefold(), *KNOWN_URI_COLUMNS)]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.7)
    words = (name for word in _LIKELY_WORDS for name in names if word in name.casefold())
    return next(iter((*known, *close, *words)), "")

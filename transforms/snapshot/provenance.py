"""Where the recordings of each split come from: their licences, sources and attributions.

All of it is counted from the shards' distributions, so no shard is opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from melmill.transforms.core.licenses import license_ids, provenance_columns
from melmill.transforms.rows.distribution import ClassCount, Distribution
from melmill.transforms.snapshot.totals import Totals

#: Largest number of licences, of sources and of attributions that are listed for a split.
MOST_LISTED = 50
#: Largest number of letters of a value that are shown.
_MOST_LETTERS = 200


@dataclass(frozen=True, slots=True)
class Origin:
    """A licence, a source or an attribution of recordings in a split.

    Attributes
    ----------
    split, meaning, column
        Split; ``license``, ``source`` or ``attribution``; and the name of the column.
    value
        Value, licences by their identifiers; ``""`` for recordings without a value.
    recordings, rows
        Number of recordings and rows that have it.
    """

    split: str
    meaning: str
    column: str
    value: str
    recordings: int
    rows: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a snapshot's recordings come from.

    Attributes
    ----------
    columns
        Names of the columns that say it, by their meaning; empty if no column does.
    origins
        Values in each split, those of the most recordings first, :data:`MOST_LISTED` at most of
        each meaning.
    unlisted
        Number of further values, by split and meaning; ``None`` if they were too many to count.
    licenses
        Identifiers of the licences of all recordings; empty if a recording has none, or if they
        are not known.
    """

    columns: dict[str, str]
    origins: tuple[Origin, ...]
    unlisted: dict[tuple[str, str], int | None]
    licenses: tuple[str, ...]


def provenance(totals: Totals) -> Provenance:
    """Return where the recordings of a snapshot or a view come from."""
    splits = {name: totals.splits[name].distribution for name in sorted(totals.splits)}
    names = {n for part in splits.values() for n in (*part.many, *(c.column for c in part.classes))}
    columns = provenance_columns(sorted(names))
    origins: list[Origin] = []
    unlisted: dict[tuple[str, str], int | None] = {}
    licenses: set[str] = set()
    for split, part in splits.items():
        for meaning, column in columns.items():
            values = list(_origins(split, meaning, column, part))
            origins += values[:MOST_LISTED]
            if column in part.many:
                unlisted[split, meaning] = None
            elif len(values) > MOST_LISTED:
                unlisted[split, meaning] = len(values) - MOST_LISTED
            if meaning == "license":
                licenses |= {origin.value for origin in values}
                # Licences that are very many are in no class.
                if sum(origin.recordings for origin in values) < totals.splits[split].recordings:
                    licenses.add("")
    complete = () if "" in licenses else tuple(sorted(licenses))
    return Provenance(columns, tuple(origins), unlisted, complete)


def _origins(split: str, meaning: str, column: str, part: Distribution) -> Iterator[Origin]:
    recordings, rows = Counter[str](), Counter[str]()
    spellings: dict[str, str] = {}
    for entry in part.classes:
        if entry.column == column:
            for value in _values(meaning, entry):
                key = (
                    spellings.setdefault(value.casefold(), value) if meaning == "license" else value
                )
                recordings[key] += entry.recordings
                rows[key] += entry.rows
    for value in sorted(rows, key=lambda value: (-recordings[value], -rows[value], value)):
        yield Origin(split, meaning, column, value, recordings[value], rows[value])


def _values(meaning: str, entry: ClassCount) -> list[str]:
    """Return the text of a class, as one line; ``""`` for no value."""
    if meaning == "license":
        return license_ids(entry.value) or [""]
    text = "" if entry.value is None else " ".join(str(entry.value).split())
    return [text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"]


def provenance_text(totals: Totals) -> str:
    """Return the part of a card about provenance; ``""`` if no column says anything about it."""
    known = provenance(totals)
    if not known.columns:
        return ""
    parts = ["\n## Provenance\n"]
    for meaning, column in known.columns.items():
        parts.append(f"\n| split | {meaning} | recordings | rows |\n|---|---|---|---|\n")
        for origin in known.origins:
            if origin.meaning == meaning:
                value = plain_markdown(origin.value) or "(none)"
                counts = f"{origin.recordings:,} | {origin.rows:,}"
                parts.append(f"| {origin.split} | {value} | {counts} |\n")
        for (split, other), number in known.unlisted.items():
            if other == meaning:
                more = "very many values" if number is None else f"{number:,} more values"
                parts.append(f"| {split} | {more}, in the column `{column}` of the rows | | |\n")
    return "".join(parts)


def plain_markdown(text: str) -> str:
    """Return text as one line of Markdown, without any markup.

    >>> print(plain_markdown("a|b <i>*c*"))
    a\\|b \\<i\\>\\*c\\*
    """
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\|<>*`[]" else letter for letter in line)

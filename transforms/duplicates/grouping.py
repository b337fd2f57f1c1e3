"""Grouping: which recordings are copies of each other, and which copy is the best."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from melmill.transforms.duplicates.components import K, group
from melmill.transforms.duplicates.correlation import MAX_LAG
from melmill.transforms.duplicates.match_job import MatchJob, dataset_at, row_of
from melmill.transforms.measures.short_waveforms import RATE_HZ

Kind = Literal["exact", "same", "contained"]

#: Unit of offsets and overlaps: a sample of a waveform; a word of a fingerprint has 400.
TICKS_PER_SECOND = RATE_HZ
#: A match as workers find it: numbers of two recordings, kind, offset and overlap in ticks, error.
FoundMatch: TypeAlias = tuple[int, int, Kind, int, int, float]

#: Columns of an index that :class:`MatchedRecording` is made of, in the order of its attributes.
COLUMNS = [
    *("recording_id", "uri", "split", "status", "size_bytes", "seconds", "sample_rate_hz"),
    "channels",
    *("measures.acoustic.digest", "measures.origin.bandwidth", "split_unit"),
]

#: Statuses of recordings with fingerprints, the best first. What was kept comes before what was
#: left out, whether that is whole or not.
_STATUSES = ("ok", "partial", "duplicate", "deselected")
#: Share of the longer recording's length that the same recording has at least.
_SAME_LENGTH = 0.75
#: Largest difference of lengths that is padding of an encoder, whatever its share is.
_PADDING_SECONDS = MAX_LAG / RATE_HZ
#: Kinds of matches, the strongest first.
_KINDS: tuple[Kind, ...] = ("exact", "same", "contained")
#: Share of the greatest length and bandwidth of a group that its best recording has at least.
_NEARLY = 0.9


@dataclass(frozen=True, slots=True)
class MatchedRecording:
    """A recording that has a duplicate.

    Attributes
    ----------
    dataset
        Number of its dataset: 0, or 1 for the other dataset.
    recording_id, uri, split, status
        Columns of the index.
    size_bytes, seconds, sample_rate_hz, channels
        Size of the file, length, sample rate and number of channels.
    digest
        Digest of all samples.
    bandwidth_hz
        Highest frequency with sound; ``None`` if it was not measured.
    split_unit
        Digest of what stays in one split with it, if ``split.keep_together`` is set.
    """

    dataset: int
    recording_id: str
    uri: str
    split: str
    status: str
    size_bytes: int
    seconds: float
    sample_rate_hz: int
    channels: int
    digest: str
    bandwidth_hz: float | None
    split_unit: str | None = None


def best_first(members: Iterable[MatchedRecording]) -> list[MatchedRecording]:
    """Return the recordings of a group, the best first.

    If one was kept instead of the others, it is the best. Else the best is whole, not much shorter
    than the longest, and reaches nearly the highest frequencies. Then it has the most channels and
    the largest file, and its URI is the first.
    """
    recordings = list(members)
    long = _NEARLY * max(member.seconds for member in recordings)
    high = _NEARLY * max(member.bandwidth_hz or 0.0 for member in recordings)
    return sorted(
        recordings,
        key=lambda member: (
            _STATUSES.index(member.status),
            member.seconds < long,
            (member.bandwidth_hz or 0.0) < high,
            -member.channels,
            -member.size_bytes,
            member.uri,
            member.dataset,
        ),
    )


def read_matched(
    job: MatchJob, place: int, numbers: Iterable[int]
) -> Iterator[tuple[int, MatchedRecording]]:
    """Yield the recordings with some numbers, which are in one part of a table."""
    members = sorted(numbers)
    table = job.read(place, COLUMNS).take([row_of(number) for number in members])
    for number, row in zip(members, table.to_pylist(), strict=True):
        yield number, MatchedRecording(dataset_at(place), *row.values())


def without_doubles(matches: Iterable[FoundMatch]) -> list[FoundMatch]:
    """Return one match of each pair; of two exact copies, the exact match alone."""
    listed = one_of_each_pair(matches)
    exact = group((first, second) for first, second, kind, *_ in listed if kind == "exact")
    return [
        match
        for match in listed
        if match[2] == "exact" or exact.get(match[0], -1) != exact.get(match[1], -2)
    ]


def one_of_each_pair(matches: Iterable[FoundMatch]) -> list[FoundMatch]:
    """Return the best match of each pair of recordings, sorted; exact ones are the best.

    A pair may be found by its fingerprints and by its waveforms.

    >>> one_of_each_pair([(3, 2, "contained", 0, 900, 0.1), (2, 3, "same", 0, 950, 0.0)])
    [(2, 3, 'same', 0, 950, 0.0)]
    """
    best: dict[tuple[int, int], FoundMatch] = {}
    for match in matches:
        pair = min(match[:2]), max(match[:2])
        best[pair] = min(match, best.get(pair, match), key=_rank)
    return sorted(best.values())


def _rank(match: FoundMatch) -> tuple[int, float, FoundMatch]:
    return _KINDS.index(match[2]), match[5], match


def with_lengths(match: FoundMatch, recordings: Mapping[int, MatchedRecording]) -> FoundMatch:
    """Return a match; recordings of other lengths are not the same, whatever was compared.

    The silence of a recording, and its sound after half an hour, have no words.
    """
    first, second, kind, offset, overlap, error = match
    lengths = recordings[first].seconds, recordings[second].seconds
    is_padded = max(lengths) - min(lengths) <= _PADDING_SECONDS
    if kind != "same" or is_padded or min(lengths) >= _SAME_LENGTH * max(lengths):
        return match
    if lengths[0] > lengths[1]:
        first, second, offset = second, first, -offset
    return first, second, "contained", offset, overlap, error


def groups_of(pairs: Iterable[tuple[K, K]]) -> Iterator[list[K]]:
    """Yield the sorted members of each group, in the order of their first members.

    >>> list(groups_of([(3, 2), (7, 9), (2, 1)]))
    [[1, 2, 3], [7, 9]]
    """
    members: dict[K, list[K]] = {}
    for member, smallest in group(pairs).items():
        members.setdefault(smallest, []).append(member)
    for _, group_members in sorted(members.items()):
        yield sorted(group_members)

"""Ranking: the nearest or farthest recordings and chunks, found in one pass over all chunks."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from melmill.transforms.patterns.space import Points

_Item = TypeVar("_Item")

#: Number of items after which the lowest ones are forgotten, besides twice the wanted number.
_ROOM = 100


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """A chunk, and its score.

    Attributes
    ----------
    score
        Number by which chunks are ranked; the highest comes first.
    chunk_index, channel, start_sample
        Columns of its row; the channel is 0 if channels have no rows of their own.
    """

    score: float
    chunk_index: int
    channel: int
    start_sample: int


@dataclass(slots=True)
class RecordingSum:
    """The chunks of a recording, added up.

    Attributes
    ----------
    recording_id, uri, split
        Recording, and the split that its rows are in.
    total
        Sum of the points of its chunks.
    rows
        Number of its chunks.
    best
        Its chunk with the highest score.
    shards
        Number of shards that were read and hold it.
    """

    recording_id: str
    uri: str
    split: str
    total: Points
    rows: int
    best: ChunkPlace
    shards: int = 1

    @property
    def point(self) -> Points:
        """Mean of the points of the chunks."""
        return self.total / self.rows

    def merge(self, other: RecordingSum) -> None:
        """Add chunks of the same recording."""
        self.total = self.total + other.total
        self.rows += other.rows
        self.best = max(self.best, other.best, key=_order_of_chunks)


def _order_of_chunks(chunk: ChunkPlace) -> tuple[float, int, int]:
    return chunk.score, -chunk.chunk_index, -chunk.channel


class OpenRecordings:
    """Recordings that are being added up, of which another shard holds more chunks.

    Parameters
    ----------
    shards
        Number of shards of each recording that is in several; those of other recordings is one.
        Few recordings are longer than a shard, so that few are open at a time.
    """

    def __init__(self, shards: Mapping[str, int]) -> None:
        self._shards = shards
        self._open: dict[str, RecordingSum] = {}

    def close(self, shard: Mapping[str, RecordingSum]) -> Iterator[RecordingSum]:
        """Yield the recordings that are complete with the recordings in the next shard."""
        for recording_id, added in shard.items():
            known = self._open.pop(recording_id, None)
            if known is not None:
                known.merge(added)
                known.shards += 1
            current = known or added
            if current.shards >= self._shards.get(recording_id, 1):
                yield current
            else:
                self._open[recording_id] = current


@dataclass(slots=True)
class Top(Generic[_Item]):
    """The items with the highest scores; among equal ones, those whose names come first.

    Attributes
    ----------
    size
        Number of items to keep.

    Examples
    --------
    >>> top = Top[str](2)
    >>> for score, name in ((1.0, "c"), (3.0, "b"), (2.0, "a"), (3.0, "a")):
    ...     top.add(score, name, name.upper())
    >>> top.items()
    [(3.0, 'A'), (3.0, 'B')]
    """

    size: int
    _entries: list[tuple[float, str, _Item]] = field(default_factory=list)

    def add(self, score: float, name: str, item: _Item) -> None:
        """Add an item with its score and a name that no other item has."""
        self._entries.append((-score, name, item))
        if len(self._entries) >= 2 * self.size + _ROOM:
            self._entries = self._best()

    def items(self) -> list[tuple[float, _Item]]:
        """Return the scores and the items, the highest score first."""
        return [(-score, item) for score, _, item in self._best()]

    def _best(self) -> list[tuple[float, str, _Item]]:
        return heapq.nsmallest(self.size, self._entries, key=lambda entry: entry[:2])

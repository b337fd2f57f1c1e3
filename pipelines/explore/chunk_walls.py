"""Walls of chunks: which chunks of a dataset stand on a page, and what is known about each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from melmill.pipelines.explore.chunk_rows import Chunk, ChunkReader
from melmill.pipelines.explore.filters import Condition
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.transforms.core.errors import DatasetError, UnavailableError
from melmill.transforms.patterns.results import RankedChunk

#: The condition that a recording has chunks.
HAS_ROWS = Condition("rows > 0")
#: Number of recordings whose rows are looked up at the same time: a store answers slowly.
_LOOKUPS = 8
#: Recordings are counted in groups, by the start of their id: only the recordings of a few groups
#: have to be brought into an order.
_GROUP = "recording_id[1:3]"


@dataclass(frozen=True, slots=True)
class Pick:
    """A chunk that stands on a wall.

    Attributes
    ----------
    recording_id
        Its recording.
    number
        Number of its row among the rows of the recording; or
    place
        its chunk index and channel.
    distance
        See :class:`~melmill.transforms.patterns.results.RankedChunk`; ``None`` if it was not
        compared.
    """

    recording_id: str
    number: int = 0
    place: tuple[int, int] | None = None
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What a wall shows of a chunk.

    Attributes
    ----------
    recording
        Columns ``recording_id``, ``uri``, ``split`` and ``shards`` of the index.
    chunk
        Its row.
    distance
        See :class:`Pick`.
    """

    recording: Mapping[str, Any]
    chunk: Chunk
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Wall:
    """Some chunks.

    Attributes
    ----------
    cards
        Those that could be read.
    problems
        Why the others could not be read.
    """

    cards: tuple[Card, ...]
    problems: tuple[str, ...] = ()


def count_chunks(table: RecordingTable, condition: Condition) -> tuple[int, int]:
    """Return the numbers of recordings that meet a condition and have chunks, and of the chunks."""
    chosen = condition & HAS_ROWS
    sql = f"SELECT count(*) AS n, sum(rows) AS chunks FROM recordings WHERE {chosen.sql}"
    (row,) = table.query(sql, chosen.values)
    return row["n"], int(row["chunks"] or 0)


def spread(first: int, number: int, total: int) -> list[int]:
    """Return different numbers below a total that are spread evenly over it.

    The numbers are steps of about 0.618 of the total, modulo the total, so that all prefixes of the
    whole sequence are spread evenly. The next numbers continue the sequence, without repetition.

    Examples
    --------
    >>> spread(0, 4, 10), spread(4, 9, 10)
    ([0, 7, 4, 1], [8, 5, 2, 9, 6, 3])
    """
    step = max(1, round(total * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, total) > 1:
        step += 1
    return [i * step % total for i in range(first, min(first + number, total))]


def sample_chunks(
    table: RecordingTable, condition: Condition, first: int, number: int
) -> list[Pick]:
    """Return chunks of the recordings that meet a condition: a sample, always the same.

    Each chunk is as likely as another; a long recording has more of them.

    Parameters
    ----------
    table, condition
        Recordings, and the condition.
    first, number
        Number of chunks of the sample to skip, and to return at most.
    """
    chosen = condition & HAS_ROWS
    groups = table.query(
        f"SELECT {_GROUP} AS name, sum(rows)::BIGINT AS chunks FROM recordings "
        f"WHERE {chosen.sql} GROUP BY name ORDER BY name",
        chosen.values,
    )
    stops = np.cumsum([group["chunks"] for group in groups], dtype=np.int64)
    wanted = spread(first, number, int(stops[-1])) if groups else []
    numbers = np.searchsorted(stops, wanted, side="right").tolist()
    within = {groups[i]["name"]: int(stops[i]) - groups[i]["chunks"] for i in numbers}
    chosen &= Condition(f"list_contains(?, {_GROUP})", (list(within),))
    sql = f"SELECT recording_id, {_GROUP} AS name, rows FROM recordings WHERE {chosen.sql} "
    starts, ids = list[int](), list[str]()
    for row in table.query(f"{sql} ORDER BY recording_id", chosen.values):
        starts.append(within[row["name"]])
        ids.append(row["recording_id"])
        within[row["name"]] += row["rows"]
    places = np.searchsorted(starts, wanted, side="right") - 1
    pairs = zip(places.tolist(), wanted, strict=True)
    return [Pick(ids[place], chunk - starts[place]) for place, chunk in pairs]


def unusual_chunks(
    table: RecordingTable, condition: Condition, ranked: Sequence[RankedChunk]
) -> list[Pick]:
    """Return those of the ranked chunks whose recording meets a condition, in their order."""
    chosen = condition & Condition(
        "list_contains(?, recording_id)", ([c.recording_id for c in ranked],)
    )
    sql = f"SELECT recording_id FROM recordings WHERE {chosen.sql}"
    ids = {row["recording_id"] for row in table.query(sql, chosen.values)}
    return [
        Pick(chunk.recording_id, 0, (chunk.chunk_index, chunk.channel), chunk.distance)
        for chunk in ranked
        if chunk.recording_id in ids
    ]


def hang_wall(table: RecordingTable, reader: ChunkReader, picks: Sequence[Pick]) -> Wall:
    """Return the wall of some chunks: their rows are looked up in the shards.

    A chunk whose shard is missing or damaged is left out, and the wall says why.

    Raises
    ------
    UnavailableError
        The store failed with a transient error.
    """
    ids = list(dict.fromkeys(pick.recording_id for pick in picks))
    marks = ", ".join("?" for _ in ids) or "NULL"
    sql = f"SELECT recording_id, uri, split, shards FROM recordings WHERE recording_id IN ({marks})"
    recordings = {row["recording_id"]: row for row in table.query(sql, ids)}
    with ThreadPoolExecutor(_LOOKUPS) as pool:
        found = dict(zip(ids, pool.map(lambda i: _chunks(reader, recordings[i]), ids), strict=True))
    problems = dict.fromkeys(chunks for chunks in found.values() if isinstance(chunks, str))
    cards = dict[tuple[str, Chunk], Card]()
    for pick in picks:
        chunks = found[pick.recording_id]
        if not isinstance(chunks, str) and (chunk := _chosen(chunks, pick)) is not None:
            card = Card(recordings[pick.recording_id], chunk, pick.distance)
            cards.setdefault((pick.recording_id, chunk), card)
    return Wall(tuple(cards.values()), tuple(problems))


def _chunks(reader: ChunkReader, recording: Mapping[str, Any]) -> list[Chunk] | str:
    """Return the chunks of a recording, or why they cannot be read."""
    try:
        return reader.chunks(recording)
    except UnavailableError:
        raise
    except DatasetError as error:
        return str(error)


def _chosen(chunks: Sequence[Chunk], pick: Pick) -> Chunk | None:
    if pick.place is None:
        # The rows of variants count in the number, and are not in the chunks.
        return chunks[pick.number % len(chunks)] if chunks else None
    places = ((chunk, (chunk.chunk_index, chunk.channel or 0)) for chunk in chunks)
    return next((chunk for chunk, place in places if place == pick.place), None)

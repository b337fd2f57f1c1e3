"""Scanning: passes over the chunks in shards, with one row group in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from melmill.transforms.patterns.ranking import OpenRecordings, RecordingSum
from melmill.transforms.patterns.reading import (
    Source,
    add_rows,
    draw_rows,
    read_chosen,
    read_vectors,
)
from melmill.transforms.patterns.space import Points, Space
from melmill.transforms.patterns.vectors import Vectors
from melmill.transforms.rows.summaries import ShardSummary
from melmill.transforms.store.folders import Store

#: Largest number of chunks in a sample, and of values in their vectors.
_CHUNKS, _VALUES = 100_000, 1 << 25
_SEED = 0

#: A function that is called with the number of chunks read so far.
Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ShardScan:
    """The chunks in shards, seen as vectors of a feature.

    Attributes
    ----------
    store
        Dataset.
    shards
        Shards to read, with rows.
    source
        Feature.
    """

    store: Store
    shards: Sequence[ShardSummary]
    source: Source

    def sample(self, dimensions: int) -> tuple[list[str], Vectors]:
        """Return a sample of chunks: the ids of their recordings, and their vectors.

        Parameters
        ----------
        dimensions
            Number of values in a vector.
        """
        ids, vectors = list[str](), list[Vectors]()
        most = max(128, min(_CHUNKS, _VALUES // dimensions))
        for number, rows in draw_rows([shard.rows for shard in self.shards], most, _SEED):
            with self.store.reading_shard(_file(self.shards[number])) as file:
                for names, part in read_chosen(file, self.source, rows):
                    ids += names
                    vectors.append(part)
        return ids, np.concatenate(vectors)

    def point_of(self, recording_id: str, shards: Iterable[ShardSummary], space: Space) -> Points:
        """Return the point of a recording, the mean of its chunks' points, from its shards."""
        points = list[Points]()
        for shard in shards:
            with self.store.reading_shard(_file(shard)) as file:
                for batch in read_vectors(file, self.source):
                    own = np.array(batch.columns["recording_id"]) == recording_id
                    points.append(space.points(batch.vectors[own]))
        mean: Points = np.concatenate(points).mean(axis=0)
        return mean

    def recordings(
        self,
        space: Space,
        score: Callable[[Points], Points],
        in_several: Mapping[str, int],
        report: Report,
    ) -> Iterator[RecordingSum]:
        """Yield all recordings, with the points of their chunks added up.

        Parameters
        ----------
        space
            Space of the points.
        score
            Function that returns the number by which points are ranked.
        in_several
            Number of shards of each recording that is in several, by id.
        report
            See :data:`Report`.
        """
        pending, read = OpenRecordings(in_several), 0
        for shard in self.shards:
            sums: dict[str, RecordingSum] = {}
            with self.store.reading_shard(_file(shard)) as file:
                for batch in read_vectors(file, self.source):
                    points = space.points(batch.vectors)
                    # Chunks of variants are in no ranking of chunks.
                    scores = np.where(batch.is_variant, -np.inf, score(points))
                    add_rows(batch, points, scores, shard.split, sums)
                    read += len(points)
                    report(read)
            yield from pending.close(sums)


def _file(shard: ShardSummary) -> str:
    if shard.parquet is None:
        raise ValueError(f"shard {shard.name} has no rows")
    return shard.parquet.name

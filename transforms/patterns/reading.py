"""Reading: the vectors of the chunks in shards, of all of them or of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.patterns.ranking import ChunkPlace, RecordingSum
from melmill.transforms.patterns.space import Points
from melmill.transforms.patterns.vectors import Form, Vectors, to_vectors
from melmill.transforms.rows.parquet import read_rows

Indices = npt.NDArray[np.int64]

#: Number of neighbouring rows that are drawn together: those of a row group, usually.
_RUN_ROWS = 128

_COLUMNS = (
    *("recording_id", "uri", "chunk_index", "channel", "variant", "start_sample"),
    "valid_samples",
)


@dataclass(frozen=True, slots=True)
class Source:
    """The feature that is compared.

    Attributes
    ----------
    feature
        Name of its column.
    form
        How it becomes vectors; see :func:`~melmill.transforms.patterns.vectors.form_of`.
    chunk
        Settings of the chunks.
    """

    feature: str
    form: Form
    chunk: ChunkSpec


@dataclass(frozen=True, slots=True, eq=False)
class VectorBatch:
    """The chunks of a row group.

    Attributes
    ----------
    columns
        Values of the columns of the rows by name; see the dataset's rows.
    vectors : float32 [chunks, dimensions]
        Vector of each chunk.
    """

    columns: dict[str, Any]
    vectors: Vectors

    @property
    def is_variant(self) -> npt.NDArray[np.bool_]:
        """Whether each chunk is one of a variant, and not of the recording as it is."""
        numbers = self.columns.get("variant")
        is_number = isinstance(numbers, np.ndarray) and numbers.dtype == np.int32  # and no label
        is_variant: npt.NDArray[np.bool_] = np.zeros(len(self.vectors), bool)
        return is_variant | (numbers != 0) if is_number else is_variant


def read_vectors(
    file: IO[bytes], source: Source, groups: Iterable[int] | None = None
) -> Iterator[VectorBatch]:
    """Yield the chunks of a shard by row group, of all row groups or of some.

    Raises
    ------
    ValueError, OSError
        The shard is damaged; see :func:`~melmill.transforms.rows.parquet.read_rows`.
    """
    length = source.chunk.length
    for batch in read_rows(file, groups, columns=(*_COLUMNS, source.feature)):
        columns = dict(batch.columns)
        valid = np.asarray(columns["valid_samples"]) / length
        if source.chunk.short == "repeat":
            valid = np.where(np.asarray(columns["chunk_index"]) == 0, 1.0, valid)
        yield VectorBatch(columns, to_vectors(batch.features[source.feature], valid, source.form))


def read_chosen(
    file: IO[bytes], source: Source, chosen: Indices
) -> Iterator[tuple[list[str], Vectors]]:
    """Yield the recordings' ids and the vectors of some rows of a shard, by row group."""
    metadata = pq.read_metadata(file)
    lengths = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    borders = np.cumsum([0, *lengths])
    groups = np.searchsorted(borders, chosen, side="right") - 1
    wanted = [int(group) for group in np.unique(groups)]
    for group, batch in zip(wanted, read_vectors(file, source, wanted), strict=True):
        rows = chosen[groups == group] - borders[group]
        yield [batch.columns["recording_id"][row] for row in rows], batch.vectors[rows]


def draw_rows(shard_rows: Sequence[int], most: int, seed: int) -> Iterator[tuple[int, Indices]]:
    """Yield the numbers of shards, and the rows of them that are in a sample.

    All rows are in the sample if they are few. Else runs of neighbouring rows are drawn, so that
    few row groups are read.

    Parameters
    ----------
    shard_rows
        Number of rows of each shard.
    most
        Largest number of rows in the sample, 128 or more.
    seed
        Seed of the draw.

    Examples
    --------
    >>> [(shard, len(rows)) for shard, rows in draw_rows([100, 300], 1000, 0)]
    [(0, 100), (1, 300)]
    >>> [(shard, rows.min(), rows.max()) for shard, rows in draw_rows([1000, 1000], 256, 0)]
    [(1, np.int64(256), np.int64(639))]
    """
    runs = np.array([-(-rows // _RUN_ROWS) for rows in shard_rows])
    number, total = most // _RUN_ROWS, int(runs.sum())
    everything = sum(shard_rows) <= most
    chosen = np.arange(total)
    if not everything:
        generator = np.random.default_rng(seed)
        chosen = np.sort(generator.choice(total, min(number, total), replace=False))
    first = 0
    for shard, (count, rows) in enumerate(zip(runs, shard_rows, strict=True)):
        within = chosen[(chosen >= first) & (chosen < first + count)] - first
        first += count
        if len(within):
            numbers = (within[:, np.newaxis] * _RUN_ROWS + np.arange(_RUN_ROWS)).ravel()
            yield shard, numbers[numbers < rows]


def add_rows(
    batch: VectorBatch, points: Points, scores: Points, split: str, sums: dict[str, RecordingSum]
) -> None:
    """Add the chunks of a row group to the sums of their recordings.

    Parameters
    ----------
    batch
        Chunks.
    points : float64 [chunks, components]
        Their points.
    scores : float64 [chunks]
        Number by which they are ranked; the highest comes first.
    split
        Split of the shard.
    sums
        Sums of the recordings in the shard, by id; they are changed.
    """
    ids, columns = batch.columns["recording_id"], batch.columns
    borders = [0, *(i for i in range(1, len(ids)) if ids[i] != ids[i - 1]), len(ids)]
    for start, stop in pairwise(borders):
        row = start + int(scores[start:stop].argmax())
        channel = int(columns["channel"][row]) if "channel" in columns else 0
        place = int(columns["chunk_index"][row]), channel, int(columns["start_sample"][row])
        best = ChunkPlace(float(scores[row]), *place)
        total = points[start:stop].sum(axis=0)
        added = RecordingSum(ids[start], columns["uri"][row], split, total, stop - start, best)
        if ids[start] in sums:
            sums[ids[start]].merge(added)
        else:
            sums[ids[start]] = added

"""The rows of recordings in shards: where they are, and their stored features.

The index says which shards hold a recording. Of a shard, first the small columns are read, which
say where the recording's rows are, and then the row groups that hold the wanted rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from melmill.pipelines.explore.kept import Kept
from melmill.transforms.core.errors import DatasetError, UnavailableError
from melmill.transforms.core.feature_columns import Array
from melmill.transforms.core.naming import shard_file
from melmill.transforms.rows.parquet import read_rows
from melmill.transforms.rows.schema import RowSchema
from melmill.transforms.store.folders import Store
from melmill.transforms.store.parquet_files import ParquetFile

#: Sizes of what is kept in memory: places of rows, and row groups.
_PLACES_BYTES, _ROW_GROUPS_BYTES = 1 << 26, 1 << 28


@dataclass(frozen=True, slots=True)
class Chunk:
    """A row of a shard without its features.

    Attributes
    ----------
    shard
        Name of the shard's file.
    group, row
        Number of the row group, and of the row in it.
    chunk_index, start_sample, valid_samples, sample_rate_hz, peak_dbfs, rms_dbfs
        Columns of the row.
    channel
        Channel of the row; ``None`` if channels have no rows of their own.
    labels
        Labels of the row, by name.
    """

    shard: str
    group: int
    row: int
    chunk_index: int
    start_sample: int
    valid_samples: int
    sample_rate_hz: int
    peak_dbfs: float
    rms_dbfs: float
    channel: int | None = None
    labels: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def start_seconds(self) -> float:
        """Start of the chunk in the audio file."""
        return self.start_sample / self.sample_rate_hz

    @property
    def stop_seconds(self) -> float:
        """End of the chunk's real samples in the audio file."""
        return (self.start_sample + self.valid_samples) / self.sample_rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """The small columns of a shard, and the first row of each row group and the end of the last.

    The columns are those of :class:`Chunk`, ``recording_id`` and the labels.
    """

    shard: str
    table: Any
    labels: tuple[str, ...]
    borders: npt.NDArray[np.int64]
    with_variants: bool = False

    def chunks(self, recording_id: str) -> list[Chunk]:
        """Return the rows of a recording, in the order of the file; not those of its variants."""
        is_own = pc.fill_null(pc.equal(self.table["recording_id"], recording_id), False)
        if self.with_variants:
            is_own = pc.and_(is_own, pc.equal(self.table["variant"], 0))
        numbers = np.flatnonzero(is_own.to_numpy())
        groups = np.searchsorted(self.borders, numbers, side="right") - 1
        rows = self.table.take(pa.array(numbers)).to_pylist()
        return [
            self._chunk(row, int(group), int(number - self.borders[group]))
            for row, group, number in zip(rows, groups, numbers, strict=True)
        ]

    def _chunk(self, row: dict[str, Any], group: int, number: int) -> Chunk:
        labels = {name: row.pop(name) for name in self.labels}
        del row["recording_id"]
        if self.with_variants:
            del row["variant"]
        return Chunk(self.shard, group, number, **row, labels=labels)


class ChunkReader:
    """Reads the rows of recordings from a dataset's shards, for several threads.

    The checksums of pages are verified. Memory is bounded by what is kept (320 MB) and by the
    row groups that are being read.

    Parameters
    ----------
    store
        Dataset. The shards of all versions have different names.
    """

    def __init__(self, store: Store) -> None:
        """Start with nothing read."""
        self._store = store
        self._places: Kept[_Places] = Kept(_PLACES_BYTES, lambda places: int(places.table.nbytes))
        self._arrays: Kept[Mapping[str, Array]] = Kept(_ROW_GROUPS_BYTES, _size_of)

    def chunks(self, recording: Mapping[str, Any]) -> list[Chunk]:
        """Return all rows of a recording by chunk and channel, without features and variants.

        Parameters
        ----------
        recording
            Columns ``recording_id``, ``split`` and ``shards`` of the index.

        Raises
        ------
        DatasetError
            A shard is missing or damaged; the message names it.
        UnavailableError
            The store failed with a transient error.
        """
        found = list[Chunk]()
        for shard in recording["shards"] or ():
            name = shard_file("parquet", recording["split"], shard)
            places = self._places.get(name, partial(self._read_places, name))
            found += places.chunks(recording["recording_id"])
        return sorted(found, key=lambda chunk: (chunk.chunk_index, chunk.channel or 0))

    def feature(self, chunk: Chunk, name: str) -> Array:
        """Return a stored feature of a chunk, in its own type and shape; FLAC is decoded.

        Raises
        ------
        DatasetError
            The shard is missing or damaged; the message names it.
        UnavailableError
            The store failed with a transient error.
        """
        values: Array = self.features(chunk, (name,))[name]
        return values

    def features(self, chunk: Chunk, names: Sequence[str]) -> dict[str, Any]:
        """Return several features of a chunk by name, read at once; see :meth:`feature`."""
        key = chunk.shard, chunk.group, tuple(names)
        arrays = self._arrays.get(key, partial(self._read_group, *key))
        return {name: array[chunk.row] for name, array in arrays.items()}

    def _read_places(self, shard: str) -> _Places:
        with (
            self._reading(shard) as file,
            ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            schema = RowSchema.from_arrow(parquet.schema_arrow)
            kinds = schema.columns()
            groups = range(parquet.metadata.num_row_groups)
            lengths = [parquet.metadata.row_group(group).num_rows for group in groups]
            names = [name for name in kinds if name != "uri" and name not in schema.counts]
            table = parquet.read(names)
        for number, name in enumerate(table.column_names):
            if kinds[name] == "string":  # texts repeat in the rows of a recording
                table = table.set_column(number, name, table[name].dictionary_encode())
        labels = tuple(label.name for label in schema.labels)
        borders = np.cumsum([0, *lengths])
        return _Places(shard, table, labels, borders, schema.with_variants)

    def _read_group(self, shard: str, group: int, names: Sequence[str]) -> Mapping[str, Array]:
        if not names:
            return {}
        with self._reading(shard) as file:
            (batch,) = read_rows(file, [group], columns=names)
        return batch.features

    @contextmanager
    def _reading(self, shard: str) -> Iterator[IO[bytes]]:
        """Open a shard; an error about it says what to do."""
        try:
            with self._store.reading_shard(shard) as file:
                yield file
        except UnavailableError:
            raise
        except DatasetError as error:
            command = shlex.join(["melmill", "validate", self._store.root])
            raise DatasetError(
                f"{error}\n{command} lists all files that are missing or damaged: put them back "
                "from a copy, or extract the recordings to a new dataset"
            ) from error


def _size_of(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())

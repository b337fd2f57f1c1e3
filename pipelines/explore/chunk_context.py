"""What the pages of chunks share: the reader of shards, and what decides how pictures look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from melmill.pipelines.explore.chunk_rows import Chunk, ChunkReader
from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Filter
from melmill.pipelines.explore.kept import Kept
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.pipelines.explore.stored_features import StoredFeatures
from melmill.pipelines.explore.unusual_chunks import UnusualChunks
from melmill.pipelines.sound.wav import PART_SECONDS

#: Number of pictures on a page.
PAGE = 48
#: Number of recordings whose row of the index is kept.
_ROWS = 1_000


@dataclass(slots=True)
class ChunkContext:
    """What the pages of chunks share.

    Attributes
    ----------
    explorer
        Explorer.
    reader
        Reader of the shards.
    unusual
        Searches for unusual chunks.
    """

    explorer: Explorer
    reader: ChunkReader
    unusual: UnusualChunks
    _features: dict[int, StoredFeatures] = field(default_factory=dict)
    _rows: Kept[dict[str, Any]] = field(default_factory=lambda: Kept(_ROWS, lambda row: 1))

    def features(self, table: RecordingTable) -> StoredFeatures:
        """Return the features of the version that a table shows."""
        if table.version not in self._features:
            self._features = {table.version: StoredFeatures.of(table.opened)}
        return self._features[table.version]

    def row(self, request: Request) -> dict[str, Any]:
        """Return the recording of an address; the answer is 404 if there is none."""
        # A page asks for tens of pictures of a recording.
        key = self.explorer.table.version, request.path_params["recording_id"]
        return self._rows.get(key, lambda: self.explorer.row_or_404(key[1]))

    def chunk(self, request: Request) -> tuple[dict[str, Any], list[Chunk], int]:
        """Return the recording of an address, its chunks, and the number of the chunk in them."""
        row = self.row(request)
        chunks = self.reader.chunks(row)
        index = request.path_params["chunk_index"]
        channel = request.query_params.get("channel")
        for number, chunk in enumerate(chunks):
            if chunk.chunk_index == index and channel in (None, str(chunk.channel or 0)):
                return row, chunks, number
        raise HTTPException(404, _no_such_chunk(chunks, index, channel))

    def look(self, request: Request) -> dict[str, Any]:
        """Return what decides how the pictures of a page look."""
        features = self.features(self.explorer.table)
        name, chosen = (request.query_params.get(known) for known in ("feature", "range"))
        column = features.array(name) if name or features.arrays else None
        return {
            "features": features,
            "feature": column,
            "range_of": features.range_of(column.name, chosen) if column else "own",
            "known_range": features.ranges.get(column.name) if column else None,
            "chosen": {"feature": name, "range": chosen},
            "no_filter": Filter(),
            "part_seconds": PART_SECONDS,
        }


def _no_such_chunk(chunks: Sequence[Chunk], index: int, channel: str | None) -> str:
    if not chunks:
        return "this recording has no chunks"
    channels = sorted({chunk.channel for chunk in chunks if chunk.channel is not None})
    of_channels = f", each of the channels 0 to {channels[-1]}" if channels else ""
    wanted = f"chunk {index}" + (f" of channel {channel}" if channel is not None else "")
    return (
        f"{wanted}: this recording has the chunks {chunks[0].chunk_index} to "
        f"{chunks[-1].chunk_index}{of_channels}"
    )

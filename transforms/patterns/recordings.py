"""Recordings of an index: how many there are, the one that a user names, and their readings."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.naming import fraction
from melmill.transforms.index.tables import read_batches, read_part
from melmill.transforms.patterns.reasons import flatten
from melmill.transforms.store.folders import Store

#: Number of names that an unknown name is compared with, and of names in a message.
_COMPARED, _NAMED = 20_000, 5

_COLUMNS = ["recording_id", "uri", "split", "rows", "shards"]


@dataclass(frozen=True, slots=True)
class IndexedRecording:
    """A recording's row of the index, as far as it is needed."""

    recording_id: str
    uri: str
    split: str
    rows: int
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordingIndex:
    """The index of a snapshot.

    Attributes
    ----------
    store, index, parts
        Dataset, name of the index, and number of its parts.
    split
        Split whose recordings are compared; ``None`` for all.
    """

    store: Store
    index: str
    parts: int
    split: str | None

    def count(self) -> tuple[int, dict[str, int]]:
        """Return the number of recordings with rows, and the numbers of shards of some of them.

        Most recordings are in one shard; the dictionary has those that are in several, by id.
        """
        total, in_several = 0, dict[str, int]()
        for batch in self._with_rows(["recording_id", "split", "rows", "shards"]):
            total += batch.num_rows
            longer = batch.filter(pc.greater(pc.list_value_length(batch["shards"]), 1))
            numbers = pc.list_value_length(longer["shards"]).to_pylist()
            in_several |= zip(longer["recording_id"].to_pylist(), numbers, strict=True)
        return total, in_several

    def _with_rows(self, columns: list[str]) -> Iterator[Any]:
        for batch in read_batches(self.store, self.index, "recordings", columns):
            has_rows = pc.greater(batch["rows"], 0)
            if self.split is not None:
                has_rows = pc.and_(has_rows, pc.equal(batch["split"], self.split))
            yield batch.filter(has_rows)

    def find(self, like: str, option: str = "like") -> IndexedRecording:
        """Return the recording with an id or a URI, or whose URI ends with a name.

        Parameters
        ----------
        like
            The name.
        option
            Name of what the user gave, for messages.

        Raises
        ------
        ConfigError
            There is no such recording, there are several, or it has no rows.
        """
        matches: defaultdict[int, list[IndexedRecording]] = defaultdict(list)
        for row in self._candidates(like):
            uri = row["uri"]
            ways = [row["recording_id"] == like, uri == like, uri.endswith(f"/{like}")]
            if any(ways):
                shards = tuple(row["shards"] or ())
                matches[ways.index(True)].append(IndexedRecording(**{**row, "shards": shards}))
        best = matches[min(matches)] if matches else []
        named = ", ".join(f"{row.recording_id} ({row.uri})" for row in best[:_NAMED])
        if not best:
            raise ConfigError(
                f"{option}: {like!r}: {self.store.root} has no such recording; name it by its URI, "
                f"by the end of its URI, or by its id{self._hint(like)}"
            )
        if len(best) > 1:
            raise ConfigError(f"{option}: {like!r}: means several recordings; give an id: {named}")
        if not best[0].rows:
            raise ConfigError(
                f"{option}: {like!r}: {named} has no rows to compare; name another recording"
            )
        return best[0]

    def _candidates(self, like: str) -> Iterator[dict[str, Any]]:
        for batch in read_batches(self.store, self.index, "recordings", _COLUMNS):
            has_id, has_end = (
                pc.equal(batch["recording_id"], like),
                pc.ends_with(batch["uri"], like),
            )
            yield from batch.filter(pc.or_(has_id, has_end)).to_pylist()

    def _hint(self, like: str) -> str:
        batches = self._with_rows(["uri", "split", "rows"])
        uris = islice((uri for batch in batches for uri in batch["uri"].to_pylist()), _COMPARED)
        names = {uri.rpartition("/")[2]: uri for uri in uris}
        close = difflib.get_close_matches(like.rpartition("/")[2], names, 3)
        return f" (did you mean {', '.join(names[name] for name in close)}?)" if close else ""

    def readings(
        self, wanted: Container[str], share: float
    ) -> Iterator[tuple[str, float, dict[str, float]]]:
        """Yield the id, the seconds and the readings of recordings with rows.

        Parameters
        ----------
        wanted
            Ids of recordings that are yielded.
        share
            Share of the other recordings that is yielded, too; see :func:`is_drawn`.
        """
        columns = ["recording_id", "split", "rows", "seconds", "measures"]
        for part in range(self.parts):
            table = read_part(self.store, self.index, "recordings", part, columns)
            ids = table["recording_id"].to_pylist()
            chosen = [i for i, name in enumerate(ids) if name in wanted or is_drawn(name, share)]
            for row in table.take(pa.array(chosen, pa.int64())).to_pylist():
                is_compared = row["rows"] and self.split in (None, row["split"])
                if is_compared or row["recording_id"] in wanted:
                    yield row["recording_id"], row["seconds"], flatten(row["measures"])


def is_drawn(recording_id: str, share: float) -> bool:
    """Return whether a recording is in a share of all recordings that its id alone decides."""
    return share >= 1 or fraction("patterns", recording_id) < share

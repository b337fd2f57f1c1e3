"""The recordings of an index, as a side table is compared with them: part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np
import pyarrow as pa

from melmill.transforms.index.tables import read_part
from melmill.transforms.side_tables.side_table import SideTable, list_parts, read_file
from melmill.transforms.side_tables.spools import Numbers, buckets_of
from melmill.transforms.store.folders import Store

#: Columns of the index that values are compared with.
COLUMNS = ["recording_id", "uri", "split", "rows", "channels"]


@dataclass(frozen=True, slots=True)
class KnownRecordings:
    """The recordings of an index.

    Attributes
    ----------
    store
        Dataset.
    index, parts
        Name of the index, and its number of parts.
    """

    store: Store
    index: str
    parts: int

    def part(self, number: int) -> pa.Table:
        """Return the recordings of a part."""
        return read_part(self.store, self.index, "recordings", number, COLUMNS)

    def bucket(self, number: int, buckets: int) -> pa.Table:
        """Return the recordings of a bucket; the number of buckets is a multiple of the parts."""
        recordings = self.part(number % self.parts)
        return recordings if buckets == self.parts else only_bucket(recordings, number, buckets)


def only_bucket(rows: pa.Table, number: int, buckets: int) -> pa.Table:
    """Return the rows whose recordings belong to a bucket."""
    return rows.filter(pa.array(buckets_of(rows["recording_id"], buckets) == number))


def with_side_parts(
    known: KnownRecordings, table: SideTable, columns: list[str]
) -> Iterator[tuple[pa.Table, Iterator[pa.Table]]]:
    """Yield the recordings of each part of an index, and the side table's rows that may be theirs.

    A digest of the recording chooses the part in both, so parts have recordings in common only if
    their numbers agree modulo the common divisor of the numbers of parts.
    """
    names, common = list_parts(known.store, table), gcd(known.parts, table.parts)
    for number in range(known.parts):
        files = names[number % common :: common]
        yield known.part(number), (read_file(known.store, name, columns) for name in files)


def rows_of_bucket(
    store: Store, table: SideTable, columns: list[str], number: int, buckets: int
) -> Iterator[pa.Table]:
    """Yield a side table's rows of a bucket."""
    names, common = list_parts(store, table), gcd(buckets, table.parts)
    for name in names[number % common :: common]:
        rows = read_file(store, name, columns)
        yield rows if buckets == table.parts else only_bucket(rows, number, buckets)


def limits_of_rows(recordings: pa.Table, per_channel: bool) -> tuple[Numbers, Numbers]:
    """Return the number of chunks, and of channels with rows of their own, of each recording."""
    rows = recordings["rows"].fill_null(0).to_numpy()
    if not per_channel:
        return rows, np.ones_like(rows)
    channels = np.maximum(recordings["channels"].fill_null(1).to_numpy(), 1).astype(np.int64)
    return rows // channels, channels

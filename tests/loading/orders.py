"""Small sources and orders for the tests of loading."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from melmill.transforms.loading.blocks import Blocks
from melmill.transforms.loading.mixing import Mixture, Source
from melmill.transforms.loading.row_order import RowOrder

#: Numbers of rows of shards: some fill blocks of 4 rows, some do not.
SHARDS = st.lists(st.integers(1, 23), min_size=1, max_size=8).map(tuple)
ORDERS = st.builds(
    RowOrder,
    seed=st.one_of(st.none(), st.integers(0, 3)),
    window_rows=st.integers(1, 30),
    lanes=st.integers(1, 7),
    turn_rows=st.integers(1, 9),
)


def one_source(shards: tuple[int, ...], order: RowOrder, block_rows: int = 4) -> Mixture:
    return Mixture((Source(Blocks(shards, block_rows)),), order)


def rows_at(mixture: Mixture, epoch: int, positions: np.ndarray) -> list[tuple[int, int]]:
    """Return the source and the row of each position."""
    places = mixture.places(epoch, np.asarray(positions, np.int64))
    arrays = places.sources, places.lanes, places.epochs, places.windows, places.numbers
    keys = zip(*(array.tolist() for array in arrays), strict=True)
    return [
        (source, int(mixture.lane_order(source, lane, part).window(window).rows[number]))
        for source, lane, part, window, number in keys
    ]


def all_rows(mixture: Mixture, epoch: int = 0) -> list[tuple[int, int]]:
    return rows_at(mixture, epoch, np.arange(mixture.rows))

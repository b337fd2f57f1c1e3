"""Parquet files that are read in the thread that asks."""

from __future__ import annotations

from functools import partialmethod

import pyarrow.parquet as pq


class ParquetFile(pq.ParquetFile):
    """A Parquet file whose columns are read without Arrow's own threads.

    Such a thread may outlive the call by a moment, in which it frees Python's bytes or file. A
    process that ends in this moment is aborted: "terminate called without an active exception".
    """

    read = partialmethod(pq.ParquetFile.read, use_threads=False)
    read_row_group = partialmethod(pq.ParquetFile.read_row_group, use_threads=False)
    read_row_groups = partialmethod(pq.ParquetFile.read_row_groups, use_threads=False)
    iter_batches = partialmethod(pq.ParquetFile.iter_batches, use_threads=False)

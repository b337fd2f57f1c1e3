"""Settings for how this process and its workers allocate and free memory.

A runner passes whole collections of records between processes: blocks of tens of megabytes, in
several copies. glibc first allocates such blocks from the system, and frees them to the system.
But after the first block is freed, glibc keeps all blocks up to that size in its heap, between
small blocks that stay in use. Planning 100,000 recordings took 629 MiB in the launcher and 504 MiB
in a worker; with a fixed threshold, it took 400 and 347 MiB.

A worker's Parquet writer allocates and frees memory for each row group. In glibc's heap this left
holes: a hundred row groups made a process 23 to 170 MiB larger, depending on the threshold.
jemalloc, which comes with pyarrow, does not grow, and reuses its memory. With new memory for every
page of a column, the system needed a fortieth of the whole extraction to clear the memory.
"""

from __future__ import annotations

import ctypes
import os

#: The threshold for large blocks: larger than a page of a column (1 MiB) and its compressed form,
#: and smaller than any block with the data of a row group.
_LARGE_BYTES = 2 << 20
_M_MMAP_THRESHOLD = -3  # <malloc.h>
_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
#: Environment variables of the workers, unless the user has set them.
FOR_WORKERS = {
    _THRESHOLD: f"{_LARGE_BYTES}",
    "MALLOC_TRIM_THRESHOLD_": f"{64 << 20}",
    "ARROW_DEFAULT_MEMORY_POOL": "jemalloc",
}


def tune_allocation() -> None:
    """Make this process and its child processes return freed large blocks to the system at once.

    Child processes keep smaller blocks. Environment variables that are already set do not change.
    The settings have an effect only with glibc.
    """
    if _THRESHOLD not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    for name, value in FOR_WORKERS.items():
        os.environ.setdefault(name, value)

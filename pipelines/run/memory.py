"""How this process and the workers it starts take memory from the system and give it back.

A runner passes whole collections of records between processes, tens of megabytes in one
block, several copies of it. glibc takes blocks of that size from the system and gives them
back, but only at first: once one was freed, it keeps all up to its size for later, between
small ones that stay. Measured when planning 100,000 recordings: 629 MiB in the launcher and
504 in a worker; with the threshold fixed 400 and 347.

What a worker's Parquet writer takes and gives back for each row group left holes in glibc's heap:
a hundred row groups made a process 23 to 170 MiB larger, depending on the threshold. jemalloc,
which pyarrow brings along, does not grow; and it keeps what it needs again: with new memory for
every page of a column, the system's clearing of it took a fortieth of the whole extraction.
"""

from __future__ import annotations

import ctypes
import os

#: More than a page of a column (1 MiB) and its compressed form; less than anything that is as
#: long as a row group.
_LARGE_BYTES = 2 << 20
_M_MMAP_THRESHOLD = -3  # <malloc.h>
_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
#: What the environment of the workers says, unless the user set it.
FOR_WORKERS = {
    _THRESHOLD: f"{_LARGE_BYTES}",
    "MALLOC_TRIM_THRESHOLD_": f"{64 << 20}",
    "ARROW_DEFAULT_MEMORY_POOL": "jemalloc",
}


def tune_allocation() -> None:
    """Return large blocks at once here and in child processes; have those keep smaller ones.

    What the environment says already stays as it is. Of use with glibc alone.
    """
    if _THRESHOLD not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    for name, value in FOR_WORKERS.items():
        os.environ.setdefault(name, value)

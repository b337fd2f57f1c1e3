"""How this process and the workers it starts take memory from the system and give it back.

A runner passes whole collections of records between processes, tens of megabytes in one
block, several copies of it. glibc takes blocks of that size from the system and gives them
back, but only at first: once one was freed, it keeps all up to its size for later, between
small ones that stay. Measured when planning 100,000 recordings: 629 MiB in the launcher
and 504 in a worker; with a threshold of 8 MiB 441 and 380.

What is smaller, a worker needs again for the next row group: fetched anew each time, the
system's clearing of those pages was a fortieth of the whole extraction.
"""

from __future__ import annotations

import ctypes
import os

#: More than a row group of 128 chunks (8.1 MiB), which a worker needs again; less than 50,000
#: planned recordings in one block.
_LARGE_BYTES = 12 << 20
_M_MMAP_THRESHOLD = -3  # <malloc.h>
_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"
_FOR_WORKERS = {
    _THRESHOLD: f"{_LARGE_BYTES}",
    "MALLOC_TRIM_THRESHOLD_": f"{64 << 20}",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def tune_allocation() -> None:
    """Return large blocks at once here and in child processes; have those keep smaller ones.

    What the environment says already stays as it is. Of use with glibc alone.
    """
    if _THRESHOLD not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    for name, value in _FOR_WORKERS.items():
        os.environ.setdefault(name, value)

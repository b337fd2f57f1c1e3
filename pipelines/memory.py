"""Memory given back to the system as soon as it is free.

A runner passes whole collections of records between processes, tens of megabytes in one
block, several copies of it. glibc takes blocks of that size from the system and gives them
back, but only at first: once one was freed, it keeps all up to its size for later, between
small ones that stay. Measured when planning 100,000 recordings: 629 MiB in the launcher
and 504 in a worker; with this 427 and 352.
"""

from __future__ import annotations

import ctypes
import os

_LARGE_BYTES = 8 << 20
_VARIABLE = "MALLOC_MMAP_THRESHOLD_"
_M_MMAP_THRESHOLD = -3  # <malloc.h>


def return_large_blocks() -> None:
    """Have this process, and those it starts, return blocks of 8 MiB and more at once.

    Does nothing where the C library is not glibc, or where the environment says otherwise.
    """
    if _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = str(_LARGE_BYTES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)

"""Estimate how long an extraction takes on this machine: its CPU seconds, divided among workers."""

from __future__ import annotations

import os

#: The time in seconds that Beam and its workers need to start, measured for docs/refresh.md.
START_SECONDS = 6.0
#: The share of a second worker's time that speeds the work up: two take 1 / 1.83 of one worker's
#: time (docs/speed.md, benchmarks/scaling.py).
WORKER_SHARE = 0.83


def estimate_seconds(cpu_seconds: float, workers: int = 0) -> float:
    """Return the wall-clock seconds that an extraction takes on this machine; a rough estimate.

    Parameters
    ----------
    cpu_seconds
        The CPU seconds of the work.
    workers
        The number of worker processes; 0 for one on each core.

    Examples
    --------
    >>> estimate_seconds(183, 1), estimate_seconds(183, 2)
    (189.0, 106.0)
    """
    number = workers or os.cpu_count() or 1
    return START_SECONDS + cpu_seconds / (1 + WORKER_SHARE * (number - 1))

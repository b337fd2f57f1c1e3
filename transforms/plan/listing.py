"""Lists a part of a job's catalogue: recordings in blocks, each in its version."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from melmill.transforms.catalogue.left_out import LeftOut
from melmill.transforms.catalogue.parts import Part, list_part
from melmill.transforms.core.records import Recording
from melmill.transforms.plan.job import ExtractJob

#: Number of recordings in a block.
BLOCK = 4096
#: Number of concurrent requests to a store.
_REQUESTS = 32


def list_blocks(
    job: ExtractJob,
    part: Part,
    left_out: LeftOut,
    passed_over: Counter[str],
    deadline: float = math.inf,
) -> Iterator[list[Recording]]:
    """Yield the recordings of a part of the catalogue in blocks.

    Recordings that are left out are marked here, before any of their data is read.

    Parameters
    ----------
    job
        Job of the run.
    part
        Part of the job's catalogue.
    left_out
        Recordings that stay out of the dataset.
    passed_over
        Numbers of files that are not listed, by extension; the function adds to them.
    deadline
        See :func:`~melmill.transforms.catalogue.listing.list_files`.
    """
    listed = list_part(job.catalogue, part, passed_over, deadline)
    while block := list(islice(listed, BLOCK)):
        yield [_mark(recording, left_out) for recording in block]


def _mark(recording: Recording, left_out: LeftOut) -> Recording:
    reason = left_out.reason(recording)
    return replace(recording, change=reason) if reason else recording


def look_up_versions(job: ExtractJob, recordings: Iterable[Recording]) -> list[Recording]:
    """Return recordings with their fingerprints, those that the listing lacks looked up."""
    known = list(recordings)
    if not any(map(needs_version, known)):
        return known
    with ThreadPoolExecutor(_REQUESTS) as threads:
        return list(threads.map(lambda r: job.in_its_version(r) if needs_version(r) else r, known))


def needs_version(recording: Recording) -> bool:
    """Return whether a listed recording lacks its fingerprint; one that is left out needs none."""
    return not (recording.fingerprint or recording.fault or recording.change)

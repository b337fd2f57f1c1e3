"""Lists a part of a job's catalogue: recordings in blocks, each in its version."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, pairwise

from melmill.transforms.catalogue.left_out import LeftOut
from melmill.transforms.catalogue.parts import Part, list_part
from melmill.transforms.catalogue.tables import duplicate_message
from melmill.transforms.core.compression import compress, decompress
from melmill.transforms.core.errors import CatalogueError
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
        yield [_mark(recording, left_out, job) for recording in block]


def _mark(recording: Recording, left_out: LeftOut, job: ExtractJob) -> Recording:
    reason = left_out.reason(recording)
    return replace(recording, change=reason) if reason else job.licenses.apply(recording)


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


def pack_recordings(recordings: list[Recording]) -> bytes:
    """Return recordings as compressed bytes, so that a shuffle moves less data."""
    fields = [tuple(getattr(r, name) for name in Recording.__slots__) for r in recordings]
    return compress(pickle.dumps(fields, pickle.HIGHEST_PROTOCOL))


def unpack_recordings(packed: bytes) -> list[Recording]:
    """Return the recordings that :func:`pack_recordings` packed.

    >>> song = Recording("id", "/songs/a.wav", "a.wav")
    >>> unpack_recordings(pack_recordings([song])) == [song]
    True
    """
    return [Recording(*values) for values in pickle.loads(decompress(packed))]


def by_identity(recordings: Iterable[Recording]) -> dict[str, Recording]:
    """Return recordings by ``recording_id``; raise ``CatalogueError`` if an id is not unique."""
    ordered = sorted(recordings, key=lambda recording: recording.recording_id)
    for previous, recording in pairwise(ordered):
        if previous.recording_id == recording.recording_id:
            raise CatalogueError(duplicate_message(previous, recording))
    return {recording.recording_id: recording for recording in ordered}

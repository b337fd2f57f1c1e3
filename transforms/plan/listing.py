"""Lists a part of a job's catalogue: recordings in blocks, each in its version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
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
    job: ExtractJob, part: Part, left_out: LeftOut, passed_over: Counter[str]
) -> Iterator[list[Recording]]:
    """Yield the recordings of a part of the catalogue in blocks.

    Recordings that are left out are marked here, before any of their data is read. Fingerprints
    that the listing does not contain are looked up.

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
    """

    def in_its_version(recording: Recording) -> Recording:
        return recording if recording.change else job.in_its_version(recording)

    listed = list_part(job.catalogue, part, passed_over)
    with ThreadPoolExecutor(_REQUESTS) as threads:
        while block := list(islice(listed, BLOCK)):
            block = [_mark(recording, left_out) for recording in block]
            if not all(recording.fingerprint for recording in block):
                block = list(threads.map(in_its_version, block))
            yield block


def _mark(recording: Recording, left_out: LeftOut) -> Recording:
    reason = left_out.reason(recording)
    return replace(recording, change=reason) if reason else recording

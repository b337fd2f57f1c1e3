"""Base classes of DoFns, which report progress and may use a decoder process."""

from __future__ import annotations

import apache_beam as beam

from melmill.transforms.beam.progress import Progress
from melmill.transforms.decode.lending import borrow_decoder, return_decoder
from melmill.transforms.plan.job import ExtractJob


class ReportingDoFn(beam.DoFn):
    """A DoFn that reports to the launcher the numbers that it adds to its ``progress``."""

    def __init__(self, address: str) -> None:
        """Store the address at which the launcher listens; ``""`` if it does not listen."""
        self._address = address

    def setup(self) -> None:
        """Create the counts."""
        self.progress = Progress(self._address)

    def finish_bundle(self) -> None:
        """Send the counts."""
        self.progress.tell()


class DecodingDoFn(ReportingDoFn):
    """A reporting DoFn that has a decoder process, ``decoder``, during each bundle."""

    def __init__(self, job: ExtractJob) -> None:
        """Store the job."""
        super().__init__(job.progress)
        self.job = job

    def start_bundle(self) -> None:
        """Borrow this worker's decoder process."""
        self.decoder = borrow_decoder(self.job.limits.memory_bytes)

    def finish_bundle(self) -> None:
        """Send the counts, and release the decoder process."""
        super().finish_bundle()
        return_decoder(self.job.limits.memory_bytes, self.decoder)

"""DoFns that steps build on: they tell how far they are, and may use a decoder process."""

from __future__ import annotations

import apache_beam as beam

from melmill.transforms.beam.metrics import Progress
from melmill.transforms.decode.lending import borrow_decoder, return_decoder
from melmill.transforms.plan.job import ExtractJob


class ReportingDoFn(beam.DoFn):
    """A DoFn that tells the launcher what it adds to its ``progress``."""

    def __init__(self, address: str) -> None:
        """Keep the address at which the launcher listens; ``""`` where it does not."""
        self._address = address

    def setup(self) -> None:
        """Start to count."""
        self.progress = Progress(self._address)

    def finish_bundle(self) -> None:
        """Send what was counted."""
        self.progress.tell()


class DecodingDoFn(ReportingDoFn):
    """A reporting DoFn that has a decoder process, ``decoder``, during each bundle."""

    def __init__(self, job: ExtractJob) -> None:
        """Keep the job."""
        super().__init__(job.progress)
        self.job = job

    def start_bundle(self) -> None:
        """Borrow this worker's decoder process."""
        self.decoder = borrow_decoder(self.job.limits.memory_bytes)

    def finish_bundle(self) -> None:
        """Send what was counted, and give the decoder process back."""
        super().finish_bundle()
        return_decoder(self.job.limits.memory_bytes, self.decoder)

"""Tagged outputs that several steps have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from melmill.transforms.core.records import Failure

FAILURES = "failures"


def tag_failures(result: Any) -> Iterator[Any]:
    """Yield a result of a step; a failure gets the tag ``failures``."""
    yield beam.pvalue.TaggedOutput(FAILURES, result) if isinstance(result, Failure) else result

"""Facts of which an index is written."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.transforms.core.records import Failure
from melmill.transforms.plan.planning import PlannedRecording
from melmill.transforms.rows.summaries import ShardSummary


@dataclass(frozen=True, slots=True)
class Again:
    """What became of a recording when it was planned and written once more.

    It stands for all that is known of the recording from before.
    """

    fact: PlannedRecording | Failure | ShardSummary

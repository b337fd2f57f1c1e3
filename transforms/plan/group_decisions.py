"""What a run decides about recordings that sound the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from melmill.transforms.plan.recordings import PlannedRecording

#: Treatment of duplicates: nothing, ``duplicate_of`` in the index, or only one of a group has rows:
#: one that the dataset has already, or the best.
Dedupe = Literal["off", "mark", "drop", "keep_best"]


def leaves_out(dedupe: Dedupe) -> bool:
    """Return whether only one recording of a group has rows."""
    return dedupe in ("drop", "keep_best")


@dataclass(frozen=True, slots=True)
class GroupDecisions:
    """The decisions about all groups of duplicates.

    Attributes
    ----------
    dedupe
        Treatment of duplicates.
    duplicate_of
        Id of the recording that is kept, by the ids of the other recordings of its group.
    splits
        Split of units that are or were in a group, by unit; see
        :func:`~melmill.transforms.plan.splits.split_unit`.
    """

    dedupe: Dedupe
    duplicate_of: Mapping[str, str]
    splits: Mapping[str, str]

    def kept_instead_of(self, recording_id: str) -> str:
        """Return the id of the recording that is kept instead of a recording; ``""`` if none is."""
        return self.duplicate_of.get(recording_id, "") if leaves_out(self.dedupe) else ""

    def applied(self, planned: PlannedRecording) -> PlannedRecording:
        """Return a recording in the split of its group, without chunks if another one is kept.

        Recordings without chunks are duplicates of nothing.
        """
        name = planned.probed.recording.recording_id
        planned = replace(planned, split=self.splits.get(planned.split_unit, planned.split))
        if not planned.chunks or name not in self.duplicate_of:
            return planned
        chunks = 0 if leaves_out(self.dedupe) else planned.chunks
        return replace(planned, duplicate_of=self.duplicate_of[name], chunks=chunks)

"""Searching: what is kept of the recordings while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from melmill.transforms.patterns.clusters import Centres
from melmill.transforms.patterns.ranking import RecordingSum, Top
from melmill.transforms.patterns.recordings import IndexedRecording, is_drawn
from melmill.transforms.patterns.space import Points, Space

#: Number of recordings that are listed for a cluster.
_NEAREST = 5


@dataclass(slots=True)
class Group:
    """A cluster while recordings are added to it."""

    recordings: int = 0
    chunks: int = 0
    nearest: Top[RecordingSum] = field(default_factory=lambda: Top(_NEAREST))


class Search:
    """The lists of the best recordings and chunks, and the clusters.

    Parameters
    ----------
    space, origin
        Space, and the point from which distances are measured.
    target
        Recording that the others are compared with; ``None`` for the most unusual ones.
    centres
        Centres of the clusters; ``None`` for no clusters.
    top
        Number of recordings and of chunks to keep.
    share
        Share of the recordings whose cluster is kept, for its typical readings.
    """

    def __init__(
        self,
        space: Space,
        origin: Points | float,
        target: IndexedRecording | None,
        centres: Centres | None,
        top: int,
        share: float,
    ) -> None:
        self._space, self._origin, self._centres = space, origin, centres
        self.target, self.share = target, share
        # The most unusual are the farthest, and the most similar are the nearest.
        self.sign = 1.0 if target is None else -1.0
        self.recordings, self.chunks = Top[RecordingSum](top), Top[RecordingSum](top)
        self.groups = [Group() for _ in (() if centres is None else centres.places)]
        self.cluster_of: dict[str, int] = {}

    def scores(self, points: Points) -> Points:
        """Return the numbers by which points are ranked; the highest comes first."""
        scores: Points = self.sign * self._space.distances(points, self._origin)
        return scores

    def add(self, recording: RecordingSum) -> None:
        """Add a recording."""
        if self.target is None or recording.recording_id != self.target.recording_id:
            name = recording.recording_id
            self.recordings.add(float(self.scores(recording.point)), name, recording)
            self.chunks.add(recording.best.score, name, recording)
        if self._centres is not None:
            self._add_to_group(recording, self._centres)

    def _add_to_group(self, recording: RecordingSum, centres: Centres) -> None:
        number, distance = centres.nearest(self._space.unscaled(recording.point))
        group = self.groups[number]
        group.recordings += 1
        group.chunks += recording.rows
        group.nearest.add(-distance, recording.recording_id, recording)
        if is_drawn(recording.recording_id, self.share):
            self.cluster_of[recording.recording_id] = number

    def listed(self) -> set[str]:
        """Return the ids of all recordings that are listed."""
        tops = self.recordings, *(group.nearest for group in self.groups)
        listed = {recording.recording_id for top in tops for _, recording in top.items()}
        return listed | ({self.target.recording_id} if self.target else set())


def mean_points(ids: Sequence[str], points: Points) -> Points:
    """Return the mean point of each recording, in the order of the ids."""
    _, numbers, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), points.shape[1]))
    np.add.at(sums, numbers, points)
    means: Points = sums / counts[:, np.newaxis]
    return means

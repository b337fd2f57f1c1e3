"""Runs: neighbouring frames that have something in common, such as silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.meters import Worst


@dataclass(slots=True)
class Runs:
    """The runs of a part of a recording, which grows at its end.

    Attributes
    ----------
    least_frames
        Least number of frames of a run that is kept in `worst`.
    start, frames
        First frame of the part, and its length.
    total_frames
        Number of frames in runs.
    lead_frames, trail_frames
        Lengths of the runs at the start and at the end; all frames if the part is a single run.
    longest_frames
        Length of the longest run that touches neither end.
    worst
        Longest runs that touch neither end.
    """

    least_frames: int
    start: int = 0
    frames: int = 0
    total_frames: int = 0
    lead_frames: int = 0
    trail_frames: int = 0
    longest_frames: int = 0
    worst: Worst = field(default_factory=Worst)

    def add(
        self, start: int, is_in_run: npt.NDArray[np.bool_], window_frames: int, frames: int
    ) -> None:
        """Add frames, window by window.

        Parameters
        ----------
        start, frames
            First frame, and number of frames.
        is_in_run
            Whether each window is a part of a run.
        window_frames
            Length of a window; the last one may be shorter.
        """
        position = 0
        for value, group in groupby(is_in_run.tolist()):
            length = min(frames - position, window_frames * len(list(group)))
            run = length if value else 0
            self.merge(Runs(self.least_frames, start + position, length, run, run, run))
            position += length

    def merge(self, later: Runs) -> None:
        """Add the part of the recording that follows."""
        if not self.frames:
            self.start = later.start
        joined = self.trail_frames + later.lead_frames
        has_start, has_end = self.lead_frames == self.frames, later.trail_frames == later.frames
        if joined and not has_start and not has_end:
            self._keep(joined, later.start - self.trail_frames)
        if has_start:
            self.lead_frames += later.lead_frames
        self.trail_frames = later.trail_frames + (self.trail_frames if has_end else 0)
        self.frames += later.frames
        self.total_frames += later.total_frames
        self.longest_frames = max(self.longest_frames, later.longest_frames)
        self.worst.merge(later.worst)

    def _keep(self, length: int, start: int) -> None:
        self.longest_frames = max(self.longest_frames, length)
        if length >= self.least_frames:
            self.worst.add([(length, start, 0)])

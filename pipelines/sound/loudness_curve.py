"""Loudness over time: momentary and short-term loudness by ITU-R BS.1770-4 and EBU R 128."""

from __future__ import annotations

import math
from collections import deque
from itertools import islice

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import BlockCutter, Shape, first_frame, last_frame
from melmill.transforms.measures.loudness import (
    MIN_RATE_HZ,
    MOMENTARY_HOPS,
    SHORT_TERM_HOPS,
    to_lufs,
    weighted_energies,
)

Floats = npt.NDArray[np.float32]


class LoudnessCurve:
    """The loudness of columns.

    Windows of 400 ms (momentary) and of three seconds (short-term) start at every hop of 100 ms,
    counted from the recording's start. The energies of the hops are those of
    :class:`~melmill.transforms.measures.loudness.LoudnessMeter`, so the maxima over a recording are
    its readings. A window stands for the hop around its centre. A column has the loudest of the
    windows whose hop overlaps it.

    Parameters
    ----------
    borders : int64 [columns + 1]
        First frame of each column, and the end of the last.
    shape
        Sample rate and number of channels.
    frames
        Length of the recording.

    Attributes
    ----------
    first_frame, stop_frame
        Frames that must be added, in order.
    momentary_lufs, short_term_lufs : float32 [columns]
        The loudness, of complete columns; NaN where there is no whole window, as at the start and
        the end; −∞ for silence. Below 4 kHz there is none: BS.1770 has no filters for such rates.
    complete
        Number of complete columns.
    """

    def __init__(self, borders: npt.NDArray[np.int64], shape: Shape, frames: int) -> None:
        self._borders, self._shape, self._frames = borders, shape, frames
        columns, half = len(borders) - 1, SHORT_TERM_HOPS // 2 * shape.hop_frames
        self.momentary_lufs = np.full(columns, np.nan, np.float32)
        self.short_term_lufs = np.full(columns, np.nan, np.float32)
        self.complete = 0
        self._is_defined = shape.rate_hz >= MIN_RATE_HZ
        length = shape.block_frames
        start = max(0, int(borders[0]) - half - shape.hop_frames) // length * length
        stop = min(frames, -(-(int(borders[-1]) + half + shape.hop_frames) // length) * length)
        self.first_frame = first_frame(start, shape)
        self.stop_frame = last_frame(stop, shape, frames)
        if not self._is_defined:
            self.first_frame, self.stop_frame = int(borders[0]), int(borders[-1])
        self._cutter = BlockCutter(shape, start, stop, frames)
        self._hop = start // shape.hop_frames
        self._energies: deque[float] = deque(maxlen=SHORT_TERM_HOPS)

    def add(self, samples: Floats, first: int) -> None:
        """Add the next frames, float32 [frames, channels]; `first` is the number of the first."""
        if not self._is_defined:
            self._complete_up_to(first + len(samples))
            return
        for block in self._cutter.cut(samples):
            for energy in weighted_energies(block):
                self._energies.append(energy)
                self._hop += 1
                self._end_windows()

    def finish(self) -> None:
        """Complete the columns after the last whole window."""
        self.complete = len(self._borders) - 1

    def _end_windows(self) -> None:
        """Draw the windows that end with the last hop."""
        for curve, hops in (
            (self.momentary_lufs, MOMENTARY_HOPS),
            (self.short_term_lufs, SHORT_TERM_HOPS),
        ):
            if len(self._energies) >= hops:
                latest = islice(self._energies, len(self._energies) - hops, None)
                lufs = to_lufs(math.fsum(latest) / hops)
                self._draw(curve, self._hop - hops // 2, -math.inf if lufs is None else lufs)
        self._complete_up_to((self._hop - SHORT_TERM_HOPS // 2) * self._shape.hop_frames)

    def _draw(self, curve: Floats, centre_hop: int, lufs: float) -> None:
        hop = self._shape.hop_frames
        first = max(centre_hop * hop - hop // 2, int(self._borders[0]))
        stop = centre_hop * hop - hop // 2 + hop
        if first < stop:
            left = int(np.searchsorted(self._borders, first, side="right")) - 1
            right = int(np.searchsorted(self._borders, stop, side="left"))
            columns = curve[left:right]
            np.fmax(columns, np.float32(lufs), out=columns)

    def _complete_up_to(self, frame: int) -> None:
        """Complete the columns that end half a hop before a frame: no later window reaches them."""
        border = frame - self._shape.hop_frames
        reached = int(np.searchsorted(self._borders, border, side="right")) - 1
        self.complete = max(self.complete, min(reached, len(self._borders) - 1))

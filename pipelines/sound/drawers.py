"""What draws the columns of a picture; each needs some frames before and after its columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melmill.pipelines.sound.envelope import Envelope
from melmill.pipelines.sound.loudness_curve import LoudnessCurve
from melmill.pipelines.sound.spectrogram import Spectrogram

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Drawers:
    """The drawers of a picture, which get the same frames.

    Attributes
    ----------
    envelope, spectrogram, loudness
        The drawers; ``None`` for those that are not wanted.
    """

    envelope: Envelope
    spectrogram: Spectrogram | None
    loudness: LoudnessCurve | None

    @property
    def _all(self) -> list[Envelope | Spectrogram | LoudnessCurve]:
        drawers = (self.envelope, self.spectrogram, self.loudness)
        return [drawer for drawer in drawers if drawer is not None]

    @property
    def first_frame(self) -> int:
        """First frame that any drawer needs."""
        return min(drawer.first_frame for drawer in self._all)

    @property
    def stop_frame(self) -> int:
        """End of the frames that any drawer needs."""
        return max(drawer.stop_frame for drawer in self._all)

    @property
    def complete(self) -> int:
        """Number of columns that are complete."""
        return min(drawer.complete for drawer in self._all)

    def add(self, samples: Floats, position: int) -> None:
        """Add the next frames, float32 [frames, channels]; `position` is that of the first."""
        for drawer in self._all:
            first, stop = drawer.first_frame - position, drawer.stop_frame - position
            if first < len(samples) and stop > 0:
                drawer.add(samples[max(0, first) : stop], position + max(0, first))

    def finish(self) -> None:
        """Complete the columns whose frames were all added: nothing follows."""
        for drawer in self._all:
            drawer.finish()

    def columns(self, first: int) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return the complete columns from one on.

        They are minima and maxima, levels, momentary and short-term loudness, in the shapes of
        :class:`~melmill.pipelines.sound.pictures.PicturePart`.
        """
        columns = slice(first, self.complete)
        count = columns.stop - first
        levels = np.empty((0, count), np.float32)
        momentary, short_term = np.full((2, count), np.nan, np.float32)
        if self.spectrogram:
            levels = self.spectrogram.levels_dbfs[:, columns].copy()
        if self.loudness:
            momentary = self.loudness.momentary_lufs[columns].copy()
            short_term = self.loudness.short_term_lufs[columns].copy()
        minima, maxima = self.envelope.minima[:, columns], self.envelope.maxima[:, columns]
        return minima.copy(), maxima.copy(), levels, momentary, short_term

"""The envelope of a waveform: the smallest and the largest sample of each column and channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Envelope:
    """Minima and maxima of columns.

    Parameters
    ----------
    borders : int64 [columns + 1]
        First frame of each column, and the end of the last.
    channels
        Number of channels.

    Attributes
    ----------
    first_frame, stop_frame
        Frames that must be added, in order.
    minima, maxima : float32 [channels, columns]
        The envelope, of complete columns.
    complete
        Number of complete columns.

    Examples
    --------
    >>> envelope = Envelope(np.array([0, 2, 4]), channels=1)
    >>> envelope.add(np.array([[1], [-3], [2]], np.float32), 0)
    >>> envelope.complete, envelope.minima[:, 0].tolist(), envelope.maxima[:, 0].tolist()
    (1, [-3.0], [1.0])
    """

    def __init__(self, borders: npt.NDArray[np.int64], channels: int) -> None:
        self._borders = borders
        self.first_frame, self.stop_frame = int(borders[0]), int(borders[-1])
        self.minima = np.full((channels, len(borders) - 1), np.inf, np.float32)
        self.maxima = np.full((channels, len(borders) - 1), -np.inf, np.float32)
        self.complete = 0

    def add(self, samples: npt.NDArray[np.float32], first: int) -> None:
        """Add the next frames, float32 [frames, channels], of which the first has a number."""
        stop = first + len(samples)
        left = int(np.searchsorted(self._borders, first, side="right")) - 1
        right = int(np.searchsorted(self._borders, stop, side="left"))
        cuts, columns = np.maximum(self._borders[left:right] - first, 0), slice(left, right)
        minima, maxima = self.minima[:, columns], self.maxima[:, columns]
        np.minimum(minima, np.minimum.reduceat(samples, cuts, axis=0).T, out=minima)
        np.maximum(maxima, np.maximum.reduceat(samples, cuts, axis=0).T, out=maxima)
        self.complete = int(np.searchsorted(self._borders, stop, side="right")) - 1

    def finish(self) -> None:
        """Do nothing: the last column is complete with its last frame."""

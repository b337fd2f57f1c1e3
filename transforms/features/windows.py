"""Windows over a chunk: the frames that they lie on, and the shape that they give them.

Shapes are sampled for the Fourier transform: one period, without its end point. The sums
of cosines are computed here because importing ``scipy.signal`` costs every new worker
more than a second; any other name is left to ``scipy.signal.get_window``.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PadMode = Literal["constant", "edge", "reflect", "symmetric"]

#: A block of frames and its spectrum together have at most this size, to stay in cache.
_BLOCK_BYTES = 1 << 21

#: Coefficients a_k of w(x) = Σ a_k·cos(k·x), x from -π to π: Harris, "On the use of
#: windows for harmonic analysis with the discrete Fourier transform" (1978), Nuttall,
#: "Some windows with very good sidelobe behavior" (1981), D'Antona and Ferrero, "Digital
#: signal processing for measurement systems" (2006); as in ``scipy.signal.windows``.
_COSINE_SUMS = {
    "boxcar": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.50, 0.08),
    "nuttall": (0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
}


def window_samples(name: str, length: int) -> NDArray[np.float64]:
    """Sample a window at the points that make it periodic (``fftbins=True``).

    Parameters
    ----------
    name
        A name that ``scipy.signal.get_window`` takes without parameters.
    length
        Number of samples, at least 1.

    Returns
    -------
    ndarray of shape [length], float64

    Raises
    ------
    ValueError
        If there is no such window, or it needs a parameter.

    Examples
    --------
    >>> window_samples("hann", 4)
    array([0. , 0.5, 1. , 0.5])
    """
    if name in _COSINE_SUMS:
        return _cosine_sum(_COSINE_SUMS[name], length)
    from scipy.signal import get_window

    try:
        return np.asarray(get_window(name, length), dtype=np.float64)
    except ValueError as error:  # before scipy 1.17 it does not name the window
        raise ValueError(f"window {name!r}: {error}") from error


def _cosine_sum(coefficients: tuple[float, ...], length: int) -> NDArray[np.float64]:
    if length == 1:
        return np.ones(1)
    angle = np.linspace(-np.pi, np.pi, length + 1)[:-1]
    total = np.zeros(length)
    for order, coefficient in enumerate(coefficients):
        total += coefficient * np.cos(order * angle)
    return total


def centred_window(name: str, length: int, n_fft: int) -> NDArray[np.float32]:
    """Put a window in the middle of a Fourier transform, zeros around it.

    Parameters
    ----------
    name, length
        See :func:`window_samples`.
    n_fft
        Length of the transform, at least ``length``.

    Returns
    -------
    ndarray of shape [n_fft], float32
        As ``librosa.util.pad_center``: the odd zero, if any, is the last.
    """
    before = (n_fft - length) // 2
    return np.pad(window_samples(name, length), (before, n_fft - length - before)).astype(
        np.float32
    )


class PaddedFrames:
    """The overlapping frames of one chunk at a time, in memory that is made once.

    Parameters
    ----------
    chunk_samples
        Length of every chunk.
    frame_samples, hop_samples
        Length and distance of the frames.
    margin_samples
        How much padding goes before the chunk, and as much after it.
    pad_mode
        What the padding is, in the words of ``numpy.pad``; ``constant`` is zeros.
    """

    def __init__(
        self,
        *,
        chunk_samples: int,
        frame_samples: int,
        hop_samples: int,
        margin_samples: int,
        pad_mode: PadMode,
    ) -> None:
        """Lay the frames over zeros."""
        padded = np.zeros(margin_samples + chunk_samples + margin_samples, np.float32)
        self._before, self._chunk, self._after = np.split(
            padded, [margin_samples, margin_samples + chunk_samples]
        )
        self._frames = np.lib.stride_tricks.sliding_window_view(padded, frame_samples)[
            ::hop_samples
        ]
        self._mirrored = pad_mode != "constant"
        if self._mirrored:
            source = np.pad(np.arange(chunk_samples), margin_samples, mode=pad_mode)
            self._source_before = source[:margin_samples]
            self._source_after = source[margin_samples + chunk_samples :]

    def of(self, chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lay the frames over a chunk.

        Parameters
        ----------
        chunk
            Shape [chunk_samples], float32. Copied.

        Returns
        -------
        ndarray of shape [n_frames, frame_samples], float32, read-only
            A view, valid until the next call.
        """
        self._chunk[:] = chunk
        if self._mirrored:
            self._before[:] = chunk[self._source_before]
            self._after[:] = chunk[self._source_after]
        return self._frames


def frame_blocks(n_frames: int, frame_samples: int) -> list[slice]:
    """Cut a chunk's frames into blocks that the processor's cache holds.

    Parameters
    ----------
    n_frames, frame_samples
        How many frames of how many float32 samples; at least one of each.

    Returns
    -------
    list of slice
        In order; equally long but for the last, which may be shorter.

    Examples
    --------
    >>> frame_blocks(130, 2048)
    [slice(0, 65, None), slice(65, 130, None)]
    """
    most = max(1, _BLOCK_BYTES // (2 * frame_samples * np.dtype(np.float32).itemsize))
    length = math.ceil(n_frames / math.ceil(n_frames / most))
    return [slice(i, min(i + length, n_frames)) for i in range(0, n_frames, length)]

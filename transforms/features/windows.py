"""Window functions, and the overlapping frames of a chunk that they are applied to.

Windows are sampled for the Fourier transform: one period, without its end point. Sums of
cosines are computed here because importing ``scipy.signal`` costs every new worker more
than a second. All other windows come from ``scipy.signal.get_window``.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PadMode = Literal["constant", "edge", "reflect", "symmetric"]

#: Maximum size of a block of frames and its spectrum together, so that they stay in cache.
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
    """Return the samples of a periodic window (``fftbins=True``).

    Parameters
    ----------
    name
        Window name that ``scipy.signal.get_window`` accepts without parameters.
    length
        Number of samples, at least 1.

    Returns
    -------
    ndarray of shape [length], float64

    Raises
    ------
    ValueError
        The window does not exist, or it needs a parameter.

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
    except ValueError as error:  # before scipy 1.17 the message does not name the window
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
    """Return a window centred in the length of a Fourier transform, with zeros around it.

    Parameters
    ----------
    name, length
        Name and length of the window, see :func:`window_samples`.
    n_fft
        Length of the transform, at least ``length``.

    Returns
    -------
    ndarray of shape [n_fft], float32
        As in ``librosa.util.pad_center``: if the number of zeros is odd, one more is at the end.
    """
    before = (n_fft - length) // 2
    return np.pad(window_samples(name, length), (before, n_fft - length - before)).astype(
        np.float32
    )


class PaddedFrames:
    """The overlapping frames of one chunk at a time; the memory is allocated once.

    Parameters
    ----------
    chunk_samples
        Length of each chunk.
    frame_samples, hop_samples
        Length of a frame, and distance between the starts of two frames.
    margin_samples
        Length of the padding on each side of the chunk.
    pad_mode
        Mode of the padding, as in ``numpy.pad``; ``constant`` pads with zeros.
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
        """Allocate the padded chunk, and create the frames as views of it."""
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
        """Return the frames of a chunk.

        Parameters
        ----------
        chunk
            Samples of shape [chunk_samples], float32. They are copied.

        Returns
        -------
        ndarray of shape [n_frames, frame_samples], float32, read-only
            View of the frames, valid until the next call.
        """
        self._chunk[:] = chunk
        if self._mirrored:
            self._before[:] = chunk[self._source_before]
            self._after[:] = chunk[self._source_after]
        return self._frames


def frame_blocks(n_frames: int, frame_samples: int) -> list[slice]:
    """Return slices that divide a chunk's frames into blocks that fit in the processor's cache.

    Parameters
    ----------
    n_frames, frame_samples
        Number of frames, and number of float32 samples per frame; at least 1 each.

    Returns
    -------
    list of slice
        Consecutive slices of equal length; the last slice may be shorter.

    Examples
    --------
    >>> frame_blocks(130, 2048)
    [slice(0, 65, None), slice(65, 130, None)]
    """
    max_length = max(1, _BLOCK_BYTES // (2 * frame_samples * np.dtype(np.float32).itemsize))
    length = math.ceil(n_frames / math.ceil(n_frames / max_length))
    return [slice(i, min(i + length, n_frames)) for i in range(0, n_frames, length)]

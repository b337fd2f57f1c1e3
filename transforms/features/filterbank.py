"""The mel filterbank: overlapping triangles, evenly spaced on the mel scale.

The result equals ``librosa.filters.mel``. We do not use librosa here because its import
costs every new worker more than two seconds.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney", "none"]

#: Axis over which the sides of the triangles are straight.
Triangles = Literal["hz", "mel"]

#: Number of neighbouring bands that one multiplication sums. Neighbours share most bins.
_BANDS_PER_BLOCK = 8

#: Slaney, "Auditory Toolbox, version 2" (1998): linear up to 1 kHz, then 27 steps to 6.4 kHz.
_SLANEY_HZ_PER_MEL = 200.0 / 3
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = float(np.log(6.4)) / 27.0


def hz_to_mel(frequency_hz: float, scale: MelScale) -> float:
    """Return the position of a frequency on the mel scale.

    ``htk`` is m = 2595·log10(1 + f/700), Young et al., "The HTK Book", section 5.4;
    ``slaney`` is m = 3f/200 up to 1 kHz and m = 15 + 27·ln(f/1000)/ln(6.4) above.

    Parameters
    ----------
    frequency_hz
        Frequency, not negative.
    scale
        Name of the mel scale.

    Returns
    -------
    float, in mel

    Examples
    --------
    >>> round(hz_to_mel(1000.0, "slaney"), 3)
    15.0
    >>> round(hz_to_mel(1000.0, "htk"), 3)
    999.986
    """
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + frequency_hz / 700.0)
    if frequency_hz < _SLANEY_KNEE_HZ:
        return frequency_hz / _SLANEY_HZ_PER_MEL
    return _SLANEY_KNEE_MEL + math.log(frequency_hz / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP


def mel_to_hz(mels: NDArray[np.float64], scale: MelScale) -> NDArray[np.float64]:
    """Return the frequencies of positions on the mel scale; the inverse of :func:`hz_to_mel`.

    Parameters
    ----------
    mels
        Positions in mel; shape [n], float64.
    scale
        Name of the mel scale.

    Returns
    -------
    ndarray of shape [n], float64, in Hz
    """
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))
    above_knee = _SLANEY_KNEE_HZ * np.exp(_SLANEY_LOG_STEP * (mels - _SLANEY_KNEE_MEL))
    return np.where(mels < _SLANEY_KNEE_MEL, _SLANEY_HZ_PER_MEL * mels, above_knee)


def mel_filterbank(
    *,
    sample_rate_hz: int,
    n_fft: int,
    n_mels: int,
    f_min_hz: float,
    f_max_hz: float,
    scale: MelScale = "slaney",
    norm: MelNorm = "slaney",
    triangles: Triangles = "hz",
) -> NDArray[np.float64]:
    """Return the matrix that sums the bins of a spectrum into mel bands.

    ``n_mels + 2`` points are evenly spaced in mel from ``f_min_hz`` to ``f_max_hz``. Band m
    is a triangle over frequency in Hz: 0 at points m and m+2, and 1 at point m+1
    (``librosa/filters.py``, after Slaney's ``mfcc.m``). With ``norm`` ``slaney`` each
    triangle is divided by half its width in Hz, so that its area is 1. With `triangles` ``mel``
    the bands are triangles over mel, as in Kaldi (``feat/mel-computations.cc``).

    Parameters
    ----------
    sample_rate_hz, n_fft
        Sample rate and transform length of the spectrum.
    n_mels
        Number of bands.
    f_min_hz, f_max_hz
        Lower edge of the first band and upper edge of the last band.
    scale
        Name of the mel scale, see :func:`hz_to_mel`.
    norm, triangles
        Normalisation and axis of the triangles, see above.

    Returns
    -------
    ndarray of shape [n_mels, 1 + n_fft // 2], float64
        Weights in 1/Hz where ``norm`` is ``slaney``, else without a unit. A band narrower
        than the distance between two bins may be all zeros.
    """
    bins = np.fft.rfftfreq(n_fft, d=1.0 / sample_rate_hz)
    mels = np.linspace(hz_to_mel(f_min_hz, scale), hz_to_mel(f_max_hz, scale), n_mels + 2)
    edges = edges_hz = mel_to_hz(mels, scale)
    if triangles == "mel":
        bins, edges = np.array([hz_to_mel(bin_hz, scale) for bin_hz in bins]), mels
    width = np.diff(edges)[:, np.newaxis]
    ramps = edges[:, np.newaxis] - bins
    weights = np.maximum(0.0, np.minimum(-ramps[:-2] / width[:-1], ramps[2:] / width[1:]))
    if norm == "slaney":
        weights *= 2.0 / (edges_hz[2:] - edges_hz[:-2])[:, np.newaxis]
    return weights


class BandedSum:
    """A matrix product with a filterbank that skips the zeros far from the diagonal.

    The 128 bands are cut into blocks of 8 bands. Each block multiplies only the bins that it
    touches. This needs a tenth of the multiplications and, as measured, half the time. The
    blocks depend only on the filterbank, so equal spectra give equal sums, bit for bit.

    Parameters
    ----------
    weights
        Filterbank of shape [n_mels, n_columns], float32.
    """

    def __init__(self, weights: NDArray[np.float32]) -> None:
        """Cut the weights into blocks of bands."""
        self._blocks = []
        for first in range(0, len(weights), _BANDS_PER_BLOCK):
            bands = slice(first, min(first + _BANDS_PER_BLOCK, len(weights)))
            touched = np.flatnonzero(weights[bands].any(axis=0))
            columns = slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0)
            self._blocks.append((bands, columns, np.ascontiguousarray(weights[bands, columns])))

    def __call__(self, spectrum: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write ``weights @ spectrum.T``.

        Parameters
        ----------
        spectrum
            Input of shape [n_frames, n_columns], float32.
        out
            Output of shape [n_mels, n_frames], float32.
        """
        for bands, columns, weights in self._blocks:
            np.matmul(weights, spectrum[:, columns].T, out=out[bands])

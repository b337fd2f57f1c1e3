"""Window functions.

A periodic window is sampled for the Fourier transform: one period, without its end point. A
symmetric window contains the end point. Sums of cosines are computed here because importing
``scipy.signal`` costs every new worker more than a second. All other windows come from
``scipy.signal.get_window``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Position of a window that is shorter than the Fourier transform.
WindowPosition = Literal["center", "left"]

#: Exponent of Kaldi's Povey window, a power of the Hann window (``feat/feature-window.cc``).
_POVEY_EXPONENT = 0.85

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


def window_samples(name: str, length: int, *, periodic: bool = True) -> NDArray[np.float64]:
    """Return the samples of a window.

    Parameters
    ----------
    name
        Window name that ``scipy.signal.get_window`` accepts without parameters, or ``povey``.
    length
        Number of samples, at least 1.
    periodic
        Whether the window is periodic (``fftbins=True``) or symmetric.

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
    >>> window_samples("hann", 5, periodic=False)
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    if name == "povey":
        return np.asarray(window_samples("hann", length, periodic=periodic) ** _POVEY_EXPONENT)
    if name in _COSINE_SUMS:
        return _cosine_sum(_COSINE_SUMS[name], length, periodic)
    from scipy.signal import get_window

    try:
        return np.asarray(get_window(name, length, fftbins=periodic), dtype=np.float64)
    except ValueError as error:  # before scipy 1.17 the message does not name the window
        raise ValueError(f"window {name!r}: {error}") from error


def _cosine_sum(
    coefficients: tuple[float, ...], length: int, periodic: bool
) -> NDArray[np.float64]:
    if length == 1:
        return np.ones(1)
    angle = np.linspace(-np.pi, np.pi, length + periodic)[:length]
    total = np.zeros(length)
    for order, coefficient in enumerate(coefficients):
        total += coefficient * np.cos(order * angle)
    return total


def place_window(
    window: NDArray[np.float64], n_fft: int, position: WindowPosition
) -> NDArray[np.float32]:
    """Return the window as it is applied to a frame, with zeros around a centred window.

    Parameters
    ----------
    window
        Samples of shape [length], float64.
    n_fft
        Length of the Fourier transform, at least ``length``.
    position
        ``center`` as in ``librosa.util.pad_center``: if the number of zeros is odd, one more is
        at the end. ``left``: no zeros, because the frame is as long as the window.

    Returns
    -------
    ndarray of shape [n_fft], or [length] where the position is ``left``; float32
    """
    if position == "left":
        return window.astype(np.float32)
    before = (n_fft - len(window)) // 2
    return np.pad(window, (before, n_fft - len(window) - before)).astype(np.float32)

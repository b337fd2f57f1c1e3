"""Integrated loudness by ITU-R BS.1770-4, at any sample rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Constants of the two filters of BS.1770-4 as analogue prototypes, for any rate: B. De Man,
#: "Evaluation of implementations of the EBU R128 loudness measurement" (2018). libebur128 and
#: FFmpeg use the same.
_SHELF_HZ, _SHELF_DB, _SHELF_Q = 1681.9744509555319, 3.99984385397, 0.7071752369554193
_SHELF_BAND_EXPONENT = 0.4996667741545416
_HIGH_PASS_HZ, _HIGH_PASS_Q = 38.13547087613982, 0.5003270373253953

#: LUFS of a mean square of 1 in one channel, after the filters.
_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
#: Blocks of 400 ms, one every 100 ms.
_HOPS_PER_BLOCK = 4


def k_weighting(rate_hz: int) -> NDArray[np.float64]:
    """Return the filters of BS.1770-4 for a sample rate, as second-order sections [2, 6].

    >>> k_weighting(48_000).round(6)[0].tolist()  # table 1 of BS.1770-4
    [1.535125, -2.691696, 1.198393, 1.0, -1.690659, 0.732481]
    """
    warped = np.tan(np.pi * _SHELF_HZ / rate_hz)
    gain = 10 ** (_SHELF_DB / 20)
    band = gain**_SHELF_BAND_EXPONENT
    squared, scaled = warped * warped, warped / _SHELF_Q
    shelf = [gain + band * scaled + squared, 2 * (squared - gain), gain - band * scaled + squared]
    shelf_poles = [1 + scaled + squared, 2 * (squared - 1), 1 - scaled + squared]
    warped = np.tan(np.pi * _HIGH_PASS_HZ / rate_hz)
    squared, scaled = warped * warped, warped / _HIGH_PASS_Q
    poles = [1 + scaled + squared, 2 * (squared - 1), 1 - scaled + squared]
    sections = [
        np.divide([*shelf, *shelf_poles], shelf_poles[0]),
        # The numerator of the high-pass filter is not normalised in the recommendation.
        [1, -2, 1, *np.divide(poles, poles[0])],
    ]
    return np.array(sections, np.float64)


def integrated_loudness(samples: NDArray[np.float32], rate_hz: int) -> float:
    """Return the integrated loudness of one channel in LUFS; −inf for silence.

    A recording of a single channel is measured as one channel, as in libebur128. Sounds shorter
    than a block of 400 ms are measured as one block.

    Parameters
    ----------
    samples
        Samples of one channel, full scale 1.0.
    rate_hz
        Sample rate.

    Examples
    --------
    >>> sine = np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000)
    >>> round(integrated_loudness(sine, 48_000), 1)  # as annex 1 of BS.1770-4 says
    -3.0
    """
    from scipy.signal import sosfilt  # imported here, because few recipes need it

    if not len(samples):
        return -np.inf
    weighted = sosfilt(k_weighting(rate_hz), samples.astype(np.float64))
    hop = round(rate_hz / 10)
    energies = weighted * weighted
    hops = energies[: len(energies) // hop * hop].reshape(-1, hop).mean(axis=1)
    if len(hops) < _HOPS_PER_BLOCK:
        blocks = energies.mean(keepdims=True)
    else:
        windows = np.lib.stride_tricks.sliding_window_view(hops, _HOPS_PER_BLOCK)
        blocks = windows.mean(axis=1)
    blocks = blocks[_lufs(blocks) > _ABSOLUTE_GATE_LUFS]
    if not len(blocks):
        return -np.inf
    gate = _lufs(blocks.mean()) + _RELATIVE_GATE_LU
    return float(_lufs(blocks[_lufs(blocks) > gate].mean()))


def _lufs(mean_square: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return _OFFSET_LUFS + 10 * np.log10(mean_square)

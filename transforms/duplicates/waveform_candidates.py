"""Keys of waveforms: copies of a short recording have several in common, other sounds few.

A waveform is divided into slices of equal loudness, and each slice into bands. A key has one bit
for each of some random directions: the sign of the levels' component (M. Charikar, "Similarity
estimation techniques from rounding algorithms", STOC 2002). Copies have nearly the same levels, so
nearly the same bits; and a recording has keys of many directions, so copies have some keys that are
the same. The slices move with the sound, so the delay of an encoder does not change the keys.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from melmill.transforms.duplicates.candidates import POSTING, Postings
from melmill.transforms.measures.short_waveforms import RATE_HZ, Waveform

# The figures were chosen with 840 clips of 0.1 to 6 s of music, speech, nature and drums.

#: Number of keys of a waveform. With 32 keys of 20 bits, 0.996 of the copies whose correlation is
#: 0.9 or more have two keys in common.
KEYS = 32
#: Bits of a key: so many more than the logarithm of the number of waveforms, but at least and at
#: most so many. Among 100,000 clips of music, a clip has nine candidates with 20 bits.
_MORE_BITS, _LEAST_BITS, _MOST_BITS = 3, 12, 28
#: Bit that tells keys of waveforms from those of words.
_WAVEFORM_KEY = 1 << 62

#: Hop and frame of 10 ms and 40 ms.
_HOP, _FRAME = RATE_HZ // 100, RATE_HZ // 25
_BORDERS_HZ = (100, 150, 200, 270, 360, 480, 640, 850, 1100, 1400, 1850)
_SLICES = 4
#: Share of the loudest frame's amplitude below which a frame is not in a slice.
_QUIET = 0.03
#: Smallest power of a band, as a share of the largest: codecs change what is quieter.
_LEAST_POWER = 0.01
#: Share of the mean spectrum that is left out: what the sounds of an instrument have in common.
_COMMON = 0.7


def waveform_key_bits(waveforms: int) -> int:
    """Return the number of bits of a key, 12 to 28, for a number of waveforms.

    The number of keys grows with the catalogue, so that the number of postings of a key does not.

    >>> waveform_key_bits(0), waveform_key_bits(100_000), waveform_key_bits(1 << 40)
    (12, 20, 28)
    """
    log2 = math.ceil(math.log2(waveforms)) if waveforms else 0
    return min(_MOST_BITS, max(_LEAST_BITS, log2 + _MORE_BITS))


def waveform_postings(recording: int, waveform: Waveform, bits: int) -> Postings:
    """Return the postings of a waveform, sorted by key; all have the position 0.

    A waveform without sound above 100 Hz has none.

    Parameters
    ----------
    recording
        Number of the recording, below 2**64.
    waveform : int8 [samples]
        Waveform of the recording.
    bits
        Number of bits of a key; see :func:`waveform_key_bits`. It must be the same for all
        recordings of a search.
    """
    levels = _levels(waveform)
    if levels is None:
        return np.empty(0, POSTING)
    is_positive = (levels @ _directions()).reshape(KEYS, _MOST_BITS)[:, :bits] > 0
    numbers = is_positive @ (np.uint64(1) << np.arange(bits, dtype=np.uint64))
    rows = np.zeros(KEYS, POSTING)
    rows["key"] = _WAVEFORM_KEY | np.arange(KEYS, dtype=np.uint64) << np.uint64(32) | numbers
    rows["recording"] = recording
    return rows


@cache
def _directions() -> npt.NDArray[np.float64]:
    """Return the directions, float64 [slices * bands, keys * bits]."""
    size = _SLICES * (len(_BORDERS_HZ) - 1), KEYS * _MOST_BITS
    return np.random.default_rng(0).standard_normal(size)


def _levels(waveform: Waveform) -> npt.NDArray[np.float64] | None:
    """Return the levels of all bands in all slices, less what most sounds have in common."""
    powers = _band_powers(waveform)
    loudness = np.sqrt(powers.sum(axis=1))
    loudness = np.maximum(0, loudness - _QUIET * loudness.max())
    total = loudness.sum()
    if not total:
        return None
    # The place of each frame among the slices, which are equally loud.
    places = (np.cumsum(loudness) - loudness / 2) * (_SLICES / total)
    weights = np.maximum(0, 1 - np.abs(places - (np.arange(_SLICES)[:, None] + 0.5)))
    slices = weights @ powers
    levels = np.log(slices + _LEAST_POWER * slices.max())
    levels -= _COMMON * levels.mean(axis=0)
    centred: npt.NDArray[np.float64] = (levels - levels.mean()).ravel()
    return centred


def _band_powers(waveform: Waveform) -> npt.NDArray[np.float64]:
    """Return the power in each band of each frame, float64 [frames, bands]."""
    from scipy.fft import rfft  # imported here, because few processes need it

    padded = np.pad(waveform.astype(np.float32), _FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    spectra = rfft(frames * np.hanning(_FRAME + 1)[:-1].astype(np.float32), axis=1)
    bins = np.ceil(np.array(_BORDERS_HZ) * _FRAME / RATE_HZ).astype(np.intp)
    powers = np.square(np.abs(spectra[:, : bins[-1]])).astype(np.float64)
    bands: npt.NDArray[np.float64] = np.add.reduceat(powers, bins[:-1], axis=1)
    return bands

"""Correlation: whether two short recordings of equal length are the same, by their waveforms.

Copies have a correlation near 1 at one lag. A match must hold in each part and in each band that is
not quiet, so that two clips with one attack or one bass are no match. A sound that repeats itself,
like a tone, correlates with any sound that has its period: a match must be much better than the
correlation of the sound with itself, moved by a period.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from melmill.transforms.duplicates.verification import Match
from melmill.transforms.measures.short_waveforms import RATE_HZ, Waveform

_Spectrum = npt.NDArray[np.complex64]
_Real = npt.NDArray[np.float32]

# The figures are those of 840 clips of music, speech, nature and drums in 18 codecs and forms, and
# of 330,000 pairs of such clips that are no copies.

#: Largest lag, and largest difference of lengths, in samples: 150 ms. MP3 adds 138 ms at 8 kHz if
#: the decoder does not know of the padding; AAC adds up to 125 ms, other codecs less than 100 ms.
MAX_LAG = round(0.15 * RATE_HZ)
#: Smallest correlation of a match. Codecs that keep the waveform have more in 0.99 of the copies.
MIN_CORRELATION = 0.9
#: Smallest correlation on a grid of half samples of a pair that may have :data:`MIN_CORRELATION`.
_MIN_COARSE = 0.6
#: Smallest correlation of a part or a band that is not quiet.
MIN_PART = 0.7
#: Share of the energy of the loudest part or band below which one is quiet.
_QUIET = 0.01
#: Length of a part, in samples: 150 ms, about.
_PART = round(0.15 * RATE_HZ)
_BORDERS_HZ = (60, 250, 500, 1000, 2000)
#: What a match lacks to a correlation of 1, at most, as a share of what the sound lacks when it is
#: compared with itself, moved by a period.
MAX_OF_REPETITION = 0.5
#: Least number of hops of 5 ms over which the energy would be spread evenly. A click has one, and
#: is like any other click. A recording that is cut off at both ends has two clicks: 2.5 hops, if
#: the rest has a tenth of the energy. Of 690 drums, 0.05 have less.
LEAST_HOPS = 2.5
#: Least number of bands of 20 Hz over which the energy would be spread evenly. A tone has one, and
#: is like any other tone of its pitch; of 690 drums, 0.05 have less than 1.5.
LEAST_BANDS = 1.5
_BAND_HZ = 20
#: Share of the energy that overlaps, at least, where a sound is compared with itself.
_LEAST_OVERLAP = 0.3
_HOP = RATE_HZ // 200
#: Frequency below which sound counts less: rumble and offset, which some codecs remove.
_LOW_HZ = 100.0
#: Number of lags in a sample.
_COARSE, _FINE = 2, 8


def compare_waveforms(first: Waveform, second: Waveform, offset: int = 0) -> Match | None:
    """Return the match of two waveforms; ``None`` if they do not match.

    Parameters
    ----------
    first, second : int8 [samples]
        Waveforms of the recordings.
    offset
        It is ignored: all small lags are tried.

    Returns
    -------
    Match or None
        A match of the kind ``same``; offset and overlap are in samples. The error is half of what
        the correlation lacks to 1, so that it is near 0.5 for unrelated sounds.

    Examples
    --------
    >>> noise = np.random.default_rng(1).integers(-100, 101, 4000).astype(np.int8)
    >>> compare_waveforms(noise, np.concatenate([np.zeros(80, np.int8), noise]))
    Match(kind='same', offset=80, overlap=4000, error=0.0)
    >>> compare_waveforms(noise, noise[::-1]) is None
    True
    """
    if abs(len(first) - len(second)) > MAX_LAG:
        return None
    # The result must not depend on which recording is the first, also where it is close.
    if (len(second), second.tobytes()) < (len(first), first.tobytes()):
        match = compare_waveforms(second, first)
        return match and replace(match, offset=-match.offset)
    pair = _Pair.of(first, second)
    if pair is None or pair.best(_COARSE)[0] < _MIN_COARSE:
        return None
    correlation, lag, sign = pair.best(_FINE)
    if correlation < MIN_CORRELATION or not pair.holds(correlation, sign * pair.aligned(lag)):
        return None
    shift = round(lag)
    overlap = min(len(first), len(second) - shift) - max(0, -shift)
    return Match("same", shift, overlap, round((1 - correlation) / 2, 6))


@dataclass(frozen=True, slots=True)
class _Pair:
    """The spectra of two waveforms, each with an energy of 1.

    Attributes
    ----------
    first, second : complex64 [samples / 2 + 1]
        Spectra, without what is very low.
    samples
        Number of samples with the zeros after the waveforms.
    length
        Number of samples of the longer waveform.
    """

    first: _Spectrum
    second: _Spectrum
    samples: int
    length: int

    @classmethod
    def of(cls, first: Waveform, second: Waveform) -> _Pair | None:
        """Return the spectra; ``None`` if a waveform has no sound, or only a click or a tone."""
        from scipy.fft import next_fast_len

        length = max(len(first), len(second))
        samples = 2 * next_fast_len((length + MAX_LAG) // 2 + 1)
        spectra = [_spectrum(waveform, samples) for waveform in (first, second)]
        if spectra[0] is None or spectra[1] is None:
            return None
        return cls(spectra[0], spectra[1], samples, length)

    def best(self, lags: int) -> tuple[float, float, int]:
        """Return the largest correlation at a small lag, the lag in samples, and the sign.

        Parameters
        ----------
        lags
            Number of lags in a sample.
        """
        found = lags * _inverse(np.conj(self.first) * self.second, lags * self.samples)
        around = np.concatenate([found[-lags * MAX_LAG :], found[: lags * MAX_LAG + 1]])
        place = int(np.abs(around).argmax())
        value = float(around[place])
        return min(1.0, abs(value)), place / lags - MAX_LAG, 1 if value > 0 else -1

    def aligned(self, lag: float) -> _Spectrum:
        """Return the second spectrum, moved by a lag to the place of the first."""
        turns = np.arange(len(self.second)) * (2j * np.pi * lag / self.samples)
        moved: _Spectrum = self.second * np.exp(turns).astype(np.complex64)
        return moved

    def holds(self, correlation: float, second: _Spectrum) -> bool:
        """Return whether a correlation is that of a copy, where the second spectrum is aligned."""
        least = min(self._change(spectrum) for spectrum in (self.first, self.second))
        if 1 - correlation > MAX_OF_REPETITION * least:
            return False
        return self._bands(second) >= MIN_PART and self._parts(second) >= MIN_PART

    def _change(self, spectrum: _Spectrum) -> float:
        """Return what the correlation of a sound with itself, moved by a period, lacks to 1.

        Only the part counts where the two overlap, so a tone that decays lacks nothing.
        """
        power = np.square(np.abs(spectrum)).astype(np.complex64)
        correlation = _inverse(power, self.samples)[: MAX_LAG + 1]
        energies = np.cumsum(np.square(_inverse(spectrum, self.samples)))
        last = max(0, self.length - 1 - MAX_LAG)
        heads = energies[self.length - 1 : last - 1 if last else None : -1]
        tails = energies[-1] - np.append(0, energies[: len(heads) - 1])
        overlap = np.sqrt(np.maximum(0, heads * tails))
        correlation = correlation[: len(heads)] / np.maximum(overlap, _LEAST_OVERLAP)
        after = np.flatnonzero(correlation <= 0)
        return 1 - float(correlation[after[0] :].max()) if len(after) else 0.0

    def _bands(self, second: _Spectrum) -> float:
        """Return the smallest correlation of a band."""
        bins = [round(border * self.samples / RATE_HZ) for border in _BORDERS_HZ]
        spectra = [spectrum[: bins[-1] + 1] for spectrum in (self.first, second)]
        products = [np.square(np.abs(spectrum)) for spectrum in spectra]
        products.append((np.conj(spectra[0]) * spectra[1]).real)
        return _smallest(*(np.add.reduceat(product, bins[:-1]) for product in products))

    def _parts(self, second: _Spectrum) -> float:
        """Return the smallest correlation of a part."""
        sounds = [
            _inverse(spectrum, self.samples)[: self.length] for spectrum in (self.first, second)
        ]
        parts = max(1, round(self.length / _PART))
        starts = np.arange(parts) * self.length // parts
        products = sounds[0] ** 2, sounds[1] ** 2, sounds[0] * sounds[1]
        return _smallest(*(np.add.reduceat(product, starts) for product in products))


def _spectrum(waveform: Waveform, samples: int) -> _Spectrum | None:
    """Return the spectrum of a waveform; ``None`` if it has no sound, or only a click or a tone."""
    from scipy.fft import rfft  # imported here, because few processes need it

    squares = (np.arange(samples // 2 + 1) * (RATE_HZ / samples)) ** 2
    high = (squares / (squares + _LOW_HZ**2)).astype(np.float32)
    high[-1] = 0  # half the sample rate, which has no phase
    spectrum = rfft(waveform.astype(np.float32), samples) * high
    sound = _inverse(spectrum, samples)
    energies = np.square(sound)
    energy = float(energies.sum())
    band = round(_BAND_HZ * samples / RATE_HZ)
    if not energy or _spread(energies, _HOP) < LEAST_HOPS:
        return None
    if _spread(np.square(np.abs(spectrum)), band) < LEAST_BANDS:
        return None
    scaled: _Spectrum = spectrum / np.float32(np.sqrt(energy))
    return scaled


def _spread(energies: _Real, length: int) -> float:
    """Return over how many pieces of a length the energy would be spread evenly, at least.

    The pieces may start at two places, so that a peak between two of them counts once.
    """
    sums = [
        np.add.reduceat(energies, np.r_[0, np.arange(first, len(energies), length)])
        for first in (length, length // 2)
    ]
    return min(float(part.sum() ** 2 / np.square(part).sum()) for part in sums)


def _inverse(spectrum: _Spectrum, samples: int) -> _Real:
    from scipy.fft import irfft

    sound: _Real = irfft(spectrum, samples)
    return sound


def _smallest(first: _Real, second: _Real, common: _Real) -> float:
    """Return the smallest correlation where a sound is not quiet, from energies and products."""
    energies = np.maximum(first, second)
    is_loud = energies >= _QUIET * energies.max()
    scales = np.sqrt(np.maximum(first * second, np.finfo(np.float32).tiny))
    return float((common / scales)[is_loud].min())

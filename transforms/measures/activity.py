"""Activity: how often sounds begin, and how much of the sound is like speech.

Both are read from the power in 14 bands, every 10 ms, of the mean of the channels at about 4 kHz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Samples, Shape
from melmill.transforms.measures.meters import Measure, Reading

Powers: TypeAlias = npt.NDArray[np.float32]

MEASURES = (
    Measure(
        "activity.onset_rate",
        "float",
        "1/s",
        "Beginnings of sounds per second: notes, strokes, syllables. It ranks recordings, and is "
        "no tempo. The first 16 seconds are measured, then every other two seconds.",
    ),
    Measure(
        "activity.speech_like",
        "float",
        "",
        "Share of the sound that changes in level and timbre as speech does, in pieces of two "
        "seconds; silent pieces do not count. It is a hint, not a verdict: bare drums may seem "
        "like speech, and speech in loud noise or music does not. The first 16 seconds are "
        "measured, then every other two seconds.",
    ),
)

#: Lowest rate of recordings with readings, and rate to which others are lowered, or up to twice it.
_LEAST_RATE_HZ, _LOW_RATE_HZ = 4_000, 4_000
#: Number of first blocks that are all measured; after them, every other block is.
_FIRST_BLOCKS = 8
#: Frames in a hop of 100 ms, and duration of a frame; its number of samples is a power of two.
_FRAMES_PER_HOP, _FRAME_S = 10, 0.026
_FRAMES_PER_S = 10 * _FRAMES_PER_HOP
#: Number of bands, their lowest and highest frequency, and the largest share of the lowered rate.
_BANDS, _LOWEST_HZ, _HIGHEST_HZ, _HIGHEST_SHARE = 14, 100.0, 3_900.0, 0.4875
#: Number of low bands; the others, from 550 to 800 Hz on, are the high ones.
_LOW_BANDS = 8
#: Power that is added to each band (-80 dBFS), so that steps of 16 bits in silence are no sound.
_FLOOR = 1e-8
#: Largest sample that is measured as it is.
_LARGEST = 1e6
#: An onset is compared with the frame 30 ms earlier; it is the largest rise within 30 ms, and
#: exceeds the mean rise within 50 ms by so many dB. White noise then has an onset in 20 s.
_LAG, _NEAR, _MEAN, _RISE_DB = 3, 3, 5, 1.8
_NEARBY = np.arange(-_NEAR, _NEAR + 1)
#: Pieces that are shorter, or in which fewer frames than this share reach -60 dBFS, are not judged.
_PIECE_S, _SOUNDING, _SILENT = 1.0, 0.05, 1e-6
#: Shorter recordings have no rate of onsets.
_LEAST_S = 0.1
#: Speech: the least power of the modulation at the rate of syllables, over the squared mean; the
#: least share of frames below half the mean amplitude; and the range of the standard deviation
#: of the high bands over the low bands.
_SYLLABLES_HZ, _MODULATION, _QUIET_SHARE, _TILT_DB = (3.0, 6.0), 0.4, 0.1, (5.5, 18.0)
#: Frames whose power is below this share of the mean power have no tilt. With more power than this
#: in the high bands, over that in the low bands, the sound is a whistle or a hiss.
_TILT_SHARE, _HIGH_OVER_LOW = 0.02, 4.0


@dataclass(slots=True)
class ActivityMeter:
    """Onsets and speech-like pieces of a part of a recording.

    A piece is a block. There is no reading below 4 kHz, or of less than 100 ms. There is no reading
    of speech if blocks are shorter than a second (see :class:`Shape`), or all pieces are silent.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    frames
        Number of measured frames of the recording.
    onsets
        Number of onsets in them; the first and the last 40 ms of a recording have none.
    sounding, speaking
        Length of the pieces that are not silent, and of those like speech, in units of 10 ms.
    """

    shape: Shape
    frames: int = 0
    onsets: int = 0
    sounding: int = 0
    speaking: int = 0

    def add(self, block: Block) -> None:
        """Add the next block."""
        number = block.start // self.shape.block_frames
        if self.shape.rate_hz < _LEAST_RATE_HZ or (number >= _FIRST_BLOCKS and number % 2):
            return
        self.frames += block.frames
        powers, before = band_powers(block)
        frames = -(-block.frames * _FRAMES_PER_HOP // self.shape.hop_frames)
        onsets = find_onsets(powers) - before
        self.onsets += int(((onsets >= 0) & (onsets < frames)).sum())
        piece = powers[max(0, before) : max(0, before + frames)]
        is_long = len(piece) >= _PIECE_S * _FRAMES_PER_S
        if is_long and (piece.sum(axis=1) > _SILENT).mean() > _SOUNDING:
            self.sounding += len(piece)
            self.speaking += len(piece) * is_speech_like(piece)

    def merge(self, later: ActivityMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.frames += later.frames
        self.onsets += later.onsets
        self.sounding += later.sounding
        self.speaking += later.speaking

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name."""
        seconds = self.frames / self.shape.rate_hz
        return {
            "activity.onset_rate": self.onsets / seconds if seconds >= _LEAST_S else None,
            "activity.speech_like": self.speaking / self.sounding if self.sounding else None,
        }


def band_powers(block: Block) -> tuple[Powers, int]:
    """Return the powers in bands around a block, and the number of frames before the block.

    Returns
    -------
    float32 [frames, bands]
        Frames of 10 ms, as far as they have all of their samples. The first frames of a recording
        lack samples: then their number before the block is negative.
    """
    from scipy.fft import rfft  # imported here, because few processes need it

    shape = block.shape
    factor = _factor(shape.rate_hz, shape.hop_frames)
    low_rate_hz, hop = shape.rate_hz / factor, shape.hop_frames // factor
    samples = _lowered(block.around, factor)
    length = 1 << round(math.log2(low_rate_hz * _FRAME_S))
    centres, first = _centres(hop, block.before // factor, len(samples), length)
    if not len(centres):
        return np.empty((0, _BANDS), np.float32), 0
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[centres - length // 2]
    spectra = rfft(frames * _window(length), axis=1)
    powers = np.square(spectra.real) + np.square(spectra.imag)
    return powers @ _bands(low_rate_hz, length), -first


def find_onsets(powers: Powers) -> npt.NDArray[np.int64]:
    """Return the frames in which sounds begin.

    The detection function is the spectral flux of logarithmic powers in bands, and its peaks are
    picked by an adaptive threshold (S. Böck, F. Krebs and M. Schedl, "Evaluating the online
    capabilities of onset detection methods", ISMIR 2012). The earlier frame has the maximum of
    neighbouring bands, so that a vibrato is no onset (S. Böck and G. Widmer, "Maximum filter
    vibrato suppression for onset detection", DAFx 2013).

    Parameters
    ----------
    powers : float32 [frames, bands]

    Examples
    --------
    >>> powers = np.full((50, 14), 1e-6, np.float32)
    >>> powers[20:] = 1e-2
    >>> find_onsets(powers).tolist()
    [20]
    """
    if len(powers) <= _LAG + 1:
        return np.empty(0, np.int64)
    # Sums of two frames: a bass note of 40 Hz has one pulse in most frames, and two in others.
    levels = 10 * np.log10(powers[:-1] + powers[1:] + np.float32(_FLOOR))
    earlier = levels[:-_LAG].copy()
    np.maximum(earlier[:, 1:], levels[:-_LAG, :-1], out=earlier[:, 1:])
    np.maximum(earlier[:, :-1], levels[:-_LAG, 1:], out=earlier[:, :-1])
    rises = np.maximum(levels[_LAG:] - earlier, 0)
    flux = np.zeros(_LAG + len(rises) + _MEAN)
    flux[_LAG:-_MEAN] = rises.mean(axis=1)
    length = 2 * _MEAN + 1
    means = np.convolve(flux, np.full(length, 1 / length))[_MEAN:-_MEAN]
    high = np.flatnonzero(flux >= means + _RISE_DB)
    near = flux[(high[:, np.newaxis] + _NEARBY).clip(0, len(flux) - 1)]
    peaks: npt.NDArray[np.int64] = high[near.argmax(axis=1) == _NEAR]
    return peaks


def is_speech_like(powers: Powers) -> bool:
    """Return whether a piece of sound changes as speech does.

    Syllables modulate it at 3 to 6 Hz, many frames are quiet (both of E. Scheirer and M. Slaney,
    "Construction and evaluation of a robust multifeature speech/music discriminator", ICASSP 1997),
    and it changes between vowels and fricatives (J. Saunders, "Real-time discrimination of
    broadcast speech/music", ICASSP 1996, by zero crossings; here by the high bands over the low).

    Parameters
    ----------
    powers : float32 [frames, bands]
    """
    total = powers.sum(axis=1)
    amplitudes = np.sqrt(total)
    if (amplitudes < amplitudes.mean() / 2).mean() < _QUIET_SHARE:
        return False
    loud = powers[total > _TILT_SHARE * total.mean()] + np.float32(_FLOOR)
    low, high = loud[:, :_LOW_BANDS].sum(axis=1), loud[:, _LOW_BANDS:].sum(axis=1)
    tilt = (10 * np.log10(high / low)).std()
    if high.sum() > _HIGH_OVER_LOW * low.sum() or not _TILT_DB[0] <= tilt <= _TILT_DB[1]:
        return False
    envelopes = np.sqrt(powers)
    modulated = np.square(_syllables(len(powers)) @ envelopes).sum()
    return bool(modulated >= _MODULATION * np.square(envelopes.mean(axis=0)).sum())


@lru_cache(maxsize=32)
def _factor(rate_hz: int, hop: int) -> int:
    """Return the largest factor that leaves 4 kHz, and divides a hop."""
    most = max(1, rate_hz // _LOW_RATE_HZ)
    return max(factor for factor in range(1, most + 1) if hop % factor == 0)


def _lowered(around: Samples, factor: int) -> Samples:
    """Return the means of neighbouring samples of all channels; absurd samples are limited."""
    with np.errstate(over="ignore", invalid="ignore"):
        mix = _means(around, factor)
        if np.abs(mix).max(initial=0) < _LARGEST:
            return mix
    finite = np.nan_to_num(around, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST)
    return _means(finite.clip(-_LARGEST, _LARGEST), factor)


def _means(around: Samples, factor: int) -> Samples:
    mix: Samples = around.sum(axis=0)
    pieces = mix[: len(mix) // factor * factor].reshape(-1, factor)
    means: Samples = pieces @ np.full(factor, 1 / (factor * len(around)), np.float32)
    return means


@lru_cache(maxsize=64)
def _centres(hop: int, before: int, samples: int, length: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return the centres of the frames that have all samples, and the number of the first frame.

    Frame 0 has its centre at the start of the block, so that all blocks have the same grid.
    """
    numbers = np.arange(
        -_FRAMES_PER_HOP * before // hop, 1 + _FRAMES_PER_HOP * (samples - before) // hop
    )
    centres = before + numbers * hop // _FRAMES_PER_HOP
    is_whole = (centres >= length // 2) & (centres <= samples - length // 2)
    return centres[is_whole], int(numbers[is_whole][0]) if is_whole.any() else 0


@lru_cache(maxsize=32)
def _window(length: int) -> Samples:
    """Return the window of Hann, scaled so that powers add up to the mean square."""
    window = np.hanning(length + 1)[:-1]
    scale = np.sqrt(2 / (length * np.square(window).sum()))
    scaled: Samples = (window * scale).astype(np.float32)
    return scaled


@lru_cache(maxsize=32)
def _bands(rate_hz: float, length: int) -> Powers:
    """Return which bins each band has, as ones and zeros, float32 [bins, bands]."""
    highest_hz = min(_HIGHEST_HZ, _HIGHEST_SHARE * rate_hz)
    edges = np.rint(np.geomspace(_LOWEST_HZ, highest_hz, _BANDS + 1) * length / rate_hz)
    # A band has a bin or more; the first two bins have what leaks from an offset.
    steps = np.arange(_BANDS + 1)
    edges = np.maximum.accumulate(np.maximum(edges, 2) - steps) + steps
    bins = np.arange(length // 2 + 1)[:, np.newaxis]
    return ((edges[:-1] <= bins) & (bins < edges[1:])).astype(np.float32)


@lru_cache(maxsize=32)
def _syllables(frames: int) -> Powers:
    """Return cosines and sines of the frequencies of syllables, float32 [2 · bins, frames].

    The squares of their products with an envelope add up to the power of its modulation, whose
    unit is the squared mean: that of an envelope 1 + m · cos is m².
    """
    seconds = frames / _FRAMES_PER_S
    low, high = _SYLLABLES_HZ
    bins = np.arange(math.ceil(low * seconds), math.floor(high * seconds) + 1)
    phases = 2 * np.pi * np.outer(bins, np.arange(frames) / frames)
    return np.float32(2 / frames) * np.concatenate([np.cos(phases), np.sin(phases)]).astype(
        np.float32
    )

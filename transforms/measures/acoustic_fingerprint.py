"""Acoustic fingerprint: words that stay nearly the same when a recording is encoded again.

The idea is that of J. Haitsma and T. Kalker, "A highly robust audio fingerprinting system" (ISMIR
2002): each bit tells whether the difference between two neighbouring bands grows. Here, the words
are 100 ms apart, and a word compares bands of 500 ms over 600 ms, which withstands codecs and cuts
better than the paper's 370 ms over 11.6 ms.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from melmill.transforms.measures.blocks import Block, Shape
from melmill.transforms.measures.meters import Measure, Reading
from melmill.transforms.measures.short_waveforms import (
    MOST_SECONDS,
    packed,
    unpacked,
    waveform_text,
)

MEASURES = (
    Measure(
        "acoustic.digest",
        "text",
        "",
        "Digest of all samples of all channels: recordings with the same digest sound exactly the "
        "same, whatever their container and tags.",
    ),
    Measure(
        "acoustic.fingerprint",
        "text",
        "",
        "Words of 32 bits in base64, ten words a second, of the first half hour: re-encoded copies "
        "have nearly the same words. A word is 0 where the recording is silent or does not change.",
    ),
    Measure(
        "acoustic.waveform",
        "text",
        "",
        "Waveform of a recording of at most six seconds, in base64: the mean of the channels "
        "without its offset, 4,000 samples of 8 bits a second, scaled to its peak.",
    ),
)

#: Number of words a second.
WORDS_PER_SECOND = 10

_Powers = npt.NDArray[np.float32]

#: Sample rate of the fingerprint, and its hop of 100 ms.
_RATE_HZ, _HOP = 8000, 800
#: Hops in a frame: each frame is centred on its hop.
_FRAME_HOPS = 3
#: Borders of the bands.
_LOWEST_HZ, _HIGHEST_HZ, _BANDS = 300.0, 3000.0, 33
#: A word compares sums of neighbouring hops that are some hops apart. The sums keep the words of a
#: copy alike that is cut between two hops.
_SUM, _SPAN = 3, 6
#: Hops before the first that has a word, and so many are kept for a word across a border.
_CONTEXT = _SPAN + _SUM - 1
#: Sum of powers below which a word's hops are silent: −70 dBFS in three hops.
_SILENT_POWER = 3e-7
#: Least change of the bands' powers, as a share of their sum: less is a steady tone.
_LEAST_CHANGE = 0.05
#: Least number of neighbouring bits of a word that differ. Tones have up to 5, and would be alike;
#: of 25,000 words of music, speech and noise, only some of speech had fewer than 8.
_LEAST_BIT_CHANGES = 6
#: Largest sample that the fingerprint hears; full scale is 1.
_LARGEST = 1000.0
#: Maximum number of words of a recording: half an hour. It bounds the memory for the index.
_MOST_WORDS = 18_000
_DIGEST_MODULUS = 1 << 128


@dataclass(slots=True)
class AcousticMeter:
    """A meter of the acoustic fingerprint; see :data:`MEASURES`.

    Attributes
    ----------
    shape
        Sample rate and number of channels.
    words
        Words of the fingerprint.
    first, last
        Powers in each band of the first and of the last hops, for the words across the border to a
        neighbouring part.
    digest
        Sum of the blocks' digests.
    frames
        Number of frames.
    mono
        Mean of the channels of each block, packed; empty if the frames are too many for a waveform.
    """

    shape: Shape
    words: list[int] = field(default_factory=list)
    first: list[list[float]] = field(default_factory=list)
    last: list[list[float]] = field(default_factory=list)
    digest: int = 0
    frames: int = 0
    mono: list[str] = field(default_factory=list)

    def add(self, block: Block) -> None:
        """Add the next block."""
        import xxhash  # imported here, because few processes need it

        # Blocks of another place have another seed, so their order counts.
        first_seed = block.start * self.shape.channels
        for seed, plane in enumerate(block.samples, first_seed):
            self.digest += xxhash.xxh3_128_intdigest(plane, seed)
        self.digest %= _DIGEST_MODULUS
        if block.start < _MOST_WORDS * self.shape.hop_frames:
            self._append(band_powers(block))
        self.frames += block.frames
        # The place of a block may show that its recording is long, whatever this part is.
        if block.start + block.frames <= MOST_SECONDS * self.shape.rate_hz:
            self.mono.append(packed(mix(block.samples)))
        else:
            self.mono = []

    @property
    def _is_short(self) -> bool:
        return self.frames <= MOST_SECONDS * self.shape.rate_hz

    def _append(self, powers: _Powers) -> None:
        known = np.array(self.last, np.float32).reshape(-1, _BANDS)
        all_powers = np.concatenate([known, powers])
        self.words += words_of(all_powers).tolist()
        self._keep(powers.tolist(), powers.tolist())

    def _keep(self, first: list[list[float]], last: list[list[float]]) -> None:
        self.first = [*self.first, *first][:_CONTEXT]
        self.last = [*self.last, *last][-_CONTEXT:]
        self.words = self.words[:_MOST_WORDS]

    def merge(self, later: AcousticMeter) -> None:
        """Add what another meter read from the blocks after these."""
        self.digest = (self.digest + later.digest) % _DIGEST_MODULUS
        border = np.array([*self.last, *later.first], np.float32).reshape(-1, _BANDS)
        self.words += [*words_of(border).tolist(), *later.words]
        self._keep(later.first, later.last)
        self.frames += later.frames
        self.mono = [*self.mono, *later.mono] if self._is_short else []

    def readings(self) -> dict[str, Reading]:
        """Return the readings by the measure's name.

        A recording without words has no fingerprint, and a long or silent one has no waveform.
        """
        words = np.array(self.words, "<u4")
        kept = np.flatnonzero(words)
        rate_hz, channels = self.shape.rate_hz, self.shape.channels
        return {
            "acoustic.digest": f"{rate_hz}-{channels}-{self.digest:032x}",
            "acoustic.fingerprint": (
                base64.b64encode(words[: kept[-1] + 1].tobytes()).decode() if len(kept) else None
            ),
            "acoustic.waveform": waveform_text(unpacked(self.mono), rate_hz) if self.mono else None,
        }


def read_fingerprint(text: str) -> npt.NDArray[np.uint32]:
    """Return the words of a fingerprint, uint32 [words], from its text in the index.

    >>> read_fingerprint("AQAAAAIAAAA=").tolist()
    [1, 2]
    """
    return np.frombuffer(base64.b64decode(text), "<u4").astype(np.uint32)


def band_powers(block: Block) -> _Powers:
    """Return the power in each band of each whole hop of a block, float32 [hops, 33].

    A full-scale sine within a band has a power of 0.5.
    """
    import soxr

    shape = block.shape
    hops = block.frames // shape.hop_frames
    if not hops or shape.rate_hz < 2 * _LOWEST_HZ:
        return np.zeros((hops, _BANDS), np.float32)
    low = soxr.resample(mix(block.around), shape.rate_hz, _RATE_HZ, "LQ")
    # Without samples before the block, zeros take their place; so they do after it.
    padded = np.zeros((hops + _FRAME_HOPS - 1) * _HOP, np.float32)
    start = 0 if block.before else _HOP
    padded[start : start + len(low)] = low[: len(padded) - start]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME_HOPS * _HOP)[::_HOP]
    return _powers(frames)


def mix(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean of the channels, float32 [frames], without samples that are absurdly large.

    Parameters
    ----------
    samples : float32 [channels, frames]

    Examples
    --------
    >>> mix(np.array([[1, 3e38, np.nan], [0, 3e38, 0]], np.float32)).tolist()
    [0.5, 1000.0, 0.0]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mono: npt.NDArray[np.float32] = samples.mean(axis=0)
        # A small energy proves that no sample is larger, and that none is NaN.
        if not np.dot(mono, mono) <= _LARGEST**2:
            mono = np.nan_to_num(mono).clip(-_LARGEST, _LARGEST)
    return mono


def _powers(frames: npt.NDArray[np.float32]) -> _Powers:
    from scipy.fft import rfft  # imported here, because few processes need it

    window, borders = _tables()
    spectra = rfft(frames * window, axis=1)[:, borders[0] : borders[-1]]
    powers = np.square(spectra.real) + np.square(spectra.imag)
    bands: _Powers = np.add.reduceat(powers, borders[:-1] - borders[0], axis=1)
    return bands


@cache
def _tables() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """Return the window, scaled so that powers add up to the mean square, and the bands' bins."""
    length = _FRAME_HOPS * _HOP
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    scale = np.sqrt(2 / (length * np.square(window).sum()))
    ratio = _HIGHEST_HZ / _LOWEST_HZ
    borders_hz = _LOWEST_HZ * ratio ** (np.arange(_BANDS + 1) / _BANDS)
    borders = np.ceil(borders_hz * length / _RATE_HZ).astype(np.intp)
    return (window * scale).astype(np.float32), borders


def words_of(powers: _Powers) -> npt.NDArray[np.uint32]:
    """Return the words of a fingerprint, uint32 [hops - 8], from the bands' powers.

    Parameters
    ----------
    powers : float32 [hops, 33]

    Examples
    --------
    >>> powers = np.zeros((9, 33), np.float32)
    >>> powers[8, ::2] = 0.1
    >>> [f"{word:b}" for word in words_of(powers)]
    ['1010101010101010101010101010101']
    """
    if len(powers) <= _CONTEXT:
        return np.zeros(0, np.uint32)
    sums = powers[: 1 - _SUM] + powers[1 : 2 - _SUM] + powers[2:]
    before, after = sums[:-_SPAN], sums[_SPAN:]
    change = after - before
    total = (after + before).sum(axis=1)
    informs = total > _SILENT_POWER
    informs &= np.abs(change).sum(axis=1) > _LEAST_CHANGE * total
    bits = np.ascontiguousarray(change[:, :-1] > change[:, 1:])
    packed = np.packbits(bits, axis=1, bitorder="little").view("<u4").reshape(-1)
    informs &= np.bitwise_count((packed ^ packed >> 1) & 0x7FFFFFFF) >= _LEAST_BIT_CHANGES
    words: npt.NDArray[np.uint32] = np.where(informs, packed, 0).astype(np.uint32)
    return words

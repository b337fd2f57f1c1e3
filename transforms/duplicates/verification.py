"""Verification: whether two recordings have the same sound, by the words of their fingerprints.

The error of two fingerprints at an offset is the share of bits that differ in the aligned words
that hold information in both. Copies have an error of about 0.1, unrelated recordings about 0.5. A
match must hold in each second and in each quarter of the bands, so that a shared intro, a song with
and without a loud singer, or a shared bass line is no match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from melmill.transforms.duplicates.candidates import Words

Bits: TypeAlias = npt.NDArray[np.uint8]

#: Parts of a word: neighbouring bits compare neighbouring bands.
_QUARTERS, _QUARTER_BITS = 4, 8
# The figures are those of benchmarks/duplicates.py on 46 recordings of music, speech and nature.

#: Smallest overlap, in words: a recording of 5 s has so many. Among 500,000 alignments of 4 s of
#: two recordings, the least error was 0.38.
MIN_OVERLAP = 40
#: Smallest share of the informative words of a recording that makes the overlap all of it. Codecs
#: keep 0.95 of the words. A jingle at both ends of 20 s of two recordings is 0.5.
MIN_SHARE = 0.8
#: Largest error of a match. Codecs reach 0.19 (but 0.25 for RealAudio 14.4), a codec and a cut 0.2.
#: A song with a voice as loud as itself has 0.2 and more, unrelated recordings at least 0.46.
MAX_ERROR = 0.21
#: Number of words of a window: a second. Longer windows hide what a voice adds to a song.
WINDOW = 10
#: Largest error of a window.
MAX_WINDOW_ERROR = 0.32
#: Largest error of a quarter of the bands: GSM and AMR change the lowest bands most.
MAX_QUARTER_ERROR = 0.42
#: Number of windows among which one may have a larger error, and so may one of ten or more: copies
#: have rare bad windows, at fades.
WINDOWS_OF_EXCEPTION = 100


@dataclass(frozen=True, slots=True)
class Match:
    """Two recordings with the same sound.

    Attributes
    ----------
    kind
        ``same`` if the overlap is nearly all of both recordings; ``contained`` if it is nearly all
        of the recording with fewer informative words only.
    offset
        Position of a sound in the second recording minus its position in the first, in words.
    overlap
        Number of aligned words that are informative in both recordings.
    error
        Share of bits that differ in these words.
    """

    kind: Literal["same", "contained"]
    offset: int
    overlap: int
    error: float


def compare(first: Words, second: Words, offset: int) -> Match | None:
    """Return the match of two fingerprints at an offset or beside it; None if they do not match.

    Parameters
    ----------
    first : uint32 [words]
        Fingerprint of the first recording; 0 is a word without information.
    second : uint32 [words]
        Fingerprint of the second recording.
    offset
        Position of a sound in `second` minus its position in `first`, in words. The offsets that
        are 1 smaller and 1 larger are compared too.

    Examples
    --------
    >>> words = np.random.default_rng(1).integers(1, 1 << 32, 300, np.uint32)
    >>> compare(words, words[20:], -20)
    Match(kind='same', offset=-20, overlap=280, error=0.0)
    >>> compare(words, words[100:], -99).kind
    'contained'
    >>> compare(words, words[200:] ^ np.uint32(0xFFFF), -200) is None
    True
    """
    differences = {
        shifted: _differing_bits(first, second, shifted)
        for shifted in (offset, offset - 1, offset + 1)
    }
    long = {shifted: bits for shifted, bits in differences.items() if len(bits) >= MIN_OVERLAP}
    if not long:
        return None
    best = min(long, key=lambda shifted: (_error(long[shifted]), abs(shifted - offset), shifted))
    kind = _kind(len(long[best]), int(np.count_nonzero(first)), int(np.count_nonzero(second)))
    if kind is None or not _holds(long[best]):
        return None
    return Match(kind, best, len(long[best]), _error(long[best]))


def _differing_bits(first: Words, second: Words, offset: int) -> Bits:
    """Return the differing bits of the aligned words that are informative in both.

    Returns
    -------
    uint8 [words, 4]
        Number of differing bits by word and quarter of the word.
    """
    first, second = first[max(0, -offset) :], second[max(0, offset) :]
    words = min(len(first), len(second))
    first, second = first[:words], second[:words]
    is_informative = (first != 0) & (second != 0)
    differences = first[is_informative] ^ second[is_informative]
    bits: Bits = np.bitwise_count(differences.view(np.uint8)).reshape(-1, _QUARTERS)
    return bits


def _error(bits: Bits) -> float:
    return float(bits.mean()) / _QUARTER_BITS


def _kind(overlap: int, first: int, second: int) -> Literal["same", "contained"] | None:
    """Return the kind of an overlap of recordings with so many informative words."""
    if overlap >= MIN_SHARE * max(first, second):
        return "same"
    return "contained" if overlap >= MIN_SHARE * min(first, second) else None


def _holds(bits: Bits) -> bool:
    """Return whether the error is small: as a whole, in all quarters and in nearly all windows."""
    quarters = bits.mean(axis=0) / _QUARTER_BITS
    if _error(bits) > MAX_ERROR or quarters.max() > MAX_QUARTER_ERROR:
        return False
    windows = len(bits) // WINDOW
    bounds = np.arange(windows + 1) * len(bits) // windows
    sums = np.add.reduceat(bits.mean(axis=1), bounds[:-1])
    errors = sums / (np.diff(bounds) * _QUARTER_BITS)
    return (
        int((errors > MAX_WINDOW_ERROR).sum())
        <= (windows + WINDOWS_OF_EXCEPTION - 10) // WINDOWS_OF_EXCEPTION
    )

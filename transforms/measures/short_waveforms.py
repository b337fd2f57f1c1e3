"""Waveforms of short recordings: what is kept of their sound to find their copies.

A fingerprint needs some five seconds of sound. So the index has the waveform itself of recordings
that are hardly longer: at a low rate, which is what most codecs keep, and with eight bits a sample.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.int8]

#: Sample rate of a waveform.
RATE_HZ = 4000
#: Longest recording that has a waveform. Fingerprints of recordings that are somewhat longer than
#: five seconds have enough words, unless some of the recording is silent.
MOST_SECONDS = 6
#: Shortest recording that has a waveform: 100 ms.
_LEAST_SAMPLES = RATE_HZ // 10
#: Smallest peak of a waveform that is not silent: −70 dBFS.
_SILENT_PEAK = 10 ** (-70 / 20)
_LARGEST_SAMPLE = 127


def waveform_text(mono: npt.NDArray[np.float32], rate_hz: int) -> str | None:
    """Return the waveform of a short recording as text, for the index.

    It is at most 32 kB long. The waveform has no offset, and is scaled to its own peak.

    Parameters
    ----------
    mono : float32 [frames]
        Mean of the channels of the whole recording.
    rate_hz
        Sample rate.

    Returns
    -------
    str or None
        Samples of 8 bits, in base64; ``None`` for silence, for less than 100 ms, for a sample rate
        below 4 kHz, and for an offset that is larger than the sound: where an encoder pads it, the
        steps are louder than the sound.

    Examples
    --------
    >>> tone = np.sin(np.arange(4000) * np.pi / 2 + 0.1).astype(np.float32)
    >>> read_waveform(waveform_text(tone, 4000))[:4].tolist()
    [13, 127, -13, -127]
    >>> waveform_text(0 * tone, 4000) is None
    True
    """
    import soxr  # imported here, because few processes need it

    if rate_hz < RATE_HZ or len(mono) * RATE_HZ < _LEAST_SAMPLES * rate_hz:
        return None
    offset = float(mono.mean(dtype=np.float64))
    sound = mono - np.float32(offset)
    if abs(offset) > np.sqrt(np.square(sound).mean(dtype=np.float64)):
        return None
    low = soxr.resample(sound, rate_hz, RATE_HZ, "HQ")
    peak = float(np.abs(low).max())
    if peak < _SILENT_PEAK:
        return None
    samples = np.rint(low * (_LARGEST_SAMPLE / peak)).astype(np.int8)
    return base64.b64encode(samples.tobytes()).decode()


def read_waveform(text: str) -> Waveform:
    """Return the samples of a waveform, int8 [samples], from its text in the index.

    >>> read_waveform("AX//")
    array([  1, 127,  -1], dtype=int8)
    """
    return np.frombuffer(base64.b64decode(text), np.int8)


def packed(samples: npt.NDArray[np.float32]) -> str:
    """Return samples as text, a character a byte: a meter has plain values.

    Base64 is ten times as slow. Few meters become JSON: those of parts of recordings.
    """
    return samples.astype("<f4").tobytes().decode("latin-1")


def unpacked(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the samples that :func:`packed` packed, one text after the other.

    >>> unpacked([packed(np.array([1.5], np.float32)), packed(np.array([2], np.float32))]).tolist()
    [1.5, 2.0]
    """
    data = b"".join(text.encode("latin-1") for text in texts)
    return np.frombuffer(data, "<f4").astype(np.float32)

"""Synthetic instruments, and a mixer that turns their notes into stereo.

A voice is a function that makes a note. A :class:`Note` holds the start, the length and the
loudness of a note. Equal notes are computed once and mixed in wherever they are played, as in a
sampler, so a song takes little more time than its distinct notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.signal
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_TABLE_SAMPLES = 2048
_DRAWBARS = (0.5, 1.0, 0.6, 0.5, 0.0, 0.3, 0.0, 0.25)


class Voice(Protocol):
    """A function that makes a note of an instrument."""

    def __call__(
        self,
        frequency_hz: float,
        time_s: NDArray[np.float64],
        colour: float,
        rng: np.random.Generator,
    ) -> Samples:
        """Return the samples of a note.

        Parameters
        ----------
        frequency_hz
            The pitch, well below a quarter of the sample rate.
        time_s
            The time of each sample, shape [frames], from 0 in equal steps.
        colour
            The timbre: 0 for the instrument's darkest or driest, 1 for its brightest.
        rng
            The generator for noise.

        Returns
        -------
        ndarray of shape [frames], float32
            The samples; the loudest is about full scale.
        """


@dataclass(frozen=True, slots=True)
class Note:
    """A note of a song.

    Attributes
    ----------
    start_s, seconds
        The start and the length of the note, including its decay.
    voice, frequency_hz
        The voice and the pitch.
    level
        The loudness; 1 is full scale.
    """

    start_s: float
    seconds: float
    voice: Voice
    frequency_hz: float
    level: float = 1.0


@dataclass(frozen=True, slots=True)
class Room:
    """The room that a song is recorded in.

    Attributes
    ----------
    reverberation_s
        The time in which an echo decays by 60 dB.
    wetness
        The loudness of the echoes, as a share of the instrument's loudness.
    noise_dbfs
        The level of the background noise.
    """

    reverberation_s: float
    wetness: float
    noise_dbfs: float


def mix_notes(
    notes: Iterable[Note], seconds: float, rate_hz: int, colour: float, rng: np.random.Generator
) -> Samples:
    """Return a stereo mix of notes, with low notes on the left and high notes on the right.

    Returns
    -------
    ndarray of shape [2, frames], float32
        The mix; it is not limited, so it may exceed full scale.
    """
    mix = np.zeros((2, round(seconds * rate_hz)), np.float32)
    sounds: dict[tuple[Voice, float, int], Samples] = {}
    for note in notes:
        start = round(note.start_s * rate_hz)
        key = (note.voice, note.frequency_hz, round(note.seconds * rate_hz))
        if key not in sounds:
            sounds[key] = note.voice(note.frequency_hz, np.arange(key[2]) / rate_hz, colour, rng)
        sound = sounds[key][: max(0, mix.shape[1] - start)]
        mix[:, start : start + len(sound)] += _pan(note.frequency_hz) * note.level * sound
    return mix


def _pan(frequency_hz: float) -> Samples:
    """Return the left and right gain of a note as a column; the sum of the squares is 1."""
    angle = np.pi / 4 + np.clip(np.log2(frequency_hz / 262) / 12, -0.3, 0.3)
    return np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)


def record(mix: Samples, room: Room, rate_hz: int, rng: np.random.Generator) -> Samples:
    """Return a mix [2, frames] with a room's echoes and noise, and with its end faded out."""
    time_s = np.arange(round(room.reverberation_s * rate_hz)) / rate_hz
    echoes = _noise(rng, (2, len(time_s))) * np.exp(-6.9 * time_s / room.reverberation_s)
    echoes *= room.wetness / np.sqrt(np.sum(echoes**2, axis=1, keepdims=True))
    wet = scipy.signal.oaconvolve(mix, np.float32(echoes), axes=1)[:, : mix.shape[1]]
    song = _full_scale(mix + wet) + 10 ** (room.noise_dbfs / 20) * _noise(rng, mix.shape)
    ending = min(rate_hz, mix.shape[1] // 4)
    song[:, song.shape[1] - ending :] *= np.linspace(1, 0, ending, dtype=np.float32)
    return _float32(song)


def organ(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a note of an organ: steady drawbars with a slow tremolo."""
    partials = np.array(_DRAWBARS) * (0.4 + 0.6 * colour) ** np.arange(len(_DRAWBARS))
    tremolo = 1 + 0.15 * np.sin(2 * np.pi * (4 + 3 * colour) * time_s)
    return _float32(_wave(frequency_hz * time_s, partials) * tremolo * _swell(time_s, 0.02, 0.08))


def flute(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a note of a flute: an almost pure tone with a vibrato and some breath noise."""
    vibrato = (0.02 + 0.04 * colour) * np.sin(2 * np.pi * (4.5 + colour) * time_s)
    tone = _wave(frequency_hz * time_s + vibrato, np.array([1.0, 0.2 * colour, 0.05]))
    breath = (0.02 + 0.02 * colour) * np.convolve(_noise(rng, len(time_s)), (0.5, 0.5), "same")
    return _float32((tone + breath) * _swell(time_s, 0.07, 0.1))


def bass(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a note of a bass: a string whose upper partials decay first."""
    order = np.arange(1, 9)[:, np.newaxis]
    decay = np.exp(-(1 + (3 - 2 * colour) * (order - 1)) * time_s)
    partials = np.sin(2 * np.pi * np.float32(frequency_hz * order * time_s % 1)) * decay / order
    return _float32(0.7 * partials.sum(axis=0) * _swell(time_s, 0.005, 0.05))


def bell(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a note of a bell: a sine modulated by another sine, both decaying (Chowning).

    The ratio of their frequencies is not an integer.
    """
    bright = (2 + colour) * min(1, 1500 / frequency_hz) * np.exp(-1.5 * time_s)
    modulator = bright * np.sin(2 * np.pi * 1.4 * frequency_hz * time_s)
    struck = np.sin(2 * np.pi * frequency_hz * time_s + modulator) * np.exp(-1.5 * time_s)
    return _float32(struck * _swell(time_s, 0.002, 0.1))


def pluck(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a note of a plucked string: repeated, averaged noise (Karplus and Strong).

    The algorithm repeats a loop of noise, and averages neighbouring samples in each round. A round
    multiplies each bin of the loop's spectrum by a gain, so all rounds are computed at once as
    powers of the gains. The loop has a whole number of samples; it is read at the speed that gives
    the right pitch.
    """
    loop = max(8, round(1 / (frequency_hz * time_s[1])))
    rounds = np.arange(np.ceil(time_s[-1] * frequency_hz) + 2)[:, np.newaxis]
    bins = np.arange(loop // 2 + 1)
    excitation = np.fft.rfft(_noise(rng, loop)) * np.exp(-bins / (12 + 12 * colour))
    excitation[0] = 0
    loss = np.log(np.cos(np.pi * bins / (loop + 1))) - 1.5 / frequency_hz
    string = np.fft.irfft(excitation * np.exp(loss * rounds), loop).ravel()
    tuned = np.interp(time_s * frequency_hz * loop, np.arange(string.size), string)
    return _full_scale(_float32(tuned * _swell(time_s, 0.001, 0.05)))


def kick(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a hit of a kick drum or a tom: a sine that falls by two octaves to its pitch."""
    fall = frequency_hz * (time_s + 3 * 0.03 * (1 - np.exp(-time_s / 0.03)))
    return _float32(np.sin(2 * np.pi * fall) * np.exp(-(9 - 4 * colour) * time_s))


def snare(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a hit of a snare drum: noise of the wires, and a short tone of the skin."""
    wires = 0.25 * _noise(rng, len(time_s)) * np.exp(-(22 - 10 * colour) * time_s)
    skin = 0.5 * np.sin(2 * np.pi * frequency_hz * time_s) * np.exp(-35 * time_s)
    return _float32(wires + skin)


def hat(
    frequency_hz: float, time_s: NDArray[np.float64], colour: float, rng: np.random.Generator
) -> Samples:
    """Return a hit of a cymbal: noise without low frequencies; the pitch is ignored."""
    bright = np.diff(_noise(rng, len(time_s)), n=2, prepend=np.zeros(2, np.float32))
    return _float32(0.15 * bright * np.exp(-(60 - 35 * colour) * time_s))


def _wave(cycles: NDArray[np.float64], partials: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a wave of harmonic partials at the given phases, read from a table of a period."""
    spectrum = np.zeros(_TABLE_SAMPLES // 2 + 1, np.complex128)
    spectrum[1 : 1 + len(partials)] = -0.5j * _TABLE_SAMPLES * partials / np.abs(partials).sum()
    table = np.fft.irfft(spectrum)
    position = cycles % 1 * _TABLE_SAMPLES
    left = position.astype(np.intp) % _TABLE_SAMPLES
    slope = np.roll(table, -1) - table
    return np.asarray(table[left] + (position - left) * slope[left])


def _swell(time_s: NDArray[np.float64], attack_s: float, release_s: float) -> NDArray[np.float64]:
    """Return a note's envelope: a linear rise to 1 at the start, a linear fall to 0 at the end."""
    rise, fall = time_s / attack_s, (time_s[-1] - time_s) / release_s
    return np.asarray(np.minimum(np.minimum(rise, fall), 1))


def _float32(samples: NDArray[np.floating]) -> Samples:
    return samples.astype(np.float32)


def _noise(rng: np.random.Generator, shape: int | tuple[int, ...]) -> Samples:
    return rng.standard_normal(shape, np.float32)


def _full_scale(samples: Samples) -> Samples:
    return samples / np.float32(max(1e-9, float(np.abs(samples).max())))


@dataclass(frozen=True, slots=True)
class Part:
    """The notes that a voice plays in every bar of a song: its strokes, or else the melody.

    Attributes
    ----------
    voice
        The voice that plays.
    octave
        The octave of degree 0 of the scale; 4 is the octave of middle C.
    min_beats
        The minimum length of each note, in beats.
    strokes
        The (beat, degree above the chord's root) of each note; empty for the melody.
    follows_chords
        Whether the strokes move with the chords; false for drums.
    """

    voice: Voice
    octave: int
    min_beats: float = 0.25
    strokes: tuple[tuple[float, int], ...] = ()
    follows_chords: bool = True


def _drum(voice: Voice, octave: int, *beats: float) -> Part:
    return Part(voice, octave, 0.75, tuple((beat, 0) for beat in beats), follows_chords=False)


#: The parts that each instrument plays, by the instrument's name.
INSTRUMENTS: dict[str, tuple[Part, ...]] = {
    "organ": (Part(organ, 3, 4, ((0, 0), (0, 2), (0, 4))), Part(organ, 4)),
    "pluck": (
        Part(pluck, 2, 2, ((0, 0), (0.5, 2), (1, 4), (1.5, 2), (2, 0), (2.5, 2), (3, 4))),
        Part(pluck, 4, 2),
    ),
    "bell": (Part(bell, 5, 3, ((0, 0), (1, 4), (2, 2), (3, 4))), Part(bell, 6, 3)),
    "flute": (Part(flute, 5),),
    "bass": (Part(bass, 1, 1, ((0, 0), (1.5, 0), (2, 4), (3, 2), (3.5, 4))),),
    "drums": (
        _drum(kick, 1, 0, 1.5, 2),
        _drum(snare, 3, 1, 3),
        _drum(hat, 6, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5),
        _drum(kick, 2, 3.5),
    ),
}

"""The demo catalogue: little synthetic songs in many formats, for who has no audio at hand.

Every song is a pure function of (seed, number, seconds), whatever the number of songs, and
a digest of the three is part of its file's name: a file that is there is right, one that is
not is made, and a demo that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from melmill.pipelines.demo import synthesis
from melmill.pipelines.demo.synthesis import INSTRUMENTS, Note, Part, Room, Samples
from melmill.transforms.core.errors import UserError

#: Raised whenever the same song comes to sound different.
_EDITION = 1
SONGS_AN_ALBUM = 3
COLUMNS = ("uri", "instrument", "key", "tempo_bpm", "album")

_TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
#: Degrees (from 0) of the scale that four bars are built on.
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (0, 5, 2, 6))
#: How four beats may be divided.
_RHYTHMS = (
    (1.0, 1.0, 1.0, 1.0),
    (1.5, 0.5, 1.0, 1.0),
    (0.5, 0.5, 1.0, 0.5, 0.5, 1.0),
    (2.0, 1.0, 1.0),
)
_BEATS_A_BAR = 4


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: its extension, sample rate, and what soundfile writes it with."""

    extension: str
    rate_hz: int
    options: tuple[tuple[str, str], ...] = ()


_WAV = Format("wav", 44_100, (("format", "WAV"), ("subtype", "PCM_16")))
_FLAC = Format("flac", 48_000, (("format", "FLAC"), ("subtype", "PCM_16")))
_OGG = Format("ogg", 44_100, (("format", "OGG"), ("subtype", "VORBIS")))
_MP3 = Format("mp3", 32_000, (("format", "MP3"),))
_OPUS = Format("opus", 48_000, (("format", "OGG"), ("subtype", "OPUS")))
_M4A = Format("m4a", 44_100)
#: The songs' formats in turn; the large ones (WAV, FLAC) and the slow ones are fewer.
FORMATS = (
    *(_WAV, _FLAC, _OGG, _MP3, _OPUS, _M4A),
    *(_OGG, _MP3, _OGG, _FLAC, _OGG, _OGG),
    *(_OGG, _M4A, _OPUS, _OGG, _OGG, _MP3),
    *(_OGG, _M4A, _OGG, _OGG, _OGG, _OPUS),
)


@dataclass(frozen=True, slots=True)
class Song:
    """All that a song is made from.

    Attributes
    ----------
    seed, number, seconds
        The catalogue's seed, the song's place in it, and its length.
    instrument
        A key of ``INSTRUMENTS``: what a classifier is to hear.
    tonic, mode
        The key it is in; semitones above C, and a key of the scales.
    tempo_bpm
        Beats a minute.
    """

    seed: int
    number: int
    seconds: float
    instrument: str
    tonic: int
    mode: str
    tempo_bpm: int

    @property
    def album(self) -> str:
        """The record that it is on, made in one room."""
        return f"album-{self.number // SONGS_AN_ALBUM + 1:03}"

    @property
    def format(self) -> Format:
        """The kind of file that it is put in."""
        return FORMATS[self.number % len(FORMATS)]

    @property
    def uri(self) -> str:
        """Path of its file, relative to the table."""
        made_from = f"{_EDITION} {self.seed} {self.number} {float(self.seconds)!r}"
        digest = hashlib.blake2b(made_from.encode(), digest_size=4).hexdigest()
        name = f"{self.number + 1:03}-{self.instrument}-{digest}"
        return f"{self.album}/{name}.{self.format.extension}"

    def row(self) -> tuple[str, str, str, int, str]:
        """Its row of the table, in the order of :data:`COLUMNS`."""
        key = f"{_TONICS[self.tonic]} {self.mode}"
        return self.uri, self.instrument, key, self.tempo_bpm, self.album


def make_demo_catalogue(
    folder: Path, songs: int = 24, seconds: float = 20.0, seed: int = 0
) -> Path:
    """Make the demo catalogue, or what is still missing of it.

    Parameters
    ----------
    folder
        Where to; made if need be. Files of other demos in it are left alone.
    songs
        How many: in turn of every instrument, three an album, in six formats.
    seconds
        How long each song is, at least 1 and at most 600.
    seed
        Which songs, from 0 on. The same seed gives the same samples; in WAV, FLAC, MP3 and
        M4A also the same bytes, while Ogg and Opus carry a random stream number.

    Returns
    -------
    Path
        ``songs.csv`` in the folder, written when all songs are there.

    Raises
    ------
    UserError
        An argument is out of bounds, or the folder cannot be written.
    """
    _check(songs, seconds, seed)
    planned = [plan_song(seed, number, seconds) for number in range(songs)]
    try:
        for song in planned:
            if not (path := folder / song.uri).exists():
                _put(path, encode(perform(song), song.format))
        _put(folder / "songs.csv", _table(planned))
    except OSError as error:
        raise UserError(f"{folder}: the demo catalogue cannot be written: {error}") from error
    return folder / "songs.csv"


def _check(songs: int, seconds: float, seed: int) -> None:
    if songs < 1 or not 1 <= seconds <= 600 or seed < 0:
        asked = f"songs is {songs}, seconds {seconds}, seed {seed}"
        raise UserError(f"{asked}; they must be at least 1, between 1 and 600, and at least 0")


def plan_song(seed: int, number: int, seconds: float) -> Song:
    """Draw what a song is to be; every six songs in a row have six instruments."""
    shuffled = np.random.default_rng((seed, 1, number // len(INSTRUMENTS)))
    turn = shuffled.permutation(list(INSTRUMENTS))
    rng = np.random.default_rng((seed, 2, number))
    return Song(
        seed=seed,
        number=number,
        seconds=seconds,
        instrument=str(turn[number % len(turn)]),
        tonic=int(rng.integers(12)),
        mode=str(rng.choice(list(_SCALES))),
        tempo_bpm=int(rng.integers(76, 145)),
    )


def perform(song: Song) -> Samples:
    """Make a song's samples, shaped [2, frames], at its format's rate; the peak is below 1."""
    rng = np.random.default_rng((song.seed, 3, song.number))
    room_rng = np.random.default_rng((song.seed, 4, song.number // SONGS_AN_ALBUM))
    room = Room(
        reverberation_s=room_rng.uniform(0.2, 0.8),
        wetness=room_rng.uniform(0.1, 0.4),
        noise_dbfs=room_rng.uniform(-80, -74),
    )
    notes = list(compose(song, rng))
    rate_hz = song.format.rate_hz
    mix = synthesis.mix_notes(notes, song.seconds, rate_hz, rng.uniform(), rng)
    return synthesis.record(mix, room, rate_hz, rng) * np.float32(rng.uniform(0.45, 0.7))


def compose(song: Song, rng: np.random.Generator) -> Iterator[Note]:
    """Write a song's notes: four bars and their melody over and over, in the form AABA."""
    beat_s = 60 / song.tempo_bpm
    tuning_hz = 440 * 2 ** (rng.uniform(-30, 30) / 1200)
    progression = _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))]
    themes = [list(_melody(progression, rng)) for _ in "AB"]
    bars = int(np.ceil(song.seconds / (beat_s * _BEATS_A_BAR)))
    for bar in range(bars):
        chord = progression[bar % 4]
        theme = themes[bar // 4 % 4 == 2]
        for part in INSTRUMENTS[song.instrument]:
            for beat, beats, degree in _bar(part, chord, theme[bar % 4]):
                yield Note(
                    start_s=(bar * _BEATS_A_BAR + beat) * beat_s,
                    seconds=beats * beat_s,
                    voice=part.voice,
                    frequency_hz=_frequency_hz(song, part.octave, degree, tuning_hz),
                    level=rng.uniform(0.6, 1.0),
                )


Bar = tuple[tuple[float, float, int], ...]


def _bar(part: Part, chord: int, melody: Bar) -> Bar:
    """What a part plays in one bar: (beat, beats, degree) of each note."""
    if not part.strokes:
        return tuple((beat, max(beats, part.min_beats), degree) for beat, beats, degree in melody)
    root = chord if part.follows_chords else 0
    return tuple((beat, part.min_beats, root + degree) for beat, degree in part.strokes)


def _melody(progression: tuple[int, ...], rng: np.random.Generator) -> Iterator[Bar]:
    """Walk up and down the scale, with each bar's first note in its chord."""
    degree = 4
    for chord in progression:
        in_chord = [chord + step + octave for step in (0, 2, 4) for octave in (-7, 0, 7)]
        degree = min(in_chord, key=lambda tone: abs(tone - degree))
        rhythm = _RHYTHMS[rng.integers(len(_RHYTHMS))]
        steps = rng.choice((-2, -1, -1, 1, 1, 2), len(rhythm))
        degrees = np.clip(degree + np.cumsum(steps) - steps[0], 0, 10)
        beats = np.cumsum(rhythm) - rhythm[0]
        yield tuple(zip(beats.tolist(), rhythm, degrees.tolist(), strict=True))
        degree = int(degrees[-1])


def _frequency_hz(song: Song, octave: int, degree: int, tuning_hz: float) -> float:
    scale = _SCALES[song.mode]
    semitones = song.tonic + scale[degree % 7] + 12 * (octave - 4 + degree // 7) - 9
    return float(tuning_hz * 2 ** (semitones / 12))


def encode(samples: Samples, format: Format) -> bytes:
    """Put samples shaped [2, frames] into the bytes of a file."""
    buffer = io.BytesIO()
    if format is _M4A:
        _encode_aac(buffer, samples, format.rate_hz)
    else:
        _encode_with_soundfile(buffer, samples, format)
    return buffer.getvalue()


def _encode_with_soundfile(buffer: io.BytesIO, samples: Samples, format: Format) -> None:
    import soundfile

    settings: Any = {"samplerate": format.rate_hz, "channels": 2, **dict(format.options)}
    with soundfile.SoundFile(buffer, "w", **settings) as file:
        # libsndfile's Vorbis encoder overflows its stack on long writes.
        for start in range(0, samples.shape[1], format.rate_hz):
            file.write(samples[:, start : start + format.rate_hz].T)


def _encode_aac(buffer: io.BytesIO, samples: Samples, rate_hz: int) -> None:
    import av

    with av.open(buffer, "w", format="ipod") as output:
        stream = output.add_stream("aac", rate=rate_hz, layout="stereo")
        stream.codec_context.bit_rate = 96_000
        stream.codec_context.options = {"aac_coder": "fast"}
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        stream.codec_context.open()
        resampler = av.AudioResampler("fltp", "stereo", rate_hz, stream.codec_context.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))


def _table(songs: list[Song]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([COLUMNS, *(song.row() for song in songs)])
    return text.getvalue().encode()


def _put(path: Path, content: bytes) -> None:
    """Give a file its name only when it is whole, and leave one alone that has this content."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)

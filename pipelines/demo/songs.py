"""The demo catalogue: short synthetic songs in many formats, for users without audio files.

Every song is a pure function of (seed, number, seconds), whatever the number of songs. A digest of
the three is part of the file's name. So an existing file is always correct, only missing files are
made, and an interrupted demo continues where it stopped.
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

#: The version of the songs; increase it when a change of the code changes the sound of a song.
_EDITION = 1
SONGS_AN_ALBUM = 3
COLUMNS = ("uri", "instrument", "key", "tempo_bpm", "album")

_TONICS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
#: The chords of four bars, as degrees (from 0) of the scale.
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (0, 5, 2, 6))
#: Divisions of four beats into notes.
_RHYTHMS = (
    (1.0, 1.0, 1.0, 1.0),
    (1.5, 0.5, 1.0, 1.0),
    (0.5, 0.5, 1.0, 0.5, 0.5, 1.0),
    (2.0, 1.0, 1.0),
)
_BEATS_A_BAR = 4


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: the extension, the sample rate, and soundfile's options to write it."""

    extension: str
    rate_hz: int
    options: tuple[tuple[str, str], ...] = ()


_WAV = Format("wav", 44_100, (("format", "WAV"), ("subtype", "PCM_16")))
_FLAC = Format("flac", 48_000, (("format", "FLAC"), ("subtype", "PCM_16")))
_OGG = Format("ogg", 44_100, (("format", "OGG"), ("subtype", "VORBIS")))
_MP3 = Format("mp3", 32_000, (("format", "MP3"),))
_OPUS = Format("opus", 48_000, (("format", "OGG"), ("subtype", "OPUS")))
_M4A = Format("m4a", 44_100)
#: The formats of consecutive songs; large formats (WAV, FLAC) and slow formats are rarer.
FORMATS = (
    *(_WAV, _FLAC, _OGG, _MP3, _OPUS, _M4A),
    *(_OGG, _MP3, _OGG, _FLAC, _OGG, _OGG),
    *(_OGG, _M4A, _OPUS, _OGG, _OGG, _MP3),
    *(_OGG, _M4A, _OGG, _OGG, _OGG, _OPUS),
)


@dataclass(frozen=True, slots=True)
class Song:
    """The properties that determine a song.

    Attributes
    ----------
    seed, number, seconds
        The catalogue's seed, the song's number in it, and the song's length.
    instrument
        The instrument, a key of ``INSTRUMENTS``; the label for a classifier.
    tonic, mode
        The musical key: the tonic in semitones above C, and a key of ``_SCALES``.
    tempo_bpm
        The tempo in beats per minute.
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
        """Return the name of the song's album; the songs of an album are recorded in one room."""
        return f"album-{self.number // SONGS_AN_ALBUM + 1:03}"

    @property
    def format(self) -> Format:
        """Return the song's file format."""
        return FORMATS[self.number % len(FORMATS)]

    @property
    def uri(self) -> str:
        """Return the path of the song's file, relative to the table."""
        source = f"{_EDITION} {self.seed} {self.number} {float(self.seconds)!r}"
        digest = hashlib.blake2b(source.encode(), digest_size=4).hexdigest()
        name = f"{self.number + 1:03}-{self.instrument}-{digest}"
        return f"{self.album}/{name}.{self.format.extension}"

    def row(self) -> tuple[str, str, str, int, str]:
        """Return the song's row of the table, in the order of :data:`COLUMNS`."""
        key = f"{_TONICS[self.tonic]} {self.mode}"
        return self.uri, self.instrument, key, self.tempo_bpm, self.album


def make_demo_catalogue(
    folder: Path, songs: int = 24, seconds: float = 20.0, seed: int = 0
) -> Path:
    """Make the missing files of the demo catalogue, and return the path of its table.

    Parameters
    ----------
    folder
        The output folder; created if needed. Files of other demos in it are not changed.
    songs
        The number of songs. They use all instruments in turn and six formats, with three songs
        per album.
    seconds
        The length of each song, at least 1 and at most 600.
    seed
        The seed of the songs, 0 or more. The same seed gives the same samples. In WAV, FLAC, MP3
        and M4A it also gives the same bytes; Ogg and Opus contain a random stream number.

    Returns
    -------
    Path
        The path of ``songs.csv`` in the folder, which is written after all songs.

    Raises
    ------
    UserError
        An argument is out of range, or the folder cannot be written.
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
        values = f"songs is {songs}, seconds {seconds}, seed {seed}"
        raise UserError(f"{values}; they must be at least 1, between 1 and 600, and at least 0")


def plan_song(seed: int, number: int, seconds: float) -> Song:
    """Return a song with random properties; six consecutive songs have six instruments."""
    order_rng = np.random.default_rng((seed, 1, number // len(INSTRUMENTS)))
    instruments = order_rng.permutation(list(INSTRUMENTS))
    rng = np.random.default_rng((seed, 2, number))
    return Song(
        seed=seed,
        number=number,
        seconds=seconds,
        instrument=str(instruments[number % len(instruments)]),
        tonic=int(rng.integers(12)),
        mode=str(rng.choice(list(_SCALES))),
        tempo_bpm=int(rng.integers(76, 145)),
    )


def perform(song: Song) -> Samples:
    """Return a song's samples [2, frames] at the rate of its format; the peak is below 1."""
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
    """Yield a song's notes: four bars with their melody, repeated in the form AABA."""
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
    """Return the notes of a part in a bar, as (beat, length in beats, degree)."""
    if not part.strokes:
        return tuple((beat, max(beats, part.min_beats), degree) for beat, beats, degree in melody)
    root = chord if part.follows_chords else 0
    return tuple((beat, part.min_beats, root + degree) for beat, degree in part.strokes)


def _melody(progression: tuple[int, ...], rng: np.random.Generator) -> Iterator[Bar]:
    """Yield bars that walk up and down the scale; each bar's first note is in its chord."""
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
    """Return the bytes of a file with samples [2, frames]."""
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
    """Write a file atomically; do nothing if it already has this content."""
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)

"""Excerpts: a few seconds of a recording around a defect, as a picture and as sound.

:func:`make_excerpt` runs in a decoder process. It decodes the excerpt once, for both.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from melmill.pipelines.sound.pictures import Picture, PictureSpec, draw_picture, finite
from melmill.pipelines.sound.png import (
    BACKGROUND,
    MARK,
    Pixels,
    draw_levels,
    draw_waveform,
    png_bytes,
    wave_scale,
)
from melmill.pipelines.sound.spectrogram import Bands
from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import AudioReader, open_audio
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

#: Length of an excerpt.
EXCERPT_SECONDS = 3.0
#: Sample rate of the sound. With one or two channels, MP3 needs 21 kB for three seconds.
SOUND_RATE_HZ = 24_000
#: Levels of the darkest and of the brightest colour.
DARKEST_DBFS, BRIGHTEST_DBFS = -100.0, 0.0

_COLUMNS, _BANDS, _LANE_ROWS, _GAP_ROWS = 480, 96, 36, 4
#: Setting of LAME in libsndfile, from 0 to 1: 56 kbit/s.
_COMPRESSION = 0.7


@dataclass(frozen=True, slots=True)
class Place:
    """The part of a recording that an excerpt has.

    Attributes
    ----------
    start, stop
        Frames.
    mark
        Frame of the defect; ``None`` if the defect belongs to the whole recording.
    channel
        Channel to draw and to play; ``None`` for all.
    """

    start: int
    stop: int
    mark: int | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """An excerpt.

    Attributes
    ----------
    png
        Picture: a waveform for each channel, above the spectrogram.
    mp3
        Sound, at the recording's own level.
    place
        Place in the recording.
    rate_hz
        Sample rate of the recording; the spectrogram reaches up to half of it.
    full
        Sample at the upper edge of a waveform.
    wave_share
        Share of the picture's height above the spectrogram.
    """

    png: bytes = field(repr=False)
    mp3: bytes = field(repr=False)
    place: Place
    rate_hz: int
    full: float
    wave_share: float

    @property
    def start_second(self) -> float:
        """Start in the recording."""
        return self.place.start / self.rate_hz

    @property
    def stop_second(self) -> float:
        """End in the recording."""
        return self.place.stop / self.rate_hz

    @property
    def mark_second(self) -> float | None:
        """Place of the defect in the recording; ``None`` without a mark."""
        return None if self.place.mark is None else self.place.mark / self.rate_hz


def place_around(audio: AudioInfo, start: int, stop: int, second: float | None) -> Place:
    """Return the frames around a second of a recording.

    Parameters
    ----------
    audio
        The recording.
    start, stop
        Frames that may be used: those of the recording, or of its segment.
    second
        Place of the defect, counted from `start`; ``None`` for the middle of the first ten minutes,
        without a mark.

    Examples
    --------
    >>> audio = AudioInfo("wav", "pcm_16", "libsndfile", 1000, 1, 10_000)
    >>> place_around(audio, 0, 10_000, 5.0), place_around(audio, 0, 10_000, 9.9)
    (Place(start=3500, stop=6500, mark=5000, channel=None), \
Place(start=7000, stop=10000, mark=9900, channel=None))
    >>> place_around(audio, 0, 10_000, None)
    Place(start=3500, stop=6500, mark=None, channel=None)
    """
    rate = audio.sample_rate_hz
    length = min(stop - start, round(EXCERPT_SECONDS * rate))
    middle = min((stop - start) // 2, 300 * rate)
    centre = start + (middle if second is None else round(second * rate))
    first = max(start, min(centre - length // 2, stop - length))
    mark = None if second is None else min(max(start, centre), stop - 1)
    return Place(first, first + length, mark)


def make_excerpt(source: StoredObject, audio: AudioInfo, fingerprint: str, place: Place) -> Excerpt:
    """Return an excerpt.

    Parameters
    ----------
    source, audio
        The recording, and its description in the index.
    fingerprint
        Version of the recording that the index describes.
    place
        Part to show.

    Raises
    ------
    RecordingError
        The recording is gone, has changed, or cannot be decoded.
    """
    if not source.holds_version and source.stat()[1] != fingerprint:
        raise RecordingError(Stage.READ, Cause.CHANGED, "the file has changed since then")
    with open_audio(source, audio, place.start, place.stop, must_be_finite=False) as reader:
        return excerpt_of(reader, place)


def excerpt_of(reader: AudioReader, place: Place) -> Excerpt:
    """Return an excerpt of an open recording."""
    audio, heard = reader.audio, _Heard(reader, place)
    columns = min(_COLUMNS, place.stop - place.start)
    spec = PictureSpec(
        place.start, place.stop, columns, Bands(_BANDS), place.channel, has_loudness=False
    )
    for drawn in draw_picture(heard, spec):
        picture = drawn
    pixels, full, wave_share = _draw(picture, place)
    mp3 = encode_mp3(np.concatenate(heard.pieces), audio.sample_rate_hz)
    return Excerpt(png_bytes(pixels), mp3, place, audio.sample_rate_hz, full, wave_share)


class _Heard:
    """A reader that keeps what is played of the frames that pass."""

    def __init__(self, reader: AudioReader, place: Place) -> None:
        self.audio, self._reader, self._place = reader.audio, reader, place
        self.pieces: list[Samples] = []

    def blocks(self, start: int, stop: int, block_frames: int) -> Iterator[Samples]:
        for block in self._reader.blocks(start, stop, block_frames):
            first, last = (min(max(0, n - start), len(block)) for n in self._range)
            self.pieces.append(_played(finite(block[first:last])[0], self._place.channel))
            start += len(block)
            yield block

    @property
    def _range(self) -> tuple[int, int]:
        return self._place.start, self._place.stop

    def finish(self) -> None:
        self._reader.finish()


def _played(samples: Samples, channel: int | None) -> Samples:
    """Return the channels to play: the chosen one, one or two, or else their mean."""
    if channel is not None:
        return samples[:, [channel]].copy()
    return samples.copy() if samples.shape[1] <= 2 else samples.mean(axis=1, keepdims=True)


def _draw(picture: Picture, place: Place) -> tuple[Pixels, float, float]:
    """Return a picture, the sample at a waveform's edge, and the share of the waveforms."""
    minima, maxima = picture.whole("minima"), picture.whole("maxima")
    if place.channel is not None:
        minima, maxima = minima[[place.channel]], maxima[[place.channel]]
    elif len(minima) > 2:
        minima, maxima = minima.min(axis=0)[None], maxima.max(axis=0)[None]
    full = wave_scale(max(float(-minima.min()), float(maxima.max())))
    gap = np.full((_GAP_ROWS, minima.shape[1]), BACKGROUND, np.uint8)
    rows: list[Pixels] = []
    for low, high in zip(minima, maxima, strict=True):
        rows += [draw_waveform(low, high, _LANE_ROWS, full), gap]
    above = np.concatenate(rows)
    levels = draw_levels(picture.whole("levels_dbfs"), DARKEST_DBFS, BRIGHTEST_DBFS)
    pixels = np.concatenate([above, levels])
    if place.mark is not None:
        borders = list(pairwise(picture.spec.borders.tolist()))
        column = next(k for k, (_, stop) in enumerate(borders) if place.mark < stop)
        pixels[:, max(0, column - 1) : column + 1] = MARK
    return pixels, full, len(above) / len(pixels)


def encode_mp3(samples: Samples, rate_hz: int) -> bytes:
    """Return samples, float32 [frames, 1 or 2], as an MP3 file with 24 kHz.

    Every browser plays MP3. Ogg Opus, which would be smaller at the same quality, is not played by
    older ones.
    """
    import soundfile
    import soxr

    sound = soxr.resample(samples, rate_hz, SOUND_RATE_HZ)
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        np.clip(sound, -1, 1),
        SOUND_RATE_HZ,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=_COMPRESSION,
    )
    return buffer.getvalue()

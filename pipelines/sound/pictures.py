"""Pictures of a part of a recording: waveform, spectrogram and loudness, drawn column by column.

A picture divides the frames ``[start, stop)`` into columns, at whole frames. The recording is read
once, block by block, and columns are yielded as soon as they are complete. Memory depends on the
number of columns and on the size of a block, not on the length of the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from melmill.pipelines.sound.decoder_pool import intact_blocks, keep_open
from melmill.pipelines.sound.drawers import Drawers
from melmill.pipelines.sound.envelope import Envelope
from melmill.pipelines.sound.loudness_curve import LoudnessCurve
from melmill.pipelines.sound.spectrogram import Bands, Spectrogram
from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import AudioReader
from melmill.transforms.features.decoded_spans import block_frames
from melmill.transforms.measures.blocks import Shape
from melmill.transforms.store.objects import StoredObject

Floats = npt.NDArray[np.float32]

#: Smallest number of parts in which a picture is yielded, once it has some columns.
_PARTS = 50


@dataclass(frozen=True)
class PictureSpec:
    """The part of a recording to draw, and how finely.

    Attributes
    ----------
    start, stop
        Frames to draw.
    columns
        Number of columns, at most one for each frame. Column k has the frames from
        ``start + k * (stop - start) // columns`` up to the start of the next column.
    bands
        Number and scale of the spectrogram's bands; ``None`` for no spectrogram.
    channel
        Channel of the spectrogram; ``None`` for the mean of all channels' powers.
    has_loudness
        Whether the loudness is drawn.

    Raises
    ------
    ValueError
        There is no frame, or there are more columns than frames.

    Examples
    --------
    >>> PictureSpec(100, 110, 4).borders.tolist()
    [100, 102, 105, 107, 110]
    """

    start: int
    stop: int
    columns: int
    bands: Bands | None = field(default_factory=Bands)
    channel: int | None = None
    has_loudness: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop or not 1 <= self.columns <= self.stop - self.start:
            raise ValueError(
                f"cannot draw the frames {self.start} to {self.stop} in {self.columns} columns: "
                "there must be a frame for each column"
            )

    @cached_property
    def borders(self) -> npt.NDArray[np.int64]:
        """First frame of each column, and the end of the last: int64 [columns + 1]."""
        numbers = np.arange(self.columns + 1, dtype=np.int64)
        return self.start + numbers * (self.stop - self.start) // self.columns


@dataclass(frozen=True, slots=True, eq=False)
class PicturePart:
    """Some columns of a picture.

    Attributes
    ----------
    first, stop
        Columns of the part.
    minima, maxima : float32 [channels, columns]
        Smallest and largest sample of each column.
    levels_dbfs : float32 [bands, columns]
        Spectrogram; see :class:`~melmill.pipelines.sound.spectrogram.Spectrogram`. It has no bands
        if none were wanted.
    momentary_lufs, short_term_lufs : float32 [columns]
        Loudness; see :class:`~melmill.pipelines.sound.loudness_curve.LoudnessCurve`.
    non_finite
        Number of samples read so far that are NaN or infinite. They are drawn as zeros.
    """

    first: int
    stop: int
    minima: Floats
    maxima: Floats
    levels_dbfs: Floats
    momentary_lufs: Floats
    short_term_lufs: Floats
    non_finite: int = 0


@dataclass(slots=True, eq=False)
class Picture:
    """A picture, or the columns of it that are drawn so far.

    Attributes
    ----------
    spec
        What is drawn.
    rate_hz
        Sample rate.
    centres_hz : float64 [bands]
        Centres of the spectrogram's bands.
    parts
        Drawn columns, in order.
    """

    spec: PictureSpec
    rate_hz: int
    centres_hz: npt.NDArray[np.float64]
    parts: list[PicturePart] = field(default_factory=list)

    @property
    def drawn(self) -> float:
        """Share of the columns that are drawn."""
        return self.parts[-1].stop / self.spec.columns if self.parts else 0.0

    @property
    def non_finite(self) -> int:
        """Number of samples that are NaN or infinite."""
        return self.parts[-1].non_finite if self.parts else 0

    def whole(self, name: str) -> Floats:
        """Return an array of the parts (``minima``), with all drawn columns.

        Raises
        ------
        ValueError
            Nothing is drawn yet.
        """
        return np.concatenate([getattr(part, name) for part in self.parts], axis=-1)


def draw_picture(reader: AudioReader, spec: PictureSpec) -> Iterator[Picture]:
    """Yield a picture again and again: each time more of its columns are drawn.

    Parameters
    ----------
    reader
        Open recording. For NaN and infinity to be drawn as zeros, it must let them pass.
    spec
        What to draw.

    Raises
    ------
    RecordingError
        The recording cannot be decoded to its end. The columns before stay drawn.
    """
    rate_hz = reader.audio.sample_rate_hz
    centres = spec.bands.centres_hz(rate_hz) if spec.bands else np.empty(0)
    picture = Picture(spec, rate_hz, centres)
    for part in draw_parts(reader, spec):
        picture.parts.append(part)
        yield picture


def draw_parts(reader: AudioReader, spec: PictureSpec) -> Iterator[PicturePart]:
    """Yield a picture's columns, in order, as soon as they are complete.

    The first column comes alone. Then the parts grow, up to a fiftieth of the picture.

    Raises
    ------
    RecordingError
        The recording cannot be decoded to its end.
    ValueError
        The recording is shorter, or lacks the channel.
    """
    drawers = _drawers(spec, reader.audio)
    first, stop = drawers.first_frame, drawers.stop_frame
    yield from _draw(reader.blocks(first, stop, block_frames(reader.audio)), drawers, spec)


def _draw(blocks: Iterator[Floats], drawers: Drawers, spec: PictureSpec) -> Iterator[PicturePart]:
    position, drawn, non_finite = drawers.first_frame, 0, 0
    error = None
    try:
        for block in blocks:
            samples, replaced = finite(block)
            non_finite += replaced
            drawers.add(samples, position)
            position += len(block)
            new_columns = drawers.complete - drawn
            if new_columns >= min(max(1, drawn), -(-spec.columns // _PARTS)):
                yield PicturePart(drawn, drawers.complete, *drawers.columns(drawn), non_finite)
                drawn = drawers.complete
    except RecordingError as raised:
        error = raised
    drawers.finish()
    if drawn < drawers.complete:
        yield PicturePart(drawn, drawers.complete, *drawers.columns(drawn), non_finite)
    if error is not None:
        raise error


def _drawers(spec: PictureSpec, audio: AudioInfo) -> Drawers:
    if spec.stop > audio.frames or (spec.channel or 0) >= audio.channels:
        raise ValueError(
            f"cannot draw up to frame {spec.stop} (channel {spec.channel}): the recording has "
            f"{audio.frames} frames and {audio.channels} channels"
        )
    borders, frames = spec.borders, audio.frames
    shape = Shape(audio.sample_rate_hz, audio.channels)
    spectrogram = loudness = None
    if spec.bands:
        spectrogram = Spectrogram(borders, shape, frames, spec.bands, spec.channel)
    if spec.has_loudness:
        loudness = LoudnessCurve(borders, shape, frames)
    return Drawers(Envelope(borders, audio.channels), spectrogram, loudness)


def finite(samples: Floats) -> tuple[Floats, int]:
    """Return samples with zeros for NaN and infinity, and the number of those.

    >>> finite(np.array([0.5, np.nan, -np.inf], np.float32))
    (array([0.5, 0. , 0. ], dtype=float32), 2)
    """
    good = np.isfinite(samples)
    if good.all():
        return samples, 0
    return np.where(good, samples, np.float32(0)), int(good.size - good.sum())


def draw_parts_of(
    source: StoredObject, audio: AudioInfo, spec: PictureSpec
) -> Iterator[PicturePart]:
    """Yield a picture's columns; to be called in a decoder process, see :func:`draw_parts`.

    If the recording is damaged, its picture ends with the damage.
    """
    drawers = _drawers(spec, audio)
    first, stop = drawers.first_frame, drawers.stop_frame
    with keep_open(source, audio, first) as reader:
        blocks = intact_blocks(source, reader, first, stop, block_frames(audio))
        yield from _draw(blocks, drawers, spec)

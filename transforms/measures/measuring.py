"""Measuring: all wanted meters over a recording, or over a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio, probe_audio
from melmill.transforms.features.decoded_spans import block_frames
from melmill.transforms.measures.blocks import BlockCutter, Shape
from melmill.transforms.measures.meters import Meter, Reading
from melmill.transforms.measures.registry import METERS, QUALITIES, readings_of

if TYPE_CHECKING:
    from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]
FindPart = Callable[[int, int], tuple[int, int]]


class RecordingMeter:
    """The wanted meters of a recording, or of a part of it.

    Parameters
    ----------
    names
        Meters to use.
    shape
        Sample rate and number of channels.
    start, stop, total
        Part of the recording that is measured, and length of the recording; see
        :class:`~melmill.transforms.measures.blocks.BlockCutter`.

    Attributes
    ----------
    start, stop, total
        The parameters.
    meters
        Meters by name.
    """

    def __init__(
        self, names: Sequence[str], shape: Shape, start: int, stop: int, total: int
    ) -> None:
        self.start, self.stop, self.total = start, stop, total
        self.meters: dict[str, Meter] = {name: METERS[name](shape) for name in names}
        self._cutter = BlockCutter(shape, start, stop, total)

    def add(self, piece: Samples) -> None:
        """Add the next decoded frames, float32 [frames, channels]."""
        for block in self._cutter.cut(piece):
            for meter in self.meters.values():
                meter.add(block)

    def readings(self) -> dict[str, Reading]:
        """Return all readings by the measure's name."""
        return readings_of(self.meters)


def measure_samples(
    samples: Samples, rate_hz: int, meters: Sequence[str] = QUALITIES["full"]
) -> dict[str, Reading]:
    """Return the readings of samples in memory.

    Parameters
    ----------
    samples : float32 [frames] or [frames, channels]
    rate_hz
        Sample rate.
    meters
        Meters to use.

    Examples
    --------
    >>> tone = 0.5 * np.sin(2 * np.pi * 997 * np.arange(48_000, dtype=np.float32) / 48_000)
    >>> readings = measure_samples(tone, 48_000, ("level",))
    >>> round(readings["level.peak"], 2), round(readings["level.crest"], 2)
    (-6.02, 3.01)
    """
    columns = samples.reshape(len(samples), -1)
    shape = Shape(rate_hz, columns.shape[1])
    meter = RecordingMeter(meters, shape, 0, len(columns), len(columns))
    meter.add(columns)
    return meter.readings()


def measure_recording(
    source: StoredObject, meters: Sequence[str], find_part: FindPart | None = None
) -> tuple[AudioInfo, dict[str, Reading]]:
    """Return a recording's header, and the readings of the whole recording or of a part.

    Parameters
    ----------
    source
        Recording to measure.
    meters
        Meters to use.
    find_part
        Function of the number of frames and the sample rate that returns the first frame of the
        part and the frame after its last; ``None`` for the whole recording.

    Raises
    ------
    RecordingError
        The recording cannot be read, probed or decoded.
    """
    audio = probe_audio(source)
    try:
        return audio, _measure(source, audio, meters, find_part)
    except RecordingError as error:
        # A complete decode gives another length than the header: the decode is right.
        if error.cause is not Cause.LENGTH_MISMATCH or error.audio is None:
            raise
        return error.audio, _measure(source, error.audio, meters, find_part)


def _measure(
    source: StoredObject, audio: AudioInfo, meters: Sequence[str], find_part: FindPart | None
) -> dict[str, Reading]:
    shape, frames = Shape(audio.sample_rate_hz, audio.channels), audio.frames
    start, stop = find_part(frames, audio.sample_rate_hz) if find_part else (0, frames)
    meter = RecordingMeter(meters, shape, 0, stop - start, stop - start)
    with open_audio(source, audio) as reader:
        for piece in reader.blocks(start, stop, block_frames(audio)):
            meter.add(piece)
    return meter.readings()

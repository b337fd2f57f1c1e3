"""Probe and decode a whole test recording in one call."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import MediaLimits, open_audio, probe_audio
from melmill.transforms.store.objects import StoredObject

RATE = 44100


def rate_of(name: str) -> int:
    """Return the sample rate at which the tests encode a format of tests.signals."""
    if name in ("3gp", "amr", "ra"):
        return 8000
    return 48000 if name in ("opus", "opus_low", "webm", "weba") else RATE


def decode(source: StoredObject, audio: AudioInfo, start: int = 0, stop: int | None = None):
    with open_audio(source, audio) as reader:
        return read(reader, start, audio.frames if stop is None else stop)


def read(reader, start: int, stop: int, block_frames: int = 10_000) -> np.ndarray:
    empty = np.empty((0, reader.audio.channels), np.float32)
    return np.concatenate([empty, *reader.blocks(start, stop, block_frames)])


def decode_all(source: StoredObject) -> np.ndarray:
    return decode(source, probe_audio(source))


def failure(source: StoredObject, **limits) -> RecordingError:
    with pytest.raises(RecordingError) as raised:
        probe_audio(source, MediaLimits(**limits))
    return raised.value

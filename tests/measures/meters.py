"""What the tests of meters share."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from melmill.transforms.measures.blocks import Block, BlockCutter, Shape
from tests.signals import encode

#: Real recordings, where they exist.
RECORDINGS = sorted(
    path
    for path in (Path(__file__).parents[3] / "shared" / "data").glob("*/*")
    if path.suffix in {".wav", ".flac", ".ogg", ".mp3"}
)


def cut_blocks(
    pieces: Iterable[np.ndarray], shape: Shape, start: int, stop: int, total: int
) -> Iterator[Block]:
    """Yield the blocks of a part of a recording; see ``BlockCutter``."""
    cutter = BlockCutter(shape, start, stop, total)
    for piece in pieces:
        yield from cutter.cut(piece)


def read_part(meter_type: Any, samples: np.ndarray, rate_hz: int, start: int, stop: int) -> Any:
    """Return a meter that has read a part of samples [frames, channels]."""
    shape = Shape(rate_hz, samples.shape[1])
    meter = meter_type(shape)
    first = max(0, start - shape.around_frames)
    pieces = iter([samples[first:]])
    for block in cut_blocks(pieces, shape, start, stop, len(samples)):
        meter.add(block)
    return meter


def measure(meter_type: Any, samples: np.ndarray, rate_hz: int) -> dict[str, Any]:
    """Return the readings of samples [frames] or [frames, channels]."""
    columns = samples.reshape(len(samples), -1).astype(np.float32)
    return read_part(meter_type, columns, rate_hz, 0, len(columns)).readings()


def measure_in_parts(
    meter_type: Any, samples: np.ndarray, rate_hz: int, borders: Sequence[int]
) -> Any:
    """Return a meter merged from parts of samples that end at some blocks."""
    length = Shape(rate_hz, samples.shape[1]).block_frames
    inner = sorted({border * length for border in borders if border * length < len(samples)} - {0})
    edges = [0, *inner, len(samples)]
    meters = [
        read_part(meter_type, samples, rate_hz, start, stop) for start, stop in pairwise(edges)
    ]
    for later in meters[1:]:
        meters[0].merge(later)
    return meters[0]


def read_real(path: Path) -> tuple[np.ndarray, int]:
    """Return the samples [frames, channels] of a real recording, and its rate."""
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return samples, rate_hz


def encoded(samples: np.ndarray, rate_hz: int, format: str) -> np.ndarray:
    """Return samples [frames, channels] as they are after they were encoded and decoded."""
    decoded, _ = soundfile.read(io.BytesIO(encode(samples, rate_hz, format)), dtype="float32")
    return decoded

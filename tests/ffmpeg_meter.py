"""FFmpeg's loudness meter through PyAV, as a second judge."""

from __future__ import annotations

from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest


def read_with_ffmpeg(
    samples: np.ndarray, rate_hz: int, layout: str, options: str = "metadata=1"
) -> list[dict[str, str]]:
    """Return what FFmpeg's filter ``ebur128`` reads after each frame that it passes on.

    FFmpeg passes a long frame on in parts, of which some have no reading.

    Parameters
    ----------
    samples : float32 [frames] or [frames, channels]
    rate_hz
        Sample rate.
    layout
        FFmpeg's name of the channels: ``mono``, ``stereo``, ``5.1``.
    options
        Options of the filter.
    """
    if not hasattr(av.AudioFrame, "metadata"):
        pytest.skip("PyAV 18.0 does not pass on what FFmpeg's meter reads")
    graph = av.filter.Graph()
    time_base = Fraction(1, rate_hz)
    source = graph.add_abuffer(
        sample_rate=rate_hz, format="flt", layout=layout, time_base=time_base
    )
    meter, sink = graph.add("ebur128", options), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts = rate_hz, 0
    graph.push(frame)
    graph.push(None)
    readings: list[dict[str, str]] = []
    while True:
        try:
            readings.append(dict(graph.pull().metadata))
        except av.error.EOFError:
            return readings

"""How the plot of a stored feature is labelled: time in seconds, bands in Hz."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from melmill.pipelines.explore.chunk_rows import Chunk
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.filterbank import hz_to_mel, mel_to_hz
from melmill.transforms.features.framing import Framing
from melmill.transforms.features.mel_spec import MelSpec, unit_of
from melmill.transforms.features.mfcc import MfccSpec
from melmill.transforms.features.pcen import PcenSpec
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.stft_spec import StftSpec, framing, framing_with_neighbours
from melmill.transforms.features.waveform import WaveformSpec

_UNITS = {"db": "dB", "ln": "ln", "log10": "log10", "none": "", "standardized": "standardized"}
#: Smallest distance of two ticks of an axis in Hz, as a share of the axis.
_TICK_SHARE = 0.08
_ROUND_HZ = tuple(factor * 10**power for power in range(1, 6) for factor in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class PlotAxis:
    """An axis: value ``start + i * step`` belongs to number i.

    Attributes
    ----------
    title
        Title with its unit.
    word
        What is numbered: ``frame``, ``band``.
    start, step
        Places of the numbers.
    unit
        Unit of the places; ``""`` if they are the numbers.
    """

    title: str
    word: str
    start: float = 0.0
    step: float = 1.0
    unit: str = ""


@dataclass(frozen=True, slots=True)
class FeaturePlot:
    """What the plot of a feature shows beside its values.

    Attributes
    ----------
    name, kind, dtype
        Name of the column, kind in the recipe, and type of the values.
    shape
        Rows and columns of a heat map; ``(values,)`` of a line.
    form
        How it is drawn.
    x, y
        Axes; of a line, ``y`` is that of the values.
    centres_hz
        Centre of each row; empty if rows are no bands.
    ticks
        Row and text of each tick in Hz.
    unit
        Unit of the values; ``""`` for none or an unknown one.
    padding_from
        Place on the x axis from which there is no real sound; ``None`` if there is none.
    note
        What to know; ``""`` for nothing.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    form: Literal["line", "heatmap"]
    x: PlotAxis
    y: PlotAxis
    centres_hz: tuple[float, ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()
    unit: str = ""
    padding_from: float | None = None
    note: str = ""


def plot_of(
    column: FeatureColumn, feature: Feature | None, spec: FeatureSpec, chunk: Chunk
) -> FeaturePlot:
    """Return how a feature of a chunk is plotted.

    Parameters
    ----------
    column
        Column of the feature, an array.
    feature
        Feature in the recipe; ``None`` if the recipe does not have it.
    spec
        Settings of all features.
    chunk
        Chunk, whose place in the recording the time starts with.
    """
    if feature is not None and isinstance(feature.spec, WaveformSpec):
        return _waveform(column, feature, spec, chunk)
    if feature is not None and isinstance(feature.spec, StftSpec):
        return _spectrogram(column, feature, feature.spec, spec, chunk)
    return _array(column, feature)


def _waveform(
    column: FeatureColumn, feature: Feature, spec: FeatureSpec, chunk: Chunk
) -> FeaturePlot:
    rate_hz = feature.sample_rate_hz or spec.sample_rate_hz
    x = PlotAxis("Time in the recording (s)", "sample", chunk.start_seconds, 1 / rate_hz, "s")
    return FeaturePlot(
        column.name,
        feature.kind,
        column.dtype,
        column.shape,
        "line",
        x,
        PlotAxis("Sample", "sample"),
        padding_from=_padding_from(spec, chunk),
        note=f"{rate_hz:,} Hz" + (", stored as FLAC" if column.flac_rate_hz else ""),
    )


def _spectrogram(
    column: FeatureColumn, feature: Feature, stft: StftSpec, spec: FeatureSpec, chunk: Chunk
) -> FeaturePlot:
    rate_hz = feature.sample_rate_hz or spec.sample_rate_hz
    places = _framing(stft, spec.at_rate(rate_hz))
    stacked = stft.stack_frames if isinstance(stft, MelSpec) else 1
    # The middle of a frame, or of those that are stacked.
    middle = (places.frame_samples + (stacked - 1) * places.hop_samples) / 2
    start = chunk.start_seconds + (middle - places.before_samples) / rate_hz
    step = stacked * places.hop_samples / rate_hz
    centres = band_centres(stft, rate_hz)
    is_mfcc = isinstance(stft, MfccSpec)
    word = "coefficient" if is_mfcc else "band" if isinstance(stft, MelSpec) else "bin"
    ticks = hz_ticks(centres) if stacked == 1 else ()
    return FeaturePlot(
        column.name,
        feature.kind,
        column.dtype,
        column.shape,
        "heatmap",
        PlotAxis("Time in the recording (s)", "frame", start, step, "s"),
        PlotAxis("Frequency (Hz)" if ticks else word.capitalize(), word),
        tuple(centres.tolist()) * stacked,
        ticks,
        "" if is_mfcc or isinstance(stft, PcenSpec) else _UNITS[unit_of(stft)],
        _padding_from(spec, chunk),
        f"{stacked} frames are stacked in each column" if stacked > 1 else "",
    )


def _framing(stft: StftSpec, at_rate: FeatureSpec) -> Framing:
    place = framing_with_neighbours if at_rate.chunk.edges == "neighbours" else framing
    return place(stft, at_rate.chunk.length)


def _array(column: FeatureColumn, feature: Feature | None) -> FeaturePlot:
    """Return the plot of an array whose axes are not known: the output of a model."""
    kind = feature.kind if feature else "unknown"
    if len(column.shape) == 1:
        x, y = PlotAxis("Number of the value", "value"), PlotAxis("Value", "value")
        return FeaturePlot(column.name, kind, column.dtype, column.shape, "line", x, y)
    *outer, columns = column.shape
    rows = int(np.prod(outer))
    note = f"shape {list(column.shape)}: all axes but the last are drawn as one"
    return FeaturePlot(
        column.name,
        kind,
        column.dtype,
        (rows, columns),
        "heatmap",
        PlotAxis("Last axis" if len(outer) > 1 else "Second axis", "column"),
        PlotAxis("Other axes" if len(outer) > 1 else "First axis", "row"),
        note=note if len(outer) > 1 else "",
    )


def _padding_from(spec: FeatureSpec, chunk: Chunk) -> float | None:
    """Return the second from which a chunk is padding; None if it is not padded."""
    is_repeated = chunk.chunk_index == 0 and spec.chunk.short == "repeat"
    return None if is_repeated or chunk.valid_samples >= spec.chunk.length else chunk.stop_seconds


def band_centres(stft: StftSpec, rate_hz: int) -> npt.NDArray[np.float64]:
    """Return the centre of each band of a spectrogram in Hz: float64 [bands]; empty for MFCC.

    That of a mel band is the peak of its triangle, see
    :func:`~melmill.transforms.features.filterbank.mel_filterbank`.

    Examples
    --------
    >>> band_centres(StftSpec(n_fft=8), 8000).tolist()
    [0.0, 1000.0, 2000.0, 3000.0, 4000.0]
    >>> band_centres(MelSpec(n_mels=3, f_max_hz=800.0), 8000).round(6).tolist()
    [200.0, 400.0, 600.0]
    """
    if isinstance(stft, MfccSpec):
        return np.empty(0)
    if not isinstance(stft, MelSpec):
        return np.fft.rfftfreq(stft.n_fft, 1 / rate_hz).astype(np.float64)
    highest_hz = rate_hz / 2 if stft.f_max_hz is None else stft.f_max_hz
    ends = hz_to_mel(stft.f_min_hz, stft.scale), hz_to_mel(highest_hz, stft.scale)
    return mel_to_hz(np.linspace(*ends, stft.n_mels + 2), stft.scale)[1:-1]


def hz_ticks(centres_hz: npt.NDArray[np.float64]) -> tuple[tuple[float, str], ...]:
    """Return the place of each tick, in bands, and its text.

    Ticks are round frequencies; their places are interpolated between the centres of bands.

    Examples
    --------
    >>> hz_ticks(np.linspace(0, 4000, 9))
    ((2.0, '1k'), (4.0, '2k'), (6.0, '3k'), (8.0, '4k'))
    """
    if not len(centres_hz):
        return ()
    widths = np.diff(centres_hz)
    is_linear = len(widths) > 1 and np.allclose(widths, widths[0])
    wanted = _multiples(float(centres_hz[-1])) if is_linear else _ROUND_HZ
    places = [
        (float(np.interp(hz, centres_hz, np.arange(len(centres_hz)))), hz)
        for hz in wanted
        if centres_hz[0] <= hz <= centres_hz[-1]
    ]
    ticks: list[tuple[float, str]] = []
    for place, hz in places:
        if not ticks or place - ticks[-1][0] >= _TICK_SHARE * len(centres_hz):
            ticks.append((place, f"{hz / 1000:g}k" if hz >= 1000 else f"{hz:g}"))
    return tuple(ticks)


def _multiples(highest_hz: float) -> Sequence[float]:
    step = next((hz for hz in _ROUND_HZ if hz * 5 >= highest_hz), _ROUND_HZ[-1])
    return [step * number for number in range(1, int(highest_hz / step) + 1)]

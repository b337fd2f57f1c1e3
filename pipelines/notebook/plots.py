"""Pictures of a recording for notebooks: chunks on the waveform, features in Hz and seconds.

A picture is sharp on screens of high resolution. Its background is opaque: the numbers at its axes
are legible in light and dark themes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from melmill.pipelines.explore.chunk_rows import Chunk as ChunkRow
from melmill.pipelines.explore.feature_plots import plot_of
from melmill.pipelines.notebook.audio import MISSING, Audio, Chunk
from melmill.pipelines.show.drawings import DrawnChunk
from melmill.pipelines.show.figures import plain, plot_feature
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.stft_spec import StftSpec

#: Largest number of chunks whose numbers fit above a waveform.
_MOST_NUMBERS = 20


def plot_audio(audio: Audio) -> Any:
    """Return a figure with the waveform and the chunks of a recording above its spectrograms."""
    names, chunks = _spectrograms(audio), list(audio.chunks())
    heights = [1.0] + [1.6] * len(names)
    figure = _make_figure(figsize=(9, 1.8 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
    wave, *spectra = panels[:, 0]
    ends = _plot_waveform(wave, audio, chunks)
    for axes, name in zip(spectra, names, strict=True):
        draw_feature(axes, audio, name)
        axes.set(xlabel="")
    panels[-1, 0].set(xlabel="Time in the recording (s)")
    if ends[0] < ends[1]:
        wave.set(xlim=ends)
    return figure


def draw_feature(axes: Any, audio: Audio, name: str | None = None) -> None:
    """Draw a spectrogram, chunk by chunk, and a line at the start of each chunk but the first.

    Parameters
    ----------
    axes
        Matplotlib's axes to draw on.
    audio
        The recording, or a chunk of it. Its first channel is drawn.
    name
        The name of the feature; ``None`` for the first spectrogram of the recipe.

    Raises
    ------
    ConfigError
        The recipe has no such spectrogram.
    """
    names = _spectrograms(audio)
    if not names or name not in (None, *names):
        raise ConfigError(f"no spectrogram {name or ''!r}; the recipe has: {', '.join(names)}")
    name = name or names[0]
    spec, chunks = audio.features_spec, list(audio.chunks())
    if not chunks:
        axes.text(0.5, 0.5, "shorter than a chunk", ha="center", transform=axes.transAxes)
        return
    column = next(column for column in spec.columns if column.name == name)
    plots = [plot_of(column, spec.by_column[name], spec, _row_of(chunk)) for chunk in chunks]
    values = audio.features(name)[:: audio.samples.shape[1]]
    plot_feature(axes.figure, axes, tuple(map(DrawnChunk, values, plots)))
    for chunk in chunks[1:]:
        axes.axvline(chunk.start_second, color="white", linewidth=1, alpha=0.7)


def _spectrograms(audio: Audio) -> list[str]:
    features = audio.features_spec.features
    return [feature.name for feature in features if isinstance(feature.spec, StftSpec)]


def _row_of(chunk: Chunk) -> ChunkRow:
    """Return the place of a chunk as a dataset's row has it."""
    place = chunk.index, chunk.start_sample, chunk.valid_samples
    return ChunkRow("", 0, 0, *place, chunk.sample_rate_hz, 0.0, 0.0)


def _plot_waveform(axes: Any, audio: Audio, chunks: Sequence[Chunk]) -> tuple[float, float]:
    """Draw a waveform and its chunks; return the ends of the time axis."""
    start = audio.start_second
    seconds = start + np.arange(len(audio.samples)) / audio.sample_rate_hz
    axes.plot(seconds, audio.samples, linewidth=0.5)
    axes.set_ylabel("Sample")
    axes.set_title(plain(audio.title), pad=18)  # the numbers of the chunks are below it
    for number, chunk in enumerate(chunks):
        _mark_chunk(axes, chunk, shaded=number % 2 == 0, named=len(chunks) <= _MOST_NUMBERS)
    return start, max([start + audio.seconds, *(chunk.stop_second for chunk in chunks)])


def _mark_chunk(axes: Any, chunk: Chunk, *, shaded: bool, named: bool) -> None:
    """Draw the borders of a chunk, its number and its padding."""
    start, stop = chunk.start_second, chunk.stop_second
    for border in (start, stop):
        axes.axvline(border, color="tab:red", linewidth=1)
    if shaded:
        axes.axvspan(start, stop, color="tab:orange", alpha=0.12, linewidth=0)
    if (padding := start + chunk.filled_samples / chunk.sample_rate_hz) < stop:
        axes.axvspan(padding, stop, fill=False, hatch="///", color="0.6", linewidth=0)
        _name(axes, "padding", padding)
    if named:
        _name(axes, f"chunk {chunk.index}", start)


def _name(axes: Any, text: str, second: float) -> None:
    """Write a text above the axes, beginning at a time."""
    places = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    axes.annotate(text, (second, 1), (2, 4), fontsize=9, **places)


def _make_figure(**options: Any) -> Any:
    """Return a figure that a notebook shows even if pyplot was never imported."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING.format(name="matplotlib")) from error

    class Picture(Figure):
        def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
            """Return a PNG with two pixels for each point of the screen, and its size in points."""
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=2 * self.dpi, transparent=False)
            width, height = map(round, self.bbox.size)
            png = base64.b64encode(buffer.getvalue()).decode()
            return {"image/png": png}, {"image/png": {"width": width, "height": height}}

    return Picture(**options)

"""Drawings as PNG files, by Matplotlib."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from melmill.pipelines.show.drawings import Drawing, DrawnChunk, Waveform

#: Size of a picture, and pixels in an inch.
_INCHES, _DPI = (10.0, 5.2), 100


def png_of(drawing: Drawing) -> bytes:
    """Return a drawing as a PNG file of 1000 by 520 pixels.

    Raises
    ------
    ModuleNotFoundError
        Matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    panels = (drawing.waveform is not None) + bool(drawing.chunks)
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    figure.suptitle("\n".join([plain(drawing.title), *map(plain, drawing.notes)]), fontsize=10)
    heights = [1, 2] if panels == 2 else [1]
    axes = figure.subplots(
        max(1, panels),
        sharex=_share(drawing),
        squeeze=False,
        height_ratios=heights[: max(1, panels)],
    )[:, 0]
    if drawing.waveform is not None:
        _plot_waveform(axes[0], drawing.waveform)
    if drawing.chunks:
        plot_feature(figure, axes[-1], drawing.chunks)
    else:
        axes[-1].set_xlabel("Time in the recording (s)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def plain(text: str) -> str:
    """Return text in which Matplotlib sees no formulas, and no bytes of a name that are no text."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def _share(drawing: Drawing) -> bool:
    """Return whether the feature's axis is time, as that of the waveform is."""
    return not drawing.chunks or drawing.chunks[0].plot.x.unit == "s"


def _plot_waveform(axes: Any, waveform: Waveform) -> None:
    columns = waveform.minima.shape[1]
    seconds = np.linspace(waveform.start_second, waveform.stop_second, columns)
    for number, (low, high) in enumerate(zip(waveform.minima, waveform.maxima, strict=True)):
        label = f"channel {number}"
        axes.fill_between(seconds, low, high, linewidth=0.5, alpha=0.7, label=label, step="mid")
    if 1 < len(waveform.minima) <= 8:
        axes.legend(loc="upper right", fontsize=8)
    axes.set(ylabel="Sample", xlim=(waveform.start_second, waveform.stop_second))


def plot_feature(figure: Any, axes: Any, chunks: tuple[DrawnChunk, ...]) -> None:
    """Draw a feature of some chunks onto axes, with a scale of its values beside them."""
    plot = chunks[0].plot
    axes.set(xlabel=plot.x.title, ylabel=f"{plot.name}: {plot.y.title}")
    if plot.form == "line":
        for chunk in chunks:
            numbers = np.arange(chunk.values.size)
            axes.plot(chunk.plot.x.start + chunk.plot.x.step * numbers, chunk.values, linewidth=0.6)
        return
    low = min(float(np.nanmin(chunk.values)) for chunk in chunks)
    high = max(float(np.nanmax(chunk.values)) for chunk in chunks)
    for chunk in chunks:
        own, values = chunk.plot, chunk.values.reshape(chunk.plot.shape)
        start, step = own.x.start - own.x.step / 2, own.x.step
        extent = (start, start + step * values.shape[1], -0.5, len(values) - 0.5)
        options = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
        image = axes.imshow(values, extent=extent, vmin=low, vmax=high, cmap="viridis", **options)
    if plot.ticks:
        axes.set_yticks([place for place, _ in plot.ticks], [text for _, text in plot.ticks])
    if plot.x.unit == "s":
        last = chunks[-1].plot.x
        columns = chunks[-1].plot.shape[1]
        axes.set_xlim(plot.x.start - plot.x.step / 2, last.start + last.step * (columns - 0.5))
    figure.colorbar(image, ax=axes, label=plot.unit)

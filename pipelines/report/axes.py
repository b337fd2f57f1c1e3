"""The ticks of an excerpt's axes: round numbers, with their places."""

from __future__ import annotations

import math
from dataclasses import dataclass

from melmill.pipelines.report.excerpts import Excerpt

#: Lowest frequency of a spectrogram with logarithmic bands.
_LOWEST_HZ = 20.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick.

    Attributes
    ----------
    share
        Place, as a share of the picture's width from the left, or of its height from the top.
    text
        Label.
    """

    share: float
    text: str


def second_ticks(excerpt: Excerpt, most: int = 7) -> list[Tick]:
    """Return ticks at round seconds of the recording: at most some, and at least one."""
    start, stop = excerpt.start_second, excerpt.stop_second
    step = _round_step((stop - start) / most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(start / step - 1e-9), math.floor(stop / step + 1e-9) + 1)
    return [
        Tick((number * step - start) / (stop - start), f"{number * step:.{digits}f}")
        for number in numbers
    ]


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, … that is not below a number, also below 1.

    >>> _round_step(0.43), _round_step(3), _round_step(1e-5)
    (0.5, 5.0, 1e-05)
    """
    power = 10.0 ** math.floor(math.log10(least) + 1e-9)
    factor = next(f for f in (1, 2, 5, 10) if f * power >= least * (1 - 1e-9))
    return float(f"{factor * power:.3g}")


def hz_ticks(excerpt: Excerpt) -> list[Tick]:
    """Return ticks at 100 Hz, 1 kHz and 10 kHz, as far as the spectrogram has them."""
    octaves = math.log2(excerpt.rate_hz / 2 / _LOWEST_HZ)
    ticks = []
    for hz in (100.0, 1000.0, 10_000.0):
        share = math.log2(hz / _LOWEST_HZ) / octaves
        if share < 1:
            top = excerpt.wave_share + (1 - share) * (1 - excerpt.wave_share)
            ticks.append(Tick(top, f"{hz:g} Hz" if hz < 1000 else f"{hz / 1000:g} kHz"))
    return ticks

"""Per-channel energy normalization (PCEN) of mel bands, as ``librosa.pcen``.

Wang, Getreuer, Hughes, Lyon and Saurous, "Trainable frontend for robust and far-field keyword
spotting", ICASSP 2017: each band is divided by its own smoothed past, and compressed by a root.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from melmill.transforms.features.chunks import Edges
from melmill.transforms.features.logarithm import Contradiction, LogSpec
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec, plain_band_contradictions
from melmill.transforms.features.stft import refuse


@dataclass(frozen=True, slots=True)
class PcenSpec(MelSpec):
    """Settings of the PCEN; the defaults are librosa's.

    Attributes
    ----------
    gain
        Exponent of the smoothed band that divides: 0 for none, 1 for all of the level.
    bias, exponent
        Number added before the root, and the root's exponent (``power`` in librosa).
    time_constant_s
        Time constant of the smoothing, in seconds.
    epsilon
        Number added to the smoothed band.
    """

    log: LogSpec = field(default_factory=lambda: LogSpec("none", top_db=None))
    gain: Annotated[float, Ge(0), Le(1)] = 0.98
    bias: Annotated[float, Ge(0), Le(1e9)] = 2.0
    exponent: Annotated[float, Gt(0), Le(1)] = 0.5
    time_constant_s: Annotated[float, Gt(0), Le(1e6)] = 0.4
    epsilon: Annotated[float, Gt(0), Le(1e9)] = 1e-6


def pcen_contradictions(spec: PcenSpec) -> Iterator[Contradiction]:
    """Yield each setting that another setting makes impossible, as (key, value, allowed)."""
    if spec.log.kind != "none":
        yield "log.kind", spec.log.kind, "none for a PCEN"
    yield from plain_band_contradictions(spec, "a PCEN")


def pcen_neighbour_contradictions() -> Iterator[Contradiction]:
    """Yield why the chunks of a PCEN are never parts of one: each is smoothed from its start."""
    yield (
        "kind",
        "pcen",
        "another where chunk.edges is neighbours: its smoothing begins in the chunk",
    )


def smoothing_factor(spec: PcenSpec, sample_rate_hz: int) -> float:
    """Return the factor b of the smoothing M[t] = (1 − b) M[t−1] + b S[t], as in librosa."""
    frames = spec.time_constant_s * sample_rate_hz / spec.hop_length
    # librosa's (sqrt(1 + 4 frames²) - 1) / (2 frames²), without its division by almost 0.
    return 2 / (1 + math.sqrt(1 + 4 * frames**2))


def normalize_energy(
    bands: NDArray[np.float64], spec: PcenSpec, sample_rate_hz: int
) -> NDArray[np.float64]:
    """Return the PCEN of bands.

    Parameters
    ----------
    bands
        Powers or amplitudes of shape [n_mels, n_frames], float64.
    spec, sample_rate_hz
        Settings, and sample rate of the audio.

    Returns
    -------
    ndarray of shape [n_mels, n_frames], float64
    """
    from scipy.signal import lfilter  # imported here, because few recipes need it

    factor = smoothing_factor(spec, sample_rate_hz)
    # librosa begins as if all bands had been 1 before.
    start = np.full((len(bands), 1), 1 - factor)
    smooth, _ = lfilter([factor], [1, factor - 1], bands, zi=start)
    levelled = bands * (spec.epsilon + smooth) ** -spec.gain
    return np.asarray((levelled + spec.bias) ** spec.exponent - spec.bias**spec.exponent)


class PcenExtractor(MelExtractor):
    """Computes the PCEN of chunks; see :class:`~melmill.transforms.features.mel.MelExtractor`."""

    _spec: PcenSpec

    def __init__(
        self, spec: PcenSpec, sample_rate_hz: int, chunk_samples: int, edges: Edges = "pad"
    ) -> None:
        """Prepare what the mel bands need."""
        refuse(pcen_contradictions(spec))
        if edges == "neighbours":
            refuse(pcen_neighbour_contradictions())
        super().__init__(spec, sample_rate_hz, chunk_samples, edges)
        self._sample_rate_hz = sample_rate_hz

    def _finish(
        self,
        bands: NDArray[np.float32],
        frames: NDArray[np.float32],
        valid_samples: int,
        out: NDArray[np.float32],
    ) -> None:
        out[:] = normalize_energy(bands.astype(np.float64), self._spec, self._sample_rate_hz)

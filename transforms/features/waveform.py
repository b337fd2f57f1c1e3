"""Waveforms as a feature: the samples of a chunk at the target rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from melmill.transforms.core.feature_columns import Array
from melmill.transforms.features.logarithm import ADDED, Contradiction
from melmill.transforms.features.loudness import integrated_loudness

#: Rule for the level of a chunk: as it is; the largest sample gets a fixed magnitude; mean 0 and
#: variance 1; or a fixed loudness.
Level = Literal["none", "peak", "standardized", "loudness"]

#: Full scale of 16-bit samples, as in libsndfile: a 16-bit file at the target rate keeps its bits.
_INT16_SCALE = 32768


@dataclass(frozen=True, slots=True)
class WaveformSpec:
    """Settings of a waveform.

    Attributes
    ----------
    dtype
        Type of the samples: ``float32`` with full scale 1.0, or ``int16`` with full scale 32768,
        rounded to the nearest and clipped.
    level
        Rule for the level of each chunk. ``peak``: the largest magnitude becomes ``peak``.
        ``standardized``: the samples that are not padding get mean 0 and variance 1, and padding
        becomes 0, as in transformers' ``Wav2Vec2FeatureExtractor``. ``loudness``: the samples that
        are not padding get the integrated loudness ``loudness_lufs`` (ITU-R BS.1770-4), or less
        if their largest magnitude would exceed full scale. Silence stays as it is.
    peak
        Largest magnitude for the level ``peak``.
    variance_epsilon
        Number added to the variance for the level ``standardized``.
    loudness_lufs
        Integrated loudness of the chunk for the level ``loudness``.
    encoding
        How files hold the samples: ``none``, as numbers; ``flac``, as a FLAC file for each row,
        which is lossless and needs int16.
    """

    dtype: Literal["float32", "int16"] = "float32"
    level: Level = "none"
    peak: Annotated[float, Gt(0), Le(1)] = 0.95
    variance_epsilon: Annotated[float, Gt(0), Le(1)] = 1e-7
    loudness_lufs: Annotated[float, Ge(-70), Le(0)] = -23.0
    encoding: Literal["none", "flac"] = field(default="none", metadata=ADDED)


def waveform_contradictions(spec: WaveformSpec, rate_hz: int) -> Iterator[Contradiction]:
    """Yield each setting that another setting makes impossible, as (key, value, allowed)."""
    if spec.encoding == "flac" and spec.dtype != "int16":
        yield "encoding", "flac", "none where dtype is float32: FLAC holds integers"
    if spec.encoding == "flac" and (rate_hz > 655_350 or (rate_hz > 65_535 and rate_hz % 10)):
        allowed = "none: FLAC's sample rates above 65,535 Hz are multiples of 10 up to 655,350 Hz"
        yield "encoding", "flac", allowed
    if spec.level == "standardized" and spec.dtype == "int16":
        yield "dtype", "int16", "float32 where level is standardized: its samples exceed full scale"


def waveform_neighbour_contradictions(spec: WaveformSpec) -> Iterator[Contradiction]:
    """Yield why the chunks of a waveform are not parts of one: each has a level of its own."""
    if spec.level != "none":
        yield "level", spec.level, "none where chunk.edges is neighbours: it is that of the chunk"


class WaveformExtractor:
    """Converts chunks of samples to a waveform's level and type.

    Parameters
    ----------
    spec
        Settings of the waveform.
    rate_hz
        Sample rate of the chunks.
    """

    def __init__(self, spec: WaveformSpec, rate_hz: int) -> None:
        """Set the settings."""
        self._spec, self._rate_hz = spec, rate_hz

    def __call__(self, chunks: NDArray[np.float32], valid_samples: Sequence[int] = ()) -> Array:
        """Return the waveforms of a batch of chunks.

        Parameters
        ----------
        chunks
            Samples of shape [n_chunks, samples], float32, full scale 1.0; not modified.
        valid_samples
            Number of samples in each chunk that are not padding; empty if no chunk is padded.

        Returns
        -------
        ndarray of shape [n_chunks, samples], C-contiguous
            Samples in the spec's type.
        """
        spec, lengths = self._spec, list(valid_samples) or [chunks.shape[1]] * len(chunks)
        levelled = chunks
        if spec.level != "none":
            rows = zip(chunks, lengths, strict=True)
            levelled = np.stack([self._level(chunk, length) for chunk, length in rows])
        if spec.dtype == "float32":
            return np.ascontiguousarray(levelled)
        scaled = np.rint(levelled * np.float32(_INT16_SCALE))
        samples: Array = np.clip(scaled, -32768, 32767).astype(np.int16, order="C")
        return samples

    def _level(self, chunk: NDArray[np.float32], valid_samples: int) -> NDArray[np.float32]:
        spec = self._spec
        if spec.level == "peak":
            return _to_peak(chunk, spec.peak)
        if spec.level == "standardized":
            return _standardized(chunk, valid_samples, spec.variance_epsilon)
        gain = loudness_gain(chunk[:valid_samples], self._rate_hz, spec.loudness_lufs)
        return chunk * np.float32(gain)


def loudness_gain(samples: NDArray[np.float32], rate_hz: int, loudness_lufs: float) -> float:
    """Return the factor that gives samples a loudness, or less so that none exceeds full scale.

    The factor of silence is 1.
    """
    loudness = integrated_loudness(samples, rate_hz)
    if loudness == -np.inf:
        return 1.0
    largest = float(max(samples.max(), -samples.min()))
    return min(10 ** ((loudness_lufs - loudness) / 20), 1 / largest)


def _to_peak(chunk: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    largest = max(chunk.max(), -chunk.min())
    # The quotient first, as in librosa.util.normalize: it is exactly 1 at the largest sample.
    return chunk if not largest else chunk / largest * np.float32(peak)


def _standardized(
    chunk: NDArray[np.float32], valid_samples: int, epsilon: float
) -> NDArray[np.float32]:
    # In double precision and in place: a chunk of 30 s has 480,000 samples.
    valid = chunk[:valid_samples].astype(np.float64)
    valid -= valid.mean()
    variance = np.einsum("i,i->", valid, valid) / valid_samples
    valid *= 1 / np.sqrt(variance + epsilon)
    levelled = np.empty_like(chunk)
    levelled[:valid_samples], levelled[valid_samples:] = valid, 0
    return levelled

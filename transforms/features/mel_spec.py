"""The settings of log-mel features, and whether they can be computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from melmill.transforms.core.naming import number_of
from melmill.transforms.features.filterbank import MelNorm, MelScale, Triangles, mel_filterbank
from melmill.transforms.features.logarithm import (
    ADDED,
    Contradiction,
    Finite,
    LogSpec,
    NonNegative,
    Positive,
    log_contradictions,
)
from melmill.transforms.features.standardization import (
    StandardizationSpec,
    standardization_contradictions,
)
from melmill.transforms.features.stft_spec import (
    Count,
    StftSpec,
    frame_contradictions,
    framing,
    neighbour_contradictions,
)


@dataclass(frozen=True, slots=True)
class MelSpec(StftSpec):
    """Settings of the mel features; the defaults are librosa's.

    Attributes
    ----------
    power
        Exponent of the spectrum: 1 sums amplitudes into bands, 2 sums powers.
    n_mels, f_min_hz, f_max_hz, scale, norm, triangles
        Settings of the filterbank
        (:func:`~melmill.transforms.features.filterbank.mel_filterbank`);
        ``f_max_hz=None`` means the Nyquist frequency.
    empty_bands
        Whether bands without any bin of the spectrum are allowed.
    log
        Settings of the logarithm.
    standardization
        Settings of the standardization after the logarithm; ``None`` for none.
    padded_frames
        Value of the frames that a padded recording would not have without the padding; ``None``:
        computed from the padding. A standardization leaves these frames out.
    stack_frames
        Number of consecutive frames that become one frame with as many times the bands; the last
        frames that do not fill one are left out.
    """

    power: Literal[1, 2] = 2
    n_mels: Count = 128
    f_min_hz: NonNegative = 0.0
    f_max_hz: Positive | None = None
    scale: MelScale = "slaney"
    norm: MelNorm = "slaney"
    triangles: Triangles = field(default="hz", metadata=ADDED)
    empty_bands: bool = field(default=False, metadata=ADDED)
    log: LogSpec = field(default_factory=LogSpec)
    standardization: StandardizationSpec | None = field(default=None, metadata=ADDED)
    padded_frames: Finite | None = field(default=None, metadata=ADDED)
    stack_frames: Annotated[int, Ge(1), Le(64)] = field(default=1, metadata=ADDED)


def mel_neighbour_contradictions(
    spec: MelSpec, chunk_samples: int, chunk_hop: int
) -> Iterator[Contradiction]:
    """Yield each setting that keeps the chunks from being parts of one spectrogram."""
    yield from neighbour_contradictions(spec, chunk_samples, chunk_hop)
    where = "where chunk.edges is neighbours"
    standardization = spec.standardization
    if standardization is not None and "band" in (standardization.mean, standardization.std):
        values = {"mean": standardization.mean, "std": standardization.std}
        for name, value in values.items():
            if value == "band":
                allowed = f"a number {where}: the statistics are those of the chunk"
                yield f"standardization.{name}", value, allowed
    if spec.padded_frames is not None:
        yield "padded_frames", spec.padded_frames, f"null {where}"
    if chunk_samples // spec.hop_length % spec.stack_frames:
        number = chunk_samples // spec.hop_length
        yield "stack_frames", spec.stack_frames, f"a divisor of the {number} frames {where}"


def plain_band_contradictions(spec: MelSpec, kind: str) -> Iterator[Contradiction]:
    """Yield each setting of the finished bands that a kind computed from the bands has not."""
    for name, allowed in (("stack_frames", 1), ("standardization", None), ("padded_frames", None)):
        if (value := getattr(spec, name)) != allowed:
            yield name, value, f"{'null' if allowed is None else allowed} for {kind}"


def unit_of(spec: StftSpec) -> str:
    """Return the unit of the values: the kind of the logarithm, or ``standardized``."""
    standardized = isinstance(spec, MelSpec) and spec.standardization is not None
    return "standardized" if standardized else spec.log.kind


def mel_shape(spec: MelSpec, chunk_samples: int) -> tuple[int, int]:
    """Return the shape ``(bands, frames)`` of a chunk's features.

    Parameters
    ----------
    spec
        Settings of the features.
    chunk_samples
        Length of the chunk; not shorter than a frame unless the chunk is padded.

    Examples
    --------
    >>> mel_shape(MelSpec(), 66150)
    (128, 130)
    >>> mel_shape(MelSpec(center=False, stack_frames=2), 66150)
    (256, 63)
    """
    frames = framing(spec, chunk_samples).n_frames // spec.stack_frames
    return spec.n_mels * spec.stack_frames, frames


def filterbank(spec: MelSpec, sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the spec's filterbank, float64 [n_mels, 1 + n_fft // 2]."""
    return mel_filterbank(
        sample_rate_hz=sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        f_min_hz=spec.f_min_hz,
        f_max_hz=sample_rate_hz / 2 if spec.f_max_hz is None else spec.f_max_hz,
        scale=spec.scale,
        norm=spec.norm,
        triangles=spec.triangles,
    )


def contradictions(spec: MelSpec, sample_rate_hz: int, chunk_samples: int) -> list[Contradiction]:
    """Return each setting that another setting or the chunk makes impossible.

    Parameters
    ----------
    spec
        Settings. Each field is within its annotated bounds.
    sample_rate_hz, chunk_samples
        Sample rate and length of the chunks.

    Returns
    -------
    list of (key, value, allowed)
        ``key`` is the dotted key below ``mel`` (``log.top_db``); ``allowed`` describes in
        words the values that are allowed. The list is empty if the spec is valid.

    Examples
    --------
    >>> contradictions(MelSpec(f_max_hz=9000.0), 16000, 48000)
    [('f_max_hz', 9000.0, 'at most 8000.0, half the sample rate')]
    """
    return [
        *frame_contradictions(spec, chunk_samples),
        *_standardization_contradictions(spec, chunk_samples),
        *_band_contradictions(spec, sample_rate_hz),
        *log_contradictions(spec.log),
    ]


def _standardization_contradictions(spec: MelSpec, chunk_samples: int) -> Iterator[Contradiction]:
    n_frames = framing(spec, chunk_samples).n_frames
    if 0 < n_frames < spec.stack_frames:
        frames = f"a chunk has {number_of(n_frames + spec.drop_last_frame, 'frame')}"
        yield "stack_frames", spec.stack_frames, f"smaller: {frames}"
    elif n_frames > 0 and spec.standardization is not None:
        yield from standardization_contradictions(spec.standardization, n_frames)


def _band_contradictions(spec: MelSpec, sample_rate_hz: int) -> Iterator[Contradiction]:
    nyquist_hz = sample_rate_hz / 2
    f_max_hz = nyquist_hz if spec.f_max_hz is None else spec.f_max_hz
    if f_max_hz > nyquist_hz:
        yield "f_max_hz", spec.f_max_hz, f"at most {nyquist_hz}, half the sample rate"
    if spec.f_min_hz >= f_max_hz:
        yield "f_min_hz", spec.f_min_hz, f"below f_max_hz, {f_max_hz}"
    if spec.triangles == "mel" and spec.norm != "none":
        yield "norm", spec.norm, "none where triangles is mel"
    if spec.empty_bands or not spec.f_min_hz < f_max_hz <= nyquist_hz:
        return
    if empty := int(np.sum(~filterbank(spec, sample_rate_hz).any(axis=1))):
        allowed = f"smaller, or make n_fft larger: {empty} of the bands contain no spectrum bin"
        yield "n_mels", spec.n_mels, allowed

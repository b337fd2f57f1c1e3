"""The settings of log-mel features, and whether they can be computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray

from melmill.transforms.core.naming import number_of
from melmill.transforms.features.filterbank import MelNorm, MelScale, Triangles, mel_filterbank
from melmill.transforms.features.framing import Framing, PadMode, frame_per_hop, whole_frames
from melmill.transforms.features.logarithm import (
    ADDED,
    Contradiction,
    Finite,
    LogSpec,
    NonNegative,
    Positive,
    Scale,
    log_contradictions,
)
from melmill.transforms.features.standardization import (
    StandardizationSpec,
    standardization_contradictions,
)
from melmill.transforms.features.windows import WindowPosition, window_samples

Count = Annotated[int, Ge(1), Le(131_072)]


@dataclass(frozen=True, slots=True)
class MelSpec:
    """Settings of the mel features; the defaults are librosa's.

    Attributes
    ----------
    n_fft
        Length of the Fourier transform, in samples.
    win_length
        Length of the window; ``None`` means ``n_fft``.
    hop_length
        Distance between the starts of two frames, in samples.
    window
        Window name that ``scipy.signal.get_window`` accepts without parameters, or ``povey``
        (Kaldi's).
    periodic
        Whether the window is periodic or symmetric.
    window_position
        Position of a window that is shorter than the transform: ``center`` (frames have ``n_fft``
        samples) or ``left`` (frames have ``win_length`` samples, followed by zeros).
    center
        Position of frame t: centred on sample t·hop if true (both ends of the chunk are
        padded by ``n_fft // 2``), otherwise starting at that sample.
    pad_samples
        Length of the padding at both ends of the chunk if ``center`` is false; ``None`` means 0.
    snip_edges
        If false, one frame for each hop, centred in the hop, as Kaldi's option of this name.
    pad_mode
        Mode of the padding, as in ``numpy.pad``.
    drop_last_frame
        Whether the last frame is left out, as in Whisper.
    sample_scale
        Factor of the samples: Kaldi's recipes scale to 16-bit integers, 32768.
    remove_dc_offset
        Whether the mean of each frame is subtracted from it.
    preemphasis
        Factor c of the pre-emphasis x[t] − c·x[t−1]; 0 for none.
    preemphasis_over
        Signal that is emphasised: each ``frame``, whose first sample becomes (1 − c)·x[0], or the
        ``chunk``, whose first sample is kept.
    power
        Exponent of the spectrum: 1 sums amplitudes into bands, 2 sums powers.
    magnitude_epsilon
        Number added to the power under the root of an amplitude (``power`` 1 only).
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

    n_fft: Count = 2048
    win_length: Count | None = None
    hop_length: Count = 512
    window: str = "hann"
    periodic: bool = field(default=True, metadata=ADDED)
    window_position: WindowPosition = field(default="center", metadata=ADDED)
    center: bool = True
    pad_samples: Annotated[int, Ge(0), Le(131_072)] | None = field(default=None, metadata=ADDED)
    snip_edges: bool = field(default=True, metadata=ADDED)
    pad_mode: PadMode = "constant"
    drop_last_frame: bool = field(default=False, metadata=ADDED)
    sample_scale: Scale = field(default=1.0, metadata=ADDED)
    remove_dc_offset: bool = field(default=False, metadata=ADDED)
    preemphasis: Annotated[float, Ge(0), Lt(1)] = field(default=0.0, metadata=ADDED)
    preemphasis_over: Literal["frame", "chunk"] = field(default="frame", metadata=ADDED)
    power: Literal[1, 2] = 2
    magnitude_epsilon: NonNegative = field(default=0.0, metadata=ADDED)
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


def unit_of(spec: MelSpec) -> str:
    """Return the unit of the values: the kind of the logarithm, or ``standardized``."""
    return spec.log.kind if spec.standardization is None else "standardized"


def framing(spec: MelSpec, chunk_samples: int) -> Framing:
    """Return the places of a chunk's frames, without the last frame if the spec drops it."""
    frame = spec.n_fft if spec.window_position == "center" else win_length(spec)
    if spec.snip_edges:
        padding = spec.n_fft // 2 if spec.center else spec.pad_samples or 0
        places = whole_frames(chunk_samples, frame, spec.hop_length, padding)
    else:
        places = frame_per_hop(chunk_samples, frame, spec.hop_length)
    return replace(places, n_frames=places.n_frames - spec.drop_last_frame)


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


def win_length(spec: MelSpec) -> int:
    """Return the length of the window, in samples."""
    return spec.n_fft if spec.win_length is None else spec.win_length


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
        *_window_contradictions(spec),
        *_framing_contradictions(spec, chunk_samples),
        *_band_contradictions(spec, sample_rate_hz),
        *log_contradictions(spec.log),
    ]


def _is_window(name: str) -> bool:
    try:
        window_samples(name, 4)
    except ValueError:
        return False
    return True


def _window_contradictions(spec: MelSpec) -> Iterator[Contradiction]:
    if win_length(spec) > spec.n_fft:
        yield "win_length", spec.win_length, f"at most n_fft, {spec.n_fft}"
    if spec.hop_length > win_length(spec):
        yield "hop_length", spec.hop_length, f"at most win_length, {win_length(spec)}"
    if not _is_window(spec.window):
        allowed = "a scipy.signal.get_window name without parameters, such as 'hann', or 'povey'"
        yield "window", spec.window, allowed
    if spec.magnitude_epsilon and spec.power != 1:
        yield "magnitude_epsilon", spec.magnitude_epsilon, "0.0 where power is 2"


def _framing_contradictions(spec: MelSpec, chunk_samples: int) -> Iterator[Contradiction]:
    if spec.center and spec.window_position == "left":
        yield "window_position", "left", "center where center is true, or set center to false"
    if spec.center and spec.pad_samples is not None:
        yield "pad_samples", spec.pad_samples, "null where center is true, or set center to false"
    if not spec.snip_edges and (spec.center or spec.pad_samples is not None):
        yield "snip_edges", False, "true, or set center to false and pad_samples to null"
    places = framing(spec, chunk_samples)
    padding = max(places.before_samples, places.after_samples)
    if places.frame_samples > chunk_samples + places.before_samples + places.after_samples:
        left = spec.window_position == "left" and spec.win_length is not None
        key = "win_length" if left else "n_fft"
        allowed = f"at most the chunk's {chunk_samples} samples, or set center to true"
        yield key, places.frame_samples, allowed
    elif places.n_frames < spec.stack_frames:
        key = "drop_last_frame" if places.n_frames < 1 else "stack_frames"
        frames = f"a chunk has {number_of(places.n_frames + spec.drop_last_frame, 'frame')}"
        yield key, getattr(spec, key), f"{'false' if key[0] == 'd' else 'smaller'}: {frames}"
    elif spec.standardization is not None:
        yield from standardization_contradictions(spec.standardization, places.n_frames)
    mirrored = {"reflect": chunk_samples - 1, "symmetric": chunk_samples}.get(spec.pad_mode)
    if mirrored is not None and padding > mirrored:
        margin = f"the padding needs {_padding_rule(spec)}{padding} samples"
        reason = f"({margin}, the chunk has {chunk_samples})"
        yield "pad_mode", spec.pad_mode, f"'constant' or 'edge' {reason}"


def _padding_rule(spec: MelSpec) -> str:
    return "n_fft // 2 = " if spec.center else ""


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

"""The settings of a spectrum's frames, and whether they can be computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

from melmill.transforms.core.naming import number_of
from melmill.transforms.features.framing import Framing, PadMode, frame_per_hop, whole_frames
from melmill.transforms.features.logarithm import (
    ADDED,
    Contradiction,
    LogSpec,
    NonNegative,
    Scale,
    log_contradictions,
)
from melmill.transforms.features.windows import WindowPosition, window_samples

Count = Annotated[int, Ge(1), Le(131_072)]


@dataclass(frozen=True, slots=True)
class StftSpec:
    """Settings of the spectrum of each frame; the defaults are librosa's.

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
        Exponent of the spectrum: 1 for amplitudes, 2 for powers.
    magnitude_epsilon
        Number added to the power under the root of an amplitude (``power`` 1 only).
    log
        Settings of the logarithm.
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
    power: Literal[1, 2] = 1
    magnitude_epsilon: NonNegative = field(default=0.0, metadata=ADDED)
    log: LogSpec = field(default_factory=lambda: LogSpec("none", top_db=None))


def framing(spec: StftSpec, chunk_samples: int) -> Framing:
    """Return the places of a chunk's frames, without the last frame if the spec drops it."""
    frame = spec.n_fft if spec.window_position == "center" else win_length(spec)
    if spec.snip_edges:
        padding = spec.n_fft // 2 if spec.center else spec.pad_samples or 0
        places = whole_frames(chunk_samples, frame, spec.hop_length, padding)
    else:
        places = frame_per_hop(chunk_samples, frame, spec.hop_length)
    return replace(places, n_frames=places.n_frames - spec.drop_last_frame)


def framing_with_neighbours(spec: StftSpec, chunk_samples: int) -> Framing:
    """Return the places of a frame for each hop of a chunk, and the samples needed around it.

    >>> framing_with_neighbours(StftSpec(n_fft=400, hop_length=160), 16000)
    Framing(frame_samples=400, hop_samples=160, before_samples=200, after_samples=40, n_frames=100)
    """
    places = framing(spec, chunk_samples)
    n_frames = chunk_samples // places.hop_samples
    end = (n_frames - 1) * places.hop_samples + places.frame_samples - places.before_samples
    return replace(places, after_samples=max(0, end - chunk_samples), n_frames=n_frames)


def neighbour_contradictions(
    spec: StftSpec, chunk_samples: int, chunk_hop: int
) -> Iterator[Contradiction]:
    """Yield each setting that keeps the chunks from being parts of one spectrogram."""
    where = "where chunk.edges is neighbours"
    for name, samples in (("chunk", chunk_samples), ("hop of the chunks", chunk_hop)):
        if samples % spec.hop_length:
            allowed = f"a divisor of the {name}, {samples} samples, {where}"
            yield "hop_length", spec.hop_length, allowed
    if spec.drop_last_frame:
        yield "drop_last_frame", True, f"false {where}"
    if spec.preemphasis and spec.preemphasis_over == "chunk":
        yield "preemphasis_over", "chunk", f"frame {where}: the chunk is emphasised on its own"
    if spec.log.ref == "max":
        yield "log.ref", "max", f"a number {where}: the maximum is that of the chunk"
    if spec.log.top_db is not None:
        yield "log.top_db", spec.log.top_db, f"null {where}: the range is that of the chunk"
    if spec.log.range is not None and spec.log.range_top == "max":
        yield "log.range_top", "max", f"a number {where}: the maximum is that of the chunk"


def stft_shape(spec: StftSpec, chunk_samples: int) -> tuple[int, int]:
    """Return the shape ``(bins, frames)`` of a chunk's spectrum.

    >>> stft_shape(StftSpec(), 66150)
    (1025, 130)
    """
    return 1 + spec.n_fft // 2, framing(spec, chunk_samples).n_frames


def win_length(spec: StftSpec) -> int:
    """Return the length of the window, in samples."""
    return spec.n_fft if spec.win_length is None else spec.win_length


def stft_contradictions(spec: StftSpec, chunk_samples: int) -> Iterator[Contradiction]:
    """Yield each setting that another setting or the chunk makes impossible.

    See :func:`~melmill.transforms.features.mel_spec.contradictions`.
    """
    yield from frame_contradictions(spec, chunk_samples)
    yield from log_contradictions(spec.log)


def frame_contradictions(spec: StftSpec, chunk_samples: int) -> Iterator[Contradiction]:
    """Yield each setting of the frames that another setting or the chunk makes impossible."""
    yield from _window_contradictions(spec)
    yield from _framing_contradictions(spec, chunk_samples)


def _is_window(name: str) -> bool:
    try:
        window_samples(name, 4)
    except ValueError:
        return False
    return True


def _window_contradictions(spec: StftSpec) -> Iterator[Contradiction]:
    if win_length(spec) > spec.n_fft:
        yield "win_length", spec.win_length, f"at most n_fft, {spec.n_fft}"
    if spec.hop_length > win_length(spec):
        yield "hop_length", spec.hop_length, f"at most win_length, {win_length(spec)}"
    if not _is_window(spec.window):
        allowed = "a scipy.signal.get_window name without parameters, such as 'hann', or 'povey'"
        yield "window", spec.window, allowed
    if spec.magnitude_epsilon and spec.power != 1:
        yield "magnitude_epsilon", spec.magnitude_epsilon, "0.0 where power is 2"


def _framing_contradictions(spec: StftSpec, chunk_samples: int) -> Iterator[Contradiction]:
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
    elif places.n_frames < 1:
        frames = f"a chunk has {number_of(places.n_frames + spec.drop_last_frame, 'frame')}"
        yield "drop_last_frame", spec.drop_last_frame, f"false: {frames}"
    mirrored = {"reflect": chunk_samples - 1, "symmetric": chunk_samples}.get(spec.pad_mode)
    if mirrored is not None and padding > mirrored:
        margin = f"the padding needs {_padding_rule(spec)}{padding} samples"
        reason = f"({margin}, the chunk has {chunk_samples})"
        yield "pad_mode", spec.pad_mode, f"'constant' or 'edge' {reason}"


def _padding_rule(spec: StftSpec) -> str:
    return "n_fft // 2 = " if spec.center else ""

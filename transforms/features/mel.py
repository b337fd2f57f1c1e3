"""Log-mel features of equally long chunks, equal to librosa's chunk by chunk.

A :class:`MelSpec` describes the features, :func:`contradictions` checks whether they can be
computed, and a :class:`MelExtractor` computes them. The features of a chunk never depend on
the other chunks of its batch, not even in the last bit: each step works on one chunk, in
blocks of frames and bands whose sizes depend only on the spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from melmill.transforms.features.filterbank import BandedSum, MelNorm, MelScale, mel_filterbank
from melmill.transforms.features.logarithm import (
    Contradiction,
    LogSpec,
    NonNegative,
    Positive,
    log_contradictions,
    take_logarithm,
)
from melmill.transforms.features.windows import (
    PaddedFrames,
    PadMode,
    centred_window,
    frame_blocks,
    window_samples,
)

__all__ = ["LogSpec", "MelExtractor", "MelSpec", "contradictions", "frame_count"]

Count = Annotated[int, Ge(1), Le(131_072)]


@dataclass(frozen=True, slots=True)
class MelSpec:
    """Settings of the mel features; the defaults are librosa's.

    Attributes
    ----------
    n_fft
        Length of the Fourier transform, in samples.
    win_length
        Length of the window in the middle of the transform; ``None`` means ``n_fft``.
    hop_length
        Distance between the starts of two frames, in samples.
    window
        Window name that ``scipy.signal.get_window`` accepts without parameters. The window
        is periodic.
    center
        Position of frame t: centred on sample t·hop if true (both ends of the chunk are
        padded by ``n_fft // 2``), otherwise starting at that sample.
    pad_mode
        Mode of the padding, as in ``numpy.pad``.
    power
        Exponent of the spectrum: 1 sums amplitudes into bands, 2 sums powers.
    n_mels, f_min_hz, f_max_hz, scale, norm
        Settings of the filterbank
        (:func:`~melmill.transforms.features.filterbank.mel_filterbank`);
        ``f_max_hz=None`` means the Nyquist frequency.
    log
        Settings of the logarithm.
    """

    n_fft: Count = 2048
    win_length: Count | None = None
    hop_length: Count = 512
    window: str = "hann"
    center: bool = True
    pad_mode: PadMode = "constant"
    power: Literal[1, 2] = 2
    n_mels: Count = 128
    f_min_hz: NonNegative = 0.0
    f_max_hz: Positive | None = None
    scale: MelScale = "slaney"
    norm: MelNorm = "slaney"
    log: LogSpec = field(default_factory=LogSpec)


def frame_count(spec: MelSpec, chunk_samples: int) -> int:
    """Return the number of frames in a chunk, including those in the padded ends.

    Parameters
    ----------
    spec
        Settings; only ``n_fft``, ``hop_length`` and ``center`` are used.
    chunk_samples
        Length of the chunk; at least ``n_fft`` unless frames are centred.

    Examples
    --------
    >>> frame_count(MelSpec(), 66150)
    130
    >>> frame_count(MelSpec(center=False), 66150)
    126
    """
    return 1 + (chunk_samples + 2 * _margin(spec) - spec.n_fft) // spec.hop_length


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
        *_framing_contradictions(spec, chunk_samples),
        *_band_contradictions(spec, sample_rate_hz),
        *log_contradictions(spec.log),
    ]


def _margin(spec: MelSpec) -> int:
    return spec.n_fft // 2 if spec.center else 0


def _win_length(spec: MelSpec) -> int:
    return spec.n_fft if spec.win_length is None else spec.win_length


def _filterbank(spec: MelSpec, sample_rate_hz: int) -> NDArray[np.float64]:
    return mel_filterbank(
        sample_rate_hz=sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        f_min_hz=spec.f_min_hz,
        f_max_hz=sample_rate_hz / 2 if spec.f_max_hz is None else spec.f_max_hz,
        scale=spec.scale,
        norm=spec.norm,
    )


def _is_window(name: str) -> bool:
    try:
        window_samples(name, 4)
    except ValueError:
        return False
    return True


def _framing_contradictions(spec: MelSpec, chunk_samples: int) -> Iterator[Contradiction]:
    win_length = _win_length(spec)
    if win_length > spec.n_fft:
        yield "win_length", spec.win_length, f"at most n_fft, {spec.n_fft}"
    if spec.hop_length > win_length:
        yield "hop_length", spec.hop_length, f"at most win_length, {win_length}"
    if not _is_window(spec.window):
        allowed = "a scipy.signal.get_window name without parameters, such as 'hann'"
        yield "window", spec.window, allowed
    if not spec.center and spec.n_fft > chunk_samples:
        allowed = f"at most the chunk's {chunk_samples} samples, or set center to true"
        yield "n_fft", spec.n_fft, allowed
    mirrored = {"reflect": chunk_samples - 1, "symmetric": chunk_samples}.get(spec.pad_mode)
    if mirrored is not None and _margin(spec) > mirrored:
        margin = f"the padding needs n_fft // 2 = {_margin(spec)} samples"
        reason = f"({margin}, the chunk has {chunk_samples})"
        yield "pad_mode", spec.pad_mode, f"'constant' or 'edge' {reason}"


def _band_contradictions(spec: MelSpec, sample_rate_hz: int) -> Iterator[Contradiction]:
    nyquist_hz = sample_rate_hz / 2
    f_max_hz = nyquist_hz if spec.f_max_hz is None else spec.f_max_hz
    if f_max_hz > nyquist_hz:
        yield "f_max_hz", spec.f_max_hz, f"at most {nyquist_hz}, half the sample rate"
    if spec.f_min_hz >= f_max_hz:
        yield "f_min_hz", spec.f_min_hz, f"below f_max_hz, {f_max_hz}"
    if not spec.f_min_hz < f_max_hz <= nyquist_hz:
        return
    if empty := int(np.sum(~_filterbank(spec, sample_rate_hz).any(axis=1))):
        allowed = f"smaller, or make n_fft larger: {empty} of the bands contain no spectrum bin"
        yield "n_mels", spec.n_mels, allowed


class MelExtractor:
    """Computes log-mel features of chunks; allocates its working memory once.

    Do not use an extractor from two threads at once. The features equal
    ``librosa.feature.melspectrogram`` and the spec's logarithm on each chunk alone, up to the
    rounding of a float32 Fourier transform: about 1e-7 of the loudest bin's amplitude.

    Parameters
    ----------
    spec
        Settings of the features.
    sample_rate_hz, chunk_samples
        Sample rate and length of each chunk.

    Attributes
    ----------
    n_mels, n_frames
        Shape of one chunk's features.

    Raises
    ------
    ValueError
        The spec has :func:`contradictions`; the message lists all of them.
    """

    def __init__(self, spec: MelSpec, sample_rate_hz: int, chunk_samples: int) -> None:
        """Compute the window and the filterbank, and allocate the working memory."""
        _refuse_contradictions(spec, sample_rate_hz, chunk_samples)
        self._arguments = (spec, sample_rate_hz, chunk_samples)
        self._spec = spec
        from scipy.fft import rfft  # imported here, because recipes do not need it

        self._rfft = rfft
        self._chunk_samples = chunk_samples
        self.n_mels = spec.n_mels
        self.n_frames = frame_count(spec, chunk_samples)
        self._frames = PaddedFrames(
            chunk_samples=chunk_samples,
            frame_samples=spec.n_fft,
            hop_samples=spec.hop_length,
            margin_samples=_margin(spec),
            pad_mode=spec.pad_mode,
        )
        self._window = centred_window(spec.window, _win_length(spec), spec.n_fft)
        self._blocks = frame_blocks(self.n_frames, spec.n_fft)
        self._windowed = np.empty((self._blocks[0].stop, spec.n_fft), np.float32)
        weights = _filterbank(spec, sample_rate_hz).astype(np.float32)
        self._sum_into_bands = BandedSum(np.repeat(weights, spec.power, axis=1))

    def __reduce__(self) -> tuple[type[MelExtractor], tuple[MelSpec, int, int]]:
        """Pickle the constructor's arguments; the working memory is not copied."""
        return MelExtractor, self._arguments

    def __call__(
        self, chunks: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the features of a batch of chunks.

        Parameters
        ----------
        chunks
            Samples of shape [n_chunks, chunk_samples], float32, full scale 1.0. Rows may
            overlap in memory. The samples are not modified.
        out
            Array to write to: shape [n_chunks, n_mels, n_frames], float32, C-contiguous.

        Returns
        -------
        ndarray of shape [n_chunks, n_mels, n_frames], float32
            ``out``, or a new array; in the unit of the spec's ``log.kind``.

        Raises
        ------
        ValueError
            An array has a wrong shape, dtype or memory layout.
        """
        _require("chunks", chunks, (*chunks.shape[:1], self._chunk_samples))
        shape = (len(chunks), self.n_mels, self.n_frames)
        out = np.empty(shape, np.float32) if out is None else out
        _require("out", out, shape)
        if not out.flags.c_contiguous:
            raise ValueError(f"out has strides {out.strides}; it must be C-contiguous")
        for chunk, features in zip(chunks, out, strict=True):
            self._write_mel(self._frames.of(chunk), features)
            take_logarithm(features, self._spec.log, power=self._spec.power)
        return out

    def _write_mel(self, frames: NDArray[np.float32], mel: NDArray[np.float32]) -> None:
        for block in self._blocks:
            windowed = self._windowed[: block.stop - block.start]
            # Equal to np.multiply, in two thirds of its time.
            np.einsum("ij,j->ij", frames[block], self._window, out=windowed)
            parts = _power_parts(self._rfft(windowed), self._spec.power)
            self._sum_into_bands(parts, out=mel[:, block])


def _refuse_contradictions(spec: MelSpec, sample_rate_hz: int, chunk_samples: int) -> None:
    conflicts = contradictions(spec, sample_rate_hz, chunk_samples)
    if conflicts:
        lines = [f"{key} is {value!r}; it may be {allowed}" for key, value, allowed in conflicts]
        raise ValueError("\n".join(lines))


def _require(name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape:
        actual = f"{name} is {array.dtype} of shape {array.shape}"
        raise ValueError(f"{actual}; it must be float32 of shape {shape}")


def _power_parts(spectrum: NDArray[np.complex64], power: int) -> NDArray[np.float32]:
    """Return the amplitudes of a spectrum (power 1), or its re² and im² side by side (power 2).

    With power 2 the spectrum is overwritten.
    """
    if power == 1:
        return np.abs(spectrum)
    parts = spectrum.view(np.float32)
    return np.square(parts, out=parts)

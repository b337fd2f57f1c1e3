"""Log-mel features of equally long chunks, equal to librosa's chunk by chunk.

A :class:`~melmill.transforms.features.mel_spec.MelSpec` describes the features, and a
:class:`MelExtractor` computes them. The features of a chunk never depend on the other chunks of its
batch, not even in the last bit: each step works on one chunk, in blocks of frames and bands whose
sizes depend only on the spec.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.features.emphasis import apply_window, prepare_samples
from melmill.transforms.features.filterbank import BandedSum
from melmill.transforms.features.framing import PaddedFrames, frame_blocks
from melmill.transforms.features.logarithm import take_logarithm
from melmill.transforms.features.mel_spec import (
    MelSpec,
    contradictions,
    filterbank,
    framing,
    mel_shape,
    win_length,
)
from melmill.transforms.features.standardization import standardize_bands
from melmill.transforms.features.windows import place_window, window_samples


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
        Shape of one chunk's features, see :func:`~melmill.transforms.features.mel_spec.mel_shape`.

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
        self.n_mels, self.n_frames = mel_shape(spec, chunk_samples)
        places = framing(spec, chunk_samples)
        self._frames = PaddedFrames(places, chunk_samples, spec.pad_mode)
        window = window_samples(spec.window, win_length(spec), periodic=spec.periodic)
        self._window = place_window(window, spec.n_fft, spec.window_position)
        self._mel = np.empty((spec.n_mels, places.n_frames), np.float32)
        self._blocks = frame_blocks(places.n_frames, spec.n_fft)
        self._windowed = np.zeros((self._blocks[0].stop, spec.n_fft), np.float32)
        weights = filterbank(spec, sample_rate_hz).astype(np.float32)
        self._sum_into_bands = BandedSum(np.repeat(weights, spec.power, axis=1))

    def __reduce__(self) -> tuple[type[MelExtractor], tuple[MelSpec, int, int]]:
        """Pickle the constructor's arguments; the working memory is not copied."""
        return MelExtractor, self._arguments

    def __call__(
        self,
        chunks: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
        valid_samples: Sequence[int] = (),
    ) -> NDArray[np.float32]:
        """Return the features of a batch of chunks.

        Parameters
        ----------
        chunks
            Samples of shape [n_chunks, chunk_samples], float32, full scale 1.0. Rows may
            overlap in memory. The samples are not modified.
        out
            Array to write to: shape [n_chunks, n_mels, n_frames], float32, C-contiguous.
        valid_samples
            Number of real samples in each chunk, from 1 to ``chunk_samples``, for the spec's
            ``padded_frames`` and for a pre-emphasis of the chunk; empty if no chunk is padded.

        Returns
        -------
        ndarray of shape [n_chunks, n_mels, n_frames], float32
            ``out``, or a new array; in the unit of the spec's ``log.kind``.

        Raises
        ------
        ValueError
            An array has a wrong shape, dtype or memory layout, or a chunk more real samples than
            samples.
        """
        _require("chunks", chunks, (*chunks.shape[:1], self._chunk_samples))
        shape = (len(chunks), self.n_mels, self.n_frames)
        out = np.empty(shape, np.float32) if out is None else out
        _require("out", out, shape)
        if not out.flags.c_contiguous:
            raise ValueError(f"out has strides {out.strides}; it must be C-contiguous")
        mel = self._mel
        lengths = list(valid_samples) or [self._chunk_samples] * len(chunks)
        if len(lengths) != len(chunks) or not all(0 < n <= self._chunk_samples for n in lengths):
            allowed = f"{len(chunks)} numbers from 1 to {self._chunk_samples}"
            raise ValueError(f"valid_samples is {lengths}; it must be {allowed}")
        for chunk, features, valid in zip(chunks, out, lengths, strict=True):
            self._write_mel(self._frames.of(prepare_samples(chunk, self._spec, valid)), mel)
            take_logarithm(mel, self._spec.log, power=self._spec.power)
            self._finish(mel, valid)
            for index in range(self._spec.stack_frames):
                bands = slice(index * len(mel), (index + 1) * len(mel))
                features[bands] = mel[:, index :: self._spec.stack_frames][:, : self.n_frames]
        return out

    def _write_mel(self, frames: NDArray[np.float32], mel: NDArray[np.float32]) -> None:
        spec = self._spec
        for block in self._blocks:
            windowed = self._windowed[: block.stop - block.start]
            apply_window(frames[block], self._window, spec, windowed[:, : len(self._window)])
            parts = _power_parts(self._rfft(windowed), spec.power, spec.magnitude_epsilon)
            self._sum_into_bands(parts, out=mel[:, block])

    def _finish(self, mel: NDArray[np.float32], valid_samples: int) -> None:
        spec, valid_frames = self._spec, mel.shape[1]
        if spec.padded_frames is not None and valid_samples < self._chunk_samples:
            valid_frames = min(valid_frames, max(0, framing(spec, valid_samples).n_frames))
        if spec.standardization is not None:
            standardize_bands(mel[:, :valid_frames], spec.standardization)
        if spec.padded_frames is not None:
            mel[:, valid_frames:] = spec.padded_frames


def _refuse_contradictions(spec: MelSpec, sample_rate_hz: int, chunk_samples: int) -> None:
    conflicts = contradictions(spec, sample_rate_hz, chunk_samples)
    if conflicts:
        lines = [f"{key} is {value!r}; it may be {allowed}" for key, value, allowed in conflicts]
        raise ValueError("\n".join(lines))


def _require(name: str, array: NDArray[np.float32], shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.shape != shape:
        actual = f"{name} is {array.dtype} of shape {array.shape}"
        raise ValueError(f"{actual}; it must be float32 of shape {shape}")


def _power_parts(
    spectrum: NDArray[np.complex64], power: int, epsilon: float
) -> NDArray[np.float32]:
    """Return the amplitudes of a spectrum (power 1), or its re² and im² side by side (power 2).

    With power 2 the spectrum is overwritten.
    """
    if power == 1 and epsilon:
        powers = np.square(spectrum.real) + np.square(spectrum.imag)
        return np.sqrt(powers + np.float32(epsilon), dtype=np.float32)
    if power == 1:
        return np.abs(spectrum)
    parts = spectrum.view(np.float32)
    return np.square(parts, out=parts)

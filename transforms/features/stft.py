"""Short-time Fourier transforms of equally long chunks, equal to librosa's chunk by chunk.

The features of a chunk never depend on the other chunks of its batch, not even in the last bit:
each step works on one chunk, in blocks of frames and bands whose sizes depend only on the spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.features.chunks import Edges
from melmill.transforms.features.emphasis import apply_window, prepare_samples
from melmill.transforms.features.framing import PaddedFrames, frame_blocks
from melmill.transforms.features.logarithm import Contradiction, take_logarithm
from melmill.transforms.features.stft_spec import (
    StftSpec,
    framing,
    framing_with_neighbours,
    stft_contradictions,
    win_length,
)
from melmill.transforms.features.windows import place_window, window_samples


class StftExtractor:
    """Computes spectra of chunks; allocates its working memory once.

    Do not use an extractor from two threads at once. The features equal ``librosa.stft`` on each
    chunk alone, up to the rounding of a float32 Fourier transform: about 1e-7 of the loudest bin's
    amplitude.

    Parameters
    ----------
    spec
        Settings of the features.
    chunk_samples
        Length of each chunk.
    edges
        ``neighbours`` if each chunk comes with the samples around it that
        :func:`~melmill.transforms.features.stft_spec.framing_with_neighbours` needs.

    Attributes
    ----------
    shape
        Shape of one chunk's features.
    transform
        Settings of the spectra: extractors with equal ones may be called together.

    Raises
    ------
    ValueError
        The spec has contradictions; the message lists all of them.
    """

    def __init__(self, spec: StftSpec, chunk_samples: int, edges: Edges = "pad") -> None:
        """Compute the window, and allocate the working memory."""
        refuse(stft_contradictions(spec, chunk_samples))
        bins = 1 + spec.n_fft // 2
        self.shape = (bins, self._prepare(spec, chunk_samples, bins, edges))

    def _prepare(self, spec: StftSpec, chunk_samples: int, bands: int, edges: Edges) -> int:
        """Allocate the memory; return the number of frames."""
        from scipy.fft import rfft  # imported here, because recipes do not need it

        self._rfft = rfft
        self._spec = spec
        places = framing(spec, chunk_samples)
        if edges == "neighbours":
            around = framing_with_neighbours(spec, chunk_samples)
            chunk_samples += around.before_samples + around.after_samples
            places = replace(around, before_samples=0, after_samples=0)
        self._chunk_samples = chunk_samples
        own = {f.name: getattr(spec, f.name) for f in fields(StftSpec) if f.name != "log"}
        self.transform = (StftSpec(**own), chunk_samples, edges)
        self._frames = PaddedFrames(places, chunk_samples, spec.pad_mode)
        window = window_samples(spec.window, win_length(spec), periodic=spec.periodic)
        self._window = place_window(window, spec.n_fft, spec.window_position)
        self._bands = np.empty((bands, places.n_frames), np.float32)
        self._blocks = frame_blocks(places.n_frames, spec.n_fft)
        self._windowed = np.zeros((self._blocks[0].stop, spec.n_fft), np.float32)
        return places.n_frames

    def __call__(
        self,
        chunks: NDArray[np.float32],
        out: NDArray[np.float32] | None = None,
        valid_samples: Sequence[int] = (),
    ) -> NDArray[np.float32]:
        """Return the features of a batch of chunks; see :func:`extract_together`.

        Parameters
        ----------
        chunks, valid_samples
            Samples of the chunks, and the number of real samples in each.
        out
            Array to write to: shape [n_chunks, *shape], float32, C-contiguous.

        Returns
        -------
        ndarray of shape [n_chunks, *shape], float32
            ``out``, or a new array; in the unit of the spec's ``log.kind``.
        """
        (features,) = extract_together(
            [self], chunks, valid_samples, None if out is None else [out]
        )
        return features

    def _transform(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the spectra of a block of frames, see :func:`_power_parts`."""
        spec, windowed = self._spec, self._windowed[: len(frames)]
        apply_window(frames, self._window, spec, windowed[:, : len(self._window)])
        return _power_parts(self._rfft(windowed), spec.power, spec.magnitude_epsilon)

    def _sum(self, parts: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the bands of a block of frames, from :func:`_power_parts`."""
        out[:] = parts.T if self._spec.power == 1 else (parts[:, ::2] + parts[:, 1::2]).T

    def _finish(
        self,
        bands: NDArray[np.float32],
        frames: NDArray[np.float32],
        valid_samples: int,
        out: NDArray[np.float32],
    ) -> None:
        """Write a chunk's features, from its bands after the logarithm."""
        out[:] = bands


def extract_together(
    extractors: Sequence[StftExtractor],
    chunks: NDArray[np.float32],
    valid_samples: Sequence[int] = (),
    outs: Sequence[NDArray[np.float32]] | None = None,
) -> list[NDArray[np.float32]]:
    """Return the features of several extractors, whose spectra are computed once.

    Parameters
    ----------
    extractors
        Extractors with equal :attr:`StftExtractor.transform`.
    chunks
        Samples of shape [n_chunks, chunk_samples], float32, full scale 1.0; with the samples
        around them for the edges ``neighbours``. Rows may overlap in memory. The samples are
        not modified.
    valid_samples
        Number of real samples in each chunk, from 1 to ``chunk_samples``, for
        ``padded_frames`` and for a pre-emphasis of the chunk; empty if no chunk is padded.
    outs
        Array to write to for each extractor: shape [n_chunks, *shape], float32, C-contiguous.

    Returns
    -------
    list of ndarray of shape [n_chunks, *shape], float32
        For each extractor `outs`, or a new array.

    Raises
    ------
    ValueError
        An array has a wrong shape, dtype or memory layout, or a chunk more real samples than
        samples; or the spectra of the extractors differ.
    """
    first = extractors[0]
    if any(other.transform != first.transform for other in extractors[1:]):
        raise ValueError("the extractors have different spectra; call each of them alone")
    length = first._chunk_samples
    _require("chunks", chunks, (*chunks.shape[:1], length))
    shapes = [(len(chunks), *extractor.shape) for extractor in extractors]
    arrays = [np.empty(shape, np.float32) for shape in shapes] if outs is None else list(outs)
    for out, shape in zip(arrays, shapes, strict=True):
        _require("out", out, shape)
        if not out.flags.c_contiguous:
            raise ValueError(f"out has strides {out.strides}; it must be C-contiguous")
    lengths = list(valid_samples) or [length] * len(chunks)
    if len(lengths) != len(chunks) or not all(0 < n <= length for n in lengths):
        raise ValueError(
            f"valid_samples is {lengths}; it must be {len(chunks)} numbers from 1 to {length}"
        )
    for number, (chunk, valid) in enumerate(zip(chunks, lengths, strict=True)):
        frames = first._frames.of(prepare_samples(chunk, first._spec, valid))
        for block in first._blocks:
            parts = first._transform(frames[block])
            for extractor in extractors:
                extractor._sum(parts, extractor._bands[:, block])
        for extractor, out in zip(extractors, arrays, strict=True):
            spec, bands = extractor._spec, extractor._bands
            take_logarithm(bands, spec.log, power=spec.power)
            extractor._finish(bands, frames, valid, out[number])
    return arrays


def refuse(contradictions: Iterable[Contradiction]) -> None:
    """Raise ``ValueError`` if there are contradictions; the message lists all of them."""
    lines = [f"{key} is {value!r}; it may be {allowed}" for key, value, allowed in contradictions]
    if lines:
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

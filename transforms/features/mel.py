"""Log-mel features of equally long chunks, equal to librosa's chunk by chunk.

A :class:`~melmill.transforms.features.mel_spec.MelSpec` describes the features, and a
:class:`MelExtractor` computes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.features.chunks import Edges
from melmill.transforms.features.filterbank import BandedSum
from melmill.transforms.features.mel_spec import MelSpec, contradictions, filterbank
from melmill.transforms.features.standardization import standardize_bands
from melmill.transforms.features.stft import StftExtractor, refuse
from melmill.transforms.features.stft_spec import framing


class MelExtractor(StftExtractor):
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
    edges
        See :class:`~melmill.transforms.features.stft.StftExtractor`.

    Attributes
    ----------
    n_mels, n_frames
        Shape of one chunk's features, see :func:`~melmill.transforms.features.mel_spec.mel_shape`.

    Raises
    ------
    ValueError
        The spec has :func:`contradictions`; the message lists all of them.
    """

    _spec: MelSpec

    def __init__(
        self, spec: MelSpec, sample_rate_hz: int, chunk_samples: int, edges: Edges = "pad"
    ) -> None:
        """Compute the window and the filterbank, and allocate the working memory."""
        refuse(contradictions(spec, sample_rate_hz, chunk_samples))
        self._arguments = (spec, sample_rate_hz, chunk_samples, edges)
        self.n_mels = spec.n_mels * spec.stack_frames
        frames = self._prepare(spec, chunk_samples, spec.n_mels, edges)
        self.n_frames = frames // spec.stack_frames
        self.shape = (self.n_mels, self.n_frames)
        weights = filterbank(spec, sample_rate_hz).astype(np.float32)
        self._sum_into_bands = BandedSum(np.repeat(weights, spec.power, axis=1))

    def __reduce__(self) -> tuple[type[MelExtractor], tuple[Any, ...]]:
        """Pickle the constructor's arguments; the working memory is not copied."""
        return type(self), self._arguments

    def _sum(self, parts: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        self._sum_into_bands(parts, out=out)

    def _finish(
        self,
        bands: NDArray[np.float32],
        frames: NDArray[np.float32],
        valid_samples: int,
        out: NDArray[np.float32],
    ) -> None:
        spec, valid_frames = self._spec, bands.shape[1]
        if spec.padded_frames is not None and valid_samples < self._chunk_samples:
            valid_frames = min(valid_frames, max(0, framing(spec, valid_samples).n_frames))
        if spec.standardization is not None:
            standardize_bands(bands[:, :valid_frames], spec.standardization)
        if spec.padded_frames is not None:
            bands[:, valid_frames:] = spec.padded_frames
        for index in range(spec.stack_frames):
            rows = slice(index * len(bands), (index + 1) * len(bands))
            out[rows] = bands[:, index :: spec.stack_frames][:, : self.n_frames]

"""Mel-frequency cepstral coefficients (MFCC): a cosine transform of the log-mel bands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from melmill.transforms.features.chunks import Edges
from melmill.transforms.features.logarithm import Contradiction
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec, plain_band_contradictions
from melmill.transforms.features.stft import refuse

#: Smallest energy of a frame whose logarithm is taken: float32's epsilon, as in Kaldi.
_SMALLEST_ENERGY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class MfccSpec(MelSpec):
    """Settings of the MFCC; the defaults are librosa's.

    Attributes
    ----------
    n_mfcc
        Number of coefficients: the first ones of an orthonormal cosine transform (DCT-II).
    lifter
        Length L of the sine by which the coefficients are weighed: coefficient k is multiplied by
        1 + L/2 · sin(π (k + first) / L). 0 for none.
    lifter_first
        Number ``first`` in that sine: 1 in librosa, 0 in Kaldi.
    energy
        What the first coefficient is: ``none``, the coefficient itself; ``raw``, the logarithm of
        the energy of the frame before its pre-emphasis and window, as Kaldi's ``use_energy``.
    """

    n_mfcc: Annotated[int, Ge(1), Le(131_072)] = 20
    lifter: Annotated[float, Ge(0), Le(1e6)] = 0.0
    lifter_first: Literal[0, 1] = 1
    energy: Literal["none", "raw"] = "none"


def mfcc_contradictions(spec: MfccSpec) -> Iterator[Contradiction]:
    """Yield each setting that another setting makes impossible, as (key, value, allowed)."""
    if spec.n_mfcc > spec.n_mels:
        yield "n_mfcc", spec.n_mfcc, f"at most n_mels, {spec.n_mels}"
    yield from plain_band_contradictions(spec, "an MFCC")
    if spec.energy == "raw" and spec.preemphasis and spec.preemphasis_over == "chunk":
        yield "energy", "raw", "none where preemphasis_over is chunk"
    if spec.log.kind == "none":
        yield "log.kind", "none", "a logarithm for an MFCC: db, ln or log10"


def cosine_basis(spec: MfccSpec) -> NDArray[np.float64]:
    """Return the rows of the cosine transform with their weights, float64 [n_mfcc, n_mels].

    >>> cosine_basis(MfccSpec(n_mels=4, n_mfcc=2)).round(3).tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.653, 0.271, -0.271, -0.653]]
    """
    order, band = np.arange(spec.n_mfcc)[:, None], np.arange(spec.n_mels)
    basis = np.cos(np.pi / spec.n_mels * (band + 0.5) * order) * np.sqrt(2 / spec.n_mels)
    basis[0] = np.sqrt(1 / spec.n_mels)
    if spec.lifter:
        sine = np.sin(np.pi * (order + spec.lifter_first) / spec.lifter)
        basis = basis * (1 + spec.lifter / 2 * sine)
    return np.asarray(basis)


class MfccExtractor(MelExtractor):
    """Computes the MFCC of chunks; see :class:`~melmill.transforms.features.mel.MelExtractor`."""

    _spec: MfccSpec

    def __init__(
        self, spec: MfccSpec, sample_rate_hz: int, chunk_samples: int, edges: Edges = "pad"
    ) -> None:
        """Compute the cosine transform, and what the mel bands need."""
        refuse(mfcc_contradictions(spec))
        super().__init__(spec, sample_rate_hz, chunk_samples, edges)
        self.shape = (spec.n_mfcc, self.n_frames)
        self._basis = cosine_basis(spec)

    def _finish(
        self,
        bands: NDArray[np.float32],
        frames: NDArray[np.float32],
        valid_samples: int,
        out: NDArray[np.float32],
    ) -> None:
        # Without BLAS, so that the bits do not depend on its threads.
        out[:] = np.einsum("cb,bf->cf", self._basis, bands.astype(np.float64))
        if self._spec.energy == "raw":
            centred = frames.astype(np.float64)
            if self._spec.remove_dc_offset:
                centred -= centred.mean(axis=1, keepdims=True)
            energy = np.einsum("fs,fs->f", centred, centred)
            out[0] = np.log(np.maximum(energy, _SMALLEST_ENERGY))

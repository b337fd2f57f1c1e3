"""The reference for a dataset's rows: librosa, applied to the whole recording.

This module does not run in workers. Only the decoding is melmill's (libsndfile and FFmpeg).
librosa does the mix, the sample rate conversion, the spectrum, the bands and the logarithm.

The tolerance of each value follows from float32 (``tests/features/test_mel.py`` derives it). The
transform is in single precision. This adds to each bin of a spectrum an error of float32's epsilon
times the loudest bin, however quiet the bin itself is. Resampled samples have float32 rounding
errors, too. The tolerance of a mel value is therefore 1e-4 of the value, plus the sum of these
errors over its band. In decibels, this is some thousandths where there is sound, and much more far
below the sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt

from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.media import open_audio
from melmill.transforms.features.channels import ChannelPolicy
from melmill.transforms.features.chunks import fill_short, pad_chunk
from melmill.transforms.features.mel import MelSpec
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.store.objects import StoredObject

Samples = npt.NDArray[np.float32]

_BLOCK_FRAMES = 1 << 16

#: The error of a sample that is resampled in blocks, relative to the peak and to a resampling of
#: the whole recording by soxr: measured up to 4.8e-7.
_RESAMPLED_EPSILON = 6e-7

#: The relative error of a mel value, and of its logarithm computed in two ways.
_RELATIVE = 1e-4

#: A factor of e in the unit of the logarithm.
_UNITS = {"db": 10 / np.log(10), "ln": 1.0, "log10": 1 / np.log(10), "none": 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The reference values of a row.

    Attributes
    ----------
    mel, tolerance : float64 [n_mels, frames]
        The values and their tolerances, in the unit of the recipe's logarithm.
    """

    mel: npt.NDArray[np.float64]
    tolerance: npt.NDArray[np.float64]


def reference_samples(source: StoredObject, audio: AudioInfo, features: FeatureSpec) -> Samples:
    """Decode a whole recording, mix it, and resample it in a single call.

    Returns
    -------
    float32 [channels of the rows, samples]
        The samples at the target sample rate.

    Raises
    ------
    RecordingError
        The recording cannot be read.
    """
    with open_audio(source, audio) as reader:
        decoded = reader.blocks(0, audio.frames, _BLOCK_FRAMES)
        samples = np.concatenate([_mix(block, features.channels) for block in decoded], axis=1)
    if audio.sample_rate_hz == features.sample_rate_hz:
        return samples
    resampled: Samples = librosa.resample(
        samples,
        orig_sr=audio.sample_rate_hz,
        target_sr=features.sample_rate_hz,
        res_type=features.resampler,
    )
    return resampled


def _mix(block: Samples, policy: ChannelPolicy) -> Samples:
    if policy == "mono":
        mixed: Samples = librosa.to_mono(block.T)[None]
        return mixed
    return block.T[{"left": slice(0, 1), "right": slice(1, 2), "each": slice(None)}[policy]]


def reference_row(
    samples: Samples, start: int, valid: int, chunk_index: int, features: FeatureSpec, rate_hz: int
) -> Expected:
    """Return a row's reference values, from a channel of :func:`reference_samples`.

    Parameters
    ----------
    samples : float32 [samples]
        A channel of the recording.
    start, valid, chunk_index
        The row's ``start_sample``, ``valid_samples`` and ``chunk_index``.
    features
        The recipe.
    rate_hz
        The recording's own sample rate.
    """
    chunk = samples[start : start + valid, None]
    if len(chunk) < features.chunk.length:
        # Only a recording or segment that is shorter than a chunk may be filled by repetition.
        chunk = (fill_short if chunk_index == 0 else pad_chunk)(chunk, features.chunk)
    mel, error = _mel(chunk[:, 0], features, resampled=rate_hz != features.sample_rate_hz)
    expected = _logarithm(mel, features.mel)
    bounds = [_logarithm(np.maximum(mel + sign * error, 0), features.mel) for sign in (-1, 1)]
    tolerance = np.max([np.abs(bound - expected) for bound in bounds], axis=0)
    tolerance += 2 * _RELATIVE * _UNITS[features.mel.log.kind] + 1e-6 * np.abs(expected)
    tolerance += (features.resolution or 0) / 2
    return Expected(expected, tolerance)


def _mel(chunk: Samples, features: FeatureSpec, *, resampled: bool) -> tuple[Any, Any]:
    """Return mel values before the logarithm, and their tolerance."""
    spec, rate_hz = features.mel, features.sample_rate_hz
    if spec.center:
        # librosa 0.11 mirrors the last sample of some chunks incorrectly: pad the chunk first.
        chunk = np.pad(chunk, spec.n_fft // 2, mode=spec.pad_mode)
    names = ("n_fft", "win_length", "hop_length", "window")
    frames: dict[str, Any] = {name: getattr(spec, name) for name in names}
    amplitudes = np.abs(librosa.stft(chunk, center=False, **frames))
    bands: dict[str, Any] = {
        "n_mels": spec.n_mels,
        "fmin": spec.f_min_hz,
        "fmax": spec.f_max_hz,
        "htk": spec.scale == "htk",
        "norm": "slaney" if spec.norm == "slaney" else None,
    }
    powers = amplitudes**spec.power
    mel = librosa.feature.melspectrogram(S=powers, sr=rate_hz, n_fft=spec.n_fft, **bands)
    error = np.finfo(np.float32).eps * amplitudes.max()
    if resampled:
        window = librosa.filters.get_window(spec.window, spec.win_length or spec.n_fft)
        error += _RESAMPLED_EPSILON * np.abs(chunk).max() * np.sqrt(np.sum(window**2))
    weights = librosa.filters.mel(sr=rate_hz, n_fft=spec.n_fft, **bands).sum(axis=1, keepdims=True)
    bin_error = error if spec.power == 1 else error**2 / _RELATIVE
    return mel.astype(float), _RELATIVE * mel + bin_error * weights


def _logarithm(mel: Any, spec: MelSpec) -> Any:
    log = spec.log
    if log.kind == "none":
        return mel
    if log.kind != "db":
        return (np.log if log.kind == "ln" else np.log10)(np.maximum(mel + log.offset, log.floor))
    ref = np.max if log.ref == "max" else log.ref
    if spec.power == 2:
        return librosa.power_to_db(mel, ref=ref, amin=log.floor, top_db=log.top_db)
    return librosa.amplitude_to_db(mel, ref=ref, amin=np.sqrt(log.floor), top_db=log.top_db)

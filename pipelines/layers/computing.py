"""The computation of a layer, written once for all frameworks.

Each step is that of :class:`~melmill.transforms.features.mel.MelExtractor`, on a batch at once.
"""

from __future__ import annotations

import math
from typing import Any

from melmill.pipelines.layers.front_end import FrontEnd
from melmill.transforms.features.logarithm import LogSpec
from melmill.transforms.features.standardization import StandardizationSpec

#: An array of the framework.
Tensor = Any

#: Power of which a root is taken instead of zero's: its root is far below float32's rounding.
_SMALLEST_POWER = 1e-30


#: The functions of a framework, with the names and meanings of ``keras.ops``: take, concatenate,
#: rfft (real and imaginary part), matmul, sqrt, log, log10, maximum, where, arange, cast, reshape
#: and swapaxes; max, sum and mean, which keep their axes; and the types ``float32`` and ``int32``.
Operations = Any


def compute(
    front_end: FrontEnd,
    ops: Operations,
    arrays: dict[str, Tensor],
    samples: Tensor,
    valid_samples: Tensor | None,
) -> Tensor:
    """Return the features of a batch of chunks.

    Parameters
    ----------
    front_end
        Settings.
    ops
        Functions of the framework.
    arrays
        ``places``, ``window``, ``weights`` and ``frames_of`` of the front end, as the framework's
        arrays.
    samples
        Samples, float32 [chunks, chunk_samples], full scale 1.0.
    valid_samples
        Number of samples of each chunk that are no padding, integers [chunks]; ``None`` if no chunk
        is padded.

    Returns
    -------
    array of shape [chunks, bands, frames], float32
    """
    spec = front_end.spec
    if valid_samples is not None:
        valid_samples = ops.cast(valid_samples, ops.int32)
    x = samples * spec.sample_scale
    if spec.preemphasis and spec.preemphasis_over == "chunk":
        x = _emphasise_chunk(ops, x, spec.preemphasis, valid_samples, front_end.chunk_samples)
    zeros = x[:, :1] * 0.0
    frames = ops.take(ops.concatenate([x, zeros], -1), arrays["places"], 1)
    if spec.remove_dc_offset:
        frames = frames - ops.mean(frames, -1)
    if spec.preemphasis and spec.preemphasis_over == "frame":
        before = ops.concatenate([frames[..., :1], frames[..., :-1]], -1)
        frames = frames - spec.preemphasis * before
    real, imaginary = ops.rfft(frames * arrays["window"], spec.n_fft)
    powers = real * real + imaginary * imaginary
    if spec.power == 1:
        # The gradient of the root of zero is not finite.
        powers = ops.sqrt(ops.maximum(powers + spec.magnitude_epsilon, _SMALLEST_POWER))
    bands = take_logarithm(ops, ops.matmul(powers, arrays["weights"]), spec.log, spec.power)
    return _finish(front_end, ops, arrays, bands, valid_samples)


def _emphasise_chunk(
    ops: Operations, x: Tensor, factor: float, valid_samples: Tensor | None, length: int
) -> Tensor:
    before = ops.concatenate([x[:, :1] * 0.0, x[:, :-1]], -1)
    emphasised = x - factor * before
    if valid_samples is None:
        return emphasised
    return ops.where(ops.arange(length)[None, :] < valid_samples[:, None], emphasised, x)


def take_logarithm(ops: Operations, bands: Tensor, log: LogSpec, power: int) -> Tensor:
    """Return the logarithms of bands, [chunks, frames, bands]; see ``LogSpec``."""
    if log.kind == "none":
        return bands
    if log.kind == "db":
        powers = bands * bands if power == 1 else bands
        decibels = 10.0 * ops.log10(ops.maximum(powers, log.floor))
        top = ops.max(decibels, (1, 2))
        if log.ref == "max":
            reference: Any = top
        else:
            ref_power = log.ref if power == 2 else log.ref**2
            reference = 10.0 * math.log10(max(log.floor, ref_power))
        decibels = decibels - reference
        if log.top_db is None:
            return decibels
        return ops.maximum(decibels, top - reference - log.top_db)
    values = ops.maximum(bands * log.gain + log.offset, log.floor)
    logarithms = ops.log(values) if log.kind == "ln" else ops.log10(values)
    if log.range is None:
        return logarithms
    if log.range_top != "max":
        return ops.maximum(logarithms, log.range_top - log.range)
    return ops.maximum(logarithms, ops.max(logarithms, (1, 2)) - log.range)


def _finish(
    front_end: FrontEnd,
    ops: Operations,
    arrays: dict[str, Tensor],
    bands: Tensor,
    valid_samples: Tensor | None,
) -> Tensor:
    """Return the features, [chunks, bands, frames], of bands after the logarithm."""
    spec, n_frames = front_end.spec, len(front_end.places)
    is_valid = None
    if spec.padded_frames is not None and valid_samples is not None:
        valid_frames = ops.take(arrays["frames_of"], valid_samples, 0)
        is_full = valid_samples >= front_end.chunk_samples
        numbers = ops.arange(n_frames)[None, :]
        is_valid = ((numbers < valid_frames[:, None]) | is_full[:, None])[:, :, None]
    if spec.standardization is not None:
        bands = _standardize(ops, bands, spec.standardization, is_valid)
    if is_valid is not None:
        bands = ops.where(is_valid, bands, bands * 0.0 + (spec.padded_frames or 0.0))
    n_bands, n_stacked = front_end.shape
    stacked = bands[:, : n_stacked * spec.stack_frames]
    return ops.swapaxes(ops.reshape(stacked, (-1, n_stacked, n_bands)), 1, 2)


def _standardize(
    ops: Operations, bands: Tensor, spec: StandardizationSpec, is_valid: Tensor | None
) -> Tensor:
    if is_valid is None:
        weights: Tensor = bands[:, :, :1] * 0.0 + 1.0
    else:
        weights = ops.cast(is_valid, ops.float32)
    count = ops.sum(weights, 1)
    own_mean = ops.sum(bands * weights, 1) / ops.maximum(count, 1.0)
    mean: Any = own_mean if spec.mean == "band" else spec.mean
    if spec.std != "band":
        return (bands - mean) / spec.std
    deviations = (bands - own_mean) * weights
    variance = ops.sum(deviations * deviations, 1) / ops.maximum(count - spec.ddof, 1.0)
    std = ops.sqrt(variance + spec.variance_epsilon) + spec.std_epsilon
    return ops.where(
        std > 0, (bands - mean) / ops.where(std > 0, std, std * 0.0 + 1.0), bands * 0.0
    )

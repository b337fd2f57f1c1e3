"""The reference for a dataset's rows: librosa, applied to the whole recording.

This module does not run in workers. Only the decoding is melmill's (libsndfile and FFmpeg).
librosa does the mix, the sample rate conversion, the spectrum, the bands and the logarithm. What
librosa does not have (Kaldi's frames, for example) is computed here in double precision; only the
windows, bands that are triangles over mel, and the gain to a loudness are melmill's own.

The tolerance of each value follows from float32 (``tests/features/test_mel.py`` derives it). The
transform is in single precision. This adds to each bin of a spectrum an error of float32's epsilon
times the loudest bin, however quiet the bin itself is. Resampled samples have float32 rounding
errors, too. The tolerance of a mel value is therefore 1e-4 of the value, plus the sum of these
errors over its band. In decibels, this is some thousandths where there is sound, and much more far
below the sound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt

from melmill.pipelines.snapshots.sampled_rows import SampledRow
from melmill.transforms.core.records import AudioInfo
from melmill.transforms.decode.decoders import open_audio
from melmill.transforms.features.channels import ChannelPolicy
from melmill.transforms.features.chunks import Place, fill_short, filled_samples, pad_chunk
from melmill.transforms.features.extractors import Window, surrounded
from melmill.transforms.features.mel_spec import MelSpec, filterbank
from melmill.transforms.features.mfcc import MfccSpec, cosine_basis
from melmill.transforms.features.pcen import PcenSpec, smoothing_factor
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.standardization import StandardizationSpec
from melmill.transforms.features.stft_spec import (
    StftSpec,
    framing,
    framing_with_neighbours,
    win_length,
)
from melmill.transforms.features.variants import (
    draw_file,
    draw_noise,
    draw_snr,
    gain_factor,
    valid_part,
)
from melmill.transforms.features.variants_spec import Draws, Gain, Noise, Rir, SoundFile
from melmill.transforms.features.waveform import WaveformSpec, loudness_gain
from melmill.transforms.features.windows import window_samples
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
    """The reference values of a feature of a row.

    Attributes
    ----------
    values, tolerance : float64, of the feature's shape
        The values and their tolerances, in the unit of the feature.
    """

    values: npt.NDArray[np.float64]
    tolerance: npt.NDArray[np.float64]


def reference_samples(
    source: StoredObject, audio: AudioInfo, features: FeatureSpec, speed: Fraction = Fraction(1)
) -> Samples:
    """Decode a whole recording, mix it, and resample it in a single call, at a speed.

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
    rate_hz = audio.sample_rate_hz * speed
    if rate_hz == features.sample_rate_hz:
        return samples
    resampled: Samples = librosa.resample(
        samples,
        orig_sr=rate_hz.numerator,
        target_sr=features.sample_rate_hz * rate_hz.denominator,
        res_type=features.resampler,
    )
    return resampled


def reference_variant(
    samples: Samples, place: Place, features: FeatureSpec, at_rate: FeatureSpec, row: SampledRow
) -> Samples:
    """Return the samples of a recording as a row of a variant has them.

    The random numbers are melmill's own.

    Parameters
    ----------
    samples : float32 [samples]
        A channel of the recording, at the variant's speed.
    place
        The place of the row's chunk.
    features, at_rate, row
        The recipe, its settings at the rate of the samples, and the row.
    """
    variant = features.variants[row.variant - 1]
    draws = Draws(variant.seed, row.variant, row.recording_id)
    first = place.start - place.around.before
    window = samples[first : place.start + place.valid + place.around.after].astype(np.float64)
    read = partial(_read_stretch, at_rate=at_rate)
    for number, word in enumerate(variant.words):
        if isinstance(word, Gain):
            window *= gain_factor(word, draws, number, place.index)
        elif isinstance(word, Noise):
            noise = draw_noise(word, draws, number, place.index, len(window), read)
            powers = [np.mean(part[valid_part(place)] ** 2) for part in (window, noise)]
            wanted = powers[0] / 10 ** (draw_snr(word, draws, number, place.index) / 10)
            window = window + noise * np.sqrt(wanted / powers[1] if powers[1] else 0)
        elif isinstance(word, Rir):
            file = draw_file(word.sounds, draws, number, place.index)
            window = _convolve(window, _read_whole(file, at_rate), valid_part(place))
    changed = samples.copy()
    changed[first : first + len(window)] = window
    return changed


def _convolve(window: Any, response: Any, valid: slice) -> Any:
    """Return the direct convolution, moved by the largest sample, with the level of the window."""
    direct = np.argmax(np.abs(response))
    wet = np.convolve(window, response)[direct : direct + len(window)]
    powers = [np.mean(part[valid] ** 2) for part in (window, wet)]
    return wet * np.sqrt(powers[0] / powers[1] if powers[1] else 0)


def _read_whole(file: SoundFile, at_rate: FeatureSpec) -> Samples:
    mono = replace(at_rate, channels="mono")
    whole: Samples = reference_samples(StoredObject(file.uri), file.audio, mono)[0]
    return whole


def _read_stretch(file: SoundFile, count: int, place: float, *, at_rate: FeatureSpec) -> Any:
    """Return a stretch of a file, float64 [count]; the whole file is decoded and resampled."""
    whole = _read_whole(file, at_rate)
    if len(whole) < count:
        whole = np.roll(whole, -int(place * len(whole)))
        return np.resize(whole, count).astype(np.float64)
    start = int(place * (len(whole) - count + 1))
    return whole[start : start + count].astype(np.float64)


def _mix(block: Samples, policy: ChannelPolicy) -> Samples:
    if policy == "mono":
        mixed: Samples = librosa.to_mono(block.T)[None]
        return mixed
    return block.T[{"left": slice(0, 1), "right": slice(1, 2), "each": slice(None)}[policy]]


def reference_row(
    samples: Samples,
    start: int,
    valid: int,
    chunk_index: int,
    features: FeatureSpec,
    rate_hz: int | Fraction,
    feature: Feature | None = None,
    filled: int | None = None,
) -> Expected:
    """Return the reference values of a row, from a channel of :func:`reference_samples`.

    Parameters
    ----------
    samples : float32 [samples]
        A channel of the recording.
    start, valid, chunk_index
        The row's ``start_sample``, ``valid_samples`` and ``chunk_index``.
    features
        The recipe.
    rate_hz
        The recording's own sample rate, times its speed.
    feature
        The feature of the recipe; ``None`` for the first.
    filled
        The number of samples that are not padding; ``None`` for what follows from `valid`.
    """
    feature = feature or features.features[0]
    total, length = len(samples), features.chunk.length
    around = features.surroundings.around(start, valid, total, length)
    chunk = samples[start : start + valid, None]
    filled = filled_samples(chunk_index, valid, features.chunk) if filled is None else filled
    if len(chunk) < features.chunk.length:
        # Only a recording or segment that is shorter than a chunk may be filled by repetition.
        chunk = (fill_short if filled > valid else pad_chunk)(chunk, features.chunk)
    resampled = rate_hz != features.sample_rate_hz
    spec = feature.spec
    if isinstance(spec, WaveformSpec):
        return _expected_waveform(chunk[:, 0], spec, filled, resampled, features.sample_rate_hz)
    end = start + length
    parts = samples[start - around.before : start], chunk[:, 0], samples[end : end + around.after]
    window = np.concatenate(parts), around.before
    return _expected_bands(chunk[:, 0], feature, features, filled, resampled, window)


def _expected_waveform(
    chunk: Samples, spec: WaveformSpec, filled: int, resampled: bool, rate_hz: int
) -> Expected:
    samples = chunk.astype(np.float64)
    largest = np.abs(samples).max()
    # float32's rounding of a sample and of a level, and the error of resampling in blocks.
    error, factor = np.full(len(samples), (2e-7 + resampled * _RESAMPLED_EPSILON) * largest), 1.0
    if spec.level == "peak" and largest:
        samples, factor = samples * (spec.peak / largest), spec.peak / largest
    elif spec.level == "standardized":
        valid = samples[:filled]
        factor = 1 / np.sqrt(valid.var() + spec.variance_epsilon)
        samples = np.concatenate([(valid - valid.mean()) * factor, 0 * samples[filled:]])
    elif spec.level == "loudness":
        # The tolerance of 1e-4 is a thousandth of a decibel: a block may fall on the other side of
        # a gate after another conversion of the sample rate.
        factor = loudness_gain(chunk[:filled], rate_hz, spec.loudness_lufs)
        samples, error = samples * factor, error + resampled * 1e-4 * np.abs(samples)
    error *= 2 * factor
    if spec.dtype == "int16":
        return Expected(np.clip(samples * 32768, -32768, 32767), error * 32768 + 0.5)
    return Expected(samples, error)


def _expected_bands(
    chunk: Samples,
    feature: Feature,
    features: FeatureSpec,
    filled: int,
    resampled: bool,
    window: Window,
) -> Expected:
    spec: Any = feature.spec
    if features.chunk.edges == "neighbours":
        padded = surrounded(window, spec, features.chunk.length).astype(np.float64)
        padded *= spec.sample_scale
    else:
        padded = _padded(chunk, spec, filled)
    mel, error = _mel(padded, spec, features, resampled)
    if isinstance(spec, PcenSpec):
        return _expected_pcen(mel, error, spec, features.sample_rate_hz)
    expected = _logarithm(mel, spec)
    bounds = [_logarithm(np.maximum(mel + sign * error, 0), spec) for sign in (-1, 1)]
    tolerance = np.max([np.abs(bound - expected) for bound in bounds], axis=0)
    tolerance += 2 * _RELATIVE * _UNITS[spec.log.kind] + 1e-6 * np.abs(expected)
    if isinstance(spec, MfccSpec):
        return _expected_mfcc(expected, tolerance, padded, spec)
    # The finished values are rounded.
    rounding = (features.resolution or 0) / 2 if feature.has_logarithm else 0.0
    if not isinstance(spec, MelSpec):
        return Expected(expected, tolerance + rounding)
    frames = expected.shape[1]
    if spec.padded_frames is not None:
        frames = max(0, min(frames, framing(spec, filled).n_frames))
    if spec.standardization is not None:
        expected, tolerance = _standardize(expected, tolerance, spec.standardization, frames)
    if spec.padded_frames is not None:
        expected[:, frames:], tolerance[:, frames:] = spec.padded_frames, 1e-6
    tolerance += rounding
    return Expected(_stack(expected, spec.stack_frames), _stack(tolerance, spec.stack_frames))


def _expected_pcen(mel: Any, error: Any, spec: PcenSpec, rate_hz: int) -> Expected:
    """Return librosa's PCEN, and how far errors of a band and of its past can move it."""
    smoothing = smoothing_factor(spec, rate_hz)

    def normalized(bands: Any, smooth: Any) -> Any:
        levelled = bands * (spec.epsilon + smooth) ** -spec.gain
        return (levelled + spec.bias) ** spec.exponent - spec.bias**spec.exponent

    expected: Any = librosa.pcen(
        mel,
        sr=rate_hz,
        hop_length=spec.hop_length,
        gain=spec.gain,
        bias=spec.bias,
        power=spec.exponent,
        time_constant=spec.time_constant_s,
        eps=spec.epsilon,
    )
    smooth = np.apply_along_axis(_smooth, 1, mel, smoothing, 1.0)
    moved = np.apply_along_axis(_smooth, 1, error, smoothing, 0.0)
    bounds = [
        normalized(np.maximum(mel + sign * error, 0), np.maximum(smooth - sign * moved, 0))
        for sign in (-1, 1)
    ]
    tolerance = np.max([np.abs(bound - expected) for bound in bounds], axis=0)
    return Expected(expected, tolerance + 1e-6 * (1 + np.abs(expected)))


def _smooth(band: Any, factor: float, last: float) -> Any:
    smooth = np.empty_like(band)
    for frame, value in enumerate(band):
        last = smooth[frame] = (1 - factor) * last + factor * value
    return smooth


def _expected_mfcc(bands: Any, tolerance: Any, padded: Any, spec: MfccSpec) -> Expected:
    basis = cosine_basis(spec)
    expected = basis @ bands
    moved = np.abs(basis) @ tolerance + 1e-6 * (1 + np.abs(expected))
    if spec.energy == "raw":
        length = spec.n_fft if spec.window_position == "center" else win_length(spec)
        frames = np.lib.stride_tricks.sliding_window_view(padded, length)
        frames = frames[:: spec.hop_length][: bands.shape[1]]
        if spec.remove_dc_offset:
            frames = frames - frames.mean(axis=1, keepdims=True)
        expected[0] = np.log(np.maximum((frames**2).sum(axis=1), np.finfo(np.float32).eps))
        moved[0] = 1e-5 * (1 + np.abs(expected[0]))
    return Expected(expected, moved)


def _standardize(mel: Any, tolerance: Any, spec: StandardizationSpec, frames: int) -> Any:
    """Return standardized values and their tolerance.

    An error of a value moves the value, and the mean and the standard deviation of its band.
    """
    if not frames:
        return mel, tolerance
    valid, moved = mel[:, :frames], tolerance[:, :frames].mean(axis=1, keepdims=True)
    mean: Any = spec.mean
    std: Any = spec.std
    if mean == "band":
        mean, tolerance = valid.mean(axis=1, keepdims=True), tolerance + moved
    if std != "band":
        return (mel - mean) / std, tolerance / std
    variance = valid.var(axis=1, keepdims=True, ddof=spec.ddof if frames > spec.ddof else 0)
    std = np.sqrt(variance + spec.variance_epsilon) + spec.std_epsilon
    standardized = (mel - mean) * (std > 0)
    std = np.where(std > 0, std, 1)
    standardized /= std
    widest = tolerance.max(axis=1, keepdims=True)
    return standardized, (tolerance + np.abs(standardized) * widest) / std


def _stack(values: Any, number: int) -> Any:
    whole = values.shape[1] // number * number
    return values[:, :whole].T.reshape(-1, number * len(values)).T


def _padded(chunk: Any, spec: StftSpec, filled: int) -> Any:
    """Return a chunk in double precision, emphasised and padded as its frames need it."""
    chunk = chunk * np.float64(spec.sample_scale)
    if spec.preemphasis and spec.preemphasis_over == "chunk":
        chunk[1:filled] -= spec.preemphasis * chunk[: filled - 1]
    # librosa 0.11 mirrors the last sample of some chunks incorrectly: pad the chunk first.
    places = framing(spec, len(chunk))
    return np.pad(chunk, (places.before_samples, places.after_samples), mode=spec.pad_mode)


def _mel(chunk: Any, spec: Any, features: FeatureSpec, resampled: bool) -> tuple[Any, Any]:
    """Return mel values before the logarithm, and their tolerance."""
    rate_hz, length = features.sample_rate_hz, features.chunk.length
    places = framing(spec, length)
    if features.chunk.edges == "neighbours":
        places = framing_with_neighbours(spec, length)
    window = window_samples(spec.window, win_length(spec), periodic=spec.periodic)
    amplitudes = _amplitudes(chunk, window, spec)[:, : places.n_frames]
    amplitudes = np.sqrt(amplitudes**2 + spec.magnitude_epsilon)
    if not isinstance(spec, MelSpec):
        return _with_error(amplitudes, None, chunk, window, spec, resampled)
    bands: dict[str, Any] = {
        "n_mels": spec.n_mels,
        "fmin": spec.f_min_hz,
        "fmax": spec.f_max_hz,
        "htk": spec.scale == "htk",
        "norm": "slaney" if spec.norm == "slaney" else None,
    }
    if spec.triangles == "mel":
        weights = filterbank(spec, rate_hz)
    else:
        weights = librosa.filters.mel(sr=rate_hz, n_fft=spec.n_fft, dtype=np.float64, **bands)
    return _with_error(amplitudes, weights, chunk, window, spec, resampled)


def _with_error(
    amplitudes: Any, weights: Any, chunk: Any, window: Any, spec: StftSpec, resampled: bool
) -> tuple[Any, Any]:
    """Return the bands of a spectrum, and their tolerance; without weights the spectrum itself."""
    mel = amplitudes**spec.power if weights is None else weights @ amplitudes**spec.power
    total = 1.0 if weights is None else weights.sum(axis=1, keepdims=True)
    epsilon = np.finfo(np.float32).eps
    error = epsilon * amplitudes.max()
    # Samples are rounded to float32 after a resampling, a DC removal and a pre-emphasis.
    rounding = _RESAMPLED_EPSILON * resampled + epsilon * (spec.remove_dc_offset + spec.preemphasis)
    error += rounding * np.abs(chunk).max() * np.sqrt(np.sum(window**2))
    bin_error = error if spec.power == 1 else error**2 / _RELATIVE
    return mel, _RELATIVE * mel + bin_error * total


def _amplitudes(chunk: Any, window: Any, spec: StftSpec) -> Any:
    """Return the amplitudes of the spectra of all frames, float64 [bins, frames]."""
    if spec.window_position == "center" and not (spec.remove_dc_offset or spec.preemphasis):
        how: dict[str, Any] = {"n_fft": spec.n_fft, "hop_length": spec.hop_length}
        how |= {"win_length": len(window), "window": window, "dtype": np.complex128}
        return np.abs(librosa.stft(chunk, center=False, **how))
    length = len(window) if spec.window_position == "left" else spec.n_fft
    frames = np.lib.stride_tricks.sliding_window_view(chunk, length)[:: spec.hop_length]
    if spec.remove_dc_offset:
        frames = frames - frames.mean(axis=1, keepdims=True)
    if spec.preemphasis and spec.preemphasis_over == "frame":
        before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        frames = frames - spec.preemphasis * before
    if spec.window_position == "center":
        window = librosa.util.pad_center(window, size=length)
    return np.abs(np.fft.rfft(frames * window, spec.n_fft)).T


def _logarithm(mel: Any, spec: StftSpec) -> Any:
    log = spec.log
    if log.kind == "none":
        return mel
    if log.kind != "db":
        raised = np.maximum(log.gain * mel + log.offset, log.floor)
        values = (np.log if log.kind == "ln" else np.log10)(raised)
        if log.range is None:
            return values
        top = values.max() if log.range_top == "max" else log.range_top
        return np.maximum(values, top - log.range)
    ref = np.max if log.ref == "max" else log.ref
    if spec.power == 2:
        return librosa.power_to_db(mel, ref=ref, amin=log.floor, top_db=log.top_db)
    return librosa.amplitude_to_db(mel, ref=ref, amin=np.sqrt(log.floor), top_db=log.top_db)

"""The front ends of models as float64 formulas, from the files that each recipe names.

The formulas share no code with melmill, so that they can judge its features. Each returns the mel
values before the logarithm, an upper bound of the errors of float32, and the rest of the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import scipy.fft

Array = npt.NDArray[np.float64]

EPS = float(np.finfo(np.float32).eps)
#: Relative rounding of a mel value, see ``tests/features/test_mel.py``.
RELATIVE = 1e-4


@dataclass(frozen=True)
class FrontEnd:
    """The values of a front end before its logarithm, and the function that follows."""

    mel: Array
    error: Array
    finish: Callable[[Array], Array]
    #: The logarithm, if ``finish`` then subtracts the mean of each band, and its divisors.
    log: Callable[[Array], Array] | None = None
    std: Array | float = 1.0

    @property
    def values(self) -> Array:
        return self.finish(self.mel)

    @property
    def tolerance(self) -> Array:
        """How far the values may be when the mel values have their errors."""
        bounds = [self.finish(np.maximum(self.mel + sign * self.error, 0)) for sign in (-1, 1)]
        if self.log is None:
            # A logarithm in float32, and its scale, are rounded once each.
            rounding = 4 * EPS * (1 + np.abs(self.values))
            return np.max([np.abs(bound - self.values) for bound in bounds], axis=0) + rounding
        logs = [self.log(np.maximum(self.mel + sign * self.error, 0)) for sign in (-1, 1)]
        width = logs[1] - logs[0] + 4 * EPS * (1 + np.abs(logs[1]))
        # An error moves its own value, the mean of its band, and the standard deviation.
        own = (width + width.mean(axis=1, keepdims=True)) / self.std
        tolerance: Array = own + np.abs(self.values) * width.max(axis=1, keepdims=True) / self.std
        return tolerance


@dataclass(frozen=True)
class Values:
    """The values that a model takes, and how far float32 may be from them."""

    values: Array
    tolerance: Array


def as_it_is(samples: Array) -> Values:
    return Values(samples, np.zeros_like(samples))


def standardized_utterance(samples: Array) -> Values:
    """Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm."""
    values = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    return Values(values, EPS * np.abs(values))


def hann(length: int, periodic: bool) -> Array:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1 + periodic))


def frames_of(samples: Array, length: int, hop: int) -> Array:
    starts = range(0, len(samples) - length + 1, hop)
    return np.array([samples[start : start + length] for start in starts])


def spectra(frames: Array, window: Array, n_fft: int) -> Array:
    """Return the amplitudes, [bins, frames]."""
    return np.abs(np.fft.rfft(frames * window, n_fft)).T


def summed(
    spectrum: Array, bands: Array, power: int, floor_error: float = 0.0
) -> tuple[Array, Array]:
    """Return the mel values, and the errors of a transform in float32: see test_mel.py."""
    mel = bands @ spectrum**power
    loudest = EPS * spectrum.max() + floor_error
    bin_error = loudest if power == 1 else loudest**2 / RELATIVE
    return mel, RELATIVE * mel + bin_error * bands.sum(axis=1, keepdims=True)


def mel_bands(rate: int, n_fft: int, **how: Any) -> Array:
    bands: Array = librosa.filters.mel(sr=rate, n_fft=n_fft, dtype=np.float64, **how)
    return bands


def whisper(samples: Array, n_mels: int) -> FrontEnd:
    # whisper/audio.py: log_mel_spectrogram
    padded = np.pad(samples, 200, mode="reflect")
    spectrum = spectra(frames_of(padded, 400, 160), hann(400, True), 400)[:, :-1]
    mel, error = summed(spectrum, mel_bands(16000, 400, n_mels=n_mels), 2)

    def finish(mel: Array) -> Array:
        log = np.log10(np.maximum(mel, 1e-10))
        return (np.maximum(log, log.max() - 8) + 4) / 4

    return FrontEnd(mel, error, finish)


def kaldi_bands(n_mels: int, low: float, high: float) -> Array:
    # feat/mel-computations.cc, MelBanks: triangles over mel, without the bin at half the rate.
    def mel_of(frequency: Any) -> Any:
        return 1127 * np.log(1 + np.asarray(frequency) / 700)

    delta = (mel_of(high) - mel_of(low)) / (n_mels + 1)
    bins = mel_of(np.arange(256) * 16000 / 512)
    bands = np.zeros((n_mels, 257))
    for band in range(n_mels):
        left, center, right = mel_of(low) + delta * np.arange(band, band + 3)
        rising, falling = (bins - left) / (center - left), (right - bins) / (right - center)
        bands[band, :256] = np.clip(np.minimum(rising, falling), 0, None)
    return bands


def kaldi(
    samples: Array,
    n_mels: int,
    *,
    high: float = 8000,
    scale: float = 32768,
    window: Array | None = None,
    snip_edges: bool = True,
) -> tuple[Array, Array]:
    """Return Kaldi's filterbank energies before the logarithm (feat/feature-window.cc)."""
    samples = samples * scale
    if not snip_edges:
        number = (len(samples) + 80) // 160
        index = np.arange(number)[:, None] * 160 - 120 + np.arange(400)
        index = np.where(index < 0, -index - 1, index)
        index = np.where(index >= len(samples), 2 * len(samples) - 1 - index, index)
        frames = samples[index]
    else:
        frames = frames_of(samples, 400, 160)
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    povey = hann(400, False) ** 0.85
    window = povey if window is None else window
    spectrum = spectra(frames, window, 512)
    # The samples of a frame are rounded once more when the mean is removed.
    rounding = EPS * np.abs(samples).max() * np.sqrt(np.sum(window**2))
    return summed(spectrum, kaldi_bands(n_mels, 20, high), 2, rounding)


def log_of_kaldi(mel: Array) -> Array:
    return np.log(np.maximum(mel, 1.1920929e-07))


def kaldi_log(samples: Array, n_mels: int, mean: float = 0.0, std: float = 1.0, **how: Any) -> Any:
    mel, error = kaldi(samples, n_mels, **how)
    return FrontEnd(mel, error, lambda mel: (log_of_kaldi(mel) - mean) / std)


def kaldi_mfcc(
    samples: Array, n_mels: int, n_mfcc: int, *, energy: bool = False, **how: Any
) -> Values:
    """feature-mfcc.cc: a cosine transform, a lifter of 22, and perhaps the energy of each frame."""
    mel, error = kaldi(samples, n_mels, **how)
    logs = [log_of_kaldi(np.maximum(mel + sign * error, 0)) for sign in (-1, 0, 1)]
    lifter = 1 + 11 * np.sin(np.pi * np.arange(n_mfcc) / 22)[:, None]
    values = scipy.fft.dct(logs[1], axis=0, norm="ortho")[:n_mfcc] * lifter
    basis = scipy.fft.dct(np.eye(n_mels), axis=0, norm="ortho")[:n_mfcc] * lifter
    width = np.maximum(logs[2] - logs[1], logs[1] - logs[0]) + 4 * EPS * (1 + np.abs(logs[1]))
    tolerance = np.abs(basis) @ width + 4 * EPS * (1 + np.abs(values))
    if energy:
        frames = frames_of(samples * 32768, 400, 160)
        frames = frames - frames.mean(axis=1, keepdims=True)
        values[0] = np.log(np.maximum((frames**2).sum(axis=1), EPS))
        tolerance[0] = 1e-5 * (1 + np.abs(values[0]))
    return Values(values, tolerance)


def standardized(
    samples: Array,
    *,
    ddof: int = 0,
    epsilon: float = 0.0,
    std: bool = True,
    stack: int = 1,
    **how: Any,
) -> FrontEnd:
    mel, error = kaldi(samples, 80, **how)

    def divisor(log: Array) -> Array:
        return np.sqrt(log.var(axis=1, keepdims=True, ddof=ddof) + epsilon)

    def finish(mel: Array) -> Array:
        log = log_of_kaldi(mel)
        centred = log - log.mean(axis=1, keepdims=True)
        return centred / divisor(log) if std else centred

    return FrontEnd(mel, error, finish, log_of_kaldi, divisor(log_of_kaldi(mel)) if std else 1.0)


def parakeet(samples: Array) -> FrontEnd:
    # NeMo, features.py: FilterbankFeatures with pad_to 0, and normalize_batch per feature.
    emphasised = np.concatenate([samples[:1], samples[1:] - 0.97 * samples[:-1]])
    window = np.pad(hann(400, False), 56)
    frames = frames_of(np.pad(emphasised, 256), 512, 160)[: len(samples) // 160]
    mel, error = summed(
        spectra(frames, window, 512),
        mel_bands(16000, 512, n_mels=128),
        2,
        EPS * np.abs(samples).max() * np.sqrt(np.sum(window**2)),
    )

    def divisor(log: Array) -> Array:
        return log.std(axis=1, keepdims=True, ddof=1) + 1e-5

    def finish(mel: Array) -> Array:
        log = ln(0.0, 2.0**-24)(mel)
        return (log - log.mean(axis=1, keepdims=True)) / divisor(log)

    log = ln(0.0, 2.0**-24)
    return FrontEnd(mel, error, finish, log, divisor(log(mel)))


def gemma3n(samples: Array) -> FrontEnd:
    # transformers, feature_extraction_gemma3n.py: frames of 513 samples, of which 512 are used.
    frames = frames_of(samples, 513, 160)
    first = frames[:, :1] * (1 - 0.97)
    emphasised = np.concatenate([first, frames[:, 1:-1] - 0.97 * frames[:, :-2]], axis=1)
    bands = mel_bands(16000, 1024, n_mels=128, fmin=125, fmax=7600, htk=True, norm=None)
    rounding = EPS * np.abs(samples).max() * np.sqrt(np.sum(hann(512, True) ** 2))
    mel, error = summed(spectra(emphasised, hann(512, True), 1024), bands, 1, rounding)
    return FrontEnd(mel, error, lambda mel: np.log(np.maximum(mel, 1e-5)))


def centred(
    samples: Array,
    rate: int,
    n_fft: int,
    hop: int,
    *,
    power: int,
    finish: Callable[[Array], Array],
    pad: int | None = None,
    pad_mode: Any = "reflect",
    epsilon: float = 0.0,
    drop: int = 0,
    **bands: Any,
) -> FrontEnd:
    """A periodic Hann window of the length of the transform, as in most models for synthesis."""
    padded = np.pad(samples, n_fft // 2 if pad is None else pad, mode=pad_mode)
    spectrum = spectra(frames_of(padded, n_fft, hop), hann(n_fft, True), n_fft)
    spectrum = np.sqrt(spectrum**2 + epsilon)[:, : spectrum.shape[1] - drop]
    mel, error = summed(spectrum, mel_bands(rate, n_fft, **bands), power)
    return FrontEnd(mel, error, finish)


def vocoder(samples: Array, rate: int, n_fft: int, hop: int, n_mels: int, fmax: float) -> FrontEnd:
    # jik876/hifi-gan, meldataset.py, mel_spectrogram
    how: Any = {"n_mels": n_mels, "fmax": fmax, "pad": (n_fft - hop) // 2, "epsilon": 1e-9}
    return centred(samples, rate, n_fft, hop, power=1, finish=ln(1e-5), **how)


def ln(floor: float, offset: float = 0.0) -> Callable[[Array], Array]:
    return lambda mel: np.log(np.maximum(mel + offset, floor))


def log10(floor: float, factor: float = 1.0) -> Callable[[Array], Array]:
    return lambda mel: factor * np.log10(np.maximum(mel, floor))


def audioset(samples: Array, offset: float) -> FrontEnd:
    # tensorflow/models, vggish/mel_features.py: triangles over HTK's mel, nothing from bin 0.
    def mel_of(frequency: Any) -> Any:
        return 1127 * np.log(1 + np.asarray(frequency) / 700)

    bins, edges = mel_of(np.arange(257) * 16000 / 512), np.linspace(mel_of(125), mel_of(7500), 66)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bands = np.maximum(0, np.minimum(rising, falling))
    bands[:, 0] = 0
    spectrum = spectra(frames_of(samples, 400, 160), hann(400, True), 512)
    mel, error = summed(spectrum, bands, 1)
    return FrontEnd(mel, error, ln(0.0, offset))


def stacked(values: Array, number: int) -> Array:
    """Return frames of `number` frames each, their bands below one another."""
    frames = values.shape[1] // number
    together = values[:, : frames * number].T.reshape(frames, number * len(values))
    return together.T


HAMMING = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(400) / 399)

#: The front end of each recipe. ``seamless`` is compared before its frames are stacked.
FORMULAS: dict[str, Callable[[Array], FrontEnd | Values]] = {
    "ast": lambda x: kaldi_log(x, 128, -4.2677393, 2 * 4.5689974, scale=1, window=hann(400, False)),
    "beats": lambda x: kaldi_log(x, 128, 15.41663, 2 * 6.55582),
    "bigvgan-24k-100": lambda x: vocoder(x, 24000, 1024, 256, 100, 12000),
    "bigvgan-44k-128": lambda x: vocoder(x, 44100, 2048, 512, 128, 22050),
    "clap-fused": lambda x: centred(
        *(x, 48000, 1024, 480),
        power=2,
        finish=log10(1e-10, 10),
        n_mels=64,
        fmax=14000,
        htk=True,
        norm=None,
    ),
    "clap-unfused": lambda x: centred(
        *(x, 48000, 1024, 480), power=2, finish=log10(1e-10, 10), n_mels=64, fmax=14000
    ),
    "f5-tts": lambda x: centred(
        *(x, 24000, 1024, 256), power=1, finish=ln(1e-5), n_mels=100, htk=True, norm=None
    ),
    "gemma3n": gemma3n,
    "hifigan": lambda x: vocoder(x, 22050, 1024, 256, 80, 8000),
    "kaldi-fbank-23": lambda x: kaldi_log(x, 23),
    "kaldi-fbank-80": lambda x: kaldi_log(x, 80, high=7600, scale=1, snip_edges=False),
    "kaldi-mfcc-13": lambda x: kaldi_mfcc(x, 23, 13, energy=True),
    "kaldi-mfcc-40": lambda x: kaldi_mfcc(x, 40, 40, high=7600),
    "musicnn": lambda x: centred(
        *(x, 16000, 512, 256),
        power=2,
        finish=lambda mel: np.log10(10000 * mel + 1),
        pad_mode="constant",
        drop=1,
        n_mels=96,
    ),
    "panns": lambda x: centred(
        *(x, 32000, 1024, 320), power=2, finish=log10(1e-10, 10), n_mels=64, fmin=50, fmax=14000
    ),
    "parakeet": parakeet,
    "seamless": lambda x: standardized(x, ddof=1, epsilon=1e-7),
    "speech2text": lambda x: standardized(x),
    "speecht5": lambda x: centred(
        *(x, 16000, 1024, 256), power=1, finish=log10(1e-10), n_mels=80, fmin=80, fmax=7600
    ),
    "tacotron2": lambda x: centred(
        *(x, 22050, 1024, 256), power=1, finish=ln(1e-5), n_mels=80, fmax=8000
    ),
    "vggish": lambda x: audioset(x, 0.01),
    "vocos-24k": lambda x: centred(
        *(x, 24000, 1024, 256), power=1, finish=ln(1e-7), n_mels=100, htk=True, norm=None
    ),
    "wespeaker": lambda x: standardized(x, std=False, window=HAMMING),
    "whisper-128": lambda x: whisper(x, 128),
    "whisper-80": lambda x: whisper(x, 80),
    "yamnet": lambda x: audioset(x, 0.001),
    **dict.fromkeys(
        (
            "waveform-birdnet-2.4",
            "waveform-birdnet-3",
            "waveform-dac-44k",
            "waveform-encodec-24k",
            "waveform-encodec-48k",
            "waveform-mimi-24k",
            "waveform-moonshine",
            "waveform-panns",
            "waveform-perch-2",
            "waveform-pyannote",
        ),
        as_it_is,
    ),
    "waveform-wav2vec2": standardized_utterance,
}

"""Applies the words of a variant to chunks; see :mod:`~melmill.transforms.features.variants_spec`.

The words see the real samples of a chunk, and those around it, at the sample rate of a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from melmill.transforms.features.chunks import Place
from melmill.transforms.features.codecs import apply_codec
from melmill.transforms.features.decoded_spans import Change, Span
from melmill.transforms.features.model_files import options_for
from melmill.transforms.features.sounds import read_response, read_stretch
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.features.variants_spec import (
    Codec,
    Draws,
    Gain,
    Noise,
    Rir,
    SoundFile,
    Sounds,
)

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions

Samples = npt.NDArray[np.float32]


def change_of(
    span: Span,
    features: FeatureSpec,
    catalogue: str,
    options: StorageOptions,
    at_rate: FeatureSpec,
) -> Change | None:
    """Return what a span's variant changes in each chunk; ``None`` if it changes nothing.

    Parameters
    ----------
    span, features
        Chunks, and all settings.
    catalogue, options
        URI of the catalogue, and options of fsspec for its recordings; see :func:`options_for`.
    at_rate
        Settings for the sample rate of the chunks.
    """
    if not span.variant or not features.variants[span.variant - 1].changes_chunks:
        return None
    variant = features.variants[span.variant - 1]
    draws = Draws(variant.seed, span.variant, span.probed.recording.recording_id)

    def read(file: SoundFile, count: int, place: float) -> Samples:
        own = options_for(file.uri, catalogue, options)
        return read_stretch(file, at_rate, own, count, place)

    def change(place: Place, window: Samples) -> Samples:
        for number, word in enumerate(variant.words):
            if isinstance(word, Gain):
                window = window * np.float32(gain_factor(word, draws, number, place.index))
            elif isinstance(word, Noise):
                noise = draw_noise(word, draws, number, place.index, len(window), read)
                snr_db = draw_snr(word, draws, number, place.index)
                window = add_noise(window, noise, snr_db, valid_part(place))
            elif isinstance(word, Rir):
                file = draw_file(word.sounds, draws, number, place.index)
                own = options_for(file.uri, catalogue, options)
                window = convolve(window, read_response(file, at_rate, own), valid_part(place))
            elif isinstance(word, Codec):
                window = apply_codec(window, word.setting, at_rate.sample_rate_hz)
        return window

    return change


def valid_part(place: Place) -> slice:
    """Return the real samples of a chunk among those around it."""
    return slice(place.around.before, place.around.before + place.valid)


def gain_factor(gain: Gain, draws: Draws, word: int, chunk: int) -> float:
    """Return the factor of a chunk's samples."""
    return float(10 ** (draws.uniform(word, chunk, "gain", gain.low_db, gain.high_db) / 20))


def draw_snr(noise: Noise, draws: Draws, word: int, chunk: int) -> float:
    """Return the signal-to-noise ratio of a chunk in dB."""
    return draws.uniform(word, chunk, "snr", noise.low_db, noise.high_db)


def draw_file(sounds: Sounds, draws: Draws, word: int, chunk: int) -> SoundFile:
    """Return the file of a chunk."""
    return sounds.files[int(draws.number(word, chunk, "file") * len(sounds.files))]


def draw_noise(
    noise: Noise,
    draws: Draws,
    word: int,
    chunk: int,
    count: int,
    read: Callable[[SoundFile, int, float], Samples],
) -> Samples:
    """Return the noise of a chunk, float32 [count]: from a place in a file, both drawn."""
    file = draw_file(noise.sounds, draws, word, chunk)
    return read(file, count, draws.number(word, chunk, "place"))


def add_noise(window: Samples, noise: Samples, snr_db: float, valid: slice) -> Samples:
    """Return a chunk with noise, whose power relative to each channel is that of the ratio.

    Both powers are those of the valid samples. A chunk or a noise that is silent there stays
    without noise.

    Parameters
    ----------
    window : float32 [samples, channels]
        Chunk, and the samples around it.
    noise : float32 [samples]
        Noise.
    snr_db
        Signal-to-noise ratio.
    valid
        Real samples of the chunk.

    Examples
    --------
    >>> add_noise(np.full((2, 1), 0.5, np.float32), np.ones(2, np.float32), 0, slice(2)).tolist()
    [[1.0], [1.0]]
    """
    signal_power = np.square(window[valid].astype(np.float64, order="C")).mean(axis=0)
    noise_power = np.square(noise[valid].astype(np.float64)).mean()
    if not noise_power:
        return window
    scale = np.sqrt(signal_power / (noise_power * 10 ** (snr_db / 10)))
    noisy: Samples = window + noise[:, np.newaxis] * scale.astype(np.float32)
    return noisy


def convolve(window: Samples, response: Samples, valid: slice) -> Samples:
    """Return a chunk as it sounds in a room; the level of each channel stays.

    The response is moved so that its largest sample, the direct sound, comes at once. The chunk
    has the sound of what was before it. What would sound after the end of the recording is cut.

    Parameters
    ----------
    window : float32 [samples, channels]
        Chunk, and the samples around it: as many as the response has, unless the recording begins
        or ends before.
    response : float32 [samples]
        Response of the room.
    valid
        Real samples of the chunk, over which the level is measured.

    Examples
    --------
    >>> click, echo = np.array([[1, 0, 0, 0]], np.float32).T, np.array([0, 1, 0, 0.5], np.float32)
    >>> (convolve(click, echo, slice(4)) * np.sqrt(1.25)).ravel().round(3).astype(str).tolist()
    ['1.0', '0.0', '0.5', '0.0']
    """
    from scipy.signal import fftconvolve  # imported here, because few recipes need it

    double = window.astype(np.float64, order="C")
    direct = int(np.argmax(np.abs(response)))
    whole = fftconvolve(double, response.astype(np.float64)[:, np.newaxis], axes=0)
    wet = whole[direct : direct + len(window)]
    powers = [np.square(part[valid]).mean(axis=0) for part in (double, wet)]
    wet *= np.sqrt(
        np.divide(powers[0], powers[1], out=np.zeros_like(powers[0]), where=powers[1] > 0)
    )
    reverberant: Samples = wet.astype(np.float32)
    return reverberant

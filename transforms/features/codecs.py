"""Codecs of variants: a chunk is encoded and decoded in memory by FFmpeg, through PyAV.

A codec delays what it decodes. The delay is measured once in a process: noise is encoded and
decoded, and the delay is where the two agree best. It depends on the codec, its bit rate and its
sample rate alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from melmill.transforms.core.errors import Cause, ConfigError, RecordingError, Stage

Samples = npt.NDArray[np.float32]

#: Samples around a chunk that are encoded with it, in seconds: codecs need some frames to settle,
#: and some to give back their last samples.
BEFORE_S, AFTER_S = 0.2, 0.1

#: Silence after the samples, in seconds: longer than the delay of any of the codecs.
_FLUSH_S = 0.25
_TRIAL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Codec:
    """A codec: its encoder and decoder in FFmpeg, and its only sample rate, or 0 for several."""

    encoder: str
    decoder: str
    rate_hz: int = 0
    has_bit_rate: bool = True


_CODECS = {
    "opus": _Codec("libopus", "libopus"),
    "mp3": _Codec("libmp3lame", "mp3float"),
    "aac": _Codec("aac", "aac"),
    "vorbis": _Codec("libvorbis", "vorbis"),
    "amr": _Codec("libopencore_amrnb", "amrnb", 8000),
    "g722": _Codec("g722", "g722", 16_000, has_bit_rate=False),
    "mulaw": _Codec("pcm_mulaw", "pcm_mulaw", 8000, has_bit_rate=False),
    "alaw": _Codec("pcm_alaw", "pcm_alaw", 8000, has_bit_rate=False),
}
_SETTING = re.compile(r"(\w+)(?:@(\d+(?:\.\d+)?)k)?")


def check_codec(setting: str) -> None:
    """Raise ``ValueError`` if a setting is none such as ``opus@24k``.

    Whether the codec is installed does not matter here: datasets are read without it.
    """
    match = _SETTING.fullmatch(setting)
    codec = _CODECS.get(match[1]) if match else None
    if match is None or codec is None:
        allowed = f"one of {', '.join(_CODECS)}, most with a bit rate, such as opus@24k"
        raise ValueError(f"codec: {setting!r}: should be {allowed}")
    if codec.has_bit_rate and not match[2]:
        raise ValueError(f"codec: {setting!r}: should have a bit rate, such as {match[1]}@24k")
    if match[2] and not codec.has_bit_rate:
        raise ValueError(f"codec: {setting!r}: {match[1]} has no bit rate to choose")


def _exists(name: str, mode: Any) -> bool:
    import av

    try:
        av.Codec(name, mode)
    except ValueError:
        return False
    return True


def _usable() -> list[str]:
    return [name for name, codec in _CODECS.items() if _exists(codec.encoder, "w")]


def try_codec(setting: str, rate_hz: int) -> None:
    """Encode and decode noise; raise ``ConfigError`` if the codec is missing or refuses."""
    import av

    codec, bit_rate = _parse(setting)
    for name, mode in ((codec.encoder, "w"), (codec.decoder, "r")):
        if not _exists(name, mode):
            lacking = f"this installation of PyAV has no codec {name}"
            raise ConfigError(f"codec: {setting}: {lacking}; use one of {', '.join(_usable())}")
    try:
        _delay(codec, bit_rate, _coded_rate(codec, rate_hz))
    except (av.FFmpegError, ValueError) as error:
        raise ConfigError(f"codec: {setting}: FFmpeg refuses it: {error}") from error


def apply_codec(window: Samples, setting: str, rate_hz: int) -> Samples:
    """Return samples as a codec gives them back: as many, and at the same time.

    Parameters
    ----------
    window : float32 [samples, channels]
        Samples; each channel is encoded alone.
    setting
        Codec with its bit rate in kbit/s.
    rate_hz
        Sample rate. The codec runs at the lowest of its rates that is not below, or at its highest.

    Raises
    ------
    RecordingError
        The codec failed.
    """
    import av

    codec, bit_rate = _parse(setting)
    coded_hz = _coded_rate(codec, rate_hz)
    decoded = np.empty(window.shape, np.float32)
    for channel, samples in enumerate(window.T):
        source = _convert(np.ascontiguousarray(samples, np.float32), rate_hz, coded_hz)
        try:
            delay = _delay(codec, bit_rate, coded_hz)
            coded = _code(source, codec, bit_rate, coded_hz)[delay : delay + len(source)]
        except (av.FFmpegError, ValueError) as error:
            message = f"the codec {setting} failed: {type(error).__name__}: {error}"
            raise RecordingError(Stage.DECODE, Cause.DECODER_CRASH, message) from error
        decoded[:, channel] = _fitted(_convert(coded, coded_hz, rate_hz), len(window))
    return decoded


def _parse(setting: str) -> tuple[_Codec, int]:
    match = _SETTING.fullmatch(setting)
    if match is None:
        raise ValueError(f"{setting} is no codec")
    return _CODECS[match[1]], round(1000 * float(match[2] or 0))


def _coded_rate(codec: _Codec, rate_hz: int) -> int:
    import av

    rates = sorted(av.Codec(codec.encoder, "w").audio_rates or ())
    if codec.rate_hz or not rates:
        return codec.rate_hz or rate_hz
    return next((rate for rate in rates if rate >= rate_hz), rates[-1])


@lru_cache(maxsize=32)
def _delay(codec: _Codec, bit_rate: int, rate_hz: int) -> int:
    """Return by how many samples a codec delays noise, whose upper frequencies are weak."""
    from scipy.signal import fftconvolve, lfilter

    white = np.random.Generator(np.random.PCG64(0)).standard_normal(round(_TRIAL_S * rate_hz))
    noise = lfilter([0.05], [1, -0.8], white).astype(np.float32)
    coded = _code(noise, codec, bit_rate, rate_hz)
    agreement = fftconvolve(coded, noise[::-1])[len(noise) - 1 :]
    return int(np.argmax(agreement))


def _fitted(samples: Samples, count: int) -> Samples:
    return np.pad(samples[:count], (0, max(0, count - len(samples))))


def _code(samples: Samples, codec: _Codec, bit_rate: int, rate_hz: int) -> Samples:
    """Return all that a codec decodes from samples and a silence after them, float32."""
    import av

    encoder: Any = av.CodecContext.create(codec.encoder, "w")
    encoder.sample_rate, encoder.layout = rate_hz, "mono"
    encoder.time_base = Fraction(1, rate_hz)
    formats = [form.name for form in av.Codec(codec.encoder, "w").audio_formats or ()]
    encoder.format = next(name for name in ("fltp", "flt", "s16p", "s16") if name in formats)
    encoder.thread_count = 1
    if bit_rate:
        encoder.bit_rate = bit_rate
    encoder.open()
    padded = np.pad(samples, (0, round(_FLUSH_S * rate_hz)))
    packets = [p for frame in _frames(padded, encoder) for p in encoder.encode(frame)]
    packets += encoder.encode(None)
    decoder: Any = av.CodecContext.create(codec.decoder, "r")
    decoder.sample_rate, decoder.layout, decoder.thread_count = rate_hz, "mono", 1
    if encoder.extradata:
        decoder.extradata = encoder.extradata
    frames = [f for packet in packets for f in decoder.decode(packet)] + list(decoder.decode(None))
    # Only the format changes here: Opus decodes at 48 kHz, whatever its encoder was given.
    decoded_hz = frames[0].sample_rate
    to_float = av.AudioResampler("fltp", "mono", decoded_hz)
    floats = [f.to_ndarray()[0] for frame in frames for f in to_float.resample(frame)]
    return _convert(np.concatenate(floats).astype(np.float32), decoded_hz, rate_hz)


def _convert(samples: Samples, rate_hz: int, target_rate_hz: int) -> Samples:
    import soxr

    if rate_hz == target_rate_hz:
        return samples
    converted: Samples = soxr.resample(samples, rate_hz, target_rate_hz, "HQ")
    return converted


def _frames(samples: Samples, encoder: Any) -> Any:
    """Yield samples as frames of the encoder's size and format."""
    import av

    size, name = encoder.frame_size or 1024, encoder.format.name
    values: Any = samples[np.newaxis]
    if name.startswith("s16"):
        values = np.clip(np.rint(values * 32768), -32768, 32767).astype(np.int16)
    for start in range(0, values.shape[1], size):
        part = np.ascontiguousarray(values[:, start : start + size])
        part = np.pad(part, ((0, 0), (0, size - part.shape[1])))
        frame = av.AudioFrame.from_ndarray(part, name, "mono")
        frame.sample_rate, frame.pts, frame.time_base = (
            encoder.sample_rate,
            start,
            encoder.time_base,
        )
        yield frame

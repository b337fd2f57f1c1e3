"""Synthesise all sounds of the tests, with fixed seeds, and encode them as files.

Signals are float32 arrays shaped ``[frames]`` (mono) or ``[frames, channels]``.
:func:`encode` returns the bytes of a file; :data:`FORMATS` names the file formats.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

#: Name of a format -> soundfile's arguments for it.
_SOUNDFILE_FORMATS: dict[str, dict[str, object]] = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "wav8": {"format": "WAV", "subtype": "PCM_U8"},
    "wav24": {"format": "WAV", "subtype": "PCM_24"},
    "wav32": {"format": "WAV", "subtype": "PCM_32"},
    "wav_float": {"format": "WAV", "subtype": "FLOAT"},
    "wav_double": {"format": "WAV", "subtype": "DOUBLE"},
    "wav_ulaw": {"format": "WAV", "subtype": "ULAW"},
    "wav_ima_adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "wav_ms_adpcm": {"format": "WAV", "subtype": "MS_ADPCM"},
    "wavex": {"format": "WAVEX", "subtype": "PCM_24"},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "aiff_float": {"format": "AIFF", "subtype": "FLOAT"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "caf_alac": {"format": "CAF", "subtype": "ALAC_16"},
    "nist": {"format": "NIST", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "flac24": {"format": "FLAC", "subtype": "PCM_24"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    # soundfile ignores bitrate_mode unless compression_level is given too.
    "mp3": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.5},
    "mp3_vbr": {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.5},
    "mp3_low": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.85},
    # At its lowest bit rate, LAME has no room for an Info tag and writes none.
    "mp3_untagged": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.95},
}

#: Name of a format -> FFmpeg's names of its container, codec and sample format.
_PYAV_FORMATS: dict[str, tuple[str, str, str]] = {
    "opus_low": ("ogg", "libopus", "s16"),
    "m4a": ("ipod", "aac", "fltp"),
    "mp4": ("mp4", "aac", "fltp"),
    "m4a_alac": ("ipod", "alac", "s16p"),
    "aac": ("adts", "aac", "fltp"),
    "webm": ("webm", "libopus", "s16"),
    "mka": ("matroska", "flac", "s16"),
    "wma": ("asf", "wmav2", "fltp"),
    "ac3": ("ac3", "ac3", "fltp"),
}

FORMATS = (*_SOUNDFILE_FORMATS, *_PYAV_FORMATS)

#: Formats that few tests use. Their names are the usual file extensions.
_RARE_SOUNDFILE_FORMATS: dict[str, dict[str, object]] = {
    "voc": {"format": "VOC", "subtype": "PCM_16"},
    "8svx": {"format": "SVX", "subtype": "PCM_16"},
    "avr": {"format": "AVR", "subtype": "PCM_16"},
}
_RARE_PYAV_FORMATS: dict[str, tuple[str, str, str]] = {
    "m4r": ("ipod", "aac", "fltp"),
    "3gp": ("3gp", "libopencore_amrnb", "s16"),
    "3g2": ("3g2", "aac", "fltp"),
    "mov": ("mov", "pcm_s16le", "s16"),
    "f4v": ("f4v", "aac", "fltp"),
    "amr": ("amr", "libopencore_amrnb", "s16"),
    "eac3": ("eac3", "eac3", "fltp"),
    "mp2": ("mp2", "mp2", "s16"),
    "weba": ("webm", "libopus", "s16"),
    "mkv": ("matroska", "ac3", "fltp"),
    "wv": ("wv", "wavpack", "s16p"),
    "tta": ("tta", "tta", "s16"),
    "ogx": ("ogg", "flac", "s16"),
    "sox": ("sox", "pcm_s32le", "s32"),
    "avi": ("avi", "libmp3lame", "fltp"),
    "flv": ("flv", "aac", "fltp"),
    "m2ts": ("mpegts", "aac", "fltp"),
    "mpg": ("mpeg", "mp2", "s16"),
    "vob": ("vob", "ac3", "fltp"),
    "ra": ("rm", "real_144", "s16"),
    "rm": ("rm", "ac3", "fltp"),
}
RARE_FORMATS = (*_RARE_SOUNDFILE_FORMATS, *_RARE_PYAV_FORMATS)


def times(seconds: float, rate: int) -> np.ndarray:
    """Return the time of every sample, in seconds."""
    return np.arange(round(seconds * rate)) / rate


def tone(frequency_hz: float, seconds: float, rate: int, amplitude: float = 0.5) -> np.ndarray:
    """Return a sine."""
    return np.float32(amplitude * np.sin(2 * np.pi * frequency_hz * times(seconds, rate)))


def sweep(seconds: float, rate: int, low_hz: float = 50.0, amplitude: float = 0.5) -> np.ndarray:
    """Return an exponential sine sweep from `low_hz` to 0.45 times the rate."""
    octaves = np.log2(0.45 * rate / low_hz)
    phase = low_hz * seconds / octaves * 2 ** (octaves * times(seconds, rate) / seconds)
    return np.float32(amplitude * np.sin(2 * np.pi * phase / np.log(2)))


def silence(seconds: float, rate: int) -> np.ndarray:
    """Return zeros."""
    return np.zeros(round(seconds * rate), np.float32)


def constant(seconds: float, rate: int, level: float = 0.25) -> np.ndarray:
    """Return DC: `level` in every sample."""
    return np.full(round(seconds * rate), level, np.float32)


def click(seconds: float, rate: int, at_seconds: float = 0.0, amplitude: float = 1.0) -> np.ndarray:
    """Return silence with one sample of `amplitude`."""
    samples = silence(seconds, rate)
    samples[round(at_seconds * rate)] = amplitude
    return samples


def clipped(frequency_hz: float, seconds: float, rate: int, gain: float = 4.0) -> np.ndarray:
    """Return a sine that is amplified and clipped at full scale."""
    return np.clip(tone(frequency_hz, seconds, rate, amplitude=gain), -1, 1)


def hum(seconds: float, rate: int, mains_hz: float = 50.0) -> np.ndarray:
    """Return quiet mains hum: a fundamental and four harmonics."""
    return np.float32(
        sum(tone(mains_hz * k, seconds, rate, amplitude=0.02 / k) for k in range(1, 6))
    )


def noise(
    seconds: float, rate: int, seed: int = 0, channels: int = 1, amplitude: float = 0.1
) -> np.ndarray:
    """Return white Gaussian noise, clipped at full scale."""
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    return np.clip(
        np.random.default_rng(seed).normal(0, amplitude, shape).astype(np.float32), -1, 1
    )


def song(seconds: float, rate: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Return a short song: decaying notes with harmonics, each with a noise burst."""
    rng = np.random.default_rng(seed)
    mix = np.zeros((round(seconds * rate), channels), np.float32)
    for start in np.arange(0, seconds, 0.25):
        _add_note(mix, rng, round(start * rate), rate)
    return mix if channels > 1 else mix[:, 0]


def _add_note(mix: np.ndarray, rng: np.random.Generator, start: int, rate: int) -> None:
    decay = np.exp(-6 * times(0.5, rate))
    pitch_hz = 220 * 2 ** (rng.integers(0, 24) / 12)
    voice = sum(tone(pitch_hz * k, 0.5, rate, amplitude=0.2 / k) for k in range(1, 5)) * decay
    voice += rng.normal(0, 0.05, len(decay)) * decay**8
    pan = rng.uniform(0.3, 1.0, mix.shape[1])
    mix[start : start + len(voice)] += np.float32(voice[: len(mix) - start, None] * pan)


def encode(samples: np.ndarray, rate: int, format: str) -> bytes:
    """Return the bytes of a file with `samples`, in one of :data:`FORMATS` or in a rare format."""
    pyav_formats = _PYAV_FORMATS | _RARE_PYAV_FORMATS
    if format in pyav_formats:
        bit_rate = {"opus_low": 6_000, "3gp": 12_200, "amr": 12_200}.get(format, 128_000)
        return _encode_with_pyav(samples, rate, bit_rate, *pyav_formats[format])
    buffer = io.BytesIO()
    soundfile_formats = _SOUNDFILE_FORMATS | _RARE_SOUNDFILE_FORMATS
    soundfile.write(buffer, samples, rate, **soundfile_formats[format])
    return buffer.getvalue()


def write_audio(path: Path, samples: np.ndarray, rate: int, format: str | None = None) -> Path:
    """Encode `samples` into `path` and return the path; by default the suffix names the format."""
    path.write_bytes(encode(samples, rate, format or path.suffix[1:]))
    return path


def _encode_with_pyav(
    samples: np.ndarray, rate: int, bit_rate: int, container: str, codec: str, sample_format: str
) -> bytes:
    import av

    planes = np.atleast_2d(samples.T)
    layout = "mono" if len(planes) == 1 else "stereo"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.bit_rate = bit_rate
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes, np.float32), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(sample_format, layout, rate, stream.codec_context.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()

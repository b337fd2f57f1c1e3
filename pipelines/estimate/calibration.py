"""Measure how long this machine takes to extract a second of audio, by codec."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.decode.decoders import probe_audio
from melmill.transforms.features.chunks import count_chunks, resampled_length
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.measures.spans import extract_and_measure
from melmill.transforms.store.objects import StoredObject

_RATE_HZ = 48_000
_SECONDS = 20

#: The soundfile format and subtype to time each codec with; other codecs are timed as Opus, the
#: slowest of these.
_SAMPLES = {
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "pcm": ("WAV", "PCM_16"),
}

#: The share of time for encoding and writing rows, in addition to the timed work: measured in
#: benchmarks/stages.py.
_WRITING_SHARE = 0.1


def seconds_per_audio_second(
    codecs: Iterable[str], features: FeatureSpec, meters: Sequence[str], folder: Path
) -> dict[str, float]:
    """Return the CPU seconds per second of audio for each codec, timed on seconds of noise.

    Parameters
    ----------
    codecs
        The names of the codecs, as the probe returns them.
    features, meters
        The features to compute, and the meters to use.
    folder
        A folder for working files.

    Returns
    -------
    dict
        The CPU seconds per second of audio, by codec; a rough estimate for a plan.
    """
    return {codec: _time(_kind(codec), features, meters, folder) for codec in codecs}


def _kind(codec: str) -> str:
    kinds = [kind for kind in _SAMPLES if codec.startswith(kind)]
    return kinds[0] if kinds else "opus"


def _time(kind: str, features: FeatureSpec, meters: Sequence[str], folder: Path) -> float:
    span, source = _sample(kind, features, folder)
    how = features, [source], folder / "spool", (), "", meters
    extract_and_measure([replace(span, stop_chunk=1)], *how)
    started = time.process_time()
    extract_and_measure([span], *how)
    return (time.process_time() - started) * (1 + _WRITING_SHARE) / _SECONDS


def _sample(kind: str, features: FeatureSpec, folder: Path) -> tuple[Span, StoredObject]:
    path = folder / f"calibration.{kind}"
    noise = np.random.default_rng(0).normal(0, 0.1, (_SECONDS * _RATE_HZ, 2))
    container, codec = _SAMPLES[kind]
    soundfile.write(path, noise.cumsum(axis=0) % 0.5, _RATE_HZ, codec, format=container)
    source = StoredObject(str(path))
    size_bytes, fingerprint = source.stat()
    recording = Recording(kind, str(path), path.name, fingerprint, size_bytes)
    audio = probe_audio(source)
    samples = resampled_length(audio.frames, audio.sample_rate_hz, features.sample_rate_hz)
    chunk = replace(features.chunk, short="pad")
    span = Span(ProbedRecording(recording, audio), 0, samples, 0, count_chunks(samples, chunk))
    return span, source

"""Measures presets: audio-seconds per CPU-second, beside their references, and several in one pass.

    python benchmarks/presets.py FOLDER [--rounds 3] [--seconds 60]

The references are those that run without torch (``tests/features/references.py``). FOLDER holds the
recordings for the passes: whole files, from decoding to features.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# One thread per process, as in melmill's own workers.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from measure import audio_files, describe_machine
from stages import Song, Stage, cpu_only, report

from melmill.pipelines.config import load_config
from melmill.transforms.features.chunks import count_chunks, resampled_length
from melmill.transforms.features.decoded_spans import Span
from melmill.transforms.features.extractors import extract_features
from melmill.transforms.features.spans import extract_spans
from melmill.transforms.features.spec import FeatureSpec
from tests.features.references import REFERENCES, chunks_for, features_of

#: Five presets at 16 kHz, and two with equal spectra.
FIVE = ("whisper-80", "kaldi-fbank-80", "speech2text", "parakeet", "speecht5")
EQUAL_SPECTRA = ("whisper-80", "whisper-128")
#: Presets of three sample rates.
THREE_RATES = ("whisper-80", "hifigan", "waveform-encodec-24k")


def preset_stages(seconds: float) -> Iterator[Stage]:
    """Yield each preset that has a reference, computed by melmill and by its reference."""
    for name in sorted(REFERENCES):
        spec = features_of(name)
        chunk_seconds = spec.chunk.length / spec.sample_rate_hz
        number = max(1, round(seconds / chunk_seconds))
        chunk = next(chunks_for(spec))
        for tool, function in (
            ("reference", partial(_refer, name, chunk, number)),
            ("melmill", partial(_extract, np.repeat(chunk[None], number, axis=0), spec)),
        ):
            function()  # the first call builds filterbanks
            yield Stage(f"{name}: {tool}", number * chunk_seconds, partial(cpu_only, function))


def _extract(chunks: np.ndarray, spec: FeatureSpec) -> None:
    extract_features(chunks, [spec.chunk.length] * len(chunks), spec)


def _refer(name: str, chunk: np.ndarray, number: int) -> None:
    for _ in range(number):
        REFERENCES[name](chunk)


def pass_stages(songs: list[Song]) -> Iterator[Stage]:
    """Yield a pass over the songs of each format with one preset, and with five."""
    spool = Path(tempfile.mkdtemp()) / "spool"
    for suffix in sorted({song.path.suffix for song in songs}):
        of_format = [song for song in songs if song.path.suffix == suffix]
        seconds = sum(song.seconds for song in of_format)
        alone = ((name,) for name in (FIVE[0], *THREE_RATES[1:]))
        for names in (*alone, FIVE, EQUAL_SPECTRA, THREE_RATES):
            entries = ", ".join(f"{{preset: {name}}}" for name in names)
            rate = load_config(names[0]).audio.sample_rate_hz
            settings = [f"audio.sample_rate_hz={rate}", f"features=[{entries}]"]
            spec = load_config(None, settings).feature_spec()
            run = partial(cpu_only, partial(_pass, of_format, spec, spool))
            what = names[0] if len(names) == 1 else f"{len(names)} presets"
            what += " of three rates" * (names == THREE_RATES)
            what += " with equal spectra" * (names == EQUAL_SPECTRA)
            yield Stage(f"{suffix[1:].upper()}, one pass: {what}", seconds, run)


def _pass(songs: list[Song], spec: FeatureSpec, spool: Path) -> None:
    for song in songs:
        audio = song.probed.audio
        samples = resampled_length(audio.frames, audio.sample_rate_hz, spec.sample_rate_hz)
        span = Span(song.probed, 0, samples, 0, count_chunks(samples, spec.chunk))
        extract_spans([span], spec, [song.source], spool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="audio for each preset")
    arguments = parser.parse_args()
    songs = [Song(path) for path in audio_files(arguments.folder)]
    print(f"{describe_machine()}\n")
    report([*preset_stages(arguments.seconds), *pass_stages(songs)], arguments.rounds)


if __name__ == "__main__":
    main()

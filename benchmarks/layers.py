"""Measures how far the layers of ``melmill.layer`` are from stored features, and their rate.

    python benchmarks/layers.py SONGS --framework keras

Computes the log-mels of each preset from a chunk of each recording, by melmill and by the layer,
and prints a table: the largest difference, the difference that 99.9 % of the values are below, and
the layer's rate as a multiple of melmill's, both on this processor.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import melmill
from melmill.pipelines.layers.layer import Framework
from melmill.pipelines.presets import list_presets
from melmill.transforms.core.errors import RecordingError
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec


def chunks_of(songs: Path, preset: str, samples: int, number: int) -> Any:
    """Return a chunk from the start of some recordings, float32 [chunks, samples]."""
    chunks: list[Any] = []
    for path in sorted(path for path in songs.rglob("*") if path.is_file()):
        try:
            song = melmill.load(path, preset)
        except RecordingError:
            continue
        chunks.append(np.resize(song.samples[:samples, 0], samples))
        if len(chunks) == number:
            break
    return np.stack(chunks)


def call_of(layer: Any, framework: str) -> Callable[[Any], Any]:
    """Return a compiled function from NumPy to NumPy."""
    if framework == "jax":
        import jax

        compiled = jax.jit(layer)
    elif framework == "torch":
        import torch

        return lambda chunks: layer(torch.from_numpy(chunks)).numpy()
    else:
        import tensorflow

        compiled = tensorflow.function(layer)
    return lambda chunks: np.asarray(compiled(chunks))


def seconds_of(function: Callable[[Any], Any], chunks: Any, rounds: int) -> float:
    """Return the shortest time of a call."""
    function(chunks)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function(chunks)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("songs", type=Path)
    parser.add_argument("--framework", default="keras", choices=["torch", "keras", "jax"])
    parser.add_argument("--number", type=int, default=8, help="number of recordings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--presets", nargs="*", help="default: all with log-mels")
    arguments = parser.parse_args()
    framework: Framework = arguments.framework
    print(f"{platform.processor() or platform.machine()}, {framework}")
    print("| preset | largest difference | 99.9 % are below | times melmill's rate |")
    print("|---|---|---|---|")
    for name in arguments.presets or [preset.name for preset in list_presets()]:
        spec = melmill.load_config(name).feature_spec()
        own = spec.features[0].spec
        if type(own) is not MelSpec:
            continue
        rate_hz, length = spec.sample_rate_hz, spec.chunk.length
        chunks = chunks_of(arguments.songs, name, length, arguments.number)
        extractor = MelExtractor(own, rate_hz, length)
        call = call_of(melmill.layer(name, framework), framework)
        difference = np.abs(call(chunks) - extractor(chunks))
        times = [seconds_of(function, chunks, arguments.rounds) for function in (extractor, call)]
        print(
            f"| `{name}` | {difference.max():.1e} | {np.quantile(difference, 0.999):.1e} "
            f"| {times[0] / times[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())

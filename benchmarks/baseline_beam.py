"""Baseline (b): the plain Beam and librosa pipeline that tutorials show.

    python benchmarks/baseline_beam.py CATALOGUE OUTPUT [--workers N] [--spread-chunks]

CATALOGUE is a folder of audio, or a CSV table with a column ``uri``. One element is one
file, then one chunk, then one row as a dictionary. ``--spread-chunks`` adds a Reshuffle
after the step that cuts a file into many chunks, as Beam's guide advises for such steps
("preventing fusion").
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import librosa
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from measure import audio_files

RATE_HZ = 22_050
CHUNK_SAMPLES = 3 * RATE_HZ
MEL = pa.list_(pa.list_(pa.float32()))
SCHEMA = pa.schema([("uri", pa.string()), ("chunk_index", pa.int64()), ("mel", MEL)])


def load(path: str) -> tuple[str, np.ndarray]:
    """Return a file's path and all its samples."""
    return path, librosa.load(path, sr=RATE_HZ, mono=True)[0]


def cut(loaded: tuple[str, np.ndarray]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield the chunks of a file."""
    path, samples = loaded
    for index in range(len(samples) // CHUNK_SAMPLES):
        yield path, index, samples[index * CHUNK_SAMPLES :][:CHUNK_SAMPLES]


def compute(chunk: tuple[str, int, np.ndarray]) -> dict[str, Any]:
    """Return a row with a chunk's spectrogram, computed with librosa's defaults."""
    path, index, samples = chunk
    mel = librosa.power_to_db(librosa.feature.melspectrogram(y=samples, sr=RATE_HZ))
    return {"uri": path, "chunk_index": index, "mel": mel.tolist()}


def options(workers: int) -> PipelineOptions:
    return PipelineOptions(
        [
            "--runner=FnApiRunner",
            "--direct_running_mode=multi_processing",
            f"--direct_num_workers={workers}",
            "--save_main_session",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalogue", type=Path, help="a folder of audio, or a CSV table")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--spread-chunks", action="store_true")
    arguments = parser.parse_args()
    spread = beam.Reshuffle() if arguments.spread_chunks else beam.Map(lambda chunk: chunk)
    with beam.Pipeline(options=options(arguments.workers)) as pipeline:
        _ = (
            pipeline
            | "NameFiles" >> beam.Create([str(path) for path in audio_files(arguments.catalogue)])
            | "SpreadFiles" >> beam.Reshuffle()
            | "LoadFiles" >> beam.Map(load)
            | "CutChunks" >> beam.FlatMap(cut)
            | "SpreadChunks" >> spread
            | "ComputeMel" >> beam.Map(compute)
            | "WriteRows"
            >> beam.io.WriteToParquet(
                str(arguments.output / "rows"), SCHEMA, codec="zstd", file_name_suffix=".parquet"
            )
        )


if __name__ == "__main__":
    main()

"""Baseline (a): a program with multiprocessing, librosa and pyarrow, as a good user writes it.

    python benchmarks/baseline_pool.py CATALOGUE OUTPUT [--workers N]

CATALOGUE is a folder of audio, or a CSV table with a column ``uri``. librosa loads each file
completely; the file is cut into chunks of three seconds and becomes one Parquet file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import audio_files

RATE_HZ = 22_050
CHUNK_SAMPLES = 3 * RATE_HZ


def extract_chunks(path: Path) -> np.ndarray:
    """Return the log-mel spectrograms of a file: float32 [chunks, 128, 130]."""
    samples, _ = librosa.load(path, sr=RATE_HZ, mono=True)
    chunks = range(0, len(samples) - CHUNK_SAMPLES + 1, CHUNK_SAMPLES)
    return np.stack([log_mel(samples[start : start + CHUNK_SAMPLES]) for start in chunks])


def log_mel(chunk: np.ndarray) -> np.ndarray:
    """Return a chunk's spectrogram, computed with librosa's defaults."""
    mel = librosa.feature.melspectrogram(y=chunk, sr=RATE_HZ)
    return librosa.power_to_db(mel)


def write_file(output: Path, path: Path) -> int:
    """Write the chunks of a file, and return their number."""
    mel = extract_chunks(path)
    values = pa.FixedSizeListArray.from_arrays(pa.array(mel.reshape(-1)), mel[0].size)
    columns = {
        "uri": [str(path)] * len(mel),
        "chunk_index": range(len(mel)),
        "mel": values,
    }
    pq.write_table(pa.table(columns), output / f"{path.stem}.parquet", compression="zstd")
    return len(mel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalogue", type=Path, help="a folder of audio, or a CSV table")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    files = audio_files(arguments.catalogue)
    with multiprocessing.Pool(arguments.workers) as pool:
        rows = sum(pool.imap_unordered(partial(write_file, arguments.output), files))
        pool.close()
        pool.join()
    print(rows)


if __name__ == "__main__":
    main()

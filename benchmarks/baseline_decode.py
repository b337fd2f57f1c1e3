"""Lower limit of the cost: only decoding, with soundfile in blocks of float32.

    python benchmarks/baseline_decode.py CATALOGUE

CATALOGUE is a folder of audio, or a CSV table with a column ``uri``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from measure import audio_files

BLOCK_FRAMES = 1 << 16


def decode(path: Path) -> int:
    """Decode a file, discard the samples, and return their number per channel."""
    with soundfile.SoundFile(str(path)) as file:
        block, frames = np.empty((BLOCK_FRAMES, file.channels), np.float32), 0
        while count := len(file.read(out=block)):
            frames += count
        return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalogue", type=Path, help="a folder of audio, or a CSV table")
    print(sum(map(decode, audio_files(parser.parse_args().catalogue))))


if __name__ == "__main__":
    main()

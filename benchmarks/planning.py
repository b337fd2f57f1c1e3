"""Measures time and memory of ``melmill plan`` for catalogues of different sizes.

    python benchmarks/planning.py [--sizes 1000,10000,100000] [--workers 2]

Each catalogue is a CSV table of distinct paths. The paths are hard links to a few hundred tiny
files, which the script makes. melmill reads each header, as in any catalogue.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from measure import COST_HEADER, Cost, cost_row, describe_machine, melmill, print_table, run

ORIGINALS = 200
RATE_HZ = 22_050
FILES_PER_FOLDER = 1000


def make_originals(folder: Path) -> list[Path]:
    """Return new tiny files of 0.5 to 1.5 seconds, alternately WAV and FLAC."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = []
    for number in range(ORIGINALS):
        samples = rng.normal(0, 0.1, int(RATE_HZ * rng.uniform(0.5, 1.5)))
        paths.append(folder / f"{number}.{'wav' if number % 2 else 'flac'}")
        soundfile.write(str(paths[-1]), samples.clip(-1, 1), RATE_HZ)
    return paths


def make_table(folder: Path, size: int, originals: list[Path]) -> Path:
    """Link `size` files, write a table of them with two labels, and return its path."""
    table = folder / f"{size}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label", "speaker"])
        for number in range(size):
            original = originals[number % len(originals)]
            subfolder = folder / str(size) / str(number // FILES_PER_FOLDER)
            link = subfolder / f"{number}{original.suffix}"
            if number % FILES_PER_FOLDER == 0:
                subfolder.mkdir(parents=True)
            os.link(original, link)
            writer.writerow([str(link), f"class-{number % 10}", number // 50])
    return table


def plan(table: Path, arguments: argparse.Namespace) -> Cost:
    """Return the cost of planning the extraction of a table."""
    options = ("--quiet", "--json", "--workers", arguments.workers)
    return run(melmill("plan", table, *options), watch_s=0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000", help="sizes of the catalogues")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    print(f"{describe_machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        originals = make_originals(Path(scratch) / "originals")
        rows = []
        for size in map(int, arguments.sizes.split(",")):
            table = make_table(Path(scratch), size, originals)
            rows.append(cost_row(f"{size:,} recordings", plan(table, arguments)))
        print_table(COST_HEADER, rows)


if __name__ == "__main__":
    main()

"""Measures the cost of a very long recording among short ones, and of many tiny recordings.

    python benchmarks/stragglers.py [--hours 24] [--tiny 20000]

The straggler is one long file, as FLAC (each span is read directly at its position) and as MP3
(each span is decoded from the start of the file). The short files are four-minute FLACs, half
as long as the straggler in total. ``busy`` is CPU time divided by wall time and number of
workers: near 1.00, no worker waits for the straggler. Tiny files show the fixed cost per
recording.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from measure import describe_machine, melmill, print_table, run
from memory import WRITERS, write_tiny

WORKERS = 2
MINUTES_OF_SHORT = 4


def extract(catalogue: Path, scratch: Path) -> tuple[float, float]:
    """Return the wall and CPU seconds of extracting a catalogue."""
    with tempfile.TemporaryDirectory(dir=scratch) as output:
        limit = ("--set", "limits.max_duration_hours=25")
        options = ("--quiet", "--json", "--workers", WORKERS, *limit)
        cost = run(melmill("extract", catalogue, Path(output) / "dataset", *options))
    return cost.wall_s, cost.cpu_s


def make_catalogue(folder: Path, hours: int, straggler: str | None) -> Path:
    """Return a new folder with short files and the straggler, or with more short files.

    The short files are links to one file.
    """
    folder.mkdir()
    original = folder / "0.flac"
    WRITERS["flac"](original, MINUTES_OF_SHORT)
    total = hours * 60 // 2 if straggler else hours * 60 * 3 // 2
    for number in range(1, total // MINUTES_OF_SHORT):
        os.link(original, folder / f"{number}.flac")
    if straggler:
        WRITERS[straggler](folder / f"long.{straggler}", hours * 60)
    return folder


def _row(name: str, wall_s: float, cpu_s: float, each: str = "") -> tuple[str, ...]:
    return name, f"{wall_s:.1f}", f"{cpu_s:.1f}", f"{cpu_s / wall_s / WORKERS:.2f}", each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--tiny", type=int, default=20_000)
    parser.add_argument("--scratch", type=Path)
    arguments = parser.parse_args()
    print(f"{describe_machine()}\n", flush=True)
    rows = []
    for straggler in (None, "flac", "mp3"):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            catalogue = make_catalogue(Path(scratch) / "songs", arguments.hours, straggler)
            hours = arguments.hours * 3 // 2
            detail = "no straggler"
            if straggler:
                detail = f"including one {straggler} of {arguments.hours} h"
            name = f"{hours} h, {detail}"
            rows.append(_row(name, *extract(catalogue, Path(scratch))))
        print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch) / "tiny"
        folder.mkdir()
        write_tiny(folder, arguments.tiny)
        wall_s, cpu_s = extract(folder, Path(scratch))
        cpu_ms = f"{1000 * cpu_s / arguments.tiny:.2f}"
        rows.append(_row(f"{arguments.tiny:,} tiny files", wall_s, cpu_s, cpu_ms))
    print_table(("catalogue", "wall, s", "CPU, s", "busy", "CPU ms per file"), rows)


if __name__ == "__main__":
    main()

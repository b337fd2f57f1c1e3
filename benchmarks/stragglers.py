"""What a very long recording among short ones, and very many tiny ones, cost.

    python benchmarks/stragglers.py [--hours 24] [--tiny 20000]

The straggler is one file, as FLAC (cut at chunk borders, each piece read where it lies) and as
MP3 (each piece decoded from the start), beside four-minute FLACs of half its length together.
``busy`` is CPU time by wall time and worker: near 1.00 nobody waits for the straggler. Tiny files
show what a recording costs beside its audio.
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
    """Extract a catalogue; gives wall and CPU seconds."""
    with tempfile.TemporaryDirectory(dir=scratch) as output:
        long = ("--set", "limits.max_duration_hours=25")
        options = ("--quiet", "--json", "--workers", WORKERS, *long)
        cost = run(melmill("extract", catalogue, Path(output) / "dataset", *options))
    return cost.wall_s, cost.cpu_s


def make_catalogue(folder: Path, hours: int, straggler: str | None) -> Path:
    """Write the short ones, as links to one, and the straggler; without it, more short ones."""
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
            one = f"{arguments.hours} h of it one {straggler}" if straggler else "no straggler"
            name = f"{hours} h, {one}"
            rows.append(_row(name, *extract(catalogue, Path(scratch))))
        print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch) / "tiny"
        folder.mkdir()
        write_tiny(folder, arguments.tiny)
        wall_s, cpu_s = extract(folder, Path(scratch))
        each = f"{1000 * cpu_s / arguments.tiny:.2f}"
        rows.append(_row(f"{arguments.tiny:,} tiny files", wall_s, cpu_s, each))
    print_table(("catalogue", "wall, s", "CPU, s", "busy", "CPU ms each"), rows)


if __name__ == "__main__":
    main()

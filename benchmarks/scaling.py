"""Measures how much faster two worker processes make a dataset than one.

    python benchmarks/scaling.py FOLDER [--rounds 3] [--copies 4]

The table shows the wall time of the whole command and of the work alone. The work alone is the
difference in time between a catalogue of all files and a catalogue of every fourth file; it
excludes starting and ending. Other load on the machine disturbs this benchmark most.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from measure import (
    audio_files,
    audio_seconds,
    describe_machine,
    interleave,
    link_copies,
    median,
    melmill,
    print_table,
    run,
    spread,
    write_catalogue,
)


def wall_s(catalogue: Path, workers: int, settings: list[str]) -> float:
    """Return the wall time of extracting a catalogue."""
    with tempfile.TemporaryDirectory(dir=catalogue.parent) as output:
        options = ["--quiet", "--json", "--workers", workers]
        options += [word for setting in settings for word in ("--set", setting)]
        return run(melmill("extract", catalogue, output, *options), allowed=(0, 3)).wall_s


def report(measured: dict[str, list[float]]) -> None:
    """Print the wall times for one and two workers, and their ratio."""
    rows = []
    for name, subtracted in (("whole command", None), ("work alone", "quarter")):
        times = [
            [
                whole - (measured[f"{subtracted} {workers}"][number] if subtracted else 0)
                for number, whole in enumerate(measured[f"whole {workers}"])
            ]
            for workers in (1, 2)
        ]
        ratios = [one_worker / two_workers for one_worker, two_workers in zip(*times, strict=True)]
        rows.append((name, *(spread(seconds, 1) for seconds in times), spread(ratios, 2)))
    print_table(("", "one worker, s", "two workers, s", "one / two"), rows)
    print(f"\nmedian ratio of the work alone: {median(ratios):.2f}")


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        links = link_copies(audio_files(arguments.folder), arguments.copies, folder)
        tables = {
            name: write_catalogue(folder / f"{name}.csv", files)
            for name, files in (("quarter", links[::4]), ("whole", links))
        }
        hours = audio_seconds(links) / 3600
        print(f"{describe_machine()}\n{len(links)} files, {hours:.1f} h\n", flush=True)
        contestants = {
            f"{name} {workers}": partial(wall_s, table, workers, arguments.set)
            for name, table in tables.items()
            for workers in (1, 2)
        }
        report(interleave(arguments.rounds, contestants))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of audio, as make_songs.py writes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=4, help="how often to list each file")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE")
    parser.add_argument("--scratch", type=Path, help="folder for temporary datasets")
    return parser.parse_args()


if __name__ == "__main__":
    main()

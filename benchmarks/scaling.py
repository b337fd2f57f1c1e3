"""One worker process beside two: how much sooner the same dataset is there.

    python benchmarks/scaling.py FOLDER [--rounds 3] [--copies 4]

The wall time of the whole command, and of the work alone: the time between a catalogue of
every fourth file and the catalogue of all of them, which leaves out starting and ending.
A machine that is busy with something else spoils this one first.
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
    """Extract a catalogue; give the seconds it took."""
    with tempfile.TemporaryDirectory(dir=catalogue.parent) as output:
        options = ("--quiet", "--json", "--workers", workers)
        more = [word for setting in settings for word in ("--set", setting)]
        return run(melmill("extract", catalogue, output, *options, *more), allowed=(0, 3)).wall_s


def report(measured: dict[str, list[float]]) -> None:
    """Print wall times and how the two numbers of workers compare."""
    rows = []
    for name, few in (("whole command", None), ("work alone", "quarter")):
        times = [
            [
                whole - (measured[f"{few} {workers}"][number] if few else 0)
                for number, whole in enumerate(measured[f"whole {workers}"])
            ]
            for workers in (1, 2)
        ]
        ratios = [one / two for one, two in zip(*times, strict=True)]
        rows.append((name, *(spread(some, 1) for some in times), spread(ratios, 2)))
    print_table(("", "one worker, s", "two workers, s", "one / two"), rows)
    print(f"\nmedian of the work alone: {median(ratios):.2f}")


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        links = link_copies(audio_files(arguments.folder), arguments.copies, folder)
        tables = {
            name: write_catalogue(folder / f"{name}.csv", some)
            for name, some in (("quarter", links[::4]), ("whole", links))
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
    parser.add_argument("--copies", type=int, default=4, help="of each file in the catalogue")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE")
    parser.add_argument("--scratch", type=Path, help="where to write datasets meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    main()

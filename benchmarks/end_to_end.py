"""Measures CPU time per hour of audio, compared with two baselines and with decoding alone.

    python benchmarks/end_to_end.py FOLDER [--rounds 3] [--workers 2] [--copies 1]
        [--only melmill,decoding]

Each contestant processes every fourth file of the folder, and then all files. The slope
between the two is the cost of an hour of audio; the cost at zero hours is the start-up.

``pool`` and ``beam`` are the baselines with default settings. ``pool1`` and ``beam1`` use one
BLAS thread per process, a setting that users find only by measuring. ``spread`` is ``beam``
with a Reshuffle after the chunks are cut, as Beam's guide advises.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from measure import (
    Cost,
    audio_files,
    audio_seconds,
    describe_machine,
    interleave,
    link_copies,
    median,
    melmill,
    print_table,
    run,
    script,
    spread,
    write_catalogue,
)

STEP = 4
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CONTESTANTS = ("melmill", "pool", "pool1", "beam", "beam1", "spread", "decoding")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A table of files, and their duration in hours."""

    name: str
    path: Path
    hours: float


@dataclass(frozen=True, slots=True)
class Line:
    """The cost of a contestant, as a straight line through two catalogues.

    Attributes
    ----------
    slope
        CPU seconds per hour of audio.
    start_up
        CPU seconds without audio.
    """

    slope: float
    start_up: float

    @classmethod
    def through(cls, small: tuple[float, float], large: tuple[float, float]) -> Line:
        """Return the line through two points of hours and CPU seconds."""
        slope = (large[1] - small[1]) / (large[0] - small[0])
        return cls(slope, small[1] - slope * small[0])


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a contestant: its cost, and the number of rows that it wrote."""

    cost: Cost
    rows: int


def command(who: str, catalogue: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    workers = ("--workers", arguments.workers)
    if who == "decoding":
        return script("baseline_decode.py", catalogue)
    if who == "spread":
        return script("baseline_beam.py", catalogue, output, *workers, "--spread-chunks")
    if who != "melmill":
        return script(f"baseline_{who.removesuffix('1')}.py", catalogue, output, *workers)
    settings = [word for setting in arguments.set for word in ("--set", setting)]
    return melmill("extract", catalogue, output, "--quiet", "--json", *workers, *settings)


def measure(who: str, catalogue: Catalogue, arguments: argparse.Namespace) -> Trial:
    """Return the cost of running a contestant on a catalogue; its output is deleted."""
    with tempfile.TemporaryDirectory(dir=catalogue.path.parent) as folder:
        output = Path(folder) / "dataset"
        output.mkdir()
        cost = run(
            command(who, catalogue.path, output, arguments),
            watch_s=0.5,
            allowed=(0, 3),
            environment=ONE_THREAD if who.endswith("1") else {},
        )
        if who == "melmill" and (failed := json.loads(cost.output)["recordings"].get("failed")):
            print(f"melmill could not use {failed} files of the catalogue {catalogue.name!r}")
        return Trial(cost, count_rows(output))


def count_rows(output: Path) -> int:
    """Return the number of rows in all shards, without the index."""
    shards = (path for path in output.rglob("*.parquet") if path.parent.parent.name != "index")
    return sum(pq.read_metadata(path).num_rows for path in shards)


def make_catalogues(files: list[Path], scratch: Path) -> list[Catalogue]:
    """Return a catalogue of every fourth file, and a catalogue of all files."""
    return [
        Catalogue(
            name, write_catalogue(scratch / f"{name}.csv", members), audio_seconds(members) / 3600
        )
        for name, members in (("quarter", files[::STEP]), ("whole", files))
    ]


def lines(catalogues: list[Catalogue], trials: dict[str, list[Trial]], who: str) -> list[Line]:
    """Return a contestant's cost line of each round."""
    small, large = (
        [(catalogue.hours, trial.cost.cpu_s) for trial in trials[f"{who} {catalogue.name}"]]
        for catalogue in catalogues
    )
    return [Line.through(*points) for points in zip(small, large, strict=True)]


def report(
    names: list[str], catalogues: list[Catalogue], trials: dict[str, list[Trial]], ours: str
) -> None:
    """Print a table with the median, the minimum and the maximum over the rounds."""
    cost_lines = {name: lines(catalogues, trials, name) for name in names}
    rows = []
    for name in names:
        whole = trials[f"{name} whole"]
        slopes = [line.slope for line in cost_lines[name]]
        pairs = zip(cost_lines[name], cost_lines[ours], strict=True)
        ratios = [line.slope / our_line.slope for line, our_line in pairs]
        rows.append(
            (
                name,
                spread([trial.cost.cpu_s for trial in trials[f"{name} quarter"]], 1),
                spread([trial.cost.cpu_s for trial in whole], 1),
                spread(slopes, 2),
                f"{3600 / median(slopes):,.0f}",
                spread(ratios, 2),
                spread([line.start_up for line in cost_lines[name]], 1),
                count_processes(whole[0].cost),
                whole[0].rows or "",
            )
        )
    print_table(HEADER, rows)


HEADER = (
    "contestant",
    "quarter, CPU s",
    "whole, CPU s",
    "CPU s per hour of audio",
    "audio-seconds per CPU-second",
    "× melmill's cost",
    "start-up, CPU s",
    "processes",
    "rows",
)


def count_processes(cost: Cost) -> int:
    """Return the number of processes that did work; shells are too small to count."""
    return sum(process.rss_mib > 20 for process in cost.processes)


def main() -> None:
    arguments = _parse()
    names = arguments.only.split(",")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        links = link_copies(audio_files(arguments.folder), arguments.copies, Path(scratch))
        catalogues = make_catalogues(links, Path(scratch))
        hours = " and ".join(f"{catalogue.hours:.2f} h" for catalogue in catalogues)
        print(f"{describe_machine()}\n{hours}; {arguments.workers} workers\n", flush=True)
        contestants: dict[str, Callable[[], Trial]] = {
            f"{who} {catalogue.name}": partial(measure, who, catalogue, arguments)
            for who in names
            for catalogue in catalogues
        }
        report(names, catalogues, interleave(arguments.rounds, contestants), names[0])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of audio, as make_songs.py writes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--copies", type=int, default=1, help="how often to list each file")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants to run")
    parser.add_argument("--set", action="append", default=[], help="for melmill: KEY=VALUE")
    parser.add_argument("--scratch", type=Path, help="folder for temporary datasets")
    return parser.parse_args()


if __name__ == "__main__":
    main()

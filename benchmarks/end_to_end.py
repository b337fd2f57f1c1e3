"""End to end: CPU time per hour of audio, beside two baselines and decoding alone.

    python benchmarks/end_to_end.py FOLDER [--rounds 3] [--workers 2] [--copies 1]
        [--only melmill,decoding]

Each contestant takes every fourth file of the folder, and all of them. The slope between
the two is what an hour of audio costs; what is left at zero hours is the fixed start-up.

``pool`` and ``beam`` are the baselines as they are written, ``pool1`` and ``beam1`` the
same with one BLAS thread a process, as only those ask for who have measured it. ``spread``
is ``beam`` with a Reshuffle after the chunks are cut, as Beam's guide advises.
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
    """A table of files, and how many hours they play."""

    name: str
    path: Path
    hours: float


@dataclass(frozen=True, slots=True)
class Line:
    """What a contestant costs: a straight line through two catalogues.

    Attributes
    ----------
    slope
        CPU seconds for an hour of audio.
    start_up
        CPU seconds at no audio.
    """

    slope: float
    start_up: float

    @classmethod
    def through(cls, small: tuple[float, float], large: tuple[float, float]) -> Line:
        """Find the line through two points of hours and CPU seconds."""
        slope = (large[1] - small[1]) / (large[0] - small[0])
        return cls(slope, small[1] - slope * small[0])


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a contestant: what it took, and the rows it wrote."""

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
    """Run a contestant on a catalogue, into a folder that is thrown away."""
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
            print(f"melmill could not use {failed} of the {catalogue.name}'s files")
        return Trial(cost, count_rows(output))


def count_rows(output: Path) -> int:
    """Count the rows of all shards; indexes and the like aside."""
    shards = (path for path in output.rglob("*.parquet") if path.parent.parent.name != "index")
    return sum(pq.read_metadata(path).num_rows for path in shards)


def make_catalogues(files: list[Path], scratch: Path) -> list[Catalogue]:
    """Write a table of every fourth file, and one of all."""
    return [
        Catalogue(name, write_catalogue(scratch / f"{name}.csv", some), audio_seconds(some) / 3600)
        for name, some in (("quarter", files[::STEP]), ("whole", files))
    ]


def lines(catalogues: list[Catalogue], trials: dict[str, list[Trial]], who: str) -> list[Line]:
    """Give a contestant's line of each round."""
    small, large = (
        [(catalogue.hours, trial.cost.cpu_s) for trial in trials[f"{who} {catalogue.name}"]]
        for catalogue in catalogues
    )
    return [Line.through(*points) for points in zip(small, large, strict=True)]


def report(
    names: list[str], catalogues: list[Catalogue], trials: dict[str, list[Trial]], ours: str
) -> None:
    """Print the table: medians, and least and most over the rounds."""
    found = {who: lines(catalogues, trials, who) for who in names}
    rows = []
    for who in names:
        whole = trials[f"{who} whole"]
        slopes = [line.slope for line in found[who]]
        ratios = [a.slope / b.slope for a, b in zip(found[who], found[ours], strict=True)]
        rows.append(
            (
                who,
                spread([trial.cost.cpu_s for trial in trials[f"{who} quarter"]], 1),
                spread([trial.cost.cpu_s for trial in whole], 1),
                spread(slopes, 2),
                f"{3600 / median(slopes):,.0f}",
                spread(ratios, 2),
                spread([line.start_up for line in found[who]], 1),
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
    """Count the processes that did anything: shells between them are small."""
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
    parser.add_argument("--copies", type=int, default=1, help="of each file in the catalogue")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="some of these")
    parser.add_argument("--set", action="append", default=[], help="for melmill: KEY=VALUE")
    parser.add_argument("--scratch", type=Path, help="where to write datasets meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    main()

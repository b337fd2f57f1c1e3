"""Measures loaders that shuffle a whole split and resume, beside bare reading in one run.

    python benchmarks/ordered_loading.py FOLDER [--rounds 3] [--batch 64] [--workers 2]

The folder of audio is extracted once and exported as ArrayRecord; the same rows are written for
lhotse, as NumPy files and as its own lossy archive. Each contestant reads the features of the
training split. Loaders whose library is not installed are skipped. "Bare" is the shortest code
that reads the files in their order. The last table says how long the first row takes at the start,
in the middle and at the end of an epoch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Use one thread where a library has a setting for it: the results are for one core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pyarrow.parquet as pq
from measure import describe_machine, interleave, median, melmill, print_table, spread

from melmill.pipelines.dataset import Dataset
from melmill.transforms.loading.row_order import RowOrder

#: A loader yields the number of rows in each batch that it reads.
Loader = Callable[[], Iterator[int]]
#: Number of random rows that are read one by one.
RANDOM_ROWS = 20


class Contestants:
    """All ways to read the same rows."""

    def __init__(self, scratch: Path, batch: int, workers: int) -> None:
        self.data = Dataset(scratch / "dataset")
        self.scratch, self.batch, self.workers = scratch, batch, workers
        self.files = self.data.files("train")
        self.column = next(iter(self.data.features))

    def all(self) -> dict[str, Loader]:
        """Return the loaders whose libraries are installed, by name."""
        loaders: dict[str, Loader] = {
            "Parquet, bare pyarrow.parquet, in order": self.bare,
            "Parquet, bare row groups in order, verifying": self.row_groups,
            "Parquet, bare, a random row at a time": self.random_rows,
        }
        for group in (self.grain, self.torch, self.lhotse):
            try:
                loaders |= group()
            except ImportError as error:
                print(f"skipped: {error}", flush=True)
        return loaders

    def bare(self) -> Iterator[int]:
        for name in self.files:
            for batch in pq.ParquetFile(name).iter_batches(128, columns=[self.column]):
                yield len(batch.column(0).flatten().flatten().to_numpy().reshape(len(batch), -1))

    def row_groups(self) -> Iterator[int]:
        for name in self.files:
            file = pq.ParquetFile(name, page_checksum_verification=True)
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, [self.column], use_threads=False).num_rows

    def random_rows(self) -> Iterator[int]:
        draw = np.random.default_rng(0)
        for _ in range(RANDOM_ROWS):
            file = pq.ParquetFile(self.files[draw.integers(len(self.files))])
            group = int(draw.integers(file.num_row_groups))
            rows = file.read_row_group(group, [self.column])
            yield len(rows.slice(int(draw.integers(rows.num_rows)), 1))

    def grain(self) -> dict[str, Loader]:
        import grain

        threads = grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)
        view = self.scratch / "arrayrecord"
        files = sorted(map(str, view.glob("*-train.*")))

        def batches(rows: Any, shuffle: bool) -> Iterator[int]:
            dataset = grain.MapDataset.source(rows)
            dataset = dataset.shuffle(seed=0) if shuffle else dataset
            for batch in dataset.batch(self.batch).to_iter_dataset(threads):
                yield len(batch[self.column])

        def ours() -> Iterator[int]:
            return batches(self.data.as_grain("train", [self.column]), False)

        def records() -> Iterator[int]:
            columns = [self.column]
            return batches(self.data.as_grain("train", columns, array_record=view), True)

        def unparsed() -> Iterator[int]:
            source = grain.sources.ArrayRecordDataSource(files)
            rows = grain.MapDataset.source(source).shuffle(seed=0).to_iter_dataset(threads)
            return (1 for _ in rows)

        return {
            "Parquet, Dataset.as_grain in grain": ours,
            "ArrayRecord, Dataset.as_grain in grain, shuffled": records,
            "ArrayRecord, grain's own source, shuffled, unparsed": unparsed,
        }

    def torch(self) -> dict[str, Loader]:
        import torch
        from torch.utils.data import DataLoader

        torch.set_num_threads(1)

        def ordered(workers: int = 0, **options: Any) -> Iterator[int]:
            rows = self.data.as_torch("train", [self.column], batch_size=self.batch, **options)
            loader = DataLoader(rows, batch_size=None, num_workers=workers)
            return (len(batch[self.column]) for batch in loader)

        def by_files(workers: int = 0) -> Iterator[int]:
            rows = self.data.as_torch("train", [self.column])
            loader = DataLoader(rows, batch_size=self.batch, num_workers=workers)
            return (len(batch[self.column]) for batch in loader)

        one_lane = RowOrder(lanes=1)
        many = self.workers
        return {
            "Parquet, as_torch(batch_size=…)": ordered,
            "Parquet, as_torch(batch_size=…), verify=False": lambda: ordered(verify=False),
            "Parquet, as_torch by files, not resumable": by_files,
            f"the same, {many} workers: as_torch(batch_size=…)": lambda: ordered(many),
            f"the same, {many} workers: by files": lambda: by_files(many),
            f"the same, {many} workers: as_torch, one lane": lambda: ordered(many, order=one_lane),
        }

    def lhotse(self) -> dict[str, Loader]:
        from lhotse import CutSet, Features, LilcomChunkyWriter, MonoCut, NumpyFilesWriter
        from lhotse.dataset import SimpleCutSampler
        from lhotse.dataset.collation import collate_features
        from torch.utils.data import DataLoader
        from torch.utils.data import Dataset as TorchDataset

        class Batches(TorchDataset):
            def __getitem__(self, cuts: CutSet) -> Any:
                return collate_features(cuts)[0]

        def written(kind: Any) -> CutSet:
            cuts = []
            with kind(str(self.scratch / f"lhotse-{kind.__name__}")) as writer:
                for number, mel in enumerate(self._rows()):
                    key = writer.write(f"{number:08}", mel.T)
                    frames, bands = mel.T.shape
                    shift = 3.0 / frames
                    features = Features(
                        *("fbank", frames, bands, shift, 22_050, 0, frames * shift),
                        *(writer.name, str(writer.storage_path), key, f"{number}", 0),
                    )
                    cuts.append(MonoCut(f"{number}", 0, frames * shift, 0, features=features))
            return CutSet.from_cuts(cuts)

        def batches(cuts: CutSet) -> Iterator[int]:
            sampler = SimpleCutSampler(cuts, max_cuts=self.batch, shuffle=True)
            loader = DataLoader(Batches(), sampler=sampler, batch_size=None)
            return (len(mel) for mel in loader)

        numpy, lossy = written(NumpyFilesWriter), written(LilcomChunkyWriter)
        return {
            "lhotse, NumPy files, shuffled": lambda: batches(numpy),
            "lhotse, LilcomChunky (lossy), shuffled": lambda: batches(lossy),
        }

    def _rows(self) -> Iterator[np.ndarray]:
        shape = self.data.shape
        for name in self.files:
            for batch in pq.ParquetFile(name).iter_batches(128, columns=[self.column]):
                yield from batch.column(0).flatten().flatten().to_numpy().reshape(-1, *shape)

    def resuming(self) -> list[tuple[str, float, int]]:
        """Return the seconds until the first batch, from some positions of an epoch."""
        results = []
        for name, share in (("the start", 0.0), ("the middle", 0.5), ("the end", 0.99)):
            began = time.perf_counter()
            data = Dataset(self.scratch / "dataset")
            rows = data.as_grain("train", [self.column])
            rows[int(share * len(rows))]
            results.append((name, time.perf_counter() - began, len(rows)))
        return results


def rates(loader: Loader) -> tuple[float, float]:
    """Return the rows per CPU-second, workers included, and per second of a loader."""
    began, before = time.perf_counter(), sum(os.times()[:4])
    rows = sum(loader())
    return rows / (sum(os.times()[:4]) - before), rows / (time.perf_counter() - began)


def prepare(folder: Path, scratch: Path, hop_seconds: float) -> None:
    """Extract the folder with overlapping chunks, and export the dataset as ArrayRecord."""
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    settings = f"chunk.hop_seconds={hop_seconds}", "split.fractions={train: 1.0}", "quality=off"
    options = [word for setting in settings for word in ("--set", setting)]
    dataset, view = scratch / "dataset", scratch / "arrayrecord"
    subprocess.run(melmill("extract", folder, dataset, *options, "--quiet"), **quiet)
    export = ("export", dataset, view, "--format", "arrayrecord", "--quiet")
    subprocess.run(melmill(*export), **quiet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of audio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hop", type=float, default=1.0, help="seconds between chunks of 3 s")
    parser.add_argument("--scratch", type=Path, help="folder for the dataset and its views")
    arguments = parser.parse_args()
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        prepare(arguments.folder, Path(scratch), arguments.hop)
        contestants = Contestants(Path(scratch), arguments.batch, arguments.workers)
        loaders = contestants.all()
        for loader in loaders.values():
            next(iter(loader()))  # the first batch has extra costs
        timed = {name: (lambda run=loader: rates(run)) for name, loader in loaders.items()}
        measured = interleave(arguments.rounds, timed)
        resumed = contestants.resuming()
    print(f"{resumed[0][2]} rows")
    bare = median(cpu for cpu, _ in measured["Parquet, bare pyarrow.parquet, in order"])
    rows = []
    for name, results in measured.items():
        cpu, wall = ([result[i] for result in results] for i in (0, 1))
        rows.append((name, spread(cpu, 0), f"{median(cpu) / bare:,.2f}", spread(wall, 0)))
    print_table(("loader", "rows per CPU-second", "× bare", "rows per second"), rows)
    first = [(name, f"{1000 * seconds:,.0f}") for name, seconds, _ in resumed]
    print_table(("opened at", "ms until the first row"), first)


if __name__ == "__main__":
    main()

"""Measures how fast each loader reads rows, compared with a training step and with librosa.

    python benchmarks/loaders.py FOLDER [--rounds 3] [--batch 64] [--only arrow,torch]

The folder of audio is extracted once, with TFRecord, and exported in all layouts. Then each
loader reads the training split, in batches of float32 [batch, n_mels, frames]. Loaders whose
library is not installed are skipped. "Bare" is the shortest code without melmill that gives
the same rows. "On the fly" is librosa: a whole song at a time, or one chunk of a song at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Use one thread where a library has a setting for it: the results are for one core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import librosa
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from baseline_pool import extract_chunks, log_mel
from measure import (
    audio_files,
    cpu_of,
    describe_machine,
    interleave,
    median,
    melmill,
    print_table,
    spread,
)

from melmill.pipelines.dataset import Dataset

#: A loader yields the number of rows in each batch that it reads.
Loader = Callable[[], Iterator[int]]

GROUPS = ("arrow", "tensorflow", "torch", "hugging_face", "others")
ON_THE_FLY_FILES = 6
CHUNK_SECONDS = 3


class Contestants:
    """All ways to read the same rows."""

    def __init__(self, folder: Path, dataset: Path, views: Path, batch: int) -> None:
        self.songs = audio_files(folder)[:: max(1, len(audio_files(folder)) // ON_THE_FLY_FILES)]
        self.data, self.views, self.batch = Dataset(dataset), views, batch
        self.parquet, self.tfrecord = (
            self.data.files("train", form) for form in ("parquet", "tfrecord")
        )

    def all(self, only: Sequence[str]) -> dict[str, Loader]:
        """Return the loaders whose libraries are installed, by name."""
        groups = [getattr(self, name) for name in only]
        loaders: dict[str, Loader] = {
            "librosa on the fly, a song at a time": self.song_at_a_time,
            "librosa on the fly, a chunk at a time": self.chunk_at_a_time,
        }
        for group in groups:
            try:
                loaders |= group()
            except ImportError as error:
                print(f"skipped: {error}", flush=True)
        return loaders

    def song_at_a_time(self) -> Iterator[int]:
        for path in self.songs:
            yield len(extract_chunks(path))

    def chunk_at_a_time(self) -> Iterator[int]:
        for path in self.songs:
            for start in range(0, 15, 5):
                samples, _ = librosa.load(path, sr=22_050, offset=start, duration=CHUNK_SECONDS)
                log_mel(samples)
                yield 1

    def arrow(self) -> dict[str, Loader]:
        shape = self.data.shape

        def values(column: pa.ListArray) -> int:
            return len(column.flatten().flatten().to_numpy().reshape(-1, *shape))

        def bare() -> Iterator[int]:
            for name in self.parquet:
                for batch in pq.ParquetFile(name).iter_batches(128, columns=["mel"]):
                    yield values(batch.column("mel"))

        def scan(opened: pyarrow.dataset.Dataset) -> Iterator[int]:
            for batch in opened.to_batches(columns=["mel"], batch_size=128):
                if batch.num_rows:
                    yield values(batch.column("mel"))

        def ours(verify: bool) -> Iterator[int]:
            return scan(self.data.as_arrow("train", verify=verify))

        def plain(verify: bool) -> Iterator[int]:
            options = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=verify)
            form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=options)
            return scan(pyarrow.dataset.dataset(self.parquet, format=form))

        return {
            "Parquet, bare pyarrow.parquet": bare,
            "Parquet, bare pyarrow.dataset": lambda: plain(False),
            "Parquet, bare pyarrow.dataset, verifying": lambda: plain(True),
            "Parquet, Dataset.as_arrow": lambda: ours(True),
            "Parquet, Dataset.as_arrow, verify=False": lambda: ours(False),
        }

    def tensorflow(self) -> dict[str, Loader]:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        features = {"mel": tf.io.FixedLenFeature(self.data.shape, tf.float32)}

        def bare() -> Iterator[int]:
            rows = tf.data.TFRecordDataset(self.tfrecord)
            rows = rows.map(lambda row: tf.io.parse_single_example(row, features))
            for batch in rows.batch(self.batch).prefetch(1):
                yield len(batch["mel"])

        def ours() -> Iterator[int]:
            for batch in self.data.as_tf("train", ["mel"]).batch(self.batch).prefetch(1):
                yield len(batch["mel"])

        return {
            "TFRecord, bare tf.data": bare,
            "TFRecord, Dataset.as_tf": ours,
            "training step of a small CNN (Keras)": self.training_step(),
        }

    def training_step(self) -> Loader:
        import keras

        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((*self.data.shape, 1)),
                *(layers.Conv2D(16, 5, strides=2, activation="relu"), layers.MaxPooling2D(2)),
                *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(2)),
                *(layers.Conv2D(48, 3, activation="relu"), layers.GlobalAveragePooling2D()),
                layers.Dense(6, activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        mel = np.zeros((self.batch, *self.data.shape, 1), np.float32)
        labels = np.zeros(self.batch, int)
        model.train_on_batch(mel, labels)

        def steps() -> Iterator[int]:
            for _ in range(10):
                model.train_on_batch(mel, labels)
                yield self.batch

        return steps

    def torch(self) -> dict[str, Loader]:
        import torch
        from torch.utils.data import DataLoader, IterableDataset

        torch.set_num_threads(1)
        names, shape = self.parquet, self.data.shape

        class Bare(IterableDataset):
            def __iter__(self) -> Iterator[dict[str, object]]:
                for name in names:
                    for batch in pq.ParquetFile(name).iter_batches(128, columns=["mel"]):
                        values = batch.column("mel").flatten().flatten().to_numpy()
                        for mel in torch.tensor(values.reshape(-1, *shape)):
                            yield {"mel": mel}

        def batches(rows: IterableDataset) -> Iterator[int]:
            return (len(batch["mel"]) for batch in DataLoader(rows, batch_size=self.batch))

        def ours(verify: bool) -> Iterator[int]:
            return batches(self.data.as_torch("train", ["mel"], verify=verify))

        return {
            "Parquet, bare DataLoader": lambda: batches(Bare()),
            "Parquet, Dataset.as_torch": lambda: ours(True),
            "Parquet, Dataset.as_torch, verify=False": lambda: ours(False),
        }

    def hugging_face(self) -> dict[str, Loader]:
        import datasets

        cache = self.views / "cache"
        loaded = datasets.load_dataset(str(self.views / "hf"), split="train", cache_dir=str(cache))
        mapped = loaded.select_columns(["mel"]).with_format("numpy")

        def map_style() -> Iterator[int]:
            return (len(batch["mel"]) for batch in mapped.iter(self.batch))

        return {"Hugging Face datasets, map-style": map_style}

    def others(self) -> dict[str, Loader]:
        import webdataset
        from grain import sources

        arrays = sorted(self.views.glob("numpy/train-*.npy"))
        tars = sorted(map(str, self.views.glob("webdataset/train-*.tar")))
        records = sorted(map(str, self.views.glob("arrayrecord/*-train.*")))

        def numpy() -> Iterator[int]:
            for path in arrays:
                mel = np.load(path, mmap_mode="r")
                for start in range(0, len(mel), self.batch):
                    yield len(np.array(mel[start : start + self.batch]))

        def tar() -> Iterator[int]:
            rows = webdataset.WebDataset(tars, shardshuffle=False).decode().to_tuple("mel.npy")
            return (1 for _ in rows)

        def grain() -> Iterator[int]:
            source = sources.ArrayRecordDataSource(records)
            return (1 for i in range(len(source)) if source[i])

        return {
            "NumPy, mapped into memory": numpy,
            "WebDataset": tar,
            "ArrayRecord, grain's source (unparsed)": grain,
        }


def rate(loader: Loader) -> float:
    """Return the rows per CPU second of a loader that reads everything."""
    cpu_s, rows = cpu_of(lambda: sum(loader()))
    return rows / cpu_s


def prepare(folder: Path, scratch: Path) -> tuple[Path, Path]:
    """Extract the folder, make all views, and return the folders of the dataset and its views."""
    dataset, views = scratch / "dataset", scratch / "views"
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    formats = ("--set", "output.formats=[parquet,tfrecord]", "--quiet")
    subprocess.run(melmill("extract", folder, dataset, *formats), **quiet)
    for form in ("hf", "webdataset", "arrayrecord", "numpy"):
        command = melmill("export", dataset, views / form, "--format", form, "--quiet")
        subprocess.run(command, **quiet)
    return dataset, views


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder of audio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups of loaders to run")
    parser.add_argument("--scratch", type=Path, help="folder for the dataset and its views")
    arguments = parser.parse_args()
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        dataset, views = prepare(arguments.folder, Path(scratch))
        all_contestants = Contestants(arguments.folder, dataset, views, arguments.batch)
        contestants = all_contestants.all(arguments.only.split(","))
        for loader in contestants.values():
            next(iter(loader()))  # the first batch has extra costs
        timed = {name: (lambda run=loader: rate(run)) for name, loader in contestants.items()}
        measured = interleave(arguments.rounds, timed)
    base = median(measured["librosa on the fly, a song at a time"])
    rows = [
        (name, spread(rates, 0), f"{median(rates) / base:,.1f}") for name, rates in measured.items()
    ]
    print_table(("loader", "rows per CPU-second", "× on the fly"), rows)


if __name__ == "__main__":
    main()

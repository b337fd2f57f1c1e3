"""Measures the cost of a refresh: comparing with a large snapshot, and processing the changes.

    python benchmarks/refresh.py [--recordings 1000000] [--real 20000] [--workers 2]

First ``melmill refresh --plan`` runs on a synthetic dataset: its index lists ``--recordings``
recordings, whose files exist but are empty. A share of them is changed, added or removed. Then
``melmill refresh`` runs on a real dataset of tiny files, compared with its extraction.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from measure import COST_HEADER, Cost, cost_row, describe_machine, melmill, print_table, run

from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.naming import bucket, digest
from melmill.transforms.index.tables import RECORDINGS, SHARDS, part_name, read_shards
from melmill.transforms.rows.summaries import FileEntry, RecordingRows, ShardSummary
from melmill.transforms.snapshot.committing import commit
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from melmill.transforms.store.objects import fingerprint_of, local_details

SHARES = (0.0, 0.001, 0.01, 0.1)
RECORDINGS_PER_SHARD = 100
FILES_PER_FOLDER = 1000
RECORDINGS_PER_PART = 50_000
RATE_HZ = 22_050
#: Settings for very small features, so that the time for computing features is negligible.
TINY = ("--set", "mel.n_mels=8", "--set", "refresh.max_removed_ratio=1")


def name_of(number: int) -> str:
    """Return the name of a recording, relative to the catalogue."""
    return f"{number // FILES_PER_FOLDER:05d}/{number:08d}.wav"


def write_song(path: Path, seed: int) -> None:
    """Write a third of a second of noise."""
    samples = np.random.default_rng(seed).normal(0, 0.1, RATE_HZ // 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), samples.clip(-1, 1), RATE_HZ)


def make_empty_files(songs: Path, recordings: int) -> None:
    """Create empty files; melmill never opens them because they did not change."""
    for number in range(recordings):
        path = songs / name_of(number)
        if number % FILES_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()


def make_synthetic(folder: Path, recordings: int) -> tuple[Path, Path]:
    """Return the folders of new songs and their dataset, whose index lists all recordings.

    Only one shard of the dataset is real.
    """
    songs, dataset = folder / "songs", folder / "dataset"
    write_song(songs / name_of(0), 0)
    run(melmill("extract", songs, dataset, *TINY, "--quiet"))
    (songs / name_of(0)).unlink()
    (songs / name_of(0)).parent.rmdir()
    make_empty_files(songs, recordings)
    store = Store(str(dataset))
    snapshot = require_snapshot(store)
    real = next(read_shards(store, snapshot.index))
    write_index(store, songs, recordings, real)
    schema = OpenSnapshot(store, snapshot).schema.table()
    parts = count_parts(recordings)
    fields = {name: getattr(snapshot, name) for name in snapshot.__slots__}
    new_snapshot = type(snapshot)(**{**fields, "index": "f" * 32, "parts": parts})
    commit(store, new_snapshot, schema)
    return songs, dataset


def count_parts(recordings: int) -> int:
    """Return the number of index parts that an extraction would make."""
    return 1 + recordings // RECORDINGS_PER_PART


def write_index(store: Store, songs: Path, recordings: int, real: ShardSummary) -> None:
    """Write the index's recordings and shards, part by part."""
    parts = count_parts(recordings)
    rows: list[list[dict[str, object]]] = [[] for _ in range(parts)]
    members: dict[str, list[str]] = {}
    for number in range(recordings):
        shard = digest("shard", str(number // RECORDINGS_PER_SHARD))
        path = songs / name_of(number)
        row = recording_row(path, name_of(number), shard)
        rows[bucket(str(row["recording_id"]), parts)].append(row)
        members.setdefault(shard, []).append(str(row["recording_id"]))
    shards = [make_shard(store, real, name, ids) for name, ids in members.items()]
    for part in range(parts):
        shard_rows = [shard_row(shard) for shard in shards if bucket(shard.name, parts) == part]
        for kind, schema, values in (
            ("recordings", RECORDINGS, rows[part]),
            ("shards", SHARDS, shard_rows),
        ):
            path = Path(store.path(part_name("f" * 32, kind, part)))
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(values, schema=schema).sort_by(schema.names[0])
            pq.write_table(table, path, compression="zstd")


def recording_row(path: Path, name: str, shard: str) -> dict[str, object]:
    """Return the index row of a recording of a third of a second."""
    details = local_details(str(path))
    return {
        "recording_id": digest(name),
        "uri": str(path),
        "fingerprint": fingerprint_of(details),
        "feature_key": digest(name, "features"),
        "status": "ok",
        "split": "train",
        "labels_digest": "",
        "container": "wav",
        "codec": "pcm_16",
        "decoder": "libsndfile",
        "size_bytes": details["size"],
        "sample_rate_hz": RATE_HZ,
        "channels": 1,
        "frames": RATE_HZ // 3,
        "seconds": 1 / 3,
        "rows": 1,
        "shards": [shard],
        "peak_dbfs": -3.0,
        "tags": [],
    }


def make_shard(store: Store, real: ShardSummary, name: str, ids: list[str]) -> ShardSummary:
    """Return the summary of a new shard, whose file is a link to the real shard's file."""
    file = f"split=train/part-{name}.parquet"
    if real.parquet is None:
        raise RuntimeError("the real shard has no file")
    Path(store.path(file)).parent.mkdir(exist_ok=True)
    os.link(store.path(real.parquet.name), store.path(file))
    values = {field: getattr(real, field) for field in real.__slots__}
    properties = {"name": name, "plan": name, "split": "train", "rows": len(ids)}
    files = {"parquet": FileEntry(file, real.parquet.size_bytes, "0" * 64)}
    members = {"recordings": tuple(RecordingRows(recording, 1, -3.0) for recording in ids)}
    return ShardSummary(**{**values, **properties, **files, **members})


def shard_row(summary: ShardSummary) -> dict[str, object]:
    """Return the index row of a shard."""
    return {
        "name": summary.name,
        "split": summary.split,
        "rows": summary.rows,
        "parquet_bytes": summary.parquet.size_bytes if summary.parquet else 0,
        "tfrecord_bytes": 0,
        "summary": summary.to_json(),
    }


def change(songs: Path, recordings: int, share: float, seed: int) -> None:
    """Add, change and remove recordings, in equal parts of the share."""
    rng = np.random.default_rng(seed)
    count = int(recordings * share)
    for number in map(int, rng.choice(recordings, count, replace=False)):
        path = songs / name_of(number)
        if number % 3 == 0 and path.exists():
            path.unlink()
        elif number % 3 == 1:
            write_song(songs / name_of(recordings + number), number)
        else:
            write_song(path, seed * recordings + number)


def measure_plans(folder: Path, recordings: int, workers: int) -> list[tuple[str, ...]]:
    """Return the table rows for planning refreshes with a growing share of changes."""
    songs, dataset = make_synthetic(folder, recordings)
    rows, changed_share = [], 0.0
    for number, share in enumerate(SHARES):
        change(songs, recordings, share - changed_share, number)
        changed_share = share
        command = melmill("refresh", songs, dataset, *TINY, "--plan", "--quiet")
        rows.append(
            _row(f"plan, {share:.1%}", run([*command, f"--workers={workers}"], watch_s=0.25))
        )
    return rows


def measure_refreshes(folder: Path, recordings: int, workers: int) -> list[tuple[str, ...]]:
    """Return the table rows for a full extraction, and for refreshes after growing changes."""
    songs, dataset = folder / "songs", folder / "dataset"
    for number in range(recordings):
        write_song(songs / name_of(number), number)
    options = ("--quiet", f"--workers={workers}", *TINY)
    rows = [_row("extract", run(melmill("extract", songs, dataset, *options), watch_s=0.25))]
    for number, share in enumerate(SHARES):
        change(songs, recordings, share, number)
        command = melmill("refresh", songs, dataset, *options)
        rows.append(_row(f"refresh, {share:.1%}", run(command, watch_s=0.25)))
    return rows


def _row(name: str, cost: Cost) -> tuple[str, ...]:
    return cost_row(name, cost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recordings", type=int, default=1_000_000, help="recordings in the synthetic index"
    )
    parser.add_argument("--real", type=int, default=20_000, help="recordings in the real dataset")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    arguments = parser.parse_args()
    print(f"{describe_machine()}\n", flush=True)
    for measure, recordings in (
        (measure_plans, arguments.recordings),
        (measure_refreshes, arguments.real),
    ):
        if recordings:
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
                rows = measure(Path(scratch), recordings, arguments.workers)
            print(f"\n{recordings:,} recordings\n")
            print_table(COST_HEADER, rows)


if __name__ == "__main__":
    main()

"""Datasets for the tests of reports: one with real defects, and one with an index of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from melmill.pipelines.profiles import Profile, load_profile
from melmill.pipelines.report.snapshot import ReportedSnapshot
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here
from tests.sharing import made_once

RATE = 16_000
#: A name that would change a page if it were not escaped.
NASTY = "<img src=x onerror=alert(1)> & '\"quotes.wav"
#: Second of the dropout in each recording with one.
GAPS = {"gap-1.flac": 2.0, "gap-2.flac": 4.0, NASTY: 3.0}


def with_gap(samples: np.ndarray, second: float, length: int = 1600) -> np.ndarray:
    start = round(second * RATE)
    samples[start : start + length] = 0
    return samples


def make_songs(folder: Path) -> Path:
    """Write recordings with defects, copies and failures, and return their folder."""
    folder.mkdir()
    song = signals.song(5.0, RATE, seed=1, channels=2)
    noisy = song + signals.noise(5.0, RATE, channels=2, amplitude=0.003)
    six = np.stack([signals.song(5.0, RATE, seed=k) for k in range(6)], axis=1)
    recordings = {
        "good.flac": noisy,
        "copy.wav": noisy,
        "copy-of-copy.wav": noisy,
        "clipped.flac": (20 * signals.song(6.0, RATE, seed=3)).clip(-1, 1),
        "silent.wav": signals.silence(5.0, RATE),
        "six.wav": with_gap(six, 2.5),
        **{
            name: with_gap(signals.song(6.0, RATE, seed=number), second, 400 * number)
            for number, (name, second) in enumerate(GAPS.items(), start=5)
        },
    }
    for name, samples in recordings.items():
        signals.write_audio(folder / name, samples, RATE)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "broken.mp3").write_bytes(b"no audio " * 100)
    return folder


def make_dataset(folder: Path, *settings: str) -> Path:
    """Extract the recordings with defects, and return the dataset."""
    settings = settings or ("quality=[full, acoustic]", "dedupe=mark")
    output = folder / "dataset"
    songs = make_songs(folder / "songs")
    extract_here(songs, output, *settings, "limits.max_failure_ratio=0.5", "chunk.seconds=2")
    return output


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset; do not change it."""
    return made_once(tmp_path_factory, "reported", make_dataset) / "dataset"


def reported(dataset: Path, profile: str | Profile = "training", **kwargs: Any) -> ReportedSnapshot:
    limits = load_profile(profile) if isinstance(profile, str) else profile
    return ReportedSnapshot.open(Store(str(dataset)), limits, command="melmill report", **kwargs)


def make_index_larger(dataset: Path, recordings: int) -> None:
    """Repeat the recordings of an index with other ids until there are some; same URIs."""
    (path,) = (dataset / "index").glob("*/recordings-00000.parquet")
    table = pq.read_table(path)
    table = table.take(pa.array(np.arange(recordings) % table.num_rows))
    ids = pc.binary_join_element_wise(
        table["recording_id"], pa.array([f"{k:08x}" for k in range(recordings)]), ""
    )
    place = table.schema.get_field_index("recording_id")
    table = table.set_column(place, "recording_id", ids).sort_by("recording_id")
    pq.write_table(table, path, compression="zstd")

"""A dataset with defects, a copy, a failure and labels, and the explorer that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from melmill.pipelines.explore.explorer import Explorer
from melmill.pipelines.explore.filters import Filter
from melmill.pipelines.explore.security import Guard
from melmill.pipelines.explore.server import create_app
from melmill.pipelines.explore.verdicts import Verdicts
from melmill.pipelines.profiles import load_profile
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here

RATE = 16_000
#: A name that would run a script if a page did not escape it.
NASTY = "<img src=x onerror=alert(1)> & 'quotes' #1?.wav"


def make_recordings(folder: Path) -> Path:
    """Write recordings into a folder, and return their catalogue, which has the label genre."""
    song = signals.song(8.0, RATE, seed=1, channels=2)
    loud = 8 * signals.song(5.0, RATE, seed=3)
    recordings = {
        "good.flac": song,
        "copy.mp3": song,
        "other.ogg": signals.song(6.0, RATE, seed=2),
        "clipped.wav": loud.clip(-1.0, 1.0),
        "silent.wav": signals.silence(5.0, RATE),
        NASTY: signals.tone(440.0, 5.0, RATE),
    }
    folder.mkdir()
    for name, samples in recordings.items():
        signals.write_audio(folder / name, samples, RATE)
    (folder / "broken.mp3").write_bytes(b"no audio " * 100)
    lines = ["uri,genre"]
    for number, name in enumerate([*recordings, "broken.mp3"]):
        quoted = name.replace('"', '""')
        lines.append(f'"{quoted}",{"jazz" if number % 2 else "rock"}')
    catalogue = folder / "catalogue.csv"
    catalogue.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return catalogue


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the dataset; tests do not change it."""
    folder = tmp_path_factory.mktemp("explored")
    catalogue = make_recordings(folder / "songs")
    settings = ["quality=[full, acoustic]", "dedupe=mark", "limits.max_failure_ratio=0.5"]
    extract_here(catalogue, folder / "dataset", *settings, "chunk.seconds=2")
    return folder / "dataset"


@pytest.fixture
def explorer(dataset: Path, tmp_path: Path) -> Iterator[Explorer]:
    with closing(open_explorer(dataset, tmp_path)) as opened:
        yield opened


def open_explorer(dataset: Path, folder: Path) -> Explorer:
    return Explorer.open(
        Store(str(dataset)), load_profile("training"), Verdicts(folder / "verdicts.csv")
    )


@pytest.fixture
def client(explorer: Explorer) -> Iterator[TestClient]:
    """Return a client that has the token."""
    app = Guard(create_app(explorer), 8000, "secret")
    with TestClient(app, base_url="http://127.0.0.1:8000") as browser:
        browser.cookies.set("melmill-8000", "secret")
        yield browser


@pytest.fixture
def ids(explorer: Explorer) -> dict[str, str]:
    """Return the id of each recording by the name of its file."""
    rows = explorer.table.all_rows(
        explorer.table.condition(Filter()), "uri", ["uri", "recording_id"]
    )
    return {Path(uri).name: recording_id for uri, recording_id in rows}

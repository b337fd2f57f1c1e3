"""The picture in a dataset's card: it is drawn once, and goes with the snapshot that it shows."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from melmill.pipelines.config import RetentionConfig
from melmill.pipelines.export import export
from melmill.pipelines.snapshots import spectrograms
from melmill.pipelines.snapshots.gc import collect
from melmill.pipelines.snapshots.history import rollback
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.spectrograms import draw_spectrograms
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.snapshot.card import picture_name
from melmill.transforms.store.folders import Store
from melmill.transforms.views.exports import ExportJob
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import SMALL, write_song, write_songs

SETTINGS = (
    *(*SMALL, "output.row_group_rows=128"),
    *("output.min_shards=1", "split.fractions={train: 1}"),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a dataset of six songs, and a second version without the first two."""
    folder = tmp_path_factory.mktemp("pictures")
    songs = write_songs(folder / "songs", 6)
    extract_here(songs, folder / "set", *SETTINGS)
    for name in ("0.wav", "1.wav"):
        (songs / name).unlink()
    refresh_here(songs, folder / "set")
    return folder


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Store:
    shutil.copytree(original / "set", tmp_path / "set")
    return Store(str(tmp_path / "set"))


@pytest.fixture
def _no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as if Pillow was not installed."""
    monkeypatch.setitem(sys.modules, "melmill.pipelines.sound.png", None)


def pictures_in(store: Store) -> list[str]:
    return sorted(name for name in store.names() if name.endswith(".png"))


def picture_of(store: Store) -> str:
    """Return the name of the picture in the card; ``""`` if the card shows none."""
    text = store.read("README.md").decode()
    return text.partition("](")[2].partition(")")[0] if "![" in text else ""


def test_the_card_shows_the_snapshots_own_picture(store: Store) -> None:
    name = picture_name(OpenSnapshot.current(store).snapshot)
    assert picture_of(store) == name
    assert name in pictures_in(store)
    assert len(pictures_in(store)) == 2  # and that of the first version
    image = Image.open(io.BytesIO(store.read(name)))
    # Four recordings of 8 bands and 4 frames, each pixel 12 times as large, and three gaps.
    assert image.size == (4 * 4 * 12 + 3 * 8, 8 * 12)
    assert len(store.read(name)) < 10_000


def test_a_lost_picture_is_drawn_again_with_the_same_bytes(store: Store) -> None:
    opened = OpenSnapshot.current(store)
    name, card = picture_name(opened.snapshot), store.read("README.md")
    picture = store.read(name)
    store.remove_files([name])
    assert list(validate(store, 1, lambda number: None)) != []
    opened.mend_side_files()
    assert (store.read(name), store.read("README.md")) == (picture, card)
    assert list(validate(store, 1, lambda number: None)) == []


@pytest.mark.usefixtures("_no_drawing")
def test_without_pillow_the_card_has_no_picture_and_is_complete(store: Store) -> None:
    opened = OpenSnapshot.current(store)
    store.remove_files(pictures_in(store))
    opened.mend_side_files()
    assert (picture_of(store), pictures_in(store)) == ("", [])
    assert opened.stale_files() == []
    assert "pillow" not in store.read("README.md").decode().lower()


def test_a_takedown_leaves_no_picture_of_the_recording(store: Store, original: Path) -> None:
    before = pictures_in(store)
    takedown(store, [f"{original}/songs/3.wav"])
    current = OpenSnapshot.current(store).snapshot
    assert set(pictures_in(store)).isdisjoint(before)
    assert pictures_in(store) == [picture_name(current)] == [picture_of(store)]


@pytest.mark.usefixtures("_no_drawing")
def test_a_takedown_without_pillow_leaves_no_picture_either(store: Store, original: Path) -> None:
    takedown(store, [f"{original}/songs/3.wav"])
    assert (picture_of(store), pictures_in(store)) == ("", [])


def test_the_picture_goes_with_its_version(store: Store) -> None:
    (first,) = set(pictures_in(store)) - {picture_of(store)}
    rollback(store, 0)
    assert picture_of(store) == first
    collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))
    assert pictures_in(store) == [first]


def test_the_users_own_pictures_stay(store: Store) -> None:
    own = ["spectrograms.png", "index/spectrograms.png", f"index/{'0' * 32}/other.png"]
    for name in own:
        store.put(name, b"my picture")
    collect(store, RetentionConfig(keep_snapshots=1, grace_hours=0))
    OpenSnapshot.current(store).write_card()
    assert [store.read(name) for name in own] == [b"my picture"] * 3


def test_a_view_has_a_picture_of_its_own_rows(store: Store, tmp_path: Path) -> None:
    view = Store(str(tmp_path / "view"))
    export(ExportJob(store, "", view, "hf", "songs"), here())
    assert picture_of(view) == "spectrograms.png"
    assert view.read("spectrograms.png") == store.read(picture_of(store))


def test_what_cannot_be_read_or_is_large_is_not_drawn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenSnapshot.current(store)
    shards = [shard.parquet.name for shard in opened.shards() if shard.parquet]
    about = opened.snapshot, opened.schema
    assert draw_spectrograms(store, ["missing.parquet", *shards], *about)
    assert draw_spectrograms(store, [], *about) == b""
    monkeypatch.setattr(spectrograms, "_MOST_BYTES", 100)
    assert draw_spectrograms(store, shards, *about) == b""


def test_a_dataset_without_spectrograms_has_no_picture(tmp_path: Path) -> None:
    write_song(tmp_path / "songs" / "0.wav")
    features = "features=[{name: samples, kind: waveform}]"
    shape = [value for value in SETTINGS if not value.startswith("mel.")]
    extract_here(tmp_path / "songs", tmp_path / "set", *shape, features)
    store = Store(str(tmp_path / "set"))
    assert (picture_of(store), pictures_in(store)) == ("", [])

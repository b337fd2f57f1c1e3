"""Pictures of a part of a file and of a row of a dataset: the values are those of the pipeline."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import melmill
from melmill.pipelines.config import load_config
from melmill.pipelines.show.drawings import Drawing, draw_file, draw_row
from melmill.pipelines.show.figures import png_of
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError, RecordingError
from melmill.transforms.store.folders import Store
from melmill.transforms.store.objects import StoredObject
from tests import signals
from tests.pipeline_runs import extract_here
from tests.pipeline_runs import melmill as run
from tests.sharing import made_once

RATE = 22_050
SETTINGS = (
    "chunk.seconds=1",
    "chunk.edges=neighbours",
    "mel.hop_length=441",
    "mel.log.top_db=null",
)


def make(folder: Path) -> None:
    (folder / "songs" / "a").mkdir(parents=True)
    for name, seed in {"song.flac": 1, "a/other.wav": 2}.items():
        song = signals.song(4.5, RATE, seed, channels=2)
        signals.write_audio(folder / "songs" / name, song, RATE)
    extract_here(folder / "songs", folder / "dataset", *SETTINGS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with songs and their dataset; do not change it."""
    return made_once(tmp_path_factory, "shown-in-a-terminal", make)


def stored(folder: Path, name: str) -> dict[int, np.ndarray]:
    rows = melmill.open(folder / "dataset").as_arrow().to_table(["uri", "chunk_index", "mel"])
    return {
        row["chunk_index"]: np.array(row["mel"], np.float32)
        for row in rows.to_pylist()
        if row["uri"].endswith(name)
    }


def row(folder: Path, name: str, *args: int, **kwargs: str) -> Drawing:
    opened = OpenSnapshot.current(Store(str(folder / "dataset")))
    return draw_row(opened, name, *args, **kwargs)


def file(folder: Path, name: str, *args: float, settings: tuple[str, ...] = SETTINGS) -> Drawing:
    source = StoredObject(str(folder / "songs" / name))
    return draw_file(source, load_config(None, settings), *args)


def test_a_row_has_the_stored_values(folder: Path) -> None:
    for index, values in stored(folder, "song.flac").items():
        (chunk,) = row(folder, "song.flac", index).chunks
        np.testing.assert_array_equal(chunk.values, values)


def test_a_file_has_the_same_values_as_its_rows(folder: Path) -> None:
    chunks = file(folder, "song.flac", 1.5, 2.0).chunks
    values = stored(folder, "song.flac")
    assert len(chunks) == 3  # from 1 s to 4 s
    for number, chunk in enumerate(chunks, start=1):
        np.testing.assert_array_equal(chunk.values, values[number])
        assert chunk.plot.x.start == pytest.approx(number, abs=0.05)


def test_a_waveform_is_that_of_the_seconds(folder: Path) -> None:
    samples = signals.song(4.5, RATE, 1, channels=2)[RATE : 2 * RATE]
    for drawing in (row(folder, "song.flac", 1), file(folder, "song.flac", 1.0, 1.0)):
        waveform = drawing.waveform
        assert waveform is not None
        assert (waveform.start_second, waveform.stop_second) == (1.0, 2.0)
        np.testing.assert_allclose(waveform.maxima.max(axis=1), samples.max(axis=0), atol=1e-4)
        np.testing.assert_allclose(waveform.minima.min(axis=1), samples.min(axis=0), atol=1e-4)


def test_a_recording_is_named_by_its_end_or_its_id(folder: Path) -> None:
    assert row(folder, "a/other.wav").title == "other.wav, chunk 0"
    table = melmill.open(folder / "dataset").recordings(["recording_id", "uri"])
    for entry in table.to_pylist():
        assert row(folder, entry["recording_id"]).title.startswith(Path(entry["uri"]).name)


@pytest.mark.slow
def test_without_its_source_a_row_has_its_values_and_a_note(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "songs" / "song.flac").unlink()
    drawing = row(tmp_path, "song.flac", 1)
    assert drawing.waveform is None
    assert drawing.notes[0].startswith("no waveform: ")
    np.testing.assert_array_equal(drawing.chunks[0].values, stored(tmp_path, "song.flac")[1])
    assert Image.open(io.BytesIO(png_of(drawing))).size == (1000, 520)


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--chunk 9: .*song\.flac has the chunks 0 to 3"):
        row(folder, "song.flac", 9)
    with pytest.raises(ConfigError, match=r"ROW: 'sung.flac': .*did you mean .*song.flac"):
        row(folder, "sung.flac")
    with pytest.raises(ConfigError, match=r"--channel 1: the rows have the channels \(none"):
        row(folder, "song.flac", 0, 1)
    with pytest.raises(ConfigError, match=r"--feature 'mfcc': there is no such feature .*: mel"):
        row(folder, "song.flac", feature="mfcc")
    with pytest.raises(ConfigError, match=r"--at 9: the recording has 4\.50 s"):
        file(folder, "song.flac", 9.0)
    with pytest.raises(RecordingError):
        file(folder, "missing.flac")


@pytest.mark.parametrize(
    "settings",
    [
        ("chunk.seconds=1",),
        ("features=[{name: wave, kind: waveform}]", "chunk.seconds=1"),
        ("features=[{name: c, kind: mfcc, n_mfcc: 13}]", "chunk.seconds=1"),
        ("chunk.seconds=60", "chunk.short=drop"),
        ("audio.channels=each", "chunk.seconds=1"),
    ],
)
def test_recipes_of_all_kinds_are_drawn(settings: tuple[str, ...], folder: Path) -> None:
    drawing = file(folder, "song.flac", 0.0, 2.0, settings=settings)
    picture = Image.open(io.BytesIO(png_of(drawing)))
    assert picture.size == (1000, 520)
    assert len(picture.convert("L").getcolors()) > 20
    if "chunk.short=drop" in settings:
        assert drawing.notes == ("the recording is shorter than a chunk of the recipe",)


def test_a_title_with_formula_signs_is_text(tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "a$b_$.wav", signals.tone(440, 1.0, RATE), RATE)
    assert png_of(draw_file(StoredObject(str(path)), load_config(None, SETTINGS)))


def test_a_title_with_bytes_that_are_no_text_is_drawn(tmp_path: Path) -> None:
    path = signals.write_audio(tmp_path / "a.wav", signals.tone(440, 1.0, RATE), RATE)
    path = path.rename(os.fsdecode(os.fsencode(path.parent) + b"/b\xff.wav"))
    assert png_of(draw_file(StoredObject(str(path)), load_config(None, SETTINGS)))


def test_the_command_writes_a_file_where_there_is_no_terminal(folder: Path, tmp_path: Path) -> None:
    command = "show", folder / "dataset", "song.flac", "--chunk=1"
    first = run(*command, cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "song-chunk-1.png\n")
    before = (tmp_path / "song-chunk-1.png").read_bytes()
    assert Image.open(io.BytesIO(before)).size == (1000, 520)
    second = run(*command, cwd=tmp_path)
    assert second.returncode == 2
    assert "song-chunk-1.png: the file exists" in second.stderr
    assert (tmp_path / "song-chunk-1.png").read_bytes() == before


def test_the_command_sends_a_picture_if_asked(folder: Path, tmp_path: Path) -> None:
    path = folder / "songs" / "song.flac"
    completed = run("show", path, "--picture=kitty", "--seconds=1", cwd=tmp_path)
    assert completed.returncode == 0
    assert completed.stdout.startswith("\x1b_Ga=T,f=100")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "songs/song.flac", "row"), "is not a dataset, so it has no rows"),
        (("show", "dataset"), "is a dataset: name a recording"),
        (("show", "nothing.wav"), "nothing.wav: not_found"),
        (("play", "nothing.wav"), "nothing.wav: not_found"),
        (("play", "songs/song.flac", "--at=9"), "--at 9: the recording has 4.50 s"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str, folder: Path) -> None:
    completed = run(*arguments, cwd=folder)
    assert completed.returncode == 2
    assert message in completed.stderr


def test_play_ends_with_the_sound(folder: Path) -> None:
    path = folder / "songs" / "song.flac"
    completed = run("play", path, "--at=4", "--seconds=0.3", "--backend=null")
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")

"""Models of the user's own, from the recipe to the committed rows and the next refresh."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import melmill
from melmill.pipelines.api import read_recipe
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.store.folders import Store
from tests.onnx_models import write_encoder
from tests.pipeline_runs import melmill as run_melmill
from tests.refresh.catalogues import write_song

pytest.importorskip("onnx")
RATE, SAMPLES = 4000, 1000
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.25",
    "output.formats=[parquet,tfrecord]",
    "split.fractions={train: 1.0}",
    "output.min_shards=1",
    "limits.max_failure_ratio=0.5",
)
WAVE = "{name: samples, kind: waveform}"
FUNCTIONS = """
import os
import numpy as np

def encode(samples):  # two codebooks of three tokens
    return np.rint(np.abs(samples[:, :6]) * 1000).astype(np.int64).reshape(-1, 2, 3)

def count(samples):  # a line for each call
    with open(__file__ + ".calls", "a") as calls:
        calls.write(f"{len(samples)}\\n")
    return np.stack([np.sort(row)[-3:] for row in samples]).astype(np.float32)

def fail_when_loud(samples):
    if (np.abs(samples).max(1) > 0.95).any():
        raise ValueError("too loud")
    return samples[:, :2]

def crash_when_loud(samples):
    if (np.abs(samples).max(1) > 0.95).any():
        os.abort()
    return samples[:, :4].reshape(-1, 2, 2, 1)
"""


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "songs"
    folder.mkdir()
    write_song(folder / "a.wav", 1, 1.1)
    write_song(folder / "b.wav", 2, 2.0, 8000)  # resampled
    write_song(folder / "c.wav", 3, 0.1)  # padded
    return folder


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions/my_models.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path / "functions")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "functions"))  # for workers
    return "my_models"


def entry(model: Path | str, shape: str = "[6]", **settings: Any) -> str:
    more = "".join(f", {key}: {value}" for key, value in settings.items())
    return f'{{name: embedding, kind: model, model: "{model}", shape: {shape}{more}}}'


def rows(dataset: Path) -> list[dict[str, Any]]:
    order = [("uri", "ascending"), ("chunk_index", "ascending")]
    table: list[dict[str, Any]] = melmill.open(dataset).as_arrow().to_table().sort_by(order)
    return table.to_pylist()  # type: ignore[attr-defined, no-any-return]


def extract(songs: Path, dataset: Path, *entries: str, **options: Any) -> Any:
    settings = [*BASE, f"features=[{','.join(entries)}]"]
    return melmill.extract(songs, dataset, settings=settings, **options)


def test_embeddings_are_the_models_of_the_same_samples(songs: Path, tmp_path: Path) -> None:
    weights = write_encoder(tmp_path / "e.onnx", SAMPLES)
    extract(songs, tmp_path / "set", WAVE, entry(tmp_path / "e.onnx"))
    stored = rows(tmp_path / "set")
    assert len(stored) == 4 + 8 + 1
    for row in stored:
        expected = np.tanh(np.array(row["samples"], np.float64) @ weights)
        np.testing.assert_allclose(row["embedding"], expected, atol=2e-5)  # float32's rounding
    assert validate(Store(str(tmp_path / "set")), 1, lambda number: None) == []
    report = melmill.verify(tmp_path / "set")
    assert report.passed
    assert list(report.skipped) == [
        "embedding is the output of a model, which has no other reference"
    ]
    card = (tmp_path / "set/README.md").read_text()
    assert "`embedding` is float32 [6]: output of the model for one chunk." in card


def test_workers_compute_the_same_bits(songs: Path, tmp_path: Path) -> None:
    write_encoder(tmp_path / "e.onnx", SAMPLES)
    extract(songs, tmp_path / "here", entry(tmp_path / "e.onnx", batch_rows=3))
    settings = [f"--set={text}" for text in BASE]
    settings.append(f"--set=features=[{entry('e.onnx', batch_rows=3)}]")  # a relative path
    command = ("extract", songs, tmp_path / "set", *settings, "--workers=2")
    completed = run_melmill(*command, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert rows(tmp_path / "set") == rows(tmp_path / "here")


@pytest.mark.slow
def test_tokens_reach_every_reader(songs: Path, functions: str, tmp_path: Path) -> None:
    tokens = entry(f"{functions}:encode", "[2, 3]", dtype="int32")
    extract(songs, tmp_path / "set", WAVE, tokens)
    opened = melmill.open(tmp_path / "set")
    stored = rows(tmp_path / "set")
    for row in stored:
        samples = np.array(row["samples"], np.float32)
        expected = np.rint(np.abs(samples[:6]) * 1000).astype(int).reshape(2, 3)
        assert row["embedding"] == expected.tolist()
    in_order = sorted(str(row["embedding"]) for row in stored)
    tf = pytest.importorskip("tensorflow")
    data = opened.as_tf("train", ["embedding"])
    assert data.element_spec["embedding"] == tf.TensorSpec((2, 3), tf.int32)
    read = [str(row["embedding"].tolist()) for row in data.as_numpy_iterator()]
    assert sorted(read) == in_order
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].features["embedding"] == datasets.Array2D((2, 3), "int32")
    assert sorted(str(row["embedding"]) for row in loaded["train"]) == in_order
    assert opened.statistics["features"]["embedding"]["mean"] == pytest.approx(
        [np.mean([row["embedding"] for row in stored])]
    )


@pytest.mark.slow
def test_a_changed_model_is_refused_and_then_computed_anew(songs: Path, tmp_path: Path) -> None:
    model, dataset = tmp_path / "e.onnx", tmp_path / "set"
    write_encoder(model, SAMPLES)
    extract(songs, dataset, entry(model))
    assert not melmill.refresh(songs, dataset).extraction.committed
    before = rows(dataset)
    write_encoder(model, SAMPLES, seed=1)
    with pytest.raises(ConfigError, match=r"features.0: embedding: model .*: the model is another"):
        melmill.refresh(songs, dataset)
    assert rows(dataset) == before
    refreshed = melmill.refresh(songs, dataset, settings=["features.0.sha256="])
    assert refreshed.extraction.committed
    extract(songs, tmp_path / "fresh", entry(model))
    assert rows(dataset) == rows(tmp_path / "fresh") != before
    assert not melmill.refresh(songs, dataset).extraction.committed
    # Elsewhere it is the same model.
    moved = model.rename(tmp_path / "moved.onnx")
    refreshed = melmill.refresh(songs, dataset, settings=[f"features.0.model={moved}"])
    assert refreshed.extraction.difference.get("recomputed", 0) == 0
    assert rows(dataset) == rows(tmp_path / "fresh")
    assert not melmill.refresh(songs, dataset).extraction.committed


def test_a_model_that_kills_its_process_fails_only_that_recording(
    functions: str, tmp_path: Path
) -> None:
    (tmp_path / "songs").mkdir()
    for number in range(3):
        write_song(tmp_path / f"songs/{number}.wav", number, 0.5)
    soundfile.write(tmp_path / "songs/loud.wav", np.ones(2000) * 0.99, RATE)
    result = extract(
        tmp_path / "songs", tmp_path / "set", entry(f"{functions}:crash_when_loud", "[2, 2, 1]")
    )
    assert result.extraction.totals.failures == {"decoder_crash": 1}
    assert len(rows(tmp_path / "set")) == 6
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].features["embedding"] == datasets.Array3D((2, 2, 1), "float32")


@pytest.mark.slow
def test_a_model_has_a_sample_rate_of_its_own(songs: Path, tmp_path: Path) -> None:
    weights = write_encoder(tmp_path / "e.onnx", 2000)
    wave = "{name: samples, kind: waveform, sample_rate_hz: 8000}"
    model = entry(tmp_path / "e.onnx", sample_rate_hz=8000)
    extract(songs, tmp_path / "set", "{name: low, kind: waveform}", model, wave)
    for row in rows(tmp_path / "set"):
        expected = np.tanh(np.array(row["samples"], np.float64) @ weights)
        np.testing.assert_allclose(row["embedding"], expected, atol=5e-5)  # float32's rounding
    song = melmill.load(songs / "a.wav", read_recipe(None, [*BASE, f"features=[{model}]"]))
    stored = [row["embedding"] for row in rows(tmp_path / "set") if row["uri"].endswith("a.wav")]
    assert song.features().tolist() == stored
    write_encoder(tmp_path / "e.onnx", 2000, seed=1)
    song = melmill.load(songs / "a.wav", read_recipe(None, [*BASE, f"features=[{model}]"]))
    assert song.features().tolist() != stored


@pytest.mark.slow
def test_an_unchanged_model_is_not_computed_again(functions: str, tmp_path: Path) -> None:
    songs = catalogue_of_short_songs(tmp_path / "songs")
    calls = tmp_path / "functions/my_models.py.calls"
    extract(songs, tmp_path / "set", entry(f"{functions}:count", "[3]"))
    before = rows(tmp_path / "set")
    calls.unlink()
    both = f"features=[{entry(f'{functions}:count', '[3]')}, {WAVE}]"
    melmill.refresh(songs, tmp_path / "set", settings=[both])
    assert len(calls.read_text().splitlines()) == 4  # the trial before the run
    after = rows(tmp_path / "set")
    assert [row["embedding"] for row in after] == [row["embedding"] for row in before]


def catalogue_of_short_songs(folder: Path) -> Path:
    for number in range(13):  # so few that the launcher is the only worker
        write_song(folder / f"{number}.wav", number, 0.6)
    return folder


@pytest.mark.slow
def test_a_batch_holds_chunks_of_several_recordings(functions: str, tmp_path: Path) -> None:
    songs = catalogue_of_short_songs(tmp_path / "songs")
    model = f"{functions}:count"
    calls = tmp_path / "functions/my_models.py.calls"
    extract(songs, tmp_path / "one", entry(model, "[3]"))
    assert len(calls.read_text().splitlines()) > 30
    calls.unlink()
    extract(songs, tmp_path / "eight", entry(model, "[3]", batch_rows=8))
    sizes = calls.read_text().splitlines()
    assert set(sizes) == {"8"}
    # Each load tries the model four times: in the check, and in the decoder. 26 chunks are four
    # batches.
    assert len(sizes) == 2 * 4 + 4
    assert rows(tmp_path / "eight") == rows(tmp_path / "one")


def test_a_failure_in_a_batch_is_that_of_its_recording(functions: str, tmp_path: Path) -> None:
    songs = catalogue_of_short_songs(tmp_path / "songs")
    soundfile.write(songs / "loud.wav", np.ones(1200) * 0.99, RATE)
    (songs / "cut.wav").write_bytes((songs / "3.wav").read_bytes()[:1000])
    for batch in (1, 8):
        model = entry(f"{functions}:fail_when_loud", "[2]", batch_rows=batch)
        result = extract(songs, tmp_path / f"set{batch}", model)
        assert result.extraction.totals.failures == {"model_failed": 1, "truncated": 1}
    assert rows(tmp_path / "set8") == rows(tmp_path / "set1")
    (loud,) = (row for row in result.failures().to_pylist() if row["cause"] == "model_failed")
    assert Path(loud["uri"]).name == "loud.wav"
    assert loud["message"] == "the model of embedding failed: ValueError: too loud"
    model = entry(f"{functions}:crash_when_loud", "[2, 2, 1]", batch_rows=4)
    result = extract(songs, tmp_path / "crash", model)
    assert len(rows(tmp_path / "crash")) == len(rows(tmp_path / "set1"))
    assert result.extraction.totals.failures == {"decoder_crash": 1, "truncated": 1}


def test_all_models_that_cannot_be_used_are_named_before_anything_is_written(
    songs: Path, functions: str, tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ConfigError) as raised:
        extract(
            songs,
            tmp_path / "set",
            entry(tmp_path / "gone.onnx"),
            entry(tmp_path / "text.onnx").replace("embedding", "second"),
            entry(f"{functions}:encode", "[3]").replace("embedding", "third"),
            entry(f"{functions}:crash_when_loud", "[2, 2, 1]").replace("embedding", "fourth"),
        )
    first, *lines = str(raised.value).splitlines()
    assert first == "the models of the recipe:"
    texts = ["gone.onnx does not exist", "text.onnx: ONNX Runtime cannot", "[3] needs [1, 3]"]
    for number, (line, text) in enumerate(zip(lines, texts, strict=True)):
        assert line.startswith(f"  features.{number}: ")
        assert text in line
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: e, kind: model, shape: [3]}", "features.0.model: null: is missing"),
        ("{name: e, kind: model, model: e.onnx}", "features.0.shape: null: is missing"),
        ("{name: e, kind: model, model: '', shape: [3]}", "features.0.model: ''"),
        ("{name: e, kind: model, model: e.onnx, shape: []}", "features.0.shape: []: tuple should"),
        ("{name: e, kind: model, model: e.onnx, shape: [0]}", "greater than or equal to 1"),
        (
            "{name: e, kind: model, model: e.onnx, shape: [3], dtype: uint16}",
            "features.0.dtype: 'uint16'",
        ),
        (
            "{name: e, kind: model, model: e.onnx, shape: [3], sha256: abc}",
            "features.0.sha256: 'abc': 64 hexadecimal digits",
        ),
        (
            "{name: e, kind: model, model: 'a.b:c', shape: [3], device: cuda}",
            "features.0.device: 'cuda': cpu where model is a Python function",
        ),
        (
            "{name: e, kind: model, model: 'a.b:c', shape: [3], output: x}",
            "features.0.output: 'x': empty where",
        ),
    ],
)
def test_a_wrong_entry_is_named(songs: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        extract(songs, tmp_path / "set", text)
    assert message in str(raised.value)


def test_a_model_is_no_part_of_a_longer_whole(songs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"features.0.model: .*: not allowed where chunk.edges is"
    ):
        melmill.extract(
            songs,
            tmp_path / "set",
            settings=[*BASE, "chunk.edges=neighbours", f"features=[{entry('e.onnx')}]"],
        )


@pytest.mark.slow
def test_a_published_model_is_what_its_own_package_computes(tmp_path: Path) -> None:
    """Spotify's basic-pitch ships its weights: notes of 2 s at 22,050 Hz, as in its paper."""
    download = ["download", "-q", "--no-deps", "--only-binary=:all:", "basic-pitch==0.4.0"]
    subprocess.run([sys.executable, "-m", "pip", *download, "-d", tmp_path], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    name = "basic_pitch/saved_models/icassp_2022/nmp.onnx"
    with zipfile.ZipFile(wheel) as archive:
        (tmp_path / "nmp.onnx").write_bytes(archive.read(name))
    songs = Path(__file__).parents[3] / "shared/data"
    if not songs.is_dir():
        pytest.skip("needs the recordings of ../shared/data")
    # The window of basic_pitch.constants: 2 s less 256 samples.
    settings = [
        "chunk.seconds=1.988390022675737",
        f"features=[{WAVE}, {{name: notes, kind: model, model: {tmp_path}/nmp.onnx, "
        "shape: [172, 88], output: 'StatefulPartitionedCall:1'}]",
        "limits.max_failure_ratio=1",
    ]
    melmill.extract(songs, tmp_path / "set", settings=settings)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "nmp.onnx")
    table = melmill.open(tmp_path / "set").as_arrow().to_table(["samples", "notes"])
    for row in table.slice(0, 50).to_pylist():
        samples = np.array(row["samples"], np.float32)[None, :, None]
        feed = {session.get_inputs()[0].name: samples}
        (notes,) = session.run(["StatefulPartitionedCall:1"], feed)
        # Threads divide the sums in another way than one thread does.
        np.testing.assert_allclose(row["notes"], notes[0], atol=1e-5)
    assert np.array(table["notes"].to_pylist()).max() > 0.5  # it stored notes

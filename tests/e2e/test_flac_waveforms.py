"""Waveforms in FLAC: the same samples for every reader, in less space."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import melmill
from melmill.pipelines.compact import compact
from melmill.pipelines.export import export
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.rows.flac_bytes import decode_flac, encode_flac
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.store.folders import Store
from melmill.transforms.views.exports import ExportJob
from tests.pipeline_runs import extract_here, here, refresh_here
from tests.refresh.catalogues import write_song
from tests.signals import song, write_audio

RATE = 4000
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.25",
    "chunk.tail=pad",
    "output.formats=[parquet,tfrecord]",
    "output.row_group_rows=3",
    "split.fractions={train: 1.0}",
)
MEL = "{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: 8}"
PLAIN = "{name: samples, kind: waveform, dtype: int16}"
FLAC = PLAIN.replace("}", ", encoding: flac}")

Rows = dict[tuple[str, int], np.ndarray]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flac") / "songs"
    write_song(folder / "a.wav", 1, 1.1)
    write_song(folder / "b.wav", 2, 2.0, 8000)  # resampled
    write_song(folder / "c.wav", 3, 0.1)  # padded
    return folder


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("flac_set") / "set"
    extract_here(songs, path, *BASE, f"features=[{MEL},{FLAC}]")
    return path


@pytest.fixture(scope="module")
def expected(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    path = tmp_path_factory.mktemp("plain_set") / "set"
    extract_here(songs, path, *BASE, f"features=[{MEL},{PLAIN}]")
    return by_chunk(melmill.open(path).as_arrow().to_table().to_pylist())


def by_chunk(rows: Any) -> Rows:
    result = {}
    for row in rows:
        uri, samples = row["uri"], row["samples"]
        uri = uri.decode() if isinstance(uri, bytes) else uri
        if isinstance(samples, bytes):
            samples = read_flac(samples)
        result[Path(uri).name, int(row["chunk_index"])] = np.asarray(samples, np.int16)
    return result


def read_flac(data: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == RATE
    return samples


def assert_same(actual: Rows, expected: Rows) -> None:
    assert actual.keys() == expected.keys()
    for key, samples in expected.items():
        np.testing.assert_array_equal(actual[key], samples, err_msg=str(key))


@given(arrays(np.int16, st.integers(1, 5000)), st.sampled_from([1000, 8000, 22_050, 96_000]))
def test_flac_is_lossless(samples: np.ndarray, rate: int) -> None:
    data = encode_flac(samples, rate)
    np.testing.assert_array_equal(decode_flac(data, len(samples)), samples)
    assert encode_flac(samples, rate) == data


def test_what_is_not_the_flac_of_a_chunk_is_an_error() -> None:
    data = encode_flac(np.arange(5000, dtype=np.int16), RATE)
    for wrong in (b"", b"no flac", data[:20]):
        with pytest.raises(ValueError, match=r"not FLAC: |FLAC of shape"):
            decode_flac(wrong, 5000)
    with pytest.raises(ValueError, match=r"FLAC of shape \[5000\], not \[4999\]"):
        decode_flac(data, 4999)


def test_arrow_and_polars_read_audio_files(dataset: Path, expected: Rows) -> None:
    table = melmill.open(dataset).as_arrow().to_table()
    assert str(table.schema.field("samples").type) == "binary"
    assert_same(by_chunk(table.to_pylist()), expected)
    assert_same(by_chunk(polars.read_delta(str(dataset)).to_dicts()), expected)


def test_an_opened_dataset_knows_the_samples(dataset: Path, expected: Rows) -> None:
    opened = melmill.open(dataset)
    column = opened.features["samples"]
    assert (column.shape, column.dtype, column.flac_rate_hz) == ((1000,), "int16", RATE)
    valid = opened.as_arrow().to_table(["uri", "chunk_index", "valid_samples"]).to_pylist()
    values = np.concatenate(
        [expected[Path(r["uri"]).name, r["chunk_index"]][: r["valid_samples"]] for r in valid]
    )
    assert opened.statistics["features"]["samples"]["mean"] == pytest.approx([values.mean()])
    card = (dataset / "README.md").read_text()
    assert (
        "`samples` is int16 [1000]: samples of one chunk at the sample rate of the row, as FL"
        in card
    )


def test_tensorflow_gets_samples(dataset: Path, expected: Rows) -> None:
    tf = pytest.importorskip("tensorflow")
    data = melmill.open(dataset).as_tf("train", ["samples", "uri", "chunk_index"])
    assert data.element_spec["samples"] == tf.TensorSpec((1000,), tf.int16)
    assert_same(by_chunk(data.as_numpy_iterator()), expected)


def test_hugging_face_gets_audio(dataset: Path, expected: Rows, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path))["train"]
    assert loaded.features["samples"] == datasets.Value("binary")
    assert_same(by_chunk(loaded), expected)
    audio = loaded.cast_column("samples", datasets.Audio(sampling_rate=RATE, decode=False))
    rows = [{**row, "samples": row["samples"]["bytes"]} for row in audio]
    assert_same(by_chunk(rows), expected)


def view(dataset: Path, folder: Path, form: str) -> Path:
    output = Store(str(folder / form))
    export(ExportJob(Store(str(dataset)), "", output, form, "songs", "none"), here())  # type: ignore[arg-type]
    return folder / form


def test_exports_hold_the_same_samples(dataset: Path, expected: Rows, tmp_path: Path) -> None:
    folder = view(dataset, tmp_path, "numpy")
    rows = []
    for lines in folder.glob("*.jsonl"):
        samples = np.load(folder / f"{lines.name.removesuffix('.jsonl')}.samples.npy")
        texts = lines.read_text().splitlines()
        rows += [json.loads(text) | {"samples": samples[i]} for i, text in enumerate(texts)]
    assert_same(by_chunk(rows), expected)
    rows = []
    for path in view(dataset, tmp_path, "webdataset").glob("*.tar"):
        with tarfile.open(path) as tar:
            parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for key in dict.fromkeys(name.split(".", 1)[0] for name in parts):
            row = json.loads(parts[f"{key}.json"])
            rows.append(row | {"samples": parts[f"{key}.samples.flac"]})
    assert_same(by_chunk(rows), expected)


def test_tfds_and_arrayrecord_hold_flac(dataset: Path, expected: Rows, tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(view(dataset, tmp_path, "tfds")))
    assert_same(by_chunk(tfds.as_numpy(builder.as_dataset(split="train"))), expected)
    sources = pytest.importorskip("grain.sources")
    rows = []
    for path in sorted(view(dataset, tmp_path, "arrayrecord").glob("*.array_record-*")):
        source = sources.ArrayRecordDataSource([str(path)])
        for i in range(len(source)):
            row = parse_example(source[i])
            rows.append({name: row[name][0] for name in ("uri", "chunk_index", "samples")})
    assert_same(by_chunk(rows), expected)
    hf = json.loads((view(dataset, tmp_path, "hf") / "croissant.json").read_text())
    fields = {field["name"]: field for field in hf["recordSet"][0]["field"]}
    assert fields["samples"]["dataType"] == "sc:AudioObject"


def test_rewritten_rows_keep_their_samples(songs: Path, expected: Rows, tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *BASE, f"features=[{FLAC}]")
    assert not refresh_here(songs, dataset).committed
    compact(Store(str(dataset)), here())
    takedown(Store(str(dataset)), [str(songs / "b.wav")])
    left = {key: row for key, row in expected.items() if key[0] != "b.wav"}
    assert_same(by_chunk(melmill.open(dataset).as_arrow().to_table().to_pylist()), left)
    assert validate(Store(str(dataset)), 1, lambda number: None) == []


@pytest.mark.slow  # librosa compiles its functions; test_several_rates.py verifies waveforms
def test_flac_is_verified(dataset: Path) -> None:
    assert melmill.verify(dataset).passed


@pytest.mark.slow
def test_flac_takes_less_space(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    write_audio(tmp_path / "songs/a.wav", song(20, 22_050), 22_050)
    sizes = {}
    for name, entry in (("plain", PLAIN), ("flac", FLAC)):
        extract_here(tmp_path / "songs", tmp_path / name, f"features=[{entry}]")
        files = (tmp_path / name).glob("split=*/*.parquet")
        sizes[name] = sum(path.stat().st_size for path in files)
    assert sizes["flac"] < 0.9 * sizes["plain"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["features=[{name: s, kind: waveform, encoding: flac}]"], "none where dtype is float32"),
        ([f"features=[{FLAC}]", "audio.sample_rate_hz=96001"], "none: FLAC's sample rates above"),
        ([f"features=[{FLAC}]".replace("flac", "mp3")], "features.0.encoding: 'mp3'"),
    ],
)
def test_what_flac_cannot_hold_is_refused(
    songs: Path, tmp_path: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        extract_here(songs, tmp_path / "set", *settings)
    assert message in str(raised.value)

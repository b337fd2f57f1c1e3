"""Measures of chunks are columns of the rows, for every reader, from the real command."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import melmill
from melmill.pipelines.compact import compact
from melmill.pipelines.export import export
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.measures.measuring import measure_samples
from melmill.transforms.measures.registry import CHUNK_MEASURES, chunk_measures
from melmill.transforms.rows.parquet import ParquetShard, read_rows, read_schema
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.rows.tfrecord import read_records
from melmill.transforms.store.folders import Store
from melmill.transforms.views.exports import ExportJob
from tests import signals
from tests.pipeline_runs import extract_here, here, melmill_json, refresh_here
from tests.refresh.catalogues import write_table
from tests.signals import write_audio

RATE = 8000
#: Name, sample rate and channels of each recording; chunks of one second.
RECORDINGS = (("a.flac", 44_100, 2), ("b.wav", 8000, 1), ("c.ogg", 22_050, 2), ("d.mp3", 16_000, 1))
MEASURES = chunk_measures(tuple(CHUNK_MEASURES))
COLUMNS = [f"quality_{name.replace('.', '_')}" for name in MEASURES]
MEL = "{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: 8}"
QUALITY = f"{{name: quality, kind: measures, meters: [{', '.join(CHUNK_MEASURES)}]}}"
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=1",
    "chunk.tail=pad",
    "output.formats=[parquet,tfrecord]",
    "output.row_group_rows=3",
    "split.fractions={train: 1.0}",
)
ALL = (*BASE, f"features=[{MEL},{QUALITY}]")

#: Readings of each chunk, by the recording's name and the chunk's number; ``None`` for null.
Rows = dict[tuple[str, int], dict[str, Any]]


def write_songs(folder: Path) -> Path:
    """Write four recordings of 2.5 seconds; the second second of ``a.flac`` is clipped."""
    folder.mkdir(parents=True)
    for seed, (name, rate_hz, channels) in enumerate(RECORDINGS):
        samples = signals.song(2.5, rate_hz, seed, channels)
        if name == "a.flac":
            loud = samples[rate_hz : 2 * rate_hz]
            samples[rate_hz : 2 * rate_hz] = (loud * 20).clip(-0.5, 0.5)
        write_audio(folder / name, samples, rate_hz)
    return write_table(folder / "songs.jsonl", [{"uri": name} for name, *_ in RECORDINGS])


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_songs(tmp_path_factory.mktemp("measured") / "songs")


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset that the real command made."""
    path = tmp_path_factory.mktemp("measured") / "set"
    options = [option for setting in ALL for option in ("--set", setting)]
    melmill_json("extract", songs, path, *options)
    return path


@pytest.fixture(scope="module")
def rows(dataset: Path) -> Rows:
    return by_chunk(melmill.open(dataset).as_arrow().to_table().to_pylist())


def by_chunk(rows: list[dict[str, Any]]) -> Rows:
    """Return the readings in rows; NaN, the smallest float32 and no value are null."""
    result = {}
    for row in rows:
        uri = row["uri"].decode() if isinstance(row["uri"], bytes) else row["uri"]
        key = Path(uri).name, int(row["chunk_index"])
        result[key] = {name: plain(row.get(name)) for name in COLUMNS}
    assert len(result) == len(rows)
    return result


def plain(value: Any) -> float | None:
    if value is None or np.isnan(value) or value == np.finfo(np.float32).min:
        return None
    return float(value)


def test_a_row_has_what_the_meters_read_of_its_chunk(songs: Path, rows: Rows) -> None:
    assert rows.keys() == {(name, i) for name, *_ in RECORDINGS for i in range(3)}
    for name, rate_hz, _ in RECORDINGS[:2]:
        samples, _ = soundfile.read(songs.with_name(name), dtype="float32", always_2d=True)
        for i in range(3):
            readings = measure_samples(samples[i * rate_hz : (i + 1) * rate_hz], rate_hz)
            for column, measure in zip(COLUMNS, MEASURES, strict=True):
                value: Any = readings[measure]
                expected = None if value is None else float(np.float32(value))
                assert rows[name, i][column] == expected, (name, i, measure)
    assert [rows["a.flac", i]["quality_clipping_share"] > 0.05 for i in range(3)] == [0, 1, 0]
    assert {row["quality_channels_dead"] for (name, _), row in rows.items() if name == "b.wav"} == {
        None
    }
    assert {rows["c.ogg", i]["quality_channels_dead"] for i in range(3)} == {0.0}


def test_polars_and_duckdb_filter_rows_by_a_measure(dataset: Path, rows: Rows) -> None:
    table = polars.read_delta(str(dataset))
    assert by_chunk(table.to_dicts()) == rows
    assert set(table.select(COLUMNS).dtypes) == {polars.Float32}
    clean = {key for key, row in rows.items() if row["quality_clipping_share"] < 0.001}
    assert ("a.flac", 1) not in clean
    chosen = table.filter(polars.col("quality_clipping_share") < 0.001)
    assert by_chunk(chosen.to_dicts()).keys() == clean
    where = "where quality_clipping_share < 0.001 and quality_channels_dead is not null"
    stereo = {key for key in clean if key[0] in ("a.flac", "c.ogg")}
    files = f"{dataset}/split=train/*.parquet"
    found = duckdb.sql(f"select uri, chunk_index from '{files}' {where}").fetchall()
    assert {(Path(uri).name, index) for uri, index in found} == stereo


def test_tensorflow_reads_null_as_nan(dataset: Path, rows: Rows, tf: Any) -> None:
    data = melmill.open(dataset).as_tf("train", [*COLUMNS, "uri", "chunk_index"])
    assert {tuple(data.element_spec[name].shape) for name in COLUMNS} == {()}
    assert by_chunk(list(data.as_numpy_iterator())) == rows
    assert COLUMNS[0] in melmill.open(dataset).as_tf("train").element_spec


def test_a_null_is_absent_in_tfrecord(dataset: Path, rows: Rows) -> None:
    actual: list[dict[str, Any]] = []
    for path in melmill.open(dataset).files("train", "tfrecord"):
        with Path(path).open("rb") as file:
            for record in read_records(file):
                row = parse_example(record)
                actual.append({name: values[0] for name, values in row.items()})
    assert by_chunk(actual) == rows
    assert all(
        (name in row) == (plain(row.get(name)) is not None) for row in actual for name in COLUMNS
    )


def test_hugging_face_reads_scalars(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(dataset), split="train", cache_dir=str(tmp_path))
    assert loaded.features["quality_level_rms"] == datasets.Value("float32")
    assert by_chunk(list(loaded)) == rows


def test_the_card_and_the_statistics_describe_each_measure(dataset: Path, rows: Rows) -> None:
    text = (dataset / "README.md").read_text()
    assert "- `quality_clipping_share` is float32: `clipping.share` of one chunk, at" in text
    described = json.loads((dataset / "statistics.json").read_text(), parse_constant=pytest.fail)
    values = [row["quality_channels_correlation"] for row in rows.values()]
    known = [value for value in values if value is not None]
    assert described["features"]["quality_channels_correlation"]["values_per_band"] == len(known)
    assert described["features"]["quality_loudness_range"]["mean"] == [None]
    opened = melmill.open(dataset)
    assert opened.statistics["features"]["quality_level_rms"]["min"] == min(
        row["quality_level_rms"] for row in rows.values()
    )
    assert (opened.shape, opened.features["quality_level_rms"].shape) == ((8, 63), ())


@pytest.mark.slow
def test_the_rows_are_valid_and_verified(dataset: Path) -> None:
    assert validate(Store(str(dataset)), 1, lambda number: None) == []
    report = melmill_json("verify", dataset)
    assert report["passed"]
    result = report["formats"]["mp3/mp3 quality"]
    assert (result["rows"], result["largest"], result["tolerance_share"]) == (3, 0.0, 0.0)


@pytest.mark.slow
def test_changed_readings_are_found(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *BASE, f"features=[{QUALITY}]")
    path = next((tmp_path / "set").glob("split=*/*.parquet"))
    schema, metadata = read_schema(path)
    first, *others = read_rows(path)
    changed = first.features["quality_silence_share"].copy()
    changed[:2] = 0.25, np.nan
    features = {**first.features, "quality_silence_share": changed}
    path.unlink()
    with ParquetShard(path, schema, metadata, compression_level=1) as shard:
        for batch in (type(first)(first.columns, features), *others):
            shard.add(batch)
    faults = validate(Store(str(tmp_path / "set")), 1, lambda number: None)
    assert any("of recording" in fault for fault in faults), faults
    report = melmill.verify(str(tmp_path / "set"))
    assert [row["feature"] for row in report.beyond] == ["quality", "quality"]
    assert [row["largest"] == np.inf for row in report.beyond] == [False, True]


@pytest.mark.slow
def test_rewritten_rows_keep_their_measures(tmp_path: Path, rows: Rows) -> None:
    """Labels change, shards are merged, and a recording is taken down: nothing is decoded."""
    songs, dataset = write_songs(tmp_path / "songs"), tmp_path / "set"
    extract_here(songs, dataset, *ALL, "output.min_shards=4")
    write_table(songs, [{"uri": name, "genre": "rock"} for name, *_ in RECORDINGS])
    assert refresh_here(songs, dataset).difference["relabelled"] == 4
    compact(Store(str(dataset)), here())
    assert stored(dataset) == rows
    takedown(Store(str(dataset)), [str(songs.with_name("b.wav"))])
    assert stored(dataset) == {key: row for key, row in rows.items() if key[0] != "b.wav"}
    assert validate(Store(str(dataset)), 1, lambda number: None) == []


def stored(dataset: Path) -> Rows:
    return by_chunk(melmill.open(dataset).as_arrow().to_table().to_pylist())


def view(dataset: Path, folder: Path, form: str) -> Path:
    output = Store(str(folder / form))
    export(ExportJob(Store(str(dataset)), "", output, form, "songs"), here())  # type: ignore[arg-type]
    return folder / form


def test_numpy_and_webdataset_have_measures_in_json(
    dataset: Path, rows: Rows, tmp_path: Path
) -> None:
    folder = view(dataset, tmp_path, "numpy")
    assert {path.name.split(".")[1] for path in folder.glob("*.npy")} == {"mel"}
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert by_chunk([json.loads(line, parse_constant=pytest.fail) for line in lines]) == rows
    members = []
    for path in view(dataset, tmp_path, "webdataset").glob("*.tar"):
        with tarfile.open(path) as tar:
            members += [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    assert {name.split(".", 1)[1] for name, _ in members} == {"mel.npy", "json"}
    texts = [content for name, content in members if name.endswith(".json")]
    assert by_chunk([json.loads(text) for text in texts]) == rows
    mel = next(content for name, content in members if name.endswith(".npy"))
    assert np.load(io.BytesIO(mel)).shape == (8, 63)


def test_tfds_and_parquet_views_have_the_columns(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    folder = view(dataset, tmp_path, "hf")
    tables = [pq.read_table(path) for path in folder.glob("data/*.parquet")]
    assert by_chunk(pa.concat_tables(tables).to_pylist()) == rows
    about = json.loads((folder / "croissant.json").read_text())
    fields = {field["name"]: field for field in about["recordSet"][0]["field"]}
    assert fields["quality_level_rms"]["dataType"] == "sc:Float"
    assert "isArray" not in fields["quality_level_rms"]
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(view(dataset, tmp_path, "tfds")))
    assert by_chunk(list(tfds.as_numpy(builder.as_dataset(split="train")))) == rows


def test_a_notebook_reads_the_stored_measures(songs: Path, rows: Rows) -> None:
    song = melmill.load(songs.with_name("a.flac"), melmill.pipelines.config.load_config(None, ALL))
    for column in ("quality_clipping_share", "quality_loudness_range"):
        values = song.features(column)
        assert values.dtype == np.float32
        assert [plain(value) for value in values] == [rows["a.flac", i][column] for i in range(3)]
    second = list(song.chunks())[1].features("quality_clipping_share")
    assert second.tolist() == [rows["a.flac", 1]["quality_clipping_share"]]


def test_a_label_may_not_have_the_name_of_a_measure(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs")
    write_table(songs, [{"uri": "a.flac", "quality_level_rms": 1.0}])
    with pytest.raises(CatalogueError, match=r"'quality': .* has a label column quality_level_rms"):
        extract_here(songs, tmp_path / "set", *ALL)

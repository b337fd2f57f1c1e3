"""Several features in one dataset: the same values as alone, in every format and for every reader.

The features of a row come from the same samples. Two waveforms and two log-mel spectrograms share
one decode and one resampling.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from deltalake import DeltaTable

import melmill
from melmill.pipelines.compact import compact
from melmill.pipelines.export import export
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import CatalogueError, ConfigError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.features.loudness import integrated_loudness
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.store.folders import Store
from melmill.transforms.views.exports import ExportJob
from tests.pipeline_runs import extract_here, here, melmill_json, refresh_here
from tests.refresh.catalogues import write_song, write_table
from tests.signals import noise, write_audio

RATE = 4000
MEL = "{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: 8}"
FINE = (
    "{name: fine, kind: mel, n_fft: 512, hop_length: 64, n_mels: 12, log: {kind: ln, top_db: null}}"
)
SAMPLES = "{name: samples, kind: waveform, dtype: int16}"
LEVEL = "{name: level, kind: waveform, level: standardized}"
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.25",
    "output.formats=[parquet,tfrecord]",
    "output.row_group_rows=3",
    "split.fractions={train: 0.5, test: 0.5}",
)
ALL = (*BASE, f"features=[{MEL},{FINE},{SAMPLES},{LEVEL}]")
SHAPES = {"mel": (8, 8), "fine": (12, 16), "samples": (1000,), "level": (1000,)}
TYPES = dict.fromkeys(SHAPES, "float32") | {"samples": "int16"}
VALID = dict.fromkeys(SHAPES, "valid_samples") | {
    "mel": "valid_frames",
    "fine": "fine_valid_frames",
}

Rows = dict[tuple[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    write_song(folder / "a.wav", 1, 1.1)
    write_song(folder / "b.wav", 2, 2.0, 8000)  # resampled
    write_song(folder / "c.wav", 3, 0.1)  # padded
    write_song(folder / "d.wav", 4, 1.0)
    rows = [{"uri": f"{name}.wav", "genre": name} for name in "abcd"]
    return write_table(folder / "songs.jsonl", rows)


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "set"
    extract_here(songs, path, *ALL)
    return path


@pytest.fixture(scope="module")
def rows(dataset: Path) -> Rows:
    return rows_of(DeltaTable(dataset).to_pyarrow_dataset().to_table())


def rows_of(table: pa.Table) -> Rows:
    return by_chunk(table.to_pylist())


def by_chunk(rows: list[dict[str, Any]]) -> Rows:
    result = {}
    for row in rows:
        uri = row["uri"].decode() if isinstance(row["uri"], bytes) else row["uri"]
        arrays = {
            name: np.asarray(row[name], TYPES[name]).reshape(shape)
            for name, shape in SHAPES.items()
            if name in row
        }
        result[Path(uri).name, int(row["chunk_index"])] = arrays
    assert len(result) == len(rows)
    return result


def assert_same(actual: Rows, expected: Rows) -> None:
    assert actual.keys() == expected.keys()
    for key, arrays in expected.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(actual[key][name], values, err_msg=f"{key} {name}")


@pytest.mark.parametrize("entry", [MEL, FINE, SAMPLES, LEVEL])
def test_a_feature_is_the_same_alone(songs: Path, rows: Rows, tmp_path: Path, entry: str) -> None:
    extract_here(songs, tmp_path / "set", *BASE, f"features=[{entry}]")
    alone = rows_of(DeltaTable(tmp_path / "set").to_pyarrow_dataset().to_table())
    assert alone.keys() == rows.keys()
    for key, arrays in alone.items():
        ((name, values),) = arrays.items()
        np.testing.assert_array_equal(values, rows[key][name])


def test_a_list_with_the_feature_mel_alone_is_todays_recipe(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "list", *BASE, f"features=[{MEL}]")
    settings = ("mel.n_fft=256", "mel.hop_length=128", "mel.n_mels=8")
    extract_here(songs, tmp_path / "section", *BASE, *settings)
    names = [
        sorted(path.name for path in (tmp_path / kind).rglob("part-*"))
        for kind in ("list", "section")
    ]
    assert names[0] == names[1]  # a shard's name is a digest of its bytes


def test_16_bit_samples_at_their_own_rate_keep_their_bits(songs: Path, rows: Rows) -> None:
    for name, chunks in (("a.wav", 4), ("d.wav", 4)):
        samples, _ = soundfile.read(songs.with_name(name), dtype="int16")
        for index in range(chunks):
            expected = samples[1000 * index : 1000 * (index + 1)]
            np.testing.assert_array_equal(rows[name, index]["samples"], expected)


def test_a_standardized_waveform_has_mean_0_and_variance_1_without_its_padding(rows: Rows) -> None:
    for (name, _), arrays in rows.items():
        filled = 400 if name == "c.wav" else 1000
        level, samples = arrays["level"], arrays["samples"][:filled] / 32768
        expected = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        # int16 rounds by half a step; the noise has a standard deviation of thousands of steps.
        np.testing.assert_allclose(level[:filled], expected, atol=1e-3)
        assert not level[filled:].any()


def test_polars_reads_all_features(dataset: Path, rows: Rows) -> None:
    assert_same(by_chunk(polars.read_delta(str(dataset)).to_dicts()), rows)


def test_an_opened_dataset_gives_arrays_of_the_declared_types(dataset: Path, rows: Rows) -> None:
    opened = melmill.open(dataset)
    assert opened.features == {
        n: FeatureColumn(n, SHAPES[n], TYPES[n], valid=VALID[n]) for n in SHAPES
    }
    assert opened.shape == (8, 8)
    assert_same(rows_of(opened.as_arrow().to_table()), rows)
    statistics = opened.statistics
    valid, train = valid_of(dataset, "samples"), keys_of(opened)
    values = np.concatenate([rows[key]["samples"][: valid[key]] for key in train])
    assert statistics["features"]["samples"]["mean"] == pytest.approx([values.mean()])
    assert statistics["features"]["samples"]["std"] == pytest.approx([values.std()])
    assert len(statistics["features"]["fine"]["mean"]) == 12


def valid_of(dataset: Path, feature: str) -> dict[tuple[str, int], int]:
    """Return the number of valid frames or samples of each row."""
    table = melmill.open(dataset).as_arrow().to_table(["uri", "chunk_index", VALID[feature]])
    rows = zip(*table.to_pydict().values(), strict=True)
    return {(Path(uri).name, index): number for uri, index, number in rows}


def keys_of(opened: Any) -> set[tuple[str, int]]:
    table = opened.as_arrow("train").to_table(["uri", "chunk_index"])
    return {(Path(row["uri"]).name, row["chunk_index"]) for row in table.to_pylist()}


def test_tensorflow_gets_all_features(dataset: Path, rows: Rows) -> None:
    tf = pytest.importorskip("tensorflow")
    opened, actual = melmill.open(dataset), []
    for split in opened.rows:
        data = opened.as_tf(split, [*SHAPES, "uri", "chunk_index"])
        assert {n: tuple(data.element_spec[n].shape) for n in SHAPES} == SHAPES
        assert data.element_spec["samples"].dtype == tf.int16
        actual += list(data.as_numpy_iterator())
    assert_same(by_chunk(actual), rows)


def test_hugging_face_reads_the_folder(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(dataset), cache_dir=str(tmp_path))
    actual: list[dict[str, Any]] = []
    for split in loaded.values():
        assert split.features["fine"] == datasets.Array2D((12, 16), "float32")
        assert split.features["samples"] == datasets.List(datasets.Value("int16"))
        actual += list(split)
    assert_same(by_chunk(actual), rows)


def view(dataset: Path, folder: Path, form: str, normalize: str = "none") -> Path:
    output = Store(str(folder / form))
    export(ExportJob(Store(str(dataset)), "", output, form, "songs", normalize), here())  # type: ignore[arg-type]
    return folder / form


def test_numpy_holds_an_array_per_feature(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    folder = view(dataset, tmp_path, "numpy")
    about = json.loads((folder / "dataset.json").read_text())
    assert about["features"]["samples"] == {"shape": [1000], "dtype": "int16"}
    actual = []
    for lines in folder.glob("*.jsonl"):
        stem = lines.name.removesuffix(".jsonl")
        arrays = {n: np.load(folder / f"{stem}.{n}.npy", mmap_mode="r") for n in SHAPES}
        for i, line in enumerate(lines.read_text().splitlines()):
            actual.append(json.loads(line) | {n: values[i] for n, values in arrays.items()})
    assert_same(by_chunk(actual), rows)


def test_webdataset_holds_a_member_per_feature(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    actual: list[dict[str, Any]] = []
    for path in view(dataset, tmp_path, "webdataset").glob("*.tar"):
        with tarfile.open(path) as tar:
            parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for key in dict.fromkeys(name.split(".", 1)[0] for name in parts):
            arrays = {n: np.load(io.BytesIO(parts[f"{key}.{n}.npy"])) for n in SHAPES}
            actual.append(json.loads(parts[f"{key}.json"]) | arrays)
    assert_same(by_chunk(actual), rows)


def test_tfds_reads_all_features(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(view(dataset, tmp_path, "tfds")))
    actual: list[dict[str, Any]] = []
    for split in builder.info.splits:
        actual += list(tfds.as_numpy(builder.as_dataset(split=split)))
    assert_same(by_chunk(actual), rows)


def test_arrayrecord_holds_the_same_examples(dataset: Path, rows: Rows, tmp_path: Path) -> None:
    sources = pytest.importorskip("grain.sources")
    actual: list[dict[str, Any]] = []
    for path in sorted(view(dataset, tmp_path, "arrayrecord").glob("*.array_record-*")):
        source = sources.ArrayRecordDataSource([str(path)])
        for i in range(len(source)):
            row = parse_example(source[i])
            samples = np.frombuffer(bytes(row["samples"][0]), "<i2")
            plain = {"uri": row["uri"][0], "chunk_index": row["chunk_index"][0]}
            actual.append({**row, **plain, "samples": samples})
    assert_same(by_chunk(actual), rows)


@pytest.mark.parametrize("normalize", ["global", "per_chunk", "per_recording"])
def test_features_with_bands_are_normalised_and_waveforms_are_not(
    dataset: Path, rows: Rows, tmp_path: Path, normalize: str
) -> None:
    folder = view(dataset, tmp_path, "hf", normalize)
    actual = rows_of(pa.concat_tables(map(pq.read_table, sorted(folder.glob("data/*.parquet")))))
    train = keys_of(melmill.open(dataset))
    for name in ("mel", "fine"):
        same, number = {key: row[name] for key, row in rows.items()}, valid_of(dataset, name)
        valid = {key: values[:, : number[key]] for key, values in same.items()}
        for key, row in actual.items():
            group = {
                "global": [values for other, values in valid.items() if other in train],
                "per_chunk": [valid[key]],
                "per_recording": [v for other, v in valid.items() if other[0] == key[0]],
            }[normalize]
            stacked = np.concatenate(group, axis=1).astype(np.float64)
            mean, std = stacked.mean(axis=1)[:, None], stacked.std(axis=1)[:, None]
            expected = (same[key] - mean) / np.maximum(std, 1e-5)
            # float32 rounds by up to 4e-6 of a mean, and the deviations are above 1.
            np.testing.assert_allclose(row[name], expected, atol=1e-3)
    for key, row in actual.items():
        np.testing.assert_array_equal(row["samples"], rows[key]["samples"])
        np.testing.assert_array_equal(row["level"], rows[key]["level"])


def test_croissant_describes_all_features(dataset: Path, tmp_path: Path) -> None:
    about = json.loads((view(dataset, tmp_path, "hf") / "croissant.json").read_text())
    fields = {field["name"]: field for field in about["recordSet"][0]["field"]}
    assert {name: fields[name]["arrayShape"] for name in SHAPES} == {
        name: ",".join(map(str, shape)) for name, shape in SHAPES.items()
    }
    assert fields["samples"]["dataType"] == "sc:Integer"


def test_the_rows_are_valid_and_verified(dataset: Path) -> None:
    assert validate(Store(str(dataset)), 1, lambda number: None) == []
    report = melmill_json("verify", dataset)
    assert report["passed"]
    assert report["rows"] == sum(1 for _ in rows_of(melmill.open(dataset).as_arrow().to_table()))
    assert set(report["formats"]) == {f"wav/pcm_16 {name}" for name in SHAPES}
    assert all(result["tolerance_share"] <= 1 for result in report["formats"].values())


def test_a_changed_sample_is_found(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *ALL)
    path = next((tmp_path / "set").glob("split=*/*.parquet"))
    from melmill.transforms.rows.parquet import ParquetShard, read_rows, read_schema

    schema, metadata = read_schema(path)
    batches = list(read_rows(path))
    changed = batches[0].features["samples"].copy()
    changed[0, 5] += 1
    first = type(batches[0])(batches[0].columns, {**batches[0].features, "samples": changed})
    path.unlink()
    with ParquetShard(path, schema, metadata, compression_level=1) as shard:
        for batch in (first, *batches[1:]):
            shard.add(batch)
    faults = validate(Store(str(tmp_path / "set")), 1, lambda number: None)
    assert any("digest" in fault or "of recording" in fault for fault in faults), faults


@pytest.mark.slow
def test_rewritten_rows_keep_all_features(songs: Path, tmp_path: Path, rows: Rows) -> None:
    """Labels change, shards are merged, and a recording is taken down: nothing is decoded."""
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *ALL)
    relabelled = [{"uri": f"{name}.wav", "genre": "rock"} for name in "abcd"]
    table = write_table(songs.with_name("relabelled.jsonl"), relabelled)
    extract_here(songs, dataset, *ALL)
    before = rows_of(melmill.open(dataset).as_arrow().to_table())
    assert_same(before, rows)
    table.rename(songs.with_name("songs2.jsonl"))
    result = refresh_here(songs.with_name("songs2.jsonl"), dataset)
    assert (result.difference["relabelled"], result.difference.get("new", 0)) == (4, 0)
    assert_same(rows_of(melmill.open(dataset).as_arrow().to_table()), rows)
    compact(Store(str(dataset)), here())
    assert_same(rows_of(melmill.open(dataset).as_arrow().to_table()), rows)
    takedown(Store(str(dataset)), [str(songs.with_name("b.wav"))])
    left = {key: row for key, row in rows.items() if key[0] != "b.wav"}
    assert_same(rows_of(melmill.open(dataset).as_arrow().to_table()), left)
    assert validate(Store(str(dataset)), 1, lambda number: None) == []


@pytest.mark.slow
def test_another_list_of_features_is_another_schema(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *BASE, f"features=[{MEL}]")
    refreshed = refresh_here(songs, tmp_path / "set", f"features=[{MEL},{SAMPLES}]")
    assert (refreshed.new_schema, refreshed.difference["recomputed"]) == (True, 4)
    extract_here(songs, tmp_path / "fresh", *BASE, f"features=[{MEL},{SAMPLES}]")
    read = [
        rows_of(melmill.open(tmp_path / name).as_arrow().to_table()) for name in ("set", "fresh")
    ]
    assert_same(read[0], read[1])
    assert not refresh_here(songs, tmp_path / "set").committed


def test_a_list_of_features_replaces_the_only_feature_of_a_dataset(
    songs: Path, tmp_path: Path
) -> None:
    extract_here(songs, tmp_path / "set", *BASE, "mel.n_fft=256", "mel.hop_length=128")
    refresh_here(songs, tmp_path / "set", f"features=[{SAMPLES}]")
    assert list(melmill.open(tmp_path / "set").features) == ["samples"]
    with pytest.raises(ConfigError, match=r"features: .*: not allowed beside mel"):
        refresh_here(songs, tmp_path / "set", "mel.n_mels=9")


def test_presets_are_entries_of_the_list(songs: Path, tmp_path: Path) -> None:
    entries = "features=[{preset: whisper-80}, {preset: waveform-moonshine, name: samples}]"
    settings = ("audio.sample_rate_hz=16000", "chunk.seconds=1", "chunk.tail=pad", entries)
    extract_here(songs, tmp_path / "set", *settings)
    extract_here(songs, tmp_path / "alone", "chunk.seconds=1", recipe="whisper-80")
    both, alone = (melmill.open(tmp_path / name).as_arrow().to_table() for name in ("set", "alone"))
    assert melmill.open(tmp_path / "set").shape == (80, 100)
    order = [("uri", "ascending"), ("chunk_index", "ascending")]
    assert both.sort_by(order)["whisper_80"].to_pylist() == alone.sort_by(order)["mel"].to_pylist()


@pytest.mark.parametrize(
    ("entry", "faults"),
    [
        ("{preset: whisper-8}", ["features.0.preset: 'whisper-8': a preset's name; did you mean"]),
        ("{preset: waveform-encodec-48k}", ["audio.channels: 'mono': each, as in the preset wav"]),
        (
            "{preset: whisper-80, n_mels: 3}",
            ["features.0.n_mels: 3: not allowed beside preset; melmill presets whisper-80 prints"],
        ),
    ],
)
def test_what_contradicts_a_preset_is_named(
    songs: Path, tmp_path: Path, entry: str, faults: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        extract_here(songs, tmp_path / "set", *BASE, f"features=[{entry}]")
    assert all(fault in str(raised.value) for fault in faults)


def test_a_song_in_a_notebook_has_all_features(songs: Path, rows: Rows) -> None:
    from melmill.pipelines.config import load_config

    song = melmill.load(songs.with_name("a.wav"), load_config(None, ALL))
    for name in SHAPES:
        for index, values in enumerate(song.features(name)):
            np.testing.assert_array_equal(values, rows["a.wav", index][name])
    np.testing.assert_array_equal(song.features(), song.features("mel"))
    assert [axes.get_ylabel() for axes in song.plot().axes[1:3]] == [
        "mel: Frequency (Hz)",
        "fine: Frequency (Hz)",
    ]


def test_the_card_names_every_feature(dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    assert "`fine` is float32 [12, 16]: bands × frames of one chunk; the first" in card
    assert "`samples` is int16 [1000]: samples of one chunk" in card


def test_waveforms_of_one_loudness(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    for name, amplitude in (("quiet.wav", 0.001), ("loud.wav", 0.3)):
        samples = noise(3.3, 22_050, 4, amplitude=amplitude)
        write_audio(tmp_path / "songs" / name, samples, 22_050)
    settings = ("audio.sample_rate_hz=16000", "chunk.seconds=1", "split.fractions={train: 1.0}")
    entry = "features=[{name: samples, kind: waveform, level: loudness, loudness_lufs: -20}]"
    extract_here(tmp_path / "songs", tmp_path / "set", *settings, entry)
    table = melmill.open(tmp_path / "set").as_arrow().to_table(["samples"])
    for samples in table["samples"].to_pylist():
        loudness = integrated_loudness(np.array(samples, np.float32), 16_000)
        assert loudness == pytest.approx(-20, abs=1e-4)
    assert melmill.verify(tmp_path / "set").passed
    with pytest.raises(ConfigError, match=r"loudness_lufs: 3: .*less than or equal to 0"):
        extract_here(tmp_path / "songs", tmp_path / "no", entry.replace("-20", "3"))


def test_every_channel_has_its_waveform(tmp_path: Path) -> None:
    stereo = np.random.default_rng(1).integers(-20_000, 20_000, (2000, 2)).astype(np.int16)
    (tmp_path / "songs").mkdir()
    soundfile.write(tmp_path / "songs" / "a.wav", stereo, RATE)
    extract_here(
        tmp_path / "songs", tmp_path / "set", *BASE, "audio.channels=each", f"features=[{SAMPLES}]"
    )
    table = melmill.open(tmp_path / "set").as_arrow().to_table()
    assert table.num_rows == 4
    for row in table.to_pylist():
        start = row["start_sample"]
        assert row["samples"] == stereo[start : start + 1000, row["channel"]].tolist()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("[{name: Wave, kind: waveform}]", "features.0.name: 'Wave': a small letter, then"),
        (f"[{{name: {'a' * 49}, kind: waveform}}]", "a small letter, then small letters, digits"),
        ("[{name: m, kind: mel, dtype: int16}]", "features.0.dtype: 'int16': no such key; allo"),
        ("[{name: m, kind: mel, mel: {n_fft: 3}}]", 'features.0.mel: {"n_fft": 3}: no such key'),
        ("[]", "features: []: tuple should have at least 1 item"),
        (
            "[{name: mel, kind: mell}]",
            "features.0.kind: 'mell': must be one of: measures, mel, mfcc",
        ),
        (
            "[{name: mel}]",
            "features.0.kind: null: must be one of: measures, mel, mfcc, model, pcen, stft",
        ),
        ("[{kind: mel}]", "features.0.name: null: is missing"),
        ("[{name: uri, kind: mel}]", "features.0.name: 'uri': another name: melmill has a column"),
        ("[{name: split, kind: mel}]", "features.0.name: 'split': another name"),
        ("[{name: a b, kind: mel}]", "features.0.name: 'a b': a small letter, then"),
        (f"[{MEL},{MEL}]", "features.1.name: 'mel': used once: two features have this name"),
        ("[{name: w, kind: waveform, n_mels: 3}]", "features.0.n_mels: 3: no such key"),
        (
            "[{name: m, kind: mel, n_melz: 3}]",
            "features.0.n_melz: 3: no such key; did you mean n_m",
        ),
        (
            "[{name: w, kind: waveform, dtype: int16, level: standardized}]",
            "features.0.dtype: 'int16': float32 where level is standardized",
        ),
        ("[{name: m, kind: mel, hop_length: 9999}]", "features.0.hop_length: 9999: at most"),
    ],
)
def test_a_wrong_list_is_refused_by_key_and_value(
    songs: Path, tmp_path: Path, features: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        extract_here(songs, tmp_path / "set", *BASE, f"features={features}")
    assert message in str(raised.value)


def test_both_ways_to_name_features_are_refused(songs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features: .*: not allowed beside mel"):
        extract_here(songs, tmp_path / "set", *ALL, "mel.n_mels=9")


def test_a_feature_with_the_name_of_a_label_is_refused(songs: Path, tmp_path: Path) -> None:
    entry = "features=[{name: genre, kind: waveform}]"
    with pytest.raises(CatalogueError, match=r"'genre': .*has a label column of this name"):
        extract_here(songs, tmp_path / "set", *BASE, entry)


def test_samples_that_are_not_finite_are_a_failure_whatever_the_feature(tmp_path: Path) -> None:
    """An integer is finite, so 16-bit samples once hid what the samples were."""
    (tmp_path / "songs").mkdir()
    loud = np.full((3000, 2), 3.3e38, np.float32)
    soundfile.write(tmp_path / "songs/loud.wav", loud, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "songs/quiet.wav", np.zeros(3000), RATE)
    settings = (*BASE, f"features=[{SAMPLES}]", "limits.max_failure_ratio=1")
    extraction = extract_here(tmp_path / "songs", tmp_path / "set", *settings)
    assert extraction.totals.failures == {"non_finite": 1}


def test_a_very_loud_waveform_leaves_the_statistics_finite(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    loud = np.random.default_rng(0).normal(0, 1e25, 4000).astype(np.float32)
    soundfile.write(tmp_path / "songs/loud.wav", loud, RATE, subtype="FLOAT")
    entry = "features=[{name: w, kind: waveform}]"
    extract_here(tmp_path / "songs", tmp_path / "set", *BASE, entry)
    opened = melmill.open(tmp_path / "set")
    assert np.isfinite(opened.statistics["std"]).all()
    json.loads((tmp_path / "set/statistics.json").read_text(), parse_constant=pytest.fail)


def test_a_waveform_may_have_the_name_mel(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *BASE, "features=[{name: mel, kind: waveform}]")
    assert melmill.open(tmp_path / "set").shape == (1000,)


def test_without_bands_nothing_is_normalised(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *BASE, f"features=[{SAMPLES}]")
    with pytest.raises(
        ConfigError, match=r"--normalize global: .* has no feature with bands: samp"
    ):
        view(tmp_path / "set", tmp_path, "hf", "global")


def test_python_takes_a_recipe_with_features(songs: Path, tmp_path: Path) -> None:
    from melmill.pipelines.api import read_recipe, recipe_of_dataset
    from melmill.pipelines.config import load_config

    recipe = load_config(None, ALL)
    assert read_recipe(recipe, ()) == recipe
    settings = (*BASE, "audio.sample_rate_hz=16000", f"features=[{SAMPLES}]")
    extract_here(songs, tmp_path / "set", *settings)
    # The dataset's sample rate counts, not the default.
    changed = recipe_of_dataset(tmp_path / "set", None, ["features=[{preset: whisper-80}]"])
    assert [feature.name for feature in changed.feature_spec().features] == ["whisper_80"]


def test_no_feature_of_a_name_is_an_error_that_lists_the_names(songs: Path) -> None:
    song = melmill.load(songs.with_name("a.wav"))
    with pytest.raises(ConfigError, match="no feature 'mell'; the recipe has: mel"):
        song.features("mell")

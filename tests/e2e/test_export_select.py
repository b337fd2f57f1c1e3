"""A view with `select` has the rows of the selected recordings, and numbers that are true of it."""

from __future__ import annotations

import io
import json
import math
import shlex
import tarfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import melmill
from melmill.pipelines import export as export_module
from melmill.pipelines.cli.pipeline_texts import export_text
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.index import tables
from melmill.transforms.rows.schema import RowBatch
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from melmill.transforms.views.kept_rows import kept_rows
from melmill.transforms.views.selection_plan import LeftOut
from tests import signals
from tests.e2e.rows import Rows, as_text, assert_same_rows, by_chunk, read_hugging_face
from tests.pipeline_runs import extract_here, melmill_json, refresh_here

RATE = 22_050
LOUD = "level.rms > -30"
#: Name, seconds, RMS in dBFS, split, genre. Only those above -30 dBFS are selected.
SONGS = (
    ("a.wav", 31.0, -40.0, "train", "rock"),
    ("b.flac", 28.0, -20.0, "train", "jazz"),
    ("c.wav", 5.0, -20.0, "train", "rock"),
    ("d.wav", 5.0, -40.0, "train", "folk"),
    ("e.ogg", 7.0, -20.0, "train", None),
    ("f.wav", 4.0, -40.0, "train", "rock"),
    ("g.wav", 7.0, -20.0, "test", "jazz"),
    ("h.wav", 4.0, -40.0, "test", "jazz"),
    ("i.flac", 7.0, -40.0, "validation", "rock"),
    ("cut.flac", 13.0, -20.0, "train", "folk"),
    ("silent.wav", 4.0, -math.inf, "train", "none"),
    ("short.wav", 0.5, -20.0, "train", "none"),
)
SELECTED = {"b.flac", "c.wav", "e.ogg", "g.wav", "cut.flac"}
SETTINGS = (
    *("output.formats=[parquet,tfrecord]", "output.min_shards=8", "output.row_group_rows=4"),
    *("limits.damaged=keep", "limits.max_failure_ratio=1", "chunk.short=drop"),
)
FORMATS = ("tfds", "hf", "webdataset", "arrayrecord", "numpy")


@dataclass(frozen=True)
class Catalogue:
    """The songs, their dataset, and a dataset whose recipe has the same selection."""

    table: Path
    dataset: Path
    selected: Path


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("selected")
    lines = []
    for seed, (name, seconds, rms_dbfs, split, genre) in enumerate(SONGS):
        song = signals.song(seconds, RATE, seed) + signals.noise(seconds, RATE, seed, 1, 0.02)
        song *= 10 ** (rms_dbfs / 20) / np.sqrt(np.mean(np.square(song)))
        signals.write_audio(folder / name, song, RATE)
        lines.append(json.dumps({"uri": name, "split": split, "genre": genre}))
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:-100_000])
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    lines.append(json.dumps({"uri": "broken.flac", "split": "train", "genre": "rock"}))
    (folder / "songs.jsonl").write_text("\n".join(lines))
    whole, selected = folder / "dataset", folder / "fresh"
    extract_here(folder / "songs.jsonl", whole, *SETTINGS)
    extract_here(folder / "songs.jsonl", selected, *SETTINGS, f"select={LOUD}")
    return Catalogue(folder / "songs.jsonl", whole, selected)


@pytest.fixture(scope="module")
def expected(catalogue) -> Rows:
    """Return the rows that a view must have, as pyarrow reads them from the dataset."""
    table = melmill.open(catalogue.dataset).as_arrow().to_table()
    mel = np.array(table["mel"].to_pylist(), np.float32)
    rows = table.drop_columns(["mel"]).to_pylist()
    every = [row | {"mel": mel[number]} for number, row in enumerate(rows)]
    return {key: row for key, row in by_chunk(every).items() if key[0] in SELECTED}


@pytest.fixture(scope="module")
def views(catalogue, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    for name in FORMATS:
        made = melmill.export(catalogue.dataset, folder / name, name, select=LOUD)
        assert made.left_out == LeftOut(6, 10 + 1 + 1 + 1 + 2 + 1)
        assert not (folder / name / "staging").exists()
    return folder


def numbers(expected: Rows) -> Counter[str]:
    return Counter(row["split"] for row in expected.values())


def split_of(path: Path) -> str:
    return path.name.removeprefix("dataset-").split("-")[0].split(".")[0]


def test_the_dataset_has_every_kind_of_shard(catalogue):
    shards: dict[str, set[str]] = {}
    for row in melmill.open(catalogue.dataset).recordings(["uri", "shards"]).to_pylist():
        for shard in row["shards"]:
            shards.setdefault(shard, set()).add(Path(row["uri"]).name)
    kept = [names & SELECTED for names in shards.values()]
    refused = [names - SELECTED for names in shards.values()]
    kinds = {(bool(k), bool(r)) for k, r in zip(kept, refused, strict=True)}
    assert kinds == {(True, True), (True, False), (False, True)}
    assert sum("a.wav" in names for names in refused) > 1
    assert any("a.wav" in r and k for r, k in zip(refused, kept, strict=True))


def test_tfds_and_array_record_number_their_shards_and_count_their_rows(views, expected):
    for name, suffix in (("tfds", "tfrecord"), ("arrayrecord", "array_record")):
        info = json.loads((views / name / "dataset_info.json").read_text())
        assert f"select: {LOUD} (6 recordings with 16 rows left out)" in info["description"]
        lengths = {s["name"]: list(map(int, s["shardLengths"])) for s in info["splits"]}
        assert {split: sum(rows) for split, rows in lengths.items()} == numbers(expected)
        files = {path.name for path in (views / name).glob(f"*.{suffix}-*")}
        assert files == {
            f"dataset-{split}.{suffix}-{i:05}-of-{len(rows):05}"
            for split, rows in lengths.items()
            for i in range(len(rows))
        }
        assert all(rows > 0 for split in lengths.values() for rows in split)


def test_tensorflow_datasets_reads_the_selected_rows(views, expected, tf):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(views / "tfds")
    actual = []
    for split, number in numbers(expected).items():
        assert builder.info.splits[split].num_examples == number
        for row in tfds.as_numpy(builder.as_dataset(split=split)):
            actual.append({k: as_text(v) for k, v in row.items()} | {"split": split})
    for row in actual:
        row |= {"mel": np.float32(row["mel"]), "genre": row["genre"] or None}
    assert_same_rows(by_chunk(actual), expected)


def test_array_records_have_the_selected_rows(views, expected):
    pytest.importorskip("array_record")
    from array_record.python.array_record_module import ArrayRecordReader

    actual = {}
    for path in sorted((views / "arrayrecord").glob("*.array_record-*")):
        reader = ArrayRecordReader(str(path))
        for row in map(parse_example, reader.read_all()):
            key = Path(row["uri"][0].decode()).name, row["chunk_index"][0]
            actual[key] = row["mel"]
        reader.close()
    assert actual.keys() == expected.keys()
    for key, mel in actual.items():
        np.testing.assert_array_equal(mel, expected[key]["mel"].ravel())


def test_hugging_face_reads_the_selected_rows(views, expected, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(views / "hf"), cache_dir=str(tmp_path))
    assert loaded.keys() == numbers(expected).keys()
    assert_same_rows(read_hugging_face(loaded), expected)


def test_webdataset_tars_hold_the_selected_rows(views, expected):
    actual = []
    for path in sorted((views / "webdataset").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        assert members
        for name, content in members.items():
            if name.endswith(".json"):
                mel = np.load(io.BytesIO(members[name.replace(".json", ".mel.npy")]))
                actual.append(json.loads(content) | {"mel": mel, "split": split_of(path)})
    assert_same_rows(by_chunk(actual), expected)


def test_numpy_arrays_hold_the_selected_rows(views, expected):
    actual = []
    for path in sorted((views / "numpy").glob("*.mel.npy")):
        mel = np.load(path)
        lines = Path(str(path).replace(".mel.npy", ".jsonl")).read_text().splitlines()
        assert len(mel) == len(lines) > 0
        for line, values in zip(lines, mel, strict=True):
            actual.append(json.loads(line) | {"mel": values, "split": split_of(path)})
    assert_same_rows(by_chunk(actual), expected)


@pytest.mark.parametrize("name", ["numpy", "webdataset"])
def test_the_statistics_are_those_of_the_same_selection_in_the_recipe(
    catalogue, views, tmp_path, name
):
    """Compare with a dataset that was extracted with the selection: another way to its numbers."""
    melmill.export(catalogue.selected, tmp_path / "view", name, name="dataset")
    fresh = json.loads((tmp_path / "view" / "dataset.json").read_text())
    about = json.loads((views / name / "dataset.json").read_text())
    assert (about["select"], about["left_out"]) == (LOUD, {"recordings": 6, "rows": 16})
    assert "normalized_by" not in about
    counts = [{s: v["rows"] for s, v in entry["splits"].items()} for entry in (about, fresh)]
    assert counts[0] == counts[1]
    actual, wanted = about["statistics"], fresh["statistics"]
    assert actual.keys() == wanted.keys()
    assert actual["splits"] == wanted["splits"]
    assert actual["balance"] == wanted["balance"]
    names = "split", "values_per_band", "min", "max"
    assert [actual[key] for key in names] == [wanted[key] for key in names]
    for key in ("mean", "std"):
        # Moments of the same values in another order; float32 sums of 130 frames in one chunk.
        np.testing.assert_allclose(actual[key], wanted[key], rtol=1e-6)


def test_the_card_counts_what_is_in_the_view(views, expected):
    card = (views / "hf" / "README.md").read_text()
    assert f"`select: {LOUD}` leaves 6 recordings with 16 rows of the dataset out." in card
    assert f"\n{len(expected)} rows from" in card
    data = views / "hf" / "data"
    for split, number in numbers(expected).items():
        files = sorted(data.glob(f"{split}-*"))
        recordings = {key[0] for key, row in expected.items() if row["split"] == split}
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        line = f"| {split} | {len(recordings)} | {number} | {len(files)} | {megabytes:,.1f} |"
        assert line in card
    assert "| validation |" not in card
    assert "1 recordings failed and 1 were too short." in card
    assert sum(pq.read_metadata(path).num_rows for path in data.iterdir()) == len(expected)
    croissant = json.loads((views / "hf" / "croissant.json").read_text())
    assert [entry["name"] for entry in croissant["recordSet"]] == ["test", "train"]
    assert f"select: {LOUD} (6 recordings" in croissant["description"]


def test_only_shards_from_which_rows_are_left_out_are_written_again(views):
    links = {path.stat().st_nlink for path in (views / "hf" / "data").iterdir()}
    assert links == {1, 2}


@pytest.mark.parametrize(
    ("refused", "kept"), [((), [4, 4, 2]), (("a",), [4, 1]), (("a", "b"), []), (("c",), [4, 4, 2])]
)
def test_rows_that_are_left_come_in_row_groups_of_the_shards_size(refused, kept):
    names, numbers = np.array(list("abab" * 2 + "ab")), np.arange(10, dtype=np.float32)
    batches = (
        RowBatch({"recording_id": names[i : i + 4]}, {"mel": numbers[i : i + 4].reshape(-1, 1, 1)})
        for i in (0, 4, 8)
    )
    sizes, values = [], []
    for batch in kept_rows(batches, refused):
        sizes.append(batch.rows)
        values += batch.features["mel"].ravel().tolist()
        assert not set(batch.columns["recording_id"]) & set(refused)
    assert sizes == kept
    assert values == [n for n, name in enumerate(names) if name not in refused]


def standardized(mel: np.ndarray, values: np.ndarray) -> np.ndarray:
    mean, std = values.mean(axis=1, dtype=np.float64), values.std(axis=1, dtype=np.float64)
    return (mel - mean[:, None]) / np.maximum(std, 1e-5)[:, None]


@pytest.mark.parametrize("normalize", ["per_recording", "global"])
def test_selected_rows_are_normalised(catalogue, expected, tmp_path, normalize):
    datasets = pytest.importorskip("datasets")
    made = melmill.export(
        catalogue.dataset, tmp_path / "view", "hf", normalize=normalize, select=LOUD
    )
    loaded = datasets.load_dataset(str(tmp_path / "view"), cache_dir=str(tmp_path / "cache"))
    actual = read_hugging_face(loaded)
    assert actual.keys() == expected.keys()
    if normalize == "global":
        # The bands are those of all training rows of the dataset, whatever is selected.
        table = melmill.open(catalogue.dataset).as_arrow("train").to_table(["mel"])
        every = np.concatenate(np.array(table["mel"].to_pylist(), np.float32), axis=1)
        card = (tmp_path / "view" / "README.md").read_text()
        assert "goes by the training split of the whole dataset" in card
    for song in {name for name, _ in expected}:
        mels = {key: row["mel"] for key, row in expected.items() if key[0] == song}
        values = every if normalize == "global" else np.concatenate(list(mels.values()), axis=1)
        for key, mel in mels.items():
            # Values of up to 80 dB, rounded to float32 twice: see test_normalize.py.
            np.testing.assert_allclose(actual[key]["mel"], standardized(mel, values), atol=3e-5)
    assert sum(made.rows.values()) == len(expected)


def test_a_description_gives_the_bands_that_a_global_normalisation_used(catalogue, tmp_path):
    melmill.export(catalogue.dataset, tmp_path / "x", "numpy", normalize="global", select=LOUD)
    about = json.loads((tmp_path / "x" / "dataset.json").read_text())
    whole = melmill.open(catalogue.dataset).statistics
    assert about["normalized_by"]["mel"] == {key: whole[key] for key in ("mean", "std")}
    assert about["statistics"]["mean"] != whole["mean"]


@pytest.mark.slow
def test_workers_leave_the_same_rows_out_and_the_command_says_so(catalogue, views, tmp_path):
    arguments = ("--format", "numpy", "--select", f"  {LOUD} ", "--workers", "2")
    summary = melmill_json("export", catalogue.dataset, tmp_path / "numpy", *arguments)
    assert summary["select"] == LOUD
    assert summary["left_out"] == {"recordings": 6, "rows": 16}
    for path in (views / "numpy").iterdir():
        assert (tmp_path / "numpy" / path.name).read_bytes() == path.read_bytes()


def test_the_result_says_what_was_left_out(catalogue, tmp_path):
    made = melmill.export(catalogue.dataset, tmp_path / "view", "numpy", select=LOUD)
    assert "left out: 6 recordings with 16 rows; select: level.rms > -30" in export_text(made)
    everything = replace(made, job=replace(made.job, select=""), left_out=LeftOut())
    assert "left out" not in export_text(everything)


def test_a_measure_that_is_not_defined_is_false_in_a_comparison(catalogue, tmp_path):
    # Silence has no level, and one channel has no second: see docs/select.md.
    made = melmill.export(catalogue.dataset, tmp_path / "a", "hf", select="level.rms < 0")
    assert made.left_out == LeftOut(1, 1)
    made = melmill.export(catalogue.dataset, tmp_path / "b", "hf", select="not channels.dead")
    assert made.left_out == LeftOut(0, 0)
    assert "leaves 0 recordings with 0 rows" in (tmp_path / "b" / "README.md").read_text()


def test_wrong_selections_are_refused_before_anything_starts(catalogue, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "run_job", None)

    def refusal(select: str) -> str:
        with pytest.raises(ConfigError) as raised:
            melmill.export(catalogue.dataset, tmp_path / "view", "hf", select=select)
        assert not (tmp_path / "view").exists()
        return str(raised.value)

    assert "--select 'level.peek < 3': level.peek is no measure; did you mean" in refusal(
        "level.peek < 3"
    )
    assert "--select '': is no expression" in refusal("")
    assert "--select 'false': refuses all 11 recordings" in refusal("false")
    advice = refusal("level.rms > 50").rsplit("their measures: ", 1)[1]
    measures = eval(advice, {"melmill": melmill})["measures"].to_pylist()
    assert max(row["level"]["rms"] or -math.inf for row in measures if row) < 50


@pytest.mark.slow
def test_a_measure_that_the_dataset_lacks_can_be_measured_as_the_message_says(tmp_path):
    songs = tmp_path / "my songs"
    songs.mkdir()
    for number, amplitude in enumerate((0.5, 0.001)):
        sound = amplitude * signals.noise(4, RATE, number)
        signals.write_audio(songs / f"{number}.wav", sound, RATE)
    extract_here(songs, tmp_path / "set", "quality=[level]")
    select = "loudness.integrated > -30 and level.rms < 0"
    with pytest.raises(ConfigError, match=r"which does not measure loudness\.integrated") as raised:
        melmill.export(tmp_path / "set", tmp_path / "view", "hf", select=select)
    advice = shlex.split(str(raised.value).rsplit(": ", 1)[1])
    assert advice == ["melmill", "refresh", str(songs), str(tmp_path / "set"), "--set", advice[-1]]
    refresh_here(songs, tmp_path / "set", advice[-1])
    made = melmill.export(tmp_path / "set", tmp_path / "view", "hf", select=select)
    assert made.left_out == LeftOut(1, 1)


def test_an_interrupted_export_continues_only_with_the_same_selection(
    catalogue, views, tmp_path, monkeypatch
):
    def killed(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    view = tmp_path / "view"
    with monkeypatch.context() as patched:
        patched.setattr(export_module, "run_job", killed)
        with pytest.raises(KeyboardInterrupt):
            melmill.export(catalogue.dataset, view, "numpy", name="dataset", select=LOUD)
    for other in (None, "level.rms > -31"):
        with pytest.raises(DatasetError, match="selection or publish_root"):
            melmill.export(catalogue.dataset, view, "numpy", name="dataset", select=other)
    melmill.export(catalogue.dataset, view, "numpy", name="dataset", select=LOUD)
    assert {path.name: path.read_bytes() for path in view.iterdir()} == {
        path.name: path.read_bytes() for path in (views / "numpy").iterdir()
    }


def test_the_index_is_read_part_by_part(catalogue, views, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RECORDINGS_PER_PART", 2)
    extract_here(catalogue.table, tmp_path / "dataset", *SETTINGS)
    index = require_snapshot(Store(str(tmp_path / "dataset"))).index
    assert tables.count_parts(Store(str(tmp_path / "dataset")), index) > 3
    melmill.export(tmp_path / "dataset", tmp_path / "view", "numpy", select=LOUD)
    rows = {
        folder: sorted(line for path in folder.glob("*.jsonl") for line in path.open())
        for folder in (views / "numpy", tmp_path / "view")
    }
    assert rows[views / "numpy"] == rows[tmp_path / "view"]


def test_workers_that_do_not_share_the_folder_are_named(catalogue, tmp_path, monkeypatch):
    # Workers on another machine see an empty folder under the same path.
    monkeypatch.setattr(export_module, "write_plan", lambda job, selected: None)
    with pytest.raises(DatasetError, match=r"plan\.json is missing: workers on other machines"):
        melmill.export(catalogue.dataset, tmp_path / "view", "numpy", select=LOUD)
    assert not (tmp_path / "view" / "dataset.json").exists()


@pytest.mark.slow
def test_all_features_of_the_selected_rows_are_kept_and_measured(catalogue, tmp_path):
    sound = "{name: sound, kind: waveform, dtype: int16, encoding: flac}"
    features = f"features=[{{name: mel, kind: mel}}, {sound}]"
    extract_here(catalogue.table, tmp_path / "all", *SETTINGS, features)
    extract_here(catalogue.table, tmp_path / "fresh", *SETTINGS, features, f"select={LOUD}")
    melmill.export(tmp_path / "all", tmp_path / "view", "numpy", select=LOUD)
    melmill.export(tmp_path / "fresh", tmp_path / "other", "numpy")
    contents, abouts = [], []
    for folder in (tmp_path / "view", tmp_path / "other"):
        rows = {}
        for path in folder.glob("*.jsonl"):
            arrays = [np.load(str(path).replace("jsonl", f"{n}.npy")) for n in ("mel", "sound")]
            for line, *values in zip(path.read_text().splitlines(), *arrays, strict=True):
                rows[line] = [value.tobytes() for value in values]
        contents.append(rows)
        abouts.append(json.loads((folder / "dataset.json").read_text())["statistics"])
    assert contents[0] == contents[1]
    actual, wanted = (about["features"]["sound"] for about in abouts)
    assert actual["values_per_band"] == wanted["values_per_band"]
    for key in ("mean", "std", "min", "max"):
        # The mean is near 0: one part in 1e9 of the full scale of 32768.
        np.testing.assert_allclose(actual[key], wanted[key], rtol=1e-6, atol=3e-5)

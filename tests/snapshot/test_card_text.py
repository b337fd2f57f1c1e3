"""The text of the dataset card and the files beside the card, made from invented totals."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from melmill.pipelines.config import load_config, shipped_recipes
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.index.tables import shard_row, write_part
from melmill.transforms.rows.distribution import (
    DURATION_EDGES_S,
    LEVEL_EDGES_DBFS,
    ClassCount,
    Distribution,
)
from melmill.transforms.rows.moments import Moments
from melmill.transforms.rows.schema import LabelColumn, RowSchema
from melmill.transforms.rows.summaries import FileEntry, ShardSummary
from melmill.transforms.snapshot.card import (
    balance_lines,
    brief_statistics,
    features_json,
    list_files,
    past_card,
    picture_name,
    stale_files,
    statistics,
    to_json,
    view_card,
    write_card,
)
from melmill.transforms.snapshot.card_head import card_head
from melmill.transforms.snapshot.delta import Snapshot
from melmill.transforms.snapshot.totals import SplitContent, Totals
from melmill.transforms.store.folders import Store
from tests.plans import summary

INDEX = "a" * 32
SNAPSHOT = Snapshot(3, INDEX, {}, "/music/songs.csv", '{"mel": {"n_mels": 80}}')
LABELS = (
    LabelColumn("stars", "double"),
    LabelColumn("tags", "list<string>"),
    LabelColumn("grades", "list<double>"),
)
SCHEMA = RowSchema((FeatureColumn("mel", (80, 130)),), LABELS)


def with_tfrecord(shard: ShardSummary) -> ShardSummary:
    twin = FileEntry(f"tfrecord/{shard.split}/part-{shard.name}.tfrecord", 7, "1" * 64)
    return replace(shard, tfrecord=twin)


ONE, TWO, THREE = (
    with_tfrecord(summary(name, split))
    for name, split in [("1", "train"), ("2", "test"), ("3", "train")]
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    test_store = Store(str(tmp_path))
    index(test_store, ONE, TWO, THREE)
    return test_store


def index(store: Store, *shards: ShardSummary) -> None:
    write_part(store, INDEX, "recordings", 0, [])
    write_part(store, INDEX, "shards", 0, [shard_row(shard) for shard in shards])


def split(recordings: int, rows: int, **classes: int) -> SplitContent:
    content = SplitContent(recordings, rows, 3, 5_300_000, 1_000_000, 90.5)
    counts = tuple(ClassCount("key", name, number, 1) for name, number in classes.items())
    peaks = (0,) * (len(LEVEL_EDGES_DBFS) - 1) + (rows, 0)
    content.counter.add(Distribution(peaks, peaks, counts))
    content.durations[2] += recordings
    return content


@pytest.fixture
def totals() -> Totals:
    return Totals(
        recordings=Counter(ok=4, failed=1001, skipped=2),
        seconds=9000.0,
        splits={"train": split(3, 1200, C=900, D=300), "test": split(1, 80, C=80)},
        moments={"": Moments(7, np.array([1.0, 2.0]), np.array([7.0, 28.0]), -80.0, 3.5)},
    )


def test_the_card_describes_the_dataset(store: Store, totals: Totals) -> None:
    write_card(store, SNAPSHOT, totals, SCHEMA)
    head, _, text = store.read("README.md").decode().removeprefix("---\n").partition("---\n\n")
    assert yaml.safe_load(head) == {
        "pretty_name": "Log-mel spectrograms of songs.csv",
        "size_categories": ["1K<n<10K"],
        "tags": ["audio", "mel-spectrogram", "melmill"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "test", "path": [TWO.parquet.name]},
                    {"split": "train", "path": sorted([ONE.parquet.name, THREE.parquet.name])},
                ],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "features": [
                *({"name": n, "dtype": t} for n, t in _core().items()),
                {"name": "stars", "dtype": "float64"},
                {"name": "tags", "list": "string"},
                {"name": "grades", "list": "float64"},
                {"name": "mel", "dtype": {"array2_d": {"shape": [80, 130], "dtype": "float32"}}},
            ],
        },
    }
    # The order and the layout of the YAML are easy to read.
    assert head.startswith("pretty_name: Log-mel spectrograms of songs.csv\nsize_categories:\n")
    assert "configs:\n- config_name: default\n  data_files:\n  - split: test\n" in head
    about, _, rest = text.partition("\n`index/` says")
    assert about == (
        "# Log-mel spectrograms of /music/songs.csv\n\n"
        "1,280 rows from 2.50 hours of audio.\n\n"
        "- `mel` is float32 [80, 130]: bands × frames of one chunk.\n\n"
        "| split | recordings | rows | shards | MB |\n"
        "|---|---|---|---|---|\n"
        "| test | 1 | 80 | 3 | 6.3 |\n"
        "| train | 3 | 1,200 | 3 | 6.3 |\n\n"
        "1,001 recordings failed and 2 were too short.\n\n"
        "## Labels\n\n"
        # The shares count recordings: two of the three recordings have C.
        "- key: 2 classes; shares differ by at most 33.3 points (C: 100.0% of test, 66.7% of all)"
        "; test lacks 1: D\n"
    )
    recipe = (
        "quality: 'off'\nselect: null\ndedupe: 'off'\n"
        "split: {keep_together: null, min_recordings: 0, stratify: null}\n"
    )
    assert "again, with version unknown of the extractor:\n" in rest
    assert rest.endswith(f"\n```yaml\n{recipe}```\n\n## Snapshot\n\nIndex `index/{INDEX}`.\n")


def head_of(totals: Totals, snapshot: Snapshot = SNAPSHOT) -> dict[str, Any]:
    text = card_head({}, snapshot, totals, SCHEMA)
    assert text.endswith("\n---\n\n")
    loaded: dict[str, Any] = yaml.safe_load(text.strip("-\n"))
    return loaded


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["https://creativecommons.org/licenses/by/4.0/", "cc by 4.0"], "cc-by-4.0"),
        (["CC0-1.0", "MIT"], ["cc0-1.0", "mit"]),
        (["MIT", "Ours", "Theirs"], ["mit", "other"]),
        (["Ours", "Theirs"], "other"),
        (["MIT", None], None),
        ([None], None),
        ([], None),
    ],
)
def test_the_head_has_the_licences_of_all_recordings(
    names: list[str | None], expected: object
) -> None:
    content = SplitContent(recordings=max(1, len(names)), rows=999)
    counts = (ClassCount("license", name, 1, 1) for name in names)
    content.counter.add(Distribution(classes=tuple(counts)))
    head = head_of(Totals(splits={"train": content}))
    assert head.get("license") == expected
    assert "license_name" not in head
    assert head["size_categories"] == ["n<1K"]


def test_the_head_names_and_links_a_licence_that_hugging_face_does_not_know() -> None:
    content = SplitContent(recordings=1)
    terms = (ClassCount("Licence", "https://example.org/terms", 1, 1),)
    content.counter.add(Distribution(classes=terms))
    head = head_of(Totals(splits={"train": content}))
    described = {key: value for key, value in head.items() if key.startswith("license")}
    assert described == {
        "license": "other",
        "license_name": "https-example-org-terms",
        "license_link": "https://example.org/terms",
    }


def test_the_head_has_a_tag_of_each_kind_of_feature(totals: Totals) -> None:
    entries = [{"name": name, **settings} for name, settings in KINDS.items()]
    snapshot = replace(SNAPSHOT, features=json.dumps({"features": entries}))
    tags = ["audio", "mel-spectrogram", "spectrogram", "waveform", "melmill"]
    assert head_of(totals, snapshot)["tags"] == tags


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_the_recipe_in_the_card_can_be_used_again(
    name: str, totals: Totals, tmp_path: Path
) -> None:
    settings = ["catalogue.require_license=[CC0-1.0]", "output.resolution=exact"]
    recipe = load_config(name, settings)
    snapshot = replace(SNAPSHOT, configuration=json.loads(json.dumps(recipe.as_dict())))
    card = view_card({}, snapshot, totals, SCHEMA, "none").decode()
    path = tmp_path / "recipe.yaml"
    path.write_text(card.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    assert load_config(path) == recipe


def test_a_card_that_shows_a_missing_picture_is_stale(store: Store, totals: Totals) -> None:
    store.put(picture_name(SNAPSHOT), b"picture")
    write_card(store, SNAPSHOT, totals, SCHEMA)
    reference = f"\n![Spectrograms of some chunks](index/{INDEX}/spectrograms.png)\n"
    assert reference in store.read("README.md").decode()
    assert stale_files(store, SNAPSHOT, SCHEMA) == []
    store.remove_files([picture_name(SNAPSHOT)])
    assert stale_files(store, SNAPSHOT, SCHEMA) == ["README.md"]
    write_card(store, SNAPSHOT, totals, SCHEMA)
    assert "![" not in store.read("README.md").decode()
    assert stale_files(store, SNAPSHOT, SCHEMA) == []


def _core() -> dict[str, str]:
    return {
        **{"recording_id": "string", "uri": "string", "chunk_index": "int32"},
        **{"start_sample": "int64", "valid_samples": "int32", "sample_rate_hz": "int32"},
        **{"peak_dbfs": "float32", "rms_dbfs": "float32"},
    }


KINDS = {
    "mel": {"kind": "mel"},
    "half": {"kind": "stft", "sample_rate_hz": 16_000},
    "samples": {"kind": "waveform"},
    "high": {"kind": "waveform", "sample_rate_hz": 48_000},
    "vector": {"kind": "model"},
    "heard": {"kind": "model", "sample_rate_hz": 8000},
    "quality": {"kind": "measures", "measures": ["level.rms"]},
}
COLUMNS = (
    FeatureColumn("mel", (80, 130)),
    FeatureColumn("half", (129, 63), "float16"),
    FeatureColumn("samples", (2000,), "int16"),
    FeatureColumn("high", (96_000,), "int16", 48_000),
    FeatureColumn("vector", (512,)),
    FeatureColumn("heard", (3, 4, 5)),
    FeatureColumn("quality_level_rms", ()),
)


def test_the_card_describes_each_feature(store: Store, totals: Totals) -> None:
    entries = [{"name": name, **settings} for name, settings in KINDS.items()]
    snapshot = replace(SNAPSHOT, features=json.dumps({"features": entries}))
    write_card(store, snapshot, totals, replace(SCHEMA, features=COLUMNS))
    head, _, text = store.read("README.md").decode().removeprefix("---\n").partition("---\n\n")
    assert text.startswith("# Features of /music/songs.csv\n")
    lines = [line for line in text.splitlines() if line.startswith("- `")]
    assert lines == [
        "- `mel` is float32 [80, 130]: bands × frames of one chunk.",
        "- `half` is float16 [129, 63]: bands × frames of one chunk at 16,000 Hz.",
        "- `samples` is int16 [2000]: samples of one chunk at the sample rate of the row.",
        "- `high` is int16 [96000]: samples of one chunk at 48,000 Hz, as FLAC.",
        "- `vector` is float32 [512]: output of the model for one chunk.",
        "- `heard` is float32 [3, 4, 5]: output of the model for one chunk at 8,000 Hz.",
        "- `quality_level_rms` is float32: `level.rms` of one chunk, at the recording's own sample "
        "rate, of all channels.",
    ]
    described = yaml.safe_load(head)["dataset_info"]["features"][-len(COLUMNS) :]
    assert described == [
        {"name": "mel", "dtype": {"array2_d": {"shape": [80, 130], "dtype": "float32"}}},
        {"name": "half", "dtype": {"array2_d": {"shape": [129, 63], "dtype": "float16"}}},
        {"name": "samples", "list": "int16"},
        {"name": "high", "dtype": "binary"},
        {"name": "vector", "list": "float32"},
        {"name": "heard", "dtype": {"array3_d": {"shape": [3, 4, 5], "dtype": "float32"}}},
        {"name": "quality_level_rms", "dtype": "float32"},
    ]


def test_the_card_says_how_many_recordings_the_selection_refuses(totals: Totals) -> None:
    totals.recordings["deselected"] = 1200
    snapshot = replace(SNAPSHOT, configuration={"select": "level.peak < -6"})
    text = view_card({}, snapshot, totals, SCHEMA, "none").decode()
    assert "2 were too short.\n1,200 are refused by `select: level.peak < -6`.\n" in text


def test_the_card_shows_the_mask_of_rows_that_have_valid_frames(
    store: Store, totals: Totals
) -> None:
    write_card(store, SNAPSHOT, totals, SCHEMA)
    assert "mask" not in store.read("README.md").decode()
    mel = FeatureColumn("mel", (80, 130), valid="valid_frames")
    write_card(store, SNAPSHOT, totals, replace(SCHEMA, features=(mel,)))
    card = store.read("README.md").decode()
    assert "the first `valid_frames` of them are valid, the others are padding." in card
    assert "deviation of each band over its valid frames." in card
    code = card.rpartition("```python\n")[2].partition("```")[0]
    scope: dict[str, Any] = {"rows": {"valid_frames": [0, 100, 130]}}
    exec(code, scope)
    assert scope["mask"].sum(axis=1).tolist() == [0, 100, 130]


def test_each_feature_has_its_own_statistics(totals: Totals) -> None:
    assert "features" not in statistics(totals)
    fine = Moments(2, np.array([3.0]), np.array([8.0]), -9.0, 9.0)
    both = replace(totals, moments={**totals.moments, "fine": fine})
    written = statistics(both)
    assert (written["mean"], written["values_per_band"]) == ([1.0, 2.0], 7)
    described = {"values_per_band": 2, "mean": [3.0], "std": [2.0], "min": -9.0, "max": 9.0}
    assert written["features"] == {"fine": described}


def test_a_measure_that_is_always_null_has_statistics_that_json_can_hold(totals: Totals) -> None:
    both = replace(totals, moments={**totals.moments, "quality_channels_dead": Moments.empty(1)})
    written = json.loads(json.dumps(statistics(both), allow_nan=False))
    nothing = {"values_per_band": 0, "mean": [None], "std": [None], "min": None, "max": None}
    assert written["features"] == {"quality_channels_dead": nothing}


def test_large_numbers_are_exact_and_each_label_has_a_line(totals: Totals) -> None:
    large = totals.splits["train"]
    large.parquet_bytes = 5_300_000_000_000
    for content in totals.splits.values():
        modes = (ClassCount("mode", "major", 9, 3), ClassCount("mode", "minor", 9, 3))
        content.counter.add(Distribution(classes=modes))
    totals.seconds = 3_600_000.0
    text = view_card({}, SNAPSHOT, totals, SCHEMA, "none").decode()
    assert "1,280 rows from 1,000.00 hours of audio." in text
    assert "| train | 3 | 1,200 | 3 | 5,300,000.0 |" in text
    labels = text.partition("## Labels\n\n")[2].partition("\n\n##")[0].splitlines()
    assert [line.partition(":")[0] for line in labels] == ["- key", "- mode"]


def test_statistics_describe_each_split(totals: Totals) -> None:
    written = statistics(totals)
    bands = {"split": "train", "values_per_band": 7, "mean": [1.0, 2.0], "std": [1.0, 2.0]}
    assert {name: written[name] for name in bands} == bands
    assert (written["min"], written["max"]) == (-80.0, 3.5)
    assert list(written["splits"]) == ["test", "train"]
    train = written["splits"]["train"]
    assert (train["recordings"], train["rows"], train["seconds"]) == (3, 1200, 90.5)
    lengths = [0] * (len(DURATION_EDGES_S) + 1)
    lengths[2] = 3
    assert train["seconds_histogram"] == {"edges": list(DURATION_EDGES_S), "counts": lengths}
    levels = [0] * (len(LEVEL_EDGES_DBFS) - 1) + [1200, 0]
    for name in ("peak_dbfs", "rms_dbfs"):
        assert train[name] == {"edges": list(LEVEL_EDGES_DBFS), "counts": levels}
    assert train["labels"] == {
        "key": [
            {"value": "C", "rows": 900, "recordings": 1},
            {"value": "D", "rows": 300, "recordings": 1},
        ]
    }
    assert brief_statistics(totals) == written


def test_a_label_with_many_classes_is_null_and_is_not_in_the_commit(totals: Totals) -> None:
    totals.splits["train"].counter.add(Distribution(many=("title",)))
    assert statistics(totals)["splits"]["train"]["labels"]["title"] is None
    assert "title" not in brief_statistics(totals)["splits"]["train"]["labels"]


@pytest.mark.parametrize(("classes", "included"), [(20, True), (21, False)])
def test_a_commit_holds_labels_with_up_to_twenty_classes(
    totals: Totals, classes: int, included: bool
) -> None:
    counts = tuple(ClassCount("title", f"{i}", 1, 1) for i in range(classes))
    totals.splits["train"].counter.add(Distribution(classes=counts))
    assert ("title" in brief_statistics(totals)["balance"]) == included


def entry(classes: int, missing: dict[str, list[Any]]) -> dict[str, Any]:
    difference = {"value": None, "split": "test", "share": 0.1234, "overall": 0.25}
    return {"classes": classes, "largest_difference": difference, "missing": missing}


@pytest.mark.parametrize(
    ("balance", "lines"),
    [
        ({"title": entry(21, {})}, []),
        (
            {"key": entry(20, {})},
            [
                "key: 20 classes; shares differ by at most 12.7 points (no value: 12.3% of test, "
                "25.0% of all)"
            ],
        ),
        (
            {"key": entry(1000 - 990, {"test": ["C", None, 7], "fold": ["C", "D", "E", "F"]})},
            [
                "key: 10 classes; shares differ by at most 12.7 points (no value: 12.3% of test, "
                "25.0% of all); test lacks 3: C, no value, 7; fold lacks 4: C, D, E, …"
            ],
        ),
    ],
)
def test_a_line_says_how_evenly_classes_are_divided(
    balance: dict[str, Any], lines: list[str]
) -> None:
    balances = {"many": entry(99, {}), **balance}
    assert list(balance_lines(balances)) == lines


# Files


def test_files_are_listed_by_split_and_by_name(store: Store) -> None:
    parquet, tfrecord = list_files(store, SNAPSHOT)
    assert parquet == {
        "test": [TWO.parquet.name],
        "train": sorted([ONE.parquet.name, THREE.parquet.name]),
    }
    assert list(parquet) == list(tfrecord) == ["test", "train"]
    assert tfrecord["train"] == sorted([ONE.tfrecord.name, THREE.tfrecord.name])


def test_an_incomplete_set_of_tfrecords_is_not_listed(store: Store) -> None:
    index(store, ONE, TWO, replace(THREE, tfrecord=None))
    parquet, tfrecord = list_files(store, SNAPSHOT)
    assert (len(parquet["train"]), tfrecord) == (2, {})
    index(store, summary("none", rows=0, parquet=None))
    assert list_files(store, SNAPSHOT) == ({}, {})


def test_side_files_are_written_for_tfrecords(store: Store, totals: Totals) -> None:
    write_card(store, SNAPSHOT, totals, SCHEMA)
    lists = json.loads(store.read("tfrecord/files.json"))
    assert lists == {**list_files(store, SNAPSHOT)[1], "_index": INDEX}
    assert json.loads(store.read("statistics.json")) == json.loads(
        json.dumps({**statistics(totals), "_index": INDEX})
    )
    assert "mel" in store.read("tfrecord/features.json").decode()
    assert to_json({"a": [1]}) == b'{\n "a": [\n  1\n ]\n}\n'


def test_without_tfrecords_an_old_list_is_emptied(tmp_path: Path, totals: Totals) -> None:
    store = Store(str(tmp_path))
    index(store, replace(ONE, tfrecord=None))
    write_card(store, SNAPSHOT, totals, SCHEMA)
    assert store.size("tfrecord/files.json") is None
    assert store.size("tfrecord/features.json") is None
    store.put("tfrecord/files.json", b'{"train": ["x"]}')
    assert stale_files(store, SNAPSHOT, SCHEMA) == ["tfrecord/files.json"]
    write_card(store, SNAPSHOT, totals, SCHEMA)
    assert json.loads(store.read("tfrecord/files.json")) == {"_index": INDEX}


SIDE_FILES = ["README.md", "statistics.json", "tfrecord/files.json", "tfrecord/features.json"]


def test_files_that_describe_another_snapshot_are_stale(store: Store, totals: Totals) -> None:
    assert stale_files(store, SNAPSHOT, SCHEMA) == SIDE_FILES
    write_card(store, SNAPSHOT, totals, SCHEMA)
    assert stale_files(store, SNAPSHOT, SCHEMA) == []
    taller = replace(SCHEMA, features=(FeatureColumn("mel", (81, 130)),))
    assert stale_files(store, SNAPSHOT, taller) == ["tfrecord/features.json"]
    for name in SIDE_FILES:
        right_text = store.read(name)
        for wrong_text in (b"", b"[1]", b'"text"', b"\xff{", b"{}", None):
            if wrong_text is None:
                store.remove_files([name])
            else:
                store.put(name, wrong_text)
            assert stale_files(store, SNAPSHOT, SCHEMA) == [name]
        store.put(name, right_text)
    other_snapshot = replace(SNAPSHOT, index="b" * 32)
    write_part(store, other_snapshot.index, "recordings", 0, [])
    write_part(
        store, other_snapshot.index, "shards", 0, [shard_row(shard) for shard in (ONE, TWO, THREE)]
    )
    assert stale_files(store, other_snapshot, SCHEMA) == SIDE_FILES[:3]
    store.put("README.md", b"\xff" + store.read("README.md"))
    assert stale_files(store, SNAPSHOT, SCHEMA) == []


# Other cards


def test_a_views_card_names_its_own_files(totals: Totals) -> None:
    files = {"train": ["data/train-00000-of-00001.parquet"]}
    plain = view_card(files, SNAPSHOT, totals, SCHEMA, "none").decode()
    (config,) = yaml.safe_load(plain.split("---\n")[1])["configs"]
    assert config["data_files"] == [{"split": "train", "path": files["train"]}]
    assert "| train | 3 | 1,200 | 3 | 5.3 |" in plain
    assert "normalised" not in plain
    assert 'read_parquet("FOLDER/data/train-*.parquet")' in plain
    assert plain.endswith("stratify: null}\n```\n")
    normalised = view_card(files, SNAPSHOT, totals, SCHEMA, "chunk").decode()
    sentence = "\n`mel` is normalised: chunk, each band to mean 0 and deviation 1.\n"
    assert normalised == plain.replace("\n## How", sentence + "\n## How")


def test_a_views_card_names_all_features_that_are_normalised(totals: Totals) -> None:
    samples = FeatureColumn("samples", (2000,), "int16")
    features = (FeatureColumn("mel", (80, 130)), samples, FeatureColumn("fine", (257, 9)))
    entries = [{"name": column.name, "kind": "mel"} for column in features]
    snapshot = replace(SNAPSHOT, features=json.dumps({"features": entries}))
    schema = replace(SCHEMA, features=features)
    card = view_card({}, snapshot, totals, schema, "dataset").decode()
    assert "\n`mel`, `fine` are normalised: dataset, each band to mean 0" in card


def test_the_shape_and_the_type_of_each_feature_are_named() -> None:
    samples = FeatureColumn("samples", (2000,), "int16")
    described = {"samples": {"shape": [2000], "dtype": "int16"}}
    described["mel"] = {"shape": [80, 130], "dtype": "float32"}
    both = replace(SCHEMA, features=(samples, *SCHEMA.features))
    assert features_json(both) == {"shape": [2000], "dtype": "int16", "features": described}
    del described["samples"]
    only_mel = {"shape": [80, 130], "dtype": "float32", "features": described}
    assert features_json(SCHEMA) == only_mel


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_earlier_snapshots_card_has_absolute_paths(
    store: Store, totals: Totals, scheme: str
) -> None:
    store = Store(f"{scheme}{store.root}")
    card, lists = past_card(store, SNAPSHOT, totals, SCHEMA)
    parquet, tfrecord = list_files(store, SNAPSHOT)
    root = str(Path(store.root.removeprefix(scheme)).resolve())
    assert lists == {
        "parquet": {s: [f"{root}/{name}" for name in names] for s, names in parquet.items()},
        "tfrecord": {s: [f"{root}/{name}" for name in names] for s, names in tfrecord.items()},
    }
    (config,) = yaml.safe_load(card.decode().split("---\n")[1])["configs"]
    assert config["data_files"][1] == {"split": "train", "path": lists["parquet"]["train"]}
    assert "| train | 3 | 1,200 | 3 | 6.3 |" in card.decode()
    assert card.decode().endswith("stratify: null}\n```\n")
    assert "![" not in card.decode()
    store.put(picture_name(SNAPSHOT), b"picture")
    card, _ = past_card(store, SNAPSHOT, totals, SCHEMA)
    assert f"\n![Spectrograms of some chunks]({root}/{picture_name(SNAPSHOT)})\n" in card.decode()


def test_an_earlier_snapshots_card_in_a_store_has_urls(totals: Totals) -> None:
    store = Store("memory://bucket/set")
    index(store, ONE)
    _, lists = past_card(store, SNAPSHOT, totals, SCHEMA)
    assert lists["parquet"] == {"train": [f"memory://bucket/set/{ONE.parquet.name}"]}


def test_without_labels_the_card_has_no_section_about_labels(store: Store) -> None:
    schema = RowSchema((FeatureColumn("mel", (80, 130)),))
    write_card(store, SNAPSHOT, Totals(splits={"train": SplitContent()}), schema)
    text = store.read("README.md").decode()
    assert "0 recordings failed and 0 were too short.\n\n`index/` says" in text
    assert "Labels" not in text

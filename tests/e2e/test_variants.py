"""Variants: changed copies of the recordings, as rows of their own.

References: the exact factor of a gain, and soxr's conversion of the whole recording.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr

import melmill
from melmill.pipelines.cli.snapshot_texts import inspection_text
from melmill.pipelines.compact import compact
from melmill.pipelines.explore.chunk_rows import ChunkReader
from melmill.pipelines.explore.chunk_walls import Pick, hang_wall
from melmill.pipelines.patterns import find_patterns
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.snapshots.verify import verify
from melmill.transforms.core.errors import CatalogueError, ConfigError
from melmill.transforms.rows.tf_example import parse_example
from melmill.transforms.shards import extracting
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, here, melmill_json, refresh_here
from tests.refresh.catalogues import write_song, write_table
from tests.refresh.machine import InThisProcess
from tests.signals import noise, write_audio

RATE = 4000
MEL = "{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: 8}"
SAMPLES = "{name: samples, kind: waveform}"
HIGH = "{name: high, kind: waveform, sample_rate_hz: 8000}"
LEVELS = "{name: quality, kind: measures, meters: [level]}"
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.25",
    "chunk.tail=pad",
    f"features=[{MEL},{SAMPLES}]",
    "output.row_group_rows=3",
    "output.min_shards=4",
    "split.fractions={train: 0.5, test: 0.5}",
)
VARIANTS = "variants=[{speed: 0.9}, {gain_db: [-12, 0]}, {speed: 1.25, gain_db: -6}]"
SPEEDS = {0: 1.0, 1: 0.9, 2: 1.0, 3: 1.25}

#: Rows by the recording's name, the variant and the chunk.
Rows = dict[tuple[str, int, int], dict[str, Any]]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for number in range(5):
        write_song(folder / f"{number}.wav", number, 0.4 + 0.7 * number, RATE * (1 + number % 2))
    rows = [{"uri": f"{number}.wav", "genre": f"g{number}"} for number in range(5)]
    return write_table(folder / "songs.jsonl", rows)


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("variants") / "set"
    extract_here(songs, path, *BASE, VARIANTS, "output.formats=[parquet,tfrecord]")
    return path


def rows_of(dataset: Path) -> Rows:
    rows = melmill.open(dataset).as_arrow().to_table().to_pylist()
    named = {(Path(r["uri"]).name, r.get("variant", 0), r["chunk_index"]): r for r in rows}
    assert len(named) == len(rows)
    return named


def samples_of(rows: Rows, name: str, variant: int) -> np.ndarray:
    """Return the valid samples of a variant of a recording, laid end to end."""
    own = sorted((key, row) for key, row in rows.items() if key[:2] == (name, variant))
    parts = [row["samples"][: row["valid_samples"]] for _, row in own]
    return np.concatenate([np.array(part, np.float32) for part in parts])


def test_every_variant_has_its_rows_in_the_split_of_its_recording(dataset: Path) -> None:
    rows = rows_of(dataset)
    for name in (f"{number}.wav" for number in range(5)):
        own = {key: row for key, row in rows.items() if key[0] == name}
        assert {variant for _, variant, _ in own} == {0, 1, 2, 3}
        for column in ("recording_id", "split", "genre"):
            assert len({row[column] for row in own.values()}) == 1
        for variant, speed in SPEEDS.items():
            seconds = 0.4 + 0.7 * int(name[0])
            length = np.ceil(round(seconds * RATE) / speed - 1e-6)
            chunks = sorted(row["chunk_index"] for key, row in own.items() if key[1] == variant)
            assert chunks == list(range(int(np.ceil(length / 1000))))
        assert all(row["start_sample"] == 1000 * row["chunk_index"] for row in own.values())


def test_rows_of_the_recordings_are_those_of_a_recipe_without_variants(
    songs: Path, dataset: Path, tmp_path: Path
) -> None:
    extract_here(songs, tmp_path / "plain", *BASE)
    plain, rows = rows_of(tmp_path / "plain"), rows_of(dataset)
    own = {key: row for key, row in rows.items() if key[1] == 0}
    assert own.keys() == plain.keys()
    for key, row in plain.items():
        assert "variant" not in row
        assert {**row, "variant": 0} == own[key]


@pytest.mark.parametrize(("variant", "speed"), [(1, "0.9"), (3, "1.25")])
def test_speed_is_soxrs_conversion_of_the_whole_recording(
    songs: Path, dataset: Path, variant: int, speed: str
) -> None:
    rows = rows_of(dataset)
    for number in range(5):
        samples, rate = soundfile.read(songs.parent / f"{number}.wav", dtype="float32")
        expected = soxr.resample(samples, rate * float(speed), RATE, "HQ")
        if variant == 3:
            expected = expected * np.float32(10 ** (-6 / 20))
        actual = samples_of(rows, f"{number}.wav", variant)
        assert abs(len(actual) - len(expected)) <= 1
        shared = min(len(actual), len(expected))
        # Blocks of a conversion differ from the whole by float32 rounding; see test_resample.
        np.testing.assert_allclose(actual[:shared], expected[:shared], atol=1e-6)


def test_a_gain_is_an_exact_factor_drawn_for_each_chunk(dataset: Path) -> None:
    rows = rows_of(dataset)
    gains = []
    for (name, variant, chunk), row in rows.items():
        if variant == 2:
            own = np.array(rows[name, 0, chunk]["samples"], np.float32)
            changed = np.array(row["samples"], np.float32)
            factor = np.float32(np.abs(changed).max() / np.abs(own).max())
            np.testing.assert_allclose(changed, own * factor, rtol=3e-7)
            gains.append(20 * np.log10(factor))
            assert row["peak_dbfs"] - rows[name, 0, chunk]["peak_dbfs"] == pytest.approx(
                gains[-1], abs=1e-4
            )
    assert -12 <= min(gains) < -9 < -3 < max(gains) <= 0
    assert len(set(gains)) == len(gains)


def test_bits_do_not_depend_on_shards(songs: Path, dataset: Path, tmp_path: Path) -> None:
    extract_here(
        songs, tmp_path / "set", *BASE, VARIANTS, "output.min_shards=1", "output.order_seed=5"
    )
    assert rows_of(tmp_path / "set") == rows_of(dataset)


@pytest.mark.slow
def test_bits_do_not_depend_on_the_number_of_workers(songs: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "noise.wav", noise(3.0, RATE, 7), RATE)
    write_audio(tmp_path / "room.wav", noise(0.2, RATE, 8), RATE)
    words = f"noise: {tmp_path}/noise.wav, snr_db: [0, 20], rir: {tmp_path}/room.wav"
    variants = f"variants=[{{speed: 0.9, {words}, codec: opus@24k, gain_db: [-6, 6]}}]"
    settings = [f"--set={setting}" for setting in (*BASE, variants)]
    for workers in ("1", "3"):
        melmill_json("extract", songs, tmp_path / workers, *settings, "--workers", workers)
    assert rows_of(tmp_path / "1") == rows_of(tmp_path / "3")


def test_tfrecord_has_the_same_rows(dataset: Path) -> None:
    expected = {
        (row["recording_id"], row["variant"], row["chunk_index"]): row
        for row in rows_of(dataset).values()
    }
    schema = melmill.open(dataset)
    files = json.loads((dataset / "tfrecord/files.json").read_text())
    names = [name for split in ("train", "test") for name in files[split]]
    assert names
    assert "variant" in schema.columns
    for name in names:
        twin = name.replace("tfrecord/", "split=").replace(".tfrecord", ".parquet")
        table = pq.read_table(dataset / twin)
        assert {
            (row["recording_id"], row["variant"], row["chunk_index"]) for row in table.to_pylist()
        } <= expected.keys()
        records = tfrecord_rows(dataset / name)
        assert [int(r["variant"][0]) for r in records] == table["variant"].to_pylist()


def tfrecord_rows(path: Path) -> list[dict[str, Any]]:
    data, position, rows = path.read_bytes(), 0, []
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        rows.append(dict(parse_example(data[position + 12 : position + 12 + length])))
        position += 16 + length
    return rows


def test_a_dataset_with_variants_is_valid_verified_and_described(dataset: Path) -> None:
    store, rows = Store(str(dataset)), rows_of(dataset)
    assert validate(store, 1, lambda number: None) == []
    result = verify(store, 1000, 0, lambda number: None)
    assert result.passed, (result.beyond[:3], result.skipped)
    assert result.rows == len(rows)
    card = (dataset / "README.md").read_text()
    counts = {n: sum(key[1] == n for key in rows) for n in SPEEDS}
    assert f"variant 1, speed 0.9: {counts[1]:,} rows" in card
    assert f"variant 3, speed 1.25, gain_db -6 to -6: {counts[3]:,} rows" in card
    assert f"  variant 2, gain_db -12 to 0: {counts[2]:,} rows" in inspection_text(
        str(dataset), OpenSnapshot.current(store)
    )
    statistics = json.loads((dataset / "statistics.json").read_text())
    splits = statistics["splits"].values()
    counted = dict.fromkeys(SPEEDS, 0)
    for split in splits:
        for entry in split["variants"]:
            counted[entry["value"]] += entry["rows"]
            assert entry["recordings"] == split["recordings"]
        assert sum(split["seconds_histogram"]["counts"]) == split["recordings"]
        assert split["labels"].keys() == {"genre"}
        genres = split["labels"]["genre"]
        assert sum(entry["recordings"] for entry in genres) == split["recordings"]
        assert sum(entry["rows"] for entry in genres) == split["rows"]
    assert counted == counts
    train = [row for row in rows.values() if row["split"] == "train"]
    # Statistics count the rows of all variants.
    assert statistics["values_per_band"] == sum(row["valid_frames"] for row in train)


def test_verify_finds_a_wrong_variant(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melmill.pipelines.snapshots import verify_reference

    monkeypatch.setattr(verify_reference, "gain_factor", lambda *_: 0.9)
    result = verify(Store(str(dataset)), 1000, 0, lambda number: None)
    assert not result.passed


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of the variant of each decoded span."""
    monkeypatch.setattr("melmill.transforms.beam.do_fns.borrow_decoder", lambda _: InThisProcess())
    monkeypatch.setattr("melmill.transforms.beam.do_fns.return_decoder", lambda *_: None)
    real, seen = extracting.extract_and_measure, list[int]()

    def extract_and_measure(spans: Any, *others: Any) -> Any:
        seen.extend(span.variant for span in spans)
        return real(spans, *others)

    monkeypatch.setattr(extracting, "extract_and_measure", extract_and_measure)
    return seen


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param("[]", "[{speed: 0.9}, {gain_db: -3}]", {1, 2}, marks=pytest.mark.slow),
        ("[{speed: 0.9}, {gain_db: -3}]", "[{speed: 0.9}, {gain_db: -4}]", {2}),
        pytest.param(
            "[{speed: 0.9}, {gain_db: -3}]", "[{speed: 0.9}]", set(), marks=pytest.mark.slow
        ),
        pytest.param("[{speed: 0.9}]", "[]", set(), marks=pytest.mark.slow),
    ],
)
def test_a_refresh_computes_only_the_variants_that_changed(
    songs: Path, tmp_path: Path, computed: list[int], before: str, after: str, expected: set[int]
) -> None:
    extract_here(songs, tmp_path / "set", *BASE, f"variants={before}")
    computed.clear()
    result = refresh_here(songs, tmp_path / "set", *BASE, f"variants={after}")
    assert result.committed
    assert set(computed) == expected
    extract_here(songs, tmp_path / "fresh", *BASE, f"variants={after}")
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "fresh")
    assert validate(Store(str(tmp_path / "set")), 1, lambda number: None) == []
    assert not refresh_here(songs, tmp_path / "set").committed


def test_merged_shards_keep_the_rows(songs: Path, dataset: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "set", *BASE, VARIANTS)
    compact(Store(str(tmp_path / "set")), here())
    assert rows_of(tmp_path / "set") == rows_of(dataset)


def test_variants_at_several_rates_are_the_same_sound_and_have_no_measures(
    songs: Path, tmp_path: Path
) -> None:
    settings = (*BASE, f"features=[{SAMPLES},{HIGH},{LEVELS}]")
    extract_here(songs, tmp_path / "set", *settings, "variants=[{speed: 0.8, gain_db: [-20, 20]}]")
    for (_, variant, _), row in rows_of(tmp_path / "set").items():
        assert (row["quality_level_peak"] is None) == (variant == 1)
        low, high = (np.array(row[name], np.float64) for name in ("samples", "high"))
        # Noise below 2 kHz has at most its power in both; the same gain was drawn for both.
        valid = row["valid_samples"]
        spectra = np.abs(np.fft.rfft(low[:valid])), np.abs(np.fft.rfft(high[: 2 * valid]))
        bins = slice(5, valid // 4)
        if valid == 1000:
            ratio = spectra[1][bins].mean() / spectra[0][bins].mean()
            assert ratio == pytest.approx(2, rel=0.15)


def test_a_failure_of_a_variant_fails_the_whole_recording(songs: Path, tmp_path: Path) -> None:
    loud = tmp_path / "songs"
    write_song(loud / "a.wav", 1, 1.0)
    soundfile.write(loud / "b.wav", np.full(RATE, 1e36, np.float32), RATE, "FLOAT")
    settings = (*BASE, f"features=[{SAMPLES}]", "limits.max_failure_ratio=1")
    extract_here(loud, tmp_path / "plain", *settings)
    assert melmill.open(tmp_path / "plain").rows == {"train": 8}
    extract_here(loud, tmp_path / "set", *settings, "variants=[{gain_db: 60}]")
    assert {name for name, _, _ in rows_of(tmp_path / "set")} == {"a.wav"}
    assert melmill.open(tmp_path / "set").failures()["cause"].to_pylist() == ["non_finite"]


@pytest.mark.slow
def test_a_label_named_variant_is_refused_only_beside_variants(tmp_path: Path) -> None:
    write_song(tmp_path / "a.wav", 1, 1.0)
    table = write_table(tmp_path / "songs.jsonl", [{"uri": "a.wav", "variant": 7}])
    with pytest.raises(CatalogueError, match="label column 'variant'"):
        extract_here(table, tmp_path / "set", *BASE, VARIANTS)
    extract_here(table, tmp_path / "set", *BASE)
    assert {
        row["variant"] for row in melmill.open(tmp_path / "set").as_arrow().to_table().to_pylist()
    } == {7}
    refresh_here(table, tmp_path / "set", f"features=[{SAMPLES}]")
    assert melmill.open(tmp_path / "set").as_arrow().to_table()["variant"].to_pylist() == [7] * 4


def test_a_column_for_rows_is_refused(dataset: Path, tmp_path: Path) -> None:
    key = next(iter(rows_of(dataset).values()))["recording_id"]
    values = write_table(tmp_path / "v.jsonl", [{"recording_id": key, "chunk_index": 0, "x": 1}])
    with pytest.raises(ConfigError, match="has variants"):
        melmill.add_columns(dataset, values, on="row")


def test_segments_are_played_from_their_start(songs: Path, tmp_path: Path) -> None:
    entries = [{"uri": str(songs.parent / "3.wav"), "start": 0.5, "end": 1.5}]
    table = write_table(tmp_path / "segments.jsonl", entries)
    extract_here(table, tmp_path / "set", *BASE, "variants=[{speed: 0.8}, {speed: 1.25}]")
    rows = rows_of(tmp_path / "set")
    samples, rate = soundfile.read(songs.parent / "3.wav", dtype="float32")
    for variant, speed in ((1, 0.8), (2, 1.25)):
        own = [row for key, row in rows.items() if key[1] == variant]
        assert sum(row["valid_samples"] for row in own) == round(RATE / speed)
        assert min(row["start_sample"] for row in own) == round(0.5 * RATE / speed)
        whole = soxr.resample(samples, rate * speed, RATE, "HQ")
        for row in own:
            start, valid = row["start_sample"], row["valid_samples"]
            actual = np.array(row["samples"][:valid], np.float32)
            np.testing.assert_allclose(actual, whole[start : start + valid], atol=1e-6)


@pytest.mark.slow
def test_a_renamed_recording_has_the_rows_of_its_name(songs: Path, tmp_path: Path) -> None:
    folder, settings = tmp_path / "songs", (*BASE, VARIANTS, "catalogue.content_hashes=true")
    shutil.copytree(songs.parent, folder)
    (folder / "songs.jsonl").unlink()
    extract_here(folder, tmp_path / "set", *settings)
    (folder / "4.wav").rename(folder / "5.wav")
    assert refresh_here(folder, tmp_path / "set", "refresh.max_removed_ratio=1").committed
    extract_here(folder, tmp_path / "fresh", *settings)
    assert rows_of(tmp_path / "set") == rows_of(tmp_path / "fresh")


def test_rows_before_damage_are_kept_for_every_variant(songs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "songs"
    folder.mkdir()
    content = write_flac(folder / "a.flac", 3.0)
    (folder / "a.flac").write_bytes(content[: len(content) // 2])
    write_song(folder / "b.wav", 2, 1.0)
    settings = (*BASE, "limits.damaged=keep", "limits.max_failure_ratio=1")
    extract_here(folder, tmp_path / "set", *settings, VARIANTS)
    rows = rows_of(tmp_path / "set")
    lengths = [len(samples_of(rows, "a.flac", variant)) for variant in SPEEDS]
    assert 0 < lengths[0] < 3 * RATE
    for variant, speed in SPEEDS.items():
        assert lengths[variant] == np.ceil(lengths[0] / speed - 1e-6)


def write_flac(path: Path, seconds: float) -> bytes:
    write_audio(path, noise(seconds, RATE, 3), RATE, "flac")
    return path.read_bytes()


def test_the_explorer_and_patterns_show_recordings_as_they_are(dataset: Path) -> None:
    store = Store(str(dataset))
    rows = rows_of(dataset)
    own = {(key[0], key[2]) for key in rows if key[1] == 0}
    patterns = find_patterns(store, feature="mel", top=50)
    assert patterns.chunks
    assert {(Path(chunk.uri).name, chunk.chunk_index) for chunk in patterns.chunks} <= own
    reader, shown = ChunkReader(store), set()
    for recording in (
        melmill.open(dataset).recordings(["recording_id", "uri", "split", "shards"]).to_pylist()
    ):
        shown |= {(Path(recording["uri"]).name, c.chunk_index) for c in reader.chunks(recording)}
    assert shown == own


def test_a_wall_of_chunks_shows_each_chunk_of_a_recording_once(dataset: Path) -> None:
    opened, rows = melmill.open(dataset), rows_of(dataset)
    columns = ["recording_id", "uri", "split", "shards", "rows"]
    (recording, *_) = opened.recordings(columns).to_pylist()
    picks = [Pick(recording["recording_id"], number) for number in range(recording["rows"])]
    table: Any = SimpleNamespace(query=lambda sql, values: [recording])
    wall = hang_wall(table, ChunkReader(Store(str(dataset))), picks)
    name = Path(recording["uri"]).name
    shown = [card.chunk.chunk_index for card in wall.cards]
    assert sorted(shown) == sorted(key[2] for key in rows if key[:2] == (name, 0))


def test_webdataset_has_a_key_for_every_row(dataset: Path, tmp_path: Path) -> None:
    melmill.export(dataset, tmp_path / "view", format="webdataset", normalize="per_recording")
    names = list[str]()
    for path in tmp_path.glob("view/**/*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    keys = [name for name in names if name.endswith(".json")]
    assert len(set(keys)) == len(keys) == len(rows_of(dataset))


@pytest.mark.slow
def test_added_values_of_recordings_stay_when_variants_come(songs: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *BASE)
    names = ("recording_id", "chunk_index")
    keys = [{name: row[name] for name in names} for row in rows_of(dataset).values()]
    of_rows = write_table(tmp_path / "rows.jsonl", [{**key, "score": 1.5} for key in keys])
    ids = [{"recording_id": name, "mood": 3} for name in {key["recording_id"] for key in keys}]
    of_recordings = write_table(tmp_path / "recordings.jsonl", ids)
    melmill.add_columns(dataset, of_rows, on="row")
    melmill.add_columns(dataset, of_recordings, on="recording_id")
    refresh_here(songs, dataset, *BASE, "variants=[{gain_db: -3}]")
    assert "score" not in melmill.open(dataset).columns
    moods = melmill.open(dataset).as_arrow().to_table(["mood", "variant"]).to_pylist()
    assert {(row["mood"], row["variant"]) for row in moods} == {(3, 0), (3, 1)}
    read = polars.read_delta(str(dataset), columns=["variant", "samples"])
    assert read["variant"].value_counts().sort("variant")["count"].to_list() == [len(keys)] * 2

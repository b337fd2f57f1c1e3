"""A refresh with another list of features computes what changed, and carries the rest over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import melmill
from melmill.pipelines.snapshots.validate import validate
from melmill.transforms.features.spec import FeatureSpec
from melmill.transforms.shards import extracting
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import extract_here, refresh_here
from tests.refresh.catalogues import write_song, write_table
from tests.refresh.machine import InThisProcess

RATE = 4000
MEL = "{name: mel, kind: mel, n_fft: 256, hop_length: 128, n_mels: 8}"
FINE = "{name: fine, kind: stft, n_fft: 512, hop_length: 64}"
SAMPLES = "{name: samples, kind: waveform, dtype: int16}"
HIGH = "{name: high, kind: waveform, sample_rate_hz: 8000}"
LOUD = "{name: quality, kind: measures, meters: [level, loudness]}"
CLIPPED = "{name: quality, kind: measures, meters: [level, clipping]}"
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.25",
    "chunk.tail=pad",
    "output.row_group_rows=3",
    "output.min_shards=4",
    "split.fractions={train: 0.5, test: 0.5}",
)


def recipe(*entries: str) -> list[str]:
    return [*BASE, f"features=[{','.join(entries)}]"]


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    for number in range(6):
        write_song(folder / f"{number}.wav", number, 0.4 + 0.7 * number, RATE * (1 + number % 2))
    rows = [{"uri": f"{number}.wav", "genre": f"g{number}"} for number in range(6)]
    return write_table(folder / "songs.jsonl", rows)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return a list that gets the names of the features of each decoded span."""
    monkeypatch.setattr("melmill.transforms.beam.do_fns.borrow_decoder", lambda _: InThisProcess())
    monkeypatch.setattr("melmill.transforms.beam.do_fns.return_decoder", lambda *_: None)
    real, seen = extracting.extract_and_measure, list[tuple[str, ...]]()

    def extract_and_measure(spans: Any, features: FeatureSpec, *others: Any) -> Any:
        seen.extend([tuple(feature.name for feature in features.features)] * len(spans))
        return real(spans, features, *others)

    monkeypatch.setattr(extracting, "extract_and_measure", extract_and_measure)
    return seen


def rows(dataset: Path) -> list[dict[str, Any]]:
    order = [("uri", "ascending"), ("chunk_index", "ascending")]
    table = melmill.open(dataset).as_arrow().to_table()
    order += [("channel", "ascending")] if "channel" in table.column_names else []
    result: list[dict[str, Any]] = table.sort_by(order).to_pylist()
    return result


def assert_as_fresh(catalogue: Path, dataset: Path, fresh: Path, settings: list[str]) -> None:
    extract_here(catalogue, fresh, *settings)
    assert rows(dataset) == rows(fresh)
    assert validate(Store(str(dataset)), 1, lambda number: None) == []
    digests = [
        melmill.open(path).recordings(["recording_id", "rows", "rows_digest"]).to_pylist()
        for path in (dataset, fresh)
    ]
    by_id = [sorted(table, key=lambda row: row["recording_id"]) for table in digests]
    assert by_id[0] == by_id[1]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([MEL], [SAMPLES, FINE, MEL], ("samples", "fine")),
        ([MEL, SAMPLES], [MEL], None),
        pytest.param([MEL, SAMPLES, FINE], [FINE, MEL], None, marks=pytest.mark.slow),
        ([MEL, SAMPLES], [MEL.replace("8}", "9}"), SAMPLES], ("mel",)),
        pytest.param([MEL], [MEL, HIGH], ("high",), marks=pytest.mark.slow),
        ([MEL, HIGH], [HIGH, FINE], ("fine",)),
        ([SAMPLES], [SAMPLES.replace("int16", "int16, encoding: flac")], ("samples",)),
        ([MEL, LOUD], [MEL, CLIPPED], ("quality",)),
        pytest.param(
            [LOUD, MEL], [MEL.replace("8}", "9}"), LOUD], ("mel",), marks=pytest.mark.slow
        ),
        pytest.param([MEL], [MEL, LOUD], ("quality",), marks=pytest.mark.slow),
        pytest.param([MEL, LOUD], [LOUD], None, marks=pytest.mark.slow),
    ],
)
def test_only_what_changed_is_computed(
    songs: Path,
    tmp_path: Path,
    computed: list[tuple[str, ...]],
    before: list[str],
    after: list[str],
    expected: tuple[str, ...] | None,
) -> None:
    extract_here(songs, tmp_path / "set", *recipe(*before))
    computed.clear()
    result = refresh_here(songs, tmp_path / "set", *recipe(*after))
    assert result.difference["recomputed"] == 6
    assert set(computed) == ({expected} if expected else set())
    assert_as_fresh(songs, tmp_path / "set", tmp_path / "fresh", recipe(*after))
    assert not refresh_here(songs, tmp_path / "set").committed


def test_a_mel_of_its_own_section_is_carried_into_a_list(
    songs: Path, tmp_path: Path, computed: list[tuple[str, ...]]
) -> None:
    section = ["mel.n_fft=256", "mel.hop_length=128", "mel.n_mels=8"]
    extract_here(songs, tmp_path / "set", *BASE, *section)
    computed.clear()
    refresh_here(songs, tmp_path / "set", *recipe(MEL, SAMPLES))
    assert set(computed) == {("samples",)}
    assert_as_fresh(songs, tmp_path / "set", tmp_path / "fresh", recipe(MEL, SAMPLES))


@pytest.mark.parametrize(
    "setting",
    ["chunk.seconds=0.3", "audio.sample_rate_hz=5000"],
)
def test_with_other_chunks_all_is_computed(
    songs: Path, tmp_path: Path, computed: list[tuple[str, ...]], setting: str
) -> None:
    extract_here(songs, tmp_path / "set", *recipe(MEL))
    computed.clear()
    refresh_here(songs, tmp_path / "set", *recipe(MEL, SAMPLES), setting)
    assert set(computed) == {("mel", "samples")}
    assert_as_fresh(songs, tmp_path / "set", tmp_path / "f", [*recipe(MEL, SAMPLES), setting])


@pytest.mark.slow
def test_changes_of_the_catalogue_come_at_the_same_time(
    songs: Path, tmp_path: Path, computed: list[tuple[str, ...]]
) -> None:
    extract_here(songs, tmp_path / "set", *recipe(MEL))
    computed.clear()
    write_song(songs.with_name("1.wav"), 77, 1.7)  # changed
    write_song(songs.with_name("new.wav"), 78, 0.9)
    names = ["1", "2", "3", "4", "5", "new"]  # 0 is gone
    write_table(songs, [{"uri": f"{name}.wav", "genre": "all"} for name in names])
    refresh_here(songs, tmp_path / "set", *recipe(SAMPLES, MEL))
    assert set(computed) == {("samples",), ("samples", "mel")}
    assert computed.count(("samples", "mel")) == 2
    assert_as_fresh(songs, tmp_path / "set", tmp_path / "fresh", recipe(SAMPLES, MEL))


def test_channels_and_long_recordings_over_several_shards(
    tmp_path: Path, computed: list[tuple[str, ...]]
) -> None:
    import soundfile

    (tmp_path / "songs").mkdir()
    for number, seconds in enumerate((0.3, 9.0, 1.0)):
        frames = int(seconds * RATE)
        samples = np.random.default_rng(number).normal(0, 0.1, (frames, 2))
        soundfile.write(tmp_path / f"songs/{number}.wav", samples, RATE)
    settings = ["audio.channels=each", "output.min_shards=6"]
    extract_here(tmp_path / "songs", tmp_path / "set", *recipe(MEL), *settings)
    computed.clear()
    more = [*settings, "output.order_seed=3", "output.min_shards=4"]
    refresh_here(tmp_path / "songs", tmp_path / "set", *recipe(FINE, MEL), *more)
    assert set(computed) == {("fine",)}
    together = [*recipe(FINE, MEL), *more]
    assert_as_fresh(tmp_path / "songs", tmp_path / "set", tmp_path / "fresh", together)


@pytest.mark.slow
def test_sources_that_are_gone_are_needed_only_for_what_is_new(
    songs: Path, tmp_path: Path, computed: list[tuple[str, ...]]
) -> None:
    """The files exist when they are listed, and cannot be read: nothing reads them."""
    extract_here(songs, tmp_path / "set", *recipe(MEL, SAMPLES))
    before = [{k: v for k, v in row.items() if k != "samples"} for row in rows(tmp_path / "set")]
    computed.clear()
    refresh_here(songs, tmp_path / "set", *recipe(MEL))
    assert not computed
    assert rows(tmp_path / "set") == before


def test_a_damaged_shard_is_computed_again(
    songs: Path, tmp_path: Path, computed: list[tuple[str, ...]]
) -> None:
    extract_here(songs, tmp_path / "set", *recipe(MEL))
    computed.clear()
    (shard, *_) = sorted((tmp_path / "set").glob("split=*/*.parquet"))
    content = bytearray(shard.read_bytes())
    metadata = pq.read_metadata(shard).row_group(0)
    (mel,) = (
        metadata.column(i)
        for i in range(metadata.num_columns)
        if metadata.column(i).path_in_schema.startswith("mel.")
    )
    content[mel.data_page_offset + 60] ^= 255
    shard.write_bytes(content)
    refresh_here(songs, tmp_path / "set", *recipe(MEL, SAMPLES))
    assert set(computed) == {("samples",), ("mel", "samples")}
    assert_as_fresh(songs, tmp_path / "set", tmp_path / "fresh", recipe(MEL, SAMPLES))


def test_features_have_the_same_names_only_if_they_are_the_same() -> None:
    from melmill.pipelines.config import load_config

    def spec(*settings: str) -> FeatureSpec:
        return load_config(None, settings).feature_spec()

    default = spec()
    assert default.unchanged_since(default.canonical()) == ("mel",)
    assert spec("mel.n_mels=64").unchanged_since(default.canonical()) == ()
    assert spec("chunk.seconds=2").unchanged_since(default.canonical()) == ()
    assert spec("output.resolution=1/64").unchanged_since(default.canonical()) == ()
    both = spec(f"features=[{SAMPLES},{{name: mel, kind: mel}}]")
    assert both.unchanged_since(default.canonical()) == ("mel",)
    assert default.unchanged_since(both.canonical()) == ("mel",)
    now = '"extractor_version":3'
    older, same, later = (default.canonical().replace(now, f"{now[:-1]}{n}") for n in (1, 2, 4))
    assert (both.unchanged_since(older), both.unchanged_since(later)) == ((), ())
    assert both.unchanged_since(same) == ("mel",)

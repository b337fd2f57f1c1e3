"""Test `melmill patterns`: the real command, on real encoded audio."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

import melmill
from melmill.pipelines.patterns import find_patterns
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.patterns import scanning
from melmill.transforms.patterns.results import Patterns
from melmill.transforms.store.folders import Store
from tests import signals
from tests.onnx_models import write_encoder
from tests.pipeline_runs import extract_here, melmill_json, refresh_here
from tests.pipeline_runs import melmill as command

RATE, SECONDS = 22_050, 9.5
QUICK = "chunk.seconds=1", "mel.n_mels=32"


def speech(seconds: float, seed: int) -> np.ndarray:
    """Return babble: vowels of a voice, fricatives and pauses, four syllables a second."""
    rng, syllables = np.random.default_rng(seed), []
    while sum(map(len, syllables)) < seconds * RATE:
        length = round(rng.uniform(0.1, 0.2) * RATE)
        pulses = np.zeros(length)
        pulses[:: round(RATE / rng.uniform(100, 140))] = 1
        for hz in rng.uniform([300, 900, 2300], [800, 2000, 3000]):
            pole = 0.98 * np.exp(2j * np.pi * hz / RATE)
            pulses = lfilter([1], np.poly([pole, pole.conj()]).real, pulses)
        vowel = 0.3 * pulses / np.abs(pulses).max() * np.hanning(length)
        hiss = np.diff(rng.normal(0, 0.04, length // 2), prepend=0) * np.hanning(length // 2)
        syllables += [hiss, vowel, np.zeros(round(rng.uniform(0.02, 0.2) * RATE))]
    return np.concatenate(syllables)[: round(seconds * RATE)] + rng.normal(
        0, 1e-4, round(seconds * RATE)
    )


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(14):
        signals.write_audio(folder / f"song{seed}.flac", signals.song(SECONDS, RATE, seed), RATE)
    signals.write_audio(folder / "song3-copy.mp3", signals.song(SECONDS, RATE, 3), RATE)
    signals.write_audio(folder / "noise.wav", signals.noise(4.2, RATE, amplitude=0.2), RATE)
    signals.write_audio(folder / "speech.ogg", speech(5, 0), RATE)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    return folder


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "set"
    extract_here(songs, folder, *QUICK, "limits.max_failure_ratio=1")
    return folder


def find(dataset: Path, **arguments: Any) -> Patterns:
    return find_patterns(Store(str(dataset)), **arguments)


def names(items: Any) -> list[str]:
    return [Path(item.uri).name for item in items]


def test_noise_and_speech_among_songs_are_the_most_unusual(dataset):
    found = find(dataset)
    assert (found.compared, found.version, found.feature) == (17, 0, "mel")
    assert set(names(found.recordings)[:2]) == {"noise.wav", "speech.ogg"}
    # A second of a song has low notes only.
    assert {"noise.wav", "speech.ogg"} <= set(names(found.chunks)[:3])
    unusual, rest = found.recordings[:2], found.recordings[2:]
    assert min(r.distance for r in unusual) > 1.5 * max(r.distance for r in rest)
    assert len(found.recordings) == len(found.chunks) == 17
    noise = next(r for r in unusual if r.uri.endswith("noise.wav"))
    assert {"spectrum.centroid", "noise.floor"} <= {reason.measure for reason in noise.reasons}
    assert all(reason.deviation > 3 for reason in noise.reasons)
    assert (noise.seconds, noise.chunks) == (pytest.approx(4.2), 4)


def test_the_copy_of_a_song_is_most_like_it(dataset):
    for like in ("song3-copy.mp3", "song3.flac"):
        found = find(dataset, like=like, top=3)
        other = {"song3-copy.mp3": "song3.flac", "song3.flac": "song3-copy.mp3"}[like]
        assert names(found.recordings)[0] == other
        assert len(found.recordings) == len(found.chunks) == 3
        assert like not in names(found.recordings)
        assert Path(found.like.uri).name == like
        assert found.recordings[0].distance < 0.6 * found.recordings[1].distance


def test_a_recording_is_named_by_its_id_its_uri_or_the_end_of_it(dataset, songs):
    table = melmill.open(dataset).recordings(["recording_id", "uri"]).to_pylist()
    row = next(row for row in table if row["uri"].endswith("song7.flac"))
    expected = find(dataset, like="song7.flac")
    for like in (row["recording_id"], row["uri"], f"{songs.name}/song7.flac"):
        assert find(dataset, like=like) == expected


def test_clusters_divide_speech_from_songs_from_noise(songs, tmp_path):
    catalogue = tmp_path / "mixed"
    catalogue.mkdir()
    for seed in range(5):
        (catalogue / f"song{seed}.flac").symlink_to(songs / f"song{seed}.flac")
    for seed in range(4):
        signals.write_audio(catalogue / f"speech{seed}.wav", speech(4, seed), RATE)
    for seed in range(3):
        signals.write_audio(catalogue / f"noise{seed}.wav", signals.noise(3, RATE, seed), RATE)
    extract_here(catalogue, tmp_path / "set", *QUICK)
    clusters = find(tmp_path / "set", clusters=3).clusters
    assert [cluster.recording_count for cluster in clusters] == [5, 4, 3]
    for cluster, name in zip(clusters, ("song", "speech", "noise"), strict=True):
        assert {n[: len(name)] for n in names(cluster.nearest)} == {name}
    assert "spectrum" in {reason.measure.split(".")[0] for reason in clusters[2].typical}
    # As many groups as recordings, and a single one.
    assert sum(c.recording_count for c in find(tmp_path / "set", clusters=12).clusters) == 12
    assert [c.recording_count for c in find(tmp_path / "set", clusters=1).clusters] == [12]


def test_the_answer_does_not_depend_on_the_shards(songs, dataset, tmp_path):
    settings = "output.min_shards=40", "output.shard_megabytes=0.1", "limits.max_failure_ratio=1"
    extract_here(songs, tmp_path / "many", *QUICK, *settings)
    shards = melmill.open(tmp_path / "many").recordings(["shards"])["shards"].to_pylist()
    assert max(map(len, shards)) > 1
    one, many = find(dataset, clusters=2), find(tmp_path / "many", clusters=2)
    assert names(one.recordings) == names(many.recordings)
    # Sums are rounded in another order.
    np.testing.assert_allclose(
        [r.distance for r in one.recordings], [r.distance for r in many.recordings], rtol=1e-4
    )
    sizes = ([c.recording_count for c in found.clusters] for found in (one, many))
    assert next(sizes) == next(sizes)
    assert find(dataset, clusters=2) == one


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_finds_the_same_outliers(dataset, monkeypatch, seed):
    """The sample is nearly all chunks, but which song looks unusual in it depends on the draw."""
    everything = find(dataset)
    monkeypatch.setattr(scanning, "_CHUNKS", 128)
    monkeypatch.setattr(scanning, "_SEED", seed)
    sampled = find(dataset)
    assert sampled.compared_chunks == everything.compared_chunks > 128
    outliers = set(names(everything.recordings)[:2])
    assert names(sampled.recordings)[0] in outliers
    assert outliers <= set(names(sampled.recordings)[:3])


def test_a_split_alone_is_read(dataset):
    splits = melmill.open(dataset).rows
    found = find(dataset, split="train")
    assert found.compared_chunks == splits["train"]
    assert {r.split for r in (*found.recordings, *found.chunks)} == {"train"}
    other = next(r for r in find(dataset).recordings if r.split != "train")
    assert find(dataset, split="train", like=other.uri).like.split == other.split


def test_progress_counts_the_chunks(dataset):
    reported: list[int] = []
    found = find(dataset, report=reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == found.compared_chunks


@pytest.mark.slow
def test_other_features_are_compared_and_some_cannot_be(songs, tmp_path):
    write_encoder(tmp_path / "model.onnx", RATE)
    features = (
        "features=["
        "{name: waves, kind: waveform}, {name: cepstra, kind: mfcc}, "
        f"{{name: vectors, kind: model, model: {tmp_path / 'model.onnx'}, shape: [6]}}, "
        "{name: quality, kind: measures, meters: [gaps]}]"
    )
    settings = ["chunk.seconds=1", features, "limits.max_failure_ratio=1"]
    melmill.extract(songs, tmp_path / "set", settings=settings, workers=1)
    assert set(names(find(tmp_path / "set", feature="cepstra").recordings)[:2]) == {
        "noise.wav",
        "speech.ogg",
    }
    assert find(tmp_path / "set", feature="vectors").feature == "vectors"
    with pytest.raises(ConfigError, match=r"waveform.*cannot be compared.*: cepstra, vectors$"):
        find(tmp_path / "set")
    with pytest.raises(ConfigError, match=r"'mel'.*no such feature.*: cepstra, vectors$"):
        find(tmp_path / "set", feature="mel")
    with pytest.raises(ConfigError, match=r"its kind, measures, cannot be compared"):
        find(tmp_path / "set", feature="quality_gaps_count")


def test_the_first_feature_that_is_no_measure_is_compared(songs, tmp_path):
    features = "{name: quality, kind: measures, meters: [gaps]}, {name: cepstra, kind: mfcc}"
    settings = f"audio.sample_rate_hz={RATE}", "chunk.seconds=1", "limits.max_failure_ratio=1"
    extract_here(songs, tmp_path / "set", *settings, f"features=[{features}]")
    assert find(tmp_path / "set").feature == "cepstra"


def test_without_measures_there_are_no_reasons(songs, tmp_path):
    extract_here(songs, tmp_path / "set", *QUICK, "quality=off", "limits.max_failure_ratio=1")
    found = find(tmp_path / "set", clusters=2)
    assert not found.measured
    assert not any(r.reasons for r in found.recordings)
    assert not any(cluster.typical for cluster in found.clusters)


def test_rows_of_each_channel_are_compared(tmp_path):
    catalogue = tmp_path / "songs"
    catalogue.mkdir()
    for seed in range(6):
        song = signals.song(3, RATE, seed, channels=2)
        if seed == 5:
            song[:, 1] = signals.noise(3, RATE)
        signals.write_audio(catalogue / f"{seed}.flac", song, RATE)
    extract_here(catalogue, tmp_path / "set", *QUICK, "audio.channels=each")
    found = find(tmp_path / "set")
    assert (names(found.recordings)[0], names(found.chunks)[0]) == ("5.flac", "5.flac")
    assert (found.chunks[0].channel, found.recordings[0].chunks) == (1, 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"like": "sonk3.flac"}, r"no such recording.*did you mean .*song3.flac"),
        ({"like": "broken.flac"}, "has no rows to compare"),
        ({"like": ""}, "no such recording"),
        ({"feature": "stft"}, "no such feature; these can be compared: mel"),
        ({"top": 0}, "top: 0: must be at least 1"),
        ({"clusters": 0}, "clusters: 0: must be at least 1"),
        ({"clusters": 18}, "clusters: 18: must be at most 17"),
        ({"split": "dev"}, "no such split with rows; there are: .*train"),
    ],
)
def test_wrong_arguments_are_named(dataset, arguments, words):
    with pytest.raises(ConfigError, match=words):
        find(dataset, **arguments)


def test_segments_of_a_file_are_told_apart_by_their_ids(songs, tmp_path):
    table = tmp_path / "segments.csv"
    rows = [f"{songs / 'song1.flac'},{start},{start + 2}" for start in (0, 2, 4)]
    table.write_text("\n".join(["uri,start,end", *rows]) + "\n")
    extract_here(table, tmp_path / "set", *QUICK)
    with pytest.raises(ConfigError, match="several recordings; give an id: ") as raised:
        find(tmp_path / "set", like="song1.flac")
    recording_id = str(raised.value).partition("give an id: ")[2].split()[0]
    found = find(tmp_path / "set", like=recording_id)
    assert (found.like.recording_id, len(found.recordings)) == (recording_id, 2)


def test_a_dataset_without_rows_says_how_to_make_them(songs, tmp_path):
    folder = tmp_path / "set"
    melmill.measure(songs, folder, settings=["limits.max_failure_ratio=1", *QUICK], workers=1)
    with pytest.raises(DatasetError, match="has no rows to compare") as raised:
        find(folder)
    assert f"melmill refresh {songs} {folder} --set select=null" in str(raised.value)
    refresh_here(songs, folder, "select=null")
    assert find(folder).compared == 17
    with pytest.raises(DatasetError):
        find(tmp_path / "none")


def test_the_command_prints_the_lists_and_writes_a_table(dataset, tmp_path):
    arguments = "patterns", dataset, "--top", "4", "--clusters", "2", "--csv", tmp_path / "p.csv"
    printed = command(*arguments, "--quiet")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.startswith(f"{dataset} (version 0): 17 recordings, ")
    assert "Recordings most unusual" in printed.stdout
    assert "spectrum.centroid" in printed.stdout
    assert "Cluster 2: " in printed.stdout
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["list"] for row in rows[:8]] == ["recording"] * 4 + ["chunk"] * 4
    assert {row["cluster"] for row in rows[8:]} == {"1", "2"}
    found = json.loads(json.dumps(melmill_json(*arguments, "--quiet")))
    assert [r["uri"] for r in found["recordings"]] == [row["uri"] for row in rows[:4]]
    assert found["recordings"][0]["reasons"][0]["measure"]


def test_the_command_says_what_is_wrong(dataset):
    completed = command("patterns", dataset, "--like", "nothing.wav")
    assert completed.returncode == 2
    assert completed.stderr.startswith("melmill: like: 'nothing.wav': ")
    assert melmill.patterns(dataset, like="song1.flac", top=1).recordings

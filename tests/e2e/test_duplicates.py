"""Test `melmill duplicates`: the real command, on real encoded audio."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr

import melmill
from melmill.pipelines.cli.duplicate_texts import duplicates_text, write_exclude_list
from melmill.pipelines.duplicates import Duplicates, MatchedRecording, best_first, find_duplicates
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here, here, melmill_json, refresh_here
from tests.pipeline_runs import melmill as command

RATE, SECONDS = 22_050, 16
QUALITY = "quality=[basic, acoustic]"
#: Copies of each song by the file's name, and how they are written.
COPIES = {
    "copy.mp3": lambda song: (song, RATE),
    "copy.ogg": lambda song: (song, RATE),
    "copy.opus": lambda song: (soxr.resample(song, RATE, 48_000), 48_000),
    "quiet.flac": lambda song: (0.25 * song, RATE),
    "low.wav": lambda song: (soxr.resample(song, RATE, 16_000), 16_000),
    "trimmed.flac": lambda song: (song[round(1.45 * RATE) :], RATE),
    "mono.mp3": lambda song: (song.mean(axis=1), RATE),
}


def write_songs(folder: Path, seeds: range, copies: Any = COPIES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        song = signals.song(SECONDS, RATE, seed=seed, channels=2)
        signals.write_audio(folder / f"song{seed}.flac", song, RATE)
        for name, change in copies.items():
            signals.write_audio(folder / f"song{seed}-{name}", *change(song))
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_songs(tmp_path_factory.mktemp("songs"), range(3))
    # The same samples in another container.
    song = signals.song(SECONDS, RATE, seed=0, channels=2)
    samples, _ = soundfile.read(folder / "song0.flac", dtype="int16")
    soundfile.write(folder / "song0-exact.wav", samples, RATE)
    shutil.copy(folder / "song1-copy.mp3", folder / "song1-copied.mp3")
    # Too short for a fingerprint, but exact; silent; a part of a song; broken.
    for name in ("short1.wav", "short2.flac"):
        soundfile.write(folder / name, samples[:RATE], RATE)
    for name in ("silent1.wav", "silent2.wav"):
        signals.write_audio(folder / name, np.zeros(round((8 + len(name)) * RATE)), RATE)
    signals.write_audio(folder / "silent3.wav", np.zeros(5 * RATE), RATE)
    signals.write_audio(folder / "part.ogg", song[5 * RATE : 13 * RATE], RATE)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    return folder


@pytest.fixture(scope="module")
def dataset(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "set"
    extract_here(songs, folder, QUALITY, "limits.max_failure_ratio=1", "chunk.short=pad")
    return folder


def found_in(*datasets: Path) -> Duplicates:
    return find_duplicates([Store(str(dataset)) for dataset in datasets], here())


def names_of(found: Duplicates) -> list[set[str]]:
    return [{Path(member.uri).name for member in members} for members in found.groups]


def test_copies_are_in_the_group_of_their_song_and_nothing_else(songs, dataset):
    groups = names_of(found_in(dataset))
    for seed in range(3):
        copies = {path.name for path in songs.glob(f"song{seed}*")}
        assert copies in groups
    assert {"short1.wav", "short2.flac"} in groups
    assert {"silent1.wav", "silent2.wav"} in groups  # all samples are equal
    assert len(groups) == 5


def test_matches_say_what_kind_they_are_and_where(dataset):
    matches = {
        (Path(match.first.uri).name, Path(match.second.uri).name): match
        for match in found_in(dataset).matches
    }
    exact = matches["song0-exact.wav", "song0.flac"]
    assert (exact.kind, exact.error, exact.overlap_seconds) == ("exact", 0.0, SECONDS)
    assert matches["song1-copied.mp3", "song1-copy.mp3"].kind == "exact"
    quiet = matches["song2-quiet.flac", "song2.flac"]
    assert (quiet.kind, quiet.offset_seconds) == ("same", 0.0)
    trimmed = matches["song2-trimmed.flac", "song2.flac"]
    assert trimmed.kind == "same"
    # Words are a tenth of a second apart.
    assert trimmed.offset_seconds == pytest.approx(1.45, abs=0.11)
    part = matches["part.ogg", "song0.flac"]
    assert (part.kind, part.offset_seconds) == ("contained", 5.0)
    assert 5 < part.overlap_seconds < 8


def recording(**changes: Any) -> MatchedRecording:
    values = {"dataset": 0, "recording_id": "", "uri": "/m", "split": "train", "status": "ok"}
    numbers = {"size_bytes": 1000, "seconds": 60.0, "sample_rate_hz": 44_100, "channels": 2}
    measured = {"digest": "", "bandwidth_hz": 20_000.0}
    return MatchedRecording(**{**values, **numbers, **measured, **changes})


@pytest.mark.parametrize(
    "better",
    [
        {"size_bytes": 2000},
        {"seconds": 70.0, "size_bytes": 1},
        {"bandwidth_hz": 23_000.0, "size_bytes": 1},
        {"channels": 6, "size_bytes": 1},
        {"uri": "/a"},
        {"seconds": 55.0, "size_bytes": 1001},
        {"bandwidth_hz": 18_500.0, "size_bytes": 1001},
    ],
)
def test_the_best_of_a_group_comes_first(better):
    best, other = recording(**better), recording()
    assert best_first([other, best]) == best_first([best, other]) == [best, other]


@pytest.mark.parametrize(
    "worse", [{"status": "partial"}, {"seconds": 50.0}, {"bandwidth_hz": None}, {"channels": 1}]
)
def test_a_larger_file_is_not_the_best_if_it_lacks_something(worse):
    best, other = recording(), recording(**worse, size_bytes=9000)
    assert best_first([other, best]) == [best, other]


def test_the_command_lists_groups_and_writes_tables_that_extract_takes(songs, dataset, tmp_path):
    printed = command(
        *("duplicates", dataset, "--csv", tmp_path / "matches.csv"),
        *("--exclude-list", tmp_path / "copies.csv", "--workers", "2"),
    )
    assert printed.returncode == 0, printed.stderr
    assert f"{dataset} (version 0): 32 recordings, 5 groups of duplicates" in printed.stdout
    assert "Parts of longer recordings:\n" in printed.stdout
    assert "part.ogg is in " in printed.stdout
    assert ", from 5.0 s on" in printed.stdout
    with (tmp_path / "matches.csv").open() as file:
        assert {row["kind"] for row in csv.DictReader(file)} == {"exact", "same", "contained"}
    copied = tmp_path / "set"
    shutil.copytree(dataset, copied)
    excluding = f"catalogue.exclude={tmp_path / 'copies.csv'}"
    refreshed = command("refresh", songs, copied, "--set", excluding)
    assert refreshed.returncode == 0, refreshed.stderr
    found = found_in(copied)
    assert (found.groups, found.recordings) == ((), 7)


@pytest.mark.slow
def test_json_has_all_groups_and_matches(dataset):
    printed = melmill_json("duplicates", dataset)
    found = found_in(dataset)
    assert len(printed["groups"]) == len(found.groups)
    assert len(printed["matches"]) == len(found.matches)
    assert printed["in_several_splits"] == len(found.leaking)
    assert json.dumps(printed["groups"][0][0]["uri"]) == json.dumps(found.groups[0][0].uri)


def test_what_two_datasets_share_is_found(songs, dataset, tmp_path):
    copies = {name: COPIES[name] for name in ("copy.ogg", "quiet.flac")}
    others = write_songs(tmp_path / "others", range(2, 4), copies)
    extract_here(others, tmp_path / "set", QUALITY)
    found = found_in(dataset, tmp_path / "set")
    (members,) = found.groups
    assert {Path(member.uri).name for member in members} >= {"song2.flac", "song2-copy.mp3"}
    assert {member.dataset for member in members} == {0, 1}
    for match in found.matches:
        assert {match.first.dataset, match.second.dataset} == {0, 1}
    printed = command("duplicates", dataset, "--against", tmp_path / "set")
    assert "1 group of shared recordings" in printed.stdout
    assert f" in {tmp_path / 'set'}" in printed.stdout


def test_what_another_dataset_has_is_excluded_from_this_one(songs, dataset, tmp_path):
    others = write_songs(tmp_path / "others", range(2, 4), {"quiet.flac": COPIES["quiet.flac"]})
    extract_here(others, tmp_path / "train", QUALITY)
    found = found_in(tmp_path / "train", dataset)
    with (tmp_path / "leaks.csv").open("w") as file:
        assert write_exclude_list(found, file) == []
    refresh_here(others, tmp_path / "train", f"catalogue.exclude={tmp_path / 'leaks.csv'}")
    assert found_in(tmp_path / "train", dataset).matches == ()
    names = melmill.open(tmp_path / "train").recordings(["uri"]).column("uri").to_pylist()
    assert {Path(name).name for name in names} == {"song3.flac", "song3-quiet.flac"}
    with pytest.raises(ConfigError, match="it is the same dataset"):
        found_in(dataset, dataset)


def test_a_file_with_other_segments_is_not_excluded(tmp_path):
    song = signals.song(30, RATE, seed=1)
    signals.write_audio(tmp_path / "both.flac", song, RATE)
    signals.write_audio(tmp_path / "half.flac", song[: 15 * RATE], RATE)
    rows = ["uri,start,end", "both.flac,0,15", "both.flac,15,30", "half.flac,,"]
    (tmp_path / "songs.csv").write_text("\n".join(rows))
    extract_here(tmp_path / "songs.csv", tmp_path / "set", QUALITY)
    found = found_in(tmp_path / "set")
    assert names_of(found) == [{"both.flac", "half.flac"}]
    with (tmp_path / "copies.csv").open("w") as file:
        left = write_exclude_list(found, file)
    excluded = (tmp_path / "copies.csv").read_text().splitlines()[1:]
    assert {Path(row.split(",")[0]).name for row in excluded} | {Path(u).name for u in left} <= {
        "both.flac",
        "half.flac",
    }
    assert not any("both.flac" in row.split(",")[0] for row in excluded)


def test_a_list_that_would_not_work_is_refused(dataset, tmp_path):
    refused = command("duplicates", dataset, "--exclude-list", tmp_path / "copies.txt")
    assert refused.returncode == 2
    assert "must end with .csv" in refused.stderr


def test_a_measured_catalogue_has_fingerprints(songs, tmp_path, dataset):
    few = write_songs(tmp_path / "few", range(1), {"quiet.flac": COPIES["quiet.flac"]})
    melmill.measure(few, tmp_path / "measured", settings=[QUALITY])
    found = melmill.duplicates(tmp_path / "measured")
    assert (found.recordings, len(found.groups), found.leaking) == (2, 1, ())


def test_an_index_that_is_missing_is_an_error(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "set")
    for part in (tmp_path / "set").glob("index/*/recordings-*"):
        part.unlink()
    with pytest.raises(DatasetError):
        found_in(tmp_path / "set")


def test_a_song_before_silence_is_a_part_of_it(tmp_path):
    song = signals.song(12, RATE, seed=4)
    (tmp_path / "songs").mkdir()
    signals.write_audio(tmp_path / "songs/song.flac", song, RATE)
    longer = np.concatenate([np.zeros(20 * RATE, np.float32), song])
    signals.write_audio(tmp_path / "songs/later.flac", longer, RATE)
    extract_here(tmp_path / "songs", tmp_path / "set", QUALITY)
    found = found_in(tmp_path / "set")
    (match,) = found.matches
    assert (found.groups, match.kind) == ((), "contained")
    assert Path(match.first.uri).name == "song.flac"
    assert match.offset_seconds == pytest.approx(20, abs=0.11)
    assert "song.flac is in " in duplicates_text(found)


def test_copies_after_a_refresh_are_found(songs, tmp_path):
    folder = write_songs(tmp_path / "songs", range(1), {})
    extract_here(folder, tmp_path / "set", QUALITY)
    assert found_in(tmp_path / "set").groups == ()
    write_songs(folder, range(1), {"copy.mp3": COPIES["copy.mp3"]})
    refresh_here(folder, tmp_path / "set")
    assert names_of(found_in(tmp_path / "set")) == [{"song0.flac", "song0-copy.mp3"}]


def test_without_fingerprints_the_message_says_how_to_make_them(tmp_path):
    copies, dataset = {"quiet.flac": COPIES["quiet.flac"]}, tmp_path / "a set"
    folder = write_songs(tmp_path / "my songs", range(1), copies)
    extract_here(folder, dataset)
    refused = command("duplicates", dataset)
    assert refused.returncode == 2
    advice = refused.stderr.partition("melmill refresh ")[2].strip()
    assert advice == f"'{folder}' '{dataset}' --set 'quality=[basic, acoustic]'"
    refresh_here(folder, dataset, QUALITY)
    assert names_of(found_in(dataset)) == [{path.name for path in folder.iterdir()}]


def write_clips(folder: Path, seeds: range, copies: dict[str, Any]) -> Path:
    """Write clips of 0.4 to 3 s, and copies of each: a format and a level."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        clip = signals.song(0.4 + 1.3 * (seed % 3), RATE, seed=seed)
        signals.write_audio(folder / f"clip{seed}.flac", clip, RATE)
        for name, (rate_hz, level) in copies.items():
            copy = soxr.resample(level * clip, RATE, rate_hz)
            signals.write_audio(folder / f"clip{seed}-{name}", copy, rate_hz)
    return folder


CLIP_COPIES = {
    "copy.mp3": (RATE, 1.0),
    "copy.m4a": (RATE, 1.0),
    "copy.ogg": (RATE, 0.4),
    "copy.opus": (48_000, 1.0),
    "low.wav": (8000, -1.0),
}


def test_copies_of_short_clips_are_found_by_their_waveforms(tmp_path):
    clips = write_clips(tmp_path / "clips", range(6), CLIP_COPIES)
    extract_here(clips, tmp_path / "set", QUALITY, "chunk.short=pad")
    printed = melmill_json("duplicates", tmp_path / "set")
    groups = [{Path(member["uri"]).name for member in group} for group in printed["groups"]]
    copies = [{path.name for path in clips.glob(f"clip{seed}[-.]*")} for seed in range(6)]
    assert sorted(groups, key=min) == copies
    for match in printed["matches"]:
        assert match["kind"] == "same"
        assert abs(match["offset_seconds"]) < 0.15
        assert match["error"] < 0.05
        assert 0.39 < match["overlap_seconds"] < 3.2


@pytest.mark.slow
def test_new_short_clips_are_matched_with_those_of_the_dataset_and_of_others(tmp_path):
    settings = (QUALITY, "chunk.short=pad", "dedupe=keep_best", "split.keep_together=duplicates")
    copies = {"copy.mp3": CLIP_COPIES["copy.mp3"]}
    clips = write_clips(tmp_path / "clips", range(4), {})
    extract_here(clips, tmp_path / "set", *settings)
    others = write_clips(tmp_path / "others", range(2, 5), copies)
    extract_here(others, tmp_path / "other set", QUALITY, "chunk.short=pad")
    for path in (*others.glob("clip[23]-*"), *others.glob("clip4*")):
        shutil.copy(path, clips)
    refresh_here(clips, tmp_path / "set", *settings)
    expected = [{f"clip{seed}.flac", f"clip{seed}-copy.mp3"} for seed in (2, 3, 4)]
    assert names_of(found_in(tmp_path / "set")) == expected
    rows = melmill.open(tmp_path / "set").recordings(["uri", "status", "split"]).to_pylist()
    left_out = {Path(row["uri"]).name for row in rows if row["status"] == "duplicate"}
    assert left_out == {f"clip{seed}-copy.mp3" for seed in (2, 3, 4)}
    splits = {Path(row["uri"]).name: row["split"] for row in rows}
    assert all(len({splits[name] for name in group}) == 1 for group in expected)
    shared = found_in(tmp_path / "set", tmp_path / "other set")
    assert [{m.dataset for m in group} for group in shared.groups] == [{0, 1}] * 3


def test_short_sounds_that_are_alike_are_no_copies(tmp_path):
    random = np.random.default_rng(1)
    times = np.arange(RATE) / RATE
    sounds = {
        "tone1": 0.5 * np.sin(2 * np.pi * 440 * times),
        "tone2": 0.5 * np.sin(2 * np.pi * 440 * times + 1),
        "hum1": signals.hum(1, RATE) + random.normal(0, 1e-3, RATE),
        "hum2": signals.hum(1, RATE) + random.normal(0, 1e-3, RATE),
        "noise1": random.normal(0, 0.1, RATE),
        "noise2": random.normal(0, 0.1, RATE),
        "dither1": random.normal(0, 3e-5, RATE),
        "dither2": random.normal(0, 3e-5, RATE),
        "click1": signals.click(1, RATE, 0.3),
        "click2": signals.click(1, RATE, 0.5),
    }
    (tmp_path / "clips").mkdir()
    for name, samples in sounds.items():
        signals.write_audio(tmp_path / "clips" / f"{name}.flac", samples, RATE)
    extract_here(tmp_path / "clips", tmp_path / "set", QUALITY, "chunk.short=pad")
    assert found_in(tmp_path / "set").matches == ()


@pytest.mark.slow
def test_an_index_without_waveforms_has_only_exact_short_copies(tmp_path):
    """Such readings were made before there were waveforms."""
    clips = write_clips(tmp_path / "clips", range(2), {"copy.mp3": CLIP_COPIES["copy.mp3"]})
    shutil.copy(clips / "clip0.flac", clips / "clip0-exact.flac")
    settings = QUALITY, "chunk.short=pad"
    extract_here(clips, tmp_path / "set", *settings)
    for path in (tmp_path / "set").glob("index/*/recordings-*"):
        table = pq.read_table(path)
        measures = table["measures"].combine_chunks()
        acoustic = measures.field("acoustic")
        fields = {name: acoustic.field(name) for name in ("digest", "fingerprint")}
        kept = {field.name: measures.field(field.name) for field in measures.type}
        kept["acoustic"] = pa.StructArray.from_arrays([*fields.values()], [*fields])
        older = pa.StructArray.from_arrays([*kept.values()], [*kept])
        place = table.schema.get_field_index("measures")
        pq.write_table(table.set_column(place, "measures", older), path)
    assert names_of(found_in(tmp_path / "set")) == [{"clip0.flac", "clip0-exact.flac"}]
    write_clips(clips, range(2, 3), {"copy.mp3": CLIP_COPIES["copy.mp3"]})
    refresh_here(clips, tmp_path / "set", *settings)
    new = {"clip2.flac", "clip2-copy.mp3"}
    assert names_of(found_in(tmp_path / "set")) == [{"clip0.flac", "clip0-exact.flac"}, new]


def test_recordings_without_fingerprints_have_no_near_duplicates(dataset, tmp_path):
    (tmp_path / "one").mkdir()
    signals.write_audio(tmp_path / "one/a.wav", np.zeros(1), RATE)
    extract_here(tmp_path / "one", tmp_path / "set", QUALITY)
    assert found_in(tmp_path / "set").matches == ()
    assert found_in(dataset, tmp_path / "set").matches == ()


def test_no_dataset_is_refused(tmp_path):
    with pytest.raises(DatasetError):
        melmill.duplicates(tmp_path)


_READ_AND_END = """
import sys
import pyarrow as pa
from melmill.transforms.store.parquet_files import ParquetFile

def read(path):
    with ParquetFile(pa.BufferReader(open(path, "rb").read())) as file:
        return file.read(["shards", "measures"])

table = read(sys.argv[1])
"""


@pytest.mark.slow  # with Arrow's threads, one process in ten to fifty is aborted at its end
def test_no_process_that_reads_an_index_and_ends_is_aborted(dataset):
    (part,) = dataset.glob("index/*/recordings-*.parquet")
    command = [sys.executable, "-c", _READ_AND_END, str(part)]
    with ThreadPoolExecutor(4) as threads:
        codes = list(threads.map(lambda _: subprocess.run(command).returncode, range(150)))
    assert set(codes) == {0}

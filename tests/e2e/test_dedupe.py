"""Test `dedupe` and `split.keep_together`: what a run does with recordings that sound the same."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import melmill
from melmill.pipelines.cli.duplicate_texts import duplicates_text
from melmill.pipelines.cli.snapshot_texts import takedown_text
from melmill.pipelines.extract import Extraction
from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.core.errors import (
    CatalogueError,
    Cause,
    ConfigError,
    DatasetError,
    RecordingError,
    Stage,
)
from melmill.transforms.decode.isolation import DecoderProcess
from melmill.transforms.duplicates.deciding import read_groups
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import extract_here, refresh_here
from tests.pipeline_runs import melmill as command

RATE, SECONDS = 22_050, 12
ACOUSTIC = "quality=[basic, acoustic]"
MANY_SPLITS = "split.fractions={a: 0.25, b: 0.25, c: 0.25, d: 0.25}"
KEEP_BEST = (ACOUSTIC, "dedupe=keep_best")
KEEP_TOGETHER = (ACOUSTIC, MANY_SPLITS, "split.keep_together=duplicates")


def write_song(folder: Path, seed: int, *names: str) -> None:
    """Write a song to files with these names; ``quiet`` in a name makes it a poorer copy."""
    folder.mkdir(exist_ok=True)
    song = signals.song(SECONDS, RATE, seed=seed, channels=2)
    for name in names:
        samples = 0.3 * song.mean(axis=1) if "quiet" in name else song
        signals.write_audio(folder / name, samples, RATE)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Return three songs, of which two have copies."""
    folder = tmp_path / "songs"
    write_song(folder, 0, "a.flac", "a-copy.mp3", "a-quiet.ogg")
    write_song(folder, 1, "b.flac", "b-quiet.mp3")
    write_song(folder, 2, "c.flac")
    return folder


def recordings_of(dataset: Path) -> dict[str, dict[str, Any]]:
    columns = ["recording_id", "uri", "status", "split", "duplicate_of", "rows"]
    rows = melmill.open(dataset).recordings(columns).to_pylist()
    names = {row["recording_id"]: Path(row["uri"]).name for row in rows}
    return {
        Path(row["uri"]).name: {**row, "duplicate_of": names.get(row["duplicate_of"])}
        for row in rows
    }


def column(dataset: Path, name: str) -> dict[str, Any]:
    return {uri: row[name] for uri, row in recordings_of(dataset).items()}


def kept(dataset: Path) -> set[str]:
    return {name for name, row in recordings_of(dataset).items() if row["status"] == "ok"}


def changes(extraction: Extraction) -> dict[str, int]:
    return {k: n for k, n in extraction.difference.items() if k != "examples" and n}


def require_valid(dataset: Path) -> None:
    assert validate(Store(str(dataset)), 1, lambda number: None) == []


def stored_names(dataset: Path) -> set[str]:
    opened, names = melmill.open(dataset), set[str]()
    for split in opened.rows:
        uris = opened.as_arrow(split).to_table(["uri"])["uri"].to_pylist()
        names |= {Path(uri).name for uri in uris}
    return names


def test_marked_duplicates_keep_their_rows(songs, tmp_path):
    extract_here(songs, tmp_path / "set", ACOUSTIC, "dedupe=mark")
    duplicate_of = column(tmp_path / "set", "duplicate_of")
    assert duplicate_of == {
        **{"a.flac": None, "a-copy.mp3": "a.flac", "a-quiet.ogg": "a.flac"},
        **{"b.flac": None, "b-quiet.mp3": "b.flac", "c.flac": None},
    }
    assert stored_names(tmp_path / "set") == duplicate_of.keys()
    require_valid(tmp_path / "set")


def test_only_the_best_of_a_group_has_rows(songs, tmp_path):
    extraction = extract_here(songs, tmp_path / "set", *KEEP_BEST)
    recordings = recordings_of(tmp_path / "set")
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac"}
    assert recordings["a-copy.mp3"]["status"] == "duplicate"
    assert recordings["a-copy.mp3"]["duplicate_of"] == "a.flac"
    assert recordings["a-copy.mp3"]["rows"] == 0
    assert stored_names(tmp_path / "set") == {"a.flac", "b.flac", "c.flac"}
    assert extraction.totals.recordings["duplicate"] == 3
    require_valid(tmp_path / "set")
    again = refresh_here(songs, tmp_path / "set", *KEEP_BEST)
    assert (again.committed, changes(again)) == (False, {"unchanged": 6})


@pytest.mark.slow
@pytest.mark.parametrize("in_a_row", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_better_copy_replaces_the_one_that_was_kept(songs, tmp_path, in_a_row):
    write_song(songs, 3, "d-quiet.mp3")
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    assert "d-quiet.mp3" in kept(tmp_path / "set")
    write_song(songs, 3, "d-copy.mp3")
    if in_a_row:
        refresh_here(songs, tmp_path / "set", *KEEP_BEST)
        assert "d-copy.mp3" in kept(tmp_path / "set")
    write_song(songs, 3, "d.flac")
    extraction = refresh_here(songs, tmp_path / "set", *KEEP_BEST)
    decoded = extraction.metrics.counters["audio_ms_extracted"]
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac", "d.flac"}
    assert decoded == SECONDS * 1000
    assert extraction.difference["duplicate"] == 1
    require_valid(tmp_path / "set")
    extract_here(songs, tmp_path / "fresh", *KEEP_BEST)
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")


@pytest.mark.slow
def test_what_the_dataset_has_stays_if_duplicates_are_dropped(songs, tmp_path):
    drop = ACOUSTIC, "dedupe=drop"
    write_song(songs, 3, "d-quiet.mp3")
    extract_here(songs, tmp_path / "set", *drop)
    write_song(songs, 3, "d.flac")
    extraction = refresh_here(songs, tmp_path / "set", *drop)
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac", "d-quiet.mp3"}
    assert extraction.metrics.counters.get("rows_written", 0) == 0
    require_valid(tmp_path / "set")
    # The next copy is still compared with the one that has rows.
    write_song(songs, 3, "d-other.flac")
    refresh_here(songs, tmp_path / "set", *drop)
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac", "d-quiet.mp3"}


def test_a_duplicate_comes_back_if_what_was_kept_is_gone(songs, tmp_path):
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    (songs / "a.flac").unlink()
    refreshed = refresh_here(songs, tmp_path / "set", *KEEP_BEST)
    assert changes(refreshed)["selected"] == 1
    assert kept(tmp_path / "set") == {"a-copy.mp3", "b.flac", "c.flac"}
    # It was not measured again: its audio was decoded once, for its rows.
    assert "audio_ms_measured" not in refreshed.metrics.counters
    require_valid(tmp_path / "set")
    extract_here(songs, tmp_path / "fresh", *KEEP_BEST)
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")


@pytest.mark.slow
def test_a_file_that_changes_its_sound_leaves_its_group(songs, tmp_path):
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    write_song(songs, 7, "a.flac")
    refresh_here(songs, tmp_path / "set", *KEEP_BEST)
    assert kept(tmp_path / "set") == {"a.flac", "a-copy.mp3", "b.flac", "c.flac"}
    write_song(songs, 1, "a-copy.mp3")
    refresh_here(songs, tmp_path / "set", *KEEP_BEST)
    assert kept(tmp_path / "set") == {"a.flac", "a-quiet.ogg", "b.flac", "c.flac"}
    require_valid(tmp_path / "set")
    extract_here(songs, tmp_path / "fresh", *KEEP_BEST)
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets a name for each time that audio is decoded."""
    real, seen = DecoderProcess.call, list[str]()

    def call(self: DecoderProcess, timeout_s: float, function: Any, *arguments: Any) -> Any:
        seen.append(function.__name__)
        return real(self, timeout_s, function, *arguments)

    monkeypatch.setattr(DecoderProcess, "call", call)
    return seen


@pytest.mark.slow
def test_another_treatment_computes_no_stored_row_again(songs, tmp_path, decodes):
    extract_here(songs, tmp_path / "set", ACOUSTIC)
    assert decodes
    for dedupe, counts in (
        ("mark", {"recomputed": 6}),
        ("keep_best", {"duplicate": 3, "unchanged": 3}),
        ("mark", {"selected": 3, "unchanged": 3}),
        ("drop", {"duplicate": 3, "unchanged": 3}),
        ("off", {"selected": 3, "unchanged": 3}),
    ):
        decodes.clear()
        extraction = refresh_here(songs, tmp_path / "set", ACOUSTIC, f"dedupe={dedupe}")
        assert changes(extraction) == counts
        assert decodes == ["extract_and_measure"] * counts.get("selected", 0)
        require_valid(tmp_path / "set")
        extract_here(songs, tmp_path / f"fresh {dedupe}", ACOUSTIC, f"dedupe={dedupe}")
        assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / f"fresh {dedupe}")


@pytest.mark.slow
def test_duplicates_are_found_among_what_is_selected(songs, tmp_path):
    loud = *KEEP_BEST, "select=level.peak > -12"
    extract_here(songs, tmp_path / "set", *KEEP_BEST, "select=level.peak < -12")
    status = column(tmp_path / "set", "status")
    assert {name for name in status if status[name] == "ok"} == {"a-quiet.ogg", "b-quiet.mp3"}
    assert status["a.flac"] == "deselected"
    refresh_here(songs, tmp_path / "set", *loud)
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac"}
    assert column(tmp_path / "set", "status")["a-quiet.ogg"] == "deselected"
    assert column(tmp_path / "set", "status")["a-copy.mp3"] == "duplicate"
    require_valid(tmp_path / "set")


@pytest.mark.slow
def test_duplicates_are_in_one_split(songs, tmp_path):
    for seed in range(10, 16):
        write_song(songs, seed, *(f"{seed}-{number}.ogg" for number in range(3)))
    extract_here(songs, tmp_path / "set", *KEEP_TOGETHER)
    split = column(tmp_path / "set", "split")
    by_song = {name: {split[f"{name}-{n}.ogg"] for n in range(3)} for name in range(10, 16)}
    assert all(len(splits) == 1 for splits in by_song.values())
    assert len(set().union(*by_song.values())) > 1
    assert stored_names(tmp_path / "set") == split.keys()
    extract_here(songs, tmp_path / "apart", ACOUSTIC, MANY_SPLITS)
    apart = column(tmp_path / "apart", "split")
    assert any(len({apart[f"{name}-{n}.ogg"] for n in range(3)}) > 1 for name in by_song)
    require_valid(tmp_path / "set")


@pytest.mark.slow
def test_a_new_duplicate_joins_the_split_of_its_group_and_nothing_moves(songs, tmp_path):
    for seed in range(10, 16):
        write_song(songs, seed, f"{seed}-old.ogg")
    extract_here(songs, tmp_path / "set", *KEEP_TOGETHER)
    before = column(tmp_path / "set", "split")
    for seed in range(10, 16):
        write_song(songs, seed, f"{seed}-a-new.mp3")
    extraction = refresh_here(songs, tmp_path / "set", *KEEP_TOGETHER)
    after = column(tmp_path / "set", "split")
    assert {name: after[name] for name in before} == before
    assert all(after[f"{seed}-a-new.mp3"] == after[f"{seed}-old.ogg"] for seed in range(10, 16))
    assert changes(extraction) == {"new": 6, "unchanged": len(before)}
    require_valid(tmp_path / "set")
    # What joined a group stays in its split when the rest of the group is gone.
    for seed in range(10, 16):
        (songs / f"{seed}-old.ogg").unlink()
    allowed = *KEEP_TOGETHER, "refresh.max_removed_ratio=1"
    refresh_here(songs, tmp_path / "set", *allowed)
    refresh_here(songs, tmp_path / "set", *allowed, "mel.n_mels=40")
    later = column(tmp_path / "set", "split")
    assert later == {name: after[name] for name in later}


def test_groups_that_merge_take_the_split_of_the_older_one(tmp_path):
    """Recordings are cut from one song; neighbours have nearly all of their sound in common."""
    songs, dataset = tmp_path / "songs", tmp_path / "set"
    songs.mkdir()
    song = signals.song(42, RATE, seed=5, channels=2)

    def cut(name: str, start: int) -> None:
        signals.write_audio(songs / name, song[start * RATE : (start + 30) * RATE], RATE)

    cut("old-a.flac", 0)
    cut("old-b.flac", 1)
    extract_here(songs, dataset, *KEEP_TOGETHER)
    cut("later-a.flac", 9)
    cut("later-b.flac", 10)
    refresh_here(songs, dataset, *KEEP_TOGETHER)
    before = column(dataset, "split")
    assert len(melmill.duplicates(dataset, progress=False).groups) == 2
    assert before["old-a.flac"] != before["later-a.flac"]
    cut("link.flac", 5)
    extraction = refresh_here(songs, dataset, *KEEP_TOGETHER)
    after = column(dataset, "split")
    (group,) = melmill.duplicates(dataset, progress=False).groups
    assert len(group) == 5
    assert set(after.values()) == {before["old-a.flac"]}
    assert changes(extraction) == {"new": 1, "relabelled": 2, "unchanged": 2}
    require_valid(dataset)


@pytest.mark.slow
def test_units_of_a_group_label_stay_together_with_their_duplicates(tmp_path):
    songs = tmp_path / "songs"
    lines = ["uri,singer"]
    for seed in range(12):
        write_song(songs, seed, f"{seed}.ogg")
        lines.append(f"songs/{seed}.ogg,singer{seed // 2}")
    # A copy of the song of one singer is under another singer's name.
    write_song(songs, 0, "copy.ogg")
    lines.append("songs/copy.ogg,singer5")
    table = tmp_path / "songs.csv"
    table.write_text("\n".join(lines))
    by_singer = *KEEP_TOGETHER, "split.by=group", "split.group=singer"
    extract_here(table, tmp_path / "set", *by_singer)
    split = column(tmp_path / "set", "split")
    together = {"0.ogg", "1.ogg", "10.ogg", "11.ogg", "copy.ogg"}
    assert len({split[name] for name in together}) == 1
    assert all(split[f"{n}.ogg"] == split[f"{n + 1}.ogg"] for n in range(0, 12, 2))
    # A new song of a singer who was moved is in that singer's split, too.
    write_song(songs, 50, "new.ogg")
    table.write_text("\n".join([*lines, "songs/new.ogg,singer5", "songs/new2.ogg,singer0"]))
    write_song(songs, 51, "new2.ogg")
    refresh_here(table, tmp_path / "set", *by_singer)
    split = column(tmp_path / "set", "split")
    assert len({split[name] for name in (*together, "new.ogg", "new2.ogg")}) == 1
    require_valid(tmp_path / "set")


def test_the_matches_are_in_the_index_and_are_not_looked_for_again(songs, tmp_path, monkeypatch):
    extract_here(songs, tmp_path / "searched", ACOUSTIC)
    searched = melmill.duplicates(tmp_path / "searched", progress=False)
    monkeypatch.setattr("melmill.pipelines.duplicates.run_job", None)  # an error if it is called
    for dedupe in ("mark", "keep_best"):
        dataset = tmp_path / dedupe
        extract_here(songs, dataset, ACOUSTIC, f"dedupe={dedupe}")
        found = melmill.duplicates(dataset, progress=False)
        assert [[m.uri for m in g] for g in found.groups] == [
            [m.uri for m in g] for g in searched.groups
        ]
        assert Counter(m.kind for m in found.matches) == Counter(m.kind for m in searched.matches)
        statuses = {Path(m.uri).name: m.status for g in found.groups for m in g}
        assert statuses == {n: column(dataset, "status")[n] for n in statuses}
        assert found.recordings == searched.recordings


def test_a_takedown_leaves_no_name_among_the_duplicates(songs, tmp_path):
    dataset, store = tmp_path / "set", Store(str(tmp_path / "set"))
    extract_here(songs, dataset, *KEEP_BEST)
    name = recordings_of(dataset)["a.flac"]["recording_id"]
    text = command("takedown", str(dataset), str(songs / "a.flac"), "--yes").stdout
    assert "Not erased: 2 recordings that sound the same" in text
    groups = read_groups(store, require_snapshot(store).index)
    assert not any(
        name in row.values() for table in groups.by_name().values() for row in table.to_pylist()
    )
    for file in dataset.rglob("*"):
        is_list = file.parent.name == "taken_down"
        assert is_list or not file.is_file() or name.encode() not in file.read_bytes()
    require_valid(dataset)
    write_song(songs, 9, "new.flac")
    refresh_here(songs, dataset, *KEEP_BEST)
    assert kept(dataset) == {"a-copy.mp3", "b.flac", "c.flac", "new.flac"}
    require_valid(dataset)


@pytest.mark.slow
def test_a_takedown_names_the_command_that_erases_the_copies(songs, tmp_path):
    dataset = tmp_path / "set"
    extract_here(songs, dataset, *KEEP_BEST)
    erased = takedown(Store(str(dataset)), [str(songs / "a.flac")])
    assert {Path(uri).name for uri in erased.copies} == {"a-copy.mp3", "a-quiet.ogg"}
    advice = takedown_text(str(dataset), erased).splitlines()[-1]
    program, *arguments = shlex.split(advice)
    assert program == "melmill"
    assert "sound the same" not in command(*arguments, "--yes").stdout
    refresh_here(songs, dataset, *KEEP_BEST)
    assert recordings_of(dataset).keys() == {"b.flac", "b-quiet.mp3", "c.flac"}
    require_valid(dataset)


@pytest.mark.slow
def test_a_kept_recording_that_cannot_be_read_any_more_gives_way(songs, tmp_path):
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    (songs / "a.flac").write_bytes(b"fLaC" + bytes(100))
    settings = *KEEP_BEST, "limits.max_failure_ratio=1"
    refresh_here(songs, tmp_path / "set", *settings)
    assert kept(tmp_path / "set") == {"a-copy.mp3", "b.flac", "c.flac"}
    write_song(songs, 9, "new.flac")
    refresh_here(songs, tmp_path / "set", *settings)
    assert kept(tmp_path / "set") == {"a-copy.mp3", "b.flac", "c.flac", "new.flac"}
    require_valid(tmp_path / "set")


def test_short_and_silent_recordings_are_duplicates_only_if_all_samples_are_equal(tmp_path):
    songs = tmp_path / "songs"
    songs.mkdir()
    for name, length in (("one.wav", 4), ("two.flac", 4), ("three.wav", 5)):
        signals.write_audio(songs / name, np.zeros(length * RATE), RATE)
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    assert kept(tmp_path / "set") == {"one.wav", "three.wav"}


@pytest.mark.parametrize(
    ("settings", "named", "advice"),
    [
        (["dedupe=mark"], "dedupe", "[basic, acoustic]"),
        (["split.keep_together=duplicates"], "split.keep_together", "[basic, acoustic]"),
        (["dedupe=best", ACOUSTIC], "dedupe", "'keep_best'"),
        (["split.keep_together=copies", ACOUSTIC], "split.keep_together", "'duplicates'"),
        ([*KEEP_TOGETHER, "split.by=catalogue"], "split.keep_together", "null"),
    ],
)
def test_settings_that_do_not_fit_are_named(songs, tmp_path, settings, named, advice):
    with pytest.raises(ConfigError) as error:
        extract_here(songs, tmp_path / "set", *settings)
    assert named in str(error.value)
    assert advice in str(error.value)


def test_splits_of_the_catalogue_are_not_changed(songs, tmp_path):
    table = tmp_path / "songs.csv"
    table.write_text("uri,split\nsongs/a.flac,train\nsongs/a-copy.mp3,test\n")
    with pytest.raises(CatalogueError, match="gives each recording a split"):
        extract_here(table, tmp_path / "set", *KEEP_TOGETHER)
    extract_here(table, tmp_path / "set", *KEEP_TOGETHER, "split.by=recording")
    assert len(set(column(tmp_path / "set", "split").values())) == 1


def test_extract_refuses_another_treatment_and_names_the_command_that_changes_it(songs, tmp_path):
    extract_here(songs, tmp_path / "set", ACOUSTIC)
    with pytest.raises(DatasetError, match="melmill refresh --set dedupe="):
        extract_here(songs, tmp_path / "set", *KEEP_BEST)
    refresh_here(songs, tmp_path / "set", *KEEP_BEST)
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac"}


def test_the_command_says_what_was_left_out(songs, tmp_path):
    settings = ["--set", ACOUSTIC, "--set", "dedupe=keep_best"]
    text = command("extract", str(songs), str(tmp_path / "set"), *settings).stdout
    assert "3 are duplicates of others" in text
    assert "3 are duplicates of others" in command("inspect", str(tmp_path / "set")).stdout
    assert "3 are left out as duplicates" in (tmp_path / "set" / "README.md").read_text()


def copy_exactly(folder: Path, *names: str) -> None:
    samples = np.round(30_000 * signals.song(3, RATE, seed=40)).astype(np.int16)
    for name in names:
        soundfile.write(folder / name, samples, RATE, "PCM_16")


@pytest.mark.slow
@pytest.mark.parametrize(
    "removed", ["1.wav", *(pytest.param(n, marks=pytest.mark.slow) for n in ("2.flac", "3.wav"))]
)
def test_exact_copies_stay_together_whichever_is_removed(tmp_path, removed):
    songs, settings = tmp_path / "songs", (*KEEP_BEST, "refresh.max_removed_ratio=1")
    songs.mkdir()
    copy_exactly(songs, "1.wav", "2.flac", "3.wav", "4.flac")
    extract_here(songs, tmp_path / "set", *settings)
    (songs / removed).unlink()
    refresh_here(songs, tmp_path / "set", *settings)
    require_valid(tmp_path / "set")
    extract_here(songs, tmp_path / "fresh", *settings)
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")


@pytest.mark.slow
def test_what_is_measured_first_is_matched_when_it_is_selected(tmp_path):
    songs = tmp_path / "songs"
    write_song(songs, 0, "a.flac", "a-quiet.ogg")
    copy_exactly(songs, "1.wav", "2.flac", "3.wav")
    extract_here(songs, tmp_path / "set", *KEEP_BEST, "select=false")
    assert set(column(tmp_path / "set", "status").values()) == {"deselected"}
    refresh_here(songs, tmp_path / "set", *KEEP_BEST, "select=null")
    extract_here(songs, tmp_path / "fresh", *KEEP_BEST)
    assert kept(tmp_path / "set") == {"a.flac", "1.wav"}
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")
    require_valid(tmp_path / "set")


@pytest.mark.slow
@pytest.mark.parametrize(
    "other", ["split.seed=3", pytest.param(MANY_SPLITS, marks=pytest.mark.slow)]
)
def test_another_division_keeps_the_groups(songs, tmp_path, other):
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    refresh_here(songs, tmp_path / "set", *KEEP_BEST, other)
    extract_here(songs, tmp_path / "fresh", *KEEP_BEST, other)
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")
    require_valid(tmp_path / "set")


@pytest.mark.slow
def test_a_recording_that_changes_its_unit_takes_its_duplicates_along(tmp_path):
    songs, table = tmp_path / "songs", tmp_path / "songs.csv"
    for seed in range(6):
        write_song(songs, seed, f"{seed}.ogg")
    write_song(songs, 0, "copy.ogg")

    def write(copy_by: int) -> None:
        lines = [f"songs/{n}.ogg,singer{n}" for n in range(6)]
        table.write_text("\n".join(["uri,singer", *lines, f"songs/copy.ogg,singer{copy_by}"]))

    by_singer = *KEEP_TOGETHER, "split.by=group", "split.group=singer"
    write(1)
    extract_here(table, tmp_path / "set", *by_singer)
    for singer in (2, 3, 5):
        write(singer)
        refresh_here(table, tmp_path / "set", *by_singer)
        split = column(tmp_path / "set", "split")
        assert split["0.ogg"] == split["copy.ogg"] == split[f"{singer}.ogg"]
        require_valid(tmp_path / "set")


@pytest.mark.slow
def test_duplicates_of_a_catalogue_that_moved_have_their_new_names(songs, tmp_path):
    extract_here(songs, tmp_path / "set", *KEEP_BEST)
    moved = songs.rename(tmp_path / "moved")
    refresh_here(moved, tmp_path / "set", *KEEP_BEST)
    groups = melmill.duplicates(tmp_path / "set", progress=False).groups
    assert all(Path(member.uri).exists() for members in groups for member in members)
    require_valid(tmp_path / "set")


@pytest.mark.slow
def test_a_damaged_duplicate_is_still_damaged_when_it_comes_back(songs, tmp_path):
    keep = *KEEP_BEST, "limits.damaged=keep"
    content = (songs / "b.flac").read_bytes()
    (songs / "b.flac").write_bytes(content[: round(0.9 * len(content))])
    (songs / "b-quiet.mp3").unlink()
    extract_here(songs, tmp_path / "set", *keep)
    assert column(tmp_path / "set", "status")["b.flac"] == "partial"
    write_song(songs, 1, "b-better.wav")
    refresh_here(songs, tmp_path / "set", *keep)
    assert column(tmp_path / "set", "status")["b.flac"] == "duplicate"
    require_valid(tmp_path / "set")
    for damaged in ("fail", "keep"):
        settings = *KEEP_BEST, f"limits.damaged={damaged}", "limits.max_failure_ratio=1"
        refresh_here(songs, tmp_path / "set", *settings)
        extract_here(songs, tmp_path / f"fresh {damaged}", *settings)
        assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / f"fresh {damaged}")
    (songs / "b-better.wav").unlink()
    refresh_here(songs, tmp_path / "set", *keep)
    extract_here(songs, tmp_path / "fresh", *keep)
    assert column(tmp_path / "set", "status")["b.flac"] == "partial"
    assert recordings_of(tmp_path / "set") == recordings_of(tmp_path / "fresh")
    require_valid(tmp_path / "set")


@pytest.mark.slow
@pytest.mark.parametrize("again", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_next_best_is_kept_if_the_best_fails(songs, tmp_path, monkeypatch, again):
    """The best is measured, but its rows cannot be computed."""
    settings = *KEEP_BEST, "limits.max_failure_ratio=1"
    extract_here(songs, tmp_path / "set", *settings)
    write_song(songs, 0, "a-best.wav")
    real = DecoderProcess.call

    def call(self: DecoderProcess, timeout_s: float, function: Any, *arguments: Any) -> Any:
        if function.__name__ == "extract_and_measure":
            uris = [span.probed.recording.uri for span in arguments[0]]
            if any(uri.endswith("a-best.wav") for uri in uris):
                raise RecordingError(Stage.DECODE, Cause.CORRUPT, "as if it were corrupt")
        return real(self, timeout_s, function, *arguments)

    monkeypatch.setattr(DecoderProcess, "call", call)
    if again:
        refresh_here(songs, tmp_path / "set", *settings)
    else:  # a run of one pass; the launcher itself compares so small a catalogue
        monkeypatch.setattr("melmill.pipelines.refresh._PASSES", 1)
        refresh_here(songs, tmp_path / "set", *settings)
        assert kept(tmp_path / "set") == {"b.flac", "c.flac"}
        arguments = [str(songs), str(tmp_path / "set"), *(f"--set={s}" for s in settings)]
        assert "1 selected by another select or by dedupe" in command("refresh", *arguments).stdout
    assert kept(tmp_path / "set") == {"a.flac", "b.flac", "c.flac"}
    assert column(tmp_path / "set", "status")["a-best.wav"] == "failed"
    require_valid(tmp_path / "set")


@pytest.mark.slow
@pytest.mark.parametrize("dedupe", ["drop", pytest.param("keep_best", marks=pytest.mark.slow)])
def test_the_list_of_copies_names_what_was_left_out(songs, tmp_path, dedupe):
    """Whatever was kept comes first, whether it is the best or not."""
    settings = ACOUSTIC, f"dedupe={dedupe}", "limits.damaged=keep"
    (songs / "b.flac").unlink()
    extract_here(songs, tmp_path / "set", *settings)
    write_song(songs, 1, "b.flac")
    if dedupe == "keep_best":  # so a damaged one is left out, although its file is the largest
        content = (songs / "b.flac").read_bytes()
        (songs / "b.flac").write_bytes(content[: round(0.95 * len(content))])
    refresh_here(songs, tmp_path / "set", *settings)
    assert column(tmp_path / "set", "duplicate_of")["b.flac"] == "b-quiet.mp3"
    found = melmill.duplicates(tmp_path / "set", progress=False)
    left_out = {n for n, s in column(tmp_path / "set", "status").items() if s == "duplicate"}
    assert {Path(member.uri).name for member in found.extra} == left_out
    text = duplicates_text(found)
    assert "more than needed" not in text
    assert text.count(", left out)") == len(left_out)

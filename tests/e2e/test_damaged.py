"""Recordings with wrong headers or damaged data: melmill plans them again, or keeps their start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from melmill.pipelines.snapshots.validate import validate
from melmill.pipelines.takedown import takedown
from melmill.transforms.index.tables import read_index
from melmill.transforms.snapshot.delta import require_snapshot
from melmill.transforms.store.folders import Store
from tests import damage
from tests.pipeline_runs import extract_here, refresh_here
from tests.refresh.catalogues import failures_of, rows_of, statuses_of, write_song
from tests.signals import encode, song

RATE = 22_050
#: At least three shards, so that long recordings are cut across shards.
SETTINGS = (
    "mel.n_mels=8",
    "chunk.seconds=0.25",
    "chunk.tail=drop",
    "output.min_shards=3",
    "limits.max_failure_ratio=0",
)
KEEP = "limits.damaged=keep"


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    for number in range(3):
        write_song(folder / f"{number}.wav", number)
    return folder


def rows_of_song(dataset: Path, name: str) -> dict[int, tuple[object, ...]]:
    """Return the rows of a recording by chunk, without the values that depend on its path."""
    rows = {}
    for (_, chunk, _), row in rows_of(dataset).items():
        values = dict(row[:-1])
        if values["uri"].endswith(name):
            rows[int(chunk)] = (values["start_sample"], values["rms_dbfs"], row[-1])
    return rows


def status_of(dataset: Path, name: str) -> tuple[str, int]:
    return next(status for uri, status in statuses_of(dataset).items() if uri.endswith(name))


def is_whole(dataset: Path) -> bool:
    return validate(Store(str(dataset)), 1, lambda number: None) == []


def broken_flac(whole: bytes) -> bytes:
    """Return a FLAC stream in which some frames after the middle are overwritten."""
    data = bytearray(whole)
    at = len(data) * 6 // 10
    data[at : at + 200] = bytes(200)
    return bytes(data)


def cut_wav(whole: bytes) -> bytes:
    return whole[: len(whole) * 6 // 10]


@pytest.mark.parametrize(
    ("form", "damage_file", "cause"),
    [("flac", broken_flac, "corrupt"), ("wav", cut_wav, "truncated")],
)
def test_rows_before_the_damage_are_kept_if_the_recipe_says_so(
    songs: Path, tmp_path: Path, form: str, damage_file, cause: str
) -> None:
    whole = encode(song(6, RATE), RATE, form)
    name, whole_set, damaged_set = f"long.{form}", tmp_path / "clean", tmp_path / "kept"
    (songs / name).write_bytes(whole)
    extract_here(songs, whole_set, *SETTINGS)
    (songs / name).write_bytes(damage_file(whole))
    extraction = extract_here(songs, damaged_set, *SETTINGS, KEEP)
    # A partial recording is in the table of failures, but it does not count towards their limit.
    assert extraction.totals.recordings == {"ok": 3, "partial": 1}
    assert list(failures_of(damaged_set).values()) == [cause]
    whole_rows, kept_rows = rows_of_song(whole_set, name), rows_of_song(damaged_set, name)
    # The rates are equal. With resampling, the last chunk could need samples after the damage.
    assert 0.3 * len(whole_rows) < len(kept_rows) < len(whole_rows)
    assert kept_rows == {chunk: whole_rows[chunk] for chunk in range(len(kept_rows))}
    assert status_of(damaged_set, name) == ("partial", len(kept_rows))
    assert is_whole(damaged_set)
    assert not refresh_here(songs, damaged_set).committed


def test_a_damaged_recording_fails_or_is_kept_as_the_current_recipe_says(
    songs: Path, tmp_path: Path
) -> None:
    dataset, any_failures = tmp_path / "set", "limits.max_failure_ratio=1"
    (songs / "long.wav").write_bytes(cut_wav(encode(song(6, RATE), RATE, "wav")))
    extract_here(songs, dataset, *SETTINGS, any_failures)
    assert status_of(dataset, "long.wav") == ("failed", 0)
    assert refresh_here(songs, dataset, any_failures, KEEP).committed
    status, rows = status_of(dataset, "long.wav")
    assert status == "partial"
    assert rows > 0
    fresh = extract_here(songs, tmp_path / "fresh", *SETTINGS, any_failures, KEEP)
    assert rows_of(dataset) == rows_of(tmp_path / "fresh")
    assert fresh.totals.recordings["partial"] == 1
    refresh_here(songs, dataset, any_failures, "limits.damaged=fail")
    assert status_of(dataset, "long.wav") == ("failed", 0)
    assert is_whole(dataset)


def test_a_recording_is_planned_again_with_the_length_that_was_counted(
    songs: Path, tmp_path: Path
) -> None:
    whole = encode(song(3, 48_000), 48_000, "mp3_vbr")
    (songs / "long.mp3").write_bytes(damage.with_xing(whole, frames=60))
    extraction = extract_here(songs, tmp_path / "set", *SETTINGS)
    assert extraction.totals.recordings == {"ok": 4}
    assert extraction.metrics.counters["recordings_out.recount"] == 1
    assert "spans_failed" not in extraction.metrics.counters
    assert status_of(tmp_path / "set", "long.mp3") == ("ok", 12)
    store = Store(str(tmp_path / "set"))
    stored = read_index(store, require_snapshot(store).index, "recordings", ["uri", "frames"])
    assert [row["frames"] for row in stored if row["uri"].endswith("long.mp3")] == [3 * 48_000]
    assert is_whole(tmp_path / "set")
    assert not refresh_here(songs, tmp_path / "set").committed


def test_a_damaged_recording_without_a_row_has_failed(songs: Path, tmp_path: Path) -> None:
    """Once, the recording was skipped, and with shorter chunks it then passed as undamaged."""
    dataset, any_failures = tmp_path / "set", "limits.max_failure_ratio=1"
    (songs / "short.wav").write_bytes(cut_wav(encode(song(1, RATE), RATE, "wav")))
    long_chunks = ("chunk.seconds=0.8", "chunk.short=drop")
    extract_here(songs, dataset, *SETTINGS, any_failures, KEEP, *long_chunks)
    assert status_of(dataset, "short.wav") == ("failed", 0)
    assert is_whole(dataset)
    refresh_here(songs, dataset, "chunk.seconds=0.25")
    assert status_of(dataset, "short.wav") == ("partial", 2)
    assert is_whole(dataset)


def test_a_segment_after_the_damage_fails_because_of_it(songs: Path, tmp_path: Path) -> None:
    (songs / "long.wav").write_bytes(cut_wav(encode(song(4, RATE), RATE, "wav")))
    table = tmp_path / "songs.csv"
    rows = ["0,1", "2,3", "3,4"]
    table.write_text("uri,start,end\n" + "".join(f"songs/long.wav,{row}\n" for row in rows))
    extraction = extract_here(
        table, tmp_path / "set", *SETTINGS, "limits.max_failure_ratio=1", KEEP
    )
    assert extraction.totals.recordings == {"partial": 2, "failed": 1}
    assert extraction.totals.failures == {"truncated": 3}
    assert is_whole(tmp_path / "set")


@pytest.mark.slow
def test_a_damaged_recording_that_moves_is_listed_under_its_new_name(
    songs: Path, tmp_path: Path
) -> None:
    (songs / "long.wav").write_bytes(cut_wav(encode(song(4, RATE), RATE, "wav")))
    extract_here(songs, tmp_path / "set", *SETTINGS, KEEP)
    moved = songs.rename(tmp_path / "moved")
    refresh_here(moved, tmp_path / "set")
    assert list(failures_of(tmp_path / "set")) == [str(moved / "long.wav")]
    assert status_of(tmp_path / "set", "long.wav")[0] == "partial"


def test_a_damaged_copy_of_a_taken_down_recording_is_left_out(songs: Path, tmp_path: Path) -> None:
    content_hashes = "catalogue.content_hashes=true"
    (songs / "long.wav").write_bytes(cut_wav(encode(song(4, RATE), RATE, "wav")))
    extract_here(songs, tmp_path / "set", *SETTINGS, KEEP, content_hashes)
    takedown(Store(str(tmp_path / "set")), [str(songs / "long.wav")])
    shutil.copy(songs / "long.wav", songs / "copy.wav")
    refresh_here(songs, tmp_path / "set")
    assert len(statuses_of(tmp_path / "set")) == 3


@pytest.mark.slow
def test_a_run_is_resumed_with_another_rule_for_damage(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receipts of the first attempt are valid for rows, but not for failures."""
    damaged = broken_flac(encode(song(6, RATE), RATE, "flac"))
    for name in ("long.flac", "more.flac"):
        (songs / name).write_bytes(damaged)
    any_failures = "limits.max_failure_ratio=1"

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr("melmill.transforms.index.joining.write_part", crash)
        with pytest.raises(RuntimeError):
            extract_here(songs, tmp_path / "set", *SETTINGS, any_failures, KEEP)
    extraction = extract_here(songs, tmp_path / "set", *SETTINGS, any_failures)
    assert extraction.totals.recordings == {"ok": 3, "failed": 2}
    assert is_whole(tmp_path / "set")

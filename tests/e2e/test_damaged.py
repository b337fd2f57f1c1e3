"""Recordings that are not what their headers say: written once more, or kept up to the damage."""

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
#: Three shards at least, so that long recordings are cut over them.
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
    """Rows of one recording by chunk; all but what says where it was."""
    found = {}
    for (_, chunk, _), row in rows_of(dataset).items():
        values = dict(row[:-1])
        if values["uri"].endswith(name):
            found[int(chunk)] = (values["start_sample"], values["rms_dbfs"], row[-1])
    return found


def status_of(dataset: Path, name: str) -> tuple[str, int]:
    return next(status for uri, status in statuses_of(dataset).items() if uri.endswith(name))


def is_whole(dataset: Path) -> bool:
    return validate(Store(str(dataset)), 1, lambda number: None) == []


def broken_flac(whole: bytes) -> bytes:
    """A FLAC stream with some of its frames, behind the middle, overwritten."""
    data = bytearray(whole)
    at = len(data) * 6 // 10
    data[at : at + 200] = bytes(200)
    return bytes(data)


def cut_wav(whole: bytes) -> bytes:
    return whole[: len(whole) * 6 // 10]


@pytest.mark.parametrize(
    ("form", "break_it", "cause"),
    [("flac", broken_flac, "corrupt"), ("wav", cut_wav, "truncated")],
)
def test_what_is_before_a_damage_is_kept_where_that_is_asked_for(
    songs: Path, tmp_path: Path, form: str, break_it, cause: str
) -> None:
    whole = encode(song(6, RATE), RATE, form)
    name, clean, kept = f"long.{form}", tmp_path / "clean", tmp_path / "kept"
    (songs / name).write_bytes(whole)
    extract_here(songs, clean, *SETTINGS)
    (songs / name).write_bytes(break_it(whole))
    made = extract_here(songs, kept, *SETTINGS, KEEP)
    # Not among the failures that are too many, but in their table.
    assert made.totals.recordings == {"ok": 3, "partial": 1}
    assert list(failures_of(kept).values()) == [cause]
    before, after = rows_of_song(clean, name), rows_of_song(kept, name)
    # The last chunk of a resampled recording may reach into what is not there: rates are equal.
    assert 0.3 * len(before) < len(after) < len(before)
    assert after == {chunk: before[chunk] for chunk in range(len(after))}
    assert status_of(kept, name) == ("partial", len(after))
    assert is_whole(kept)
    assert not refresh_here(songs, kept).committed


def test_a_damaged_recording_fails_or_is_kept_as_the_recipe_of_the_day_says(
    songs: Path, tmp_path: Path
) -> None:
    dataset, some = tmp_path / "set", "limits.max_failure_ratio=1"
    (songs / "long.wav").write_bytes(cut_wav(encode(song(6, RATE), RATE, "wav")))
    extract_here(songs, dataset, *SETTINGS, some)
    assert status_of(dataset, "long.wav") == ("failed", 0)
    assert refresh_here(songs, dataset, some, KEEP).committed
    status, rows = status_of(dataset, "long.wav")
    assert status == "partial"
    assert rows > 0
    fresh = extract_here(songs, tmp_path / "fresh", *SETTINGS, some, KEEP)
    assert rows_of(dataset) == rows_of(tmp_path / "fresh")
    assert fresh.totals.recordings["partial"] == 1
    refresh_here(songs, dataset, some, "limits.damaged=fail")
    assert status_of(dataset, "long.wav") == ("failed", 0)
    assert is_whole(dataset)


def test_a_recording_is_planned_again_with_the_length_that_was_counted(
    songs: Path, tmp_path: Path
) -> None:
    whole = encode(song(3, 48_000), 48_000, "mp3_vbr")
    (songs / "long.mp3").write_bytes(damage.with_xing(whole, frames=60))
    made = extract_here(songs, tmp_path / "set", *SETTINGS)
    assert made.totals.recordings == {"ok": 4}
    assert made.metrics.counters["recordings_out.recount"] == 1
    assert "spans_failed" not in made.metrics.counters
    assert status_of(tmp_path / "set", "long.mp3") == ("ok", 12)
    store = Store(str(tmp_path / "set"))
    stored = read_index(store, require_snapshot(store).index, "recordings", ["uri", "frames"])
    assert [row["frames"] for row in stored if row["uri"].endswith("long.mp3")] == [3 * 48_000]
    assert is_whole(tmp_path / "set")
    assert not refresh_here(songs, tmp_path / "set").committed


def test_a_damaged_recording_without_a_row_has_failed(songs: Path, tmp_path: Path) -> None:
    """It was skipped, and came back as whole when the chunks became shorter."""
    dataset, some = tmp_path / "set", "limits.max_failure_ratio=1"
    (songs / "short.wav").write_bytes(cut_wav(encode(song(1, RATE), RATE, "wav")))
    long = ("chunk.seconds=0.8", "chunk.short=drop")
    extract_here(songs, dataset, *SETTINGS, some, KEEP, *long)
    assert status_of(dataset, "short.wav") == ("failed", 0)
    assert is_whole(dataset)
    refresh_here(songs, dataset, "chunk.seconds=0.25")
    assert status_of(dataset, "short.wav") == ("partial", 2)
    assert is_whole(dataset)


def test_a_segment_behind_the_damage_fails_for_the_damage(songs: Path, tmp_path: Path) -> None:
    (songs / "long.wav").write_bytes(cut_wav(encode(song(4, RATE), RATE, "wav")))
    table = tmp_path / "songs.csv"
    rows = ["0,1", "2,3", "3,4"]
    table.write_text("uri,start,end\n" + "".join(f"songs/long.wav,{row}\n" for row in rows))
    made = extract_here(table, tmp_path / "set", *SETTINGS, "limits.max_failure_ratio=1", KEEP)
    assert made.totals.recordings == {"partial": 2, "failed": 1}
    assert made.totals.failures == {"truncated": 3}
    assert is_whole(tmp_path / "set")


def test_a_damaged_recording_that_moves_is_listed_under_its_new_name(
    songs: Path, tmp_path: Path
) -> None:
    (songs / "long.wav").write_bytes(cut_wav(encode(song(4, RATE), RATE, "wav")))
    extract_here(songs, tmp_path / "set", *SETTINGS, KEEP)
    moved = songs.rename(tmp_path / "moved")
    refresh_here(moved, tmp_path / "set")
    assert list(failures_of(tmp_path / "set")) == [str(moved / "long.wav")]
    assert status_of(tmp_path / "set", "long.wav")[0] == "partial"


def test_a_damaged_copy_of_what_was_taken_down_stays_away(songs: Path, tmp_path: Path) -> None:
    hashed = "catalogue.content_hashes=true"
    (songs / "long.wav").write_bytes(cut_wav(encode(song(4, RATE), RATE, "wav")))
    extract_here(songs, tmp_path / "set", *SETTINGS, KEEP, hashed)
    takedown(Store(str(tmp_path / "set")), [str(songs / "long.wav")])
    shutil.copy(songs / "long.wav", songs / "copy.wav")
    refresh_here(songs, tmp_path / "set")
    assert len(statuses_of(tmp_path / "set")) == 3


def test_a_run_that_is_taken_up_with_another_rule_for_damage(
    songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receipts of the first attempt are right for rows, not for what has failed."""
    whole = broken_flac(encode(song(6, RATE), RATE, "flac"))
    for name in ("long.flac", "more.flac"):
        (songs / name).write_bytes(whole)
    some = "limits.max_failure_ratio=1"

    def killed(*_: object, **__: object) -> None:
        raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr("melmill.transforms.index.joining.write_part", killed)
        with pytest.raises(RuntimeError):
            extract_here(songs, tmp_path / "set", *SETTINGS, some, KEEP)
    made = extract_here(songs, tmp_path / "set", *SETTINGS, some)
    assert made.totals.recordings == {"ok": 3, "failed": 2}
    assert is_whole(tmp_path / "set")

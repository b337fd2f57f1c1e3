"""Where a dataset may be written, what is refused, and what a failed run leaves behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from melmill.pipelines.cli.pipeline_texts import extraction_text
from melmill.pipelines.extract import check_output
from melmill.pipelines.run.errors import TooManyFailuresError
from melmill.pipelines.snapshots.validate import check_shard
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.index.tables import read_index
from melmill.transforms.plan.packing import SplitTotals
from melmill.transforms.plan_shards import pack_bucket
from melmill.transforms.snapshot.delta import read_snapshot, require_snapshot, table_files
from melmill.transforms.snapshot.totals import ordered_shards
from melmill.transforms.store.folders import Store
from tests import signals
from tests.pipeline_runs import drop_privileges, extract_here, make_test_job, melmill

RATE = 22_050
QUICK = ("mel.n_mels=16", "chunk.seconds=0.5", "split.fractions={train: 1.0}")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Write three good recordings, of 1, 2 and 3 chunks, and return their folder."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(3):
        samples = signals.song(0.5 * (number + 1), RATE, number)
        signals.write_audio(folder / f"{number}.wav", samples, RATE)
    return folder


def add_bad_songs(songs: Path, number: int) -> None:
    for i in range(number):
        (songs / f"bad {i}.wav").write_bytes(b"la la la")


def refusal(songs: Path, output: Path | str) -> str:
    with pytest.raises(DatasetError) as raised:
        check_output(make_test_job(songs, output, *QUICK), {})
    return str(raised.value)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def count_rows(output: Path, version: int | None = None) -> int:
    rows: int = DeltaTable(str(output), version=version).to_pyarrow_table().num_rows
    return rows


def is_whole(output: Path) -> bool:
    """Return whether the dataset passes the checks of ``melmill validate``."""
    store = Store(str(output))
    snapshot = require_snapshot(store)
    shards = list(ordered_shards(store, snapshot.index))
    faults = [
        fault
        for shard in shards
        for fault in check_shard(shard, store=store, features=snapshot.features)
    ]
    logged = {name for name, _, _ in table_files(DeltaTable(store.root))}
    return not faults and logged == {shard.parquet.name for shard in shards if shard.parquet}


# Outputs that are refused before any worker starts.


def test_a_file_is_no_dataset(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    assert refusal(songs, tmp_path / "out").endswith(
        "this is a file, but a dataset is a folder; choose another path"
    )
    assert "Not a directory" in refusal(songs, tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "x"


def test_a_folder_that_holds_something_else_is_left_alone(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("b.txt", "a.txt"):
        (tmp_path / "out" / name).write_text("x")
    assert "holds something else (a.txt, b.txt)" in refusal(songs, tmp_path / "out")
    assert files(tmp_path / "out") == {"a.txt", "b.txt"}


def test_the_catalogue_itself_is_no_output(songs: Path) -> None:
    assert "holds something else (0.wav" in refusal(songs, songs)


def test_somebody_elses_delta_table_is_left_alone(songs: Path, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "out", pa.table({"x": [1]}))
    before = files(tmp_path / "out")
    assert "melmill did not make it" in refusal(songs, tmp_path / "out")
    assert files(tmp_path / "out") == before


def test_a_damaged_log_is_reported_in_a_line(songs: Path, tmp_path: Path) -> None:
    log = tmp_path / "out" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("{nonsense")
    message = refusal(songs, tmp_path / "out")
    assert "the Delta log cannot be read" in message
    assert "\n" not in message


def test_a_link_that_leads_in_a_circle_is_refused(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "out")
    assert "symbolic links" in refusal(songs, tmp_path / "out")


def test_an_output_without_a_name_is_not_the_current_folder(songs: Path) -> None:
    assert "the output is an empty string" in refusal(songs, "")


@pytest.mark.parametrize("url", ["nosuch://bucket/out", "mistake:///out"])
def test_an_unknown_store_is_refused(url: str, songs: Path) -> None:
    assert f"{url} cannot be opened" in refusal(songs, url)


@pytest.mark.parametrize(
    ("name", "character"),
    [
        ("a#b", "#"),
        ("a?b", r"\?"),
        ("[a]", r"\["),
        ("a%20b", "%20"),
        ("a\nb", r"\\n"),
        ("a\\b", ""),
    ],
)
def test_a_path_that_delta_tables_cannot_have_is_refused(
    name: str, character: str, songs: Path, tmp_path: Path
) -> None:
    """Once, melmill finished such a table, but it was in another folder or could not be read."""
    with pytest.raises(DatasetError, match=rf"'{character}.*is not allowed in the path"):
        check_output(make_test_job(songs, tmp_path / name), {})
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "name", ["two words", "100%", "\N{GUITAR} \u00fc", "a::b", 'it\'s "q"', "-x"]
)
def test_any_other_name_is_allowed(name: str, songs: Path, tmp_path: Path) -> None:
    output = tmp_path / name
    extract_here(songs, output, *QUICK)
    assert count_rows(output) == 6
    assert read_snapshot(Store(str(output))) is not None
    assert {path.name for path in tmp_path.iterdir()} == {"songs", name}


def test_a_folder_that_may_not_be_written_is_refused_with_2(songs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    result = melmill("extract", songs, tmp_path / "out", preexec_fn=drop_privileges)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Permission denied" in result.stderr
    assert "Traceback" not in result.stderr


# A second extraction into the same output.


def test_a_second_extraction_has_nothing_to_do(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = extract_here(songs, output, *QUICK)
    before = {name: (output / name).stat().st_mtime_ns for name in files(output)}
    second = extract_here(songs, output, *QUICK)
    assert (second.committed, second.snapshot) == (False, first.snapshot)
    assert second.totals.rows == first.totals.rows == 6
    assert DeltaTable(str(output)).version() == 0
    assert "Nothing to do: version 0" in extraction_text(str(output), second)
    shards = [name for name in before if "part-" in name or "_delta_log" in name]
    assert {name: (output / name).stat().st_mtime_ns for name in shards} == {
        name: before[name] for name in shards
    }
    assert not (output / "staging").exists()


def test_another_configuration_is_refused_and_changes_nothing(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_here(songs, output, *QUICK)
    other_job = make_test_job(songs, output, *QUICK, "mel.n_mels=20")
    with pytest.raises(DatasetError, match=r"another feature configuration.*--overwrite"):
        check_output(other_job, {})
    assert DeltaTable(str(output)).version() == 0
    assert is_whole(output)


def test_another_split_configuration_is_refused(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "out", *QUICK)
    with pytest.raises(DatasetError, match=r"another configuration of split.*--overwrite"):
        extract_here(songs, tmp_path / "out", *QUICK, "split.seed=7")


@pytest.mark.slow
def test_other_limits_change_nothing(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "out", *QUICK)
    second = extract_here(songs, tmp_path / "out", *QUICK, "limits.timeout_seconds=77")
    assert not second.committed
    assert second.snapshot.version == 0


def test_another_catalogue_is_refused(songs: Path, tmp_path: Path) -> None:
    extract_here(songs, tmp_path / "out", *QUICK)
    with pytest.raises(DatasetError, match="another catalogue"):
        check_output(make_test_job(f"{songs}/*.wav", tmp_path / "out", *QUICK), {})


def test_overwriting_replaces_all_in_one_version(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_here(songs, output, *QUICK)
    extraction = extract_here(songs, output, *QUICK, "mel.n_mels=20", overwrite=True)
    assert (extraction.committed, extraction.snapshot.version) == (True, 1)
    rows = DeltaTable(str(output)).to_pyarrow_table().to_pylist()
    assert (len(rows), {len(row["mel"]) for row in rows}) == (6, {20})
    assert {len(mel) for mel in DeltaTable(str(output), version=0).to_pyarrow_table()["mel"]} == {
        16
    }
    assert is_whole(output)


@pytest.mark.slow
def test_overwriting_may_change_the_columns(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_here(songs, output, *QUICK)
    for version, columns in enumerate(({"genre": "'rock'"}, {"genre": "7", "bpm": "1.5"}, {}), 1):
        table = tmp_path / f"songs {version}.csv"
        lines = [
            ",".join(["uri", *columns]),
            *(",".join([f"songs/{i}.wav", *columns.values()]) for i in range(3)),
        ]
        table.write_text("\n".join(lines))
        extraction = extract_here(table, output, *QUICK, overwrite=True)
        assert extraction.snapshot.version == version
        frame = polars.read_delta(str(output))
        assert len(frame) == 6
        assert {"genre", "bpm"} & set(frame.columns) == columns.keys()
        assert is_whole(output)


def test_a_new_recording_leaves_the_other_shards_alone(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_here(songs, output, *QUICK)
    (songs / "0.wav").unlink()
    signals.write_audio(songs / "3.wav", signals.song(0.5, RATE, 3), RATE)
    with pytest.raises(DatasetError, match="lacks 1 of the 3 recordings of version 0"):
        extract_here(songs, output, *QUICK)
    extraction = extract_here(songs, output, *QUICK, "refresh.max_removed_ratio=0.5")
    assert (extraction.committed, extraction.snapshot.version, extraction.totals.rows) == (
        True,
        1,
        6,
    )
    uris = {row["uri"][-5:] for row in DeltaTable(str(output)).to_pyarrow_table().to_pylist()}
    assert uris == {"1.wav", "2.wav", "3.wav"}
    assert (count_rows(output, version=0), count_rows(output)) == (6, 6)
    assert is_whole(output)


# Too many failures.


def test_too_many_failures_commit_nothing_and_are_listed(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    add_bad_songs(songs, 2)
    with pytest.raises(TooManyFailuresError) as raised:
        extract_here(songs, output, *QUICK)
    message = str(raised.value)
    assert "2 of 5 recordings failed (40.0%, and limits.max_failure_ratio allows 5.0%)" in message
    assert not DeltaTable.is_deltatable(str(output))
    assert not (output / "README.md").exists()
    (index,) = (output / "index").iterdir()
    assert f"{index}/" in message
    assert "  2 failed: unknown_format\n" in message
    assert f"{str(songs / 'bad 0.wav')!r}: " in message
    failures = list(read_index(Store(str(output)), index.name, "failures"))
    assert {Path(row["uri"]).name for row in failures} == {"bad 0.wav", "bad 1.wav"}


def test_a_higher_limit_commits_the_good_recordings(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    add_bad_songs(songs, 2)
    with pytest.raises(TooManyFailuresError):
        extract_here(songs, output, *QUICK)
    extraction = extract_here(songs, output, *QUICK, "limits.max_failure_ratio=0.4")
    assert (extraction.committed, extraction.totals.recordings) == (True, {"ok": 3, "failed": 2})
    assert count_rows(output) == 6
    assert is_whole(output)


def test_too_many_failures_leave_the_last_snapshot_alone(songs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    extract_here(songs, output, *QUICK)
    add_bad_songs(songs, 2)
    with pytest.raises(TooManyFailuresError):
        extract_here(songs, output, *QUICK)
    assert DeltaTable(str(output)).version() == 0
    assert is_whole(output)


def test_a_catalogue_of_failures_alone_is_refused(songs: Path, tmp_path: Path) -> None:
    for song in songs.iterdir():
        song.write_bytes(b"la la la")
    with pytest.raises(TooManyFailuresError, match="3 failed"):
        extract_here(songs, tmp_path / "out", *QUICK, "limits.max_failure_ratio=1")


def test_recordings_too_short_for_a_chunk_are_counted(songs: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyFailuresError, match=r"3 were shorter than a chunk"):
        extract_here(songs, tmp_path / "out", "chunk.seconds=5", "chunk.short=drop")


@pytest.mark.parametrize("failed", [29, 50, 57, 58])
def test_planner_and_committer_agree_on_how_many_may_fail(
    failed: int, songs: Path, tmp_path: Path
) -> None:
    """Once, 29 failures of 100 at a ratio of 0.29 passed the committer, but not the planner."""
    job = make_test_job(songs, tmp_path / "out", *QUICK, f"limits.max_failure_ratio={failed / 100}")
    good = [_Planned() for _ in range(100 - failed)]
    totals = {"train": SplitTotals(100 - failed, 100 - failed)}
    packed = pack_bucket((("train", 0), good), totals, failed, job)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):  # it starts to pack the fake recordings
        next(packed)


class _Planned:
    rows = 1


def test_the_command_ends_with_2_if_too_many_recordings_failed_for_good(
    songs: Path, tmp_path: Path
) -> None:
    add_bad_songs(songs, 2)
    result = melmill("extract", songs, tmp_path / "out", "--quiet")
    assert (result.returncode, result.stdout) == (2, "")
    assert "nothing was committed. All failures are listed in" in result.stderr
    assert "Traceback" not in result.stderr


# Full disks.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk needs mount: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


def test_a_disk_that_fills_up_is_the_users_error_and_the_run_can_be_resumed(
    songs: Path, small_disk: Path
) -> None:
    output = small_disk / "out"
    with pytest.raises(DatasetError, match="No space left on device") as raised:
        extract_here(songs, output, *QUICK)
    assert str(output) in str(raised.value)
    assert not DeltaTable.is_deltatable(str(output))
    finished = {
        name: (output / name).stat().st_mtime_ns for name in files(output) if "part-" in name
    }
    enlarge(small_disk)
    assert extract_here(songs, output, *QUICK).committed
    assert count_rows(output) == 6
    assert is_whole(output)
    assert {name: (output / name).stat().st_mtime_ns for name in finished} == finished


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_commit_commits_nothing(
    songs: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import melmill.pipelines.commit

    enlarge(small_disk)
    output = small_disk / "out"
    commit = melmill.pipelines.commit.commit

    def commit_on_a_full_disk(*arguments: object) -> int:
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            while _writes(filler.fileno()):
                pass
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(melmill.pipelines.commit, "commit", commit_on_a_full_disk)
    with pytest.raises(DatasetError, match=r"cannot commit to .*: No space left on device"):
        extract_here(songs, output, *QUICK)
    assert not DeltaTable.is_deltatable(str(output))
    monkeypatch.undo()
    (small_disk / "filler").unlink()
    assert extract_here(songs, output, *QUICK).snapshot.version == 0
    assert is_whole(output)


def _writes(descriptor: int) -> bool:
    try:
        return os.write(descriptor, bytes(4096)) > 0
    except OSError:
        return False


def test_a_file_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(DatasetError, match="No space left on device"), store.scratch():
        Path("/dev/full").write_bytes(b"x")
    assert files(tmp_path) == set()

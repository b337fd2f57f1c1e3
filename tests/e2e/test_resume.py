"""Whatever process is killed at any time, the same command then makes the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from deltalake import DeltaTable

import melmill.pipelines.commit
import melmill.pipelines.extract
import melmill.transforms.snapshot.committing
from melmill.transforms.core.errors import DatasetError
from melmill.transforms.rows.summaries import ShardSummary
from tests.e2e.comparing import add_actions, assert_same_dataset, contents
from tests.e2e.songs import Songs, python_command
from tests.pipeline_runs import extract_here
from tests.signals import noise, write_audio

#: Seconds in which a run's processes must end; on a busy machine, they took a few seconds.
ENDING_SECONDS = 30
RUN_SECONDS = 300


def receipts(folder: Path) -> list[ShardSummary]:
    return [
        ShardSummary.from_json(path.read_bytes()) for path in folder.glob("staging/*/shards/*.json")
    ]


def finished_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file of the finished shards."""
    files = [file for shard in receipts(folder) for file in (shard.parquet, shard.tfrecord) if file]
    stats = {file.name: (folder / file.name).stat() for file in files}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def identities(folder: Path, names: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    stats = {name: (folder / name).stat() for name in names}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


class Run:
    """The command in its own session, as a terminal starts it."""

    def __init__(self, command: list[str], folder: Path, temporary: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; the run must not end before."""
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.002)

    def wait_for_shards(self, number: int) -> None:
        self.wait_until(lambda: len(list(self.folder.glob("staging/*/shards/*.json"))) >= number)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return [
            process
            for process in self.children()
            if "melmill.pipelines.run.local_beam" in _arguments(process)
        ]

    def decoders(self) -> list[psutil.Process]:
        return [
            process for process in self.children() if "m.serve()" in " ".join(_arguments(process))
        ]

    def signal(self, number: int, *, group: bool) -> list[psutil.Process]:
        """Signal the launcher or the whole group; return the children, which must end then."""
        children = self.children()
        (os.killpg if group else os.kill)(self.process.pid, number)
        return children

    def finish(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=RUN_SECONDS)
        return self.process.returncode, output, errors


def _arguments(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@contextmanager
def launch(songs: Songs, folder: Path, patch: str = "") -> Iterator[Run]:
    temporary = folder.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    run = Run(python_command(*songs.command(folder), "--quiet", patch=patch), folder, temporary)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate()


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=ENDING_SECONDS)
    assert alive == []


def assert_nothing_committed(folder: Path) -> None:
    assert not (folder / "_delta_log").exists()
    assert not (folder / "README.md").exists()


def resume(songs: Songs, folder: Path) -> str:
    with launch(songs, folder) as run:
        status, output, errors = run.finish()
    assert status == 0, errors
    assert errors == ""
    return output


@pytest.mark.parametrize(
    ("shards", "group"),
    [
        pytest.param(0, True, id="everything, before any shard", marks=pytest.mark.slow),
        pytest.param(1, True, id="everything, after one shard", marks=pytest.mark.slow),
        pytest.param(6, False, id="the launcher alone, after half of the shards"),
    ],
)
def test_a_killed_run_is_resumed(songs, dataset, tmp_path, shards, group):
    folder = tmp_path / "dataset"
    with launch(songs, folder) as run:
        run.wait_until((folder / "staging").exists)
        run.wait_for_shards(shards)
        children = run.signal(signal.SIGKILL, group=group)
        assert_gone(children)
    assert_nothing_committed(folder)
    finished = finished_files(folder)
    assert len(finished) >= 2 * shards
    resume(songs, folder)
    assert_same_dataset(folder, dataset)
    assert identities(folder, finished) == finished


KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    ("patch", "committed"),
    [
        # The quick test above kills a run before its commit, too.
        pytest.param(
            f"extract.require_outcome = lambda job: {KILL}",
            False,
            id="shards, no commit",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"snapshot_module.write_card = lambda *of: {KILL}", True, id="commit, no card"
        ),
        pytest.param(
            f"from melmill.transforms.snapshot import card; card._card = lambda *of: {KILL}",
            True,
            id="half a card",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            f"extract.Store.remove_files = lambda *of: {KILL}",
            True,
            id="card, and staging left",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_launcher_killed_between_two_steps_is_resumed(songs, dataset, tmp_path, patch, committed):
    folder = tmp_path / "dataset"
    with launch(songs, folder, patch) as run:
        assert run.finish()[0] == -signal.SIGKILL
    finished = finished_files(folder)
    assert {name for name in contents(dataset) if "/part-" in name} == finished.keys()
    if committed:
        assert add_actions(folder) == add_actions(dataset)
    else:
        assert_nothing_committed(folder)
    output = resume(songs, folder)
    assert output.startswith("Nothing to do" if committed else "Committed version 0")
    assert_same_dataset(folder, dataset)
    assert identities(folder, finished) == finished


def test_a_run_outlives_a_killed_worker(songs, dataset, tmp_path):
    folder = tmp_path / "dataset"
    with launch(songs, folder) as run:
        run.wait_for_shards(1)
        children = run.children()
        run.workers()[0].kill()
        finished = finished_files(folder)
        status, output, errors = run.finish()
        assert_gone(children)
    assert status == 0, errors
    assert output.startswith("Committed version 0")
    assert "a worker process ended with status" in errors
    assert "; retrying" in errors
    assert "Traceback" not in errors
    assert_same_dataset(folder, dataset)
    assert identities(folder, finished) == finished


def kill_decoding(run: Run, folder: Path) -> bool:
    """Kill a decoder that is reading a file of the folder; return whether a decoder was killed."""
    for decoder in run.decoders():
        with suppress(psutil.NoSuchProcess):
            decoder.suspend()  # so that it is still reading when it is killed
            if any(Path(file.path).parent == folder for file in decoder.open_files()):
                decoder.kill()
                return True
            decoder.resume()
    return False


def test_a_killed_decoder_costs_no_recording(songs, dataset, tmp_path):
    folder = tmp_path / "dataset"
    with launch(songs, folder) as run:
        run.wait_for_shards(1)
        run.wait_until(lambda: kill_decoding(run, songs.path("").resolve()))
        status, _, errors = run.finish()
    assert status == 0, errors
    assert errors == ""
    assert_same_dataset(folder, dataset)


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(True, id="control-C"),
        pytest.param(False, id="kill -INT", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_says_so_and_leaves_no_process(songs, tmp_path, group):
    folder = tmp_path / "dataset"
    with launch(songs, folder) as run:
        run.wait_for_shards(1)
        children = run.signal(signal.SIGINT, group=group)
        status, output, errors = run.finish()
        assert_gone(children)
    assert status == 130
    assert output == ""
    assert errors == (
        "melmill: interrupted; finished work is kept, run the same command again to continue\n"
    )
    assert_nothing_committed(folder)
    assert receipts(folder)


def test_two_equal_commands_at_once_make_one_dataset(songs, dataset, tmp_path):
    folder = tmp_path / "dataset"
    with launch(songs, folder) as first, launch(songs, folder) as second:
        results = [run.finish() for run in (first, second)]
    assert 0 in [status for status, _, _ in results]
    for status, output, errors in results:
        assert "Traceback" not in errors
        assert status in (0, 4), errors
        assert output or "another run committed" in errors
    assert_same_dataset(folder, dataset)


@pytest.fixture
def hum(tmp_path) -> Path:
    (tmp_path / "audio").mkdir()
    return write_audio(tmp_path / "audio" / "hum.wav", noise(4, 22_050), 22_050).parent


def test_a_run_recognises_its_own_commit_if_the_reply_was_lost(hum, tmp_path, monkeypatch):
    """The client retries, and the store answers that the commit exists already."""
    original = melmill.transforms.snapshot.committing._write

    def write_twice(*arguments):
        original(*arguments)
        return original(*arguments)

    monkeypatch.setattr(melmill.transforms.snapshot.committing, "_write", write_twice)
    extraction = extract_here(hum, tmp_path / "dataset")
    assert extraction.committed
    assert extraction.snapshot.version == 0
    assert not (tmp_path / "dataset" / "staging").exists()


def test_a_rival_that_commits_something_else_first_wins(hum, tmp_path, monkeypatch):
    original = melmill.pipelines.commit.commit

    def commit_after_rival(*arguments):
        monkeypatch.setattr(melmill.pipelines.commit, "commit", original)
        extract_here(hum, tmp_path / "dataset", "chunk.seconds=2")
        return original(*arguments)

    monkeypatch.setattr(melmill.pipelines.commit, "commit", commit_after_rival)
    with pytest.raises(DatasetError, match="another run committed version 0"):
        extract_here(hum, tmp_path / "dataset")
    assert DeltaTable(tmp_path / "dataset").to_pyarrow_table().num_rows == 2


def test_a_rival_that_removes_the_staging_folder_is_named(hum, tmp_path, monkeypatch):
    original = melmill.pipelines.extract.require_outcome

    def read_after_rival(job):
        monkeypatch.setattr(melmill.pipelines.extract, "require_outcome", original)
        extract_here(hum, tmp_path / "dataset")
        return original(job)

    monkeypatch.setattr(melmill.pipelines.extract, "require_outcome", read_after_rival)
    with pytest.raises(DatasetError, match="another run committed version 0"):
        extract_here(hum, tmp_path / "dataset")
    assert not (tmp_path / "dataset" / "staging").exists()

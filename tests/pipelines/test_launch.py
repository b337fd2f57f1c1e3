"""Tests of launching: users see their own errors, and a lost worker costs one more attempt."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import psutil
import pytest

from melmill.pipelines.run import launch
from melmill.pipelines.run.errors import LostWorkerError
from melmill.pipelines.run.launch import run_pipeline
from melmill.pipelines.run.local_workers import quiet_workers, watching_workers
from melmill.pipelines.run.options import pipeline_options
from melmill.transforms.core.errors import (
    CatalogueError,
    Cause,
    DatasetError,
    RecordingError,
    Stage,
    UserError,
)


@pytest.fixture(autouse=True)
def _workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers import the tests: they do not look for modules in the current folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


# The text in which Beam reports an error in a worker.
BEAM_TEXT = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1498, in process
  File "/x/transforms/catalogue.py", line 45, in only_one
    raise CatalogueError(duplicate_message(first, others[0]))
melmill.transforms.core.errors.{error} [while running 'ReadCatalogue/CheckUnique-ptransform-72']

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1563, in reraise
melmill.transforms.core.errors.{error} [while running 'ReadCatalogue/CheckUnique-ptransform-72']
"""


def user_error(error: str) -> UserError | None:
    return launch._user_error(RuntimeError(BEAM_TEXT.format(error=error)))


def test_a_users_error_is_found_in_beams_text() -> None:
    error = user_error("CatalogueError: songs.csv line 2 and songs.csv line 4 both name a.wav")
    assert type(error) is CatalogueError
    assert str(error) == "songs.csv line 2 and songs.csv line 4 both name a.wav"


def test_an_error_of_several_lines_is_found_whole() -> None:
    assert str(user_error("DatasetError: one\n  two: [three]")) == "one\n  two: [three]"


@pytest.mark.parametrize(
    "error",
    [
        "RecordingError: decode: corrupt: bad",
        "NoSuchError: what",
        "Cause: no error at all",
    ],
)
def test_an_error_that_is_nobodys_fault_stays_beams(error: str) -> None:
    assert user_error(error) is None


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("ModuleNotFoundError: No module named 'melmill' [while", "the workers have no melmill"),
        (
            "ModuleNotFoundError: No module named 'melmill.transforms.plan.job'",
            "the workers have no melmill",
        ),
        ("ModuleNotFoundError: No module named 'soxr'", "the workers have no Python package soxr;"),
        (
            # Flink 1.20.1's answer to a job server for 1.19.
            "org.apache.flink.runtime.rest.util.RestClientException: [org.apache.flink.runtime."
            "rest.handler.RestHandlerException: Failed to deserialize JobGraph.\n\tat org.apache"
            "\nCaused by: java.lang.ClassNotFoundException: org.apache.flink.runtime.jobgraph."
            "RestoreMode",
            "are of different versions of Flink",
        ),
    ],
)
def test_a_fault_of_a_cluster_is_reported_with_advice(text: str, advice: str) -> None:
    error = launch._user_error(RuntimeError(f"Pipeline x failed in state FAILED: {text}"))
    assert isinstance(error, UserError)
    assert advice in str(error)


def test_our_own_words_come_before_advice() -> None:
    text = (
        "ModuleNotFoundError: No module named 's3fs'\n\nThe above exception was the direct cause\n"
        + BEAM_TEXT.format(error="ConfigError: on a worker: s3://b needs pip install 'melmill[s3]'")
    )
    assert str(launch._user_error(RuntimeError(text))).startswith("on a worker: s3://b needs")


def test_a_programming_error_stays_itself() -> None:
    error = RuntimeError("ValueError: shapes differ [while running 'MakeShards']")
    assert launch._user_error(error) is None


# Real runs, in separate processes


def raise_error(error: Exception) -> None:
    raise error


def run(step: Any, argument: Any, numbers: int = 8) -> Any:
    def build(pipeline: beam.Pipeline) -> None:
        elements = pipeline | beam.Create(range(numbers)) | beam.Reshuffle()
        _ = elements | "Step" >> beam.Map(step, argument)

    return run_pipeline(build, pipeline_options("direct", 2, []))


def fail(number: int, error: Exception) -> int:
    if number == 3:
        raise error
    return number


def report_threads(number: int, names: list[str]) -> int:
    raise DatasetError(" ".join(os.environ.get(name, "none") for name in names))


def test_a_worker_has_one_thread_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")  # the user's own setting stays
    with pytest.raises(DatasetError, match=r"^1 1 3$"):
        run(report_threads, names)


def test_a_users_error_in_a_worker_reaches_the_user() -> None:
    with pytest.raises(DatasetError) as raised:
        run(fail, DatasetError("cannot write\n  shard 7"))
    assert str(raised.value) == "cannot write\n  shard 7"


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes differ"), RecordingError(Stage.DECODE, Cause.CORRUPT, "bad")],
    ids=["ValueError", "RecordingError"],
)
def test_any_other_error_in_a_worker_is_beams(error: Exception) -> None:
    with pytest.raises(RuntimeError, match=type(error).__name__) as raised:
        run(fail, error)
    assert not isinstance(raised.value, UserError)


def die_once(number: int, folder: str) -> None:
    """Kill the worker, like the out-of-memory killer, when number 3 comes for the first time."""
    marker = Path(folder, "died")
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    Path(folder, str(number)).touch()


# Beam's own threads fail when their worker is gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lost_worker_neither_ends_the_run_nor_leaves_processes_behind(tmp_path: Path) -> None:
    run(die_once, str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"died", *map(str, range(8))}
    assert not [child for child in psutil.Process().children() if "local_beam" in _command(child)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.NoSuchProcess:
        return ""


def test_workers_lost_in_every_attempt_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def lose(*arguments: object) -> None:
        attempts.append(arguments)
        raise LostWorkerError("a worker process ended with status 137")

    monkeypatch.setattr(launch, "_run_once", lose)
    with pytest.raises(LostWorkerError, match="137"):
        run_pipeline(lambda pipeline: None, None)
    assert len(attempts) == 3


def test_after_a_lost_worker_the_next_attempt_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter([LostWorkerError("lost"), "result"])

    def attempt(*arguments: object) -> object:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(launch, "_run_once", attempt)
    assert run_pipeline(lambda pipeline: None, None) == "result"


def test_ctrl_c_is_not_taken_for_a_lost_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pipeline: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(interrupt, pipeline_options("direct", 1, []))


def test_an_error_counts_though_a_worker_is_lost_while_the_others_are_ended() -> None:
    def fail_and_lose(pipeline: object) -> None:
        try:
            raise RuntimeError(f"{DatasetError.__module__}.DatasetError: a shard is missing")
        finally:
            lose_worker()

    options = pipeline_options("direct", 1, [])
    with pytest.raises(DatasetError, match="a shard is missing"):
        run_pipeline(fail_and_lose, options)


def lose_worker() -> None:
    error = RuntimeError("Worker subprocess exited with return code 9")
    thread = threading.Thread(target=raise_error, args=(error,))
    thread.start()
    thread.join()
    time.sleep(5)


def test_a_lost_worker_is_noticed_by_what_its_thread_raises() -> None:
    with pytest.raises(LostWorkerError, match="status 9"), watching_workers() as workers:
        workers.run(lose_worker)


def test_a_lost_worker_is_noticed_where_control_c_is_ignored() -> None:
    # A command that a shell script starts in the background ignores Control-C.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        test_a_lost_worker_is_noticed_by_what_its_thread_raises()
    finally:
        signal.signal(signal.SIGINT, handler)


def test_other_threads_errors_go_where_they_went(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_value))
    with watching_workers() as workers:
        thread = threading.Thread(target=raise_error, args=(ValueError("mine"),))
        thread.start()
        thread.join()
    assert workers.lost == ""
    assert [str(error) for error in errors] == ["mine"]


def test_what_workers_log_stays_out_of_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with launch._quiet(pipeline_options("direct", 1, [])):
        os.write(2, b"noise")
        print("more noise", file=sys.__stderr__, flush=True)
    os.write(2, b"signal")
    assert capfd.readouterr().err == "signal"


def test_what_other_runners_log_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with launch._quiet(pipeline_options("flink", 0, ["--flink_master=[local]"])):
        os.write(2, b"job submitted")
    assert capfd.readouterr().err == "job submitted"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_in_another_thread_ends_well_and_notices_a_lost_worker(tmp_path: Path) -> None:
    outcomes: list[BaseException | None] = []

    def run_in_thread(step: Any, argument: Any) -> None:
        try:
            run(step, argument)
            outcomes.append(None)
        except UserError as error:
            outcomes.append(error)

    for step, argument in ((die_once, str(tmp_path)), (fail, DatasetError("cannot write"))):
        thread = threading.Thread(target=run_in_thread, args=(step, argument))
        thread.start()
        thread.join(120)
        assert not thread.is_alive()
    assert {path.name for path in tmp_path.iterdir()} == {"died", *map(str, range(8))}
    assert [str(outcome) for outcome in outcomes] == ["None", "cannot write"]
    assert not [child for child in psutil.Process().children() if "local_beam" in _command(child)]


def print_and_fail(number: int, words: str) -> int:
    if number == 3:
        print(words, file=sys.stderr, flush=True)
        raise ValueError("shapes differ")
    return number


def test_a_failing_run_says_what_workers_wrote_last_and_where_the_rest_is() -> None:
    words = "\n".join(f"word {number}" for number in range(30))
    with pytest.raises(RuntimeError, match="shapes differ") as raised:
        run(print_and_fail, words)
    (note,) = raised.value.__notes__
    headline, *lines = note.splitlines()
    assert 0 < len(lines) <= 20
    assert "  word 29" in lines
    assert "  word 0" not in lines
    log_file = Path(headline.partition("(")[2].partition(" has more")[0])
    assert "word 0\n" in log_file.read_text()
    log_file.unlink()


def test_a_users_error_needs_no_word_of_the_workers() -> None:
    with pytest.raises(DatasetError) as raised:
        run(fail, DatasetError("cannot write"))
    assert not hasattr(raised.value, "__notes__")


def test_workers_messages_do_not_reach_a_notebooks_log(caplog: pytest.LogCaptureFixture) -> None:
    beams_log = logging.getLogger("apache_beam.runners.portability.local_job_service")
    with quiet_workers():
        beams_log.warning("during the run")
    beams_log.warning("after the run")
    assert caplog.messages == ["after the run"]

"""Runs a pipeline from this process: live progress, lost workers, errors in plain words."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import melmill.transforms.core.errors
from melmill.pipelines.run.counters import RunMetrics, final_metrics, watching
from melmill.pipelines.run.errors import LostWorkerError, NothingSubmittedError, RunnerError
from melmill.pipelines.run.interruption import Interrupted
from melmill.pipelines.run.local_workers import quiet_workers, watching_workers
from melmill.pipelines.run.memory import tune_allocation
from melmill.pipelines.run.options import RUNNERS
from melmill.transforms.core.errors import ConfigError, DatasetError, UserError
from melmill.transforms.decode.isolation import ONE_THREAD

if TYPE_CHECKING:
    from melmill.transforms.plan.job import ExtractJob
    from melmill.transforms.views.exports import ExportJob

_ATTEMPTS = 3
_USER_ERROR = re.compile(
    r"melmill\.transforms\.core\.errors\.(\w+): (.*?)(?= \[while running|\n\n|\Z)", re.DOTALL
)


#: What is wrong with a cluster, by what is found in an error of it.
_ADVICE = (
    (
        re.compile(r"No module named 'melmill\b"),
        "the workers have no melmill; give it to them with --setup_file=./setup.py (from its "
        "source folder), or with an image in which it is installed (docs/runners.md)",
    ),
    (
        re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'"),
        "the workers have no Python package {}; give it to them with --setup_file=./setup.py, "
        "or with an image in which melmill is installed (docs/runners.md)",
    ),
    (
        # Said by Flink 1.20 to a job server for 1.19; the other is what Java says of a class.
        re.compile(r"Failed to deserialize JobGraph|java\.io\.InvalidClassException"),
        "the job server and the Flink cluster are of different versions of Flink; start the job "
        "server for the cluster's version, or name the cluster with --flink_master instead of "
        "--job_endpoint: then the right one is used",
    ),
)


Job = TypeVar("Job", "ExtractJob", "ExportJob")


def run_job(
    build: Callable[[Any, Job], object],
    job: Job,
    options: Any,
    finished: Callable[[], int] = int,
) -> RunMetrics:
    """Run a job's pipeline to its end, and show meanwhile how far it is.

    Workers on this machine tell the display themselves; of others, the runner is asked.

    Parameters
    ----------
    build
        Applies the transforms to the pipeline that it is given.
    job
        Its ``progress`` is where the display listens.
    options
        Beam's.
    finished
        Counts the finished shards in the store, for runners that count nothing meanwhile.

    Returns
    -------
    RunMetrics
        What was counted.

    Raises
    ------
    NothingSubmittedError
        It was a dry run.
    ConfigError
        A template was asked for.
    """
    if runs_here(options):
        return final_metrics(run_pipeline(lambda pipeline: build(pipeline, job), options))
    quiet = replace(job, progress="")
    if makes_template(options):
        raise ConfigError("--template_location: only extract and refresh make templates")
    if is_dry_run(options):
        _prepare(lambda pipeline: build(pipeline, quiet), options)
        raise NothingSubmittedError(
            "dry run: the pipeline and its options are in order; nothing was submitted"
        )
    watch = partial(watching, address=job.progress, finished=finished)
    return final_metrics(run_pipeline(lambda pipeline: build(pipeline, quiet), options, watch))


def run_pipeline(
    build: Callable[[Any], object],
    options: Any,
    watch: Callable[[Any], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Any:
    """Run a pipeline to its end, again if a local worker process is lost.

    Every step may be repeated, and finished shards are found again, so another attempt
    costs only what was in the making.

    Parameters
    ----------
    build
        Applies the transforms to the pipeline that it is given.
    options
        Beam's.
    watch
        Gets Beam's result while the pipeline runs on other machines.

    Raises
    ------
    UserError
        What a worker raised, in its own words.
    LostWorkerError
        Workers were lost in every attempt.
    """
    tune_allocation()
    for name, number in ONE_THREAD.items():
        os.environ.setdefault(name, number)
    attempts = partial(_run_once, build, options, watch)
    for _ in range(1, _ATTEMPTS):
        try:
            return attempts((UserError, LostWorkerError))
        except LostWorkerError as error:
            logging.getLogger("melmill").warning("%s; starting again", error)
    return attempts()


def _run_once(
    build: Callable[[Any], object],
    options: Any,
    watch: Callable[[Any], AbstractContextManager[None]],
    unnoted: tuple[type[Exception], ...] = (UserError,),
) -> Any:
    with _quiet(options, unnoted), watching_workers() as workers:
        return workers.run(lambda: _run(build, options, watch))


def _quiet(
    options: Any, unnoted: tuple[type[Exception], ...] = (UserError,)
) -> AbstractContextManager[None]:
    """Keep what local workers write out of the terminal; what other runners say is shown."""
    return quiet_workers(unnoted) if runs_here(options) else contextlib.nullcontext()


def _run(
    build: Callable[[Any], object],
    options: Any,
    watch: Callable[[Any], AbstractContextManager[None]],
) -> Any:
    result = None
    try:
        result = _prepare(build, options)
        _say_where(result, options)
        with watch(result):
            result.wait_until_finish()
    except (KeyboardInterrupt, Interrupted):
        if result is not None and not runs_here(options):
            result.cancel()
        raise
    except Exception as error:
        # Each runner has a class of its own for what went wrong on a worker.
        if (plain := _plain(error)) is error:
            raise
        raise plain from error
    return result


def write_template(build: Callable[[Any, Job], object], job: Job, options: Any) -> NoReturn:
    """Write a template of a job that commits by itself; raises ``NothingSubmittedError``."""
    _prepare(lambda pipeline: build(pipeline, replace(job, progress="")), options)
    raise NothingSubmittedError(
        f"wrote the template {_template(options)}; the jobs made of it commit by themselves"
    )


def _prepare(build: Callable[[Any], object], options: Any) -> Any:
    import apache_beam as beam

    pipeline = beam.Pipeline(options=options)
    with _own_labels():
        build(pipeline)
    return pipeline.run()


@contextlib.contextmanager
def _own_labels() -> Iterator[None]:
    """Keep Beam from renaming steps by a notebook's cell: it imports what fails under pandas 3."""
    import apache_beam.pipeline as beams

    before = beams.alter_label_if_ipython
    beams.alter_label_if_ipython = lambda transform, applied_to: None
    try:
        yield
    finally:
        beams.alter_label_if_ipython = before


def _say_where(result: Any, options: Any) -> None:
    """Say which job it is that Dataflow runs, and bills, whatever becomes of this process."""
    if _runs_on(options, "dataflow"):
        known = options.get_all_options()
        place = f"{known['region']}/{result.job_id()}?project={known['project']}"
        url = f"https://console.cloud.google.com/dataflow/jobs/{place}"
        print(f"melmill: Dataflow job {result.job_id()}: {url}", file=sys.stderr)


def is_dry_run(options: Any) -> bool:
    """Whether Dataflow's runner is to check the options and no more."""
    return _runs_on(options, "dataflow") and bool(options.get_all_options()["dry_run"])


def makes_template(options: Any) -> bool:
    """Whether Dataflow's runner is to write a job to a file, and somebody else submits it."""
    asked = _runs_on(options, "dataflow") and _template(options)
    return bool(asked) and not is_dry_run(options)


def _template(options: Any) -> str | None:
    found: str | None = options.get_all_options()["template_location"]
    return found


def not_shared(root: str) -> DatasetError:
    """Say that workers have written to another disk than this process reads from."""
    return DatasetError(
        f"output {root}: the run has ended, and what it made is not there: workers on other "
        "machines have written to their own disks; use an object store, or a folder that all "
        "machines share"
    )


def runs_here(options: Any) -> bool:
    """Whether the workers are this process's children."""
    return _runs_on(options, "direct")


def _runs_on(options: Any, runner: str) -> bool:
    return bool(options.get_all_options()["runner"] == RUNNERS[runner])


def _plain(error: Exception) -> Exception:
    """Find the user's error in what Beam makes of it."""
    if errors := _USER_ERROR.findall(str(error)):
        name, message = errors[-1]
        kind = getattr(melmill.transforms.core.errors, name, Exception)
        if issubclass(kind, UserError):
            return kind(message.strip())
    for said, advice in _ADVICE:
        if found := said.search(str(error)):
            return RunnerError(advice.format(*found.groups()))
    return error

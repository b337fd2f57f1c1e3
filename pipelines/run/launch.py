"""Run a pipeline from this process, with progress, retries after lost workers and clear errors."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import melmill.transforms.core.errors
from melmill.pipelines.run.counters import RunMetrics, final_metrics, watching
from melmill.pipelines.run.errors import LostWorkerError, NothingSubmittedError, RunnerError
from melmill.pipelines.run.interruption import Interrupted
from melmill.pipelines.run.local_workers import quiet_workers, watching_workers
from melmill.pipelines.run.memory import tune_allocation
from melmill.pipelines.run.options import RUNNERS
from melmill.transforms.core.errors import ConfigError, DatasetError, UserError
from melmill.transforms.decode.isolation import ONE_THREAD
from melmill.transforms.decode.lending import close_idle_decoders
from melmill.transforms.index.comparing import Comparison, compare_small

if TYPE_CHECKING:
    from melmill.transforms.duplicates.match_job import Search
    from melmill.transforms.plan.job import ExtractJob
    from melmill.transforms.views.exports import ExportJob

_ATTEMPTS = 3
_USER_ERROR = re.compile(
    r"melmill\.transforms\.core\.errors\.(\w+): (.*?)(?= \[while running|\n\n|\Z)", re.DOTALL
)


#: What Beam adds to an error's message.
_STEP = re.compile(r" \[while running [^\]]*\]")

#: Advice about a cluster, by a pattern in the error message.
_ADVICE = (
    (
        re.compile(r"No module named 'melmill\b"),
        "the workers have no melmill; give it to them with --setup_file=./setup.py (from its "
        "source folder), or with an image in which it is installed (docs/runners.md); workers on "
        "this machine need it installed: pip install . (in its source folder)",
    ),
    (
        re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'"),
        "the workers have no Python package {}; give it to them with --setup_file=./setup.py, "
        "or with an image in which melmill is installed (docs/runners.md)",
    ),
    (
        # The first is Flink 1.20's message to a job server for 1.19; the second is from Java.
        re.compile(r"Failed to deserialize JobGraph|java\.io\.InvalidClassException"),
        "the job server and the Flink cluster are of different versions of Flink; start the job "
        "server for the cluster's version, or use --flink_master instead of --job_endpoint to "
        "start the right job server automatically",
    ),
)


Job = TypeVar("Job", "ExtractJob", "ExportJob", "Search")


def run_job(
    build: Callable[[Any, Job], object],
    job: Job,
    options: Any,
    finished: Callable[[], int] = int,
    brief: bool = False,
) -> RunMetrics:
    """Run a job's pipeline to its end with a progress display, and return its metrics.

    Local workers send their progress to the display. For workers on other machines, this process
    asks the runner.

    Parameters
    ----------
    build
        A function that applies the transforms to a pipeline.
    job
        The job; its ``progress`` is the address of the display.
    options
        The options of Beam.
    finished
        A function that counts the finished shards in the store, for runners that have no metrics
        before the end.
    brief
        Whether this process runs the job sooner than it starts workers. It does so if the options
        do not give the number of workers.

    Returns
    -------
    RunMetrics
        The metrics of the run.

    Raises
    ------
    NothingSubmittedError
        The run was a dry run.
    ConfigError
        The options ask for a template.
    """
    if runs_here(options):
        alone = brief and _may_choose_workers(options)
        with _without_workers(options) if alone else contextlib.nullcontext():
            return final_metrics(run_pipeline(lambda pipeline: build(pipeline, job), options))
    quiet = replace(job, progress="")
    if makes_template(options):
        raise ConfigError("--template_location: only extract and refresh make templates")
    if is_dry_run(options):
        _prepare(lambda pipeline: build(pipeline, quiet), options)
        raise NothingSubmittedError(
            "dry run: the pipeline and its options are valid; nothing was submitted"
        )
    watch = partial(watching, address=job.progress, finished=finished)
    return final_metrics(run_pipeline(lambda pipeline: build(pipeline, quiet), options, watch))


def run_pipeline(
    build: Callable[[Any], object],
    options: Any,
    watch: Callable[[Any], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Any:
    """Run a pipeline to its end, and return Beam's result; retry if a local worker is lost.

    A retry is safe for every step. It reuses the finished shards, so only unfinished work is
    repeated.

    Parameters
    ----------
    build
        A function that applies the transforms to a pipeline.
    options
        The options of Beam.
    watch
        A context manager that takes Beam's result, entered while the pipeline runs on other
        machines.

    Raises
    ------
    UserError
        A worker raised this error.
    LostWorkerError
        Workers were lost in every attempt.
    """
    tune_allocation()
    for name, number in ONE_THREAD.items():
        os.environ.setdefault(name, number)
    attempt = partial(_run_once, build, options, watch)
    for _ in range(1, _ATTEMPTS):
        try:
            return attempt((UserError, LostWorkerError))
        except LostWorkerError as error:
            logging.getLogger("melmill").warning("%s; retrying", error)
    return attempt()


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
    """Redirect the output of local workers to a log; the output of other runners is shown."""
    return quiet_workers(unnoted) if runs_here(options) else contextlib.nullcontext()


def _run(
    build: Callable[[Any], object],
    options: Any,
    watch: Callable[[Any], AbstractContextManager[None]],
) -> Any:
    result = None
    try:
        result = _prepare(build, options)
        _print_job_url(result, options)
        with watch(result):
            result.wait_until_finish()
    except (KeyboardInterrupt, Interrupted) as signalled:
        if result is not None and not runs_here(options):
            result.cancel()
        # While Beam ends the workers after an error, a worker can be taken for a lost one.
        if user_error := _user_error(signalled.__context__):
            raise user_error from signalled
        raise
    except Exception as error:
        # Beam turns a signal that arrives in a DoFn of this process into an error.
        if signal := _signal_before(error):
            raise signal from None
        # Each runner has its own error class for errors on workers: catch all classes.
        if user_error := _user_error(error):
            raise user_error from error
        raise
    return result


def _signal_before(error: BaseException | None) -> BaseException | None:
    """Return the signal that an error is a consequence of; ``None`` if there was no signal."""
    while error is not None and not isinstance(error, (KeyboardInterrupt, Interrupted)):
        error = error.__cause__ or error.__context__
    return error


def write_template(build: Callable[[Any, Job], object], job: Job, options: Any) -> NoReturn:
    """Write a template for jobs that commit by themselves; raise ``NothingSubmittedError``."""
    _prepare(lambda pipeline: build(pipeline, replace(job, progress="")), options)
    raise NothingSubmittedError(
        f"wrote the template {_template(options)}; jobs that start from it commit by themselves"
    )


def _prepare(build: Callable[[Any], object], options: Any) -> Any:
    import apache_beam as beam

    _inspect_once()
    pipeline = beam.Pipeline(options=options)
    with _own_labels():
        build(pipeline)
    return pipeline.run()


@cache
def _inspect_once() -> None:
    """Let Beam inspect the states and timers of each DoFn once, from now on.

    While it builds a pipeline, Beam inspects each DoFn's signature six times, which takes a third
    of the time to build and start one. ``QuickOptions`` is for the same.
    """
    from apache_beam.transforms import userstate

    inspect, specs = userstate.get_dofn_specs, WeakKeyDictionary[Any, Any]()

    def get_dofn_specs(dofn: Any) -> Any:
        if dofn not in specs:
            specs[dofn] = inspect(dofn)
        return specs[dofn]

    userstate.get_dofn_specs = get_dofn_specs


@contextlib.contextmanager
def _own_labels() -> Iterator[None]:
    """Keep Beam from renaming steps after notebook cells: its import fails under pandas 3."""
    import apache_beam.pipeline as beam_pipeline

    before = beam_pipeline.alter_label_if_ipython
    beam_pipeline.alter_label_if_ipython = lambda transform, applied_to: None
    try:
        yield
    finally:
        beam_pipeline.alter_label_if_ipython = before


def _print_job_url(result: Any, options: Any) -> None:
    """Print the Dataflow job's ID and URL: it runs, and costs, even if this process ends."""
    if _runs_on(options, "dataflow"):
        known = options.get_all_options()
        place = f"{known['region']}/{result.job_id()}?project={known['project']}"
        url = f"https://console.cloud.google.com/dataflow/jobs/{place}"
        print(f"melmill: Dataflow job {result.job_id()}: {url}", file=sys.stderr)


def is_dry_run(options: Any) -> bool:
    """Return whether Dataflow's runner only checks the options."""
    return _runs_on(options, "dataflow") and bool(options.get_all_options()["dry_run"])


def makes_template(options: Any) -> bool:
    """Return whether Dataflow's runner writes the job to a template, which is submitted later."""
    template = _runs_on(options, "dataflow") and _template(options)
    return bool(template) and not is_dry_run(options)


def _template(options: Any) -> str | None:
    location: str | None = options.get_all_options()["template_location"]
    return location


def not_shared(root: str) -> DatasetError:
    """Return the error for workers that wrote to a disk that this process cannot read."""
    return DatasetError(
        f"output {root}: the run has ended, but its files are missing: workers on other machines "
        "wrote to their own disks; use an object store, or a folder that all machines share"
    )


def runs_here(options: Any) -> bool:
    """Return whether the workers are child processes of this process."""
    return _runs_on(options, "direct")


def compare_here(job: ExtractJob, options: Any) -> Comparison | None:
    """Compare a small catalogue with its snapshot before any worker is started.

    Returns
    -------
    Comparison or None
        ``None`` if the catalogue is large, or if the options say how many worker processes to
        start.
    """
    return compare_small(job) if _may_choose_workers(options) else None


def has_few_headers(job: ExtractJob, options: Any) -> bool:
    """Return whether this process plans a job sooner than it starts workers."""
    comparison = compare_here(job, options)
    return comparison is not None and comparison.has_few_headers


def _may_choose_workers(options: Any) -> bool:
    """Return whether the options leave the number of local worker processes to melmill."""
    return runs_here(options) and not options.get_all_options()["direct_num_workers"]


@contextlib.contextmanager
def _without_workers(options: Any) -> Iterator[None]:
    """Let this process do the work of workers; decoders are processes of their own as always."""
    from apache_beam.options.pipeline_options import DirectOptions

    direct = options.view_as(DirectOptions)
    before = direct.direct_running_mode, direct.direct_num_workers
    direct.direct_running_mode, direct.direct_num_workers = "in_memory", 1
    try:
        yield
    finally:
        direct.direct_running_mode, direct.direct_num_workers = before
        close_idle_decoders()


def _runs_on(options: Any, runner: str) -> bool:
    return bool(options.get_all_options()["runner"] == RUNNERS[runner])


def _user_error(error: BaseException | None) -> UserError | None:
    """Return the user's error that Beam's error quotes, or advice about a cluster, or None."""
    if isinstance(error, UserError):  # Beam adds the name of the step in this process
        return type(error)(_STEP.sub("", str(error)))
    if errors := _USER_ERROR.findall(str(error)):
        name, message = errors[-1]
        kind: type[Exception] = getattr(melmill.transforms.core.errors, name, Exception)
        if issubclass(kind, UserError):
            return kind(message.strip())
    for pattern, advice in _ADVICE:
        if match := pattern.search(str(error)):
            return RunnerError(advice.format(*match.groups()))
    return None

"""The metrics of a run, read from its runner at the end and, if possible, during the run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from melmill.transforms.beam.metrics import NAMESPACE, PASSED_OVER
from melmill.transforms.beam.progress import Progress

_SECONDS_BETWEEN = 5.0
_LOG = logging.getLogger("melmill")


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of durations of a kind of step, in milliseconds."""

    count: int
    sum: int
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Beam's metrics of a run, added up over its steps.

    :mod:`~melmill.transforms.beam.metrics` describes them. If a runner repeats work, it counts the
    work again.
    """

    counters: dict[str, int] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)

    @classmethod
    def of_listing(cls, listed: int, passed_over: Mapping[str, int]) -> Self:
        """Return the metrics of a run that listed its catalogue and had nothing else to do."""
        sides = {
            f"recordings_{side}.{stage}": listed
            for stage, side in (("list", "in"), ("list", "out"), ("compare", "in"))
        }
        return cls(sides | {f"{PASSED_OVER}{name}": n for name, n in passed_over.items()})

    @property
    def passed_over(self) -> dict[str, int]:
        """Return the numbers of files that were not listed, by extension, most frequent first."""
        numbers = {
            name.removeprefix(PASSED_OVER): number
            for name, number in self.counters.items()
            if name.startswith(PASSED_OVER)
        }
        return dict(sorted(numbers.items(), key=lambda item: (-item[1], item[0])))

    def to_json(self) -> dict[str, Any]:
        """Return the metrics as plain values, in alphabetical order."""
        distributions = {name: asdict(value) for name, value in sorted(self.distributions.items())}
        return {"counters": dict(sorted(self.counters.items())), "distributions": distributions}


def run_metrics(result: Any) -> RunMetrics:
    """Return the metrics that a runner has counted so far."""
    from apache_beam.metrics import MetricsFilter

    # The results of portable runners cache their first answer: clear the cache.
    result._metrics = None
    metrics = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counters: dict[str, int] = {}
    for metric in metrics["counters"]:
        name = metric.key.metric.name
        counters[name] = counters.get(name, 0) + _latest(metric)
    distributions: dict[str, Distribution] = {}
    for metric in metrics["distributions"]:
        name, value = metric.key.metric.name, _latest(metric)
        step = Distribution(value.count, value.sum, value.min, value.max)
        distributions[name] = _merge(distributions[name], step) if name in distributions else step
    return RunMetrics(counters, distributions)


def final_metrics(result: Any) -> RunMetrics:
    """Return the metrics at the end of a run; empty metrics if the runner cannot provide them."""
    try:
        return run_metrics(result)
    except Exception as error:  # noqa: BLE001 - each runner's client has its own error classes
        _LOG.warning("the metrics of the run cannot be read: %s", error)
        return RunMetrics()


def _latest(metric: Any) -> Any:
    return metric.attempted if metric.committed is None else metric.committed


def _merge(a: Distribution, b: Distribution) -> Distribution:
    return Distribution(a.count + b.count, a.sum + b.sum, min(a.min, b.min), max(a.max, b.max))


#: Names of the counters in the progress display.
_SHOWN = {
    "listed": "recordings_out.probe",
    "planned": "recordings_out.plan",
    "recordings": "recordings_out.extract",
    "rows": "rows_written",
    "exported": "shards_exported",
}


def display_totals(counters: Mapping[str, int]) -> dict[str, float]:
    """Return the totals for the progress display from a run's counters.

    >>> display_totals({"recordings_out.probe": 3, "audio_ms_probed": 60_000})["seconds_listed"]
    60.0
    """
    totals: dict[str, float] = {shown: counters.get(name, 0) for shown, name in _SHOWN.items()}
    totals["rows"] += counters.get("rows_exported", 0)
    totals["failed"] = counters.get("spans_failed", 0) + sum(
        counters.get(f"recordings_in.{stage}", 0) - counters.get(f"recordings_out.{stage}", 0)
        for stage in ("probe", "plan")
    )
    for shown, stage in (("_listed", "probed"), ("_planned", "planned"), ("", "extracted")):
        totals[f"seconds{shown}"] = counters.get(f"audio_ms_{stage}", 0) / 1000
    return totals


@contextmanager
def watching(result: Any, address: str, finished: Callable[[], int]) -> Iterator[None]:
    """Report the progress of a run on other machines to the display, while the block runs.

    Parameters
    ----------
    result
        The result object of Beam.
    address
        The address of the display.
    finished
        A function that counts the finished shards; used for runners that have no metrics before
        the end.
    """
    ended = threading.Event()
    arguments = result, Progress(address), finished, ended
    thread = threading.Thread(target=_report, args=arguments, name="watch-run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _report(
    result: Any, progress: Progress, finished: Callable[[], int], ended: threading.Event
) -> None:
    while not ended.wait(_SECONDS_BETWEEN):
        try:
            counters = run_metrics(result).counters
            progress.totals = display_totals(counters) if counters else {"shards": finished()}
        except Exception as error:  # noqa: BLE001 - only the display depends on it
            _LOG.warning("the progress of the run cannot be read: %s", error)
            continue
        progress.tell()

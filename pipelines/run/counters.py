"""What a run counted, as its runner tells it: at the end, and meanwhile as far as it does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.transforms.beam.metrics import NAMESPACE, PASSED_OVER, Progress

_SECONDS_BETWEEN = 5.0
_LOG = logging.getLogger("melmill")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Durations of one kind, in milliseconds."""

    count: int
    sum: int
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Beam's metrics of a run, added up over its steps; :mod:`~melmill.transforms.beam.metrics`
    names them.

    A runner that does work twice counts it twice.
    """

    counters: dict[str, int] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)

    @property
    def passed_over(self) -> dict[str, int]:
        """Files that were not listed, by their extension; the most frequent first."""
        found = {
            name.removeprefix(PASSED_OVER): number
            for name, number in self.counters.items()
            if name.startswith(PASSED_OVER)
        }
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def to_json(self) -> dict[str, Any]:
        """Give them as plain values, in alphabetical order."""
        spread = {name: asdict(one) for name, one in sorted(self.distributions.items())}
        return {"counters": dict(sorted(self.counters.items())), "distributions": spread}


def run_metrics(result: Any) -> RunMetrics:
    """Ask a runner what was counted so far."""
    from apache_beam.metrics import MetricsFilter

    # Portable runners' results keep their first answer.
    result._metrics = None
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))
    counters: dict[str, int] = {}
    for metric in found["counters"]:
        name = metric.key.metric.name
        counters[name] = counters.get(name, 0) + _latest(metric)
    distributions: dict[str, Distribution] = {}
    for metric in found["distributions"]:
        name, value = metric.key.metric.name, _latest(metric)
        one = Distribution(value.count, value.sum, value.min, value.max)
        distributions[name] = _merge(distributions[name], one) if name in distributions else one
    return RunMetrics(counters, distributions)


def final_metrics(result: Any) -> RunMetrics:
    """Ask at the end of a run, whose work is not to be lost because the runner cannot say."""
    try:
        return run_metrics(result)
    except Exception as error:  # noqa: BLE001 - each runner's client has errors of its own
        _LOG.warning("the runner does not say what it counted: %s", error)
        return RunMetrics()


def _latest(metric: Any) -> Any:
    return metric.attempted if metric.committed is None else metric.committed


def _merge(one: Distribution, other: Distribution) -> Distribution:
    return Distribution(
        one.count + other.count,
        one.sum + other.sum,
        min(one.min, other.min),
        max(one.max, other.max),
    )


#: What the display calls the counters.
_SHOWN = {
    "listed": "recordings_out.probe",
    "planned": "recordings_out.plan",
    "recordings": "recordings_out.extract",
    "rows": "rows_written",
    "exported": "shards_exported",
}


def display_totals(counters: Mapping[str, int]) -> dict[str, float]:
    """Say what the display shows of a run's counters.

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
    """Tell the display how far a run on other machines is, while the block runs.

    Parameters
    ----------
    result
        Beam's.
    address
        Where the display listens.
    finished
        Counts the finished shards: all there is where a runner counts nothing before the end.
    """
    ended = threading.Event()
    arguments = result, Progress(address), finished, ended
    thread = threading.Thread(target=_tell, args=arguments, name="watch-run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(
    result: Any, progress: Progress, finished: Callable[[], int], ended: threading.Event
) -> None:
    while not ended.wait(_SECONDS_BETWEEN):
        try:
            counters = run_metrics(result).counters
            progress.totals = display_totals(counters) if counters else {"shards": finished()}
        except Exception as error:  # noqa: BLE001 - the display alone depends on it
            _LOG.warning("no news of the run: %s", error)
            continue
        progress.tell()

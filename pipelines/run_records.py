"""What a run leaves for those who watch over it: ``runs/….json`` in the dataset, and metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import melmill
from melmill.pipelines.run.errors import NothingSubmittedError
from melmill.pipelines.snapshots.history import iso_time
from melmill.pipelines.snapshots.summary import totals_json
from melmill.transforms.core.errors import ConfigError, ConflictError, UserError
from melmill.transforms.snapshot.card import to_json
from melmill.transforms.store.folders import Store

if TYPE_CHECKING:
    from melmill.pipelines.extract import Extraction

COMMITTED, UNCHANGED, CONFLICT, FAILED = "committed", "unchanged", "conflict", "failed"


@dataclass(slots=True)
class Run:
    """A run of ``melmill refresh``.

    Attributes
    ----------
    catalogue, dataset
        What was brought up to date with what.
    started_ms, ended_ms
        Milliseconds since 1970.
    status
        ``committed``, ``unchanged``, ``conflict`` or ``failed``.
    result
        What it came to: version, difference, totals, counters.
    message
        What was wrong.
    """

    catalogue: str
    dataset: str
    started_ms: int
    ended_ms: int = 0
    status: str = FAILED
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_ms - self.started_ms) / 1000

    @property
    def name(self) -> str:
        """Name of its file: by when it began, to be sorted by."""
        stamp = iso_time(self.started_ms)[:19].replace("-", "").replace(":", "")
        return f"runs/{stamp}.{self.started_ms % 1000:03d}Z-refresh.json"

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "command": "refresh",
            "melmill": melmill.__version__,
            "catalogue": self.catalogue,
            "dataset": self.dataset,
            "status": self.status,
            "started": iso_time(self.started_ms),
            "ended": iso_time(self.ended_ms),
            "seconds": self.seconds,
            **self.result,
            **({"message": self.message} if self.message else {}),
        }


def result_json(made: Extraction) -> dict[str, Any]:
    """Give a refresh's result as plain values."""
    return {
        "version": made.snapshot.version,
        "dataset_version": made.snapshot.dataset_version,
        "index": made.snapshot.index,
        "committed": made.committed,
        "difference": made.difference,
        **totals_json(made.totals),
        "passed_over": made.metrics.passed_over,
        "metrics": made.metrics.to_json(),
    }


@contextlib.contextmanager
def recording_run(
    store: Store, catalogue: str, metrics_file: Path | None
) -> Iterator[Callable[[Extraction], None]]:
    """Record the refresh that the block runs, however it ends.

    Parameters
    ----------
    store
        The dataset.
    catalogue
        Its catalogue.
    metrics_file
        Gets the run's metrics in Prometheus' text format; ``None`` for none.

    Yields
    ------
    callable
        To be told what the refresh came to.
    """
    if metrics_file is not None and not metrics_file.parent.is_dir():
        raise ConfigError(f"--metrics-file {metrics_file}: there is no folder for it")
    run = Run(catalogue, store.root, _now_ms())

    def tell(made: Extraction) -> None:
        run.status = COMMITTED if made.committed else UNCHANGED
        run.result = result_json(made)

    try:
        yield tell
    except NothingSubmittedError:
        raise  # a check of options, or a template, is no refresh
    except Exception as error:
        run.status = CONFLICT if isinstance(error, ConflictError) else FAILED
        run.message = str(error)
        # What went wrong is said by the error itself; a store that fails is not asked to keep it.
        with contextlib.suppress(UserError, OSError):
            _leave(store, run, metrics_file)
        raise
    _leave(store, run, metrics_file)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _leave(store: Store, run: Run, metrics_file: Path | None) -> None:
    run.ended_ms = _now_ms()
    if metrics_file is not None:
        write_metrics(run, metrics_file)
    # Nothing is put into a folder that is no dataset.
    if "_delta_log" in store.top_names():
        store.put(run.name, to_json(run.to_json()))


def write_metrics(run: Run, path: Path) -> None:
    """Write a run's metrics for Prometheus' textfile collector, at once and whole."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def tell(name: str, about: str, values: dict[str, float], label: str = "") -> None:
        names = ("dataset", label) if label else ("dataset",)
        gauge = Gauge(f"melmill_{name}", about, names, registry=registry)
        for key, value in values.items():
            gauge.labels(*((run.dataset, key) if label else (run.dataset,))).set(value)

    success = run.status in (COMMITTED, UNCHANGED)
    result = run.result
    difference = {k: v for k, v in result.get("difference", {}).items() if k != "examples"}
    tell("refresh_success", "Whether the last refresh did what it was to do.", {"": success})
    tell("refresh_committed", "Whether it made a snapshot.", {"": run.status == COMMITTED})
    tell("refresh_end_timestamp_seconds", "When it ended.", {"": run.ended_ms / 1000})
    tell("refresh_duration_seconds", "How long it took.", {"": run.seconds})
    tell("refresh_recordings", "Recordings by what was done with them.", difference, "change")
    if success:
        tell("dataset_version", "Of the snapshot.", {"": result["version"]})
        tell("dataset_rows", "In the snapshot.", {"": result["rows"]})
        tell("dataset_recordings", "In the snapshot.", result["recordings"], "status")
        tell("dataset_failures", "Recordings that failed.", result["failures"], "cause")
    write_to_textfile(str(path), registry)

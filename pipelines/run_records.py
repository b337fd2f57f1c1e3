"""Records of runs for monitoring: files ``runs/….json`` in the dataset, and a metrics file."""

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
    """The record of a run of ``melmill refresh``.

    Attributes
    ----------
    catalogue, dataset
        The catalogue, and the dataset that was refreshed from it.
    started_ms, ended_ms
        The start and end in milliseconds since 1970.
    status
        The outcome: ``committed``, ``unchanged``, ``conflict`` or ``failed``.
    result
        The result: version, difference, totals, metrics.
    message
        The message of the error; ``""`` for none.
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
        """Return the duration."""
        return (self.ended_ms - self.started_ms) / 1000

    @property
    def name(self) -> str:
        """Return the name of the record's file; names sort by start time."""
        stamp = iso_time(self.started_ms)[:19].replace("-", "").replace(":", "")
        return f"runs/{stamp}.{self.started_ms % 1000:03d}Z-refresh.json"

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
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
    """Return a refresh's result as plain values."""
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
    """Record the refresh that runs in the block, whether it succeeds or fails.

    Parameters
    ----------
    store
        The dataset.
    catalogue
        The dataset's catalogue.
    metrics_file
        The file for the run's metrics in Prometheus' text format; ``None`` for none.

    Yields
    ------
    callable
        A function to call with the refresh's result.
    """
    if metrics_file is not None and not metrics_file.parent.is_dir():
        raise ConfigError(
            f"--metrics-file {metrics_file}: the folder {metrics_file.parent} does not exist; "
            "create it"
        )
    run = Run(catalogue, store.root, _now_ms())

    def set_result(extraction: Extraction) -> None:
        run.status = COMMITTED if extraction.committed else UNCHANGED
        run.result = result_json(extraction)

    try:
        yield set_result
    except NothingSubmittedError:
        raise  # a check of options or a template is not a refresh
    except Exception as error:
        run.status = CONFLICT if isinstance(error, ConflictError) else FAILED
        run.message = str(error)
        # The run's error is more important than an error of the store while writing the record.
        with contextlib.suppress(UserError, OSError):
            _write_record(store, run, metrics_file)
        raise
    _write_record(store, run, metrics_file)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _write_record(store: Store, run: Run, metrics_file: Path | None) -> None:
    run.ended_ms = _now_ms()
    if metrics_file is not None:
        write_metrics(run, metrics_file)
    # Write nothing to a folder that is not a dataset.
    if "_delta_log" in store.top_names():
        store.put(run.name, to_json(run.to_json()))


def write_metrics(run: Run, path: Path) -> None:
    """Write a run's metrics for Prometheus' textfile collector, atomically."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def add(name: str, description: str, values: dict[str, float], label: str = "") -> None:
        names = ("dataset", label) if label else ("dataset",)
        gauge = Gauge(f"melmill_{name}", description, names, registry=registry)
        for key, value in values.items():
            gauge.labels(*((run.dataset, key) if label else (run.dataset,))).set(value)

    success = run.status in (COMMITTED, UNCHANGED)
    result = run.result
    difference = {k: v for k, v in result.get("difference", {}).items() if k != "examples"}
    committed = run.status == COMMITTED
    add("refresh_success", "Whether the last refresh succeeded.", {"": success})
    add("refresh_committed", "Whether the last refresh committed a snapshot.", {"": committed})
    add("refresh_end_timestamp_seconds", "End of the last refresh.", {"": run.ended_ms / 1000})
    add("refresh_duration_seconds", "Duration of the last refresh.", {"": run.seconds})
    add("refresh_recordings", "Recordings by what the refresh did with them.", difference, "change")
    if success:
        add("dataset_version", "Version of the snapshot.", {"": result["version"]})
        add("dataset_rows", "Rows in the snapshot.", {"": result["rows"]})
        add("dataset_recordings", "Recordings in the snapshot.", result["recordings"], "status")
        add("dataset_failures", "Failed recordings in the snapshot.", result["failures"], "cause")
    write_to_textfile(str(path), registry)

"""The metrics of a refresh, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from melmill.pipelines.run_records import COMMITTED, Run
from melmill.transforms.core.errors import ConfigError


def metrics_writer(path: Path | None) -> Callable[[Run], None] | None:
    """Return a function that writes a run's metrics to a file; ``None`` for no file.

    Raises
    ------
    ConfigError
        The file's folder does not exist.
    """
    if path is None:
        return None
    if not path.parent.is_dir():
        raise ConfigError(
            f"--metrics-file {path}: the folder {path.parent} does not exist; create it"
        )
    return partial(write_metrics, path=path)


def write_metrics(run: Run, path: Path) -> None:
    """Write a run's metrics for Prometheus' textfile collector, atomically.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()

    def add(name: str, description: str, values: dict[str, float], label: str = "") -> None:
        names = ("dataset", label) if label else ("dataset",)
        gauge = Gauge(f"melmill_{name}", description, names, registry=registry)
        for key, value in values.items():
            gauge.labels(*((run.dataset, key) if label else (run.dataset,))).set(value)

    result = run.result
    difference = {k: v for k, v in result.get("difference", {}).items() if k != "examples"}
    add("refresh_success", "Whether the last refresh succeeded.", {"": run.succeeded})
    add(
        "refresh_committed",
        "Whether the last refresh committed a snapshot.",
        {"": run.status == COMMITTED},
    )
    add("refresh_end_timestamp_seconds", "End of the last refresh.", {"": run.ended_ms / 1000})
    add("refresh_duration_seconds", "Duration of the last refresh.", {"": run.seconds})
    add("refresh_recordings", "Recordings by what the refresh did with them.", difference, "change")
    if run.succeeded:
        add("dataset_version", "Version of the snapshot.", {"": result["version"]})
        add("dataset_rows", "Rows in the snapshot.", {"": result["rows"]})
        add("dataset_recordings", "Recordings in the snapshot.", result["recordings"], "status")
        add("dataset_failures", "Failed recordings in the snapshot.", result["failures"], "cause")
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        raise ConfigError(
            f"--metrics-file {path}: cannot be written: {error}; the refresh itself has ended: "
            f"{run.status}"
        ) from error

"""Records of runs for monitoring: files ``runs/….json`` in the dataset."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import melmill
from melmill.pipelines.run.errors import NothingSubmittedError
from melmill.pipelines.snapshots.coverage_texts import kept_json
from melmill.pipelines.snapshots.history import iso_time
from melmill.pipelines.snapshots.summary import split_warnings, totals_json
from melmill.transforms.core.errors import ConflictError, UserError
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
    def succeeded(self) -> bool:
        """Return whether the dataset is up to date after the run."""
        return self.status in (COMMITTED, UNCHANGED)

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
        **kept_json(made.columns),
        **totals_json(made.totals),
        "split_warnings": split_warnings(made.snapshot.asked_shares, made.totals),
        "passed_over": made.metrics.passed_over,
        "metrics": made.metrics.to_json(),
    }


@contextlib.contextmanager
def recording_run(
    store: Store, catalogue: str, publish: Callable[[Run], None] | None = None
) -> Iterator[Callable[[Extraction], None]]:
    """Record the refresh that runs in the block, whether it succeeds or fails.

    Parameters
    ----------
    store
        The dataset.
    catalogue
        The dataset's catalogue.
    publish
        A function that is called with the run at its end, such as
        :func:`~melmill.pipelines.prometheus.metrics_writer` returns.

    Yields
    ------
    callable
        A function to call with the refresh's result.
    """
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
            _write_record(store, run, publish)
        raise
    _write_record(store, run, publish)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _write_record(store: Store, run: Run, publish: Callable[[Run], None] | None) -> None:
    run.ended_ms = _now_ms()
    try:
        # Write nothing to a folder that is not a dataset.
        if "_delta_log" in store.top_names():
            store.put(run.name, to_json(run.to_json()))
    finally:
        if publish is not None:
            publish(run)

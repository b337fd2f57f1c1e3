"""Counts made during a run, as Beam's metrics.

They are the record of a run, with the same names on every runner. If a runner repeats work, it is
counted each time.

Counters: ``recordings_in.STAGE`` and ``recordings_out.STAGE`` for the stages ``list``,
``compare``, ``probe``, ``plan``, ``extract`` and ``recount`` (their difference is the number of
recordings that the stage lost); ``audio_ms_probed``, ``_planned``, ``_extracted``;
``rows_planned``, ``_written``, ``_exported``; ``shards_written``, ``_reused``, ``_exported``;
``spans_failed``; ``failures_CAUSE``; ``files_passed_over.EXTENSION`` (files that are not listed);
``bytes_in`` (encoded audio that was decoded) and ``bytes_out`` (files of shards).

Distributions, in milliseconds: ``probe_ms`` for a recording; ``decode_ms`` and ``features_ms`` for
a span; ``write_ms`` for a shard.
"""

from __future__ import annotations

from apache_beam.metrics import Metrics

NAMESPACE = "melmill"
#: Prefix of the names of counters for skipped files.
PASSED_OVER = "files_passed_over"


def count(name: str, number: int = 1) -> None:
    """Add to one of the run's counters."""
    Metrics.counter(NAMESPACE, name).inc(number)


def count_recordings(stage: str, came: int = 1, passed: int = 1) -> None:
    """Count the recordings that entered a stage, and the recordings that passed it."""
    for side, number in (("in", came), ("out", passed)):
        if number:
            count(f"recordings_{side}.{stage}", number)


def observe_ms(name: str, seconds: float) -> None:
    """Add a duration to one of the run's distributions, in milliseconds."""
    Metrics.distribution(NAMESPACE, name).update(round(1000 * seconds))


def count_failure(cause: str) -> None:
    """Count a failure by its cause."""
    count(f"failures_{cause}")


_MOST_EXTENSIONS = 100


def count_passed_over(extension: str, number: int, known: set[str]) -> None:
    """Count skipped files by their extension; after 100 extensions, new ones count as ``*``.

    `known` holds the extensions that have been counted so far; the function adds to them.
    """
    if extension not in known and len(known) >= _MOST_EXTENSIONS:
        extension = "*"
    known.add(extension)
    count(f"{PASSED_OVER}{extension}", number)

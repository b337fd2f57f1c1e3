"""A snapshot's totals, as text for people and as JSON for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melmill.transforms.core.naming import number_of
from melmill.transforms.plan.split_shares import share_warnings

if TYPE_CHECKING:
    from melmill.transforms.snapshot.totals import Totals


def totals_json(totals: Totals) -> dict[str, Any]:
    """Return a snapshot's totals as plain values."""
    return {
        "recordings": dict(totals.recordings),
        "hours": totals.seconds / 3600,
        "rows": totals.rows,
        "splits": {
            name: {
                "recordings": content.recordings,
                "rows": content.rows,
                "shards": content.shards,
                "parquet_bytes": content.parquet_bytes,
                "tfrecord_bytes": content.tfrecord_bytes,
            }
            for name, content in sorted(totals.splits.items())
        },
        "failures": dict(totals.failures),
    }


def split_warnings(asked_shares: Mapping[str, float], totals: Totals) -> list[str]:
    """Return a sentence for each split of a snapshot that is empty or far from its share."""
    numbers = {name: content.recordings for name, content in totals.splits.items()}
    return share_warnings(asked_shares, numbers)


def warning_lines(warnings: Sequence[str]) -> list[str]:
    """Return warnings about splits as lines that are hard to miss, with what to do about them.

    >>> warning_lines(["split test is empty"])[0]
    '  WARNING: split test is empty'
    """
    if not warnings:
        return []
    remedy = (
        "  (set other split.fractions, divide by other groups with split.group, or set another "
        "split.seed; split.min_recordings refuses such a run)"
    )
    return [*(f"  WARNING: {warning}" for warning in warnings), remedy]


def totals_lines(totals: Totals) -> list[str]:
    """Return lines about what a snapshot holds."""
    from melmill.transforms.snapshot.card import balance_lines, label_balance

    number = totals.recordings
    lines = [
        f"  {number_of(number['ok'] + number['partial'], 'recording')}, "
        f"{totals.seconds / 3600:,.2f} h, {number_of(totals.rows, 'row')}"
        + (f"; {number['partial']:,} of them in part" if number["partial"] else "")
        + (f"; {number['skipped']:,} too short for a chunk" if number["skipped"] else "")
        + (f"; {number['deselected']:,} deselected by select" if number["deselected"] else "")
        + (f"; {number['duplicate']:,} are duplicates of others" if number["duplicate"] else "")
    ]
    for name, content in sorted(totals.splits.items()):
        megabytes = (content.parquet_bytes + content.tfrecord_bytes) / 1e6
        lines.append(
            f"  {name}: {number_of(content.recordings, 'recording')}, "
            f"{number_of(content.rows, 'row')}, "
            f"{number_of(content.shards, 'shard')}, {megabytes:,.1f} MB"
        )
    lines += [f"  {line}" for line in balance_lines(label_balance(totals))]
    return lines + failure_lines(totals)


def failure_lines(totals: Totals) -> list[str]:
    """Return lines about which recordings failed, and why."""
    lines = []
    for cause, number in totals.failures.most_common():
        lines.append(f"  {number:,} failed: {cause}")
        lines += [f"    {uri!r}: {message}" for uri, message in totals.examples[cause]]
    return lines

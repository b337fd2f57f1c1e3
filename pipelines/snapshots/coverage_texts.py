"""How many recordings have values in added columns, as text for people and JSON for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melmill.transforms.core.naming import number_of

if TYPE_CHECKING:
    from melmill.pipelines.snapshots.kept_columns import KeptColumns
    from melmill.transforms.side_tables.coverage import Coverage

#: Number of URIs that a line names.
_SHOWN = 3


def coverage_json(counted: Iterable[Coverage]) -> dict[str, Any]:
    """Return the coverage of added columns as plain values, by column."""
    return {entry.column: _without_name(asdict(entry)) for entry in counted}


def _without_name(values: dict[str, Any]) -> dict[str, Any]:
    del values["column"]
    return {**values, "examples": list(values["examples"])}


def kept_json(kept: KeptColumns) -> dict[str, Any]:
    """Return the added columns after a run as plain values; nothing if there are none."""
    if not kept.coverage and not kept.dropped:
        return {}
    dropped = list(kept.dropped)
    return {"added_columns": coverage_json(kept.coverage), "dropped_columns": dropped}


def coverage_line(entry: Coverage) -> str:
    """Return a line about a column.

    >>> from melmill.transforms.side_tables.coverage import Coverage
    >>> coverage_line(Coverage("verdict", 20, 2, 1, ("/b.wav", "/a.wav")))
    'verdict: 18 of 20 recordings have values; missing in 2 (1 new): /b.wav, /a.wav'
    """
    if not entry.recordings:
        return f"{entry.column}: no recording of the dataset has rows"
    have = entry.recordings - entry.lacking
    line = f"{entry.column}: {have:,} of {number_of(entry.recordings, 'recording')} have values"
    if not entry.lacking:
        return line
    new = f" ({entry.new:,} new)" if entry.new else ""
    shown = ", ".join(entry.examples[:_SHOWN])
    more = entry.lacking - min(entry.lacking, _SHOWN)
    shown += f", and {more:,} more" * bool(more)
    return f"{line}; missing in {entry.lacking:,}{new}: {shown}"


def kept_lines(kept: KeptColumns) -> list[str]:
    """Return lines about the added columns after a run."""
    lines = [f"  added column {coverage_line(entry)}" for entry in kept.coverage]
    for name in kept.dropped:
        lines.append(
            f"  added column {name}: not kept, because rows are other chunks now, or the dataset "
            "was replaced; earlier versions have it"
        )
    return lines

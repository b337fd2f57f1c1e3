"""The result of ``add-columns``, as text for people and JSON for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from melmill.pipelines.snapshots.coverage_texts import coverage_json, coverage_line
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.naming import number_of

if TYPE_CHECKING:
    from melmill.pipelines.add_columns import ColumnsResult


def read_types(settings: Sequence[str]) -> dict[str, str]:
    """Return the types of ``--type NAME=TYPE``.

    >>> read_types(["year=string"])
    {'year': 'string'}
    """
    types = {}
    for setting in settings:
        name, _, kind = setting.partition("=")
        if not name or not kind:
            raise ConfigError(f"--type {setting}: must be NAME=TYPE, such as --type year=string")
        types[name] = kind
    return types


def result_json(dataset: str, result: ColumnsResult) -> dict[str, Any]:
    """Return the result as plain values."""
    return {
        "dataset": dataset,
        "version": result.snapshot.version,
        "committed": result.committed,
        "columns": dict(result.columns),
        "added_columns": coverage_json(result.coverage),
        "ignored": result.ignored,
        "dropped": list(result.dropped),
    }


def result_text(dataset: str, result: ColumnsResult, table: str) -> str:
    """Return text about what was added or dropped."""
    version = result.snapshot.version
    if not result.committed:
        return f"Nothing to do: version {version} of {dataset} has these values already"
    names = ", ".join(f"{name} ({kind})" for name, kind in result.columns.items())
    change = f"added {names}" if names else f"dropped {', '.join(result.dropped)}"
    lines = [f"Committed version {version} of {dataset}: {change}"]
    lines += [f"  {coverage_line(entry)}" for entry in result.coverage]
    if result.ignored:
        ignored = number_of(result.ignored, "row")
        lines.append(f"  left out: {ignored} of {table} without a place in the dataset")
    return "\n".join(lines)

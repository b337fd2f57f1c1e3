"""Whether the shards hold each recording completely."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from melmill.transforms.index.results import Held
from melmill.transforms.plan.recordings import PlannedRecording


def require_whole(
    planned: Mapping[str, PlannedRecording],
    failed: Collection[str],
    parts: Mapping[str, Iterable[Held]],
) -> None:
    """Raise ``RuntimeError`` if shards hold a part of a recording's planned rows, or too many."""
    for name in sorted(planned.keys() | parts.keys()):
        expected = planned[name].rows if name in planned and name not in failed else 0
        rows = sum(part.rows.rows for part in parts.get(name, ()))
        if rows and rows != expected:
            uri = planned[name].probed.recording.uri if name in planned else name
            raise RuntimeError(
                f"{uri}: the shards hold {rows} rows, but {expected} were planned; nothing was "
                "committed"
            )

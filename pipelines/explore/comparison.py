"""Two versions of a dataset, compared recording by recording in DuckDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from melmill.pipelines.explore.index_database import connect, parquet_sql
from melmill.pipelines.explore.recording_table import RecordingTable
from melmill.pipelines.snapshots.history import ADDED, CHANGED, COMPARED, REMOVED

KINDS = (ADDED, CHANGED, REMOVED)


@dataclass(frozen=True, slots=True)
class ChangedRecording:
    """A recording that differs between two versions.

    Attributes
    ----------
    kind
        ``added``, ``changed`` or ``removed``.
    recording_id, uri
        Recording.
    before, after
        Status, split and number of rows in each version; ``None`` where the recording is not there.
    """

    kind: str
    recording_id: str
    uri: str
    before: tuple[str | int | None, ...]
    after: tuple[str | int | None, ...]


class Comparison:
    """The recordings that differ between two versions.

    Parameters
    ----------
    before, after
        Recordings of the two versions.
    """

    def __init__(self, before: RecordingTable, after: RecordingTable) -> None:
        self._database = connect(after.database.folder)
        for side, table in (("a", before), ("b", after)):
            index = table.database
            rows = parquet_sql(index.files("recordings"), index.missing)
            self._database.execute(f"CREATE VIEW {side} AS {rows}")
        same = " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in COMPARED[1:])
        self._database.execute(
            "CREATE TABLE changes AS SELECT * FROM (SELECT CASE "
            f"WHEN a.recording_id IS NULL THEN '{ADDED}' "
            f"WHEN b.recording_id IS NULL THEN '{REMOVED}' "
            f"WHEN NOT ({same}) THEN '{CHANGED}' END AS kind, "
            "coalesce(a.recording_id, b.recording_id) AS recording_id, "
            "coalesce(b.uri, a.uri) AS uri, a.status AS status_a, a.split AS split_a, "
            "a.rows AS rows_a, b.status AS status_b, b.split AS split_b, b.rows AS rows_b "
            "FROM a FULL JOIN b USING (recording_id)) WHERE kind IS NOT NULL"
        )

    def close(self) -> None:
        """Free memory."""
        self._database.close()

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._database.cursor().execute(sql, list(values)).fetchall()
        return rows

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of recordings of each kind."""
        sql = "SELECT kind, count(*) FROM changes GROUP BY kind"
        return dict.fromkeys(KINDS, 0) | dict(self._rows(sql))

    @cached_property
    def statuses(self) -> list[tuple[str, str, int]]:
        """Status before, status after, and number of recordings, of those whose status differs."""
        return [
            (before or "not there", after or "not there", number)
            for before, after, number in self._rows(
                "SELECT status_a, status_b, count(*) AS n FROM changes "
                "WHERE status_a IS DISTINCT FROM status_b GROUP BY ALL ORDER BY n DESC"
            )
        ]

    def page(self, kind: str, first: int, number: int) -> list[ChangedRecording]:
        """Return some changed recordings in the order of their URIs; ``""`` for all kinds."""
        rows = self._rows(
            "SELECT kind, recording_id, uri, status_a, split_a, rows_a, status_b, split_b, rows_b "
            "FROM changes WHERE ? IN ('', kind) "
            "ORDER BY uri, recording_id LIMIT ? OFFSET ?",
            (kind, number, first),
        )
        return [
            ChangedRecording(change, recording_id, uri, tuple(sides[:3]), tuple(sides[3:]))
            for change, recording_id, uri, *sides in rows
        ]

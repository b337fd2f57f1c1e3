"""The recordings of a snapshot as a table that answers questions: DuckDB over the index's files.

The index stays in its Parquet files; DuckDB reads the columns that a question needs. The files of
a dataset in object storage are copied to this machine once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from melmill.pipelines.explore.filters import Condition, Field, Filter
from melmill.pipelines.profiles import Profile, Rule
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError, DatasetError
from melmill.transforms.index.tables import SCHEMAS
from melmill.transforms.measures.registry import MEASURES, meters_in, meters_of
from melmill.transforms.rows.columns import is_label

#: Memory that DuckDB may use.
_MEMORY = "1GB"
_TEXTS = (
    *("recording_id", "uri", "fingerprint", "content_hash", "status", "split", "container"),
    *("codec", "decoder", "deselected_by", "duplicate_of", "split_unit"),
)
_NUMBERS = {
    **{"size_bytes": "B", "sample_rate_hz": "Hz", "channels": "", "frames": "", "seconds": "s"},
    **{"rows": "", "peak_dbfs": "dBFS"},
}
_FAILURES = ("stage", "cause", "message")
#: Type of a field for that of a measure; events and fingerprints cannot be filtered.
_KINDS: Mapping[str, Any] = {"float": "number", "int": "number", "bool": "truth"}
#: Value of the terms ``defect`` and ``duplicate`` for any of them.
ANY = "any"


@dataclass(frozen=True, slots=True)
class Count:
    """A number of recordings that have a value in common.

    Attributes
    ----------
    value
        Value of a term that selects them: a text, or a range of numbers.
    recordings
        Number of recordings.
    seconds
        Length of all of them.
    """

    value: str
    recordings: int
    seconds: float


class RecordingTable:
    """The recordings of an opened snapshot.

    Parameters
    ----------
    opened
        The snapshot.
    profile
        Limits of measures; a recording that breaks one of its rules has a defect.
    folder
        Local folder for copies of files and for what does not fit into memory.

    Raises
    ------
    DatasetError
        A file of the index is missing or damaged.
    """

    def __init__(self, opened: OpenSnapshot, profile: Profile, folder: Path) -> None:
        self.opened, self.profile = opened, profile
        self.folder = folder
        self._labels_lock, self._has_labels = threading.Lock(), False
        self._database = connect(folder)
        for kind in ("recordings", "failures", "matches", "matched_recordings"):
            self._make_view(kind)
        self._run(
            "CREATE TABLE verdicts (recording_id VARCHAR PRIMARY KEY, verdict VARCHAR, "
            "note VARCHAR)"
        )

    def close(self) -> None:
        """Free memory."""
        self._database.close()

    def _make_view(self, kind: str) -> None:
        files = self.files(kind)
        if kind == "recordings":
            self._stored = pq.read_schema(files[0])
        if not files:
            empty = SCHEMAS[kind].empty_table()
            self._database.register(f"no_{kind}", empty).execute(
                f"CREATE TABLE {kind} AS FROM no_{kind}"
            )
            return
        self._run(f"CREATE VIEW {kind} AS {parquet_sql(files, self._missing_columns(kind))}")

    def _missing_columns(self, kind: str) -> list[str]:
        """Return the columns that an index of an older version lacks."""
        names = SCHEMAS[kind].names if kind == "recordings" else []
        return [name for name in names if name not in self._stored.names]

    def files(self, kind: str) -> list[str]:
        """Return the paths of a table's files on this machine, in order."""
        store, index = self.opened.store, self.opened.snapshot.index
        names = sorted(
            name
            for name in store.names(f"index/{index}")
            if name.rsplit("/", 1)[-1].startswith(f"{kind}-")
        )
        if kind == "recordings" and not names:
            raise DatasetError(f"{store.root}: the index of version {self.version} is missing")
        if store.is_local:
            return [store.path(name) for name in names]
        return [str(self._copy(name)) for name in names]

    def _copy(self, name: str) -> Path:
        copied = self.folder / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(self.opened.store.read(name))
        return copied

    @property
    def version(self) -> int:
        """Version of the dataset."""
        return self.opened.snapshot.version

    @cached_property
    def meters(self) -> tuple[str, ...]:
        """Names of the meters that have read the recordings."""
        return meters_in(self.opened.recipe.quality)

    @cached_property
    def _measured(self) -> set[str]:
        """Names of the measures whose readings the index has."""
        if "measures" not in self._stored.names:
            return set()
        wanted = {name for name in MEASURES if {*meters_of([name])} <= {*self.meters}}
        groups = self._stored.field("measures").type
        return wanted & {f"{group.name}.{own.name}" for group in groups for own in group.type}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that can be filtered: those with one value."""
        columns = self.opened.schema.columns()
        return tuple(n for n, kind in columns.items() if is_label(n) and kind[:5] != "list<")

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags that recordings have, the most frequent first."""
        counts = self._rows(
            "SELECT tag FROM (SELECT unnest(map_keys(tags)) AS tag FROM recordings) "
            "GROUP BY tag ORDER BY count(*) DESC, tag LIMIT 30"
        )
        return tuple(name for (name,) in counts)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Fields by name."""
        fields = [Field(name, "text", name) for name in _TEXTS]
        fields += [Field(name, "number", name, unit) for name, unit in _NUMBERS.items()]
        fields += [
            Field(name, "text", f"(SELECT {name} FROM failures f WHERE f.recording_id = {_ID})")
            for name in _FAILURES
        ]
        for measure in MEASURES.values():
            kind = _KINDS.get(measure.type)
            if kind and measure.name in self._measured:
                sql = f"measures.{measure.name}"
                fields.append(Field(measure.name, kind, sql, measure.unit, measure.meaning))
        fields += [self._label_field(name) for name in self.labels]
        fields += [Field(f"tag.{tag}", "text", f"tags['{_quoted(tag)}']") for tag in self.tags]
        verdict = f"(SELECT verdict FROM verdicts v WHERE v.recording_id = {_ID})"
        fields.append(Field("verdict", "text", verdict))
        return {field.name: field for field in fields}

    def _label_field(self, name: str) -> Field:
        kind = self.opened.schema.columns()[name]
        sql = f"(SELECT {_column(name)} FROM labels l WHERE l.recording_id = {_ID})"
        numbers: Mapping[str, Any] = {"int64": "number", "double": "number", "bool": "truth"}
        return Field(f"label.{name}", numbers.get(kind, "text"), sql)

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """Rules of the profile whose measures were read, by measure."""
        return {rule.measure: rule for rule in self.profile.rules if rule.measure in self.fields}

    def condition(self, shown: Filter) -> Condition:
        """Return the condition of a filter; raise ConfigError if the filter is wrong."""
        special = {"text": self._text, "defect": self._defect, "duplicate": self._duplicate}
        if any(name.startswith("label.") for name, _ in shown.terms):
            self._read_labels()
        return shown.condition(self.fields, special)

    def _text(self, value: str) -> Condition:
        word = value.lower()
        failed = "SELECT recording_id FROM failures WHERE contains(lower(message), ?)"
        return Condition(
            f"contains(lower(uri), ?) OR recording_id = ? OR recording_id IN ({failed}) "
            "OR contains(lower(array_to_string(map_values(tags), chr(10))), ?)",
            (word, value, word, word),
        )

    def _defect(self, value: str) -> Condition:
        if value == ANY:
            conditions = [self.breaks(rule) for rule in self.rules.values()]
            whole = Condition("status = 'failed'")
            for condition in conditions:
                whole = whole | condition
            return whole
        if value not in self.rules:
            raise ConfigError(
                f"defect: {value!r}: must be {ANY} or a measure that the profile "
                f"{self.profile.name} limits: {', '.join(self.rules) or 'none was read'}"
            )
        return self.breaks(self.rules[value])

    def breaks(self, rule: Rule) -> Condition:
        """Return the condition that a recording breaks a rule."""
        value = self.fields[rule.measure].sql
        parts = list[str]()
        values = list[Any]()
        for sign, limit in (("<", rule.min), (">", rule.max), ("<>", rule.is_)):
            if limit is not None:
                parts.append(f"{value} {sign} ?")
                values.append(limit)
        if rule.undefined == "fail":
            parts.append(f"(measures IS NOT NULL AND {value} IS NULL)")
        return Condition(" OR ".join(parts), tuple(values))

    def _duplicate(self, value: str) -> Condition:
        copies = "duplicate_of IS NOT NULL"
        kept = (
            "recording_id IN (SELECT duplicate_of FROM recordings WHERE duplicate_of IS NOT NULL)"
        )
        conditions = {ANY: f"{copies} OR {kept}", "copy": copies, "kept": kept}
        if value not in conditions:
            raise ConfigError(f"duplicate: {value!r}: must be one of {', '.join(conditions)}")
        return Condition(conditions[value])

    def _read_labels(self) -> None:
        """Read the labels from the shards once: the first row of each recording has them."""
        with self._labels_lock:
            if not self._has_labels:
                self._make_labels()
                self._has_labels = True

    def _make_labels(self) -> None:
        from melmill.pipelines.dataset import Dataset

        store = self.opened.store
        dataset = Dataset(store.root, dict(store.storage_options), version=self.version)
        columns = ["recording_id", *self.labels]
        chosen = ", ".join(f"any_value({_column(n)}) AS {_column(n)}" for n in self.labels)
        scanner = dataset.as_arrow().scanner(columns=columns)
        cursor = self._database.cursor()
        cursor.register("labels_of_rows", scanner.to_reader())
        cursor.execute(
            "CREATE TABLE labels AS "
            f"SELECT recording_id, {chosen} FROM labels_of_rows GROUP BY recording_id"
        )

    def _run(self, sql: str, values: Sequence[Any] = ()) -> Any:
        try:
            return self._database.cursor().execute(sql, list(values))
        except duckdb.IOException as error:
            raise self._missing(error) from error

    def _missing(self, error: Exception) -> DatasetError:
        first_line = str(error).splitlines()[0]
        return DatasetError(
            f"{self.opened.store.root}: a file of version {self.version} is missing or damaged "
            f"({first_line}); open the current version, or run melmill validate"
        )

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._run(sql, values).fetchall()
        return rows

    def count(self, condition: Condition) -> tuple[int, float]:
        """Return the number of recordings that meet a condition, and their length in seconds."""
        sql = f"SELECT count(*), coalesce(sum(seconds), 0) FROM recordings WHERE {condition.sql}"
        ((recordings, seconds),) = self._rows(sql, condition.values)
        return recordings, seconds

    def page(
        self, condition: Condition, sort: str, names: Sequence[str], first: int, number: int
    ) -> list[dict[str, Any]]:
        """Return some recordings in an order, each with its values by the field's name.

        Parameters
        ----------
        condition
            Condition that the recordings meet.
        sort
            Name of a field; with ``-`` before it, the largest value comes first. Recordings without
            a value come last.
        names
            Fields to read.
        first, number
            Number of recordings to skip, and to return at most.
        """
        direction = "DESC" if sort.startswith("-") else "ASC"
        order = f"{self.field(sort.removeprefix('-')).sql} {direction} NULLS LAST, recording_id"
        # The order needs one column; the others are read for the recordings of the page alone.
        ids = self._rows(
            f"SELECT recording_id FROM recordings WHERE {condition.sql} "
            f"ORDER BY {order} LIMIT ? OFFSET ?",
            (*condition.values, number, first),
        )
        rows = {row["recording_id"]: row for row in self.read([i for (i,) in ids], names)}
        return [rows[recording_id] for (recording_id,) in ids]

    def field(self, name: str) -> Field:
        """Return a field; raise ConfigError if there is none with this name."""
        if name.startswith("label."):
            self._read_labels()
        if name not in self.fields:
            raise ConfigError(f"sort: {name!r}: the dataset has no such column")
        return self.fields[name]

    def read(self, recording_ids: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
        """Return values of some recordings by the field's name, and always ``recording_id``."""
        chosen = ", ".join(f"{self.field(name).sql} AS {_column(name)}" for name in names)
        marks = ", ".join("?" for _ in recording_ids) or "NULL"
        cursor = self._run(
            f"SELECT recording_id, {chosen} FROM recordings WHERE recording_id IN ({marks})",
            recording_ids,
        )
        return _records(cursor)

    def recording(self, recording_id: str) -> dict[str, Any] | None:
        """Return all columns of a recording, and ``failure``; None if it is not in the index."""
        sql = "SELECT * FROM {} WHERE recording_id = ?"
        found = _records(self._run(sql.format("recordings"), [recording_id]))
        if not found:
            return None
        failures = _records(self._run(sql.format("failures"), [recording_id]))
        return {**found[0], "failure": failures[0] if failures else None}

    def values(self, name: str, condition: Condition, number: int = 12) -> list[Count]:
        """Return the most frequent values of a field, the most frequent first."""
        sql = self.field(name).sql
        rows = self._rows(
            f"SELECT {sql} AS value, count(*) AS n, coalesce(sum(seconds), 0) FROM recordings "
            f"WHERE ({condition.sql}) AND {sql} IS NOT NULL "
            "GROUP BY value ORDER BY n DESC, value LIMIT ?",
            (*condition.values, number),
        )
        return [
            Count(_term_value(value), recordings, seconds) for value, recordings, seconds in rows
        ]

    def histogram(self, name: str, borders: Sequence[float], condition: Condition) -> list[Count]:
        """Return the number of recordings between borders, also below the first and above the last.

        The value of each count is a range as :func:`~melmill.pipelines.explore.filters.term` reads
        it. Ranges without recordings are there, except before the first and after the last one.
        """
        sql = self.field(name).sql
        above = " + ".join(f"({sql} >= {border!r})::INT" for border in borders)
        rows = self._rows(
            f"SELECT {above} AS bin, count(*), coalesce(sum(seconds), 0) FROM recordings "
            f"WHERE ({condition.sql}) AND {sql} IS NOT NULL GROUP BY bin",
            condition.values,
        )
        found = {bin_number: (recordings, seconds) for bin_number, recordings, seconds in rows}
        ends = ["", *(f"{border:g}" for border in borders), ""]
        return [
            Count(f"{ends[number]}..{ends[number + 1]}", *found.get(number, (0, 0.0)))
            for number in range(min(found, default=0), max(found, default=-1) + 1)
        ]

    def defects(self, condition: Condition) -> list[tuple[Rule, int]]:
        """Return the rules that recordings break, each with its number of recordings."""
        rules = list(self.rules.values())
        if not rules:
            return []
        broken = [self.breaks(rule) for rule in rules]
        counted = ", ".join(f"count(*) FILTER (WHERE {part.sql})" for part in broken)
        values = [value for part in broken for value in part.values]
        sql = f"SELECT {counted} FROM recordings WHERE {condition.sql}"
        (numbers,) = self._rows(sql, (*values, *condition.values))
        pairs = zip(rules, numbers, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def all_rows(
        self, condition: Condition, sort: str, names: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the values of all recordings that meet a condition, in an order."""
        direction = "DESC" if sort.startswith("-") else "ASC"
        chosen = ", ".join(self.field(name).sql for name in names)
        order = f"{self.field(sort.removeprefix('-')).sql} {direction} NULLS LAST, recording_id"
        cursor = self._run(
            f"SELECT {chosen} FROM recordings WHERE {condition.sql} ORDER BY {order}",
            condition.values,
        )
        while rows := cursor.fetchmany(10_000):
            yield from rows

    def set_verdicts(self, verdicts: Sequence[tuple[str, str, str]]) -> None:
        """Replace the verdicts: recording, verdict and note of each."""
        cursor = self._database.cursor()
        cursor.begin()
        cursor.execute("DELETE FROM verdicts")
        if verdicts:
            cursor.executemany("INSERT INTO verdicts VALUES (?, ?, ?)", list(verdicts))
        cursor.commit()


#: The recording of the outer query, in a query within it.
_ID = "recordings.recording_id"


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory that uses a folder for what does not fit into it."""
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "temp_directory": str(folder / "duckdb"),
        "parquet_metadata_cache": "true",
        "autoinstall_known_extensions": "false",
    }
    return duckdb.connect(config=settings)


def parquet_sql(paths: Sequence[str], missing: Sequence[str] = ()) -> str:
    """Return a query for all rows of Parquet files, with null in columns that are missing."""
    listed = ", ".join(f"'{_quoted(path)}'" for path in paths)
    nulls = "".join(f", NULL AS {_column(name)}" for name in missing)
    return f"SELECT *{nulls} FROM read_parquet([{listed}])"


def _records(cursor: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _term_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(text: str) -> str:
    """Return a text for single quotes in SQL."""
    return text.replace("'", "''")


def _column(name: str) -> str:
    """Return the name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'

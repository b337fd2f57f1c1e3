"""The recordings of a snapshot as a table that answers the questions of pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from melmill.pipelines.explore.added_values import AddedValues
from melmill.pipelines.explore.filters import Condition, Field, Filter
from melmill.pipelines.explore.index_database import (
    IndexDatabase,
    column,
    quoted,
    value_of_recording,
)
from melmill.pipelines.explore.recording_labels import RecordingLabels
from melmill.pipelines.explore.verdicts import Verdicts
from melmill.pipelines.profiles import Profile, Rule
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.measures.registry import MEASURES

_TEXTS = (
    *("recording_id", "uri", "fingerprint", "content_hash", "status", "split", "container"),
    *("codec", "decoder", "deselected_by", "duplicate_of", "split_unit"),
)
_NUMBERS = {
    **{"size_bytes": "B", "sample_rate_hz": "Hz", "channels": "", "frames": "", "seconds": "s"},
    **{"rows": "", "peak_dbfs": "dBFS"},
}
_FAILURES = ("stage", "cause", "message")
#: Type of a field for that of a measure.
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
        self.database = IndexDatabase(opened, folder)
        self._labels = RecordingLabels(self.database, self.labels)
        self.added = AddedValues(self.database)
        self._verdicts_state: tuple[int, ...] = ()

    def close(self) -> None:
        """Free memory."""
        self._labels.close()
        self.database.close()

    @property
    def version(self) -> int:
        """Version of the dataset."""
        return self.opened.snapshot.version

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(label.name for label in self.opened.schema.labels)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Names of the tags that recordings have, the most frequent first."""
        counts = self.database.rows(
            "SELECT tag FROM (SELECT unnest(map_keys(tags)) AS tag FROM recordings) "
            "GROUP BY tag ORDER BY count(*) DESC, tag LIMIT 30"
        )
        return tuple(name for (name,) in counts)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Fields by name."""
        fields = [Field(name, "text", name) for name in _TEXTS]
        fields += [Field(name, "number", name, unit) for name, unit in _NUMBERS.items()]
        fields += [Field(name, "text", value_of_recording("failures", name)) for name in _FAILURES]
        fields += [
            Field(name, _KINDS[measure.type], column(name), measure.unit, measure.meaning)
            for name, measure in MEASURES.items()
            if name in self.database.measured
        ]
        columns = self.opened.schema.columns()
        fields += [
            _side_field(f"label.{n}", columns[n], value_of_recording("labels", n))
            for n in self.labels
        ]
        fields += [
            _side_field(f"added.{name}", kind, self.added.sql(name))
            for name, kind in self.added.types.items()
        ]
        fields += [Field(f"tag.{tag}", "text", f"tags['{quoted(tag)}']") for tag in self.tags]
        fields.append(Field("verdict", "text", value_of_recording("verdicts", "verdict")))
        return {field.name: field for field in fields}

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """Rules of the profile whose measures were read, by measure."""
        return {rule.measure: rule for rule in self.profile.rules if rule.measure in self.fields}

    def condition(self, shown: Filter) -> Condition:
        """Return the condition of a filter; raise ConfigError if the filter is wrong."""
        special = {"text": self._text, "defect": self._defect, "duplicate": self._duplicate}
        for name, _ in shown.terms:
            self._require(name)
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
            parts.append(f"(is_measured AND {value} IS NULL)")
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

    def _require(self, name: str) -> None:
        """Read what a field needs beside the index."""
        if name.startswith("label."):
            self._labels.require()
        if name.startswith("added."):
            self.added.require()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query in SQL over the index's tables, by the names of columns."""
        return self.database.records(sql, values)

    def count(self, condition: Condition) -> tuple[int, float]:
        """Return the number of recordings that meet a condition, and their length in seconds."""
        sql = f"SELECT count(*), coalesce(sum(seconds), 0) FROM recordings WHERE {condition.sql}"
        ((recordings, seconds),) = self.database.rows(sql, condition.values)
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
        order = self._order(sort)
        # The order needs one column; the others are read for the recordings of the page alone.
        ids = self.database.rows(
            f"SELECT recording_id FROM recordings WHERE {condition.sql} "
            f"ORDER BY {order} LIMIT ? OFFSET ?",
            (*condition.values, number, first),
        )
        rows = {row["recording_id"]: row for row in self.read([i for (i,) in ids], names)}
        return [rows[recording_id] for (recording_id,) in ids]

    def field(self, name: str, parameter: str = "sort") -> Field:
        """Return a field, ready to be read.

        Raises
        ------
        ConfigError
            There is no such field; the message names the parameter.
        LabelsNotReadError
            The field is a label, and the labels are being read.
        """
        if name not in self.fields:
            raise ConfigError(f"{parameter}: {name!r}: the dataset has no such column")
        self._require(name)
        return self.fields[name]

    def _order(self, sort: str) -> str:
        name, direction = sort.removeprefix("-"), "DESC" if sort.startswith("-") else "ASC"
        if name == "uri":
            return f"place {direction}"
        return f"{self.field(name).sql} {direction} NULLS LAST, place"

    def read(self, recording_ids: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
        """Return values of some recordings by the field's name, and always ``recording_id``."""
        chosen = ", ".join(f"{self.field(name).sql} AS {column(name)}" for name in names)
        marks = ", ".join("?" for _ in recording_ids) or "NULL"
        return self.query(
            f"SELECT recording_id, {chosen} FROM recordings WHERE recording_id IN ({marks})",
            recording_ids,
        )

    def recording(self, recording_id: str) -> dict[str, Any] | None:
        """Return all columns of a recording, and ``failure``; None if it is not in the index."""
        sql = "SELECT * FROM {} WHERE recording_id = ?"
        found = self.query(sql.format("index_rows"), [recording_id])
        if not found:
            return None
        failures = self.query(sql.format("failures"), [recording_id])
        return {**found[0], "failure": failures[0] if failures else None}

    def values(self, name: str, condition: Condition, number: int = 12) -> list[Count]:
        """Return the most frequent values of a field, the most frequent first."""
        sql = self.field(name).sql
        rows = self.database.rows(
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
        rows = self.database.rows(
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
        (numbers,) = self.database.rows(sql, (*values, *condition.values))
        pairs = zip(rules, numbers, strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def all_rows(
        self, condition: Condition, sort: str, names: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Return an iterator of the values of all recordings that meet a condition, in an order."""
        chosen = ", ".join(self.field(name).sql for name in names)
        order = self._order(sort)
        sql = f"SELECT {chosen} FROM recordings WHERE {condition.sql} ORDER BY {order}"
        return chain.from_iterable(self.database.batches(sql, condition.values))

    def show_verdicts(self, verdicts: Verdicts) -> None:
        """Let filters see the verdicts as they are in their file now."""
        state = verdicts.state()
        if state != self._verdicts_state:
            known = verdicts.read().values()
            names = ["recording_id", "verdict", "note"]
            given = pa.table(
                {n: pa.array([getattr(v, n) for v in known], pa.string()) for n in names}
            )
            self.database.replace_rows("verdicts", given)
            self._verdicts_state = state

    def labelled_uris(self, condition: Condition, sort: str) -> Iterator[dict[str, Any]]:
        """Return an iterator of the URI and the labels of the recordings that meet a condition."""
        if self.labels:
            self._labels.require()
        names = ["uri", *self.labels]
        chosen = ", ".join(["uri", *(value_of_recording("labels", name) for name in self.labels)])
        sql = f"SELECT {chosen} FROM recordings WHERE {condition.sql} ORDER BY {self._order(sort)}"
        rows = chain.from_iterable(self.database.batches(sql, condition.values))
        return (dict(zip(names, row, strict=True)) for row in rows)


def _side_field(name: str, kind: str, sql: str) -> Field:
    """Return the field of a label or of an added column of a type."""
    if kind.startswith("list<"):
        sql = f"array_to_string({sql}, ', ')"
    kinds: Mapping[str, Any] = {"int64": "number", "double": "number", "bool": "truth"}
    return Field(name, kinds.get(kind, "text"), sql)


def _term_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Recordings of a table's rows: the cells of a block become URIs, segments, splits and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from melmill.transforms.catalogue.archive_rows import SAMPLE_MEMBERS
from melmill.transforms.catalogue.cells import CONVERSION_ERRORS
from melmill.transforms.catalogue.meanings import CLIPS
from melmill.transforms.catalogue.row_blocks import SAMPLE_ROWS, Block
from melmill.transforms.catalogue.segments import (
    BadRowError,
    Misfit,
    Segment,
    check_segment,
    segment_of,
)
from melmill.transforms.catalogue.spellings import Resolved, resolve_spelling
from melmill.transforms.catalogue.table_formats import EMBEDDED
from melmill.transforms.core.errors import CatalogueError, Cause
from melmill.transforms.core.naming import digest, join_uri, recording_id
from melmill.transforms.core.records import Recording

if TYPE_CHECKING:
    from melmill.transforms.catalogue.tables import Table


#: The folder of Common Voice's audio in a path that need not name it.
_CLIPS = re.compile(rf"^(\./)?{CLIPS}[/\\]")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's name and type; if the type is declared, more spellings are converted."""

    name: str
    type: str
    declared: bool


def block_recordings(
    table: Table, block: Block, uri_of_table: str, name: str
) -> Iterator[Recording]:
    """Yield the recordings of a block's rows; rows with a fault are included.

    Parameters
    ----------
    table, block
        Table, and block of its rows.
    uri_of_table, name
        URI of the file that the rows are in, and its name in messages, which no other file of the
        catalogue has.
    """
    recordings = _recordings(table, block, uri_of_table, name)
    if table.form.identity:
        return _with_own_names(recordings, block.columns[table.form.identity])
    return _in_archive(recordings, block) if block.archived else recordings


def _recordings(table: Table, block: Block, uri_of_table: str, name: str) -> Iterator[Recording]:
    meanings = _meaning_values(table, block)
    labels = [_values(table, block, column) for column in _labels(table)]
    names = [column.name for column in table.label_columns]
    rows = zip(*labels, strict=True) if labels else repeat((), len(block.places))
    cells = zip(block.places, zip(*meanings, strict=True), rows, strict=True)
    for number, (place, meaning, row) in enumerate(cells):
        origin = f"{name} {place}"
        try:
            if number in block.broken:
                raise BadRowError(Cause.BAD_ROW, f" {block.broken[number]}")
            uri, start, end, duration, split = meaning
            misfits = [cell.message for cell in (split, *row) if isinstance(cell, Misfit)]
            pairs = () if misfits else tuple(zip(names, row, strict=True))
            segment = segment_of(table.meanings, start, end, duration)
            recording = _recording(table, origin, uri, segment, split, pairs)
            yield with_fault(recording, Cause.BAD_ROW, "".join(misfits)) if misfits else recording
        except BadRowError as error:
            # The row's place identifies it, because the row names no recording.
            identity = recording_id(origin), error.uri or uri_of_table, origin
            yield with_fault(Recording(*identity, origin=origin), error.cause, error.message)


def _in_archive(recordings: Iterable[Recording], block: Block) -> Iterator[Recording]:
    """Yield recordings with the versions and places that the listing of an archive gives."""
    for recording, archived in zip(recordings, block.archived, strict=True):
        if recording.fault is None:
            recording = replace(
                recording,
                size_bytes=archived.size_bytes,
                fingerprint=archived.fingerprint,
                place=archived.position,
            )
        yield recording


def _with_own_names(
    recordings: Iterable[Recording], names: Iterable[str | None]
) -> Iterator[Recording]:
    """Yield recordings; the id of a segment depends on its own name, too."""
    for recording, name in zip(recordings, names, strict=True):
        # A row that names no segment is identified by its place.
        if name and (start := recording.start_seconds) is not None:
            own_id = recording_id(recording.relative_uri, start, recording.end_seconds, name)
            recording = replace(recording, recording_id=own_id)
        yield recording


def with_fault(recording: Recording, cause: Cause, message: str) -> Recording:
    """Return a recording of a row with a fault; the message continues the place of the row."""
    full_message = recording.origin + message
    # A row with another fault, or with none, is a new version.
    fingerprint = f"fault:{digest(full_message)[:16]}"
    return replace(recording, split=None, fault=(cause, full_message), fingerprint=fingerprint)


def _recording(
    table: Table, origin: str, uri: Any, segment: Segment, split: Any, labels: Any
) -> Recording:
    """Return the recording that a row names; raise ``BadRowError`` if there is none."""
    start, end = segment
    misfits = [cell.message for cell in (uri, start, end) if isinstance(cell, Misfit)]
    if misfits:
        raise BadRowError(Cause.BAD_ROW, "".join(misfits))
    resolved = _resolve(table, uri)
    if start is not None or end is not None:
        check_segment(table.meanings, resolved.absolute, start, end)
    recording = Recording(
        recording_id=recording_id(resolved.relative, start, end),
        uri=resolved.absolute,
        relative_uri=resolved.relative,
        start_seconds=start,
        end_seconds=end,
        split=split or None,
        labels=labels,
        origin=origin,
    )
    if resolved.fault:
        message = f", column {table.meanings.uri!r}: {resolved.fault}"
        return with_fault(recording, Cause.NOT_FOUND, message)
    return recording


def _meaning_values(table: Table, block: Block) -> list[Sequence[Any]]:
    """Return the values of uri, start, end, duration and split."""
    meanings = table.meanings
    named = (meanings.uri, meanings.start, meanings.end, meanings.duration, meanings.split)
    return [
        # Seconds count as declared: their numbers may be padded or written in any way.
        _values(table, block, _Column(name, meanings.types[name], meanings.types[name] == "double"))
        if name
        else [None] * len(block.places)
        for name in named
    ]


def _labels(table: Table) -> list[_Column]:
    return [_Column(c.name, c.type, c.name in table.declared) for c in table.label_columns]


def _values(table: Table, block: Block, column: _Column) -> Sequence[Any]:
    cells = block.columns.get(column.name)
    if cells is None:
        return [None] * len(block.places)
    try:
        return block.convert(cells, column.type, column.declared)
    except CONVERSION_ERRORS:
        return [_value(table, block, column, cells[i : i + 1]) for i in range(len(block.places))]


def _value(table: Table, block: Block, column: _Column, cell: Any) -> Any:
    """Return a cell's value, or a misfit whose message says what to do."""
    try:
        return block.convert(cell, column.type, column.declared)[0]
    except CONVERSION_ERRORS:
        value = cell[0].as_py() if hasattr(cell[0], "as_py") else cell[0]
        fault = f", column {column.name!r}: {value!r} is not {column.type}"
        is_label = not column.declared and column.name not in table.meanings.types
        return Misfit(fault + _remedy(table, column) if is_label else fault)


def _remedy(table: Table, column: _Column) -> str:
    sampled = SAMPLE_MEMBERS if table.archives else SAMPLE_ROWS
    first = "file" if table.form == EMBEDDED else f"{sampled:,} rows"
    return (
        f", the type of the first {first};"
        f" set catalogue.label_types: {{{column.name}: string}}, or correct the value"
    )


def _resolve(table: Table, uri: str | None) -> Resolved:
    if uri and "\0" not in uri:
        if table.archives:
            return Resolved(join_uri(table.root, uri), uri)
        if table.meanings.in_clips:
            uri = _CLIPS.sub("", uri)
        try:
            return resolve_spelling(table.root, uri)
        except CatalogueError as error:
            fault = str(error)
    else:
        fault = f"{uri!r} holds a zero character" if uri else "it is empty"
    raise BadRowError(Cause.BAD_ROW, f", column {table.meanings.uri!r}: {fault}")

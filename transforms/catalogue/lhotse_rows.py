"""Rows of lhotse's manifests of recordings, supervisions and cuts, in JSON lines.

A row of a manifest becomes a row of a plain table: ``uri``, ``start``, ``end`` and labels. What
melmill does not read is a fault of its row: audio from a command (never executed) or from several
files, some of the channels of a file, a mixture of tracks, and audio that lhotse transforms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from melmill.transforms.catalogue.keyed_values import KeyedValues, keyed_values
from melmill.transforms.catalogue.table_formats import Lhotse, open_file, recognise_format
from melmill.transforms.catalogue.text_rows import (
    BrokenRow,
    NumberedRows,
    Row,
    read_text,
    without_nested,
)
from melmill.transforms.core.errors import CatalogueError
from melmill.transforms.store.filesystems import StorageOptions, reading

#: Labels that a supervision gives.
_LABELS = ("text", "language", "speaker", "gender")

#: Fields of a manifest that are not labels: they say what the audio is.
_DESCRIPTION = frozenset({"uri", "start", "end"})


class _UnreadableError(Exception):
    """The error for a row that melmill does not read; its text gives the reason."""


def lhotse_rows(
    records: NumberedRows, uri: str, options: StorageOptions, kind: Lhotse
) -> NumberedRows:
    """Yield the rows of a plain table for the records of a manifest.

    Parameters
    ----------
    records
        Records of the manifest.
    uri, options
        URI of the manifest, and its storage options. The recordings of supervisions are in a file
        beside it, with ``recordings`` in place of ``supervisions`` in its name.
    kind
        Kind of the manifest.

    Raises
    ------
    CatalogueError
        If the recordings of supervisions cannot be read.
    """
    if kind != "supervisions":
        flatten = _recording_row if kind == "recordings" else _cut_row
        for number, record in records:
            yield number, record if isinstance(record, BrokenRow) else _checked(flatten, record)
        return
    companion = recordings_beside(uri)
    with keyed_values(_recordings(companion, options), companion) as recordings:
        for number, record in records:
            if isinstance(record, dict):
                yield number, _checked(_supervision_row, record, recordings, companion)
            else:
                yield number, record


def recordings_beside(uri: str) -> str:
    """Return the URI of the recordings that belong to a manifest of supervisions.

    >>> recordings_beside("/data/libri_supervisions_dev.jsonl.gz")
    '/data/libri_recordings_dev.jsonl.gz'
    """
    folder, slash, name = uri.rpartition("/")
    if "supervisions" not in name:
        raise CatalogueError(
            f"{uri} holds supervisions of lhotse, and melmill finds their recordings only if its "
            "name contains supervisions; rename it, or name a manifest of cuts instead"
        )
    return f"{folder}{slash}{name.replace('supervisions', 'recordings')}"


def _recordings(uri: str, options: StorageOptions) -> Iterator[tuple[str, str]]:
    """Yield the id of each recording, and the recording as JSON."""
    form = recognise_format(uri, options)
    if form.lhotse != "recordings":
        raise CatalogueError(
            f"{uri} should hold the recordings of the supervisions beside it, but is no manifest "
            "of recordings; write it with lhotse, or name a manifest of cuts instead"
        )
    with reading(uri), open_file(uri, options, form.compressed) as file:
        _, records = read_text(file, uri, form)
        for number, record in records:
            if isinstance(record, BrokenRow):
                raise CatalogueError(f"{uri} line {number} {record.message}")
            yield str(record.get("id")), json.dumps(record)


def _checked(flatten: Any, *values: Any) -> Row | BrokenRow:
    try:
        row: Row = flatten(*values)
    except _UnreadableError as error:
        return BrokenRow(str(error))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        return BrokenRow(f"does not follow lhotse's format: {type(error).__name__}: {error}")
    return row


def _recording_row(recording: Mapping[str, Any]) -> Row:
    return _labelled({"uri": _source(recording), "id": recording["id"]}, _custom(recording))


def _cut_row(cut: Mapping[str, Any]) -> Row:
    kind = cut.get("type", "MonoCut")
    if kind not in ("MonoCut", "MultiCut"):
        raise _UnreadableError(
            f"is a {kind}, and melmill reads MonoCut and MultiCut; save its audio with lhotse "
            "(cuts.save_audios), and name the new manifest"
        )
    if not cut.get("recording"):
        raise _UnreadableError(f"the cut {cut['id']!r} has no recording, so it names no audio")
    supervisions: Sequence[Mapping[str, Any]] = cut.get("supervisions") or ()
    position = _position(cut["recording"], cut["start"], cut["duration"], cut["channel"])
    custom = _custom(supervisions[0]) if len(supervisions) == 1 else {}
    row = {**position, "id": cut["id"], **_joined(supervisions)}
    return _labelled(row, custom | _custom(cut))


def _supervision_row(
    supervision: Mapping[str, Any], recordings: KeyedValues, companion: str
) -> Row:
    name = supervision["recording_id"]
    text = recordings.get(str(name))
    if text is None:
        raise _UnreadableError(f"names the recording {name!r}, which {companion} lacks")
    start, duration = supervision["start"], supervision["duration"]
    position = _position(json.loads(text), start, duration, supervision.get("channel", 0))
    row = {**position, "id": supervision["id"], **_joined([supervision])}
    return _labelled(row, _custom(supervision))


def _position(recording: Mapping[str, Any], start: float, duration: float, channel: Any) -> Row:
    """Return the audio that a part of a recording names; without start and end for all of it."""
    source, channels = _source(recording), _channels(recording)
    used = set(channel if isinstance(channel, list) else [channel])
    if used != channels:
        raise _UnreadableError(
            f"uses the channels {sorted(used)} of {source!r}, which has {sorted(channels)}; "
            "melmill reads all channels of a file, as audio.channels in the recipe says: write the "
            "channels to files of their own"
        )
    rate, samples = recording["sampling_rate"], recording["num_samples"]
    if not start and round(duration * rate) == samples:
        return {"uri": source, "start": None, "end": None}
    # Sums of decimal numbers may have 16 digits more.
    return {"uri": source, "start": float(start), "end": round(start + duration, 9)}


def _channels(recording: Mapping[str, Any]) -> set[int]:
    return {channel for source in recording["sources"] for channel in source["channels"]}


def _source(recording: Mapping[str, Any]) -> str:
    """Return the path or URL of a recording's only file."""
    sources: Sequence[Mapping[str, Any]] = recording["sources"]
    name = recording.get("id")
    if recording.get("transforms"):
        raise _UnreadableError(
            f"the recording {name!r} is transformed when lhotse reads it; save its audio first"
        )
    if len(sources) != 1:
        raise _UnreadableError(
            f"the recording {name!r} is in {len(sources)} files, and melmill reads one; join its "
            "channels in one file"
        )
    kind, source = sources[0]["type"], sources[0]["source"]
    if kind not in ("file", "url") or not isinstance(source, str):
        never = ", and melmill never executes one" if kind == "command" else ""
        raise _UnreadableError(
            f"the recording {name!r} comes from a {kind}{never}; save its audio to a file"
        )
    return source


def _joined(supervisions: Sequence[Mapping[str, Any]]) -> Row:
    """Return the labels of supervisions: texts in the order of their starts, other values once.

    >>> _joined([{"start": 2, "text": "b", "speaker": "x"}, {"start": 1, "text": "a"}])["text"]
    'a b'
    """
    ordered = sorted(supervisions, key=lambda supervision: supervision["start"])
    labels: Row = {}
    for name in _LABELS:
        values = [s[name] for s in ordered if s.get(name) is not None]
        if name == "text" and len(values) > 1:
            labels[name] = " ".join(values)
        else:
            distinct = list(dict.fromkeys(values))
            labels[name] = (
                distinct[0] if len(distinct) == 1 else ", ".join(map(str, distinct)) or None
            )
    return labels


def _labelled(row: Row, custom: Row) -> Row:
    """Return a row with values of ``custom``, which never replace a value of the row.

    >>> _labelled({"id": "a", "text": None}, {"id": "b", "text": "c", "snr": 1})
    {'id': 'a', 'text': 'c', 'snr': 1}
    """
    return row | {name: value for name, value in custom.items() if row.get(name) is None}


def _custom(record: Mapping[str, Any]) -> Row:
    """Return the values that a user added to a record; nested ones are no labels."""
    labels = without_nested(record.get("custom") or {})
    return {name: value for name, value in labels.items() if name not in _DESCRIPTION}

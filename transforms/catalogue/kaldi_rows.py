"""Rows of a Kaldi data folder: ``wav.scp``, and if they exist ``segments``, ``text``, ``utt2spk``.

``wav.scp`` may name commands that make audio. melmill never executes them: such a row is a fault.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from melmill.transforms.catalogue.keyed_values import KeyedValues, keyed_values
from melmill.transforms.catalogue.table_formats import KALDI_LABELS, open_file
from melmill.transforms.catalogue.text_rows import BrokenRow, NumberedRows, Row
from melmill.transforms.core.naming import join_uri, split_chain
from melmill.transforms.store.filesystems import StorageOptions, reading

#: File that makes a folder a Kaldi data folder, and the file of its segments.
SCRIPT, SEGMENTS = "wav.scp", "segments"

#: Files that melmill reads of a Kaldi data folder.
KALDI_FILES = (SCRIPT, SEGMENTS, *KALDI_LABELS)

#: A place in an archive of Kaldi, perhaps with a range, at the end of a value of ``wav.scp``.
_PLACE_IN_ARCHIVE = re.compile(r"[^/]:\d+(\[[^\]]*\])?$|\.ark(\[[^\]]*\])?$")

#: Ends in ``segments`` that stand for the end of the recording.
_TO_THE_END = re.compile(r"-1(\.0*)?")

#: Types of the columns of a Kaldi data folder.
KALDI_TYPES = {
    "uri": "string",
    "start": "double",
    "end": "double",
    "utterance": "string",
    **dict.fromkeys(KALDI_LABELS.values(), "string"),
}


def kaldi_rows(uri: str, options: StorageOptions, files: Sequence[str]) -> NumberedRows:
    """Yield the rows of a Kaldi data folder, with the lines of `uri`.

    Parameters
    ----------
    uri, options
        URI of ``segments``, or of ``wav.scp`` in a folder without segments; storage options.
    files
        Names of the files that exist.

    Raises
    ------
    CatalogueError
        If a file cannot be read, or has an id twice.
    """
    folder = _folder(uri)
    with ExitStack() as stack:

        def look_up(name: str) -> KeyedValues:
            pairs = ((key, value) for _, key, value in _lines(join_uri(folder, name), options))
            return stack.enter_context(keyed_values(pairs, join_uri(folder, name)))

        labels = {KALDI_LABELS[name]: look_up(name) for name in files if name in KALDI_LABELS}
        audio = look_up(SCRIPT) if SEGMENTS in files else None
        for number, utterance, value in _lines(uri, options):
            row = _segment(value, audio) if audio else _whole(utterance, value)
            if isinstance(row, dict):
                found = {label: values.get(utterance) for label, values in labels.items()}
                row |= {"utterance": utterance, **found}
            yield number, row


def _folder(uri: str) -> str:
    head, chained = split_chain(uri)
    return head.rpartition("/")[0] + chained


def _lines(uri: str, options: StorageOptions) -> Iterator[tuple[int, str, str]]:
    """Yield the number, the first word and the rest of each line."""
    with reading(uri), open_file(uri, options) as file:
        for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig", newline="\n"), 1):
            key, _, value = line.strip().replace("\t", " ", 1).partition(" ")
            if key:
                yield number, key, value.strip()


def _whole(utterance: str, value: str) -> Row | BrokenRow:
    fault = _fault(utterance, value)
    return BrokenRow(fault) if fault else {"uri": value}


def _segment(value: str, audio: KeyedValues) -> Row | BrokenRow:
    """Return the row of a line of ``segments``: recording, start, end."""
    words = value.split()
    if len(words) != 3:
        expected = "UTTERANCE RECORDING START END"
        return BrokenRow(f"has {len(words) + 1} words; write it as {expected}")
    recording, start, end = words
    uri = audio.get(recording)
    if uri is None:
        return BrokenRow(f"names the recording {recording!r}, which {SCRIPT} lacks; add it there")
    if fault := _fault(recording, uri):
        return BrokenRow(fault)
    return {"uri": uri, "start": start, "end": "" if _TO_THE_END.fullmatch(end) else end}


def _fault(recording: str, value: str) -> str:
    """Return the fault of a value of ``wav.scp``; ``""`` if it is a path or a URL.

    >>> _fault("a", "/data/a.wav"), _fault("a", "sox a.mp3 -t wav - |").partition(",")[0]
    ('', "has a command for 'a'")
    """
    instead = "write the audio to a file, and name the file"
    if value.endswith("|") or value.startswith("|"):
        return (
            f"has a command for {recording!r}, and melmill never executes one: {value!r}; {instead}"
        )
    if value == "-":
        return f"reads {recording!r} from the standard input; {instead}"
    if _PLACE_IN_ARCHIVE.search(value):
        return f"has a place in an archive of Kaldi for {recording!r}: {value!r}; {instead}"
    return ""

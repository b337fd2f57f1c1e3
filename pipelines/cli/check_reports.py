"""The files that a check writes: a table in CSV, and a report in JUnit's XML.

A file is written piece by piece, and appears under its name when it is complete.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from melmill.pipelines.check import CheckedRecording
from melmill.pipelines.cli.check_texts import csv_header, csv_row, finding_text, findings_text
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.measures.registry import MEASURES

#: A function that adds a recording to a report.
Add = Callable[[CheckedRecording], None]

#: Characters that XML 1.0 forbids, even as references.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Room for an attribute with a number in JUnit's first line, which is written again at the end.
_ROOM = 32


@contextmanager
def csv_report(path: Path, measures: Sequence[str]) -> Iterator[Add]:
    """Write a row for each recording while the block runs.

    Parameters
    ----------
    path
        File to write.
    measures
        Measures that have a column, except lists of places.

    Yields
    ------
    callable
        A function that adds a recording.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    columns = [name for name in measures if MEASURES[name].type not in ("events", "text")]
    with whole_file("--csv", path) as file:
        writer = csv.writer(file)
        writer.writerow(csv_header(columns))

        def add(checked: CheckedRecording) -> None:
            with _reporting("--csv", path):
                writer.writerow(csv_row(checked, columns))

        yield add


@contextmanager
def junit_report(path: Path, profile: str) -> Iterator[Add]:
    """Write a test case for each recording while the block runs.

    Parameters
    ----------
    path
        File to write.
    profile
        Name of the profile, which is the class of all test cases.

    Yields
    ------
    callable
        A function that adds a recording.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    counts = {"tests": 0, "failures": 0, "errors": 0}

    def add(checked: CheckedRecording) -> None:
        is_error = any(finding.cause for finding in checked.findings)
        counts["tests"] += 1
        counts["failures"] += not checked.passes and not is_error
        counts["errors"] += is_error
        with _reporting("--junit", path):
            file.write(case_element(checked, profile))

    with whole_file("--junit", path) as file:
        file.write(_first_lines(profile, counts))
        yield add
        file.write("</testsuite>\n")
        if file.seekable():
            file.seek(0)
            file.write(_first_lines(profile, counts))


def _first_lines(profile: str, counts: dict[str, int]) -> str:
    attributes = "".join(f'{name}="{number}"'.ljust(_ROOM) for name, number in counts.items())
    name = _attribute(f"melmill check {profile}")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name={name} {attributes}>\n'


def case_element(checked: CheckedRecording, profile: str) -> str:
    """Return the element of a recording: its findings are a failure, or an error if unreadable."""
    names = f"classname={_attribute(profile)} name={_attribute(checked.name)}"
    if checked.passes:
        return f"  <testcase {names}/>\n"
    finding, message = checked.findings[0], _attribute(findings_text(checked.findings))
    tag = "error" if finding.cause else "failure"
    kind = _attribute(finding.cause or finding.measure)
    lines = escape(_allowed("\n".join(map(finding_text, checked.findings))))
    body = f"<{tag} type={kind} message={message}>{lines}</{tag}>"
    return f"  <testcase {names}>{body}</testcase>\n"


def _attribute(text: str) -> str:
    return quoteattr(_allowed(text))


def _allowed(text: str) -> str:
    """Return text with escape sequences for the characters that XML forbids.

    >>> _allowed("a\\x07b\\n")
    'a\\\\x07b\\n'
    """
    return _FORBIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


@contextmanager
def whole_file(option: str, path: Path) -> Iterator[TextIO]:
    """Open a file for writing that replaces the file at `path` when the block has ended.

    If the block fails, an existing file stays as it is. A pipe or a device is written directly.

    Parameters
    ----------
    option
        Option that names the file, for messages.
    path
        File to write.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    is_special = path.exists() and not path.is_file()
    target = path.resolve()
    written = path if is_special else target.with_name(f".{target.name}.{os.getpid()}.part")
    with _reporting(option, path):
        file = written.open("w", encoding="utf-8", newline="")
    try:
        yield file
        with _reporting(option, path):
            file.close()
            if not is_special:
                written.replace(target)
    finally:
        with contextlib.suppress(OSError):
            file.close()
        if not is_special:
            written.unlink(missing_ok=True)


@contextmanager
def _reporting(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: cannot be written: {error.strerror or error}"
        ) from error

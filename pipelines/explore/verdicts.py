"""Verdicts: what a person says of recordings, kept in a CSV file beside the dataset.

The file has a row for each recording that was judged. It is written whole after each verdict, and
read again before that, so two explorers may use one file.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from melmill.transforms.core.errors import ConfigError

#: What a person can say of a recording.
Word = Literal["ok", "reject"]
WORDS: tuple[Word, ...] = ("ok", "reject")
_LONGEST_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict; its attributes are the columns of the file.

    Attributes
    ----------
    recording_id, uri
        Recording.
    verdict
        Word of the verdict.
    note
        Text of the person; ``""`` for none.
    judged_at
        Time in UTC, ISO 8601.
    """

    recording_id: str
    uri: str
    verdict: Word
    note: str
    judged_at: str


_COLUMNS = [field.name for field in fields(Verdict)]


class Verdicts:
    """The verdicts in a file.

    Parameters
    ----------
    path
        CSV file; it need not exist.

    Raises
    ------
    ConfigError
        The file exists and is no table of verdicts, or its folder is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute().resolve()
        self._lock = threading.Lock()
        if not self.path.parent.is_dir():
            raise ConfigError(f"--verdicts: {path}: there is no folder {self.path.parent}")
        if not os.access(self.path.parent, os.W_OK):
            raise ConfigError(f"--verdicts: {path}: its folder cannot be written; choose another")
        self.read()

    def state(self) -> tuple[int, ...]:
        """Return numbers that are others after each change of the file; ``()`` without it."""
        try:
            found = self.path.stat()
        except OSError:  # reading says what is wrong
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self) -> dict[str, Verdict]:
        """Return all verdicts by recording, as they are in the file now."""
        try:
            text = self.path.read_text(encoding="utf-8-sig")  # spreadsheets write the mark
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong(str(error)) from error
        lines = csv.reader(io.StringIO(text, newline=""))
        try:
            if next(lines, []) != _COLUMNS:
                raise self._wrong(f"its first line must be {','.join(_COLUMNS)}")
            return {line[0]: self._verdict(line, lines.line_num) for line in lines if line}
        except csv.Error as error:
            raise self._wrong(f"line {lines.line_num}: {error}") from error

    def _verdict(self, line: list[str], number: int) -> Verdict:
        if len(line) != len(_COLUMNS) or line[2] not in WORDS:
            raise self._wrong(f"line {number} is no verdict ({' or '.join(WORDS)})")
        return Verdict(line[0], line[1], line[2], line[3], line[4])

    def _wrong(self, reason: str) -> ConfigError:
        return ConfigError(
            f"--verdicts: {self.path}: {reason}; choose another file, which need not exist"
        )

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(f"--verdicts: {self.path}: cannot be written: {error.strerror}")

    def judge(
        self, recording_id: str, uri: str, word: str, note: str = ""
    ) -> Mapping[str, Verdict]:
        """Store a verdict, and return all of them; it replaces an earlier one of the recording.

        Raises
        ------
        ConfigError
            The verdict or the note is not allowed, or the file cannot be written.
        """
        if word not in WORDS:
            raise ConfigError(f"verdict: {word!r}: must be {' or '.join(WORDS)}")
        if len(note) > _LONGEST_NOTE:
            raise ConfigError(f"note: has {len(note)} characters: at most {_LONGEST_NOTE}")
        if not _is_storable(note):
            raise ConfigError("note: has characters that are no text; remove them")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        verdict = Verdict(recording_id, uri, word, note, now)
        with self._alone():
            return self._write({**self.read(), recording_id: verdict})

    def withdraw(self, recording_id: str) -> Mapping[str, Verdict]:
        """Remove the verdict of a recording if there is one, and return the others."""
        with self._alone():
            kept = {key: value for key, value in self.read().items() if key != recording_id}
            return self._write(kept)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads, and other explorers on this machine, from writing meanwhile."""
        with self._lock:
            try:
                folder = os.open(self.path.parent, os.O_RDONLY)
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                self._lock_folder(folder)
                yield
            finally:
                os.close(folder)  # gives the lock back

    def _lock_folder(self, folder: int) -> None:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError as error:  # some network mounts have no locks
            raise self._unwritable(error) from error

    def _write(self, verdicts: Mapping[str, Verdict]) -> Mapping[str, Verdict]:
        """Write the whole file under another name, then rename it."""
        partial = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
        try:
            partial.write_text(table_text(verdicts.values()), encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            partial.unlink(missing_ok=True)
        return verdicts


def table_text(verdicts: Iterable[Verdict]) -> str:
    """Return verdicts as CSV, in the order of time."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(astuple(v) for v in sorted(verdicts, key=lambda v: (v.judged_at, v.uri)))
    return buffer.getvalue()


def _is_storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

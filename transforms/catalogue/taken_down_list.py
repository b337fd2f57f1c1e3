"""The list of recordings that were taken down; the dataset must not hold them again.

The list is an immutable file ``taken_down/DIGEST.jsonl``. Each commit holds only the file's
name, so a commit stays small even if the list is long. The list holds a recording's absolute
URI, its id, and the digest of its content if that is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.core.naming import digest
from melmill.transforms.store.folders import Store


@dataclass(frozen=True, slots=True)
class TakenDown:
    """A recording that was erased from a dataset.

    Attributes
    ----------
    recording_id
        Id of the recording; ``""`` if it is not known.
    uri
        Absolute URI from the index.
    time
        Time of the takedown: UTC, ISO 8601.
    content
        SHA-256 of the whole object; ``""`` if it is not known.
    """

    recording_id: str
    uri: str
    time: str
    content: str = ""


def taken_down_name(erased: Iterable[TakenDown]) -> str:
    """Return the file name of a list, made from its entries; their order does not matter."""
    return _name(_to_lines(erased))


def _name(lines: str) -> str:
    return f"taken_down/{digest(lines)}.jsonl"


def write_taken_down(store: Store, erased: Iterable[TakenDown]) -> str:
    """Write a list unless its file exists; return the file's name, for the commit."""
    name = taken_down_name(erased := list(erased))
    if store.size(name) is None:
        store.put(name, _to_lines(erased).encode())
    return name


def _to_lines(erased: Iterable[TakenDown]) -> str:
    ordered = sorted(set(erased), key=lambda entry: (entry.uri, *astuple(entry)))
    return "".join(json.dumps(asdict(entry)) + "\n" for entry in ordered)


def read_taken_down(store: Store, name: str) -> list[TakenDown]:
    """Return the entries of a list; none if `name` is empty.

    Raises
    ------
    DatasetError
        The file is missing or damaged; without it, erased recordings might come back.
    """
    if not name:
        return []
    try:
        if name.startswith("["):
            # Commits before format 4 held the list itself.
            return [TakenDown(**entry) for entry in json.loads(name)]
        text = store.read(name).decode()
        erased = [TakenDown(**json.loads(line)) for line in text.splitlines()]
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise DatasetError(
            f"{store.root}: {name}, the list of recordings that were taken down, is missing or "
            "damaged; restore the file from a backup, otherwise the recordings could come back"
        ) from error
    if name != _name(text):
        raise DatasetError(
            f"{store.root}: {name} is damaged: its content does not match its name; restore the "
            "file from a backup, otherwise the recordings that were taken down could come back"
        )
    return erased

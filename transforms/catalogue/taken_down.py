"""What was taken down, and what the user leaves out: recordings that no dataset may hold.

The list of what was taken down is an immutable file ``taken_down/DIGEST.jsonl``, which each
commit names: a commit stays small however long the list is. A recording is on the list by its
absolute URI, by its name below the catalogue's root, and by its content where that is known.
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
        Name of the recording below the catalogue's root; ``""`` where that is not known.
    uri
        Absolute URI, as the index had it.
    time
        When it was erased: UTC, ISO 8601.
    content
        SHA-256 of the whole object; ``""`` where that is not known.
    """

    recording_id: str
    uri: str
    time: str
    content: str = ""


def taken_down_name(erased: Iterable[TakenDown]) -> str:
    """Name the file of a list, by what is on it, in whatever order."""
    return _name(_to_lines(erased))


def _name(lines: str) -> str:
    return f"taken_down/{digest(lines)}.jsonl"


def write_taken_down(store: Store, erased: Iterable[TakenDown]) -> str:
    """Write a list, unless it is there; give the file's name, for the commit."""
    name = taken_down_name(erased := list(erased))
    if store.size(name) is None:
        store.put(name, _to_lines(erased).encode())
    return name


def _to_lines(erased: Iterable[TakenDown]) -> str:
    ordered = sorted(set(erased), key=lambda one: (one.uri, *astuple(one)))
    return "".join(json.dumps(asdict(one)) + "\n" for one in ordered)


def read_taken_down(store: Store, name: str) -> list[TakenDown]:
    """Read a list; it is empty where a commit names none.

    Raises
    ------
    DatasetError
        The file is missing or damaged: what was erased might come back.
    """
    if not name:
        return []
    if name.startswith("["):
        # Commits before format 4 held the list itself.
        return [TakenDown(**one) for one in json.loads(name)]
    try:
        text = store.read(name).decode()
        erased = [TakenDown(**json.loads(line)) for line in text.splitlines()]
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise DatasetError(
            f"{store.root}: {name}, the list of recordings that were taken down, is missing or "
            "damaged; restore it from a backup, or they would come back"
        ) from error
    if name != _name(text):
        raise DatasetError(
            f"{store.root}: {name} is damaged: its content does not match its name; restore it "
            "from a backup, or what was taken down would come back"
        )
    return erased

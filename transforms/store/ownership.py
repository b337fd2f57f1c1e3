"""The owner of a folder: melmill writes only to an empty folder or a melmill dataset."""

from __future__ import annotations

import re
from pathlib import Path

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store

#: The file that marks a folder as a dataset; the first run writes it before anything else.
MARKER = ".melmill"
_ABOUT = b"A melmill dataset: melmill writes and removes files in this folder.\n"

#: Characters that the Delta library changes or rejects in a path, which it takes for a URL.
_UNREADABLE = re.compile(r"[#?\[\]\\]|[\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def check_folder(store: Store) -> bool:
    """Return whether a folder holds a Delta table; raise if it must not become a dataset.

    Whether the Delta table is melmill's is not checked here but from its commits: see
    :func:`~melmill.transforms.snapshot.delta.read_snapshot`.

    Raises
    ------
    DatasetError
        The folder cannot hold a Delta table, or holds files that are not melmill's.
    """
    if not store.root:
        raise DatasetError("the output is an empty string; give the path or URL of a folder")
    if store.is_local:
        _check_path(Path(store.path("")))
    names = store.top_names()
    if names and MARKER not in names and "_delta_log" not in names:
        listed = ", ".join(sorted(names)[:3]) + ", …" * (len(names) > 3)
        raise DatasetError(
            f"output {store.root}: the folder holds something else ({listed}); choose an empty or "
            "new folder"
        )
    return "_delta_log" in names


def _check_path(folder: Path) -> None:
    if match := _UNREADABLE.search(str(folder)):
        raise DatasetError(
            f"output {str(folder)!r}: {match[0]!r} is not allowed in the path of a Delta table; "
            "choose another name"
        )
    if folder.exists() and not folder.is_dir():
        raise DatasetError(
            f"output {folder}: this is a file, but a dataset is a folder; choose another path"
        )


def claim(store: Store) -> None:
    """Mark a folder as a dataset; call :func:`check_folder` first, and write nothing before."""
    if store.size(MARKER) is None:
        if store.is_local:
            Path(store.path("")).mkdir(parents=True, exist_ok=True)
        # Another run may mark the folder at the same moment.
        store.create(MARKER, _ABOUT)

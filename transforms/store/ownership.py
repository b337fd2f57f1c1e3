"""Whose folder it is: melmill writes only where it, or an earlier melmill, began."""

from __future__ import annotations

import re
from pathlib import Path

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store

#: Marks a folder as a dataset's from the first moment of its first run on.
MARKER = ".melmill"
_ABOUT = b"A melmill dataset: melmill writes and removes files in this folder.\n"

#: What the Delta library reads otherwise in a path, or not at all: it takes it for a URL.
_UNREADABLE = re.compile(r"[#?\[\]\\]|[\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def check_folder(store: Store) -> bool:
    """See that a folder may become a dataset, or is one; tell whether it holds a Delta table.

    Whose the Delta table is, its commits tell: see
    :func:`~melmill.transforms.snapshot.delta.read_snapshot`.

    Raises
    ------
    DatasetError
        The folder cannot hold a Delta table, or holds what no melmill put there.
    """
    if not store.root:
        raise DatasetError("the output has no name; name a folder")
    if store.is_local:
        _check_path(Path(store.path("")))
    names = store.top_names()
    if names and MARKER not in names and "_delta_log" not in names:
        some = ", ".join(sorted(names)[:3]) + ", …" * (len(names) > 3)
        raise DatasetError(
            f"output {store.root}: holds something else ({some}); choose an empty or new folder"
        )
    return "_delta_log" in names


def _check_path(folder: Path) -> None:
    if found := _UNREADABLE.search(str(folder)):
        raise DatasetError(
            f"output {str(folder)!r}: {found[0]!r} cannot be in the path of a Delta table; "
            "choose another name"
        )
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"output {folder}: is a file; a dataset is a folder")


def claim(store: Store) -> None:
    """Mark a folder that :func:`check_folder` has passed as a dataset's, before all else."""
    if store.size(MARKER) is None:
        if store.is_local:
            Path(store.path("")).mkdir(parents=True, exist_ok=True)
        # Another first run may mark it at the same moment.
        store.create(MARKER, _ABOUT)

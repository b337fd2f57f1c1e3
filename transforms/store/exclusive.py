"""The check that a store lets only one of two writers make the same commit.

A commit is a file that must not exist yet. Some stores with an S3 interface silently ignore
this condition: there, one of two runs at the same time would overwrite the other run's commit.
"""

from __future__ import annotations

import uuid

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store


def require_exclusive_commits(store: Store, folder: str) -> None:
    """Raise DatasetError if a store overwrites an existing file that it was told to keep.

    The check creates a file twice, each time on the condition that the file does not exist,
    and then removes the file.

    Parameters
    ----------
    store
        Store of the dataset.
    folder
        Folder for the file, relative to the store's root.

    Raises
    ------
    DatasetError
        The store created the file twice.
    """
    if store.is_local:
        return
    name = f"{folder}/exclusive-{uuid.uuid4().hex}"
    try:
        created_twice = store.create(name, b"1") and store.create(name, b"2")
    finally:
        store.remove(name)
    if created_twice:
        raise DatasetError(
            f"output {store.root}: this store ignores the condition that a file must not exist "
            "yet, so two runs at the same time would overwrite each other's commits; choose "
            "another store, or make sure that only one run at a time writes here and pass "
            "--unsafe-single-writer"
        )

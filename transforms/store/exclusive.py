"""Whether a store lets only one of two writers make the same commit.

A commit is a file that must not exist yet. Some stores that speak S3 ignore that condition
without a word: there, of two runs at once, one would overwrite the other's commit.
"""

from __future__ import annotations

import uuid

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store


def require_exclusive_commits(store: Store, folder: str) -> None:
    """Create a file twice, on the condition that it does not exist, and remove it again.

    Parameters
    ----------
    store
        The dataset's.
    folder
        Where, relative to the store's root, the file may be.

    Raises
    ------
    DatasetError
        The store did it.
    """
    if store.is_local:
        return
    name = f"{folder}/exclusive-{uuid.uuid4().hex}"
    try:
        both = store.create(name, b"1") and store.create(name, b"2")
    finally:
        store.remove(name)
    if both:
        raise DatasetError(
            f"output {store.root}: this store ignores the condition that a file must not exist "
            "yet, so that two runs at once would overwrite each other's commits; choose another "
            "store, or make sure that there is never more than one run, and say "
            "--unsafe-single-writer"
        )

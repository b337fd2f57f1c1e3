"""The files that melmill makes in a dataset's folder, told by their names.

A user may keep files of their own there. What is removed is always a file whose name only
melmill gives, never a folder with all that it holds.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from melmill.transforms.store.folders import Store

_DIGEST = r"[0-9a-f]{32}"

#: Shards and their twins: the format's folder, the split, the shard's name.
_SHARD = re.compile(
    rf"(?:split=(?P<split>[^/]+)/part-(?P<shard>{_DIGEST})\.parquet"
    rf"|tfrecord/(?P<twin_split>[^/]+)/part-(?P<twin>{_DIGEST})\.tfrecord)"
)
_INDEX = re.compile(rf"index/({_DIGEST})/(?:recordings|failures|shards)-[0-9]{{5,}}\.parquet")
_TAKEN_DOWN = re.compile(rf"taken_down/{_DIGEST}\.jsonl")
_STAGING = re.compile(
    r"staging/(?:(?P<run>[0-9a-f]{16})/)?(?:started|(?:plan|decision)\.json"
    rf"|(?:made|shards)/{_DIGEST}\.json|scratch/{_DIGEST}|exclusive-{_DIGEST}"
    rf"|attempts/[0-9a-f]{{16}}-{_DIGEST}|outcomes/[0-9a-f]{{16}}(?:-{_DIGEST})?\.json)"
)

_RUN_FOLDERS = ("attempts", "made", "outcomes", "scratch", "shards")


def is_own(name: str) -> bool:
    """Tell whether only melmill gives a file such a name; names are relative to the dataset.

    >>> is_own("staging/0123456789abcdef/started"), is_own("index/songs/a.wav")
    (True, False)
    """
    return any(form.fullmatch(name) for form in (_SHARD, _INDEX, _TAKEN_DOWN, _STAGING))


def shard_of(name: str) -> tuple[str, str] | None:
    """Give split and name of the shard that a file belongs to; ``None`` where it is no shard's.

    >>> shard_of("split=train/part-" + "0" * 32 + ".parquet")
    ('train', '00000000000000000000000000000000')
    """
    found = _SHARD.fullmatch(name)
    if found is None:
        return None
    return found["split"] or found["twin_split"], found["shard"] or found["twin"]


def index_of(name: str) -> str:
    """Give the name of the index that a file belongs to; ``""`` where it is no index's."""
    found = _INDEX.fullmatch(name)
    return found[1] if found else ""


def run_of(name: str) -> str | None:
    """Give the run that a working file belongs to.

    ``""`` stands for what no single run owns, ``None`` for a file that is no working file.
    """
    found = _STAGING.fullmatch(name)
    return (found["run"] or "") if found else None


def remove_own(store: Store, folder: str, kept: Collection[str] = ()) -> None:
    """Remove melmill's files below a folder, but for some, and the folders that are then empty."""
    names = [name for name in store.names(folder) if is_own(name) and name not in kept]
    store.remove_files(names)
    # A folder may have been made, and no file put into it yet.
    remove_empty_folders(store, [*names, f"{folder}/"])


def remove_empty_folders(store: Store, names: Iterable[str]) -> None:
    """Remove the folders that removed files were in, where nothing else is; stores have none."""
    if not store.is_local:
        return
    folders = {str(parent) for name in names for parent in PurePosixPath(f"{name}x").parents}
    runs = {folder for folder in folders if re.fullmatch("staging/[0-9a-f]{16}", folder)}
    folders |= {f"{run}/{name}" for run in runs for name in _RUN_FOLDERS}
    folders |= {"staging/scratch"} if "staging" in folders else set()
    for folder in sorted(folders - {"."}, key=lambda one: (-one.count("/"), one)):
        # A folder that still holds something stays.
        with contextlib.suppress(OSError):
            Path(store.path(folder)).rmdir()

"""The files that melmill writes to a dataset's folder, recognised by their names.

A user may keep other files there. melmill only removes files with names that nothing but
melmill gives; it never removes a folder together with its content.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from melmill.transforms.store.folders import Store

_DIGEST = r"[0-9a-f]{32}"

#: Shards as Parquet files and their TFRecord twins: format's folder, split, shard's name.
_SHARD = re.compile(
    rf"(?:split=(?P<split>[^/]+)/part-(?P<shard>{_DIGEST})\.parquet"
    rf"|tfrecord/(?P<twin_split>[^/]+)/part-(?P<twin>{_DIGEST})\.tfrecord)"
)
_INDEX = re.compile(
    rf"index/({_DIGEST})/(?:(?:recordings|failures|shards|matches|matched_recordings|split_units)"
    r"-[0-9]{5,}\.parquet|spectrograms\.png)"
)
_SIDE_TABLE = re.compile(rf"columns/({_DIGEST})/part-[0-9]{{5,}}-{_DIGEST}\.parquet")
_TAKEN_DOWN = re.compile(rf"taken_down/{_DIGEST}\.jsonl")
_STAGING = re.compile(
    r"staging/(?:(?P<run>[0-9a-f]{16})/)?(?:started|(?:plan|decision)\.json"
    rf"|(?:made|shards)/{_DIGEST}\.json|scratch/{_DIGEST}|exclusive-{_DIGEST}"
    rf"|matches/{_DIGEST}\.json|readings/{_DIGEST}\.parquet"
    rf"|attempts/[0-9a-f]{{16}}-{_DIGEST}|outcomes/[0-9a-f]{{16}}(?:-{_DIGEST})?\.json)"
)

_FORMS = (_SHARD, _INDEX, _SIDE_TABLE, _TAKEN_DOWN, _STAGING)

_RUN_FOLDERS = ("attempts", "made", "matches", "outcomes", "readings", "scratch", "shards")


def is_own(name: str) -> bool:
    """Return whether only melmill gives files such a name, which is relative to the dataset.

    >>> is_own("staging/0123456789abcdef/started"), is_own("index/songs/a.wav")
    (True, False)
    """
    return any(form.fullmatch(name) for form in _FORMS)


def shard_of(name: str) -> tuple[str, str] | None:
    """Return split and name of the shard that a file belongs to; ``None`` for any other file.

    >>> shard_of("split=train/part-" + "0" * 32 + ".parquet")
    ('train', '00000000000000000000000000000000')
    """
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    return match["split"] or match["twin_split"], match["shard"] or match["twin"]


def index_of(name: str) -> str:
    """Return the name of the index that a file belongs to; ``""`` for any other file."""
    match = _INDEX.fullmatch(name)
    return match[1] if match else ""


def side_table_of(name: str) -> str:
    """Return the name of the side table that a file belongs to; ``""`` for any other file."""
    match = _SIDE_TABLE.fullmatch(name)
    return match[1] if match else ""


def run_of(name: str) -> str | None:
    """Return the run that a working file belongs to.

    The result is ``""`` for a working file of no single run, and ``None`` for any other file.
    """
    match = _STAGING.fullmatch(name)
    return (match["run"] or "") if match else None


def remove_own(store: Store, folder: str, kept: Collection[str] = ()) -> None:
    """Remove melmill's files below a folder, except `kept`, and then the empty folders."""
    names = [name for name in store.names(folder) if is_own(name) and name not in kept]
    store.remove_files(names)
    # The folder itself may never have held a file.
    remove_empty_folders(store, [*names, f"{folder}/"])


def remove_empty_folders(store: Store, names: Iterable[str]) -> None:
    """Remove the empty folders of removed files; only local disks have folders."""
    if not store.is_local:
        return
    folders = {str(parent) for name in names for parent in PurePosixPath(f"{name}x").parents}
    runs = {folder for folder in folders if re.fullmatch("staging/[0-9a-f]{16}", folder)}
    folders |= {f"{run}/{name}" for run in runs for name in _RUN_FOLDERS}
    folders |= {"staging/scratch"} if "staging" in folders else set()
    for folder in sorted(folders - {"."}, key=lambda path: (-path.count("/"), path)):
        # rmdir fails for a folder that is not empty; the folder stays.
        with contextlib.suppress(OSError):
            Path(store.path(folder)).rmdir()

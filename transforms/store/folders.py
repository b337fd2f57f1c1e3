"""The folder of a dataset on any fsspec filesystem; its files are written atomically.

A file appears under its name with all its bytes or not at all. On a local disk it is
renamed; to an object store a finished local file is uploaded, because an interrupted
stream would leave half an object.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from fsspec.implementations.local import LocalFileSystem

from melmill.transforms.core.errors import DatasetError, UnavailableError
from melmill.transforms.store.filesystems import StorageOptions, absolute_path, open_filesystem
from melmill.transforms.store.retries import (
    explain,
    insist,
    is_conflict,
    is_forbidden,
    is_missing,
    is_store_error,
    is_transient,
)

_Result = TypeVar("_Result")


def absolute_uri(root: str) -> str:
    """Return a folder's absolute path or URL, which means the same in every process.

    >>> absolute_uri("s3://bucket/songs"), absolute_uri("")
    ('s3://bucket/songs', '')
    """
    return root if not root or "://" in root else absolute_path(root)


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file in a store.

    Attributes
    ----------
    name
        Name relative to the store's root.
    size_bytes
        Size of the content.
    modified_ms
        Time of modification in milliseconds since 1970; ``None`` if the store does not give it.
    """

    name: str
    size_bytes: int
    modified_ms: int | None


def _is_about_content(error: Exception) -> bool:
    """Return whether a reader raised the error, not the store: Arrow's OSErrors have no number."""
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None and not is_forbidden(error)
    return isinstance(error, ValueError)


#: Error numbers that only a write has; the block may copy a shard.
_WRITING_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})

#: Largest number of files in a request: the limit of S3.
_REQUEST_FILES = 1000


def _read_all(filesystem: Any, paths: list[str]) -> dict[str, bytes]:
    """Return the content of files; skip missing files, and raise any other error."""
    results = filesystem.cat(paths, on_error="return")
    for error in results.values():
        if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
            raise error
    return {path: content for path, content in results.items() if isinstance(content, bytes)}


_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")


def _modified_ms(details: Mapping[str, Any]) -> int | None:
    """Return the time of modification from the details that fsspec gives for a file.

    >>> _modified_ms({"mtime": 1.5}), _modified_ms({"updated": "1970-01-01T00:00:02Z"})
    (1500, 2000)
    """
    value = next((details[key] for key in _MODIFIED if details.get(key)), None)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        value = value.timestamp()
    return None if value is None else round(1000 * value)


@dataclass(frozen=True, slots=True)
class Store:
    """A folder on a filesystem.

    Attributes
    ----------
    root
        Local path or fsspec URL of the folder.
    storage_options
        Options of the fsspec filesystem.
    scratch_folder
        Folder in which a local file is written before it gets its name; it is on the same
        disk because a rename does not cross filesystems.
    """

    root: str
    storage_options: StorageOptions = field(default=(), repr=False)
    scratch_folder: str = "staging/scratch"

    def filesystem(self) -> tuple[Any, str]:
        """Return the filesystem and the folder's path on it.

        Raises
        ------
        DatasetError
            The URL's scheme is unknown, or its package is not installed.
        """
        filesystem, path = open_filesystem(self.root, self.storage_options, DatasetError)
        return filesystem, path.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk."""
        return isinstance(self.filesystem()[0], LocalFileSystem)

    def path(self, name: str) -> str:
        """Return the path of a file in the folder, for the filesystem."""
        return f"{self.filesystem()[1]}/{name}"

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        opened: IO[bytes] = self._ask(lambda: self.filesystem()[0].open(self.path(name), "rb"))
        return opened

    @contextmanager
    def reading_shard(self, name: str, noun: str = "shard") -> Iterator[IO[bytes]]:
        """Open a shard, or a file of another kind; errors in the ``with`` block name the file.

        Raises
        ------
        DatasetError
            The file is missing, damaged (the block raised ``ValueError``, or Arrow's ``OSError``),
            or cannot be read.
        UnavailableError
            A remote store failed with a transient error.
        """
        shard = f"{self.root}: {noun} {name}"
        try:
            with self.open(name) as file:
                yield file
        except FileNotFoundError as error:
            raise DatasetError(f"{shard} is missing") from error
        except (DatasetError, UnavailableError):
            raise
        except Exception as error:
            if _is_about_content(error):
                raise DatasetError(f"{shard} is damaged: {error}") from error
            if getattr(error, "errno", None) in _WRITING_ERRNOS or not is_store_error(error):
                raise
            kind = UnavailableError if is_transient(error) and not self.is_local else DatasetError
            raise kind(f"{shard} cannot be read: {explain(error)}") from error

    def read(self, name: str) -> bytes:
        """Return the content of a small file; raise ``FileNotFoundError`` if there is none."""
        content: bytes = self._ask(lambda: self.filesystem()[0].cat_file(self.path(name)))
        return content

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; ``None`` if there is no such file."""
        try:
            info = self._ask(lambda: self.filesystem()[0].info(self.path(name)))
            return int(info["size"])
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes) -> None:
        """Write a small file atomically."""
        with self.scratch() as path:
            path.write_bytes(content)
            self.publish(path, name)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless it exists; return whether it was written."""
        filesystem, _ = self.filesystem()
        try:
            self._ask(lambda: filesystem.pipe_file(self.path(name), content, mode="create"))
        except (FileExistsError, FileNotFoundError, DatasetError) as error:
            if is_missing(error.__cause__ or error) and not self.is_local:
                raise DatasetError(f"{self.root}: there is no such bucket") from error
            if not is_conflict(error.__cause__ or error):
                raise
            return False
        return True

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a local path for a new file, which is removed when the ``with`` block ends.

        Raises
        ------
        DatasetError
            The file cannot be written, or cannot be put into the folder.
        """
        try:
            path = self._scratch_folder() / uuid.uuid4().hex
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise DatasetError(
                f"cannot write to {self.root}: {error}; finished files stay there: fix the "
                "problem, and run the same command again to continue"
            ) from error

    def _scratch_folder(self) -> Path:
        if not self.is_local:
            return Path(tempfile.gettempdir())
        folder = Path(self.path(self.scratch_folder))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, path: Path, name: str) -> None:
        """Move or upload a finished scratch file to its name, atomically."""
        filesystem, _ = self.filesystem()
        if not self.is_local:
            try:
                self._ask(lambda: filesystem.put_file(str(path), self.path(name)))
            except FileNotFoundError as error:
                raise DatasetError(f"{self.root}: there is no such bucket") from error
            return
        with path.open("rb") as file:
            os.fsync(file.fileno())
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def names(self, folder: str = "") -> Iterator[str]:
        """Yield the names of the files below a folder, relative to the store's root."""
        filesystem, root = self.filesystem()
        # find returns nothing for a folder that does not exist.
        for path in self._ask(lambda: filesystem.find(f"{root}/{folder}".rstrip("/"))):
            yield path[len(root) + 1 :]

    def files(self, folder: str = "") -> Iterator[StoreFile]:
        """Yield the files below a folder, with size and time of modification."""
        filesystem, root = self.filesystem()
        listing = self._ask(lambda: filesystem.find(f"{root}/{folder}".rstrip("/"), detail=True))
        for path, details in listing.items():
            yield StoreFile(path[len(root) + 1 :], int(details["size"]), _modified_ms(details))

    def top_names(self) -> set[str]:
        """Return the names of the files and folders directly in the folder."""
        filesystem, root = self.filesystem()
        try:
            paths = self._ask(lambda: filesystem.ls(root, detail=False))
        except FileNotFoundError:
            return set()
        return {path.rstrip("/")[len(root) + 1 :] for path in paths} - {""}

    def _ask(self, ask: Callable[[], _Result]) -> _Result:
        """Return the result of a request; retry transient errors of a remote store.

        Raises
        ------
        DatasetError
            The error is lasting and is not ``FileNotFoundError``, which is passed through.
        UnavailableError
            All attempts failed with a transient error.
        """
        if self.is_local:
            return ask()
        try:
            return insist(ask)
        except FileNotFoundError:
            raise
        except Exception as error:
            if not is_store_error(error):
                raise
            kind = UnavailableError if is_transient(error) else DatasetError
            raise kind(f"{self.root}: {explain(error)}") from error

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with its content, and then its parent folder if it is empty.

        Other processes may write to the folder, or remove the file too; that is no error.

        Raises
        ------
        DatasetError
            A file cannot be removed.
        """
        path = self.path(name)
        if self.is_local:
            self._remove_local(Path(path))
            folder = Path(path).parent
            if folder != Path(self.path("")):
                with self._removing(folder):
                    folder.rmdir()
            return
        filesystem, _ = self.filesystem()
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda: filesystem.rm(path, recursive=True))

    def remove_files(self, names: Sequence[str]) -> None:
        """Remove files in few requests; skip files that do not exist.

        Raises
        ------
        DatasetError
            A file cannot be removed.
        """
        if self.is_local:
            for name in names:
                self._remove_local(Path(self.path(name)))
            return
        filesystem, _ = self.filesystem()
        for start in range(0, len(names), _REQUEST_FILES):
            paths = [self.path(name) for name in names[start : start + _REQUEST_FILES]]
            try:
                self._ask(partial(filesystem.rm, paths))
            except FileNotFoundError:
                # Some clients stop at the first file that does not exist.
                for name in names[start : start + _REQUEST_FILES]:
                    self.remove(name)

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the content of small files by name; skip files that do not exist."""
        if self.is_local:
            read = {name: self._read_if_exists(name) for name in names}
            return {name: content for name, content in read.items() if content is not None}
        filesystem, root = self.filesystem()
        contents: dict[str, bytes] = {}
        for start in range(0, len(names), _REQUEST_FILES):
            paths = [self.path(name) for name in names[start : start + _REQUEST_FILES]]
            answers = self._ask(partial(_read_all, filesystem, paths))
            contents |= {path[len(root) + 1 :]: content for path, content in answers.items()}
        return contents

    def _read_if_exists(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def _remove_local(self, path: Path) -> None:
        with self._removing(path):
            if path.is_dir() and not path.is_symlink():
                for child in path.iterdir():
                    self._remove_local(child)
                path.rmdir()
            else:
                path.unlink()

    @contextmanager
    def _removing(self, path: Path) -> Iterator[None]:
        """Ignore files that other processes removed, and folders that are not empty."""
        try:
            yield
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise DatasetError(
                    f"{path} cannot be removed: {error.strerror}; give write permission for "
                    "its folder, and run the same command again"
                ) from error

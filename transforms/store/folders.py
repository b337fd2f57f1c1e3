"""Where a dataset lies: whole files put at once into a folder of any fsspec filesystem.

A file appears under its name with all its bytes or not at all. On a local disk that is a
rename; on an object store it is one upload of a finished local file, because a stream into
a store that breaks off leaves half an object behind.
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
    is_missing,
    is_store_error,
    is_transient,
)

_Result = TypeVar("_Result")


def absolute_uri(root: str) -> str:
    """Make a folder's name one that means the same in every process.

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
        Relative to the store's root.
    size_bytes
        Of its content.
    modified_ms
        When it was written; milliseconds since 1970, ``None`` where the store does not say.
    """

    name: str
    size_bytes: int
    modified_ms: int | None


#: Files of one request, as S3 allows it.
_AT_ONCE = 1000


def _read_all(filesystem: Any, paths: list[str]) -> dict[str, bytes]:
    """Read files; any error but that one is not there is raised."""
    found = filesystem.cat(paths, on_error="return")
    for error in found.values():
        if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
            raise error
    return {path: content for path, content in found.items() if isinstance(content, bytes)}


_MODIFIED = ("mtime", "LastModified", "last_modified", "updated", "created")


def _modified_ms(details: Mapping[str, Any]) -> int | None:
    """Read the time of modification out of what an fsspec filesystem says of a file.

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
        What fsspec's filesystem is opened with.
    scratch_folder
        Where a file on a local disk is written before it gets its name: on the same disk,
        since a rename does not cross filesystems.
    """

    root: str
    storage_options: StorageOptions = field(default=(), repr=False)
    scratch_folder: str = "staging/scratch"

    def filesystem(self) -> tuple[Any, str]:
        """Open the filesystem, and give the folder's path on it.

        Raises
        ------
        DatasetError
            The URL's scheme is unknown, or what it needs is not installed.
        """
        filesystem, path = open_filesystem(self.root, self.storage_options, DatasetError)
        return filesystem, path.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk."""
        return isinstance(self.filesystem()[0], LocalFileSystem)

    def path(self, name: str) -> str:
        """Path of a file in the folder, as the filesystem knows it."""
        return f"{self.filesystem()[1]}/{name}"

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read."""
        opened: IO[bytes] = self._ask(lambda: self.filesystem()[0].open(self.path(name), "rb"))
        return opened

    @contextmanager
    def reading_shard(self, name: str) -> Iterator[IO[bytes]]:
        """Open a shard to read, and name it in whatever goes wrong with it.

        Raises
        ------
        DatasetError
            It is missing, or damaged: what reads it raised ``OSError`` or ``ValueError``.
        """
        try:
            with self.open(name) as file:
                yield file
        except FileNotFoundError as error:
            raise DatasetError(f"{self.root}: shard {name} is missing") from error
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.root}: shard {name} is damaged: {error}") from error

    def read(self, name: str) -> bytes:
        """Read a whole small file; ``FileNotFoundError`` where there is none."""
        content: bytes = self._ask(lambda: self.filesystem()[0].cat_file(self.path(name)))
        return content

    def size(self, name: str) -> int | None:
        """Bytes of a file; ``None`` where there is none."""
        try:
            info = self._ask(lambda: self.filesystem()[0].info(self.path(name)))
            return int(info["size"])
        except FileNotFoundError:
            return None

    def put(self, name: str, content: bytes) -> None:
        """Write a whole small file."""
        with self.scratch() as path:
            path.write_bytes(content)
            self.publish(path, name)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless it exists; tells whether it did."""
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
        """Give a local path to write a file at, which is gone when the block ends.

        Raises
        ------
        DatasetError
            The file cannot be written, or not be put into the folder.
        """
        try:
            path = self._scratch_folder() / uuid.uuid4().hex
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise DatasetError(
                f"cannot write to {self.root}: {error}; what is finished there stays, "
                "and the same command goes on from it"
            ) from error

    def _scratch_folder(self) -> Path:
        if not self.is_local:
            return Path(tempfile.gettempdir())
        folder = Path(self.path(self.scratch_folder))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(self, path: Path, name: str) -> None:
        """Put a finished scratch file under its name, at once and whole."""
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
        """List the files below a folder, as names relative to the store's root."""
        filesystem, root = self.filesystem()
        # Of a folder that is not there, nothing is found.
        for path in self._ask(lambda: filesystem.find(f"{root}/{folder}".rstrip("/"))):
            yield path[len(root) + 1 :]

    def files(self, folder: str = "") -> Iterator[StoreFile]:
        """List the files below a folder, with what their store says of them."""
        filesystem, root = self.filesystem()
        found = self._ask(lambda: filesystem.find(f"{root}/{folder}".rstrip("/"), detail=True))
        for path, details in found.items():
            yield StoreFile(path[len(root) + 1 :], int(details["size"]), _modified_ms(details))

    def top_names(self) -> set[str]:
        """Name the files and folders that lie in the folder itself."""
        filesystem, root = self.filesystem()
        try:
            found = self._ask(lambda: filesystem.ls(root, detail=False))
        except FileNotFoundError:
            return set()
        return {path.rstrip("/")[len(root) + 1 :] for path in found} - {""}

    def _ask(self, ask: Callable[[], _Result]) -> _Result:
        """Insist on something where the store is remote.

        Raises
        ------
        DatasetError
            It failed lastingly, but for ``FileNotFoundError``.
        UnavailableError
            It failed too often.
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
        """Remove a file, or a folder and all it holds, and the folder it is in if nothing else is.

        Others may be writing there, or removing it too: what they do is left alone.

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
        """Remove files, in few requests; those that are not there are no matter.

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
        for start in range(0, len(names), _AT_ONCE):
            paths = [self.path(name) for name in names[start : start + _AT_ONCE]]
            try:
                self._ask(partial(filesystem.rm, paths))
            except FileNotFoundError:
                # Some stores' clients end at the first that is not there.
                for name in names[start : start + _AT_ONCE]:
                    self.remove(name)

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Read small files, many at once; those that are not there are left out."""
        if self.is_local:
            read = {name: self._read_if_there(name) for name in names}
            return {name: content for name, content in read.items() if content is not None}
        filesystem, root = self.filesystem()
        found: dict[str, bytes] = {}
        for start in range(0, len(names), _AT_ONCE):
            paths = [self.path(name) for name in names[start : start + _AT_ONCE]]
            answers = self._ask(partial(_read_all, filesystem, paths))
            found |= {path[len(root) + 1 :]: content for path, content in answers.items()}
        return found

    def _read_if_there(self, name: str) -> bytes | None:
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
        """Pass over what others have removed, and folders that they write to."""
        try:
            yield
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise DatasetError(
                    f"{path} cannot be removed: {error.strerror}; allow it (write permission for "
                    "its folder), and run the same command again"
                ) from error

"""A shard that is being written to a local file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from melmill.transforms.rows.schema import RowBatch, RowSchema


class ShardFile(ABC):
    """A file that gets rows batch by batch.

    As a context manager it leaves a complete file or, after an exception, no file. A file that
    ends early could pass for a complete one in either format.

    Parameters
    ----------
    path
        Local path of the file: stores get finished files.
    schema
        Columns of the dataset.

    Attributes
    ----------
    rows
        Number of rows added so far.
    """

    def __init__(self, path: str | Path, schema: RowSchema) -> None:
        """Start with no rows; a subclass opens the file."""
        self.rows = 0
        self._path = Path(path)
        self._schema = schema

    @abstractmethod
    def add(self, batch: RowBatch) -> None:
        """Write a batch of rows."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, and remove it if an exception ended the block."""
        self.close()
        if kind is not None:
            self._path.unlink()

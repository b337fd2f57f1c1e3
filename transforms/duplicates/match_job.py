"""The fingerprints and digests of one or two datasets, or of a dataset and what a run adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from melmill.transforms.duplicates.candidates import Words
from melmill.transforms.index.tables import read_columns, read_fields
from melmill.transforms.measures.acoustic_fingerprint import read_fingerprint
from melmill.transforms.store.folders import Store

_Number = TypeVar("_Number", int, npt.NDArray[np.int64])

#: Bits of a recording's number for its row in a part of the index, and for the dataset.
_ROW_BITS, _DATASET_BITS = 26, 1


@dataclass(frozen=True, slots=True)
class IndexedDataset:
    """A table of recordings that are matched: of a dataset's index, or staged by a run.

    Attributes
    ----------
    store, index
        Store of the dataset, and the index of its snapshot; ``""`` if the table is staged.
    parts
        Numbers of the table's parts.
    staged
        Names of the files of a staged table, in the order of its parts.
    """

    store: Store
    index: str
    parts: tuple[int, ...]
    staged: tuple[str, ...] = ()

    def read(self, part: int, columns: list[str]) -> Any:
        """Return columns of a part, also fields of structs, as an Arrow table."""
        if self.staged:
            return read_columns(self.store, self.staged[self.parts.index(part)], columns)
        return read_fields(self.store, self.index, "recordings", part, columns)


@dataclass(frozen=True, slots=True)
class MatchJob:
    """The description of a search for duplicates.

    Attributes
    ----------
    datasets
        One dataset or two, whose recordings are matched with each other.
    words
        Number of all fingerprints' words, about.
    is_known
        Whether the matches within the first dataset are known, and are not looked for.
    """

    datasets: tuple[IndexedDataset, ...]
    words: int
    is_known: bool = False

    def places(self) -> Iterator[int]:
        """Yield the places of all parts of the index, of all datasets."""
        for number, dataset in enumerate(self.datasets):
            yield from (part << _DATASET_BITS | number for part in dataset.parts)

    def read(self, place: int, columns: list[str]) -> Any:
        """Return columns of a part of a table, also fields of structs, as an Arrow table."""
        return self.datasets[dataset_at(place)].read(place >> _DATASET_BITS, columns)

    def fingerprints(self, place: int) -> Iterator[tuple[int, Words]]:
        """Yield the number and the words, uint32 [words], of each recording that has any."""
        texts = self.read(place, ["measures.acoustic.fingerprint"])[0]
        for row, text in enumerate(texts):
            if text.is_valid:
                yield recording_number(place, row), read_fingerprint(text.as_py())

    def digests(self, place: int) -> Iterator[tuple[str, int]]:
        """Yield the digest of the samples and the number of each recording."""
        for row, text in enumerate(self.read(place, ["measures.acoustic.digest"])[0]):
            if text.is_valid:
                yield text.as_py(), recording_number(place, row)


@dataclass(frozen=True, slots=True)
class Search:
    """A search for duplicates, and where its workers write what they find.

    Attributes
    ----------
    job
        Datasets.
    output, staging
        Store for the matches, and the search's own folder in it.
    progress
        Address at which the launcher listens; ``""`` if it does not listen.
    """

    job: MatchJob
    output: Store
    staging: str
    progress: str = ""

    @property
    def stores(self) -> tuple[tuple[str, Any], ...]:
        """URLs of the stores, with their storage options."""
        stores = [dataset.store for dataset in self.job.datasets]
        return tuple((store.root, store.storage_options) for store in [*stores, self.output])

    @property
    def matches(self) -> str:
        """Folder of the files with matches."""
        return f"{self.staging}/matches"


def recording_number(place: int, row: int) -> int:
    """Return the number of a recording: its place, and its row there.

    The dataset is the lowest bit, so recordings of two datasets take turns when sorted.

    >>> recording_number(0, 5), recording_number(1, 5), place_of(recording_number(7, 5))
    (10, 11, 7)
    """
    part = place >> _DATASET_BITS
    return part << _ROW_BITS | row << _DATASET_BITS | dataset_at(place)


def place_of(number: _Number) -> _Number:
    """Return the place of each recording: the part of the index and the dataset."""
    return number >> _ROW_BITS << _DATASET_BITS | number & 1


def row_of(number: int) -> int:
    """Return the row of a recording in its part of the index.

    >>> row_of(recording_number(7, 5))
    5
    """
    return (number & ((1 << _ROW_BITS) - 1)) >> _DATASET_BITS


def dataset_at(place: int) -> int:
    """Return the number of the dataset at a place: 0 or 1."""
    return place & 1

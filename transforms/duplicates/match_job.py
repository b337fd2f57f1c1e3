"""Fingerprints, waveforms and digests of one or two datasets, or of a dataset and new recordings.

Each part of a table has a place, and a second place for the waveforms of its short recordings. In
the second place a recording has another number, until it is in a match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from melmill.transforms.index.tables import read_columns, read_fields
from melmill.transforms.measures.acoustic_fingerprint import WORDS_PER_SECOND, read_fingerprint
from melmill.transforms.measures.short_waveforms import MOST_SECONDS, read_waveform
from melmill.transforms.store.folders import Store

_Number = TypeVar("_Number", int, npt.NDArray[np.int64])
#: The words of a fingerprint, uint32 [words], or the samples of a waveform, int8 [samples].
Print: TypeAlias = npt.NDArray[Any]

#: Bits of a recording's number for its row in a part of the index, and for the dataset.
_ROW_BITS, _DATASET_BITS = 26, 1
#: Bit of a recording's number, and of a place, for its waveform instead of its fingerprint.
_WAVEFORM_BIT = 62
_WAVEFORM_PLACE = 1 << (_WAVEFORM_BIT - _ROW_BITS + _DATASET_BITS)
#: Half the number of keys that a waveform posts, because a word has two keys.
_WORDS_OF_WAVEFORM = 16


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
    waveforms
        Number of recordings that are short enough for a waveform, or more.
    is_known
        Whether the matches within the first dataset are known, and are not looked for.
    """

    datasets: tuple[IndexedDataset, ...]
    words: int
    waveforms: int = 0
    is_known: bool = False

    @property
    def size(self) -> int:
        """Number of words that have as many keys as all fingerprints and waveforms."""
        return self.words + _WORDS_OF_WAVEFORM * self.waveforms

    def places(self) -> Iterator[int]:
        """Yield the places of all parts of the index, of all datasets."""
        for number, dataset in enumerate(self.datasets):
            yield from (part << _DATASET_BITS | number for part in dataset.parts)

    def read(self, place: int, columns: list[str]) -> Any:
        """Return columns of a part of a table, also fields of structs, as an Arrow table."""
        part = (place & ~_WAVEFORM_PLACE) >> _DATASET_BITS
        return self.datasets[dataset_at(place)].read(part, columns)

    def with_waveforms(self, place: int) -> list[int]:
        """Return a place of fingerprints, and that of the same recordings' waveforms, if any."""
        return [place, place | _WAVEFORM_PLACE] if self.waveforms else [place]

    def prints(self, place: int) -> Iterator[tuple[int, Print]]:
        """Yield the number and the fingerprint, or waveform, of each recording that has one."""
        is_waveform = has_waveforms(place)
        name, read = (
            ("waveform", read_waveform) if is_waveform else ("fingerprint", read_fingerprint)
        )
        for row, text in enumerate(self.read(place, [f"measures.acoustic.{name}"])[0]):
            if text.is_valid:
                yield recording_number(place, row), read(text.as_py())

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


def count_words(seconds: float) -> int:
    """Return about how many words sound of some length has.

    >>> count_words(60)
    600
    """
    return round(seconds * WORDS_PER_SECOND)


def is_short(seconds: float) -> bool:
    """Return whether a recording of some length has a waveform, unless it is silent.

    >>> is_short(6.0), is_short(6.1)
    (True, False)
    """
    return seconds <= MOST_SECONDS


def has_waveforms(place: int) -> bool:
    """Return whether a place has waveforms instead of fingerprints."""
    return bool(place & _WAVEFORM_PLACE)


def without_kind(number: int) -> int:
    """Return the number of a recording, whatever of it was compared.

    >>> waveform_place = place_of(1 << 62)
    >>> without_kind(recording_number(waveform_place, 5)) == recording_number(0, 5)
    True
    """
    return number & ~(1 << _WAVEFORM_BIT)


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

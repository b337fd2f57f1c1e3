"""Stratified splits: each class of a label is divided by the shares on its own.

New recordings fill the split that is furthest behind in their class, one after the other. So a
recording's split depends on the recordings that were there before, and it never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import Recording
from melmill.transforms.plan.recordings import PlannedRecording
from melmill.transforms.plan.splits import SplitSpec


@dataclass(frozen=True, slots=True)
class NewUnit:
    """A file of which the dataset has no recording yet.

    Attributes
    ----------
    unit
        Unit that stays in one split; see :func:`~melmill.transforms.plan.splits.split_unit`.
    recordings
        Number of its recordings with rows: several if the catalogue names segments.
    """

    unit: str
    recordings: int


def class_of(recording: Recording, label: str) -> str:
    """Return the text of a recording's class, which is the value of a label.

    >>> class_of(Recording("id", "/a.wav", "a.wav", labels=(("genre", "jazz"),)), "genre")
    "'jazz'"
    """
    return repr(dict(recording.labels).get(label))


def class_of_unit(members: Iterable[PlannedRecording], label: str) -> str:
    """Return the class of a unit: that of its first recording with rows, by identifier."""
    with_rows = (planned.probed.recording for planned in members if planned.rows)
    return class_of(min(with_rows, key=lambda recording: recording.recording_id), label)


def divide_class(
    units: Iterable[NewUnit], numbers: Mapping[str, int], spec: SplitSpec
) -> Iterator[tuple[str, str]]:
    """Yield each new unit of a class with its split; the order of the units has no influence.

    Parameters
    ----------
    units
        New units of the class.
    numbers
        Number of recordings of the class that the dataset has, by split.
    spec
        Shares of the splits, and the seed of the order in which they are filled.

    Examples
    --------
    >>> spec = SplitSpec(fractions=(("train", 0.75), ("test", 0.25)))
    >>> [split for _, split in divide_class([NewUnit(name, 1) for name in "abcd"], {}, spec)]
    ['train', 'train', 'test', 'train']
    """
    filled = {name: numbers.get(name, 0) for name, _ in spec.fractions}
    ordered = sorted(
        units, key=lambda new: (digest("stratify", str(spec.seed), new.unit), new.unit)
    )
    for new in ordered:
        total = sum(filled.values()) + new.recordings
        # The first of the splits that are equally far behind.
        split, _ = max(spec.fractions, key=lambda pair: pair[1] * total - filled[pair[0]])
        filled[split] += new.recordings
        yield new.unit, split


def in_split(planned: PlannedRecording, split: str) -> PlannedRecording:
    """Return a recording in a split, in which it stays if it is planned again."""
    recording = replace(planned.probed.recording, known_split=split)
    return replace(planned, split=split, probed=replace(planned.probed, recording=recording))

"""Splits: which recordings are for training, validation and test."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from melmill.transforms.core.errors import (
    CatalogueError,
)
from melmill.transforms.core.naming import digest, fraction
from melmill.transforms.core.records import Recording


def check_split_name(name: str) -> str:
    """Return the name, or raise ``ValueError`` if it is not allowed as the name of a split.

    The name becomes part of folder names, and Hugging Face ``datasets`` must accept it.

    >>> check_split_name("fold_1")
    'fold_1'
    """
    if name == "all" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", name):
        raise ValueError("must be ASCII letters, digits and _, 64 at the most, and not 'all'")
    return name


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """The rule that divides recordings into training, validation and test data.

    Attributes
    ----------
    fractions
        ``(split, share)`` pairs; the shares sum to one.
    by
        Unit that stays in one split: each ``recording``, or all recordings with the same value
        in the column ``group``. ``catalogue`` uses the catalogue's column ``split``. ``auto``
        uses that column if it exists, else ``recording``.
    group
        Label column for ``by: group``.
    seed
        Seed of the random assignment; another seed gives another division.
    keep_together
        ``duplicates``: units with recordings that sound the same are in one split.
    stratify
        Label column whose classes are each divided by the shares; see
        :mod:`~melmill.transforms.plan.stratifying`. ``None``: no recording has an influence on the
        split of another.
    """

    fractions: tuple[tuple[str, float], ...] = (("train", 0.8), ("validation", 0.1), ("test", 0.1))
    by: Literal["auto", "recording", "group", "catalogue"] = "auto"
    group: str | None = None
    seed: int = 0
    keep_together: Literal["duplicates"] | None = None
    stratify: str | None = None


def assign_split(recording: Recording, spec: SplitSpec) -> str:
    """Return the split of a recording, which depends only on the recording, group and seed.

    With ``stratify``, a recording that has a split keeps it; that of another one is decided later,
    with all new ones of its class.

    A recording therefore keeps its split while the catalogue grows. For each split, a number
    with an exponential distribution is drawn and divided by the split's share; the split with
    the smallest result wins. When shares change, a recording moves from split A to split B
    only if B's share grew relative to A's. No rule that does not know the earlier division
    moves fewer recordings in the worst case (Bavarian et al., "Optimality of Correlated
    Sampling Strategies", 2020).

    >>> whole = Recording("id", "/a/song.wav", "song.wav")
    >>> assign_split(whole, SplitSpec(fractions=(("train", 1.0),)))
    'train'

    Raises
    ------
    CatalogueError
        If the column that decides has no valid value for the recording.
    """
    if spec.by == "catalogue" or (spec.by == "auto" and recording.split is not None):
        if recording.split is None:
            raise CatalogueError(
                f"{recording.origin}: split: no value; "
                "split.by: catalogue needs a value in every row"
            )
        return _named_by_catalogue(recording, recording.split)
    if spec.stratify and recording.known_split in dict(spec.fractions):
        return recording.known_split
    unit = _unit(recording, spec)

    def draw(pair: tuple[str, float]) -> float:
        name, share = pair
        return -math.log1p(-fraction("split", str(spec.seed), name, unit)) / share

    return min(spec.fractions, key=draw)[0]


def _named_by_catalogue(recording: Recording, name: str) -> str:
    try:
        return check_split_name(name)
    except ValueError as error:
        raise CatalogueError(f"{recording.origin}: split: {name!r}: {error}") from None


def split_unit(recording: Recording, spec: SplitSpec) -> str:
    """Return a digest of the unit that stays in one split; ``""`` if no units are kept together.

    It is a digest because it outlives a recording that is taken down.
    """
    is_given = spec.by in ("auto", "catalogue") and recording.split is not None
    if is_given or not (spec.keep_together or spec.stratify):
        return ""
    return digest("split unit", _unit(recording, spec))


def _unit(recording: Recording, spec: SplitSpec) -> str:
    """Return a key that all recordings share which must be in the same split."""
    if spec.by != "group":
        return recording.relative_uri
    value = dict(recording.labels).get(spec.group or "")
    if value is None:
        where = recording.origin or recording.uri
        raise CatalogueError(
            f"{where}: {spec.group}: no value; split.group needs a value for every recording"
        )
    return f"group:{value}"

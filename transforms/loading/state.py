"""The state of a loader: a position in the order of rows, and what this order depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.loading.row_order import RowOrder

#: Number of the format of a state; a state of another format means another order.
FORMAT = 1


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """What identifies a split of a snapshot.

    Attributes
    ----------
    dataset
        Name of the snapshot's index, a digest of its content: the same for each copy of a dataset.
    version
        The version of the Delta table.
    split
        The split.
    rows
        The number of rows of the split.
    block_rows
        The number of rows in a block.
    weighting
        Digest of the weight of each row; ``""`` without weights.
    weight
        The weight of the source in a mixture.
    """

    dataset: str
    version: int
    split: str
    rows: int
    block_rows: int
    weighting: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class OrderIdentity:
    """All that the order of rows depends on.

    Attributes
    ----------
    sources
        The identity of each source.
    order
        The settings of the order.
    rows
        The number of rows in an epoch.
    """

    sources: tuple[SourceIdentity, ...]
    order: RowOrder
    rows: int

    def as_state(self, epoch: int, position: int) -> dict[str, Any]:
        """Return the state of a loader, as plain values that JSON can hold.

        Parameters
        ----------
        epoch
            The epoch.
        position
            The number of rows of this epoch that all ranks together have given.
        """
        identity = asdict(self)
        sources = [dict(source) for source in identity.pop("sources")]
        return {
            "format": FORMAT,
            "epoch": epoch,
            "position": position,
            "sources": sources,
            **identity,
        }

    def require_own(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """Return the epoch and the position of a state of the same order.

        Raises
        ------
        DatasetError
            The state is of another dataset, version, split or order; the message names the first
            difference.
        """
        own = self.as_state(0, 0)
        for path, mine, saved in _differences(own, state):
            if path not in ("epoch", "position"):
                raise DatasetError(
                    f"state: {path} is {saved!r}, and this loader has {mine!r}; load a state only "
                    "into a loader of the same version of the same dataset, with the same split, "
                    "weights and order"
                )
        epoch, position = (_count(state, name) for name in ("epoch", "position"))
        if position > self.rows:
            raise DatasetError(f"state: position is {position}, and an epoch has {self.rows} rows")
        return epoch, position


def _differences(own: Any, saved: Any, path: str = "") -> Sequence[tuple[str, Any, Any]]:
    """Return the path and both values for each difference between nested plain values."""
    if isinstance(own, Mapping) and isinstance(saved, Mapping):
        pairs = [(_joined(path, k), own[k], saved.get(k)) for k in own]
    elif isinstance(own, list) and isinstance(saved, list) and len(own) == len(saved):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(own, saved, strict=True))]
    else:
        return [] if own == saved else [(path or "the whole", own, saved)]
    return [found for name, mine, theirs in pairs for found in _differences(mine, theirs, name)]


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _count(state: Mapping[str, Any], name: str) -> int:
    value = state.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DatasetError(f"state: {name} is {value!r}; a whole number from 0 on is needed")
    return value

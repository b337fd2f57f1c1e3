"""Lanes: parts of the rows that take turns in the order of an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from melmill.transforms.loading.randomness import Int64Array


def equal_lengths(rows: int, lanes: int) -> tuple[int, ...]:
    """Return the lengths of lanes that are as equal as possible.

    >>> equal_lengths(10, 4)
    (2, 3, 2, 3)
    """
    return tuple((lane + 1) * rows // lanes - lane * rows // lanes for lane in range(lanes))


@dataclass(frozen=True)
class _Stretch:
    """Rounds in which the same lanes take turns.

    Attributes
    ----------
    lanes
        The lanes, int64 [lanes].
    first_round
        The number of rounds before.
    begin
        The first position.
    """

    lanes: Int64Array
    first_round: int
    begin: int


@dataclass(frozen=True)
class Lanes:
    """The lanes of an epoch.

    In every round, each lane that has a whole turn left gives a turn. The remaining rows, less than
    a turn of each lane, come at the end of the epoch, lane by lane.

    Attributes
    ----------
    lengths
        The number of rows of each lane.
    turn_rows
        See :class:`~melmill.transforms.loading.row_order.RowOrder`.
    """

    lengths: tuple[int, ...]
    turn_rows: int

    @cached_property
    def _stretches(self) -> list[_Stretch]:
        turns = np.array(self.lengths, np.int64) // self.turn_rows
        stretches, first_round, begin = [], 0, 0
        for rounds in np.unique(turns[turns > 0]).tolist():
            lanes = np.flatnonzero(turns >= rounds)
            stretches.append(_Stretch(lanes, first_round, begin))
            begin += (rounds - first_round) * len(lanes) * self.turn_rows
            first_round = rounds
        return stretches

    @cached_property
    def _rests(self) -> tuple[Int64Array, Int64Array]:
        """The number of rows of each lane that come at the end, and their positions' ends."""
        rests = np.array(self.lengths, np.int64) % self.turn_rows
        return rests, sum(self.lengths) - rests.sum() + np.cumsum(rests)

    def places(self, positions: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return the lane of each position in the epoch, and the row's number in its lane.

        Parameters
        ----------
        positions
            Positions in the epoch, from 0, int64 [n].
        """
        rests, ends = self._rests
        lane = np.minimum(np.searchsorted(ends, positions, side="right"), len(rests) - 1)
        number = np.array(self.lengths, np.int64)[lane] - (ends[lane] - positions)
        for stretch in self._stretches:
            inside = (positions >= stretch.begin) & (positions < ends[0] - rests[0])
            turn, in_turn = np.divmod(positions[inside] - stretch.begin, self.turn_rows)
            round_, which = np.divmod(turn, len(stretch.lanes))
            lane[inside] = stretch.lanes[which]
            number[inside] = (stretch.first_round + round_) * self.turn_rows + in_turn
        return lane, number

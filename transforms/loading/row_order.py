"""The settings of the order of rows, which a user gives to a loader."""

from __future__ import annotations

from dataclasses import dataclass

from melmill.transforms.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RowOrder:
    """The order in which a loader gives rows: the same for any number of ranks and workers.

    The blocks of the split (row groups) are dealt to `lanes` lanes at random. In each epoch, a lane
    shuffles its blocks, and the rows of each `window_rows` rows of consecutive blocks: a window.
    The lanes take turns: `turn_rows` rows of the first lane, then of the second lane, and so on. A
    reader keeps one window of each of its lanes in memory, so a process that reads everything holds
    about `lanes` × `window_rows` rows.

    Each row is read by one reader alone, if the batch size is a multiple of `turn_rows`, and
    `lanes` is a multiple of readers × batch size / `turn_rows`. Otherwise several readers read the
    same rows and each uses its part: the order is the same, and reading costs more.

    Attributes
    ----------
    seed
        The seed of the order; ``None`` for the order of the files, without any shuffling.
    window_rows
        The number of rows that are shuffled together.
    lanes
        The number of lanes.
    turn_rows
        The number of consecutive rows of a lane.
    bucket_by
        A column with the length of each row, such as ``valid_samples``: the rows of a window are
        sorted by it, so that a batch has rows of similar length. `turn_rows` must then be a
        multiple of the batch size. ``""`` for a random order.

    Raises
    ------
    ConfigError
        A number is not positive, or the seed is negative.
    """

    seed: int | None = 0
    window_rows: int = 512
    lanes: int = 8
    turn_rows: int = 32
    bucket_by: str = ""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("window_rows", "lanes", "turn_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"RowOrder: {name} is {getattr(self, name)}; give at least 1")
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"RowOrder: seed is {self.seed}; give at least 0, or None")

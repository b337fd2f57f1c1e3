"""How the features of a batch are cut: random crops, and padding that no row needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.feature_columns import FeatureColumn


@dataclass(frozen=True)
class Cuts:
    """How the last axis of features, which is time, is cut.

    Attributes
    ----------
    crops
        The length of the random crop of a feature, in frames or samples, by name.
    masks
        Whether batches are cut to their longest row, and have lengths and masks.
    """

    crops: Mapping[str, int] = field(default_factory=dict)
    masks: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether anything is cut."""
        return self.masks or bool(self.crops)

    def counts(self, features: Mapping[str, FeatureColumn]) -> list[str]:
        """Return the columns that count the valid frames or samples of what is cut.

        Parameters
        ----------
        features
            The features of the batches, by name.

        Raises
        ------
        ConfigError
            A crop is not positive or longer than the feature, or is of something else, or the rows
            do not say how much of it is valid.
        """
        for name, length in self.crops.items():
            column = features.get(name)
            if column is None or column.is_number:
                raise ConfigError(f"crop: {name!r} is not one of the features {sorted(features)}")
            if not 0 < length <= column.shape[-1]:
                raise ConfigError(
                    f"crop: {name!r} has {column.shape[-1]} frames or samples, and the crop has "
                    f"{length}; give a number from 1 to {column.shape[-1]}"
                )
            if not column.valid:
                raise ConfigError(f"crop: {name!r} has no axis of time that can be cut")
        cut = features.values() if self.is_needed else ()
        return list(dict.fromkeys(column.valid for column in cut if column.valid))

    def require_free_names(self, columns: Sequence[str]) -> None:
        """Raise ``ConfigError`` if a column has the name of a length or a mask of another."""
        added = {f"{name}_{what}" for name in columns for what in ("length", "mask")}
        if self.masks and (taken := sorted(added & {*columns})):
            raise ConfigError(
                f"masks: the batches would have two columns {taken[0]!r}; choose other columns, or "
                "make masks from the number of valid frames"
            )

    def length(self, column: FeatureColumn) -> int:
        """Return the length of a feature in a batch, before it is cut to the longest row."""
        return self.crops.get(column.name, column.shape[-1])

    def place(self, column: FeatureColumn, valid: int, fraction: float) -> tuple[int, int]:
        """Return the first frame or sample of a row's crop, and how many of the crop are valid.

        The crop lies in the valid part if that is long enough, and else begins with it.

        Parameters
        ----------
        column
            The feature.
        valid
            The number of valid frames or samples of the row.
        fraction
            Where the crop lies, from 0 (first) to 1 (last): the same for all features of a row.

        Examples
        --------
        >>> mel = FeatureColumn("mel", (80, 100))
        >>> Cuts({"mel": 40}).place(mel, 60, 0.5), Cuts({"mel": 40}).place(mel, 30, 0.5)
        ((10, 40), (0, 30))
        """
        length = self.length(column)
        start = int(fraction * (max(valid - length, 0) + 1))
        return start, min(length, valid - start)

    def finish(self, batch: dict[str, Any], lengths: Mapping[str, list[int]]) -> dict[str, Any]:
        """Return a batch that is cut to its longest row, with lengths and masks, if asked for."""
        if not self.masks:
            return batch
        for name, own in lengths.items():
            valid = np.array(own, np.int64)
            longest = max(1, int(valid.max(initial=0)))
            batch[name] = np.ascontiguousarray(batch[name][..., :longest])
            batch[f"{name}_length"] = valid
            batch[f"{name}_mask"] = np.arange(longest) < valid[:, None]
        return batch

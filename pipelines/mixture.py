"""Several splits, of one or several datasets, read as one in proportion to weights.

music, speech = melmill.open("music/"), melmill.open("speech/")
mixture = melmill.Mixture([
    melmill.Part(music, "train", weight=3),
    melmill.Part(speech, "train", weight=1, class_weights="language"),
])
mixture.as_torch(["mel"], batch_size=64)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melmill.pipelines.dataset import Dataset
from melmill.pipelines.loading.batch_stream import BatchStream
from melmill.pipelines.loading.class_weights import ClassWeights
from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.loading.parts import open_loader
from melmill.pipelines.loading.row_loader import RowLoader
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.loading.row_order import RowOrder


@dataclass(frozen=True, slots=True)
class Part:
    """A split of a dataset in a mixture.

    Attributes
    ----------
    dataset
        The dataset.
    split
        The split.
    weight
        The share of the rows, in proportion to the weights of the other parts.
    class_weights
        How often the classes of a label occur in this part; see :meth:`melmill.Dataset.as_torch`.
    """

    dataset: Dataset
    split: str
    weight: float = 1.0
    class_weights: ClassWeights | None = None


@dataclass(frozen=True)
class Mixture:
    """Several splits, read as one: their rows take turns in proportion to the parts' weights.

    An epoch has as many rows as all parts together. A part whose rows are used up begins again, in
    a new order; a part may thus come several times in an epoch, or not be finished in it. The next
    epoch goes on where this one ended.

    Attributes
    ----------
    parts
        The parts, which must have the same columns.

    Raises
    ------
    ConfigError
        There are no parts.
    """

    parts: Sequence[Part]

    def __post_init__(self) -> None:
        """Check that there are parts."""
        if not self.parts:
            raise ConfigError("Mixture: there are no parts; give at least one melmill.Part")

    def as_torch(
        self,
        columns: Sequence[str],
        *,
        batch_size: int,
        order: RowOrder | None = None,
        rank: int = 0,
        world_size: int = 1,
        crop: Mapping[str, int] | None = None,
        masks: bool = False,
        drop_last: bool = False,
    ) -> Any:
        """Return the rows as a ``torch.utils.data.IterableDataset`` of batches.

        Parameters
        ----------
        columns
            The columns to read, which every part must have.
        batch_size, order, rank, world_size, crop, masks, drop_last
            See :meth:`melmill.Dataset.as_torch`.

        Raises
        ------
        DatasetError
            A split or a column does not exist, or a feature has another shape in another part.
        ConfigError
            A weight is wrong, or a part is too small for the lanes.
        """
        from melmill.pipelines.torch_rows import OrderedBatches

        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not within 0 to {world_size - 1}")
        loader = self._loader(columns, order, cuts=Cuts(crop or {}, masks))
        return OrderedBatches(BatchStream(loader, batch_size, rank, world_size, drop_last))

    def as_grain(
        self, columns: Sequence[str], *, order: RowOrder | None = None, epochs: int = 1
    ) -> Any:
        """Return the rows by their number in the order, for grain.

        Parameters
        ----------
        columns
            The columns to read, which every part must have.
        order, epochs
            See :meth:`melmill.Dataset.as_grain`.

        Raises
        ------
        DatasetError, ConfigError
            See :meth:`as_torch`.
        """
        from melmill.pipelines.grain_rows import OrderedRows

        return OrderedRows(self._loader(columns, order, kept_windows=2), epochs)

    def _loader(
        self,
        columns: Sequence[str],
        order: RowOrder | None,
        *,
        cuts: Cuts | None = None,
        kept_windows: int = 1,
    ) -> RowLoader:
        order, cuts = order or RowOrder(), cuts or Cuts()
        parts = [
            part.dataset._open_part(
                *(part.split, columns, order, cuts), class_weights=part.class_weights
            )
            for part in self.parts
        ]
        return open_loader(parts, order, [part.weight for part in self.parts], kept_windows, cuts)

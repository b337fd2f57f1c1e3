"""The features that a snapshot stores: their columns, their settings, and their colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melmill.pipelines.explore.chunk_rows import Chunk
from melmill.pipelines.explore.feature_pictures import ValueRange, draw_values, draw_waveform
from melmill.pipelines.explore.feature_plots import FeaturePlot, plot_of
from melmill.pipelines.snapshots.open import OpenSnapshot
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.feature_columns import Array, FeatureColumn
from melmill.transforms.features.measures_spec import MeasuresSpec
from melmill.transforms.features.spec import Feature, FeatureSpec
from melmill.transforms.features.waveform import WaveformSpec
from melmill.transforms.measures.meters import Measure
from melmill.transforms.measures.registry import MEASURES
from melmill.transforms.snapshot.card import statistics

#: Ranges of values that pictures show: that of each chunk, or that of the dataset.
RANGES = ("own", "dataset")
#: Channel that is heard for each policy of channels; for the others all of them.
_CHANNELS = {"left": 0, "right": 1}


@dataclass(frozen=True, slots=True)
class StoredFeatures:
    """The features of a snapshot.

    Attributes
    ----------
    arrays, numbers
        Columns of arrays, and of single numbers, by name.
    spec
        Settings of all features.
    features
        Features in the recipe, by the names of their columns.
    ranges
        Lowest and highest value of each feature in the training split.
    """

    arrays: Mapping[str, FeatureColumn]
    numbers: Mapping[str, FeatureColumn]
    spec: FeatureSpec
    features: Mapping[str, Feature]
    ranges: Mapping[str, ValueRange]

    @classmethod
    def of(cls, opened: OpenSnapshot) -> StoredFeatures:
        """Return the features of an opened snapshot."""
        columns, spec = opened.schema.features, opened.recipe.feature_spec()
        stored = opened.snapshot.statistics or statistics(opened.totals)
        known = {columns[0].name: stored, **stored.get("features", {})} if columns else {}
        return cls(
            {column.name: column for column in columns if not column.is_number},
            {column.name: column for column in columns if column.is_number},
            spec,
            spec.by_column,
            {
                name: ValueRange(s["min"], s["max"])
                for name, s in known.items()
                if s.get("max") is not None
            },
        )

    def array(self, name: str | None) -> FeatureColumn:
        """Return the feature with a name, or the first one.

        Raises
        ------
        ConfigError
            There is no such feature, or it is a number, of which there is no picture.
        """
        if name is None and self.arrays:
            return next(iter(self.arrays.values()))
        if name in self.numbers:
            raise ConfigError(f"feature: {name!r}: is a number in each chunk; it has no picture")
        if name is None or name not in self.arrays:
            there = ", ".join(self.arrays) or "none"
            raise ConfigError(
                f"feature: {name!r}: the dataset has no such feature; it has: {there}"
            )
        return self.arrays[name]

    def range_of(self, name: str, chosen: str | None) -> str:
        """Return the range of values that pictures of a feature show, by default by its kind.

        That of logarithms is the dataset's: then quiet chunks look quiet.

        Raises
        ------
        ConfigError
            `chosen` is no member of :data:`RANGES`.
        """
        if chosen is not None and chosen not in RANGES:
            raise ConfigError(f"range: {chosen!r}: must be {' or '.join(RANGES)}")
        feature = self.features.get(name)
        is_logarithm = feature is not None and feature.has_logarithm and name in self.ranges
        return chosen or ("dataset" if is_logarithm else "own")

    def draw(self, name: str, values: Array, range_of: str) -> bytes:
        """Return the PNG of a feature; see :mod:`~melmill.pipelines.explore.feature_pictures`."""
        own = ValueRange.of(values)
        shown = self.ranges.get(name, own) if range_of == "dataset" else own
        feature = self.features.get(name)
        if feature is not None and isinstance(feature.spec, WaveformSpec):
            return draw_waveform(values, shown)
        return draw_values(values, shown)

    def plot(self, column: FeatureColumn, chunk: Chunk) -> FeaturePlot:
        """Return how a feature of a chunk is plotted."""
        return plot_of(column, self.features.get(column.name), self.spec, chunk)

    def measure(self, name: str) -> Measure | None:
        """Return the measure that a column of numbers holds, if it is one."""
        feature = self.features.get(name)
        if feature is None or not isinstance(feature.spec, MeasuresSpec):
            return None
        return MEASURES.get(feature.spec.columns(feature.name)[name])

    def heard_channel(self, chunk: Chunk) -> int | None:
        """Return the channel of a recording that a chunk was computed from; ``None`` for all."""
        return _CHANNELS.get(self.spec.channels, chunk.channel)


def plain(value: Any) -> Any:
    """Return a number of NumPy as a number of Python, and NaN as ``None``."""
    number = value.item()
    return None if number != number else number

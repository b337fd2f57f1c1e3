"""The settings of measures as a feature: numbers that meters read from the samples of a chunk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MeasuresSpec:
    """Settings of the measures of chunks.

    A chunk is measured like a recording of its own: its real samples, at the recording's own sample
    rate, of all channels. Each measure is a column of numbers.

    Attributes
    ----------
    measures
        Names of the measures, such as ``clipping.share``, in the order of their columns.
    """

    measures: tuple[str, ...]

    def columns(self, feature: str) -> dict[str, str]:
        """Return the measures by the names of their columns, which begin with the feature's name.

        >>> MeasuresSpec(("level.rms", "clipping.share")).columns("quality")
        {'quality_level_rms': 'level.rms', 'quality_clipping_share': 'clipping.share'}
        """
        return {f"{feature}_{name.replace('.', '_')}": name for name in self.measures}

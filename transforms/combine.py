"""Sums over several collections, none of which is joined with another before it is added up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam


@dataclass(eq=False)
class CombineEach(beam.PTransform):
    """Combine several collections into one value.

    Each is combined where it is made, then the few results are merged. What is flattened
    first, a runner keeps whole until it is combined.

    Attributes
    ----------
    combine
        What adds up one collection's elements.
    merge
        What adds up the results.
    """

    combine: beam.CombineFn | Callable[[Iterable[Any]], Any]
    merge: Callable[[Iterable[Any]], Any]

    def expand(self, collections: tuple[beam.PCollection[Any], ...]) -> beam.PCollection[Any]:
        """Combine each, then all."""
        combined = [
            collection | f"Combine{number}" >> beam.CombineGlobally(self.combine)
            for number, collection in enumerate(collections)
        ]
        return combined | "Join" >> beam.Flatten() | "Merge" >> beam.CombineGlobally(self.merge)

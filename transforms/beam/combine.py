"""Totals of a collection, or of several collections without joining them first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue


class AddUp(beam.CombineFn):
    """Adds elements to totals, which are objects with a method ``merge``."""

    def __init__(self, start: Callable[[], Any], add: Callable[[Any, Any], None]) -> None:
        """Take the function that returns empty totals, and the one that adds an element."""
        self.start = start
        self.add = add

    def create_accumulator(self) -> Any:
        """Return empty totals."""
        return self.start()

    def add_input(self, totals: Any, element: Any) -> Any:
        """Add an element."""
        self.add(totals, element)
        return totals

    def merge_accumulators(self, all_totals: Iterable[Any]) -> Any:
        """Return the sum of several totals."""
        merged = self.start()
        for totals in all_totals:
            merged.merge(totals)
        return merged

    def extract_output(self, totals: Any) -> Any:
        """Return the totals."""
        return totals


@dataclass(eq=False)
class CombineEach(beam.PTransform):
    """Combine several collections into one value.

    Each bundle is combined where it is made, then the few results are merged. If the collections
    were flattened first, a runner would keep all elements until they are combined.

    Attributes
    ----------
    combine
        ``CombineFn`` that adds up the elements.
    """

    combine: beam.CombineFn

    def expand(self, collections: tuple[beam.PCollection[Any], ...]) -> beam.PCollection[Any]:
        """Combine each bundle, then merge the results."""
        combined = [
            collection | f"Combine{number}" >> beam.ParDo(_CombineBundle(self.combine))
            for number, collection in enumerate(collections)
        ]
        merge = beam.CombineGlobally(_Merge(self.combine))
        return combined | "Join" >> beam.Flatten() | "Merge" >> merge


class _CombineBundle(beam.DoFn):
    """Yields one accumulator for each bundle."""

    def __init__(self, combine: beam.CombineFn) -> None:
        self.combine = combine

    def start_bundle(self) -> None:
        self.accumulator = self.combine.create_accumulator()

    def process(self, element: Any) -> None:
        self.accumulator = self.combine.add_input(self.accumulator, element)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        yield WindowedValue(self.accumulator, window.max_timestamp(), [window])


class _Merge(beam.CombineFn):
    """Merges accumulators of another CombineFn."""

    def __init__(self, combine: beam.CombineFn) -> None:
        self.combine = combine

    def create_accumulator(self) -> Any:
        return self.combine.create_accumulator()

    def add_input(self, total: Any, accumulator: Any) -> Any:
        return self.combine.merge_accumulators([total, accumulator])

    def merge_accumulators(self, totals: Iterable[Any]) -> Any:
        return self.combine.merge_accumulators(totals)

    def extract_output(self, total: Any) -> Any:
        return self.combine.extract_output(total)

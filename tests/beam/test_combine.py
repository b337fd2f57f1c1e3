"""Tests of CombineEach: it combines several collections, some of them empty, into one value."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from melmill.transforms.beam.combine import CombineEach
from tests.plans import in_memory_pipeline


@pytest.mark.parametrize(
    "numbers", [[[1, 2], [30], [400, 500, 6]], [[1], [], [2]], [[], []], [[7]]]
)
def test_every_element_of_every_collection_counts_once(numbers):
    with in_memory_pipeline() as pipeline:
        collections = tuple(
            pipeline | f"Make{i}" >> beam.Create(values, reshuffle=False)
            for i, values in enumerate(numbers)
        )
        total = collections | "Sum" >> CombineEach(beam.CombineFn.maybe_from_callable(sum))
        count = collections | "Count" >> CombineEach(beam.combiners.CountCombineFn())
        everything = [number for values in numbers for number in values]
        assert_that(total, equal_to([sum(everything)]), label="total")
        assert_that(count, equal_to([len(everything)]), label="count")

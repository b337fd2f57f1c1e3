"""Lets new recordings take over removed rows that have the same content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from melmill.transforms.beam.metrics import count
from melmill.transforms.core.records import ProbedRecording
from melmill.transforms.plan.adopting import adopt
from melmill.transforms.plan.change_records import Adopted, Dropped, Offer, Touched
from melmill.transforms.plan.job import ExtractJob

OFFERS, PROBED, FACTS, TOUCHED = "offers", "probed", "facts", "touched"


@dataclass(frozen=True, slots=True)
class Adoptions:
    """The outputs of :class:`AdoptRecordings`.

    Attributes
    ----------
    recordings
        Recordings whose rows must be computed.
    facts
        Facts for the new index.
    touched
        Rows that change or are removed.
    number
        Number of recordings that took over existing rows.
    """

    recordings: beam.PCollection[ProbedRecording]
    facts: beam.PCollection[Adopted | Dropped]
    touched: beam.PCollection[Touched]
    number: beam.PCollection[int]


@dataclass(eq=False)
class AdoptRecordings(beam.PTransform):
    """Let new recordings take over removed rows that have the same content.

    The inputs are the offers and the probed recordings, with the hashes of their content. Rows
    with the same content are carried over under the recording's new name, without a decode.

    Attributes
    ----------
    job
        Job of the run.
    """

    job: ExtractJob

    def expand(
        self, found: tuple[beam.PCollection[Offer], beam.PCollection[ProbedRecording]]
    ) -> Adoptions:
        """Join offers and recordings by the hash of their content."""
        offers, probed = found
        if not self.job.content_hashes:
            return no_adoptions(offers, probed)
        adopted = (
            {
                OFFERS: offers | "KeyOffers" >> beam.Map(lambda offer: (offer.content_hash, offer)),
                PROBED: probed
                | "KeyProbed" >> beam.Map(lambda probed: (probed.recording.content_hash, probed)),
            }
            | "JoinContents" >> beam.CoGroupByKey()
            | "Adopt" >> beam.FlatMap(_adopt, self.job).with_outputs(FACTS, TOUCHED, main="rest")
        )
        number = _count_adopted(adopted[FACTS])
        return Adoptions(adopted["rest"], adopted[FACTS], adopted[TOUCHED], number)


def no_adoptions(offers: beam.PCollection[Offer], recordings: beam.PCollection[Any]) -> Adoptions:
    """Return the outputs if no recording takes over existing rows."""
    none = offers | "NoOffers" >> beam.Filter(lambda _: False)
    return Adoptions(recordings, none, none, _count_adopted(none))


def _count_adopted(facts: beam.PCollection[Any]) -> beam.PCollection[int]:
    return (
        facts
        | "OnlyAdopted" >> beam.Filter(lambda fact: isinstance(fact, Adopted))
        | "CountAdopted" >> beam.combiners.Count.Globally()
    )


def _adopt(
    group: tuple[str, dict[str, Iterable[Any]]], job: ExtractJob
) -> Iterator[ProbedRecording | beam.pvalue.TaggedOutput]:
    for result in adopt(group[1][OFFERS], group[1][PROBED], job):
        if isinstance(result, ProbedRecording):
            yield result
        elif isinstance(result, Touched):
            yield beam.pvalue.TaggedOutput(TOUCHED, result)
        else:
            if isinstance(result, Adopted):
                count("recordings_moved")
            yield beam.pvalue.TaggedOutput(FACTS, result)

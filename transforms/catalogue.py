"""From a catalogue to its recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from transforms.errors import CatalogueError
from transforms.metrics import count
from transforms.records import Recording
from transforms.storage.catalogue import Catalogue, catalogue_parts, list_part
from transforms.storage.tables import duplicate_message


@dataclass(eq=False)
class ReadCatalogue(beam.PTransform):
    """List every recording of a catalogue, once.

    In goes one element, whatever it is (see :class:`~transforms.workers.CheckWorkers`).
    Out come :class:`~transforms.records.Recording`, spread over the workers. A catalogue
    that cannot be listed whole, or that names a recording twice, fails the run
    (:class:`~transforms.errors.CatalogueError`). A retry lists again.

    Attributes
    ----------
    catalogue
        The catalogue.
    taken_down
        Recordings that are passed over.
    """

    catalogue: Catalogue
    taken_down: frozenset[str] = frozenset()

    def expand(self, start: beam.PCollection[str]) -> beam.PCollection[Recording]:
        """List the parts of the catalogue, then what is in each."""
        return (
            start
            | "NameCatalogue" >> beam.Map(lambda _, catalogue: catalogue, self.catalogue)
            | "ListParts" >> beam.FlatMap(catalogue_parts)
            | "SpreadParts" >> beam.Reshuffle()
            | "ListRecordings" >> beam.FlatMap(lambda part, of: list_part(of, part), self.catalogue)
            | "KeyByRecording" >> beam.Map(lambda recording: (recording.recording_id, recording))
            | "GroupByRecording" >> beam.GroupByKey()
            | "CheckUnique" >> beam.FlatMap(only_one)
            | "PassOverTakenDown" >> beam.Filter(_stays, self.taken_down)
        )


def only_one(group: tuple[str, Iterable[Recording]]) -> Iterator[Recording]:
    """Give the only recording with an identity, or raise ``CatalogueError`` naming two."""
    first, *others = group[1]
    if others:
        raise CatalogueError(duplicate_message(first, others[0]))
    count("recordings_listed")
    yield first


def _stays(recording: Recording, taken_down: frozenset[str]) -> bool:
    return recording.recording_id not in taken_down

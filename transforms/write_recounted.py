"""Plans and writes again the recordings whose decode contradicted their plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from melmill.transforms.beam.metrics import count_recordings
from melmill.transforms.core.errors import RecordingError
from melmill.transforms.core.naming import bucket
from melmill.transforms.core.records import Failure, ProbedRecording
from melmill.transforms.index.results import Again
from melmill.transforms.plan.group_decisions import GroupDecisions
from melmill.transforms.plan.job import ExtractJob
from melmill.transforms.plan.packing import ShardPlan, pack_shards, packed_with, row_bytes
from melmill.transforms.plan.recordings import PlannedRecording, plan_recording
from melmill.transforms.write_shards import WriteShards

#: Number of groups in which a split's recordings are packed; there are few recordings.
_BUCKETS = 8


@dataclass(eq=False)
class WriteRecounted(beam.PTransform):
    """Plan and write again the recordings whose decode gave another length than planned.

    The input is :class:`~melmill.transforms.core.records.ProbedRecording` elements with the
    counted length. A recording may come several times, if several of its spans failed. The outputs
    are collections of results for the index. A second failure is final.

    Attributes
    ----------
    job
        Job of the run.
    groups
        Decisions about groups of duplicates, if any are looked for.
    """

    job: ExtractJob
    groups: beam.PCollection[GroupDecisions] | None = None

    def expand(
        self, again: beam.PCollection[ProbedRecording]
    ) -> tuple[beam.PCollection[Again], beam.PCollection[Again]]:
        """Plan each recording once, pack them by split, and write their shards."""
        groups = [] if self.groups is None else [beam.pvalue.AsSingleton(self.groups)]
        planned = (
            again
            | "KeyByRecording" >> beam.Map(lambda probed: (probed.recording.recording_id, probed))
            | "GroupByRecording" >> beam.GroupByKey()
            | "PlanAgain" >> beam.Map(_plan, self.job, *groups)
        )
        shards = (
            planned
            | "KeyBySplit" >> beam.FlatMap(_key_by_split)
            | "GroupBySplit" >> beam.GroupByKey()
            | "PackShards" >> beam.FlatMap(_pack, self.job)
            | "WriteShards" >> WriteShards(self.job, last=True)
        )
        plans = planned | "TellPlans" >> beam.Map(Again)
        return plans, shards.summaries | "TellShards" >> beam.Map(Again)


def _plan(
    group: tuple[str, Iterable[ProbedRecording]],
    job: ExtractJob,
    groups: GroupDecisions | None = None,
) -> PlannedRecording | Failure:
    probed = min(group[1], key=repr)
    try:
        planned = plan_recording(probed, job.features, job.split, job.limits.max_seconds)
    except RecordingError as error:
        count_recordings("recount", 1, 0)
        return Failure.of(probed.recording, error)
    count_recordings("recount")
    return groups.applied(planned) if groups else planned


def _key_by_split(
    planned: PlannedRecording | Failure,
) -> Iterator[tuple[tuple[str, int], PlannedRecording]]:
    if isinstance(planned, PlannedRecording):
        yield (planned.split, bucket(packed_with(planned), _BUCKETS)), planned


def _pack(
    group: tuple[tuple[str, int], Iterable[PlannedRecording]], job: ExtractJob
) -> Iterator[ShardPlan]:
    recordings = list(group[1])
    full_rows = max(1, job.shards.target_bytes // row_bytes(job.features))
    shards = -(-sum(planned.rows for planned in recordings) // full_rows)
    return pack_shards(recordings, shards, job.features, job.shards.seed, job.run_id, full_rows)

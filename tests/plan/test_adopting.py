"""Rows that are taken over: by a recording of the same content, and by nobody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.plan.adopting import adopt
from melmill.transforms.plan.changes import Adopted, Dropped, Offer, Touched
from melmill.transforms.plan.comparing import labels_digest
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.splits import SplitSpec
from tests.pipeline_runs import make_test_job
from tests.plans import FEATURES, probed, recording
from tests.signals import noise, write_audio


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ExtractJob:
    folder = tmp_path_factory.mktemp("adopting")
    write_audio(folder / "a.wav", noise(1, 22_050), 22_050)
    made = make_test_job(folder, folder / "set")
    split = SplitSpec((("train", 1.0),))
    return replace(made, features=FEATURES, split=split, base=Base(3, "0" * 32))


def row(one: Recording, **values: Any) -> dict[str, Any]:
    made = {
        "recording_id": one.recording_id,
        "uri": one.uri,
        "fingerprint": "an earlier version",
        "feature_key": "an earlier key",
        "split": "train",
        "labels_digest": labels_digest(one),
        "rows": 10,
        "shards": ["s1", "s2"],
        "tags": {"title": "Song", "artist": "Singer"},
        "peak_dbfs": -3.0,
    }
    return made | values


def offer(name: str, **values: Any) -> Offer:
    return Offer("hash", row(recording(name), **values))


def identity(name: str) -> str:
    return recording(name).recording_id


def test_a_renamed_file_takes_its_rows_over(job: ExtractJob) -> None:
    new = probed("new.wav", labels=(("genre", "jazz"),))
    found = list(adopt([offer("old.wav")], [new], job))
    dropped, adopted, *touched = found
    assert dropped == Dropped(identity("old.wav"))
    assert adopted == Adopted(
        identity("new.wav"),
        {
            "recording_id": identity("new.wav"),
            "uri": "/songs/new.wav",
            "fingerprint": "1-1",
            "feature_key": digest("1-1", FEATURES.digest()),
            "split": "train",
            "labels_digest": digest("(('genre', 'jazz'),)", "None"),
            "rows": 10,
            "shards": ["s1", "s2"],
            "tags": [("artist", "Singer"), ("title", "Song")],
            "peak_dbfs": -3.0,
        },
    )
    assert touched == [
        Touched(shard, identity("old.wav"), new.recording, "train") for shard in ("s1", "s2")
    ]


def test_a_file_of_a_new_time_leaves_its_shards_alone(job: ExtractJob) -> None:
    found = list(adopt([offer("a.wav")], [probed("a.wav")], job))
    assert [type(one) for one in found] == [Dropped, Adopted]


@pytest.mark.parametrize(
    "values", [{"uri": "/a.wav"}, {"split": "test"}, {"labels_digest": "other"}]
)
def test_shards_that_hold_other_values_are_rewritten(
    job: ExtractJob, values: dict[str, str]
) -> None:
    found = list(adopt([offer("a.wav", **values)], [probed("a.wav")], job))
    assert [type(one) for one in found] == [Dropped, Adopted, Touched, Touched]


def test_who_owns_rows_comes_first_and_the_others_by_name(job: ExtractJob) -> None:
    first, second, third = sorted(("a.wav", "b.wav", "c.wav"), key=identity)
    # The last owns rows; of the others, which own none, the first by its id takes what is left.
    offers = [offer("gone.wav"), offer(third)]
    waiting = [probed(second), probed(first), probed(third)]
    for given in (waiting, waiting[::-1]):
        found = list(adopt(offers, given, job))
        takers = [one.recording_id for one in found if isinstance(one, Adopted)]
        assert takers == [identity(third), identity(first)]
        dropped = [one.recording_id for one in found if isinstance(one, Dropped)]
        assert dropped == [identity(third), identity("gone.wav")]
        assert [one for one in found if isinstance(one, ProbedRecording)] == [probed(second)]


def test_of_several_offers_the_first_by_its_id_is_taken(job: ExtractJob) -> None:
    names = sorted(("x.wav", "y.wav", "z.wav"), key=identity)
    for given in (names, names[::-1]):
        found = list(adopt([offer(name) for name in given], [probed("new.wav")], job))
        dropped = [one.recording_id for one in found if isinstance(one, Dropped)]
        assert dropped == [identity(name) for name in names]
        assert sum(isinstance(one, Adopted) for one in found) == 1


def test_what_nobody_takes_over_is_removed(job: ExtractJob) -> None:
    gone = identity("gone.wav")
    expected = [Dropped(gone), Touched("s1", gone), Touched("s2", gone)]
    assert list(adopt([offer("gone.wav")], [], job)) == expected
    other = replace(job, base=replace(job.base, same_features=False))
    assert list(adopt([offer("gone.wav")], [], other)) == expected[:1]


@pytest.mark.parametrize("rows", [9, 11])
def test_rows_of_another_number_are_not_taken_over(job: ExtractJob, rows: int) -> None:
    found = list(adopt([offer("old.wav", rows=rows)], [probed("new.wav")], job))
    assert found[0] == probed("new.wav")
    assert [type(one) for one in found[1:]] == [Dropped, Touched, Touched]


def test_one_that_does_not_fit_leaves_the_rows_to_the_next(job: ExtractJob) -> None:
    first, second = sorted(("a.wav", "b.wav"), key=identity)
    found = list(adopt([offer("old.wav")], [probed(first, seconds=4), probed(second)], job))
    assert found[0] == probed(first, seconds=4)
    assert [one.recording_id for one in found if isinstance(one, Adopted)] == [identity(second)]


def test_a_recording_that_is_too_long_takes_nothing(job: ExtractJob) -> None:
    short = replace(job, limits=replace(job.limits, max_seconds=9))
    found = list(adopt([offer("old.wav")], [probed("new.wav")], short))
    assert found[0] == probed("new.wav")
    assert not any(isinstance(one, Adopted) for one in found)


def test_without_an_offer_all_are_computed(job: ExtractJob) -> None:
    assert list(adopt([], [probed("a.wav")], job)) == [probed("a.wav")]

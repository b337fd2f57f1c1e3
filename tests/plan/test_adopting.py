"""Only a recording with the same content takes over existing rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from melmill.transforms.core.naming import digest
from melmill.transforms.core.records import ProbedRecording, Recording
from melmill.transforms.plan.adopting import adopt
from melmill.transforms.plan.change_records import Adopted, Dropped, Offer, Touched
from melmill.transforms.plan.job import Base, ExtractJob
from melmill.transforms.plan.known_rows import labels_digest
from melmill.transforms.plan.splits import SplitSpec
from tests.pipeline_runs import make_test_job
from tests.plans import FEATURES, probed, recording
from tests.signals import noise, write_audio


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ExtractJob:
    folder = tmp_path_factory.mktemp("adopting")
    write_audio(folder / "a.wav", noise(1, 22_050), 22_050)
    test_job = make_test_job(folder, folder / "set")
    split = SplitSpec((("train", 1.0),))
    return replace(test_job, features=FEATURES, split=split, base=Base(3, "0" * 32))


def row(song: Recording, **values: Any) -> dict[str, Any]:
    defaults = {
        "recording_id": song.recording_id,
        "uri": song.uri,
        "fingerprint": "an earlier version",
        "feature_key": "an earlier key",
        "split": "train",
        "labels_digest": labels_digest(song),
        "rows": 10,
        "shards": ["s1", "s2"],
        "tags": {"title": "Song", "artist": "Singer"},
        "peak_dbfs": -3.0,
    }
    return defaults | values


def offer(name: str, **values: Any) -> Offer:
    return Offer("hash", row(recording(name), **values))


def identity(name: str) -> str:
    return recording(name).recording_id


def test_a_renamed_file_takes_over_its_rows(job: ExtractJob) -> None:
    new = probed("new.wav", labels=(("genre", "jazz"),))
    changes = list(adopt([offer("old.wav")], [new], job))
    dropped, adopted, *touched = changes
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
            "duplicate_of": None,
            "split_unit": None,
        },
    )
    assert touched == [
        Touched(shard, identity("old.wav"), new.recording, "train") for shard in ("s1", "s2")
    ]


def test_a_file_with_a_new_modification_time_does_not_change_its_shards(job: ExtractJob) -> None:
    changes = list(adopt([offer("a.wav")], [probed("a.wav")], job))
    assert [type(change) for change in changes] == [Dropped, Adopted]


@pytest.mark.parametrize(
    "values", [{"uri": "/a.wav"}, {"split": "test"}, {"labels_digest": "other"}]
)
def test_shards_that_hold_other_values_are_rewritten(
    job: ExtractJob, values: dict[str, str]
) -> None:
    changes = list(adopt([offer("a.wav", **values)], [probed("a.wav")], job))
    assert [type(change) for change in changes] == [Dropped, Adopted, Touched, Touched]


def test_the_owner_of_rows_comes_first_and_others_follow_by_id(job: ExtractJob) -> None:
    first, second, third = sorted(("a.wav", "b.wav", "c.wav"), key=identity)
    # The third recording owns rows. The first and the second own no rows; the one with the
    # smaller id takes over the rows of gone.wav.
    offers = [offer("gone.wav"), offer(third)]
    waiting = [probed(second), probed(first), probed(third)]
    for given in (waiting, waiting[::-1]):
        changes = list(adopt(offers, given, job))
        takers = [change.recording_id for change in changes if isinstance(change, Adopted)]
        assert takers == [identity(third), identity(first)]
        dropped = [change.recording_id for change in changes if isinstance(change, Dropped)]
        assert dropped == [identity(third), identity("gone.wav")]
        assert [change for change in changes if isinstance(change, ProbedRecording)] == [
            probed(second)
        ]


def test_the_offer_with_the_first_id_is_taken(job: ExtractJob) -> None:
    names = sorted(("x.wav", "y.wav", "z.wav"), key=identity)
    for given in (names, names[::-1]):
        changes = list(adopt([offer(name) for name in given], [probed("new.wav")], job))
        dropped = [change.recording_id for change in changes if isinstance(change, Dropped)]
        assert dropped == [identity(name) for name in names]
        assert sum(isinstance(change, Adopted) for change in changes) == 1


def test_rows_that_nobody_takes_over_are_removed(job: ExtractJob) -> None:
    gone_id = identity("gone.wav")
    expected = [Dropped(gone_id), Touched("s1", gone_id), Touched("s2", gone_id)]
    assert list(adopt([offer("gone.wav")], [], job)) == expected
    other_features = replace(job, base=replace(job.base, same_features=False))
    assert list(adopt([offer("gone.wav")], [], other_features)) == expected[:1]


@pytest.mark.parametrize("rows", [9, 11])
def test_a_different_number_of_rows_is_not_taken_over(job: ExtractJob, rows: int) -> None:
    changes = list(adopt([offer("old.wav", rows=rows)], [probed("new.wav")], job))
    assert changes[0] == probed("new.wav")
    assert [type(change) for change in changes[1:]] == [Dropped, Touched, Touched]


def test_a_recording_that_does_not_fit_leaves_the_rows_to_the_next(job: ExtractJob) -> None:
    first, second = sorted(("a.wav", "b.wav"), key=identity)
    changes = list(adopt([offer("old.wav")], [probed(first, seconds=4), probed(second)], job))
    assert changes[0] == probed(first, seconds=4)
    assert [change.recording_id for change in changes if isinstance(change, Adopted)] == [
        identity(second)
    ]


def test_a_recording_that_is_too_long_takes_over_no_rows(job: ExtractJob) -> None:
    limited_job = replace(job, limits=replace(job.limits, max_seconds=9))
    changes = list(adopt([offer("old.wav")], [probed("new.wav")], limited_job))
    assert changes[0] == probed("new.wav")
    assert not any(isinstance(change, Adopted) for change in changes)


def test_without_offers_all_recordings_are_computed(job: ExtractJob) -> None:
    assert list(adopt([], [probed("a.wav")], job)) == [probed("a.wav")]

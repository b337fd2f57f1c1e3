"""Plans hold every chunk exactly once, in any order of recordings; splits are stable."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.transforms.core.errors import CatalogueError, Cause, RecordingError, Stage
from melmill.transforms.core.records import ProbedRecording
from melmill.transforms.features.chunks import ChunkSpec
from melmill.transforms.plan.packing import (
    ShardPlan,
    ShardSpec,
    SplitTotals,
    count_buckets,
    count_shards,
    order_of,
    pack_shards,
    packed_with,
    row_bytes,
)
from melmill.transforms.plan.recordings import PlannedRecording, plan_recording, read_again
from melmill.transforms.plan.splits import SplitSpec, assign_split
from tests.mel_features import with_mel
from tests.plans import FEATURES, failure, planned, probed, recording

DAY = 86_400


def plan(song: ProbedRecording, max_seconds: float = DAY) -> PlannedRecording:
    return plan_recording(song, FEATURES, SplitSpec(), max_seconds)


# One recording


@given(st.builds(PlannedRecording, st.builds(ProbedRecording)))
def test_a_planned_recording_survives_pickling(song: PlannedRecording) -> None:
    # Texts are compared, because a value may be NaN, which does not equal itself.
    assert repr(pickle.loads(pickle.dumps(song))) == repr(song)


def test_a_damaged_recording_survives_pickling() -> None:
    song = planned()
    damaged = replace(song, probed=replace(song.probed, damage=failure()))
    assert pickle.loads(pickle.dumps(damaged)) == damaged


def test_a_planned_recording_takes_less_space_than_its_parts() -> None:
    song = planned()
    assert len(pickle.dumps(song)) < len(pickle.dumps(song.probed))


def test_a_recording_is_counted_at_the_target_rate() -> None:
    song = plan(probed(seconds=10.4))
    assert song == PlannedRecording(probed(seconds=10.4), song.split, 0, 10_400, 10, 1)
    assert song.rows == 10


def test_each_channel_has_rows_of_its_own() -> None:
    features = replace(FEATURES, channels="each")
    song = plan_recording(probed(channels=6), features, SplitSpec(), DAY)
    assert (song.chunks, song.rows) == (10, 60)


def test_a_segment_starts_where_the_catalogue_says() -> None:
    song = plan(probed(start_seconds=2.5, end_seconds=7.0))
    assert (song.origin_sample, song.samples, song.chunks) == (2500, 4500, 4)


def test_a_segment_without_an_end_goes_to_the_end_of_the_recording() -> None:
    assert plan(probed(start_seconds=2.5)).samples == 7500


def test_a_segment_that_ends_shortly_after_the_recording_is_cut_short() -> None:
    assert plan(probed(end_seconds=10.5)).samples == 10_000


def test_a_segment_that_ends_long_after_the_recording_is_refused() -> None:
    with pytest.raises(RecordingError, match=r"bad_segment.*behind the end.*10.000 s"):
        plan(probed(end_seconds=10.502))
    # Follow the advice in the message.
    assert plan(probed(end_seconds=10)).samples == 10_000


@pytest.mark.parametrize(("start", "end"), [(10.0, None), (99.0, 100.0), (2.0, 2.0001)])
def test_a_segment_that_holds_nothing_is_refused(start: float, end: float | None) -> None:
    with pytest.raises(RecordingError, match=r"recording of 10\.000 s") as raised:
        plan(probed(start_seconds=start, end_seconds=end))
    assert raised.value.cause == Cause.BAD_SEGMENT


def test_a_recording_as_long_as_allowed_is_taken() -> None:
    assert plan(probed(seconds=10), max_seconds=10).chunks == 10


def test_a_longer_recording_is_refused() -> None:
    with pytest.raises(RecordingError, match=r"11 s, and .* allows 10 s") as raised:
        plan(probed(seconds=11), max_seconds=10)
    assert raised.value.cause == Cause.TOO_LONG


def test_the_limit_applies_to_the_segment_not_to_the_file() -> None:
    assert plan(probed(seconds=100, start_seconds=5, end_seconds=9), max_seconds=10).chunks == 4


ONE_CHUNK = replace(FEATURES, chunk=replace(FEATURES.chunk, long="fail"))


def test_a_recording_longer_than_a_chunk_fails_if_the_recipe_says_so() -> None:
    # 1.001 s are a sample too many: both lengths are rounded.
    assert plan_recording(probed(seconds=1.001), ONE_CHUNK, SplitSpec(), DAY).chunks == 1
    with pytest.raises(RecordingError) as raised:
        plan_recording(probed(seconds=1.002), ONE_CHUNK, SplitSpec(), DAY)
    assert (raised.value.stage, raised.value.cause) == (Stage.PROBE, Cause.TOO_LONG)
    assert raised.value.message == (
        "1.002 s, and chunk.seconds allows 1 s, because chunk.long is fail"
    )


def test_a_segment_of_a_long_recording_may_be_as_long_as_a_chunk() -> None:
    segment = probed(start_seconds=5, end_seconds=6)
    assert plan_recording(segment, ONE_CHUNK, SplitSpec(), DAY).chunks == 1
    with pytest.raises(RecordingError, match=r"^probe: too_long: 3 s, and "):
        plan_recording(probed(start_seconds=5, end_seconds=8), ONE_CHUNK, SplitSpec(), DAY)


def test_a_missing_channel_is_refused() -> None:
    with pytest.raises(RecordingError, match="no right channel"):
        plan_recording(probed(), replace(FEATURES, channels="right"), SplitSpec(), DAY)


def test_a_recording_too_short_for_a_chunk_gives_no_rows() -> None:
    features = replace(FEATURES, chunk=ChunkSpec(1000, 1000, short="drop"))
    assert plan_recording(probed(seconds=0.5), features, SplitSpec(), DAY).rows == 0


# Damaged recordings


def damaged(song: ProbedRecording, cause: Cause = Cause.CORRUPT) -> ProbedRecording:
    damage = replace(failure(cause=cause, message="cut off"), audio=song.audio)
    return replace(song, damage=damage)


def test_the_part_before_the_damage_is_planned() -> None:
    song = plan(damaged(probed(seconds=4, start_seconds=1, end_seconds=60)))
    assert (song.origin_sample, song.samples, song.chunks) == (1000, 3000, 3)


@pytest.mark.parametrize("start", [4.0, 9.0])
def test_a_segment_after_the_damage_fails_because_of_the_damage(start: float) -> None:
    with pytest.raises(RecordingError, match="cut off") as raised:
        plan(damaged(probed(seconds=4, start_seconds=start, end_seconds=60)))
    assert (raised.value.stage, raised.value.cause) == (Stage.DECODE, Cause.CORRUPT)


def test_less_than_a_chunk_before_the_damage_fails_because_of_the_damage() -> None:
    features = replace(FEATURES, chunk=ChunkSpec(1000, 1000, short="drop"))
    with pytest.raises(RecordingError, match="cut off") as raised:
        plan_recording(damaged(probed(seconds=0.5)), features, SplitSpec(), DAY)
    assert raised.value.cause == Cause.CORRUPT


@pytest.mark.parametrize(
    ("cause", "treatment", "expected"),
    [
        (Cause.LENGTH_MISMATCH, "fail", "whole"),
        (Cause.LENGTH_MISMATCH, "keep", "whole"),
        (Cause.CORRUPT, "keep", "damaged"),
        (Cause.TRUNCATED, "keep", "damaged"),
        (Cause.CORRUPT, "fail", None),
        (Cause.TIMEOUT, "keep", None),
    ],
)
def test_a_failure_is_final_or_leaves_a_readable_part(
    cause: Cause, treatment: str, expected: str | None
) -> None:
    song = probed()
    loss = replace(failure(cause=cause), audio=replace(song.audio, frames=7))
    readable = read_again(song.recording, loss, treatment)
    readable_song = ProbedRecording(song.recording, replace(song.audio, frames=7))
    results = {"whole": readable_song, "damaged": replace(readable_song, damage=loss), None: None}
    assert readable == results[expected]
    assert read_again(song.recording, replace(loss, audio=None), treatment) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"start_seconds": 2.0, "end_seconds": 11.5},
            "the segment from 2 s to 11.5 s goes on behind the end of a recording of 10.000 s; "
            "correct the catalogue's start or end",
        ),
        (
            {"start_seconds": 10.0},
            "the segment from 10 s to the end holds nothing of a recording of 10.000 s; "
            "correct the catalogue's start or end",
        ),
        (
            {"end_seconds": 0.0},
            "the segment from 0 s to 0 s holds nothing of a recording of 10.000 s; "
            "correct the catalogue's start or end",
        ),
    ],
)
def test_a_bad_segment_is_described(values: dict[str, float], message: str) -> None:
    with pytest.raises(RecordingError) as raised:
        plan(probed(**values))
    assert (raised.value.stage, raised.value.message) == (Stage.PROBE, message)


def test_the_message_gives_the_length_of_a_longer_recording_in_seconds() -> None:
    with pytest.raises(RecordingError) as raised:
        plan(probed(seconds=30, start_seconds=2, end_seconds=13), max_seconds=10)
    assert raised.value.stage == Stage.PROBE
    assert raised.value.message == "11 s, and limits.max_duration_hours allows 10 s"


# Splits

NAMES = [f"{i}.wav" for i in range(10_000)]


def splits(spec: SplitSpec) -> list[str]:
    return [assign_split(recording(name), spec) for name in NAMES]


def fractions(**shares: float) -> SplitSpec:
    return SplitSpec(tuple(shares.items()))


def test_splits_have_about_the_shares_asked_for() -> None:
    counts = Counter(splits(fractions(train=0.7, validation=0.2, test=0.1)))
    # 230 is five standard deviations of the largest count.
    for name, share in [("train", 0.7), ("validation", 0.2), ("test", 0.1)]:
        assert abs(counts[name] - 10_000 * share) < 230
    assert counts.total() == 10_000


def test_splits_have_not_changed_since_the_first_release() -> None:
    first = splits(SplitSpec())[:12]
    assert first == [*["train"] * 4, *["test"] * 2, *["train"] * 3, "validation", *["train"] * 2]


def test_another_seed_gives_other_splits() -> None:
    pairs = zip(splits(SplitSpec()), splits(SplitSpec(seed=1)), strict=True)
    # About 1 - (0.8² + 0.1² + 0.1²) of the recordings move.
    assert 3_000 < sum(a != b for a, b in pairs) < 3_800


SHARES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


@given(SHARES, SHARES)
def test_other_shares_move_only_what_they_must(before: list[float], after: list[float]) -> None:
    old, new = (
        SplitSpec(tuple(zip("abc", (share / sum(shares) for share in shares), strict=True)))
        for shares in (before, after)
    )
    shares = {name: (dict(old.fractions)[name], dict(new.fractions)[name]) for name in "abc"}
    moves = Counter(
        (a, b)
        for name in NAMES[:500]
        if (a := assign_split(recording(name), old)) != (b := assign_split(recording(name), new))
    )
    for a, b in moves:
        growth = [shares[b][i] / shares[a][i] for i in (0, 1)]
        assert growth[1] > growth[0]
    # If the shares differ by d, at least d must move and at most 2 d / (1 + d) may move. The
    # tolerance of 56 is five standard deviations of 500 draws.
    minimum = sum(abs(p - q) for p, q in shares.values()) / 2
    assert moves.total() <= 500 * 2 * minimum / (1 + minimum) + 56


def test_a_split_that_is_added_takes_from_the_others_and_nothing_else_moves() -> None:
    before = splits(fractions(train=0.8, test=0.2))
    after = splits(fractions(train=0.72, test=0.18, validation=0.1))
    moves = Counter((a, b) for a, b in zip(before, after, strict=True) if a != b)
    assert {b for _, b in moves} == {"validation"}
    assert 850 < moves.total() < 1150


def test_the_order_of_the_shares_does_not_matter() -> None:
    assert splits(fractions(a=0.7, b=0.3)) == splits(fractions(b=0.3, a=0.7))


@given(st.text(), st.integers())
def test_every_recording_has_one_of_the_splits(name: str, seed: int) -> None:
    spec = SplitSpec((("a", 0.1), ("b", 0.2), ("c", 0.7)), seed=seed)
    assert assign_split(recording(name), spec) in {"a", "b", "c"}


def test_segments_of_a_recording_stay_together() -> None:
    first = recording("a.wav", start_seconds=0.0, end_seconds=1.0)
    for i in range(1, 20):
        segment = replace(first, recording_id=str(i), start_seconds=float(i), end_seconds=i + 1.0)
        assert assign_split(segment, SplitSpec()) == assign_split(first, SplitSpec())


def test_a_group_stays_together() -> None:
    spec = SplitSpec(by="group", group="album")
    groups = {
        (i % 50, assign_split(recording(name, labels=(("album", i % 50),)), spec))
        for i, name in enumerate(NAMES)
    }
    assert len(groups) == 50
    assert len({split for _, split in groups}) == 3


@pytest.mark.parametrize("labels", [(("album", None),), (("artist", "x"),), ()])
def test_a_recording_without_its_group_is_refused(labels: tuple[tuple[str, None], ...]) -> None:
    spec = SplitSpec(by="group", group="album")
    with pytest.raises(CatalogueError, match=r"songs.csv line 7: album: no value"):
        assign_split(recording(labels=labels, origin="songs.csv line 7"), spec)


@pytest.mark.parametrize("by", ["catalogue", "auto"])
def test_the_catalogues_division_is_followed(by: str) -> None:
    assert assign_split(recording(split="fold3"), SplitSpec(by=by)) == "fold3"


@pytest.mark.parametrize("by", ["recording", "group"])
def test_the_catalogues_division_can_be_ignored(by: str) -> None:
    song = recording(split="fold3", labels=(("album", "x"),))
    assert assign_split(song, SplitSpec(by=by, group="album")) in {"train", "validation", "test"}


def test_a_recording_that_the_catalogue_leaves_out_is_refused() -> None:
    with pytest.raises(CatalogueError, match=r"songs.csv line 7: split: no value"):
        assign_split(recording(origin="songs.csv line 7"), SplitSpec(by="catalogue"))


@pytest.mark.parametrize("name", ["train", "Fold_1", "9", "Z" * 64])
def test_a_division_may_be_named_as_a_folder_may(name: str) -> None:
    assert assign_split(recording(split=name), SplitSpec()) == name
    with pytest.raises(CatalogueError, match="64 at the most"):
        assign_split(recording(split=name + "_" * 64), SplitSpec())


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "my-split", "a b", "all", "é", "x\n"])
def test_a_division_that_no_folder_can_be_named_after_is_refused(name: str) -> None:
    with pytest.raises(CatalogueError, match=r"songs.csv line 7: split: .* must be ASCII"):
        assign_split(recording(split=name, origin="songs.csv line 7"), SplitSpec())


# Shards

RECORDINGS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 3)), min_size=1, max_size=25
).map(lambda sizes: [planned(f"{i}.wav", *size) for i, size in enumerate(sizes)])
SHARDS = st.integers(1, 12)


def pack(recordings: list[PlannedRecording], shards: int, seed: int = 0) -> list[ShardPlan]:
    return list(pack_shards(recordings, shards, FEATURES, seed, "writer"))


def rows_of(shard: ShardPlan) -> int:
    return sum(span.chunks * span.probed.audio.channels for span in shard.spans)


@given(RECORDINGS, SHARDS)
def test_every_chunk_is_in_one_shard_once(recordings: list[PlannedRecording], shards: int) -> None:
    counts = Counter(
        (span.probed, index)
        for shard in pack(recordings, shards)
        for span in shard.spans
        for index in range(span.first_chunk, span.stop_chunk)
    )
    assert counts == Counter((song.probed, i) for song in recordings for i in range(song.chunks))


@given(RECORDINGS, SHARDS, st.randoms(use_true_random=False))
def test_the_order_of_the_recordings_does_not_matter(
    recordings: list[PlannedRecording], shards: int, random: object
) -> None:
    shuffled = list(recordings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pack(shuffled, shards) == pack(recordings, shards)


@given(RECORDINGS, SHARDS)
def test_shards_are_balanced(recordings: list[PlannedRecording], shards: int) -> None:
    plans = pack(recordings, shards)
    pieces = [span.chunks * span.probed.audio.channels for shard in plans for span in shard.spans]
    mean = sum(pieces) / shards
    assert max(map(rows_of, plans), default=0) <= mean + max(pieces, default=0)


@given(RECORDINGS, SHARDS)
def test_no_piece_is_larger_than_a_shard(recordings: list[PlannedRecording], shards: int) -> None:
    capacity = -(-sum(song.rows for song in recordings) // shards)
    for shard in pack(recordings, shards):
        for span in shard.spans:
            # A chunk is not divided, so a piece may be too large by less than a chunk's rows.
            rows_per_chunk = span.probed.audio.channels
            assert span.chunks * rows_per_chunk < capacity + rows_per_chunk


@given(RECORDINGS, SHARDS)
def test_there_are_no_empty_shards_and_not_too_many(
    recordings: list[PlannedRecording], shards: int
) -> None:
    plans = pack(recordings, shards)
    assert len(plans) <= shards
    assert all(shard.spans for shard in plans)
    assert len({shard.name for shard in plans}) == len(plans)


def test_a_long_recording_is_spread_over_all_shards() -> None:
    plans = pack([planned(chunks=100)], 8)
    assert sorted(map(rows_of, plans)) == [12] * 4 + [13] * 4


def test_more_shards_than_chunks_give_one_each() -> None:
    assert [rows_of(shard) for shard in pack([planned(chunks=3)], 10)] == [1, 1, 1]


@pytest.mark.parametrize(("full_rows", "pieces"), [(1, 4), (50, 2), (99, 2), (100, 1), (500, 1)])
def test_an_mp3_is_divided_only_if_it_is_larger_than_a_full_shard(
    full_rows: int, pieces: int
) -> None:
    """To read a piece of an MP3, the decoder must also decode everything before the piece."""
    song = planned(chunks=100)
    audio = replace(song.probed.audio, codec="mp3")
    mp3 = replace(song, probed=replace(song.probed, audio=audio))
    plans = list(pack_shards([mp3], 4, FEATURES, 0, "writer", full_rows))
    assert [shard.spans[0].chunks for shard in plans] == [100 // pieces] * pieces
    plans = list(pack_shards([song], 4, FEATURES, 0, "writer", full_rows))
    assert len(plans) == 4
    assert len(pack([mp3], 100)) == 100


def test_without_a_number_of_shards_there_is_one() -> None:
    assert [rows_of(shard) for shard in pack([planned(chunks=3), planned("b.wav", 2)], 0)] == [5]


def test_a_chunk_is_not_divided_among_shards() -> None:
    plans = pack([planned(chunks=3, rows_per_chunk=4)], 12)
    assert [rows_of(shard) for shard in plans] == [4, 4, 4]


def test_spans_have_the_values_of_the_planned_recording() -> None:
    song = replace(planned(chunks=5), origin_sample=70, samples=4900)
    plans = pack([replace(song, split="test")], 2)
    assert [shard.split for shard in plans] == ["test", "test"]
    spans = [span for shard in plans for span in shard.spans]
    assert {(s.probed, s.origin_sample, s.samples) for s in spans} == {(song.probed, 70, 4900)}
    assert sorted((s.first_chunk, s.stop_chunk) for s in spans) == [(0, 2), (2, 5)]


def test_the_largest_pieces_are_distributed_first() -> None:
    sizes = {"a": 7, "b": 6, "c": 5, "d": 4, "e": 3, "f": 3}
    plans = pack([planned(name, size) for name, size in sizes.items()], 3)
    # The shards get 7 + 3, 6 + 3 and 5 + 4 rows. In any other order a shard gets more than 10 rows.
    assert sorted(map(rows_of, plans)) == [9, 9, 10]


def test_a_piece_is_as_large_as_its_rows_in_all_channels() -> None:
    songs = [planned("a.wav", 4, rows_per_chunk=4), planned("b.wav", 10), planned("c.wav", 6)]
    assert [rows_of(shard) for shard in pack(songs, 2)] == [16, 16]


def test_a_recording_listed_twice_is_named_with_its_places() -> None:
    first, second = (
        replace(planned(), probed=probed(seconds=10, origin=f"songs.csv line {i}")) for i in (3, 9)
    )
    with pytest.raises(CatalogueError) as raised:
        pack([first, second], 1)
    places = "songs.csv line 3 and songs.csv line 9"
    assert str(raised.value) == f"/songs/a.wav is listed twice: {places}"


def test_recordings_without_rows_are_in_no_shard() -> None:
    assert pack([planned(chunks=0)], 3) == []


def test_the_name_of_a_shard_does_not_change() -> None:
    # Files on users' disks have this name. Change the name only on purpose.
    assert pack([planned(chunks=3)], 1)[0].name == "a8622c043a721b9bf6e910824a962b50"


@given(st.integers(1, 30))
def test_another_seed_gives_another_order_of_the_same_spans(seed: int) -> None:
    recordings = [planned(f"{i}.wav", 5) for i in range(20)]
    (first,), (second,) = pack(recordings, 1), pack(recordings, 1, seed)
    assert first.spans != second.spans
    assert set(first.spans) == set(second.spans)


def test_the_order_of_rows_does_not_change() -> None:
    # Shards on users' disks have their rows in this order. Change the order only on purpose.
    orders = [order_of(*key) for key in [(0, "a", 0), (0, "a", 7), (1, "a", 0), (0, "b", 0)]]
    assert orders == [
        0.6038966059829242,
        0.23700181334947923,
        0.8738936836797819,
        0.05255361488359411,
    ]


def test_pieces_of_a_recording_are_shuffled_too() -> None:
    # One shard holds both halves of a.wav; the other shard holds b.wav alone.
    recordings = [planned("a.wav", 22), planned("b.wav", 18)]
    orders = set()
    for seed in range(20):
        pieces = [[span.first_chunk for span in shard.spans] for shard in pack(recordings, 2, seed)]
        orders |= {tuple(firsts) for firsts in pieces}
    assert orders == {(0,), (0, 11), (11, 0)}


def test_parts_of_a_split_add_up() -> None:
    assert SplitTotals(3, 50) + SplitTotals(4, 70) == SplitTotals(7, 120)


def test_the_name_depends_on_the_features_and_the_writer() -> None:
    recordings = [planned()]
    louder = replace(FEATURES, resolution=1 / 64)
    plans = [
        *pack(recordings, 1),
        *pack_shards(recordings, 1, louder, 0, "writer"),
        *pack_shards(recordings, 1, FEATURES, 0, "other writer"),
        *pack([replace(recordings[0], split="test")], 1),
        *pack([planned("b.wav")], 1),
    ]
    assert len({shard.name for shard in plans}) == 5


def test_the_name_does_not_depend_on_where_the_catalogue_mentions_a_recording() -> None:
    song = planned()
    moved_recording = replace(song.probed.recording, origin="songs.csv line 9")
    moved_song = replace(song, probed=replace(song.probed, recording=moved_recording))
    assert pack([song], 1)[0].name == pack([moved_song], 1)[0].name


def test_a_recording_listed_twice_is_refused() -> None:
    with pytest.raises(CatalogueError, match=r"/songs/a\.wav is listed twice"):
        pack([planned("a.wav"), planned("b.wav"), planned("a.wav", 3)], 2)


# Number of shards


def test_shards_are_as_large_as_asked_for() -> None:
    spec = ShardSpec(target_bytes=10_000, min_shards=1)
    assert count_shards(SplitTotals(1, 100), 100, 1000, spec) == 10


def test_a_small_dataset_has_the_minimum_number_of_shards() -> None:
    spec = ShardSpec(min_shards=8)
    halves = [count_shards(SplitTotals(1, rows), 100, 10, spec) for rows in (75, 25)]
    assert halves == [6, 2]


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5), st.integers(1, 10**6))
def test_splits_share_at_least_the_minimum_number(rows: list[int], minimum: int) -> None:
    spec = ShardSpec(min_shards=minimum)
    counts = [count_shards(SplitTotals(1, split_rows), sum(rows), 100, spec) for split_rows in rows]
    assert sum(counts, Fraction(0)) >= minimum


@pytest.mark.parametrize(("recordings", "buckets"), [(0, 1), (1, 1), (10_000, 1), (20_001, 3)])
def test_buckets_hold_a_bounded_number(recordings: int, buckets: int) -> None:
    assert count_buckets(SplitTotals(recordings, 1)) == buckets


def test_the_estimate_of_a_rows_size_is_near_the_measured_size() -> None:
    # Measured: 49.7 kB for 128 bands and 130 frames.
    features = with_mel(replace(FEATURES, chunk=ChunkSpec(66_150, 66_150)), n_mels=128)
    assert row_bytes(features) == pytest.approx(49_700, rel=0.02)
    # In a small row, the columns other than mel count, too.
    small = with_mel(FEATURES, n_mels=1)
    assert row_bytes(small) > 3 * small.columns[0].shape[1] + 50


# Recordings whose features are carried over


def carried(name: str, chunks: int, shard: str) -> PlannedRecording:
    song = planned(name, chunks)
    return replace(song, probed=probed(name, seconds=chunks, carried_from=(shard,)))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(5, 200), st.integers(0, 9)
)
def test_what_is_carried_over_stays_together_in_even_shards(
    chunks: list[int], full_rows: int, seed: int
) -> None:
    songs = [carried(f"{n}.wav", number, f"part-{n % 3}") for n, number in enumerate(chunks)]
    plans = list(pack_shards(songs, 8, FEATURES, seed, "run", full_rows))
    held: Counter[tuple[str, int]] = Counter()
    for shard in plans:
        recordings = {span.probed.recording for span in shard.spans}
        assert len({song.carried_from for song in recordings}) == 1
        orders = [
            order_of(seed, span.probed.recording.recording_id, span.first_chunk)
            for span in shard.spans
        ]
        assert orders == sorted(orders)
        assert sum(span.chunks for span in shard.spans) <= full_rows
        for span in shard.spans:
            names = (span.probed.recording.uri,)
            held.update((*names, chunk) for chunk in range(span.first_chunk, span.stop_chunk))
    assert held == Counter(
        (song.probed.recording.uri, chunk) for song in songs for chunk in range(song.chunks)
    )


@pytest.mark.parametrize(
    ("songs", "chunks", "full_rows", "sizes"),
    [
        (50, 10, 490, [250, 250]),
        (7, 1, 4, [4, 3]),
        (2, 2, 1, [1, 1, 1, 1]),
    ],
)
def test_a_shard_that_becomes_too_large_is_divided_evenly(
    songs: int, chunks: int, full_rows: int, sizes: list[int]
) -> None:
    recordings = [carried(f"{n}.wav", chunks, "part-0") for n in range(songs)]
    plans = pack_shards(recordings, 8, FEATURES, 0, "run", full_rows)
    assert [sum(span.chunks for span in shard.spans) for shard in plans] == sizes


def test_what_is_carried_over_from_one_shard_is_packed_together() -> None:
    assert {packed_with(carried(f"{n}.wav", 1, "part-0")) for n in range(9)} == {"part-0"}
    assert packed_with(planned("a.wav")) == recording("a.wav").recording_id
    two = replace(planned("a.wav"), probed=probed("a.wav", carried_from=("x", "y")))
    assert packed_with(two) == recording("a.wav").recording_id

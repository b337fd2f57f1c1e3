"""Rows of different lengths: batches of similar length, masks, and random crops."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melmill.pipelines.dataset import Dataset
from melmill.pipelines.loading.batch_stream import BatchStream, Start, Worker
from melmill.pipelines.loading.cuts import Cuts
from melmill.pipelines.loading.parts import open_loader
from melmill.pipelines.loading.row_loader import RowLoader
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.core.feature_columns import FeatureColumn
from melmill.transforms.loading.lengths import order_by_length, random_fractions
from melmill.transforms.loading.row_order import RowOrder
from tests.loading.conftest import RATE_HZ
from tests.pipeline_runs import extract_here
from tests.sharing import made_once
from tests.signals import noise, write_audio

#: Number of samples of each recording, which is one row; 4000 is the longest.
LENGTHS = [400 + 150 * number for number in range(24)] + [4000]
KEY = ["valid_samples"]


def make_sentences(folder: Any) -> None:
    (folder / "audio").mkdir()
    for number, length in enumerate(LENGTHS):
        samples = noise(length / RATE_HZ, RATE_HZ, number)
        write_audio(folder / "audio" / f"{number:02}.wav", samples, RATE_HZ)
    extract_here(
        *(folder / "audio", folder / "dataset", f"audio.sample_rate_hz={RATE_HZ}"),
        *("chunk.seconds=0.5", "chunk.long=fail", "split.fractions={train: 1.0}", "quality=off"),
        *("output.min_shards=2", "output.row_group_rows=4"),
        "features=[{name: samples, kind: waveform}, "
        "{name: mel, kind: mel, n_mels: 8, n_fft: 256, hop_length: 80}]",
    )


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(made_once(tmp_path_factory, "sentences", make_sentences) / "dataset")


def loader_of(dataset: Dataset, order: RowOrder, columns: list[str], cuts: Cuts) -> RowLoader:
    return open_loader([dataset._open_part("train", columns, order, cuts)], order, cuts=cuts)


def batches_of(dataset: Dataset, order: RowOrder, cuts: Cuts, columns: list[str]) -> list[Any]:
    stream = BatchStream(loader_of(dataset, order, columns, cuts), 4)
    return list(stream.batches(Start(), Worker()))


def test_batches_by_length_have_less_padding_and_every_row_once(sentences):
    padding = {}
    for column in ("", "valid_samples"):
        order = RowOrder(window_rows=100, lanes=1, turn_rows=4, bucket_by=column)
        lengths = [batch["valid_samples"] for batch in batches_of(sentences, order, Cuts(), KEY)]
        assert Counter(length for own in lengths for length in own) == Counter(LENGTHS)
        padding[column] = sum(max(own) * len(own) - sum(own) for own in lengths)
    assert padding["valid_samples"] < 0.5 * padding[""]


def test_masks_say_what_is_valid_and_batches_end_with_their_longest_row(sentences):
    order = RowOrder(window_rows=100, lanes=1, turn_rows=4, bucket_by="valid_samples")
    columns = ["samples", "mel", "valid_samples"]
    stored = _stored(sentences)
    for batch in batches_of(sentences, order, Cuts(masks=True), columns):
        valid = batch["valid_samples"]
        assert batch["samples_length"].tolist() == valid
        assert batch["samples"].shape == (len(valid), max(valid))
        assert batch["samples_mask"].sum(axis=1).tolist() == valid
        assert batch["mel"].shape[-1] == batch["mel_mask"].shape[-1] == max(batch["mel_length"])
        for i, length in enumerate(valid):
            assert batch["samples_mask"][i, :length].all()
            np.testing.assert_array_equal(batch["samples"][i, :length], stored[length][:length])


def _stored(dataset: Dataset) -> dict[int, np.ndarray]:
    rows = dataset.as_arrow("train").to_table(columns=["valid_samples", "samples"]).to_pylist()
    return {row["valid_samples"]: np.float32(row["samples"]) for row in rows}


def test_crops_lie_in_the_valid_part_and_differ_between_epochs(sentences):
    stored = _stored(sentences)
    loader = loader_of(sentences, RowOrder(), ["samples", *KEY], Cuts({"samples": 1000}, True))
    starts = []
    for epoch in (0, 1, 0):
        batch = loader.batch(epoch, np.arange(len(LENGTHS)))
        for crop, valid, length in zip(
            *(batch[name] for name in ("samples", "valid_samples", "samples_length")), strict=True
        ):
            assert length == min(1000, valid)
            row = stored[valid]
            begins = [i for i in range(valid) if np.array_equal(row[i : i + 9], crop[:9])]
            assert len(begins) == 1
            np.testing.assert_array_equal(crop, row[begins[0] :][:1000])
            assert begins[0] + length <= valid
        starts.append(
            {v: c[0] for v, c in zip(batch["valid_samples"], batch["samples"], strict=True)}
        )
    assert starts[0] == starts[2]
    assert sum(starts[0][v] != starts[1][v] for v in LENGTHS if v > 1100) > 10


def test_a_crop_depends_on_the_position_alone(sentences):
    cuts = Cuts({"samples": 500})
    whole = loader_of(sentences, RowOrder(), ["samples"], cuts).batch(3, np.arange(25))
    part = loader_of(sentences, RowOrder(), ["samples"], cuts).batch(3, np.array([20, 7]))
    np.testing.assert_array_equal(part["samples"], whole["samples"][[20, 7]])


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_a_crop_never_leaves_the_feature(length, valid, fraction):
    column = FeatureColumn("mel", (8, 100))
    start, own = Cuts({"mel": length}).place(column, valid, fraction)
    assert 0 <= start <= 100 - length
    assert own == min(length, valid)
    assert start + own <= valid


def test_fractions_are_uniform_and_the_middle_without_a_seed():
    fractions = random_fractions(np.arange(10_000), 0, 0)
    counts, _ = np.histogram(fractions, bins=10, range=(0, 1))
    assert np.abs(counts - 1000).max() < 150  # five standard deviations
    assert (random_fractions(np.arange(3), None, 0) == 0.5).all()
    for other in (random_fractions(np.arange(9), 0, 1), random_fractions(np.arange(9), 1, 0)):
        assert (other != fractions[:9]).all()
    np.testing.assert_array_equal(random_fractions(np.array([700, 3]), 0, 0), fractions[[700, 3]])


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 9))
def test_rows_by_length_are_a_rotation_of_the_sorted_rows(lengths, seed):
    order = order_by_length(np.array(lengths, np.int64), seed)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    by_length = np.array(lengths)[order]
    assert np.count_nonzero(np.diff(by_length) < 0) <= 1


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ({"samples": 0}, "'samples' has 4000 frames or samples, and the crop has 0"),
        ({"samples": 4001}, "give a number from 1 to 4000"),
        ({"uri": 5}, r"'uri' is not one of the features \['samples'\]"),
    ],
)
def test_a_wrong_crop_is_refused(sentences, crop, message):
    with pytest.raises(ConfigError, match=message):
        loader_of(sentences, RowOrder(), ["samples"], Cuts(crop))


def test_a_column_with_the_name_of_a_mask_is_refused():
    with pytest.raises(ConfigError, match="two columns 'mel_mask'"):
        Cuts(masks=True).require_free_names(["mel", "mel_mask"])
    Cuts().require_free_names(["mel", "mel_mask"])


def test_turns_that_do_not_fit_batches_by_length_are_refused(sentences):
    order = RowOrder(turn_rows=6, bucket_by="valid_samples")
    with pytest.raises(ConfigError, match="turn_rows is 6, and batch_size 4"):
        batches_of(sentences, order, Cuts(), KEY)


@pytest.mark.parametrize("column", ["uri", "rms_dbfs", "samples", "nothing"])
def test_rows_are_sorted_by_whole_numbers_alone(sentences, column):
    order = RowOrder(turn_rows=4, bucket_by=column)
    with pytest.raises(ConfigError, match=f"bucket_by: '{column}' is .*whole numbers"):
        loader_of(sentences, order, KEY, Cuts())

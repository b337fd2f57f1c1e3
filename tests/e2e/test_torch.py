"""PyTorch's DataLoader reads a snapshot.

The tests do not install PyTorch: with its CUDA libraries, it has 6 GB on PyPI. To run this module,
run ``pip install torch``, then ``scripts/test tests/e2e/test_torch.py``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from melmill.pipelines.dataset import Dataset
from melmill.transforms.core.errors import DatasetError
from tests.e2e.rows import SHAPE, SPLITS
from tests.pipeline_runs import extract_here
from tests.signals import noise, write_audio

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader, default_collate  # noqa: E402 - needs torch

KEY = ["uri", "chunk_index"]
SAMPLES = "{name: samples, kind: waveform}"


@pytest.fixture(scope="module")
def opened(dataset) -> Dataset:
    return Dataset(dataset)


def keys(batches) -> list[tuple[str, int]]:
    return [
        (Path(uri).name, int(index))
        for batch in batches
        for uri, index in zip(batch["uri"], batch["chunk_index"], strict=True)
    ]


def expected_keys(rows, split) -> Counter:
    return Counter(key for key, row in rows.items() if row["split"] == split)


def test_batches_hold_the_exact_values(opened, rows):
    for split, number in SPLITS.items():
        names = ["mel", *KEY, "peak_dbfs"]
        batches = list(DataLoader(opened.as_torch(split, names), batch_size=5))
        assert sum(len(batch["mel"]) for batch in batches) == number
        for batch in batches:
            assert batch["mel"].dtype == torch.float32
            assert batch["chunk_index"].dtype == torch.int64
            assert batch["mel"].shape[1:] == SHAPE
            for i, key in enumerate(keys([batch])):
                np.testing.assert_array_equal(batch["mel"][i].numpy(), rows[key]["mel"])
                assert float(batch["peak_dbfs"][i]) == pytest.approx(rows[key]["peak_dbfs"])


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_no_row_comes_twice_and_none_is_missing(opened, rows, workers, world_size):
    # In some cases there are fewer readers than files, in others more readers than row groups.
    actual = Counter()
    for rank in range(world_size):
        rows_of_rank = opened.as_torch("train", KEY, rank=rank, world_size=world_size)
        actual += Counter(keys(DataLoader(rows_of_rank, batch_size=4, num_workers=workers)))
    assert actual == expected_keys(rows, "train")


def test_each_epoch_has_its_own_order(opened, rows):
    training_rows = opened.as_torch("train", KEY)
    orders = []
    for epoch in (0, 1, 2, 1):
        training_rows.set_epoch(epoch)
        orders.append(keys(DataLoader(training_rows, batch_size=8)))
    assert orders[1] == orders[3]
    assert len({tuple(order) for order in orders}) == 3
    assert {frozenset(Counter(order).items()) for order in orders} == {
        frozenset(expected_keys(rows, "train").items())
    }


def test_persistent_workers_use_the_new_epoch(opened):
    training_rows = opened.as_torch("train", KEY)
    loader = DataLoader(training_rows, batch_size=8, num_workers=2, persistent_workers=True)
    first = keys(loader)
    training_rows.set_epoch(1)
    assert keys(loader) != first


def test_labels_that_every_row_has_are_read_by_default(opened):
    (batch,) = DataLoader(opened.as_torch("test"), batch_size=1000)
    assert set(batch) == {"mel", "valid_frames", "genre"}
    assert set(batch["genre"]) == {"rock", "folk"}


def test_wrong_arguments_are_refused(opened):
    with pytest.raises(DatasetError, match="no split 'dev'"):
        opened.as_torch("dev")
    with pytest.raises(DatasetError, match="label 'year' has no value"):
        opened.as_torch("train", ["mel", "year"])
    with pytest.raises(ValueError, match="rank 2"):
        opened.as_torch("train", rank=2, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_or_missing_shard_is_named(dataset, tmp_path, workers):
    opened = Dataset(shutil.copytree(dataset, tmp_path / "copy"))
    damaged, missing = Path(opened.files("train")[0]), Path(opened.files("test")[0])
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    for split, shard, fault in (("train", damaged, "is damaged"), ("test", missing, "is missing")):
        with pytest.raises(DatasetError, match=f"{shard.name} {fault}"):
            list(DataLoader(opened.as_torch(split), batch_size=None, num_workers=workers))


def test_normalised_at_load_time_bands_have_mean_0_and_deviation_1(opened):
    mean, std = (torch.tensor(opened.statistics[name])[:, None] for name in ("mean", "std"))
    loader = DataLoader(
        opened.as_torch("train", ["mel"]),
        batch_size=7,
        collate_fn=lambda batch: default_collate(
            [{**row, "mel": (row["mel"] - mean) / std} for row in batch]
        ),
    )
    mel = torch.cat([batch["mel"] for batch in loader]).double()
    assert mel.shape == (SPLITS["train"], *SHAPE)
    # Each value has the rounding error of up to 80 dB in float32, divided by at least 1 dB.
    np.testing.assert_allclose(mel.mean(dim=(0, 2)), 0, atol=3e-5)
    np.testing.assert_allclose(mel.std(dim=(0, 2), correction=0), 1, atol=3e-5)


def test_a_measure_of_a_chunk_is_a_number_and_nan_for_null(tmp_path):
    (tmp_path / "songs").mkdir()
    write_audio(tmp_path / "songs" / "a.wav", noise(2, 8000), 8000)
    quality = "{name: quality, kind: measures, meters: [channels, gaps]}"
    settings = "audio.sample_rate_hz=8000", "chunk.seconds=1", "split.fractions={train: 1.0}"
    extract_here(
        tmp_path / "songs", tmp_path / "set", *settings, f"features=[{SAMPLES}, {quality}]"
    )
    (batch,) = DataLoader(Dataset(tmp_path / "set").as_torch("train"), batch_size=2)
    assert batch["samples"].shape == (2, 8000)
    assert batch["quality_gaps_count"].tolist() == [0, 0]
    assert batch["quality_channels_dead"].isnan().all()

"""Extract and read datasets with variants in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import melmill
from melmill.pipelines.api import recipe_of_dataset
from melmill.pipelines.config import load_config
from melmill.pipelines.extract import Extraction, extract, make_job, resolve_catalogue
from melmill.pipelines.refresh import refresh
from melmill.pipelines.variants import pin_files
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import here
from tests.refresh.catalogues import write_song

RATE = 4000
BASE = (
    f"audio.sample_rate_hz={RATE}",
    "chunk.seconds=0.25",
    "chunk.tail=pad",
    "split.fractions={train: 0.5, test: 0.5}",
    "output.min_shards=3",
    "features=[{name: samples, kind: waveform}]",
)

#: Rows by the recording's name, the variant, the chunk and the channel.
Rows = dict[tuple[str, int, int, int], dict[str, Any]]


def write_songs(folder: Path) -> Path:
    """Write four recordings of noise; two of them have another sample rate."""
    for number in range(4):
        write_song(folder / f"{number}.wav", number, 0.3 + 0.9 * number, RATE * (1 + number % 2))
    return folder


def run(songs: Path, dataset: Path, *settings: str) -> Extraction:
    """Extract or refresh in this process, as the command does."""
    is_new = not dataset.exists()
    recipe = load_config(None, settings)
    if not is_new:
        recipe = recipe_of_dataset(str(dataset), None, list(settings))
    recipe = pin_files(recipe, str(songs))
    job = make_job(recipe, resolve_catalogue(str(songs), recipe), Store(str(dataset)))
    return (extract if is_new else refresh)(job, recipe.as_dict(), here())


def rows_of(dataset: Path) -> Rows:
    rows = melmill.open(dataset).as_arrow().to_table().to_pylist()
    return {
        (Path(r["uri"]).name, r["variant"], r["chunk_index"], r.get("channel", 0)): r for r in rows
    }


def rows_in_any_shards(songs: Path, folder: Path, *settings: str) -> Rows:
    """Return the rows of ``set`` in a folder, which are those of a dataset with other shards."""
    run(songs, folder / "set", *settings)
    run(songs, folder / "other", *settings, "output.min_shards=1", "output.order_seed=9")
    rows = rows_of(folder / "set")
    assert rows == rows_of(folder / "other")
    return rows

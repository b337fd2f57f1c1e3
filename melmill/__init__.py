"""melmill: audio catalogues into log-mel training data, on Apache Beam.

    import melmill

    songs = melmill.extract("songs/", "dataset/")    # also plan, refresh, export, …
    songs = melmill.open("dataset/")                 # as_arrow, as_tf, as_torch, statistics, …
    song = melmill.load("songs/song.mp3")            # play, plot, features, chunks

What is named in ``__all__`` is public, and so are the command line, the recipe's keys and the
datasets' layout: they follow semantic versioning (CONTRIBUTING.md). The rest may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melmill.pipelines.api import (
        ExtractedDataset,
        add_columns,
        duplicates,
        export,
        extract,
        measure,
        patterns,
        plan,
        plan_refresh,
        refresh,
        verify,
    )
    from melmill.pipelines.api import open_dataset as open
    from melmill.pipelines.config import load_config
    from melmill.pipelines.dataset import Dataset
    from melmill.pipelines.layers.layer import layer
    from melmill.pipelines.mixture import Mixture, Part
    from melmill.pipelines.notebook.audio import Audio, Chunk, load
    from melmill.pipelines.run.errors import (
        LostWorkerError,
        NothingSubmittedError,
        TooManyFailuresError,
    )
    from melmill.transforms.core.errors import ConflictError, RecordingError, UserError
    from melmill.transforms.loading.row_order import RowOrder

__version__ = "0.1.0"

__all__ = [
    "Audio",
    "Chunk",
    "ConflictError",
    "Dataset",
    "ExtractedDataset",
    "LostWorkerError",
    "Mixture",
    "NothingSubmittedError",
    "Part",
    "RecordingError",
    "RowOrder",
    "TooManyFailuresError",
    "UserError",
    "add_columns",
    "duplicates",
    "export",
    "extract",
    "layer",
    "load",
    "load_config",
    "measure",
    "open",
    "patterns",
    "plan",
    "plan_refresh",
    "refresh",
    "verify",
]

#: Where a name comes from. It is imported when it is first used: workers need none of them, and
#: opening a dataset needs no Beam.
_HOMES = {
    "pipelines.api": (
        *("ExtractedDataset", "add_columns", "duplicates", "export", "extract", "measure"),
        *("patterns", "plan", "plan_refresh", "refresh", "verify"),
    ),
    "pipelines.config": ("load_config",),
    "pipelines.dataset": ("Dataset",),
    "pipelines.layers.layer": ("layer",),
    "pipelines.mixture": ("Mixture", "Part"),
    "pipelines.notebook.audio": ("Audio", "Chunk", "load"),
    "pipelines.run.errors": ("LostWorkerError", "NothingSubmittedError", "TooManyFailuresError"),
    "transforms.core.errors": ("ConflictError", "RecordingError", "UserError"),
    "transforms.loading.row_order": ("RowOrder",),
}


def __getattr__(name: str) -> Any:
    if name == "open":
        return importlib.import_module("melmill.pipelines.api").open_dataset
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"melmill.{home}"), name)
    raise AttributeError(f"module 'melmill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

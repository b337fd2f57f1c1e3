"""A run checks its workers before it gives them any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that, equal_to

from melmill.transforms.check_workers import VERSION, CheckWorkers, open_stores, require_version
from melmill.transforms.core.errors import ConfigError


def test_a_worker_that_has_everything_says_its_version(tmp_path: Path) -> None:
    with Pipeline(runner="FnApiRunner") as pipeline:
        versions = pipeline | CheckWorkers(((str(tmp_path), ()), ("memory://store", ())))
        assert_that(versions, equal_to([VERSION]))


def test_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the workers have melmill 0.0.1, .* launcher has 9.9"):
        require_version("0.0.1", "9.9")


def test_a_store_without_its_client_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def raise_import_error(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", raise_import_error)
    message = r"^on a worker: s3://songs/a cannot be opened: .*; pip install 'melmill\[s3\]'$"
    with pytest.raises(ConfigError, match=message):
        open_stores(VERSION, [("s3://songs/a", ())])

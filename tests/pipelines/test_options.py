"""Runners and the options that go through to Beam."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    SetupOptions,
    StandardOptions,
)

from pipelines.options import RUNNERS, pipeline_options
from transforms.errors import ConfigError


@pytest.mark.parametrize(("name", "beams"), RUNNERS.items())
def test_runners_are_known_by_short_names(name: str, beams: str) -> None:
    assert pipeline_options(name, 0, []).view_as(StandardOptions).runner == beams


@pytest.mark.parametrize("name", ["spark", "DirectRunner", ""])
def test_an_unknown_runner_is_refused_with_those_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown; allowed: direct, flink, dataflow, prism"):
        pipeline_options(name, 0, [])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_direct_runner_works_in_processes(workers: int) -> None:
    options = pipeline_options("direct", workers, []).view_as(DirectOptions)
    assert options.direct_running_mode == "multi_processing"
    assert options.direct_num_workers == workers


def test_other_runners_are_told_nothing_of_processes() -> None:
    options = pipeline_options("flink", 3, []).view_as(DirectOptions)
    assert options.direct_running_mode != "multi_processing"


def test_beams_options_pass_through() -> None:
    given = ["--region=europe-west1", "--temp_location", "gs://x/tmp", "--setup_file=./setup.py"]
    options = pipeline_options("dataflow", 0, given)
    cloud = options.view_as(GoogleCloudOptions)
    assert (cloud.region, cloud.temp_location) == ("europe-west1", "gs://x/tmp")
    assert options.view_as(SetupOptions).setup_file == "./setup.py"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--regoin=europe-west1", "--region"),
        ("--setup_fle", "--setup_file"),
        ("--setup-file=x", "--setup_file"),
        ("--flink_mastr=localhost:8081", "--flink_master"),
    ],
)
def test_a_misspelt_option_is_refused_with_what_was_meant(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{given}: neither .* did you mean {meant}\?"):
        pipeline_options("direct", 0, [given])


@pytest.mark.parametrize("given", ["--xyzzy", "stray"])
def test_an_option_like_no_other_is_refused(given: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{given}: neither melmill nor Beam knows this option$"
    ):
        pipeline_options("direct", 0, [given])


def test_abbreviations_are_not_guessed() -> None:
    with pytest.raises(ConfigError, match="--regi"):
        pipeline_options("dataflow", 0, ["--regi=europe-west1"])

"""Tests of runners, and of options that are passed through to Beam."""

from __future__ import annotations

from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PortableOptions,
    PrismRunnerOptions,
    SetupOptions,
    StandardOptions,
)

from melmill.pipelines.run.options import RUNNERS, pipeline_options, read_recipe
from melmill.transforms.core.errors import ConfigError

LOCAL_FLINK = "--flink_master=[local]"
#: Options that a runner requires.
REQUIRED_OPTIONS = {
    "flink": [LOCAL_FLINK],
    "prism": ["--prism_location=/usr/bin/prism"],
    "dataflow": [
        "--dry_run=True",
        "--project=project",
        "--region=europe-west1",
        "--temp_location=gs://bucket/tmp",
    ],
}


@pytest.mark.parametrize(("name", "beam_name"), RUNNERS.items())
def test_runners_are_known_by_short_names(name: str, beam_name: str) -> None:
    if name == "dataflow":
        pytest.importorskip("google.cloud.dataflow")
    options = pipeline_options(name, 0, REQUIRED_OPTIONS.get(name, []))
    assert options.view_as(StandardOptions).runner == beam_name


def test_without_a_name_the_runner_is_this_machine() -> None:
    assert pipeline_options(None).view_as(StandardOptions).runner == RUNNERS["direct"]


def test_prism_is_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no program prism on PATH; --prism_location .* go inst"):
        pipeline_options("prism")
    prism = tmp_path / "prism"
    prism.touch(mode=0o755)
    options = pipeline_options("prism").view_as(PrismRunnerOptions)
    assert options.prism_location == str(prism)


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
    options = pipeline_options("flink", 3, [LOCAL_FLINK]).view_as(DirectOptions)
    assert options.direct_running_mode != "multi_processing"


def test_beams_options_pass_through() -> None:
    flags = ["--region=europe-west1", "--temp_location", "gs://x/tmp", "--setup_file=./setup.py"]
    options = pipeline_options("flink", 0, [LOCAL_FLINK, *flags])
    cloud = options.view_as(GoogleCloudOptions)
    assert (cloud.region, cloud.temp_location) == ("europe-west1", "gs://x/tmp")
    assert options.view_as(SetupOptions).setup_file == "./setup.py"


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--regoin=europe-west1", "--region"),
        ("--setup_fle", "--setup_file"),
        ("--setup-file=x", "--setup_file"),
        ("--flink_mastr=localhost:8081", "--flink_master"),
    ],
)
def test_a_misspelt_option_is_refused_with_what_was_meant(option: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}: neither .* did you mean {meant}\?"):
        pipeline_options("direct", 0, [option])


@pytest.mark.parametrize("option", ["--xyzzy", "stray"])
def test_an_option_like_no_other_is_refused(option: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{option}: neither melmill nor Beam knows this option$"
    ):
        pipeline_options("direct", 0, [option])


def test_abbreviations_are_not_guessed() -> None:
    with pytest.raises(ConfigError, match="--regi"):
        pipeline_options("dataflow", 0, ["--regi=europe-west1"])


# Recipes

RECIPES = sorted((Path(__file__).parents[2] / "configs/runners").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_our_own_recipes_can_be_read(recipe: Path) -> None:
    runner, _ = read_recipe(str(recipe))
    assert runner in RUNNERS


def write_recipe(folder: Path, text: str) -> str:
    recipe = folder / "runner.yaml"
    recipe.write_text(text)
    return str(recipe)


def test_a_recipe_says_what_the_command_line_would(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        "runner: flink\nflink_master: '[local]'\nregion: europe-west1\n"
        "experiments: [one, two]\nnum_workers: 3\n"
        "environment_config: {command: beam-boot}\nno_use_public_ips: true\nupdate: false\n",
    )
    assert read_recipe(recipe) == (
        "flink",
        [
            LOCAL_FLINK,
            "--region=europe-west1",
            "--experiments=one",
            "--experiments=two",
            "--num_workers=3",
            '--environment_config={"command": "beam-boot"}',
            "--no_use_public_ips",
        ],
    )
    options = pipeline_options(None, 0, ["--region=us-east1"], recipe)
    assert options.view_as(StandardOptions).runner == "FlinkRunner"
    assert options.view_as(GoogleCloudOptions).region == "us-east1"
    assert options.view_as(PortableOptions).environment_config == '{"command": "beam-boot"}'


def test_the_command_line_names_the_runner_over_a_recipe(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "runner: dataflow\nparallelism: 3\n")
    options = pipeline_options("direct", 1, [], recipe)
    assert options.view_as(StandardOptions).runner == RUNNERS["direct"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner: spark\n", r"runner: 'spark': allowed: direct, flink, dataflow, prism"),
        ("- region\n", r"not a mapping of Beam's options to values"),
        ("", r"not a mapping"),
        ("region: [", r"cannot be read: "),
        ("regoin: x\n", r"--regoin=x: neither melmill nor Beam .* did you mean --region\?"),
        ("parallelism: many\n", r"--parallelism: invalid int value: 'many'"),
    ],
)
def test_a_bad_recipe_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    recipe = write_recipe(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"^--runner-config {recipe}: .*{message}"):
        pipeline_options(None, 0, [], recipe)


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--runner-config .*none.yaml: cannot be read"):
        pipeline_options(None, 0, [], str(tmp_path / "none.yaml"))

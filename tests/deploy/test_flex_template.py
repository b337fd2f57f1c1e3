"""Tests of the Flex Template's files against the service's protocol buffers and our options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.cloud import dataflow
from google.protobuf import json_format

from melmill.pipelines.cli.flex_template import PARAMETERS, command_line
from melmill.pipelines.run.options import _all_options, read_recipe

FOLDER = Path(__file__).parents[2] / "deploy/dataflow"


@pytest.fixture
def metadata() -> Any:
    return json.loads((FOLDER / "metadata.json").read_text())


@pytest.fixture
def spec() -> Any:
    return json.loads((FOLDER / "spec.json").read_text())


def test_the_service_understands_every_field(metadata: Any, spec: Any) -> None:
    parsed = json_format.ParseDict(metadata, dataflow.TemplateMetadata()._pb)
    assert [parameter.name for parameter in parsed.parameters] == [
        parameter["name"] for parameter in metadata["parameters"]
    ]
    container = json_format.ParseDict(spec, dataflow.ContainerSpec()._pb)
    assert container.sdk_info.language == dataflow.SDKInfo.Language.PYTHON
    assert container.metadata == parsed


def test_the_protocol_buffers_would_refuse_a_mistake(spec: Any) -> None:
    spec["metadata"]["parameters"][0]["isOptionl"] = True
    with pytest.raises(json_format.ParseError, match="isOptionl"):
        json_format.ParseDict(spec, dataflow.ContainerSpec()._pb)


def test_its_parameters_are_ours_and_beams(metadata: Any) -> None:
    beam_options = {name for action in _all_options()._actions for name in action.option_strings}
    parameters = {parameter["name"]: parameter for parameter in metadata["parameters"]}
    for name, parameter in parameters.items():
        assert name in PARAMETERS or f"--{name}" in beam_options
        assert parameter["label"]
        assert parameter["helpText"]
    for name, (required, _) in PARAMETERS.items():
        assert parameters[name].get("isOptional", False) is not required


def test_the_environment_is_the_recipes(spec: Any) -> None:
    _, flags = read_recipe(str(FOLDER.parents[1] / "configs/runners/dataflow.yaml"))
    environment = spec["defaultEnvironment"]
    assert f"--machine_type={environment['machineType']}" in flags
    assert f"--disk_size_gb={environment['diskSizeGb']}" in flags


def test_the_image_has_the_same_beam_and_starts_the_same_file() -> None:
    from apache_beam.version import __version__ as beam_version

    text = (FOLDER / "Dockerfile").read_text()
    assert f"FROM apache/beam_python3.11_sdk:{beam_version}" in text
    assert "COPY deploy/dataflow/main.py /template/main.py" in text
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py" in text


@pytest.mark.parametrize("missing", ["catalogue", "output"])
def test_a_missing_required_parameter_is_reported(missing: str, capsys: Any) -> None:
    arguments = [f"--{name}=x" for name in ("catalogue", "output") if name != missing]
    with pytest.raises(SystemExit):
        command_line(arguments)
    assert f"--{missing}" in capsys.readouterr().err

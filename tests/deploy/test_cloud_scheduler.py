"""Tests of the job of Cloud Scheduler against Google's own protocol buffers and client."""

from __future__ import annotations

import base64
import copy
import json
import re
import shutil
import subprocess
import zoneinfo
from typing import Any

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import dataflow, scheduler_v1
from google.protobuf import json_format

from tests.deploy.schedules import FOLDER, ROOT, once_a_day


@pytest.fixture
def job() -> Any:
    return json.loads((FOLDER / "dataflow-scheduler.json").read_text())


def as_sent(job: Any) -> Any:
    """Return the job with its body's text in base64, like jq's output in docs/scheduling.md."""
    sent = copy.deepcopy(job)
    text = json.dumps(job["httpTarget"]["body"], separators=(",", ":"))
    sent["httpTarget"]["body"] = base64.b64encode(text.encode()).decode()
    return sent


def launched(job: Any) -> Any:
    return json_format.ParseDict(
        job["httpTarget"]["body"], dataflow.LaunchFlexTemplateRequest()._pb
    )


def test_the_scheduler_understands_every_field(job: Any) -> None:
    parsed = json_format.ParseDict(as_sent(job), scheduler_v1.Job()._pb)
    assert json.loads(parsed.http_target.body) == job["httpTarget"]["body"]
    assert parsed.http_target.http_method == scheduler_v1.HttpMethod.POST
    assert once_a_day(parsed.schedule)
    assert parsed.time_zone in zoneinfo.available_timezones()


def test_dataflow_understands_every_field_of_the_body(job: Any) -> None:
    assert launched(job).launch_parameter.job_name == "melmill-refresh"


def test_the_protocol_buffers_would_refuse_mistakes(job: Any) -> None:
    job["httpTarget"]["oauthTokn"] = {}
    with pytest.raises(json_format.ParseError, match="oauthTokn"):
        json_format.ParseDict(as_sent(job), scheduler_v1.Job()._pb)
    job["httpTarget"]["body"]["launchParameter"]["environment"]["maxWorker"] = 1
    with pytest.raises(json_format.ParseError, match="maxWorker"):
        launched(job)


class NotSentError(Exception):
    """Raised in place of sending a request."""


class Catch(requests.adapters.BaseAdapter):
    """An adapter that raises the request which Google's client would send."""

    def send(self, request: Any, *rest: Any, **kwargs: Any) -> Any:
        raise NotSentError(request)

    def close(self) -> None: ...


def test_googles_own_client_would_send_the_same(job: Any) -> None:
    target = job["httpTarget"]
    request = dataflow.LaunchFlexTemplateRequest.wrap(launched(job))
    request.project_id, request.location = re.findall(r"(?:projects|locations)/(\w+)", job["name"])
    client = dataflow.FlexTemplatesServiceClient(
        credentials=AnonymousCredentials(), transport="rest"
    )
    client.transport._session.mount("https://", Catch())
    with pytest.raises(NotSentError) as raised:
        client.launch_flex_template(request)
    sent = raised.value.args[0]
    assert (sent.method, sent.url.partition("?")[0]) == (target["httpMethod"], target["uri"])
    assert json_format.ParseDict(json.loads(sent.body), type(launched(job))()) == launched(job)
    assert sent.headers["Content-Type"] == target["headers"]["Content-Type"]


def test_its_parameters_are_the_templates(job: Any) -> None:
    metadata = json.loads((ROOT / "deploy/dataflow/metadata.json").read_text())
    parameters = {parameter["name"]: parameter for parameter in metadata["parameters"]}
    given = job["httpTarget"]["body"]["launchParameter"]["parameters"]
    assert given.keys() <= parameters.keys()
    assert {
        name for name, parameter in parameters.items() if not parameter.get("isOptional")
    } <= given.keys()
    for name in given.keys() & parameters.keys():
        for pattern in parameters[name].get("regexes", []):
            assert re.fullmatch(pattern, given[name])


def test_the_documented_command_makes_what_is_sent(job: Any) -> None:
    (program,) = re.findall(r"jq '(.+?)'", (ROOT / "docs/scheduling.md").read_text())
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    command = ["jq", program, FOLDER / "dataflow-scheduler.json"]
    output = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert output == as_sent(job)

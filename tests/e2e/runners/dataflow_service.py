"""A substitute on loopback for the services of a Dataflow submission, except Cloud Storage.

It accepts jobs over the REST API (v1b3), as Dataflow's own protocol buffers define them. It runs
the jobs as the service would: workers start in a clean Python environment, into which only the
staged package is installed. It is also the metadata server, which gives credentials to workers and
launchers on Google's machines.

Unlike Google's service, it does not autoscale, and it starts no machine and no container.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gcsfs
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import Pipeline
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from google.cloud import dataflow
from google.protobuf import json_format

from tests.e2e.runners.bare import make_bare_environment

RUNNING, DONE, FAILED, CANCELLED = 2, 3, 4, 5
_JOBS = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)(?:/locations/(?P<place>[^/]+))?/jobs"
    r"(?:/(?P<job>[^/:]+)(?:/(?P<part>messages|metrics))?)?"
)
_ACCOUNT = {"email": "worker@project", "aliases": ["default"], "scopes": ["cloud-platform"]}


@dataclass
class Job:
    """A submitted job, with its state, messages and metrics."""

    request: dict[str, Any]
    identity: str
    state: int = RUNNING
    messages: list[dict[str, str]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def proto(self) -> dataflow.Job:
        """The job as the service's own protocol buffer; an unknown field is an error."""
        job = dataflow.Job()
        json_format.ParseDict(self.request, job._pb)
        return job

    @property
    def options(self) -> dict[str, Any]:
        """The pipeline options that the workers would get."""
        options: dict[str, Any] = self.request["environment"]["sdkPipelineOptions"]["options"]
        return options

    def describe(self, project: str, place: str) -> dict[str, Any]:
        """Return the API's description of the job."""
        fields = {"id": self.identity, "projectId": project, "location": place}
        return {**self.request, **fields, "currentState": self.state}

    def add_message(self, text: str, importance: str = "JOB_MESSAGE_BASIC") -> None:
        """Add a message."""
        number = len(self.messages) + 1
        timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{number:09d}Z"
        self.messages.append(
            {
                "id": str(number),
                "time": timestamp,
                "messageText": text,
                "messageImportance": importance,
            }
        )


@dataclass
class Service:
    """The substitute of the Dataflow service."""

    storage: str
    folder: Path
    jobs: dict[str, Job] = field(default_factory=dict)
    port: int = 0

    @property
    def options(self) -> list[str]:
        """Options of ``melmill`` for this service."""
        return [
            "--runner=dataflow",
            "--project=project",
            "--region=europe-west1",
            f"--dataflow_endpoint=http://localhost:{self.port}",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of Google's libraries for this service."""
        address = f"127.0.0.1:{self.port}"
        return {"GCE_METADATA_HOST": address, "GCE_METADATA_IP": address}

    def create(self, request: dict[str, Any]) -> Job:
        """Accept a job and start it."""
        job = Job(request, f"job-{len(self.jobs) + 1}")
        assert job.proto.name == request["name"]
        self.jobs[job.identity] = job
        threading.Thread(target=self._carry_out, args=(job,), daemon=True).start()
        return job

    def _carry_out(self, job: Job) -> None:
        try:
            pipeline, staged = self._fetch(job)
            job.add_message(f"staged: {', '.join(sorted(path.name for path in staged))}")
            python = self._prepare_worker(job, staged)
            _use_processes(pipeline, self._worker_command(python))
            _run(pipeline, job)
            job.state = DONE
        except BaseException:  # noqa: BLE001 - any error fails the job, with a message
            job.add_message(traceback.format_exc(), "JOB_MESSAGE_ERROR")
            job.state = FAILED

    def _fetch(self, job: Job) -> tuple[Any, list[Path]]:
        """Fetch the submitted pipeline and its staged files, and check their digests."""
        store = gcsfs.GCSFileSystem(endpoint_url=self.storage, token="anon")
        content = store.cat_file(job.options["pipelineUrl"])
        assert hashlib.sha256(content).hexdigest() == job.options["pipelineProtoHash"]
        pipeline = beam_runner_api_pb2.Pipeline.FromString(content)
        folder = self.folder / job.identity
        folder.mkdir()
        staged = []
        for environment in pipeline.components.environments.values():
            for dependency in environment.dependencies:
                artifact = beam_runner_api_pb2.ArtifactUrlPayload.FromString(
                    dependency.type_payload
                )
                path = folder / artifact.url.rpartition("/")[2]
                path.write_bytes(store.cat_file(artifact.url))
                assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256
                staged.append(path)
        return pipeline, staged

    def _prepare_worker(self, job: Job, staged: list[Path]) -> Path:
        """Make a worker's environment as Beam's image does at its start; return the interpreter."""
        python = make_bare_environment(self.folder / job.identity / "worker")
        for package in staged:
            if package.name == "workflow.tar.gz":
                install = [python, "-m", "pip", "install", "--no-index", "--no-build-isolation"]
                subprocess.run(
                    [*install, package], check=True, capture_output=True, cwd=package.parent
                )
        return python

    def _worker_command(self, python: Path) -> str:
        variables = {"STORAGE_EMULATOR_HOST": self.storage, "NO_GCE_CHECK": "true"}
        assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        module = "apache_beam.runners.worker.sdk_worker_main"
        folder = shlex.quote(str(python.parent))
        return f"cd {folder} && env -u PYTHONPATH {assignments} {python} -m {module}"


def _use_processes(pipeline: Any, command: str) -> None:
    """Change each environment, so that its workers are processes here and not containers."""
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = python_urns.SUBPROCESS_SDK, command.encode()
        del environment.dependencies[:]
        environment.resource_hints.clear()
    Pipeline.merge_compatible_environments(pipeline)


def _run(pipeline: Any, job: Job) -> None:
    result = fn_runner.FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([]))
    result.wait_until_finish()
    for counter in result.metrics().query()["counters"]:
        for tentative in (True, False):
            job.metrics.append(_metric(counter, tentative))


def _metric(counter: Any, tentative: bool) -> dict[str, Any]:
    name = counter.key.metric
    context = {"namespace": name.namespace, "step": counter.key.step}
    context |= {"tentative": "true"} if tentative else {}
    metric_name = {"origin": "user", "name": name.name, "context": context}
    return {"name": metric_name, "scalar": counter.committed}


@contextmanager
def dataflow_service(storage: str, folder: Path) -> Iterator[Service]:
    """Serve on a port of the loopback interface.

    Parameters
    ----------
    storage
        URL of a server of Cloud Storage's API.
    folder
        Folder for the jobs' files.
    """
    service = Service(storage, folder)
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    service.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def do_GET(self) -> None:
        if route := _JOBS.fullmatch(self.path.partition("?")[0]):
            self._job(route, self._describe)
        else:
            self._metadata()

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if route := _JOBS.fullmatch(self.path.partition("?")[0]):
            try:
                job = self.service.create(json.loads(content))
            except (json_format.ParseError, KeyError) as error:
                self._send(400, {"error": {"code": 400, "message": f"INVALID_ARGUMENT: {error}"}})
                return
            self._send(200, job.describe(route["project"], route["place"]))
        else:
            self._send(404, {})

    def do_PUT(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if route := _JOBS.fullmatch(self.path.partition("?")[0]):
            job = self.service.jobs[route["job"]]
            job.state = int(content["requestedState"])
            self._send(200, job.describe(route["project"], route["place"]))

    def _job(self, route: re.Match[str], describe: Callable[[Job, re.Match[str]], Any]) -> None:
        job = self.service.jobs.get(route["job"] or "")
        if job is None:
            self._send(404, {"error": {"code": 404, "message": "no such job"}})
        else:
            self._send(200, describe(job, route))

    @staticmethod
    def _describe(job: Job, route: re.Match[str]) -> Any:
        match route["part"]:
            case "messages":
                return {"jobMessages": job.messages}
            case "metrics":
                return {"metricTime": "2026-01-01T00:00:00Z", "metrics": job.metrics}
        return job.describe(route["project"], route["place"])

    def _metadata(self) -> None:
        path = self.path.partition("?")[0]
        if path.endswith("/token"):
            self._send(200, {"access_token": "x", "expires_in": 3600, "token_type": "Bearer"})
        elif "service-accounts" in path:
            self._send(200, _ACCOUNT)
        elif path.endswith("universe-domain"):
            self._send(200, "googleapis.com")
        else:
            self._send(200, "project")

    def _send(self, status: int, content: Any) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/json" if text != content else "text/plain")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Write no log."""

"""Beam's runner for one machine, with melmill's worker processes."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from melmill.pipelines.run import local_beam


class LocalRunner(FnApiRunner):
    """Runs pipelines in worker processes that import only what they need."""

    def run_via_runner_api(self, pipeline_proto: Any, options: Any) -> Any:
        """Run a pipeline, with melmill's worker program in place of Beam's."""
        # With -P, Python does not import modules from the user's current folder.
        program = f"{shlex.quote(sys.executable)} -P -m {local_beam.__name__}"
        command = f"exec {program} {os.getpid()}"  # without exec, the parent would be a shell
        for environment in pipeline_proto.components.environments.values():
            if environment.urn == python_urns.SUBPROCESS_SDK:
                environment.payload = command.encode()
        return super().run_via_runner_api(pipeline_proto, options)

"""Tests of which modules a run on this machine imports, and when."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import subprocess
import sys

import psutil
import pytest
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

from melmill.pipelines.run.local_beam import _UNUSED
from melmill.pipelines.run.quick_options import QuickOptions


def modules_after(code: str) -> set[str]:
    program = f"import sys; {code}; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(process.stdout.decode().split())


def test_no_command_imports_beam_before_its_options_are_read() -> None:
    commands = "from melmill.pipelines.cli import pipeline_commands, snapshot_commands"
    options = "from melmill.pipelines.run import options; import melmill.pipelines.run_records"
    assert "apache_beam" not in modules_after(f"{commands}; {options}")


def test_beam_is_imported_without_packages_that_go_unused() -> None:
    options = (
        "from melmill.pipelines.run.options import pipeline_options; pipeline_options('direct')"
    )
    modules = modules_after(
        f"{options}; import melmill.pipelines.extract, melmill.pipelines.run.local_runner"
    )
    assert "apache_beam.runners.portability.fn_api_runner.fn_runner" in modules
    assert not modules & {*_UNUSED}


def test_a_worker_imports_no_more() -> None:
    program = "from melmill.pipelines.run.local_beam import import_beam; import_beam()"
    program += "; import melmill.transforms.write_shards"
    assert not modules_after(program) & {*_UNUSED, "librosa", "matplotlib"}


def test_what_was_left_out_can_be_imported_afterwards() -> None:
    names = ("pandas", "azure.core")
    installed = [name for name in names if importlib.util.find_spec(name.partition(".")[0])]
    imports = "".join(f"; import {name}" for name in installed)
    program = f"import melmill.pipelines.run.local_beam as b; b.import_beam(){imports}"
    assert {*installed} <= modules_after(program)


def test_another_runner_gets_all_of_beam() -> None:
    call = "pipeline_options('flink', 0, ['--flink_master=[local]'])"
    modules = modules_after(f"from melmill.pipelines.run.options import pipeline_options; {call}")
    assert "apache_beam.io.gcp.bigquery" in modules


def test_views_of_options_are_made_once_and_share_their_values() -> None:
    options = QuickOptions(["--direct_num_workers=3"])
    view = options.view_as(DirectOptions)
    assert options.view_as(DirectOptions) is view
    options.view_as(StandardOptions).runner = "another"
    twin = copy.deepcopy(options)
    twin.view_as(DirectOptions).direct_num_workers = 5
    assert (view.direct_num_workers, twin.view_as(DirectOptions).direct_num_workers) == (3, 5)
    assert twin.view_as(StandardOptions).runner == "another"


def test_a_worker_ends_with_its_launcher_however_that_ends() -> None:
    """If a worker starts while its launcher ends, no other process ends the worker."""
    dead_services = dict.fromkeys(
        ("CONTROL_API_SERVICE_DESCRIPTOR", "LOGGING_API_SERVICE_DESCRIPTOR"), 'url: "localhost:9"'
    )
    program = "import subprocess, sys, os; "
    program += (
        "worker = subprocess.Popen([sys.executable, '-m', 'melmill.pipelines.run.local_beam', "
    )
    program += "str(os.getpid())], stdout=2); print(worker.pid, flush=True); os._exit(1)"
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **dead_services, "PIPELINE_OPTIONS": "{}"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(process.stdout)).wait(20)


@pytest.mark.parametrize(("harness", "status"), [("None", 0), ("1 / 0", 1)])
def test_a_worker_ends_without_pythons_own_exit(harness: str, status: int) -> None:
    """Python's exit aborted now and then, and an export's error was taken for a lost worker."""
    program = "import atexit, os, runpy, sys; atexit.register(os.abort)"
    program += "; from apache_beam.runners.worker import sdk_worker_main"
    program += f"; sdk_worker_main.main = lambda arguments: {harness}"
    program += "; sys.argv = ['worker', str(os.getppid())]"
    program += "; runpy.run_module('melmill.pipelines.run.local_beam', run_name='__main__')"
    process = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False)
    assert process.returncode == status
    assert (b"ZeroDivisionError" in process.stderr) == bool(status)

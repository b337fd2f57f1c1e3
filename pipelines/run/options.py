"""The choice of the runner, and the options for Beam."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from melmill.pipelines.config import find_recipe
from melmill.pipelines.run.dataflow import settle_dataflow
from melmill.pipelines.run.errors import UnknownOptionError
from melmill.pipelines.run.flink import settle_flink
from melmill.pipelines.run.local_beam import import_beam
from melmill.transforms.core.errors import ConfigError

#: The runners' names on the command line, and their names in Beam.
RUNNERS = {
    "direct": "melmill.pipelines.run.local_runner.LocalRunner",
    "flink": "FlinkRunner",
    "dataflow": "DataflowRunner",
    "prism": "PrismRunner",
}


def pipeline_options(
    runner: str | None,
    workers: int = 0,
    beam_options: Sequence[str] = (),
    recipe: str | None = None,
) -> Any:
    """Return the checked options for Beam.

    Parameters
    ----------
    runner
        A name in :data:`RUNNERS`; ``None`` for the runner in `recipe`, or else ``direct``.
    workers
        The number of worker processes of the direct runner; 0 for one process per core.
    beam_options
        More options, as on Beam's command line. They override the options in `recipe`.
    recipe
        A YAML file with options for Beam, and the ``runner`` that they are for.

    Raises
    ------
    ConfigError
        The runner is unknown, an option or its value is wrong, the cluster does not answer, or
        the cluster has another version.
    """
    if runner == "direct" or not (runner or recipe):
        import_beam()
    from melmill.pipelines.run.quick_options import QuickOptions

    recipe_runner, recipe_flags = read_recipe(recipe) if recipe else (None, [])
    runner = runner if runner is not None else recipe_runner or "direct"
    if runner not in RUNNERS:
        raise ConfigError(f"--runner {runner}: unknown; allowed: {', '.join(RUNNERS)}")
    _check_known(beam_options)
    flags = [*recipe_flags, *beam_options]
    defaults = _DEFAULTS[runner](workers) if runner in _DEFAULTS else []
    options = QuickOptions([f"--runner={RUNNERS[runner]}", *defaults, *flags])
    if settle := _SETTLE.get(runner):
        settle(options, flags)
    return options


def _direct(workers: int) -> list[str]:
    # RUNNERS names melmill's own runner: Beam's DirectRunner first tries to download Prism.
    return [
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
        "--default_sdk_harness_log_level=WARNING",
    ]


def _dataflow(workers: int) -> list[str]:
    # The service starts a Python process per core, with twelve threads. Each thread would write a
    # shard and have a decoder process. With two threads, one writes while the other's decoder
    # works.
    return ["--number_of_worker_harness_threads=2"]


_DEFAULTS: dict[str, Callable[[int], list[str]]] = {
    "direct": _direct,
    "dataflow": _dataflow,
}


def _settle_prism(options: Any, flags: Sequence[str]) -> None:
    """Set the location of the installed Prism; without it, Beam would download Prism."""
    from apache_beam.options.pipeline_options import PortableOptions, PrismRunnerOptions

    prism = options.view_as(PrismRunnerOptions)
    if prism.prism_location or options.view_as(PortableOptions).job_endpoint:
        return
    prism.prism_location = shutil.which("prism")
    if prism.prism_location is None:
        from apache_beam.version import __version__

        raise ConfigError(
            "--runner prism: there is no program prism on PATH; --prism_location can name "
            "another place. Install it with: "
            f"go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{__version__}"
        )


_SETTLE: dict[str, Callable[[Any, Sequence[str]], None]] = {
    "flink": settle_flink,
    "dataflow": settle_dataflow,
    "prism": _settle_prism,
}


def read_recipe(path: str) -> tuple[str | None, list[str]]:
    """Return the runner that a file of Beam options names, and the options as flags.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or is not a mapping of names to values.
    """
    try:
        settings = yaml.safe_load(Path(find_recipe(path, "runners")).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--runner-config {path}: cannot be read: {error}") from error
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"--runner-config {path}: not a mapping of Beam's options to values")
    runner = settings.pop("runner", None)
    if runner is not None and runner not in RUNNERS:
        allowed = ", ".join(RUNNERS)
        raise ConfigError(f"--runner-config {path}: runner: {runner!r}: allowed: {allowed}")
    flags = [flag for name, value in settings.items() for flag in _as_flags(name, value)]
    try:
        _check_known(flags)
    except ConfigError as error:
        raise ConfigError(f"--runner-config {path}: {error}") from None
    return runner, flags


def _as_flags(name: str, value: Any) -> Iterator[str]:
    """Yield a setting as flags of Beam's command line.

    >>> list(_as_flags("experiments", ["one", "two"]))
    ['--experiments=one', '--experiments=two']
    >>> list(_as_flags("environment_config", {"command": "beam-boot"}))
    ['--environment_config={"command": "beam-boot"}']
    >>> list(_as_flags("use_public_ips", False)), list(_as_flags("dry_run", True))
    (['--no_use_public_ips'], ['--dry_run=True'])
    """
    if isinstance(value, list):
        for item in value:
            yield from _as_flags(name, item)
    elif isinstance(value, bool):
        yield from _switch(name, value)
    elif value is not None:
        yield f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"


def _switch(name: str, value: bool) -> Iterator[str]:
    """Yield the flag for a boolean; Beam may have separate flags for true and for false."""
    actions = [a for a in _all_options()._actions if a.option_strings]
    matching = [a for a in actions if f"--{name}" in a.option_strings]
    if matching and matching[0].nargs != 0:
        yield f"--{name}={value}"
    elif value or not matching:
        yield f"--{name}"
    else:
        flag = matching[0]
        opposite = [a for a in actions if a.dest == flag.dest and a.const is not flag.const]
        yield from (a.option_strings[0] for a in opposite)


def _check_known(beam_options: Sequence[str]) -> None:
    parser = _all_options()
    _, unknown = parser.parse_known_args(list(beam_options))
    if not unknown:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    raise UnknownOptionError(unknown, known)


@cache
def _all_options() -> argparse.ArgumentParser:
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    class Parser(_BeamArgumentParser):
        def error(self, message: str) -> Any:
            raise ConfigError(message.removeprefix("argument "))

    parser: argparse.ArgumentParser = Parser(allow_abbrev=False, add_help=False)
    for options in PipelineOptions.__subclasses__():
        if hasattr(options, "_add_argparse_args"):
            options._add_argparse_args(parser)
    return parser

"""Which runner carries a pipeline, and the options that go to Beam as they are."""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from melmill.pipelines.config import find_recipe
from melmill.pipelines.run.dataflow import settle_dataflow
from melmill.pipelines.run.flink import settle_flink
from melmill.pipelines.run.local_beam import import_beam
from melmill.transforms.core.errors import ConfigError

#: Names people use, and Beam's.
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
    """Make Beam's options, and see that what they name is there.

    Parameters
    ----------
    runner
        One of :data:`RUNNERS`; ``None`` for the recipe's, or else ``direct``.
    workers
        Worker processes of the direct runner; 0 for one on each core.
    beam_options
        What Beam is told besides, as on its own command line. They overrule the recipe.
    recipe
        A YAML file of such options, and which ``runner`` they are for.

    Raises
    ------
    ConfigError
        Unknown runner, an option that neither we nor Beam know or that has no such value, no
        cluster where the options say, or one of another version.
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
    own = _OWN[runner](workers) if runner in _OWN else []
    options = QuickOptions([f"--runner={RUNNERS[runner]}", *own, *flags])
    if settle := _SETTLE.get(runner):
        settle(options, flags)
    return options


def _direct(workers: int) -> list[str]:
    # The runner is named outright: plain DirectRunner first tries to download another one.
    return [
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={workers}",
        "--default_sdk_harness_log_level=WARNING",
    ]


def _dataflow(workers: int) -> list[str]:
    # The service starts a Python process on each core, of twelve threads: each would make a
    # shard, and have a decoder process. With two one writes while the other's decoder works.
    return ["--number_of_worker_harness_threads=2"]


_OWN: dict[str, Callable[[int], list[str]]] = {
    "direct": _direct,
    "dataflow": _dataflow,
}


def _settle_prism(options: Any, flags: Sequence[str]) -> None:
    """Use the Prism that the user has; Beam would download one."""
    from apache_beam.options.pipeline_options import PortableOptions, PrismRunnerOptions

    prism = options.view_as(PrismRunnerOptions)
    if prism.prism_location or options.view_as(PortableOptions).job_endpoint:
        return
    prism.prism_location = shutil.which("prism")
    if prism.prism_location is None:
        from apache_beam.version import __version__

        raise ConfigError(
            "--runner prism: there is no program prism on PATH; --prism_location says where it "
            "is, and it comes from: "
            f"go install github.com/apache/beam/sdks/v2/go/cmd/prism@v{__version__}"
        )


_SETTLE: dict[str, Callable[[Any, Sequence[str]], None]] = {
    "flink": settle_flink,
    "dataflow": settle_dataflow,
    "prism": _settle_prism,
}


def read_recipe(path: str) -> tuple[str | None, list[str]]:
    """Read a recipe: the runner that it names, and Beam's options as on its command line.

    Raises
    ------
    ConfigError
        There is no such file, it is not YAML, or not a mapping of names to values.
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
    """Write a setting as on Beam's command line.

    >>> list(_as_flags("experiments", ["one", "two"]))
    ['--experiments=one', '--experiments=two']
    >>> list(_as_flags("environment_config", {"command": "beam-boot"}))
    ['--environment_config={"command": "beam-boot"}']
    >>> list(_as_flags("use_public_ips", False)), list(_as_flags("dry_run", True))
    (['--no_use_public_ips'], ['--dry_run=True'])
    """
    if isinstance(value, list):
        for one in value:
            yield from _as_flags(name, one)
    elif isinstance(value, bool):
        yield from _switch(name, value)
    elif value is not None:
        yield f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"


def _switch(name: str, value: bool) -> Iterator[str]:
    """Find the option that means yes, or no, where Beam has one for each."""
    actions = [a for a in _all_options()._actions if a.option_strings]
    named = [a for a in actions if f"--{name}" in a.option_strings]
    if named and named[0].nargs != 0:
        yield f"--{name}={value}"
    elif value or not named:
        yield f"--{name}"
    else:
        opposite = [a for a in actions if a.dest == named[0].dest and a.const is not named[0].const]
        yield from (a.option_strings[0] for a in opposite)


def _check_known(beam_options: Sequence[str]) -> None:
    parser = _all_options()
    _, unknown = parser.parse_known_args(list(beam_options))
    if not unknown:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError(f"{' '.join(unknown)}: neither melmill nor Beam knows this option{hint}")


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

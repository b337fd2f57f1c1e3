"""Which runner carries a pipeline, and the options that go to Beam as they are."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

from transforms.errors import ConfigError

#: Names people use, and Beam's.
RUNNERS = {
    "direct": "FnApiRunner",
    "flink": "FlinkRunner",
    "dataflow": "DataflowRunner",
    "prism": "PrismRunner",
}

LOCAL = frozenset({"direct"})


def pipeline_options(runner: str, workers: int, beam_options: Sequence[str]) -> Any:
    """Make Beam's options.

    Parameters
    ----------
    runner
        One of :data:`RUNNERS`.
    workers
        Worker processes of the direct runner; 0 for one on each core.
    beam_options
        What Beam is told besides, as on its own command line.

    Raises
    ------
    ConfigError
        Unknown runner, or an option that neither we nor Beam know.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    if runner not in RUNNERS:
        raise ConfigError(f"--runner {runner}: unknown; allowed: {', '.join(RUNNERS)}")
    _check_known(beam_options)
    flags = [f"--runner={RUNNERS[runner]}", *beam_options]
    if runner in LOCAL:
        # Named outright: plain DirectRunner first tries to download another runner.
        flags += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
        flags += ["--default_sdk_harness_log_level=WARNING"]
    return PipelineOptions(flags)


def _check_known(beam_options: Sequence[str]) -> None:
    parser = _all_options()
    _, unknown = parser.parse_known_args(list(beam_options))
    if not unknown:
        return
    known = [name for action in parser._actions for name in action.option_strings]
    close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError(f"{' '.join(unknown)}: neither melmill nor Beam knows this option{hint}")


def _all_options() -> argparse.ArgumentParser:
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    parser: argparse.ArgumentParser = _BeamArgumentParser(allow_abbrev=False, add_help=False)
    for options in PipelineOptions.__subclasses__():
        if hasattr(options, "_add_argparse_args"):
            options._add_argparse_args(parser)
    return parser

"""The launcher of a Dataflow Flex Template: parameters by name, as the service passes them.

The service starts it with ``--NAME=VALUE`` for every parameter of the template, and with what
Beam's runner needs. It writes the job's description and ends, so the job commits by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from melmill.__main__ import main as melmill

#: What the template can be asked for.
COMMANDS = ("extract", "refresh")

#: Parameters of the template that are not Beam's: name, whether required, and what it is.
PARAMETERS = {
    "command": (False, "extract (the default), or refresh: only what changed since the last run"),
    "catalogue": (True, "Directory, glob or table of recordings: gs://bucket/songs"),
    "output": (True, "The dataset's folder: gs://bucket/dataset"),
    "settings": (False, "Keys of the recipe: chunk.seconds=5;output.formats=[parquet,tfrecord]"),
}


def command_line(arguments: Sequence[str]) -> list[str]:
    """Make the command's arguments of a template's parameters.

    >>> command_line(["--catalogue=gs://b/songs", "--output=gs://b/set", "--region=europe-west1"])
    ['extract', 'gs://b/songs', 'gs://b/set', '--runner=dataflow', '--region=europe-west1']
    >>> command_line(["--catalogue=a", "--output=b", "--settings=mel.n_mels=64; split.seed=5"])[3:]
    ['--set=mel.n_mels=64', '--set=split.seed=5', '--runner=dataflow']
    >>> command_line(["--command=refresh", "--catalogue=a", "--output=b"])
    ['refresh', 'a', 'b', '--runner=dataflow']
    """
    parser = argparse.ArgumentParser(prog="melmill-template", allow_abbrev=False)
    for name, (required, text) in PARAMETERS.items():
        parser.add_argument(f"--{name}", required=required, default="", help=text)
    known, others = parser.parse_known_args(arguments)
    settings = [f"--set={one.strip()}" for one in known.settings.split(";") if one.strip()]
    beams = [other for other in others if not other.startswith("--runner=")]
    command = known.command or "extract"
    if command not in COMMANDS:
        parser.error(f"--command={command}: must be {' or '.join(COMMANDS)}")
    return [command, known.catalogue, known.output, *settings, "--runner=dataflow", *beams]


def main() -> None:
    """Launch; Beam sees to the rest."""
    sys.argv[1:] = command_line(sys.argv[1:])
    melmill()

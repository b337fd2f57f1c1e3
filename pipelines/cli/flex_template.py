"""The launcher of a Dataflow Flex Template: it turns template parameters into a command.

The service starts the launcher with ``--NAME=VALUE`` for every parameter of the template, and
with the options of Beam's runner. The launcher writes the job's description and exits, so the
job itself commits the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from melmill.__main__ import main as melmill

#: The commands that the template can run.
COMMANDS = ("extract", "refresh")

#: Parameters of the template, without those of Beam: name, whether required, and description.
PARAMETERS = {
    "command": (False, "extract (the default), or refresh: only what changed since the last run"),
    "catalogue": (True, "Directory, glob or table of recordings: gs://bucket/songs"),
    "output": (True, "The dataset's folder: gs://bucket/dataset"),
    "settings": (False, "Keys of the recipe: chunk.seconds=5;output.formats=[parquet,tfrecord]"),
}


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the command for the parameters of a template.

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
    parts = [part.strip() for part in known.settings.split(";")]
    settings = [f"--set={part}" for part in parts if part]
    beam_flags = [flag for flag in others if not flag.startswith("--runner=")]
    command = known.command or "extract"
    if command not in COMMANDS:
        parser.error(f"--command={command}: must be {' or '.join(COMMANDS)}")
    return [command, known.catalogue, known.output, *settings, "--runner=dataflow", *beam_flags]


def main() -> None:
    """Run the command that the template's parameters describe."""
    sys.argv[1:] = command_line(sys.argv[1:])
    melmill()

"""The Dockerfiles of deploy/, read without Docker."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "deploy/launcher.Dockerfile"
WORKER = ROOT / "deploy/worker.Dockerfile"
TEMPLATE = ROOT / "deploy/dataflow/Dockerfile"


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of a file, in their order: pairs of a word and its arguments."""

    instructions: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Dockerfile:
        """Read a file without parser directives and here-documents."""
        text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        lines = text.replace("\\\n", " ").splitlines()
        words = (line.strip().partition(" ") for line in lines if line.strip())
        return cls(tuple((word, arguments.strip()) for word, _, arguments in words))

    def all(self, word: str) -> list[str]:
        """Return the arguments of each instruction with this word."""
        return [arguments for name, arguments in self.instructions if name == word]

    def last(self, word: str) -> str:
        """Return the arguments of the instruction that is in force at the end."""
        return self.all(word)[-1]

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """Sources and target of each COPY from the build context."""
        pairs = [shlex.split(text) for text in self.all("COPY") if not text.startswith("--from=")]
        return [(words[:-1], words[-1]) for words in pairs]

    @property
    def entrypoint(self) -> list[str]:
        """Program and arguments of ENTRYPOINT."""
        words: list[str] = json.loads(self.last("ENTRYPOINT"))
        return words

    @property
    def environment(self) -> dict[str, str]:
        """Variables that ARG and ENV set."""
        words = shlex.split(" ".join(self.all("ARG") + self.all("ENV")))
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    @property
    def requirements(self) -> list[str]:
        """Requirements that the file installs with pip, with its variables filled in."""
        (command,) = (text for text in self.all("RUN") if text.startswith("pip install "))
        for name, value in self.environment.items():
            command = command.replace(f"${{{name}}}", value)
        return [word for word in shlex.split(command)[2:] if not word.startswith("-")]

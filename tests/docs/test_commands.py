"""Check that the commands, options and recipe keys shown in the pages exist."""

from __future__ import annotations

import argparse
import itertools
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import melmill.pipelines.cli.check_commands
import melmill.pipelines.cli.column_commands
import melmill.pipelines.cli.duplicate_commands
import melmill.pipelines.cli.explore_commands
import melmill.pipelines.cli.pattern_commands
import melmill.pipelines.cli.pipeline_commands
import melmill.pipelines.cli.report_commands
import melmill.pipelines.cli.show_commands
import melmill.pipelines.cli.snapshot_commands  # noqa: F401 - adds its commands
from melmill.pipelines.api import read_recipe
from melmill.pipelines.cli.app import app
from melmill.pipelines.config import find_recipe
from melmill.transforms.core.errors import ConfigError
from tests.docs.pages import PAGES, ROOT, blocks, name_of

#: typer contains its own copy of click, whose types have no public name.
MELMILL: Any = typer.main.get_command(app)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each melmill command in the console blocks, without the program's name."""
    for block in blocks(text, "console"):
        for line in block.code.replace("\\\n", " ").splitlines():
            for words in split_commands(line.removeprefix("$ ")):
                program = next((i for i, w in enumerate(words) if Path(w).name == "melmill"), None)
                if program is not None and words[program + 1 :]:
                    yield words[program + 1 :]


def split_commands(line: str) -> Iterator[list[str]]:
    """Split a line at ``&&``. A line that begins with ``melmill:`` is output, not a command."""
    if not line.startswith("melmill:"):
        words = iter(shlex.split(line, comments=True))
        while words_of_command := list(itertools.takewhile(lambda word: word != "&&", words)):
            yield words_of_command


@cache
def options_of_beam() -> frozenset[str]:
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(allow_abbrev=False, conflict_handler="resolve")
    for group in PipelineOptions.__subclasses__():
        if hasattr(group, "_add_argparse_args"):
            group._add_argparse_args(parser)
    return frozenset(option for action in parser._actions for option in action.option_strings)


def faults(words: list[str]) -> list[str]:
    """Return which names in a command do not exist."""
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or name == "COMMAND":
        command = MELMILL
    elif name in MELMILL.commands:
        command = MELMILL.commands[name]
    else:
        return [f"no command {name}"]
    known = {"--help", *(option for p in command.params for option in p.opts)}
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    unknown = [option for option in options if option not in known]
    if command.context_settings.get("ignore_unknown_options"):
        unknown = [option for option in unknown if option not in options_of_beam()]
    return [f"{name}: no option {option}" for option in unknown]


def values_of(words: list[str], option: str) -> list[str]:
    return [value for word, value in itertools.pairwise(words) if word == option]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [fault for words in commands(text) for fault in faults(words)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_recipes_and_settings_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        for name in values_of(words, "--recipe"):
            assert Path(find_recipe(name)).is_file()
        for name in values_of(words, "--runner-config"):
            assert yaml.safe_load(Path(find_recipe(name, "runners")).read_text())["runner"]
        if "chunk.second=3" not in words:
            read_recipe(None, values_of(words, "--set"))


def test_the_faults_of_a_recipe_read_as_the_page_shows_them() -> None:
    text = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    (block,) = [b for b in blocks(text, "console") if b.code.startswith("$ ")]
    command, _, shown = block.code.partition("\n")
    with pytest.raises(ConfigError) as raised:
        read_recipe(None, values_of(shlex.split(command), "--set"))
    assert f"melmill: {raised.value}\n" == shown


def test_pages_show_commands() -> None:
    shown = {words[0] for page in PAGES for words in commands(page.read_text("utf-8"))}
    assert MELMILL.commands.keys() <= shown


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("melmill extrac a b", "no command extrac"),
        ("melmill inspect a --recipe x", "inspect: no option --recipe"),
        ("PATH=x .venv/bin/melmill extract a b --no_such_option=1", "extract: no option --no_such"),
        ("melmill extract a b --project P  # a comment --none", None),
        ("melmill --version", None),
        ("melmill --versions", "None: no option --versions"),
    ],
)
def test_what_does_not_exist_is_found(command: str, fault: str | None) -> None:
    (words,) = commands(f"```console\n{command}\n```\n")
    messages = faults(words)
    assert len(messages) == (fault is not None)
    assert fault is None or messages[0].startswith(fault)

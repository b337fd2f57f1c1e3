"""The code that we show runs as it stands, and its interpreter exits cleanly.

A scan through a filesystem that is written in Python, as delta-rs's own, leaves Arrow's IO
threads with Python objects. A thread that lets go of one while the interpreter ends is unwound
by Python through C++ that forbids it: "terminate called without an active exception", exit 134.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runners.flink import ROOT

#: Evaluates each expression of the code that it is given, and reads all that it gives.
READ_ALL = """
import ast, sys
names = {}
for statement in ast.parse(sys.argv[1]).body:
    if isinstance(statement, ast.Expr):
        value = eval(compile(ast.Expression(statement.value), "shown", "eval"), names)
        value = value.to_table() if hasattr(value, "to_table") else value
        print(type(value).__name__, len(value))
    else:
        exec(compile(ast.Module([statement], []), "shown", "exec"), names)
if "data" in names:
    print("records", sum(1 for _ in names["data"]))
"""

WRAPPER = """
import melmill
melmill.open("dataset").as_arrow()
melmill.open("dataset").as_arrow("train")
"""

POLARS = 'import polars\npolars.read_delta("dataset")'


def shown(text: str, word: str) -> str:
    """The block of Python that holds a word."""
    (block,) = (one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in one)
    return block


def exit_statuses(code: str, dataset: Path, times: int) -> list[tuple[int, str]]:
    """How an interpreter ended each time, with its last words."""
    command = [sys.executable, "-c", READ_ALL, code]
    ends = []
    for _ in range(times):
        done = subprocess.run(
            command, cwd=dataset.parent, capture_output=True, text=True, check=False
        )
        ends.append((done.returncode, done.stderr[-1000:] if done.returncode else ""))
    return ends


def from_card(dataset: Path) -> str:
    card = (dataset / "README.md").read_text(encoding="utf-8")
    return shown(card, "DeltaTable").replace("DATASET", "dataset")


def of_deltalake(code: str) -> str:
    """The part that the aborts were seen in."""
    return code[code.index("from deltalake") :].split("\n\nimport")[0]


def test_what_the_docs_show_reads_the_dataset(dataset: Path) -> None:
    page = (ROOT / "docs" / "dataset.md").read_text(encoding="utf-8")
    (section,) = re.findall(
        r"^## Read it without melmill$(.*?)^## ", page, re.DOTALL | re.MULTILINE
    )
    code = "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    assert all(word in code for word in ("read_delta(", "load_dataset(", "DeltaTable(", "tf.data."))
    assert exit_statuses(code, dataset, 1) == [(0, "")]


def test_what_the_card_shows_reads_the_dataset(dataset: Path) -> None:
    assert exit_statuses(from_card(dataset), dataset, 1) == [(0, "")]


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("who", ["deltalake", "melmill", "polars"])
def test_interpreters_that_scanned_exit_cleanly(dataset: Path, who: str, times: int) -> None:
    shown_by = {"deltalake": of_deltalake(from_card(dataset)), "melmill": WRAPPER, "polars": POLARS}
    assert exit_statuses(shown_by[who], dataset, times) == [(0, "")] * times

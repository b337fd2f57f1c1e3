"""The code in the docs and in the card runs unchanged, and its interpreter exits cleanly.

A scan through a filesystem that is written in Python, such as delta-rs's own, leaves Python
objects in Arrow's IO threads. If such a thread releases an object while the interpreter ends,
Python unwinds the thread through C++ code that forbids it: "terminate called without an active
exception", exit status 134.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runners.flink import ROOT

#: A program that evaluates each expression of some code, and reads all data of its value.
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


def find_code(page: str, word: str) -> str:
    """Return the block of Python code that contains the word."""
    (block,) = (
        code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if word in code
    )
    return block


def exit_statuses(code: str, dataset: Path, times: int) -> list[tuple[int, str]]:
    """Run the code several times; return each exit status and the end of the error output."""
    command = [sys.executable, "-c", READ_ALL, code]
    statuses = []
    for _ in range(times):
        result = subprocess.run(
            command, cwd=dataset.parent, capture_output=True, text=True, check=False
        )
        statuses.append((result.returncode, result.stderr[-1000:] if result.returncode else ""))
    return statuses


def card_code(dataset: Path) -> str:
    card = (dataset / "README.md").read_text(encoding="utf-8")
    return find_code(card, "DeltaTable").replace("DATASET", "dataset")


def deltalake_part(code: str) -> str:
    """Return the part of the code in which the aborts happened."""
    return code[code.index("from deltalake") :].split("\n\nimport")[0]


def test_the_code_in_the_docs_reads_the_dataset(dataset: Path) -> None:
    page = (ROOT / "docs" / "dataset.md").read_text(encoding="utf-8")
    (section,) = re.findall(
        r"^## Read it without melmill$(.*?)^## ", page, re.DOTALL | re.MULTILINE
    )
    code = "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    assert all(word in code for word in ("read_delta(", "load_dataset(", "DeltaTable(", "tf.data."))
    assert exit_statuses(code, dataset, 1) == [(0, "")]


def test_the_code_in_the_card_reads_the_dataset(dataset: Path) -> None:
    assert exit_statuses(card_code(dataset), dataset, 1) == [(0, "")]


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", ["deltalake", "melmill", "polars"])
def test_interpreters_that_scanned_exit_cleanly(dataset: Path, reader: str, times: int) -> None:
    codes = {"deltalake": deltalake_part(card_code(dataset)), "melmill": WRAPPER, "polars": POLARS}
    assert exit_statuses(codes[reader], dataset, times) == [(0, "")] * times

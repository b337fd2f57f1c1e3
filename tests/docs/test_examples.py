"""Run the Python code of each page, unchanged, in a new interpreter for each page.

If a block cannot run here, the line before it is the comment ``<!-- not run: REASON -->``.
With the reason ``needs MODULE``, the block runs if that module is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import melmill
from tests.docs.pages import PAGES, ROOT, Block, blocks, name_of
from tests.signals import song, write_audio

#: Runs the blocks in order, in one namespace. A traceback names the page and the line in it.
RUN_BLOCKS = """
import json, sys
page, blocks = json.load(sys.stdin)
names = {"__name__": "page"}
for line, code in blocks:
    exec(compile("\\n" * (line - 1) + code, page, "exec"), names)
"""
_REASON = re.compile(r" not run: (\S.*) ")
_MODULE = re.compile(r"needs (\w+)")

WITH_PYTHON = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"), "python")]


def reason_not_to_run(block: Block) -> str | None:
    """Return why a block is not run, or None; raise ValueError if a marker has no reason."""
    if block.comment is None or "not run" not in block.comment:
        return None
    if not (marker := _REASON.fullmatch(block.comment)):
        raise ValueError(f"line {block.line}: a marker without a reason:{block.comment}")
    module = _MODULE.fullmatch(marker[1])
    return None if module and importlib.util.find_spec(module[1]) else marker[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the catalogue ``songs/``, which has one broken file, and its dataset."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "songs").mkdir()
    for seed in range(22):
        write_audio(folder / "songs" / f"{seed}.wav", song(3.5, 22_050, seed), 22_050)
    write_audio(folder / "songs" / "song.mp3", song(7, 44_100, 22), 44_100)
    (folder / "songs" / "broken.wav").write_bytes(b"RIFF, and nothing more")
    settings = {"output.formats": ["parquet", "tfrecord"]}
    dataset = melmill.extract(folder / "songs", folder / "dataset", settings=settings, workers=1)
    assert {"train", "validation", "test"} == dataset.rows.keys()
    assert dataset.failures().num_rows == 1
    return folder


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_of_a_page_runs(page: Path, folder: Path) -> None:
    all_blocks = blocks(page.read_text(encoding="utf-8"), "python")
    runnable = [(b.line, b.code) for b in all_blocks if reason_not_to_run(b) is None]
    if not runnable:
        pytest.skip("no block of this page can run here")
    completed = run_blocks(name_of(page), runnable, folder)
    assert completed.returncode == 0, completed.stderr[-3000:]


def run_blocks(
    page: str, numbered_blocks: list[tuple[int, str]], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN_BLOCKS],
        input=json.dumps([page, numbered_blocks]),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(folder / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_marker_stands_before_a_block_and_has_a_reason(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    marked_blocks = [b for b in blocks(text, "python") if b.comment and "not run" in b.comment]
    assert len(marked_blocks) == text.count("<!-- not run")
    for block in marked_blocks:
        reason_not_to_run(block)


def test_a_marker_without_a_reason_is_refused() -> None:
    (block,) = blocks("<!-- not run: -->\n```python\n1 / 0\n```\n", "python")
    with pytest.raises(ValueError, match="without a reason"):
        reason_not_to_run(block)


def test_a_block_that_needs_an_installed_module_runs() -> None:
    text = "<!-- not run: needs {} -->\n```python\n1 / 0\n```\n"
    (installed,) = blocks(text.format("json"), "python")
    (missing,) = blocks(text.format("no_such_module"), "python")
    assert reason_not_to_run(installed) is None
    assert reason_not_to_run(missing) == "needs no_such_module"


def test_a_block_that_fails_is_named_by_page_and_line(tmp_path: Path) -> None:
    (first, second) = blocks("```python\nx = 1\n```\n\n```python\nx / 0\n```\n", "python")
    numbered_blocks = [(block.line, block.code) for block in (first, second)]
    completed = run_blocks("some/page.md", numbered_blocks, tmp_path)
    assert completed.returncode == 1
    assert 'File "some/page.md", line 6' in completed.stderr
    assert "ZeroDivisionError" in completed.stderr

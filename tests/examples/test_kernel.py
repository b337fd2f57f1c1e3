"""Tests of ``extract()`` in a Jupyter kernel, in its main thread and in another thread."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.refresh.catalogues import SMALL, statuses_of, write_songs

CELL = """
import threading
from melmill.pipelines.config import load_config
from melmill.pipelines.extract import extract, make_job, resolve_catalogue
from melmill.pipelines.run.options import pipeline_options
from melmill.transforms.store.folders import Store

def run(output):
    recipe = load_config(None, {settings!r})
    job = make_job(recipe, resolve_catalogue({songs!r}, recipe), Store(output))
    done.append(extract(job, recipe.as_dict(), pipeline_options("direct", 1, [])).committed)

done = []
{how}
print("committed", done)
"""
HOW = {
    "main": "run({output!r})",
    "aside": "thread = threading.Thread(target=run, args=({output!r},))\n"
    "thread.start()\nthread.join()",
}


@pytest.mark.slow
def test_extract_runs_in_a_kernel_and_in_a_thread_of_it(tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", 2)
    notebook = nbformat.v4.new_notebook()
    for name, how in HOW.items():
        call = how.format(output=str(tmp_path / name))
        cell = CELL.format(settings=list(SMALL), songs=str(songs), how=call)
        notebook.cells.append(nbformat.v4.new_code_cell(cell))
    NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(Path.cwd())}}
    ).execute()
    for name, cell in zip(HOW, notebook.cells, strict=True):
        output = "".join(item.get("text", "") for item in cell.outputs)
        assert "committed [True]" in output
        assert "Traceback" not in output
        assert len(statuses_of(tmp_path / name)) == 2

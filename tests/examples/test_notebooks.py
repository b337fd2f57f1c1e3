"""Run the notebooks from the first cell to the last, and check what they show and reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[2] / "examples"


def execute(name: str, folder: Path, *variables: str) -> tuple[Any, dict[str, Any]]:
    """Run a notebook in an empty folder; return the notebook and the last values of `variables`."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    values = ", ".join(f"{variable!r}: {variable}" for variable in variables)
    value_cell = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{values}}}))")
    notebook.cells.append(value_cell)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    output = notebook.cells.pop().outputs[0]["text"]
    return notebook, json.loads(output)


def kinds(notebook: Any, word: str) -> list[set[str]]:
    """Return the output types of each code cell that contains `word`."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {})}
        for cell in notebook.cells
        if cell.cell_type == "code" and word in cell.source
    ]


def assert_heard_and_seen(notebook: Any) -> None:
    assert len(kinds(notebook, ".play()")) == 2
    assert all("text/html" in shown for shown in kinds(notebook, ".play()"))
    pictures = [*kinds(notebook, "song.plot()"), *kinds(notebook, "plt.figure")]
    assert len(pictures) >= 2
    assert all("image/png" in shown for shown in pictures)


@pytest.mark.slow
def test_a_keras_model_hears_the_instruments_of_songs_it_never_heard(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    names = ("accuracy", "streamed_accuracy")
    notebook, values = execute("songs_to_keras.ipynb", tmp_path, *names)
    assert values["accuracy"] >= 0.9
    assert values["streamed_accuracy"] >= 0.9
    assert_heard_and_seen(notebook)


def test_a_pytorch_model_does_too(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    notebook, values = execute("songs_to_pytorch.ipynb", tmp_path, "accuracy")
    assert values["accuracy"] >= 0.9
    assert_heard_and_seen(notebook)


@pytest.mark.slow
def test_whisper_features_are_whispers_own(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    _, values = execute("whisper_features.ipynb", tmp_path, "differences", "data.shape")
    assert values["data.shape"] == [80, 3000]
    assert len(values["differences"]) > 10
    # Whisper's own extractor computes the transform in double precision, ours in single precision.
    # A value of 1 is 40 dB. The quietest bins, 80 dB below the loudest bin, differ by a few
    # thousandths of a dB.
    assert max(values["differences"]) < 5e-4


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_stored_notebooks_are_small_and_without_sounds(path: Path) -> None:
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any("text/html" in shown for shown in kinds(notebook, ".play()"))

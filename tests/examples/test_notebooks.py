"""The notebooks run from their first cell to their last, and show and reach what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[2] / "examples"


def execute(name: str, folder: Path, *variables: str) -> tuple[Any, dict[str, Any]]:
    """Run a notebook in an empty folder; give it, and some of its variables at the end."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    values = ", ".join(f"{variable!r}: {variable}" for variable in variables)
    ask = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({{{values}}}))")
    notebook.cells.append(ask)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    said = notebook.cells.pop().outputs[0]["text"]
    return notebook, json.loads(said)


def kinds(notebook: Any, word: str) -> list[set[str]]:
    """What each cell with a word in its code showed."""
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


def test_a_keras_model_hears_the_instruments_of_songs_it_never_heard(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    wanted = ("accuracy", "streamed_accuracy")
    notebook, found = execute("songs_to_keras.ipynb", tmp_path, *wanted)
    assert found["accuracy"] >= 0.9
    assert found["streamed_accuracy"] >= 0.9
    assert_heard_and_seen(notebook)


def test_a_pytorch_model_does_too(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    notebook, found = execute("songs_to_pytorch.ipynb", tmp_path, "accuracy")
    assert found["accuracy"] >= 0.9
    assert_heard_and_seen(notebook)


def test_whisper_features_are_whispers_own(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    _, found = execute("whisper_features.ipynb", tmp_path, "differences", "data.shape")
    assert found["data.shape"] == [80, 3001]
    assert len(found["differences"]) > 10
    # Whisper's own extractor transforms in double precision, ours in single, and 1 is 40 dB:
    # the quietest bins, 80 dB below the loudest, are off by some thousandths of a dB.
    assert max(found["differences"]) < 5e-4


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_stored_notebooks_are_small_and_without_sounds(path: Path) -> None:
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any("text/html" in shown for shown in kinds(notebook, ".play()"))

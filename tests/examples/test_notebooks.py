"""Run the notebooks from the first cell to the last, and check what they show and reach."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MODELS = [path for path in NOTEBOOKS if path.name.startswith("songs_to_")]

#: One picture for each class, and what its axes show.
PANELS = (
    "[axis.get_title() for axis in panels.flat]",
    "sorted({axis.get_xlabel() + ', ' + axis.get_ylabel() for axis in panels.flat})",
)
INSTRUMENTS = ["bass", "bell", "drums", "flute", "organ", "pluck"]
#: The largest change of a prediction if padding has other values.
KERAS_CHANGE = """(lambda features: float(abs(
    model.predict(features, verbose=0) - model.predict({**features, "mel": np.where(
        np.arange(130) < features["valid_frames"][:, None, None], features["mel"], 99)}, verbose=0)
).max()))(read(data, "test")[0])"""
TORCH_CHANGE = """(lambda batch: float((
    model(batch) - model({**batch, "mel": torch.where(
        torch.arange(130) < batch["valid_frames"][:, None, None], batch["mel"], 99)})
).abs().max()))(next(iter(loader(data, "test"))))"""


def execute(name: str, folder: Path, *expressions: str) -> tuple[Any, list[Any]]:
    """Run a notebook in an empty folder; return the notebook and the values of `expressions`."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    values = ", ".join(expressions)
    value_cell = nbformat.v4.new_code_cell(f"import json\nprint(json.dumps([{values}]))")
    notebook.cells.append(value_cell)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=resources).execute()
    outputs = notebook.cells.pop().outputs
    text = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    return notebook, json.loads(text)


def code_cells(notebook: Any, word: str = "") -> list[Any]:
    """Return the code cells that contain `word`."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and word in cell.source]


def shown_by(cell: Any) -> list[str]:
    """Return what a cell shows, in order: ``sound``, ``picture`` or printed text."""
    names = {"text/html": "sound", "image/png": "picture"}
    shown = []
    for output in cell.outputs:
        kinds = [name for kind, name in names.items() if kind in output.get("data", {})]
        shown += kinds or [output.get("text", "")]
    return shown


def printed_by(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def assert_heard_and_seen(notebook: Any) -> None:
    (player,) = code_cells(notebook, "\nsong.play()")
    (plot,) = [cell for cell in code_cells(notebook) if cell.source == "song.plot()"]
    assert (shown_by(player), shown_by(plot)) == (["sound"], ["picture"])
    (chunks,) = code_cells(notebook, "chunk.play()")
    assert shown_by(chunks) == ["sound", "picture"] * 2
    assert all("picture" in shown_by(cell) for cell in code_cells(notebook, "plt.subplots"))
    # Beam's workers log warnings that say nothing to users.
    assert not any("apache_beam" in printed_by(cell) for cell in code_cells(notebook))


def assert_hears_the_folder(notebook: Any) -> None:
    """Check the cell for the user's own folder, which has the three songs of an album here."""
    (cell,) = code_cells(notebook, "the path of your folder")
    lines = printed_by(cell).splitlines()[-3:]
    assert [line.split("-")[0] for line in lines] == ["001", "002", "003"]
    assert all(line.endswith("% sure)") for line in lines)
    assert shown_by(cell)[-1] == "picture"


@pytest.mark.slow
def test_a_keras_model_hears_the_instruments_of_songs_it_never_heard(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    names = ("accuracy", "streamed_accuracy", *PANELS, KERAS_CHANGE)
    notebook, values = execute("songs_to_keras.ipynb", tmp_path, *names)
    accuracy, streamed_accuracy, titles, labels, change = values
    assert accuracy >= 0.9
    assert streamed_accuracy >= 0.9
    assert titles == INSTRUMENTS
    assert labels == ["Time (s), Frequency (Hz)"]
    assert change < 1e-6  # the network does not see padding
    assert_heard_and_seen(notebook)
    assert_hears_the_folder(notebook)


def test_a_pytorch_model_does_too(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    names = ("accuracy", *PANELS, TORCH_CHANGE)
    notebook, values = execute("songs_to_pytorch.ipynb", tmp_path, *names)
    accuracy, titles, labels, change = values
    assert accuracy >= 0.9
    assert titles == INSTRUMENTS
    assert labels == ["Time (s), Frequency (Hz)"]
    assert change < 1e-6
    assert_heard_and_seen(notebook)
    assert_hears_the_folder(notebook)


@pytest.mark.slow
def test_whisper_features_are_whispers_own(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    masks = "sorted({int(example['attention_mask'].sum()) for example in examples})"
    names = ("differences", "data.shape", masks, "own.rows")
    notebook, values = execute("whisper_features.ipynb", tmp_path, *names)
    differences, shape, masks, own_rows = values
    assert shape == [80, 3000]
    assert masks[-1] == 3000
    # 40 s are a chunk of 30 s and one of 10 s; some formats add a little silence.
    assert len(masks) > 1
    assert all(1000 <= frames < 1010 for frames in masks[:-1])
    assert sum(own_rows.values()) == 6
    assert len(differences) > 10
    # Whisper's own extractor computes the transform in double precision, ours in single precision.
    # A value of 1 is 40 dB. The quietest bins, 80 dB below the loudest bin, differ by a few
    # thousandths of a dB.
    assert max(differences) < 5e-4
    assert [shown_by(cell)[-1] for cell in code_cells(notebook, ".plot()")] == ["picture"] * 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_notebooks_are_small_and_without_sounds(path: Path) -> None:
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any("sound" in shown_by(cell) for cell in code_cells(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_stored_pictures_are_sharp_and_legible_in_light_and_dark_themes(path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    cells = code_cells(nbformat.read(path, as_version=4))
    outputs = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert outputs
    for output in outputs:
        picture = image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"])))
        size = output["metadata"]["image/png"]
        assert picture.width == pytest.approx(2 * size["width"], abs=2)
        # Black numbers need a background of their own: a dark theme must not shine through.
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_import_melmill_and_start_no_shell(path: Path) -> None:
    sources = [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
    lines = [line.strip() for source in sources for line in source.splitlines()]
    assert "import melmill" in lines
    assert any("melmill.extract(" in line for line in lines)
    shells = ("!", "%%bash", "%%sh", "%%!", "%sx", "%system", "%pip")
    assert not [line for line in lines if line.startswith(shells) or " = !" in line]
    calls = ("subprocess", "os.system", "os.popen", "get_ipython")
    assert not [line for line in lines if any(call in line for call in calls)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_that_load_rows_load_the_mask(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    loads = ("as_torch(", "as_tf(", 'rows["mel"]', 'row["mel"]', '"mel",')
    loading = [c.source for c in code_cells(notebook) if any(load in c.source for load in loads)]
    assert loading
    assert all("valid_frames" in source for source in loading)


class Song:
    """Takes the place of a recording: its sound and its picture are texts."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def play(self) -> str:
        return f"sound of {self.uri}"

    def plot(self) -> str:
        return f"picture of {self.uri}"


def run_cell_of_errors(path: Path, heard: dict[str, list[float]]) -> list[str]:
    """Run the cell after "What it got wrong"; return what it shows. All songs are bells."""
    notebook = nbformat.read(path, as_version=4)
    titles = [cell.source.splitlines()[0] for cell in notebook.cells]
    cell = notebook.cells[titles.index("## What it got wrong") + 1]
    shown: list[str] = []
    names = {
        "Path": Path,
        "classes": ["bass", "bell"],
        "by_song": {uri: np.array(probabilities) for uri, probabilities in heard.items()},
        "truth": dict.fromkeys(heard, 1),
        "recipe": None,
        "melmill": type("Fake", (), {"load": staticmethod(lambda uri, recipe: Song(uri))}),
        "display": lambda *things: shown.extend(things),
        "print": shown.append,
    }
    exec(cell.source, names)
    return shown


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_the_cell_of_errors_shows_only_errors(path: Path) -> None:
    heard = {"a/1.ogg": [0.1, 0.9], "a/2.ogg": [0.75, 0.25], "a/3.ogg": [0.45, 0.55]}
    assert run_cell_of_errors(path, heard) == [
        "2.ogg: bell, heard as bass (75% sure)",
        "sound of a/2.ogg",
        "picture of a/2.ogg",
    ]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_the_cell_of_errors_says_so_if_there_are_none(path: Path) -> None:
    (text,) = run_cell_of_errors(path, {"a/1.ogg": [0.1, 0.9], "a/2.ogg": [0.4, 0.6]})
    assert text.startswith("Nothing: the ")
    assert text.endswith("network named the right instrument for all 2 songs.")

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone
_PATH = Path(__file__).parents[2] / "benchmarks" / "measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("measure", _PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["measure"]


_BURN = "import time\nwhile time.process_time() < 0.5: pass"


def test_cpu_of_a_child_that_outlives_its_parent_is_counted(measure, tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {_BURN!r}])"
    )

    cost = measure.run([sys.executable, str(script)])

    assert cost.cpu_s > 0.5


def test_peak_memory_is_that_of_each_process(measure, tmp_path):
    script = tmp_path / "large.py"
    script.write_text("import time\nblock = b'x' * (100 * 2**20)\ndel block\ntime.sleep(0.5)")

    cost = measure.run([sys.executable, str(script)], watch_s=0.05)

    # Idle processes of other tests may also be children of this process.
    assert [process.role for process in cost.processes].count("launcher") == 1
    assert 100 < cost.peaks()["launcher"] < 200


def test_a_failing_command_is_an_error_with_its_last_words(measure):
    with pytest.raises(RuntimeError, match="no such luck"):
        measure.run([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_every_other_round_runs_backwards(measure):
    order = []
    contestants = {name: lambda name=name: order.append(name) or name for name in "ab"}

    results = measure.interleave(2, contestants)

    assert order == ["a", "b", "b", "a"]
    assert results == {"a": ["a", "a"], "b": ["b", "b"]}


def test_a_catalogue_is_read_as_it_was_written(measure, tmp_path):
    files = [tmp_path / "b, c.wav", tmp_path / "a.flac"]

    table = measure.write_catalogue(tmp_path / "songs.csv", files)

    assert measure.audio_files(table) == files

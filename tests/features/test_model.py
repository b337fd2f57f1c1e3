"""Models of the user's own: what they compute, and what is refused before anything is decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melmill.transforms.core.errors import Cause, ConfigError, RecordingError
from melmill.transforms.features.model import ModelExtractor
from melmill.transforms.features.model_files import digest_of, read_model
from melmill.transforms.features.model_spec import ModelSpec
from tests.onnx_models import write_encoder, write_model

onnx = pytest.importorskip("onnx")
RATE, SAMPLES = 4000, 1000


def chunks(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (rows, SAMPLES)).astype(np.float32)


def extractor(spec: ModelSpec) -> ModelExtractor:
    return ModelExtractor("embedding", spec, RATE, SAMPLES)


def spec_of(path: Path, **settings_: object) -> ModelSpec:
    return replace(ModelSpec(str(path), (6,)), **settings_)  # type: ignore[arg-type]


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Return a function that makes a module of a source text, and returns its name."""

    def make(source: str) -> str:
        name = f"models_{abs(hash((request.node.nodeid, source)))}"
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{source}\n")
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return make


@pytest.mark.parametrize(
    "shape", [("b", SAMPLES), ("b", "n"), ("b", 1, SAMPLES), ("b", SAMPLES, 1), (3, 1, "n")]
)
def test_an_onnx_model_computes_each_chunk(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    weights = write_encoder(tmp_path / "e.onnx", SAMPLES, input_shape=shape)
    values = extractor(spec_of(tmp_path / "e.onnx", batch_rows=3))(chunks(7))
    assert (values.shape, values.dtype) == ((7, 6), np.float32)
    # Sums of 1,000 products of float32 that are below 0.5: rounding of 1e-6 at most.
    np.testing.assert_allclose(values, np.tanh(chunks(7).astype(float) @ weights), atol=2e-5)


def test_the_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    write_encoder(tmp_path / "e.onnx", SAMPLES)
    first = extractor(spec_of(tmp_path / "e.onnx"))(chunks(2))
    second = extractor(spec_of(tmp_path / "e.onnx", output="negative"))(chunks(2))
    np.testing.assert_array_equal(first, -second)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.permutations(range(6)), st.data())
def test_a_row_does_not_depend_on_its_neighbours(
    tmp_path_factory: pytest.TempPathFactory, size: int, order: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("models") / "e.onnx"
    write_encoder(path, SAMPLES)
    model, rows = extractor(spec_of(path, batch_rows=size)), chunks(6)
    alone = [model(rows[i : i + 1])[0] for i in range(6)]
    count = data.draw(st.integers(1, 6))
    for values, number in zip(model(rows[order[:count]]), order, strict=False):
        np.testing.assert_array_equal(values, alone[number])


def test_a_level_is_that_of_a_waveform(functions, tmp_path: Path) -> None:
    module = functions("def std(x): return np.stack([x.mean(1), x.std(1)], axis=1)")
    spec = ModelSpec(f"{module}:std", (2,), level="standardized")
    values = extractor(spec)(chunks(3), [SAMPLES, SAMPLES, 500])
    np.testing.assert_allclose(values[:2], [[0, 1], [0, 1]], atol=1e-4)
    np.testing.assert_allclose(values[2], [0, np.sqrt(0.5)], atol=1e-4)  # half is padding


def test_tokens_are_integers(functions) -> None:
    module = functions("def encode(x): return (np.abs(x[:, :40]) * 1000).astype('int64')")
    spec = ModelSpec(f"{module}:encode", (40,), "int16")
    values = extractor(spec)(chunks(3))
    assert values.dtype == np.int16
    np.testing.assert_array_equal(values, (np.abs(chunks(3)[:, :40]) * 1000).astype("int64"))


def test_a_token_out_of_range_is_the_recordings_failure(functions) -> None:
    module = functions("def encode(x): return (np.abs(x[:, :40]) * 1000).astype('int64')")
    model = extractor(ModelSpec(f"{module}:encode", (40,), "int16"))
    loud = np.full((1, SAMPLES), 40, np.float32)
    with pytest.raises(RecordingError, match=r"tokens from 40000 to 40000; int16 holds -32768 to"):
        model(loud)
    assert extractor(ModelSpec(f"{module}:encode", (40,), "int32"))(loud).max() == 40_000


@pytest.mark.parametrize(
    ("body", "cause", "message"),
    [
        ("return x[:, :6] / x.max()", Cause.NON_FINITE, "returned a number that is not finite"),
        ("return 1 / 0 if not x.any() else x[:, :6]", Cause.MODEL_FAILED, "ZeroDivisionError: d"),
        (
            "if not x.any(): raise RuntimeError('bad allocation')\n    return x[:, :6]",
            Cause.OUT_OF_MEMORY,
            "RuntimeError: bad allocation",
        ),
    ],
)
def test_what_a_model_does_with_a_chunk_is_the_recordings_failure(
    functions, body: str, cause: Cause, message: str
) -> None:
    module = functions(f"def f(x):\n    {body}")
    model = extractor(ModelSpec(f"{module}:f", (6,)))
    with np.errstate(all="ignore"), pytest.raises(RecordingError, match=message) as raised:
        model(np.zeros((1, SAMPLES), np.float32))
    assert raised.value.cause is cause
    assert "embedding" in raised.value.message


@pytest.mark.parametrize(
    ("body", "settings_", "message"),
    [
        ("return x[:, :5]", {}, r"shape \[1, 5\] for 1 chunks; shape \[6\] needs \[1, 6\]"),
        ("return x[0, :6]", {}, r"shape \[6\] for 1 chunks"),
        ("return np.zeros((1, 6), int)", {}, "returns int64; the dtype float32 needs floats"),
        ("return x[:, :6]", {"dtype": "int16"}, "returns float32; the dtype int16 needs integ"),
        ("return x[:, :6] * np.random.rand()", {}, "with batch_rows 1, .* depends on chance"),
        ("return x[::-1, :6]", {"batch_rows": 4}, "depends on chance, or on its place in the"),
        ("return x[:, :6] - x[-1:, :6]", {"batch_rows": 3}, "with batch_rows 3, .*: try 1"),
        ("return x[:, :6] / np.abs(x).max()", {"batch_rows": 2}, "with batch_rows 2, .*: try 1"),
        ("raise ValueError('no')", {}, "tried with noise: the model of embedding failed: ValueE"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(
    functions, body: str, settings_: dict[str, object], message: str
) -> None:
    module = functions(f"def f(x): {body}")
    with pytest.raises(ConfigError, match=message):
        extractor(replace(ModelSpec(f"{module}:f", (6,)), **settings_))  # type: ignore[arg-type]


def test_functions_that_are_not_there(functions) -> None:
    module, broken = functions("f = 3"), functions("import no_such_library")
    for model, message in (
        (f"{module}:g", f"the module {module} has no function g"),
        (f"{module}:f", f"the module {module} has no function f"),
        (f"{broken}:f", "ModuleNotFoundError: No module named 'no_such_library'; install its"),
        ("__main__:f", "__main__:f: "),
        ("no_such_module:f", "there is no module no_such_module; install its package where melm"),
        ("no_such_package.module:f", "No module named 'no_such_package'; install"),
    ):
        with pytest.raises(ConfigError, match=message):
            extractor(ModelSpec(model, (6,)))


@pytest.mark.parametrize(
    ("shape", "settings_", "message"),
    [
        (("b", 900), {}, r"its input audio is tensor\(float\) \['b', 900\]; a chunk has 1000"),
        ((4, SAMPLES), {}, r"batch_rows must be 4"),
        (("b", 2, SAMPLES), {}, r"it must be \[batch, samples\], \[batch, 1, samples\] or"),
        ((SAMPLES,), {}, r"it must be \[batch, samples\]"),
        (("b", SAMPLES), {"output": "x"}, "no output 'x'; it has: embedding, negative"),
        (("b", SAMPLES), {"device": "cuda"}, "device cuda: the installed ONNX Runtime has no CUD"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_refused(
    tmp_path: Path, shape: tuple[int | str, ...], settings_: dict[str, object], message: str
) -> None:
    write_encoder(tmp_path / "e.onnx", SAMPLES, input_shape=shape)
    with pytest.raises(ConfigError, match=message):
        extractor(spec_of(tmp_path / "e.onnx", **settings_))


def test_onnx_files_with_other_inputs_are_refused(tmp_path: Path) -> None:
    add = onnx.helper.make_node("Add", ["audio", "other"], ["embedding"])
    sizes = ("b", SAMPLES), {"embedding": SAMPLES}, {}
    write_model(tmp_path / "two.onnx", [add], *sizes, inputs=("audio", "other"))
    with pytest.raises(ConfigError, match=r"2 inputs \(audio, other\), and must have one"):
        extractor(spec_of(tmp_path / "two.onnx"))
    neg = onnx.helper.make_node("Neg", ["audio"], ["embedding"])
    types = {"input_type": "DOUBLE", "output_type": "DOUBLE"}
    write_model(tmp_path / "double.onnx", [neg], *sizes, **types)
    with pytest.raises(ConfigError, match=r"is tensor\(double\) .*; it must be tensor\(float\)"):
        extractor(spec_of(tmp_path / "double.onnx"))


def test_files_that_are_not_models(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ConfigError, match=r"text\.onnx: ONNX Runtime cannot open it: "):
        extractor(spec_of(tmp_path / "text.onnx"))
    write_encoder(tmp_path / "e.onnx", SAMPLES)
    content = (tmp_path / "e.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"half\.onnx: ONNX Runtime cannot open it: "):
        extractor(spec_of(tmp_path / "half.onnx"))
    with pytest.raises(Exception, match=r"gone\.onnx does not exist"):
        extractor(spec_of(tmp_path / "gone.onnx"))


def test_a_model_may_use_its_array_again(functions) -> None:
    body = "_out[:] = x[:, :6]\n    return _out"
    module = functions(f"_out = np.zeros((1, 6), 'f4')\ndef f(x):\n    {body}")
    model = extractor(ModelSpec(f"{module}:f", (6,)))
    np.testing.assert_array_equal(model(chunks(4)), chunks(4)[:, :6])


def test_a_shape_that_depends_on_the_sound_is_the_recordings_failure(functions) -> None:
    module = functions("def f(x): return x[:, :5 if x.max() > 3 else 6]")
    model = extractor(ModelSpec(f"{module}:f", (6,)))
    with pytest.raises(RecordingError, match=r"the model of embedding returns an array of shape"):
        model(np.full((1, SAMPLES), 5, np.float32))


def test_another_file_than_the_recipe_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    write_encoder(path, SAMPLES)
    spec = spec_of(path)
    pinned = replace(spec, sha256=digest_of(spec, read_model(spec)))
    extractor(pinned)
    write_encoder(path, SAMPLES, seed=1)
    with pytest.raises(ConfigError, match=r"e.onnx has the SHA-256 [0-9a-f]{64}, but the recipe"):
        extractor(pinned)


def test_functions_of_a_module_have_different_digests(functions) -> None:
    module = functions("def f(x): return x[:, :6]\ndef g(x): return x[:, :6]")
    specs = [ModelSpec(f"{module}:{name}", (6,)) for name in "fg"]
    assert len({digest_of(spec, read_model(spec)) for spec in specs}) == 2

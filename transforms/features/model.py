"""Models of the user's own as a feature: an ONNX file or a Python function, applied to chunks."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, Len
from numpy.typing import NDArray

from melmill.transforms.core.errors import Cause, ConfigError, RecordingError, Stage
from melmill.transforms.core.feature_columns import Array, FeatureType
from melmill.transforms.features.logarithm import Contradiction
from melmill.transforms.features.waveform import Level, WaveformExtractor, WaveformSpec

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions

#: Function of samples [batch_rows, samples], float32, that returns an array [batch_rows, ...].
Model = Callable[[NDArray[np.float32]], Any]

#: Kind of processor that computes a model.
Device = Literal["cpu", "cuda"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_PYTHON_FUNCTION = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Settings of a model.

    Attributes
    ----------
    model
        Path or URL of an ONNX file, or a Python function as ``package.module:function``, which
        workers import. Both take samples [batch_rows, samples], float32 with full scale 1.0; an
        ONNX file may also take [batch_rows, 1, samples] or [batch_rows, samples, 1].
    shape
        Shape of the model's output for a chunk.
    dtype
        Type of the column: ``float32`` for numbers such as embeddings; ``int16`` or ``int32`` for
        tokens.
    sha256
        SHA-256 of the ONNX file, or of the function's name and its module's source. Features
        depend on it, and not on the place of the file. Empty: as the file is when the run starts.
    batch_rows
        Number of chunks in a call. An incomplete batch is padded with silence, so that all calls
        have the same shape.
    output
        Name of the ONNX file's output; empty for the first.
    device
        Kind of processor: ``cpu``, with one thread, or ``cuda``.
    level
        Rule for the level of each chunk, with the settings that :class:`WaveformSpec` has by
        default.
    """

    # The digest stands for the file, wherever it is.
    model: str = field(metadata={"place": True})
    shape: Annotated[tuple[Annotated[int, Ge(1), Le(1 << 20)], ...], Len(1, 4)]
    dtype: FeatureType = "float32"
    sha256: str = ""
    batch_rows: Annotated[int, Ge(1), Le(4096)] = 1
    output: str = ""
    device: Device = "cpu"
    level: Level = "none"


def model_contradictions(spec: ModelSpec) -> Iterator[Contradiction]:
    """Yield each setting that another setting makes impossible, as (key, value, allowed)."""
    if spec.sha256 and not re.fullmatch("[0-9a-f]{64}", spec.sha256):
        yield "sha256", spec.sha256, "64 hexadecimal digits in small letters"
    if is_python(spec.model) and spec.output:
        yield "output", spec.output, "empty where model is a Python function: it has no names"
    if is_python(spec.model) and spec.device != "cpu":
        yield "device", spec.device, "cpu where model is a Python function: it chooses by itself"


def model_neighbour_contradictions(spec: ModelSpec) -> Iterator[Contradiction]:
    """Yield why the outputs for chunks are not parts of one: the model sees a chunk alone."""
    yield "model", spec.model, "not allowed where chunk.edges is neighbours: it sees one chunk"


def is_python(model: str) -> bool:
    """Return whether a model is a Python function, and not a file.

    >>> is_python("encoders.speech:embed"), is_python("encoder.onnx"), is_python("s3://a/b:c")
    (True, False, False)
    """
    return _PYTHON_FUNCTION.fullmatch(model) is not None


class ModelExtractor:
    """Applies a model to chunks.

    Parameters
    ----------
    name
        Name of the feature, for messages.
    spec
        Settings of the model.
    rate_hz, chunk_samples
        Sample rate and length of the chunks.
    options
        Options of fsspec for the store of the ONNX file.

    Raises
    ------
    ConfigError
        The model cannot be loaded, is another file than the recipe names, does not fit the
        settings, or gives a chunk other values in another place of the batch.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        rate_hz: int,
        chunk_samples: int,
        options: StorageOptions = (),
    ) -> None:
        self._name, self._spec = name, spec
        self._samples = chunk_samples
        self._level = WaveformExtractor(WaveformSpec(level=spec.level), rate_hz)
        content = read_model(spec, options)
        if spec.sha256 and (found := digest_of(spec, content)) != spec.sha256:
            raise ConfigError(
                f"{name}: model {spec.model} has the SHA-256 {found}, but the recipe has "
                f"{spec.sha256}: the model is another one; put the former one back, or set sha256 "
                "to '' to compute the feature with this one"
            )
        opened = _import_function if is_python(spec.model) else _open_onnx
        try:
            self._model = opened(spec, content, chunk_samples)
        except ConfigError as error:
            raise ConfigError(f"{name}: model {spec.model}: {error}") from error
        self._require_repeatable()

    def __call__(self, chunks: NDArray[np.float32], valid_samples: Sequence[int] = ()) -> Array:
        """Return the model's outputs for chunks.

        Parameters
        ----------
        chunks
            Samples of shape [n_chunks, samples], float32, full scale 1.0; not modified.
        valid_samples
            Number of samples in each chunk that are not padding; empty if no chunk is padded.

        Returns
        -------
        ndarray of shape [n_chunks, *shape], C-contiguous
            Outputs in the spec's type.

        Raises
        ------
        RecordingError
            The model failed, or an output is not finite or out of the type's range.
        ConfigError
            The outputs have another shape or kind of number than the spec says.
        """
        levelled, size = self._level(chunks, valid_samples), self._spec.batch_rows
        batches = [levelled[start : start + size] for start in range(0, len(levelled), size)]
        return np.concatenate([self._run(batch) for batch in batches])

    def _run(self, rows: NDArray[np.float32]) -> Array:
        """Return the outputs for at most a batch of rows."""
        spec = self._spec
        batch = np.zeros((spec.batch_rows, self._samples), np.float32)
        batch[: len(rows)] = rows
        try:
            values = np.asarray(self._model(batch))
        except (MemoryError, RecordingError):
            raise
        except Exception as error:  # whatever a model of the user's raises
            # ONNX Runtime's error for missing memory is a general one.
            no_memory = re.search("bad.?alloc|failed to allocate", str(error), re.IGNORECASE)
            cause = Cause.OUT_OF_MEMORY if no_memory else Cause.MODEL_FAILED
            message = f"the model of {self._name} failed: {type(error).__name__}: {error}"
            raise RecordingError(Stage.DECODE, cause, message) from error
        expected = spec.batch_rows, *spec.shape
        if values.shape != expected:
            raise ConfigError(
                f"{self._name}: model {spec.model} returns an array of shape {list(values.shape)} "
                f"for {spec.batch_rows} chunks; shape {list(spec.shape)} needs {list(expected)}"
            )
        return self._converted(values[: len(rows)])

    def _converted(self, values: Array) -> Array:
        spec = self._spec
        wanted = "floats" if spec.dtype == "float32" else "integers"
        kinds = "f" if spec.dtype == "float32" else "iu"
        if values.dtype.kind not in kinds:
            raise ConfigError(
                f"{self._name}: model {spec.model} returns {values.dtype}; the dtype {spec.dtype} "
                f"needs {wanted}"
            )
        converted = np.ascontiguousarray(values, dtype=spec.dtype)
        low, high = values.min(), values.max()
        if spec.dtype != "float32":
            limits = np.iinfo(spec.dtype)
            if low < limits.min or high > limits.max:
                message = (
                    f"the model of {self._name} returned tokens from {low} to {high}; {spec.dtype} "
                    f"holds {limits.min} to {limits.max}"
                )
                raise RecordingError(Stage.DECODE, Cause.MODEL_FAILED, message)
        elif not np.isfinite(converted).all():
            message = f"the model of {self._name} returned a number that is not finite"
            raise RecordingError(Stage.DECODE, Cause.NON_FINITE, message)
        return converted

    def _require_repeatable(self) -> None:
        """Raise ConfigError unless a chunk's output is the same in any place, beside any others."""
        size, spec = self._spec.batch_rows, self._spec
        shape = 2, size, self._samples
        noise, other = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
        first = self._run(noise)
        moved = np.roll(self._run(np.roll(noise, 1, axis=0)), -1, axis=0)
        other[::2] = noise[::2]
        beside_others = self._run(other)
        if moved.tobytes() != first.tobytes() or (
            beside_others[::2].tobytes() != first[::2].tobytes()
        ):
            what = "chance" if size == 1 else "chance, or on its place in the batch: try 1"
            raise ConfigError(
                f"{self._name}: model {spec.model}: with batch_rows {size}, the output for a chunk "
                f"depends on {what}"
            )


def read_model(spec: ModelSpec, options: StorageOptions = ()) -> bytes:
    """Return the content of the ONNX file, or of the source file of the function's module.

    Raises
    ------
    ConfigError
        There is no such file or module.
    UserError
        The store cannot be read.
    """
    if (function := _PYTHON_FUNCTION.fullmatch(spec.model)) is None:
        # Imported here, because it imports Arrow, which most decoder processes do without.
        from melmill.transforms.store.filesystems import open_filesystem, reading

        filesystem, path = open_filesystem(spec.model, options, ConfigError)
        with reading(spec.model), filesystem.open(path, "rb") as file:
            content: bytes = file.read()
        return content
    name = function["module"]
    try:
        found = importlib.util.find_spec(name)
    except ImportError as error:
        raise ConfigError(f"model {spec.model}: {error}; {_INSTALL}") from error
    if found is None or not found.has_location or found.origin is None:
        raise ConfigError(f"model {spec.model}: there is no module {name}; {_INSTALL}")
    return Path(found.origin).read_bytes()


_INSTALL = "install its package where melmill runs, and where its workers run"


def digest_of(spec: ModelSpec, content: bytes) -> str:
    """Return the SHA-256 of a model whose file has a content, in hexadecimal."""
    name = f"{spec.model}\n".encode() if is_python(spec.model) else b""
    return hashlib.sha256(name + content).hexdigest()


def _import_function(spec: ModelSpec, content: bytes, chunk_samples: int) -> Model:
    module, _, name = spec.model.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise ConfigError(f"the module {module} has no function {name}")
    model: Model = function
    return model


def _open_onnx(spec: ModelSpec, content: bytes, chunk_samples: int) -> Model:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"{error}; pip install 'melmill[onnx]'") from error
    provider = _PROVIDERS[spec.device]
    if provider not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"device {spec.device}: the installed ONNX Runtime has no {provider}; install "
            "onnxruntime-gpu instead of onnxruntime where the workers run"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise ConfigError(f"ONNX Runtime cannot open it: {error}") from error
    if session.get_providers()[0] != provider:
        raise ConfigError(f"device {spec.device}: ONNX Runtime found no such device")
    source = _input_of(session, spec, chunk_samples)
    outputs = [output.name for output in session.get_outputs()]
    if spec.output and spec.output not in outputs:
        raise ConfigError(f"it has no output {spec.output!r}; it has: {', '.join(outputs)}")
    name, chosen = source.name, [spec.output or outputs[0]]
    axes = source.shape[1:]
    shape = [1 if size == 1 else chunk_samples for size in axes] if axes[1:] else [chunk_samples]

    def run(batch: NDArray[np.float32]) -> Any:
        return session.run(chosen, {name: batch.reshape(len(batch), *shape)})[0]

    return run


def _input_of(session: Any, spec: ModelSpec, chunk_samples: int) -> Any:
    """Return the only input of an ONNX file; raise ConfigError if it does not take chunks."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(source.name for source in inputs)
        raise ConfigError(f"it has {len(inputs)} inputs ({names}), and must have one: the samples")
    (source,) = inputs
    taken = f"its input {source.name} is {source.type} {source.shape}"
    if source.type != "tensor(float)":
        raise ConfigError(f"{taken}; it must be tensor(float)")
    axes = source.shape[1:]
    lengths = axes if len(axes) == 1 else [size for size in axes if size != 1]
    if len(axes) not in (1, 2) or len(lengths) != 1:
        raise ConfigError(
            f"{taken}; it must be [batch, samples], [batch, 1, samples] or [batch, samples, 1]"
        )
    if isinstance(lengths[0], int) and lengths[0] != chunk_samples:
        raise ConfigError(f"{taken}; a chunk has {chunk_samples} samples")
    if isinstance(source.shape[0], int) and source.shape[0] != spec.batch_rows:
        raise ConfigError(f"{taken}; batch_rows must be {source.shape[0]}")
    return source

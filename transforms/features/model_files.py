"""The files of models: reading them, telling them apart, and opening them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.core.errors import ConfigError
from melmill.transforms.features.model_spec import PYTHON_FUNCTION, ModelSpec, is_python
from melmill.transforms.store.retries import insist

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions

#: Function of samples [batch_rows, samples], float32, that returns an array [batch_rows, ...].
Model = Callable[[NDArray[np.float32]], Any]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_INSTALL = "install its package where melmill runs, and where its workers run"


def read_model(spec: ModelSpec, options: StorageOptions = ()) -> bytes:
    """Return the content of the ONNX file, or of the source file of the function's module.

    Raises
    ------
    ConfigError
        There is no such file or module.
    UserError
        The store cannot be read.
    """
    if (function := PYTHON_FUNCTION.fullmatch(spec.model)) is None:
        # Imported here, because it imports Arrow, which most decoder processes do without.
        from melmill.transforms.store.filesystems import open_filesystem, reading

        filesystem, path = open_filesystem(spec.model, options, ConfigError)
        with reading(spec.model):
            content: bytes = insist(lambda: filesystem.cat_file(path))
        return content
    name = function["module"]
    try:
        module = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"model {spec.model}: {error}; {_INSTALL}") from error
    if module is None or not module.has_location or module.origin is None:
        raise ConfigError(f"model {spec.model}: there is no module {name}; {_INSTALL}")
    return Path(module.origin).read_bytes()


def options_for(model: str, catalogue: str, options: StorageOptions) -> StorageOptions:
    """Return the options with which a model is read: those of the catalogue's recordings, or none.

    They are for a model in a store, if the catalogue is in a store of this kind, or is a local
    table, which may name recordings in the store.

    >>> options_for("s3://models/a.onnx", "s3://songs/", (("key", "k"),))
    (('key', 'k'),)
    >>> options_for("https://models.org/a.onnx", "s3://songs/", (("key", "k"),))
    ()
    """
    of_model, of_catalogue = (
        name.partition("://")[0] if "://" in name else "" for name in (model, catalogue)
    )
    return options if of_model and of_catalogue in ("", of_model) else ()


def digest_of(spec: ModelSpec, content: bytes) -> str:
    """Return the SHA-256 of a model whose file has a content, in hexadecimal."""
    name = f"{spec.model}\n".encode() if is_python(spec.model) else b""
    return hashlib.sha256(name + content).hexdigest()


def open_model(spec: ModelSpec, content: bytes, chunk_samples: int) -> Model:
    """Return the model whose file has a content; raise ``ConfigError`` if it cannot be used."""
    if is_python(spec.model):
        return _import_function(spec.model)
    return _open_onnx(spec, content, chunk_samples)


def _import_function(model: str) -> Model:
    module, _, name = model.partition(":")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever a module of the user's raises
        raise ConfigError(f"{type(error).__name__}: {error}; {_INSTALL}") from error
    if not callable(function):
        raise ConfigError(f"the module {module} has no function {name}")
    imported: Model = function
    return imported


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

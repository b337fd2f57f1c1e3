"""Models of the user's own as a feature: an ONNX file or a Python function, applied to chunks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melmill.transforms.core.errors import Cause, ConfigError, RecordingError, Stage
from melmill.transforms.core.feature_columns import Array
from melmill.transforms.features.model_files import digest_of, open_model, read_model
from melmill.transforms.features.model_spec import ModelSpec
from melmill.transforms.features.waveform import WaveformExtractor, WaveformSpec

if TYPE_CHECKING:
    from melmill.transforms.store.filesystems import StorageOptions


class _UnfitError(Exception):
    """The model's output does not fit the settings."""


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
        if spec.sha256 and (actual := digest_of(spec, content)) != spec.sha256:
            raise ConfigError(
                f"{name}: model {spec.model} has the SHA-256 {actual}, but the recipe has "
                f"{spec.sha256}: the model is another one; put the former one back, or set sha256 "
                "to '' to compute the feature with this one"
            )
        try:
            self._model = open_model(spec, content, chunk_samples)
            self._require_repeatable()
        except (ConfigError, _UnfitError) as error:
            raise ConfigError(f"{name}: model {spec.model}: {error}") from error
        except RecordingError as error:
            raise ConfigError(
                f"{name}: model {spec.model}, tried with noise: {error.message}"
            ) from error

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
            The model failed, or an output is not finite, out of the type's range, or of another
            shape or kind of number than the spec says.
        """
        levelled, size = self._level(chunks, valid_samples), self._spec.batch_rows
        batches = [levelled[start : start + size] for start in range(0, len(levelled), size)]
        try:
            return np.concatenate([self._run(batch) for batch in batches])
        except _UnfitError as error:
            message = f"the model of {self._name} {error}"
            raise RecordingError(Stage.DECODE, Cause.MODEL_FAILED, message) from error

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
            raise _UnfitError(
                f"returns an array of shape {list(values.shape)} for {spec.batch_rows} chunks; "
                f"shape {list(spec.shape)} needs {list(expected)}"
            )
        return self._converted(values[: len(rows)])

    def _converted(self, values: Array) -> Array:
        """Return a copy of the outputs in the spec's type: a model may use its array again."""
        spec = self._spec
        is_float = spec.dtype == "float32"
        if values.dtype.kind not in ("f" if is_float else "iu"):
            wanted = "floats" if is_float else "integers"
            raise _UnfitError(f"returns {values.dtype}; the dtype {spec.dtype} needs {wanted}")
        converted = np.array(values, dtype=spec.dtype, order="C")
        low, high = values.min(), values.max()
        if is_float and not np.isfinite(converted).all():
            message = f"the model of {self._name} returned a number that is not finite"
            raise RecordingError(Stage.DECODE, Cause.NON_FINITE, message)
        if not is_float and (low != converted.min() or high != converted.max()):
            limits = np.iinfo(spec.dtype)
            message = (
                f"the model of {self._name} returned tokens from {low} to {high}; {spec.dtype} "
                f"holds {limits.min} to {limits.max}"
            )
            raise RecordingError(Stage.DECODE, Cause.MODEL_FAILED, message)
        return converted

    def _require_repeatable(self) -> None:
        """Raise an error unless a chunk's output is the same in any place, beside any others."""
        size = self._spec.batch_rows
        random, shape = np.random.default_rng(0), (size, self._samples)
        noise = random.normal(0, 0.1, shape).astype(np.float32)
        louder = random.uniform(-0.9, 0.9, shape).astype(np.float32)
        first = self._run(noise)
        moved = np.roll(self._run(np.roll(noise, 1, axis=0)), -1, axis=0)
        same = [moved.tobytes() == first.tobytes()]
        for others in (0 * louder, louder):
            others[::2] = noise[::2]
            same.append(self._run(others)[::2].tobytes() == first[::2].tobytes())
        if not all(same):
            what = "chance" if size == 1 else "chance, or on its place in the batch: try 1"
            raise _UnfitError(f"with batch_rows {size}, the output for a chunk depends on {what}")

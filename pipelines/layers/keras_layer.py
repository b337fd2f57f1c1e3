"""The front end as a layer of Keras, on any of its backends."""

from __future__ import annotations

from typing import Any

import keras

from melmill.pipelines.layers.computing import compute
from melmill.pipelines.layers.front_end import (
    FrontEnd,
    constants,
    front_end_from_json,
    front_end_json,
)


class _Operations:
    """The functions of ``keras.ops``; sums and maxima keep their axes."""

    float32, int32 = "float32", "int32"

    def __getattr__(self, name: str) -> Any:
        return getattr(keras.ops, name)

    def max(self, x: Any, axis: tuple[int, ...]) -> Any:
        return keras.ops.max(x, axis, keepdims=True)

    def sum(self, x: Any, axis: int) -> Any:
        return keras.ops.sum(x, axis, keepdims=True)

    def mean(self, x: Any, axis: int) -> Any:
        return keras.ops.mean(x, axis, keepdims=True)


@keras.saving.register_keras_serializable(package="melmill")
class KerasFrontEnd(keras.layers.Layer):
    """Log-mel features of chunks: samples [chunks, chunk_samples] to [chunks, bands, frames].

    It has no weights. A saved model holds its settings, and needs melmill to be loaded.

    Parameters
    ----------
    front_end
        The constants, or their settings as JSON.
    options
        Options of ``keras.layers.Layer``.
    """

    def __init__(self, front_end: FrontEnd | str, **options: Any) -> None:
        super().__init__(trainable=False, dtype="float32", **options)
        if isinstance(front_end, str):
            front_end = front_end_from_json(front_end)
        self.front_end = front_end
        self._arrays = constants(self.front_end)

    def call(self, samples: Any, valid_samples: Any = None) -> Any:
        """Return the features of a batch; see :func:`melmill.layer`."""
        return compute(self.front_end, _Operations(), self._arrays, samples, valid_samples)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the features."""
        return (shape[0], *self.front_end.shape)

    def get_config(self) -> dict[str, Any]:
        """Return what a saved model needs to make the layer again."""
        return {"name": self.name, "front_end": front_end_json(self.front_end)}

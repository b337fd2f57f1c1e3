"""The front end as a function of JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from melmill.pipelines.layers.computing import compute
from melmill.pipelines.layers.front_end import FrontEnd, constants


class _Operations:
    """The functions of ``keras.ops`` in JAX."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    def rfft(self, x: Any, fft_length: int) -> tuple[Any, Any]:
        spectrum = jnp.fft.rfft(x, fft_length)
        return spectrum.real, spectrum.imag

    def max(self, x: Any, axis: tuple[int, ...]) -> Any:
        return jnp.max(x, axis, keepdims=True)

    def sum(self, x: Any, axis: int) -> Any:
        return jnp.sum(x, axis, keepdims=True)

    def mean(self, x: Any, axis: int) -> Any:
        return jnp.mean(x, axis, keepdims=True)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.astype(dtype)


def jax_front_end(front_end: FrontEnd) -> Callable[..., Any]:
    """Return a pure function of samples and valid_samples, which ``jax.jit`` can compile."""
    arrays = {name: jnp.asarray(array) for name, array in constants(front_end).items()}

    def layer(samples: Any, valid_samples: Any = None) -> Any:
        return compute(front_end, _Operations(), arrays, samples, valid_samples)

    return layer

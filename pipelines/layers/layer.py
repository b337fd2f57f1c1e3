"""The function ``melmill.layer``."""

from __future__ import annotations

from typing import Any, Literal, get_args

from melmill.pipelines.api import Recipe, Settings, read_recipe
from melmill.pipelines.layers.front_end import read_front_end
from melmill.transforms.core.errors import ConfigError

Framework = Literal["torch", "keras", "jax"]


def layer(
    recipe: Recipe = None,
    framework: Framework = "torch",
    *,
    feature: str | None = None,
    settings: Settings = (),
) -> Any:
    """Return a recipe's log-mel feature as a layer, which computes it from waveforms.

    A dataset may store waveforms, and the model compute the mels on the accelerator: the values are
    those that melmill stores, but for the rounding of float32 (docs/layers.md says how far).
    Gradients pass through.

    Parameters
    ----------
    recipe, settings
        As for :func:`melmill.extract`.
    framework
        ``torch`` (a ``torch.nn.Module``), ``keras`` (a ``keras.layers.Layer``, on any of its
        backends) or ``jax`` (a pure function).
    feature
        The name of a log-mel feature; ``None`` for the only one.

    Returns
    -------
    Module, layer or function of ``samples`` and ``valid_samples=None``
        ``samples`` is float32 [chunks, chunk_samples] at the feature's sample rate, full scale 1.0.
        ``valid_samples`` [chunks] is the number of samples that are no padding (the column
        ``valid_samples``); front ends with ``padded_frames``, or with a pre-emphasis of the chunk,
        need it for padded chunks. The result is float32 [chunks, bands, frames].

    Raises
    ------
    ConfigError
        The recipe is wrong, has no such feature, or its chunks need their neighbours
        (``chunk.edges: neighbours``); or the framework is unknown or not installed.

    Examples
    --------
    >>> import melmill, numpy
    >>> mel = melmill.layer("librosa", "keras")
    >>> mel(numpy.zeros((2, 66150), "float32")).shape
    TensorShape([2, 128, 130])
    """
    if framework not in get_args(Framework):
        allowed = ", ".join(get_args(Framework))
        raise ConfigError(f"framework: {framework!r}: must be one of {allowed}")
    front_end = read_front_end(read_recipe(recipe, settings), feature)
    try:
        if framework == "torch":
            from melmill.pipelines.layers.torch_layer import TorchFrontEnd

            return TorchFrontEnd(front_end)
        if framework == "keras":
            from melmill.pipelines.layers.keras_layer import KerasFrontEnd

            return KerasFrontEnd(front_end)
        from melmill.pipelines.layers.jax_layer import jax_front_end

        return jax_front_end(front_end)
    except ModuleNotFoundError as error:
        name = (error.name or framework).partition(".")[0]
        raise ConfigError(
            f"framework: {framework}: {name} is not installed: pip install {name}"
        ) from error

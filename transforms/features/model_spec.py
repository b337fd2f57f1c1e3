"""The settings of models of the user's own; importing this module loads no model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le, Len

from melmill.transforms.core.feature_columns import FeatureType
from melmill.transforms.features.logarithm import Contradiction
from melmill.transforms.features.waveform import Level

#: Kind of processor that computes a model.
Device = Literal["cpu", "cuda"]

#: The name of a Python function, as a recipe has it.
PYTHON_FUNCTION = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")


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
    return PYTHON_FUNCTION.fullmatch(model) is not None

"""Small ONNX models for tests, made with the package onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def write_encoder(
    path: Path,
    samples: int,
    features: int = 6,
    *,
    input_shape: Sequence[int | str] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Write a model ``tanh(samples @ weights)`` and return the weights, float32."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1, (samples, features)).astype(np.float32)
    onnx = pytest.importorskip("onnx")
    shape = list(input_shape or ("batch", samples))
    nodes = [
        onnx.helper.make_node("Reshape", ["audio", "flat_shape"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        onnx.helper.make_node("Tanh", ["product"], ["embedding"]),
        onnx.helper.make_node("Neg", ["embedding"], ["negative"]),
    ]
    constants = {"weights": weights, "flat_shape": np.array([-1, samples])}
    write_model(path, nodes, shape, {"embedding": features, "negative": features}, constants)
    return weights


def write_model(
    path: Path,
    nodes: Sequence[Any],
    input_shape: Sequence[int | str],
    outputs: dict[str, int],
    constants: dict[str, np.ndarray],
    *,
    inputs: Sequence[str] = ("audio",),
    input_type: str = "FLOAT",
    output_type: str = "FLOAT",
) -> None:
    onnx = pytest.importorskip("onnx")
    kinds = onnx.TensorProto
    describe = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "encoder",
        [describe(name, getattr(kinds, input_type), input_shape) for name in inputs],
        [describe(n, getattr(kinds, output_type), ["b", size]) for n, size in outputs.items()],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    # Opset 17 and IR 8 are old enough for each ONNX Runtime that setup.py allows.
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, path)

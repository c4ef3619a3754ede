"""Copies of convolutional networks with whole numbers for weights, whose outputs are exact in float32.

Relu becomes Clip(0, 7), so that numbers do not grow with depth; BatchNormalization gets variance 1 and epsilon 0.
Every sum is then a whole number, or one over a small power of two behind an average, of less than 24 bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

_CHANNELS = {"AveragePool", "BatchNormalization", "Clip", "Conv", "Gemm", "GlobalAveragePool", "MaxPool", "ReduceMean"}
_MOVES = {"Concat", "Flatten", "Gather", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
_EXACT = _CHANNELS | _MOVES | {"Add", "Constant", "Relu"}
_OF_SIZES = {"Cast", "Div", "Mul", "Sub"}
"""Exact where they compute with whole numbers, as exporters do with sizes."""
_HIGHEST = 7.0


def exact_copy(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto | None:
    """`model` with whole weights from -2 to 2 except 0; None when one of its ops is not exact on whole numbers."""
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for node in model.graph.node:
        sizes = node.op_type in _OF_SIZES and kinds.get(node.output[0]) == onnx.TensorProto.INT64
        if node.op_type not in _EXACT and not sizes:
            return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            _fill(tensors[node.input[1]], rng.choice([-2, -1, 1, 2], tuple(tensors[node.input[1]].dims)))
            if len(node.input) > 2:
                _fill(tensors[node.input[2]], rng.integers(-3, 4, tuple(tensors[node.input[2]].dims)))
        elif node.op_type == "BatchNormalization":
            _whole_norm(node, tensors, rng)
        elif node.op_type == "Relu":
            node.op_type = "Clip"
            node.input.extend(["lowest", "highest"])
    bounds = {"lowest": 0.0, "highest": _HIGHEST}
    copy.graph.initializer.extend(
        numpy_helper.from_array(np.array(one, np.float32), name) for name, one in bounds.items()
    )
    return copy


def _whole_norm(node: onnx.NodeProto, tensors: dict[str, onnx.TensorProto], rng: np.random.Generator) -> None:
    scale, bias, mean, variance = (tensors[name] for name in node.input[1:])
    for tensor in (scale, bias, mean):
        _fill(tensor, rng.choice([-2, -1, 1, 2], tuple(tensor.dims)))
    _fill(variance, np.ones(tuple(variance.dims)))
    kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("epsilon", 0.0)])


def _fill(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))

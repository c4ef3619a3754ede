"""The three nets of the compatibility matrix, 90 % of their weights zeroed, and inputs for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, load
from onnxprune_passes.thresholds import Sparsity

Array = npt.NDArray[Any]
OPSET, IR_VERSION = 17, 8
_LENET = Path(__file__).parents[2] / "models" / "lenet_300_100.onnx"


def nets() -> dict[str, tuple[Model, dict[str, Array]]]:
    """Name → the pruned dense model and its feeds."""
    rng = np.random.default_rng(0)
    found = {}
    for name, model in (
        ("LeNet-300-100", load(_LENET)),
        ("BatchNorm CNN", _cnn(rng)),
        ("net with If", _branching(rng)),
    ):
        pruned = MagnitudePrune(Sparsity(0.9, scope="layer"))(State(model)).model
        feeds = {}
        for value in model.graph.input:
            dims = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
            is_bool = value.type.tensor_type.elem_type == TensorProto.BOOL
            feeds[value.name] = np.array(True) if is_bool else rng.standard_normal(dims).astype(np.float32)
        found[name] = (pruned, feeds)
    return found


def _weight(rng: np.random.Generator, name: str, *shape: int) -> onnx.TensorProto:
    scale = np.sqrt(2 / np.prod(shape[1:]))
    return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)


def _vector(rng: np.random.Generator, name: str, size: int) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.uniform(0.5, 1.5, size).astype(np.float32), name)


def _model(nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], inputs: list[onnx.ValueInfoProto]) -> Model:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "net", inputs, [output], tensors)
    imports = [helper.make_opsetid("", OPSET)]
    return from_proto(helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION))


def _cnn(rng: np.random.Generator) -> Model:
    """Conv - BatchNormalization - Relu twice, pooled, then a Gemm: x [N, 3, 16, 16] → y [N, 10]."""
    nodes, tensors, previous = [], [], "x"
    for index, (size_in, size_out) in enumerate(((3, 32), (32, 64)), start=1):
        conv, norm = f"conv{index}", f"bn{index}"
        tensors.append(_weight(rng, f"{conv}.weight", size_out, size_in, 3, 3))
        parts = [f"{norm}.{part}" for part in ("weight", "bias", "mean", "var")]
        tensors += [_vector(rng, part, size_out) for part in parts]
        nodes += [
            helper.make_node("Conv", [previous, f"{conv}.weight"], [conv], conv, pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [conv, *parts], [norm], norm),
            helper.make_node("Relu", [norm], [f"relu{index}"], f"relu{index}"),
        ]
        previous = f"relu{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [previous], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    tensors += [_weight(rng, "fc.weight", 10, 64), _vector(rng, "fc.bias", 10)]
    return _model(nodes, tensors, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])])


def _branching(rng: np.random.Generator) -> Model:
    """A MatMul, then one of two branches with a weight of its own each: x [N, 64], c → y [N, 10]."""
    branches = []
    for name in ("yes", "no"):
        nodes = [
            helper.make_node("MatMul", ["h", f"{name}.weight"], [f"{name}.product"], name),
            helper.make_node("Relu", [f"{name}.product"], [f"{name}.out"], f"{name}.relu"),
        ]
        output = helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, ["N", 64])
        branches.append(helper.make_graph(nodes, name, [], [output], [_weight(rng, f"{name}.weight", 96, 64)]))
    nodes = [
        helper.make_node("MatMul", ["x", "in.weight"], ["h"], "in"),
        helper.make_node("If", ["c"], ["picked"], "if", then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("MatMul", ["picked", "out.weight"], ["y"], "out"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    return _model(nodes, [_weight(rng, "in.weight", 64, 96), _weight(rng, "out.weight", 64, 10)], inputs)

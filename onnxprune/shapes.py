"""Shapes of all values of a graph, as far as they are known before it runs, for a batch of 1.

ONNX's inference gives up where a shape is computed by nodes that it does not evaluate, as exporters write it (the
sizes of a Pad put together from Shape, Gather, Concat …). Such nodes on a handful of integers are evaluated here, and
it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx.shape_inference
from onnx import numpy_helper
from onnxprune_passes.storage import stubs

Shape = tuple[int | None, ...]
Integers = npt.NDArray[np.int64]

_ROUNDS = 12
_FEW = 64
_EVALUATED = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Mod", "Neg", "Max", "Min", "ReduceProd", "Equal", "Where", "Cast", "Identity"),
        *("Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Expand", "Range"),
        "ConstantOfShape",
    )
)
_REFUSALS = (TypeError, AttributeError, ValueError, IndexError, KeyError, RuntimeError)
"""What onnx's reference evaluator raises for nodes that it cannot run, some of them for its own mistakes."""


def inferred_model(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `skeleton` with the shapes of its values, and without the nodes that only compute shapes.

    Batch axes count as 1: the first axis of every graph input, when it is dynamic, and every axis with the same symbol.
    """
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    _set_batch(model.graph)
    for _ in range(_ROUNDS):
        try:
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except (onnx.shape_inference.InferenceError, ValueError):
            break  # an operator outside the standard, or a shape that contradicts itself: what is known is all
        if not _evaluate(model):
            break
    return model


def value_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Value -> shape, for initializers and every value that has one."""
    shapes: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            shapes[value.name] = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return shapes


def _set_batch(graph: onnx.GraphProto) -> None:
    initializers = {tensor.name for tensor in graph.initializer}
    symbols: set[str] = set()
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in initializers or not dims:
            continue
        if dims[0].dim_param:
            symbols.add(dims[0].dim_param)
        if dims[0].dim_value <= 0:
            dims[0].dim_value = 1
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = 1
            elif dim.HasField("dim_value") and dim.dim_value <= 0 and value.name not in initializers:
                dim.Clear()


def _evaluate(model: onnx.ModelProto) -> bool:
    """Put initializers in the place of nodes that compute a few known integers; whether there were any."""
    graph = model.graph
    shapes = value_shapes(graph)
    known = _known(graph)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    found: dict[str, Integers] = {}
    rest = []
    for node in graph.node:
        result = _result(node, shapes, {**known, **found}, opsets)
        if result is None:
            rest.append(node)
        else:
            found[node.output[0]] = result
    if found:
        del graph.node[:]
        graph.node.extend(rest)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in found.items())
    return bool(found)


def _known(graph: onnx.GraphProto) -> dict[str, Integers]:
    """The small tensors whose values are in the skeleton."""
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors.append((node.output[0], node.attribute[0].t))
    small = [
        (name, tensor) for name, tensor in tensors if stubs.store_of(tensor) is None and np.prod(tensor.dims) <= _FEW
    ]
    return {name: numpy_helper.to_array(tensor) for name, tensor in small}


def _result(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], known: Mapping[str, Integers], opsets: Mapping[str, int]
) -> Integers | None:
    """What `node` computes, when that is a few integers known already."""
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    if node.op_type == "Shape" and not node.attribute:
        shape = shapes.get(node.input[0], (None,))
        return None if None in shape else np.array(shape, np.int64)
    if node.op_type not in _EVALUATED or not all(name in known for name in node.input if name):
        return None
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(node, opsets=dict(opsets))
        (array,) = map(np.asarray, evaluator.run(None, {name: known[name] for name in node.input if name}))
    except _REFUSALS:
        return None
    return array if array.size <= _FEW else None

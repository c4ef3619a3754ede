"""What is known while the graph is walked, beyond the file and beyond inference over the whole graph.

Small values that are computed from constants are computed. So are values computed from the size of an axis: they are
what they are in the file, noted in `Trace.frozen`, and a removal makes them constants. With them known, onnx's own
inference for a single node finds shapes that it does not find over the whole graph, where a division between Shape
and Slice is enough to lose the thread.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from ..arrays import NDArray
from .flow import Flow
from .graph import Dim, Node

if TYPE_CHECKING:
    from .trace import Trace

SMALL = 64
"""Constants of at most this many elements are known entry by entry: shapes, axes, pads, scales."""
_NOT_A_FUNCTION = re.compile("Bernoulli|Dropout|Multinomial|Random.*|Shape|Size")
"""Ops whose output is not a constant even when all their inputs are: random ones, and sizes of what may be cut."""
_INFERENCE_FAILS = (shape_inference.InferenceError, defs.SchemaError, RuntimeError, ValueError)
"""What onnx raises for an op, a type or a shape that it does not cover."""


def compute(trace: Trace, node: Node, *, moves: bool) -> bool:
    """Compute `node` when all it reads are small constants, and say so; sizes count too unless it only `moves` them."""
    if node.domain or node.has_body or _NOT_A_FUNCTION.fullmatch(node.op_type):
        return False
    inputs = [trace.exact(name) if moves else _numbers(trace, name) for name in node.proto.input]
    named = zip(node.proto.input, inputs, strict=True)
    if any(array is None or array.size > SMALL for name, array in named if name):
        return False
    outputs = trace.evaluated(node, inputs)
    if outputs is None or any(output.size > SMALL or output.dtype.hasobject for output in outputs):
        return False
    sizes = frozenset[int]().union(*(_measured(trace, name) for name in node.proto.input if name))
    made = [index for index, name in enumerate(node.proto.output) if name]
    if sizes and any(node.output(index) in trace.graph.outputs for index in made):
        return False
    for index, output in zip(made, outputs, strict=True):
        trace.put(node, index, Flow.exact(output))
        if sizes and trace.exact(node.output(index)) is not None:
            trace.frozen[node.output(index)] = sizes
        elif sizes:
            trace.pin(np.array(sorted(sizes), np.int64), node, "it computes with the size of the axis")
    return True


def _numbers(trace: Trace, value: str) -> NDArray | None:
    """The values of `value` when all are known, and it carries no ids but of sizes; None otherwise."""
    if not value:
        return None
    flow = trace.flow(value)
    return (
        flow.values if flow.ids.shape == trace.dims(value) and flow.known.all() and trace.measures(flow.ids) else None
    )


def _measured(trace: Trace, value: str) -> frozenset[int]:
    """The sizes that the values of `value` come from."""
    ids = trace.flow(value).ids
    return trace.frozen.get(value, frozenset()) | frozenset(ids[ids >= 0].tolist())


def learn(trace: Trace, node: Node) -> None:
    """Infer the shapes of the outputs of `node` anew, where more is known of its inputs than the file tells."""
    stated = [trace.stated(name) for name in node.proto.output if name]
    if node.domain or node.has_body or not any(dims is None or _open(dims) for dims in stated):
        return
    names = [name for name in dict.fromkeys(node.proto.input) if name]
    values = {
        name: array for name in names if (array := _numbers(trace, name)) is not None and array.dtype.kind in "iu"
    }
    if not any(name in trace.learned or (name in values and trace.constant(name) is None) for name in names):
        return
    types = {name: _type(trace, name) for name in names}
    for name, dims in _inferred(trace, node, types, values).items():
        tell(trace, name, dims)


def tell(trace: Trace, value: str, dims: Sequence[Dim]) -> None:
    """Note sizes of axes of `value` where the file tells none, and which symbolic sizes are the same."""
    stated = trace.stated(value) or (None,) * len(dims)
    if len(stated) != len(dims):
        return
    for old, new in zip(stated, dims, strict=True):
        if isinstance(old, str) and isinstance(new, str):
            trace.name_alike(old, new)
    trace.learned[value] = tuple(
        new if old is None or (isinstance(old, str) and isinstance(new, int)) else old
        for old, new in zip(stated, dims, strict=True)
    )


def _open(dims: tuple[Dim, ...]) -> bool:
    return not all(isinstance(dim, int) for dim in dims)


def _type(trace: Trace, name: str) -> onnx.TypeProto | None:
    dtype, dims = trace.graph.dtype(name), trace.dims(name)
    if dtype is None or dims is None:
        return None
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), dims)


def _inferred(
    trace: Trace, node: Node, types: dict[str, onnx.TypeProto | None], values: dict[str, NDArray]
) -> dict[str, tuple[int | None, ...]]:
    """The shapes of the outputs of `node`, sizes alone; empty when they cannot be inferred."""
    known = {name: one for name, one in types.items() if one is not None}
    if len(known) < len(types):
        return {}
    try:
        found = shape_inference.infer_node_outputs(
            defs.get_schema(node.op_type, node.opset, ""),
            node.proto,
            known,
            {name: numpy_helper.from_array(np.asarray(array)) for name, array in values.items()},
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in trace.graph.opsets.items()],
        )
    except _INFERENCE_FAILS:
        return {}
    shapes = {name: one.tensor_type.shape for name, one in found.items() if one.tensor_type.HasField("shape")}
    return {
        name: tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in shape.dim)
        for name, shape in shapes.items()
    }

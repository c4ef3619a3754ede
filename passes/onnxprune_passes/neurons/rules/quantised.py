"""QuantizeLinear and DequantizeLinear of computed values: each coordinate by itself.

One scale a channel is cut with its channel. Constants behind DequantizeLinear are seen in graph.py: as the weights,
biases and vectors that they are.
"""

from __future__ import annotations

import numpy as np

from ...arrays import NDArray
from ..flow import Flow
from ..graph import Node
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _scaled(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    if node.integer("block_size", 0):
        trace.refuse(node, "its scales are given for blocks")
        return
    places = [index for index, name in enumerate(node.proto.input) if name and index]
    constants = {index: trace.constant(node.input(index)) for index in places}
    if all(trace.dims(node.input(index)) in ((), (1,)) for index in places):
        arrays = {index: trace.graph.array(one).reshape(()) for index, one in constants.items() if one is not None}
        trace.put(node, 0, _known(trace, node, carried, arrays))
        return
    axis = node.integer("axis", 1)
    axis = axis + carried.rank if axis < 0 else axis
    size = carried.ids.shape[axis]
    if set(carried.axes) - {axis} or any(
        constants[index] is None or trace.dims(node.input(index)) != (size,) for index in places
    ):
        trace.refuse(node, "its scales do not lie along the axis that carries the neurons, or are computed")
        return
    shape = tuple(-1 if one == axis else 1 for one in range(carried.rank))
    ids, arrays = carried.ids, {}
    for index in places:
        ids = trace.unite(node, ids, trace.axis_ids(node, index, 0).reshape(shape))
        arrays[index] = trace.graph.array(trace.graph.constants[node.input(index)]).reshape(shape)
    trace.put(node, 0, _known(trace, node, Flow(ids, carried.known, carried.values), arrays))


def _known(trace: Trace, node: Node, carried: Flow, arrays: dict[int, NDArray]) -> Flow:
    """`carried` with its constants scaled: y = saturate(round(x / scale) + zero point), x = (y - zero point) × scale.

    Halves are rounded to even. Only integer steps are known.
    """
    dtype = trace.graph.dtype(node.output(0) if node.op_type == "QuantizeLinear" else node.input(0))
    if not carried.known.any() or 1 not in arrays or (node.input(2) and 2 not in arrays) or dtype is None:
        return carried.unknown()
    if dtype.kind not in "iu":
        return carried.unknown()
    scale, zero_point = arrays[1], arrays.get(2, np.zeros((), dtype)).astype(np.int64)
    if node.op_type == "QuantizeLinear":
        bounds = np.iinfo(dtype)
        with np.errstate(all="ignore"):
            steps = np.rint(carried.values.astype(scale.dtype) / scale).astype(np.float64) + zero_point
        finite = np.isfinite(steps)
        values = np.clip(np.where(finite, steps, 0), bounds.min, bounds.max).astype(dtype)
        return carried.with_known(np.asarray(carried.known & finite), values)
    values = (carried.values.astype(np.int64) - zero_point).astype(scale.dtype) * scale
    return carried.with_known(carried.known, values)


RULES: Rules = onnx_rules("QuantizeLinear DequantizeLinear", Rule(_scaled))

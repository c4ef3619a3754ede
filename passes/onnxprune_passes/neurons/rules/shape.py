"""Ops about sizes: Shape, and Expand and Tile along other axes than the neurons'."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from ...arrays import NDArray
from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..operands import operand
from ..rule import Rule, Rules, onnx_rules
from ..sizes import named_sizes, rewrite_sizes
from ..trace import Trace


def _shape(trace: Trace, node: Node) -> None:
    """Sizes of axes without neurons flow on as numbers, those of axes with neurons as ids that stand for the size."""
    carried, dims = trace.flow(node.input(0)), trace.dims(node.input(0))
    if dims is None:
        return
    known = np.array([isinstance(dim, int) for dim in dims], np.bool_)
    values = np.array([dim if isinstance(dim, int) else -1 for dim in dims], np.int64)
    ids = np.full(len(dims), -1, np.int64)
    for axis in carried.axes:
        ids[axis] = trace.measure(carried.ids if len(carried.axes) > 1 else carried.ids.reshape(-1))
    if (joint := trace.joints.get(node.input(0))) is not None:
        for axis in range(len(dims)):
            if set(joint.lies_on(axis)) & set(joint.flow.axes):
                ids[axis] = trace.measure(joint.flow.ids)
        trace.parted.add(node.index)
    picked = slice(node.attributes.get("start"), node.attributes.get("end"))
    trace.put(node, 0, Flow(ids[picked], known[picked], values[picked], whole=True))


def _constant_of_shape(trace: Trace, node: Node) -> None:
    """The same constant everywhere, of whatever size."""
    dims, value = trace.dims(node.output(0)), node.attributes.get("value")
    if dims is not None:
        number = numpy_helper.to_array(value).reshape(-1) if value is not None else np.zeros(1, np.float32)
        shape = (1,) * len(dims)
        trace.put(node, 0, Flow.empty(len(dims)).with_known(np.ones(shape, np.bool_), number.reshape(shape)))


def _expand(trace: Trace, node: Node) -> None:
    carried, target = _uniform(trace, node.input(0)), named_sizes(trace, node.input(1))
    dims = trace.dims(node.output(0))
    if not carried.carries and target is not None and (target.ids < 0).all():
        if dims is not None and set(carried.ids.shape) <= {1} and carried.rank <= len(dims):
            trace.put(node, 0, carried.aligned(len(dims)).loose())
        return
    rank = max(carried.rank, len(target.values)) if target is not None else 0
    lead = rank - carried.rank
    flow = operand(trace, node, 0, rank, [axis + lead for axis in carried.axes])
    if target is None or flow is None or dims is None or len(target.values) < rank:
        trace.refuse(node, "its target shape is computed, or shorter than the shape it expands")
    elif any(dims[axis] != flow.ids.shape[axis] for axis in flow.axes):
        trace.refuse(node, "it expands an axis that carries neurons")
    elif any(target.values[axis] == 1 for axis in flow.axes) or target.follow(
        trace, flow, (), _expanded(trace, node) is not None
    ):
        trace.put(node, 0, flow.loose())
    else:
        trace.refuse(node, "its target shape is computed from the size of the neuron axis")


def _uniform(trace: Trace, value: str) -> Flow:
    """What `value` carries, with size 1 on all axes when it is a constant that is 0 everywhere."""
    const, carried = trace.constant(value), trace.flow(value)
    if const is None or not carried.rank or not trace.zero_slices(const, 0).all():
        return carried
    shape = (1,) * carried.rank
    return Flow.empty(carried.rank).with_known(np.ones(shape, np.bool_), np.zeros(shape, const.dtype))


def _expanded(trace: Trace, node: Node) -> NDArray | None:
    """The target of an Expand as constant numbers, 1 for an axis that stays as it is; None when it is computed."""
    target, before, after = named_sizes(trace, node.input(1)), trace.dims(node.input(0)), trace.dims(node.output(0))
    if target is None or before is None or after is None or len(target.values) != len(after) or (target.ids >= 0).any():
        return None
    before = (1,) * (len(after) - len(before)) + before
    numbers = [
        1 if value is None and dim is not None and dim == own else value
        for value, dim, own in zip(target.values, after, before, strict=True)
    ]
    return None if None in numbers else np.array(numbers, np.int64)


def _rewrite_expand(cut: Cut, node: Node) -> None:
    """Sizes of the target; a 1 leaves the axis as it is."""
    target = _expanded(cut.trace, node)
    if target is not None and cut.keep(node.output(0)) and all(target[axis] != 1 for axis in cut.keep(node.output(0))):
        rewrite_sizes(cut, node, 1, target)


def _tile(trace: Trace, node: Node) -> None:
    carried, repeats = trace.flow(node.input(0)), trace.exact(node.input(1))
    if repeats is None or any(repeats[axis] != 1 for axis in carried.axes):
        trace.refuse(node, "it repeats the axis that carries the neurons, or its repeats are computed")
        return
    trace.put(node, 0, carried.loose())


RULES: Rules = {
    **onnx_rules("ConstantOfShape", Rule(_constant_of_shape)),
    **onnx_rules("Shape", Rule(_shape)),
    **onnx_rules("Expand", Rule(_expand, _rewrite_expand, moves=True)),
    **onnx_rules("Tile", Rule(_tile, follows=(0,))),
}

"""Ops about sizes: Shape, and Expand and Tile along other axes than the neurons'."""

from __future__ import annotations

import numpy as np

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
    picked = slice(node.attributes.get("start"), node.attributes.get("end"))
    trace.put(node, 0, Flow(ids[picked], known[picked], values[picked], whole=True))


def _expand(trace: Trace, node: Node) -> None:
    carried, target = trace.flow(node.input(0)), named_sizes(trace, node.input(1))
    dims = trace.dims(node.output(0))
    if not carried.carries and target is not None and (target.ids < 0).all():
        return
    rank = max(carried.rank, len(target.values)) if target is not None else 0
    lead = rank - carried.rank
    flow = operand(trace, node, 0, rank, [axis + lead for axis in carried.axes])
    if target is None or flow is None or dims is None or len(target.values) < rank:
        trace.refuse(node, "its target shape is computed, or shorter than the shape it expands")
    elif any(dims[axis] != flow.ids.shape[axis] for axis in flow.axes):
        trace.refuse(node, "it expands an axis that carries neurons")
    elif any(target.values[axis] == 1 for axis in flow.axes) or target.follow(
        trace, flow, (), trace.exact(node.input(1)) is not None
    ):
        trace.put(node, 0, flow.loose())
    else:
        trace.refuse(node, "its target shape is computed from the size of the neuron axis")


def _rewrite_expand(cut: Cut, node: Node) -> None:
    """Sizes of the target; a 1 leaves the axis as it is."""
    target = cut.exact(node.input(1))
    if target is not None and all(target[axis] != 1 for axis in cut.keep(node.output(0))):
        rewrite_sizes(cut, node, 1, target)


def _tile(trace: Trace, node: Node) -> None:
    carried, repeats = trace.flow(node.input(0)), trace.exact(node.input(1))
    if repeats is None or any(repeats[axis] != 1 for axis in carried.axes):
        trace.refuse(node, "it repeats the axis that carries the neurons, or its repeats are computed")
        return
    trace.put(node, 0, carried.loose())


RULES: Rules = {
    **onnx_rules("Shape", Rule(_shape)),
    **onnx_rules("Expand", Rule(_expand, _rewrite_expand, moves=True)),
    **onnx_rules("Tile", Rule(_tile, follows=(0,))),
}

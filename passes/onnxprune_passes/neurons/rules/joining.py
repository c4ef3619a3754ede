"""Concat and Split: the ids of the parts one after the other, or cut apart again; Split's sizes are rewritten."""

from __future__ import annotations

import numpy as np

from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..operands import aligned, united
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _concat(trace: Trace, node: Node) -> None:
    rank = len(trace.dims(node.input(0)) or ())
    axes = {axis for name in node.proto.input for axis in trace.flow(name).axes}
    if not axes and rank != 1:
        return
    axis = node.integer("axis", 1) % max(rank, 1)
    if axis not in axes and rank != 1:
        _beside(trace, node)
    elif axes - {axis}:
        trace.refuse(node, "neurons lie along the axis it joins and along another")
    else:
        _joined(trace, node, axis)


def _beside(trace: Trace, node: Node) -> None:
    """Parts joined along an axis without neurons: united, known where all are the same constant."""
    parts = aligned(trace, node, range(len(node.proto.input)))
    if parts is None:
        return
    ids = united(trace, node, parts)
    known = np.logical_and.reduce(
        [np.broadcast_to(part.known & (part.values == parts[0].values), ids.shape) for part in parts]
    )
    trace.put(node, 0, Flow.of(ids).with_known(known, parts[0].values))


def _joined(trace: Trace, node: Node, axis: int) -> None:
    """Parts joined along the neurons' axis; a part that carries none has -1 for each entry."""
    parts = []
    for name in node.proto.input:
        size = (trace.dims(name) or (None,) * (axis + 1))[axis]
        if not isinstance(size, int):
            trace.refuse(node, f"the size of its part '{name}' is not known")
            return
        part = trace.flow(name).along({axis})
        shape = tuple(size if one == axis else 1 for one in range(part.rank))
        parts.append([np.broadcast_to(array, shape) for array in (part.ids, part.known, part.values)])
    ids, known, values = (np.concatenate(arrays, axis=axis) for arrays in zip(*parts, strict=True))
    trace.put(node, 0, Flow(ids, known, values, whole=ids.ndim == 1))


def _split(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    axis = node.integer("axis", 0) % max(carried.rank, 1)
    outputs = len(node.proto.output)
    if carried.ids.shape[axis : axis + 1] in ((), (1,)):
        for index in range(outputs):
            trace.put(node, index, carried)
        return
    sizes = _split_sizes(trace, node, carried.ids.shape[axis])
    if sizes is None or len(sizes) != outputs or sum(sizes) != carried.ids.shape[axis]:
        trace.refuse(node, "its sizes are computed")
        return
    edges = np.cumsum([0, *sizes])
    for index in range(outputs):
        trace.put(node, index, carried.picked(np.arange(edges[index], edges[index + 1]), axis))


def _split_sizes(trace: Trace, node: Node, size: int) -> tuple[int, ...] | None:
    given = node.integers("split")
    if given is not None:
        return given
    if node.input(1):
        found = trace.exact(node.input(1))
        return None if found is None else tuple(int(one) for one in found.reshape(-1))
    parts = len(node.proto.output)
    step = -(-size // parts)
    return (*(step,) * (parts - 1), size - step * (parts - 1))


def _rewrite_split(cut: Cut, node: Node) -> None:
    """The sizes that its outputs now have; they are named even if they were equal before."""
    axis = node.integer("axis", 0)
    rank = cut.rank(node.input(0))
    if axis % rank not in cut.keep(node.input(0)):
        return
    sizes = [cut.size(name, axis % rank) for name in node.proto.output]
    if node.opset < 13:
        cut.set_attribute(node, "split", sizes)
    else:
        cut.set_input(node, 1, np.array(sizes, np.int64))
        cut.drop_attribute(node, "num_outputs")


RULES: Rules = {
    **onnx_rules("Concat", Rule(_concat, moves=True)),
    **onnx_rules("Split", Rule(_split, _rewrite_split, moves=True, follows=(0,))),
}

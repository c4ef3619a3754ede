"""Operands brought to one rank, as numpy broadcasts them, ready to be united coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .classes import Ids
from .flow import Flow
from .graph import Dim, Node
from .trace import Trace

_LARGE = 1 << 20
"""A constant of more elements than this is not looked into for being the same along its other axes."""


def aligned(trace: Trace, node: Node, indices: Sequence[int]) -> list[Flow] | None:
    """The inputs `indices` of `node` as flows of one rank.

    Constants get ids on the axes along which the others carry neurons. None, with everything pinned, when one of them
    cannot lose what the others may lose.
    """
    shapes = [trace.dims(node.input(index)) for index in indices]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        trace.refuse(node, "the rank of an operand is not known")
        return None
    if len(indices) == 1:
        return [trace.flow(node.input(indices[0]))]
    rank = max(len(shape) for shape in known)
    flows = [trace.flow(node.input(index)).aligned(rank) for index in indices]
    axes = sorted({axis for flow in flows for axis in flow.axes} or _spread(trace, node, indices, rank))
    stiff = [axis for axis in axes if any(_lacks(trace, node, index, rank, axis) for index in indices)]
    if len(stiff) < len(axes):
        axes = [axis for axis in axes if axis not in stiff]
        flows = [stiffened(trace, node, flow, stiff) for flow in flows]
    parts = []
    for index, flow in zip(indices, flows, strict=True):
        part = operand(trace, node, index, rank, axes, flow)
        if part is None:
            trace.refuse(
                node, f"its operand '{node.input(index)}' carries no neuron along an axis where another one does"
            )
            return None
        parts.append(part)
    return parts


def _spread(trace: Trace, node: Node, indices: Sequence[int], rank: int) -> set[int]:
    """The axis along which a constant vector is laid over values of size 1 there (a norm's scale times 1 / deviation).

    The operands have no neurons: those of the result are the entries of the vector. Not of integers, which are sizes.
    """
    shapes = {index: (1,) * (rank - len(dims := trace.dims(node.input(index)) or ())) + dims for index in indices}
    wide = {
        (index, axis)
        for index in indices
        for axis, dim in enumerate(shapes[index])
        if dim != 1 and trace.constant(node.input(index)) is not None
    }
    if len(wide) != 1 or len(indices) == 1:
        return set()
    ((own, axis),) = wide
    floats = trace.graph.constants[node.input(own)].dtype.kind not in "iub"
    computed = any(trace.constant(node.input(index)) is None for index in indices)
    alone = floats and computed and all(shapes[index][axis] == 1 for index in indices if index != own)
    return {axis} if alone else set()


def _lacks(trace: Trace, node: Node, index: int, rank: int, axis: int) -> bool:
    """True when a computed input carries no neurons along `axis`, although it is not broadcast there."""
    name = node.input(index)
    dims = (1,) * (rank - len(trace.dims(name) or ())) + (trace.dims(name) or ())
    computed = trace.constant(name) is None
    return computed and dims[axis] != 1 and trace.flow(name).aligned(rank).ids.shape[axis] == 1


def stiffened(trace: Trace, node: Node, flow: Flow, axes: Collection[int]) -> Flow:
    """`flow` with the ids along each of `axes` united, so that it can only be cut along other axes."""
    for axis in set(axes) & set(flow.axes):
        first = flow.ids.take([0], axis=axis)
        trace.unite(node, first, flow.ids)
        others = flow.along([one for one in range(flow.rank) if one != axis])
        flow = Flow(first, others.known, others.values)
    return flow


def in_groups(trace: Trace, node: Node, flow: Flow, axis: int, groups: int) -> Flow:
    """`flow` along `axis` alone as `groups` equal parts, the ids of each united; known where a part is one constant."""
    flow = flow.along({axis})
    split = (*flow.ids.shape[:axis], groups, -1, *flow.ids.shape[axis + 1 :])
    united = stiffened(trace, node, flow.moved(lambda array: array.reshape(split)), (axis + 1,))
    return united.moved(lambda array: array.squeeze(axis + 1)).loose()


def operand(
    trace: Trace, node: Node, index: int, rank: int, axes: Collection[int], carried: Flow | None = None
) -> Flow | None:
    """Input `index` as a flow of `rank` axes that carries ids on those of `axes` along which it is not broadcast.

    None when it has no ids along one of them (it could not be cut there), or has ids along others. What it is along
    other axes is reduced to size 1. `carried`: its flow, when that is not as the trace has it.
    """
    name = node.input(index)
    shape = trace.dims(name)
    if shape is None or len(shape) > rank:
        return None
    dims: tuple[Dim, ...] = (1,) * (rank - len(shape)) + shape
    const = trace.constant(name)
    if const is None:
        part = trace.flow(name).aligned(rank) if carried is None else carried
        if set(part.axes) - set(axes):
            return None
        part = part.along(axes)
    else:
        part = _constant(trace, node, index, dims, axes)
    return None if any(part.ids.shape[axis] == 1 and dims[axis] != 1 for axis in axes) else part


def _constant(trace: Trace, node: Node, index: int, dims: tuple[Dim, ...], axes: Collection[int]) -> Flow:
    """A constant input: ids along the one axis of `axes` where it is not broadcast, none when there are several."""
    wide = [axis for axis in axes if dims[axis] != 1]
    rank, const = len(dims), trace.graph.constants[node.input(index)]
    large = trace.graph.source(const).size > _LARGE
    flow = Flow.empty(rank) if large else Flow.exact(trace.graph.array(const)).aligned(rank).along(wide)
    if len(wide) != 1:
        return flow.along(())
    own = trace.axis_ids(node, index, wide[0] - (rank - len(const.axes)))
    shape = tuple(-1 if axis == wide[0] else 1 for axis in range(rank))
    return Flow.of(own.reshape(shape)).with_known(flow.known, flow.values)


def united(trace: Trace, node: Node, parts: Sequence[Flow]) -> Ids:
    """The ids of aligned `parts` united; a part that broadcasts along every neuron axis takes no part."""
    if len(parts) == 1:
        return parts[0].ids
    found: Ids | None = None
    for part in parts:
        if part.ids.size > 1:
            found = part.ids if found is None else trace.unite(node, found, part.ids)
    return np.full((1,) * parts[0].rank, -1, np.int64) if found is None else found

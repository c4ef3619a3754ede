"""What rules of ops with weights share: a weight that reads neurons, one that makes them, a vector along them."""

from __future__ import annotations

import numpy as np

from .flow import Flow
from .graph import Node
from .records import Producer, Site
from .trace import Trace


def read(
    trace: Trace,
    node: Node,
    weight: tuple[int, int, int],
    summed: tuple[str, Flow],
    *,
    scale: float = 1.0,
    border: str = "",
) -> None:
    """A weight sums over neurons.

    Args:
        weight: the index of its input, the axis it reads along, the axis its sums fall on.
        summed: the value it reads and its flow along the summed axis, one axis; [1] where that carries no neuron.
        scale, border: as in `Site`.
    """
    index, in_axis, out_axis = weight
    name, flow = summed
    own = trace.axis_ids(node, index, in_axis)
    if flow.ids.size not in (1, own.size):
        trace.pin(
            np.concatenate([own, flow.ids]), node, f"its weight reads {own.size} neurons, '{name}' has {flow.ids.size}"
        )
        return
    alone = own.size == 1
    why = f"'{name}' has no other neuron for it to read" if alone else f"it reads '{name}', which carries no neurons"
    trace.unite(node, own, flow.ids, why)
    zero = trace.zero_slices(trace.graph.constants[node.input(index)], in_axis)
    known, values = (np.broadcast_to(array, own.shape) for array in (flow.known, flow.values))
    trace.sites.append(Site(node, index, in_axis, out_axis, own, zero, known, values, scale, border))


def make(trace: Trace, node: Node, index: int, axis: int) -> Producer:
    """A weight makes one neuron a slice of its `axis`; `index` is that of its input."""
    const = trace.graph.constants[node.input(index)]
    zero = trace.zero_slices(const, axis)
    producer = Producer(node, const.key, const.axes[axis], trace.axis_ids(node, index, axis), zero)
    trace.producers.append(producer)
    return producer


def made(producer: Producer, rank: int, axis: int) -> Flow:
    """The flow of what `producer` makes, `axis` of `rank` axes: 0 where its slice is all zero."""
    shape = tuple(-1 if one == axis else 1 for one in range(rank))
    zero = producer.zero.reshape(shape)
    return Flow(producer.ids.reshape(shape), zero, np.zeros(zero.shape, np.float32))


def vector(trace: Trace, node: Node, index: int, like: Flow) -> Flow:
    """Input `index`, one entry a neuron, laid along axis 1 of `like`: a constant with its own ids, or a computed."""
    const = trace.constant(node.input(index))
    if const is None:
        found = trace.flow(node.input(index), rank=1).moved(lambda array: np.broadcast_to(array, like.ids.shape[1]))
    else:
        values = trace.graph.array(const)
        found = Flow(trace.axis_ids(node, index, 0), np.ones(values.shape, np.bool_), values)
    shape = tuple(-1 if axis == 1 else 1 for axis in range(like.rank))
    return found.moved(lambda array: array.reshape(shape))


def plus(trace: Trace, node: Node, flow: Flow, addend: Flow, scale: float = 1.0) -> Flow:
    """`flow` + `scale` × `addend` (aligned): ids united unless the addend broadcasts, known where both are."""
    ids = trace.unite(node, flow.ids, addend.ids, "its bias is computed") if addend.ids.size > 1 else flow.ids
    dtype = addend.values.dtype
    values = flow.values + addend.values.astype(np.float64) * scale
    return Flow.of(ids).with_known(flow.known & addend.known, values.astype(dtype))


def summed(flow: Flow, axis: int) -> Flow:
    """`flow` along `axis` alone, as one axis; it carries no neurons elsewhere."""
    return flow.along({axis}).moved(lambda array: array.reshape(array.shape[axis]))

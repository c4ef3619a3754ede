"""Conv, ConvTranspose and onnxruntime's FusedConv: filters are neurons.

An ordinary one reads channels and makes new ones. A depthwise one (a filter or several a channel) passes its channels
on, united with its filters, and its `group` shrinks with them. In groups of several channels each, the channels at the
same place of every group are united, so that every group keeps as many; a group whose weights are all zero goes whole.
"""

from __future__ import annotations

import numpy as np

from ...arrays import NDArray
from ..classes import Ids
from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..readers import made, make, plus, read, summed, vector
from ..records import Site
from ..rule import Rule, Rules, onnx_rules
from ..slices import BoolArray
from ..trace import Trace


def _flow(trace: Trace, node: Node) -> None:
    const = trace.constant(node.input(1))
    if const is None:
        trace.refuse(node, "its weight is computed")
        return
    shape, groups = const.shape, node.integer("group", 1)
    carried = trace.flow(node.input(0), rank=len(shape))
    if carried.rank != len(shape) or set(carried.axes) - {1}:
        trace.refuse(node, "it reads neurons along another axis than the channels")
        carried = Flow.empty(len(shape))
    if groups == 1:
        flow = _ordinary(trace, node, carried)
    elif (shape[0] == groups) if node.op_type == "ConvTranspose" else (shape[1] == 1):
        flow = _depthwise(trace, node, carried, shape[1] if node.op_type == "ConvTranspose" else shape[0] // groups)
    elif shape[0] % groups or carried.ids.shape[1] not in (1, _channels(node, shape, groups)):
        trace.refuse(node, f"its weight {list(shape)} does not fit {groups} groups of its channels")
        return
    else:
        flow = _grouped(trace, node, carried, groups)
    if node.input(2):
        flow = plus(trace, node, flow, vector(trace, node, 2, flow))
    if node.op_type == "FusedConv":
        flow = _fused(trace, node, flow)
    trace.put(node, 0, flow)


def _fused(trace: Trace, node: Node, flow: Flow) -> Flow:
    """A value of the same shape is added, then an activation computed; only Relu's constants are known."""
    if node.input(3):
        added = trace.flow(node.input(3), rank=flow.rank)
        if added.rank != flow.rank or set(added.axes) - {1}:
            trace.pin(added.ids, node, "it adds neurons that lie along another axis than the channels")
            added = Flow.empty(flow.rank)
        ids = trace.unite(node, flow.ids, added.along({1}).ids)
        flow = plus(trace, node, Flow(ids, flow.known, flow.values), added.along({1}))
    activation = node.text("activation", "")
    if activation == "Relu":
        return flow.with_known(flow.known, np.maximum(flow.values, 0))
    return flow.unknown() if activation else flow


def _ordinary(trace: Trace, node: Node, carried: Flow) -> Flow:
    in_axis, out_axis = (0, 1) if node.op_type == "ConvTranspose" else (1, 0)
    read(trace, node, (1, in_axis, out_axis), (node.input(0), summed(carried, 1)), border=_border(trace, node))
    return made(make(trace, node, 1, out_axis), carried.rank, 1)


def _depthwise(trace: Trace, node: Node, carried: Flow, several: int) -> Flow:
    """Each channel united with the `several` filters that see it alone: 0, before the bias, where either is."""
    flow = made(make(trace, node, 1, 0), carried.rank, 1)
    if node.op_type == "ConvTranspose":
        flow = flow.moved(lambda array: array.repeat(several, axis=1))
    channels = carried.moved(lambda array: array.repeat(several, axis=1)) if carried.axes else carried
    ids = trace.unite(node, flow.ids, channels.ids, f"it reads '{node.input(0)}', which carries no neurons")
    zero = flow.known | (channels.known & (channels.values == 0))
    known, values = zero, np.zeros(ids.shape)
    if not _border(trace, node) and channels.known.any():
        known, values = zero | channels.known, channels.values * _filter_sums(trace, node).reshape(ids.shape)
    return Flow.of(ids).with_known(known, np.where(zero, 0, values).astype(trace.graph.constants[node.input(1)].dtype))


def _channels(node: Node, shape: tuple[int, ...], groups: int) -> int:
    """The number of channels that `node` reads."""
    return shape[0] if node.op_type == "ConvTranspose" else shape[1] * groups


def _grouped(trace: Trace, node: Node, carried: Flow, groups: int) -> Flow:
    """Several channels a group: the same places of all groups go together, unless groups that are zero can go whole."""
    const, turned = trace.graph.constants[node.input(1)], node.op_type == "ConvTranspose"
    empty: BoolArray = np.asarray(trace.zero_slices(const, 0).reshape(groups, -1).all(axis=1))
    if empty.any() and not empty.all() and not turned and carried.axes:
        return _whole_groups(trace, node, carried, empty)
    border = f"behind {node} does not fold, since it has {groups} groups"
    channels = summed(carried, 1)
    if turned:
        read(trace, node, (1, 0, 1), (node.input(0), channels), border=border)
        _unite_places(trace, node, trace.axis_ids(node, 1, 0), groups)
        flow = made(make(trace, node, 1, 1), carried.rank, 1)
        return flow.moved(lambda array: np.concatenate([array] * groups, axis=1))
    own = trace.axis_ids(node, 1, 1)
    grid = np.broadcast_to(channels.ids, groups * own.size).reshape(groups, own.size)
    trace.unite(node, np.broadcast_to(own, grid.shape), grid, f"it reads '{node.input(0)}', which carries no neurons")
    zeros = np.broadcast_to(channels.known & (channels.values == 0), grid.size)
    known: BoolArray = np.asarray(zeros.reshape(grid.shape).all(axis=0))
    zero, values = trace.zero_slices(const, 1), np.zeros(own.shape, np.float32)
    trace.sites.append(Site(node, 1, 1, 0, own, zero, known, values, border=border))
    producer = make(trace, node, 1, 0)
    _unite_places(trace, node, producer.ids, groups)
    return made(producer, carried.rank, 1)


def _unite_places(trace: Trace, node: Node, ids: Ids, groups: int) -> None:
    grid = ids.reshape(groups, -1)
    trace.unite(node, grid[:1], grid[1:])


def _whole_groups(trace: Trace, node: Node, carried: Flow, empty: BoolArray) -> Flow:
    """All channels that a group reads and makes are one neuron, read by nothing where the group is `empty`."""
    producer, groups = make(trace, node, 1, 0), empty.size
    rows, grid = producer.ids.reshape(groups, -1), carried.ids.reshape(groups, -1)
    for ids in (rows[:, 1:], grid):
        trace.unite(node, rows[:, :1], ids, f"it reads '{node.input(0)}', which carries no neurons")
    zero: BoolArray = np.repeat(empty, grid.shape[1])
    known, values = (array.reshape(-1) for array in (carried.known, carried.values))
    zeros: BoolArray = np.asarray(known & (values == 0))
    border = f"behind {node} does not fold, since it has {groups} groups"
    trace.sites.append(
        Site(node, 1, 0, 0, grid.reshape(-1), zero, zeros, np.zeros(zero.size, np.float32), border=border)
    )
    return made(producer, carried.rank, 1)


def _filter_sums(trace: Trace, node: Node) -> NDArray:
    array = trace.graph.array(trace.graph.constants[node.input(1)]).astype(np.float64)
    sums: NDArray = array.reshape(array.shape[0], -1).sum(axis=1)
    return sums


def _border(trace: Trace, node: Node) -> str:
    """Why a channel that is constant is not constant after `node`; '' when it is: no padding."""
    if node.op_type == "ConvTranspose":
        return f"behind {node} would change where filters overlap"
    kernel = trace.graph.constants[node.input(1)].shape[2:]
    mode = node.text("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        padded = any(size > 1 for size in kernel)
    else:
        padded = mode != "VALID" and any(node.integers("pads") or ())
    return f"behind padded {node} would change at the border" if padded else ""


def _rewrite(cut: Cut, node: Node) -> None:
    """`group` counts the groups of which channels are left: one a channel in a depthwise convolution."""
    channels, groups = cut.keep(node.input(0)).get(1), node.integer("group", 1)
    if groups > 1 and channels is not None:
        cut.set_attribute(node, "group", int(channels.reshape(groups, -1).any(axis=1).sum()))


RULES: Rules = {
    **onnx_rules("Conv ConvTranspose", Rule(_flow, _rewrite, any_rank=True)),
    ("com.microsoft", "FusedConv"): Rule(_flow, _rewrite, any_rank=True),
}

"""Conv and ConvTranspose: filters are neurons.

An ordinary one reads channels and makes new ones. A depthwise one (a filter or several a channel) passes its channels
on, united with its filters, and its `group` shrinks with them. Groups in between are refused.
"""

from __future__ import annotations

import numpy as np

from ...arrays import NDArray
from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..readers import made, make, plus, read, summed, vector
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _flow(trace: Trace, node: Node) -> None:
    const = trace.constant(node.input(1))
    if const is None:
        trace.refuse(node, "its weight is computed")
        return
    shape, groups = trace.graph.shape(const), node.integer("group", 1)
    carried = trace.flow(node.input(0), rank=len(shape))
    if carried.rank != len(shape) or set(carried.axes) - {1}:
        trace.refuse(node, "it reads neurons along another axis than the channels")
        carried = Flow.empty(len(shape))
    if groups == 1:
        flow = _ordinary(trace, node, carried)
    elif (shape[0] == groups) if node.op_type == "ConvTranspose" else (shape[1] == 1):
        flow = _depthwise(trace, node, carried, shape[1] if node.op_type == "ConvTranspose" else shape[0] // groups)
    else:
        trace.refuse(node, f"it has {groups} groups of several channels each")
        return
    if node.input(2):
        flow = plus(trace, node, flow, vector(trace, node, 2, flow))
    trace.put(node, 0, flow)


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


def _filter_sums(trace: Trace, node: Node) -> NDArray:
    array = trace.graph.array(trace.graph.constants[node.input(1)]).astype(np.float64)
    sums: NDArray = array.reshape(array.shape[0], -1).sum(axis=1)
    return sums


def _border(trace: Trace, node: Node) -> str:
    """Why a channel that is constant is not constant after `node`; '' when it is: no padding."""
    if node.op_type == "ConvTranspose":
        return f"behind {node} would change where filters overlap"
    kernel = trace.graph.shape(trace.graph.constants[node.input(1)])[2:]
    mode = node.text("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        padded = any(size > 1 for size in kernel)
    else:
        padded = mode != "VALID" and any(node.integers("pads") or ())
    return f"behind padded {node} would change at the border" if padded else ""


def _rewrite(cut: Cut, node: Node) -> None:
    """`group` of a depthwise convolution follows its channels."""
    channels = cut.keep(node.input(0)).get(1)
    if node.integer("group", 1) > 1 and channels is not None:
        cut.set_attribute(node, "group", int(channels.sum()))


RULES: Rules = onnx_rules("Conv ConvTranspose", Rule(_flow, _rewrite, any_rank=True))

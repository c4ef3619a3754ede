"""Normalisations and softmax.

BatchNormalization has four numbers a channel, cut with it. InstanceNormalization too, and it maps a channel that is 0
to its bias. GroupNormalization loses whole groups. What mixes neurons (a norm or softmax along the axis they lie on,
LRN) is refused: each one changes all others.
"""

from __future__ import annotations

import numpy as np

from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..operands import in_groups, stiffened
from ..readers import plus, vector
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _batch_normalization(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    trains = node.integer("training_mode", 0) or any(node.proto.output[1:])
    if trains or not node.integer("spatial", 1):
        trace.refuse(node, "it computes statistics of its input")
        return
    if set(carried.axes) - {1} or carried.rank < 2:
        trace.refuse(node, "it normalises along another axis than the neurons lie on")
        return
    vectors = [vector(trace, node, index, carried) for index in range(1, 5)]
    ids = carried.ids
    for one in vectors:
        ids = trace.unite(node, ids, one.ids, "its input carries no neurons, or its parameters are computed")
    known = carried.known & np.logical_and.reduce([one.known for one in vectors])
    x, scale, bias, mean, variance = (one.values.astype(np.float64) for one in (carried, *vectors))
    with np.errstate(all="ignore"):
        values = (x - mean) / np.sqrt(variance + node.attributes.get("epsilon", 1e-5)) * scale + bias
    trace.put(node, 0, Flow.of(ids).with_known(known, values.astype(vectors[0].values.dtype)))


def _instance_normalization(trace: Trace, node: Node) -> None:
    """Axes that are normalised over may carry neurons (channels merged with space): those of one slice are united."""
    carried = trace.flow(node.input(0))
    if 0 in carried.axes or carried.rank < 3:
        trace.refuse(node, "it normalises along an axis that carries neurons")
        return
    carried = stiffened(trace, node, carried, range(2, carried.rank))
    scale = vector(trace, node, 1, carried)
    ids = trace.unite(node, carried.ids, scale.ids, "its input carries no neurons, or its parameters are computed")
    zero = Flow.of(ids).with_known(carried.only_zeros().known, np.zeros(ids.shape, scale.values.dtype))
    trace.put(node, 0, plus(trace, node, zero, vector(trace, node, 2, carried)))


def _group_normalization(trace: Trace, node: Node) -> None:
    """Whole groups: the channels of one are united; a group of zeros becomes its bias.

    Scale and bias have one entry a channel, before opset 21 one a group.
    """
    carried, groups = trace.flow(node.input(0)), node.integer("num_groups", 1)
    vectors = [trace.constant(node.input(index)) for index in (1, 2)]
    if set(carried.axes) != {1} or None in vectors:
        trace.refuse(node, "it normalises along another axis than the neurons lie on, or its parameters are computed")
        return
    channels = carried.ids.shape[1]
    if groups == 1 or channels % groups:
        trace.refuse(node, "it normalises over all neurons together, and each changes the others")
        return
    flow = in_groups(trace, node, carried, 1, groups)
    copies = np.repeat(np.arange(groups), channels // groups)
    flow = (flow.only_zeros() if node.opset < 21 else flow.only_zeros().picked(copies, 1)).loose()
    scale = vector(trace, node, 1, flow)
    ids = trace.unite(node, flow.ids, scale.ids)
    flow = Flow.of(ids).with_known(flow.known, np.zeros(ids.shape, scale.values.dtype))
    flow = plus(trace, node, flow, vector(trace, node, 2, flow))
    trace.put(node, 0, flow.picked(copies, 1) if node.opset < 21 else flow)


def _rewrite_group_normalization(cut: Cut, node: Node) -> None:
    """The number of groups of which channels are left."""
    keep = cut.keep(node.input(0)).get(1)
    if keep is not None:
        cut.set_attribute(node, "num_groups", int(keep.reshape(node.integer("num_groups", 1), -1).any(axis=1).sum()))


def _softmax(trace: Trace, node: Node) -> None:
    """Along an axis without neurons each is normalised by itself; before opset 13 all axes from `axis` on are one."""
    carried = trace.flow(node.input(0))
    rank = carried.rank
    axis = node.integer("axis", -1 if node.opset >= 13 else 1)
    axis = axis + rank if axis < 0 else axis
    mixed = {axis} if node.opset >= 13 else set(range(axis, rank))
    if mixed & set(carried.axes):
        trace.refuse(node, "each neuron on its axis changes all others")
        return
    trace.put(node, 0, carried.unknown())


def _normalised(trace: Trace, node: Node) -> tuple[int, ...]:
    """The axes that a norm without neurons' own parameters is computed over."""
    rank = trace.flow(node.input(0)).rank
    if node.op_type == "MeanVarianceNormalization":
        return node.integers("axes") or (0, 2, 3)
    axis = node.integer("axis", -1)
    axis = axis + rank if axis < 0 else axis
    return (axis,) if node.op_type == "LpNormalization" else tuple(range(axis, rank))


def _beside(trace: Trace, node: Node) -> None:
    """Neurons along other axes than it normalises over, also in the statistics that it gives out.

    Where they lie along both (heads, and the numbers of a head) those that change each other are united.
    """
    carried = trace.flow(node.input(0))
    mixed = {axis % max(carried.rank, 1) for axis in _normalised(trace, node)} & set(carried.axes)
    if mixed and mixed == set(carried.axes):
        trace.refuse(node, "it normalises over the axis that they lie on, and each changes all others")
        return
    carried = stiffened(trace, node, carried, mixed)
    for index in range(len(node.proto.output)):
        trace.put(node, index, carried.unknown())


def _mixes(among: str) -> Rule:
    return Rule(lambda trace, node: trace.refuse(node, f"it normalises over {among}, and each changes the others"))


_LAST_AXIS = (
    """SkipLayerNormalization SkipSimplifiedLayerNormalization EmbedLayerNormalization GroupNorm SkipGroupNorm"""
)

RULES: Rules = {
    **onnx_rules("LRN", _mixes("neighbouring neurons")),
    **{("com.microsoft", op_type): _mixes("an axis or groups of neurons") for op_type in _LAST_AXIS.split()},
    **onnx_rules("BatchNormalization", Rule(_batch_normalization)),
    **onnx_rules("InstanceNormalization", Rule(_instance_normalization)),
    **onnx_rules("GroupNormalization", Rule(_group_normalization, _rewrite_group_normalization)),
    **onnx_rules("Softmax LogSoftmax Hardmax", Rule(_softmax)),
    **onnx_rules(
        """LayerNormalization SimplifiedLayerNormalization RMSNormalization LpNormalization
        MeanVarianceNormalization""",
        Rule(_beside, follows=(0,)),
    ),
}

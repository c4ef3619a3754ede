"""Normalisations and softmax.

BatchNormalization has four numbers a channel, cut with it. InstanceNormalization too, and it maps a channel that is 0
to its bias. What mixes neurons (a norm or softmax along the axis they lie on, LRN, groups) is refused: each one
changes all others.
"""

from __future__ import annotations

import numpy as np

from ..flow import Flow
from ..graph import Node
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
    carried = trace.flow(node.input(0))
    if set(carried.axes) - {1} or carried.rank < 3:
        trace.refuse(node, "it normalises along an axis that carries neurons")
        return
    scale = vector(trace, node, 1, carried)
    ids = trace.unite(node, carried.ids, scale.ids, "its input carries no neurons, or its parameters are computed")
    zero = Flow.of(ids).with_known(carried.only_zeros().known, np.zeros(ids.shape, scale.values.dtype))
    trace.put(node, 0, plus(trace, node, zero, vector(trace, node, 2, carried)))


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


def _layer_normalization(trace: Trace, node: Node) -> None:
    axis = node.integer("axis", -1)
    trace.refuse(node, f"it normalises over the axes from {axis} on, and each neuron changes all others")


def _mixes(among: str) -> Rule:
    return Rule(lambda trace, node: trace.refuse(node, f"it normalises over {among}, and each changes the others"))


RULES: Rules = {
    **onnx_rules("LRN", _mixes("neighbouring neurons")),
    **onnx_rules("GroupNormalization", _mixes("groups of neurons")),
    **onnx_rules("MeanVarianceNormalization LpNormalization RMSNormalization", _mixes("an axis or several")),
    **onnx_rules("BatchNormalization", Rule(_batch_normalization)),
    **onnx_rules("InstanceNormalization", Rule(_instance_normalization)),
    **onnx_rules("Softmax LogSoftmax Hardmax", Rule(_softmax)),
    **onnx_rules("LayerNormalization", Rule(_layer_normalization)),
}

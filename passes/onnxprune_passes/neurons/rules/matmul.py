"""Gemm, MatMul and onnxruntime's FusedMatMul with one constant operand, on either side.

The weight reads neurons along the axis it sums over and makes new ones along its other axis. Neurons that lie along
another axis of the computed operand pass (the weight works beside them), and then the weight makes none. Products of
two computed values are in product.py; Gemm refuses them.
"""

from __future__ import annotations

from ..flow import Flow
from ..graph import Node
from ..operands import operand
from ..readers import made, make, plus, read, summed
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace
from .product import product


def _matmul(trace: Trace, node: Node) -> None:
    turned = node.integer("transB", 0)
    if any(node.integer(name, 0) for name in ("transA", "transBatchA", "transBatchB")):
        trace.refuse(node, "it turns its first operand, or batches")
        return
    if trace.constant(node.input(0)) is None and trace.constant(node.input(1)) is None:
        product(trace, node, bool(turned))
        return
    weight = _weight(trace, node)
    if weight is None or (weight == 0 and turned):
        trace.refuse(node, "it turns its second operand, which is computed")
        return
    const = trace.graph.constants[node.input(weight)]
    name = node.input(1 - weight)
    dims = trace.dims(name)
    if dims is None or len(dims) < 2 or len(const.axes) < 2:
        trace.refuse(node, "an operand is a vector, or its rank is not known")
        return
    last, before_last = len(const.axes) - 1, len(const.axes) - 2
    in_axis, out_axis = (before_last, last) if weight == 1 and not turned else (last, before_last)
    rank = max(len(dims), len(const.axes))
    from_right = 1 if weight == 1 else 2
    carried = trace.flow(name).aligned(rank)
    if set(carried.axes) - {rank - from_right}:
        _beside(trace, node, weight, carried, rank - from_right)
        return
    border = "" if len(const.axes) == 2 else f"behind {node}, whose weight has batch axes, has no bias to fold into"
    alpha = float(node.attributes.get("alpha", 1.0))
    axes = (weight, in_axis, out_axis)
    read(trace, node, axes, (name, summed(carried, rank - from_right)), scale=alpha, border=border)
    trace.put(node, 0, made(make(trace, node, weight, out_axis), rank, rank - from_right))


def _beside(trace: Trace, node: Node, weight: int, carried: Flow, sum_axis: int) -> None:
    """Neurons along other axes than the one summed over: each is mapped by the same weight, 0 to 0."""
    shape = trace.graph.constants[node.input(weight)].shape
    own = (1,) * (carried.rank - len(shape)) + shape
    if any(axis == sum_axis or (axis < carried.rank - 2 and own[axis] != 1) for axis in carried.axes):
        trace.refuse(node, "its weight reads along several axes that carry neurons")
        return
    trace.put(node, 0, carried.only_zeros())


def _gemm(trace: Trace, node: Node) -> None:
    weight = _weight(trace, node)
    if weight is None:
        return
    name = node.input(1 - weight)
    carried, turned = trace.flow(name, rank=2), (node.integer("transA", 0), node.integer("transB", 0))
    sum_axis = turned[0] ^ 1 if weight == 1 else turned[1]
    in_axis = turned[1] if weight == 1 else turned[0] ^ 1
    if carried.rank != 2 or set(carried.axes) - {sum_axis}:
        trace.refuse(node, "its computed operand carries neurons along another axis than the one summed over")
        return
    alpha, beta = (float(node.attributes.get(one, 1.0)) for one in ("alpha", "beta"))
    read(trace, node, (weight, in_axis, 1 - in_axis), (name, summed(carried, sum_axis)), scale=alpha)
    flow = made(make(trace, node, weight, 1 - in_axis), 2, weight)
    if node.input(2):
        addend = operand(trace, node, 2, 2, (weight,))
        if addend is None:
            trace.refuse(node, "its bias cannot be cut with its neurons")
            trace.pin(flow.ids, node, "its bias cannot be cut with them")
            return
        flow = plus(trace, node, flow, addend, beta)
    trace.put(node, 0, flow)


def _weight(trace: Trace, node: Node) -> int | None:
    """Which of the two operands is the constant one; None, with everything pinned, when neither is."""
    for index in (1, 0):
        if trace.constant(node.input(index)) is not None:
            return index
    trace.refuse(node, "both its operands are computed")
    return None


RULES: Rules = {
    **onnx_rules("MatMul", Rule(_matmul)),
    **onnx_rules("Gemm", Rule(_gemm, any_rank=True)),
    ("com.microsoft", "FusedMatMul"): Rule(_matmul),
}

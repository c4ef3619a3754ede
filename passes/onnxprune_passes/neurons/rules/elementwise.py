"""Ops that work on each coordinate by itself, with numpy's broadcasting: the ids of the operands are united.

A constant operand that has the neuron axis is cut with it; one that broadcasts along it is left alone. The result is
a known constant where all operands are; a product is 0 where one factor is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...arrays import NDArray
from ..flow import Flow
from ..graph import Node
from ..operands import aligned, united
from ..rule import Rule, Rules, onnx_rules
from ..slices import BoolArray
from ..trace import Trace


def flow(trace: Trace, node: Node) -> None:
    """Unite all operands."""
    indices = [index for index, name in enumerate(node.proto.input) if name]
    parts = aligned(trace, node, indices)
    if parts is not None:
        after = Flow.of(united(trace, node, parts))
        trace.put(node, 0, after.with_known(*_constants(trace, node, indices, parts, after)))


def _constants(
    trace: Trace, node: Node, indices: Sequence[int], parts: Sequence[Flow], after: Flow
) -> tuple[BoolArray, NDArray]:
    """Where the result is known, and its values there."""
    known: BoolArray = np.ones(after.ids.shape, np.bool_)
    zero: BoolArray = np.zeros(after.ids.shape, np.bool_)
    for part in parts:
        known = known & part.known
        zero = zero | (part.known & (part.values == 0))
    values = after.values
    if known.any():
        inputs: list[NDArray | None] = [None] * len(node.proto.input)
        for index, part in zip(indices, parts, strict=True):
            rank = len(trace.dims(node.input(index)) or ())
            inputs[index] = part.values.reshape((1,) * rank) if part.values.size == 1 else part.values
        outputs = trace.evaluated(node, inputs)
        known, values = (after.known, values) if outputs is None else (known, outputs[0])
    if node.op_type == "Mul" and zero.any():
        known, values = known | zero, np.where(zero, np.zeros((), values.dtype), values)
    return known, values


def _passes(trace: Trace, node: Node) -> None:
    """Ids and constants of the first input, unchanged."""
    trace.put(node, 0, trace.flow(node.input(0)))


def _dropout(trace: Trace, node: Node) -> None:
    """As Identity; when it trains (opset 12 on, an input says so) the constants are no longer known."""
    carried = trace.flow(node.input(0))
    trains = trace.exact(node.input(2)) if node.input(2) else np.zeros(1)
    if trains is None or trains.any():
        carried = carried.unknown()
    trace.put(node, 0, carried)
    trace.put(node, 1, carried.unknown())


def _clip(trace: Trace, node: Node) -> None:
    """As any other; before opset 11 the bounds are attributes."""
    if node.opset >= 11:
        flow(trace, node)
        return
    carried = trace.flow(node.input(0))
    low, high = (node.attributes.get(name, default) for name, default in (("min", -np.inf), ("max", np.inf)))
    trace.put(
        node, 0, carried.with_known(carried.known, np.clip(carried.values, low, high).astype(carried.values.dtype))
    )


_UNARY = """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid
HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign
Sqrt Swish Tan Tanh ThresholdedRelu"""
_BROADCASTING = """Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean
Min Mod Mul Or Pow PRelu Sub Sum Where Xor"""

RULES: Rules = {
    **onnx_rules(f"{_UNARY} {_BROADCASTING}", Rule(flow)),
    **onnx_rules("Cast", Rule(flow, moves=True)),
    **onnx_rules("Identity", Rule(_passes, moves=True)),
    **onnx_rules("CastLike", Rule(_passes)),
    **onnx_rules("Dropout", Rule(_dropout, follows=(0,))),
    **onnx_rules("Clip", Rule(_clip)),
}

"""What each standard operator uses as a weight: which of its inputs, and what their axes mean."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
EMBEDDING = "embedding"


@dataclass(frozen=True)
class Role:
    """What an operator input is.

    Attributes:
        kind: `conv`, `fc`, `rnn` or `embedding`.
        out_axis: the axis of the operand (negative counts from the end) that counts output neurons.
        in_axis: the axis of the operand that is summed over; None for an embedding.
        gates: for a recurrent weight, the number of gate matrices that lie one after the other along axis 1.
        zero_point_input: the input of the same node with the integers that mean 0; None where weights are floats.
        scale_input: the input of the same node with the step sizes; None where there is none.
    """

    kind: str
    out_axis: int | None
    in_axis: int | None
    gates: int = 0
    zero_point_input: int | None = None
    scale_input: int | None = None


def roles_of(node: onnx.NodeProto) -> dict[int, Role]:
    """The inputs of a standard operator that take weights."""
    flags = {attribute.name: attribute.i for attribute in node.attribute if attribute.type == onnx.AttributeProto.INT}
    op_type = node.op_type
    if op_type in ("Conv", "FusedConv"):
        return {1: Role("conv", 0, 1)}
    if op_type == "ConvTranspose":
        return {1: Role("conv", 1, 0)}
    if op_type == "ConvInteger":
        return {1: Role("conv", 0, 1, zero_point_input=3)}
    if op_type == "QLinearConv":
        return {3: Role("conv", 0, 1, zero_point_input=5, scale_input=4)}
    if op_type in ("Gemm", "FusedGemm", "MatMul", "FusedMatMul"):
        left, right = (-1, -2) if flags.get("transA") else (-2, -1), (-2, -1) if flags.get("transB") else (-1, -2)
        return {0: Role("fc", *left), 1: Role("fc", *right)}
    if op_type == "MatMulInteger":
        return {0: Role("fc", -2, -1, zero_point_input=2), 1: Role("fc", -1, -2, zero_point_input=3)}
    if op_type == "QLinearMatMul":
        return {0: Role("fc", -2, -1, 0, 2, 1), 3: Role("fc", -1, -2, 0, 5, 4)}
    if op_type in GATES:
        return {1: Role("rnn", 1, 2, GATES[op_type]), 2: Role("rnn", 1, 2, GATES[op_type])}
    if op_type == "Gather" and not flags.get("axis"):
        return {0: Role(EMBEDDING, -1, None)}
    return {}

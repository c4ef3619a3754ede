"""The layer before a BatchNormalization: a Conv, ConvTranspose, Gemm or MatMul and the Add of its bias."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ..arrays import Array, Masked, NDArray
from ..storage.keys import first_output
from .blocks import Block
from .draft import Draft
from .known import Known

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with a weight of its own, whose output has its channels along axis 1.

    Attributes:
        block: where it is.
        node: the node.
        add: the Add of a constant behind it; None when there is none.
        key: the key of its weight.
        out_axis: the axis of the weight that counts channels (of ConvTranspose: those of one group).
        groups: of a ConvTranspose, else 1.
        channels: how many the output has.
        bias: the index of the node's input that takes a bias; None for MatMul.
        beta: what a Gemm multiplies its bias with, else 1.
        rank: the number of axes of the output.
    """

    block: Block
    node: onnx.NodeProto
    add: onnx.NodeProto | None
    key: str
    out_axis: int
    groups: int
    channels: int
    bias: int | None
    beta: float
    rank: int

    @property
    def bias_inputs(self) -> list[tuple[onnx.NodeProto, int]]:
        """The inputs (node, index) that are, or can be, a number added to each channel; the last one can take more."""
        inputs = []
        if self.bias is not None and (self.add is None or any(self.node.input[self.bias :])):
            inputs.append((self.node, self.bias))
        if self.add is not None:
            inputs.append((self.add, 1 - list(self.add.input).index(self.node.output[0])))
        return inputs


def layer_before(draft: Draft, known: Known, block: Block, value: str, *, keep_inputs: bool) -> Layer | str:
    """The layer that makes `value` for a single reader; or why there is none, which names the node in the way."""
    reason = _not_alone(draft, block, value)
    if reason:
        return reason
    last = block.made[value]
    node, add = last, None
    if last.op_type == "Add" and _is_standard(last):
        makers = [name for name in last.input if name in block.made and block.made[name].op_type in LAYERS]
        if len(makers) != 1 or list(last.input).count(makers[0]) != 1:
            return f"blocked by {_named(last)}, which adds something else than a bias"
        reason = _not_alone(draft, block, makers[0])
        if reason:
            return reason
        node, add = block.made[makers[0]], last
    if node.op_type not in LAYERS or not _is_standard(node):
        return f"blocked by {_named(node)}, which has no weight to scale"
    name = node.input[1]
    key = draft.key(block, name)
    why = ""
    if key is None or draft.before.initializers.source(key).dtype.kind in "iub":
        why = "is computed or quantised"
    elif len(block.readers(name)) != 1:
        why = "is read elsewhere too"
    elif keep_inputs and draft.may_be_set(block, name):
        why = "is a graph input, which a caller may set"
    if key is None or why:
        return f"blocked by {_named(node)}, whose weight '{name}' {why}"
    return _layer(draft, known, block, node, add, key)


def _layer(
    draft: Draft, known: Known, block: Block, node: onnx.NodeProto, add: onnx.NodeProto | None, key: str
) -> Layer | str:
    source: Array | Masked = draft.before.initializers.source(key)
    shape = source.shape
    numbers = {one.name: one.f if one.type == onnx.AttributeProto.FLOAT else one.i for one in node.attribute}
    groups, axis, rank, beta = 1, 0, len(shape), 1.0
    if node.op_type == "ConvTranspose":
        groups, axis = int(numbers.get("group", 1)), 1
    elif node.op_type == "Gemm":
        axis, beta = 0 if numbers.get("transB") else 1, float(numbers.get("beta", 1.0))
    elif node.op_type == "MatMul":
        axis, left = 1, known.dims(block, node.input[0])
        if left is None or len(left) != 2:
            return f"blocked by {_named(node)}, whose output is not known to have two axes"
    if rank < 2 or (node.op_type in ("Gemm", "MatMul") and rank != 2) or shape[0] % groups:
        return f"blocked by {_named(node)}, whose weight has the shape {list(shape)}"
    bias = None if node.op_type == "MatMul" else 2
    return Layer(block, node, add, key, axis, groups, shape[axis] * groups, bias, beta, rank)


def channel_vector(values: NDArray, channels: int, rank: int) -> NDArray | None:
    """`values`, which broadcast against an output of `rank` axes, as one number a channel (axis 1); else None."""
    if values.ndim > rank:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    if shape[1] not in (1, channels) or any(size != 1 for axis, size in enumerate(shape) if axis != 1):
        return None
    vector: NDArray = values.reshape(-1).repeat(channels if shape[1] == 1 else 1)
    return vector


def _not_alone(draft: Draft, block: Block, value: str) -> str:
    """Why `value` cannot be changed for its one reader; '' when it can."""
    if value not in block.made:
        return f"its input '{value}' is not made by a node beside it"
    reads = block.readers(value)
    if any(read.node is None for read in reads):
        return f"its input '{value}' is an output too"
    others = [read.node for read in reads if read.node is not None]
    if len(others) > 1:
        return f"its input '{value}' is read by {' and '.join(map(_named, others[:3]))}"
    return f"a quantization annotation names '{value}'" if draft.is_annotated(value) else ""


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _named(node: onnx.NodeProto) -> str:
    return f"{node.op_type} node '{node.name or first_output(node)}'"

"""Values that follow from graph inputs without any weight, and the layers that read their features with a weight."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from .blocks import Read
from .draft import Draft

_MOVES = ("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather", "Slice")
_EACH = ("Add", "Sub", "Mul", "Div", "Neg", "Concat")
_RANKS = {
    **dict.fromkeys(("Gemm", "MatMul"), (2,)),
    **dict.fromkeys(("Conv", "ConvTranspose"), (3, 4, 5)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (3,)),
}
"""Operators that read features with a weight, and the numbers of axes that weight may have."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A node that reads the features along `axis` of a value with those along `in_axis` of its weight.

    `axis` counts from the end where it is negative.
    """

    node: onnx.NodeProto
    index: int
    weight: str
    axis: int
    in_axis: int


def near_inputs(draft: Draft) -> list[str]:
    """The graph inputs of the main graph, and what is made of them without weights, in the order of the graph."""
    main = draft.main
    near = [value.name for value in main.graph.input if value.name not in main.stored]
    known = set(near)
    for node in main.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in (*_MOVES, *_EACH):
            continue
        if node.op_type in _MOVES and node.input[0] not in known:
            continue  # a table that an input looks rows up in
        computed = [name for name in node.input if name and draft.key(main, name) is None]
        if computed and all(name in known for name in computed):
            near.append(node.output[0])
            known.add(node.output[0])
    return near


def reader_of(read: Read, opset: int) -> Reader | None:
    """The reader that `read` is; None where it reads otherwise than through a weight of two axes or a convolution's."""
    node, index = read.node, read.index
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    flags = {one.name: one.i for one in node.attribute if one.type == onnx.AttributeProto.INT}
    if node.op_type == "Gemm" and index in (0, 1):
        turned = bool(flags.get("transA")), bool(flags.get("transB"))
        summed = 0 if turned[0] else 1, 1 if turned[1] else 0
        return Reader(node, index, node.input[1 - index], summed[index], summed[1 - index])
    if node.op_type == "MatMul" and index == 0 and opset >= 11:  # since when Gather counts axes from the end
        return Reader(node, 0, node.input[1], -1, 0)
    if node.op_type in ("Conv", "ConvTranspose") and index == 0 and flags.get("group", 1) == 1:
        return Reader(node, 0, node.input[1], 1, 1 if node.op_type == "Conv" else 0)
    if node.op_type in ("LSTM", "GRU", "RNN") and index == 0 and not flags.get("layout"):
        return Reader(node, 0, node.input[1], 2, 2)
    return None


def weight_readers(draft: Draft, value: str) -> list[Reader]:
    """The readers of `value` with a weight of floats that is stored, whoever else reads that."""
    main = draft.main
    found = [reader_of(read, draft.before.opset) for read in main.readers(value) if read.block is main]
    return [reader for reader in found if reader is not None and _is_stored(draft, reader)]


def groups_of(draft: Draft, value: str) -> list[list[Reader]]:
    """The readers of `value` that can do without some of its features, those along the same axis together.

    Each has a weight that no one outside the group reads.
    """
    readers = weight_readers(draft, value)
    groups: dict[tuple[int, int], list[Reader]] = {}
    for reader in readers:
        shape = draft.before.initializers.source(reader.weight).shape
        groups.setdefault((reader.axis, shape[reader.in_axis]), []).append(reader)
    return [group for group in (_closed(draft, group) for group in groups.values()) if group]


def _is_stored(draft: Draft, reader: Reader) -> bool:
    key = draft.key(draft.main, reader.weight)
    if key != reader.weight or draft.is_annotated(key):
        return False
    source = draft.before.initializers.source(key)
    return source.dtype.kind not in "iub" and len(source.shape) in _RANKS[reader.node.op_type]


def _closed(draft: Draft, group: list[Reader]) -> list[Reader]:
    """The readers of `group` whose weights only they read."""
    nodes = {id(reader.node) for reader in group}
    kept = [reader for reader in group if all(id(read.node) in nodes for read in draft.main.readers(reader.weight))]
    return kept if len(kept) == len(group) else _closed(draft, kept)

"""The layers that read the features of a value with a weight, and when fewer features are worth a copy of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from ..model import Model
from .blocks import Read
from .draft import Draft
from .known import Dims

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


_RUN = 16
"""So many numbers in a row are copied about as fast as one."""
_SAVED, _SAVED_ONE_BY_ONE, _SAVED_IN_ONE_ROW = 16, 400, 256
"""Multiplications to save for each number that is copied: in runs, one by one, and one by one in a single row."""


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


def saves_bytes(model: Model, readers: Sequence[Reader], dead: int, live: int) -> bool:
    """False where positions of the live features take more bytes than the dead ones' entries do when stored densely."""
    sources = (model.initializers.source(key) for key in {reader.weight for reader in readers})
    return dead * sum(source.size * source.dtype.itemsize for source in sources) > 4 * live * (dead + live)


def saves_time(model: Model, dims: Dims | None, readers: Sequence[Reader], dead: int, live: int) -> bool:
    """False where a run that copies the live features is likely slower than one that reads the dead ones too.

    A Gather along the last axis copies number by number, each as long as hundreds of multiplications of a MatMul;
    along the channels of a picture it copies whole planes (`tests/benchmarks/gather.py`).

    Args:
        model: holds the weights.
        dims: the shape of the value that they read, as far as it is known.
        readers: all along one axis.
        dead, live: how many features.
    """
    shapes = {reader.weight: model.initializers.source(reader.weight).shape for reader in readers}
    saved = dead * sum(math.prod(shape) for shape in shapes.values()) // (dead + live)
    dims = dims or (None,) * len(shapes[readers[0].weight])
    at = readers[0].axis % len(dims)
    if None in dims[at + 1 :] or math.prod(size for size in dims[at + 1 :] if size) >= _RUN:
        return saved >= _SAVED * live
    return saved >= (_SAVED_IN_ONE_ROW if all(size == 1 for size in dims[:at]) else _SAVED_ONE_BY_ONE) * live

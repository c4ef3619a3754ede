"""Attention in one node: ONNX's Attention, and com.microsoft's MultiHeadAttention and Attention.

Each is laid out here as what it computes: queries, keys and values split into heads, scores, a softmax, weighted sums
of the values, heads joined. The products are those of product.py, so whole heads go, and inner dimensions of queries
and keys, or of values, for all heads at once. The numbers of heads follow, and `scale` keeps its default of before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..cut import Cut
from ..flow import Flow
from ..graph import Dim, Node
from ..readers import made, make, plus, read, summed
from ..rule import Rule, Rules
from ..trace import Trace
from .product import contracted

_PARTS = ("queries", "keys", "values")


@dataclass(frozen=True)
class _Heads:
    """The numbers of query and key heads, and how many numbers a head of queries, keys and values has."""

    queries: int
    keys: int
    sizes: tuple[int, int, int]

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.queries, self.keys, self.keys


def _attend(trace: Trace, node: Node, flows: list[Flow], heads: _Heads) -> Flow | None:
    """What the output carries, [1, heads, 1, size]; `flows`: queries, keys, values, laid out like that."""
    for part, flow in zip(_PARTS, flows, strict=True):
        trace.flows[_name(node, part)] = flow
    copies = np.repeat(np.arange(heads.keys), heads.queries // heads.keys)
    query, key, value = flows
    key, value = (one.picked(copies, 1) if one.ids.shape[1] > 1 else one for one in (key, value))
    batch: tuple[Dim, ...] = (None, heads.queries)
    dims = [(*batch, None, heads.sizes[0]), (*batch, heads.sizes[1], None)]
    scores = contracted(trace, node, query, key.moved(lambda array: array.swapaxes(-1, -2)), dims)
    if scores is None:
        return None
    after = contracted(trace, node, scores.unknown(), value, [(*batch, None, None), (*batch, None, heads.sizes[2])])
    if after is not None:
        trace.flows[_name(node, "sums")] = after
    return after


def _name(node: Node, part: str) -> str:
    """The name under which a flow that no value of the graph has is kept, so that only whole slices of it are cut."""
    return f"{node.output(0)} {part}"


def _split(flow: Flow, heads: int, size: int) -> Flow | None:
    """[1, 1, heads × size] as [1, heads, 1, size]; None when neurons lie elsewhere."""
    if set(flow.axes) - {2} or flow.rank != 3 or flow.ids.shape[2] not in (1, heads * size):
        return None
    split = (1, heads, 1, size) if flow.ids.shape[2] > 1 else (1, 1, 1, 1)
    return flow.along({2}).moved(lambda array: array.reshape(split)).loose()


def _joined(flow: Flow) -> Flow:
    """[1, heads, 1, size] as [1, 1, heads × size]."""
    return flow.moved(lambda array: array.reshape(1, 1, -1)).loose()


def _blocked(trace: Trace, node: Node, mask: int, caches: tuple[int, ...]) -> str:
    """Why no head can be taken out of `node`: '' when they can. `mask`, `caches`: the indices of such inputs."""
    if any(node.output(index) for index in range(1, len(node.proto.output))):
        return "it also gives out its keys, values or scores"
    if any(node.input(index) for index in caches):
        return "its keys or values come from a cache too"
    dims = trace.dims(node.input(mask)) if node.input(mask) else ()
    if dims is None or (len(dims) > 2 and dims[-3] != 1):
        return "its mask tells heads apart, or has an unknown shape"
    return ""


def _onnx(trace: Trace, node: Node) -> None:
    """Q, K and V are [batch, length, heads × size], or [batch, heads, length, size]."""
    names = [node.input(index) for index in range(3)]
    shapes = [trace.dims(name) for name in names]
    why = _blocked(trace, node, 3, (4, 5))
    heads, whole = _onnx_heads(node, shapes), all(shape is not None and len(shape) == 4 for shape in shapes)
    if why or heads is None:
        trace.refuse(node, why or "the number or size of its heads is not known")
        return
    flows = []
    for name, count, size in zip(names, heads.counts, heads.sizes, strict=True):
        flow = trace.flow(name)
        part = (flow if not set(flow.axes) & {0, 2} else None) if whole else _split(flow, count, size)
        if part is None:
            trace.refuse(node, "it reads neurons along another axis than heads and their numbers")
            return
        flows.append(part.along({1, 3}))
    after = _attend(trace, node, flows, heads)
    if after is not None:
        trace.put(node, 0, after if whole else _joined(after))


def _onnx_heads(node: Node, shapes: list[tuple[Dim, ...] | None]) -> _Heads | None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) < 3 or len({len(shape) for shape in known}) > 1 or len(known[0]) not in (3, 4):
        return None
    sizes = [shape[-1] for shape in known]
    counts: list[Dim] = [shape[1] for shape in known]
    if len(known[0]) == 3:
        queries, keys = node.integer("q_num_heads", 0), node.integer("kv_num_heads", 0)
        counts = [queries, keys, keys]
        sizes = [
            size // count if isinstance(size, int) and isinstance(count, int) and count else None
            for size, count in zip(sizes, counts, strict=True)
        ]
    return _checked(counts, sizes)


def _checked(counts: Sequence[Dim], sizes: Sequence[Dim]) -> _Heads | None:
    """The heads, when every number is known and they fit one another."""
    ints = [one for one in (*counts, *sizes) if isinstance(one, int) and one > 0]
    if len(ints) < 6 or ints[1] != ints[2] or ints[0] % ints[1] or ints[3] != ints[4]:
        return None
    return _Heads(ints[0], ints[1], (ints[3], ints[4], ints[5]))


def _rewrite_onnx(cut: Cut, node: Node) -> None:
    """Numbers of heads of the form with three axes."""
    if "q_num_heads" in node.attributes:
        for attribute, part in (("q_num_heads", "queries"), ("kv_num_heads", "keys")):
            keep = cut.keep(_name(node, part)).get(1)
            if keep is not None:
                cut.set_attribute(node, attribute, int(keep.sum()))
    _keep_scale(cut, node)


def _keep_scale(cut: Cut, node: Node) -> None:
    """`scale` is 1 / sqrt(size of a head) unless it is given (0 counts as not given): it says so from now on."""
    keep = cut.keep(_name(node, "queries")).get(3)
    if keep is not None and not node.attributes.get("scale", 0.0):
        cut.set_attribute(node, "scale", 1 / math.sqrt(keep.size))


def _multi_head(trace: Trace, node: Node) -> None:
    """Queries, keys and values of three inputs, each [batch, length, heads × size], and a bias for all three."""
    shapes = [trace.dims(node.input(index)) or () for index in range(3)]
    why = _blocked(trace, node, 5, (6, 7))
    count = node.integer("num_heads", 0)
    widths = [shape[-1] if len(shape) == 3 else None for shape in shapes]
    sizes = [width // count if isinstance(width, int) and count else None for width in widths]
    heads = _checked([count] * 3, sizes)
    if why or heads is None or (node.input(3) and trace.constant(node.input(3)) is None):
        trace.refuse(node, why or "its queries, keys and values are not three inputs, or its bias is computed")
        return
    flows = [trace.flow(node.input(index)) for index in range(3)]
    _finish(trace, node, flows, heads)


def _finish(trace: Trace, node: Node, flows: list[Flow], heads: _Heads) -> None:
    """Add the bias for queries, keys and values, input 2 or 3, split into heads, attend, join."""
    place = 3 if node.op_type == "MultiHeadAttention" else 2
    parts: list[Flow] = []
    start = 0
    for flow, count, size in zip(flows, heads.counts, heads.sizes, strict=True):
        if node.input(place):
            bias = _bias(trace, node, place, slice(start, start + count * size))
            ids = trace.unite(node, flow.ids, bias.ids, "it adds a bias to a value without neurons, or to the last one")
            flow = plus(trace, node, Flow(ids, flow.known, flow.values), bias)
        part = _split(flow, count, size)
        start += count * size
        if part is None:
            trace.refuse(node, "it reads neurons along another axis than heads and their numbers")
            return
        parts.append(part)
    after = _attend(trace, node, parts, heads)
    if after is not None:
        trace.put(node, 0, _joined(after))


def _bias(trace: Trace, node: Node, index: int, part: slice) -> Flow:
    """A stretch of a constant bias, laid along the last of three axes."""
    values = trace.graph.array(trace.graph.constants[node.input(index)])
    own = Flow(trace.axis_ids(node, index, 0), np.ones(values.shape, np.bool_), values)
    return own.moved(lambda array: array[part].reshape(1, 1, -1))


def _rewrite_heads(cut: Cut, node: Node) -> None:
    """The number of heads, and the three widths where they are named or differ now."""
    keep = cut.keep(_name(node, "queries")).get(1)
    if keep is not None:
        cut.set_attribute(node, "num_heads", int(keep.sum()))
    _keep_scale(cut, node)
    if node.op_type == "Attention":
        widths = [_width(cut, node, part) for part in _PARTS]
        if node.integers("qkv_hidden_sizes") or len(set(widths)) > 1:
            cut.set_attribute(node, "qkv_hidden_sizes", widths)


def _width(cut: Cut, node: Node, part: str) -> int:
    name = _name(node, part)
    shape, keep = cut.trace.flows[name].ids.shape, cut.keep(name)
    return math.prod(int(keep[axis].sum()) if axis in keep else shape[axis] for axis in (1, 3))


def _packed(trace: Trace, node: Node) -> None:
    """One weight [features, queries + keys + values] makes all three; the bias has as many numbers."""
    weight, bias = trace.constant(node.input(1)), trace.constant(node.input(2))
    count, shape = node.integer("num_heads", 0), () if weight is None else weight.shape
    sizes = node.integers("qkv_hidden_sizes") or ((shape[1] // 3,) * 3 if len(shape) == 2 else ())
    heads = _checked([count] * 3, [size // count if count else None for size in sizes]) if len(sizes) == 3 else None
    why = "it turns positions" if node.integer("do_rotary", 0) else _blocked(trace, node, 5, (4,))
    if why or heads is None or sum(sizes) != shape[1] or (node.input(2) and bias is None):
        trace.refuse(node, why or "its weight or bias is computed, or does not fit its heads")
        return
    carried = trace.flow(node.input(0), rank=3)
    if carried.rank != 3 or set(carried.axes) - {2}:
        trace.refuse(node, "it reads neurons along another axis than the features")
        return
    read(trace, node, (1, 0, 1), (node.input(0), summed(carried, 2)))
    flow = made(make(trace, node, 1, 1), 3, 2)
    edges = np.cumsum([0, *sizes])
    flows = [flow.picked(np.arange(edges[one], edges[one + 1]), 2) for one in range(3)]
    _finish(trace, node, flows, heads)


RULES: Rules = {
    ("", "Attention"): Rule(_onnx, _rewrite_onnx, follows=(0, 1, 2)),
    ("com.microsoft", "MultiHeadAttention"): Rule(_multi_head, _rewrite_heads, follows=(0, 1, 2, 3)),
    ("com.microsoft", "Attention"): Rule(_packed, _rewrite_heads, follows=(0, 1, 2)),
}

"""Multiply-accumulates of the nodes that use weights, from shapes that ONNX's own inference finds.

1 MAC = 2 FLOPs. Only products with a stored weight count: attention's products of two computed tensors do not.

| operator | MACs of one weight |
|---|---|
| Conv | N · output positions · entries of the weight |
| ConvTranspose | N · input positions · entries of the weight |
| Gemm, MatMul | entries of the output · length of the summed axis |
| LSTM, GRU, RNN | steps · batch · entries of the weight (all gates and directions) |
| Gather | 0 |
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
from onnxprune_passes.model import Model
from onnxprune_passes.scopes import Scope, scopes
from onnxprune_passes.storage.keys import body_prefix, first_output
from onnxprune_passes.weights import Weight, WeightUse

from .shapes import Shape, inferred_model, value_shapes

BATCH_NOTE = "MACs are of one run with every batch axis taken as 1"


class NodeShapes:
    """The nodes of a model, found by what a `WeightUse` says of them, with the shapes of their values.

    Batch axes (the first axis of a graph input, when it is dynamic, and every axis with the same symbol) count as 1.
    """

    def __init__(self, model: Model) -> None:
        inferred = inferred_model(model.skeleton)
        shapes = {prefix: value_shapes(graph) for prefix, graph in _graphs(inferred)}
        self._nodes: dict[tuple[str, str], list[tuple[Scope, onnx.NodeProto]]] = {}
        self._shapes = shapes
        for scope in scopes(inferred):
            for node in scope.nodes:
                label = (node.name or first_output(node), node.op_type)
                self._nodes.setdefault(label, []).append((scope, node))

    def macs(self, weight: Weight) -> int | None:
        """MACs of all uses of `weight`, dense; None when a shape is not known before the model runs."""
        each = [self.macs_of_use(weight, use) for use in weight.uses]
        known = [macs for macs in each if macs is not None]
        return sum(known) if len(known) == len(each) else None

    def macs_of_use(self, weight: Weight, use: WeightUse) -> int | None:
        """MACs of one use of `weight`, dense; None likewise."""
        if weight.kind == "embedding" or use.op_type == "Gather":
            return 0
        nodes = self._nodes.get((use.node, use.op_type), [])
        if len(nodes) != 1:
            return None
        scope, node = nodes[0]
        if weight.kind == "conv":
            transposed = use.op_type == "ConvTranspose"
            shape = self._shape(scope, node.input[0] if transposed else node.output[0])
            return None if shape is None else _product((shape[0], *shape[2:]), weight.size)
        if weight.kind == "rnn":
            shape = self._shape(scope, node.input[0])
            return None if shape is None else _product(shape[:2], weight.size)
        shape, summed = self._shape(scope, node.output[0]), self._summed(scope, node, use)
        return None if shape is None or summed is None else _product(shape, summed)

    def _summed(self, scope: Scope, node: onnx.NodeProto, use: WeightUse) -> int | None:
        """The length of the axis that a matrix product sums over, read from the weight as the node sees it."""
        shape = self._shape(scope, node.input[use.input_index])
        left = use.input_index == 0
        flag = "transA" if left else "transB"
        transposed = any(attribute.name == flag and attribute.i for attribute in node.attribute)
        axis = -1 if left != transposed else -2
        return None if shape is None or len(shape) < 2 else shape[axis]

    def _shape(self, scope: Scope, name: str) -> Shape | None:
        within: Scope | None = scope
        while within is not None:
            shape = self._shapes.get(within.prefix, {}).get(name)
            if shape is not None:
                return shape
            within = within.outer
        return None


def total(macs: Iterable[int | None]) -> int | None:
    """The sum, None when one is not known."""
    each = list(macs)
    known = [one for one in each if one is not None]
    return sum(known) if len(known) == len(each) else None


def _product(sizes: Shape, factor: int) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) * factor if len(known) == len(sizes) else None


def _graphs(model: onnx.ModelProto) -> Iterable[tuple[str, onnx.GraphProto]]:
    pending = [("", model.graph)]
    while pending:
        prefix, graph = pending.pop()
        yield prefix, graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append((body_prefix(prefix, node, attribute.name), attribute.g))

"""Where the activations of a layer are, and what it reads: values of the main graph, found from the weights' uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx
from onnxprune_passes.model import Model
from onnxprune_passes.roles import GATES
from onnxprune_passes.scopes import scopes
from onnxprune_passes.storage.keys import first_output, is_constant
from onnxprune_passes.weights import Weight, WeightUse

_SAME = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast", "Dropout"))
"""Operators that move entries and change none."""
_POOLS = frozenset(("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"))
_ACTIVATIONS = frozenset(
    (
        *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Elu", "Selu", "Celu", "Softplus", "Softsign"),
        *("Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Mish", "Tanh", "Gelu", "FastGelu", "QuickGelu", "BiasGelu"),
        *("BatchNormalization", "LRN", "QuantizeLinear", "DequantizeLinear"),
    )
)
_RECURRENT = 2
"""The input of a recurrent node with the weights of its own state."""
_ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div"))
_ON_THE_WAY_IN = frozenset(("Pad", "Slice", "Gather", "QuantizeLinear", "DequantizeLinear"))
"""Operators that a model may begin with: what is behind them is its input still."""


@dataclass(frozen=True)
class Place:
    """One use of a weight; names of values in the main graph, None where they are in a body or function.

    Attributes:
        made: the value with the activations.
        reads: the value that is multiplied with the weight, in front of its padding.
        reads_input: whether that is an input of the model, moved and scaled at most.
    """

    made: str | None
    reads: str | None
    reads_input: bool


class Places:
    """Finds the places of the uses of weights in a dense model."""

    def __init__(self, model: Model) -> None:
        self._graph = model.graph
        self._nodes: dict[tuple[str, str], list[onnx.NodeProto | None]] = {}
        for scope in scopes(model.skeleton):
            for node in scope.nodes:
                label = (node.name or first_output(node), node.op_type)
                self._nodes.setdefault(label, []).append(None if scope.prefix else node)
        self._stored = {tensor.name for tensor in self._graph.initializer}
        self._stored |= {first_output(node) for node in self._graph.node if is_constant(node)}
        self._inputs = {value.name for value in self._graph.input} - self._stored

    def of(self, weight: Weight) -> tuple[Place, ...]:
        """One for each of the uses of `weight`."""
        return tuple(self._place(use) for use in weight.uses)

    def _place(self, use: WeightUse) -> Place:
        found = self._nodes.get((use.node, use.op_type), [])
        node = found[0] if len(found) == 1 else None
        if node is None:
            return Place(None, None, reads_input=False)
        if node.op_type in GATES and use.input_index == _RECURRENT:
            return Place(self._made(node), first_output(node), reads_input=False)  # it reads what it gave before
        reads = node.input[1 - use.input_index if _is_product(node) else 0]
        return Place(self._made(node), self._unpadded(reads), self._is_input(reads))

    def _made(self, node: onnx.NodeProto) -> str | None:
        """The value behind everything that follows `node` alone and makes activations of what it computes."""
        value = first_output(node)
        while True:
            readers = self._readers.get(value, ())
            reader = readers[0] if len(readers) == 1 and value not in self._outputs else None
            if reader is None or not self._follows(reader, value):
                return value
            value = first_output(reader)

    def _follows(self, node: onnx.NodeProto, value: str) -> bool:
        """Whether what `node` makes of `value` is still an activation of the layer."""
        if node.op_type in _SAME | _POOLS | _ACTIVATIONS:
            return bool(node.input[0] == value)
        others = [name for name in node.input if name != value]
        if node.op_type in _ARITHMETIC and all(name in self._stored for name in others):
            return True
        return bool(node.op_type in ("Add", "Sum"))  # residual: its activations are those of all that is added

    def _unpadded(self, name: str) -> str:
        node = self._producers.get(name)
        return self._unpadded(node.input[0]) if node is not None and node.op_type == "Pad" else name

    def _is_input(self, name: str) -> bool:
        while name not in self._inputs:
            node = self._producers.get(name)
            if node is None:
                return False
            computed = [one for one in node.input if one and one not in self._stored]
            if node.op_type not in _SAME | _ON_THE_WAY_IN | _ARITHMETIC or len(computed) != 1:
                return False
            name = computed[0]
        return True

    @cached_property
    def _producers(self) -> Mapping[str, onnx.NodeProto]:
        return {name: node for node in self._graph.node for name in node.output if name}

    @cached_property
    def _outputs(self) -> frozenset[str]:
        return frozenset(value.name for value in self._graph.output)

    @cached_property
    def _readers(self) -> Mapping[str, Sequence[onnx.NodeProto | None]]:
        """Value → what reads it: a node of the main graph, or None for something in a body."""
        found: dict[str, list[onnx.NodeProto | None]] = {}
        for node in self._graph.node:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
            for name in _captured(node):
                found.setdefault(name, []).append(None)
        return found


def _is_product(node: onnx.NodeProto) -> bool:
    """Whether either operand can be the weight."""
    return node.op_type in ("Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulInteger")


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """The names that the bodies of `node` read, those of their own values among them."""
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from inner.input
                yield from _captured(inner)

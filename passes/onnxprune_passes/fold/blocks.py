"""The main graph and every body below it as blocks: who makes each value there, and who reads it, wherever it is.

Names resolve inwards out, as in `scopes`, which these are to be changed. Model-local functions are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

from ..storage import keys


@dataclass(frozen=True, eq=False)
class Read:
    """One place that reads a value: input `index` of `node`, or, where `node` is None, output `index` of `block`."""

    block: Block
    node: onnx.NodeProto | None
    index: int


@dataclass(frozen=True, eq=False)
class Block:
    """The main graph or a body.

    Attributes:
        prefix: what the keys of its tensors start with.
        graph: the graph itself.
        outer: the block around a body; None for the main graph.
        nodes: its nodes in file order.
        given: the names of its inputs.
        stored: the names of its initializers, sparse ones too.
        made: value → the node here that makes it.
        reads: value that is defined here → all who read it, here and in bodies below.
        bodies: the blocks right below, by the node (its id) that holds them.
    """

    prefix: str
    graph: onnx.GraphProto
    outer: Block | None
    nodes: list[onnx.NodeProto]
    given: set[str]
    stored: set[str]
    made: dict[str, onnx.NodeProto]
    reads: dict[str, list[Read]] = field(default_factory=dict)
    bodies: dict[int, list[Block]] = field(default_factory=dict)

    def defines(self, name: str) -> bool:
        """True when `name` is an input, an initializer, or made by a node of this very block."""
        return name in self.made or name in self.stored or name in self.given

    def home(self, name: str) -> Block | None:
        """The block, this one or one around it, that defines `name`; None when none does."""
        block: Block | None = self
        while block is not None and not block.defines(name):
            block = block.outer
        return block if name else None

    def readers(self, name: str) -> list[Read]:
        """Who reads the value that `name` means here."""
        home = self.home(name)
        return [] if home is None else home.reads.get(name, [])

    def note(self, name: str, read: Read) -> None:
        """Enter a reader of the value that `name` means here."""
        home = self.home(name)
        if home is not None:
            home.reads.setdefault(name, []).append(read)

    def note_inputs(self, node: onnx.NodeProto) -> None:
        """Enter `node` of this block as a reader of each of its inputs."""
        for index, name in enumerate(node.input):
            self.note(name, Read(self, node, index))


def blocks_of(graph: onnx.GraphProto) -> list[Block]:
    """`graph` and every body below it, all readers entered; a body comes after what holds it."""
    blocks = list(_with_bodies(graph, "", None))
    for block in blocks:
        for node in block.nodes:
            block.note_inputs(node)
        for index, value in enumerate(block.graph.output):
            block.note(value.name, Read(block, None, index))
    return blocks


def _with_bodies(graph: onnx.GraphProto, prefix: str, outer: Block | None) -> Iterator[Block]:
    nodes = list(graph.node)
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {sparse.values.name for sparse in graph.sparse_initializer}
    made = {name: node for node in nodes for name in node.output if name}
    block = Block(prefix, graph, outer, nodes, {value.name for value in graph.input}, stored, made)
    yield block
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                below = list(_with_bodies(attribute.g, keys.body_prefix(prefix, node, attribute.name), block))
                block.bodies.setdefault(id(node), []).append(below[0])
                yield from below

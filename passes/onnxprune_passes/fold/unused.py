"""`RemoveUnused`: nodes that lead to no output, and tensors and functions that nothing uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from ..pipeline import Change, Skip, State
from .blocks import Block
from .draft import Draft, drop_initializers

_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains whose operators do nothing but compute their outputs."""


@dataclass(frozen=True)
class RemoveUnused:
    """Drop nodes that no output depends on, initializers that nothing reads, and functions that nothing calls.

    In the main graph and in bodies of If, Loop and Scan, whose outputs all count as read. What stays: graph inputs; an
    initializer that is a graph input too, which a caller may set (from IR version 4 on; before it every initializer
    is one); operators of other domains, which may do more than compute; nodes within functions.
    """

    @property
    def name(self) -> str:
        """The pass's name in logs, reports and recipes."""
        return "remove-unused"

    def __call__(self, state: State) -> State:
        """The state without them; the same object when there are none."""
        if state.model.skeleton.training_info:
            return state.noted(Skip(self.name, "the graph", "it holds training graphs, which would no longer fit"))
        draft = Draft(state.model)
        live = _Live(draft)
        nodes = tensors = 0
        for block in draft.blocks:
            kept = [node for node in block.nodes if id(node) in live.nodes]
            unread = {
                name
                for name in block.stored - live.values[id(block)]
                if not draft.may_be_set(block, name) and not draft.is_annotated(name)
            }
            nodes, tensors = nodes + len(block.nodes) - len(kept), tensors + len(unread)
            block.nodes[:] = kept
            block.made.clear()
            block.made.update({name: node for node in kept for name in node.output if name})
            drop_initializers(block, unread)
        uncalled = {(one.domain, one.name) for one in draft.functions} - live.called
        draft.drop_functions(uncalled)
        counts = ((nodes, "node"), (tensors, "initializer"), (len(uncalled), "function"))
        if not any(count for count, _ in counts):
            return state
        dropped = ", ".join(f"{count} {what}{'s' if count > 1 else ''}" for count, what in counts if count)
        return draft.state(state).noted(Change(self.name, f"dropped {dropped}"))


class _Live:
    """What the outputs of a draft depend on.

    Attributes:
        nodes: the ids of live nodes; a body's are live only when its owner is.
        values: block (its id) → the names defined there that live nodes and outputs read.
        called: (domain, name) of the functions that live nodes call, and that those call.
    """

    def __init__(self, draft: Draft) -> None:
        self.nodes: set[int] = set()
        self.values: dict[int, set[str]] = {id(block): set() for block in draft.blocks}
        self.called: set[tuple[str, str]] = set()
        self._functions = {(one.domain, one.name): one for one in draft.functions}
        self._waiting: list[tuple[Block, str]] = []
        self._enter(draft.main)
        while self._waiting:
            block, name = self._waiting.pop()
            home = block.home(name)
            if home is not None and name not in self.values[id(home)]:
                self.values[id(home)].add(name)
                if name in home.made:
                    self._use(home, home.made[name])

    def _enter(self, block: Block) -> None:
        """The outputs of a graph that runs, and what in it does more than compute."""
        self._waiting += [(block, value.name) for value in block.graph.output]
        for annotation in block.graph.quantization_annotation:
            self._waiting += [(block, entry.value) for entry in annotation.quant_parameter_tensor_names]
        for node in block.nodes:
            if not any(node.output) or not self._only_computes(node):
                self._use(block, node)

    def _only_computes(self, node: onnx.NodeProto) -> bool:
        """False for an operator that may do more than compute its outputs, and for a function with one in it."""
        function = self._functions.get((node.domain, node.op_type))
        if function is not None:
            return all(map(self._only_computes, _nodes_within(function.node)))
        return node.domain in _STANDARD

    def _use(self, block: Block, node: onnx.NodeProto) -> None:
        if id(node) in self.nodes:
            return
        self.nodes.add(id(node))
        self._call(node)
        self._waiting += [(block, name) for name in node.input]
        for body in block.bodies.get(id(node), ()):
            self._enter(body)

    def _call(self, node: onnx.NodeProto) -> None:
        """Enter the function that `node` calls, if it does, and those which that one calls."""
        function = self._functions.get((node.domain, node.op_type))
        if function is not None and (node.domain, node.op_type) not in self.called:
            self.called.add((node.domain, node.op_type))
            for inner in _nodes_within(function.node):
                self._call(inner)


def _nodes_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """`nodes` and those of the bodies that they hold."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes_within(attribute.g.node)

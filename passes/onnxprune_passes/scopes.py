"""Which values a graph, body or function sees: names resolve inwards out, from a body to the graphs around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx

from .storage import keys


@dataclass(frozen=True, eq=False)
class Scope:
    """The values visible in one graph or function body: who makes them, and the scope around it."""

    prefix: str
    nodes: tuple[onnx.NodeProto, ...]
    initializers: frozenset[str]
    outer: Scope | None = None
    formal: tuple[str, ...] = ()

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Value name → the node of this scope that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """The main graph, every body below it, and every function with the bodies below that."""
    yield from _graph_scopes(model.graph, "", None)
    for function in model.functions:
        scope = Scope(keys.function_prefix(function), tuple(function.node), frozenset(), None, tuple(function.input))
        yield from _with_bodies(scope)


def _graph_scopes(graph: onnx.GraphProto, prefix: str, outer: Scope | None) -> Iterator[Scope]:
    yield from _with_bodies(Scope(prefix, tuple(graph.node), frozenset(t.name for t in graph.initializer), outer))


def _with_bodies(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graph_scopes(attribute.g, keys.body_prefix(scope.prefix, node, attribute.name), scope)

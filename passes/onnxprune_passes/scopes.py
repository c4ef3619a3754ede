"""Which values a graph, body or function sees: names resolve inwards out, from a body to the graphs around it, and
from the formal inputs of a function to what a call gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx

from .storage import keys


@dataclass(frozen=True, eq=False)
class Scope:
    """The values visible in one graph or function body: who makes them, and the scope around it.

    Attributes:
        prefix: what the keys of its tensors start with.
        nodes, initializers: what is in it; the latter by name.
        outer: the scope around a body; None for the main graph and for a function.
        given: formal input of a function → where its value is: the calling scope and the name there. Empty where no
            call is known.
    """

    prefix: str
    nodes: tuple[onnx.NodeProto, ...]
    initializers: frozenset[str]
    outer: Scope | None = None
    given: Mapping[str, tuple[Scope, str]] = field(default_factory=dict)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Value name → the node of this scope that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """The main graph, every body below it, and every function with the bodies below that."""
    yield from graph_scopes(model.graph)
    for function in model.functions:
        yield from function_scopes(function)


def function_scopes(
    function: onnx.FunctionProto, given: Mapping[str, tuple[Scope, str]] | None = None
) -> Iterator[Scope]:
    """The body of `function`, with `given` for its formal inputs, and the bodies below it."""
    yield from _with_bodies(Scope(keys.function_prefix(function), tuple(function.node), frozenset(), None, given or {}))


def graph_scopes(graph: onnx.GraphProto, prefix: str = "", outer: Scope | None = None) -> Iterator[Scope]:
    """`graph`, whose keys start with `prefix`, in the scope `outer`, and the bodies below it."""
    yield from _with_bodies(Scope(prefix, tuple(graph.node), frozenset(t.name for t in graph.initializer), outer))


def _with_bodies(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graph_scopes(attribute.g, keys.body_prefix(scope.prefix, node, attribute.name), scope)
